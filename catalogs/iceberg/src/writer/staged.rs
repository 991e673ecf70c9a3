use iceberg::spec::{
    DataFile, FormatVersion, Literal, NestedFieldRef, PrimitiveLiteral, PrimitiveType, Struct, TableMetadata, Type,
    deserialize_data_file_from_json, serialize_data_file_to_json,
};
use serde::{Deserialize, Serialize};
use tidewater_catalogs::{Error, Result, StagedFile};

use crate::error;

/// What a checkpoint carries of a file. The ids are not part of Iceberg's own JSON, and without them neither
/// partition nor bounds can be read.
#[derive(Serialize, Deserialize)]
struct Description {
    spec_id: i32,
    schema_id: i32,
    /// JSON as text: partition values are read in the order in which they stand, and a JSON object of serde's sorts
    /// its members by name.
    data_file: String,
}

pub(crate) fn to_staged(metadata: &TableMetadata, spec_id: i32, schema_id: i32, file: DataFile) -> Result<StagedFile> {
    let partition_type = partition_type(metadata, spec_id, schema_id)?;
    let (path, rows, size_bytes) = (file.file_path().to_string(), file.record_count(), file.file_size_in_bytes());
    let data_file = serialize_data_file_to_json(file, &partition_type, FormatVersion::V2)
        .map_err(|e| error::iceberg("describe a data file", e))?;
    let metadata =
        serde_json::to_value(Description { spec_id, schema_id, data_file }).map_err(|e| not_json(&path, e))?;
    Ok(StagedFile { path, rows, size_bytes, metadata })
}

/// The manifest entry of a staged file, and the id of its partition spec.
pub(crate) fn from_staged(metadata: &TableMetadata, staged: &StagedFile) -> Result<(i32, DataFile)> {
    let description = Description::deserialize(&staged.metadata).map_err(|e| not_json(&staged.path, e))?;
    let Description { spec_id, schema_id, data_file } = description;
    let schema = schema(metadata, schema_id)?;
    // Values are of the types that their columns have by now, as the manifest's will be.
    let partition_type = partition_type(metadata, spec_id, metadata.current_schema_id())
        .or_else(|_| partition_type(metadata, spec_id, schema_id))?;
    let file = deserialize_data_file_from_json(&data_file, spec_id, &partition_type, schema)
        .map_err(|e| error::iceberg("read the description of a data file", e).with_context("path", &staged.path))?;
    if file.file_path() != staged.path || file.record_count() != staged.rows {
        return Err(corrupt("the description of a data file does not fit the file").with_context("path", &staged.path));
    }
    Ok((spec_id, file))
}

/// Partition values in the types that their columns have by now: they may have grown since.
pub(crate) fn grown(metadata: &TableMetadata, spec_id: i32, partition: &Struct) -> Struct {
    let Ok(types) = partition_type(metadata, spec_id, metadata.current_schema_id()) else { return partition.clone() };
    let grow = |(value, field): (Option<&Literal>, &NestedFieldRef)| match (value, field.field_type.as_ref()) {
        (Some(Literal::Primitive(PrimitiveLiteral::Int(v))), Type::Primitive(PrimitiveType::Long)) => {
            Some(Literal::long(i64::from(*v)))
        }
        (Some(Literal::Primitive(PrimitiveLiteral::Float(v))), Type::Primitive(PrimitiveType::Double)) => {
            Some(Literal::double(f64::from(v.0)))
        }
        (other, _) => other.cloned(),
    };
    partition.iter().zip(types.fields()).map(grow).collect()
}

fn schema(metadata: &TableMetadata, id: i32) -> Result<&iceberg::spec::SchemaRef> {
    metadata.schema_by_id(id).ok_or_else(|| corrupt(format!("the table has no schema {id} any more")))
}

fn partition_type(metadata: &TableMetadata, spec_id: i32, schema_id: i32) -> Result<iceberg::spec::StructType> {
    let spec = metadata
        .partition_spec_by_id(spec_id)
        .ok_or_else(|| corrupt(format!("the table has no partition spec {spec_id} any more")))?;
    spec.partition_type(schema(metadata, schema_id)?).map_err(|e| error::iceberg("read the partition spec", e))
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(tidewater_catalogs::ErrorKind::DataCorrupt, message)
}

fn not_json(path: &str, e: serde_json::Error) -> Error {
    corrupt("the description of a data file cannot be read").with_context("path", path).with_source(e)
}
