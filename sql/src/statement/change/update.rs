//! UPDATE table SET … [FROM …] [WHERE …] [RETURNING …].

use datafusion::logical_expr::{LogicalPlan, lit};
use sqlparser::ast::{SelectItem, TableFactor, Update, UpdateTableFromKind};
use tidewater_catalogs::{ChangeKind, Changed};

use super::assignment::Assigned;
use super::settled::{opened, settled};
use super::{ChangesRows, Compiled, Shape, assignment, named, query, subquery};
use crate::SqlError;
use crate::error::Result;
use crate::plan::{assign, rewrite};
use crate::session::{ChangeTag, StatementContext};

impl ChangesRows for Update {
    fn kind(&self) -> ChangeKind {
        ChangeKind::Update
    }

    fn refuse(&self) -> Result<()> {
        let clause = if self.or.is_some() || self.limit.is_some() {
            "this form of UPDATE"
        } else {
            return Ok(());
        };
        Err(SqlError::unsupported(format!("{clause} is not supported"))
            .with_hint("Write UPDATE table SET … [FROM …] [WHERE …] [RETURNING …]."))
    }

    fn target(&self) -> Result<&TableFactor> {
        if self.table.joins.is_empty() {
            Ok(&self.table.relation)
        } else {
            Err(SqlError::syntax("UPDATE changes one table").with_hint("Name the others after FROM."))
        }
    }

    fn returning(&self) -> Result<Option<&[SelectItem]>> {
        Ok(self.returning.as_deref())
    }

    fn compile(&self, ctx: &StatementContext<'_>, table: &Shape) -> Result<Compiled> {
        let Assigned { values, rows } = assignment::values(ctx, table, &self.assignments)?;
        let cells = assignment::cells(&table.schema, &values);
        let mut select = rewrite::empty_select();
        select.projection = vec![named(table.place(), "place")];
        select.projection.extend(rows.iter().enumerate().map(|(i, row)| named(row.clone(), format!("r{i}"))));
        let places = assignment::listed(values, &mut select, "c");
        let rows = 1..1 + rows.len();
        select.from = table.from();
        if let Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) = &self.from {
            select.from.extend(from.iter().cloned());
        }
        select.selection.clone_from(&self.selection);
        let settle = move |plan: LogicalPlan, table: &Shape| {
            let (given, below) = opened(plan)?;
            let below = subquery::with_rows(below, given[rows.clone()].to_vec())?;
            let schema = below.schema().clone();
            let place = given.first().cloned().unwrap_or_else(|| lit(0_u64));
            let value = |column: usize| {
                let Some(place) = &places[column] else { return Ok(None) };
                let (value, field) = (place.of(&given), table.schema.field(column));
                assign::to_type(value, schema.as_ref(), field.data_type(), field.name()).map(Some)
            };
            settled(below, table, place, lit(true), value, &[])
        };
        Ok(Compiled { query: query(select), cells, settle: Box::new(settle), brings: true, source: None })
    }

    fn tag(&self, changed: Changed) -> ChangeTag {
        ChangeTag::Update(changed.taken)
    }
}
