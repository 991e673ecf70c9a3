//! The functions that catalog queries call. Catalog tables are small, so these are evaluated row by row.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::CatalogSnapshot;
use crate::types::{ENTRIES, format_type};

/// What `'name'::regclass` becomes: an error where there is no such relation.
const RELATION_OID: &str = "tidewater_relation_oid";

type Body = Arc<dyn Fn(&[ScalarValue]) -> ScalarValue + Send + Sync>;

/// A function of any arguments, one row at a time. A NULL among the first `strict` arguments gives NULL.
struct RowFunction {
    name: &'static str,
    returns: DataType,
    strict: usize,
    signature: Signature,
    body: Body,
}

impl fmt::Debug for RowFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowFunction").field("name", &self.name).finish_non_exhaustive()
    }
}
impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}
impl Eq for RowFunction {}
impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if arguments.len() < self.strict {
            return plan_err!("function {} needs {} arguments", self.name, self.strict);
        }
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let mut out = Vec::with_capacity(rows);
        for row in 0..rows {
            let values = args.args.iter().map(|a| match a {
                ColumnarValue::Scalar(s) => Ok(s.clone()),
                ColumnarValue::Array(a) => ScalarValue::try_from_array(a, row),
            });
            let values = values.collect::<Result<Vec<_>>>()?;
            let null = values.iter().take(self.strict).any(ScalarValue::is_null);
            let value = if null { ScalarValue::try_from(&self.returns)? } else { (self.body)(&values) };
            if self.name == RELATION_OID && !null && value.is_null() {
                return exec_err!("relation \"{}\" does not exist", string(&values[0]));
            }
            out.push(value);
        }
        if all_scalar && out.len() == 1 {
            return Ok(ColumnarValue::Scalar(out.remove(0)));
        }
        let array: ArrayRef = if out.is_empty() {
            arrow::array::new_empty_array(&self.returns)
        } else {
            ScalarValue::iter_to_array(out)?
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// All of them, over one snapshot.
pub fn functions(snapshot: &Arc<CatalogSnapshot>) -> Vec<Arc<ScalarUDF>> {
    let mut all = Vec::new();
    let mut add = |name, returns: &DataType, strict: usize, body: Body| {
        // Arguments may be left out only where nothing needs them.
        let signature = if strict == 0 {
            Signature::one_of(
                vec![
                    datafusion::logical_expr::TypeSignature::Nullary,
                    datafusion::logical_expr::TypeSignature::VariadicAny,
                ],
                Volatility::Stable,
            )
        } else {
            Signature::variadic_any(Volatility::Stable)
        };
        all.push(Arc::new(ScalarUDF::from(RowFunction { name, returns: returns.clone(), strict, signature, body })));
    };
    let (text, boolean, bigint) = (DataType::Utf8, DataType::Boolean, DataType::Int64);

    let s = Arc::clone(snapshot);
    add("pg_get_userbyid", &text, 1, Arc::new(move |_| utf8(&s.user)));
    let s = Arc::clone(snapshot);
    add("pg_table_is_visible", &boolean, 1, Arc::new(move |a| bool(s.relation(int(&a[0])).map(|r| s.is_visible(r)))));
    let s = Arc::clone(snapshot);
    add("pg_table_size", &bigint, 1, size_of(&s));
    add("pg_relation_size", &bigint, 1, size_of(&s));
    add("pg_total_relation_size", &bigint, 1, size_of(&s));
    let database_size = move |_: &[ScalarValue]| -> ScalarValue {
        ScalarValue::Int64(Some(s.relations.iter().map(|r| r.size_bytes.max(0)).sum()))
    };
    add("pg_database_size", &bigint, 1, Arc::new(database_size));
    add("pg_tablespace_size", &bigint, 1, Arc::new(|_| ScalarValue::Int64(None)));
    let described = |number: fn(&[ScalarValue]) -> i64| -> Body {
        let s = Arc::clone(snapshot);
        Arc::new(move |a: &[ScalarValue]| match (s.relation(int(&a[0])), number(a)) {
            (Some(r), 0) => ScalarValue::Utf8(r.comment.clone()),
            (Some(r), n) => {
                let column = usize::try_from(n - 1).ok().and_then(|i| r.columns.get(i));
                ScalarValue::Utf8(column.and_then(|c| c.comment.clone()))
            }
            (None, _) => ScalarValue::Utf8(None),
        })
    };
    add("obj_description", &text, 1, described(|_| 0));
    add("col_description", &text, 2, described(|a| int(&a[1])));
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_ts_dict_is_visible",
    ] {
        add(name, &boolean, 1, Arc::new(|_| bool(Some(true))));
    }
    for name in [
        "has_schema_privilege",
        "has_table_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_tablespace_privilege",
        "pg_has_role",
    ] {
        // One role owns everything; roles come with grants.
        add(name, &boolean, 2, Arc::new(|_| bool(Some(true))));
    }
    for name in ["pg_is_in_recovery", "pg_relation_is_publishable", "pg_is_other_temp_schema"] {
        add(name, &boolean, 0, Arc::new(|_| bool(Some(false))));
    }
    for name in [
        "shobj_description",
        "pg_get_viewdef",
        "pg_get_indexdef",
        "pg_get_constraintdef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_partkeydef",
        "pg_tablespace_location",
    ] {
        add(name, &text, 1, Arc::new(|_| ScalarValue::Utf8(None)));
    }
    // Expressions are kept as text, so the "decompiler" has nothing to do.
    add("pg_get_expr", &text, 1, Arc::new(|a| utf8(&string(&a[0]))));
    add("pg_char_to_encoding", &DataType::Int32, 1, Arc::new(|_| ScalarValue::Int32(Some(6))));
    add("pg_encoding_to_char", &text, 1, Arc::new(|a| utf8(if int(&a[0]) == 6 { "UTF8" } else { "" })));
    for name in ["quote_ident", "quote_literal"] {
        let body: Body = if name == "quote_ident" {
            Arc::new(|a| utf8(&quote(&string(&a[0]))))
        } else {
            Arc::new(|a| utf8(&format!("'{}'", string(&a[0]).replace('\'', "''"))))
        };
        add(name, &text, 1, body);
    }
    let s = Arc::clone(snapshot);
    add(
        "to_regclass",
        &text,
        1,
        Arc::new(move |a| match relation_oid(&s, &string(&a[0])) {
            ScalarValue::Int64(Some(_)) => utf8(&string(&a[0])),
            _ => ScalarValue::Utf8(None),
        }),
    );
    add("pg_size_pretty", &text, 1, Arc::new(|a| utf8(&size_pretty(int(&a[0])))));
    add(
        "format_type",
        &text,
        1,
        Arc::new(|a| {
            let typmod = a.get(1).filter(|v| !v.is_null()).map(|v| int(v) as i32);
            utf8(&format_type(int(&a[0]) as u32, typmod))
        }),
    );
    // What casts to regclass, regtype and regnamespace become, in both directions.
    let s = Arc::clone(snapshot);
    add(
        "tidewater_regclass",
        &text,
        1,
        Arc::new(move |a| {
            let oid = int(&a[0]);
            let shown = s.relation(oid).map(|r| {
                if s.is_visible(r) { quote(&r.name) } else { format!("{}.{}", quote(&r.schema), quote(&r.name)) }
            });
            utf8(&shown.unwrap_or_else(|| oid.to_string()))
        }),
    );
    let s = Arc::clone(snapshot);
    add(RELATION_OID, &bigint, 1, Arc::new(move |a| relation_oid(&s, &string(&a[0]))));
    let s = Arc::clone(snapshot);
    add(
        "tidewater_regnamespace",
        &text,
        1,
        Arc::new(move |a| {
            let oid = int(&a[0]);
            let schema = s.schemas.iter().find(|n| i64::from(n.oid) == oid);
            utf8(&schema.map_or_else(|| oid.to_string(), |n| quote(&n.name)))
        }),
    );
    let s = Arc::clone(snapshot);
    add(
        "tidewater_namespace_oid",
        &bigint,
        1,
        Arc::new(move |a| match a[0].data_type() {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
                let name = string(&a[0]);
                let found = s.schemas.iter().find(|n| n.name == name);
                ScalarValue::Int64(found.map(|n| i64::from(n.oid)).or_else(|| name.parse().ok()))
            }
            _ => ScalarValue::Int64(Some(int(&a[0]))),
        }),
    );
    add("tidewater_regtype", &text, 1, Arc::new(|a| utf8(&format_type(int(&a[0]) as u32, None))));
    add(
        "tidewater_type_oid",
        &bigint,
        1,
        Arc::new(|a| {
            let name = string(&a[0]);
            let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
            let found = ENTRIES.iter().find(|t| t.name == name || format_type(t.oid, None) == name);
            ScalarValue::Int64(found.map(|t| i64::from(t.oid)).or_else(|| name.parse().ok()))
        }),
    );
    all
}

fn size_of(snapshot: &Arc<CatalogSnapshot>) -> Body {
    let s = Arc::clone(snapshot);
    Arc::new(move |a| {
        let oid = match &a[0] {
            v @ (ScalarValue::Utf8(_) | ScalarValue::Utf8View(_)) => match relation_oid(&s, &string(v)) {
                ScalarValue::Int64(Some(oid)) => oid,
                _ => return ScalarValue::Int64(None),
            },
            v => int(v),
        };
        ScalarValue::Int64(s.relation(oid).map(|r| r.size_bytes.max(0)))
    })
}

/// Of `name`, `schema.name`, quoted or not, or an oid as text; NULL where there is no such relation.
fn relation_oid(s: &CatalogSnapshot, text: &str) -> ScalarValue {
    if let Ok(oid) = text.parse::<i64>() {
        return ScalarValue::Int64(Some(oid));
    }
    let (schema, name) = match split_name(text).as_slice() {
        [name] => (None, name.clone()),
        [schema, name] => (Some(schema.clone()), name.clone()),
        _ => return ScalarValue::Int64(None),
    };
    let found = s
        .relations
        .iter()
        .find(|r| r.name == name && schema.as_ref().map_or_else(|| s.is_visible(r), |schema| r.schema == *schema));
    ScalarValue::Int64(found.map(|r| i64::from(r.oid)))
}

/// Parts of a dotted name: quoted parts as they are, others in lower case.
fn split_name(text: &str) -> Vec<String> {
    let (mut parts, mut current, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                current.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut current)),
            c if quoted => current.push(c),
            c => current.extend(c.to_lowercase()),
        }
    }
    parts.push(current);
    parts
}

fn quote(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// PostgreSQL's rule: the largest unit in which the number has at most five digits, rounded half away from zero.
fn size_pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10 * 1024 || unit == "TB" {
            return format!("{size} {unit}");
        }
        size = (size + size.signum() * 512) / 1024;
    }
    format!("{size} PB")
}

fn utf8(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

fn bool(value: Option<bool>) -> ScalarValue {
    ScalarValue::Boolean(value)
}

fn int(value: &ScalarValue) -> i64 {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(n))) => n,
        _ => 0,
    }
}

fn string(value: &ScalarValue) -> String {
    match value.cast_to(&DataType::Utf8) {
        Ok(ScalarValue::Utf8(Some(s))) => s,
        _ => String::new(),
    }
}
