//! OPTIMIZE, VACUUM and ANALYZE.

use sqlparser::tokenizer::Token;
use tidewater_catalogs::RowOrder;

use super::ast::{Analyze, Optimize, RetainFor, Statement, Vacuum};
use super::cursor::{Cursor, Parsed};
use super::errors::{bad_value, refused};
use super::write_order::{curve_columns, sort_fields};

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if c.is_at(0, "OPTIMIZE") {
        optimize(c).map(Some)
    } else if c.is_at(0, "VACUUM") {
        vacuum(c).map(Some)
    } else if c.is_at(0, "ANALYZE") || c.is_at(0, "ANALYSE") {
        analyze(c).map(Some)
    } else {
        Ok(None)
    }
}

/// `OPTIMIZE table [WHERE …] [ORDER BY (…) | ZORDER BY (…)] [DRY RUN]`.
fn optimize(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance();
    c.eat(&["TABLE"]);
    let name = c.name()?;
    let filter = if c.eat(&["WHERE"]) { Some(c.expr()?) } else { None };
    let order = if c.eat(&["ORDER", "BY"]) || c.eat(&["SORT", "BY"]) {
        Some(RowOrder::By(sort_fields(c)?))
    } else if c.eat(&["ZORDER", "BY"]) {
        Some(RowOrder::Curve(curve_columns(c)?))
    } else {
        None
    };
    Ok(Statement::Optimize(Box::new(Optimize { name, filter, order, dry_run: c.eat(&["DRY", "RUN"]) })))
}

/// `ANALYZE table [(column, …)]`.
fn analyze(c: &mut Cursor<'_>) -> Parsed<Statement> {
    /// Most columns in one list.
    const MOST: usize = 2000;
    c.advance();
    c.eat(&["VERBOSE"]);
    if c.at_end() || *c.token(0) == Token::LParen {
        return Err(
            c.fail(refused("this form of ANALYZE is not supported", "Name one table: ANALYZE table [(column, …)]."))
        );
    }
    c.eat(&["TABLE"]);
    let name = c.name()?;
    let mut columns = Vec::new();
    if c.eat_token(&Token::LParen) {
        loop {
            columns.push(c.ident()?);
            if columns.len() == MOST || !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
    }
    Ok(Statement::Analyze(Analyze { name, columns }))
}

/// `VACUUM table [RETAIN '7 days' | RETAIN n {SNAPSHOTS | HOURS}] [DRY RUN]`.
fn vacuum(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance();
    let options = ["FULL", "FREEZE", "VERBOSE", "ANALYZE"].iter().any(|word| c.is_at(0, word));
    if c.at_end()
        || *c.token(0) == Token::LParen
        || options && (c.at_end() || matches!(c.token(1), Token::Word(_) | Token::EOF))
    {
        return Err(c.fail(refused(
            "this form of VACUUM is not supported",
            "Name one table: VACUUM table [RETAIN '7 days'] removes snapshots and files that are too old.",
        )));
    }
    c.eat(&["TABLE"]);
    let name = c.name()?;
    let mut retain = None;
    if c.eat(&["RETAIN"]) {
        retain = Some(match c.token(0).clone() {
            Token::Number(n, _) => {
                let number = n.parse::<u32>().map_err(|_| {
                    c.fail(bad_value("RETAIN needs a whole number", "Write RETAIN 100 SNAPSHOTS or RETAIN '7 days'."))
                })?;
                c.advance();
                if c.eat(&["SNAPSHOTS"]) {
                    RetainFor::Snapshots(number.into())
                } else if c.eat(&["HOURS"]) {
                    RetainFor::Age(format!("{number} hours"))
                } else {
                    return Err(c.unexpected("SNAPSHOTS or HOURS"));
                }
            }
            _ => {
                c.eat(&["INTERVAL"]);
                RetainFor::Age(c.string()?)
            }
        });
    }
    Ok(Statement::Vacuum(Vacuum { name, retain, dry_run: c.eat(&["DRY", "RUN"]) }))
}
