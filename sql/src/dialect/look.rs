use sqlparser::tokenizer::Token;

use super::ast::*;
use super::cursor::{Cursor, Parsed};
use super::errors::{BAD_VALUE, error, refused};
use super::options::{Options, list};
use super::split;

/// SHOW, DESCRIBE and EXPLAIN.
pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if c.is_at(0, "SHOW") {
        return show(c);
    }
    if c.is_at(0, "DESCRIBE") || c.is_at(0, "DESC") {
        return describe(c).map(Some);
    }
    if c.is_at(0, "EXPLAIN") {
        c.advance();
        return explain(c).map(Some);
    }
    Ok(None)
}

fn show(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if c.sees(&["SHOW", "CREATE"]) {
        c.advance();
        c.advance();
        let kind = kind(c, &ALL_KINDS[..7])
            .ok_or_else(|| c.unexpected("STREAM, STREAMING TABLE, FLOW, TABLE, CONNECTION, CATALOG or SECRET"))?;
        let name = c.name()?;
        if c.sees(&["AS", "YAML"]) {
            return Err(c.fail(refused("AS YAML is not supported yet", "Leave it out to see the statement.")));
        }
        return Ok(Some(Statement::ShowCreate(ShowCreate { kind, name })));
    }
    let (what, words) = if c.is_at(1, "STREAMS") {
        (ShowWhat::Streams, 2)
    } else if c.is_at(1, "STREAMING") && c.is_at(2, "TABLES") {
        (ShowWhat::StreamingTables, 3)
    } else if c.is_at(1, "FLOWS") {
        (ShowWhat::Flows, 2)
    } else if c.is_at(1, "CONNECTIONS") {
        (ShowWhat::Connections, 2)
    } else if c.is_at(1, "SECRETS") {
        (ShowWhat::Secrets, 2)
    } else if c.is_at(1, "CATALOGS") || c.is_at(1, "DATABASES") {
        (ShowWhat::Catalogs, 2)
    } else if c.is_at(1, "SCHEMAS") {
        (ShowWhat::Schemas, 2)
    } else if c.is_at(1, "TABLES") {
        (ShowWhat::Tables, 2)
    } else {
        return Ok(None);
    };
    for _ in 0..words {
        c.advance();
    }
    let like = if c.eat(&["LIKE"]) { Some(c.string()?) } else { None };
    Ok(Some(Statement::Show(Show { what, like })))
}

const ALL_KINDS: [ObjectKind; 8] = [
    ObjectKind::StreamingTable,
    ObjectKind::Stream,
    ObjectKind::Flow,
    ObjectKind::Table,
    ObjectKind::Connection,
    ObjectKind::Catalog,
    ObjectKind::Secret,
    ObjectKind::Schema,
];

/// The kind that the statement names here, if a name follows it.
fn kind(c: &mut Cursor<'_>, kinds: &[ObjectKind]) -> Option<ObjectKind> {
    for kind in kinds {
        let words: Vec<&str> = kind.keyword().split(' ').collect();
        if c.sees(&words) && matches!(c.token(words.len()), Token::Word(_)) {
            c.eat(&words);
            return Some(*kind);
        }
    }
    None
}

fn describe(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance();
    if c.sees(&["STREAM", "INFERRED", "FROM"]) {
        c.eat(&["STREAM", "INFERRED", "FROM"]);
        c.expect(&["CONNECTION"])?;
        let connection = c.bare_name()?;
        c.expect(&["TOPIC"])?;
        let topic = c.string()?;
        let options = if c.eat(&["WITH"]) { Options::parse(c)? } else { Options::default() };
        return Ok(Statement::DescribeInferred(DescribeInferred { connection, topic, options }));
    }
    if c.is_at(0, "HISTORY") && matches!(c.token(1), Token::Word(_)) {
        return Err(c.fail(refused(
            "DESCRIBE HISTORY is not supported yet",
            "SELECT … FROM \"t$snapshots\" shows what was committed to t, and \"t$history\" what was current when.",
        )));
    }
    let extended = c.is_at(0, "EXTENDED") && matches!(c.token(1), Token::Word(_)) && c.eat(&["EXTENDED"]);
    let kind = kind(c, &ALL_KINDS);
    Ok(Statement::Describe(Describe { extended, kind, name: c.name()? }))
}

fn explain(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let mut e = Explain {
        analyze: false,
        verbose: false,
        dry_run: false,
        format: "text".to_string(),
        target: ExplainTarget::Flow(Name(Vec::new())),
    };
    // EXPLAIN (SELECT …) has no options.
    let query = ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|w| c.is_at(1, w));
    if matches!(c.token(0), Token::LParen) && !query && !matches!(c.token(1), Token::LParen) {
        c.advance();
        loop {
            explain_option(c, &mut e)?;
            if !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
    } else {
        e.analyze = c.eat(&["ANALYZE"]);
        e.verbose = c.eat(&["VERBOSE"]);
    }
    if c.is_at(0, "EXPLAIN") {
        return Err(c.unexpected("a statement"));
    }
    if c.is_at(0, "FLOW") && matches!(c.token(1), Token::Word(_)) {
        c.advance();
        e.target = ExplainTarget::Flow(c.name()?);
        if c.is_at(0, "FOR") {
            return Err(c.fail(refused("EXPLAIN ANALYZE FLOW … FOR is not supported yet", "See system.flows.")));
        }
        return Ok(Statement::Explain(e));
    }
    if c.sees(&["APPLY", "YAML"]) {
        return Err(c.fail(refused("APPLY YAML is not supported yet", "Write the statements in SQL.")));
    }
    e.target = ExplainTarget::Statement(Box::new(split::statement(c)?));
    Ok(Statement::Explain(e))
}

fn explain_option(c: &mut Cursor<'_>, e: &mut Explain) -> Parsed<()> {
    if c.eat(&["DRY", "RUN"]) {
        e.dry_run = true;
        return Ok(());
    }
    if c.is_at(0, "SAMPLE") {
        return Err(c.fail(refused("EXPLAIN (SAMPLE) is not supported yet", "Use EXPLAIN (DRY RUN).")));
    }
    let location = c.location();
    let option = c.ident()?;
    if option == "format" {
        let format = c.ident()?;
        let known = ["text", "json", "tree", "indent", "pgjson", "graphviz"];
        if !known.contains(&format.as_str()) {
            let mut err = error(BAD_VALUE, format!("unrecognized value for EXPLAIN option \"format\": \"{format}\""));
            err.hint = Some(format!("Use {}.", list(known.into_iter(), "or")));
            return Err(super::errors::At::new(err, location));
        }
        e.format = format;
        return Ok(());
    }
    let mut on = true;
    for (word, value) in [("TRUE", true), ("ON", true), ("FALSE", false), ("OFF", false)] {
        if c.eat(&[word]) {
            on = value;
            break;
        }
    }
    match option.as_str() {
        "analyze" => e.analyze = on,
        "verbose" => e.verbose = on,
        // PostgreSQL's, without a meaning here.
        "costs" | "settings" | "buffers" | "wal" | "timing" | "summary" | "generic_plan" | "memory" => {}
        _ => {
            let mut err = error(super::errors::SYNTAX, format!("unrecognized EXPLAIN option \"{option}\""));
            err.hint = Some("Use ANALYZE, VERBOSE, DRY RUN or FORMAT.".into());
            return Err(super::errors::At::new(err, location));
        }
    }
    Ok(())
}
