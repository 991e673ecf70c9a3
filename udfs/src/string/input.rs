//! `json_in(text) → text` and `uuid_in(text) → text`: casts to types that are text here (PostgreSQL, "JSON Types" and
//! "UUID Type").
//!
//! A json is kept as it was written; a uuid is written in lower case with its four dashes. NULL gives NULL; text that is
//! none of the type is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn json() -> ScalarUDF {
    ScalarUDF::from(Input { of: "json", name: "json_in", signature: signature() })
}

pub(super) fn uuid() -> ScalarUDF {
    ScalarUDF::from(Input { of: "uuid", name: "uuid_in", signature: signature() })
}

fn signature() -> Signature {
    Signature::exact(vec![DataType::Utf8], Volatility::Immutable)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Input {
    of: &'static str,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Input {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [texts] = arrays.as_slice() else { return exec_err!("{} takes one argument", self.name) };
        let invalid = |text: &str| {
            let start: String = text.chars().take(64).collect();
            exec_err!("invalid input syntax for type {}: \"{start}\"", self.of)
        };
        let texts_in = texts.as_string::<i32>();
        if self.of == "json" {
            for text in texts_in.iter().flatten() {
                if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                    return invalid(text);
                }
            }
            return crate::result(&args, Arc::clone(texts));
        }
        let mut out = StringBuilder::with_capacity(texts.len(), texts.len() * 36);
        let mut written = uuid::Uuid::encode_buffer();
        for text in texts_in {
            match text.map(|text| (text, read_uuid(text.trim()))) {
                None => out.append_null(),
                Some((_, Some(uuid))) => out.append_value(uuid.hyphenated().encode_lower(&mut written)),
                Some((text, None)) => return invalid(text),
            }
        }
        let out: ArrayRef = Arc::new(out.finish());
        crate::result(&args, out)
    }
}

/// 32 digits, a dash after any four of them, perhaps in braces.
fn read_uuid(text: &str) -> Option<uuid::Uuid> {
    let text = text.strip_prefix('{').map_or(Some(text), |t| t.strip_suffix('}'))?;
    let (mut value, mut digits, mut after_dash) = (0u128, 0u32, false);
    for c in text.chars() {
        if c == '-' {
            if after_dash || digits == 0 || digits == 32 || !digits.is_multiple_of(4) {
                return None;
            }
            after_dash = true;
            continue;
        }
        after_dash = false;
        value = value << 4 | u128::from(c.to_digit(16).filter(|_| digits < 32)?);
        digits += 1;
    }
    (digits == 32).then(|| uuid::Uuid::from_u128(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_many_spellings() {
        let wanted = Some("00112233-4455-6677-8899-aabbccddeeff".to_owned());
        for text in [
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "00112233445566778899aabbccddeeff",
            "{00112233-44556677-8899aabb-ccddeeff}",
        ] {
            assert_eq!(read_uuid(text).map(|u| u.to_string()), wanted, "{text}");
        }
        for text in ["", "0011", "{00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeef-", "urn:uuid:0"]
        {
            assert_eq!(read_uuid(text), None, "{text}");
        }
    }
}
