//! The options of streams and streaming tables, typed, with their defaults.

use std::time::Duration;

use tidewater_catalogs::{OnError, StartPosition, StreamFormat};
use tidewater_streaming::FlowSettings;

use super::errors::bad_value;
use super::options::{OptionValue, Options, Reader, parse_duration, parse_timestamp_ms};
use crate::SqlError;

const STREAM_CHOICES: &[&str] = &[
    "connection",
    "topic",
    "format",
    "start",
    "on_error",
    "isolation",
    "key",
    "create_topic",
    "partitions",
    "infer_rows",
    "validate",
    "key_format",
    "envelope",
    "evolve",
    "topics",
    "topic_pattern",
    "registry",
    "subject",
    "idle_timeout",
    "partitioner",
    "transactional",
    "connector",
    "path",
];

const FLOW_CHOICES: &[&str] = &[
    "commit_interval",
    "target_file_size",
    "parallelism",
    "memory",
    "max_trigger_size",
    "heartbeat",
    "on_error",
    "skip_data_loss",
    "start",
    "write_mode",
    "branch",
    "state_ttl",
    "late_rows",
    "freshness_slo",
    "replace",
];

const FORMATS: &[(&str, StreamFormat)] =
    &[("json", StreamFormat::Json), ("raw", StreamFormat::Raw), ("text", StreamFormat::Text)];
const FORMATS_LATER: &[&str] = &["avro", "protobuf", "csv"];
const ON_ERROR: &[(&str, OnError)] = &[("dlq", OnError::Dlq), ("fail", OnError::Fail), ("skip", OnError::Skip)];

const START_HINT: &str = "Use \"earliest\", \"latest\", a timestamp like '2026-08-01 00:00:00Z', a time back like \
                          '7 d', or offsets like '{\"0\": 10, \"1\": 42}'.";

/// Where to begin, before "back from now" has become a time.
#[derive(Debug, Clone, PartialEq)]
pub enum StartOption {
    At(StartPosition),
    Back(Duration),
}

impl StartOption {
    pub fn resolve(&self, now_ms: i64) -> StartPosition {
        match self {
            Self::At(position) => position.clone(),
            Self::Back(back) => {
                let back = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
                StartPosition::Timestamp(now_ms.saturating_sub(back).max(0))
            }
        }
    }
}

/// `WITH (…)` of CREATE STREAM.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamOptions {
    pub connection: String,
    pub topic: String,
    pub format: StreamFormat,
    pub start: StartOption,
    pub on_error: OnError,
    pub read_uncommitted: bool,
    pub key_column: Option<String>,
    pub create_topic: bool,
    pub partitions: i32,
    pub infer_rows: usize,
    /// Whether the topic must be there.
    pub validate: bool,
}

impl StreamOptions {
    /// `name` is the stream's, for errors.
    pub fn read(options: &Options, name: &str) -> Result<Self, SqlError> {
        let owner = format!("stream \"{name}\"");
        let r = Reader::new(options, owner.clone(), STREAM_CHOICES)?;
        r.refuse_later(&["topics", "topic_pattern"], "Create one stream per topic, with topic = '…'.")?;
        r.refuse_later(&["registry", "subject"], "Declare the columns of a JSON stream, or leave the list out.")?;
        r.refuse_later(&["idle_timeout"], "It belongs to watermarks, which this version does not have yet.")?;
        r.refuse_later(&["connector", "path"], "Streams read Kafka topics: give connection = '…' and topic = '…'.")?;
        r.refuse_later(&["partitioner"], "Leave it out: the producer's default partitioner is used.")?;
        if r.bool("transactional")? == Some(true) {
            r.refuse_later(&["transactional"], "Leave it out: INSERT waits until the broker has every record.")?;
        }
        r.choice("key_format", &[("raw", ())], &["json", "avro", "protobuf", "csv", "text"])?;
        r.choice("envelope", &[("none", ())], &["upsert", "debezium"])?;
        r.choice("evolve", &[("none", ())], &["add", "widen"])?;
        let required = |option: &str, hint: &str| {
            bad_value(format!("option \"{option}\" of {owner} is missing"), hint.to_string())
        };
        let connection = r
            .text("connection")?
            .ok_or_else(|| required("connection", "Say WITH (connection = '…', topic = '…')."))?
            .to_string();
        let topic =
            r.text("topic")?.ok_or_else(|| required("topic", "Say WITH (connection = '…', topic = '…')."))?.to_string();
        if topic.is_empty() || topic.len() > 249 {
            return Err(r.refuse_text("topic", "A topic's name has 1 to 249 characters."));
        }
        let create_topic = r.bool("create_topic")?.unwrap_or(false);
        let partitions = r.int("partitions", 1, 10_000)?;
        if partitions.is_some() && !create_topic {
            return Err(bad_value(
                format!("option \"partitions\" of {owner} needs create_topic"),
                "Add create_topic = true, or leave partitions out.",
            ));
        }
        Ok(Self {
            connection,
            topic,
            format: r.choice("format", FORMATS, FORMATS_LATER)?.unwrap_or_default(),
            start: start(&r, options, "start")?.unwrap_or(StartOption::At(StartPosition::Earliest)),
            on_error: r.choice("on_error", ON_ERROR, &["null"])?.unwrap_or_default(),
            read_uncommitted: r
                .choice("isolation", &[("read_committed", false), ("read_uncommitted", true)], &[])?
                .unwrap_or(false),
            key_column: r.text("key")?.map(str::to_string),
            create_topic,
            partitions: partitions.map_or(1, |n| i32::try_from(n).unwrap_or(1)),
            infer_rows: r.int("infer_rows", 1, 1_000_000)?.map_or(1000, |n| n as usize),
            validate: r.bool("validate")?.unwrap_or(true),
        })
    }
}

/// `WITH (…)` of DESCRIBE STREAM INFERRED.
#[derive(Debug, Clone, PartialEq)]
pub struct InferOptions {
    pub format: StreamFormat,
    pub infer_rows: usize,
}

impl InferOptions {
    pub fn read(options: &Options) -> Result<Self, SqlError> {
        let r = Reader::new(options, "DESCRIBE STREAM INFERRED".to_string(), &["format", "infer_rows"])?;
        Ok(Self {
            format: r.choice("format", FORMATS, FORMATS_LATER)?.unwrap_or_default(),
            infer_rows: r.int("infer_rows", 1, 1_000_000)?.map_or(1000, |n| n as usize),
        })
    }
}

/// `WITH (…)` of CREATE STREAMING TABLE and SET (…) of ALTER FLOW. None: the server's default, for `start` and
/// `on_error` the stream's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowOptions {
    pub commit_interval: Option<Duration>,
    pub target_file_size: Option<u64>,
    pub parallelism: Option<usize>,
    pub memory_bytes: Option<u64>,
    pub max_trigger_bytes: Option<u64>,
    pub heartbeat: Option<Duration>,
    pub on_error: Option<OnError>,
    pub skip_data_loss: Option<bool>,
    pub start: Option<StartOption>,
}

impl FlowOptions {
    /// `owner` as errors name it: `streaming table "orders"`.
    pub fn read(options: &Options, owner: &str) -> Result<Self, SqlError> {
        let r = Reader::new(options, owner.to_string(), FLOW_CHOICES)?;
        let stateless = "Streaming tables filter and transform rows one by one today; leave the option out.";
        r.refuse_later(&["state_ttl", "late_rows"], stateless)?;
        r.refuse_later(&["freshness_slo"], "Watch system.flow_lag instead.")?;
        r.refuse_later(&["replace"], "Drop the streaming table and create it again.")?;
        r.choice("write_mode", &[("auto", ())], &["mor", "cow"])?;
        r.choice("branch", &[("main", ())], &[])?;
        Ok(Self {
            commit_interval: r.duration(
                "commit_interval",
                Duration::from_millis(50),
                Duration::from_secs(24 * 3600),
            )?,
            target_file_size: r.size("target_file_size", 1 << 20, 16 << 30)?,
            parallelism: r.int("parallelism", 1, 256)?.map(|n| n as usize),
            memory_bytes: r.size("memory", 16 << 20, 1 << 40)?,
            max_trigger_bytes: r.size("max_trigger_size", 64 << 10, 1 << 40)?,
            heartbeat: r.duration("heartbeat", Duration::from_secs(1), Duration::from_secs(24 * 3600))?,
            on_error: r.choice("on_error", ON_ERROR, &["null"])?,
            skip_data_loss: r.bool("skip_data_loss")?,
            start: start(&r, options, "start")?,
        })
    }

    /// `name` is an option that SET and RESET know.
    pub fn check_name(name: &str, owner: &str) -> Result<(), SqlError> {
        super::options::known(name, owner, FLOW_CHOICES)
    }

    pub fn settings(&self, defaults: &FlowSettings, stream_on_error: OnError) -> FlowSettings {
        FlowSettings {
            commit_interval: self.commit_interval.unwrap_or(defaults.commit_interval),
            max_trigger_bytes: self.max_trigger_bytes.unwrap_or(defaults.max_trigger_bytes),
            parallelism: self.parallelism.unwrap_or(defaults.parallelism),
            on_error: self.on_error.unwrap_or(stream_on_error),
            memory_bytes: self.memory_bytes.unwrap_or(defaults.memory_bytes),
            heartbeat: self.heartbeat.unwrap_or(defaults.heartbeat),
            skip_data_loss: self.skip_data_loss.unwrap_or(defaults.skip_data_loss),
        }
    }
}

fn start(r: &Reader<'_>, options: &Options, name: &str) -> Result<Option<StartOption>, SqlError> {
    let text = match options.get(name) {
        None => return Ok(None),
        Some(OptionValue::Text(text)) => text.trim(),
        Some(_) => return Err(r.refuse_text(name, START_HINT)),
    };
    let at = |position| Some(StartOption::At(position));
    let found = if text.eq_ignore_ascii_case("earliest") {
        at(StartPosition::Earliest)
    } else if text.eq_ignore_ascii_case("latest") || text.eq_ignore_ascii_case("now") {
        at(StartPosition::Latest)
    } else if text.starts_with('{') {
        offsets(text).map(|o| StartOption::At(StartPosition::Offsets(o)))
    } else if let Some(back) = parse_duration(text) {
        Some(StartOption::Back(back))
    } else {
        parse_timestamp_ms(text).map(|ms| StartOption::At(StartPosition::Timestamp(ms)))
    };
    found.map(Some).ok_or_else(|| r.refuse_text(name, START_HINT))
}

/// `{"0": 17}`: one offset per partition.
pub(super) fn offsets(text: &str) -> Option<tidewater_catalogs::Offsets> {
    let map: std::collections::BTreeMap<String, i64> = serde_json::from_str(text).ok()?;
    if map.is_empty() {
        return None;
    }
    map.into_iter()
        .map(|(p, o)| {
            let p: i32 = p.parse().ok()?;
            (p >= 0 && o >= 0).then_some((p, o))
        })
        .collect()
}
