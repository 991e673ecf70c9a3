//! `convert_from(bytes bytea, encoding text) → text` (PostgreSQL, "Binary String Functions").
//!
//! The text that the bytes are in that encoding; NULL where either is NULL. Only `UTF8` is known. Bytes that are not
//! UTF-8, or hold a NUL, are an error.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn function() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Binary, DataType::Utf8], Volatility::Immutable);
    ScalarUDF::from(ConvertFrom { signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ConvertFrom {
    signature: Signature,
}

impl ScalarUDFImpl for ConvertFrom {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "convert_from"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [bytes, encodings] = arrays.as_slice() else { return exec_err!("convert_from needs two arguments") };
        let (bytes, encodings) = (bytes.as_binary::<i32>(), encodings.as_string::<i32>());
        let mut out = StringBuilder::with_capacity(bytes.len(), bytes.value_data().len());
        for (value, encoding) in bytes.iter().zip(encodings) {
            let (Some(value), Some(encoding)) = (value, encoding) else {
                out.append_null();
                continue;
            };
            if !matches!(encoding.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8" | "UNICODE") {
                return exec_err!("invalid source encoding name \"{encoding}\": only UTF8 is known");
            }
            match std::str::from_utf8(value) {
                // As in PostgreSQL, whose text has no such character.
                Ok(text) if text.contains('\0') => {
                    return exec_err!("invalid byte sequence for encoding \"UTF8\": 0x00");
                }
                Ok(text) => out.append_value(text),
                Err(e) => return exec_err!("invalid byte sequence for encoding \"UTF8\" at byte {}", e.valid_up_to()),
            }
        }
        crate::result(&args, Arc::new(out.finish()))
    }
}
