//! Whether a Parquet file that somebody else wrote can be read as one of the table, column by column.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use iceberg::spec::{NameMapping, Type};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::adapt::{default_of, field_id, plan, with_field_ids};
use super::columns::ScanSchema;
use super::location::Root;
use crate::state::TableState;

/// Looks at files as a scan of the table would.
pub(crate) struct Fitter {
    schema: ScanSchema,
    root: Root,
    state: Arc<TableState>,
}

/// How the columns of one file lie under those of the table.
pub(crate) struct Fit {
    pub(crate) footer: Arc<ParquetMetaData>,
    /// By column of the table; none where the file does not have it.
    pub(crate) columns: Vec<Option<Stored>>,
    pub(crate) has_ids: bool,
    /// Whoever spells the location otherwise names the same file.
    pub(crate) key: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// The column of Parquet, where it is a plain one.
    pub(crate) leaf: Option<usize>,
    /// Its values are stored and ordered as the table's, so that its statistics are the table's.
    pub(crate) alike: bool,
}

impl Fitter {
    /// `names` for files without field ids, where the table has no name mapping.
    pub(crate) fn new(state: Arc<TableState>, names: NameMapping) -> Result<Self> {
        let mut schema = ScanSchema::of(&state, None)?;
        schema.names.get_or_insert(names);
        Ok(Self { schema, root: Root::of(state.metadata.location()), state })
    }

    pub(crate) fn key(&self, location: &str) -> Result<String> {
        Ok(self.root.key(&self.root.path(location)?))
    }

    /// None where there is no such file.
    pub(crate) async fn size(&self, location: &str) -> Result<Option<u64>> {
        let path = self.root.path(location)?;
        match self.state.storage.object_store(location)?.head(&path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(crate::error::store("look at a file", location, e)),
        }
    }

    /// `Unsupported` or `InvalidInput` where the file cannot be one of the table. The file is read past every cache, as
    /// one that is no part of a table may still change.
    pub(crate) async fn look(&self, location: &str, size_bytes: u64) -> Result<Fit> {
        let path = self.root.path(location)?;
        let store = self.state.storage.object_store(location)?;
        let unread = |e: parquet::errors::ParquetError| {
            Error::new(ErrorKind::DataCorrupt, "file cannot be read as Parquet").with_source(e)
        };
        let mut reader = ParquetObjectReader::new(store, path.clone()).with_file_size(size_bytes);
        let footer = ParquetMetaDataReader::new().load_and_finish(&mut reader, size_bytes).await.map_err(unread)?;
        let footer = Arc::new(footer);
        let arrow = ArrowReaderMetadata::try_new(Arc::clone(&footer), ArrowReaderOptions::new()).map_err(unread)?;
        let file = with_field_ids(&self.schema, arrow.schema())?;
        for field in file.fields() {
            self.known(field)?;
        }
        let descriptor = footer.file_metadata().schema_descr();
        let mut columns = Vec::with_capacity(self.schema.arrow.fields().len());
        for (index, table) in self.schema.arrow.fields().iter().enumerate() {
            let id = self.schema.field(index).id;
            let mut found = file.fields().iter().filter(|f| field_id(f) == Some(id));
            let Some(field) = found.next() else {
                columns.push(None);
                continue;
            };
            if found.next().is_some() {
                return Err(
                    Error::invalid("two columns of the file are one of the table").with_context("column", table.name())
                );
            }
            plan(&self.schema, table, field)?;
            let leaf = descriptor
                .columns()
                .iter()
                .position(|c| c.max_rep_level() == 0 && matches!(c.path().parts(), [only] if only == field.name()));
            let alike = leaf.is_some() && !self.schema.is_uuid(index) && is_alike(field.data_type(), table.data_type());
            columns.push(Some(Stored { leaf, alike }));
        }
        let has_ids = arrow.schema().fields().iter().any(|f| field_id(f).is_some());
        Ok(Fit { footer, columns, has_ids, key: self.root.key(&path) })
    }

    /// What all rows have of a column that the file lacks.
    pub(crate) fn missing(&self, column: usize) -> Result<datafusion::common::ScalarValue> {
        default_of(&self.schema, self.schema.field(column).id, self.schema.data_type(column))
    }

    /// A column that the table does not know by this name would be lost, or taken for another.
    fn known(&self, field: &Field) -> Result<()> {
        let unknown = |what: &str| Error::invalid(format!("the file has a column \"{}\" {what}", field.name()));
        let table = field_id(field).and_then(|id| self.schema.iceberg.field_by_id(id));
        let table = table.ok_or_else(|| {
            unknown("that the table has not").with_hint(
                "ALTER TABLE … ADD COLUMN first; a table with \"schema.name-mapping.default\" needs it there, too.",
            )
        })?;
        if table.name != *field.name() && !matches!(table.name.as_str(), "element" | "key" | "value") {
            return Err(unknown(&format!("whose field id is that of column \"{}\"", table.name)));
        }
        match (field.data_type(), table.field_type.as_ref()) {
            (DataType::Struct(children), Type::Struct(of)) => {
                children.iter().try_for_each(|child| self.known_inside(child))?;
                let missing = of.fields().iter().find(|f| {
                    f.required && f.initial_default.is_none() && !children.iter().any(|c| field_id(c) == Some(f.id))
                });
                match missing {
                    Some(f) => {
                        Err(Error::invalid(format!("the file lacks field \"{}\", which must not be null", f.name)))
                    }
                    None => Ok(()),
                }
            }
            (DataType::List(element) | DataType::LargeList(element), _) => self.known_inside(element),
            (DataType::Map(entries, _), _) => match entries.data_type() {
                DataType::Struct(pair) => pair.iter().try_for_each(|child| self.known_inside(child)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Of nested fields nobody counts nulls row by row.
    fn known_inside(&self, field: &Field) -> Result<()> {
        let table = field_id(field).and_then(|id| self.schema.iceberg.field_by_id(id));
        if field.is_nullable() && table.is_some_and(|table| table.required && table.name != "key") {
            return Err(Error::unsupported(format!(
                "field \"{}\" must not be null, and the file does not say so of its values",
                field.name()
            )));
        }
        self.known(field)
    }
}

/// Floats are left out: their statistics say nothing of NaN.
fn is_alike(file: &DataType, table: &DataType) -> bool {
    use DataType as D;
    match (file, table) {
        (D::Float16 | D::Float32 | D::Float64, _) => false,
        (D::Dictionary(_, values), _) => is_alike(values, table),
        (D::Int8 | D::Int16 | D::UInt8 | D::UInt16 | D::Int32, D::Int32 | D::Int64) => true,
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8) => true,
        (D::Timestamp(one, _), D::Timestamp(other, _)) => one == other,
        (D::Decimal32(_, one) | D::Decimal64(_, one) | D::Decimal128(_, one), D::Decimal128(_, other)) => one == other,
        (one, other) => one == other,
    }
}
