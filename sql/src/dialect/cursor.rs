use sqlparser::ast::{self, ArrayElemTypeDef, DataType, Expr, Query, StructBracketKind, StructField};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::DIALECT;
use super::ast::{Name, fold};
use super::errors::{self, At};
use super::{text, versions};

/// Nested expressions and subqueries; sqlparser's own default refuses what tools write.
const MAX_DEPTH: usize = 128;

/// Reads one statement. Words are compared without case and only where they are not quoted, so that none of ours
/// has to be a keyword of sqlparser.
pub(super) struct Cursor<'a> {
    parser: Parser<'static>,
    source: &'a str,
    tokens: Vec<TokenWithSpan>,
    /// Strings of this statement must not be repeated in errors.
    pub secret: bool,
}

pub(super) type Parsed<T> = Result<T, Box<At>>;

impl<'a> Cursor<'a> {
    pub fn new(source: &'a str, tokens: Vec<TokenWithSpan>) -> Self {
        let mut fed = tokens.clone();
        // sqlparser wants the semicolon before the data of COPY … FROM STDIN.
        if matches!(fed.first().map(|t| &t.token), Some(Token::Word(w)) if w.keyword == Keyword::COPY) {
            fed.push(TokenWithSpan::wrap(Token::SemiColon));
        }
        let parser = Parser::new(&DIALECT).with_recursion_limit(MAX_DEPTH).with_tokens_with_locations(fed);
        Self { parser, source, tokens, secret: false }
    }

    /// The unquoted word `n` tokens ahead.
    fn word(&self, n: usize) -> Option<&str> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(w) if w.quote_style.is_none() => Some(w.value.as_str()),
            _ => None,
        }
    }

    pub fn is_at(&self, n: usize, word: &str) -> bool {
        self.word(n).is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    /// Whether these words come next.
    pub fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, w)| self.is_at(n, w))
    }

    pub fn sees_at(&self, from: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, w)| self.is_at(from + n, w))
    }

    pub fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.sees(words);
        if found {
            for _ in words {
                self.parser.advance_token();
            }
        }
        found
    }

    pub fn expect(&mut self, words: &[&str]) -> Parsed<()> {
        for word in words {
            if !self.eat(&[word]) {
                return Err(self.unexpected(word));
            }
        }
        Ok(())
    }

    pub fn token(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect_token(&mut self, token: &Token) -> Parsed<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.unexpected(&format!("\"{token}\""))) }
    }

    pub fn advance(&mut self) {
        self.parser.advance_token();
    }

    pub fn at_end(&self) -> bool {
        matches!(self.token(0), Token::EOF)
    }

    pub fn location(&self) -> Location {
        self.parser.peek_token_ref().span.start
    }

    /// A syntax error at the next token.
    pub fn unexpected(&self, expected: &str) -> Box<At> {
        errors::syntax_error(self.source, self.parser.peek_token_ref(), expected, self.secret)
    }

    /// An error at the next token.
    pub fn fail(&self, error: crate::SqlError) -> Box<At> {
        At::new(error, self.location())
    }

    pub fn expect_end(&mut self) -> Parsed<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected("")) }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>) -> Parsed<T> {
        f(&mut self.parser).map_err(|e| errors::from_parser(e, self.source, &self.tokens, self.secret))
    }

    pub fn ident(&mut self) -> Parsed<String> {
        if !matches!(self.token(0), Token::Word(_)) {
            return Err(self.unexpected("a name"));
        }
        self.with(|p| p.parse_identifier()).map(|i| fold(&i))
    }

    /// A name of at most three parts.
    pub fn name(&mut self) -> Parsed<Name> {
        let location = self.location();
        let mut parts = vec![self.ident()?];
        while self.eat_token(&Token::Period) {
            parts.push(self.ident()?);
        }
        if parts.len() > 3 || parts.iter().any(String::is_empty) {
            let e = errors::error(errors::SYNTAX, "improper qualified name (too many dotted names)");
            return Err(At::new(e, location));
        }
        Ok(Name(parts))
    }

    /// A name without dots.
    pub fn bare_name(&mut self) -> Parsed<Name> {
        let name = self.ident()?;
        if matches!(self.token(0), Token::Period) {
            return Err(self.unexpected(""));
        }
        Ok(Name::bare(name))
    }

    pub fn string(&mut self) -> Parsed<String> {
        if !matches!(
            self.token(0),
            Token::SingleQuotedString(_)
                | Token::DollarQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::UnicodeStringLiteral(_)
        ) {
            return Err(self.unexpected("a string"));
        }
        match self.parser.next_token().token {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) | Token::UnicodeStringLiteral(s) => Ok(s),
            Token::DollarQuotedString(s) => Ok(s.value),
            _ => Err(self.unexpected("a string")),
        }
    }

    pub fn expr(&mut self) -> Parsed<Expr> {
        self.with(Parser::parse_expr)
    }

    /// `DEFAULT value`, behind which other options of a column may come.
    pub fn default_value(&mut self) -> Parsed<Expr> {
        match self.with(Parser::parse_optional_column_option)? {
            Some(ast::ColumnOption::Default(value)) => Ok(value),
            _ => Err(self.unexpected("DEFAULT and a value")),
        }
    }

    /// An expression and its text as it was written.
    pub fn expr_with_text(&mut self) -> Parsed<(Expr, String)> {
        let start = self.location();
        let expr = self.expr()?;
        Ok((expr, self.text_since(start)))
    }

    /// What was written from `start` to the token that was read last.
    pub fn text_since(&self, start: Location) -> String {
        // Having looked ahead and gone back, the parser may stand behind blanks or a comment.
        let read = self.tokens.get(..=self.parser.get_current_index()).unwrap_or(&self.tokens);
        let last = read.iter().rfind(|t| !matches!(t.token, Token::Whitespace(_)));
        let end = last.map_or(start, |t| t.span.end);
        text::slice(self.source, sqlparser::tokenizer::Span::new(start, end)).to_string()
    }

    /// A type of sqlparser's, or `STRUCT<name type, …>` (also with parentheses), of which there may be arrays.
    pub fn data_type(&mut self) -> Parsed<DataType> {
        self.nested_type(&mut 0, 0)
    }

    /// `closers` counts the `>` of a token like `>>` that inner types have not used up.
    fn nested_type(&mut self, closers: &mut usize, depth: usize) -> Parsed<DataType> {
        let bracket = match self.token(1) {
            _ if !self.is_at(0, "struct") => return self.with(Parser::parse_data_type),
            Token::Lt => StructBracketKind::AngleBrackets,
            Token::LParen => StructBracketKind::Parentheses,
            _ => return self.with(Parser::parse_data_type),
        };
        if depth == MAX_DEPTH {
            return Err(self.unexpected("a type that is nested less deeply"));
        }
        self.parser.advance_token();
        self.parser.advance_token();
        let mut fields = Vec::new();
        loop {
            let name = self.with(Parser::parse_identifier)?;
            let field_type = self.nested_type(closers, depth + 1)?;
            fields.push(StructField { field_name: Some(name), field_type, options: None });
            if *closers > 0 || *self.token(0) != Token::Comma {
                break;
            }
            self.parser.advance_token();
        }
        match (bracket, self.token(0).clone()) {
            (StructBracketKind::Parentheses, Token::RParen) => self.parser.advance_token(),
            (StructBracketKind::AngleBrackets, _) if *closers > 0 => *closers -= 1,
            (StructBracketKind::AngleBrackets, token) => {
                let text = token.to_string();
                if text.is_empty() || !text.bytes().all(|b| b == b'>') {
                    return Err(self.unexpected(">"));
                }
                self.parser.advance_token();
                *closers = text.len() - 1;
            }
            _ => return Err(self.unexpected(")")),
        }
        let mut out = DataType::Struct(fields, bracket);
        while *closers == 0 && *self.token(0) == Token::LBracket && *self.token(1) == Token::RBracket {
            self.parser.advance_token();
            self.parser.advance_token();
            out = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(out), None));
        }
        if depth == 0 && *closers > 0 {
            return Err(self.unexpected("fewer \">\""));
        }
        Ok(out)
    }

    pub fn query(&mut self) -> Parsed<Box<Query>> {
        let mut query = self.with(Parser::parse_query)?;
        versions::read(&self.tokens, query.as_mut());
        Ok(query)
    }

    /// Columns of CREATE TABLE, with the types of [`Self::data_type`].
    pub fn table_columns(&mut self) -> Parsed<(Vec<ast::ColumnDef>, Vec<ast::TableConstraint>)> {
        let (mut columns, mut constraints) = (Vec::new(), Vec::new());
        if !self.eat_token(&Token::LParen) || self.eat_token(&Token::RParen) {
            return Ok((columns, constraints));
        }
        loop {
            match self.with(Parser::parse_optional_table_constraint)? {
                Some(constraint) => constraints.push(constraint),
                None => columns.push(self.table_column()?),
            }
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok((columns, constraints))
    }

    fn table_column(&mut self) -> Parsed<ast::ColumnDef> {
        let column = self.with(Parser::parse_identifier)?;
        let data_type = match self.token(0) {
            // `CREATE TABLE t (a, b) AS …`
            Token::Comma | Token::RParen => DataType::Unspecified,
            _ => self.data_type()?,
        };
        let mut options = Vec::new();
        loop {
            let name = if self.eat(&["CONSTRAINT"]) { Some(self.with(Parser::parse_identifier)?) } else { None };
            match self.with(Parser::parse_optional_column_option)? {
                Some(option) => options.push(ast::ColumnOptionDef { name, option }),
                None if name.is_some() => return Err(self.unexpected("a constraint")),
                None => return Ok(ast::ColumnDef { name: column, data_type, options }),
            }
        }
    }

    pub fn sql_statement(&mut self) -> Parsed<ast::Statement> {
        let mut statement = self.with(Parser::parse_statement)?;
        versions::read(&self.tokens, &mut statement);
        // What COPY was handed, and did not need.
        self.eat_token(&Token::SemiColon);
        Ok(statement)
    }
}
