//! `UPDATE SET *` and `INSERT *` of MERGE, with or without `EXCEPT (column, …)`: all columns of the table, from those of the
//! same names in the source (Spark and Databricks have them).
//!
//! Before anything is parsed, `SET * EXCEPT (a)` becomes `SET "*" = "*", "*a" = "*"`, and `INSERT *` becomes
//! `INSERT ("*") VALUES ("*")`, which sqlparser knows. No column of a user has such a name in such a place.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, Ident, MergeAction, MergeInsertExpr, MergeInsertKind, ObjectName,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::ast::fold;

const STAR: &str = "*";

/// Columns that are left out. None where the assignments are ordinary ones.
pub fn update_star(assignments: &[Assignment]) -> Option<Vec<String>> {
    excluded(assignments.iter().map(|assignment| match &assignment.target {
        AssignmentTarget::ColumnName(name) => Some(name),
        AssignmentTarget::Tuple(_) => None,
    }))
}

/// The same of an INSERT.
pub fn insert_star(insert: &MergeInsertExpr) -> Option<Vec<String>> {
    matches!(insert.kind, MergeInsertKind::Values(_)).then(|| excluded(insert.columns.iter().map(Some)))?
}

fn excluded<'a>(names: impl Iterator<Item = Option<&'a ObjectName>>) -> Option<Vec<String>> {
    let starred = |name: &ObjectName| match name.0.as_slice() {
        [part] => part
            .as_ident()
            .filter(|i| i.quote_style.is_some())
            .and_then(|i| i.value.strip_prefix(STAR))
            .map(str::to_owned),
        _ => None,
    };
    let mut names = names.map(|name| name.and_then(starred)).collect::<Option<Vec<String>>>()?.into_iter();
    (names.next()?.is_empty()).then(|| names.collect())
}

/// Leaves more columns out of a star.
pub fn leave_out(action: &mut MergeAction, columns: &[&String]) {
    let name = |column: &str| ObjectName::from(vec![Ident::with_quote('"', column)]);
    let marked = columns.iter().map(|column| name(&format!("{STAR}{column}")));
    match action {
        MergeAction::Update(update) if update_star(&update.assignments).is_some() => {
            let value = Expr::Identifier(Ident::with_quote('"', STAR));
            update.assignments.extend(
                marked.map(|name| Assignment { target: AssignmentTarget::ColumnName(name), value: value.clone() }),
            );
        }
        MergeAction::Insert(insert) if insert_star(insert).is_some() => insert.columns.extend(marked),
        _ => {}
    }
}

/// The column of the source.
pub fn same_of(source: &Ident, column: &str) -> Expr {
    Expr::CompoundIdentifier(vec![source.clone(), Ident::with_quote('"', column)])
}

pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let word = |t: &TokenWithSpan, keyword: Keyword| matches!(&t.token, Token::Word(w) if w.keyword == keyword && w.quote_style.is_none());
    if !tokens.iter().any(|t| word(t, Keyword::MERGE)) || !tokens.iter().any(|t| t.token == Token::Mul) {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let before = out.iter().rev().find(|t| !matches!(t.token, Token::Whitespace(_)));
        let update = before.is_some_and(|t| word(t, Keyword::SET));
        let insert = before.is_some_and(|t| word(t, Keyword::INSERT));
        if token.token != Token::Mul || !(update || insert) {
            out.push(token);
            continue;
        }
        let span = token.span;
        let mut names = vec![STAR.to_owned()];
        let rest: Vec<TokenWithSpan> = tokens.by_ref().collect();
        let (more, used) = except(&rest);
        names.extend(more.into_iter().map(|name| format!("{STAR}{name}")));
        let name = |name: &str| {
            Token::Word(Word { value: name.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword })
        };
        let mut push = |token: Token| out.push(TokenWithSpan { token, span });
        let list = |push: &mut dyn FnMut(Token), all: &[String]| {
            push(Token::LParen);
            for (i, one) in all.iter().enumerate() {
                if i > 0 {
                    push(Token::Comma);
                }
                push(name(one));
            }
            push(Token::RParen);
        };
        if update {
            for (i, one) in names.iter().enumerate() {
                if i > 0 {
                    push(Token::Comma);
                }
                push(name(one));
                push(Token::Eq);
                push(name(STAR));
            }
        } else {
            list(&mut push, &names);
            push(Token::make_keyword("VALUES"));
            list(&mut push, &vec![STAR.to_owned(); names.len()]);
        }
        tokens = rest.into_iter().skip(used).collect::<Vec<_>>().into_iter().peekable();
    }
    out
}

/// Names of `EXCEPT (a, b)` at the beginning, and how many tokens that is.
fn except(tokens: &[TokenWithSpan]) -> (Vec<String>, usize) {
    let solid: Vec<usize> = (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let at = |n: usize| solid.get(n).map(|i| &tokens[*i].token);
    let (Some(Token::Word(first)), Some(Token::LParen)) = (at(0), at(1)) else { return (Vec::new(), 0) };
    if first.quote_style.is_some() || !first.value.eq_ignore_ascii_case("except") {
        return (Vec::new(), 0);
    }
    let (mut names, mut n) = (Vec::new(), 2);
    while let Some(Token::Word(w)) = at(n) {
        names.push(fold(&Ident { value: w.value.clone(), quote_style: w.quote_style, span: tokens[solid[n]].span }));
        match at(n + 1) {
            Some(Token::Comma) => n += 2,
            Some(Token::RParen) => return (names, solid[n + 1] + 1),
            _ => break,
        }
    }
    (Vec::new(), 0)
}
