#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use iceberg::spec::{Datum, Literal, PrimitiveLiteral};
use tidewater_catalogs::{
    CommitTable, ErrorKind, LakeCatalog, NewTable, PartitionField, StagedFiles, TableName, Transform,
};
use uuid::Uuid;

use super::from_staged;
use crate::tests::{TestLake, append, new_table, query, rows, schema};

mod order;
mod settings;

async fn handle(lake: &TestLake, name: &str) -> Arc<dyn CommitTable> {
    lake.lake.commit_table(&TableName::public(name)).await.unwrap()
}

async fn write(table: &dyn CommitTable, batches: Vec<RecordBatch>) -> tidewater_catalogs::Result<StagedFiles> {
    let mut writer = table.writer(Uuid::now_v7())?;
    for batch in batches {
        writer.write(batch).await?;
    }
    writer.finish().await
}

fn by(column: &str, transform: Transform) -> PartitionField {
    PartitionField { column: column.to_string(), transform }
}

#[tokio::test]
async fn every_transform_puts_each_row_into_its_partition() {
    let day = |us: i64| us.div_euclid(86_400_000_000) as i32;
    let cases: Vec<(PartitionField, Box<dyn Fn(i64) -> Option<PrimitiveLiteral>>)> = vec![
        (by("id", Transform::Identity), Box::new(|id| Some(PrimitiveLiteral::Long(id)))),
        (by("id", Transform::Truncate(10)), Box::new(|id| Some(PrimitiveLiteral::Long(id.div_euclid(10) * 10)))),
        (by("at", Transform::Hour), Box::new(|id| (id % 7 != 0).then_some(PrimitiveLiteral::Int(id as i32)))),
        (
            by("at", Transform::Day),
            Box::new(move |id| (id % 7 != 0).then(|| PrimitiveLiteral::Int(day(id * crate::tests::HOUR_US)))),
        ),
        (
            by("at", Transform::Year),
            Box::new(|id| (id % 7 != 0).then_some(PrimitiveLiteral::Int(if id < 0 { -1 } else { 0 }))),
        ),
        (
            by("at", Transform::Month),
            Box::new(|id| (id % 7 != 0).then_some(PrimitiveLiteral::Int(if id < 0 { -1 } else { 0 }))),
        ),
        (
            by("name", Transform::Truncate(5)),
            Box::new(|id| (id % 7 != 0).then(|| PrimitiveLiteral::String("name ".to_string()))),
        ),
    ];
    let lake = TestLake::new().await;
    for (number, (field, expected)) in cases.into_iter().enumerate() {
        let name = format!("t{number}");
        lake.table(&name, vec![field.clone()]).await;
        let table = handle(&lake, &name).await;
        let staged = write(table.as_ref(), vec![rows(-30, 0), rows(0, 40)]).await.unwrap();
        assert_eq!(staged.rows(), 70, "{field:?}");
        let state = lake.lake.table_state(&TableName::public(&name)).await.unwrap();
        let mut found: BTreeMap<i64, Option<PrimitiveLiteral>> = BTreeMap::new();
        for file in &staged.files {
            let (_, entry) = from_staged(&state.metadata, file).unwrap();
            let value = entry.partition().iter().next().unwrap().map(|literal| match literal {
                Literal::Primitive(value) => value.clone(),
                other => panic!("{other:?}"),
            });
            for id in ids_of(&file.path) {
                assert!(found.insert(id, value.clone()).is_none());
            }
        }
        for id in -30..40 {
            assert_eq!(found[&id], expected(id), "{field:?} of row {id}");
        }
    }
}

fn ids_of(location: &str) -> Vec<i64> {
    let file = std::fs::File::open(location.strip_prefix("file://").unwrap()).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut all = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let ids: &Int64Array = batch.column(0).as_any().downcast_ref().unwrap();
        all.extend(ids.values());
    }
    all
}

#[tokio::test]
async fn buckets_are_those_of_the_specification() {
    let lake = TestLake::new().await;
    lake.table("t", vec![by("id", Transform::Bucket(i32::MAX as u32)), by("name", Transform::Bucket(16))]).await;
    let table = handle(&lake, "t").await;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![34])),
        Arc::new(StringArray::from(vec!["iceberg"])),
        Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("+00:00")),
    ];
    let staged = write(table.as_ref(), vec![RecordBatch::try_new(schema(), columns).unwrap()]).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let (_, entry) = from_staged(&state.metadata, &staged.files[0]).unwrap();
    let values: Vec<_> = entry.partition().iter().map(|v| v.cloned().unwrap()).collect();
    // Appendix B: hash of 34 is 2017239379, of "iceberg" 1210000089.
    assert_eq!(values, [Literal::int(2_017_239_379), Literal::int(1_210_000_089 % 16)]);
}

#[tokio::test]
async fn open_files_are_bounded_and_no_row_is_lost() {
    let lake = TestLake::new().await;
    let mut table = new_table("t", vec![by("id", Transform::Identity)]);
    table.properties.insert("tidewater.write.open-files".to_string(), "4".to_string());
    lake.lake.create_table(table).await.unwrap();
    let table = handle(&lake, "t").await;
    let staged = write(table.as_ref(), vec![rows(0, 20), rows(0, 20), rows(0, 20)]).await.unwrap();
    assert_eq!(staged.rows(), 60);
    let mut ids: Vec<i64> = staged.files.iter().flat_map(|f| ids_of(&f.path)).collect();
    ids.sort_unstable();
    let expected: Vec<i64> = (0..20).flat_map(|i| [i, i, i]).collect();
    assert_eq!(ids, expected);
    let paths: BTreeSet<_> = staged.files.iter().map(|f| &f.path).collect();
    assert_eq!(paths.len(), staged.files.len());
}

#[tokio::test]
async fn files_roll_at_their_target_size() {
    let lake = TestLake::new().await;
    let mut table = new_table("t", vec![]);
    table.properties.insert("write.target-file-size-bytes".to_string(), "20000".to_string());
    lake.lake.create_table(table).await.unwrap();
    let table = handle(&lake, "t").await;
    let commit = Uuid::now_v7();
    let mut writer = table.writer(commit).unwrap();
    for start in 0..20 {
        writer.write(rows(start * 1000, start * 1000 + 1000)).await.unwrap();
    }
    let staged = writer.finish().await.unwrap();
    assert!(staged.files.len() > 2, "{}", staged.files.len());
    assert_eq!(staged.rows(), 20_000);
    for file in &staged.files {
        assert!(file.path.contains(&commit.to_string()));
        let size = std::fs::metadata(file.path.strip_prefix("file://").unwrap()).unwrap().len();
        assert_eq!(size, file.size_bytes);
    }
}

#[tokio::test]
async fn descriptions_survive_a_checkpoint() {
    let lake = TestLake::new().await;
    let tbl = lake.table("t", vec![by("at", Transform::Day), by("name", Transform::Identity)]).await;
    drop(tbl);
    let table = handle(&lake, "t").await;
    let staged = write(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
    let text = serde_json::to_string(&staged).unwrap();
    let back: StagedFiles = serde_json::from_str(&text).unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    for (a, b) in staged.files.iter().zip(&back.files) {
        assert_eq!(from_staged(&state.metadata, a).unwrap(), from_staged(&state.metadata, b).unwrap());
    }
    let mut wrong = back.files[0].clone();
    wrong.rows += 1;
    assert_eq!(from_staged(&state.metadata, &wrong).unwrap_err().kind(), ErrorKind::DataCorrupt);
}

#[tokio::test]
async fn bounds_counts_and_nans_are_described() {
    let lake = TestLake::new().await;
    let schema = Arc::new(Schema::new(vec![
        Field::new("d", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("dec", DataType::Decimal128(20, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new("list", DataType::List(Arc::new(Field::new("element", DataType::Int64, true))), true),
        Field::new("none", DataType::Int32, true),
    ]));
    let table = NewTable { schema: Arc::clone(&schema), ..new_table("t", vec![]) };
    lake.lake.create_table(table).await.unwrap();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(9), None]), None, Some(vec![])]);
    let element = Arc::new(Field::new("element", DataType::Int64, true));
    let (_, offsets, values, nulls) = list.into_parts();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None])),
        Arc::new(StringArray::from(vec![Some("z".repeat(40)), Some("a".repeat(40)), None])),
        Arc::new(Decimal128Array::from(vec![-5, 700, 12]).with_precision_and_scale(20, 2).unwrap()),
        Arc::new(Date32Array::from(vec![Some(-3), Some(4), None])),
        Arc::new(ListArray::new(element, offsets, values, nulls)),
        Arc::new(Int32Array::from(vec![None, None, None])),
    ];
    let table = handle(&lake, "t").await;
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let staged = write(table.as_ref(), vec![batch]).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let (_, file) = from_staged(&state.metadata, &staged.files[0]).unwrap();
    assert_eq!(file.nan_value_counts()[&1], 1);
    assert_eq!(file.lower_bounds()[&1], Datum::double(1.5));
    assert_eq!(file.upper_bounds()[&1], Datum::double(1.5));
    assert_eq!(file.lower_bounds()[&2], Datum::string("a".repeat(16)));
    assert_eq!(file.upper_bounds()[&2], Datum::string(format!("{}{{", "z".repeat(15))));
    assert_eq!(file.lower_bounds()[&3].literal(), &PrimitiveLiteral::Int128(-5));
    assert_eq!(file.upper_bounds()[&3].literal(), &PrimitiveLiteral::Int128(700));
    assert_eq!(file.lower_bounds()[&4], Datum::date(-3));
    assert!(!file.lower_bounds().contains_key(&6));
    assert_eq!(file.null_value_counts()[&6], 3);
    assert_eq!(file.value_counts()[&6], 3);
    assert_eq!(file.null_value_counts()[&2], 1);
    // Elements of lists are not rows.
    let counted: BTreeSet<i32> = file.value_counts().keys().copied().collect();
    assert_eq!(counted, BTreeSet::from([1, 2, 3, 4, 6]));
}

#[tokio::test]
async fn rows_that_do_not_fit_are_refused() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake, "t").await;
    let good = rows(0, 3);
    let with = |index: usize, column: ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[index] = column;
        let fields: Vec<_> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let cases: [ArrayRef; 2] =
        [Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])), Arc::new(StringArray::from(vec!["1", "2", "3"]))];
    for column in cases {
        let error = write(table.as_ref(), vec![with(0, column)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(
        write(table.as_ref(), vec![good.project(&[0, 1]).unwrap()]).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );

    // Views and narrower types are the same values in another form.
    let view: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a long text, not inlined")]));
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let millis = TimestampMicrosecondArray::from(vec![1_000, 2_000, 3_000]).with_timezone("UTC");
    let millis =
        arrow::compute::cast(&millis, &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))).unwrap();
    for batch in [with(1, view), with(0, narrow), with(2, millis)] {
        assert_eq!(write(table.as_ref(), vec![batch]).await.unwrap().rows(), 3);
    }
}

#[tokio::test]
async fn a_writer_is_of_no_use_after_an_error() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake, "t").await;
    let mut writer = table.writer(Uuid::now_v7()).unwrap();
    writer.write(rows(0, 3)).await.unwrap();
    writer.write(rows(0, 3).project(&[0]).unwrap()).await.ok();
    // The error shows in a later call, as encoding runs beside.
    writer.write(rows(3, 6)).await.ok();
    assert!(writer.finish().await.is_err());
}

#[tokio::test]
async fn bytes_held_are_told() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake, "t").await;
    let mut writer = table.writer(Uuid::now_v7()).unwrap();
    assert_eq!(writer.buffered_bytes(), 0);
    writer.write(rows(0, 50_000)).await.unwrap();
    assert!(writer.buffered_bytes() > 100_000, "{}", writer.buffered_bytes());
    assert_eq!(writer.finish().await.unwrap().rows(), 50_000);
}

#[tokio::test]
async fn partitioned_rows_are_read_back() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![by("at", Transform::Day), by("id", Transform::Bucket(3))]).await;
    append(table.as_ref(), vec![rows(0, 500), rows(500, 1000)]).await.unwrap();
    let table = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    let sql = "SELECT count(*), sum(id), count(name) FROM t";
    let batches = query(table.as_ref(), sql).await;
    let value = |c: usize| batches[0].column(c).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
    assert_eq!((value(0), value(1)), (1000, 499_500));
    assert_eq!(value(2), (0..1000).filter(|i| i % 7 != 0).count() as i64);
}
