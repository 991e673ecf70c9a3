mod transactions;
mod version_3;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::DataType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tidewater_catalogs::{
    AddColumn, Alteration, Anchor, AnchorState, CatalogSpec, CommitReply, CommitRequest, CommitTable, ErrorKind,
    Existing, LakeCatalog, NamedPartition, NewTable, PartitionField, PartitionRef, ReferenceChange, ReferenceKind,
    Retention, StagedFiles, TableHead, TableName, TableVersion, Transform,
};
use uuid::Uuid;

use super::proxy::Proxy;
use super::{Options, open, options, part, processes};
use crate::tests::{append, query, rows, schema};

pub(super) const FLOW: &str = "5b1c0e7e-0000-4000-8000-00000000c0de";

/// A SQLite catalog of its own, in a directory that the caller keeps.
pub(super) fn sqlite(directory: &std::path::Path) -> CatalogSpec {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_string();
    spec("sql", options(&[("uri", &format!("sqlite:{}", path("c.db"))), ("warehouse", &path("warehouse"))]))
}

pub(super) fn spec(kind: &str, options: Options) -> CatalogSpec {
    CatalogSpec { name: "c".to_string(), kind: kind.to_string(), options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_a_catalog() {
    let directory = tempfile::tempdir().unwrap();
    certify(&sqlite(directory.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: cargo xtask e2e"]
async fn postgres_is_a_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = part("TIDEWATER_TEST_POSTGRES");
    with.insert("warehouse".to_string(), directory.path().to_str().unwrap().to_string());
    let spec = spec("sql", with);
    certify(&spec).await;
    // A look-up does not name a metadata file, a swap does, among the values that come after its text.
    certify_lost_answers(&spec, ".metadata.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a REST catalog: cargo xtask e2e"]
async fn rest_is_a_catalog() {
    let spec = spec("rest", part("TIDEWATER_TEST_REST"));
    certify(&spec).await;
    certify_lost_answers(&spec, "\"requirements\"").await;
}

pub(super) async fn certify(spec: &CatalogSpec) {
    let scene = Scene::new(spec).await;
    scene.names_are_taken_once().await;
    scene.tables_are_filled_before_they_are_seen().await;
    scene.commits_move_rows_and_anchor().await;
    scene.one_of_two_commits_on_a_base_wins().await;
    scene.a_stale_writer_is_refused().await;
    scene.racing_inserts_all_arrive().await;
    scene.references_move_and_rows_do_not().await;
    scene.columns_and_partitions_come_and_go().await;
    scene.tables_are_raised().await;
    scene.tables_change_together().await;
    scene.a_dropped_table_is_not_its_namesake().await;
    processes::race(spec, &scene.schema).await;
}

/// A schema of its own in the catalog, and two handles that know nothing of each other.
pub(super) struct Scene {
    spec: CatalogSpec,
    pub(super) schema: String,
    pub(super) one: Arc<dyn LakeCatalog>,
    pub(super) two: Arc<dyn LakeCatalog>,
}

impl Scene {
    pub(super) async fn new(spec: &CatalogSpec) -> Self {
        let schema = format!("s{}", &Uuid::new_v4().simple().to_string()[..12]);
        let (one, two) = (open(spec).await, open(spec).await);
        assert!(!one.schema_exists("c", &schema).await.unwrap());
        one.create_schema("c", &schema).await.unwrap();
        assert!(two.schema_exists("c", &schema).await.unwrap());
        Self { spec: spec.clone(), schema, one, two }
    }

    pub(super) fn name(&self, table: &str) -> TableName {
        TableName::new("c", &self.schema, table)
    }

    pub(super) fn new_table(&self, table: &str, partition_by: Vec<PartitionField>) -> NewTable {
        NewTable {
            name: self.name(table),
            schema: schema(),
            partition_by,
            sort_by: Vec::new(),
            properties: BTreeMap::from([("made.by".to_string(), "us".to_string())]),
            defaults: Default::default(),
            location: None,
            comment: Some("kept".to_string()),
        }
    }

    pub(super) async fn make(&self, table: &str) -> Arc<dyn CommitTable> {
        self.one.create_table(self.new_table(table, vec![])).await.unwrap();
        self.one.commit_table(&self.name(table)).await.unwrap()
    }

    pub(super) async fn count(&self, table: &str) -> i64 {
        count(self.two.as_ref(), &self.name(table)).await
    }

    async fn names_are_taken_once(&self) {
        let kind = |r: tidewater_catalogs::Result<()>| r.unwrap_err().kind();
        assert_eq!(kind(self.two.create_schema("c", &self.schema).await), ErrorKind::AlreadyExists);
        assert_eq!(kind(self.one.drop_schema("c", "nowhere").await), ErrorKind::NotFound);
        assert!(self.one.list_schemas("c").await.unwrap().contains(&self.schema));
        let day = PartitionField { column: "at".to_string(), transform: Transform::Day };
        // Glue takes no spaces.
        let a_b = if self.spec.kind == "glue" { "a_b" } else { "a b" };
        let made = self.one.create_table(self.new_table(a_b, vec![day.clone()])).await.unwrap();
        assert_eq!(made.info().partition_by, [day]);
        let again = self.two.create_table(self.new_table(a_b, vec![])).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        let found = self.two.load_table(&self.name(a_b)).await.unwrap();
        assert_eq!(found.info().uuid, made.info().uuid);
        assert_eq!(found.info().schema.as_ref(), schema().as_ref());
        assert_eq!(found.info().properties["made.by"], "us");
        assert_eq!(found.info().properties["comment"], "kept");
        assert_eq!(self.two.list_tables("c", &self.schema).await.unwrap(), [self.name(a_b)]);
        let mut lost = self.new_table("t", vec![]);
        lost.name = TableName::new("c", "nowhere", "t");
        assert_eq!(self.one.create_table(lost).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(kind(self.one.drop_schema("c", &self.schema).await), ErrorKind::InvalidInput);
        // Partitions whose values are in the names of files.
        assert_eq!(append(found.as_ref(), vec![rows(0, 100)]).await.unwrap(), 100);
        assert_eq!(self.count(a_b).await, 100);
        self.two.drop_table(&self.name(a_b), None, true).await.unwrap();
        assert_eq!(self.one.load_table(&self.name(a_b)).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(kind(self.two.drop_table(&self.name(a_b), None, true).await), ErrorKind::NotFound);
    }

    async fn tables_are_filled_before_they_are_seen(&self) {
        let stream = || {
            let batches = futures::stream::iter([Ok(rows(0, 50))]);
            Box::pin(RecordBatchStreamAdapter::new(schema(), batches))
        };
        let mut staged = self.one.stage_table(self.new_table("filled", vec![])).await.unwrap();
        assert_eq!(staged.fill(stream(), &crate::tests::runner()).await.unwrap(), 50);
        assert_eq!(self.two.load_table(&self.name("filled")).await.unwrap_err().kind(), ErrorKind::NotFound);
        let mut late = self.two.stage_table(self.new_table("filled", vec![])).await.unwrap();
        late.fill(stream(), &crate::tests::runner()).await.unwrap();
        staged.publish().await.unwrap();
        assert_eq!(self.count("filled").await, 50);
        assert_eq!(late.publish().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(self.count("filled").await, 50);
        let mut given_up = self.one.stage_table(self.new_table("given_up", vec![])).await.unwrap();
        given_up.fill(stream(), &crate::tests::runner()).await.unwrap();
        given_up.discard().await.unwrap();
        assert_eq!(self.two.load_table(&self.name("given_up")).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn commits_move_rows_and_anchor(&self) {
        let table = self.make("flow").await;
        let mut head = begin(table.as_ref()).await;
        for n in 0..3 {
            head = next(table.as_ref(), &head, n * 10, n * 10 + 10).await;
            assert_eq!(self.count("flow").await, n * 10 + 10);
        }
        let anchor = valid(&head);
        assert_eq!((anchor.seq, anchor.checkpoint.as_str()), (3, "ckpt/3.json"));
        // Another process finds the same.
        let elsewhere = self.two.commit_table(&self.name("flow")).await.unwrap();
        assert_eq!(valid(&elsewhere.load_head(FLOW).await.unwrap()), anchor);
        // An INSERT in between, and the flow goes on above it.
        let other = self.two.load_table(&self.name("flow")).await.unwrap();
        append(other.as_ref(), vec![rows(100, 105)]).await.unwrap();
        let refused = table.try_commit(&head, &request(Some(&anchor), StagedFiles::default())).await;
        assert_eq!(conflict(refused), ErrorKind::Conflict);
        let head = table.load_head(FLOW).await.unwrap();
        assert_eq!(valid(&head), anchor);
        next(table.as_ref(), &head, 30, 40).await;
        assert_eq!(self.count("flow").await, 45);
        table.maintain().await.unwrap();
        assert_eq!(self.count("flow").await, 45);
    }

    /// There and back again: what a table had before, it has by its old number.
    async fn columns_and_partitions_come_and_go(&self) {
        let table = self.one.create_table(self.new_table("altered", vec![])).await.unwrap();
        let column = || AddColumn {
            path: vec!["z".to_string()],
            data_type: DataType::Int32,
            default: None,
            required: false,
            comment: None,
            place: None,
            if_not_exists: false,
        };
        let bucket = |n| PartitionField { column: "id".to_string(), transform: Transform::Bucket(n) };
        let add = |n| Alteration::AddPartition(NamedPartition { field: bucket(n), name: None });
        let drop = |n| Alteration::DropPartition(PartitionRef::Field(bucket(n)));
        let gone = Alteration::DropColumn { path: vec!["z".to_string()], if_exists: false };
        let to = |name: &str| name.to_string();
        for (step, alterations) in [
            vec![Alteration::AddColumn(column())],
            vec![gone.clone()],
            vec![Alteration::RenameColumn { path: vec![to("name")], to: to("title") }],
            vec![Alteration::RenameColumn { path: vec![to("title")], to: to("name") }],
            vec![add(2)],
            vec![add(3)],
            vec![drop(2)],
            vec![drop(3)],
            vec![add(3)],
            vec![Alteration::AddColumn(column()), drop(3), add(5), gone],
        ]
        .iter()
        .enumerate()
        {
            table.alter(alterations).await.unwrap_or_else(|e| panic!("step {step}: {e:?}"));
            let from = i64::try_from(step).unwrap() * 10;
            let now = self.two.load_table(&self.name("altered")).await.unwrap();
            if now.info().schema.fields().len() == 3 && now.info().schema.field(1).name() == "name" {
                append(now.as_ref(), vec![rows(from, from + 10)]).await.unwrap();
            }
        }
        assert_eq!(self.count("altered").await, 80);
        let now = self.two.load_table(&self.name("altered")).await.unwrap();
        assert_eq!(now.info().partition_by, [bucket(5)]);
        assert_eq!(now.info().schema.as_ref(), schema().as_ref());
    }

    async fn references_move_and_rows_do_not(&self) {
        let name = self.name("referenced");
        let table = self.one.create_table(self.new_table("referenced", vec![])).await.unwrap();
        append(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
        let current = async || self.two.load_table(&name).await.unwrap().info().current_snapshot.clone().unwrap();
        let first = current().await.snapshot_id;
        let create = |kind, name: &str| ReferenceChange::Create {
            kind,
            name: name.to_string(),
            snapshot: None,
            retention: Retention { max_age_ms: Some(3_600_000), ..Retention::default() },
            existing: Existing::Refused,
        };
        let change = async |change: ReferenceChange| table.change_reference(&change).await;
        assert!(change(create(ReferenceKind::Tag, "v1")).await.unwrap().changed);
        assert!(change(create(ReferenceKind::Branch, "b")).await.unwrap().changed);
        let again = change(create(ReferenceKind::Branch, "b")).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);

        let stream = Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::iter([Ok(rows(10, 30))])));
        assert_eq!(
            self.one
                .load_table(&name)
                .await
                .unwrap()
                .branch("b")
                .await
                .unwrap()
                .append(stream, &crate::tests::runner())
                .await
                .unwrap(),
            20
        );
        assert_eq!((self.count("referenced").await, current().await.snapshot_id), (10, first));
        let forward = ReferenceChange::FastForward { branch: "main".to_string(), to: "b".to_string() };
        assert_eq!(change(forward).await.unwrap().before, Some(first));
        assert_eq!(self.count("referenced").await, 30);
        append(table.as_ref(), vec![rows(30, 35)]).await.unwrap();
        let back = ReferenceChange::SetCurrent(TableVersion::Tag("v1".to_string()));
        assert_eq!(change(back).await.unwrap().after, Some(first));
        assert_eq!(self.count("referenced").await, 10);
        append(table.as_ref(), vec![rows(40, 45)]).await.unwrap();
        assert_eq!(self.count("referenced").await, 15);
        for (kind, name) in [(ReferenceKind::Branch, "b"), (ReferenceKind::Tag, "v1")] {
            let gone = ReferenceChange::Drop { kind, name: name.to_string(), if_exists: false };
            assert!(change(gone.clone()).await.unwrap().changed);
            assert_eq!(change(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(self.count("referenced").await, 15);
    }

    async fn one_of_two_commits_on_a_base_wins(&self) {
        let table = self.make("race").await;
        let head = begin(table.as_ref()).await;
        let mut racing = Vec::new();
        for n in 0..8_i64 {
            let table = open(&self.spec).await.commit_table(&self.name("race")).await.unwrap();
            let files = staged(table.as_ref(), n * 10, n * 10 + 10).await;
            let (head, request) = (head.clone(), request(Some(&valid(&head)), files));
            racing.push(tokio::spawn(async move { table.try_commit(&head, &request).await }));
        }
        let mut won = 0;
        for racer in racing {
            match racer.await.unwrap() {
                CommitReply::Committed(_) => won += 1,
                CommitReply::Refused(e) => assert!(e.is_retryable(), "{e}"),
                // A database or server that is too busy to answer; the row count below tells.
                CommitReply::Unknown(e) => panic!("{e}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(self.count("race").await, 10);
    }

    async fn a_stale_writer_is_refused(&self) {
        let table = self.make("stale").await;
        let head = begin(table.as_ref()).await;
        let stale = valid(&head);
        next(table.as_ref(), &head, 0, 10).await;
        // On a fresh base as well, as its anchor is another's now.
        let fresh = table.load_head(FLOW).await.unwrap();
        let files = staged(table.as_ref(), 0, 10).await;
        let refused = table.try_commit(&fresh, &request(Some(&stale), files.clone())).await;
        assert_eq!(conflict(refused), ErrorKind::Conflict);
        let refused = table.try_commit(&head, &request(Some(&stale), files)).await;
        assert_eq!(conflict(refused), ErrorKind::Conflict);
        assert_eq!(self.count("stale").await, 10);
    }

    async fn racing_inserts_all_arrive(&self) {
        self.make("inserts").await;
        let mut racing = Vec::new();
        for n in 0..6_i64 {
            let table = open(&self.spec).await.load_table(&self.name("inserts")).await.unwrap();
            racing.push(tokio::spawn(async move { append(table.as_ref(), vec![rows(n * 10, n * 10 + 10)]).await }));
        }
        for racer in racing {
            assert_eq!(racer.await.unwrap().unwrap(), 10);
        }
        assert_eq!(ids(self.two.as_ref(), &self.name("inserts")).await.len(), 60);
        assert_eq!(self.count("inserts").await, 60);
    }

    async fn a_dropped_table_is_not_its_namesake(&self) {
        let table = self.make("again").await;
        let head = begin(table.as_ref()).await;
        let uuid = head.table_uuid;
        self.two.drop_table(&self.name("again"), Some(uuid), true).await.unwrap();
        assert_eq!(table.load_head(FLOW).await.unwrap_err().kind(), ErrorKind::NotFound);
        self.make("again").await;
        assert_eq!(table.load_head(FLOW).await.unwrap_err().kind(), ErrorKind::NotFound);
        let wrong = self.two.drop_table(&self.name("again"), Some(uuid), true).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::NotFound);
        // The head is of the table that is gone.
        match table.try_commit(&head, &request(Some(&valid(&head)), StagedFiles::default())).await {
            CommitReply::Committed(_) => panic!("committed to another table"),
            CommitReply::Refused(_) | CommitReply::Unknown(_) => {}
        }
        assert_eq!(self.count("again").await, 0);
    }
}

/// A commit whose answer is lost has happened, and the anchor says so; nothing has sent it twice.
async fn certify_lost_answers(spec: &CatalogSpec, marker: &str) {
    let uri = spec.options["uri"].clone();
    let url = url::Url::parse(&uri).unwrap();
    let port = url.port().unwrap();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await;
    let mut through = spec.clone();
    let proxied = uri.replace(&format!(":{port}"), &format!(":{}", proxy.addr.port()));
    through.options.insert("uri".to_string(), proxied);
    let scene = Scene::new(spec).await;
    scene.make("lost").await;
    let table = open(&through).await.commit_table(&scene.name("lost")).await.unwrap();
    let mut head = begin(table.as_ref()).await;
    for n in 0..3_i64 {
        let request = request(Some(&valid(&head)), staged(table.as_ref(), n * 10, n * 10 + 10).await);
        proxy.lose(1, marker);
        match table.try_commit(&head, &request).await {
            CommitReply::Unknown(_) => {}
            other => panic!("{other:?}"),
        }
        assert!(proxy.lost_all());
        head = table.load_head(FLOW).await.unwrap();
        assert_eq!(valid(&head).commit_uuid, request.commit_uuid);
        assert_eq!(scene.count("lost").await, n * 10 + 10);
    }
    // An INSERT looks for itself.
    let inserted = open(&through).await.load_table(&scene.name("lost")).await.unwrap();
    proxy.lose(1, marker);
    assert_eq!(append(inserted.as_ref(), vec![rows(30, 40)]).await.unwrap(), 10);
    assert!(proxy.lost_all());
    assert_eq!(scene.count("lost").await, 40);
}

pub(super) async fn count(catalog: &dyn LakeCatalog, name: &TableName) -> i64 {
    let table = catalog.load_table(name).await.unwrap();
    let batches = query(table.as_ref(), "SELECT count(*) FROM t").await;
    batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
}

pub(super) async fn ids(catalog: &dyn LakeCatalog, name: &TableName) -> HashSet<i64> {
    let table = catalog.load_table(name).await.unwrap();
    let batches = query(table.as_ref(), "SELECT id FROM t").await;
    let column = |b: &arrow::record_batch::RecordBatch| -> Vec<i64> {
        b.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    };
    batches.iter().filter(|b| !b.column(0).is_empty()).flat_map(column).collect()
}

pub(super) fn request(expected: Option<&Anchor>, files: StagedFiles) -> CommitRequest {
    let seq = expected.map_or(0, |a| a.seq + 1);
    CommitRequest {
        flow: FLOW.to_string(),
        expected: expected.cloned(),
        seq,
        epoch: 1,
        commit_uuid: Uuid::now_v7(),
        checkpoint: format!("ckpt/{seq}.json"),
        checkpoint_sha256: "abc".to_string(),
        files,
        summary: BTreeMap::from([("tidewater.offsets".to_string(), "xyz".to_string())]),
    }
}

pub(super) fn valid(head: &TableHead) -> Anchor {
    match &head.anchor {
        AnchorState::Valid(anchor) => anchor.clone(),
        other => panic!("{other:?}"),
    }
}

fn committed(reply: CommitReply) -> TableHead {
    match reply {
        CommitReply::Committed(head) => head,
        other => panic!("{other:?}"),
    }
}

fn conflict(reply: CommitReply) -> ErrorKind {
    match reply {
        CommitReply::Refused(e) => e.kind(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn staged(table: &dyn CommitTable, from: i64, to: i64) -> StagedFiles {
    let mut writer = table.writer(Uuid::now_v7()).unwrap();
    writer.write(rows(from, to)).await.unwrap();
    writer.finish().await.unwrap()
}

pub(super) async fn begin(table: &dyn CommitTable) -> TableHead {
    let head = table.load_head(FLOW).await.unwrap();
    assert_eq!(head.anchor, AnchorState::Absent);
    committed(table.try_commit(&head, &request(None, StagedFiles::default())).await)
}

async fn next(table: &dyn CommitTable, head: &TableHead, from: i64, to: i64) -> TableHead {
    let files = staged(table, from, to).await;
    committed(table.try_commit(head, &request(Some(&valid(head)), files)).await)
}
