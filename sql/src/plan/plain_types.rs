//! Arrays, rows and maps of a table, without what the table writes into their types (the ids of their parts): else a type
//! of a table and the same type of a literal would be two to the engine. Runs first of all rules.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::optimizer::AnalyzerRule;

use super::walk;

#[derive(Debug)]
pub(super) struct PlainTypes;

impl AnalyzerRule for PlainTypes {
    fn name(&self) -> &str {
        "plain_types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::nodes(plan, &|node| match node {
            LogicalPlan::TableScan(_) if node.schema().fields().iter().any(|f| is_marked(f.data_type())) => {
                Ok(Transformed::yes(plain_scan(node)?))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

fn plain_scan(scan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = scan.schema().columns().into_iter().zip(scan.schema().fields().iter()).map(|(column, field)| {
        if !is_marked(field.data_type()) {
            return Expr::Column(column);
        }
        let (relation, name) = (column.relation.clone(), column.name.clone());
        cast(Expr::Column(column), plain(field.data_type())).alias_qualified(relation, name)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(scan).project(columns)?.build()
}

fn is_marked(data_type: &DataType) -> bool {
    let part = |field: &FieldRef| !field.metadata().is_empty() || is_marked(field.data_type());
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => part(item),
        DataType::Struct(fields) => fields.iter().any(part),
        _ => false,
    }
}

fn plain(data_type: &DataType) -> DataType {
    let part = |field: &FieldRef| Arc::new(Field::new(field.name(), plain(field.data_type()), field.is_nullable()));
    match data_type {
        DataType::List(item) => DataType::List(part(item)),
        DataType::LargeList(item) => DataType::LargeList(part(item)),
        DataType::Map(entries, sorted) => DataType::Map(part(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect()),
        other => other.clone(),
    }
}
