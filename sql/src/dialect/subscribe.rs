//! `SUBSCRIBE (SELECT … FROM STREAM s) [FROM …] [UNTIL …]`, and `COPY (…) TO STDOUT`.

use sqlparser::tokenizer::Token;

use super::ast::*;
use super::cursor::{Cursor, Parsed};
use super::errors::{bad_value, refused};
use super::stream_options::offsets;

const OFFSETS_HINT: &str = "Offsets are JSON, one per partition: '{\"0\": 17, \"1\": 4}'.";

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if c.is_at(0, "SUBSCRIBE") {
        return subscribe(c).map(|s| Some(Statement::Subscribe(Box::new(s))));
    }
    if c.is_at(0, "COPY") && *c.token(1) == Token::LParen {
        return copy(c).map(Some);
    }
    Ok(None)
}

fn subscribe(c: &mut Cursor<'_>) -> Parsed<Subscribe> {
    c.advance();
    c.eat(&["TO"]);
    if *c.token(0) != Token::LParen {
        let mut at = c.unexpected("\"(\"");
        at.error.hint = Some("Write SUBSCRIBE (SELECT … FROM STREAM name).".to_owned());
        return Err(at);
    }
    c.advance();
    let query = c.query()?;
    c.expect_token(&Token::RParen)?;
    if c.is_at(0, "ENVELOPE") {
        return Err(
            c.fail(refused("ENVELOPE is not supported yet", "Leave it out: a stream only grows, so each row is new."))
        );
    }
    let mut from = SubscribeFrom::Now;
    if c.eat(&["FROM"]) {
        from = if c.eat(&["NOW"]) {
            SubscribeFrom::Now
        } else if c.eat(&["SNAPSHOT"]) {
            SubscribeFrom::Snapshot
        } else if c.is_at(0, "OFFSETS") {
            SubscribeFrom::Offsets(offset_vector(c)?)
        } else {
            return Err(c.unexpected("NOW, SNAPSHOT or OFFSETS"));
        };
    }
    let mut until = None;
    if c.eat(&["UNTIL"]) {
        until = Some(if c.is_at(0, "OFFSETS") {
            SubscribeUntil::Offsets(offset_vector(c)?)
        } else if c.eat(&["LIMIT"]) {
            SubscribeUntil::Limit(count(c)?)
        } else if c.is_at(0, "TIMESTAMP") {
            return Err(c.fail(refused(
                "UNTIL TIMESTAMP is not supported yet",
                "Use UNTIL OFFSETS or UNTIL LIMIT; a bounded SELECT takes WHERE _timestamp < ….",
            )));
        } else {
            return Err(c.unexpected("OFFSETS or LIMIT"));
        });
    }
    Ok(Subscribe { query, from, until })
}

fn offset_vector(c: &mut Cursor<'_>) -> Parsed<tidewater_catalogs::Offsets> {
    c.expect(&["OFFSETS"])?;
    let location = c.location();
    let text = c.string()?;
    offsets(&text).ok_or_else(|| {
        super::errors::At::new(bad_value(format!("invalid offsets: \"{text}\""), OFFSETS_HINT), location)
    })
}

fn count(c: &mut Cursor<'_>) -> Parsed<u64> {
    let number = match c.token(0) {
        Token::Number(text, _) => text.parse().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| c.unexpected("a number of rows"))?;
    c.advance();
    Ok(number)
}

fn copy(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance();
    c.advance();
    let inner = if c.is_at(0, "SUBSCRIBE") {
        Statement::Subscribe(Box::new(subscribe(c)?))
    } else {
        Statement::Sql(Box::new(sqlparser::ast::Statement::Query(c.query()?)))
    };
    c.expect_token(&Token::RParen)?;
    if !c.eat(&["TO", "STDOUT"]) {
        return Err(c.fail(refused(
            "COPY of a query to anything but STDOUT is not supported",
            "Write COPY (…) TO STDOUT; \\copy in psql writes a file.",
        )));
    }
    // The parser of COPY was handed a semicolon behind it.
    c.eat_token(&Token::SemiColon);
    if !c.at_end() {
        return Err(c.fail(refused(
            "options of COPY are not supported yet",
            "Leave them out: the format is PostgreSQL's text format.",
        )));
    }
    Ok(Statement::CopyOut(Box::new(inner)))
}
