//! The table's name mapping (Iceberg spec, "Name Mapping Serialization"): how columns of files without ids are found.

use iceberg::spec::{DEFAULT_SCHEMA_NAME_MAPPING, MappedField, NameMapping, NestedFieldRef, Type};
use tidewater_catalogs::{Error, ErrorKind, Result};

use crate::state::TableState;

pub(super) struct Names {
    pub(super) mapping: NameMapping,
    /// As it stands in the table's properties, or will.
    pub(super) json: String,
    pub(super) is_new: bool,
}

/// What the table has, or one of its columns as they are called now.
pub(super) fn mapping(state: &TableState) -> Result<Names> {
    if let Some(json) = state.metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) {
        let mapping = serde_json::from_str(json).map_err(|e| {
            Error::new(ErrorKind::DataCorrupt, "name mapping of the table cannot be read").with_source(e)
        })?;
        return Ok(Names { mapping, json: json.clone(), is_new: false });
    }
    let fields = state.metadata.current_schema().as_struct().fields();
    let mapping = NameMapping::new(fields.iter().map(mapped).collect());
    let json = serde_json::to_string(&mapping)
        .map_err(|e| Error::internal("the name mapping cannot be written").with_source(e))?;
    Ok(Names { mapping, json, is_new: true })
}

fn mapped(field: &NestedFieldRef) -> MappedField {
    let children = match field.field_type.as_ref() {
        Type::Primitive(_) => Vec::new(),
        Type::Struct(fields) => fields.fields().iter().map(mapped).collect(),
        Type::List(list) => vec![mapped(&list.element_field)],
        Type::Map(map) => vec![mapped(&map.key_field), mapped(&map.value_field)],
    };
    MappedField::new(Some(field.id), vec![field.name.clone()], children)
}
