//! `CALL procedure(…)`.

use sqlparser::tokenizer::Token;

use super::ast::{Call, CallArgument, Statement};
use super::cursor::{Cursor, Parsed};

const MAX_ARGUMENTS: usize = 32;

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if !c.eat(&["CALL"]) {
        return Ok(None);
    }
    let procedure = c.name()?;
    let mut arguments = Vec::new();
    c.expect_token(&Token::LParen)?;
    while *c.token(0) != Token::RParen {
        if !arguments.is_empty() {
            c.expect_token(&Token::Comma)?;
        }
        if arguments.len() == MAX_ARGUMENTS {
            return Err(c.unexpected("\")\""));
        }
        let named = matches!((c.token(0), c.token(1)), (Token::Word(_), Token::RArrow));
        let name = if named { Some(c.ident()?) } else { None };
        if named {
            c.expect_token(&Token::RArrow)?;
        }
        arguments.push(CallArgument { name, value: c.expr()? });
    }
    c.expect_token(&Token::RParen)?;
    Ok(Some(Statement::Call(Call { procedure, arguments })))
}
