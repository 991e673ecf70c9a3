//! One list of settings. Flag `--data-dir`, variable `TIDEWATER_DATA_DIR` and key `data_dir` of the configuration file
//! are the same setting; the flag wins over the variable, the variable over the file, the file over the default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tidewater_catalogs_iceberg::{Database, StoreOptions, check_store_options};
use tidewater_streaming::EngineSettings;

use crate::tls::TlsFiles;

/// One setting, as `tidewater settings` prints it.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What a value looks like.
    pub shape: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

const fn setting(name: &'static str, shape: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, shape, default, help }
}

pub const SETTINGS: &[Setting] = &[
    setting("data_dir", "DIR", "tidewater-data", "Directory of everything that is kept on this machine"),
    setting(
        "warehouse",
        "DIR|file://DIR|s3://BUCKET/PREFIX|gs://…|abfss://…",
        "<data_dir>/warehouse",
        "Where Iceberg tables are stored",
    ),
    setting(
        "warehouse_options",
        "NAME=VALUE,…",
        "",
        "How the object store of the warehouse is reached, as in s3.endpoint=https://…,s3.region=eu-west-1; \
         what is not said comes from the environment (AWS_…, GOOGLE_…, AZURE_…)",
    ),
    setting(
        "metastore",
        "sqlite:FILE|postgres://…",
        "sqlite:<data_dir>/tidewater.db",
        "Database of definitions and of the SQL catalog",
    ),
    setting("pg_listen", "ADDR:PORT", "127.0.0.1:5433", "Address of the Postgres protocol"),
    setting("pg_user", "NAME", "tidewater", "Name of the user who may connect, by either protocol"),
    setting("pg_password", "TEXT", "", "Password of that user; needed to listen beyond this machine"),
    setting("pg_max_connections", "NUMBER", "200", "Connections of the Postgres protocol, at most"),
    setting("pg_max_message", "SIZE", "64MiB", "Largest message that a Postgres client may send"),
    setting("pg_max_prepared", "NUMBER", "1000", "Prepared statements of one session, and portals, at most"),
    setting("pg_startup_timeout", "DURATION", "30s", "Longest time from a Postgres client's first byte to its sign-in"),
    setting(
        "pg_idle_timeout",
        "DURATION",
        "0s",
        "Sessions outside of a transaction that send nothing for this long are closed; 0 is no limit",
    ),
    setting("tls_cert", "FILE", "", "Certificate of the server (PEM, with its chain); both protocols then speak TLS"),
    setting("tls_key", "FILE", "", "Private key of that certificate (PEM)"),
    setting(
        "tls_required",
        "true|false",
        "false",
        "Refuse Postgres clients of other machines that do not encrypt (Flight SQL always does where tls_cert is set)",
    ),
    setting("flight_listen", "ADDR:PORT", "127.0.0.1:32010", "Address of Arrow Flight SQL"),
    setting("flight_max_sessions", "NUMBER", "200", "Sessions of Flight SQL, at most"),
    setting("flight_max_message", "SIZE", "64MiB", "Largest message that a Flight SQL client may send"),
    setting(
        "flight_session_timeout",
        "DURATION",
        "1h",
        "A Flight SQL session that is not used for so long is forgotten, and its token with it",
    ),
    setting("http_listen", "ADDR:PORT", "127.0.0.1:8090", "Address of /healthz, /readyz and /metrics"),
    setting("query_threads", "NUMBER", "<cores>", "Threads that run queries"),
    setting("flow_threads", "NUMBER", "<cores>", "Threads that run flows"),
    setting(
        "query_memory",
        "SIZE",
        "2GiB",
        "Memory of all running queries together, a quarter of it for what their scans hold: a query begins when that fits; \
         beyond the rest they spill, then fail with 53200",
    ),
    setting(
        "flow_memory",
        "SIZE",
        "1GiB",
        "Memory of one flow: what it has read ahead, its rows in flight and open files; beyond it the flow stops reading \
         until a commit",
    ),
    setting("cache_memory", "SIZE", "256MiB", "Memory of cached table metadata: manifests and Parquet footers"),
    setting("spill_dir", "DIR", "<data_dir>/spill", "Where queries spill; emptied at start"),
    setting("spill_limit", "SIZE", "20GiB", "Disk space that spilling queries may take together"),
    setting(
        "statement_timeout",
        "DURATION",
        "0s",
        "Longest run of a statement, unless the session sets another; 0 is no limit",
    ),
    setting("commit_interval", "DURATION", "2s", "Time between two commits of a flow, unless it sets another"),
    setting(
        "max_commit_interval",
        "DURATION",
        "60s",
        "The time between two commits grows to this at most, where a commit takes long itself",
    ),
    setting("max_trigger_size", "SIZE", "256MiB", "Source bytes after which a flow commits early"),
    setting(
        "snapshot_retention",
        "DURATION",
        "1h",
        "How long snapshots of new tables are kept: their history.expire.max-snapshot-age-ms, unless TBLPROPERTIES says",
    ),
    setting(
        "snapshots_kept",
        "NUMBER",
        "1",
        "How many snapshots of new tables are kept however old: their history.expire.min-snapshots-to-keep",
    ),
    setting("maintain_commits", "NUMBER", "50", "Commits of a flow after which its table is maintained …"),
    setting(
        "maintain_interval",
        "DURATION",
        "5min",
        "… or time, whichever is first: manifests merged, snapshots expired",
    ),
    setting(
        "compact_interval",
        "DURATION",
        "60s",
        "Small files of a flow's table are written anew at most this often; 0 is never",
    ),
    setting(
        "vacuum_interval",
        "DURATION",
        "24h",
        "Files of a flow's table that no snapshot names are looked for at most this often; 0 is never",
    ),
    setting("checkpoints_kept", "NUMBER", "16", "Checkpoints of a flow that are kept behind the newest"),
    setting(
        "max_outbox_entries",
        "NUMBER",
        "64",
        "Triggers whose dead letters may wait for their table; above it commits wait",
    ),
    setting(
        "max_replayed_ranges",
        "NUMBER",
        "10000",
        "Ranges of replayed dead letters that a flow remembers, in each checkpoint; beyond it REPLAY DLQ ends",
    ),
    setting("layout_poll", "DURATION", "5s", "How often a flow asks for its topic's partitions and ends"),
    setting("topic_gone_after", "DURATION", "60s", "A topic that was read counts as gone when missing for this long"),
    setting(
        "commit_timeout",
        "DURATION",
        "60s",
        "A commit without an answer counts as unknown after this, and is resolved",
    ),
    setting(
        "load_timeout",
        "DURATION",
        "30s",
        "Longest wait of a flow for its catalog, its store or the layout of its topic",
    ),
    setting("retry_min", "DURATION", "100ms", "First pause between attempts of one step of a flow; it doubles …"),
    setting("retry_max", "DURATION", "15s", "… up to this"),
    setting("restart_min", "DURATION", "1s", "First pause before a failed flow starts again; it doubles …"),
    setting("restart_max", "DURATION", "60s", "… up to this"),
    setting("stable_after", "DURATION", "120s", "A flow that ran this long begins again with the shortest pause"),
    setting(
        "fence_watch",
        "DURATION",
        "10s",
        "A flow that lost its table to another writer looks on for this long, and takes over only if nobody writes",
    ),
    setting(
        "drain_deadline",
        "DURATION",
        "30s",
        "How long pausing, changing and dropping wait for a flow to commit; then it is cut off, and reads again",
    ),
    setting(
        "shutdown_timeout",
        "DURATION",
        "20s",
        "How long a stopping server waits for flows to commit and statements to end",
    ),
    setting(
        "log",
        "FILTER",
        "info",
        "Log filter: error, warn, info, debug, trace, or per module as in info,tidewater_streaming=debug",
    ),
    setting("log_format", "text|json", "text", "Form of log lines on standard error"),
];

/// All settings, typed.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// An absolute directory, or the URL of a place in an object store.
    pub warehouse: String,
    pub warehouse_options: WarehouseOptions,
    pub metastore: Database,
    pub pg_listen: SocketAddr,
    pub pg_user: String,
    pub pg_password: Option<Secret>,
    pub pg_max_connections: usize,
    pub pg_max_message: usize,
    pub pg_max_prepared: usize,
    pub pg_startup_timeout: Duration,
    /// Zero: for ever.
    pub pg_idle_timeout: Duration,
    pub tls: Option<TlsFiles>,
    pub tls_required: bool,
    pub flight_listen: SocketAddr,
    pub flight_max_sessions: usize,
    pub flight_max_message: usize,
    pub flight_session_timeout: Duration,
    pub http_listen: SocketAddr,
    pub query_threads: usize,
    pub flow_threads: usize,
    pub query_memory: usize,
    pub flow_memory: usize,
    pub cache_memory: usize,
    pub spill_dir: PathBuf,
    pub spill_limit: u64,
    pub statement_timeout: Duration,
    pub commit_interval: Duration,
    pub max_trigger_size: u64,
    pub snapshot_retention: Duration,
    pub snapshots_kept: u64,
    /// What holds for every flow.
    pub engine: EngineSettings,
    pub shutdown_timeout: Duration,
    pub log: String,
    pub log_format: LogFormat,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Options of the warehouse's store; keys may be among them.
#[derive(Clone, PartialEq, Eq)]
pub struct WarehouseOptions(pub StoreOptions);

impl std::fmt::Debug for WarehouseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Values by setting name, from one place.
pub type Values = BTreeMap<String, String>;

impl Config {
    /// Merges `flags` over `variables` over `file` over the defaults.
    pub fn load(flags: &Values, variables: &Values, file: Option<&Path>) -> Result<Self> {
        let file = file.map(read_file).transpose()?.unwrap_or_default();
        let sources = [flags, variables, &file];
        Self::from_values(&|name| sources.iter().find_map(|s| s.get(name).cloned()))
    }

    fn from_values(value: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let or_default = |name: &str| -> String {
            let default = || SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default).to_owned();
            value(name).unwrap_or_else(default)
        };
        let data_dir = PathBuf::from(or_default("data_dir"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |name: &str| match value(name) {
            None => Ok(cores),
            Some(v) => number(name, &v),
        };
        let time = |name: &str| positive(name, duration(name, &or_default(name))?);
        let count = |name: &str| number(name, &or_default(name)).map(|n| n as u64);
        let password = or_default("pg_password");
        Ok(Self {
            warehouse: warehouse(value("warehouse"), &data_dir)?,
            warehouse_options: warehouse_options(&or_default("warehouse_options"))?,
            metastore: metastore(value("metastore"), &data_dir)?,
            pg_listen: address("pg_listen", &or_default("pg_listen"))?,
            pg_user: or_default("pg_user"),
            pg_password: (!password.is_empty()).then_some(Secret(password)),
            pg_max_connections: number("pg_max_connections", &or_default("pg_max_connections"))?,
            pg_max_message: size("pg_max_message", &or_default("pg_max_message"))? as usize,
            pg_max_prepared: number("pg_max_prepared", &or_default("pg_max_prepared"))?,
            pg_startup_timeout: time("pg_startup_timeout")?,
            pg_idle_timeout: duration("pg_idle_timeout", &or_default("pg_idle_timeout"))?,
            tls: tls(value("tls_cert"), value("tls_key"))?,
            tls_required: boolean("tls_required", &or_default("tls_required"))?,
            flight_listen: address("flight_listen", &or_default("flight_listen"))?,
            flight_max_sessions: number("flight_max_sessions", &or_default("flight_max_sessions"))?,
            flight_max_message: size("flight_max_message", &or_default("flight_max_message"))? as usize,
            flight_session_timeout: duration("flight_session_timeout", &or_default("flight_session_timeout"))?,
            http_listen: address("http_listen", &or_default("http_listen"))?,
            query_threads: threads("query_threads")?,
            flow_threads: threads("flow_threads")?,
            query_memory: size("query_memory", &or_default("query_memory"))? as usize,
            flow_memory: size("flow_memory", &or_default("flow_memory"))? as usize,
            cache_memory: size("cache_memory", &or_default("cache_memory"))? as usize,
            spill_dir: value("spill_dir").map_or_else(|| data_dir.join("spill"), PathBuf::from),
            spill_limit: size("spill_limit", &or_default("spill_limit"))?,
            statement_timeout: duration("statement_timeout", &or_default("statement_timeout"))?,
            commit_interval: time("commit_interval")?,
            max_trigger_size: size("max_trigger_size", &or_default("max_trigger_size"))?,
            snapshot_retention: time("snapshot_retention")?,
            snapshots_kept: count("snapshots_kept")?,
            engine: EngineSettings {
                max_commit_interval: time("max_commit_interval")?,
                layout_poll: time("layout_poll")?,
                topic_gone_after: time("topic_gone_after")?,
                commit_timeout: time("commit_timeout")?,
                load_timeout: time("load_timeout")?,
                retry_min: time("retry_min")?,
                retry_max: time("retry_max")?,
                restart_min: time("restart_min")?,
                restart_max: time("restart_max")?,
                stable_after: time("stable_after")?,
                fence_watch: time("fence_watch")?,
                checkpoints_kept: count("checkpoints_kept")?,
                max_outbox_entries: number("max_outbox_entries", &or_default("max_outbox_entries"))?,
                max_replayed_ranges: number("max_replayed_ranges", &or_default("max_replayed_ranges"))?,
                maintain_commits: count("maintain_commits")?,
                maintain_interval: time("maintain_interval")?,
                compact_interval: duration("compact_interval", &or_default("compact_interval"))?,
                vacuum_interval: duration("vacuum_interval", &or_default("vacuum_interval"))?,
                drain_deadline: time("drain_deadline")?,
                ..EngineSettings::default()
            },
            shutdown_timeout: duration("shutdown_timeout", &or_default("shutdown_timeout"))?,
            log: or_default("log"),
            log_format: match or_default("log_format").as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => bail!("invalid value for setting \"log_format\": \"{other}\" (use text or json)"),
            },
            data_dir,
        })
    }
}

/// Variables with our prefix that are no settings: of tests, and of Kubernetes, which names some after a service.
const OTHER_VARIABLES: &[&str] = &["FAILPOINT", "E2E_DIR", "SLT_UPDATE", "PORT"];
const OTHER_PREFIXES: &[&str] = &["TEST_", "PORT_", "SERVICE_", "SECRET_"];

/// Settings among the process's environment variables. Any other with the prefix is refused, as it would be ignored.
pub fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Values> {
    let mut values = Values::new();
    for (key, value) in variables {
        let Some(rest) = key.to_str().and_then(|k| k.strip_prefix("TIDEWATER_")) else { continue };
        if OTHER_VARIABLES.contains(&rest) || OTHER_PREFIXES.iter().any(|p| rest.starts_with(p)) {
            continue;
        }
        let name = rest.to_lowercase();
        if !SETTINGS.iter().any(|s| s.name == name) || rest != name.to_uppercase() {
            let near = match similar(&name) {
                Some(near) => format!("did you mean TIDEWATER_{}?", near.to_uppercase()),
                None => {
                    "`tidewater settings` lists all settings; the value of a secret goes in TIDEWATER_SECRET_…, or \
                         in a variable without this prefix"
                        .to_owned()
                }
            };
            bail!("unknown variable TIDEWATER_{rest}; {near}");
        }
        let value = value.into_string().map_err(|_| anyhow!("the value of variable TIDEWATER_{rest} is not UTF-8"))?;
        values.insert(name, value);
    }
    Ok(values)
}

fn read_file(path: &Path) -> Result<Values> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_file(&text).with_context(|| format!("in {}", path.display()))
}

fn parse_file(text: &str) -> Result<Values> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| anyhow!("not valid TOML: {e}"))?;
    let mut values = Values::new();
    for (key, value) in table {
        let name = key.replace('-', "_");
        if !SETTINGS.iter().any(|s| s.name == name) {
            bail!("unknown setting \"{key}\"{}", nearest(&name));
        }
        let text = match value {
            toml::Value::String(s) => s,
            toml::Value::Integer(n) => n.to_string(),
            toml::Value::Boolean(b) => b.to_string(),
            other => bail!("setting \"{key}\" must be a string or a number, not {}", other.type_str()),
        };
        values.insert(name, text);
    }
    Ok(values)
}

fn similar(name: &str) -> Option<&'static str> {
    let scored = SETTINGS.iter().map(|s| (strsim::jaro_winkler(s.name, name), s.name));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.75).map(|(_, near)| near)
}

fn nearest(name: &str) -> String {
    match similar(name) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None => "; `tidewater settings` lists them all".to_owned(),
    }
}

fn invalid(name: &str, value: &str, use_: &str) -> anyhow::Error {
    anyhow!("invalid value for setting \"{name}\": \"{value}\" ({use_})")
}

fn address(name: &str, value: &str) -> Result<SocketAddr> {
    value.parse().map_err(|_| invalid(name, value, "use ADDRESS:PORT, as in 127.0.0.1:5433"))
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    value.parse().map_err(|_| invalid(name, value, "use true or false"))
}

fn tls(cert: Option<String>, key: Option<String>) -> Result<Option<TlsFiles>> {
    let given = |v: Option<String>| v.filter(|v| !v.is_empty()).map(PathBuf::from);
    match (given(cert), given(key)) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => bail!("tls_cert and tls_key belong together: set both or none"),
    }
}

fn number(name: &str, value: &str) -> Result<usize> {
    value.parse().ok().filter(|n| *n > 0).ok_or_else(|| invalid(name, value, "use a whole number from 1"))
}

fn duration(name: &str, value: &str) -> Result<Duration> {
    humantime::parse_duration(value)
        .map_err(|_| invalid(name, value, "use a number with a unit, as in 500ms, 2s, 5min"))
}

fn positive(name: &str, value: Duration) -> Result<Duration> {
    if value < Duration::from_millis(10) {
        bail!("invalid value for setting \"{name}\": it must be at least 10ms");
    }
    Ok(value)
}

/// `256MB` and `256MiB` both count in powers of two, as PostgreSQL's settings do.
fn size(name: &str, value: &str) -> Result<u64> {
    let bad = || invalid(name, value, "use a number with a unit, as in 512KiB, 64MiB, 2GiB");
    let value_trimmed = value.trim();
    let digits = value_trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(value_trimmed.len());
    let (number, unit) = value_trimmed.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(bad)
}

fn warehouse(value: Option<String>, data_dir: &Path) -> Result<String> {
    let Some(value) = value else { return absolute(&data_dir.join("warehouse")) };
    match value.split_once("://") {
        None => absolute(Path::new(&value)),
        Some(("file", path)) => absolute(Path::new(path)),
        Some(("s3" | "s3a" | "gs" | "abfs" | "abfss" | "az" | "wasbs", rest)) if !rest.trim_matches('/').is_empty() => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        Some(_) => Err(invalid("warehouse", &value, "use a directory, s3://BUCKET/PREFIX, gs://… or abfss://…")),
    }
}

fn absolute(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("{} is no usable path", path.display()))?;
    Ok(path.to_str().context("the path of the warehouse must be UTF-8")?.to_owned())
}

/// `name=value` parted by commas or line ends. Values are not repeated in errors: one may be a key.
fn warehouse_options(text: &str) -> Result<WarehouseOptions> {
    let mut options = StoreOptions::new();
    for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            bail!("invalid value for setting \"warehouse_options\": use NAME=VALUE,NAME=VALUE");
        };
        options.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    check_store_options(&options).map_err(|e| {
        let hint = e.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        anyhow!("invalid value for setting \"warehouse_options\": {}{hint}", e.message())
    })?;
    Ok(WarehouseOptions(options))
}

fn metastore(value: Option<String>, data_dir: &Path) -> Result<Database> {
    let database = match value {
        None => Database::Sqlite(data_dir.join("tidewater.db")),
        Some(value) => Database::parse(&value).map_err(|_| {
            // A URL may hold a password, so it is not repeated.
            anyhow!(
                "invalid value for setting \"metastore\" (use sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE)"
            )
        })?,
    };
    Ok(match database {
        Database::Sqlite(path) => Database::Sqlite(
            std::path::absolute(&path).with_context(|| format!("{} is no usable path", path.display()))?,
        ),
        postgres => postgres,
    })
}

/// The text of `tidewater settings`.
pub fn reference() -> String {
    use std::fmt::Write as _;
    let mut out = String::from("| setting | value | default | meaning |\n|---|---|---|---|\n");
    for s in SETTINGS {
        let shape = s.shape.replace('|', "\\|");
        let default = if s.default.is_empty() { String::new() } else { format!("`{}`", s.default) };
        let _ = writeln!(out, "| `{}` | {shape} | {default} | {} |", s.name, s.help);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn flags_win_over_variables_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, "data-dir = \"/f\"\npg_user = \"f\"\nquery_memory = \"1GiB\"").unwrap();
        let env = from_environment(
            [("TIDEWATER_DATA_DIR", "/e"), ("TIDEWATER_PG_USER", "e"), ("TIDEWATER_FAILPOINT", "x"), ("HOME", "/h")]
                .map(|(k, v)| (OsString::from(k), OsString::from(v)))
                .into_iter(),
        )
        .unwrap();
        let c = Config::load(&values(&[("data_dir", "/c")]), &env, Some(&path)).unwrap();
        assert_eq!((c.data_dir.to_str().unwrap(), c.pg_user.as_str(), c.query_memory), ("/c", "e", 1 << 30));
        assert_eq!(c.metastore, Database::Sqlite(PathBuf::from("/c/tidewater.db")));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let e = parse_file("pg_lisen = '1'").unwrap_err().to_string();
        assert_eq!(e, "unknown setting \"pg_lisen\"; did you mean \"pg_listen\"?");
        assert!(parse_file("zzz = 1").unwrap_err().to_string().contains("tidewater settings"));
        assert!(parse_file("[pg_listen]\na = 1").unwrap_err().to_string().contains("must be a string"));
    }

    #[test]
    fn unknown_variables_are_refused() {
        let read = |key: &str| from_environment([(OsString::from(key), OsString::from("1"))].into_iter());
        let e = read("TIDEWATER_PG_LISTN").unwrap_err().to_string();
        assert_eq!(e, "unknown variable TIDEWATER_PG_LISTN; did you mean TIDEWATER_PG_LISTEN?");
        assert!(read("TIDEWATER_ZZZ").unwrap_err().to_string().contains("tidewater settings"));
        // Not the variable that is read, on a system where case counts.
        assert!(read("TIDEWATER_pg_listen").is_err());
        for other in ["TIDEWATER_TEST_KAFKA", "TIDEWATER_SERVICE_HOST", "TIDEWATER_PORT_5433_TCP", "PG_LISTN"] {
            assert!(read(other).unwrap().is_empty(), "{other}");
        }
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size("s", "256 MB").unwrap(), 256 << 20);
        assert_eq!(size("s", "4096").unwrap(), 4096);
        for bad in ["", "0", "-1", "5 parsecs", "99999999999TiB"] {
            assert!(size("s", bad).is_err(), "{bad}");
        }
        assert!(Config::load(&values(&[("commit_interval", "0s")]), &Values::new(), None).is_err());
        assert!(Config::load(&values(&[("metastore", "mysql://x")]), &Values::new(), None).is_err());
        assert!(Config::load(&values(&[("warehouse", "hdfs://x")]), &Values::new(), None).is_err());
        let s3 =
            values(&[("warehouse", "s3://b/p/"), ("warehouse_options", "s3.region=eu, s3.path-style-access=true")]);
        let s3 = Config::load(&s3, &Values::new(), None).unwrap();
        assert_eq!((s3.warehouse.as_str(), s3.warehouse_options.0.len()), ("s3://b/p", 2));
        let slip = Config::load(&values(&[("warehouse_options", "s3.regio=hush")]), &Values::new(), None).unwrap_err();
        assert!(slip.to_string().contains("s3.regio") && !slip.to_string().contains("hush"), "{slip}");
        let postgres = values(&[("metastore", "postgres://u:hush@h/d")]);
        assert!(matches!(Config::load(&postgres, &Values::new(), None).unwrap().metastore, Database::Postgres(_)));
    }

    #[test]
    fn the_reference_page_is_current() {
        let page = include_str!("../../docs/reference/settings.md");
        assert!(page.ends_with(&reference()), "put the output of `tidewater settings` into docs/reference/settings.md");
    }

    /// The documented defaults are those that the engine has of itself.
    #[test]
    fn defaults_are_the_engines() {
        let c = Config::load(&Values::new(), &Values::new(), None).unwrap();
        assert_eq!(c.engine, EngineSettings::default());
        let given = values(&[("restart_max", "5min"), ("maintain_commits", "7"), ("pg_idle_timeout", "1min")]);
        let c = Config::load(&given, &Values::new(), None).unwrap();
        assert_eq!((c.engine.restart_max, c.engine.maintain_commits), (Duration::from_secs(300), 7));
        assert_eq!(c.pg_idle_timeout, Duration::from_secs(60));
        for (name, bad) in [("restart_min", "0s"), ("snapshots_kept", "0"), ("pg_startup_timeout", "30")] {
            assert!(Config::load(&values(&[(name, bad)]), &Values::new(), None).is_err(), "{name}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let c = Config::load(&values(&[("pg_password", "hunter2")]), &Values::new(), None).unwrap();
        assert!(!format!("{c:?}").contains("hunter2"));
    }
}
