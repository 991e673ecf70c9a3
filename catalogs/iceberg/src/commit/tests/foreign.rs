//! Commits on top of what other engines left in the table.

use arrow::array::{Int64Array, RecordBatch};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, ManifestListWriter, ManifestStatus, ManifestWriterBuilder, Schema, Snapshot, Struct, Summary,
};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::file::properties::WriterProperties;
use tidewater_catalogs::{PartitionField, Transform};

use super::*;

/// A snapshot as another engine commits it: rows with these ids are deleted, by equality.
async fn delete_ids(lake: &TestLake, ids: Vec<i64>) {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let metadata = state.metadata.clone();
    let io = FileIO::new_with_fs();
    let sequence_number = metadata.next_sequence_number();
    let snapshot_id = 77_000 + sequence_number;
    let place = |name: &str| format!("{}/{name}-{snapshot_id}", metadata.location());

    let field = metadata.current_schema().field_by_name("id").unwrap().clone();
    let (field_id, schema) = (field.id, Schema::builder().with_fields(vec![field]).build().unwrap());
    let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema).unwrap());
    let batch = RecordBatch::try_new(arrow, vec![Arc::new(Int64Array::from(ids))]).unwrap();
    let builder = ParquetWriterBuilder::new(WriterProperties::builder().build(), Arc::new(schema));
    let mut writer = builder.build(io.new_output(place("data/deletes") + ".parquet").unwrap()).await.unwrap();
    writer.write(&batch).await.unwrap();
    let mut file = writer.close().await.unwrap().remove(0);
    let file = file
        .content(DataContentType::EqualityDeletes)
        .equality_ids(Some(vec![field_id]))
        .partition(Struct::empty())
        .partition_spec_id(0)
        .build()
        .unwrap();

    let output = io.new_output(place("metadata/deletes") + ".avro").unwrap();
    let spec = metadata.default_partition_spec().as_ref().clone();
    let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), metadata.current_schema().clone(), spec);
    let mut writer = builder.build_v2_deletes();
    writer.add_file(file, -1).unwrap();
    let mut manifests = super::super::current_manifests(&state).await.unwrap();
    manifests.push(writer.write_manifest_file().await.unwrap());
    let list = place("metadata/list") + ".avro";
    let output = io.new_output(&list).unwrap().writer().await.unwrap();
    let mut writer = ManifestListWriter::v2(output, snapshot_id, metadata.current_snapshot_id(), sequence_number);
    writer.add_manifests(manifests.into_iter()).unwrap();
    writer.close().await.unwrap();
    let counts = HashMap::from([("total-equality-deletes".to_owned(), "3".to_owned())]);
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(metadata.current_snapshot_id())
        .with_sequence_number(sequence_number)
        .with_timestamp_ms(metadata.last_updated_ms() + 1)
        .with_manifest_list(list)
        .with_summary(Summary { operation: Operation::Delete, additional_properties: counts })
        .with_schema_id(metadata.current_schema_id())
        .build();
    meddle(lake, |b| b.set_branch_snapshot(snapshot, MAIN_BRANCH).unwrap()).await;
}

/// Rows that a flow or an INSERT brings later are not touched by earlier deletes, and the deletes go on applying to
/// what they deleted, however manifests are merged.
#[tokio::test]
async fn equality_deletes_survive_our_commits() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("commit.manifest.min-count-to-merge".to_string(), "3".to_string());
    let sql = lake.lake.create_table(new).await.unwrap();
    let table = handle(&lake).await;
    let mut head = begin(table.as_ref()).await;
    for i in 0..4 {
        head = next(table.as_ref(), &head, i * 10, i * 10 + 10).await;
    }
    drop(head);
    delete_ids(&lake, vec![5, 15, 25]).await;
    assert_eq!(lake.count("t").await, 37);
    // The flow goes on from its anchor, and brings two of the ids again.
    for _ in 0..7 {
        let head = table.load_head(FLOW).await.unwrap();
        next(table.as_ref(), &head, 15, 16).await;
        append(sql.as_ref(), vec![rows(25, 26)]).await.unwrap();
    }
    assert_eq!(lake.count("t").await, 37 + 14);
    delete_ids(&lake, vec![15]).await;
    assert_eq!(lake.count("t").await, 37 + 7);
    append(sql.as_ref(), vec![rows(15, 16)]).await.unwrap();
    assert_eq!(lake.count("t").await, 37 + 8);

    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut merged = 0;
    for manifest in super::super::current_manifests(&state).await.unwrap() {
        let entries = super::super::load_manifest(&state, &manifest).await.unwrap();
        merged += entries.entries().iter().filter(|e| e.status() == ManifestStatus::Existing).count();
    }
    assert!(merged > 4, "{merged}");
    let snapshot = state.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.summary().additional_properties["total-equality-deletes"], "3");
}

/// Avro does not allow every name; the Java library refuses such a file.
#[tokio::test]
async fn partition_fields_of_any_name_are_written_so_that_avro_allows_them() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![PartitionField { column: "na-me".into(), transform: Transform::Identity }]);
    let fields: Vec<_> = new.schema.fields().iter().cloned().collect();
    let renamed = Arc::new(fields[1].as_ref().clone().with_name("na-me"));
    new.schema = Arc::new(arrow::datatypes::Schema::new(vec![fields[0].clone(), renamed, fields[2].clone()]));
    new.properties.insert("commit.manifest.min-count-to-merge".to_string(), "2".to_string());
    let schema = new.schema.clone();
    let table = lake.lake.create_table(new).await.unwrap();
    for from in 0..3 {
        let batch = rows(from * 2 + 1, from * 2 + 3);
        let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap();
        let stream = futures::stream::iter([Ok(batch)]);
        let stream = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema.clone(), stream);
        table.append(Box::pin(stream), &crate::tests::runner()).await.unwrap();
    }
    let loaded = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    let found = crate::tests::query(loaded.as_ref(), "SELECT id FROM t WHERE \"na-me\" = 'name 3'").await;
    assert_eq!(found.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    for manifest in super::super::current_manifests(&state).await.unwrap() {
        let file = std::fs::read(manifest.manifest_path.strip_prefix("file://").unwrap()).unwrap();
        let header = super::super::header::Header::parse(&file).unwrap();
        let avro = String::from_utf8(header.get("avro.schema").unwrap().to_vec()).unwrap();
        assert!(avro.contains("\"na_x2Dme\"") && !avro.contains("\"na-me\""), "{avro}");
    }
}
