//! Which PostgreSQL type a column or a parameter has on the wire.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use tidewater_sql::{SqlError, SqlState};

/// Object ids of `pg_type`, as every PostgreSQL has them.
pub(crate) mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const REGPROC: u32 = 24;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const REGCLASS: u32 = 2205;
    pub const REGTYPE: u32 = 2206;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
    pub const REGNAMESPACE: u32 = 4089;
}

/// Element type, array type. The order does not matter; both directions are looked up here.
const ARRAYS: &[(u32, u32)] = &[
    (oid::BOOL, 1000),
    (oid::BYTEA, 1001),
    (oid::CHAR, 1002),
    (oid::NAME, 1003),
    (oid::INT2, 1005),
    (oid::INT2VECTOR, 1006),
    (oid::INT4, 1007),
    (oid::REGPROC, 1008),
    (oid::TEXT, 1009),
    (oid::XID, 1011),
    (oid::OIDVECTOR, 1013),
    (oid::BPCHAR, 1014),
    (oid::VARCHAR, 1015),
    (oid::INT8, 1016),
    (oid::FLOAT4, 1021),
    (oid::FLOAT8, 1022),
    (oid::OID, 1028),
    (oid::TIMESTAMP, 1115),
    (oid::DATE, 1182),
    (oid::TIME, 1183),
    (oid::TIMESTAMPTZ, 1185),
    (oid::INTERVAL, 1187),
    (oid::NUMERIC, 1231),
    (oid::JSON, 199),
    (oid::REGCLASS, 2210),
    (oid::REGTYPE, 2211),
    (oid::UUID, 2951),
    (oid::JSONB, 3807),
    (oid::REGNAMESPACE, 4090),
];

pub(crate) fn element_of(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(_, a)| *a == array).map(|(e, _)| *e)
}

/// What RowDescription says about a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PgType {
    pub oid: u32,
    /// Bytes of the binary form; -1 where it varies.
    pub len: i16,
    /// -1 where there is none; `((precision << 16) | scale) + 4` for numeric, length + 4 for varchar.
    pub typmod: i32,
}

impl PgType {
    pub fn of_oid(oid: u32) -> Self {
        let len = match oid {
            oid::BOOL | oid::CHAR => 1,
            oid::INT2 => 2,
            oid::INT4
            | oid::FLOAT4
            | oid::DATE
            | oid::OID
            | oid::XID
            | oid::REGPROC
            | oid::REGCLASS
            | oid::REGTYPE
            | oid::REGNAMESPACE => 4,
            oid::INT8 | oid::FLOAT8 | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ => 8,
            oid::INTERVAL | oid::UUID => 16,
            oid::NAME => 64,
            _ => -1,
        };
        Self { oid, len, typmod: -1 }
    }

    /// The type of a result column. `hint` asks for another type of the same physical form and is left aside
    /// where the encoder could not write it in both formats.
    pub fn of_column(field: &Field, hint: Option<u32>) -> Result<Self, SqlError> {
        match hint {
            Some(oid) if fits(oid, field.data_type()) => Ok(Self::of_oid(oid)),
            _ => Self::of_field(field),
        }
    }

    /// The Arrow extension names `arrow.uuid` and `arrow.json` are understood.
    pub fn of_field(field: &Field) -> Result<Self, SqlError> {
        match (field.metadata().get("ARROW:extension:name").map(String::as_str), field.data_type()) {
            (Some("arrow.uuid"), DataType::FixedSizeBinary(16)) => return Ok(Self::of_oid(oid::UUID)),
            (Some("arrow.json"), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
                return Ok(Self::of_oid(oid::JSONB));
            }
            _ => {}
        }
        Self::of_data_type(field.data_type())
    }

    /// As the catalog tables show it.
    pub fn of_data_type(data_type: &DataType) -> Result<Self, SqlError> {
        let shown = tidewater_catalogs_system::pg_type(data_type);
        Ok(Self { typmod: shown.typmod, ..Self::of_oid(shown.oid) })
    }
}

pub(crate) fn error(state: &'static str, message: impl Into<String>) -> SqlError {
    SqlError { state: SqlState(state), message: message.into(), detail: None, hint: None, position: None }
}

/// Whether the encoder can write the Arrow type as that PostgreSQL type in both formats.
fn fits(oid: u32, data_type: &DataType) -> bool {
    if let DataType::Dictionary(_, value) = data_type {
        return fits(oid, value);
    }
    let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match oid {
        oid::OID | oid::XID => data_type.is_integer(),
        // As the number alone: the binary form is a number, and text cannot be turned into it here.
        oid::REGPROC | oid::REGCLASS | oid::REGTYPE | oid::REGNAMESPACE => data_type.is_integer(),
        oid::NAME | oid::CHAR | oid::VARCHAR | oid::BPCHAR | oid::JSON | oid::JSONB => text,
        oid::UUID => matches!(data_type, DataType::FixedSizeBinary(16)),
        oid::INT2VECTOR | oid::OIDVECTOR => {
            matches!(data_type, DataType::List(f) if f.data_type().is_integer())
        }
        _ => match (element_of(oid), data_type) {
            (Some(element), DataType::List(f)) => fits(element, f.data_type()),
            _ => false,
        },
    }
}

/// The Arrow type of a parameter whose type the client has named; `None` leaves it to the planner.
///
/// `numeric` has no precision on the wire: 20 digits before and 18 after the point are taken, and a value that
/// does not fit is refused when it is bound, never rounded.
pub(crate) fn data_type_of_oid(oid: u32) -> Option<DataType> {
    if let Some(element) = element_of(oid) {
        return Some(DataType::List(Field::new_list_field(data_type_of_oid(element)?, true).into()));
    }
    Some(match oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        oid::INT8 | oid::OID | oid::XID => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::NUMERIC => DataType::Decimal128(38, 18),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR | oid::JSON | oid::JSONB => DataType::Utf8,
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        oid::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        // Columns of that type are text here.
        oid::UUID => DataType::Utf8,
        _ => return None,
    })
}
