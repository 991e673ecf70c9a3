//! A quoted literal takes the type of what it is compared with, as in PostgreSQL: `price > '9'` compares numbers.
//! (The engine would compare texts, and find '10' smaller than '9'.) A literal that is cast to an array is read as
//! one. Runs before type coercion.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Case, ScalarFunction, WindowFunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, WindowFrameBound, WindowFrameUnits, binary_expr, cast, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::one_type::{self, conditions, floats, lengths, no_operator};
use super::types::timestamptz;
use super::{casts, interval, interval_part, numeric, quantified, row_key, walk, zeros};
use crate::{SqlError, SqlState};

#[derive(Debug)]
pub(super) struct QuotedLiterals;

impl AnalyzerRule for QuotedLiterals {
    fn name(&self) -> &str {
        "quoted_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &typed)
    }
}

fn typed(expr: Expr, schema: &DFSchemaRef) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(b) if let Some(same) = zeros::compared(&b, schema) => Transformed::yes(same),
        Expr::BinaryExpr(mut b) if is_comparison(&b.op) => {
            if let Some(right) = like(&b.right, &b.left, schema)? {
                *b.right = right;
            } else if let Some(left) = like(&b.left, &b.right, schema)? {
                *b.left = left;
            } else if let Some(refused) = no_operator(&b, schema) {
                return Err(refused.into());
            } else if !floats(&mut [&mut *b.left, &mut *b.right], schema)
                && !lengths(&mut [&mut *b.left, &mut *b.right], schema)
                && !zeros::unsigned(&mut b, schema)
            {
                return Ok(Transformed::no(Expr::BinaryExpr(b)));
            }
            Transformed::yes(Expr::BinaryExpr(b))
        }
        // Where a type was not known yet when the operator was planned.
        Expr::BinaryExpr(b) if b.op == Operator::Divide => {
            match (b.left.get_type(schema.as_ref()), b.right.get_type(schema.as_ref())) {
                (Ok(left), Ok(right)) if numeric::divides(&left, &right) => {
                    Transformed::yes(numeric::divide(*b.left, *b.right))
                }
                _ => Transformed::no(Expr::BinaryExpr(b)),
            }
        }
        Expr::Between(mut between) => {
            let (low, high) = (like(&between.low, &between.expr, schema)?, like(&between.high, &between.expr, schema)?);
            let mut changed = low.is_some() || high.is_some();
            if let Some(low) = low {
                *between.low = low;
            }
            if let Some(high) = high {
                *between.high = high;
            }
            let all = &mut [&mut *between.expr, &mut *between.low, &mut *between.high];
            changed |= floats(all, schema) || lengths(all, schema);
            changed |= zeros::listed(&mut between.expr, [between.low.as_mut(), between.high.as_mut()], schema);
            Transformed::new_transformed(Expr::Between(between), changed)
        }
        // Two such lists the engine makes one, and forgets that the result may be unknown.
        Expr::InList(list)
            if list.list.iter().any(|e| !matches!(e, Expr::Literal(v, _) if !v.is_null()))
                && list.list.len() <= quantified::WRITTEN_OUT
                && !list.expr.is_volatile() =>
        {
            let (op, and) = if list.negated { (Operator::NotEq, Operator::And) } else { (Operator::Eq, Operator::Or) };
            let tests =
                list.list.into_iter().map(|item| typed(binary_expr(list.expr.as_ref().clone(), op, item), schema));
            let tests = tests.map(|test| test.map(|t| t.data)).collect::<Result<Vec<_>>>()?;
            match tests.into_iter().reduce(|l, r| binary_expr(l, and, r)) {
                Some(all) => Transformed::yes(all),
                None => Transformed::yes(lit(list.negated)),
            }
        }
        Expr::InList(mut list) => {
            let mut changed = false;
            for item in &mut list.list {
                if let Some(new) = like(item, &list.expr, schema)? {
                    *item = new;
                    changed = true;
                }
            }
            for item in &list.list {
                let pair = BinaryExpr::new(list.expr.clone(), Operator::Eq, Box::new(item.clone()));
                if let Some(refused) = no_operator(&pair, schema) {
                    return Err(refused.into());
                }
            }
            let mut all = vec![&mut *list.expr];
            all.extend(&mut list.list);
            changed |= floats(&mut all, schema) || lengths(&mut all, schema);
            changed |= zeros::listed(&mut list.expr, &mut list.list, schema);
            Transformed::new_transformed(Expr::InList(list), changed)
        }
        Expr::Case(mut case) => {
            let (mut when, mut then): (Vec<&mut Expr>, Vec<&mut Expr>) =
                case.when_then_expr.iter_mut().map(|(w, t)| (&mut **w, &mut **t)).unzip();
            when.extend(case.expr.as_deref_mut());
            then.extend(case.else_expr.as_deref_mut());
            let mut changed = floats(&mut when, schema) | floats(&mut then, schema);
            changed |= one_type::matched("CASE", &mut then, schema)?;
            match case.expr.as_deref() {
                None => conditions(&case.when_then_expr, schema)?,
                Some(of) => changed |= one_type::compared(of, &mut case.when_then_expr, schema)?,
            }
            Transformed::new_transformed(Expr::Case(case), changed)
        }
        Expr::InSubquery(mut found) => {
            let changed = one_type::among_rows(&mut found.expr, &mut found.subquery, Operator::Eq, schema)?;
            Transformed::new_transformed(Expr::InSubquery(found), changed)
        }
        Expr::SetComparison(mut found) => {
            let changed = one_type::among_rows(&mut found.expr, &mut found.subquery, found.op, schema)?;
            Transformed::new_transformed(Expr::SetComparison(found), changed)
        }
        Expr::Cast(cast) => match (cast.expr.as_ref(), &cast.data_type) {
            (Expr::Literal(ScalarValue::Utf8(Some(text)), _), to) if to.is_numeric() && text.trim() != text => {
                let trimmed = Expr::Literal(ScalarValue::Utf8(Some(text.trim().to_owned())), None);
                typed(datafusion::logical_expr::cast(trimmed, to.clone()), schema)?
            }
            (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Float64 | DataType::Float32)
                if !fits(text, &cast.data_type) =>
            {
                let name = tidewater_catalogs_system::type_name(&cast.data_type);
                let message = format!("\"{}\" is out of range for type {name}", text.trim());
                return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, message).into());
            }
            (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::List(item)) => {
                let items = array(text, item.data_type())?;
                Transformed::yes(lit(ScalarValue::List(ScalarValue::new_list_nullable(&items, item.data_type()))))
            }
            (inner, DataType::Utf8 | DataType::Utf8View) if is_nested(inner, schema) => {
                let error = SqlError::unsupported("casts of arrays and rows to text are not supported yet");
                return Err(error.with_hint("Use array_to_string(array, ','), or cast the elements.").into());
            }
            _ => Transformed::no(Expr::Cast(cast)),
        },
        Expr::ScalarFunction(f) if let Some(refusal) = differs(&f, schema) => return Err(refusal.into()),
        Expr::ScalarFunction(mut f)
            if f.name() == "date_part" && f.args.get(1).is_some_and(|a| is_interval(a, schema)) =>
        {
            let (Some(interval), Some(Expr::Literal(part, _))) = (f.args.pop(), f.args.first()) else {
                return Err(SqlError::unsupported("extract() of a part that is not a literal").into());
            };
            Transformed::yes(interval_part::of(part.try_as_str().flatten().unwrap_or_default(), interval)?)
        }
        Expr::AggregateFunction(f) => aggregate(f, schema),
        Expr::ScalarFunction(f) if f.name() == quantified::NAME => match quantified::resolve(&f, schema)? {
            // What was written out is a comparison with literals of its own.
            Some(Expr::InList(list)) => Transformed::yes(typed(Expr::InList(list), schema)?.data),
            Some(new) => Transformed::yes(new.transform_up(|e| typed(e, schema))?.data),
            None => Transformed::no(Expr::ScalarFunction(f)),
        },
        Expr::ScalarFunction(mut f)
            if f.name() == "encode"
                && matches!(f.args.get(1), Some(Expr::Literal(v, _)) if v.try_as_str().flatten() == Some("base64")) =>
        {
            // The engine leaves the end out where it is not full.
            f.args[1] = lit("base64pad");
            let padded = typed(Expr::ScalarFunction(f), schema)?.data;
            Transformed::yes(tidewater_udfs::base64_lines().call(vec![padded]))
        }
        // Of these, the form for bytes is the one that a quoted literal means.
        Expr::ScalarFunction(mut f)
            if matches!(f.name(), "encode" | "sha224" | "sha256" | "sha384" | "sha512")
                && matches!(f.args.first(), Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _)) if text.starts_with("\\x")) =>
        {
            let bytes = match f.args.first() {
                Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _)) => bytes(text),
                _ => None,
            };
            let Some(bytes) = bytes else {
                return Err(SqlError::new(SqlState::INVALID_TEXT, "invalid hexadecimal data").into());
            };
            f.args[0] = lit(ScalarValue::Binary(Some(bytes)));
            Transformed::yes(Expr::ScalarFunction(f))
        }
        Expr::ScalarFunction(mut f) if ONE_TYPE.contains(&f.name()) => {
            let mut changed = floats(&mut f.args.iter_mut().collect::<Vec<_>>(), schema);
            if matches!(f.name(), "coalesce" | "greatest" | "least" | "nullif") {
                let name = f.name().to_uppercase();
                changed |= one_type::matched(&name, &mut f.args.iter_mut().collect::<Vec<_>>(), schema)?;
            }
            let types = || f.args.iter().filter_map(|e| e.get_type(schema.as_ref()).ok());
            if f.name() == "power" && types().any(|t| matches!(t, DataType::Decimal128(..))) {
                return Err(no_power().into());
            }
            Transformed::new_transformed(Expr::ScalarFunction(f), changed)
        }
        Expr::WindowFunction(w) if ranges_over_numeric(&w, schema) => {
            let error = SqlError::unsupported("RANGE with a distance over numeric is not supported")
                .with_hint("Use ROWS, or cast the column of ORDER BY to double precision or bigint.");
            return Err(error.into());
        }
        // PostgreSQL joins texts as they are printed, and prints booleans short.
        Expr::ScalarFunction(f) if matches!(f.name(), "concat" | "concat_ws") => short_booleans(f, schema),
        Expr::WindowFunction(mut w) => {
            let params = &mut w.params;
            let mut changed = false;
            if matches!(w.fun.name(), "lag" | "lead")
                && let [value, _, default] = params.args.as_mut_slice()
            {
                changed |= one_type::with_default(value, default, schema)?;
            }
            for key in params.partition_by.iter_mut().chain(params.order_by.iter_mut().map(|sort| &mut sort.expr)) {
                changed |= zeros::key(key, schema) || one_type::sort_key(key, schema);
            }
            Transformed::new_transformed(Expr::WindowFunction(w), changed)
        }
        // A date is taken for a timestamptz before it is taken for a timestamp.
        Expr::ScalarFunction(mut f)
            if f.name() == "date_trunc"
                && f.args.get(1).is_some_and(|a| matches!(a.get_type(schema.as_ref()), Ok(DataType::Date32))) =>
        {
            f.args[1] = cast(f.args[1].clone(), timestamptz());
            Transformed::yes(Expr::ScalarFunction(f))
        }
        // It has a form for real alone and comes to that first.
        Expr::ScalarFunction(mut f) if f.name() == "atan2" => {
            let mut changed = false;
            for arg in &mut f.args {
                if arg.get_type(schema.as_ref()).is_ok_and(|t| t.is_integer() || matches!(t, DataType::Decimal128(..)))
                {
                    *arg = cast(arg.clone(), DataType::Float64);
                    changed = true;
                }
            }
            Transformed::new_transformed(Expr::ScalarFunction(f), changed)
        }
        other => Transformed::no(other),
    })
}

fn aggregate(mut f: AggregateFunction, schema: &DFSchemaRef) -> Transformed<Expr> {
    let mut changed = false;
    // Rows for which the condition is unknown do not count; counting groups, the engine takes them.
    if let Some(filter) = &mut f.params.filter
        && !matches!(filter.as_ref(), Expr::IsTrue(_))
        && filter.nullable(schema.as_ref()).unwrap_or(true)
    {
        **filter = Expr::IsTrue(Box::new(filter.as_ref().clone()));
        changed = true;
    }
    if f.params.distinct && f.func.name() == "count" {
        for arg in &mut f.params.args {
            if matches!(arg.get_type(schema.as_ref()), Ok(DataType::Struct(_))) {
                *arg = row_key::of(arg.clone());
                changed = true;
            }
        }
    }
    for sort in &mut f.params.order_by {
        changed |= one_type::sort_key(&mut sort.expr, schema);
    }
    Transformed::new_transformed(Expr::AggregateFunction(f), changed)
}

fn is_interval(expr: &Expr, schema: &DFSchemaRef) -> bool {
    matches!(expr.get_type(schema.as_ref()), Ok(DataType::Interval(_) | DataType::Duration(_)))
}

fn short_booleans(mut f: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let mut changed = false;
    for arg in &mut f.args {
        if matches!(arg.get_type(schema), Ok(DataType::Boolean)) {
            let when = |value: bool, letter: &str| (Box::new(lit(value)), Box::new(lit(letter)));
            let of = Some(Box::new(arg.clone()));
            *arg = Expr::Case(Case::new(of, vec![when(true, "t"), when(false, "f")], None));
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::ScalarFunction(f), changed)
}

/// The engine cannot tell such a distance.
fn ranges_over_numeric(w: &WindowFunction, schema: &DFSchema) -> bool {
    let distance = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => false,
        WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => !by.is_null(),
    };
    let frame = &w.params.window_frame;
    let numeric = |e: &Expr| matches!(e.get_type(schema), Ok(DataType::Decimal128(..)));
    frame.units == WindowFrameUnits::Range
        && (distance(&frame.start_bound) || distance(&frame.end_bound))
        && w.params.order_by.iter().any(|sort| numeric(&sort.expr))
}

fn is_nested(expr: &Expr, schema: &DFSchemaRef) -> bool {
    expr.get_type(schema.as_ref()).is_ok_and(|t| t.is_nested())
}

/// Calls that the engine answers otherwise than PostgreSQL for some types.
fn differs(f: &ScalarFunction, schema: &DFSchemaRef) -> Option<SqlError> {
    let of = |i: usize| f.args.get(i).and_then(|e| e.get_type(schema.as_ref()).ok());
    match f.name() {
        "character_length" | "length" if matches!(of(0), Some(DataType::Binary | DataType::BinaryView)) => Some(
            SqlError::unsupported("length() of bytea is not supported yet")
                .with_hint("Write length(encode(value, 'hex')) / 2."),
        ),
        "greatest" | "least" if (0..f.args.len()).any(|i| matches!(of(i), Some(DataType::Interval(_)))) => {
            Some(no_interval(&format!("{}()", f.name())))
        }
        "concat" | "concat_ws" if (0..f.args.len()).any(|i| of(i).is_some_and(|t| t.is_nested())) => Some(
            SqlError::unsupported(format!("{}() of arrays and rows is not supported yet", f.name()))
                .with_hint("Use array_to_string(array, ',')."),
        ),
        "array_to_string" => match of(0) {
            Some(DataType::List(item))
                if matches!(item.data_type(), DataType::Boolean | DataType::Timestamp(..) | DataType::Time64(_))
                    || item.data_type().is_floating()
                    || item.data_type().is_nested() =>
            {
                Some(
                    SqlError::unsupported("array_to_string() of such elements is not supported yet")
                        .with_hint("Cast the elements to text first."),
                )
            }
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn no_interval(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} of intervals is not supported yet"))
        .with_detail("1 month and 30 days are the same there, and are told apart by the engine.")
        .with_hint("Use extract(epoch FROM …), or the difference of two timestamps.")
}

/// Functions that bring their arguments to one type.
const ONE_TYPE: [&str; 6] = ["coalesce", "greatest", "least", "nullif", "make_array", "power"];

/// The engine would keep the scale of the base, and cut the digits behind it.
pub(super) fn no_power() -> SqlError {
    SqlError::unsupported("powers of numeric are not supported").with_hint("Cast one side to double precision.")
}

fn is_comparison(op: &Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// The literal in the type of `other`, where it is a quoted one and `other` a number or boolean.
pub(super) fn like(literal: &Expr, other: &Expr, schema: &DFSchemaRef) -> Result<Option<Expr>> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = literal else { return Ok(None) };
    match other.get_type(schema.as_ref()) {
        Ok(t) if t.is_numeric() || matches!(t, DataType::Boolean | DataType::Binary) => Ok(value(text, &t)?.map(lit)),
        _ => Ok(None),
    }
}

/// A literal in a type. None where literals are not read in that type here; 22P02 and its kin where the text is none.
pub(super) fn value(text: &str, to: &DataType) -> Result<Option<ScalarValue>> {
    let read = |text: &str, to: &DataType| Ok(Some(ScalarValue::from(text).cast_to(to)?));
    let trimmed = text.trim();
    match to {
        // Enough digits behind the point that none of the literal's is rounded away.
        DataType::Decimal128(_, scale) => {
            let digits = trimmed.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            match i8::try_from(digits).ok().filter(|d| *d <= 38) {
                Some(digits) => read(trimmed, &DataType::Decimal128(38, *scale.max(&digits))),
                None => Ok(None),
            }
        }
        t if t.is_numeric() || *t == DataType::Boolean => read(trimmed, t),
        DataType::Binary => Ok(bytes(text).map(|bytes| ScalarValue::Binary(Some(bytes)))),
        DataType::Utf8 => Ok(Some(ScalarValue::from(text))),
        DataType::Date32 | DataType::Timestamp(..) => {
            let read_as = casts::time_text(text);
            read(read_as.as_deref().unwrap_or(text), to)
        }
        DataType::Time64(_) => read(trimmed, to),
        DataType::Interval(_) => Ok(Some(interval::literal(text)?)),
        _ => Ok(None),
    }
}

/// Whether a number in text is one of the type: neither too large for it nor, unless it is zero, too small.
fn fits(text: &str, float: &DataType) -> bool {
    let text = text.trim();
    let Ok(value) = text.parse::<f64>() else { return true };
    let narrow = if *float == DataType::Float32 { f64::from(value as f32) } else { value };
    let digits = text.split(['e', 'E']).next().unwrap_or(text);
    let infinite = text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    let zero = !digits.contains(|c: char| matches!(c, '1'..='9'));
    infinite || narrow.is_nan() || narrow.is_finite() && (narrow != 0.0 || zero)
}

/// `\\x1f`. None in another notation.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.trim().strip_prefix("\\x")?.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The elements of `{1,2}` in one type; nulls are of that type as well.
pub(super) fn array(text: &str, item: &DataType) -> Result<Vec<ScalarValue>> {
    let refused = || SqlError::unsupported(format!("literals of arrays of {item} are not supported"));
    let items = array_items(text)?.into_iter().map(|element| match element {
        None => ScalarValue::try_from(item),
        Some(text) => value(&text, item)?.ok_or_else(refused)?.cast_to(item),
    });
    items.collect()
}

/// Elements of `{1,NULL,"a\"b"}`. Nested arrays and explicit bounds are refused.
pub fn array_items(text: &str) -> Result<Vec<Option<String>>, SqlError> {
    let malformed = || SqlError::new(SqlState::INVALID_TEXT, format!("malformed array literal: \"{text}\""));
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(malformed)?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Ok(items);
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut item = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            items.push(Some(item));
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' => {
                        return Err(SqlError::unsupported("arrays of more than one dimension are not supported"));
                    }
                    '"' => return Err(malformed()),
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            let item = item.trim_end();
            if item.is_empty() {
                return Err(malformed());
            }
            items.push((!item.eq_ignore_ascii_case("null")).then(|| item.to_owned()));
        }
        match chars.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}
