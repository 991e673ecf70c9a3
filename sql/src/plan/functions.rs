//! Functions that tell about the session, and `timezone`.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::functions_aggregate;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
    simplify::{ExprSimplifyResult, SimplifyContext},
};
use tidewater_catalogs::DEFAULT_CATALOG;

use super::types::timestamptz;
use crate::engine::Engine;
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
    state.register_udf(Arc::new(ScalarUDF::from(TypeOf { signature: Signature::any(1, Volatility::Immutable) })))?;
    state.register_udaf(super::sum::sum())?;
    state.register_udaf(super::average::avg())?;
    state.register_udaf(super::extremes::min())?;
    state.register_udaf(super::extremes::max())?;
    for (udaf, alias) in [
        (functions_aggregate::variance::var_samp_udaf(), "variance"),
        (functions_aggregate::bool_and_or::bool_and_udaf(), "every"),
    ] {
        state.register_udaf(Arc::new(udaf.as_ref().clone().with_aliases([alias])))?;
    }
    state.register_udf(super::quantified::udf())?;
    state.register_udf(super::words::as_is())?;
    // Its patterns are not PostgreSQL's; with it goes its other name, date_format.
    state.deregister_udf("to_char")?;
    for function in tidewater_udfs::all() {
        state.register_udf(function)?;
    }
    Ok(())
}

/// Those that know the session.
pub(super) fn register_session(
    state: &mut SessionState,
    engine: &Arc<Engine>,
    settings: &Settings,
    login: &Login,
    pid: i32,
) -> Result<()> {
    let schema = settings.search_path().into_iter().next();
    state.register_udf(constant("current_schema", ScalarValue::Utf8(schema)))?;
    for name in ["current_user", "session_user", "user", "current_role"] {
        state.register_udf(constant(name, text(&login.user)))?;
    }
    state.register_udf(constant("pg_backend_pid", ScalarValue::Int32(Some(pid))))?;
    state.register_udf(Arc::new(ScalarUDF::from(CancelBackend {
        engine: Arc::downgrade(engine),
        signature: Signature::uniform(1, vec![DataType::Int32, DataType::Int64], Volatility::Volatile),
    })))?;
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
        // There, an offset of hours counts from the zone to Greenwich (POSIX), as one of hours and minutes always does.
        let hours = |offset: &str| offset.bytes().all(|b| b.is_ascii_digit());
        let zone = match zone.trim().split_at_checked(1) {
            Some(("+", offset)) if hours(offset) => format!("-{offset}"),
            Some(("-", offset)) if hours(offset) => format!("+{offset}"),
            _ => zone.to_owned(),
        };
        let Some((_, zone)) = crate::settings::parse_time_zone(&zone) else {
            return Err(crate::SqlError::new(
                crate::SqlState::INVALID_PARAMETER,
                format!("time zone \"{zone}\" not recognized"),
            )
            .into());
        };
        let zone: Arc<str> = zone.into();
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(&zone)));
        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
        Ok(ExprSimplifyResult::Simplified(match from {
            DataType::Timestamp(_, Some(_)) => {
                let wall = datafusion::functions::datetime::to_local_time().call(vec![cast(value.clone(), zoned)]);
                cast(wall, local)
            }
            _ => super::zones::instant(cast(value.clone(), local), &zone),
        }))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        exec_err!("AT TIME ZONE needs a literal zone")
    }
}

/// `pg_typeof(any) → text`: the name of the type. It is gone when the plan is optimised.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl ScalarUDFImpl for TypeOf {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "pg_typeof"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(field) = args.arg_fields.first() else { return exec_err!("pg_typeof takes one argument") };
        Ok(ColumnarValue::Scalar(text(&tidewater_catalogs_system::type_name(field.data_type()))))
    }
}

/// `pg_cancel_backend(pid)`: true where there was such a session.
#[derive(Debug)]
struct CancelBackend {
    engine: Weak<Engine>,
    signature: Signature,
}

impl PartialEq for CancelBackend {
    fn eq(&self, other: &Self) -> bool {
        self.engine.ptr_eq(&other.engine)
    }
}
impl Eq for CancelBackend {}
impl Hash for CancelBackend {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for CancelBackend {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "pg_cancel_backend"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [pids] = arrays.as_slice() else { return exec_err!("pg_cancel_backend takes one argument") };
        let pids = arrow::compute::cast(pids, &DataType::Int32)?;
        let pids = pids.as_primitive::<Int32Type>();
        let Some(engine) = self.engine.upgrade() else { return exec_err!("the server is gone") };
        let done: BooleanArray = pids.iter().map(|pid| pid.map(|pid| engine.cancel_session(pid))).collect();
        Ok(ColumnarValue::Array(Arc::new(done)))
    }
}
