//! `round(numeric [, integer])`, `trunc(numeric [, integer])`, `ceil(numeric)`, `floor(numeric)` (PostgreSQL,
//! "Mathematical Functions").
//!
//! A numeric with so many digits behind the point, halves away from zero; NULL where an argument is NULL. Other
//! numbers are left to the engine's functions of these names.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::functions::math;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const MAX_PRECISION: i32 = 38;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Round,
    Trunc,
    Ceil,
    Floor,
}

pub(super) fn round() -> ScalarUDF {
    make(Kind::Round)
}
pub(super) fn trunc() -> ScalarUDF {
    make(Kind::Trunc)
}
pub(super) fn ceil() -> ScalarUDF {
    make(Kind::Ceil).with_aliases(["ceiling"])
}
pub(super) fn floor() -> ScalarUDF {
    make(Kind::Floor)
}

fn make(kind: Kind) -> ScalarUDF {
    ScalarUDF::from(Rounding { kind, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    kind: Kind,
    signature: Signature,
}

impl Rounding {
    fn engine(&self) -> Arc<ScalarUDF> {
        match self.kind {
            Kind::Round => math::round(),
            Kind::Trunc => math::trunc(),
            Kind::Ceil => math::ceil(),
            Kind::Floor => math::floor(),
        }
    }
}

/// Digits behind the point that are asked for. None where they differ from row to row.
fn places(args: &ReturnFieldArgs<'_>) -> Option<i64> {
    match args.scalar_arguments.get(1) {
        None => Some(0),
        Some(Some(ScalarValue::Int64(Some(n)))) => Some(*n),
        Some(_) => None,
    }
}

impl ScalarUDFImpl for Rounding {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &str {
        match self.kind {
            Kind::Round => "round",
            Kind::Trunc => "trunc",
            Kind::Ceil => "ceil",
            Kind::Floor => "floor",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let two = matches!(self.kind, Kind::Round | Kind::Trunc);
        match args {
            [DataType::Decimal128(..)] => Ok(args.to_vec()),
            [value @ DataType::Decimal128(..), places] if two && places.is_integer() => {
                Ok(vec![value.clone(), DataType::Int64])
            }
            // Whole numbers with places are numerics, as in PostgreSQL.
            [value, places] if two && value.is_integer() && places.is_integer() => {
                Ok(vec![DataType::Decimal128(20, 0), DataType::Int64])
            }
            [value] if value.is_integer() || value.is_null() => Ok(vec![DataType::Float64]),
            _ => {
                let fields: Vec<FieldRef> = args.iter().map(|t| Arc::new(Field::new("a", t.clone(), true))).collect();
                let coerced = fields_with_udf(&fields, self.engine().as_ref())?;
                Ok(coerced.iter().map(|f| f.data_type().clone()).collect())
            }
        }
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{} wants its arguments", self.name())
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let Some(DataType::Decimal128(p, s)) = args.arg_fields.first().map(|f| f.data_type()) else {
            return self.engine().return_field_from_args(args);
        };
        let scale = match places(&args) {
            Some(n) => n.clamp(0, i64::from(MAX_PRECISION)) as i32,
            None => i32::from(*s),
        };
        // One more digit before the point: 9.9 becomes 10.
        let precision = (i32::from(*p) - i32::from(*s) + scale + 1).clamp(scale.max(1), MAX_PRECISION);
        let out = DataType::Decimal128(precision as u8, scale as i8);
        Ok(Arc::new(Field::new(self.name(), out, args.arg_fields.iter().any(|f| f.is_nullable()))))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(DataType::Decimal128(_, from)) = args.arg_fields.first().map(|f| f.data_type()) else {
            return self.engine().invoke_with_args(args);
        };
        let DataType::Decimal128(precision, to) = *args.return_field.data_type() else {
            return exec_err!("{} of a numeric gives a numeric", self.name());
        };
        let rows = crate::rows(&args);
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let values = arrays[0].as_primitive::<Decimal128Type>();
        let places = arrays.get(1).map(|a| a.as_primitive::<Int64Type>());
        let overflow = || exec_datafusion_err!("numeric overflow: more than {MAX_PRECISION} digits");
        let limit = 10i128.pow(u32::from(precision));
        let mut out = Vec::with_capacity(rows);
        for row in 0..rows {
            if values.is_null(row) || places.is_some_and(|p| p.is_null(row)) {
                out.push(None);
                continue;
            }
            let wanted = places.map_or(0, |p| p.value(row)).clamp(-40, i64::from(to)) as i32;
            let rounded = self.round(values.value(row), i32::from(*from) - wanted).ok_or_else(overflow)?;
            let shift = u32::try_from(i32::from(to) - wanted).unwrap_or(0);
            let value = 10i128.checked_pow(shift).and_then(|unit| rounded.checked_mul(unit));
            // Zero has no digits to shift.
            let value = if rounded == 0 { Some(0) } else { value };
            out.push(Some(value.filter(|v| v.abs() < limit).ok_or_else(overflow)?));
        }
        let out = Decimal128Array::from(out).with_precision_and_scale(precision, to)?;
        crate::result(&args, Arc::new(out))
    }
}

impl Rounding {
    /// `value` without its last `drop` digits; with more digits where that is negative.
    fn round(&self, value: i128, drop: i32) -> Option<i128> {
        let Ok(drop) = u32::try_from(drop) else {
            return 10i128.checked_pow(drop.unsigned_abs()).and_then(|unit| value.checked_mul(unit));
        };
        let Some(unit) = 10i128.checked_pow(drop) else {
            return Some(match self.kind {
                Kind::Ceil if value > 0 => 1,
                Kind::Floor if value < 0 => -1,
                _ => 0,
            });
        };
        let (whole, rest) = (value / unit, value % unit);
        Some(match self.kind {
            Kind::Trunc => whole,
            Kind::Ceil => whole + i128::from(rest > 0),
            Kind::Floor => whole - i128::from(rest < 0),
            Kind::Round if rest.abs() >= unit - rest.abs() && rest != 0 => whole + rest.signum(),
            Kind::Round => whole,
        })
    }
}
