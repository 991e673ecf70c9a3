//! `ALTER TABLE t { CREATE | REPLACE | DROP } { BRANCH | TAG } …`, as Spark's extensions for Iceberg write it.

use sqlparser::tokenizer::Token;
use tidewater_catalogs::{Existing, ReferenceChange, ReferenceKind, Retention};

use super::ast::{AlterReference, Statement};
use super::cursor::{Cursor, Parsed};

const UNITS: [(&str, &str, i64); 3] =
    [("DAY", "DAYS", 86_400_000), ("HOUR", "HOURS", 3_600_000), ("MINUTE", "MINUTES", 60_000)];

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if !is_ours(c) {
        return Ok(None);
    }
    c.expect(&["ALTER", "TABLE"])?;
    let if_exists = c.eat(&["IF", "EXISTS"]);
    let table = c.name()?;
    let drop = c.eat(&["DROP"]);
    let existing = if drop {
        Existing::Required
    } else if c.eat(&["CREATE", "OR", "REPLACE"]) {
        Existing::Replaced
    } else if c.eat(&["REPLACE"]) {
        Existing::Required
    } else {
        c.expect(&["CREATE"])?;
        Existing::Refused
    };
    let kind = if c.eat(&["BRANCH"]) { ReferenceKind::Branch } else { ReferenceKind::Tag };
    if kind == ReferenceKind::Tag {
        c.expect(&["TAG"])?;
    }
    let change = if drop {
        let if_exists = c.eat(&["IF", "EXISTS"]);
        ReferenceChange::Drop { kind, name: name(c)?, if_exists }
    } else {
        create(c, kind, existing)?
    };
    Ok(Some(Statement::AlterReference(AlterReference { if_exists, table, change })))
}

/// `ALTER TABLE t DROP branch` drops a column of that name, so a name has to follow.
fn is_ours(c: &Cursor<'_>) -> bool {
    if !c.sees(&["ALTER", "TABLE"]) {
        return false;
    }
    let mut n = if c.sees_at(2, &["IF", "EXISTS"]) { 5 } else { 3 };
    while *c.token(n) == Token::Period {
        n += 2;
    }
    let n = match () {
        () if c.sees_at(n, &["CREATE", "OR", "REPLACE"]) => n + 3,
        () if ["CREATE", "REPLACE", "DROP"].iter().any(|word| c.is_at(n, word)) => n + 1,
        () => return false,
    };
    let kind = c.is_at(n, "BRANCH") || c.is_at(n, "TAG");
    kind && matches!(c.token(n + 1), Token::Word(_)) && !c.is_at(n + 1, "CASCADE") && !c.is_at(n + 1, "RESTRICT")
}

fn create(c: &mut Cursor<'_>, kind: ReferenceKind, existing: Existing) -> Parsed<ReferenceChange> {
    let existing = match existing {
        Existing::Refused if c.eat(&["IF", "NOT", "EXISTS"]) => Existing::Kept,
        other => other,
    };
    let name = name(c)?;
    let snapshot = if c.eat(&["AS", "OF", "VERSION"]) { Some(number(c)?) } else { None };
    let mut retention = Retention::default();
    if c.eat(&["RETAIN"]) {
        retention.max_age_ms = Some(duration(c)?);
    }
    if kind == ReferenceKind::Branch && c.eat(&["WITH", "SNAPSHOT", "RETENTION"]) {
        let counted = c.is_at(1, "SNAPSHOTS") || c.is_at(1, "SNAPSHOT");
        if counted {
            let count = number(c)?;
            let count = i32::try_from(count).ok().filter(|n| *n > 0);
            retention.min_snapshots_to_keep = Some(count.ok_or_else(|| c.unexpected("a smaller number"))?);
            c.advance();
        }
        if !counted || matches!(c.token(0), Token::Number(..)) {
            retention.max_snapshot_age_ms = Some(duration(c)?);
        }
    }
    Ok(ReferenceChange::Create { kind, name, snapshot, retention, existing })
}

fn name(c: &mut Cursor<'_>) -> Parsed<String> {
    match c.bare_name()?.last() {
        "" => Err(c.unexpected("a name before it")),
        name => Ok(name.to_owned()),
    }
}

fn number(c: &mut Cursor<'_>) -> Parsed<i64> {
    let Token::Number(digits, _) = c.token(0) else { return Err(c.unexpected("a number")) };
    let Ok(number) = digits.parse::<i64>() else { return Err(c.unexpected("an integer")) };
    c.advance();
    Ok(number)
}

/// In milliseconds; not zero.
fn duration(c: &mut Cursor<'_>) -> Parsed<i64> {
    let count = number(c)?;
    let unit = UNITS.iter().find(|(one, many, _)| c.is_at(0, one) || c.is_at(0, many));
    let Some((_, _, ms)) = unit else { return Err(c.unexpected("DAYS, HOURS or MINUTES")) };
    let Some(duration) = count.checked_mul(*ms).filter(|ms| *ms > 0) else {
        return Err(c.unexpected("another duration"));
    };
    c.advance();
    Ok(duration)
}
