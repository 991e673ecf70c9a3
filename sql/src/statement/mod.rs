//! One file per statement. The match in [`execute`] is the table of contents of the product.

mod alter_table;
mod analyze;
mod call;
mod catalog;
mod cells;
mod change;
mod connection;
mod create_table;
mod default_value;
mod describe;
mod drop;
mod dry_run;
mod explain;
mod flow;
mod insert;
mod optimize;
mod reference;
mod replay;
mod schema;
mod secret;
mod select;
mod set;
mod show;
mod stream;
mod streaming_table;
mod subscribe;
mod transaction;
mod truncate;
mod vacuum;

use arrow::datatypes::DataType;
use sqlparser::ast;

use crate::dialect::{Statement, behind_with};
use crate::error::Result;
use crate::session::{Outcome, Prepared, ResultColumn, SessionState, StatementContext};
use crate::{SqlError, SqlState};

pub(crate) use catalog::{open_catalog, secrets_of_catalog};
pub(crate) use default_value::shown as shown_default;
pub(crate) use flow::FlowPlanner;
pub(crate) use stream::stream_definition;
pub(crate) use transaction::abandon;
#[cfg(test)]
pub(crate) use {flow::lock as lock_flow, schema::NAMES};

/// Statements on the session itself: settings and transactions. None for all others.
pub(crate) fn session_statement(state: &mut SessionState<'_>, sql: &ast::Statement) -> Result<Option<Outcome>> {
    use ast::Statement as S;
    match sql {
        S::Set(set) => set::set(state, set).map(Some),
        S::Reset(reset) => set::reset(state, reset).map(Some),
        S::StartTransaction { .. }
        | S::Commit { .. }
        | S::Rollback { .. }
        | S::Savepoint { .. }
        | S::ReleaseSavepoint { .. } => transaction::run(state, sql).map(Some),
        S::Discard { object_type } => transaction::discard(state, object_type).map(Some),
        _ => Ok(None),
    }
}

pub(crate) fn commits(sql: &ast::Statement) -> bool {
    matches!(sql, ast::Statement::Commit { .. })
}

/// True for what a failed block still takes.
pub(crate) fn ends_block(statement: &Statement) -> bool {
    matches!(statement, Statement::Sql(sql)
        if matches!(**sql, ast::Statement::Commit { .. } | ast::Statement::Rollback { .. }))
}

/// Types of parameters and result columns.
pub(crate) async fn describe(
    ctx: &StatementContext<'_>,
    param_types: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let none = Ok((Vec::new(), None));
    match &ctx.statement.statement {
        Statement::Sql(sql) => match behind_with(sql) {
            (_, ast::Statement::Query(query)) => select::describe(ctx, query, param_types).await,
            (with, ast::Statement::Insert(insert)) => insert::describe(ctx, with, insert, param_types).await,
            (with, ast::Statement::Delete(delete)) => change::describe(ctx, with, delete, param_types).await,
            (with, ast::Statement::Update(update)) => change::describe(ctx, with, update, param_types).await,
            (with, ast::Statement::Merge(merge)) => {
                let merge = change::evolved(ctx, with, merge, false).await?;
                change::describe(ctx, with, merge.as_ref(), param_types).await
            }
            (_, ast::Statement::ShowVariable { variable }) => set::describe_show(ctx, variable),
            _ => none,
        },
        Statement::Show(what) => Ok((Vec::new(), Some(show::show_columns(what)))),
        Statement::ShowCreate(_) => Ok((Vec::new(), Some(show::show_create_columns()))),
        Statement::Describe(what) => Ok((Vec::new(), Some(describe::describe_columns(what)))),
        Statement::DescribeInferred(_) => Ok((Vec::new(), Some(describe::describe_inferred_columns()))),
        Statement::Explain(what) => Ok((Vec::new(), Some(explain::columns(what)))),
        Statement::Subscribe(what) => subscribe::describe(ctx, what).await,
        Statement::ReplayDlq(_) => Ok((Vec::new(), Some(replay::columns()))),
        Statement::Optimize(_) => Ok((Vec::new(), Some(optimize::columns()))),
        Statement::Vacuum(_) => Ok((Vec::new(), Some(vacuum::columns()))),
        Statement::Call(what) => Ok((Vec::new(), Some(call::columns(what)?))),
        _ => none,
    }
}

/// Runs everything but [`session_statement`]s.
pub(crate) async fn execute(ctx: &StatementContext<'_>, prepared: &Prepared) -> Result<Outcome> {
    let statement = &ctx.statement.statement;
    refuse_write(ctx, statement)?;
    match statement {
        Statement::Sql(sql) => match behind_with(sql) {
            (_, ast::Statement::Query(query)) => select::execute(ctx, query, prepared).await,
            (with, ast::Statement::Insert(insert)) => insert::execute(ctx, with, insert, prepared).await,
            (with, ast::Statement::Delete(delete)) => change::execute(ctx, with, delete, prepared).await,
            (with, ast::Statement::Update(update)) => change::execute(ctx, with, update, prepared).await,
            (with, ast::Statement::Merge(merge)) => {
                let merge = change::evolved(ctx, with, merge, true).await?;
                change::execute(ctx, with, merge.as_ref(), prepared).await
            }
            (_, ast::Statement::Truncate(truncate)) => truncate::truncate(ctx, truncate).await,
            (_, ast::Statement::ShowVariable { variable }) => set::show(ctx, variable),
            (_, ast::Statement::Deallocate { .. }) => Ok(Outcome::done("DEALLOCATE")),
            (_, other) => Err(refused(other)),
        },
        Statement::CreateTable(create) => create_table::create_table(ctx, create).await,
        Statement::CreateSchema(create) => schema::create_schema(ctx, create).await,
        Statement::CreateSecret(create) => secret::create_secret(ctx, create).await,
        Statement::AlterSecret(alter) => secret::alter_secret(ctx, alter).await,
        Statement::CreateConnection(create) => connection::create_connection(ctx, create).await,
        Statement::AlterConnection(alter) => connection::alter_connection(ctx, alter).await,
        Statement::ValidateConnection(name) => connection::validate_connection(ctx, name).await,
        Statement::CreateCatalog(create) => catalog::create_catalog(ctx, create).await,
        Statement::CreateStream(create) => stream::create_stream(ctx, create).await,
        Statement::CreateStreamingTable(create) => streaming_table::create_streaming_table(ctx, create).await,
        Statement::AlterFlow(alter) => flow::alter_flow(ctx, alter).await,
        Statement::AlterTable(alter) => alter_table::alter_table(ctx, alter).await,
        Statement::ReplayDlq(replay) => replay::replay_dlq(ctx, replay).await,
        Statement::Optimize(what) => optimize::optimize(ctx, what).await,
        Statement::Vacuum(what) => vacuum::vacuum(ctx, what).await,
        Statement::Analyze(what) => analyze::analyze(ctx, what).await,
        Statement::AlterReference(alter) => reference::alter_reference(ctx, alter).await,
        Statement::Call(what) => call::call(ctx, what).await,
        Statement::Drop(drop) => drop::drop_objects(ctx, drop).await,
        Statement::Show(what) => show::show(ctx, what).await,
        Statement::ShowCreate(what) => show::show_create(ctx, what).await,
        Statement::Describe(what) => describe::describe(ctx, what).await,
        Statement::DescribeInferred(what) => describe::describe_inferred(ctx, what).await,
        Statement::Explain(what) => explain::explain(ctx, what).await,
        Statement::Subscribe(what) => subscribe::execute(ctx, what).await,
        Statement::CopyOut(what) => subscribe::copy_out(ctx, what, prepared).await,
    }
}

/// A block takes what changes rows, and no other write: one that stayed behind a ROLLBACK would be a wrong answer.
fn refuse_write(ctx: &StatementContext<'_>, statement: &Statement) -> Result<()> {
    let Some(what) = writes(statement) else { return Ok(()) };
    if ctx.settings.read_only(ctx.in_block) {
        return Err(SqlError::new(
            SqlState::READ_ONLY_TRANSACTION,
            format!("cannot execute {what} in a read-only transaction"),
        ));
    }
    if ctx.in_block && !changes_rows(statement) {
        return Err(SqlError::unsupported(format!("{what} cannot run inside a transaction block"))
            .with_detail("It commits by itself and could not be rolled back.")
            .with_hint("Run it outside of BEGIN … COMMIT (in drivers: with autocommit on)."));
    }
    Ok(())
}

fn changes_rows(statement: &Statement) -> bool {
    use ast::Statement as S;
    matches!(statement, Statement::Sql(sql)
        if matches!(behind_with(sql).1, S::Insert(_) | S::Delete(_) | S::Update(_) | S::Merge(_) | S::Truncate(_)))
}

fn writes(statement: &Statement) -> Option<&'static str> {
    Some(match statement {
        Statement::Sql(sql) => match behind_with(sql).1 {
            ast::Statement::Insert(_) => "INSERT",
            ast::Statement::Delete(_) => "DELETE",
            ast::Statement::Update(_) => "UPDATE",
            ast::Statement::Merge(_) => "MERGE",
            ast::Statement::Truncate(_) => "TRUNCATE",
            _ => return None,
        },
        Statement::ValidateConnection(_)
        | Statement::Show(_)
        | Statement::ShowCreate(_)
        | Statement::Describe(_)
        | Statement::DescribeInferred(_)
        | Statement::Explain(_)
        | Statement::Subscribe(_)
        | Statement::CopyOut(_) => return None,
        Statement::CreateTable(_) => "CREATE TABLE",
        Statement::CreateSchema(_) => "CREATE SCHEMA",
        Statement::CreateSecret(_) => "CREATE SECRET",
        Statement::AlterSecret(_) => "ALTER SECRET",
        Statement::CreateConnection(_) => "CREATE CONNECTION",
        Statement::AlterConnection(_) => "ALTER CONNECTION",
        Statement::CreateCatalog(_) => "CREATE CATALOG",
        Statement::CreateStream(_) => "CREATE STREAM",
        Statement::CreateStreamingTable(_) => "CREATE STREAMING TABLE",
        Statement::AlterFlow(_) => "ALTER FLOW",
        Statement::AlterTable(alter) => alter.tag,
        Statement::ReplayDlq(_) => "REPLAY DLQ",
        Statement::Optimize(_) => "OPTIMIZE",
        Statement::Vacuum(_) => "VACUUM",
        Statement::Analyze(_) => "ANALYZE",
        Statement::AlterReference(_) => "ALTER TABLE",
        Statement::Call(_) => "CALL",
        Statement::Drop(_) => "DROP",
    })
}

/// 0A000 for PostgreSQL's statements that are understood and not done.
fn refused(statement: &ast::Statement) -> SqlError {
    use ast::Statement as S;
    let (what, hint) = match statement {
        S::CreateView(_) => {
            ("CREATE VIEW", "Put the query into a WITH clause, or keep its result with CREATE TABLE … AS.")
        }
        S::CreateTable(t) if t.temporary => {
            ("CREATE TEMPORARY TABLE", "Leave out TEMPORARY and drop the table afterwards.")
        }
        S::CreateTable(_) => {
            ("this form of CREATE TABLE", "Write CREATE TABLE name (column type, …) or CREATE TABLE name AS SELECT ….")
        }
        S::CreateIndex(_) => (
            "CREATE INDEX",
            "Tables are pruned by partition and by column statistics: PARTITIONED BY (days(ts)) is the tool.",
        ),
        S::CreateFunction(_) => ("CREATE FUNCTION", "Write the expression into the query."),
        S::Copy { .. } => (
            "this form of COPY",
            "COPY (SELECT …) TO STDOUT reads; to write, use INSERT … VALUES or produce to a stream.",
        ),
        S::Declare { .. } | S::Fetch { .. } | S::Close { .. } => {
            ("a cursor", "Let the driver fetch in portions: it does so with the extended protocol.")
        }
        S::Prepare { .. } | S::Execute { .. } => {
            ("PREPARE in SQL", "Drivers prepare statements with the extended protocol.")
        }
        S::Grant(_) | S::Revoke(_) | S::CreateRole(_) | S::AlterRole { .. } | S::CreateUser(_) => {
            ("access control", "There is one user yet; its password is a setting of the server.")
        }
        S::LISTEN { .. } | S::UNLISTEN { .. } | S::NOTIFY { .. } => ("LISTEN and NOTIFY", "Poll with SELECT."),
        S::Call(_) => ("CALL", "There are no procedures yet."),
        S::Comment { .. } => ("COMMENT", "Give COMMENT '…' in CREATE STREAMING TABLE."),
        S::CreateDatabase { .. } => ("CREATE DATABASE", "There is one database, lake; divide it with CREATE SCHEMA."),
        _ => {
            let first: String = statement.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return SqlError::unsupported(format!("{first} is not supported"));
        }
    };
    SqlError::unsupported(format!("{what} is not supported yet")).with_hint(hint)
}
