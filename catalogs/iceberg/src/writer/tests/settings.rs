//! What table properties say of files is seen in the files.

use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;

async fn written(properties: &[(&str, &str)]) -> (SerializedFileReader<std::fs::File>, iceberg::spec::DataFile) {
    let lake = TestLake::new().await;
    let properties = properties.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
    lake.lake.create_table(NewTable { properties, ..new_table("t", vec![]) }).await.unwrap();
    let staged = write(handle(&lake, "t").await.as_ref(), vec![rows(0, 5000)]).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let (_, entry) = from_staged(&state.metadata, &staged.files[0]).unwrap();
    let file = std::fs::File::open(staged.files[0].path.strip_prefix("file://").unwrap()).unwrap();
    (SerializedFileReader::new(file).unwrap(), entry)
}

#[tokio::test]
async fn bloom_filters_are_written_where_they_are_asked_for() {
    let (file, _) = written(&[
        ("write.parquet.bloom-filter-enabled.column.name", "true"),
        ("write.parquet.bloom-filter-fpp.column.name", "0.001"),
        ("write.parquet.bloom-filter-max-bytes", "4096"),
    ])
    .await;
    let columns = file.metadata().row_group(0).columns();
    let has: Vec<bool> = columns.iter().map(|c| c.bloom_filter_offset().is_some()).collect();
    assert_eq!(has, [false, true, false]);
    let bytes = columns[1].bloom_filter_length().unwrap();
    assert!((2048..=4096 + 64).contains(&bytes), "{bytes}");

    // Filters are as large as their values need.
    let (file, _) = written(&[("write.parquet.bloom-filter-enabled.column.id", "true")]).await;
    let bytes = file.metadata().row_group(0).column(0).bloom_filter_length().unwrap();
    assert!((4096..=16_384 + 64).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn manifests_keep_what_the_modes_say() {
    let (_, entry) = written(&[
        ("write.metadata.metrics.default", "none"),
        ("write.metadata.metrics.column.name", "truncate(6)"),
        ("write.metadata.metrics.column.at", "counts"),
    ])
    .await;
    let ids = |map: Vec<&i32>| map.into_iter().copied().collect::<BTreeSet<i32>>();
    assert_eq!(ids(entry.value_counts().keys().collect()), BTreeSet::from([2, 3]));
    assert_eq!(ids(entry.column_sizes().keys().collect()), BTreeSet::from([2, 3]));
    assert_eq!(ids(entry.lower_bounds().keys().collect()), BTreeSet::from([2]));
    assert_eq!(entry.lower_bounds()[&2], Datum::string("name 1"));
    assert_eq!(entry.upper_bounds()[&2], Datum::string("name :"));
}

#[tokio::test]
async fn only_the_first_of_many_columns_have_bounds_where_nothing_is_said() {
    let (_, entry) = written(&[("write.metadata.metrics.max-inferred-column-defaults", "2")]).await;
    assert_eq!(entry.lower_bounds().keys().copied().collect::<BTreeSet<i32>>(), BTreeSet::from([1, 2]));
    assert_eq!(entry.null_value_counts().len(), 2);
}

#[tokio::test]
async fn pages_end_where_they_are_told_to() {
    let pages = |file: SerializedFileReader<std::fs::File>| {
        let mut pages = file.get_row_group(0).unwrap().get_column_page_reader(0).unwrap();
        std::iter::from_fn(move || pages.get_next_page().unwrap()).filter(|p| p.num_values() > 0).count()
    };
    let (few, _) = written(&[]).await;
    let (many, _) = written(&[("write.parquet.page-row-limit", "1024")]).await;
    assert!(pages(many) > pages(few) + 2);
}
