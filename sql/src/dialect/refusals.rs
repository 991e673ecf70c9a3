//! Statements that the dialect knows and this version does not run, and the words of other systems for what it
//! does run. Each is told apart by its first words.

use super::create::auto_cdc_refused;
use super::cursor::{Cursor, Parsed};
use super::errors::refused;

/// First words, message, hint.
type Row = (&'static [&'static str], &'static str, &'static str);

const FLOW_HINT: &str = "A streaming table carries its own flow: CREATE STREAMING TABLE name AS SELECT … FROM STREAM \
                         s. INSERT INTO a stream writes to its topic once.";
const MV_HINT: &str = "Use CREATE STREAMING TABLE name AS SELECT … FROM STREAM s.";
const SUBSCRIBE_HINT: &str = "Write SUBSCRIBE (SELECT … FROM STREAM s).";
const CURSOR_HINT: &str = "Run SUBSCRIBE itself: rows come as they arrive; in psql, COPY (SUBSCRIBE (…)) TO STDOUT.";
const TASK_HINT: &str = "Run the statement from a scheduler outside, for example cron with psql.";
const REFRESH_HINT: &str = "Create a second streaming table with start = 'earliest', then drop the first.";

const REFUSED: &[Row] = &[
    (
        &["CREATE", "SOURCE"],
        "CREATE SOURCE is not supported",
        "Use CREATE STREAM name WITH (connection = '…', topic = '…').",
    ),
    (&["CREATE", "SINK"], "CREATE SINK is not supported", FLOW_HINT),
    (&["CREATE", "CONNECTOR"], "CREATE CONNECTOR is not supported", "Use CREATE CONNECTION and CREATE STREAM."),
    (
        &["CREATE", "SOURCE", "CONNECTOR"],
        "CREATE CONNECTOR is not supported",
        "Use CREATE CONNECTION and CREATE STREAM.",
    ),
    (&["CREATE", "SINK", "CONNECTOR"], "CREATE CONNECTOR is not supported", "Use CREATE CONNECTION and CREATE STREAM."),
    (&["CREATE", "MATERIALIZED", "VIEW"], "materialized views are not supported", MV_HINT),
    (&["CREATE", "MATERIALIZED", "TABLE"], "materialized tables are not supported", MV_HINT),
    (&["CREATE", "DYNAMIC", "TABLE"], "dynamic tables are not supported", MV_HINT),
    (&["CREATE", "DYNAMIC", "ICEBERG", "TABLE"], "dynamic tables are not supported", MV_HINT),
    (&["CREATE", "LIVE", "TABLE"], "live tables are not supported", MV_HINT),
    (&["CREATE", "STREAMING", "LIVE", "TABLE"], "live tables are not supported", MV_HINT),
    (&["REFRESH", "MATERIALIZED", "VIEW"], "materialized views are not supported", MV_HINT),
    (
        &["CREATE", "TOPIC"],
        "CREATE TOPIC is not supported",
        "Use CREATE STREAM … WITH (…, create_topic = true, partitions = 12).",
    ),
    (&["ALTER", "TOPIC"], "ALTER TOPIC is not supported", "Use Kafka's own tools."),
    (&["DROP", "TOPIC"], "DROP TOPIC is not supported", "Use Kafka's own tools."),
    (&["CREATE", "TASK"], "tasks are not supported yet", TASK_HINT),
    (&["ALTER", "TASK"], "tasks are not supported yet", TASK_HINT),
    (&["DROP", "TASK"], "tasks are not supported yet", TASK_HINT),
    (&["EXECUTE", "TASK"], "tasks are not supported yet", TASK_HINT),
    (&["SHOW", "TASKS"], "tasks are not supported yet", TASK_HINT),
    (&["SHOW", "TASK"], "tasks are not supported yet", TASK_HINT),
    (&["TAIL"], "TAIL is not supported", SUBSCRIBE_HINT),
    (&["REFRESH", "STREAMING", "TABLE"], "REFRESH STREAMING TABLE is not supported yet", REFRESH_HINT),
    (&["ROLLBACK", "STREAMING", "TABLE"], "ROLLBACK STREAMING TABLE is not supported yet", REFRESH_HINT),
    (
        &["VERIFY", "STREAMING", "TABLE"],
        "VERIFY STREAMING TABLE is not supported yet",
        "Compare it with the same SELECT over the stream, bounded by _partition and _offset.",
    ),
    (&["TEST"], "TEST is not supported yet", "Run the SELECT over a stream with test records."),
    (&["RUN", "TESTS"], "RUN TESTS is not supported yet", "Run the SELECT over a stream with test records."),
    (&["APPLY", "YAML"], "APPLY YAML is not supported yet", "Write the statements in SQL."),
    (&["CANCEL", "QUERY"], "CANCEL QUERY is not supported yet", "Use SELECT pg_cancel_backend(pid)."),
    (&["CREATE", "POLICY"], "policies are not supported yet", "Query through a SELECT that filters."),
    (
        &["INSERT", "INTO", "SCHEMA"],
        "INSERT INTO SCHEMA … ROUTE BY is not supported yet",
        "Create one streaming table per target, each with its WHERE.",
    ),
    (&["PAUSE", "FLOW"], "PAUSE FLOW is not supported", "Use ALTER FLOW name PAUSE."),
    (&["RESUME", "FLOW"], "RESUME FLOW is not supported", "Use ALTER FLOW name RESUME."),
    (&["SUSPEND", "FLOW"], "SUSPEND FLOW is not supported", "Use ALTER FLOW name PAUSE."),
    (&["PRINT"], "PRINT is not supported", "Use SELECT * FROM stream LIMIT 10."),
    (&["TERMINATE"], "TERMINATE is not supported", "Use ALTER FLOW name PAUSE, or DROP STREAMING TABLE name."),
];

pub(super) fn check(c: &Cursor<'_>) -> Parsed<()> {
    if let Some((_, message, hint)) = REFUSED.iter().find(|(words, ..)| c.sees(words)) {
        return Err(c.fail(refused(*message, *hint)));
    }
    let or = usize::from(c.sees(&["CREATE", "OR"])) * 2;
    if c.is_at(0, "CREATE") && c.is_at(1 + or, "FLOW") {
        let auto_cdc = (0..16).any(|n| c.is_at(n, "AUTO") && c.is_at(n + 1, "CDC"));
        let error = if auto_cdc { auto_cdc_refused() } else { refused("CREATE FLOW is not supported yet", FLOW_HINT) };
        return Err(c.fail(error));
    }
    for (kind, hint) in [("MATERIALIZED", MV_HINT), ("DYNAMIC", MV_HINT), ("SINK", FLOW_HINT), ("SOURCE", FLOW_HINT)] {
        if or > 0 && c.is_at(0, "CREATE") && c.is_at(3, kind) {
            return Err(c.fail(refused(format!("CREATE {kind} is not supported"), hint)));
        }
    }
    if c.is_at(0, "DECLARE") && (1..10).any(|n| c.sees_at(n, &["FOR", "SUBSCRIBE"])) {
        return Err(c.fail(refused("a cursor for SUBSCRIBE is not supported yet", CURSOR_HINT)));
    }
    Ok(())
}
