use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use arrow::array::timezone::Tz;

use crate::engine::EngineDefaults;
use crate::error::Result;
use crate::session::Login;
use crate::{SqlError, SqlState};

/// The version of PostgreSQL whose manners we follow.
/// The layout of the catalog tables is that version's: psql asks for columns by the version that it is told.
pub(crate) const SERVER_VERSION: &str = "15.13";
const SERVER_VERSION_NUM: &str = "150013";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Stored as it comes: drivers set it, nothing here depends on it.
    Text,
    Bool,
    /// Smallest and largest value.
    Int(i64, i64),
    /// Milliseconds where no unit is given.
    Duration,
    OneOf(&'static [&'static str]),
    Encoding,
    DateStyle,
    TimeZone,
    SearchPath,
    /// Only SHOW.
    ReadOnly,
    /// May be set to the value that it has.
    Fixed,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// The client is told of every change (wire protocol, ParameterStatus).
    reported: bool,
    description: &'static str,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    reported: bool,
    description: &'static str,
) -> Setting {
    Setting { name, default, kind, reported, description }
}

/// Ours and those of PostgreSQL that drivers and tools set. Names as SHOW ALL prints them.
static SETTINGS: &[Setting] = &[
    setting("application_name", "", Kind::Text, true, "Name of the application, for lists of sessions."),
    setting("backslash_quote", "safe_encoding", Kind::Text, false, "Accepted and kept."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), false, "How bytea is printed."),
    setting("check_function_bodies", "on", Kind::Bool, false, "Accepted and kept."),
    setting("client_encoding", "UTF8", Kind::Encoding, true, "Encoding of the client; only UTF8."),
    setting("client_min_messages", "notice", Kind::Text, false, "Accepted and kept."),
    setting("constraint_exclusion", "partition", Kind::Text, false, "Accepted and kept."),
    setting("cursor_tuple_fraction", "0.1", Kind::Text, false, "Accepted and kept."),
    setting("DateStyle", "ISO, MDY", Kind::DateStyle, true, "How dates are printed; only ISO."),
    setting("default_tablespace", "", Kind::Text, false, "Accepted and kept."),
    setting("default_table_access_method", "heap", Kind::Text, false, "Accepted and kept."),
    setting("default_text_search_config", "pg_catalog.simple", Kind::Text, false, "Accepted and kept."),
    setting("default_transaction_deferrable", "off", Kind::Bool, false, "Accepted and kept."),
    setting(
        "default_transaction_isolation",
        "read committed",
        Kind::OneOf(&["read committed", "read uncommitted"]),
        false,
        "Isolation of new transactions.",
    ),
    setting("default_transaction_read_only", "off", Kind::Bool, true, "Whether new transactions refuse to write."),
    setting("escape_string_warning", "on", Kind::Bool, false, "Accepted and kept."),
    setting("extra_float_digits", "1", Kind::Int(-15, 3), false, "Accepted and kept; floats print shortest."),
    setting("gin_fuzzy_search_limit", "0", Kind::Text, false, "Accepted and kept."),
    setting("geqo", "on", Kind::Bool, false, "Accepted and kept."),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Duration,
        false,
        "Sessions in a transaction that send nothing for this long are closed; 0 is no limit.",
    ),
    setting("idle_session_timeout", "0", Kind::Duration, false, "Accepted and kept."),
    setting("in_hot_standby", "off", Kind::ReadOnly, true, "Always off."),
    setting("integer_datetimes", "on", Kind::ReadOnly, true, "Always on."),
    setting("IntervalStyle", "postgres", Kind::OneOf(&["postgres"]), true, "How intervals are printed."),
    setting("is_superuser", "on", Kind::ReadOnly, true, "Whether the user may do everything."),
    setting("jit", "off", Kind::Bool, false, "Accepted and kept."),
    setting("lc_collate", "C", Kind::ReadOnly, false, "Order of text: by code point."),
    setting("lc_ctype", "C", Kind::ReadOnly, false, "Classes of characters."),
    setting("lc_messages", "C", Kind::Text, false, "Accepted and kept."),
    setting("lc_monetary", "C", Kind::Text, false, "Accepted and kept."),
    setting("lc_numeric", "C", Kind::Text, false, "Accepted and kept."),
    setting("lc_time", "C", Kind::Text, false, "Accepted and kept."),
    setting("lock_timeout", "0", Kind::Duration, false, "Accepted and kept; there are no locks."),
    setting("log_min_duration_statement", "-1", Kind::Text, false, "Accepted and kept."),
    setting("log_statement", "none", Kind::Text, false, "Accepted and kept."),
    setting("maintenance_work_mem", "64MB", Kind::Text, false, "Accepted and kept."),
    setting("max_identifier_length", "63", Kind::ReadOnly, false, "Shown to tools; longer names work."),
    setting("max_index_keys", "32", Kind::ReadOnly, false, "Shown to tools."),
    setting("max_parallel_workers_per_gather", "2", Kind::Text, false, "Accepted and kept."),
    setting("password_encryption", "scram-sha-256", Kind::Text, false, "Accepted and kept."),
    setting("plan_cache_mode", "auto", Kind::Text, false, "Accepted and kept."),
    setting("quote_all_identifiers", "off", Kind::Bool, false, "Accepted and kept."),
    setting("random_page_cost", "4", Kind::Text, false, "Accepted and kept."),
    setting(
        "read_mode",
        "live",
        Kind::OneOf(&["live", "committed"]),
        false,
        "What a query of a streaming table sees: its last snapshot with the rows not committed yet (live), or without.",
    ),
    setting("row_security", "on", Kind::Bool, false, "Accepted and kept."),
    setting("search_path", "\"$user\", public", Kind::SearchPath, false, "Schemas in which bare names are looked up."),
    setting("server_encoding", "UTF8", Kind::ReadOnly, true, "Encoding of the server."),
    setting("server_version", SERVER_VERSION, Kind::ReadOnly, true, "Version of PostgreSQL that is followed."),
    setting("server_version_num", SERVER_VERSION_NUM, Kind::ReadOnly, false, "The same as a number."),
    setting("session_authorization", "", Kind::ReadOnly, true, "The user who signed in."),
    setting("session_replication_role", "origin", Kind::Text, false, "Accepted and kept."),
    setting("standard_conforming_strings", "on", Kind::Fixed, true, "Always on: backslashes stand for themselves."),
    setting("statement_timeout", "0", Kind::Duration, false, "Longest time a statement may take; 0 is no limit."),
    setting("synchronize_seqscans", "on", Kind::Bool, false, "Accepted and kept."),
    setting("synchronous_commit", "on", Kind::Text, false, "Accepted and kept."),
    setting("tcp_keepalives_count", "0", Kind::Text, false, "Accepted and kept."),
    setting("tcp_keepalives_idle", "0", Kind::Text, false, "Accepted and kept."),
    setting("tcp_keepalives_interval", "0", Kind::Text, false, "Accepted and kept."),
    setting("TimeZone", "UTC", Kind::TimeZone, true, "Zone in which timestamptz is read and printed."),
    setting(
        "transaction_isolation",
        "read committed",
        Kind::OneOf(&["read committed", "read uncommitted"]),
        false,
        "Isolation of the transaction.",
    ),
    setting("transaction_deferrable", "off", Kind::Bool, false, "Accepted and kept."),
    setting("transaction_read_only", "off", Kind::Bool, false, "Whether the transaction refuses to write."),
    setting("transform_null_equals", "off", Kind::Fixed, false, "Always off."),
    setting(
        "vacuum_min_retention",
        "86400000",
        Kind::Duration,
        false,
        "Shortest RETAIN that VACUUM takes: files of commits elsewhere that are under way are younger.",
    ),
    setting("work_mem", "4MB", Kind::Text, false, "Accepted and kept; queries share one memory limit."),
    setting("xmloption", "content", Kind::Text, false, "Accepted and kept."),
];

/// The settings of one session. A transaction that is rolled back takes its changes along.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Changed ones, by name as in [`SETTINGS`]; custom ones (`app.name`) as they came, in lower case.
    values: BTreeMap<String, String>,
    /// What RESET goes back to.
    defaults: BTreeMap<String, String>,
    /// Values at BEGIN.
    saved: Option<BTreeMap<String, String>>,
    /// Values before SET LOCAL; None where there was none.
    local: BTreeMap<String, Option<String>>,
}

const MAX_CUSTOM: usize = 1000;
const MAX_VALUE_BYTES: usize = 64 << 10;

impl Settings {
    pub(crate) fn for_login(defaults: &EngineDefaults, login: &Login) -> Result<Self> {
        let mut out = Self { values: BTreeMap::new(), defaults: BTreeMap::new(), saved: None, local: BTreeMap::new() };
        out.set("TimeZone", &defaults.time_zone)?;
        out.set("statement_timeout", &defaults.statement_timeout.as_millis().to_string())?;
        out.values.insert("session_authorization".to_owned(), login.user.clone());
        if !login.application_name.is_empty() {
            out.set("application_name", &login.application_name)?;
        }
        for (name, value) in &login.options {
            // These are not settings, they travel with them in the start-up message.
            if !matches!(name.as_str(), "user" | "database" | "replication" | "options") {
                out.set(name, value)?;
            }
        }
        out.defaults = out.values.clone();
        Ok(out)
    }

    /// SET. The value is what a string literal would hold.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = self.check(name, value)?;
        // A SET after a SET LOCAL is what stays when the transaction ends.
        self.local.remove(&name);
        self.values.insert(name, value);
        Ok(())
    }

    /// SET LOCAL: until the end of the transaction.
    pub(crate) fn set_local(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = self.check(name, value)?;
        let before = self.values.get(&name).cloned();
        self.local.entry(name.clone()).or_insert(before);
        self.values.insert(name, value);
        Ok(())
    }

    pub(crate) fn reset(&mut self, name: &str) -> Result<()> {
        let name = match find(name) {
            Some(s) if s.kind == Kind::ReadOnly => return Err(cannot_change(s.name)),
            Some(s) => s.name.to_owned(),
            None if name.contains('.') => name.to_lowercase(),
            None => return Err(unknown(name)),
        };
        self.local.remove(&name);
        match self.defaults.get(&name) {
            Some(default) => self.values.insert(name, default.clone()),
            None => self.values.remove(&name),
        };
        Ok(())
    }

    pub(crate) fn reset_all(&mut self) {
        self.values = self.defaults.clone();
        self.local.clear();
    }

    pub(crate) fn default_of(&self, name: &str) -> Result<String> {
        let s = find(name).ok_or_else(|| unknown(name))?;
        Ok(self.defaults.get(s.name).cloned().unwrap_or_else(|| s.default.to_owned()))
    }

    pub(crate) fn begin(&mut self) {
        self.saved = Some(self.values.clone());
    }

    pub(crate) fn end(&mut self, committed: bool) {
        let saved = self.saved.take();
        if !committed && let Some(saved) = saved {
            self.values = saved;
            self.local.clear();
        }
        for (name, before) in std::mem::take(&mut self.local) {
            match before {
                Some(value) => self.values.insert(name, value),
                None => self.values.remove(&name),
            };
        }
        for name in ["transaction_isolation", "transaction_read_only", "transaction_deferrable"] {
            self.values.remove(name);
        }
    }

    /// As SHOW prints it. None where there is no such setting.
    pub fn get(&self, name: &str) -> Option<String> {
        match find(name) {
            Some(s) => Some(self.value(s)),
            None => self.values.get(&name.to_lowercase()).cloned(),
        }
    }

    /// Like [`Settings::get`], with the error of SHOW.
    pub(crate) fn show(&self, name: &str) -> Result<(String, String)> {
        match find(name) {
            Some(s) => Ok((s.name.to_owned(), self.value(s))),
            None => match self.values.get(&name.to_lowercase()) {
                Some(value) => Ok((name.to_lowercase(), value.clone())),
                None => Err(unknown(name)),
            },
        }
    }

    /// Name, value and description of each, in the order of SHOW ALL.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> + '_ {
        SETTINGS.iter().map(|s| (s.name, self.value(s), s.description))
    }

    /// Those of which the client is told.
    pub(crate) fn reported(&self) -> Vec<(&'static str, String)> {
        SETTINGS.iter().filter(|s| s.reported).map(|s| (s.name, self.value(s))).collect()
    }

    fn value(&self, s: &Setting) -> String {
        let value = self.values.get(s.name).map_or(s.default, String::as_str);
        if s.kind == Kind::Duration { show_duration(value) } else { value.to_owned() }
    }

    /// Schemas in the order of the search; `$user` is left out, as there is no such schema by itself.
    pub fn search_path(&self) -> Vec<String> {
        split_names(self.values.get("search_path").map_or("public", String::as_str))
            .unwrap_or_default()
            .into_iter()
            .filter(|schema| schema != "$user")
            .collect()
    }

    /// As Arrow writes it: a name of the tz database, or `+hh:mm`.
    pub fn time_zone(&self) -> String {
        let shown = self.values.get("TimeZone").map_or("UTC", String::as_str);
        parse_time_zone(shown).map_or_else(|| "UTC".to_owned(), |(_, arrow)| arrow)
    }

    pub fn statement_timeout(&self) -> Option<Duration> {
        self.duration("statement_timeout").filter(|time| !time.is_zero())
    }

    pub(crate) fn idle_in_transaction(&self) -> Option<Duration> {
        self.duration("idle_in_transaction_session_timeout").filter(|time| !time.is_zero())
    }

    pub(crate) fn vacuum_min_retention(&self) -> Duration {
        self.duration("vacuum_min_retention").unwrap_or(Duration::MAX)
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        let default = || SETTINGS.iter().find(|s| s.name == name).map(|s| s.default);
        let value = self.values.get(name).map(String::as_str).or_else(default)?;
        value.parse().ok().map(Duration::from_millis)
    }

    /// Whether queries see rows of streaming tables that are not committed yet.
    pub(crate) fn reads_live(&self) -> bool {
        self.values.get("read_mode").is_none_or(|mode| mode == "live")
    }

    pub(crate) fn read_only(&self, in_block: bool) -> bool {
        let on = |name: &str| self.values.get(name).is_some_and(|v| v == "on");
        if in_block && self.values.contains_key("transaction_read_only") {
            on("transaction_read_only")
        } else {
            on("default_transaction_read_only")
        }
    }

    /// The name as it is stored, and the value in its canonical form.
    fn check(&self, name: &str, value: &str) -> Result<(String, String)> {
        if value.len() > MAX_VALUE_BYTES || name.len() > 1024 {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER, "value of a setting is too long"));
        }
        let Some(s) = find(name) else {
            if !name.contains('.') {
                return Err(unknown(name));
            }
            if self.values.len() >= MAX_CUSTOM {
                return Err(SqlError::new(SqlState::TOO_COMPLEX, "too many settings in one session"));
            }
            return Ok((name.to_lowercase(), value.to_owned()));
        };
        let value = match s.kind {
            Kind::Text => value.to_owned(),
            Kind::Bool => parse_bool(value).ok_or_else(|| {
                SqlError::new(SqlState::INVALID_PARAMETER, format!("parameter \"{}\" requires a Boolean value", s.name))
            })?,
            Kind::Int(min, max) => match value.trim().parse::<i64>() {
                Ok(n) if (min..=max).contains(&n) => n.to_string(),
                Ok(n) => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER,
                        format!("{n} is outside the valid range for parameter \"{}\" ({min} .. {max})", s.name),
                    ));
                }
                Err(_) => return Err(invalid(s.name, value)),
            },
            Kind::Duration => parse_duration_ms(value)
                .ok_or_else(|| {
                    invalid(s.name, value).with_hint("Valid units are \"us\", \"ms\", \"s\", \"min\", \"h\" and \"d\".")
                })?
                .to_string(),
            Kind::OneOf(choices) => {
                let lower = value.trim().to_lowercase();
                match choices.iter().find(|c| **c == lower) {
                    Some(choice) => (*choice).to_owned(),
                    None => {
                        return Err(
                            invalid(s.name, value).with_hint(format!("Available values: {}.", choices.join(", ")))
                        );
                    }
                }
            }
            Kind::Encoding => {
                let bare: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                match bare.to_lowercase().as_str() {
                    "utf8" | "unicode" => "UTF8".to_owned(),
                    _ => {
                        return Err(SqlError::unsupported(format!("encoding \"{value}\" is not supported"))
                            .with_hint("Use UTF8."));
                    }
                }
            }
            Kind::DateStyle => date_style(value, &self.value(s))?,
            Kind::TimeZone => match parse_time_zone(value) {
                Some((shown, _)) => shown,
                None => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER,
                        format!("invalid value for parameter \"TimeZone\": \"{value}\""),
                    ));
                }
            },
            Kind::SearchPath => match split_names(value) {
                Some(_) => value.to_owned(),
                None => return Err(invalid(s.name, value).with_detail("List syntax is invalid.")),
            },
            Kind::ReadOnly => return Err(cannot_change(s.name)),
            Kind::Fixed => {
                if parse_bool(value).as_deref() != Some(s.default) {
                    return Err(SqlError::unsupported(format!(
                        "parameter \"{}\" cannot be set to \"{value}\"",
                        s.name
                    )));
                }
                s.default.to_owned()
            }
        };
        Ok((s.name.to_owned(), value))
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}

fn unknown(name: &str) -> SqlError {
    let error = SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""));
    let lower = name.to_lowercase();
    let nearest = SETTINGS
        .iter()
        .map(|s| (strsim::damerau_levenshtein(&lower, &s.name.to_lowercase()), s.name))
        .min()
        .filter(|(distance, nearest)| *distance <= 1 + nearest.len() / 4);
    match nearest {
        Some((_, nearest)) => error.with_hint(format!("Perhaps you meant \"{nearest}\".")),
        None => error,
    }
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER, format!("invalid value for parameter \"{name}\": \"{value}\""))
}

fn cannot_change(name: &str) -> SqlError {
    SqlError::new(SqlState("55P02"), format!("parameter \"{name}\" cannot be changed"))
}

fn parse_bool(value: &str) -> Option<String> {
    let lower = value.trim().to_lowercase();
    let on = match lower.as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => true,
        "off" | "false" | "no" | "0" | "f" | "n" => false,
        _ => return None,
    };
    Some(if on { "on" } else { "off" }.to_owned())
}

/// PostgreSQL's units; without one, milliseconds. Rounded to milliseconds.
fn parse_duration_ms(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let ms = (number * factor).round();
    (0.0..=f64::from(i32::MAX)).contains(&ms).then_some(ms as u64)
}

/// The largest unit that divides it, as PostgreSQL shows durations.
fn show_duration(ms: &str) -> String {
    let Ok(ms) = ms.parse::<u64>() else { return ms.to_owned() };
    if ms == 0 {
        return "0".to_owned();
    }
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)] {
        if ms % factor == 0 {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

fn date_style(value: &str, current: &str) -> Result<String> {
    let mut order = current.rsplit(", ").next().unwrap_or("MDY").to_owned();
    for word in value.split(',').map(|w| w.trim().to_lowercase()) {
        match word.as_str() {
            "iso" | "default" => {}
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY".to_owned(),
            "dmy" | "euro" | "european" => order = "DMY".to_owned(),
            "ymd" => order = "YMD".to_owned(),
            "sql" | "postgres" | "german" => {
                return Err(SqlError::unsupported(format!("DateStyle \"{word}\" is not supported"))
                    .with_hint("Dates are printed in ISO style."));
            }
            _ => return Err(invalid("DateStyle", value)),
        }
    }
    Ok(format!("ISO, {order}"))
}

/// How it is shown, and how Arrow writes it. A bare number counts hours east of UTC (as in SQL); a POSIX zone
/// (`<+02>-02`, `+05:30`) counts west, as PostgreSQL prints the former.
pub(crate) fn parse_time_zone(value: &str) -> Option<(String, String)> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    for name in ["UTC", "GMT", "Zulu"] {
        if value.eq_ignore_ascii_case(name) {
            return Some((name.to_owned(), "UTC".to_owned()));
        }
    }
    if value.eq_ignore_ascii_case("default") || value.eq_ignore_ascii_case("local") {
        return Some(("UTC".to_owned(), "UTC".to_owned()));
    }
    if let Ok(hours) = value.parse::<f64>() {
        return offset_zone((hours * 60.0).round() as i64);
    }
    // POSIX: an abbreviation, then hours west of UTC.
    let bare = value.starts_with(['+', '-']);
    let rest = if let Some(rest) = value.strip_prefix('<') {
        rest.split_once('>').map(|(_, rest)| rest)
    } else if bare {
        Some(value)
    } else {
        let letters = value.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(value.len());
        (letters >= 3 && letters < value.len() && value[letters..].starts_with(['+', '-'])).then(|| &value[letters..])
    };
    if let Some(rest) = rest {
        let (sign, rest) = match rest.as_bytes().first()? {
            b'+' => (-1, &rest[1..]),
            b'-' => (1, &rest[1..]),
            _ => (-1, rest),
        };
        let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
            return None;
        }
        let (name, zone) = offset_zone(sign * (hours * 60 + minutes))?;
        // `+05:30` is west of Greenwich too, and keeps its spelling, which reads the same again.
        return Some((if bare { value.to_owned() } else { name }, zone));
    }
    Tz::from_str(value).ok().map(|_| (value.to_owned(), value.to_owned()))
}

fn offset_zone(minutes_east: i64) -> Option<(String, String)> {
    if minutes_east.abs() > 15 * 60 + 59 {
        return None;
    }
    let (hours, minutes) = (minutes_east.abs() / 60, minutes_east.abs() % 60);
    let (east, west) = if minutes_east < 0 { ('-', '+') } else { ('+', '-') };
    let tail = if minutes == 0 { String::new() } else { format!(":{minutes:02}") };
    Some((format!("<{east}{hours:02}{tail}>{west}{hours:02}{tail}"), format!("{east}{hours:02}:{minutes:02}")))
}

/// A list of identifiers, folded where they are not quoted. None where it is not one.
fn split_names(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list.trim();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut out = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        out.push('"');
                        chars.next();
                    }
                    (i, '"') => break i + 1,
                    (_, c) => out.push(c),
                }
            };
            name = out;
            rest = quoted[end..].trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            name = rest[..end].trim().to_lowercase();
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '"') {
                return None;
            }
            rest = &rest[end..];
        }
        names.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return rest.is_empty().then_some(names),
        }
    }
}
