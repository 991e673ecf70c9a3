//! Options of `CREATE CONNECTION … TO KAFKA`, and the librdkafka settings that they become.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use tidewater_catalogs::{ConnectionSpec, Error, Result};

pub(crate) const OPTIONS: &[&str] = &[
    "brokers",
    "security",
    "sasl_mechanism",
    "username",
    "password",
    "ssl_ca",
    "ssl_certificate",
    "ssl_key",
    "ssl_key_password",
    "timeout",
    "properties",
];

const SECURITY: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const MECHANISMS: &[&str] = &["plain", "scram-sha-256", "scram-sha-512"];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of librdkafka that `properties` may not change, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use the option brokers"),
    ("metadata.broker.list", "use the option brokers"),
    ("security.protocol", "use the option security"),
    ("sasl.mechanism", "use the option sasl_mechanism"),
    ("sasl.mechanisms", "use the option sasl_mechanism"),
    ("sasl.username", "use the option username"),
    ("sasl.password", "use the option password"),
    ("ssl.ca.location", "use the option ssl_ca"),
    ("ssl.ca.pem", "use the option ssl_ca"),
    ("ssl.certificate.location", "use the option ssl_certificate"),
    ("ssl.certificate.pem", "use the option ssl_certificate"),
    ("ssl.key.location", "use the option ssl_key"),
    ("ssl.key.pem", "use the option ssl_key"),
    ("ssl.key.password", "use the option ssl_key_password"),
    ("group.id", "offsets are kept with the tables, not in a consumer group"),
    ("group.instance.id", "offsets are kept with the tables, not in a consumer group"),
    ("enable.auto.commit", "offsets are kept with the tables, not in a consumer group"),
    ("auto.commit.enable", "offsets are kept with the tables, not in a consumer group"),
    ("auto.commit.interval.ms", "offsets are kept with the tables, not in a consumer group"),
    ("enable.auto.offset.store", "offsets are kept with the tables, not in a consumer group"),
    ("auto.offset.reset", "a lost offset has to be an error; use the stream's option start"),
    ("isolation.level", "use the stream's option isolation"),
    ("enable.partition.eof", "positions behind control records depend on it"),
    ("check.crcs", "broken records have to be noticed"),
    ("enable.idempotence", "INSERT depends on it"),
    ("acks", "INSERT depends on it"),
    ("request.required.acks", "INSERT depends on it"),
    ("transactional.id", "INSERT does not use transactions"),
    ("allow.auto.create.topics", "use the stream's option create_topic"),
    ("plugin.library.paths", "it would load foreign code into the server"),
    ("ssl.engine.location", "it would load foreign code into the server"),
    ("ssl.providers", "it would load foreign code into the server"),
    ("sasl.kerberos.kinit.cmd", "it would run a command on the server"),
];

/// How far a reader reads ahead. librdkafka looks at its queue before it asks for more, and what then comes is unpacked
/// at once, to several times its size, with some 300 bytes of its own for each record. So what it may hold is asked
/// for in small portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Decoded batches.
    pub(crate) decoded_bytes: usize,
    /// Records in librdkafka's queue; above this, or this number of them, it does not ask for more.
    queued_kib: usize,
    queued_messages: usize,
    /// One answer of a broker, packed.
    fetch_bytes: usize,
}

impl Ahead {
    pub(crate) fn within(bytes: usize) -> Self {
        let queued = (bytes / 8).clamp(1 << 20, 64 << 20);
        Self {
            decoded_bytes: bytes / 2,
            queued_kib: queued >> 10,
            queued_messages: queued / 512,
            fetch_bytes: (bytes / 16).clamp(1 << 20, 16 << 20),
        }
    }
}

/// A connection's options, checked.
#[derive(Clone)]
pub(crate) struct Options {
    /// How long a question to the broker may take.
    pub(crate) timeout: Duration,
    /// How many brokers are named.
    pub(crate) brokers: usize,
    base: ClientConfig,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Options {
    pub(crate) fn new(connection: &ConnectionSpec) -> Result<Self> {
        let get = |name: &str| connection.options.get(name).map(String::as_str);
        let wrong = |name: &str, value: &str| {
            Error::invalid(format!(
                "invalid value for option \"{name}\" of connection \"{}\": \"{value}\"",
                connection.name
            ))
        };
        if let Some(unknown) = connection.options.keys().find(|k| !OPTIONS.contains(&k.as_str())) {
            return Err(Error::invalid(format!("connection \"{}\" has no option \"{unknown}\"", connection.name))
                .with_hint(format!("Options are {}.", OPTIONS.join(", "))));
        }

        let mut config = ClientConfig::new();
        // What is logged goes through tracing, with its own filter.
        config.set_log_level(RDKafkaLogLevel::Info);
        let brokers = get("brokers").map(str::trim).unwrap_or_default();
        if brokers.is_empty() || brokers.split(',').any(|b| b.trim().is_empty()) {
            return Err(Error::invalid(format!(
                "option \"brokers\" of connection \"{}\" names no broker",
                connection.name
            ))
            .with_hint("Write brokers = 'host1:9092,host2:9092'."));
        }
        config.set("bootstrap.servers", brokers);

        let sasl_wanted = get("sasl_mechanism").or(get("username")).or(get("password")).is_some();
        let security = match get("security") {
            Some(text) => {
                let lower = text.to_ascii_lowercase().replace('-', "_");
                *SECURITY
                    .iter()
                    .find(|s| **s == lower)
                    .ok_or_else(|| wrong("security", text).with_hint(format!("Use {}.", choices(SECURITY))))?
            }
            None if sasl_wanted => {
                return Err(Error::invalid(format!(
                    "connection \"{}\" has a user name or password, but no option \"security\"",
                    connection.name
                ))
                .with_hint("Add security = 'sasl_ssl', or 'sasl_plaintext' where the broker has no TLS."));
            }
            None => "plaintext",
        };
        config.set("security.protocol", security);

        if security.starts_with("sasl") {
            let text = get("sasl_mechanism").unwrap_or("plain");
            let lower = text.to_ascii_lowercase().replace('_', "-");
            if !MECHANISMS.contains(&lower.as_str()) {
                return Err(wrong("sasl_mechanism", text).with_hint(format!("Use {}.", choices(MECHANISMS))));
            }
            config.set("sasl.mechanism", lower.to_ascii_uppercase());
            for (name, setting) in [("username", "sasl.username"), ("password", "sasl.password")] {
                let value = get(name).filter(|v| !v.is_empty()).ok_or_else(|| {
                    Error::invalid(format!("connection \"{}\" needs the option \"{name}\"", connection.name))
                        .with_detail(format!("Security {security} signs in with a user name and a password."))
                })?;
                config.set(setting, value);
            }
        } else if sasl_wanted {
            return Err(Error::invalid(format!(
                "connection \"{}\" has a user name or password, but security {security} does not sign in",
                connection.name
            ))
            .with_hint("Use security = 'sasl_ssl' or 'sasl_plaintext', or leave out username and password."));
        }

        let tls = security.ends_with("ssl");
        for (name, file, pem) in [
            ("ssl_ca", "ssl.ca.location", "ssl.ca.pem"),
            ("ssl_certificate", "ssl.certificate.location", "ssl.certificate.pem"),
            ("ssl_key", "ssl.key.location", "ssl.key.pem"),
            ("ssl_key_password", "ssl.key.password", "ssl.key.password"),
        ] {
            let Some(value) = get(name) else { continue };
            if !tls {
                return Err(Error::invalid(format!(
                    "option \"{name}\" of connection \"{}\" has no effect with security {security}",
                    connection.name
                ))
                .with_hint("Use security = 'ssl' or 'sasl_ssl'."));
            }
            config.set(if value.contains("-----BEGIN") { pem } else { file }, value);
        }
        if get("ssl_certificate").is_some() != get("ssl_key").is_some() {
            return Err(Error::invalid(format!(
                "connection \"{}\" needs both \"ssl_certificate\" and \"ssl_key\", or neither",
                connection.name
            )));
        }

        let timeout = match get("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(text) => parse_duration(text)
                .filter(|t| *t >= Duration::from_millis(100) && *t <= Duration::from_secs(600))
                .ok_or_else(|| wrong("timeout", text).with_hint("Use a duration from '100 ms' to '10 min'."))?,
        };

        if let Some(text) = get("properties") {
            set_properties(&mut config, connection, text)?;
        }
        let options = Self { timeout, brokers: brokers.split(',').count(), base: config };
        // librdkafka checks names and values itself, and opens no socket for it.
        options.base.create_native_config().map_err(|e| config_error(&connection.name, e))?;
        Ok(options)
    }

    /// For questions: metadata, offsets, topics.
    pub(crate) fn client(&self, read_uncommitted: bool) -> ClientConfig {
        let mut config = self.base.clone();
        config.set("isolation.level", isolation(read_uncommitted));
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// For reading: see the table of settings in [`crate::reader`].
    pub(crate) fn consumer(&self, read_uncommitted: bool, endless: bool, ahead: &Ahead) -> ClientConfig {
        let mut config = self.client(read_uncommitted);
        let mut default = |name: &str, value: &str| {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        };
        // An endless reader would rather wait a moment than fetch crumbs; a query wants its last record at once.
        default("fetch.min.bytes", if endless { "1048576" } else { "1" });
        default("fetch.wait.max.ms", "50");
        default("fetch.max.bytes", &ahead.fetch_bytes.to_string());
        default("max.partition.fetch.bytes", &ahead.fetch_bytes.to_string());
        default("queued.max.messages.kbytes", &ahead.queued_kib.to_string());
        default("queued.min.messages", &ahead.queued_messages.to_string());
        // A full queue is drained in a tenth of a second; the usual pause of a whole one would leave us idle.
        default("fetch.queue.backoff.ms", "10");
        default("fetch.error.backoff.ms", "100");
        default("reconnect.backoff.max.ms", "2000");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        config.set("check.crcs", "true");
        config
    }

    /// For INSERT: each record once and in order, or an error.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.base.clone();
        let mut default = |name: &str, value: &str| {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        };
        default("linger.ms", "5");
        default("compression.type", "lz4");
        default("message.timeout.ms", &self.timeout.max(Duration::from_secs(30)).as_millis().to_string());
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config
    }
}

fn isolation(read_uncommitted: bool) -> &'static str {
    if read_uncommitted { "read_uncommitted" } else { "read_committed" }
}

fn choices(names: &[&str]) -> String {
    match names {
        [head @ .., last] if !head.is_empty() => {
            format!("\"{}\" or \"{last}\"", head.join("\", \""))
        }
        _ => names.join(""),
    }
}

fn set_properties(config: &mut ClientConfig, connection: &ConnectionSpec, text: &str) -> Result<()> {
    let wrong = |what: String| {
        Error::invalid(format!("invalid option \"properties\" of connection \"{}\": {what}", connection.name))
            .with_hint("Write a JSON object of librdkafka settings: '{\"fetch.max.bytes\": 52428800}'.")
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|e| wrong(format!("it is no JSON object ({e})")))?;
    for (name, value) in object {
        if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| *owned == name) {
            return Err(wrong(format!("\"{name}\" cannot be set here: {reason}")));
        }
        let value = match value {
            serde_json::Value::String(s) => s,
            serde_json::Value::Number(n) => n.to_string(),
            serde_json::Value::Bool(b) => b.to_string(),
            _ => return Err(wrong(format!("the value of \"{name}\" has to be a string, a number or a boolean"))),
        };
        config.set(name, value);
    }
    Ok(())
}

/// Says which setting is wrong; never shows a value, which may be a secret.
pub(crate) fn config_error(connection: &str, e: KafkaError) -> Error {
    match e {
        KafkaError::ClientConfig(_, text, name, value) => {
            let text = if value.is_empty() { text } else { text.replace(&value, "…") };
            Error::invalid(format!("connection \"{connection}\" has a wrong setting \"{name}\"")).with_detail(text)
        }
        KafkaError::ClientCreation(text) => {
            Error::invalid(format!("connection \"{connection}\" cannot be used")).with_detail(text)
        }
        other => Error::invalid(format!("connection \"{connection}\" cannot be used")).with_source(other),
    }
}

/// `10 s`, `500ms`, `2 min`.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let n: u64 = text[..digits].parse().ok()?;
    let ms = match text[digits..].trim() {
        "ms" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(n.checked_mul(ms)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use tidewater_catalogs::ErrorKind;

    fn options(pairs: &[(&str, &str)]) -> Result<Options> {
        Options::new(&ConnectionSpec {
            name: "k".into(),
            kind: "kafka".into(),
            options: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        })
    }

    #[test]
    fn wrong_options_are_named_with_their_choices() {
        for (pairs, message) in [
            (vec![], "names no broker"),
            (vec![("brokers", "a,,b")], "names no broker"),
            (vec![("brokers", "a"), ("securty", "ssl")], "no option \"securty\""),
            (vec![("brokers", "a"), ("security", "tls")], "\"security\" of connection \"k\": \"tls\""),
            (vec![("brokers", "a"), ("username", "u")], "no option \"security\""),
            (vec![("brokers", "a"), ("security", "ssl"), ("username", "u")], "does not sign in"),
            (vec![("brokers", "a"), ("security", "sasl_ssl"), ("username", "u")], "needs the option \"password\""),
            (vec![("brokers", "a"), ("ssl_ca", "x")], "no effect"),
            (vec![("brokers", "a"), ("timeout", "soon")], "\"timeout\""),
            (vec![("brokers", "a"), ("properties", "[]")], "no JSON object"),
            (vec![("brokers", "a"), ("properties", r#"{"group.id":"x"}"#)], "\"group.id\" cannot be set here"),
            (vec![("brokers", "a"), ("properties", r#"{"fetch.max.bytes":{}}"#)], "has to be a string"),
            (vec![("brokers", "a"), ("properties", r#"{"no.such.setting":1}"#)], "wrong setting \"no.such.setting\""),
            (vec![("brokers", "a"), ("properties", r#"{"fetch.max.bytes":"many"}"#)], "wrong setting"),
        ] {
            let e = options(&pairs).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidInput);
            assert!(e.to_string().contains(message), "{e} does not say {message}");
        }
        let e = options(&[("brokers", "a"), ("security", "tls")]).unwrap_err();
        assert_eq!(e.hint(), Some("Use \"plaintext\", \"ssl\", \"sasl_plaintext\" or \"sasl_ssl\"."));
    }

    #[test]
    fn secrets_are_never_shown() {
        let good = options(&[
            ("brokers", "a:1"),
            ("security", "SASL_PLAINTEXT"),
            ("sasl_mechanism", "SCRAM-SHA-512"),
            ("username", "bob"),
            ("password", "hunter2"),
        ])
        .unwrap();
        assert!(!format!("{good:?}").contains("hunter2"));
        assert_eq!(good.client(false).get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        let e = options(&[("brokers", "a"), ("properties", r#"{"sasl.oauthbearer.method":"hunter2"}"#)]).unwrap_err();
        assert!(!format!("{e:?}").contains("hunter2"), "{e:?}");
    }

    #[test]
    fn a_reader_keeps_what_exactly_once_depends_on() {
        let good = options(&[("brokers", "a:1"), ("properties", r#"{"fetch.min.bytes": 7}"#)]).unwrap();
        let config = good.consumer(false, true, &Ahead::within(64 << 20));
        for (name, value) in [
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("fetch.min.bytes", "7"),
            ("fetch.max.bytes", "4194304"),
            ("queued.max.messages.kbytes", "8192"),
        ] {
            assert_eq!(config.get(name), Some(value));
        }
        assert_eq!(good.producer().get("acks"), Some("all"));
    }
}
