//! `count(DISTINCT (a, b))`: rows as keys of bytes. (The engine would keep each row with the batch that it came in.)

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::BinaryBuilder;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const NAME: &str = "row_key";

static ROW_KEY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(RowKey { signature: Signature::any(1, Volatility::Immutable) })));

/// Bytes that are equal where the rows are. Null where the row itself is.
pub(super) fn of(row: Expr) -> Expr {
    ROW_KEY.call(vec![row])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowKey {
    signature: Signature,
}

impl ScalarUDFImpl for RowKey {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [row] = args.args.as_slice() else { return exec_err!("{NAME} takes one argument") };
        let rows = row.to_array(args.number_rows)?;
        let converter = RowConverter::new(vec![SortField::new(rows.data_type().clone())])?;
        let keys = converter.convert_columns(&[Arc::clone(&rows)])?;
        let mut out = BinaryBuilder::with_capacity(rows.len(), 0);
        for (i, key) in keys.iter().enumerate() {
            if rows.is_null(i) {
                out.append_null();
            } else {
                out.append_value(key.data());
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}
