//! MERGE INTO table USING source ON … WHEN …, as PostgreSQL has it.
//!
//! The query joins table and source and gives, for each clause, whether it is the one (`when`) and its values; see
//! [`super::clauses`] for what becomes of them.

use std::ops::ControlFlow;

use arrow::datatypes::FieldRef;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    self, Ident, JoinConstraint, JoinOperator, Merge, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr,
    MergeInsertKind, ObjectName, OutputClause, SelectItem, TableAlias, TableFactor, TableWithJoins, VisitorMut,
};
use tidewater_catalogs::{ChangeKind, Changed, Repeated};

use super::assignment::{Assigned, Value};
use super::clauses::{Action, Clauses};
use super::{ChangesRows, Compiled, Shape, assignment, named, query};
use crate::dialect::{does_nothing, fold, insert_star, same_of, update_star, walk_mut};
use crate::error::Result;
use crate::plan::rewrite;
use crate::session::{ChangeTag, StatementContext};
use crate::statement::{cells, default_value};
use crate::{SqlError, SqlState};

/// True in rows of the source, null where a row of the table has met none.
pub(super) const FOUND: &str = "_tidewater_found";
/// What is done to the row, for `merge_action()`.
pub(super) const ACTION: &str = "_tidewater_action";

impl ChangesRows for Merge {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Merge
    }

    fn refuse(&self) -> Result<()> {
        if self.clauses.is_empty() {
            return Err(SqlError::syntax("MERGE has no WHEN clause"));
        }
        // A clause behind one of the same kind that takes every row would never be reached.
        for (i, clause) in self.clauses.iter().enumerate() {
            let kind = plain(clause.clause_kind);
            if clause.predicate.is_none() && self.clauses[i + 1..].iter().any(|later| plain(later.clause_kind) == kind)
            {
                return Err(SqlError::syntax("unreachable WHEN clause specified after unconditional WHEN clause"));
            }
            let extra = match &clause.action {
                MergeAction::Insert(insert) => insert.insert_predicate.is_some(),
                MergeAction::Update(update) => update.update_predicate.is_some() || update.delete_predicate.is_some(),
                MergeAction::Delete { .. } => false,
            };
            if extra {
                return Err(SqlError::unsupported("WHERE inside a WHEN clause is not supported")
                    .with_hint("Write the condition behind WHEN … AND."));
            }
        }
        Ok(())
    }

    fn target(&self) -> Result<&TableFactor> {
        Ok(&self.table)
    }

    fn returning(&self) -> Result<Option<&[SelectItem]>> {
        match &self.output {
            None => Ok(None),
            Some(OutputClause::Returning { select_items, .. }) => Ok(Some(select_items)),
            Some(OutputClause::Output { .. }) => {
                Err(SqlError::unsupported("OUTPUT is not supported").with_hint("Write RETURNING."))
            }
        }
    }

    fn compile(&self, ctx: &StatementContext<'_>, table: &Shape) -> Result<Compiled> {
        let (source, name) = source(&self.source)?;
        let found = ast::Expr::CompoundIdentifier(vec![name.clone(), Ident::with_quote('"', FOUND)]);
        let clauses = self.clauses.iter().map(|clause| {
            let mut clause = clause.clone();
            all_columns(&mut clause, table, &name)?;
            match plain(clause.clause_kind) {
                MergeClauseKind::NotMatched => only_of(&mut clause, &name, &table.alias.name)?,
                MergeClauseKind::NotMatchedBySource => only_of(&mut clause, &table.alias.name, &name)?,
                _ => {}
            }
            Ok(clause)
        });
        let clauses = clauses.collect::<Result<Vec<MergeClause>>>()?;
        let mut select = rewrite::empty_select();
        select.projection = vec![named(table.place(), "place")];
        let (mut cells, mut actions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (i, clause) in clauses.iter().enumerate() {
            let is = |expr: &ast::Expr, null: bool| {
                let expr = Box::new(expr.clone());
                if null { ast::Expr::IsNull(expr) } else { ast::Expr::IsNotNull(expr) }
            };
            let when = match plain(clause.clause_kind) {
                MergeClauseKind::Matched => and(is(&table.place(), false), is(&found, false)),
                MergeClauseKind::NotMatchedBySource => is(&found, true),
                _ => is(&table.place(), true),
            };
            let when = match &clause.predicate {
                Some(predicate) => and(when, ast::Expr::Nested(Box::new(predicate.clone()))),
                None => when,
            };
            select.projection.push(named(when, format!("when{i}")));
            if does_nothing(&clause.action) {
                actions.push(Action::Nothing);
                continue;
            }
            let values = match &clause.action {
                MergeAction::Delete { .. } => None,
                MergeAction::Update(update) => {
                    let Assigned { values, rows: more } = assignment::values(ctx, table, &update.assignments)?;
                    cells.extend(assignment::cells(&table.schema, &values));
                    let old = |field: &FieldRef| Value::Expr(table.column(field.name()));
                    let first = rows.len();
                    for (i, row) in more.into_iter().enumerate() {
                        select.projection.push(named(row, format!("r{i}_{}", first + i)));
                        rows.push(select.projection.len() - 1);
                    }
                    let value = |(value, field): (Option<Value>, &FieldRef)| match value {
                        Some(Value::Member { row, member }) => Some(Value::Member { row: first + row, member }),
                        value => Some(value.unwrap_or_else(|| old(field))),
                    };
                    Some(values.into_iter().zip(table.schema.fields()).map(value).collect())
                }
                MergeAction::Insert(insert) => {
                    let values: Vec<Option<Value>> =
                        inserted(ctx, table, insert)?.into_iter().map(|value| value.map(Value::Expr)).collect();
                    cells.extend(assignment::cells(&table.schema, &values));
                    Some(values)
                }
            };
            let Some(values) = values else {
                actions.push(Action::Delete);
                continue;
            };
            let at = assignment::listed(values, &mut select, &format!("v{i}_"));
            actions.push(Action::Values(at));
        }
        let has = |kind| self.clauses.iter().any(|clause| plain(clause.clause_kind) == kind);
        let on = JoinConstraint::On(self.on.as_ref().clone());
        let join = match (has(MergeClauseKind::NotMatched), has(MergeClauseKind::NotMatchedBySource)) {
            (false, false) => JoinOperator::Inner(on),
            (true, false) => JoinOperator::RightOuter(on),
            (false, true) => JoinOperator::LeftOuter(on),
            (true, true) => JoinOperator::FullOuter(on),
        };
        select.from = table.from();
        if let Some(target) = select.from.first_mut() {
            target.joins = vec![ast::Join { relation: source, global: false, join_operator: join }];
        }
        let whens: Vec<usize> = select
            .projection
            .iter()
            .enumerate()
            .filter(
                |(_, item)| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value.starts_with("when")),
            )
            .map(|(at, _)| at)
            .collect();
        let words = clauses.iter().map(|clause| match &clause.action {
            MergeAction::Insert(_) => "INSERT",
            MergeAction::Update(_) => "UPDATE",
            MergeAction::Delete { .. } => "DELETE",
        });
        let words = words.collect();
        // A MERGE that only deletes brings no rows.
        let brings = actions.iter().any(|action| matches!(action, Action::Values(_)));
        let returned = self.output.is_some();
        let clauses = Clauses { whens, rows, actions, words, returned };
        let settle = move |plan: LogicalPlan, table: &Shape| clauses.settle(plan, table);
        Ok(Compiled { query: query(select), cells, settle: Box::new(settle), brings, source: Some(name) })
    }

    fn tag(&self, changed: Changed) -> ChangeTag {
        ChangeTag::Merge(changed.taken + changed.added)
    }

    fn repeated(&self) -> Repeated {
        Repeated::Refused
    }
}

/// `UPDATE SET *` and `INSERT *` written out.
fn all_columns(clause: &mut MergeClause, table: &Shape, source: &Ident) -> Result<()> {
    let columns = |but: &[String]| {
        let names: Vec<&String> = table.schema.fields().iter().map(|f| f.name()).collect();
        if let Some(unknown) = but.iter().find(|name| !names.contains(name)) {
            let text = format!("column \"{unknown}\" of relation \"{}\" does not exist", table.shown);
            return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, text));
        }
        Ok(names.into_iter().filter(|name| !but.contains(name)).cloned().collect::<Vec<String>>())
    };
    let named = |column: &String| ObjectName::from(vec![Ident::with_quote('"', column)]);
    match &mut clause.action {
        MergeAction::Update(update) => {
            if let Some(but) = update_star(&update.assignments) {
                let assigned = columns(&but)?.into_iter().map(|column| ast::Assignment {
                    target: ast::AssignmentTarget::ColumnName(named(&column)),
                    value: same_of(source, &column),
                });
                update.assignments = assigned.collect();
            }
        }
        MergeAction::Insert(insert) => {
            if let Some(but) = insert_star(insert) {
                let columns = columns(&but)?;
                insert.columns = columns.iter().map(named).collect();
                if let MergeInsertKind::Values(values) = &mut insert.kind {
                    values.rows = vec![columns.iter().map(|column| same_of(source, column)).collect()];
                }
            }
        }
        MergeAction::Delete { .. } => {}
    }
    Ok(())
}

/// NOT MATCHED BY TARGET is NOT MATCHED.
fn plain(kind: MergeClauseKind) -> MergeClauseKind {
    match kind {
        MergeClauseKind::NotMatchedByTarget => MergeClauseKind::NotMatched,
        other => other,
    }
}

/// Conditions and values of a clause without a match see the columns of one side only. 42P01 for those of the other.
fn only_of(clause: &mut MergeClause, seen: &Ident, unseen: &Ident) -> Result<()> {
    struct Qualified<'a> {
        seen: &'a Ident,
        unseen: &'a Ident,
        /// In subqueries names may be their own.
        depth: usize,
    }
    impl VisitorMut for Qualified<'_> {
        type Break = SqlError;
        fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<SqlError> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<SqlError> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
            match expr {
                // DEFAULT is a word here, and not a column.
                ast::Expr::Identifier(column)
                    if self.depth == 0
                        && (column.quote_style.is_some() || !column.value.eq_ignore_ascii_case("default")) =>
                {
                    *expr = ast::Expr::CompoundIdentifier(vec![self.seen.clone(), column.clone()]);
                }
                ast::Expr::CompoundIdentifier(parts)
                    if self.depth == 0 && parts.len() == 2 && fold(&parts[0]) == fold(self.unseen) =>
                {
                    let text = format!("invalid reference to FROM-clause entry for table \"{}\"", fold(self.unseen));
                    return ControlFlow::Break(
                        SqlError::new(SqlState::UNDEFINED_TABLE, text)
                            .with_detail("A row without a match has no columns of that table."),
                    );
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut visitor = Qualified { seen, unseen, depth: 0 };
    let mut see = |expr: &mut ast::Expr| match walk_mut(expr, &mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    };
    clause.predicate.iter_mut().try_for_each(&mut see)?;
    match &mut clause.action {
        MergeAction::Insert(MergeInsertExpr { kind: MergeInsertKind::Values(values), .. }) => {
            values.rows.iter_mut().flatten().try_for_each(&mut see)
        }
        MergeAction::Update(update) => update.assignments.iter_mut().map(|a| &mut a.value).try_for_each(&mut see),
        _ => Ok(()),
    }
}

fn and(left: ast::Expr, right: ast::Expr) -> ast::Expr {
    ast::Expr::BinaryOp { left: Box::new(left), op: ast::BinaryOperator::And, right: Box::new(right) }
}

/// The source with [`FOUND`] and [`ACTION`] in each row, under the name that the statement has for it.
fn source(factor: &TableFactor) -> Result<(TableFactor, Ident)> {
    let alias = match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            alias.name.clone()
        }
        TableFactor::Table { name, alias: None, .. } => {
            let own = name.0.last().and_then(|part| part.as_ident()).cloned();
            own.ok_or_else(|| SqlError::syntax(format!("invalid name: {name}")))?
        }
        _ => {
            return Err(SqlError::unsupported("this source of MERGE is not supported")
                .with_hint("Write USING table or USING (SELECT …) AS name."));
        }
    };
    let mut select = rewrite::empty_select();
    select.projection.push(SelectItem::Wildcard(ast::WildcardAdditionalOptions::default()));
    select.projection.push(named(ast::Expr::Value(ast::Value::Boolean(true).into()), FOUND));
    select.projection.push(named(rewrite::string(""), ACTION));
    select.from = vec![TableWithJoins { relation: factor.clone(), joins: Vec::new() }];
    let derived = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query(select)),
        alias: Some(TableAlias { explicit: true, name: alias.clone(), columns: Vec::new() }),
        sample: None,
    };
    Ok((derived, alias))
}

/// What INSERT gives each column; none where that is null.
fn inserted(ctx: &StatementContext<'_>, table: &Shape, insert: &MergeInsertExpr) -> Result<Vec<Option<ast::Expr>>> {
    let MergeInsertKind::Values(values) = &insert.kind else {
        return Err(SqlError::unsupported("INSERT ROW is not supported").with_hint("Write INSERT (…) VALUES (…)."));
    };
    let [row] = values.rows.as_slice() else {
        return Err(SqlError::syntax("INSERT of a WHEN clause has one row of values"));
    };
    let columns: Vec<usize> = match insert.columns.as_slice() {
        [] => (0..table.schema.fields().len()).collect(),
        names => {
            let mut columns: Vec<usize> = Vec::with_capacity(names.len());
            for name in names {
                let at = unqualified(ctx, table, name)?;
                if columns.contains(&at) {
                    let text = format!("column \"{}\" specified more than once", table.schema.field(at).name());
                    return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, text));
                }
                columns.push(at);
            }
            columns
        }
    };
    if row.len() > columns.len() {
        return Err(SqlError::syntax("INSERT has more expressions than target columns"));
    }
    if row.len() < columns.len() && !insert.columns.is_empty() {
        return Err(SqlError::syntax("INSERT has more target columns than expressions"));
    }
    let mut all = vec![None; table.schema.fields().len()];
    for (value, at) in row.iter().zip(columns) {
        let mut value = value.clone();
        assignment::refuse_windows(&value)?;
        let field = table.schema.field(at);
        default_value::fill(&mut value, &table.defaults, field.name())?;
        cells::type_cell(&mut value, field.data_type(), false)?;
        all[at] = Some(value);
    }
    for (value, field) in all.iter_mut().zip(table.schema.fields()).filter(|(value, _)| value.is_none()) {
        if let Some(default) = table.defaults.get(field.name()) {
            let mut cell = default_value::literal(default)?;
            cells::type_cell(&mut cell, field.data_type(), false)?;
            *value = Some(cell);
        }
    }
    for (value, field) in all.iter().zip(table.schema.fields()) {
        if value.is_none() && !field.is_nullable() {
            return Err(cells::null_in(field.name(), &table.shown));
        }
    }
    Ok(all)
}

fn unqualified(ctx: &StatementContext<'_>, table: &Shape, name: &ObjectName) -> Result<usize> {
    match name.0.as_slice() {
        [_] => assignment::column(ctx, table, name),
        _ => Err(SqlError::syntax(format!("column {} of INSERT has a qualifier", name)).with_hint(format!(
            "Write \"{}\".",
            name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default()
        ))),
    }
}
