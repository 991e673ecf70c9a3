//! Forms that PostgreSQL has and the planner does not know, or reads wrongly, brought into forms that it reads
//! right. All else that it would pass over in silence is refused.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName, Query, Select,
    SelectItem, SetExpr, Subscript, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, UnaryOperator, Value,
    VisitorMut,
};

use super::typed_forms::reword;
use super::words::{
    AS_IS, dot_is_any, like_any, minus_interval, quantified, renamed, row_among, row_is_null, row_order, rows_equal,
    seconds, sign_before_power,
};
use super::{subqueries, typed_forms};
use crate::dialect::{ParsedStatement, fold, regroup, stream_marker, walk, walk_mut};
use crate::error::Result;
use crate::{SqlError, SqlState};

/// All forms of a query outside of flows.
pub(super) fn forms(query: &mut Query, statement: Option<&ParsedStatement>) -> Result<()> {
    regroup(query);
    run(query, statement)
}

/// The forms of an expression that stands alone.
pub(super) fn expression(expr: &mut Expr) -> Result<()> {
    regroup(expr);
    finish(walk_mut(expr, &mut Rewriter { statement: None, aggregates: 0 }))
}

fn run(query: &mut Query, statement: Option<&ParsedStatement>) -> Result<()> {
    finish(walk_mut(query, &mut Rewriter { statement, aggregates: 0 }))
}

fn finish(flow: ControlFlow<SqlError>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Rewriter<'a> {
    statement: Option<&'a ParsedStatement>,
    /// Calls of aggregates around the expression that is visited.
    aggregates: usize,
}

fn cf(result: Result<()>) -> ControlFlow<SqlError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        cf(query_forms(query))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        cf(factor_forms(factor, self.statement))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        self.aggregates += usize::from(is_aggregate(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        self.aggregates -= usize::from(is_aggregate(expr));
        let cast = match expr {
            Expr::Cast { expr: inner, data_type, .. } if !matches!(inner.as_ref(), Expr::Value(_)) => {
                Some(data_type.to_string())
            }
            _ => None,
        };
        cf(expr_forms(expr))?;
        if let (Some(to), 1..) = (cast, self.aggregates) {
            let inner = std::mem::replace(expr, Expr::Value(Value::Null.into()));
            *expr = call(AS_IS, vec![inner, string(&to)]);
        }
        ControlFlow::Continue(())
    }
}

fn query_forms(query: &mut Query) -> Result<()> {
    if !query.locks.is_empty() {
        return Err(SqlError::unsupported("FOR UPDATE and FOR SHARE are not supported")
            .with_hint("There are no row locks; leave the clause out."));
    }
    if query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty()
    {
        return Err(SqlError::unsupported("this clause of a query is not supported"));
    }
    if let Some(fetch) = query.fetch.take() {
        if fetch.with_ties || fetch.percent {
            return Err(
                SqlError::unsupported("FETCH … WITH TIES and PERCENT are not supported").with_hint("Use LIMIT.")
            );
        }
        let quantity = fetch.quantity.unwrap_or_else(|| number("1"));
        query.limit_clause = Some(match query.limit_clause.take() {
            None => LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] },
            Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
                LimitClause::LimitOffset { limit: Some(quantity), offset, limit_by }
            }
            Some(_) => return Err(SqlError::syntax("multiple LIMIT clauses not allowed")),
        });
    }
    if let Some(with) = query.with.as_mut().filter(|w| w.recursive) {
        with.cte_tables.iter_mut().for_each(subqueries::name_recursive);
    }
    body_forms(&mut query.body)
}

fn body_forms(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) => {
            if select.into.is_some() {
                return Err(SqlError::unsupported("SELECT INTO is not supported")
                    .with_hint("Use CREATE TABLE name AS SELECT …."));
            }
            if select.prewhere.is_some() || !select.connect_by.is_empty() || select.value_table_mode.is_some() {
                return Err(SqlError::unsupported("this clause of SELECT is not supported"));
            }
            distinct_names(&select.from)?;
            select.from.iter().try_for_each(shared_columns)?;
            super::lateral::nest(select)?;
            for item in &mut select.projection {
                if let SelectItem::ExprWithAlias { alias, .. } = item
                    && alias.quote_style == Some('\'')
                {
                    return Err(SqlError::syntax(format!("syntax error at or near \"'{}'\"", alias.value))
                        .with_hint("Names are quoted like \"this\", and texts are joined with ||."));
                }
                name_before(item);
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    subqueries::count_instead_of_exists(expr);
                }
            }
            Ok(())
        }
        SetExpr::SetOperation { left, right, op, set_quantifier } => {
            // The engine would keep or drop all rows that are alike, whatever their number on the other side.
            if matches!(op, ast::SetOperator::Except | ast::SetOperator::Intersect | ast::SetOperator::Minus)
                && matches!(set_quantifier, ast::SetQuantifier::All | ast::SetQuantifier::AllByName)
            {
                return Err(SqlError::unsupported(format!("{op} ALL is not supported"))
                    .with_hint(format!("Write {op}, or number the rows that are alike with row_number().")));
            }
            body_forms(left)?;
            body_forms(right)
        }
        SetExpr::Table(table) => {
            let name: Vec<Ident> = [&table.schema_name, &table.table_name]
                .into_iter()
                .flatten()
                .map(|n| Ident::with_quote('"', n))
                .collect();
            *body = SetExpr::Select(Box::new(select_all(ObjectName::from(name))));
            Ok(())
        }
        SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(SqlError::unsupported("statements that write inside WITH are not supported")
                .with_hint("Write INSERT INTO … WITH … SELECT instead."))
        }
    }
}

/// `SELECT * FROM name`.
pub(crate) fn select_all(name: ObjectName) -> Select {
    Select {
        select_token: ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hint: None,
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())],
        exclude: None,
        into: None,
        from: vec![TableWithJoins {
            relation: TableFactor::Table {
                name,
                alias: None,
                args: None,
                with_hints: vec![],
                version: None,
                with_ordinality: false,
                partitions: vec![],
                json_path: None,
                sample: None,
                index_hints: vec![],
            },
            joins: vec![],
        }],
        lateral_views: vec![],
        prewhere: None,
        selection: None,
        connect_by: vec![],
        group_by: ast::GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    }
}

fn factor_forms(factor: &mut TableFactor, statement: Option<&ParsedStatement>) -> Result<()> {
    if let Some(name) = stream_marker(factor) {
        let mut error = SqlError::unsupported(format!("STREAM {name} is unbounded here"))
            .with_detail("A query ends; the stream does not.")
            .with_hint(format!(
                "Write FROM {name} to read what is there now, or CREATE STREAMING TABLE … AS SELECT … FROM STREAM {name} to keep a table of it."
            ));
        if let (Some(statement), Some(ident)) = (statement, name.0.first().and_then(|p| p.as_ident())) {
            error.position = statement.position(ident.span.start);
        }
        return Err(error);
    }
    match factor {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            if sample.is_some() {
                return Err(
                    SqlError::unsupported("TABLESAMPLE is not supported").with_hint("Use WHERE random() < 0.01.")
                );
            }
            if let Some(version) = version {
                super::time_travel::as_instant(version);
            }
            if *with_ordinality {
                return Err(SqlError::unsupported("WITH ORDINALITY is not supported yet")
                    .with_hint("Use row_number() OVER ()."));
            }
            if !with_hints.is_empty() || !partitions.is_empty() || json_path.is_some() || !index_hints.is_empty() {
                return Err(SqlError::unsupported("hints on tables are not supported"));
            }
            if let Some(args) = args {
                no_parameters(name, args)?;
            }
            if args.is_some()
                && let Some(ident) = name.0.last().and_then(|p| p.as_ident())
                && matches!(fold(ident).as_str(), "generate_series" | "range")
            {
                column_alias(alias, &fold(ident));
            }
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset, with_ordinality, .. } => {
            if *with_offset || *with_ordinality {
                return Err(SqlError::unsupported("WITH ORDINALITY is not supported yet"));
            }
            // One that reads columns is planned here, and may have several columns.
            if array_exprs.len() == 1 && !super::lateral::reads_columns(array_exprs) {
                column_alias(alias, "unnest");
            }
        }
        TableFactor::Derived { sample: Some(_), .. } => {
            return Err(SqlError::unsupported("TABLESAMPLE is not supported"));
        }
        _ => {}
    }
    Ok(())
}

/// Table functions are evaluated when the statement is planned, before its parameters have values.
fn no_parameters(name: &ObjectName, args: &ast::TableFunctionArgs) -> Result<()> {
    struct Has(bool);
    impl ast::Visitor for Has {
        type Break = ();
        fn pre_visit_value(&mut self, value: &Value) -> ControlFlow<()> {
            self.0 |= matches!(value, Value::Placeholder(_));
            ControlFlow::Continue(())
        }
    }
    let mut has = Has(false);
    let _ = walk(args, &mut has);
    if !has.0 {
        return Ok(());
    }
    Err(SqlError::unsupported(format!("parameters as arguments of {name}() in FROM are not supported yet"))
        .with_hint("Write the values into the statement."))
}

/// A function with one result column names it as its alias, or as itself.
fn column_alias(alias: &mut Option<TableAlias>, function: &str) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', function),
        columns: vec![],
    });
    if alias.columns.is_empty() {
        alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
    }
}

/// `= ANY (SELECT …)` is IN, `<> ALL (SELECT …)` is NOT IN.
fn among(value: &Expr, subquery: &Query, negated: bool) -> Expr {
    Expr::InSubquery { expr: Box::new(value.clone()), subquery: Box::new(subquery.clone()), negated }
}

fn expr_forms(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::AtTimeZone { .. } => {
            if let Expr::AtTimeZone { timestamp, time_zone } = std::mem::replace(expr, Expr::Value(Value::Null.into()))
            {
                *expr = call("timezone", vec![*time_zone, *timestamp]);
            }
        }
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. }
            if let Expr::Subquery(subquery) = right.as_ref() =>
        {
            *expr = among(left, subquery, false);
        }
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right }
            if let Expr::Subquery(subquery) = right.as_ref() =>
        {
            *expr = among(left, subquery, true);
        }
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } if !matches!(right.as_ref(), Expr::Subquery(_)) => {
            if let Expr::AnyOp { left, compare_op, right, .. } = expr {
                *expr = quantified(left, compare_op, "any", right)?;
            } else if let Expr::AllOp { left, compare_op, right } = expr {
                *expr = quantified(left, compare_op, "all", right)?;
            }
        }
        Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => *expr = like_any(expr)?,
        Expr::CompoundFieldAccess { access_chain, .. } => {
            for access in access_chain {
                match access {
                    AccessExpr::Dot(member) => {
                        if let Expr::Identifier(ident) = member {
                            *member = string(&fold(ident));
                        }
                    }
                    AccessExpr::Subscript(Subscript::Index {
                        index: Expr::UnaryOp { op: UnaryOperator::Minus, .. },
                    }) => {
                        return Err(SqlError::unsupported("negative subscripts of arrays are not supported")
                            .with_detail("Arrays begin at 1; in PostgreSQL there is nothing below.")
                            .with_hint("Count from the end with a[cardinality(a)]."));
                    }
                    AccessExpr::Subscript(_) => {}
                }
            }
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
            if let Expr::Interval(interval) = inner.as_mut()
                && reword(&mut interval.value, minus_interval)
            {
                *expr = std::mem::replace(inner, Expr::Value(Value::Null.into()));
            } else if matches!(inner.as_ref(), Expr::BinaryOp { op: BinaryOperator::PGExp, .. }) {
                let power = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
                *expr = sign_before_power(power);
            }
        }
        Expr::Value(v) if matches!(v.value, Value::HexStringLiteral(_)) => {
            return Err(SqlError::unsupported("hexadecimal numbers and bit strings are not supported")
                .with_hint("Bytes are written '\\x1f'::bytea."));
        }
        Expr::Collate { expr: inner, collation } => {
            let name = collation.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
            if !matches!(name.as_deref().unwrap_or_default(), "c" | "posix" | "ucs_basic" | "default") {
                return Err(SqlError::unsupported(format!("collation {collation} is not supported"))
                    .with_hint("Texts are compared by code points, which is COLLATE \"C\"."));
            }
            *expr = std::mem::replace(inner, Expr::Value(Value::Null.into()));
        }
        Expr::Extract { field, expr: of, .. } => {
            let part = field.to_string().to_lowercase();
            let scale = if part == "epoch" { 6 } else { 0 };
            match seconds(&part, of.as_ref().clone()) {
                Some(product) => *expr = product,
                // It is a numeric, and divided as such.
                None => {
                    let extract = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                    *expr = cast_to(extract, DataType::Numeric(ExactNumberInfo::PrecisionAndScale(20, scale)));
                }
            }
        }
        // The engine counts bytes.
        Expr::Overlay { expr: of, overlay_what, overlay_from, overlay_for } => {
            let nested = |e: &Expr| Box::new(Expr::Nested(Box::new(e.clone())));
            let binary = |left: Box<Expr>, op, right: Box<Expr>| Box::new(Expr::BinaryOp { left, op, right });
            let length = match overlay_for {
                Some(length) => length.as_ref().clone(),
                None => call("char_length", vec![overlay_what.as_ref().clone()]),
            };
            let before = binary(nested(overlay_from), BinaryOperator::Minus, Box::new(number("1")));
            let behind = binary(nested(overlay_from), BinaryOperator::Plus, nested(&length));
            let head = Box::new(call("left", vec![of.as_ref().clone(), *before]));
            let tail = Box::new(call("substr", vec![of.as_ref().clone(), *behind]));
            let joined = binary(head, BinaryOperator::StringConcat, nested(overlay_what));
            *expr = Expr::Nested(binary(joined, BinaryOperator::StringConcat, tail));
        }
        Expr::BinaryOp { left, op, right }
            if compares(op) && (is_call(left, "uuid_in") != is_call(right, "uuid_in")) =>
        {
            as_uuid(left);
            as_uuid(right);
        }
        Expr::InList { expr: value, list, .. } if is_call(value, "uuid_in") => list.iter_mut().for_each(as_uuid),
        Expr::Between { expr: value, low, high, .. } if is_call(value, "uuid_in") => {
            as_uuid(low);
            as_uuid(high);
        }
        Expr::InList { expr: value, list, negated } if row_among(value, list, *negated).is_some() => {
            if let Some(tests) = row_among(value, list, *negated) {
                *expr = tests;
            }
        }
        Expr::Exists { subquery, negated } => {
            if let Some(found) = subqueries::always(subquery)? {
                *expr = Expr::Value(Value::Boolean(found != *negated).into());
            }
        }
        Expr::BinaryOp { left, op, right } if compares(op) && (is_json(left) || is_json(right)) => {
            return Err(SqlError::unsupported("comparisons of json values are not supported")
                .with_detail("json is text here, and texts that mean the same would differ.")
                .with_hint("Compare members: value ->> 'key' = 'a'."));
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => {
            if let Some(tests) = rows_equal(left, right, *op == BinaryOperator::Eq) {
                *expr = tests;
            }
        }
        Expr::BinaryOp { left, op, right } if compares(op) && row_order(left, op, right).is_some() => {
            if let Some(tests) = row_order(left, op, right) {
                *expr = tests;
            }
        }
        Expr::BinaryOp {
            op:
                BinaryOperator::PGRegexMatch
                | BinaryOperator::PGRegexIMatch
                | BinaryOperator::PGRegexNotMatch
                | BinaryOperator::PGRegexNotIMatch,
            right,
            ..
        } => dot_is_any(right),
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } if is_json(left) || is_json(right) => {
            return Err(SqlError::unsupported("|| of json values is not supported")
                .with_detail("json is text here, and texts would be joined."));
        }
        Expr::IsNull(of) | Expr::IsNotNull(of) if row_is_null(of, true).is_some() => {
            let null = row_is_null(of, true);
            let not_null = row_is_null(of, false);
            let tests = if matches!(expr, Expr::IsNull(_)) { null } else { not_null };
            if let Some(tests) = tests {
                *expr = tests;
            }
        }
        Expr::TypedString(_) | Expr::Cast { .. } | Expr::Interval(_) => typed_forms::forms(expr)?,
        Expr::Function(function) => {
            // `pg_catalog.lower(x)` is `lower(x)`.
            if let [schema, _] = function.name.0.as_slice()
                && schema.as_ident().is_some_and(|i| fold(i) == "pg_catalog")
            {
                function.name.0.remove(0);
            }
            if function.name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| fold(i) == "ntile") {
                return Err(SqlError::unsupported("ntile() is not supported yet")
                    .with_hint("Use row_number() and count(*) OVER () to number the buckets."));
            }
            if let Some(other) = renamed(function) {
                *expr = other;
            }
        }
        _ => {}
    }
    Ok(())
}

fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq)
}

fn as_uuid(literal: &mut Expr) {
    if matches!(literal, Expr::Value(_)) {
        let text = std::mem::replace(literal, Expr::Value(Value::Null.into()));
        *literal = call("uuid_in", vec![text]);
    }
}

/// What casts to json have become.
fn is_json(expr: &Expr) -> bool {
    is_call(expr, "json_in")
}

fn is_call(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Function(f) => f.name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| i.value == name),
        Expr::Nested(inner) => is_call(inner, name),
        _ => false,
    }
}

pub(crate) fn string(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

pub(crate) fn is_aggregate(expr: &Expr) -> bool {
    const NAMES: [&str; 17] = [
        "sum",
        "count",
        "avg",
        "min",
        "max",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "variance",
        "var_pop",
        "var_samp",
        "array_agg",
        "string_agg",
        "bool_and",
        "bool_or",
        "every",
        "median",
    ];
    matches!(expr, Expr::Function(f)
        if f.name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| NAMES.contains(&fold(i).as_str())))
}

/// `SELECT …`, to be filled in.
pub(crate) fn empty_select() -> Select {
    let mut select = select_all(ObjectName(vec![]));
    select.from = Vec::new();
    select.projection = Vec::new();
    select
}

pub(crate) fn query(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

pub(crate) fn number(n: &str) -> Expr {
    Expr::Value(Value::Number(n.to_owned(), false).into())
}

pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// The name that the output has before it is rewritten.
fn name_before(item: &mut SelectItem) {
    struct Has(bool);
    impl ast::Visitor for Has {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= match expr {
                Expr::Exists { .. } | Expr::AnyOp { .. } | Expr::AllOp { .. } => true,
                Expr::Cast { data_type, .. } => typed_forms::renames(data_type),
                Expr::TypedString(typed) => typed_forms::renames(&typed.data_type),
                Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::PGExp),
                Expr::Extract { .. } => true,
                Expr::Function(f) => f.name.0.last().and_then(|p| p.as_ident()).is_some_and(|name| {
                    matches!(
                        fold(name).as_str(),
                        "mod"
                            | "gen_random_uuid"
                            | "to_timestamp"
                            | "array_remove"
                            | "array_replace"
                            | "array_length"
                            | "date_part"
                    )
                }),
                _ => false,
            };
            if self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let mut has = Has(false);
    let _ = walk(&*expr, &mut has);
    if has.0 {
        let alias = Ident::with_quote('"', super::naming::output_name(expr));
        let expr = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
}

/// The engine takes a column of USING from the left side, which has none where only the right side has the row.
fn shared_columns(table: &TableWithJoins) -> Result<()> {
    use ast::{JoinConstraint as C, JoinOperator as J};
    for join in &table.joins {
        if let TableFactor::NestedJoin { table_with_joins, .. } = &join.relation {
            shared_columns(table_with_joins)?;
        }
        let (kind, constraint, hint) = match &join.join_operator {
            J::Right(c) | J::RightOuter(c) => {
                ("RIGHT", c, "Write it as a LEFT JOIN with the tables the other way round, or with ON.")
            }
            J::FullOuter(c) => ("FULL", c, "Write ON a.id = b.id, and coalesce(a.id, b.id) for the column."),
            _ => continue,
        };
        if matches!(constraint, C::Using(_) | C::Natural) {
            return Err(SqlError::unsupported(format!("{kind} JOIN with USING or NATURAL is not supported yet"))
                .with_hint(hint));
        }
    }
    match &table.relation {
        TableFactor::NestedJoin { table_with_joins, .. } => shared_columns(table_with_joins),
        _ => Ok(()),
    }
}

/// 42712 where two members of FROM have one name: the planner would take columns of either.
fn distinct_names(from: &[TableWithJoins]) -> Result<()> {
    fn collect(table: &TableWithJoins, names: &mut Vec<String>) -> Result<()> {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|j| &j.relation)) {
            let name = match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    collect(table_with_joins, names)?;
                    continue;
                }
                TableFactor::Table { alias: Some(alias), .. }
                | TableFactor::Derived { alias: Some(alias), .. }
                | TableFactor::UNNEST { alias: Some(alias), .. }
                | TableFactor::Function { alias: Some(alias), .. }
                | TableFactor::NestedJoin { alias: Some(alias), .. } => fold(&alias.name),
                // Tables of two schemas may share their name; columns must then be written with the schema.
                TableFactor::Table { name, alias: None, args: None, .. } => {
                    name.0.iter().filter_map(|p| p.as_ident()).map(fold).collect::<Vec<_>>().join(".")
                }
                _ => continue,
            };
            if names.contains(&name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_ALIAS,
                    format!("table name \"{name}\" specified more than once"),
                ));
            }
            names.push(name);
        }
        Ok(())
    }
    let mut names = Vec::new();
    from.iter().try_for_each(|t| collect(t, &mut names))
}
