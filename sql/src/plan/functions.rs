//! Functions that tell about the session, and `timezone`.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
    simplify::{ExprSimplifyResult, SimplifyContext},
};
use tidewater_catalogs::DEFAULT_CATALOG;

use super::types::timestamptz;
use crate::error::Result;
use crate::session::Login;
use crate::settings::{SERVER_VERSION, Settings};

/// Functions that are the same for every session.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let version = format!("PostgreSQL {SERVER_VERSION} (Tidewater {})", env!("CARGO_PKG_VERSION"));
    state.register_udf(constant("version", text(&version)))?;
    for name in ["current_database", "current_catalog"] {
        state.register_udf(constant(name, text(DEFAULT_CATALOG)))?;
    }
    state.register_udf(Arc::new(ScalarUDF::from(Timezone::new())))?;
    state.register_udaf(super::sum::sum())?;
    for function in tidewater_udfs::all() {
        state.register_udf(function)?;
    }
    Ok(())
}

/// Those that know the session.
pub(super) fn register_session(state: &mut SessionState, settings: &Settings, login: &Login, pid: i32) -> Result<()> {
    let schema = settings.search_path().into_iter().next();
    state.register_udf(constant("current_schema", ScalarValue::Utf8(schema)))?;
    for name in ["current_user", "session_user", "user", "current_role"] {
        state.register_udf(constant(name, text(&login.user)))?;
    }
    state.register_udf(constant("pg_backend_pid", ScalarValue::Int32(Some(pid))))?;
    state.register_udf(Arc::new(ScalarUDF::from(CurrentSetting {
        signature: Signature::one_of(
            vec![
                datafusion::logical_expr::TypeSignature::Exact(vec![DataType::Utf8]),
                datafusion::logical_expr::TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
            ],
            Volatility::Stable,
        ),
        settings: settings.clone(),
    })))?;
    Ok(())
}

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_owned()))
}

fn constant(name: &'static str, value: ScalarValue) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Constant { name, value, signature: Signature::nullary(Volatility::Stable) }))
}

/// A function without arguments whose value is known when the statement is planned.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.value.data_type())
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `current_setting(name [, missing_ok])`.
#[derive(Debug)]
struct CurrentSetting {
    signature: Signature,
    settings: Settings,
}

// The values are those of one statement; two functions of one plan are always the same one.
impl PartialEq for CurrentSetting {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.signature == other.signature
    }
}
impl Eq for CurrentSetting {}
impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "current_setting".hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "current_setting"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let missing_ok = match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(b)))) => *b,
            _ => false,
        };
        let value = |name: &str| match self.settings.show(name) {
            Ok((_, value)) => Ok(Some(value)),
            Err(_) if missing_ok => Ok(None),
            Err(e) => Err(datafusion::error::DataFusionError::from(e)),
        };
        match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) => {
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value(name)?)))
            }
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(None))) => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
            Some(ColumnarValue::Array(names)) => {
                let names = datafusion::common::cast::as_string_array(names)?;
                let values = names.iter().map(|n| n.map_or(Ok(None), value)).collect::<DfResult<Vec<_>>>()?;
                Ok(ColumnarValue::Array(Arc::new(arrow::array::StringArray::from(values))))
            }
            _ => exec_err!("current_setting takes a text"),
        }
    }
}

/// `ts AT TIME ZONE zone`: PostgreSQL §9.9.4. It is gone when the plan is optimised: casts are left.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Timezone {
    signature: Signature,
}

impl Timezone {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Timezone {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "timezone"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> DfResult<DataType> {
        match args {
            [DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Timestamp(_, Some(_))] => {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            [DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Timestamp(_, None)] => {
                Ok(timestamptz())
            }
            _ => plan_err!("AT TIME ZONE needs a text and a timestamp"),
        }
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        let [zone, value] = args.as_slice() else { return plan_err!("timezone takes two arguments") };
        let Expr::Literal(zone, _) = zone else {
            return plan_err!("AT TIME ZONE needs a literal zone");
        };
        let from = value.get_type(info.schema())?;
        let Some(zone) = zone.try_as_str().flatten() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let Some((_, zone)) = crate::settings::parse_time_zone(zone) else {
            return Err(crate::SqlError::new(
                crate::SqlState::INVALID_PARAMETER,
                format!("time zone \"{zone}\" not recognized"),
            )
            .into());
        };
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
        Ok(ExprSimplifyResult::Simplified(match from {
            DataType::Timestamp(_, Some(_)) => {
                let wall = datafusion::functions::datetime::to_local_time().call(vec![cast(value.clone(), zoned)]);
                cast(wall, local)
            }
            _ => cast(cast(cast(value.clone(), local), zoned), timestamptz()),
        }))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        exec_err!("AT TIME ZONE needs a literal zone")
    }
}
