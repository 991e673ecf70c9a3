use sqlparser::tokenizer::Token;
use tidewater_catalogs::{PartitionField, Transform};

use super::ast::*;
use super::cursor::{Cursor, Parsed};
use super::errors::{BAD_VALUE, SYNTAX, error, refused};
use super::options::{OptionValue, Options};
use super::write_order::{WriteOrder, write_order};

/// Most columns in one list.
const MAX_COLUMNS: usize = 2000;

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if !c.is_at(0, "CREATE") {
        return Ok(None);
    }
    let or = c.is_at(1, "OR") && (c.is_at(2, "REPLACE") || c.is_at(2, "REFRESH"));
    let refresh = or && c.is_at(2, "REFRESH");
    let n = if or { 3 } else { 1 };
    let parse: fn(&mut Cursor<'_>, CreateMode) -> Parsed<Statement> = if c.is_at(n, "SECRET") {
        secret
    } else if c.is_at(n, "CONNECTION") {
        connection
    } else if c.is_at(n, "CATALOG") {
        catalog
    } else if c.is_at(n, "STREAM") {
        stream
    } else if c.is_at(n, "STREAMING") && c.is_at(n + 1, "TABLE") {
        streaming_table
    } else if c.is_at(n, "TABLE") {
        table
    } else if c.is_at(n, "SCHEMA") {
        schema
    } else {
        return Ok(None);
    };
    let mode = match (or, refresh) {
        (false, _) => CreateMode::Create,
        (true, false) => CreateMode::OrReplace,
        (true, true) => CreateMode::OrRefresh,
    };
    if refresh && !c.is_at(n, "STREAMING") {
        c.advance();
        c.advance();
        return Err(c.unexpected("REPLACE"));
    }
    for _ in 0..n {
        c.advance();
    }
    parse(c, mode).map(Some)
}

fn if_not_exists(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<bool> {
    if mode != CreateMode::Create && c.sees(&["IF", "NOT", "EXISTS"]) {
        return Err(c.unexpected("a name"));
    }
    Ok(c.eat(&["IF", "NOT", "EXISTS"]))
}

fn schema(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    if mode != CreateMode::Create {
        return Err(c.unexpected("STREAM, STREAMING TABLE, TABLE, CONNECTION or SECRET"));
    }
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.name()?;
    if c.is_at(0, "AUTHORIZATION") {
        return Err(c.fail(refused("CREATE SCHEMA … AUTHORIZATION is not supported", "Leave AUTHORIZATION out.")));
    }
    Ok(Statement::CreateSchema(CreateSchema { if_not_exists, name }))
}

fn secret(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.secret = true;
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.bare_name()?;
    let from = secret_from(c)?;
    Ok(Statement::CreateSecret(CreateSecret { or_replace: mode == CreateMode::OrReplace, if_not_exists, name, from }))
}

pub(super) fn secret_from(c: &mut Cursor<'_>) -> Parsed<SecretFrom> {
    if c.eat(&["AS"]) {
        return Ok(SecretFrom::Literal(SecretText(c.string()?)));
    }
    if c.eat(&["FROM", "ENV"]) {
        return Ok(SecretFrom::Env(c.string()?));
    }
    if c.eat(&["FROM", "FILE"]) {
        return Ok(SecretFrom::File(c.string()?));
    }
    if c.sees(&["FROM", "VAULT"]) {
        return Err(
            c.fail(refused("secrets FROM VAULT are not supported yet", "Use FROM ENV 'NAME' or FROM FILE 'path'."))
        );
    }
    Err(c.unexpected("AS '…', FROM ENV '…' or FROM FILE '…'"))
}

fn connection(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.secret = true;
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.bare_name()?;
    c.expect(&["TO"])?;
    let kind = c.ident()?;
    if kind == "schema_registry" {
        return Err(refused(
            "connections to a schema registry are not supported yet",
            "Declare the columns of the stream and use format = 'json'.",
        )
        .into());
    }
    let options = if c.eat(&["WITH"]) { connection_options(c)? } else { Options::default() };
    Ok(Statement::CreateConnection(CreateConnection {
        or_replace: mode == CreateMode::OrReplace,
        if_not_exists,
        name,
        kind,
        options,
    }))
}

fn catalog(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.secret = true;
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.bare_name()?;
    let options = if c.eat(&["WITH"]) { connection_options(c)? } else { Options::default() };
    Ok(Statement::CreateCatalog(CreateCatalog {
        or_replace: mode == CreateMode::OrReplace,
        if_not_exists,
        name,
        options,
    }))
}

/// Secret values are never written into a connection: its text is kept and shown.
pub(super) fn connection_options(c: &mut Cursor<'_>) -> Parsed<Options> {
    let location = c.location();
    let options = Options::parse(c)?;
    for entry in &options.0 {
        let OptionValue::Text(text) = &entry.value else { continue };
        let inside = entry.name == "properties" && properties_hold_secret(text);
        let key = entry.name == "ssl_key" && text.contains("PRIVATE KEY");
        let url = entry.name == "uri" && url_holds_secret(text);
        if is_sensitive(&entry.name) || inside || key || url {
            let mut e = error(BAD_VALUE, format!("option \"{}\" takes a secret, not a value", entry.name));
            e.hint = Some(if inside {
                "Use the connection's own options for passwords and keys: password = SECRET name.".to_string()
            } else {
                format!("CREATE SECRET name AS '…' first, then write {} = SECRET name.", entry.name)
            });
            return Err(super::errors::At::new(e, location));
        }
    }
    Ok(options)
}

/// An option, or a key of librdkafka, that holds what nobody may read.
fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "credential", "token", "secret", "private_key"].iter().any(|w| name.ends_with(w))
        || ["secret-access-key", "secret_access_key", "account-key", "credentials-json", "connection-string"]
            .iter()
            .any(|w| name.ends_with(w))
        || matches!(name.as_str(), "ssl.key.pem" | "sasl.oauthbearer.config")
}

/// `postgres://USER:PASSWORD@HOST`
fn url_holds_secret(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
        || text.split(['?', '&']).any(|part| part.starts_with("password="))
}

fn properties_hold_secret(json: &str) -> bool {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
        Ok(map) => map.keys().any(|k| is_sensitive(k)),
        // Refused later as no JSON; until then nothing of it is shown.
        Err(_) => json.contains("password") || json.contains("PRIVATE KEY"),
    }
}

fn stream(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.name()?;
    let mut columns: Vec<StreamColumnDef> = Vec::new();
    let mut infer = true;
    if c.eat_token(&Token::LParen) {
        infer = false;
        loop {
            let location = c.location();
            if c.eat_token(&Token::Mul) {
                if infer || !columns.is_empty() {
                    let e = error(SYNTAX, "\"*\" must be the first of the columns, and stand there once");
                    return Err(super::errors::At::new(e, location));
                }
                infer = true;
            } else {
                refuse_stream_item(c)?;
                let column = stream_column(c)?;
                check_new(columns.iter().map(|c| c.name.as_str()), &column.name, location)?;
                columns.push(column);
            }
            if !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
    }
    let options = if c.eat(&["WITH"]) { Options::parse(c)? } else { Options::default() };
    Ok(Statement::CreateStream(CreateStream {
        or_replace: mode == CreateMode::OrReplace,
        if_not_exists,
        name,
        infer,
        columns,
        options,
    }))
}

fn check_new<'a>(
    mut columns: impl ExactSizeIterator<Item = &'a str>,
    name: &str,
    location: sqlparser::tokenizer::Location,
) -> Parsed<()> {
    if columns.len() >= MAX_COLUMNS {
        let e = error(crate::SqlState("54011"), format!("more than {MAX_COLUMNS} columns"));
        return Err(super::errors::At::new(e, location));
    }
    if columns.any(|c| c == name) {
        let e = error(crate::SqlState("42701"), format!("column \"{name}\" specified more than once"));
        return Err(super::errors::At::new(e, location));
    }
    Ok(())
}

fn refuse_stream_item(c: &Cursor<'_>) -> Parsed<()> {
    if c.sees(&["WATERMARK", "FOR"]) {
        return Err(c.fail(refused(
            "WATERMARK is not supported yet",
            "Leave it out: streaming tables filter and transform rows one by one today, which needs no watermark.",
        )));
    }
    if c.sees(&["PRIMARY", "KEY"]) {
        return Err(c.fail(refused(
            "PRIMARY KEY of a stream is not supported yet",
            "Leave it out: every record of the topic is one row (envelope = 'none').",
        )));
    }
    if c.is_at(0, "CONSTRAINT") && matches!(c.token(1), Token::Word(_)) {
        return Err(c.fail(refused("constraints of a stream are not supported", "Filter in the streaming table.")));
    }
    Ok(())
}

fn stream_column(c: &mut Cursor<'_>) -> Parsed<StreamColumnDef> {
    let name = c.ident()?;
    let data_type = data_type(c)?;
    let mut column = StreamColumnDef { name, data_type, not_null: false, source: ColumnSource::Value };
    let mut null_said = false;
    loop {
        if !null_said && c.eat(&["NOT", "NULL"]) {
            column.not_null = true;
            null_said = true;
        } else if !null_said && c.eat(&["NULL"]) {
            null_said = true;
        } else if column.source == ColumnSource::Value && c.eat(&["GENERATED"]) {
            c.expect(&["ALWAYS", "AS"])?;
            c.expect_token(&Token::LParen)?;
            let (expr, text) = c.expr_with_text()?;
            c.expect_token(&Token::RParen)?;
            if c.is_at(0, "STORED") || c.is_at(0, "VIRTUAL") {
                c.advance();
            }
            column.source = ColumnSource::Generated { expr, text };
        } else if column.source == ColumnSource::Value && c.eat(&["METADATA"]) {
            c.expect(&["FROM"])?;
            column.source = ColumnSource::Metadata(c.string()?);
        } else if c.is_at(0, "DEFAULT") {
            return Err(c.fail(refused(
                "DEFAULT is not supported for columns of a stream",
                "Add a column GENERATED ALWAYS AS (coalesce(column, value)).",
            )));
        } else if c.sees(&["PRIMARY", "KEY"]) {
            refuse_stream_item(c)?;
        } else {
            return Ok(column);
        }
    }
}

/// A type; VARIANT has a refusal of its own.
fn data_type(c: &mut Cursor<'_>) -> Parsed<sqlparser::ast::DataType> {
    if c.is_at(0, "VARIANT") {
        return Err(c.fail(refused("type variant is not supported yet", "Use JSON, which is text.")));
    }
    c.data_type()
}

fn streaming_table(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.advance();
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.name()?;
    if c.is_at(0, "CLONE") {
        return Err(c.fail(refused("CLONE is not supported yet", "Create a second streaming table AS SELECT ….")));
    }
    if c.is_at(0, "FLOW") {
        return Err(c.fail(auto_cdc_refused()));
    }
    let mut columns: Vec<TargetColumnDef> = Vec::new();
    if c.eat_token(&Token::LParen) {
        loop {
            let location = c.location();
            refuse_target_item(c)?;
            let column = target_column(c)?;
            check_new(columns.iter().map(|c| c.name.as_str()), &column.name, location)?;
            columns.push(column);
            if !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
    }
    let clauses = table_clauses(c)?;
    c.expect(&["AS"])?;
    let start = c.location();
    let query = c.query()?;
    let query_text = c.text_since(start);
    Ok(Statement::CreateStreamingTable(Box::new(CreateStreamingTable {
        mode,
        if_not_exists,
        name,
        columns,
        partition_by: clauses.partition_by,
        write_order: clauses.write_order,
        comment: clauses.comment,
        properties: clauses.properties,
        options: clauses.options,
        query,
        query_text,
    })))
}

pub(super) fn auto_cdc_refused() -> crate::SqlError {
    refused(
        "AUTO CDC is not supported yet",
        "Append the changes with CREATE STREAMING TABLE … AS SELECT … FROM STREAM s, and take the latest row per \
         key in a query, with row_number().",
    )
}

fn refuse_target_item(c: &Cursor<'_>) -> Parsed<()> {
    if c.sees(&["PRIMARY", "KEY"]) {
        return Err(c.fail(refused(
            "PRIMARY KEY of a streaming table is not supported yet",
            "Leave it out: rows are appended. Take the latest row per key in a query, with row_number().",
        )));
    }
    if c.is_at(0, "CONSTRAINT") && matches!(c.token(1), Token::Word(_)) {
        return Err(c.fail(refused(
            "constraints of a streaming table are not supported yet",
            "Filter with WHERE in the query.",
        )));
    }
    if c.sees(&["WATERMARK", "FOR"]) {
        return refuse_stream_item(c);
    }
    Ok(())
}

fn target_column(c: &mut Cursor<'_>) -> Parsed<TargetColumnDef> {
    let name = c.ident()?;
    let data_type = data_type(c)?;
    let mut column = TargetColumnDef { name, data_type, not_null: false };
    if c.eat(&["NOT", "NULL"]) {
        column.not_null = true;
    } else {
        c.eat(&["NULL"]);
    }
    if c.is_at(0, "MASK") {
        return Err(c.fail(refused("MASK is not supported yet", "Mask in the query, with a function.")));
    }
    if c.is_at(0, "DEFAULT") || c.is_at(0, "GENERATED") {
        return Err(c.fail(refused(
            "DEFAULT and GENERATED are not supported for columns of a streaming table",
            "Compute the column in the query.",
        )));
    }
    refuse_target_item(c)?;
    Ok(column)
}

fn table(c: &mut Cursor<'_>, mode: CreateMode) -> Parsed<Statement> {
    c.advance();
    let if_not_exists = if_not_exists(c, mode)?;
    let name = c.name()?;
    let (columns, constraints) = c.table_columns()?;
    let clauses = table_clauses(c)?;
    let (mut query, mut no_data) = (None, false);
    if c.eat(&["AS"]) {
        query = Some(c.query()?);
        no_data = c.eat(&["WITH", "NO", "DATA"]);
        if !no_data {
            c.eat(&["WITH", "DATA"]);
        }
    }
    Ok(Statement::CreateTable(Box::new(CreateTable {
        or_replace: mode == CreateMode::OrReplace,
        if_not_exists,
        name,
        columns,
        constraints,
        partition_by: clauses.partition_by,
        write_order: clauses.write_order,
        comment: clauses.comment,
        properties: clauses.properties,
        options: clauses.options,
        query,
        no_data,
    })))
}

#[derive(Default)]
struct TableClauses {
    partition_by: Vec<PartitionField>,
    write_order: Option<WriteOrder>,
    comment: Option<String>,
    properties: Vec<(String, String)>,
    options: Options,
}

/// The clauses between columns and AS, in any order, each once.
fn table_clauses(c: &mut Cursor<'_>) -> Parsed<TableClauses> {
    let mut clauses = TableClauses::default();
    let mut seen: Vec<&str> = Vec::new();
    loop {
        let clause = if c.sees(&["PARTITIONED", "BY"]) {
            "PARTITIONED BY"
        } else if c.is_at(0, "COMMENT") {
            "COMMENT"
        } else if c.is_at(0, "TBLPROPERTIES") {
            "TBLPROPERTIES"
        } else if c.is_at(0, "WITH") {
            "WITH"
        } else if c.is_at(0, "WRITE") {
            "WRITE"
        } else if c.sees(&["CLUSTER", "BY"]) {
            return Err(c.fail(refused("CLUSTER BY is not supported", "Write WRITE ORDERED BY (column, …).")));
        } else {
            return Ok(clauses);
        };
        if seen.contains(&clause) {
            return Err(c.unexpected("AS"));
        }
        seen.push(clause);
        c.advance();
        match clause {
            "PARTITIONED BY" => {
                c.advance();
                clauses.partition_by = partition_fields(c)?;
            }
            "WRITE" => clauses.write_order = Some(write_order(c)?),
            "COMMENT" => clauses.comment = Some(c.string()?),
            "TBLPROPERTIES" => clauses.properties = properties(c)?,
            _ => clauses.options = Options::parse(c)?,
        }
    }
}

fn partition_fields(c: &mut Cursor<'_>) -> Parsed<Vec<PartitionField>> {
    c.expect_token(&Token::LParen)?;
    let mut fields = Vec::new();
    loop {
        fields.push(partition_field(c)?);
        if fields.len() > 100 {
            return Err(c.fail(error(SYNTAX, "more than 100 partition fields")));
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    c.expect_token(&Token::RParen)?;
    Ok(fields)
}

pub(super) fn partition_field(c: &mut Cursor<'_>) -> Parsed<PartitionField> {
    if !matches!(c.token(1), Token::LParen) {
        return Ok(PartitionField { column: c.ident()?, transform: Transform::Identity });
    }
    let location = c.location();
    let function = c.ident()?;
    c.expect_token(&Token::LParen)?;
    let (width, column) = if let Some(width) = width(c)? {
        c.expect_token(&Token::Comma)?;
        (Some(width), c.ident()?)
    } else {
        let column = c.ident()?;
        let width = if c.eat_token(&Token::Comma) { width(c)? } else { None };
        (width, column)
    };
    c.expect_token(&Token::RParen)?;
    let transform = match (function.as_str(), width) {
        ("years" | "year", None) => Transform::Year,
        ("months" | "month", None) => Transform::Month,
        ("days" | "day" | "date", None) => Transform::Day,
        ("hours" | "hour" | "date_hour", None) => Transform::Hour,
        ("identity", None) => Transform::Identity,
        ("bucket", Some(n)) => Transform::Bucket(n),
        ("truncate", Some(n)) => Transform::Truncate(n),
        _ => {
            let mut e = error(BAD_VALUE, format!("\"{function}\" is no partition transform"));
            e.hint =
                Some("Use a column, years(c), months(c), days(c), hours(c), bucket(16, c) or truncate(4, c).".into());
            return Err(super::errors::At::new(e, location));
        }
    };
    Ok(PartitionField { column, transform })
}

/// A number of buckets or a width, from 1.
fn width(c: &mut Cursor<'_>) -> Parsed<Option<u32>> {
    let Token::Number(n, _) = c.token(0) else { return Ok(None) };
    // Iceberg keeps it as a signed 32-bit number.
    match n.parse::<i32>() {
        Ok(n) if n > 0 => {
            c.advance();
            Ok(Some(n.unsigned_abs()))
        }
        _ => Err(c.fail(error(BAD_VALUE, "a partition transform needs a whole number from 1"))),
    }
}

/// What a flow keeps in the table is not for users.
pub(super) fn check_key(key: &str, location: sqlparser::tokenizer::Location) -> Parsed<()> {
    if key.starts_with("tidewater.") && !key.starts_with("tidewater.write.") {
        let mut e = error(BAD_VALUE, format!("table property \"{key}\" is reserved"));
        e.hint = Some("Properties that begin with \"tidewater.\" belong to flows.".into());
        return Err(super::errors::At::new(e, location));
    }
    Ok(())
}

pub(super) fn properties(c: &mut Cursor<'_>) -> Parsed<Vec<(String, String)>> {
    c.expect_token(&Token::LParen)?;
    let mut out: Vec<(String, String)> = Vec::new();
    loop {
        let location = c.location();
        let key = c.string()?;
        c.expect_token(&Token::Eq)?;
        let value = c.string()?;
        check_key(&key, location)?;
        if out.iter().any(|(k, _)| *k == key) {
            let e = error(SYNTAX, format!("table property \"{key}\" is given more than once"));
            return Err(super::errors::At::new(e, location));
        }
        out.push((key, value));
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    c.expect_token(&Token::RParen)?;
    Ok(out)
}
