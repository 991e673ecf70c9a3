//! SET, RESET and SHOW of settings.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use sqlparser::ast::{
    ContextModifier, Expr, Ident, ObjectName, Reset, ResetStatement, Set, SetSessionAuthorizationParamKind,
    UnaryOperator, Value,
};

use crate::dialect::fold;
use crate::error::Result;
use crate::session::{Notice, Outcome, ResultColumn, RowsTag, SessionState, StatementContext, TransactionStatus};
use crate::{SqlError, SqlState, run};

pub(super) fn set(state: &mut SessionState<'_>, set: &Set) -> Result<Outcome> {
    match set {
        Set::SingleAssignment { scope, variable, values, hivevar: false } => {
            assign(state, is_local(scope.as_ref()), &name_of(variable)?, values)?;
        }
        Set::MultipleAssignments { assignments } => {
            for a in assignments {
                assign(state, is_local(a.scope.as_ref()), &name_of(&a.name)?, std::slice::from_ref(&a.value))?;
            }
        }
        Set::SetTimeZone { local, value } => assign(state, *local, "TimeZone", std::slice::from_ref(value))?,
        Set::SetNames { charset_name, .. } => store(state, false, "client_encoding", &charset_name.value)?,
        Set::SetNamesDefault {} => state.settings.reset("client_encoding")?,
        Set::SetTransaction { modes, snapshot, session } => {
            if snapshot.is_some() {
                return Err(SqlError::unsupported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            let outside = state.transaction.lock().status == TransactionStatus::Idle;
            if outside && !session {
                warn_outside(state, "SET TRANSACTION");
            } else {
                super::transaction::set_modes(state, modes, !session)?;
            }
        }
        Set::SetRole { role_name: None, .. } => {}
        Set::SetRole { role_name: Some(role), .. } => {
            return Err(SqlError::unsupported(format!("role \"{}\" cannot be taken", role.value))
                .with_hint("There are no roles yet."));
        }
        Set::SetSessionAuthorization(param) if matches!(param.kind, SetSessionAuthorizationParamKind::Default) => {}
        other => return Err(SqlError::unsupported(format!("{other} is not supported"))),
    }
    Ok(Outcome::done("SET"))
}

fn is_local(scope: Option<&ContextModifier>) -> bool {
    matches!(scope, Some(ContextModifier::Local))
}

fn name_of(name: &ObjectName) -> Result<String> {
    let parts: Option<Vec<String>> = name.0.iter().map(|p| p.as_ident().map(fold)).collect();
    parts.map(|p| p.join(".")).ok_or_else(|| SqlError::syntax(format!("invalid name of a setting: {name}")))
}

fn assign(state: &mut SessionState<'_>, local: bool, name: &str, values: &[Expr]) -> Result<()> {
    if let [Expr::Identifier(word)] = values
        && word.quote_style.is_none()
        && word.value.eq_ignore_ascii_case("default")
    {
        let default = state.settings.default_of(name)?;
        return if local { store(state, true, name, &default) } else { state.settings.reset(name) };
    }
    let list = name.eq_ignore_ascii_case("search_path");
    let values = values.iter().map(|v| text_of(v, list)).collect::<Result<Vec<_>>>()?;
    store(state, local, name, &values.join(", "))
}

fn store(state: &mut SessionState<'_>, local: bool, name: &str, value: &str) -> Result<()> {
    if !local {
        return state.settings.set(name, value);
    }
    if state.transaction.lock().status == TransactionStatus::Idle {
        warn_outside(state, "SET LOCAL");
        return Ok(());
    }
    state.settings.set_local(name, value)
}

fn warn_outside(state: &SessionState<'_>, what: &str) {
    state.notices.lock().push(Notice::warning(
        SqlState::NO_ACTIVE_TRANSACTION,
        format!("{what} can only be used in transaction blocks"),
    ));
}

/// What a value says: words and literals as they are. Members of a list are quoted where they need it.
fn text_of(value: &Expr, list: bool) -> Result<String> {
    let quoted = |text: &str| {
        let plain = !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !text.starts_with(|c: char| c.is_ascii_digit());
        if list && !plain { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
    };
    match value {
        Expr::Identifier(word) => Ok(quoted(&fold(word))),
        Expr::CompoundIdentifier(words) if !list => {
            Ok(words.iter().map(|w| w.value.clone()).collect::<Vec<_>>().join("."))
        }
        Expr::Value(v) => match &v.value {
            Value::Number(n, _) => Ok(n.clone()),
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::DoubleQuotedString(s) => {
                Ok(quoted(s))
            }
            Value::DollarQuotedString(s) => Ok(quoted(&s.value)),
            Value::Boolean(b) => Ok(if *b { "on" } else { "off" }.to_owned()),
            other => Err(SqlError::syntax(format!("syntax error at or near \"{other}\""))),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => text_of(expr, list).map(|t| format!("-{t}")),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => text_of(expr, list),
        other => Err(SqlError::syntax(format!("syntax error at or near \"{other}\""))),
    }
}

pub(super) fn reset(state: &mut SessionState<'_>, reset: &ResetStatement) -> Result<Outcome> {
    match &reset.reset {
        Reset::ALL => state.settings.reset_all(),
        Reset::ConfigurationParameter(name) => {
            let name = name_of(name)?;
            state.settings.reset(shown_name(&name))?;
        }
    }
    Ok(Outcome::done("RESET"))
}

fn shown_name(name: &str) -> &str {
    match name.to_lowercase().as_str() {
        "time zone" | "time.zone" => "TimeZone",
        "session authorization" | "session.authorization" => "session_authorization",
        "transaction isolation level" | "transaction.isolation.level" => "transaction_isolation",
        _ => name,
    }
}

fn variable_name(variable: &[Ident]) -> String {
    let joined = variable.iter().map(|i| i.value.as_str()).collect::<Vec<_>>().join(".");
    shown_name(&joined).to_owned()
}

fn text_column(name: &str) -> ResultColumn {
    ResultColumn::new(Arc::new(Field::new(name, DataType::Utf8, true)))
}

pub(super) fn describe_show(
    ctx: &StatementContext<'_>,
    variable: &[Ident],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let name = variable_name(variable);
    let columns = if name.eq_ignore_ascii_case("all") {
        ["name", "setting", "description"].map(text_column).to_vec()
    } else {
        vec![text_column(&ctx.settings.show(&name)?.0)]
    };
    Ok((Vec::new(), Some(columns)))
}

pub(super) fn show(ctx: &StatementContext<'_>, variable: &[Ident]) -> Result<Outcome> {
    let (_, columns) = describe_show(ctx, variable)?;
    let columns = columns.unwrap_or_default();
    let name = variable_name(variable);
    let arrays: Vec<ArrayRef> = if name.eq_ignore_ascii_case("all") {
        let all: Vec<_> = ctx.settings.all().collect();
        vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|s| s.0))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|s| &s.1))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|s| s.2))),
        ]
    } else {
        vec![Arc::new(StringArray::from(vec![ctx.settings.show(&name)?.1]))]
    };
    let schema = run::schema_of(&columns);
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    Ok(Outcome::Rows { columns, stream: run::rows(schema, vec![batch]), tag: RowsTag::Show })
}
