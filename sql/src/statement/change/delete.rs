//! DELETE FROM table [USING …] [WHERE …] [RETURNING …].

use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use sqlparser::ast::{Delete, FromTable, SelectItem, TableFactor};
use tidewater_catalogs::{ChangeKind, Changed};

use super::settled::{opened, settled};
use super::{ChangesRows, Compiled, Shape, named, query};
use crate::SqlError;
use crate::error::Result;
use crate::plan::rewrite;
use crate::session::{ChangeTag, StatementContext};

impl ChangesRows for Delete {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Delete
    }

    fn refuse(&self) -> Result<()> {
        let clause = if !self.order_by.is_empty() || self.limit.is_some() {
            "DELETE … ORDER BY and LIMIT"
        } else if !self.tables.is_empty() {
            "DELETE from several tables"
        } else {
            return Ok(());
        };
        Err(SqlError::unsupported(format!("{clause} is not supported"))
            .with_hint("Write DELETE FROM table [USING …] [WHERE …] [RETURNING …]."))
    }

    fn target(&self) -> Result<&TableFactor> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &self.from;
        match from.as_slice() {
            [one] if one.joins.is_empty() => Ok(&one.relation),
            _ => Err(SqlError::syntax("DELETE takes rows out of one table").with_hint("Name the others after USING.")),
        }
    }

    fn returning(&self) -> Result<Option<&[SelectItem]>> {
        Ok(self.returning.as_deref())
    }

    fn compile(&self, _: &StatementContext<'_>, table: &Shape) -> Result<Compiled> {
        let mut select = rewrite::empty_select();
        select.projection = vec![named(table.place(), "place")];
        select.from = table.from();
        select.from.extend(self.using.iter().flatten().cloned());
        select.selection.clone_from(&self.selection);
        let settle = |plan: LogicalPlan, table: &Shape| {
            let (given, below) = opened(plan)?;
            let place = given.into_iter().next().unwrap_or_else(|| lit(0_u64));
            settled(below, table, place, lit(false), |_| Ok(None::<Expr>), &[])
        };
        Ok(Compiled { query: query(select), cells: Vec::new(), settle: Box::new(settle), brings: false, source: None })
    }

    fn tag(&self, changed: Changed) -> ChangeTag {
        ChangeTag::Delete(changed.taken)
    }
}
