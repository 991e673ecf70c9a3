//! Values of Bind messages → scalars, from text and from binary. A value is taken exactly or refused, never rounded.

mod binary;
mod text;

use arrow::datatypes::DataType;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use tidewater_sql::SqlError;

use super::encode::{Format, SessionTz};
use super::types::{error, oid};
use binary::from_binary;
use text::from_text;

/// `oid` is the type that the client was told or has named, `target` what the plan takes.
pub(super) fn parameter(
    oid: u32,
    format: Format,
    value: Option<Bytes>,
    target: &DataType,
    tz: &SessionTz,
) -> Result<ScalarValue, SqlError> {
    let Some(value) = value else {
        return ScalarValue::try_from(target).map_err(|_| no_form(target));
    };
    if oid == oid::UUID && *target == DataType::Utf8 {
        return text::uuid_text(&value, format);
    }
    match format {
        Format::Text => {
            let text = std::str::from_utf8(&value).ok().filter(|t| !t.contains('\0'));
            let text = text.ok_or_else(|| error("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            from_text(text, target, tz)
        }
        Format::Binary => {
            let scalar = from_binary(oid, value, target)?;
            if scalar.data_type() == *target || *target == DataType::Null {
                return Ok(scalar);
            }
            scalar.cast_to(target).map_err(|_| {
                error("22003", format!("the value of a parameter does not fit the type {target} that the query takes"))
            })
        }
    }
}

fn invalid(what: &str, text: &str) -> SqlError {
    let state = if matches!(what, "date" | "time" | "timestamp" | "interval") { "22007" } else { "22P02" };
    error(state, format!("invalid input syntax for type {what}: \"{text}\""))
}

fn no_form(target: &DataType) -> SqlError {
    error("0A000", format!("parameters of type {target} are not supported"))
}
