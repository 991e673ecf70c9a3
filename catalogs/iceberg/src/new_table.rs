//! The first metadata of a table, where no server makes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, PartitionSpec, PrimitiveType, SortOrder, TableMetadata, TableMetadataBuilder,
    Transform as IcebergTransform, Type, UnboundPartitionSpec,
};
use tidewater_catalogs::{Error, NewTable, PartitionField, Result, Transform};

use crate::default_values::with_defaults;
use crate::error;
use crate::schema::to_iceberg;
use crate::sort_order::sort_order;
use crate::storage::{Storage, check_location};
use crate::writer::{check_columns, check_properties};

/// The end of every location that this catalog chose: a name that is used again gets another folder.
pub(crate) fn ours(uuid: uuid::Uuid) -> String {
    format!("-{}", &uuid.simple().to_string()[16..])
}

pub(crate) fn check_name(kind: &str, name: &str) -> Result<()> {
    /// The catalog's columns are that wide in the databases that mind.
    const LONGEST: usize = 255;
    if name.is_empty() || name.len() > LONGEST || name.contains('\0') {
        return Err(Error::invalid(format!("the name of a {kind} has 1 to {LONGEST} bytes and no zero byte")));
    }
    Ok(())
}

/// What a table is made of, whoever makes it.
pub(crate) struct Checked {
    pub(crate) schema: Arc<iceberg::spec::Schema>,
    pub(crate) spec: UnboundPartitionSpec,
    pub(crate) order: SortOrder,
    pub(crate) properties: HashMap<String, String>,
    pub(crate) version: FormatVersion,
}

/// Named like a property, and kept elsewhere.
pub(crate) const FORMAT_VERSION: &str = "format-version";

pub(crate) fn format_version(text: &str) -> Result<FormatVersion> {
    match text.trim() {
        "1" => Ok(FormatVersion::V1),
        "2" => Ok(FormatVersion::V2),
        "3" => Ok(FormatVersion::V3),
        other => Err(Error::unsupported(format!("tables of format version {other} are not known"))
            .with_hint("Set \"format-version\" to \"2\" or \"3\".")),
    }
}

pub(crate) fn checked(defaults: &BTreeMap<String, String>, table: &NewTable) -> Result<Checked> {
    if table.schema.fields().is_empty() {
        return Err(Error::invalid(format!("table \"{}\" has no columns", table.name)));
    }
    let mut all: HashMap<String, String> = defaults.clone().into_iter().collect();
    all.extend(table.properties.clone());
    if let Some(comment) = &table.comment {
        all.insert("comment".to_string(), comment.clone());
    }
    let version = match all.remove(FORMAT_VERSION) {
        Some(text) => format_version(&text)?,
        None => FormatVersion::V2,
    };
    if version == FormatVersion::V1 {
        return Err(Error::unsupported("tables of format version 1 cannot be made")
            .with_hint("Leave \"format-version\" out, or set it to \"2\" or \"3\"."));
    }
    let schema = Arc::new(with_defaults(to_iceberg(&table.schema)?, &table.defaults, version)?);
    let spec = partition_spec(&schema, &table.partition_by)?;
    let order = sort_order(&schema, &table.sort_by)?;
    check_properties(&all)?;
    check_columns(&all, &schema)?;
    Ok(Checked { schema, spec, order, properties: all, version })
}

/// `within` is the folder of the table's namespace, where the catalog gives it one.
pub(crate) fn new_metadata(
    storage: &Storage,
    within: Option<&str>,
    defaults: &BTreeMap<String, String>,
    table: NewTable,
) -> Result<TableMetadata> {
    let uuid = uuid::Uuid::now_v7();
    let Checked { schema, spec, order, properties, version } = checked(defaults, &table)?;
    let location = match table.location {
        Some(location) => {
            check_location(&location)?;
            let plain = !location.contains("://") && !location.starts_with("file:");
            if plain { format!("file://{location}") } else { location }
        }
        None => {
            let within = match within {
                Some(within) => {
                    check_location(within)?;
                    within.to_owned()
                }
                None if storage.warehouse().is_empty() => {
                    return Err(Error::invalid(format!("no place is known for table \"{}\"", table.name)).with_hint(
                        "Give the catalog the option \"warehouse\", or the database in the catalog a location.",
                    ));
                }
                None => {
                    let folders: Vec<String> = table.name.namespace().iter().map(|n| folder(n)).collect();
                    format!("{}/{}", storage.warehouse(), folders.join("/"))
                }
            };
            format!("{within}/{}{}", folder(&table.name.name), ours(uuid))
        }
    };
    let builder = TableMetadataBuilder::new(schema.as_ref().clone(), spec, order, location, version, properties)
        .map_err(|e| Error::invalid("the table cannot be made").with_source(e))?
        .assign_uuid(uuid);
    Ok(builder.build().map_err(|e| error::iceberg("build table metadata", e))?.metadata)
}

/// What any file system takes, for people who look.
fn folder(name: &str) -> String {
    const LONGEST: usize = 64;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    name.chars().take(LONGEST).map(plain).collect()
}

/// Partition values are stored in Avro records, whose names take letters, digits and underscores alone. Other
/// characters become `_x` and their code, as Iceberg writes them elsewhere.
fn avro_name(column: &str) -> String {
    let mut name = String::with_capacity(column.len());
    for (i, c) in column.chars().enumerate() {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => name.push(c),
            '0'..='9' if i > 0 => name.push(c),
            '0'..='9' => name.extend(['_', c]),
            other => name.push_str(&format!("_x{:X}", u32::from(other))),
        }
    }
    name
}

pub(crate) fn transform_of(transform: Transform) -> IcebergTransform {
    match transform {
        Transform::Identity => IcebergTransform::Identity,
        Transform::Bucket(n) => IcebergTransform::Bucket(n),
        Transform::Truncate(n) => IcebergTransform::Truncate(n),
        Transform::Year => IcebergTransform::Year,
        Transform::Month => IcebergTransform::Month,
        Transform::Day => IcebergTransform::Day,
        Transform::Hour => IcebergTransform::Hour,
    }
}

/// Field names as Spark gives them: `day` of `ts` is `ts_day`.
pub(crate) fn partition_spec(
    schema: &Arc<iceberg::spec::Schema>,
    fields: &[PartitionField],
) -> Result<UnboundPartitionSpec> {
    let mut builder = PartitionSpec::builder(Arc::clone(schema)).with_spec_id(0);
    for field in fields {
        let source = schema
            .as_struct()
            .field_by_name(&field.column)
            .ok_or_else(|| Error::not_found(format!("partition column \"{}\" does not exist", field.column)))?;
        let suffix = match field.transform {
            Transform::Identity => "",
            Transform::Bucket(0) | Transform::Truncate(0) => {
                return Err(Error::invalid(format!("the number of partition column \"{}\" is 0", field.column)));
            }
            Transform::Bucket(n) if i32::try_from(n).is_err() => {
                return Err(Error::invalid(format!("partition column \"{}\" has too many buckets", field.column)));
            }
            Transform::Truncate(n) if i32::try_from(n).is_err() => {
                return Err(Error::invalid(format!("partition column \"{}\" has too large a width", field.column)));
            }
            Transform::Bucket(_) => "_bucket",
            Transform::Truncate(_) => "_trunc",
            Transform::Year => "_year",
            Transform::Month => "_month",
            Transform::Day => "_day",
            Transform::Hour => "_hour",
        };
        let transform = transform_of(field.transform);
        let fits = transform.result_type(&source.field_type).is_ok()
            && !(transform == IcebergTransform::Hour
                && matches!(source.field_type.as_ref(), Type::Primitive(PrimitiveType::Date)));
        if !fits {
            return Err(Error::invalid(format!(
                "partition transform {transform} cannot be applied to column \"{}\" of type {}",
                field.column, source.field_type
            )));
        }
        // NaN and the two zeros are told apart by some engines and not by others.
        if matches!(
            (transform, source.field_type.as_ref()),
            (_, Type::Primitive(PrimitiveType::Float | PrimitiveType::Double | PrimitiveType::Fixed(_)))
        ) {
            return Err(Error::unsupported(format!(
                "column \"{}\" of type {} cannot be partitioned by",
                field.column, source.field_type
            )));
        }
        builder = builder
            .add_partition_field(&field.column, format!("{}{suffix}", avro_name(&field.column)), transform)
            .map_err(|e| Error::invalid(format!("cannot partition by column \"{}\"", field.column)).with_source(e))?;
    }
    Ok(builder.build().map_err(|e| Error::invalid("the partition fields do not fit").with_source(e))?.into_unbound())
}
