//! Canonical text of our statements: it parses to the same value again.

use std::fmt::{self, Display, Formatter};

use sqlparser::ast;
use sqlparser::keywords::{
    Keyword, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_TABLE_FACTOR,
};
use tidewater_catalogs::{PartitionField, SortField, Transform};

use super::ast::*;
use super::options::{OptionEntry, Options};
use super::write_order::WriteOrder;

/// PostgreSQL's reserved words, which sqlparser reads as names in some places and not in others.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "if",
    "in",
    "initially",
    "intersect",
    "interval",
    "into",
    "is",
    "lateral",
    "leading",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "stream",
    "streaming",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "variadic",
    "watermark",
    "when",
    "where",
    "window",
    "with",
];

/// The name as it must be written to be read as it is.
pub fn quote_ident(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if plain && RESERVED.binary_search(&name).is_err() && !is_reserved_keyword(name) {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_reserved_keyword(name: &str) -> bool {
    let ast::Ident { value, .. } = ast::Ident::new(name);
    let sqlparser::tokenizer::Token::Word(word) = sqlparser::tokenizer::Token::make_word(&value, None) else {
        return true;
    };
    word.keyword != Keyword::NoKeyword
        && [RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_FACTOR, RESERVED_FOR_IDENTIFIER]
            .iter()
            .any(|list| list.contains(&word.keyword))
}

/// The text as a string literal.
pub fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "." }, quote_ident(part))?;
        }
        Ok(())
    }
}

fn create(f: &mut Formatter<'_>, mode: CreateMode, what: &str, if_not_exists: bool, name: &Name) -> fmt::Result {
    let or = match mode {
        CreateMode::Create => "",
        CreateMode::OrReplace => "OR REPLACE ",
        CreateMode::OrRefresh => "OR REFRESH ",
    };
    write!(f, "CREATE {or}{what} {}{name}", if if_not_exists { "IF NOT EXISTS " } else { "" })
}

fn replace(or_replace: bool) -> CreateMode {
    if or_replace { CreateMode::OrReplace } else { CreateMode::Create }
}

/// `(\n  a,\n  b\n)`.
fn block<T: Display>(f: &mut Formatter<'_>, items: impl IntoIterator<Item = T>) -> fmt::Result {
    f.write_str("(")?;
    for (i, item) in items.into_iter().enumerate() {
        write!(f, "{}\n  {item}", if i == 0 { "" } else { "," })?;
    }
    f.write_str("\n)")
}

impl Display for OptionEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name: Vec<String> = self.name.split('.').map(option_name).collect();
        write!(f, "{} = {}", name.join("."), self.value)
    }
}

/// Options are read as identifiers, wherever in a list no keyword can stand.
fn option_name(part: &str) -> String {
    let mut chars = part.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !RESERVED_FOR_IDENTIFIER.iter().any(|k| k.to_string().eq_ignore_ascii_case(part)) {
        part.to_string()
    } else {
        quote_ident(part)
    }
}

impl Display for Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        block(f, &self.0)
    }
}

fn with(f: &mut Formatter<'_>, options: &Options, lead: &str) -> fmt::Result {
    if options.is_empty() { Ok(()) } else { write!(f, "{lead}WITH {options}") }
}

impl Display for SecretFrom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("AS '…'"),
            Self::Env(name) => write!(f, "FROM ENV {}", quote_text(name)),
            Self::File(path) => write!(f, "FROM FILE {}", quote_text(path)),
        }
    }
}

impl Display for CreateSecret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, replace(self.or_replace), "SECRET", self.if_not_exists, &self.name)?;
        write!(f, " {}", self.from)
    }
}

impl Display for AlterSecret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ALTER SECRET {} {}", self.name, self.from)
    }
}

impl Display for CreateConnection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, replace(self.or_replace), "CONNECTION", self.if_not_exists, &self.name)?;
        write!(f, " TO {}", kind_word(&self.kind))?;
        with(f, &self.options, " ")
    }
}

impl Display for CreateCatalog {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, replace(self.or_replace), "CATALOG", self.if_not_exists, &self.name)?;
        with(f, &self.options, " ")
    }
}

fn kind_word(kind: &str) -> String {
    let upper = kind.to_uppercase();
    if upper.to_lowercase() == kind && quote_ident(kind) == kind { upper } else { quote_ident(kind) }
}

impl Display for StreamColumnDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", quote_ident(&self.name), self.data_type)?;
        if self.not_null {
            f.write_str(" NOT NULL")?;
        }
        match &self.source {
            ColumnSource::Value => Ok(()),
            ColumnSource::Metadata(from) => write!(f, " METADATA FROM {}", quote_text(from)),
            ColumnSource::Generated { text, .. } => write!(f, " GENERATED ALWAYS AS ({text})"),
        }
    }
}

impl Display for CreateStream {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, replace(self.or_replace), "STREAM", self.if_not_exists, &self.name)?;
        f.write_str(" ")?;
        if !self.columns.is_empty() || !self.infer {
            let star = self.infer.then(|| "*".to_string());
            block(f, star.into_iter().chain(self.columns.iter().map(ToString::to_string)))?;
            f.write_str(" ")?;
        }
        with(f, &self.options, "")
    }
}

impl Display for TargetColumnDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not_null = if self.not_null { " NOT NULL" } else { "" };
        write!(f, "{} {}{not_null}", quote_ident(&self.name), self.data_type)
    }
}

impl Display for CreateStreamingTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        create(f, self.mode, "STREAMING TABLE", self.if_not_exists, &self.name)?;
        if !self.columns.is_empty() {
            f.write_str(" ")?;
            block(f, &self.columns)?;
        }
        f.write_str("\n")?;
        write_clauses(f, &self.partition_by, self.write_order.as_ref(), self.comment.as_deref(), &self.properties)?;
        if !self.options.is_empty() {
            writeln!(f, "WITH {}", self.options)?;
        }
        write!(f, "AS {}", self.query_text)
    }
}

/// PARTITIONED BY, WRITE, COMMENT and TBLPROPERTIES, a line each.
pub(crate) fn write_clauses(
    f: &mut impl fmt::Write,
    partition_by: &[PartitionField],
    write_order: Option<&WriteOrder>,
    comment: Option<&str>,
    properties: &[(String, String)],
) -> fmt::Result {
    if !partition_by.is_empty() {
        let fields: Vec<String> = partition_by.iter().map(partition_field_text).collect();
        writeln!(f, "PARTITIONED BY ({})", fields.join(", "))?;
    }
    if let Some(order) = write_order {
        writeln!(f, "{order}")?;
    }
    if let Some(comment) = comment {
        writeln!(f, "COMMENT {}", quote_text(comment))?;
    }
    if !properties.is_empty() {
        let list: Vec<String> =
            properties.iter().map(|(k, v)| format!("{} = {}", quote_text(k), quote_text(v))).collect();
        writeln!(f, "TBLPROPERTIES ({})", list.join(", "))?;
    }
    Ok(())
}

/// `a ASC NULLS FIRST, days(b) DESC NULLS LAST`
pub(crate) fn sort_fields_text(fields: &[SortField]) -> String {
    let text = |field: &SortField| {
        let direction = if field.descending { "DESC" } else { "ASC" };
        let nulls = if field.nulls_first { "FIRST" } else { "LAST" };
        format!("{} {direction} NULLS {nulls}", partition_field_text(&field.field))
    };
    fields.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(crate) fn partition_field_text(field: &PartitionField) -> String {
    let column = quote_ident(&field.column);
    match field.transform {
        Transform::Identity => column,
        Transform::Bucket(n) => format!("bucket({n}, {column})"),
        Transform::Truncate(n) => format!("truncate({n}, {column})"),
        Transform::Year => format!("years({column})"),
        Transform::Month => format!("months({column})"),
        Transform::Day => format!("days({column})"),
        Transform::Hour => format!("hours({column})"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reserved_words_are_sorted() {
        assert!(super::RESERVED.is_sorted());
    }
}
