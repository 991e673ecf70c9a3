//! MERGE WITH SCHEMA EVOLUTION: columns that `UPDATE SET *` and `INSERT *` would assign, and the table lacks, are added to
//! it, and others get a wider type, in a commit of its own before the rows are changed.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Schema};
use sqlparser::ast::{self, Merge, MergeAction, SelectItem, TableWithJoins, With};
use tidewater_catalogs::{AddColumn, Alteration};

use super::{find_table, query};
use crate::dialect::{evolves, insert_star, leave_out, update_star};
use crate::error::Result;
use crate::plan::flow::stored_type;
use crate::plan::{Planner, Purpose, parameters, rewrite};
use crate::session::StatementContext;
use crate::statement::alter_table::refuse_flow;
use crate::{SqlError, run};

/// The MERGE without the clause, in which `*` leaves out what the source lacks. `alter`: the table is changed.
pub(in crate::statement) async fn evolved<'m>(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    merge: &'m Merge,
    alter: bool,
) -> Result<Cow<'m, Merge>> {
    if !evolves(merge) {
        return Ok(Cow::Borrowed(merge));
    }
    if merge.output.is_some() {
        return Err(SqlError::unsupported("RETURNING of MERGE WITH SCHEMA EVOLUTION is not supported")
            .with_hint("Read the table afterwards."));
    }
    if ctx.in_block {
        return Err(SqlError::unsupported("MERGE WITH SCHEMA EVOLUTION cannot run inside a transaction block")
            .with_hint("Add the columns with ALTER TABLE first."));
    }
    let mut merge = merge.clone();
    merge.clauses.remove(0);
    let source = run::guard(&ctx.cancel, ctx.deadline, columns_of(ctx, with, &merge)).await?;
    let (table, ..) = find_table(ctx, &merge).await?;
    let old = table.info().schema.clone();
    let alterations = alterations(&merge, &old, &source);
    if alter && !alterations.is_empty() {
        refuse_flow(ctx, table.as_ref(), &alterations).await?;
        run::detached(ctx, async move { Ok(table.alter(&alterations).await?) }).await?;
    }
    let missing: Vec<&String> =
        old.fields().iter().map(|f| f.name()).filter(|name| source.index_of(name).is_err()).collect();
    for clause in &mut merge.clauses {
        leave_out(&mut clause.action, &missing);
    }
    Ok(Cow::Owned(merge))
}

/// The columns of the source, in types that a table may have.
async fn columns_of(ctx: &StatementContext<'_>, with: Option<&With>, merge: &Merge) -> Result<Schema> {
    let mut select = rewrite::empty_select();
    select.projection = vec![SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())];
    select.from = vec![TableWithJoins { relation: merge.source.clone(), joins: Vec::new() }];
    let mut query = query(select);
    query.with = with.cloned();
    if parameters(&query)? > 0 {
        return Err(SqlError::unsupported("parameters in the source of MERGE WITH SCHEMA EVOLUTION are not supported")
            .with_hint("Write the values into the statement."));
    }
    let planned = Planner::new(ctx, Purpose::Describe).committed().query(&query, &[], None).await?;
    let fields = planned.columns().into_iter().map(|column| {
        let field = column.field.as_ref();
        field.clone().with_data_type(stored_type(field.data_type())).with_nullable(true)
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

fn alterations(merge: &Merge, old: &Schema, source: &Schema) -> Vec<Alteration> {
    let stars: Vec<Vec<String>> = merge
        .clauses
        .iter()
        .filter_map(|clause| match &clause.action {
            MergeAction::Update(update) => update_star(&update.assignments),
            MergeAction::Insert(insert) => insert_star(insert),
            MergeAction::Delete { .. } => None,
        })
        .collect();
    let assigned = source.fields().iter().filter(|f| stars.iter().any(|but| !but.contains(f.name())));
    let change = assigned.filter_map(|field| {
        let (path, new) = (vec![field.name().clone()], field.data_type().clone());
        match old.field_with_name(field.name()) {
            Ok(there) if widens(there.data_type(), &new) => Some(Alteration::ChangeType { path, to: new }),
            Ok(_) => None,
            Err(_) => Some(Alteration::AddColumn(AddColumn {
                path,
                data_type: new,
                default: None,
                required: false,
                comment: None,
                place: None,
                if_not_exists: true,
            })),
        }
    });
    change.collect()
}

/// Iceberg spec, "Schema Evolution": valid promotions.
fn widens(old: &DataType, new: &DataType) -> bool {
    match (old, new) {
        (DataType::Int32, DataType::Int64) | (DataType::Float32, DataType::Float64) => true,
        (DataType::Decimal128(old, scale), DataType::Decimal128(new, same)) => new > old && scale == same,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_every_value_is_wider() {
        let numeric = DataType::Decimal128;
        assert!(widens(&DataType::Int32, &DataType::Int64));
        assert!(widens(&numeric(10, 2), &numeric(12, 2)));
        for (old, new) in [
            (DataType::Int64, DataType::Int32),
            (DataType::Int32, DataType::Float64),
            (numeric(10, 2), numeric(12, 4)),
            (numeric(12, 2), numeric(10, 2)),
            (DataType::Utf8, DataType::Int64),
        ] {
            assert!(!widens(&old, &new), "{old} to {new}");
        }
    }
}
