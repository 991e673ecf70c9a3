//! `min` and `max` of floats. The engine's own begin at the smallest and the largest finite number where rows are
//! grouped, and so miss infinities and NaN; here each group has an accumulator of its own.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};

pub(super) fn min() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Extreme { engine: min_udaf() }))
}

pub(super) fn max() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Extreme { engine: max_udaf() }))
}

/// The engine's function, but for groups of floats.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    engine: Arc<AggregateUDF>,
}

/// Null where the frame holds no value; the engine's own would say what was there before.
#[derive(Debug)]
struct Sliding {
    engine: Box<dyn Accumulator>,
    /// In the frame, nulls not counted.
    values: usize,
    null: ScalarValue,
}

fn values_of(arrays: &[ArrayRef]) -> usize {
    arrays.first().map_or(0, |array| array.len() - array.logical_null_count())
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values += values_of(values);
        self.engine.update_batch(values)
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values = self.values.saturating_sub(values_of(values));
        self.engine.retract_batch(values)
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values == 0 { Ok(self.null.clone()) } else { self.engine.evaluate() }
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.engine.merge_batch(states)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.engine.state()
    }
    fn size(&self) -> usize {
        self.engine.size() + size_of_val(self)
    }
    fn supports_retract_batch(&self) -> bool {
        self.engine.supports_retract_batch()
    }
}

impl AggregateUDFImpl for Extreme {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.engine.name()
    }
    fn signature(&self) -> &Signature {
        self.engine.signature()
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.engine.return_type(args)
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.engine.coerce_types(args)
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.engine.accumulator(args)
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.return_field.data_type().is_floating() && self.engine.groups_accumulator_supported(args)
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.engine.create_groups_accumulator(args)
    }
    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let null = ScalarValue::try_from(args.return_field.data_type())?;
        Ok(Box::new(Sliding { engine: self.engine.create_sliding_accumulator(args)?, values: 0, null }))
    }
    fn is_descending(&self) -> Option<bool> {
        self.engine.is_descending()
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.engine.inner().set_monotonicity(data_type)
    }
    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.engine.value_from_stats(args)
    }
}
