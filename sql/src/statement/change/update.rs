//! UPDATE table SET … [FROM …] [WHERE …].

use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use sqlparser::ast::{TableFactor, Update, UpdateTableFromKind};
use tidewater_catalogs::{ChangeKind, Changed};

use super::{ChangesRows, Compiled, Shape, assignment, named, query};
use crate::SqlError;
use crate::error::Result;
use crate::plan::{assign, rewrite};
use crate::session::StatementContext;

impl ChangesRows for Update {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Update
    }

    fn refuse(&self) -> Result<()> {
        let clause = if self.returning.is_some() {
            "RETURNING"
        } else if self.or.is_some() || self.limit.is_some() {
            "this form of UPDATE"
        } else {
            return Ok(());
        };
        Err(SqlError::unsupported(format!("{clause} is not supported"))
            .with_hint("Write UPDATE table SET … [FROM …] [WHERE …]."))
    }

    fn target(&self) -> Result<&TableFactor> {
        if self.table.joins.is_empty() {
            Ok(&self.table.relation)
        } else {
            Err(SqlError::syntax("UPDATE changes one table").with_hint("Name the others after FROM."))
        }
    }

    fn compile(&self, ctx: &StatementContext<'_>, table: &Shape) -> Result<Compiled> {
        let values = assignment::values(ctx, table, &self.assignments)?;
        let cells = assignment::cells(&table.schema, &values);
        let mut select = rewrite::empty_select();
        select.projection = vec![named(table.place(), "place")];
        let columns = values.into_iter().zip(table.schema.fields()).enumerate();
        select
            .projection
            .extend(columns.map(|(i, (value, field))| {
                named(value.unwrap_or_else(|| table.column(field.name())), format!("c{i}"))
            }));
        select.from = table.from();
        if let Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) = &self.from {
            select.from.extend(from.iter().cloned());
        }
        select.selection.clone_from(&self.selection);
        let arrange = |plan: datafusion::logical_expr::LogicalPlan, columns: &arrow::datatypes::Schema| {
            let schema = plan.schema().clone();
            let mut given = schema.columns().into_iter().map(Expr::Column);
            let mut out = vec![given.next().unwrap_or_else(|| lit(0_u64)), lit(true).alias("comes")];
            for (i, (value, field)) in given.zip(columns.fields()).enumerate() {
                let value = assign::to_type(value, schema.as_ref(), field.data_type(), field.name())?;
                out.push(value.alias(format!("c{i}")));
            }
            Ok(LogicalPlanBuilder::from(plan).project(out)?.build()?)
        };
        Ok(Compiled { query: query(select), cells, arrange: Box::new(arrange) })
    }

    fn tag(&self, changed: Changed) -> String {
        format!("UPDATE {}", changed.taken)
    }
}
