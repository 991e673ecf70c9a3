#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::atomic::Ordering;

use arrow::datatypes::DataType;
use tidewater_catalogs::{AddColumn, Alteration, ErrorKind, LakeCatalog, TableName};

use crate::tests::{TestLake, append, new_table, rows};

fn add(name: &str) -> Alteration {
    Alteration::AddColumn(AddColumn {
        path: vec![name.to_string()],
        data_type: DataType::Int32,
        default: None,
        required: false,
        comment: None,
        place: None,
        if_not_exists: false,
    })
}

fn required(name: &str) -> Alteration {
    Alteration::ChangeNull { path: vec![name.to_string()], nullable: false }
}

async fn columns(lake: &TestLake) -> Vec<String> {
    let table = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    table.info().schema.fields().iter().map(|f| f.name().clone()).collect()
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_nothing_is_done_twice() {
    let lake = TestLake::new().await;
    let table = lake.lake.create_table(new_table("t", vec![])).await.unwrap();
    lake.lake.shared().lost_answers.store(1, Ordering::SeqCst);
    table.alter(&[add("x")]).await.unwrap();
    assert_eq!(columns(&lake).await, ["id", "name", "at", "x"]);
    lake.lake.shared().lost_answers.store(1, Ordering::SeqCst);
    let to = "y".to_string();
    table.alter(&[Alteration::RenameColumn { path: vec!["x".to_string()], to }]).await.unwrap();
    assert_eq!(columns(&lake).await, ["id", "name", "at", "y"]);
    assert_eq!(table.alter(&[add("y")]).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn two_alterations_at_once_both_count() {
    let lake = TestLake::new().await;
    let table = lake.lake.create_table(new_table("t", vec![])).await.unwrap();
    let (x, y) = ([add("x")], [add("y")]);
    let (one, other) = tokio::join!(table.alter(&x), table.alter(&y));
    one.unwrap();
    other.unwrap();
    let mut columns = columns(&lake).await;
    columns.sort();
    assert_eq!(columns, ["at", "id", "name", "x", "y"]);
}

#[tokio::test]
async fn a_column_stays_without_nulls_whoever_was_first() {
    let lake = TestLake::new().await;
    let before = lake.lake.create_table(new_table("t", vec![])).await.unwrap();
    // Rows that came since the table was looked at may have nulls.
    append(before.as_ref(), vec![rows(1, 3)]).await.unwrap();
    assert_eq!(before.alter(&[required("name")]).await.unwrap_err().kind(), ErrorKind::Conflict);
    let now = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    now.alter(&[required("name")]).await.unwrap();
    // And files that were written before the column became NOT NULL: name 7 is null.
    assert_eq!(append(before.as_ref(), vec![rows(7, 8)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    append(before.as_ref(), vec![rows(8, 9)]).await.unwrap();
    assert_eq!(lake.count("t").await, 3);
}
