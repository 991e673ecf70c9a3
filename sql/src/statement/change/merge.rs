//! MERGE INTO table USING source ON … WHEN …, as PostgreSQL has it.
//!
//! The query joins table and source and gives, for each clause, whether it is the one (`when`) and its values. Which
//! clause a row falls to is settled in the plan, and the values of that clause alone are computed.

use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Case, Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use sqlparser::ast::{
    self, Ident, JoinConstraint, JoinOperator, Merge, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr,
    MergeInsertKind, ObjectName, SelectItem, TableAlias, TableFactor, TableWithJoins, VisitorMut,
};
use tidewater_catalogs::{ChangeKind, Changed, Repeated};

use super::{ChangesRows, Compiled, Shape, assignment, named, query};
use crate::dialect::{fold, insert_star, same_of, update_star, walk_mut};
use crate::error::Result;
use crate::plan::{assign, rewrite};
use crate::session::StatementContext;
use crate::statement::{default_value, insert};
use crate::{SqlError, SqlState};

/// True in rows of the source, null where a row of the table has met none.
const FOUND: &str = "_tidewater_found";
/// The number of the clause that a row falls to.
const CLAUSE: &str = "_tidewater_clause";

impl ChangesRows for Merge {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Merge
    }

    fn refuse(&self) -> Result<()> {
        if self.output.is_some() {
            return Err(SqlError::unsupported("MERGE … RETURNING is not supported yet"));
        }
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
        let (mut cells, mut actions) = (Vec::new(), Vec::new());
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
            let values = match &clause.action {
                MergeAction::Delete { .. } => None,
                MergeAction::Update(update) => {
                    let values = assignment::values(ctx, table, &update.assignments)?;
                    cells.extend(assignment::cells(&table.schema, &values));
                    let columns = values.into_iter().zip(table.schema.fields());
                    Some(columns.map(|(v, f)| Some(v.unwrap_or_else(|| table.column(f.name())))).collect())
                }
                MergeAction::Insert(insert) => {
                    let values = inserted(ctx, table, insert)?;
                    cells.extend(assignment::cells(&table.schema, &values));
                    Some(values)
                }
            };
            actions.push(values.map(|values: Vec<Option<ast::Expr>>| {
                let mut at = Vec::with_capacity(values.len());
                for (column, value) in values.into_iter().enumerate() {
                    at.push(value.map(|value| {
                        select.projection.push(named(value, format!("v{i}_{column}")));
                        select.projection.len() - 1
                    }));
                }
                at
            }));
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
        let arrange = move |plan: LogicalPlan, columns: &Schema| arrange(plan, columns, &whens, &actions);
        Ok(Compiled { query: query(select), cells, arrange: Box::new(arrange) })
    }

    fn tag(&self, changed: Changed) -> String {
        format!("MERGE {}", changed.taken + changed.added)
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

/// The source with [`FOUND`] in each row, under the name that the statement has for it.
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
        insert::type_cell(&mut value, field.data_type(), false)?;
        all[at] = Some(value);
    }
    for (value, field) in all.iter_mut().zip(table.schema.fields()).filter(|(value, _)| value.is_none()) {
        if let Some(default) = table.defaults.get(field.name()) {
            let mut cell = default_value::literal(default)?;
            insert::type_cell(&mut cell, field.data_type(), false)?;
            *value = Some(cell);
        }
    }
    for (value, field) in all.iter().zip(table.schema.fields()) {
        if value.is_none() && !field.is_nullable() {
            return Err(insert::null_in(field.name(), &table.shown));
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

/// From `place, when0, values of clause 0 …, when1, …` to the rows that go and come. `whens` has the place of each
/// condition; `actions` that of each value, none for a clause that deletes.
fn arrange(
    plan: LogicalPlan,
    columns: &Schema,
    whens: &[usize],
    actions: &[Option<Vec<Option<usize>>>],
) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err(SqlError::internal("the query of MERGE is no projection"));
    };
    let given: Vec<Expr> = projection.expr.iter().map(|e| e.clone().unalias()).collect();
    let input = projection.input.as_ref().clone();
    let number = |i: usize| i32::try_from(i).map_or_else(|_| lit(ScalarValue::Null), lit);
    // Settled once: a condition may give another answer when it is asked again.
    let clauses = whens.iter().enumerate().map(|(i, at)| (Box::new(given[*at].clone()), Box::new(number(i))));
    let clause = Expr::Case(Case { expr: None, when_then_expr: clauses.collect(), else_expr: None });
    let carried: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let settled = LogicalPlanBuilder::from(input)
        .project(carried.into_iter().chain([clause.alias(CLAUSE)]))?
        .filter(col(CLAUSE).is_not_null())?
        .build()?;
    let schema = settled.schema().clone();
    let of_clause = |values: Vec<(usize, Expr)>| {
        let when_then_expr = values.into_iter().map(|(i, value)| (Box::new(number(i)), Box::new(value))).collect();
        Expr::Case(Case { expr: Some(Box::new(col(CLAUSE))), when_then_expr, else_expr: None })
    };
    let comes = actions.iter().enumerate().map(|(i, values)| (i, lit(values.is_some()))).collect();
    let mut out = vec![given[0].clone().alias("place"), of_clause(comes).alias("comes")];
    // A MERGE that only deletes brings no rows.
    if actions.iter().any(Option::is_some) {
        for (column, field) in columns.fields().iter().enumerate() {
            let mut values = Vec::new();
            for (i, action) in actions.iter().enumerate() {
                if let Some(at) = action.as_ref().and_then(|values| values[column]) {
                    let value = given[at].clone();
                    values.push((i, assign::to_type(value, schema.as_ref(), field.data_type(), field.name())?));
                }
            }
            let null = lit(ScalarValue::try_from(field.data_type())?);
            let value = if values.is_empty() { null } else { of_clause(values) };
            out.push(value.alias(format!("c{column}")));
        }
    } else {
        out.truncate(1);
    }
    Ok(LogicalPlanBuilder::from(settled).project(out)?.build()?)
}
