//! `t FOR SYSTEM_VERSION AS OF …` and its like, which the parser does not know in PostgreSQL's dialect.
//!
//! Before anything is parsed, the clause becomes an argument of the table, `t("version as of" => …)`, a form that the
//! parser reads with any alias behind it; afterwards it becomes what the syntax tree has for it.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, TableFactor, TableFunctionArgs, TableVersion, VisitMut, VisitorMut,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::DIALECT;
use super::errors::{At, SYNTAX, error, refused};
use super::tree::walk_mut;

const VERSION: &str = "version as of";
const TIME: &str = "timestamp as of";

/// Tokens that the expression of a clause may have.
const MAX_TOKENS: usize = 512;
const MAX_DEPTH: usize = 64;

/// Writes the clauses as arguments.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Box<At>> {
    let mut out: Vec<TokenWithSpan> = Vec::new();
    let mut kept = 0;
    let mut at = 0;
    while at < tokens.len() {
        let Some(clause) = clause(&tokens, at)? else {
            at += 1;
            continue;
        };
        let span = tokens[at].span;
        let made = |token| TokenWithSpan { token, span };
        out.extend_from_slice(&tokens[kept..clause.name_end]);
        out.extend([Token::LParen, Token::make_word(clause.kind, Some('"')), Token::RArrow].map(made));
        out.extend_from_slice(&tokens[clause.expr.clone()]);
        out.push(made(Token::RParen));
        at = clause.expr.end;
        kept = at;
    }
    if kept == 0 {
        return Ok(tokens);
    }
    out.extend_from_slice(&tokens[kept..]);
    Ok(out)
}

struct Clause {
    kind: &'static str,
    /// Behind the last token of the table's name.
    name_end: usize,
    expr: std::ops::Range<usize>,
}

/// The clause that begins at `at`, with or without FOR.
fn clause(tokens: &[TokenWithSpan], at: usize) -> Result<Option<Clause>, Box<At>> {
    let mut next = at;
    let bare = !is(tokens, at, "FOR");
    if !bare {
        next = solid(tokens, at + 1);
    }
    let kind = if is(tokens, next, "VERSION") || (!bare && is(tokens, next, "SYSTEM_VERSION")) {
        VERSION
    } else if is(tokens, next, "TIMESTAMP") || (!bare && is(tokens, next, "SYSTEM_TIME")) {
        TIME
    } else {
        return Ok(None);
    };
    let r#as = solid(tokens, next + 1);
    let of = solid(tokens, r#as + 1);
    if !is(tokens, r#as, "AS") || !is(tokens, of, "OF") {
        return Ok(None);
    }
    let fail = |e| Err(At::new(e, tokens[at].span.start));
    let (name_end, place) = match before(tokens, at) {
        Before::Name(end) => (end, true),
        Before::Stream => {
            return fail(refused("a stream has no versions", "Read it by _partition, _offset and _timestamp."));
        }
        Before::Other => (0, false),
    };
    match (place, bare) {
        (true, _) => {}
        // `SELECT version AS of` is one of PostgreSQL's.
        (false, true) => return Ok(None),
        (false, false) => {
            let mut e = error(SYNTAX, "FOR … AS OF stands behind the name of a table");
            e.hint = Some("An alias comes after it: FROM t FOR VERSION AS OF 'b' AS x.".to_owned());
            return fail(e);
        }
    }
    let from = solid(tokens, of + 1);
    let Some(end) = expression_end(tokens, from) else {
        return Err(At::new(error(SYNTAX, "a version of a table is expected behind AS OF"), tokens[of].span.start));
    };
    Ok(Some(Clause { kind, name_end, expr: from..end }))
}

enum Before {
    /// A name in the place of a table, and the index behind it.
    Name(usize),
    Stream,
    Other,
}

/// What stands before `at`.
fn before(tokens: &[TokenWithSpan], at: usize) -> Before {
    let back = |from: usize| tokens[..from].iter().rposition(|t| !matches!(t.token, Token::Whitespace(_)));
    let Some(last) = back(at) else { return Before::Other };
    let mut first = last;
    if !matches!(tokens[first].token, Token::Word(_)) {
        return Before::Other;
    }
    while let Some(dot) = back(first).filter(|dot| tokens[*dot].token == Token::Period)
        && let Some(part) = back(dot).filter(|part| matches!(tokens[*part].token, Token::Word(_)))
    {
        first = part;
    }
    let Some(lead) = back(first) else { return Before::Other };
    match &tokens[lead].token {
        Token::Comma | Token::LParen => Before::Name(last + 1),
        Token::Word(w) if w.quote_style.is_some() => Before::Other,
        Token::Word(w) if w.value.eq_ignore_ascii_case("stream") => Before::Stream,
        Token::Word(w) => match w.keyword {
            Keyword::FROM | Keyword::JOIN | Keyword::USING | Keyword::TABLE | Keyword::ONLY | Keyword::LATERAL => {
                Before::Name(last + 1)
            }
            _ => Before::Other,
        },
        _ => Before::Other,
    }
}

/// The index behind the expression that begins at `from`.
fn expression_end(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let some = tokens.get(from..tokens.len().min(from + MAX_TOKENS))?;
    let mut parser = Parser::new(&DIALECT).with_recursion_limit(MAX_DEPTH).with_tokens_with_locations(some.to_vec());
    parser.parse_expr().ok()?;
    // Having looked ahead and gone back, the parser may stand behind blanks.
    let read = some.get(..=parser.get_current_index()).unwrap_or(some);
    read.iter().rposition(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).map(|last| from + last + 1)
}

fn is(tokens: &[TokenWithSpan], at: usize, word: &str) -> bool {
    matches!(tokens.get(at).map(|t| &t.token), Some(Token::Word(w))
        if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The first token from `at` on that is no blank.
fn solid(tokens: &[TokenWithSpan], at: usize) -> usize {
    (at..tokens.len()).find(|&i| !matches!(tokens[i].token, Token::Whitespace(_))).unwrap_or(tokens.len())
}

/// Makes versions of the arguments in `node`.
pub(super) fn read(tokens: &[TokenWithSpan], node: &mut impl VisitMut) {
    struct V;
    impl VisitorMut for V {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { args, version, .. } = factor
                && let Some(found) = args.as_mut().and_then(version_in)
            {
                *version = Some(found);
                *args = None;
            }
            ControlFlow::Continue(())
        }
    }
    let marked = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if w.quote_style.is_some() && is_mark(&w.value));
    if tokens.iter().any(marked) {
        let _ = walk_mut(node, &mut V);
    }
}

fn is_mark(word: &str) -> bool {
    word == VERSION || word == TIME
}

fn version_in(args: &mut TableFunctionArgs) -> Option<TableVersion> {
    let [arg] = args.args.as_slice() else { return None };
    let (name, expr) = match arg {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
        | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), .. } => (name, expr),
        _ => return None,
    };
    match name.value.as_str() {
        VERSION => Some(TableVersion::VersionAsOf(expr.clone())),
        TIME => Some(TableVersion::TimestampAsOf(expr.clone())),
        _ => None,
    }
}
