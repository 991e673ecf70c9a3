//! Memory, functions and options that statements are planned and run with.

use std::path::Path;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::prelude::SessionConfig;

use super::casts::{DateIntervals, PostgresCasts};
use super::coop::YieldInJoins;
use super::functions;
use super::lateral::LateralUnnest;
use super::literals::QuotedLiterals;
use super::operators::PostgresOperators;
use super::plain_types::PlainTypes;
use super::rows::TogetherRows;
use super::types::PostgresTypes;
use super::zeros::UnsignedKeys;
use crate::SqlError;
use crate::engine::EngineDefaults;
use crate::error::Result;

/// How many of the largest consumers an out-of-memory error names.
const NAMED_CONSUMERS: std::num::NonZeroUsize = match std::num::NonZeroUsize::new(3) {
    Some(n) => n,
    None => std::num::NonZeroUsize::MIN,
};

/// One pool for all queries of the process. Operators that can spill share it evenly, so that one query cannot
/// starve the others; what does not fit on disk either fails with 53200.
pub(crate) fn runtime_env(memory_bytes: usize, spill_dir: &Path) -> Result<Arc<RuntimeEnv>> {
    std::fs::create_dir_all(spill_dir).map_err(|e| {
        SqlError::new(crate::SqlState::IO_ERROR, format!("cannot create spill directory \"{}\"", spill_dir.display()))
            .with_detail(e.to_string())
    })?;
    let pool: Arc<dyn MemoryPool> =
        Arc::new(TrackConsumersPool::new(FairSpillPool::new(memory_bytes), NAMED_CONSUMERS));
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill_dir.to_path_buf()]));
    Ok(Arc::new(RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build()?))
}

/// The state from which each statement's own is made.
pub(crate) fn base_state(runtime: Arc<RuntimeEnv>, defaults: &EngineDefaults) -> Result<SessionState> {
    let config = SessionConfig::from(options()?)
        .with_batch_size(defaults.batch_rows.max(1))
        .with_target_partitions(defaults.query_parallelism.max(1));
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(DateIntervals));
    rules.insert(0, Arc::new(QuotedLiterals));
    rules.insert(0, Arc::new(TogetherRows));
    rules.insert(0, Arc::new(PlainTypes));
    rules.push(Arc::new(PostgresCasts));
    rules.push(Arc::new(UnsignedKeys));
    // It groups all rows by nothing, and then there is one group even of no rows.
    let mut optimizer = Optimizer::new().rules;
    optimizer.retain(|rule| rule.name() != "eliminate_group_by_constant");
    let mut state = SessionStateBuilder::new()
        .with_analyzer_rules(rules)
        .with_optimizer_rules(optimizer)
        .with_physical_optimizer_rule(Arc::new(YieldInJoins))
        .with_relation_planners(vec![Arc::new(LateralUnnest)])
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(vec![Arc::new(PostgresOperators)])
        .with_default_features()
        .with_type_planner(Arc::new(PostgresTypes))
        .build();
    functions::register(&mut state)?;
    Ok(state)
}

/// Options of the planner that all statements share.
pub(crate) fn options() -> Result<ConfigOptions> {
    let mut options = ConfigOptions::new();
    let parser = &mut options.sql_parser;
    parser.parse_float_as_decimal = true;
    parser.enable_ident_normalization = true;
    parser.collect_spans = true;
    // Results leave as plain strings; views would be converted on the way out.
    parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    options.optimizer.expand_views_at_output = false;
    options.execution.time_zone = Some("+00:00".to_owned());
    // It compares metadata of fields too, which expressions drop in one form and keep in the other.
    options.execution.skip_physical_aggregate_schema_check = true;
    Ok(options)
}
