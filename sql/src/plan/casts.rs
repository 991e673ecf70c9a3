//! Casts and arithmetic as PostgreSQL does them.
//!
//! Arrow cuts numbers off where PostgreSQL rounds, reads fewer spellings of times, and prints times and floats
//! another way. And `timestamptz` values are instants in UTC: where one becomes a wall-clock time (or the other way
//! round: in casts, `date_trunc`, `extract`), the zone of the session counts.
//!
//! The rule runs after type coercion, so that it sees the casts that coercion put in as well. It may run twice over
//! one plan.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::arithmetic;
use super::text_functions::{float_text, interval_text, rint, timestamp_text};
use super::types::timestamptz;
use super::{walk, zones};
use crate::SqlError;

#[derive(Debug)]
pub(super) struct PostgresCasts;

/// Functions that read the wall clock of a timestamptz argument.
const WALL_CLOCK: [&str; 4] = ["date_trunc", "date_part", "date_bin", "to_char"];

impl AnalyzerRule for PostgresCasts {
    fn name(&self) -> &str {
        "postgres_casts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone: Option<Arc<str>> = match config.execution.time_zone.as_deref() {
            None | Some("+00:00" | "UTC" | "GMT" | "Zulu") => None,
            Some(zone) => Some(zone.into()),
        };
        let rules = Rules { zoned: zone.map(|zone| DataType::Timestamp(TimeUnit::Microsecond, Some(zone))) };
        walk::expressions(plan, &|expr, schema| rules.apply(expr, schema))
    }
}

/// A date and an interval make a timestamp: the interval may have hours. Runs before type coercion, as it changes
/// a type.
#[derive(Debug)]
pub(super) struct DateIntervals;

impl AnalyzerRule for DateIntervals {
    fn name(&self) -> &str {
        "date_intervals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &|expr, schema| date_interval(expr, schema))
    }
}

fn date_interval(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(binary) = &expr else { return Ok(Transformed::no(expr)) };
    if !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return Ok(Transformed::no(expr));
    }
    // Types that are not known yet (parameters, outer columns) are left to coercion.
    let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema)) else {
        return Ok(Transformed::no(expr));
    };
    let timestamp = |e: &Expr| cast(e.clone(), DataType::Timestamp(TimeUnit::Microsecond, None));
    let (left, right) = match (&left, &right) {
        (DataType::Date32, DataType::Interval(_)) => (timestamp(&binary.left), binary.right.as_ref().clone()),
        (DataType::Interval(_), DataType::Date32) => (binary.left.as_ref().clone(), timestamp(&binary.right)),
        _ => return Ok(Transformed::no(expr)),
    };
    Ok(Transformed::yes(binary_expr(left, binary.op, right)))
}

struct Rules {
    /// `timestamptz` in the zone of the session; none where that is UTC.
    zoned: Option<DataType>,
}

fn is_instant(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(_, Some(_)))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl Rules {
    fn apply(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::Cast(c) => {
                let from = c.expr.get_type(schema)?;
                let done = self.cast(c.expr.as_ref(), &from, &c.data_type)?;
                Ok(done.map_or_else(|| Transformed::no(expr), Transformed::yes))
            }
            Expr::BinaryExpr(b) => {
                let (left, right) = (b.left.get_type(schema)?, b.right.get_type(schema)?);
                let done = match self.days(b, &left, &right) {
                    None => arithmetic::checked(b, &left, &right),
                    done => done,
                };
                Ok(done.map_or_else(|| Transformed::no(expr), Transformed::yes))
            }
            // Of floats, halves go to the even neighbour.
            Expr::ScalarFunction(f) if f.name() == "round" && f.args.len() == 1 => {
                let floating = f.args[0].get_type(schema)?.is_floating();
                Ok(if floating { Transformed::yes(rint().call(f.args.clone())) } else { Transformed::no(expr) })
            }
            Expr::ScalarFunction(f) if WALL_CLOCK.contains(&f.name()) => {
                let Some(zoned) = &self.zoned else { return Ok(Transformed::no(expr)) };
                let returned = expr.get_type(schema)?;
                let mut changed = false;
                let mut args = Vec::with_capacity(f.args.len());
                for arg in &f.args {
                    let from = arg.get_type(schema)?;
                    if is_instant(&from) && from != *zoned {
                        changed = true;
                        args.push(cast(arg.clone(), zoned.clone()));
                    } else {
                        args.push(arg.clone());
                    }
                }
                if !changed {
                    return Ok(Transformed::no(expr));
                }
                let call = f.func.call(args);
                Ok(Transformed::yes(if is_instant(&returned) { cast(call, timestamptz()) } else { call }))
            }
            _ => Ok(Transformed::no(expr)),
        }
    }

    /// None where the cast is right as it is.
    fn cast(&self, inner: &Expr, from: &DataType, to: &DataType) -> Result<Option<Expr>> {
        if is_text(from)
            && matches!(to, DataType::Timestamp(..) | DataType::Date32)
            && let Expr::Literal(value, _) = inner
            && let Some(text) = value.try_as_str().flatten()
            && let Some(read) = time_text(text)
        {
            let literal = lit(ScalarValue::Utf8(Some(read)));
            return Ok(Some(self.cast(&literal, &DataType::Utf8, to)?.unwrap_or_else(|| cast(literal, to.clone()))));
        }
        if is_text(from) && to.is_list() {
            return Err(SqlError::unsupported("only a literal can be cast from text to an array")
                .with_hint("Use string_to_array(text, ','), and cast its elements.")
                .into());
        }
        if to.is_integer() {
            let rounded = matches!(inner, Expr::ScalarFunction(f) if matches!(f.name(), "round" | "rint" | "trunc" | "floor" | "ceil"));
            return Ok(match from {
                DataType::Float16 | DataType::Float32 | DataType::Float64 if !rounded => {
                    Some(cast(rint().call(vec![inner.clone()]), to.clone()))
                }
                DataType::Decimal32(_, s)
                | DataType::Decimal64(_, s)
                | DataType::Decimal128(_, s)
                | DataType::Decimal256(_, s)
                    if *s > 0 && !rounded =>
                {
                    Some(cast(datafusion::functions::math::round().call(vec![inner.clone()]), to.clone()))
                }
                _ => None,
            });
        }
        if is_text(to) {
            let text = match from {
                DataType::Float32 | DataType::Float64 => float_text().call(vec![inner.clone()]),
                DataType::Timestamp(_, zone) => {
                    // Casts of this rule itself leave a zone behind that is to be printed.
                    let shown = match (zone, &self.zoned) {
                        (Some(_), Some(zoned)) => cast(inner.clone(), zoned.clone()),
                        (Some(_), None) => cast(inner.clone(), timestamptz()),
                        (None, _) => cast(inner.clone(), DataType::Timestamp(TimeUnit::Microsecond, None)),
                    };
                    timestamp_text().call(vec![shown])
                }
                DataType::Interval(_) => {
                    interval_text().call(vec![cast(inner.clone(), DataType::Interval(IntervalUnit::MonthDayNano))])
                }
                DataType::Duration(_) => {
                    interval_text().call(vec![cast(inner.clone(), DataType::Duration(TimeUnit::Microsecond))])
                }
                _ => return Ok(None),
            };
            return Ok(Some(if *to == DataType::Utf8 { text } else { cast(text, to.clone()) }));
        }
        let Some(zoned) = &self.zoned else { return Ok(None) };
        if from == zoned || to == zoned {
            return Ok(None);
        }
        if is_instant(from) && !is_instant(to) {
            let inner = cast(inner.clone(), zoned.clone());
            let wall = match to {
                DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Timestamp(_, None) => datafusion::functions::datetime::to_local_time().call(vec![inner]),
                _ => return Ok(None),
            };
            return Ok(Some(cast(wall, to.clone())));
        }
        if is_instant(to) && !is_instant(from) && *from != DataType::Null && !from.is_numeric() {
            let wall = match from {
                DataType::Date32 | DataType::Date64 => {
                    cast(inner.clone(), DataType::Timestamp(TimeUnit::Microsecond, None))
                }
                _ => inner.clone(),
            };
            let DataType::Timestamp(_, Some(zone)) = zoned else { return Ok(None) };
            let instant = match from {
                DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
                    zones::instant(cast(wall, DataType::Timestamp(TimeUnit::Microsecond, None)), zone)
                }
                _ => cast(wall, zoned.clone()),
            };
            return Ok(Some(cast(instant, to.clone())));
        }
        Ok(None)
    }

    /// Days and months of the session's zone, added to an instant. None where the engine's own sum is right.
    fn days(&self, b: &BinaryExpr, left: &DataType, right: &DataType) -> Option<Expr> {
        let Some(DataType::Timestamp(_, Some(zone))) = &self.zoned else { return None };
        // The time between two: the wall clock is one of the session's zone.
        let wall = |t: &DataType| matches!(t, DataType::Timestamp(_, None) | DataType::Date32);
        let read = |e: &Expr| zones::instant(cast(e.clone(), DataType::Timestamp(TimeUnit::Microsecond, None)), zone);
        let whole = |e: &Expr| cast(e.clone(), timestamptz());
        match (left, b.op, right) {
            (l, Operator::Minus, r) if is_instant(l) && wall(r) => {
                return Some(binary_expr(whole(&b.left), b.op, read(&b.right)));
            }
            (l, Operator::Minus, r) if wall(l) && is_instant(r) => {
                return Some(binary_expr(read(&b.left), b.op, whole(&b.right)));
            }
            _ => {}
        }
        let (instant, interval) = match (left, b.op, right) {
            (l, Operator::Plus | Operator::Minus, DataType::Interval(_)) if is_instant(l) => (&b.left, &b.right),
            (DataType::Interval(_), Operator::Plus, r) if is_instant(r) => (&b.right, &b.left),
            _ => return None,
        };
        let instant = cast(instant.as_ref().clone(), timestamptz());
        let interval = cast(interval.as_ref().clone(), DataType::Interval(IntervalUnit::MonthDayNano));
        Some(zones::later(instant, interval, b.op == Operator::Minus, zone))
    }
}

/// Spellings of a time that PostgreSQL reads and Arrow does not. None where there is nothing to change.
pub(super) fn time_text(text: &str) -> Option<String> {
    let trimmed = text.trim();
    if trimmed.eq_ignore_ascii_case("epoch") {
        return Some("1970-01-01T00:00:00+00:00".to_owned());
    }
    let mut out = trimmed.to_owned();
    // `2026-01-02 03:04` has no seconds.
    let bytes = trimmed.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    if bytes.len() >= 16
        && bytes[4] == b'-'
        && matches!(bytes[10], b' ' | b'T')
        && digits(11..13)
        && bytes[13] == b':'
        && digits(14..16)
        && bytes.get(16) != Some(&b':')
    {
        out.insert_str(16, ":00");
    }
    // `2026-01-02 03:04:05 +02`: Arrow wants the offset without the blank.
    if let Some((time, zone)) = out.rsplit_once(' ')
        && zone.starts_with(['+', '-'])
        && time.len() >= 19
    {
        out = format!("{time}{zone}");
    }
    (out != text).then_some(out)
}
