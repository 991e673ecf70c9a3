//! Queries of flows: what is accepted, what it computes, what is refused.

use std::time::Instant;

use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;

use super::fakes::{Bench, topic_rows};
use crate::dialect::Statement;
use crate::plan::flow::{CompiledFlow, compile};
use crate::settings::Settings;
use crate::{Login, SqlError};

async fn compiled(b: &Bench, sql: &str) -> Result<CompiledFlow, SqlError> {
    let statement = b.session.parse(sql)?.remove(0);
    let Statement::CreateStreamingTable(create) = &statement.statement else { panic!("{sql}") };
    let settings = Settings::for_login(&b.engine.defaults, &Login::default()).unwrap();
    compile(&b.engine, &settings, create, &statement.text).await
}

async fn apply(b: &Bench, sql: &str, rows: usize) -> Result<Vec<RecordBatch>, tidewater_catalogs::Error> {
    let flow = compiled(b, sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let batch = topic_rows(&flow.stream.source.schema(), rows).project(flow.query.projection()).unwrap();
    let mut lane = flow.query.lane().unwrap();
    // Twice: what a batch leaves behind must not come back with the next.
    let first = lane.apply(batch.clone()).await?;
    let second = lane.apply(batch).await?;
    assert_eq!(first, second, "{sql}");
    for batch in &first {
        assert_eq!(batch.schema(), flow.query.output_schema());
    }
    Ok(first)
}

async fn table(b: &Bench, sql: &str) -> Vec<String> {
    let batches = apply(b, sql, 6).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let text = pretty_format_batches(&batches).unwrap().to_string();
    text.lines()
        .filter(|l| l.starts_with('|'))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn rows_are_filtered_and_computed() {
    let b = Bench::new().await;
    assert_eq!(
        table(&b, "CREATE STREAMING TABLE x AS SELECT id, upper(name) AS n FROM STREAM s WHERE id >= 4").await,
        ["id n", "4 NAME4", "5 NAME5"]
    );
    assert_eq!(
        table(&b, "CREATE STREAMING TABLE x (k TEXT, o INT) AS SELECT id, _offset FROM STREAM s WHERE _partition = 1")
            .await,
        ["k o", "1 0", "3 1", "5 2"]
    );
    assert_eq!(
        table(&b, "CREATE STREAMING TABLE x AS SELECT * FROM STREAM s WHERE id = 3 AND day = '2026-01-02'").await.len(),
        2
    );
    assert_eq!(
        table(&b, "CREATE STREAMING TABLE x AS SELECT 'a' AS a FROM STREAM s WHERE id < 2").await,
        ["a", "a", "a"]
    );
    assert_eq!(table(&b, "CREATE STREAMING TABLE x AS SELECT id FROM STREAM s WHERE false").await.len(), 0);
    assert_eq!(
        table(
            &b,
            "CREATE STREAMING TABLE x AS WITH q AS (SELECT id * 2 AS d FROM STREAM s) SELECT d FROM q WHERE d > 8"
        )
        .await,
        ["d", "10"]
    );
}

#[tokio::test]
async fn unions_and_unnest() {
    let b = Bench::new().await;
    let mut rows = table(
        &b,
        "CREATE STREAMING TABLE x AS SELECT id, 'a' AS k FROM STREAM s WHERE id = 1 \
         UNION ALL SELECT _offset, name FROM STREAM s WHERE id = 5",
    )
    .await;
    rows.sort();
    assert_eq!(rows, ["1 a", "2 name5", "id k"]);
    assert_eq!(
        table(&b, "CREATE STREAMING TABLE x AS SELECT id, unnest(tags) AS tag FROM STREAM s").await,
        ["id tag", "1 10", "2 20", "2 21", "4 40", "5 50", "5 51"]
    );
    for from in [
        "STREAM s, UNNEST(s.tags) AS i",
        "STREAM s CROSS JOIN UNNEST(tags) AS i",
        "STREAM s CROSS JOIN LATERAL unnest(s.tags) AS i (i)",
        "STREAM s JOIN UNNEST(s.tags) AS i ON true",
    ] {
        assert_eq!(
            table(&b, &format!("CREATE STREAMING TABLE x AS SELECT s.id, i + 1 AS tag FROM {from} WHERE i.i > 20"))
                .await,
            ["id tag", "2 22", "4 41", "5 51", "5 52"],
            "{from}"
        );
    }
}

#[tokio::test]
async fn only_the_columns_that_are_read_are_asked_for() {
    let b = Bench::new().await;
    let flow = compiled(&b, "CREATE STREAMING TABLE x AS SELECT name FROM STREAM s WHERE _offset > 1").await.unwrap();
    let schema = flow.stream.source.schema();
    let names: Vec<&str> = flow.query.projection().iter().map(|i| schema.field(*i).name().as_str()).collect();
    assert_eq!(names, ["name", "_offset"]);
    let flow = compiled(&b, "CREATE STREAMING TABLE x AS SELECT day FROM STREAM s").await.unwrap();
    let names: Vec<&str> = flow.query.projection().iter().map(|i| schema.field(*i).name().as_str()).collect();
    assert_eq!(names, ["_timestamp"]);
}

#[tokio::test]
async fn what_is_not_row_by_row_is_refused() {
    let b = Bench::new().await;
    for query in [
        "SELECT count(*) AS n FROM STREAM s",
        "SELECT name, max(id) AS m FROM STREAM s GROUP BY name",
        "SELECT DISTINCT name FROM STREAM s",
        "SELECT DISTINCT ON (name) name, id FROM STREAM s",
        "SELECT id, row_number() OVER (ORDER BY id) AS n FROM STREAM s",
        "SELECT id FROM STREAM s ORDER BY id",
        "SELECT id FROM STREAM s LIMIT 3",
        "SELECT s.id FROM STREAM s JOIN t ON t.id = s.id",
        "SELECT a.id FROM STREAM s a JOIN STREAM s b ON a.id = b.id",
        "SELECT id FROM STREAM s WHERE id IN (SELECT id FROM t)",
        "SELECT id FROM STREAM s WHERE EXISTS (SELECT 1 FROM STREAM s)",
        "SELECT id, (SELECT max(id) FROM STREAM s) AS m FROM STREAM s",
        "SELECT id FROM STREAM s UNION SELECT id FROM STREAM s",
        "SELECT id FROM STREAM s EXCEPT SELECT id FROM STREAM s",
        "SELECT id FROM STREAM s UNION ALL SELECT 1",
        "SELECT id FROM STREAM s UNION ALL VALUES (1)",
        "SELECT id, random() AS r FROM STREAM s",
        "SELECT id, now() AS n FROM STREAM s",
        "SELECT id, current_date AS d FROM STREAM s",
        "SELECT id, uuid() AS u FROM STREAM s",
        "SELECT id FROM s",
        "SELECT id FROM t",
        "SELECT 1 AS one",
        "SELECT id FROM STREAM t",
        "WITH RECURSIVE r AS (SELECT id FROM STREAM s UNION ALL SELECT id FROM r) SELECT id FROM r",
    ] {
        let e = compiled(&b, &format!("CREATE STREAMING TABLE x AS {query}")).await.unwrap_err();
        assert_eq!(e.state.as_str(), "0A000", "{query}: {e:?}");
        assert!(e.hint.is_some(), "{query}: {e:?}");
    }
    for (query, code) in [
        ("SELECT nothing FROM STREAM s", "42703"),
        ("SELECT id FROM STREAM nothing", "42P01"),
        ("SELECT id, id FROM STREAM s", "42701"),
        ("SELECT id + 1 FROM STREAM s", "42601"),
        ("SELECT $1 AS p FROM STREAM s", "42P02"),
    ] {
        let e = compiled(&b, &format!("CREATE STREAMING TABLE x AS {query}")).await.unwrap_err();
        assert_eq!(e.state.as_str(), code, "{query}: {e:?}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_of_the_data() {
    let b = Bench::new().await;
    let e = apply(&b, "CREATE STREAMING TABLE x AS SELECT name::int AS n FROM STREAM s", 6).await.unwrap_err();
    assert_eq!(e.kind(), tidewater_catalogs::ErrorKind::InvalidInput);
    assert!(e.message().contains("invalid input syntax for type integer"), "{e}");
    let e = apply(&b, "CREATE STREAMING TABLE x (n BIGINT NOT NULL) AS SELECT nullif(id, 3) FROM STREAM s", 6)
        .await
        .unwrap_err();
    assert!(e.message().contains("not-null"), "{e}");
    assert!(
        apply(&b, "CREATE STREAMING TABLE x (n BIGINT NOT NULL) AS SELECT nullif(id, 3) FROM STREAM s", 3)
            .await
            .is_ok()
    );
    let e = compiled(&b, "CREATE STREAMING TABLE x (n INT) AS SELECT name FROM STREAM s").await.unwrap_err();
    assert_eq!(e.state.as_str(), "42804");
}

/// Prints what a lane costs; run it with `--nocapture --ignored`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_per_batch() {
    let b = Bench::new().await;
    for query in [
        "SELECT * FROM STREAM s",
        "SELECT id, name, amount FROM STREAM s WHERE id >= 0",
        "SELECT id, unnest(tags) AS tag FROM STREAM s",
    ] {
        let flow = compiled(&b, &format!("CREATE STREAMING TABLE x AS {query}")).await.unwrap();
        let batch = topic_rows(&flow.stream.source.schema(), 8192).project(flow.query.projection()).unwrap();
        let mut lane = flow.query.lane().unwrap();
        let start = Instant::now();
        for _ in 0..1000 {
            lane.apply(batch.clone()).await.unwrap();
        }
        println!("{query}: {:?} per batch", start.elapsed() / 1000);
    }
}
