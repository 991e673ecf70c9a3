//! What makes us a PostgreSQL to psql and to drivers: catalog tables and functions over one snapshot of our catalog,
//! and statements put into words that the planner knows.

mod rewrite;
mod snapshot;

pub(crate) use rewrite::{rewrite, system_relation};
pub(crate) use snapshot::snapshot;

use std::ops::ControlFlow;

use sqlparser::ast::{DataType, Expr, ObjectName, Query, TableFactor, Visitor};
use tidewater_catalogs_system::is_without_relations;

use crate::dialect::walk;

/// What a query wants of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    Nothing,
    /// Settings, types, sessions, schemas.
    Server,
    /// Tables, streams and views as well.
    Relations,
}

/// Catalog functions that look at no table.
const SERVER_FUNCTIONS: [&str; 9] = [
    "format_type",
    "pg_get_userbyid",
    "pg_encoding_to_char",
    "pg_size_pretty",
    "pg_tablespace_location",
    "pg_is_in_recovery",
    "quote_ident",
    "quote_literal",
    "shobj_description",
];
/// Functions called `pg_…` that are none of the catalog's.
const OTHER_FUNCTIONS: [&str; 4] = ["pg_sleep", "pg_typeof", "pg_backend_pid", "pg_cancel_backend"];

/// What the names in the query may want; too much only costs time.
pub(crate) fn needs(query: &Query) -> Needs {
    struct V(Needs);
    impl V {
        fn function(&mut self, name: &ObjectName) {
            let Some(name) = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase()) else { return };
            if OTHER_FUNCTIONS.contains(&name.as_str()) {
                return;
            }
            if SERVER_FUNCTIONS.contains(&name.as_str()) || (name.starts_with("has_") && !name.contains("_column_")) {
                self.0 = self.0.max(Needs::Server);
            } else if name.starts_with("pg_")
                || name.starts_with("has_")
                || name.starts_with("to_reg")
                || name.ends_with("_description")
            {
                self.0 = Needs::Relations;
            }
        }
    }
    impl Visitor for V {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            match factor {
                TableFactor::Table { name, args: None, .. } => {
                    let parts: Vec<String> =
                        name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.to_lowercase()).collect();
                    if let Some((schema, table)) = system_relation(&parts) {
                        let server = is_without_relations(schema, &table);
                        self.0 = self.0.max(if server { Needs::Server } else { Needs::Relations });
                    }
                }
                TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => self.function(name),
                _ => {}
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) => self.function(&f.name),
                Expr::Cast { data_type, .. } => match data_type {
                    DataType::Regclass => self.0 = Needs::Relations,
                    DataType::Custom(name, _) => {
                        let last = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
                        match last.as_deref() {
                            Some("regclass") => self.0 = Needs::Relations,
                            Some(n) if n.starts_with("reg") => self.0 = self.0.max(Needs::Server),
                            _ => {}
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut v = V(Needs::Nothing);
    let _ = walk(query, &mut v);
    v.0
}
