use std::sync::Arc;

use iceberg::spec::{Schema, TableMetadata, Transform, UnboundPartitionField, UnboundPartitionSpec};
use tidewater_catalogs::{Alteration, Error, ErrorKind, NamedPartition, PartitionRef, Result};

use crate::new_table::{partition_spec, transform_of};

/// The partition fields after the alterations. None where there are no such.
pub(super) fn changed(
    metadata: &TableMetadata,
    schema: &Arc<Schema>,
    alterations: &[&Alteration],
) -> Result<Option<UnboundPartitionSpec>> {
    if alterations.is_empty() {
        return Ok(None);
    }
    let before = metadata.default_partition_spec().as_ref().clone().into_unbound();
    let mut fields = before.fields().to_vec();
    for alteration in alterations {
        match alteration {
            Alteration::AddPartition(new) => {
                let new = unbound(schema, new)?;
                check_new(&fields, &new)?;
                fields.push(new);
            }
            Alteration::DropPartition(old) => {
                let at = find(schema, &fields, old)?;
                fields.remove(at);
            }
            Alteration::ReplacePartition { old, new } => {
                let at = find(schema, &fields, old)?;
                let new = unbound(schema, new)?;
                fields.remove(at);
                check_new(&fields, &new)?;
                fields.insert(at, new);
            }
            _ => {}
        }
    }
    if fields == before.fields() {
        return Ok(None);
    }
    number(metadata, &mut fields);
    let spec = UnboundPartitionSpec::builder()
        .add_partition_fields(fields)
        .map_err(|e| Error::invalid("the partition fields do not fit").with_source(e))?
        .build();
    Ok(Some(spec))
}

fn unbound(schema: &Arc<Schema>, new: &NamedPartition) -> Result<UnboundPartitionField> {
    let spec = partition_spec(schema, std::slice::from_ref(&new.field))?;
    let field = spec.fields().first().cloned();
    let mut field = field.ok_or_else(|| Error::internal("a partition field was lost"))?;
    // The table gives ids.
    field.field_id = None;
    // As Iceberg's own library names fields that are added.
    match (&new.name, field.transform) {
        (Some(name), _) => field.name.clone_from(name),
        (None, Transform::Bucket(n) | Transform::Truncate(n)) => field.name = format!("{}_{n}", field.name),
        (None, _) => {}
    }
    Ok(field)
}

/// Ids of fields that have none: that of the same field in an older layout, or one that no layout has had. A catalog that
/// is left to find them might begin anew.
fn number(metadata: &TableMetadata, fields: &mut [UnboundPartitionField]) {
    let mut last = metadata.last_partition_id();
    for field in fields.iter_mut().filter(|field| field.field_id.is_none()) {
        let mut all = metadata.partition_specs_iter().flat_map(|spec| spec.fields());
        let same = all.find(|f| (f.source_id, f.transform, &f.name) == (field.source_id, field.transform, &field.name));
        field.field_id = Some(same.map_or_else(
            || {
                last += 1;
                last
            },
            |f| f.field_id,
        ));
    }
}

fn check_new(fields: &[UnboundPartitionField], new: &UnboundPartitionField) -> Result<()> {
    if fields.iter().any(|f| (f.source_id, f.transform) == (new.source_id, new.transform)) {
        return Err(Error::new(ErrorKind::AlreadyExists, "the table is partitioned by that already"));
    }
    if fields.iter().any(|f| f.name == new.name) {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("partition field \"{}\" already exists", new.name))
            .with_hint("Give the new one a name: ADD PARTITION FIELD … AS name."));
    }
    Ok(())
}

fn find(schema: &Schema, fields: &[UnboundPartitionField], wanted: &PartitionRef) -> Result<usize> {
    let by = |column: &str, transform| {
        let source = schema.field_id_by_name(column)?;
        fields.iter().position(|f| f.source_id == source && f.transform == transform)
    };
    let found = match wanted {
        PartitionRef::Name(name) => {
            fields.iter().position(|f| f.name == *name).or_else(|| by(name, Transform::Identity))
        }
        PartitionRef::Field(field) => by(&field.column, transform_of(field.transform)),
    };
    found.ok_or_else(|| {
        Error::not_found("the table has no such partition field").with_detail(format!(
            "Its partition fields are: {}.",
            if fields.is_empty() {
                "none".to_owned()
            } else {
                fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ")
            }
        ))
    })
}
