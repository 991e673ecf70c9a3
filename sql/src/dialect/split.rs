use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::ast::{Name, ParsedStatement, Statement};
use super::cursor::Cursor;
use super::errors::{At, from_tokenizer};
use super::{
    DIALECT, alter, call, create, look, maintain, markers, merge_star, merge_words, reference, refusals, replay,
    subscribe, text, versions,
};
use crate::{SqlError, SqlState};

/// Longest text that is parsed, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Most statements in one text.
const MAX_STATEMENTS: usize = 10_000;

/// All statements of a text; none where it holds only blanks, comments and semicolons. One bad statement fails the
/// whole text, so that nothing runs. Positions of errors count characters of the whole text from 1.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
    if sql.len() > MAX_TEXT_BYTES {
        return Err(super::errors::error(
            SqlState("54000"),
            format!("text of {} bytes is longer than the limit of {MAX_TEXT_BYTES}", sql.len()),
        ));
    }
    if sql.contains('\0') {
        return Err(super::errors::error(SqlState("22021"), "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    let tokens =
        Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|e| place(*from_tokenizer(e), sql, 0))?;
    let mut statements = Vec::new();
    // Consumed as it goes, so that a text of many statements is walked once.
    let mut walk = Walk { text: sql, byte: 0, chars: 0, line: 1, column: 1 };
    for segment in tokens.split(|t| t.token == Token::SemiColon) {
        let blank = |t: &TokenWithSpan| matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let Some(first) = segment.iter().position(|t| !blank(t)) else { continue };
        let Some(last) = segment.iter().rposition(|t| !blank(t)) else { continue };
        if statements.len() == MAX_STATEMENTS {
            return Err(super::errors::error(
                SqlState("54000"),
                format!("more than {MAX_STATEMENTS} statements in one text"),
            ));
        }
        let mut own: Vec<TokenWithSpan> = segment[first..=last].to_vec();
        let (start, end) = (own[0].span.start, own[own.len() - 1].span.end);
        walk.to(start.line, start.column);
        let (from, offset) = (walk.byte, walk.chars);
        walk.to(end.line, end.column);
        let slice = sql.get(from..walk.byte).unwrap_or("");
        text::rebase(&mut own, start);
        let statement = parse_one(slice, own).map_err(|e| place(*e, slice, offset))?;
        statements.push(ParsedStatement { statement, text: slice.to_string(), offset });
    }
    Ok(statements)
}

/// The one statement of a definition's text.
pub(crate) fn parse_stored(sql: &str) -> Result<Statement, SqlError> {
    match parse(sql)?.pop() {
        Some(parsed) => Ok(parsed.statement),
        None => Err(SqlError::internal("a definition without a statement")),
    }
}

/// A type as a declaration has it.
pub(crate) fn parse_type(text: &str) -> Result<sqlparser::ast::DataType, SqlError> {
    let tokens =
        Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|e| place(*from_tokenizer(e), text, 0))?;
    let mut cursor = Cursor::new(text, tokens);
    cursor.data_type().map_err(|e| place(*e, text, 0))
}

/// A name inside of a text, as statements write it.
pub(crate) fn parse_name(text: &str) -> Result<Name, SqlError> {
    let invalid = || SqlError::new(SqlState("42602"), format!("invalid name: \"{text}\""));
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|_| invalid())?;
    let mut cursor = Cursor::new(text, tokens);
    let name = cursor.name().map_err(|_| invalid())?;
    if cursor.at_end() { Ok(name) } else { Err(invalid()) }
}

/// `source` without semicolon; spans of `tokens` count from its beginning.
fn parse_one(source: &str, tokens: Vec<TokenWithSpan>) -> Result<Statement, Box<At>> {
    let tokens = merge_words::rewrite(markers::rewrite(source, versions::rewrite(tokens)?)?);
    let tokens = table_query(merge_star::rewrite(tokens));
    let mut cursor = Cursor::new(source, tokens);
    let statement = statement(&mut cursor)?;
    cursor.expect_end()?;
    Ok(statement)
}

/// `TABLE x …` is `SELECT * FROM x …`; the parser knows it only inside of a query.
fn table_query(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Some(at) = tokens.iter().position(|t| !matches!(t.token, Token::Whitespace(_))) else { return tokens };
    if matches!(&tokens[at].token, Token::Word(word) if word.keyword == Keyword::TABLE) {
        let span = tokens[at].span;
        let words = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
        tokens.splice(at..=at, words.map(|token| TokenWithSpan { token, span }));
    }
    tokens
}

/// One statement at the cursor; EXPLAIN comes back here for what it explains.
pub(super) fn statement(c: &mut Cursor<'_>) -> Result<Statement, Box<At>> {
    refusals::check(c)?;
    if let Some(s) = create::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = reference::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = call::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = alter::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = look::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = maintain::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = replay::parse(c)? {
        return Ok(s);
    }
    if let Some(s) = subscribe::parse(c)? {
        return Ok(s);
    }
    Ok(Statement::Sql(Box::new(c.sql_statement()?)))
}

fn place(At { mut error, location }: At, source: &str, offset: usize) -> SqlError {
    if let Some(n) = location.and_then(|l| text::chars_before(source, l)) {
        error.position = Some(offset + n + 1);
    }
    error
}

/// Follows line and column through a text, forwards only.
struct Walk<'a> {
    text: &'a str,
    byte: usize,
    chars: usize,
    line: u64,
    column: u64,
}

impl Walk<'_> {
    fn to(&mut self, line: u64, column: u64) {
        for c in self.text[self.byte..].chars() {
            if (self.line, self.column) >= (line, column) {
                return;
            }
            self.byte += c.len_utf8();
            self.chars += 1;
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
    }
}
