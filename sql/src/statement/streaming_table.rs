use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_catalogs::{DefinitionKind, NewTable, StartPosition, TableName};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::flow::{self, SEARCH_PATH, START_OFFSETS, STREAM, TABLE_UUID, TIME_ZONE};
use super::schema::{self, Found};
use super::secret::{create_definition, new_definition};
use super::stream;
use crate::dialect::{self, CreateMode, CreateStreamingTable, FlowOptions, ObjectKind};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::relation::new_name;
use crate::run;
use crate::run::guard;
use crate::session::{Notice, Outcome, StatementContext};
use crate::{SqlError, SqlState};

/// Iceberg's property for the size at which a data file is closed.
const TARGET_FILE_SIZE: &str = "write.target-file-size-bytes";
/// The statement, in the table's own properties, for those who find the table without us.
const SQL_PROPERTY: &str = "tidewater.sql";

pub(super) async fn create_streaming_table(
    ctx: &StatementContext<'_>,
    create: &CreateStreamingTable,
) -> Result<Outcome> {
    let done = Ok(Outcome::done("CREATE STREAMING TABLE"));
    let engine = ctx.engine;
    let name = new_name(ctx.settings, &create.name)?;
    stream::check_name(&name)?;
    schema::require_schema(engine, &name).await?;
    let stored = CreateStreamingTable {
        mode: CreateMode::Create,
        if_not_exists: false,
        name: schema::full_name(&name),
        ..create.clone()
    };
    match schema::find_relation(engine, &name).await? {
        None => {}
        Some(_) if create.if_not_exists => {
            ctx.notice(schema::relation_skipped(&name));
            return done;
        }
        Some(Found::StreamingTable) if create.mode != CreateMode::Create => {
            return refresh(ctx, create.mode, &name, &stored).await.and(done);
        }
        Some(found) => return Err(schema::relation_exists(&name, found)),
    }

    let options = FlowOptions::read(&stored.options, &flow::owner(&name))?;
    let (compiled, pinned) = guard(&ctx.cancel, ctx.deadline, async {
        let compiled = flow::compile(engine, ctx.settings, &stored, &ctx.statement.text).await?;
        // The topic must be there before anything is made.
        let source = &compiled.stream.source;
        source.layout().await?;
        let start = match &options.start {
            Some(start) => start.resolve(chrono::Utc::now().timestamp_millis()),
            None => compiled.stream.definition.spec.start.clone(),
        };
        let pinned = match start {
            // They mean the same whenever they are asked.
            StartPosition::Earliest | StartPosition::Offsets(_) => None,
            StartPosition::Latest | StartPosition::Timestamp(_) => Some(source.start_offsets(&start).await?),
        };
        Ok((compiled, pinned))
    })
    .await?;
    let schema = compiled.query.output_schema();
    check_partitions(&stored, &schema)?;

    let sql = stored.to_string();
    // What the properties say goes before what the clause means.
    let distribution = stored.write_order.as_ref().and_then(dialect::WriteOrder::property);
    let given = stored.properties.iter().cloned();
    let mut properties: BTreeMap<String, String> = distribution.into_iter().chain(given).collect();
    if let Some(bytes) = options.target_file_size
        && properties.insert(TARGET_FILE_SIZE.to_owned(), bytes.to_string()).is_some()
    {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            format!("option \"target_file_size\" and table property \"{TARGET_FILE_SIZE}\" say the same"),
        )
        .with_hint("Leave one of them out."));
    }
    properties.insert(SQL_PROPERTY.to_owned(), sql.clone());
    let table = NewTable {
        name: name.clone(),
        schema,
        partition_by: stored.partition_by.clone(),
        sort_by: stored.write_order.as_ref().map(|order| order.sort_by.clone()).unwrap_or_default(),
        properties,
        defaults: Default::default(),
        location: None,
        comment: stored.comment.clone(),
    };
    let mut stored_properties = BTreeMap::from([(STREAM.to_owned(), compiled.stream.name.to_string())]);
    for (property, setting) in [(SEARCH_PATH, "search_path"), (TIME_ZONE, "TimeZone")] {
        if let Some(value) = ctx.settings.get(setting) {
            stored_properties.insert(property.to_owned(), value);
        }
    }
    if let Some(pinned) = pinned {
        let text = serde_json::to_string(&pinned)
            .map_err(|e| SqlError::internal("a start cannot be stored").with_detail(e.to_string()))?;
        stored_properties.insert(START_OFFSETS.to_owned(), text);
    }
    let plan = Creation {
        engine: engine.clone(),
        stream: compiled.stream.name.clone(),
        dead_letters: TableName::dead_letters(&compiled.stream.name),
        table,
        sql,
        properties: stored_properties,
    };
    let names = schema::lock_names(ctx).await?;
    run::detached(ctx, plan.run(names)).await?;
    done
}

/// What is left to do once all is known to be right.
struct Creation {
    engine: Arc<Engine>,
    stream: TableName,
    dead_letters: TableName,
    table: NewTable,
    sql: String,
    properties: BTreeMap<String, String>,
}

impl Creation {
    /// Makes table, dead-letter table and definition, and starts the flow. What was made is taken back where a
    /// later step fails.
    async fn run(mut self, _names: MutexGuard<'static, ()>) -> Result<()> {
        let engine = self.engine.clone();
        let name = self.table.name.clone();
        if let Some(found) = schema::find_relation(&engine, &name).await? {
            return Err(schema::relation_exists(&name, found));
        }
        if schema::find_relation(&engine, &self.stream).await? != Some(Found::Stream) {
            return Err(SqlError::undefined_table(&self.stream.name));
        }
        let new = engine.lake.create_table(self.table.clone()).await.map_err(|e| match e.kind() {
            tidewater_catalogs::ErrorKind::AlreadyExists => schema::relation_exists(&name, Found::Table),
            _ => e.into(),
        })?;
        self.properties.insert(TABLE_UUID.to_owned(), new.info().uuid.to_string());
        let mut made_dead_letters = None;
        let result = self.finish(&mut made_dead_letters).await;
        if result.is_err() {
            if let Err(e) = engine.lake.drop_table(&name, Some(new.info().uuid), true).await {
                tracing::warn!(table = %name, error = %e, "could not take back a new table");
            }
            if let Some(made) = made_dead_letters
                && let Err(e) = engine.lake.drop_table(&self.dead_letters, Some(made), true).await
            {
                tracing::warn!(table = %self.dead_letters, error = %e, "could not take back a new table");
            }
        }
        result
    }

    async fn finish(&self, made_dead_letters: &mut Option<Uuid>) -> Result<()> {
        *made_dead_letters = flow::ensure_dead_letters(&self.engine, &self.dead_letters).await?;
        let name = self.table.name.to_string();
        let definition = new_definition(DefinitionKind::Flow, &name, self.sql.clone(), self.properties.clone());
        // A change of the connection may find the definition before the flow is started; it waits.
        let _lock = flow::lock(definition.id).await;
        create_definition(&self.engine.metastore, ObjectKind::StreamingTable, &definition).await?;
        // The version that is stored, for later updates.
        let stored = self.engine.metastore.get(DefinitionKind::Flow, &name).await;
        let started = match stored {
            Ok(stored) => self.engine.supervisor.start(stored.unwrap_or(definition)),
            Err(e) => Err(e),
        };
        if let Err(e) = started {
            if let Err(e) = self.engine.metastore.as_ref().drop(DefinitionKind::Flow, &name).await {
                tracing::warn!(flow = %name, error = %e, "could not take back a new definition");
            }
            return Err(e.into());
        }
        Ok(())
    }
}

/// OR REFRESH and OR REPLACE where the streaming table is there: nothing to do where it is the same.
async fn refresh(
    ctx: &StatementContext<'_>,
    mode: CreateMode,
    name: &TableName,
    stored: &CreateStreamingTable,
) -> Result<()> {
    let found = ctx.engine.metastore.get(DefinitionKind::Flow, &name.to_string()).await?;
    let same = match &found {
        Some(definition) => flow::parse(definition)? == *stored,
        None => false,
    };
    if same && mode == CreateMode::OrRefresh {
        ctx.notice(Notice::notice(format!("streaming table \"{}\" is the same already, it keeps running", name.name)));
        return Ok(());
    }
    let what = if mode == CreateMode::OrRefresh { "OR REFRESH with a changed definition" } else { "OR REPLACE" };
    Err(SqlError::unsupported(format!("{what} of a streaming table is not supported yet")).with_hint(
        "Change options with ALTER STREAMING TABLE … SET (…); for another query, drop it and create it again.",
    ))
}

pub(super) fn check_partitions(create: &CreateStreamingTable, schema: &arrow::datatypes::Schema) -> Result<()> {
    let partitions = create.partition_by.iter().map(|field| (field, "PARTITIONED BY"));
    let order = create.write_order.iter().flat_map(|order| &order.sort_by);
    for (field, clause) in partitions.chain(order.map(|sort| (&sort.field, "WRITE ORDERED BY"))) {
        if schema.field_with_name(&field.column).is_err() {
            let choices: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(SqlError::undefined_column(&field.column)
                .with_detail(format!("{clause} names a column that the table does not have."))
                .with_hint(format!("The columns are {}.", dialect::list(choices.into_iter(), "and"))));
        }
    }
    Ok(())
}
