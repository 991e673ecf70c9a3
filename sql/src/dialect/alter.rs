use sqlparser::tokenizer::Token;

use super::alter_table;
use super::ast::*;
use super::create::{connection_options, secret_from};
use super::cursor::{Cursor, Parsed};
use super::errors::refused;
use super::options::Options;

/// ALTER, COMMENT ON, VALIDATE and DROP.
pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if c.is_at(0, "DROP") {
        return drop(c);
    }
    if c.sees(&["VALIDATE", "CONNECTION"]) {
        c.advance();
        c.advance();
        return Ok(Some(Statement::ValidateConnection(c.bare_name()?)));
    }
    if c.sees(&["COMMENT", "ON"]) && (c.is_at(2, "TABLE") || c.is_at(2, "COLUMN")) {
        c.advance();
        c.advance();
        return alter_table::comment(c);
    }
    if !c.is_at(0, "ALTER") {
        return Ok(None);
    }
    let statement = if c.is_at(1, "SECRET") {
        c.secret = true;
        c.advance();
        c.advance();
        let name = c.bare_name()?;
        Statement::AlterSecret(AlterSecret { name, from: secret_from(c)? })
    } else if c.is_at(1, "CONNECTION") {
        c.secret = true;
        c.advance();
        c.advance();
        let name = c.bare_name()?;
        let (mut set, mut reset) = (Options::default(), Vec::new());
        if c.eat(&["SET"]) {
            set = connection_options(c)?;
        } else if c.eat(&["RESET"]) {
            reset = names(c)?;
        } else {
            return Err(c.unexpected("SET or RESET"));
        }
        Statement::AlterConnection(AlterConnection { name, set, reset })
    } else if c.is_at(1, "FLOW") {
        c.advance();
        c.advance();
        flow(c, ObjectKind::Flow)?
    } else if c.is_at(1, "STREAMING") && c.is_at(2, "TABLE") {
        c.advance();
        c.advance();
        c.advance();
        flow(c, ObjectKind::StreamingTable)?
    } else if c.is_at(1, "TABLE") {
        c.advance();
        c.advance();
        alter_table::alter(c)?
    } else if c.is_at(1, "STREAM") {
        return Err(c.fail(refused(
            "ALTER STREAM is not supported yet",
            "Say CREATE OR REPLACE STREAM; the topic is not touched by it.",
        )));
    } else {
        return Ok(None);
    };
    Ok(Some(statement))
}

fn flow(c: &mut Cursor<'_>, kind: ObjectKind) -> Parsed<Statement> {
    let if_exists = c.eat(&["IF", "EXISTS"]);
    let name = c.name()?;
    let action = if c.eat(&["PAUSE"]) || c.eat(&["SUSPEND"]) {
        AlterFlowAction::Pause
    } else if c.eat(&["RESUME"]) {
        AlterFlowAction::Resume
    } else if c.eat(&["SET"]) {
        AlterFlowAction::Set(Options::parse(c)?)
    } else if c.eat(&["RESET"]) {
        AlterFlowAction::Reset(names(c)?)
    } else if kind == ObjectKind::StreamingTable
        && ["ADD", "RENAME", "ALTER", "DROP", "REPLACE"].iter().any(|w| c.is_at(0, w))
    {
        return Err(c.fail(refused(
            "changing the columns, partitions or constraints of a streaming table is not supported yet",
            "Create a new streaming table with the changed query.",
        )));
    } else {
        return Err(c.unexpected("PAUSE, RESUME, SET or RESET"));
    };
    Ok(Statement::AlterFlow(AlterFlow { kind, if_exists, name, action }))
}

fn names(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    c.expect_token(&Token::LParen)?;
    let mut names = vec![c.ident()?];
    while c.eat_token(&Token::Comma) {
        names.push(c.ident()?);
        if names.len() > 256 {
            return Err(c.unexpected("\")\""));
        }
    }
    c.expect_token(&Token::RParen)?;
    Ok(names)
}

fn drop(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    let (kind, words) = if c.is_at(1, "SECRET") {
        (ObjectKind::Secret, 2)
    } else if c.is_at(1, "CONNECTION") {
        (ObjectKind::Connection, 2)
    } else if c.is_at(1, "CATALOG") {
        (ObjectKind::Catalog, 2)
    } else if c.is_at(1, "STREAM") {
        (ObjectKind::Stream, 2)
    } else if c.is_at(1, "STREAMING") && c.is_at(2, "TABLE") {
        (ObjectKind::StreamingTable, 3)
    } else if c.is_at(1, "FLOW") {
        (ObjectKind::Flow, 2)
    } else if c.is_at(1, "TABLE") {
        (ObjectKind::Table, 2)
    } else if c.is_at(1, "SCHEMA") {
        (ObjectKind::Schema, 2)
    } else {
        return Ok(None);
    };
    for _ in 0..words {
        c.advance();
    }
    let if_exists = c.eat(&["IF", "EXISTS"]);
    let bare = matches!(kind, ObjectKind::Secret | ObjectKind::Connection | ObjectKind::Catalog);
    let mut dropped = vec![if bare { c.bare_name()? } else { c.name()? }];
    while c.eat_token(&Token::Comma) {
        dropped.push(if bare { c.bare_name()? } else { c.name()? });
        if dropped.len() > 1000 {
            return Err(c.unexpected("fewer names"));
        }
    }
    let keep_data = kind == ObjectKind::StreamingTable && c.eat(&["KEEP", "DATA"]);
    let cascade = c.eat(&["CASCADE"]);
    if !cascade {
        c.eat(&["RESTRICT"]);
    }
    Ok(Some(Statement::Drop(Drop { kind, if_exists, names: dropped, cascade, keep_data })))
}
