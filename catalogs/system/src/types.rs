//! PostgreSQL's types, from `types.txt`: `oid|name|length|by value|category|preferred|element|array|collation|in|out`.

use std::sync::LazyLock;

use arrow::datatypes::DataType;

const TYPES: &str = include_str!("types.txt");

#[derive(Debug, Clone)]
pub(crate) struct TypeEntry {
    pub oid: u32,
    pub name: &'static str,
    pub len: i64,
    pub by_value: bool,
    pub category: &'static str,
    pub preferred: bool,
    pub element: u32,
    pub array: u32,
    pub collation: u32,
    pub input: &'static str,
    pub output: &'static str,
}

pub(crate) static ENTRIES: LazyLock<Vec<TypeEntry>> =
    LazyLock::new(|| TYPES.lines().filter_map(|line| entry(&line.split('|').collect::<Vec<_>>())).collect());

fn entry(f: &[&'static str]) -> Option<TypeEntry> {
    Some(TypeEntry {
        oid: f.first()?.parse().ok()?,
        name: f.get(1)?,
        len: f.get(2)?.parse().ok()?,
        by_value: *f.get(3)? == "t",
        category: f.get(4)?,
        preferred: *f.get(5)? == "t",
        element: f.get(6)?.parse().ok()?,
        array: f.get(7)?.parse().ok()?,
        collation: f.get(8)?.parse().ok()?,
        input: f.get(9)?,
        output: f.get(10)?,
    })
}

/// A column's type as PostgreSQL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgType {
    pub oid: u32,
    /// -1 where the type has no modifier.
    pub typmod: i32,
}

/// The PostgreSQL type that an Arrow type is shown as.
pub fn pg_type(data_type: &DataType) -> PgType {
    use DataType as D;
    let plain = |oid| PgType { oid, typmod: -1 };
    match data_type {
        D::Boolean => plain(16),
        D::Int8 | D::Int16 | D::UInt8 => plain(21),
        D::Int32 | D::UInt16 => plain(23),
        D::Int64 | D::UInt32 => plain(20),
        D::UInt64 => plain(1700),
        D::Float16 | D::Float32 => plain(700),
        D::Float64 => plain(701),
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) => {
            PgType { oid: 1700, typmod: (i32::from(*p) << 16 | (i32::from(*s) & 0x7ff)) + 4 }
        }
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => plain(17),
        D::Date32 | D::Date64 => plain(1082),
        D::Time32(_) | D::Time64(_) => plain(1083),
        D::Timestamp(_, None) => plain(1114),
        D::Timestamp(_, Some(_)) => plain(1184),
        D::Interval(_) | D::Duration(_) => plain(1186),
        D::Struct(_) | D::Map(..) | D::Union(..) => plain(3802),
        D::Dictionary(_, value) => pg_type(value),
        D::RunEndEncoded(_, value) => pg_type(value.data_type()),
        D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) | D::ListView(item) | D::LargeListView(item) => {
            // Arrays of any number of dimensions are of one type.
            let mut leaf = item.data_type();
            while let D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) = leaf {
                leaf = item.data_type();
            }
            let element = pg_type(leaf).oid;
            plain(ENTRIES.iter().find(|t| t.oid == element && t.array != 0).map_or(3807, |t| t.array))
        }
        _ => plain(25),
    }
}

/// The SQL name of the type that an Arrow type is shown as, without its modifier.
pub fn type_name(data_type: &DataType) -> String {
    format_type(pg_type(data_type).oid, None)
}

/// PostgreSQL's `format_type`: the SQL name of a type.
pub(crate) fn format_type(oid: u32, typmod: Option<i32>) -> String {
    let Some(entry) = ENTRIES.iter().find(|t| t.oid == oid) else { return "???".to_owned() };
    if entry.category == "A" && entry.element != 0 {
        return format!("{}[]", format_type(entry.element, typmod));
    }
    let name = match entry.name {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "bpchar" => "character",
        "varchar" => "character varying",
        "time" => "time without time zone",
        "timetz" => "time with time zone",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "char" => "\"char\"",
        other => other,
    };
    match typmod {
        Some(m) if m >= 4 && oid == 1700 => format!("numeric({},{})", (m - 4) >> 16, (m - 4) & 0x7ff),
        Some(m) if m >= 4 && matches!(oid, 1042 | 1043) => format!("{name}({})", m - 4),
        _ => name.to_owned(),
    }
}
