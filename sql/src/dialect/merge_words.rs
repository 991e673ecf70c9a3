//! Words of MERGE and INSERT that sqlparser does not know, in words that it does.
//!
//! Before anything is parsed, `THEN DO NOTHING` becomes an UPDATE or INSERT of the column `"**"`, which [`does_nothing`]
//! knows again. `UPDATE [SET *] BY NAME` and `INSERT [*] BY NAME` become `UPDATE SET *` and `INSERT *` (DuckDB), and
//! `MERGE WITH SCHEMA EVOLUTION` (Databricks and Spark) becomes a first clause `WHEN MATCHED AND "**" THEN DELETE`, which [`evolves`]
//! knows again. `INSERT INTO t BY NAME query` gets the column list `("*")`, which [`by_name`] knows again (DuckDB and Spark).

use sqlparser::ast::{AssignmentTarget, Expr, Ident, Insert, Merge, MergeAction, ObjectName};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

const NOTHING: &str = "**";
const BY_NAME: &str = "*";

/// Whether the clause is THEN DO NOTHING.
pub fn does_nothing(action: &MergeAction) -> bool {
    let is =
        |name: &ObjectName| matches!(name.0.as_slice(), [one] if one.as_ident().is_some_and(|i| marks(i, NOTHING)));
    match action {
        MergeAction::Insert(insert) => insert.columns.iter().any(is),
        MergeAction::Update(update) => update.assignments.iter().any(|a| match &a.target {
            AssignmentTarget::ColumnName(name) => is(name),
            AssignmentTarget::Tuple(_) => false,
        }),
        MergeAction::Delete { .. } => false,
    }
}

/// Whether it is MERGE WITH SCHEMA EVOLUTION; then the first clause says so and nothing else.
pub fn evolves(merge: &Merge) -> bool {
    matches!(merge.clauses.first().and_then(|c| c.predicate.as_ref()), Some(Expr::Identifier(i)) if marks(i, NOTHING))
}

/// Whether the columns are those that the query names.
pub fn by_name(insert: &Insert) -> bool {
    matches!(insert.columns.as_slice(), [one] if marks(one, BY_NAME))
}

fn marks(ident: &Ident, marker: &str) -> bool {
    ident.quote_style.is_some() && ident.value == marker
}

pub(super) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let any = |word: &str| tokens.iter().any(|t| is(t, word));
    let (merge, insert) =
        (any("MERGE") && (any("NOTHING") || any("NAME") || any("EVOLUTION")), any("INSERT") && any("NAME"));
    if !merge && !insert {
        return tokens;
    }
    let solid: Vec<usize> = (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let sees = |at: usize, words: &[&str]| {
        words.iter().enumerate().all(|(i, word)| solid.get(at + i).is_some_and(|n| is(&tokens[*n], word)))
    };
    let star = |at: usize| solid.get(at).is_some_and(|n| tokens[*n].token == Token::Mul);
    // Solid tokens that are replaced, from and to.
    let mut changes: Vec<(usize, usize, Vec<Token>)> = Vec::new();
    let mut not_matched = false;
    let mut evolution = false;
    for at in 0..solid.len() {
        if merge && (sees(at, &["WHEN", "MATCHED"]) || sees(at, &["WHEN", "NOT", "MATCHED"])) {
            if std::mem::take(&mut evolution) {
                // The word itself, behind the clause.
                changes.push((at, at + 1, [evolves_clause(), vec![Token::make_keyword("WHEN")]].concat()));
            }
            not_matched = sees(at + 1, &["NOT"]) && !sees(at + 3, &["BY", "SOURCE"]);
        }
        if sees(at, &["MERGE", "WITH", "SCHEMA", "EVOLUTION"]) {
            changes.push((at, at + 4, vec![Token::make_keyword("MERGE")]));
            evolution = true;
        }
        if merge && sees(at, &["THEN", "DO", "NOTHING"]) {
            changes.push((at + 1, at + 3, nothing(not_matched)));
        }
        for (words, behind) in
            [(["THEN", "INSERT"].as_slice(), 2), (&["THEN", "UPDATE"], 2), (&["THEN", "UPDATE", "SET"], 3)]
        {
            if !merge || !sees(at, words) {
                continue;
            }
            let by = at + behind + usize::from(star(at + behind));
            if sees(by, &["BY", "NAME"]) && (behind == 2 || by > at + behind) {
                let mut words = vec![Token::Mul];
                if sees(at + 1, &["UPDATE"]) {
                    words.insert(0, Token::make_keyword("SET"));
                }
                changes.push((at + 2, by + 2, words));
            }
        }
        if insert && sees(at, &["INSERT"]) {
            let mut by = at + 1;
            while solid.get(by).is_some_and(|n| matches!(tokens[*n].token, Token::Word(_) | Token::Period))
                && !sees(by, &["BY", "NAME"])
            {
                by += 1;
            }
            if by > at + 1 && sees(by, &["BY", "NAME"]) {
                changes.push((by, by + 2, vec![Token::LParen, quoted(BY_NAME), Token::RParen]));
            }
        }
    }
    for (from, to, new) in changes.into_iter().rev() {
        let span = tokens[solid[from]].span;
        let new = new.into_iter().map(|token| TokenWithSpan { token, span });
        tokens.splice(solid[from]..=solid[to - 1], new);
    }
    tokens
}

fn nothing(insert: bool) -> Vec<Token> {
    let name = || quoted(NOTHING);
    if insert {
        let list = || vec![Token::LParen, name(), Token::RParen];
        return [vec![Token::make_keyword("INSERT")], list(), vec![Token::make_keyword("VALUES")], list()].concat();
    }
    vec![Token::make_keyword("UPDATE"), Token::make_keyword("SET"), name(), Token::Eq, name()]
}

fn evolves_clause() -> Vec<Token> {
    let words = |words: &[&str]| words.iter().map(|word| Token::make_keyword(word)).collect::<Vec<_>>();
    [words(&["WHEN", "MATCHED", "AND"]), vec![quoted(NOTHING)], words(&["THEN", "DELETE"])].concat()
}

fn quoted(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword })
}

fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
