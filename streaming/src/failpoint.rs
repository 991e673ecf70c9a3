//! `TIDEWATER_FAILPOINT=name` or `name:n` ends the process, as kill -9 would, when it comes to that place for the
//! n-th time. Without the variable a fail-point costs one comparison per step of a trigger.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::env::Failpoints;

/// Every fail-point there is, in the order in which a trigger comes to them.
pub const FAILPOINTS: &[&str] = &[
    "start.recovered",
    "cut.before",
    "cut.after",
    "seal.before",
    "seal.after",
    "checkpoint.before",
    "checkpoint.after",
    "commit.before",
    "commit.sent",
    "commit.after",
    "publish.after",
    "outbox.before",
    "outbox.sent",
    "outbox.after",
];

#[derive(Debug, Default)]
pub(crate) struct AbortOnEnv {
    armed: Option<(String, u64)>,
    hits: AtomicU64,
}

impl AbortOnEnv {
    pub(crate) fn from_env() -> Self {
        let armed = std::env::var("TIDEWATER_FAILPOINT").ok().and_then(|text| parse(&text));
        if let Some((name, n)) = &armed {
            tracing::warn!(failpoint = %name, hit = n, "armed: the process will end itself");
        }
        Self { armed, hits: AtomicU64::new(0) }
    }
}

fn parse(text: &str) -> Option<(String, u64)> {
    let (name, n) = match text.split_once(':') {
        Some((name, n)) => (name, n.parse().ok()?),
        None => (text, 1),
    };
    (FAILPOINTS.contains(&name) && n > 0).then(|| (name.to_owned(), n))
}

#[async_trait]
impl Failpoints for AbortOnEnv {
    async fn reach(&self, name: &'static str) {
        if let Some((armed, n)) = &self.armed
            && armed == name
            && self.hits.fetch_add(1, Ordering::SeqCst) + 1 == *n
        {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_a_place_and_a_count() {
        assert_eq!(parse("seal.after"), Some(("seal.after".to_owned(), 1)));
        assert_eq!(parse("commit.sent:7"), Some(("commit.sent".to_owned(), 7)));
        assert_eq!(parse("commit.sent:x"), None);
        assert_eq!(parse("commit.sent:0"), None);
        assert_eq!(parse("no.such.place"), None);
    }
}
