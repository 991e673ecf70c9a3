//! Functions of floats outside of their domain: PostgreSQL reports what the engine answers with NaN or infinity.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::{SqlError, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Domain {
    Root,
    Logarithm,
    /// From -1 to 1.
    Unit,
    /// No infinity from what is finite.
    Finite,
}

/// The call with a look at its arguments. None where the function answers all of them as PostgreSQL does, or has its
/// look already.
pub(super) fn checked(call: &ScalarFunction) -> Option<Expr> {
    let domain = match call.func.name() {
        "sqrt" => Domain::Root,
        "ln" | "log" | "log2" | "log10" => Domain::Logarithm,
        "acos" | "asin" => Domain::Unit,
        "exp" | "power" | "sinh" | "cosh" => Domain::Finite,
        _ => return None,
    };
    if call.func.inner().as_any().is::<Checked>() {
        return None;
    }
    let signature = Signature::any(call.args.len(), Volatility::Immutable);
    let checked = Checked { domain, function: Arc::clone(&call.func), signature };
    Some(ScalarUDF::from(checked).call(call.args.clone()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    domain: Domain,
    function: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.function.name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.function.return_type(args)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.domain != Domain::Finite {
            for arg in &args.args {
                self.domain.check(&arg.to_array(1)?)?;
            }
            return self.function.invoke_with_args(args);
        }
        let inputs = args.args.clone();
        let rows = args.number_rows;
        let result = self.function.invoke_with_args(args)?;
        if any(&result.to_array(1)?, f64::is_infinite) {
            let out = result.to_array(rows)?;
            let inputs = inputs.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
            let infinite = |array: &ArrayRef, row| any(&array.slice(row, 1), f64::is_infinite);
            if (0..out.len()).any(|row| infinite(&out, row) && !inputs.iter().any(|a| infinite(a, row))) {
                return Err(overflow().into());
            }
        }
        Ok(result)
    }
}

impl Domain {
    fn check(self, values: &ArrayRef) -> Result<(), SqlError> {
        let refused = match self {
            Self::Root if any(values, |v| v < 0.0) => (SqlState::INVALID_POWER_ARGUMENT, ROOT),
            Self::Logarithm if any(values, |v| v == 0.0) => (SqlState::INVALID_LOGARITHM_ARGUMENT, ZERO),
            Self::Logarithm if any(values, |v| v < 0.0) => (SqlState::INVALID_LOGARITHM_ARGUMENT, NEGATIVE),
            Self::Unit if any(values, |v| v.abs() > 1.0) => (SqlState::NUMERIC_OUT_OF_RANGE, "input is out of range"),
            _ => return Ok(()),
        };
        Err(SqlError::new(refused.0, refused.1))
    }
}

const ROOT: &str = "cannot take square root of a negative number";
const ZERO: &str = "cannot take logarithm of zero";
const NEGATIVE: &str = "cannot take logarithm of a negative number";

pub(super) fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow")
}

/// Whether one of the floats, where they are such, passes the test.
pub(super) fn any(values: &dyn Array, test: impl Fn(f64) -> bool) -> bool {
    match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().flatten().any(test),
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().flatten().any(|v| test(f64::from(v))),
        _ => false,
    }
}
