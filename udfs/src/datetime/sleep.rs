//! `pg_sleep(seconds double precision) → void` (PostgreSQL, "Delaying Execution").
//!
//! Ends after that time, or with the query. The result is an empty text; NULL where the argument is NULL.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// A year. Longer sleeps are cut to it; sums of times must not overflow.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

pub(super) fn function() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Volatile);
    AsyncScalarUDF::new(Arc::new(Sleep { signature })).into_scalar_udf()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

impl ScalarUDFImpl for Sleep {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "pg_sleep"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("pg_sleep cannot be called here")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [seconds] = arrays.as_slice() else { return exec_err!("pg_sleep takes one argument") };
        let seconds = seconds.as_primitive::<Float64Type>();
        let mut out = Vec::with_capacity(seconds.len());
        for row in 0..seconds.len() {
            if seconds.is_null(row) {
                out.push(None);
                continue;
            }
            let wanted = seconds.value(row).clamp(0.0, LONGEST_SECONDS);
            if let Ok(time) = Duration::try_from_secs_f64(wanted) {
                tokio::time::sleep(time).await;
            }
            out.push(Some(""));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(out))))
    }
}
