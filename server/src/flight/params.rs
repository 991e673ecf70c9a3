//! Parameters: `?` as JDBC writes it, and rows of values that a client binds.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidewater_sql::{SqlError, SqlState};

/// Rows that may be bound to one statement.
pub(super) const MAX_ROWS: usize = 100_000;

/// The text with `$1`, `$2` … where it has `?`. A text that does not read as SQL stays as it is and is refused by the
/// parser, with a position.
pub(super) fn number_placeholders(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() else {
        return Cow::Borrowed(sql);
    };
    let marks: Vec<(u64, u64)> = (tokens.iter())
        .filter(|t| matches!(t.token, Token::Question))
        .map(|t| (t.span.start.line, t.span.start.column))
        .collect();
    if marks.is_empty() {
        return Cow::Borrowed(sql);
    }
    let mut out = String::with_capacity(sql.len() + 2 * marks.len());
    let (mut line, mut column, mut number) = (1, 1, 0);
    for c in sql.chars() {
        if marks.get(number) == Some(&(line, column)) {
            number += 1;
            out.push('$');
            out.push_str(&number.to_string());
        } else {
            out.push(c);
        }
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    Cow::Owned(out)
}

/// One vector of values a row, of the types that the statement wants.
pub(super) fn rows(batch: &RecordBatch, types: &[DataType]) -> Result<Vec<Vec<ScalarValue>>, SqlError> {
    if batch.num_columns() != types.len() {
        return Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("{} parameters were bound, but the statement has {}", batch.num_columns(), types.len()),
        ));
    }
    let columns: Vec<_> = (batch.columns().iter().zip(types).enumerate())
        .map(|(i, (column, wanted))| {
            let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
            arrow::compute::cast_with_options(column, wanted, &options).map_err(|e| {
                let given = column.data_type();
                SqlError::new(
                    SqlState::INVALID_TEXT,
                    format!("parameter ${} of type {given} is no {wanted}: {e}", i + 1),
                )
            })
        })
        .collect::<Result<_, _>>()?;
    (0..batch.num_rows())
        .map(|row| {
            columns
                .iter()
                .map(|c| ScalarValue::try_from_array(c, row).map_err(SqlError::from))
                .collect::<Result<_, _>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::number_placeholders;

    #[test]
    fn question_marks_are_numbered_where_they_are_parameters() {
        let same = ["SELECT 1", "SELECT '?'", "SELECT \"a?\" FROM t -- why?", "SELECT $$?$$", "SELECT 'open ?"];
        for sql in same {
            assert_eq!(number_placeholders(sql), sql);
        }
        assert_eq!(
            number_placeholders("SELECT 'é?',\n ? + ?::int /* ? */ WHERE a = ?"),
            "SELECT 'é?',\n $1 + $2::int /* ? */ WHERE a = $3"
        );
    }
}
