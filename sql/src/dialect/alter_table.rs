//! ALTER TABLE, in Spark's words where PostgreSQL has none, and COMMENT ON.

use std::collections::BTreeMap;

use sqlparser::ast::Expr;
use sqlparser::tokenizer::Token;
use tidewater_catalogs::{AddColumn, Alteration, ColumnPlace, NamedPartition, PartitionField, PartitionRef, Transform};

use super::ast::*;
use super::create::{check_key, partition_field, properties};
use super::cursor::{Cursor, Parsed};
use super::errors::{At, refused};
use super::types::arrow_type;
use super::write_order::write_order;

/// Most alterations in one statement.
const MAX_ALTERATIONS: usize = 1000;

/// Behind `ALTER TABLE`.
pub(super) fn alter(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let if_exists = c.eat(&["IF", "EXISTS"]);
    c.eat(&["ONLY"]);
    let name = c.name()?;
    let (mut alterations, mut defaults) = (Vec::new(), Vec::new());
    loop {
        action(c, &mut alterations, &mut defaults)?;
        if alterations.len() > MAX_ALTERATIONS {
            return Err(c.unexpected("fewer alterations"));
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    Ok(Statement::AlterTable(Box::new(AlterTable { tag: "ALTER TABLE", if_exists, name, alterations, defaults })))
}

/// Behind `COMMENT ON`. None where the object is not a table or a column of one.
pub(super) fn comment(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    let column = if c.eat(&["COLUMN"]) {
        true
    } else if c.eat(&["TABLE"]) {
        false
    } else {
        return Ok(None);
    };
    let mut parts = path(c)?;
    let column = if column { parts.pop() } else { None };
    if parts.is_empty() || parts.len() > 3 {
        return Err(c.fail(super::errors::error(super::errors::SYNTAX, "improper qualified name")));
    }
    c.expect(&["IS"])?;
    let comment = text_or_null(c)?;
    let alteration = match (column, comment) {
        (Some(column), comment) => Alteration::CommentColumn { path: vec![column], comment },
        (None, Some(comment)) => Alteration::SetProperties(BTreeMap::from([("comment".to_owned(), comment)])),
        (None, None) => Alteration::ResetProperties(vec!["comment".to_owned()]),
    };
    let (alterations, defaults) = (vec![alteration], Vec::new());
    let alter = AlterTable { tag: "COMMENT", if_exists: false, name: Name(parts), alterations, defaults };
    Ok(Some(Statement::AlterTable(Box::new(alter))))
}

fn text_or_null(c: &mut Cursor<'_>) -> Parsed<Option<String>> {
    Ok(if c.eat(&["NULL"]) { None } else { Some(c.string()?) })
}

fn path(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    let mut path = vec![c.ident()?];
    while c.eat_token(&Token::Period) {
        path.push(c.ident()?);
    }
    Ok(path)
}

fn action(c: &mut Cursor<'_>, out: &mut Vec<Alteration>, defaults: &mut Vec<(usize, Expr)>) -> Parsed<()> {
    refuse(c)?;
    if c.eat(&["ADD", "PARTITION", "FIELD"]) {
        out.push(Alteration::AddPartition(named_partition(c)?));
    } else if c.eat(&["DROP", "PARTITION", "FIELD"]) {
        out.push(Alteration::DropPartition(partition_ref(c)?));
    } else if c.eat(&["REPLACE", "PARTITION", "FIELD"]) {
        let old = partition_ref(c)?;
        c.expect(&["WITH"])?;
        out.push(Alteration::ReplacePartition { old, new: named_partition(c)? });
    } else if c.eat(&["ADD", "COLUMNS"]) {
        c.expect_token(&Token::LParen)?;
        loop {
            let (column, default) = add_column(c)?;
            defaults.extend(default.map(|default| (out.len(), default)));
            out.push(column);
            if out.len() > MAX_ALTERATIONS || !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
    } else if c.eat(&["ADD"]) {
        c.eat(&["COLUMN"]);
        let (column, default) = add_column(c)?;
        defaults.extend(default.map(|default| (out.len(), default)));
        out.push(column);
    } else if c.eat(&["DROP"]) {
        c.eat(&["COLUMN"]);
        let if_exists = c.eat(&["IF", "EXISTS"]);
        out.push(Alteration::DropColumn { path: path(c)?, if_exists });
        if !c.eat(&["CASCADE"]) {
            c.eat(&["RESTRICT"]);
        }
    } else if c.eat(&["RENAME"]) {
        c.eat(&["COLUMN"]);
        let path = path(c)?;
        c.expect(&["TO"])?;
        out.push(Alteration::RenameColumn { path, to: c.ident()? });
    } else if c.eat(&["ALTER"]) {
        c.eat(&["COLUMN"]);
        let path = path(c)?;
        if c.sees(&["SET", "DEFAULT"]) {
            c.expect(&["SET"])?;
            defaults.push((out.len(), c.default_value()?));
            out.push(Alteration::ChangeDefault { path, default: None });
        } else {
            out.push(alter_column(c, path)?);
        }
    } else if c.eat(&["SET", "TBLPROPERTIES"]) {
        out.push(Alteration::SetProperties(properties(c)?.into_iter().collect()));
    } else if c.eat(&["WRITE"]) {
        out.extend(write_order(c)?.alterations());
    } else if c.eat(&["UNSET", "TBLPROPERTIES"]) {
        c.eat(&["IF", "EXISTS"]);
        out.push(Alteration::ResetProperties(keys(c)?));
    } else {
        return Err(c.unexpected("ADD, DROP, RENAME, ALTER, REPLACE, WRITE, SET TBLPROPERTIES or UNSET TBLPROPERTIES"));
    }
    Ok(())
}

/// What PostgreSQL and Spark say here, and is not done.
fn refuse(c: &Cursor<'_>) -> Parsed<()> {
    let constraint = ["CONSTRAINT", "CHECK", "UNIQUE", "FOREIGN", "EXCLUDE"];
    let (what, hint) = if c.sees(&["RENAME", "TO"]) {
        ("renaming a table", "CREATE TABLE new AS SELECT * FROM old, then DROP TABLE old.")
    } else if (c.is_at(0, "ADD") || c.is_at(0, "DROP") || c.is_at(0, "VALIDATE"))
        && (constraint.iter().any(|word| c.is_at(1, word)) || c.sees_at(1, &["PRIMARY", "KEY"]))
    {
        ("a constraint other than NOT NULL", "Iceberg tables do not enforce keys; leave the constraint out.")
    } else if c.is_at(0, "OWNER") || c.sees(&["SET", "SCHEMA"]) {
        ("this form of ALTER TABLE", "Tables have no owners; they stay in the schema that they were made in.")
    } else if c.is_at(0, "CLUSTER") {
        ("CLUSTER BY", "Write ALTER TABLE … WRITE ORDERED BY (column, …).")
    } else if c.is_at(0, "SET") && c.is_at(1, "IDENTIFIER") {
        ("SET IDENTIFIER FIELDS", "Iceberg tables do not enforce keys; leave it out.")
    } else if c.is_at(0, "SET") && matches!(c.token(1), Token::LParen)
        || c.is_at(0, "RESET")
        || c.sees(&["SET", "PROPERTIES"])
    {
        ("this form of ALTER TABLE", "Properties of Iceberg are set with SET TBLPROPERTIES ('name' = 'value').")
    } else {
        return Ok(());
    };
    Err(c.fail(refused(format!("{what} is not supported yet"), hint)))
}

fn add_column(c: &mut Cursor<'_>) -> Parsed<(Alteration, Option<Expr>)> {
    let if_not_exists = c.eat(&["IF", "NOT", "EXISTS"]);
    let path = path(c)?;
    let location = c.location();
    let data_type = arrow_type(&c.data_type()?).map_err(|e| At::new(e, location))?;
    let (default, required, comment, place) = (None, false, None, None);
    let mut add = AddColumn { path, data_type, default, required, comment, place, if_not_exists };
    let mut default = None;
    loop {
        if !add.required && c.eat(&["NOT", "NULL"]) {
            add.required = true;
        } else if default.is_none() && c.is_at(0, "DEFAULT") {
            default = Some(c.default_value()?);
        } else if ["GENERATED", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "CONSTRAINT"].iter().any(|w| c.is_at(0, w))
        {
            return Err(c.fail(refused(
                "constraints and generated columns of a table are not supported yet",
                "Leave the clause out.",
            )));
        } else if add.comment.is_none() && c.eat(&["COMMENT"]) {
            add.comment = Some(c.string()?);
        } else if add.place.is_none()
            && let Some(place) = self::place(c)?
        {
            add.place = Some(place);
        } else if add.required || !c.eat(&["NULL"]) {
            if add.required && default.is_none() {
                return Err(c.fail(refused(
                    "ADD COLUMN … NOT NULL without DEFAULT is not supported",
                    "The rows that are there have no value for it: add the column, UPDATE the rows, then ALTER COLUMN \
                     … SET NOT NULL.",
                )));
            }
            return Ok((Alteration::AddColumn(add), default));
        }
    }
}

fn place(c: &mut Cursor<'_>) -> Parsed<Option<ColumnPlace>> {
    Ok(if c.eat(&["FIRST"]) {
        Some(ColumnPlace::First)
    } else if c.eat(&["AFTER"]) {
        Some(ColumnPlace::After(c.ident()?))
    } else {
        None
    })
}

fn alter_column(c: &mut Cursor<'_>, path: Vec<String>) -> Parsed<Alteration> {
    if c.eat(&["SET", "DATA", "TYPE"]) || c.eat(&["TYPE"]) {
        let location = c.location();
        let to = arrow_type(&c.data_type()?).map_err(|e| At::new(e, location))?;
        if c.is_at(0, "USING") || c.is_at(0, "COLLATE") {
            return Err(c.fail(refused(
                "USING and COLLATE of ALTER COLUMN … TYPE are not supported",
                "Files keep the old type; CREATE TABLE new AS SELECT … writes them anew.",
            )));
        }
        return Ok(Alteration::ChangeType { path, to });
    }
    if c.eat(&["SET", "NOT", "NULL"]) {
        return Ok(Alteration::ChangeNull { path, nullable: false });
    }
    if c.eat(&["DROP", "NOT", "NULL"]) {
        return Ok(Alteration::ChangeNull { path, nullable: true });
    }
    if c.eat(&["COMMENT"]) {
        return Ok(Alteration::CommentColumn { path, comment: text_or_null(c)? });
    }
    if let Some(place) = place(c)? {
        return Ok(Alteration::MoveColumn { path, place });
    }
    if c.eat(&["DROP", "DEFAULT"]) {
        return Ok(Alteration::ChangeDefault { path, default: None });
    }
    Err(c.unexpected("TYPE, SET NOT NULL, DROP NOT NULL, SET DEFAULT, DROP DEFAULT, COMMENT, FIRST or AFTER"))
}

fn named_partition(c: &mut Cursor<'_>) -> Parsed<NamedPartition> {
    let field = partition_field(c)?;
    let name = if c.eat(&["AS"]) { Some(c.ident()?) } else { None };
    Ok(NamedPartition { field, name })
}

fn partition_ref(c: &mut Cursor<'_>) -> Parsed<PartitionRef> {
    Ok(match partition_field(c)? {
        PartitionField { column, transform: Transform::Identity } => PartitionRef::Name(column),
        field => PartitionRef::Field(field),
    })
}

fn keys(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    c.expect_token(&Token::LParen)?;
    let mut keys = Vec::new();
    loop {
        let location = c.location();
        let key = c.string()?;
        check_key(&key, location)?;
        keys.push(key);
        if keys.len() > MAX_ALTERATIONS || !c.eat_token(&Token::Comma) {
            break;
        }
    }
    c.expect_token(&Token::RParen)?;
    Ok(keys)
}
