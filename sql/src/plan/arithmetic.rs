//! Arithmetic that reports what does not fit: the engine's own wraps integers around, divides floats by zero, and makes
//! infinities of large ones.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, Scalar};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::{SqlError, SqlState};

/// The checked form of an operation on two values of one type. None where the engine's own form is right.
pub(super) fn checked(binary: &BinaryExpr, left: &DataType, right: &DataType) -> Option<Expr> {
    if left != right {
        return None;
    }
    let function: &LazyLock<Arc<ScalarUDF>> = match (binary.op, left.is_integer(), left.is_floating()) {
        (Operator::Plus, true, _) => &ADD,
        (Operator::Minus, true, _) => &SUB,
        (Operator::Multiply, true, _) => &MUL,
        (Operator::Plus, _, true) => &FLOAT_ADD,
        (Operator::Minus, _, true) => &FLOAT_SUB,
        (Operator::Multiply, _, true) => &FLOAT_MUL,
        (Operator::Divide, _, true) => &FLOAT_DIV,
        _ => return None,
    };
    Some(function.call(vec![binary.left.as_ref().clone(), binary.right.as_ref().clone()]))
}

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("int_add"));
static SUB: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("int_sub"));
static MUL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("int_mul"));
static FLOAT_ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("float_add"));
static FLOAT_SUB: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("float_sub"));
static FLOAT_MUL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("float_mul"));
static FLOAT_DIV: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf("float_div"));

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    name: &'static str,
    signature: Signature,
}

impl Checked {
    fn udf(name: &'static str) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self { name, signature: Signature::any(2, Volatility::Immutable) }))
    }

    fn apply(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef> {
        let done = match self.name {
            "int_add" | "float_add" => numeric::add(left, right),
            "int_sub" | "float_sub" => numeric::sub(left, right),
            "int_mul" | "float_mul" => numeric::mul(left, right),
            _ => {
                let (dividend, divisor) = (left.get(), right.get());
                if divides_by_zero(dividend, divisor) {
                    return Err(ArrowError::DivideByZero.into());
                }
                numeric::div(left, right)
            }
        };
        let done = done?;
        // Infinity comes of infinity alone. A look at the result costs little; rows are told apart where there is one.
        if any(&done, f64::is_infinite) && grows_infinite(&done, left.get(), right.get()) {
            return Err(overflow().into());
        }
        Ok(done)
    }
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow")
}

/// Whether one of the floats, where they are such, passes the test.
fn any(values: &dyn Array, test: impl Fn(f64) -> bool) -> bool {
    match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().flatten().any(test),
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().flatten().any(|v| test(f64::from(v))),
        _ => false,
    }
}

fn grows_infinite(done: &ArrayRef, left: (&dyn Array, bool), right: (&dyn Array, bool)) -> bool {
    let infinite = |(array, one): (&dyn Array, bool), row: usize| {
        any(&array.slice(if one { 0 } else { row }, 1), f64::is_infinite)
    };
    (0..done.len()).any(|row| infinite((done, false), row) && !infinite(left, row) && !infinite(right, row))
}

/// NaN divided by zero is NaN, as in PostgreSQL.
fn divides_by_zero((dividend, one): (&dyn Array, bool), (divisor, other): (&dyn Array, bool)) -> bool {
    let rows = dividend.len().max(divisor.len());
    let zero_at = |i: usize| {
        let (i, k) = (if one { 0 } else { i }, if other { 0 } else { i });
        if dividend.is_null(i) || divisor.is_null(k) {
            return false;
        }
        match divisor.data_type() {
            DataType::Float64 => {
                divisor.as_primitive::<Float64Type>().value(k) == 0.0
                    && !dividend.as_primitive::<Float64Type>().value(i).is_nan()
            }
            DataType::Float32 => {
                divisor.as_primitive::<Float32Type>().value(k) == 0.0
                    && !dividend.as_primitive::<Float32Type>().value(i).is_nan()
            }
            _ => false,
        }
    };
    // One divisor for all rows is seldom zero, and then no row needs a look.
    if other && divisor.len() == 1 && !maybe_zero(divisor) {
        return false;
    }
    (0..rows).any(zero_at)
}

fn maybe_zero(divisor: &dyn Array) -> bool {
    if divisor.is_null(0) {
        return false;
    }
    match divisor.data_type() {
        DataType::Float64 => divisor.as_primitive::<Float64Type>().value(0) == 0.0,
        DataType::Float32 => divisor.as_primitive::<Float32Type>().value(0) == 0.0,
        _ => true,
    }
}

impl ScalarUDFImpl for Checked {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("{} takes two arguments", self.name) };
        Ok(match (left, right) {
            (ColumnarValue::Array(l), ColumnarValue::Array(r)) => ColumnarValue::Array(self.apply(l, r)?),
            (ColumnarValue::Array(l), ColumnarValue::Scalar(r)) => {
                ColumnarValue::Array(self.apply(l, &Scalar::new(r.to_array()?))?)
            }
            (ColumnarValue::Scalar(l), ColumnarValue::Array(r)) => {
                ColumnarValue::Array(self.apply(&Scalar::new(l.to_array()?), r)?)
            }
            (ColumnarValue::Scalar(l), ColumnarValue::Scalar(r)) => {
                let out = self.apply(&l.to_array()?, &r.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)
            }
        })
    }
}
