//! `format(formatstr text, VARIADIC arguments) → text` (PostgreSQL, "String Functions", "format").
//!
//! `%s`, `%I`, `%L`, `%%`, and `%1$s` with a position. NULL where the format is NULL. Widths are refused.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// PostgreSQL's words that are names only in quotes.
const KEYWORDS: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both \
    case cast char character check coalesce collate collation column concurrently constraint create cross \
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec \
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign \
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer \
    intersect interval into is isnull join lateral leading least left like limit localtime localtimestamp \
    national natural nchar none normalize not notnull null nullif numeric offset on only or order out outer \
    overlaps overlay placing position precision primary real references returning right row select \
    session_user setof similar smallint some substring symmetric table tablesample then time timestamp to \
    trailing treat trim true union unique user using values varchar variadic verbose when where window with \
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize \
    xmltable";

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Format { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Format {
    signature: Signature,
}

impl ScalarUDFImpl for Format {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "format"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        if args.is_empty() {
            return plan_err!("No function matches the given name and argument types 'format()'");
        }
        // Their text forms are not those of casts.
        if args.iter().any(|t| t.is_nested() || matches!(t, DataType::Boolean)) {
            return not_impl_err!("format() of booleans, arrays and rows is not supported");
        }
        Ok(vec![DataType::Utf8; args.len()])
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = crate::rows(&args);
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&StringArray> = arrays.iter().map(|a| a.as_string::<i32>()).collect();
        let Some((formats, values)) = texts.split_first() else { return exec_err!("format takes an argument") };
        let mut out = StringBuilder::with_capacity(rows, rows * 16);
        let mut text = String::new();
        for row in 0..rows {
            if formats.is_null(row) {
                out.append_null();
                continue;
            }
            text.clear();
            let value = |i: usize| match values.get(i) {
                Some(column) => Ok((!column.is_null(row)).then(|| column.value(row))),
                None => exec_err!("too few arguments for format()"),
            };
            write(&mut text, formats.value(row), &value)?;
            out.append_value(&text);
        }
        crate::result(&args, Arc::new(out.finish()))
    }
}

fn write<'a>(out: &mut String, format: &str, value: &dyn Fn(usize) -> Result<Option<&'a str>>) -> Result<()> {
    let (mut rest, mut at) = (format, 0);
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && rest[digits..].starts_with('$') {
            at = match rest[..digits].parse::<usize>() {
                Ok(n) if n > 0 => n - 1,
                _ => return exec_err!("format specifies argument 0, but arguments are numbered from 1"),
            };
            rest = &rest[digits + 1..];
        }
        let kind = rest.chars().next();
        match kind {
            Some('%') => out.push('%'),
            Some('s') => out.push_str(value(at)?.unwrap_or("")),
            Some('I') => match value(at)? {
                Some(name) => identifier(out, name),
                None => return exec_err!("null values cannot be formatted as an SQL identifier"),
            },
            Some('L') => match value(at)? {
                Some(text) => literal(out, text),
                None => out.push_str("NULL"),
            },
            Some('-' | '*' | '0'..='9') => return not_impl_err!("widths in format() are not supported"),
            Some(other) => return exec_err!("unrecognized format() type specifier \"{other}\""),
            None => return exec_err!("unterminated format() type specifier"),
        }
        at += usize::from(kind != Some('%'));
        rest = &rest[1..];
    }
    out.push_str(rest);
    Ok(())
}

fn identifier(out: &mut String, name: &str) {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        && !KEYWORDS.split(' ').any(|word| word == name);
    if plain {
        out.push_str(name);
    } else {
        out.push('"');
        out.push_str(&name.replace('"', "\"\""));
        out.push('"');
    }
}

fn literal(out: &mut String, text: &str) {
    if text.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    out.push_str(&text.replace('\\', "\\\\").replace('\'', "''"));
    out.push('\'');
}
