//! `sum` that is exact or fails: the engine's own wraps around. As in PostgreSQL, `sum(bigint)` is numeric, and the
//! sum of smaller integers a bigint.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Field, FieldRef, Int32Type, Int64Type, UInt64Type, i256,
};
use datafusion::common::types::{
    NativeType, logical_float64, logical_int8, logical_int16, logical_int32, logical_int64, logical_uint8,
    logical_uint16, logical_uint32, logical_uint64,
};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Coercion, EmitTo, Expr, ExprSchemable, GroupsAccumulator,
    ReversedUDAF, Signature, TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion::physical_expr::NullState;

use crate::{SqlError, SqlState};

const MAX_PRECISION: u8 = 38;
/// The first number that `numeric(38)` does not hold.
const NUMERIC_END: i128 = 10i128.pow(MAX_PRECISION as u32);

pub(super) fn sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Sum::named("sum")))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    name: &'static str,
    signature: Signature,
}

/// What [`Sum`] becomes where its argument is an int4. The optimizer takes a sum of sums of one column for a sum of
/// that column, but only of functions called `sum`; sums of int4 have another type than their sum.
const SUM_OF_INT4: &str = "sum_int4";

impl Sum {
    fn named(name: &'static str) -> Self {
        use TypeSignatureClass::Native;
        let implicit = |to, from, native| TypeSignature::Coercible(vec![Coercion::new_implicit(to, from, native)]);
        let exact = |class| TypeSignature::Coercible(vec![Coercion::new_exact(class)]);
        let small = [logical_int8(), logical_int16(), logical_uint8(), logical_uint16()].map(Native).to_vec();
        let variants = vec![
            exact(TypeSignatureClass::Decimal),
            implicit(Native(logical_int32()), small, NativeType::Int32),
            implicit(Native(logical_int64()), vec![Native(logical_uint32())], NativeType::Int64),
            exact(Native(logical_uint64())),
            implicit(Native(logical_float64()), vec![TypeSignatureClass::Float], NativeType::Float64),
            exact(TypeSignatureClass::Duration),
        ];
        Self { name, signature: Signature::one_of(variants, Volatility::Immutable) }
    }
}

/// Calls `$make::<Input, Output>($out)` for what is summed here; the rest (floats, durations) is the engine's.
macro_rules! dispatch {
    ($args:expr, $make:ident, $else:expr) => {{
        let out = $args.return_field.data_type().clone();
        match ($args.expr_fields.first().map(|f| f.data_type()), &out) {
            (Some(DataType::Int32), DataType::Int64) => Ok(Box::new($make::<Int32Type, Int64Type>::new(out))),
            (Some(DataType::Int64), DataType::Decimal128(..)) => {
                Ok(Box::new($make::<Int64Type, Decimal128Type>::new(out)))
            }
            (Some(DataType::UInt64), DataType::Decimal128(..)) => {
                Ok(Box::new($make::<UInt64Type, Decimal128Type>::new(out)))
            }
            (Some(DataType::Decimal128(..)), DataType::Decimal128(..)) => {
                Ok(Box::new($make::<Decimal128Type, Decimal128Type>::new(out)))
            }
            _ => $else,
        }
    }};
}

impl AggregateUDFImpl for Sum {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [DataType::Int32] => Ok(DataType::Int64),
            [DataType::Int64 | DataType::UInt64] => Ok(DataType::Decimal128(MAX_PRECISION, 0)),
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(MAX_PRECISION, *scale)),
            other => sum_udaf().return_type(other),
        }
    }
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        if self.name == SUM_OF_INT4 {
            return None;
        }
        Some(Box::new(|mut call: AggregateFunction, info| {
            let small = match call.params.args.first() {
                Some(arg) => arg.get_type(info.schema())? == DataType::Int32,
                None => false,
            };
            if small && !call.params.distinct {
                call.func = Arc::new(AggregateUDF::from(Self::named(SUM_OF_INT4)));
            }
            Ok(Expr::AggregateFunction(call))
        }))
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            dispatch!(args, Distinct, sum_udaf().accumulator(args))
        } else {
            dispatch!(args, Total, sum_udaf().accumulator(args))
        }
    }
    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            dispatch!(args, Distinct, sum_udaf().create_sliding_accumulator(args))
        } else {
            dispatch!(args, Total, sum_udaf().create_sliding_accumulator(args))
        }
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let out = args.return_type().clone();
        Ok(vec![Arc::new(if args.is_distinct {
            let item = Field::new_list_field(out, true);
            Field::new_list(format_state_name(args.name, "sum distinct"), item, false)
        } else {
            Field::new(format_state_name(args.name, "sum"), out, true)
        })])
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        dispatch!(args, Groups, sum_udaf().create_groups_accumulator(args))
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A type that sums have.
trait Output: ArrowPrimitiveType + Debug + Send + Sync {
    /// None where it does not fit.
    fn fit(sum: i128) -> Option<Self::Native>;
    fn overflow() -> SqlError;
}

impl Output for Int64Type {
    fn fit(sum: i128) -> Option<i64> {
        sum.try_into().ok()
    }
    fn overflow() -> SqlError {
        SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "bigint out of range")
    }
}

impl Output for Decimal128Type {
    fn fit(sum: i128) -> Option<i128> {
        (-NUMERIC_END < sum && sum < NUMERIC_END).then_some(sum)
    }
    fn overflow() -> SqlError {
        SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value overflows numeric format")
            .with_detail(format!("A sum has at most {MAX_PRECISION} digits."))
    }
}

/// The sum of the values that are not null, which always fits.
fn add_up<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>) -> i256
where
    T::Native: Into<i128>,
{
    let (mut sum, mut over) = (0i128, false);
    let mut add = |value: T::Native| {
        let (next, wrapped) = sum.overflowing_add(value.into());
        sum = next;
        over |= wrapped;
    };
    match values.nulls().filter(|n| n.null_count() > 0) {
        None => values.values().iter().for_each(|v| add(*v)),
        Some(nulls) => nulls.valid_indices().for_each(|i| add(values.value(i))),
    }
    if over {
        let exact = values.iter().flatten().map(|v| i256::from_i128(v.into()));
        return exact.fold(i256::ZERO, i256::wrapping_add);
    }
    i256::from_i128(sum)
}

fn valid<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>) -> i64 {
    i64::try_from(values.len() - values.null_count()).unwrap_or(i64::MAX)
}

fn finish<O: Output>(sum: i256, data_type: &DataType) -> Result<O::Native> {
    debug_assert!(O::DATA_TYPE.equals_datatype(data_type) || data_type.is_decimal());
    Ok(sum.to_i128().and_then(O::fit).ok_or_else(O::overflow)?)
}

/// One sum. What is held in between may be larger than what can be told.
#[derive(Debug)]
struct Total<I, O> {
    sum: i256,
    count: i64,
    data_type: DataType,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Total<I, O> {
    fn new(data_type: DataType) -> Self {
        Self { sum: i256::ZERO, count: 0, data_type, types: PhantomData }
    }
}

impl<I, O> Accumulator for Total<I, O>
where
    I: ArrowPrimitiveType + Debug,
    I::Native: Into<i128>,
    O: Output,
    O::Native: Into<i128>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<I>();
        self.sum = self.sum.wrapping_add(add_up(values));
        self.count += valid(values);
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<I>();
        self.sum = self.sum.wrapping_sub(add_up(values));
        self.count -= valid(values);
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sums = states[0].as_primitive::<O>();
        self.sum = self.sum.wrapping_add(add_up(sums));
        self.count += valid(sums);
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = if self.count == 0 { None } else { Some(finish::<O>(self.sum, &self.data_type)?) };
        ScalarValue::new_primitive::<O>(sum, &self.data_type)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// `sum(DISTINCT …)`: each value with how often it is there, for windows that lose rows.
#[derive(Debug)]
struct Distinct<I, O> {
    sum: i256,
    counts: HashMap<i128, u64>,
    data_type: DataType,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Distinct<I, O> {
    fn new(data_type: DataType) -> Self {
        Self { sum: i256::ZERO, counts: HashMap::new(), data_type, types: PhantomData }
    }

    fn add<T: ArrowPrimitiveType>(&mut self, values: &PrimitiveArray<T>)
    where
        T::Native: Into<i128>,
    {
        for value in values.iter().flatten() {
            let value = value.into();
            let count = self.counts.entry(value).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.sum = self.sum.wrapping_add(i256::from_i128(value));
            }
        }
    }
}

impl<I, O> Accumulator for Distinct<I, O>
where
    I: ArrowPrimitiveType + Debug,
    I::Native: Into<i128>,
    O: Output,
    O::Native: Into<i128>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive::<I>());
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<I>().iter().flatten() {
            let value = value.into();
            if let Some(count) = self.counts.get_mut(&value) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&value);
                    self.sum = self.sum.wrapping_sub(i256::from_i128(value));
                }
            }
        }
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.add(values.as_primitive::<O>());
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = if self.counts.is_empty() { None } else { Some(finish::<O>(self.sum, &self.data_type)?) };
        ScalarValue::new_primitive::<O>(sum, &self.data_type)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.counts.keys().map(|value| {
            let value = O::fit(*value).ok_or_else(O::overflow)?;
            ScalarValue::new_primitive::<O>(Some(value), &self.data_type)
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.data_type))])
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<(i128, u64)>()
    }
}

/// One sum per group. That one went too far is noticed row by row and told once per batch.
#[derive(Debug)]
struct Groups<I, O: ArrowPrimitiveType> {
    sums: Vec<O::Native>,
    nulls: NullState,
    data_type: DataType,
    input: PhantomData<fn(I)>,
}

impl<I, O: Output> Groups<I, O> {
    fn new(data_type: DataType) -> Self {
        Self { sums: Vec::new(), nulls: NullState::new(), data_type, input: PhantomData }
    }

    fn add<T>(&mut self, values: &ArrayRef, groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()>
    where
        T: ArrowPrimitiveType + Send,
        T::Native: Into<O::Native>,
    {
        self.sums.resize(total, O::default_value());
        let (sums, mut over) = (&mut self.sums, false);
        self.nulls.accumulate(groups, values.as_primitive::<T>(), filter, total, |group, value| {
            let sum = &mut sums[group];
            let value = value.into();
            let next = sum.add_wrapping(value);
            // Overflow: the sum moved against the sign of what was added.
            over |= (next < *sum) != (value < O::Native::ZERO);
            *sum = next;
        });
        if over { Err(O::overflow().into()) } else { Ok(()) }
    }
}

impl<I, O> GroupsAccumulator for Groups<I, O>
where
    I: ArrowPrimitiveType + Debug + Send,
    I::Native: Into<O::Native>,
    O: Output,
    O::Native: Into<i128>,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.add::<I>(&values[0], groups, filter, total)
    }
    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.add::<O>(&values[0], groups, filter, total)
    }
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums);
        // The sums of groups without a value are zero.
        if !sums.iter().all(|sum| O::fit((*sum).into()).is_some()) {
            return Err(O::overflow().into());
        }
        let nulls = self.nulls.build(emit_to);
        Ok(Arc::new(PrimitiveArray::<O>::new(sums.into(), nulls).with_data_type(self.data_type.clone())))
    }
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return exec_err!("sum takes one argument") };
        let values = values.as_primitive::<I>();
        let kept = filter.map(|filter| match filter.nulls() {
            Some(nulls) => NullBuffer::new(nulls.inner() & filter.values()),
            None => NullBuffer::new(filter.values().clone()),
        });
        let nulls = NullBuffer::union(values.nulls(), kept.as_ref());
        let sums = values.values().iter().map(|v| (*v).into()).collect::<Vec<O::Native>>();
        Ok(vec![Arc::new(PrimitiveArray::<O>::new(sums.into(), nulls).with_data_type(self.data_type.clone()))])
    }
    fn supports_convert_to_state(&self) -> bool {
        true
    }
    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<O::Native>() + self.nulls.size()
    }
}
