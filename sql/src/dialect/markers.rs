//! `FROM STREAM x`, which PostgreSQL would read as table `stream` under the alias `x`.
//!
//! Before anything is parsed, `STREAM x` in the place of a table becomes `STREAM(x)`, a form that sqlparser knows
//! as a table function, prints, and reads again. A quoted `"stream"` stays a table, and so does `FROM stream` with
//! nothing behind it that could be a name.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, TableFactor};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::errors::{At, refused};

/// The name inside `STREAM(x)`, or none where `factor` is anything else.
pub fn stream_marker(factor: &TableFactor) -> Option<ObjectName> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return None };
    let [ObjectNamePart::Identifier(word)] = name.0.as_slice() else { return None };
    if word.quote_style.is_some() || !word.value.eq_ignore_ascii_case("stream") {
        return None;
    }
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] = args.args.as_slice() else { return None };
    match expr {
        Expr::Identifier(ident) => Some(ObjectName::from(vec![ident.clone()])),
        Expr::CompoundIdentifier(parts) => Some(ObjectName::from(parts.clone())),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Frame {
    /// A SELECT was seen, so that FROM is a clause and not a part of EXTRACT or TRIM.
    select: bool,
    /// Inside the FROM clause.
    from: bool,
}

/// Writes the markers, and refuses the clauses of queries that are not built yet.
pub(super) fn rewrite(_source: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Box<At>> {
    // Indexes of what is no blank.
    let solid: Vec<usize> = (0..tokens.len()).filter(|&i| !matches!(tokens[i].token, Token::Whitespace(_))).collect();
    let word = |n: usize| -> &str {
        match solid.get(n).map(|&i| &tokens[i].token) {
            Some(Token::Word(w)) if w.quote_style.is_none() => w.value.as_str(),
            _ => "",
        }
    };
    let is = |n: usize, w: &str| word(n).eq_ignore_ascii_case(w);
    let token = |n: usize| solid.get(n).map(|&i| &tokens[i].token);

    // Token indexes to put "(" before and ")" behind, and those whose keyword is forgotten.
    let mut open: Vec<usize> = Vec::new();
    let mut close: Vec<usize> = Vec::new();
    let mut plain: Vec<usize> = Vec::new();

    let mut frames = vec![Frame { select: true, from: false }];
    // The next token is in the place of a table.
    let mut place = false;
    let mut n = 0;
    while n < solid.len() {
        refuse_clause(n, &tokens[solid[n]], &is, token(n + 1), place)?;
        let here = place;
        place = false;
        let nested = frames.len() > 1;
        let Some(frame) = frames.last_mut() else { break };
        match &tokens[solid[n]].token {
            Token::LParen => {
                frames.push(Frame { select: false, from: here });
                place = here;
            }
            Token::RParen if nested => {
                frames.pop();
            }
            Token::Comma => place = frame.from,
            Token::Word(w) if w.quote_style.is_none() => match w.keyword {
                Keyword::SELECT => *frame = Frame { select: true, from: false },
                Keyword::FROM if frame.select && !is(n.wrapping_sub(1), "DISTINCT") => {
                    frame.from = true;
                    place = true;
                }
                Keyword::JOIN => place = frame.from,
                Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER
                | Keyword::LIMIT
                | Keyword::OFFSET
                | Keyword::FETCH
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::WINDOW
                | Keyword::RETURNING
                    if frame.from =>
                {
                    frame.from = false;
                }
                _ if here && is(n, "STREAM") => {
                    let called = matches!(token(n + 1), Some(Token::LParen));
                    let first = if called { n + 2 } else { n + 1 };
                    if let Some(last) = name_end(first, &token, called) {
                        plain.extend((first..=last).map(|k| solid[k]));
                        if !called {
                            open.push(solid[first]);
                            close.push(solid[last]);
                            n = last;
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
        n += 1;
    }
    if open.is_empty() && plain.is_empty() {
        return Ok(tokens);
    }

    let mut out = Vec::with_capacity(tokens.len() + 2 * open.len());
    for (i, mut t) in tokens.into_iter().enumerate() {
        if open.binary_search(&i).is_ok() {
            out.push(TokenWithSpan::at(Token::LParen, t.span.start, t.span.start));
        }
        if plain.binary_search(&i).is_ok()
            && let Token::Word(w) = &mut t.token
        {
            // A stream may be called like a keyword that begins an expression.
            *w = Word { value: w.value.clone(), quote_style: w.quote_style, keyword: Keyword::NoKeyword };
        }
        let end = t.span.end;
        out.push(t);
        if close.binary_search(&i).is_ok() {
            out.push(TokenWithSpan::at(Token::RParen, end, end));
        }
    }
    Ok(out)
}

/// Words that stand behind a table in FROM, and that PostgreSQL reserves.
const BEHIND_A_TABLE: &[Keyword] = &[
    Keyword::AS,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::FETCH,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::WINDOW,
    Keyword::RETURNING,
    Keyword::FOR,
    Keyword::ON,
    Keyword::JOIN,
    Keyword::INNER,
    Keyword::CROSS,
    Keyword::FULL,
    Keyword::LEFT,
    Keyword::RIGHT,
    Keyword::NATURAL,
    Keyword::USING,
    Keyword::ASOF,
    Keyword::TABLESAMPLE,
    Keyword::SET,
    Keyword::WITH,
    Keyword::SELECT,
    Keyword::LATERAL,
];

/// The last token of the dotted name that begins at `first`. Without parentheses, a word that could not be an alias
/// begins no name: `FROM stream WHERE …` reads a table called stream.
fn name_end<'t>(first: usize, token: &impl Fn(usize) -> Option<&'t Token>, called: bool) -> Option<usize> {
    match token(first) {
        Some(Token::Word(w)) => {
            if w.quote_style.is_none() && !called && BEHIND_A_TABLE.contains(&w.keyword) {
                return None;
            }
        }
        _ => return None,
    }
    let mut last = first;
    while matches!(token(last + 1), Some(Token::Period)) && matches!(token(last + 2), Some(Token::Word(_))) {
        last += 2;
    }
    Some(last)
}

fn refuse_clause(
    n: usize,
    at: &TokenWithSpan,
    is: &impl Fn(usize, &str) -> bool,
    next: Option<&Token>,
    place: bool,
) -> Result<(), Box<At>> {
    let one_of = |n: usize, words: &[&str]| words.iter().any(|w| is(n, w));
    let Token::Word(w) = &at.token else { return Ok(()) };
    if w.quote_style.is_some() {
        return Ok(());
    }
    let called = matches!(next, Some(Token::LParen));
    let error = if place && called && one_of(n, &["TUMBLE", "HOP", "CUMULATE", "SESSION"]) {
        refused(
            format!("window function {} is not supported yet", w.value.to_uppercase()),
            "Streaming tables filter and transform rows one by one today; aggregate with a query over the table, \
             for example GROUP BY date_trunc('minute', ts).",
        )
    } else if is(n, "WINDOW") && one_of(n + 1, &["TUMBLING", "HOPPING", "SESSION"]) && !is(n + 2, "AS") {
        refused(
            "WINDOW TUMBLING, HOPPING and SESSION are not supported",
            "Windows are written FROM TUMBLE(STREAM s, DESCRIPTOR(ts), INTERVAL '1 minute'), which this version \
             does not run yet.",
        )
    } else if is(n, "EMIT") && one_of(n + 1, &["CHANGES", "PERIODIC", "FINAL"]) {
        refused(
            format!("EMIT {} is not supported", if is(n + 1, "CHANGES") { "CHANGES" } else { "clauses" }),
            "The translation is SUBSCRIBE (SELECT … FROM STREAM s). To keep the result, use CREATE STREAMING TABLE … \
             AS SELECT … FROM STREAM s and query it.",
        )
    } else if is(n, "EMIT")
        && ((is(n + 1, "ON") && one_of(n + 2, &["UPDATE", "WINDOW"])) || (is(n + 1, "AFTER") && is(n + 2, "WINDOW")))
    {
        refused(
            "EMIT is not supported yet",
            "Leave it out: streaming tables append each row once, as soon as it is committed.",
        )
    } else if is(n, "ASOF") && is(n + 1, "JOIN") {
        refused("ASOF JOIN is not supported yet", "Use a join with a subquery over row_number().")
    } else if is(n, "FOR") && is(n + 1, "OFFSETS") && is(n + 2, "AS") && is(n + 3, "OF") {
        refused(
            "FOR OFFSETS AS OF SNAPSHOT is not supported yet",
            "Name the offsets: WHERE _partition = 0 AND _offset BETWEEN 100 AND 200.",
        )
    } else {
        return Ok(());
    };
    Err(At::new(error, at.span.start))
}
