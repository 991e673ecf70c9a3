//! What a table's properties say about changes of its rows.

use std::collections::HashMap;

use tidewater_catalogs::{ChangeKind, Error, Result};

/// Where the property leaves it open, a file of which more than one row in so many goes is written anew.
const REWRITE_FROM: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    CopyOnWrite,
    MergeOnRead,
    /// By the share of rows that go from a file.
    Auto,
}

impl Mode {
    pub(super) fn rewrites(self, gone: u64, rows: u64) -> bool {
        match self {
            Self::CopyOnWrite => true,
            Self::MergeOnRead => false,
            Self::Auto => gone.saturating_mul(REWRITE_FROM) > rows,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// As if the statement ran where it commits: rows that came meanwhile count.
    Serializable,
    /// As if it ran where it began, as long as nobody else changed the same rows.
    Snapshot,
}

pub(super) fn mode(properties: &HashMap<String, String>, kind: ChangeKind) -> Result<Mode> {
    let key = format!("write.{}.mode", kind.word());
    let known = [("copy-on-write", Mode::CopyOnWrite), ("merge-on-read", Mode::MergeOnRead), ("auto", Mode::Auto)];
    value(properties, &key, &known, Mode::Auto)
}

pub(super) fn isolation(properties: &HashMap<String, String>, kind: ChangeKind) -> Result<Isolation> {
    let key = format!("write.{}.isolation-level", kind.word());
    let known = [("serializable", Isolation::Serializable), ("snapshot", Isolation::Snapshot)];
    value(properties, &key, &known, Isolation::Serializable)
}

/// Checked when a table is made.
pub(crate) fn check(properties: &HashMap<String, String>) -> Result<()> {
    for kind in [ChangeKind::Delete, ChangeKind::Update, ChangeKind::Merge] {
        mode(properties, kind)?;
        isolation(properties, kind)?;
    }
    Ok(())
}

fn value<T: Copy>(properties: &HashMap<String, String>, key: &str, known: &[(&str, T)], default: T) -> Result<T> {
    let Some(text) = properties.get(key) else { return Ok(default) };
    let found = known.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        Error::invalid(format!("invalid value for table property \"{key}\": \"{text}\""))
            .with_hint(format!("It is one of {}.", words.join(", ")))
    })
}
