//! Names of outputs that have no alias, as PostgreSQL gives them (its `FigureColname`).

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, DataType, Expr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, Subscript, TrimWhereField,
    Visitor,
};

use super::output::UNIQUE;
use super::scope;
use super::wildcard::each_select_mut;
use crate::dialect::{fold, walk};
use crate::error::Result;
use crate::{SqlError, SqlState};

/// Gives every output of every SELECT its name. Names that would come twice get a hidden tail, which
/// [`super::display_name`] takes off again: PostgreSQL allows such lists, the planner does not.
pub(super) fn name_outputs(query: &mut Query) -> Result<()> {
    let mut outermost = true;
    scope::each_query(query, &mut |query, _| {
        let top = std::mem::take(&mut outermost);
        let single = matches!(*query.body, SetExpr::Select(_));
        let mut bare = Vec::new();
        let mut inside = Vec::new();
        order_names(query, &mut bare, &mut inside);
        let mut renamed = HashMap::new();
        each_select_mut(&mut query.body, &mut |select| name_select(select, top, &bare, &inside, &mut renamed))?;
        if single {
            rename_order(query, &renamed);
        }
        Ok(())
    })
}

/// Names that ORDER BY mentions: alone, or inside of an expression.
fn order_names(query: &Query, bare: &mut Vec<String>, inside: &mut Vec<String>) {
    let Some(order) = &query.order_by else { return };
    let OrderByKind::Expressions(exprs) = &order.kind else { return };
    for order in exprs {
        match &order.expr {
            Expr::Identifier(ident) => bare.push(fold(ident)),
            other => {
                struct V<'a>(&'a mut Vec<String>);
                impl Visitor for V<'_> {
                    type Break = ();
                    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                        if let Expr::Identifier(ident) = expr {
                            self.0.push(fold(ident));
                        }
                        ControlFlow::Continue(())
                    }
                }
                let _ = walk(other, &mut V(inside));
            }
        }
    }
}

fn name_select(
    select: &mut Select,
    top: bool,
    bare: &[String],
    inside: &[String],
    renamed: &mut HashMap<String, String>,
) -> Result<()> {
    let names: Vec<Option<String>> = select.projection.iter().map(item_name).collect();
    let star = names.iter().any(Option::is_none);
    let count = |name: &str| names.iter().flatten().filter(|n| *n == name).count();
    // ORDER BY of a name that several different outputs have.
    for name in bare {
        if count(name) > 1 {
            let mut exprs = select
                .projection
                .iter()
                .zip(&names)
                .filter(|(_, n)| n.as_ref() == Some(name))
                .map(|(i, _)| item_expr(i));
            let first = exprs.next();
            if exprs.any(|e| Some(e) != first) {
                return Err(SqlError::new(SqlState::AMBIGUOUS_COLUMN, format!("ORDER BY \"{name}\" is ambiguous")));
            }
        }
    }
    let items = std::mem::take(&mut select.projection);
    for (i, (item, name)) in items.into_iter().zip(&names).enumerate() {
        let Some(name) = name else {
            select.projection.push(item);
            continue;
        };
        let several = count(name) > 1;
        let unique = format!("{name}{UNIQUE}{i}");
        select.projection.push(match item {
            SelectItem::UnnamedExpr(expr) => {
                let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                if column && !several && !(star && top) {
                    SelectItem::UnnamedExpr(expr)
                } else if several || (star && top) || inside.contains(name) {
                    if !several && !column {
                        renamed.insert(name.clone(), unique.clone());
                    }
                    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', unique) }
                } else {
                    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
                }
            }
            SelectItem::ExprWithAlias { expr, .. } if several => {
                SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', unique) }
            }
            other => other,
        });
    }
    Ok(())
}

fn rename_order(query: &mut Query, renamed: &HashMap<String, String>) {
    let Some(order) = &mut query.order_by else { return };
    let OrderByKind::Expressions(exprs) = &mut order.kind else { return };
    for order in exprs {
        if let Expr::Identifier(ident) = &mut order.expr
            && let Some(to) = renamed.get(&fold(ident))
        {
            *ident = Ident::with_quote('"', to);
        }
    }
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// None for wildcards.
fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(output_name(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}

/// The name of an output without an alias.
pub(crate) fn output_name(expr: &Expr) -> String {
    figure(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name, and whether it is a strong one: that of a column or function, which a cast around it keeps.
fn figure(expr: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|p| (fold(p), true)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|a| match a {
                AccessExpr::Dot(Expr::Identifier(ident)) => Some((fold(ident), true)),
                AccessExpr::Dot(Expr::Value(v)) => v.value.clone().into_string().map(|name| (name, true)),
                AccessExpr::Subscript(Subscript::Index { .. } | Subscript::Slice { .. }) | AccessExpr::Dot(_) => None,
            });
            field.or_else(|| figure(root))
        }
        Expr::Nested(inner) => figure(inner),
        Expr::Collate { expr, .. } => figure(expr),
        Expr::Function(function) => function.name.0.last().and_then(|p| p.as_ident()).map(|i| (fold(i), true)),
        Expr::Cast { expr, data_type, .. } => match figure(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_name(data_type), false)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".to_owned(), false)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.as_slice() {
                [item] => item_name(item).map(|n| (n, true)),
                _ => None,
            },
            SetExpr::Values(_) => strong("column1"),
            _ => None,
        },
        Expr::Exists { .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        _ => None,
    }
}

/// PostgreSQL's own name of a type.
fn type_name(data_type: &DataType) -> String {
    use DataType as D;
    match data_type {
        D::SmallInt(_) | D::Int2(_) => "int2".to_owned(),
        D::Int(_) | D::Integer(_) | D::Int4(_) => "int4".to_owned(),
        D::BigInt(_) | D::Int8(_) => "int8".to_owned(),
        D::Real | D::Float4 => "float4".to_owned(),
        D::Float(_) | D::Double(_) | D::DoublePrecision | D::Float8 => "float8".to_owned(),
        D::Numeric(_) | D::Decimal(_) | D::Dec(_) => "numeric".to_owned(),
        D::Boolean | D::Bool => "bool".to_owned(),
        D::Varchar(_) | D::CharacterVarying(_) | D::CharVarying(_) => "varchar".to_owned(),
        D::Char(_) | D::Character(_) => "bpchar".to_owned(),
        D::Timestamp(_, sqlparser::ast::TimezoneInfo::Tz | sqlparser::ast::TimezoneInfo::WithTimeZone) => {
            "timestamptz".to_owned()
        }
        D::Timestamp(..) => "timestamp".to_owned(),
        D::Time(..) => "time".to_owned(),
        D::Interval { .. } => "interval".to_owned(),
        D::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(inner, _)) => type_name(inner),
        D::Custom(name, _) => name.0.last().and_then(|p| p.as_ident()).map_or_else(|| "?column?".to_owned(), fold),
        other => other.to_string().to_lowercase(),
    }
}
