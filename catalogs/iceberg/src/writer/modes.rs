//! Which statistics of which column a manifest keeps. (Iceberg, "Write properties": `write.metadata.metrics.*`.)

use std::collections::HashMap;

use iceberg::spec::{Schema, TableMetadata};
use tidewater_catalogs::{Error, Result};

use crate::properties as p;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    None,
    /// Sizes, values, nulls and NaN.
    Counts,
    /// And bounds, of so many characters or bytes.
    Truncate(usize),
    Full,
}

/// As the specification's default is.
const DEFAULT: Mode = Mode::Truncate(16);

impl Mode {
    fn parse(key: &str, text: &str) -> Result<Self> {
        let word = text.trim().to_ascii_lowercase();
        let length = || word.strip_prefix("truncate(")?.strip_suffix(')')?.trim().parse().ok().filter(|n| *n > 0);
        match word.as_str() {
            "none" => Ok(Self::None),
            "counts" => Ok(Self::Counts),
            "full" => Ok(Self::Full),
            _ => length().map(Self::Truncate).ok_or_else(|| {
                Error::invalid(format!("invalid value for table property \"{key}\": \"{text}\""))
                    .with_hint("Use \"none\", \"counts\", \"truncate(16)\" or \"full\".")
            }),
        }
    }
}

/// By field id; of others nothing is kept.
pub(super) struct Modes(HashMap<i32, Mode>);

impl Modes {
    /// `leaves` are ids of the columns that files have, in their order.
    pub(super) fn new(metadata: &TableMetadata, leaves: impl Iterator<Item = i32>) -> Result<Self> {
        let (properties, schema) = (metadata.properties(), metadata.current_schema());
        let default =
            properties.get(p::METRICS_DEFAULT).map(|mode| Mode::parse(p::METRICS_DEFAULT, mode)).transpose()?;
        let inferred = usize::try_from(p::get(properties, p::METRICS_INFERRED)?).unwrap_or(usize::MAX);
        let sorted: Vec<i32> = metadata.default_sort_order().fields.iter().map(|f| f.source_id).collect();
        let mut modes = HashMap::new();
        for (place, id) in leaves.enumerate() {
            let key = format!("{}{}", p::METRICS_COLUMN, schema.name_by_field_id(id).unwrap_or_default());
            let mode = match (properties.get(&key), default) {
                (Some(mode), _) => Mode::parse(&key, mode)?,
                // What rows are sorted by prunes best.
                (None, Some(Mode::None | Mode::Counts)) if sorted.contains(&id) => DEFAULT,
                (None, Some(mode)) => mode,
                (None, None) if place < inferred || sorted.contains(&id) => DEFAULT,
                (None, None) => Mode::None,
            };
            modes.insert(id, mode);
        }
        Ok(Self(modes))
    }

    pub(super) fn of(&self, id: i32) -> Mode {
        self.0.get(&id).copied().unwrap_or(Mode::None)
    }
}

/// Checks what is said of modes, whatever columns it is said of.
pub(super) fn check(properties: &HashMap<String, String>) -> Result<()> {
    p::get(properties, p::METRICS_INFERRED)?;
    let mut modes =
        properties.iter().filter(|(key, _)| *key == p::METRICS_DEFAULT || key.starts_with(p::METRICS_COLUMN));
    modes.try_for_each(|(key, mode)| Mode::parse(key, mode).map(|_| ()))
}

/// Properties of single columns name columns that are there.
pub(crate) fn check_columns(properties: &HashMap<String, String>, schema: &Schema) -> Result<()> {
    for key in properties.keys() {
        let of = [p::METRICS_COLUMN, p::BLOOM_ENABLED, p::BLOOM_FPP].into_iter();
        for prefix in of {
            let Some(column) = key.strip_prefix(prefix) else { continue };
            let Some(field) = schema.field_by_name(column) else {
                return Err(Error::invalid(format!(
                    "table property \"{key}\" names a column that the table does not have"
                )));
            };
            let hashed = field.field_type.as_primitive_type();
            if prefix != p::METRICS_COLUMN
                && !hashed.is_some_and(|of| !matches!(of, iceberg::spec::PrimitiveType::Boolean))
            {
                return Err(Error::invalid(format!(
                    "table property \"{key}\": a column of type {} has no bloom filter",
                    field.field_type
                )));
            }
        }
    }
    Ok(())
}
