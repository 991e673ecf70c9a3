use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use datafusion::common::ScalarValue;
use iceberg::spec::{
    FormatVersion, ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType,
    TableMetadata, Type,
};
use tidewater_catalogs::{AddColumn, ColumnPlace, Error, ErrorKind, Result};

use crate::default_values;
use crate::schema::{new_type, to_iceberg};

/// The columns of a table while they are changed.
pub(super) struct Columns<'a> {
    metadata: &'a TableMetadata,
    fields: Vec<NestedFieldRef>,
    last_id: i32,
    /// That the table has, or gets with the same change.
    version: FormatVersion,
}

impl<'a> Columns<'a> {
    pub(super) fn new(metadata: &'a TableMetadata, version: FormatVersion) -> Self {
        let fields = metadata.current_schema().as_struct().fields().to_vec();
        Self { metadata, fields, last_id: metadata.last_column_id(), version }
    }

    /// None where they are as they were.
    pub(super) fn into_schema(self, metadata: &TableMetadata) -> Result<Option<Schema>> {
        let before = metadata.current_schema();
        if self.fields == before.as_struct().fields() {
            return Ok(None);
        }
        let schema = Schema::builder()
            .with_fields(self.fields)
            .with_identifier_field_ids(before.identifier_field_ids())
            .build()
            .map_err(|e| Error::invalid("the columns do not make a table").with_source(e))?;
        // What no reader of ours knows is not made either.
        crate::schema::to_arrow(&schema)?;
        Ok(Some(schema))
    }

    pub(super) fn add(&mut self, add: &AddColumn) -> Result<()> {
        let (name, parent) = split(&add.path)?;
        if self.siblings(parent)?.iter().any(|f| f.name == *name) {
            if add.if_not_exists {
                return Ok(());
            }
            return Err(exists(&add.path));
        }
        let id = self.last_id + 1;
        let (data_type, last_id) = new_type(&add.data_type, &add.path.join("."), id)?;
        self.last_id = last_id;
        let default = self.default(&add.path, &data_type, add.default.as_ref())?;
        if add.required && default.is_none() {
            return Err(Error::unsupported(format!("column \"{name}\" that is NOT NULL needs a default"))
                .with_detail("The rows that are there have no value for it."));
        }
        let mut field = NestedField::new(id, name, data_type, add.required);
        field.initial_default.clone_from(&default);
        field.write_default = default;
        field.doc = add.comment.clone();
        self.edit_siblings(parent, &mut |siblings| {
            let at = match &add.place {
                None => siblings.len(),
                Some(place) => position(siblings, place)?,
            };
            siblings.insert(at, Arc::new(field.clone()));
            Ok(())
        })
    }

    pub(super) fn drop(&mut self, path: &[String], if_exists: bool) -> Result<()> {
        let field = match self.find(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && if_exists => return Ok(()),
            other => other?,
        };
        self.check_unused(&field, path)?;
        let (name, parent) = split(path)?;
        if matches!(name.as_str(), "element" | "key" | "value") && !self.is_struct(parent)? {
            return Err(Error::invalid(format!("\"{}\" is a part of its type and cannot be dropped", path.join("."))));
        }
        if self.siblings(parent)?.len() == 1 {
            return Err(Error::unsupported(format!("\"{}\" is the only column there", path.join("."))));
        }
        self.edit_siblings(parent, &mut |siblings| {
            siblings.retain(|f| f.name != *name);
            Ok(())
        })
    }

    pub(super) fn rename(&mut self, path: &[String], to: &str) -> Result<()> {
        let (name, parent) = split(path)?;
        self.find(path)?;
        if !self.is_struct(parent)? {
            return Err(Error::invalid(format!("\"{}\" is a part of its type and has no other name", path.join("."))));
        }
        if name == to {
            return Ok(());
        }
        if self.siblings(parent)?.iter().any(|f| f.name == to) {
            let path: Vec<String> = parent.iter().cloned().chain([to.to_owned()]).collect();
            return Err(exists(&path));
        }
        self.edit(path, &mut |field| {
            field.name = to.to_owned();
            Ok(())
        })
    }

    pub(super) fn widen(&mut self, path: &[String], to: &DataType) -> Result<()> {
        let from = self.find(path)?;
        let wanted = to_iceberg(&ArrowSchema::new(vec![Field::new("c", to.clone(), true)]))?;
        let Some(wanted) = wanted.as_struct().fields().first() else { return Err(missing(path)) };
        let (Type::Primitive(old), Type::Primitive(new)) = (from.field_type.as_ref(), wanted.field_type.as_ref())
        else {
            return Err(Error::unsupported(format!("the type of \"{}\" cannot be changed", path.join(".")))
                .with_hint("Add, drop or change its members by themselves."));
        };
        if !widens(old, new) {
            return Err(Error::unsupported(format!(
                "the type of column \"{}\" cannot be changed from {old} to {new}",
                path.join(".")
            ))
            .with_detail("Files that are there keep the old type, so the new one must hold all of its values.")
            .with_hint("What can be changed: int to bigint, real to double precision, numeric to more digits."));
        }
        let new = new.clone();
        self.edit(path, &mut |field| {
            *field.field_type = Type::Primitive(new.clone());
            field.initial_default = default_values::widened(field.initial_default.take(), &new);
            field.write_default = default_values::widened(field.write_default.take(), &new);
            Ok(())
        })
    }

    pub(super) fn change_null(&mut self, path: &[String], nullable: bool) -> Result<()> {
        let field = self.find(path)?;
        if field.required != nullable {
            return Ok(());
        }
        if path.len() > 1 && !nullable {
            return Err(Error::unsupported("SET NOT NULL of a part of a column"));
        }
        if nullable && self.metadata.current_schema().identifier_field_ids().any(|id| id == field.id) {
            return Err(Error::unsupported(format!("column \"{}\" identifies rows of the table", path.join("."))));
        }
        self.edit(path, &mut |field| {
            field.required = !nullable;
            Ok(())
        })
    }

    pub(super) fn change_default(&mut self, path: &[String], default: Option<&ScalarValue>) -> Result<()> {
        let field = self.find(path)?;
        let default = self.default(path, &field.field_type, default)?;
        self.edit(path, &mut |field| {
            field.write_default.clone_from(&default);
            Ok(())
        })
    }

    fn default(&self, path: &[String], data_type: &Type, value: Option<&ScalarValue>) -> Result<Option<Literal>> {
        let Some(value) = value else { return Ok(None) };
        default_values::check_version(self.version)?;
        if path.len() > 1 {
            return Err(Error::unsupported("a default of a part of a column"));
        }
        default_values::literal(value, data_type, &path.join(".")).map(Some)
    }

    pub(super) fn comment(&mut self, path: &[String], comment: Option<&str>) -> Result<()> {
        self.find(path)?;
        self.edit(path, &mut |field| {
            field.doc = comment.map(str::to_owned);
            Ok(())
        })
    }

    pub(super) fn move_to(&mut self, path: &[String], place: &ColumnPlace) -> Result<()> {
        let (name, parent) = split(path)?;
        self.find(path)?;
        if *place == ColumnPlace::After(name.clone()) {
            return Err(Error::invalid(format!("column \"{}\" cannot stand after itself", path.join("."))));
        }
        self.edit_siblings(parent, &mut |siblings| {
            let from = siblings.iter().position(|f| f.name == *name).ok_or_else(|| missing(path))?;
            let field = siblings.remove(from);
            let at = position(siblings, place)?;
            siblings.insert(at, field);
            Ok(())
        })
    }

    fn find(&self, path: &[String]) -> Result<NestedFieldRef> {
        let (name, parent) = split(path)?;
        self.siblings(parent)?.into_iter().find(|f| f.name == *name).ok_or_else(|| missing(path))
    }

    fn is_struct(&self, path: &[String]) -> Result<bool> {
        Ok(path.is_empty() || matches!(self.find(path)?.field_type.as_ref(), Type::Struct(_)))
    }

    /// The columns at the top, or the parts of the column at `parent`.
    fn siblings(&self, parent: &[String]) -> Result<Vec<NestedFieldRef>> {
        if parent.is_empty() {
            return Ok(self.fields.clone());
        }
        Ok(match self.find(parent)?.field_type.as_ref() {
            Type::Struct(members) => members.fields().to_vec(),
            Type::List(list) => vec![Arc::clone(&list.element_field)],
            Type::Map(map) => vec![Arc::clone(&map.key_field), Arc::clone(&map.value_field)],
            Type::Primitive(_) => Vec::new(),
        })
    }

    fn edit_siblings(
        &mut self,
        parent: &[String],
        change: &mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>,
    ) -> Result<()> {
        if parent.is_empty() {
            return change(&mut self.fields);
        }
        self.edit(parent, &mut |field| {
            let Type::Struct(members) = field.field_type.as_ref() else {
                return Err(Error::invalid(format!("column \"{}\" has no members", parent.join(".")))
                    .with_hint("The members of an array's elements are at column.element.member."));
            };
            let mut members = members.fields().to_vec();
            change(&mut members)?;
            *field.field_type = Type::Struct(StructType::new(members));
            Ok(())
        })
    }

    fn edit(&mut self, path: &[String], change: &mut dyn FnMut(&mut NestedField) -> Result<()>) -> Result<()> {
        edit(&mut self.fields, path, path, change)
    }

    /// Partition fields, in old files too, sort orders and identifiers name columns by id.
    fn check_unused(&self, field: &NestedField, path: &[String]) -> Result<()> {
        let mut ids = Vec::new();
        collect(field, &mut ids);
        let path = path.join(".");
        let metadata = self.metadata;
        let names = |spec: &iceberg::spec::PartitionSpec| spec.fields().iter().any(|f| ids.contains(&f.source_id));
        if names(metadata.default_partition_spec()) {
            return Err(Error::invalid(format!("column \"{path}\" cannot be dropped: the table is partitioned by it"))
                .with_hint("ALTER TABLE … DROP PARTITION FIELD first."));
        }
        if metadata.partition_specs_iter().any(|spec| names(spec)) {
            return Err(Error::unsupported(format!(
                "column \"{path}\" cannot be dropped: files are partitioned by it"
            ))
            .with_detail("Partition fields that are no longer in use read it still."));
        }
        if metadata.default_sort_order().fields.iter().any(|f| ids.contains(&f.source_id)) {
            return Err(Error::invalid(format!("column \"{path}\" cannot be dropped: the table is sorted by it")));
        }
        if metadata.current_schema().identifier_field_ids().any(|id| ids.contains(&id)) {
            return Err(Error::invalid(format!("column \"{path}\" cannot be dropped: it identifies rows")));
        }
        Ok(())
    }
}

fn collect(field: &NestedField, ids: &mut Vec<i32>) {
    ids.push(field.id);
    match field.field_type.as_ref() {
        Type::Struct(members) => members.fields().iter().for_each(|f| collect(f, ids)),
        Type::List(list) => collect(&list.element_field, ids),
        Type::Map(map) => {
            collect(&map.key_field, ids);
            collect(&map.value_field, ids);
        }
        Type::Primitive(_) => {}
    }
}

fn edit(
    fields: &mut [NestedFieldRef],
    path: &[String],
    whole: &[String],
    change: &mut dyn FnMut(&mut NestedField) -> Result<()>,
) -> Result<()> {
    let Some((name, rest)) = path.split_first() else { return Err(missing(whole)) };
    let field = fields.iter_mut().find(|f| f.name == *name).ok_or_else(|| missing(whole))?;
    let mut new = field.as_ref().clone();
    if rest.is_empty() {
        change(&mut new)?;
    } else {
        *new.field_type = match new.field_type.as_ref() {
            Type::Struct(members) => {
                let mut members = members.fields().to_vec();
                edit(&mut members, rest, whole, change)?;
                Type::Struct(StructType::new(members))
            }
            Type::List(list) => {
                let mut parts = [Arc::clone(&list.element_field)];
                edit(&mut parts, rest, whole, change)?;
                let [element] = parts;
                Type::List(ListType::new(element))
            }
            Type::Map(map) => {
                let mut parts = [Arc::clone(&map.key_field), Arc::clone(&map.value_field)];
                if rest.first().is_some_and(|part| *part == map.key_field.name) {
                    return Err(Error::unsupported("changes of the keys of a map"));
                }
                edit(&mut parts, rest, whole, change)?;
                let [key, value] = parts;
                Type::Map(MapType::new(key, value))
            }
            Type::Primitive(_) => return Err(missing(whole)),
        };
    }
    *field = Arc::new(new);
    Ok(())
}

fn position(siblings: &[NestedFieldRef], place: &ColumnPlace) -> Result<usize> {
    match place {
        ColumnPlace::First => Ok(0),
        ColumnPlace::After(name) => {
            let found = siblings.iter().position(|f| f.name == *name);
            found.map(|at| at + 1).ok_or_else(|| missing(std::slice::from_ref(name)))
        }
    }
}

fn split(path: &[String]) -> Result<(&String, &[String])> {
    path.split_last().ok_or_else(|| Error::invalid("a column has a name"))
}

fn missing(path: &[String]) -> Error {
    Error::not_found(format!("column \"{}\" does not exist", path.join(".")))
}

fn exists(path: &[String]) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("column \"{}\" already exists", path.join(".")))
}

/// Iceberg spec, "Schema Evolution": what format version 2 can promote.
fn widens(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    match (from, to) {
        (P::Int, P::Long) | (P::Float, P::Double) => true,
        (P::Decimal { precision: p, scale: s }, P::Decimal { precision, scale }) => s == scale && p <= precision,
        _ => from == to,
    }
}
