//! DELETE FROM table [USING …] [WHERE …].

use sqlparser::ast::{Delete, FromTable, TableFactor};
use tidewater_catalogs::{ChangeKind, Changed};

use super::{ChangesRows, Compiled, Shape, named, query};
use crate::SqlError;
use crate::error::Result;
use crate::plan::rewrite;
use crate::session::StatementContext;

impl ChangesRows for Delete {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Delete
    }

    fn refuse(&self) -> Result<()> {
        let clause = if self.returning.is_some() {
            "RETURNING"
        } else if !self.order_by.is_empty() || self.limit.is_some() {
            "DELETE … ORDER BY and LIMIT"
        } else if !self.tables.is_empty() {
            "DELETE from several tables"
        } else {
            return Ok(());
        };
        Err(SqlError::unsupported(format!("{clause} is not supported"))
            .with_hint("Write DELETE FROM table [USING …] [WHERE …]."))
    }

    fn target(&self) -> Result<&TableFactor> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &self.from;
        match from.as_slice() {
            [one] if one.joins.is_empty() => Ok(&one.relation),
            _ => Err(SqlError::syntax("DELETE takes rows out of one table").with_hint("Name the others after USING.")),
        }
    }

    fn compile(&self, _: &StatementContext<'_>, table: &Shape) -> Result<Compiled> {
        let mut select = rewrite::empty_select();
        select.projection = vec![named(table.place(), "place")];
        select.from = table.from();
        select.from.extend(self.using.iter().flatten().cloned());
        select.selection.clone_from(&self.selection);
        Ok(Compiled { query: query(select), cells: Vec::new(), arrange: Box::new(|plan, _| Ok(plan)) })
    }

    fn tag(&self, changed: Changed) -> String {
        format!("DELETE {}", changed.taken)
    }
}
