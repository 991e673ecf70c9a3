//! `base64_lines(text) → text`: base64 in lines of 76 characters, as `encode(bytes, 'base64')` gives them (PostgreSQL,
//! "Binary String Functions"; RFC 2045, section 6.8).

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

const LINE: usize = 76;

static LINES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    Arc::new(ScalarUDF::from(Base64Lines { signature }))
});

pub fn base64_lines() -> Arc<ScalarUDF> {
    Arc::clone(&LINES)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Base64Lines {
    signature: Signature,
}

impl ScalarUDFImpl for Base64Lines {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "base64_lines"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [texts] = arrays.as_slice() else { return exec_err!("base64_lines needs one argument") };
        let texts = texts.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        for text in texts {
            let Some(mut rest) = text else {
                out.append_null();
                continue;
            };
            let mut lines = String::with_capacity(rest.len() + rest.len() / LINE);
            while let Some((line, more)) = rest.split_at_checked(LINE).filter(|(_, more)| !more.is_empty()) {
                lines.push_str(line);
                lines.push('\n');
                rest = more;
            }
            lines.push_str(rest);
            out.append_value(lines);
        }
        crate::result(&args, Arc::new(out.finish()))
    }
}
