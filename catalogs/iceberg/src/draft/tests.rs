#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidewater_catalogs::{
    ChangeKind, Error, ErrorKind, LakeCatalog, LakeTable, NewTable, Repeated, Result, TableDraft, TableName,
};

use crate::change::tests::version_3::{self, Lineage};
use crate::change::tests::{RENAMED, answer};
use crate::tests::{TestLake, append, new_table, query, rows, runner};

async fn load(lake: &TestLake, name: &str) -> Arc<dyn LakeTable> {
    lake.lake.load_table(&TableName::public(name)).await.unwrap()
}

async fn begin(lake: &TestLake, name: &str) -> Arc<dyn TableDraft> {
    load(lake, name).await.draft().unwrap()
}

fn now(draft: &Arc<dyn TableDraft>) -> Arc<dyn LakeTable> {
    Arc::clone(draft).table().unwrap()
}

async fn change(table: Arc<dyn LakeTable>, kind: ChangeKind, sql: &str) -> Result<()> {
    let change = table.change(kind)?;
    let rows = answer(change.as_ref(), sql).await;
    change.apply(rows, Repeated::Refused, None, &runner()).await.map(|_| ())
}

async fn delete(table: Arc<dyn LakeTable>, condition: &str) -> Result<()> {
    change(table, ChangeKind::Delete, &format!("SELECT _tidewater_place FROM t WHERE {condition}")).await
}

async fn rename(table: Arc<dyn LakeTable>, condition: &str) -> Result<()> {
    change(table, ChangeKind::Update, &format!("{RENAMED} WHERE {condition}")).await
}

async fn commit(lake: &TestLake, drafts: &[&Arc<dyn TableDraft>]) -> Result<()> {
    let drafts: Vec<_> = drafts.iter().map(|draft| Arc::clone(draft)).collect();
    lake.lake.commit_drafts(&drafts).await
}

/// Names by id.
async fn contents(table: &dyn LakeTable) -> BTreeMap<i64, Option<String>> {
    let mut all = BTreeMap::new();
    for batch in query(table, "SELECT id, name FROM t").await {
        let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let name = names.is_valid(row).then(|| names.value(row).to_string());
            assert_eq!(all.insert(ids.value(row), name), None, "row {} is there twice", ids.value(row));
        }
    }
    all
}

async fn snapshots(lake: &TestLake, name: &str) -> usize {
    lake.lake.table_state(&TableName::public(name)).await.unwrap().metadata.snapshots().len()
}

fn is_conflict(done: Result<()>) {
    let e: Error = done.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
}

#[tokio::test]
async fn several_changes_become_one_snapshot_and_nobody_sees_them_before() {
    let lake = TestLake::new().await;
    let t = lake.table("t", vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    append(t.as_ref(), vec![rows(100, 200)]).await.unwrap();
    let before = snapshots(&lake, "t").await;
    let draft = begin(&lake, "t").await;
    assert!(!draft.is_changed());
    append(now(&draft).as_ref(), vec![rows(200, 250)]).await.unwrap();
    delete(now(&draft), "id < 10").await.unwrap();
    delete(now(&draft), "id >= 5 AND id < 20").await.unwrap();
    delete(now(&draft), "id >= 240").await.unwrap();
    rename(now(&draft), "id = 150 OR id = 220").await.unwrap();
    delete(now(&draft), "id >= 100 AND id < 150").await.unwrap();
    let mine = contents(now(&draft).as_ref()).await;
    assert_eq!((mine.len(), mine[&220].as_deref()), (200 - 20 - 50 + 40, Some("new")));
    assert_eq!((lake.count("t").await, snapshots(&lake, "t").await), (200, before));
    commit(&lake, &[&draft]).await.unwrap();
    assert_eq!(contents(load(&lake, "t").await.as_ref()).await, mine);
    assert_eq!(snapshots(&lake, "t").await, before + 1);
}

#[tokio::test]
async fn what_comes_to_nothing_is_no_snapshot() {
    let lake = TestLake::new().await;
    let t = lake.table("t", vec![]).await;
    append(t.as_ref(), vec![rows(0, 10)]).await.unwrap();
    let before = snapshots(&lake, "t").await;
    let draft = begin(&lake, "t").await;
    append(now(&draft).as_ref(), vec![rows(10, 20)]).await.unwrap();
    delete(now(&draft), "id >= 10").await.unwrap();
    commit(&lake, &[&draft]).await.unwrap();
    assert_eq!((lake.count("t").await, snapshots(&lake, "t").await), (10, before));
}

#[tokio::test]
async fn a_mark_is_gone_back_to() {
    let lake = TestLake::new().await;
    let t = lake.table("t", vec![]).await;
    append(t.as_ref(), vec![rows(0, 10)]).await.unwrap();
    let draft = begin(&lake, "t").await;
    delete(now(&draft), "id = 1").await.unwrap();
    let mark = draft.mark();
    now(&draft).overwrite(None, false, &runner()).await.unwrap();
    assert_eq!(contents(now(&draft).as_ref()).await.len(), 0);
    draft.reset(&mark);
    append(now(&draft).as_ref(), vec![rows(10, 12)]).await.unwrap();
    commit(&lake, &[&draft]).await.unwrap();
    assert_eq!(lake.count("t").await, 11);
}

#[tokio::test]
async fn what_others_do_meanwhile_counts_as_it_does_for_one_change() {
    for (mine, theirs, conflicts) in [
        ("id = 5", "id = 6", true),
        ("id = 5", "id = 105", false),
        ("id < 50", "id >= 0 AND id < 100", true),
        // A file that the draft has deleted rows of twice, so that one of its own manifests lists it.
        ("id % 50 = 5", "id = 205", false),
    ] {
        let lake = TestLake::new().await;
        let t = lake.table("t", vec![]).await;
        for from in [0, 100, 200] {
            append(t.as_ref(), vec![rows(from, from + 100)]).await.unwrap();
        }
        let draft = begin(&lake, "t").await;
        delete(now(&draft), "id = 7").await.unwrap();
        delete(now(&draft), &format!("({mine}) AND id < 200")).await.unwrap();
        delete(load(&lake, "t").await, theirs).await.unwrap();
        let left = lake.count("t").await;
        match commit(&lake, &[&draft]).await {
            Ok(()) => assert!(!conflicts && lake.count("t").await < left, "{mine} {theirs}"),
            Err(e) => assert!(conflicts && e.kind() == ErrorKind::Conflict, "{mine} {theirs}: {e}"),
        }
    }
    // Rows that came, and would have been deleted too; a table that was to be emptied.
    let lake = TestLake::new().await;
    let t = lake.table("t", vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    let (few, all) = (begin(&lake, "t").await, begin(&lake, "t").await);
    delete(now(&few), "id < 10 OR id >= 500").await.unwrap();
    now(&all).overwrite(None, false, &runner()).await.unwrap();
    append(t.as_ref(), vec![rows(500, 510)]).await.unwrap();
    is_conflict(commit(&lake, &[&few]).await);
    is_conflict(commit(&lake, &[&all]).await);
    assert_eq!(lake.count("t").await, 110);
}

#[tokio::test]
async fn two_tables_change_together_or_not_at_all() {
    let lake = TestLake::new().await;
    for name in ["a", "b"] {
        append(lake.table(name, vec![]).await.as_ref(), vec![rows(0, 100)]).await.unwrap();
    }
    let pair = async || (begin(&lake, "a").await, begin(&lake, "b").await);
    let counts = async || (lake.count("a").await, lake.count("b").await);
    let (a, b) = pair().await;
    delete(now(&a), "id < 10").await.unwrap();
    append(now(&b).as_ref(), vec![rows(100, 110)]).await.unwrap();
    // Others append meanwhile: both are tried again.
    append(load(&lake, "b").await.as_ref(), vec![rows(200, 205)]).await.unwrap();
    commit(&lake, &[&a, &b]).await.unwrap();
    assert_eq!(counts().await, (90, 115));

    // The second cannot be, so the first is not.
    let (a, b) = pair().await;
    append(now(&a).as_ref(), vec![rows(300, 310)]).await.unwrap();
    delete(now(&b), "id = 50").await.unwrap();
    delete(load(&lake, "b").await, "id = 51").await.unwrap();
    is_conflict(commit(&lake, &[&a, &b]).await);
    assert_eq!(counts().await, (90, 114));

    // A lost answer is found out, and what is there is not done again.
    let (a, b) = pair().await;
    append(now(&a).as_ref(), vec![rows(400, 410)]).await.unwrap();
    append(now(&b).as_ref(), vec![rows(400, 420)]).await.unwrap();
    lake.lake.shared().lost_answers.store(1, Ordering::SeqCst);
    commit(&lake, &[&a, &b]).await.unwrap();
    assert_eq!(lake.lake.shared().lost_answers.load(Ordering::SeqCst), 0);
    assert_eq!(counts().await, (100, 134));
}

/// Transactions beside single changes. Where both come through, the outcome is that of the one after the other.
#[tokio::test]
async fn random_drafts_are_serial() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let lake = TestLake::new().await;
        let mode = ["merge-on-read", "copy-on-write", "auto"][random.random_range(0..3)];
        let mut properties =
            BTreeMap::from(["delete", "update"].map(|k| (format!("write.{k}.mode"), mode.to_string())));
        properties.insert("format-version".to_string(), if seed % 2 == 0 { "2" } else { "3" }.to_string());
        lake.lake.create_table(NewTable { properties, ..new_table("t", vec![]) }).await.unwrap();
        let (mut model, mut next, mut conflicts, mut commits) = (BTreeMap::<i64, Option<String>>::new(), 0, 0, 0);
        let mut lineage = Lineage::new();
        for _ in 0..12 {
            let draft = begin(&lake, "t").await;
            let mut steps = Vec::new();
            for _ in 0..random.random_range(1..5) {
                let step = Step::random(&mut random, &mut next);
                step.run(now(&draft)).await.unwrap();
                steps.push(step);
            }
            for _ in 0..random.random_range(0..3) {
                let step = Step::random(&mut random, &mut next);
                step.run(load(&lake, "t").await).await.unwrap();
                step.apply(&mut model);
            }
            if random.random_bool(0.2) {
                load(&lake, "t").await.compaction(2, None).unwrap().run(false, &runner()).await.unwrap();
            }
            let before = snapshots(&lake, "t").await;
            match commit(&lake, &[&draft]).await {
                // It came to nothing: the transaction was over before the others began.
                Ok(()) if snapshots(&lake, "t").await == before => {}
                Ok(()) => {
                    steps.iter().for_each(|step| step.apply(&mut model));
                    commits += 1;
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
                    conflicts += 1;
                }
            }
            assert_eq!(contents(load(&lake, "t").await.as_ref()).await, model, "seed {seed}");
            // Rows that were not renamed keep their ids.
            let renamed = |id: &i64| model.get(id).is_none_or(|name| name.as_deref() == Some("new"));
            lineage.retain(|id, _| !renamed(id));
            lineage = version_3::check(&lake, &lineage, 0..0, &format!("seed {seed}")).await;
        }
        assert!(commits > 0, "{conflicts} conflicts");
    }
}

enum Step {
    Append(i64, i64),
    Delete(i64, i64),
    Rename(i64, i64),
}

impl Step {
    fn random(random: &mut StdRng, next: &mut i64) -> Self {
        let from = random.random_range(0..(*next).max(1));
        let to = from + random.random_range(1..20);
        match random.random_range(0..4) {
            0 | 1 => {
                let count = random.random_range(1..30);
                *next += count;
                Self::Append(*next - count, *next)
            }
            2 => Self::Delete(from, to),
            _ => Self::Rename(from, to),
        }
    }

    async fn run(&self, table: Arc<dyn LakeTable>) -> Result<()> {
        match self {
            Self::Append(from, to) => append(table.as_ref(), vec![rows(*from, *to)]).await.map(|_| ()),
            Self::Delete(from, to) => delete(table, &format!("id >= {from} AND id < {to}")).await,
            Self::Rename(from, to) => rename(table, &format!("id >= {from} AND id < {to}")).await,
        }
    }

    fn apply(&self, model: &mut BTreeMap<i64, Option<String>>) {
        match self {
            Self::Append(from, to) => {
                model.extend((*from..*to).map(|id| (id, (id % 7 != 0).then(|| format!("name {id}")))));
            }
            Self::Delete(from, to) => model.retain(|id, _| id < from || id >= to),
            Self::Rename(from, to) => {
                model.range_mut(*from..*to).for_each(|(_, name)| *name = Some("new".to_string()));
            }
        }
    }
}
