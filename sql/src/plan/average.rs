//! `avg` of integers and `numeric`: exact, rounded once, and a `numeric` as in PostgreSQL. The engine's own turns
//! integers into floats, and wraps sums of `numeric` around. Floats and intervals are left to it.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, i256};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use super::numeric::{MAX_PRECISION, digits};
use crate::{SqlError, SqlState};

/// PostgreSQL shows sixteen digits of the averages of ordinary numbers.
const SCALE: i8 = 16;

pub(super) fn avg() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Average { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    signature: Signature,
}

/// Scale of the argument, and of the average.
fn scales(args: &AccumulatorArgs<'_>) -> Option<(i8, i8)> {
    match (args.expr_fields.first()?.data_type(), args.return_field.data_type()) {
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => Some((*from, *to)),
        _ => None,
    }
}

impl AggregateUDFImpl for Average {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "avg"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let [arg] = args else { return plan_err!("avg takes one argument") };
        Ok(vec![match (arg, digits(arg)) {
            (_, Some((p, s))) => DataType::Decimal128(p, s),
            (DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null, _) => DataType::Float64,
            (DataType::Duration(_), _) => arg.clone(),
            (other, None) => {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_FUNCTION,
                    format!("function avg({}) does not exist", other.to_string().to_lowercase()),
                )
                .with_hint("avg takes numbers and differences of timestamps.")
                .into());
            }
        }])
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args.first() {
            Some(DataType::Decimal128(_, s)) => Ok(DataType::Decimal128(MAX_PRECISION, SCALE.max(*s))),
            Some(DataType::Float64) => Ok(DataType::Float64),
            _ => avg_udaf().return_type(args),
        }
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match scales(&args) {
            Some(scales) if args.is_distinct => Ok(Box::new(Distinct { values: HashSet::new(), scales })),
            Some(scales) => Ok(Box::new(One { sum: i256::ZERO, count: 0, scales })),
            None => avg_udaf().accumulator(args),
        }
    }
    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match scales(&args) {
            Some(_) if args.is_distinct => {
                Err(SqlError::unsupported("avg(DISTINCT …) over a window is not supported").into())
            }
            Some(_) => self.accumulator(args),
            None => avg_udaf().create_sliding_accumulator(args),
        }
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(DataType::Decimal128(_, s)) = args.input_fields.first().map(|f| f.data_type()) else {
            return avg_udaf().state_fields(args);
        };
        let sum = sum_type(*s);
        if args.is_distinct {
            let item = Field::new_list_field(sum, true);
            return Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "avg distinct"), item, false))]);
        }
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, true)),
            Arc::new(Field::new(format_state_name(args.name, "sum"), sum, true)),
        ])
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match scales(&args) {
            Some(_) => !args.is_distinct,
            None => avg_udaf().groups_accumulator_supported(args),
        }
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match scales(&args) {
            Some(scales) => Ok(Box::new(Groups { sums: vec![], counts: vec![], scales })),
            None => avg_udaf().create_groups_accumulator(args),
        }
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn sum_type(scale: i8) -> DataType {
    DataType::Decimal128(MAX_PRECISION, scale)
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value overflows numeric format")
        .with_detail(format!("The sum and the average have at most {MAX_PRECISION} digits."))
        .with_hint("Cast the argument to double precision, or to a numeric with fewer digits.")
}

/// The average, halves away from zero.
fn divide(sum: i256, count: i64, (from, to): (i8, i8)) -> Result<i128, SqlError> {
    let shift = u32::try_from(i32::from(to) - i32::from(from)).unwrap_or(0);
    let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
    let (sum, count) = (sum.checked_mul(factor).ok_or_else(overflow)?, i256::from_i128(i128::from(count)));
    let (quotient, rest) = (sum.wrapping_div(count), sum.wrapping_rem(count));
    let up = rest.wrapping_abs().wrapping_mul(i256::from_i128(2)) >= count;
    let sign = if sum < i256::ZERO { i256::MINUS_ONE } else { i256::ONE };
    let quotient = if up { quotient.wrapping_add(sign) } else { quotient };
    quotient.to_i128().and_then(fit).ok_or_else(overflow)
}

fn fit(value: i128) -> Option<i128> {
    (value.unsigned_abs() < 10u128.pow(u32::from(MAX_PRECISION))).then_some(value)
}

fn add_up(values: &Decimal128Array) -> i256 {
    values.iter().flatten().map(i256::from_i128).fold(i256::ZERO, i256::wrapping_add)
}

fn valid(values: &dyn Array) -> i64 {
    i64::try_from(values.len() - values.null_count()).unwrap_or(i64::MAX)
}

fn scalar(value: Option<i128>, scale: i8) -> ScalarValue {
    ScalarValue::Decimal128(value, MAX_PRECISION, scale)
}

#[derive(Debug)]
struct One {
    sum: i256,
    count: i64,
    scales: (i8, i8),
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum = self.sum.wrapping_add(add_up(values[0].as_primitive()));
        self.count += valid(&values[0]);
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum = self.sum.wrapping_sub(add_up(values[0].as_primitive()));
        self.count -= valid(&values[0]);
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        self.sum = self.sum.wrapping_add(add_up(states[1].as_primitive()));
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = if self.count == 0 { None } else { Some(divide(self.sum, self.count, self.scales)?) };
        Ok(scalar(value, self.scales.1))
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = self.sum.to_i128().and_then(fit).ok_or_else(overflow)?;
        Ok(vec![ScalarValue::Int64(Some(self.count)), scalar(Some(sum), self.scales.0)])
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[derive(Debug)]
struct Distinct {
    values: HashSet<i128>,
    scales: (i8, i8),
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(values[0].as_primitive::<Decimal128Type>().iter().flatten());
        Ok(())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Decimal128Type>().iter().flatten());
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let count = i64::try_from(self.values.len()).unwrap_or(i64::MAX);
        let sum = self.values.iter().copied().map(i256::from_i128).fold(i256::ZERO, i256::wrapping_add);
        let value = if count == 0 { None } else { Some(divide(sum, count, self.scales)?) };
        Ok(scalar(value, self.scales.1))
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().map(|v| scalar(Some(*v), self.scales.0)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &sum_type(self.scales.0)))])
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<i128>()
    }
}

#[derive(Debug)]
struct Groups {
    sums: Vec<i128>,
    counts: Vec<i64>,
    scales: (i8, i8),
}

impl Groups {
    fn add(
        &mut self,
        sums: &Decimal128Array,
        counts: Option<&Int64Array>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.resize(total, 0);
        self.counts.resize(total, 0);
        let mut over = false;
        for (row, group) in groups.iter().enumerate() {
            let kept = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if !kept || sums.is_null(row) {
                continue;
            }
            let (sum, wrapped) = self.sums[*group].overflowing_add(sums.value(row));
            over |= wrapped;
            self.sums[*group] = sum;
            self.counts[*group] += counts.map_or(1, |c| c.value(row));
        }
        if over { Err(overflow().into()) } else { Ok(()) }
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.add(values[0].as_primitive(), None, groups, filter, total)
    }
    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.add(states[1].as_primitive(), Some(states[0].as_primitive()), groups, filter, total)
    }
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        let averages = sums.into_iter().zip(counts).map(|(sum, count)| {
            if count == 0 { Ok(None) } else { divide(i256::from_i128(sum), count, self.scales).map(Some) }
        });
        let averages: Decimal128Array = averages.collect::<Result<_, SqlError>>()?;
        Ok(Arc::new(averages.with_precision_and_scale(MAX_PRECISION, self.scales.1)?))
    }
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        if !sums.iter().all(|s| fit(*s).is_some()) {
            return Err(overflow().into());
        }
        let sums = Decimal128Array::from(sums).with_precision_and_scale(MAX_PRECISION, self.scales.0)?;
        Ok(vec![Arc::new(Int64Array::from(counts)), Arc::new(sums)])
    }
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return exec_err!("avg takes one argument") };
        let values = values.as_primitive::<Decimal128Type>();
        let kept = |row: usize| values.is_valid(row) && filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let counts: Int64Array = (0..values.len()).map(|row| Some(i64::from(kept(row)))).collect();
        let sums: Decimal128Array = (0..values.len()).map(|row| kept(row).then(|| values.value(row))).collect();
        let sums = sums.with_precision_and_scale(MAX_PRECISION, self.scales.0)?;
        Ok(vec![Arc::new(counts), Arc::new(sums)])
    }
    fn supports_convert_to_state(&self) -> bool {
        true
    }
    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<i64>()
    }
}
