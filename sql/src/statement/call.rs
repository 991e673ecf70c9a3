//! CALL of the procedures that a table has, by the names that Spark's extensions for Iceberg give them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use sqlparser::ast::{Expr, Value};
use tidewater_catalogs::{DEFAULT_CATALOG, DefinitionKind, LakeTable, ReferenceChange, SYSTEM_CATALOG, TableVersion};

use super::show::{self, Cell};
use super::{analyze, reference, schema};
use crate::dialect::{Call, Name, parse_name, quote_ident};
use crate::error::Result;
use crate::plan::relation::new_name;
use crate::plan::{Planner, Purpose, time_travel};
use crate::run::{detached, guard};
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Procedure {
    AddFiles,
    CherrypickSnapshot,
    FastForward,
    RegisterTable,
    RewriteManifests,
    RollbackToSnapshot,
    RollbackToTimestamp,
    SetCurrentSnapshot,
    ComputeTableStats,
}

use Procedure::{
    AddFiles, CherrypickSnapshot, ComputeTableStats, FastForward, RegisterTable, RewriteManifests, RollbackToSnapshot,
    RollbackToTimestamp, SetCurrentSnapshot,
};

/// Name, parameters in order.
const PROCEDURES: [(&str, Procedure, &[&str]); 9] = [
    ("add_files", AddFiles, &["table", "source_table"]),
    ("cherrypick_snapshot", CherrypickSnapshot, &["table", "snapshot_id"]),
    ("compute_table_stats", ComputeTableStats, &["table"]),
    ("fast_forward", FastForward, &["table", "branch", "to"]),
    ("register_table", RegisterTable, &["table", "metadata_file"]),
    ("rewrite_manifests", RewriteManifests, &["table"]),
    ("rollback_to_snapshot", RollbackToSnapshot, &["table", "snapshot_id"]),
    ("rollback_to_timestamp", RollbackToTimestamp, &["table", "timestamp"]),
    ("set_current_snapshot", SetCurrentSnapshot, &["table", "snapshot_id", "ref"]),
];

pub(super) fn columns(call: &Call) -> Result<Vec<ResultColumn>> {
    let numbers = |names: &[&'static str]| {
        let columns: Vec<_> = names.iter().map(|name| (*name, DataType::Int64)).collect();
        show::columns(&columns)
    };
    Ok(match procedure(call)?.1 {
        AddFiles => numbers(&["added_files_count", "changed_partition_count"]),
        CherrypickSnapshot => numbers(&["source_snapshot_id", "current_snapshot_id"]),
        FastForward => show::columns(&[
            ("branch_updated", DataType::Utf8),
            ("previous_ref", DataType::Int64),
            ("updated_ref", DataType::Int64),
        ]),
        RegisterTable => numbers(&["current_snapshot_id", "total_records_count", "total_data_files_count"]),
        RewriteManifests => numbers(&["rewritten_manifests_count", "added_manifests_count"]),
        RollbackToSnapshot | RollbackToTimestamp | SetCurrentSnapshot => {
            numbers(&["previous_snapshot_id", "current_snapshot_id"])
        }
        ComputeTableStats => show::columns(&[("column_name", DataType::Utf8), ("distinct_values", DataType::Int64)]),
    })
}

pub(super) async fn call(ctx: &StatementContext<'_>, call: &Call) -> Result<Outcome> {
    let (_, procedure, parameters) = procedure(call)?;
    let arguments = Arguments::read(call, parameters)?;
    let name = table_name(&call.procedure, arguments.text("table")?)?;
    if procedure == ComputeTableStats {
        let counted = analyze::count(ctx, &name, None).await?;
        let row = |(column, n): (String, u64)| vec![Cell::from(column), Cell::from(i64::try_from(n).ok())];
        return show::outcome(columns(call)?, counted.into_iter().map(row).collect(), RowsTag::Call);
    }
    let row = match procedure {
        RegisterTable => register(ctx, &name, arguments.text("metadata_file")?).await?,
        AddFiles => {
            let source = path(arguments.text("source_table")?)?.to_owned();
            let table = found(ctx, &name).await?;
            let added = detached(ctx, async move { Ok(table.add_files(&source).await?) }).await?;
            vec![cell(added.files), cell(added.partitions)]
        }
        RewriteManifests => {
            let table = found(ctx, &name).await?;
            let done = detached(ctx, async move { Ok(table.rewrite_manifests().await?) }).await?;
            vec![cell(done.rewritten), cell(done.added)]
        }
        CherrypickSnapshot => {
            let id = arguments.number("snapshot_id")?;
            let table = found(ctx, &name).await?;
            let current = detached(ctx, async move { Ok(table.cherrypick(id).await?) }).await?;
            vec![Some(id).into(), Some(current).into()]
        }
        ComputeTableStats => return Err(SqlError::internal("counting values gives several rows")),
        FastForward | RollbackToSnapshot | RollbackToTimestamp | SetCurrentSnapshot => {
            move_reference(ctx, procedure, &arguments, &name).await?
        }
    };
    show::outcome(columns(call)?, vec![row], RowsTag::Call)
}

fn cell(count: u64) -> Cell {
    i64::try_from(count).ok().into()
}

async fn found(ctx: &StatementContext<'_>, name: &Name) -> Result<Arc<dyn LakeTable>> {
    let table = guard(&ctx.cancel, ctx.deadline, reference::find(ctx, name)).await?;
    table.ok_or_else(|| SqlError::undefined_table(name.0.join(".")))
}

async fn move_reference(
    ctx: &StatementContext<'_>,
    procedure: Procedure,
    arguments: &Arguments<'_>,
    name: &Name,
) -> Result<Vec<Cell>> {
    let change = guard(&ctx.cancel, ctx.deadline, change(ctx, procedure, arguments)).await?;
    let table = found(ctx, name).await?;
    if procedure != FastForward {
        guard(&ctx.cancel, ctx.deadline, keeps_no_flow(ctx, table.as_ref())).await?;
    }
    let moved = reference::change(ctx, table, change).await?;
    let mut row: Vec<Cell> = vec![moved.before.into(), moved.after.into()];
    if procedure == FastForward {
        row.insert(0, arguments.text("branch")?.into());
    }
    Ok(row)
}

async fn register(ctx: &StatementContext<'_>, name: &Name, metadata_file: &str) -> Result<Vec<Cell>> {
    let name = new_name(ctx.settings, name)?;
    guard(&ctx.cancel, ctx.deadline, schema::require_schema(ctx.engine, &name)).await?;
    let _names = schema::lock_names(ctx).await?;
    if let Some(found) = guard(&ctx.cancel, ctx.deadline, schema::find_relation(ctx.engine, &name)).await? {
        return Err(schema::relation_exists(&name, found));
    }
    let (engine, file) = (Arc::clone(ctx.engine), metadata_file.to_owned());
    let table = detached(ctx, async move { Ok(engine.lake.register_table(&name, &file).await?) }).await?;
    let snapshot = table.info().current_snapshot.clone();
    let total = |key: &str| snapshot.as_ref().and_then(|s| s.summary.get(key)?.parse::<i64>().ok());
    Ok(vec![
        snapshot.as_ref().map(|s| s.snapshot_id).into(),
        total("total-records").into(),
        total("total-data-files").into(),
    ])
}

/// A path, or one as Spark writes it: `parquet`.`path`.
fn path(text: &str) -> Result<&str> {
    let Some(rest) = text.trim().strip_prefix('`') else { return Ok(text) };
    let quoted = rest.split_once("`.`").and_then(|(format, path)| Some((format, path.strip_suffix('`')?)));
    match quoted {
        Some((format, path)) if format.eq_ignore_ascii_case("parquet") => Ok(path),
        Some((format, _)) => Err(SqlError::unsupported(format!("files of format {format} cannot be added"))
            .with_hint("Tables have Parquet files.")),
        None => Err(invalid("source_table", "a path, or `parquet`.`path`")),
    }
}

async fn change(
    ctx: &StatementContext<'_>,
    procedure: Procedure,
    arguments: &Arguments<'_>,
) -> Result<ReferenceChange> {
    Ok(match procedure {
        FastForward => {
            let (branch, to) = (arguments.text("branch")?, arguments.text("to")?);
            reference::not_of_flows(branch)?;
            ReferenceChange::FastForward { branch: branch.to_owned(), to: to.to_owned() }
        }
        RollbackToSnapshot => ReferenceChange::Rollback(TableVersion::Snapshot(arguments.number("snapshot_id")?)),
        RollbackToTimestamp => {
            let planner = Planner::new(ctx, Purpose::Execute);
            let timestamp_ms = time_travel::instant_ms(&planner, arguments.required("timestamp")?).await?;
            ReferenceChange::Rollback(TableVersion::AsOf { timestamp_ms })
        }
        SetCurrentSnapshot => ReferenceChange::SetCurrent(match (arguments.get("snapshot_id"), arguments.get("ref")) {
            (Some(_), None) => TableVersion::Snapshot(arguments.number("snapshot_id")?),
            (None, Some(_)) => TableVersion::Reference(arguments.text("ref")?.to_owned()),
            _ => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER,
                    "set_current_snapshot takes either a snapshot_id or a ref",
                ));
            }
        }),
        AddFiles | CherrypickSnapshot | ComputeTableStats | RegisterTable | RewriteManifests => {
            return Err(SqlError::internal("a procedure that moves no reference"));
        }
    })
}

fn procedure(call: &Call) -> Result<(&'static str, Procedure, &'static [&'static str])> {
    let known = match call.procedure.0.as_slice() {
        [.., schema, name] if schema == SYSTEM_CATALOG => PROCEDURES.into_iter().find(|(known, ..)| known == name),
        _ => None,
    };
    known.ok_or_else(|| {
        let all: Vec<String> = PROCEDURES.iter().map(|(name, _, of)| format!("{name}({})", of.join(", "))).collect();
        SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("procedure {} does not exist", call.procedure))
            .with_hint(format!("In {DEFAULT_CATALOG}.{SYSTEM_CATALOG} there are {}.", all.join(", ")))
    })
}

/// The table that a procedure of some catalog is given.
fn table_name(procedure: &Name, text: &str) -> Result<Name> {
    let name = parse_name(text)?;
    let [catalog, _, _] = procedure.0.as_slice() else { return Ok(name) };
    match name.0.as_slice() {
        _ if catalog == DEFAULT_CATALOG => Ok(name),
        [_, _] => Ok(Name(std::iter::once(catalog.clone()).chain(name.0).collect())),
        [first, _, _] if first == catalog => Ok(name),
        _ => Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            format!("\"{text}\" is not a table of catalog \"{catalog}\""),
        )
        .with_hint("Write 'schema.table'.")),
    }
}

/// 55000: where a flow stands is written in the snapshots of its table.
async fn keeps_no_flow(ctx: &StatementContext<'_>, table: &dyn LakeTable) -> Result<()> {
    let name = &table.info().name;
    let defined = ctx.engine.metastore.get(DefinitionKind::Flow, &name.to_string()).await?;
    if defined.is_none() && table.flows().is_empty() {
        return Ok(());
    }
    let quoted = quote_ident(&name.name);
    Err(SqlError::new(
        SqlState::NOT_IN_PREREQUISITE_STATE,
        format!("streaming table \"{}\" cannot be set back", name.name),
    )
    .with_detail("Where its flow stands is part of its snapshots, so that the flow would stop.")
    .with_hint(format!(
        "Read it as it was with SELECT … FROM {quoted} FOR VERSION AS OF …, or end the flow with DROP STREAMING TABLE {quoted} KEEP DATA."
    )))
}

struct Arguments<'a>(Vec<(&'static str, &'a Expr)>);

impl<'a> Arguments<'a> {
    /// By place, then by name.
    fn read(call: &'a Call, parameters: &'static [&'static str]) -> Result<Self> {
        let wrong = |what: String| {
            let hint = format!("Its parameters are {}.", parameters.join(", "));
            SqlError::new(SqlState::UNDEFINED_FUNCTION, what).with_hint(hint)
        };
        let mut found: Vec<(&'static str, &Expr)> = Vec::new();
        let mut named = false;
        for (place, argument) in call.arguments.iter().enumerate() {
            let parameter = match &argument.name {
                Some(name) => {
                    named = true;
                    parameters.iter().find(|p| *p == name)
                }
                None if named => return Err(SqlError::syntax("positional argument cannot follow named argument")),
                None => parameters.get(place),
            };
            let Some(parameter) = parameter else {
                let what = argument.name.clone().unwrap_or_else(|| (place + 1).to_string());
                return Err(wrong(format!("procedure {} has no parameter {what}", call.procedure)));
            };
            if found.iter().any(|(known, _)| known == parameter) {
                return Err(SqlError::syntax(format!("argument name \"{parameter}\" used more than once")));
            }
            found.push((parameter, &argument.value));
        }
        Ok(Self(found))
    }

    fn get(&self, parameter: &str) -> Option<&'a Expr> {
        self.0.iter().find(|(name, _)| *name == parameter).map(|(_, value)| *value)
    }

    fn required(&self, parameter: &str) -> Result<&'a Expr> {
        let missing = || SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("parameter \"{parameter}\" is missing"));
        self.get(parameter).ok_or_else(missing)
    }

    fn literal(&self, parameter: &str) -> Result<Option<&'a Value>> {
        match self.required(parameter)? {
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                Err(SqlError::unsupported("parameters in CALL are not supported yet")
                    .with_hint("Write the value into the statement."))
            }
            Expr::Value(value) => Ok(Some(&value.value)),
            _ => Ok(None),
        }
    }

    fn text(&self, parameter: &str) -> Result<&'a str> {
        match self.literal(parameter)? {
            Some(Value::SingleQuotedString(text)) => Ok(text),
            _ => Err(invalid(parameter, "a text")),
        }
    }

    fn number(&self, parameter: &str) -> Result<i64> {
        match self.literal(parameter)? {
            Some(Value::Number(number, _)) => {
                number.to_string().parse().map_err(|_| invalid(parameter, "the id of a snapshot"))
            }
            _ => Err(invalid(parameter, "the id of a snapshot")),
        }
    }
}

fn invalid(parameter: &str, wanted: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER, format!("parameter \"{parameter}\" must be {wanted}"))
}
