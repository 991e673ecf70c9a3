//! Row lineage of format version 3 (Iceberg spec, "Row Lineage"): rows that are written anew keep who they are in two
//! columns of their file, which the table does not show.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, UInt64Type};
use arrow::record_batch::RecordBatch;
use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Schema, TableMetadata, Type};
use tidewater_catalogs::{Error, Result};

use crate::error;
use crate::scan::{Places, TargetFile};

/// Field ids that the specification reserves.
pub(crate) const ROW_ID: i32 = 2_147_483_540;
const LAST_UPDATED: i32 = 2_147_483_539;
/// Of reserved fields, metadata columns among them.
pub(crate) const FIRST_RESERVED: i32 = i32::MAX - 200;
const NAMES: [&str; 2] = ["_row_id", "_last_updated_sequence_number"];

/// Whether rows of the table have ids. A column of the user's under one of the names leaves no room for them.
pub(crate) fn is_kept(metadata: &TableMetadata) -> bool {
    let columns = metadata.current_schema().as_struct();
    metadata.format_version() >= FormatVersion::V3 && !NAMES.iter().any(|name| columns.field_by_name(name).is_some())
}

/// The columns of the table, and behind them the two of its rows' lineage.
pub(crate) fn with_columns(schema: &Schema) -> Result<Schema> {
    let long = || Type::Primitive(PrimitiveType::Long);
    let own = [ROW_ID, LAST_UPDATED].into_iter().zip(NAMES);
    let own = own.map(|(id, name)| Arc::new(NestedField::optional(id, name, long())));
    let fields = schema.as_struct().fields().iter().cloned().chain(own).collect::<Vec<_>>();
    let built = Schema::builder().with_schema_id(schema.schema_id()).with_fields(fields).build();
    built.map_err(|e| error::iceberg("add the columns of row lineage", e))
}

/// How far ids and sequence numbers are given. In a draft, which others do not see yet, those beyond are not: the commit gives
/// other ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    sequence_number: i64,
    next_row_id: i64,
}

impl Settled {
    pub(crate) const ALL: Self = Self { sequence_number: i64::MAX, next_row_id: i64::MAX };

    pub(crate) fn until(metadata: &TableMetadata) -> Self {
        let next_row_id = i64::try_from(metadata.next_row_id()).unwrap_or(i64::MAX);
        Self { sequence_number: metadata.last_sequence_number(), next_row_id }
    }

    pub(crate) fn first_row_id(self, file: &TargetFile) -> Option<i64> {
        file.first_row_id.filter(|id| *id < self.next_row_id)
    }

    fn sequence_number(self, file: &TargetFile) -> Option<i64> {
        (file.sequence_number <= self.sequence_number).then_some(file.sequence_number)
    }
}

/// Rows that were read with [`with_columns`] and their places, without the places and with all that they inherit from
/// their files.
pub(crate) fn inherited(batch: &RecordBatch, places: &Places, settled: Settled) -> Result<RecordBatch> {
    let Some(at) = batch.num_columns().checked_sub(NAMES.len() + 1) else {
        return Err(Error::internal("rows were read without their lineage"));
    };
    let (place, rows) = (batch.column(at + NAMES.len()).as_primitive::<UInt64Type>(), batch.num_rows());
    let own = |column: usize| batch.column(column).as_primitive::<Int64Type>();
    let (own_ids, own_updated) = (own(at), own(at + 1));
    let (mut ids, mut updated) = (Int64Array::builder(rows), Int64Array::builder(rows));
    let mut last: Option<(u32, Arc<TargetFile>)> = None;
    for row in 0..rows {
        let (number, position) = Places::split(place.value(row));
        let file = match &last {
            Some((same, file)) if *same == number => file,
            _ => &last.insert((number, places.file(number)?)).1,
        };
        let first = settled.first_row_id(file).and_then(|first| first.checked_add_unsigned(position));
        let id = own_ids.is_valid(row).then(|| own_ids.value(row)).or(first);
        ids.append_option(id);
        let own = own_updated.is_valid(row).then(|| own_updated.value(row));
        // A row that has no id yet has no history either.
        updated.append_option(own.or_else(|| id.and_then(|_| settled.sequence_number(file))));
    }
    let columns =
        batch.columns()[..at].iter().cloned().chain([Arc::new(ids.finish()) as ArrayRef, Arc::new(updated.finish())]);
    let fields: Vec<usize> = (0..at + NAMES.len()).collect();
    Ok(RecordBatch::try_new(Arc::new(batch.schema().project(&fields)?), columns.collect())?)
}

/// Rows of the table, with the ids that they had, as they are in a file when their values are new.
pub(crate) fn changed(batch: &RecordBatch, ids: Int64Array) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields().iter().cloned();
    let own = NAMES.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, true)));
    let updated = Int64Array::new_null(batch.num_rows());
    let columns = batch.columns().iter().cloned().chain([Arc::new(ids) as ArrayRef, Arc::new(updated)]);
    let schema = ArrowSchema::new(fields.chain(own).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.collect())?)
}

/// The columns of rows that are new, or whose lineage is not known.
pub(crate) fn unknown(rows: usize) -> impl Iterator<Item = ArrayRef> {
    NAMES.iter().map(move |_| Arc::new(Int64Array::new_null(rows)) as ArrayRef)
}
