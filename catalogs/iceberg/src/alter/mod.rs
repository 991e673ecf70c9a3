//! Columns, layout and properties of a table, changed in one commit that writes no rows. (Iceberg spec, "Schema
//! Evolution" and "Partition Evolution": columns are told by id, so files stay as they are.)

mod columns;
mod partitions;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::TableRequirement;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use tidewater_catalogs::{Alteration, Error, ErrorKind, Result, SortField};

use crate::commit::reshape;
use crate::error;
use crate::lake::Lake;
use crate::new_table::{FORMAT_VERSION, format_version};
use crate::sort_order::sort_order;
use crate::state::TableState;
use crate::writer::{check_columns, check_properties, writable};
use columns::Columns;

/// What the table had before goes by its id: a catalog does not take it a second time.
#[derive(Debug, PartialEq)]
enum New<T> {
    Again(i32),
    Made(T),
}

/// What the table is to become.
#[derive(Debug, PartialEq)]
struct Altered {
    version: Option<FormatVersion>,
    schema: Option<New<Schema>>,
    spec: Option<New<UnboundPartitionSpec>>,
    /// A number is given to it where no order of the table has been the same.
    order: Option<SortOrder>,
    set: HashMap<String, String>,
    reset: Vec<String>,
}

/// Carries all of them out, in their order, or none. `looked_at` is the state whose rows the caller saw.
pub(crate) async fn alter(lake: &Lake, looked_at: &TableState, alterations: &[Alteration]) -> Result<()> {
    let needs_rows = alterations.iter().any(|a| matches!(a, Alteration::ChangeNull { nullable: false, .. }));
    reshape(lake, &looked_at.name, looked_at.metadata.uuid(), |metadata| {
        if needs_rows && metadata.current_snapshot_id() != looked_at.metadata.current_snapshot_id() {
            return Err(Error::new(ErrorKind::Conflict, "rows came meanwhile, which may have nulls"));
        }
        let Some(altered) = altered(metadata, alterations)? else { return Ok(None) };
        let mut requirements = requirements(metadata);
        if needs_rows {
            requirements.push(TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_string(),
                snapshot_id: metadata.current_snapshot_id(),
            });
        }
        Ok(Some((requirements, move |builder| build(builder, &altered))))
    })
    .await
}

/// The table's shape is still the one that was altered.
fn requirements(metadata: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
        TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: metadata.default_sort_order_id() },
        TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id: metadata.last_partition_id() },
    ]
}

fn build(builder: TableMetadataBuilder, altered: &Altered) -> Result<TableMetadataBuilder> {
    let mut builder = builder;
    if let Some(version) = altered.version {
        builder = builder.upgrade_format_version(version).map_err(|e| error::iceberg("upgrade the table", e))?;
    }
    let columns = |e| error::iceberg("change the columns", e);
    match &altered.schema {
        Some(New::Again(id)) => builder = builder.set_current_schema(*id).map_err(columns)?,
        Some(New::Made(schema)) => builder = builder.add_current_schema(schema.clone()).map_err(columns)?,
        None => {}
    }
    let partitions = |e| error::iceberg("change the partitions", e);
    match &altered.spec {
        Some(New::Again(id)) => builder = builder.set_default_partition_spec(*id).map_err(partitions)?,
        Some(New::Made(spec)) => builder = builder.add_default_partition_spec(spec.clone()).map_err(partitions)?,
        None => {}
    }
    if let Some(order) = &altered.order {
        let sorting = |e| error::iceberg("change the sort order", e);
        builder =
            builder.add_sort_order(order.clone()).map_err(sorting)?.set_default_sort_order(-1).map_err(sorting)?;
    }
    if !altered.set.is_empty() {
        builder = builder.set_properties(altered.set.clone()).map_err(|e| error::iceberg("set properties", e))?;
    }
    if !altered.reset.is_empty() {
        builder = builder.remove_properties(&altered.reset).map_err(|e| error::iceberg("reset properties", e))?;
    }
    Ok(builder)
}

/// None where nothing is left to do.
fn altered(metadata: &TableMetadata, alterations: &[Alteration]) -> Result<Option<Altered>> {
    let wanted = alterations.iter().find_map(|a| match a {
        Alteration::SetProperties(properties) => properties.get(FORMAT_VERSION),
        _ => None,
    });
    let version = wanted.map(|text| upgrade(metadata, text)).transpose()?.flatten();
    let mut columns = Columns::new(metadata, version.unwrap_or(metadata.format_version()));
    let mut partitions = Vec::new();
    let mut sort_by: Option<&[SortField]> = None;
    let (mut set, mut reset): (HashMap<String, String>, Vec<String>) = (HashMap::new(), Vec::new());
    for alteration in alterations {
        match alteration {
            Alteration::AddColumn(add) => columns.add(add)?,
            Alteration::DropColumn { path, if_exists } => columns.drop(path, *if_exists)?,
            Alteration::RenameColumn { path, to } => columns.rename(path, to)?,
            Alteration::ChangeType { path, to } => columns.widen(path, to)?,
            Alteration::ChangeNull { path, nullable } => columns.change_null(path, *nullable)?,
            Alteration::ChangeDefault { path, default } => columns.change_default(path, default.as_ref())?,
            Alteration::CommentColumn { path, comment } => columns.comment(path, comment.as_deref())?,
            Alteration::MoveColumn { path, place } => columns.move_to(path, place)?,
            Alteration::AddPartition(_) | Alteration::DropPartition(_) | Alteration::ReplacePartition { .. } => {
                partitions.push(alteration);
            }
            Alteration::SetSortOrder(fields) => sort_by = Some(fields),
            Alteration::SetProperties(properties) => {
                reset.retain(|key| !properties.contains_key(key));
                set.extend(properties.clone());
            }
            Alteration::ResetProperties(keys) => {
                set.retain(|key, _| !keys.contains(key));
                reset.extend(keys.iter().cloned());
            }
        }
    }
    let schema = columns.into_schema(metadata)?;
    let current = schema.as_ref().map_or_else(|| Arc::clone(metadata.current_schema()), |s| Arc::new(s.clone()));
    let spec = partitions::changed(metadata, &current, &partitions)?;
    let order = sort_by.map(|fields| sort_order(&current, fields)).transpose()?;
    let order = order.filter(|order| order.fields != metadata.default_sort_order().fields);
    set.retain(|key, value| metadata.properties().get(key) != Some(value));
    reset.retain(|key| key == FORMAT_VERSION || metadata.properties().contains_key(key));
    set.remove(FORMAT_VERSION);
    if reset.iter().any(|key| key == FORMAT_VERSION) {
        return Err(Error::invalid("the format version of a table cannot be reset"));
    }
    let mut properties = metadata.properties().clone();
    properties.retain(|key, _| !reset.contains(key));
    properties.extend(set.clone());
    if !set.is_empty() {
        check_properties(&properties)?;
        check_columns(&set, &current)?;
    }
    if schema.is_some() || spec.is_some() || order.is_some() {
        writable(metadata)?;
    }
    let schema = schema.map(|schema| {
        let same = |s: &&Arc<Schema>| {
            s.as_struct() == schema.as_struct() && s.identifier_field_ids().eq(schema.identifier_field_ids())
        };
        match metadata.schemas_iter().find(same) {
            Some(before) => New::Again(before.schema_id()),
            None => New::Made(schema),
        }
    });
    let spec = spec.map(|spec| {
        let unbound =
            |s: &&Arc<iceberg::spec::PartitionSpec>| s.as_ref().clone().into_unbound().fields() == spec.fields();
        match metadata.partition_specs_iter().find(unbound) {
            Some(before) => New::Again(before.spec_id()),
            None => New::Made(spec),
        }
    });
    let nothing = version.is_none()
        && schema.is_none()
        && spec.is_none()
        && order.is_none()
        && set.is_empty()
        && reset.is_empty();
    Ok((!nothing).then_some(Altered { version, schema, spec, order, set, reset }))
}

/// None where the table has it already.
fn upgrade(metadata: &TableMetadata, text: &str) -> Result<Option<FormatVersion>> {
    let (now, wanted) = (metadata.format_version(), format_version(text)?);
    if wanted < now {
        return Err(Error::invalid(format!("a table of format version {now} cannot go back to {wanted}")));
    }
    Ok((wanted > now).then_some(wanted))
}
