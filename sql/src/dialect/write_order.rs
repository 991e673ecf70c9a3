//! The order in which rows are written: `WRITE ORDERED BY (…)` in Spark's words, and what OPTIMIZE says of it.

use std::fmt::{self, Display, Formatter};

use sqlparser::tokenizer::Token;
use tidewater_catalogs::{Alteration, SortField};

use super::create::partition_field;
use super::cursor::{Cursor, Parsed};
use super::display::sort_fields_text;
use super::errors::{SYNTAX, error};

/// Iceberg's property for it.
const DISTRIBUTION: &str = "write.distribution-mode";
/// Most columns in one order.
const MAX_FIELDS: usize = 100;

/// How files are written from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOrder {
    /// None leaves it as it is.
    pub distribution: Option<WriteDistribution>,
    pub sort_by: Vec<SortField>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDistribution {
    None,
    Hash,
    Range,
}

impl WriteOrder {
    /// The table property that goes with it.
    pub fn property(&self) -> Option<(String, String)> {
        let mode = match self.distribution? {
            WriteDistribution::None => "none",
            WriteDistribution::Hash => "hash",
            WriteDistribution::Range => "range",
        };
        Some((DISTRIBUTION.to_owned(), mode.to_owned()))
    }

    pub(super) fn alterations(self) -> Vec<Alteration> {
        let property = self.property();
        let set = property.map(|property| Alteration::SetProperties([property].into()));
        set.into_iter().chain([Alteration::SetSortOrder(self.sort_by)]).collect()
    }
}

/// A table's order, as SHOW CREATE TABLE says it: the distribution is among the properties there.
pub(crate) fn own_order(sort_by: &[SortField]) -> Option<WriteOrder> {
    (!sort_by.is_empty())
        .then(|| WriteOrder { distribution: Some(WriteDistribution::Range), sort_by: sort_by.to_vec() })
}

impl Display for WriteOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let order = sort_fields_text(&self.sort_by);
        match (self.distribution, order.is_empty()) {
            (Some(WriteDistribution::Hash), true) => f.write_str("WRITE DISTRIBUTED BY PARTITION"),
            (Some(WriteDistribution::Hash), false) => {
                write!(f, "WRITE DISTRIBUTED BY PARTITION LOCALLY ORDERED BY ({order})")
            }
            (_, true) => f.write_str("WRITE UNORDERED"),
            (None, false) => write!(f, "WRITE LOCALLY ORDERED BY ({order})"),
            (Some(_), false) => write!(f, "WRITE ORDERED BY ({order})"),
        }
    }
}

/// `[DISTRIBUTED BY PARTITION] [[LOCALLY] ORDERED BY …]`, or `UNORDERED`, behind WRITE.
pub(super) fn write_order(c: &mut Cursor<'_>) -> Parsed<WriteOrder> {
    if c.eat(&["UNORDERED"]) {
        return Ok(WriteOrder { distribution: Some(WriteDistribution::None), sort_by: Vec::new() });
    }
    let by_partition = c.eat(&["DISTRIBUTED", "BY", "PARTITION"]);
    let locally = c.eat(&["LOCALLY"]);
    let distribution = match (by_partition, locally) {
        (true, _) => Some(WriteDistribution::Hash),
        (false, true) => None,
        (false, false) => Some(WriteDistribution::Range),
    };
    let sort_by = if c.eat(&["ORDERED", "BY"]) {
        sort_fields(c)?
    } else if by_partition && !locally {
        Vec::new()
    } else {
        return Err(c.unexpected("ORDERED BY, LOCALLY ORDERED BY, DISTRIBUTED BY PARTITION or UNORDERED"));
    };
    Ok(WriteOrder { distribution, sort_by })
}

/// Columns and transforms of them, in parentheses or not, each with ASC or DESC and NULLS FIRST or LAST.
pub(super) fn sort_fields(c: &mut Cursor<'_>) -> Parsed<Vec<SortField>> {
    let enclosed = c.eat_token(&Token::LParen);
    let mut fields = Vec::new();
    loop {
        if fields.len() == MAX_FIELDS {
            return Err(c.fail(error(SYNTAX, format!("rows are sorted by more than {MAX_FIELDS} columns"))));
        }
        let field = partition_field(c)?;
        let descending = c.eat(&["DESC"]);
        if !descending {
            c.eat(&["ASC"]);
        }
        let nulls_first = if c.eat(&["NULLS", "FIRST"]) {
            true
        } else if c.eat(&["NULLS", "LAST"]) {
            false
        } else {
            // As in Iceberg, and not as in PostgreSQL: nulls count as small.
            !descending
        };
        fields.push(SortField { field, descending, nulls_first });
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    if enclosed {
        c.expect_token(&Token::RParen)?;
    }
    Ok(fields)
}

/// `(a, b, …)`
pub(super) fn curve_columns(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    /// Bits of so many columns are told apart at all.
    const MOST: usize = 8;
    let enclosed = c.eat_token(&Token::LParen);
    let mut columns: Vec<String> = Vec::new();
    loop {
        if columns.len() == MOST {
            return Err(c.fail(error(SYNTAX, format!("ZORDER BY takes at most {MOST} columns"))));
        }
        let column = c.ident()?;
        if columns.contains(&column) {
            let twice = format!("column \"{column}\" specified more than once");
            return Err(c.fail(error(crate::SqlState("42701"), twice)));
        }
        columns.push(column);
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    if enclosed {
        c.expect_token(&Token::RParen)?;
    }
    Ok(columns)
}
