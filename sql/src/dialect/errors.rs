use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, TokenizerError};

use super::text;
use crate::{SqlError, SqlState};

pub(crate) const SYNTAX: SqlState = SqlState("42601");
pub(crate) const UNSUPPORTED: SqlState = SqlState("0A000");
pub(crate) const BAD_VALUE: SqlState = SqlState("22023");

pub(crate) fn error(state: SqlState, message: impl Into<String>) -> SqlError {
    SqlError::new(state, message)
}

pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> SqlError {
    SqlError { hint: Some(hint.into()), ..error(UNSUPPORTED, message) }
}

pub(crate) fn bad_value(message: impl Into<String>, hint: impl Into<String>) -> SqlError {
    SqlError { hint: Some(hint.into()), ..error(BAD_VALUE, message) }
}

/// An error with the place it was found at, before the statement's offset in the whole text is known.
pub(crate) struct At {
    pub error: SqlError,
    pub location: Option<Location>,
}

impl At {
    pub fn new(error: SqlError, location: Location) -> Box<Self> {
        Box::new(Self { error, location: Some(location) })
    }
}

impl From<SqlError> for Box<At> {
    fn from(error: SqlError) -> Self {
        Box::new(At { error, location: None })
    }
}

/// `syntax error at or near "x"`. A string is not repeated where it may be a secret.
pub(crate) fn syntax_error(source: &str, token: &TokenWithSpan, expected: &str, secret: bool) -> Box<At> {
    let mut error = if token.token == Token::EOF {
        error(SYNTAX, "syntax error at end of input")
    } else if secret && !matches!(token.token, Token::Word(_)) {
        error(SYNTAX, "syntax error")
    } else {
        error(SYNTAX, format!("syntax error at or near \"{}\"", text::slice(source, token.span)))
    };
    if !expected.is_empty() {
        error.detail = Some(format!("Expected {expected}."));
    }
    let location = if token.token == Token::EOF { end_of(source) } else { token.span.start };
    At::new(error, location)
}

/// What sqlparser says, in PostgreSQL's words. Its place is only in the text of the message.
pub(crate) fn from_parser(e: ParserError, source: &str, tokens: &[TokenWithSpan], secret: bool) -> Box<At> {
    let message = match e {
        ParserError::RecursionLimitExceeded => {
            let mut e = error(SqlState("54001"), "statement too complex");
            e.hint = Some("Nest expressions and subqueries less deeply.".into());
            return e.into();
        }
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
    };
    let (message, location) = split_location(&message);
    let found = location.and_then(|l| tokens.iter().find(|t| t.span.start == l));
    let expected = message.strip_prefix("Expected: ").and_then(|m| m.split(", found: ").next());
    match (expected, found) {
        (Some(expected), Some(token)) => syntax_error(source, token, expected, secret),
        (Some(expected), None) => syntax_error(source, &TokenWithSpan::new_eof(), expected, secret),
        (None, found) => {
            let mut e = error(SYNTAX, "syntax error");
            if !secret {
                e.detail = Some(format!("{}.", message.trim_end_matches('.')));
            }
            Box::new(At { error: e, location: found.map(|t| t.span.start) })
        }
    }
}

/// Errors of the tokenizer repeat none of the text: it may hold a secret.
pub(crate) fn from_tokenizer(e: TokenizerError) -> Box<At> {
    let message = if e.message.contains("comment") {
        "unterminated /* comment"
    } else if e.message.contains("dollar") {
        "unterminated dollar-quoted string"
    } else if e.message.contains("close delimiter") {
        "unterminated quoted identifier"
    } else if e.message.contains("nterminated") {
        "unterminated quoted string"
    } else {
        return Box::new(At {
            error: SqlError { detail: Some(format!("{}.", e.message)), ..error(SYNTAX, "syntax error") },
            location: Some(e.location),
        });
    };
    At::new(error(SYNTAX, message), e.location)
}

fn end_of(source: &str) -> Location {
    let line = source.matches('\n').count() as u64 + 1;
    let column = source.rsplit('\n').next().unwrap_or("").chars().count() as u64 + 1;
    Location::new(line, column)
}

fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((head, tail)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let parsed = tail
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?)));
    match parsed {
        Some(location) => (head, Some(location)),
        None => (message, None),
    }
}
