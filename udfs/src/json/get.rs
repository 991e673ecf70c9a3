//! `json -> text | integer → json` and `json ->> text | integer → text` (PostgreSQL, "JSON Functions and Operators").
//!
//! The member of an object or the element of an array (from 0; negative numbers count from the end), as it was
//! written. NULL where an argument is NULL, there is no such member, or the value is of another kind; `->>` gives NULL
//! for a JSON null, and strings without quotes. Text that is not JSON is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn json() -> ScalarUDF {
    ScalarUDF::from(Get { name: "json_get", signature: Signature::user_defined(Volatility::Immutable) })
}

pub(super) fn text() -> ScalarUDF {
    ScalarUDF::from(Get { name: "json_get_text", signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Get {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Get {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match args {
            [_, key] if key.is_integer() => Ok(vec![DataType::Utf8, DataType::Int64]),
            [_, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null] => {
                Ok(vec![DataType::Utf8, DataType::Utf8])
            }
            _ => plan_err!("No function matches the given name and argument types '{}'", self.name),
        }
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = crate::rows(&args);
        let [json, key] = args.args.as_slice() else { return exec_err!("{} takes two arguments", self.name) };
        let (json, keys): (ArrayRef, ArrayRef) = (json.to_array(rows)?, key.to_array(rows)?);
        let json = json.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(rows, rows * 16);
        for row in 0..rows {
            if json.is_null(row) || keys.is_null(row) {
                out.append_null();
                continue;
            }
            let text = json.value(row);
            let invalid = || exec_datafusion_err!("invalid input syntax for type json: \"{}\"", shortened(text));
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| invalid())?;
            let found = match keys.data_type() {
                DataType::Int64 => element(text, keys.as_primitive::<Int64Type>().value(row)),
                _ => member(text, keys.as_string::<i32>().value(row)),
            };
            match found {
                None => out.append_null(),
                Some(value) if self.name == "json_get" => out.append_value(value),
                Some("null") => out.append_null(),
                Some(value) if value.starts_with('"') => {
                    out.append_value(serde_json::from_str::<String>(value).map_err(|_| invalid())?);
                }
                Some(value) => out.append_value(value),
            }
        }
        crate::result(&args, Arc::new(out.finish()))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The last member of that name in an object. The text is known to be JSON.
fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let mut found = None;
    let mut rest = json.trim_start().strip_prefix('{')?.trim_start();
    while rest.starts_with('"') {
        let (name, tail) = value(rest)?;
        let (item, tail) = value(tail.trim_start().strip_prefix(':')?.trim_start())?;
        let plain = name.get(1..name.len() - 1)?;
        let same = if plain.contains('\\') {
            serde_json::from_str::<String>(name).is_ok_and(|name| name == key)
        } else {
            plain == key
        };
        if same {
            found = Some(item);
        }
        rest = tail.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    found
}

/// An element of an array. The text is known to be JSON.
fn element(json: &str, index: i64) -> Option<&str> {
    let mut items = Vec::new();
    let mut rest = json.trim_start().strip_prefix('[')?.trim_start();
    while !rest.starts_with(']') {
        let (item, tail) = value(rest)?;
        items.push(item);
        if usize::try_from(index).is_ok_and(|wanted| wanted + 1 == items.len()) {
            return Some(item);
        }
        rest = tail.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    let from_end = usize::try_from(index.checked_neg()?).ok()?;
    items.len().checked_sub(from_end).and_then(|i| items.get(i)).copied()
}

/// The value that the text begins with, and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let (mut depth, mut quoted, mut i) = (0usize, false, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quoted => i += 1,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return text.split_at_checked(i + 1);
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return text.split_at_checked(i),
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return text.split_at_checked(i + 1);
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return text.split_at_checked(i),
            _ => {}
        }
        i += 1;
    }
    Some((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements() {
        let json = r#" {"a": 1, "b" : {"c": [1, "x,]", null]}, "a" : "last", "q\"": true } "#;
        assert_eq!(member(json, "a"), Some("\"last\""));
        assert_eq!(member(json, "b"), Some(r#"{"c": [1, "x,]", null]}"#));
        assert_eq!(member(json, "q\""), Some("true"));
        assert_eq!(member(json, "x"), None);
        assert_eq!(member("[1]", "a"), None);
        let list = r#"[1, "x,]", {"a": 2} , null]"#;
        let wanted = ["1", "\"x,]\"", "{\"a\": 2}", "null"];
        for (i, item) in wanted.iter().enumerate() {
            assert_eq!(element(list, i as i64), Some(*item));
            assert_eq!(element(list, i as i64 - 4), Some(*item));
        }
        assert_eq!((element(list, 4), element(list, -5), element("[]", 0)), (None, None, None));
    }
}
