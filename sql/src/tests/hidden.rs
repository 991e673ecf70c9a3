//! Hidden columns: there when named, never in a wildcard.

use super::fakes::Bench;

const VISIBLE: [&str; 6] = ["id", "name", "amount", "ts", "tags", "day"];

#[tokio::test]
async fn wildcards_leave_hidden_columns_out() {
    let mut b = Bench::new().await;
    for sql in [
        "SELECT * FROM s",
        "SELECT s.* FROM s",
        "SELECT public.s.* FROM public.s",
        "SELECT * FROM s WHERE _offset < 2",
        "SELECT s.* FROM s WHERE s._offset < 2",
        "SELECT x.* FROM s AS x WHERE x._partition = 0",
        "SELECT * FROM s ORDER BY _offset",
        "SELECT * FROM (SELECT * FROM s WHERE _offset = 0) q",
        "SELECT q.* FROM (SELECT * FROM s WHERE _offset = 0) AS q",
        "WITH q AS (SELECT * FROM s WHERE _partition = 1) SELECT * FROM q",
        "WITH s AS (SELECT * FROM s WHERE _partition = 1) SELECT * FROM s",
        "SELECT * FROM s WHERE id IN (SELECT _offset FROM s)",
        "SELECT * FROM s WHERE EXISTS (SELECT * FROM t WHERE t.id = s._offset)",
        "SELECT * FROM lake.public.s WHERE _timestamp IS NOT NULL",
        "SELECT * FROM s WHERE _offset = 0 UNION ALL SELECT * FROM s WHERE _offset = 1",
        "SELECT DISTINCT * FROM s WHERE _offset = 0",
        "SELECT * FROM s WHERE _offset = 0 LIMIT 1",
    ] {
        assert_eq!(b.columns(sql).await, VISIBLE, "{sql}");
    }
}

#[tokio::test]
async fn wildcards_over_joins_leave_hidden_columns_out() {
    let mut b = Bench::new().await;
    let both: Vec<&str> = VISIBLE.into_iter().chain(["id", "name", "at"]).collect();
    for sql in [
        "SELECT * FROM s JOIN t ON s.id = t.id",
        "SELECT * FROM s JOIN t ON s._offset = t.id",
        "SELECT * FROM s, t WHERE s._offset = t.id",
        "SELECT s.*, t.* FROM s CROSS JOIN t WHERE _offset = 0",
        "SELECT * FROM (s JOIN t ON s._offset = t.id)",
        "SELECT * FROM s a LEFT JOIN t b ON a._offset = b.id",
    ] {
        assert_eq!(b.columns(sql).await, both, "{sql}");
    }
    let twice: Vec<&str> = VISIBLE.into_iter().chain(VISIBLE).collect();
    assert_eq!(b.columns("SELECT * FROM s a JOIN s b ON a._offset = b._offset").await, twice);
    assert_eq!(b.columns("SELECT b.* FROM s a JOIN s b ON a._offset = b._offset").await, VISIBLE);
    // The rows beside the names: a wildcard that lost a column would shift them.
    let rows = b.rows("SELECT * FROM s JOIN t ON s._offset = t.id WHERE s._partition = 0 AND t.id = 1").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][0], "2");
    assert_eq!(rows[0][7], "one");
}

#[tokio::test]
async fn hidden_columns_can_be_named() {
    let mut b = Bench::new().await;
    assert_eq!(
        b.columns("SELECT *, _offset, s._partition FROM s").await,
        VISIBLE.into_iter().chain(["_offset", "_partition"]).collect::<Vec<_>>()
    );
    assert_eq!(b.columns("SELECT q.* FROM (SELECT id, _offset FROM s) q").await, ["id", "_offset"]);
    assert_eq!(b.columns("WITH q AS (SELECT *, _offset FROM s) SELECT * FROM q").await.len(), 7);
    // A column of that name that is not hidden stays in the wildcard.
    assert_eq!(
        b.columns("SELECT * FROM (SELECT id, _offset FROM s) q JOIN s ON s._offset = q._offset").await,
        ["id", "_offset"].into_iter().chain(VISIBLE).collect::<Vec<_>>()
    );
    let rows = b.rows("SELECT _topic, _partition, _offset, id FROM s WHERE id = 3").await;
    assert_eq!(rows, [["topic", "1", "1", "3"]]);
}

#[tokio::test]
async fn what_cannot_be_hidden_exactly_is_refused() {
    let mut b = Bench::new().await;
    for sql in [
        "SELECT *, _offset FROM s JOIN t USING (id)",
        "SELECT _offset FROM s NATURAL JOIN t",
        "SELECT *, _offset FROM s AS x (a, b)",
    ] {
        assert_eq!(b.code(sql).await, "0A000", "{sql}");
    }
    assert_eq!(b.columns("SELECT * FROM s JOIN t USING (id)").await.len(), 8);
}

#[tokio::test]
async fn predicates_and_columns_reach_the_source() {
    let mut b = Bench::new().await;
    b.rows("SELECT id FROM s WHERE _partition = 0 AND _offset < 10 AND _timestamp > '2026-01-01'").await;
    let filters = b.seen.filters.lock().join(" | ");
    for column in ["_partition", "_offset", "_timestamp"] {
        assert!(filters.contains(column), "{column} in {filters}");
    }
    let mut columns = b.seen.columns.lock().clone();
    columns.sort();
    columns.dedup();
    assert!(columns.iter().all(|c| ["_offset", "_partition", "_timestamp", "id"].contains(&c.as_str())), "{columns:?}");
    b.seen.limits.lock().clear();
    assert_eq!(b.rows("SELECT id FROM s LIMIT 2").await.len(), 2);
    assert_eq!(*b.seen.limits.lock(), [Some(2)]);
}

#[tokio::test]
async fn generated_columns_are_computed() {
    let mut b = Bench::new().await;
    assert_eq!(
        b.rows("SELECT id, day FROM s WHERE day = '2026-01-02' ORDER BY id LIMIT 1").await,
        [["1", "2026-01-02"]]
    );
    assert_eq!(b.cell("SELECT count(*) FROM s WHERE day = DATE '2026-01-01'").await, "1");
}

#[tokio::test]
async fn describing_asks_no_topic() {
    let mut b = Bench::new().await;
    let statement = b.session.parse("SELECT * FROM s").unwrap().remove(0);
    b.session.prepare(&statement, &[]).await.unwrap();
    assert_eq!(*b.seen.bounded.lock(), 0);
}
