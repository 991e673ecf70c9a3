//! `to_char(timestamp | interval | numeric | double precision, text) → text` (PostgreSQL, "Data Type Formatting
//! Functions").
//!
//! The value by the pattern; NULL where either is NULL. Patterns that are not known here are refused, intervals too.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, TimeZone};
use datafusion::common::{Result, exec_datafusion_err, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::pattern::Pattern;
use crate::datetime::write_time;

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(ToChar { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "to_char"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _] = args else {
            return plan_err!("No function matches the given name and argument types 'to_char'");
        };
        let value = match value {
            DataType::Timestamp(_, Some(zone)) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
            DataType::Timestamp(_, None) | DataType::Date32 => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Decimal128(..) => value.clone(),
            DataType::Int64 => DataType::Decimal128(19, 0),
            DataType::UInt64 => DataType::Decimal128(20, 0),
            t if t.is_integer() => DataType::Decimal128(10, 0),
            t if t.is_floating() => DataType::Float64,
            DataType::Interval(_) | DataType::Duration(_) => {
                return not_impl_err!("to_char of an interval is not supported yet");
            }
            _ => return plan_err!("No function matches the given name and argument types 'to_char'"),
        };
        Ok(vec![value, DataType::Utf8])
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = crate::rows(&args);
        let [value, pattern] = args.args.as_slice() else { return exec_err!("to_char takes two arguments") };
        let (value, patterns) = (value.to_array(rows)?, pattern.to_array(rows)?);
        let patterns = patterns.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(rows, rows * 16);
        let (mut text, mut compiled): (String, Option<(String, Pattern)>) = (String::new(), None);
        let zone = match value.data_type() {
            DataType::Timestamp(_, Some(zone)) => Some(zone.parse::<Tz>()?),
            _ => None,
        };
        for row in 0..rows {
            if value.is_null(row) || patterns.is_null(row) {
                out.append_null();
                continue;
            }
            let pattern = patterns.value(row);
            // Of a time, not of a number.
            if pattern.is_empty() && matches!(value.data_type(), DataType::Timestamp(..)) {
                out.append_null();
                continue;
            }
            text.clear();
            if let DataType::Timestamp(..) = value.data_type() {
                let us = value.as_primitive::<TimestampMicrosecondType>().value(row);
                let utc = DateTime::from_timestamp_micros(us)
                    .ok_or_else(|| exec_datafusion_err!("timestamp overflow: {us}"))?
                    .naive_utc();
                let wall = zone.as_ref().map_or(utc, |zone| zone.from_utc_datetime(&utc).naive_local());
                write_time(&mut text, wall, pattern)?;
            } else {
                if compiled.as_ref().is_none_or(|(of, _)| of != pattern) {
                    compiled = Some((pattern.to_owned(), Pattern::new(pattern)?));
                }
                let Some((_, compiled)) = &compiled else { return exec_err!("to_char without a pattern") };
                match value.data_type() {
                    DataType::Decimal128(_, scale) => {
                        compiled.write_decimal(&mut text, value.as_primitive::<Decimal128Type>().value(row), *scale);
                    }
                    _ => compiled.write_float(&mut text, value.as_primitive::<Float64Type>().value(row))?,
                }
            }
            out.append_value(&text);
        }
        crate::result(&args, Arc::new(out.finish()))
    }
}
