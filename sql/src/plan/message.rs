//! What DataFusion and Arrow say, as PostgreSQL would say it.
//!
//! Their errors carry text where PostgreSQL has a code. The patterns below are the texts of the versions that the
//! lock file names; one that stops matching costs a code, not an answer.

use crate::error::first_line;
use crate::{SqlError, SqlState};

pub(crate) fn plan_error(message: &str) -> SqlError {
    let line = first_line(message);
    // The planner prefixes the phase and quotes inner errors.
    let text = line.trim_start_matches("Error during planning: ");
    if let Some(name) = between(text, "Invalid function '", "'") {
        return undefined_function(name, text);
    }
    if let Some(name) = between(text, "table function '", "' not found") {
        return undefined_function(name, "");
    }
    if let Some(name) = between(text, "table '", "' not found") {
        return SqlError::undefined_table(name.trim_start_matches("lake.public."));
    }
    if text.contains("Failed to coerce arguments") || text.contains("No function matches the given name") {
        let name = between(text, "'", "'").unwrap_or("?");
        return SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {} does not exist", signature(name)))
            .with_detail(text.to_owned())
            .with_hint(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            );
    }
    if text.contains("failed to match any signature") || text.contains("requires TypeSignatureClass") {
        let name = between(text, "Function '", "'").unwrap_or("?");
        return SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist for arguments of these types"),
        )
        .with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        );
    }
    if text.contains("must be in the GROUP BY clause")
        || text.contains("must appear in the GROUP BY clause")
        || text.contains("could not be resolved from available columns")
        || text.contains("non-aggregate values")
    {
        let column = between(text, "Column \"", "\"")
            .or_else(|| between(text, "Expression ", " could not be resolved"))
            .unwrap_or("?");
        return SqlError::new(
            SqlState::GROUPING_ERROR,
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        );
    }
    if text.contains("Aggregate functions are not allowed")
        || text.contains("aggregate functions cannot be nested")
        || text.contains("Aggregate function calls cannot contain")
    {
        return SqlError::new(SqlState::GROUPING_ERROR, lower_first(text));
    }
    if text.contains("Projections require unique expression names") {
        return SqlError::new(SqlState::DUPLICATE_COLUMN, "a column name is specified more than once")
            .with_detail(text.to_owned())
            .with_hint("Give the columns different names with AS.");
    }
    if text.starts_with("Cannot infer common argument type")
        || text.contains("Cannot coerce arithmetic expression")
        || text.contains("Unsupported arithmetic")
    {
        return SqlError::new(SqlState::UNDEFINED_FUNCTION, "operator does not exist for these types")
            .with_detail(text.to_owned())
            .with_hint("You might need to add explicit type casts.");
    }
    if text.contains("Cannot automatically convert") || text.starts_with("Unsupported CAST from") {
        return SqlError::new(SqlState::CANNOT_COERCE, lower_first(text));
    }
    if text.contains("UNION") && text.contains("same number of columns") || text.contains("different number of columns")
    {
        return SqlError::syntax("each UNION query must have the same number of columns");
    }
    if text.contains("Cannot create filter with non-boolean predicate") {
        return SqlError::new(SqlState::TYPE_MISMATCH, "argument of WHERE must be type boolean").with_detail(text);
    }
    if text.contains("Placeholder type could not be resolved") || text.contains("No value found for placeholder") {
        return SqlError::new(SqlState::INDETERMINATE_TYPE, "could not determine the data type of a parameter")
            .with_hint("Add a cast, for example $1::int.");
    }
    if text.contains("Invalid placeholder") {
        return SqlError::new(SqlState::UNDEFINED_PARAMETER, lower_first(text));
    }
    if text.contains("duplicate") && text.contains("alias") || text.contains("WITH query name") {
        return SqlError::new(SqlState::DUPLICATE_ALIAS, lower_first(text));
    }
    if text.contains("Cannot order by a non-existent position") || text.contains("Order by column out of bounds") {
        return SqlError::new(SqlState::INVALID_COLUMN_REFERENCE, lower_first(text));
    }
    if text.contains("For SELECT DISTINCT, ORDER BY expressions") {
        return SqlError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
        );
    }
    if text.contains("Scalar subquery should only return one column") || text.contains("subquery must return") {
        return SqlError::syntax("subquery must return only one column");
    }
    if let Some(field) =
        between(text, "Field ", " not found in struct").or_else(|| between(text, "field ", " not found in struct"))
    {
        return SqlError::undefined_column(field);
    }
    if let Some(field) = between(text, "No field named ", ".") {
        return SqlError::undefined_column(field.trim_matches('"'));
    }
    if text.contains("LIMIT must not be negative") {
        return SqlError::new(SqlState("2201W"), "LIMIT must not be negative");
    }
    if text.contains("OFFSET must be") || text.contains("Offset must be") {
        return SqlError::new(SqlState("2201X"), "OFFSET must not be negative");
    }
    if let Some(inner) = cast_pattern(text) {
        return inner;
    }
    SqlError::new(SqlState::SYNTAX_ERROR, lower_first(text))
}

/// 0A000 for a form that the engine does not know, whatever kind of error it makes of it.
pub(crate) fn unknown_form(text: &str) -> Option<SqlError> {
    let (_, message, hint) = UNKNOWN_FORMS.iter().find(|(pattern, ..)| text.contains(pattern))?;
    Some(SqlError::unsupported(*message).with_hint(*hint))
}

/// What the engine says, and that in the user's words.
const UNKNOWN_FORMS: &[(&str, &str, &str)] = &[
    (
        "Window schema has wrong number of fields",
        "a subquery in a WHERE clause with OR, under a window function, is not supported yet",
        "Write the subquery as a join.",
    ),
    (
        "Too many columns! The subquery should only return one column",
        "rows in IN (SELECT …) are not supported yet",
        "Write EXISTS (SELECT 1 FROM … WHERE a = … AND b = …).",
    ),
    (
        "does not satisfy order requirements",
        "a window of this form is not supported yet",
        "Compute what is partitioned by in a subquery first.",
    ),
    (
        "Assertion failed: expr.is_empty(): Unnest(",
        "unnest() in a select list is not supported in a query of this form",
        "Put it into FROM: SELECT … FROM t, unnest(t.items) AS i.",
    ),
    ("LIKE does not support escape_char", "LIKE with another escape character than \\ is not supported", "Use \\."),
];

/// Functions that PostgreSQL 15 has and that are not here, by what to do instead.
const MISSING: &[(&str, &[&str])] = &[
    (
        "Read members with json -> 'key' and json ->> 'key'.",
        &[
            "json_extract_path",
            "json_extract_path_text",
            "jsonb_extract_path",
            "jsonb_extract_path_text",
            "json_array_elements",
            "json_array_elements_text",
            "jsonb_array_elements",
            "jsonb_array_elements_text",
            "json_each",
            "json_each_text",
            "jsonb_each",
            "jsonb_each_text",
            "json_object_keys",
            "jsonb_object_keys",
            "json_array_length",
            "jsonb_array_length",
            "json_typeof",
            "jsonb_typeof",
            "json_populate_record",
            "json_to_record",
            "json_to_recordset",
            "jsonb_path_query",
            "jsonb_path_exists",
            "jsonb_set",
            "jsonb_insert",
            "jsonb_pretty",
            "json_strip_nulls",
            "jsonb_strip_nulls",
        ],
    ),
    (
        "Build JSON on the client, or return the columns.",
        &[
            "to_json",
            "to_jsonb",
            "row_to_json",
            "array_to_json",
            "json_build_object",
            "json_build_array",
            "jsonb_build_object",
            "jsonb_build_array",
            "json_object",
            "jsonb_object",
            "json_agg",
            "jsonb_agg",
            "json_object_agg",
            "jsonb_object_agg",
            "xmlagg",
            "xmlelement",
            "xmlforest",
        ],
    ),
    (
        "Use date_trunc, extract, intervals and casts.",
        &[
            "justify_days",
            "justify_hours",
            "justify_interval",
            "make_interval",
            "make_time",
            "make_timestamp",
            "make_timestamptz",
            "clock_timestamp",
            "statement_timestamp",
            "transaction_timestamp",
            "timeofday",
            "localtime",
            "localtimestamp",
            "isfinite",
            "date_add",
            "date_subtract",
            "to_number",
        ],
    ),
    (
        "Use + - * / % and CASE, or compute it on the client.",
        &[
            "div",
            "num_nonnulls",
            "num_nulls",
            "width_bucket",
            "scale",
            "min_scale",
            "trim_scale",
            "gamma",
            "lgamma",
            "erf",
            "sind",
            "cosd",
            "tand",
            "asind",
            "acosd",
            "atand",
            "atan2d",
            "setseed",
            "random_normal",
        ],
    ),
    (
        "Use ~, regexp_like, regexp_replace, split_part, substring and ||.",
        &[
            "regexp_matches",
            "regexp_split_to_array",
            "regexp_split_to_table",
            "regexp_substr",
            "quote_ident",
            "quote_literal",
            "quote_nullable",
            "parse_ident",
            "unistr",
            "normalize",
            "string_to_table",
            "convert",
            "convert_to",
            "get_byte",
            "set_byte",
            "get_bit",
            "set_bit",
            "to_ascii",
            "casefold",
        ],
    ),
    (
        "Use array subscripts, unnest, cardinality and = ANY.",
        &[
            "array_dims",
            "array_fill",
            "array_lower",
            "array_upper",
            "generate_subscripts",
            "trim_array",
            "array_sample",
            "current_schemas",
        ],
    ),
    (
        "Use count, sum, avg, min, max, array_agg, string_agg and window functions.",
        &["mode", "percentile_disc", "range_agg", "range_intersect_agg", "any_value", "grouping_id", "regr_avgxx"],
    ),
    ("Streams and tables have no sequences; use _partition and _offset.", &["nextval", "currval", "setval", "lastval"]),
    ("Use pg_cancel_backend(pid), which stops the statement and keeps the session.", &["pg_terminate_backend"]),
    ("Use pg_sleep(seconds).", &["pg_sleep_for", "pg_sleep_until"]),
    (
        "There is no lock to take: each statement sees one state and commits by itself.",
        &[
            "pg_advisory_lock",
            "pg_advisory_xact_lock",
            "pg_try_advisory_lock",
            "pg_try_advisory_xact_lock",
            "pg_advisory_unlock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock_shared",
            "txid_current",
            "txid_current_snapshot",
            "pg_current_xact_id",
            "pg_current_snapshot",
            "pg_export_snapshot",
        ],
    ),
    (
        "Search with LIKE, ILIKE or ~.",
        &[
            "to_tsvector",
            "to_tsquery",
            "plainto_tsquery",
            "phraseto_tsquery",
            "websearch_to_tsquery",
            "ts_rank",
            "ts_rank_cd",
            "ts_headline",
            "setweight",
            "tsvector_to_array",
            "similarity",
        ],
    ),
    (
        "Addresses are text here.",
        &["host", "hostmask", "netmask", "network", "broadcast", "masklen", "inet_same_family", "abbrev", "family"],
    ),
    (
        "Ask system.flows and system.flow_lag for the state of the server.",
        &[
            "pg_reload_conf",
            "pg_postmaster_start_time",
            "pg_conf_load_time",
            "pg_stat_reset",
            "pg_current_wal_lsn",
            "pg_last_wal_replay_lsn",
            "pg_wal_lsn_diff",
            "pg_relation_filepath",
            "pg_blocking_pids",
            "inet_client_addr",
            "inet_client_port",
            "inet_server_addr",
            "inet_server_port",
            "pg_notify",
            "lo_import",
            "pg_read_file",
            "pg_ls_dir",
            "pg_stat_file",
            "dblink",
            "pg_logical_emit_message",
        ],
    ),
];

fn undefined_function(name: &str, text: &str) -> SqlError {
    let plain = name.to_ascii_lowercase();
    if let Some((hint, _)) = MISSING.iter().find(|(_, names)| names.contains(&plain.as_str())) {
        return SqlError::unsupported(format!("function {plain}() is not supported yet")).with_hint(*hint);
    }
    let error = SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
    match between(text, "Did you mean '", "'") {
        Some(nearest) => error.with_hint(format!("Perhaps you meant \"{nearest}\".")),
        None => error.with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        ),
    }
}

fn signature(call: &str) -> String {
    call.to_owned()
}

pub(crate) fn not_implemented(message: &str) -> SqlError {
    let text = first_line(message);
    if text.contains("does not support logical expression AggregateFunction") {
        return SqlError::new(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested")
            .with_hint("Compute the inner one in a subquery.");
    }
    if text.contains("does not support logical expression")
        && ["Exists(", "InSubquery(", "ScalarSubquery(", "OuterReferenceColumn("].iter().any(|s| text.contains(s))
    {
        return SqlError::unsupported("a correlated subquery of this form is not supported yet")
            .with_hint("Correlate with =, or write it as a join.");
    }
    SqlError::unsupported(lower_first(&text))
}

/// Errors while rows are computed.
pub(crate) fn execution_error(message: &str) -> SqlError {
    let text = first_line(message);
    let lower = text.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        return SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero");
    }
    if lower.contains("overflow") {
        return SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range").with_detail(text);
    }
    let state = [
        ("date/time field value out of range", SqlState::DATETIME_OVERFLOW),
        ("invalid input syntax for type ", SqlState::INVALID_TEXT),
        ("invalid value \"", SqlState::INVALID_DATETIME),
        ("too few arguments for format()", SqlState::INVALID_PARAMETER),
        ("unrecognized format()", SqlState::INVALID_PARAMETER),
        ("unterminated format()", SqlState::INVALID_PARAMETER),
    ];
    if let Some((_, state)) = state.into_iter().find(|(begin, _)| text.starts_with(begin)) {
        return SqlError::new(state, text);
    }
    if text.starts_with("relation \"") && text.ends_with("\" does not exist") {
        return SqlError::new(SqlState::UNDEFINED_TABLE, text);
    }
    if lower.contains("more than one row") {
        return SqlError::new(
            SqlState::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression",
        );
    }
    if lower.contains("no field named") {
        return plan_error(&text);
    }
    if lower.contains("regex") && (lower.contains("parse") || lower.contains("did not compile")) {
        return SqlError::new(SqlState::INVALID_REGEX, "invalid regular expression").with_detail(text);
    }
    if let Some(inner) = cast_pattern(&text) {
        return inner;
    }
    if lower.starts_with("null value in column") {
        return SqlError::new(SqlState::NOT_NULL_VIOLATION, text);
    }
    SqlError::new(SqlState::DATA_EXCEPTION, lower_first(&text))
}

/// Errors of casts and parsers of values.
pub(crate) fn cast_error(message: &str) -> SqlError {
    let text = first_line(message);
    cast_pattern(&text).unwrap_or_else(|| SqlError::new(SqlState::INVALID_TEXT, lower_first(&text)))
}

fn cast_pattern(text: &str) -> Option<SqlError> {
    // "Cannot cast string 'abc' to value of Int32 type"
    if let Some(value) = between(text, "Cannot cast string '", "' to value of ") {
        let arrow = text.split("' to value of ").nth(1).unwrap_or_default();
        let arrow = arrow.split(" type").next().unwrap_or_default();
        if is_integer(arrow) && value.trim().parse::<i128>().is_ok() {
            return Some(SqlError::new(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("value \"{value}\" is out of range for type {}", pg_type(arrow)),
            ));
        }
        let state = if arrow.starts_with("Date") || arrow.starts_with("Time") {
            SqlState::INVALID_DATETIME
        } else {
            SqlState::INVALID_TEXT
        };
        return Some(SqlError::new(state, format!("invalid input syntax for type {}: \"{value}\"", pg_type(arrow))));
    }
    if let Some(value) = between(text, "Cannot cast value '", "' to value of Boolean") {
        return Some(SqlError::new(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type boolean: \"{value}\""),
        ));
    }
    // "Can't cast value 300 to type Int8"
    if let Some(rest) = text.split("Can't cast value ").nth(1)
        && let Some((_, arrow)) = rest.split_once(" to type ")
    {
        return Some(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, format!("{} out of range", pg_type(arrow.trim()))));
    }
    if let Some(value) = between(text, "Error parsing timestamp from '", "'") {
        return Some(SqlError::new(
            SqlState::INVALID_DATETIME,
            format!("invalid input syntax for type timestamp: \"{value}\""),
        ));
    }
    if text.contains("Parser error: Invalid timezone") || text.contains("failed to parse timezone") {
        return Some(SqlError::new(SqlState::INVALID_PARAMETER, "time zone not recognized").with_detail(text));
    }
    if let Some(value) = between(text, "can't parse the string value ", " to decimal")
        .or_else(|| between(text, "Cannot parse string '", "'"))
    {
        return Some(SqlError::new(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type numeric: \"{value}\""),
        ));
    }
    if text.contains("is too large to store in a Decimal") || text.contains("is too small to store in a Decimal") {
        return Some(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow").with_detail(text));
    }
    if text.contains("Invalid interval") || text.contains("interval") && text.contains("pars") {
        return Some(SqlError::new(SqlState::INVALID_DATETIME, lower_first(text)));
    }
    None
}

fn is_integer(arrow: &str) -> bool {
    matches!(arrow, "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64")
}

fn pg_type(arrow: &str) -> &'static str {
    let head = arrow.split(['(', ' ']).next().unwrap_or_default();
    match head {
        "Int8" | "Int16" | "UInt8" => "smallint",
        "Int32" | "UInt16" => "integer",
        "Int64" | "UInt32" | "UInt64" => "bigint",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time",
        "Timestamp" if arrow.contains("Some(") || arrow.contains('+') => "timestamp with time zone",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        h if h.starts_with("Decimal") => "numeric",
        _ => "text",
    }
}

/// What stands between two marks; the second is looked for behind the first.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(behind)?;
    Some(&text[start..start + length])
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // Words in capitals stay: SQL, LIMIT …
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
