//! Columns and types of the catalog tables, from `layout.txt`: one line a table, `name: column type, column type …`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

const LAYOUT: &str = include_str!("layout.txt");

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    TextList(Vec<String>),
    IntList(Vec<i64>),
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}
impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}
impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::Int(i64::from(v))
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// A row by column name. Columns that it does not name get the default of their type.
pub(crate) type Row = Vec<(&'static str, Value)>;

static RELATIONS: LazyLock<HashMap<&'static str, SchemaRef>> =
    LazyLock::new(|| LAYOUT.lines().filter_map(|line| line.split_once(": ")).map(|(t, c)| (t, schema(c))).collect());

/// Names of the catalog tables; those of `information_schema` carry its name.
pub fn relation_names() -> impl Iterator<Item = &'static str> {
    RELATIONS.keys().copied()
}

pub(crate) fn layout(name: &str) -> Option<SchemaRef> {
    RELATIONS.get(name).cloned()
}

fn schema(columns: &'static str) -> SchemaRef {
    let fields = columns.split(", ").filter_map(|column| column.split_once(' ')).map(|(name, pg)| {
        let mut field = Field::new(name, data_type(pg), true);
        if matches!(pg, "oid" | "name" | "\"char\"") {
            field = field.with_metadata(HashMap::from([("tidewater.type".to_owned(), pg.replace('"', ""))]));
        }
        field
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn data_type(pg: &str) -> DataType {
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    match pg {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" | "information_schema.cardinal_number" => DataType::Int32,
        "bigint" | "oid" | "xid" | "cid" => DataType::Int64,
        "real" => DataType::Float32,
        "double precision" => DataType::Float64,
        "bytea" => DataType::Binary,
        "smallint[]" | "oid[]" | "int2vector" | "oidvector" => list(DataType::Int64),
        _ if pg.ends_with("[]") => list(DataType::Utf8),
        _ if pg.starts_with("timestamp") => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00"))),
        _ => DataType::Utf8,
    }
}

/// Rows in the layout's order of columns.
pub(crate) fn batch(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|f| column(f, rows)).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn column(field: &Field, rows: &[Row]) -> Result<ArrayRef, ArrowError> {
    let cells = rows.iter().map(|row| row.iter().find(|(name, _)| name == field.name()).map(|(_, v)| v));
    let wrong =
        |v: &Value| ArrowError::InvalidArgumentError(format!("catalog column {} cannot hold {v:?}", field.name()));
    macro_rules! numbers {
        ($builder:ty, $default:expr, $convert:expr) => {{
            let mut b = <$builder>::new();
            for cell in cells {
                match cell {
                    None => b.append_option($default),
                    Some(Value::Null) => b.append_null(),
                    Some(v) => b.append_value($convert(v).ok_or_else(|| wrong(v))?),
                }
            }
            Arc::new(b.finish()) as ArrayRef
        }};
    }
    let int = |v: &Value| if let Value::Int(n) = v { Some(*n) } else { None };
    Ok(match field.data_type() {
        DataType::Boolean => {
            numbers!(BooleanBuilder, Some(false), |v: &Value| if let Value::Bool(x) = v { Some(*x) } else { None })
        }
        DataType::Int16 => numbers!(Int16Builder, Some(0), |v| int(v).and_then(|n| i16::try_from(n).ok())),
        DataType::Int32 => numbers!(Int32Builder, Some(0), |v| int(v).and_then(|n| i32::try_from(n).ok())),
        DataType::Int64 => numbers!(Int64Builder, Some(0), int),
        DataType::Float32 => numbers!(Float32Builder, Some(0.0), |v: &Value| match v {
            Value::Float(x) => Some(*x as f32),
            Value::Int(n) => Some(*n as f32),
            _ => None,
        }),
        DataType::Float64 => numbers!(Float64Builder, Some(0.0), |v: &Value| match v {
            Value::Float(x) => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        }),
        DataType::Timestamp(..) => {
            let mut b = TimestampMicrosecondBuilder::new().with_timezone("+00:00");
            for cell in cells {
                b.append_option(cell.and_then(int));
            }
            Arc::new(b.finish())
        }
        DataType::Binary => Arc::new(BinaryArray::from_opt_vec(vec![None; rows.len()])),
        DataType::List(item) if *item.data_type() == DataType::Int64 => {
            let mut b = ListBuilder::new(Int64Builder::new());
            for cell in cells {
                match cell {
                    Some(Value::IntList(list)) => b.append_value(list.iter().map(|n| Some(*n))),
                    _ => b.append_null(),
                }
            }
            Arc::new(b.finish())
        }
        DataType::List(_) => {
            let mut b = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                match cell {
                    Some(Value::TextList(list)) => b.append_value(list.iter().map(|s| Some(s.as_str()))),
                    _ => b.append_null(),
                }
            }
            Arc::new(b.finish())
        }
        _ => {
            // A name or code that nobody set is empty, a text is unknown.
            let default = field.metadata().get("tidewater.type").map(|_| "");
            let mut b = StringBuilder::new();
            for cell in cells {
                match cell {
                    None => b.append_option(default),
                    Some(Value::Text(s)) => b.append_value(s),
                    Some(Value::Null) => b.append_null(),
                    Some(v) => return Err(wrong(v)),
                }
            }
            Arc::new(b.finish())
        }
    })
}
