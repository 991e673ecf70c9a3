//! Which names in a query are tables, and which are its own WITH queries.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{Query, TableFactor, Visitor, VisitorMut};

use sqlparser::tokenizer::Location;

use crate::dialect::{Name, fold, walk, walk_mut};

/// Names of WITH queries that are visible in some query.
type Ctes = Vec<String>;

/// Keeps the scope while a visitor walks. A WITH query does not see its own name (unless it is recursive), so that
/// `WITH t AS (SELECT * FROM t) …` reads the table inside.
#[derive(Default)]
struct Scopes {
    stack: Vec<Ctes>,
    /// Scopes of WITH queries that were not entered yet, by their address, which does not change during the walk.
    waiting: HashMap<usize, Ctes>,
}

impl Scopes {
    fn enter(&mut self, query: &Query) {
        let address = std::ptr::from_ref(query) as usize;
        let outer = self.waiting.remove(&address).unwrap_or_else(|| self.stack.last().cloned().unwrap_or_default());
        let mut visible = outer;
        if let Some(with) = &query.with {
            if with.recursive {
                visible.extend(with.cte_tables.iter().map(|c| fold(&c.alias.name)));
            }
            for cte in &with.cte_tables {
                self.waiting.insert(std::ptr::from_ref(cte.query.as_ref()) as usize, visible.clone());
                if !with.recursive {
                    visible.push(fold(&cte.alias.name));
                }
            }
        }
        self.stack.push(visible);
    }

    fn leave(&mut self) {
        self.stack.pop();
    }

    fn is_cte(&self, name: &Name) -> bool {
        matches!(name.0.as_slice(), [bare] if self.stack.last().is_some_and(|s| s.contains(bare)))
    }
}

/// A table factor that names a relation, with the position of its first identifier.
#[derive(Debug, Clone)]
pub(super) struct TableName {
    pub name: Name,
    pub at: Location,
}

/// All relations that the query reads, WITH queries and functions left out, each once.
pub(super) fn tables(query: &Query) -> Vec<TableName> {
    struct V {
        scopes: Scopes,
        found: Vec<TableName>,
    }
    impl Visitor for V {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.scopes.enter(query);
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.scopes.leave();
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: None, .. } = factor
                && let Some(parsed) = Name::from_object_name(name)
                && !self.scopes.is_cte(&parsed)
                && !self.found.iter().any(|t| t.name == parsed)
            {
                let at =
                    name.0.first().and_then(|p| p.as_ident()).map_or(Location { line: 0, column: 0 }, |i| i.span.start);
                self.found.push(TableName { name: parsed, at });
            }
            ControlFlow::Continue(())
        }
    }
    let mut v = V { scopes: Scopes::default(), found: Vec::new() };
    let _ = walk(query, &mut v);
    v.found
}

/// Calls `f` for every query, outermost first, with a test that tells whether a name is a WITH query there.
pub(super) fn each_query<E>(
    query: &mut Query,
    f: &mut dyn FnMut(&mut Query, &dyn Fn(&Name) -> bool) -> Result<(), E>,
) -> Result<(), E> {
    struct V<'f, E> {
        scopes: Scopes,
        f: &'f mut dyn FnMut(&mut Query, &dyn Fn(&Name) -> bool) -> Result<(), E>,
    }
    impl<E> VisitorMut for V<'_, E> {
        type Break = E;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<E> {
            self.scopes.enter(query);
            let scopes = &self.scopes;
            match (self.f)(query, &|name| scopes.is_cte(name)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(e),
            }
        }
        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<E> {
            self.scopes.leave();
            ControlFlow::Continue(())
        }
    }
    let mut v = V { scopes: Scopes::default(), f };
    match walk_mut(query, &mut v) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Calls `f` for every member of FROM, with a test that tells whether a name is a WITH query there.
pub(super) fn each_table<E>(
    query: &mut Query,
    f: &mut dyn FnMut(&mut TableFactor, &dyn Fn(&Name) -> bool) -> Result<(), E>,
) -> Result<(), E> {
    struct V<'f, E> {
        scopes: Scopes,
        f: &'f mut dyn FnMut(&mut TableFactor, &dyn Fn(&Name) -> bool) -> Result<(), E>,
    }
    impl<E> VisitorMut for V<'_, E> {
        type Break = E;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<E> {
            self.scopes.enter(query);
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<E> {
            self.scopes.leave();
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<E> {
            let scopes = &self.scopes;
            match (self.f)(factor, &|name| scopes.is_cte(name)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(e),
            }
        }
    }
    let mut v = V { scopes: Scopes::default(), f };
    match walk_mut(query, &mut v) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}
