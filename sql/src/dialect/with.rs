//! `WITH … INSERT | UPDATE | DELETE | MERGE`, which the parser reads as a query whose body is that statement.

use sqlparser::ast::{Query, SetExpr, Statement, With};

/// The statement, and the WITH before it where it is no query.
pub(crate) fn behind_with(sql: &Statement) -> (Option<&With>, &Statement) {
    if let Statement::Query(query) = sql
        && let SetExpr::Insert(inner) | SetExpr::Update(inner) | SetExpr::Delete(inner) | SetExpr::Merge(inner) =
            query.body.as_ref()
    {
        return (query.with.as_ref(), inner);
    }
    (None, sql)
}

/// The query with another WITH around it.
pub(crate) fn under_with(with: Option<&With>, mut query: Query, alone: impl FnOnce(SetExpr) -> Query) -> Query {
    let Some(with) = with else { return query };
    if query.with.is_some() {
        query = alone(SetExpr::Query(Box::new(query)));
    }
    query.with = Some(with.clone());
    query
}
