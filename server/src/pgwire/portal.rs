//! The extended protocol: statements, portals, and the messages that make and use them.

use bytes::Bytes;
use datafusion::common::ScalarValue;
use tidewater_sql::{Outcome, RowsTag, SqlError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Fail, watched};
use super::decode;
use super::encode::Format;
use super::frame::{Bind, Target};
use super::metrics;
use super::port::Port;
use super::rows::{Cursor, Pumped};
use super::types::{PgType, data_type_of_oid, error, oid};

/// What Parse leaves behind.
pub(super) struct Statement<S: Port> {
    /// None for an empty text.
    prepared: Option<S::Prepared>,
    /// Types of the parameters, as the client named them or is told.
    oids: Vec<u32>,
    text_bytes: usize,
}

/// What Bind leaves behind. It outlives its statement.
pub(super) struct Portal<S: Port> {
    prepared: Option<S::Prepared>,
    formats: Vec<Format>,
    state: State,
    param_bytes: usize,
}

enum State {
    Bound(Vec<ScalarValue>),
    Running(Box<Cursor>),
    /// All rows were sent, or the one effect is done.
    Finished(Option<RowsTag>),
}

impl<S, R, W> Connection<S, R, W>
where
    S: Port,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub async fn parse(&mut self, name: String, sql: &str, declared: Vec<u32>) -> Result<(), Fail> {
        metrics::query("extended");
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(error("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        self.check_room(&name, sql.len())?;
        let parsed = self.session.parse(sql)?;
        let (prepared, oids) = match parsed.as_slice() {
            [] => (None, declared),
            [statement] => {
                let named: Vec<_> = declared.iter().map(|oid| data_type_of_oid(*oid)).collect();
                let token = self.signal.renew();
                let Self { session, inbox, signal, shutdown, .. } = self;
                let prepared = watched(inbox, signal, &token, shutdown, session.prepare(statement, &named)).await??;
                let oids = parameter_oids(&declared, S::params(&prepared))?;
                (Some(prepared), oids)
            }
            _ => {
                return Err(error("42601", "cannot insert multiple commands into a prepared statement").into());
            }
        };
        self.statements.insert(name, Statement { prepared, oids, text_bytes: sql.len() });
        self.out.parse_complete();
        Ok(())
    }

    /// A client that never closes what it prepares is stopped before it fills the memory.
    fn check_room(&self, name: &str, text_bytes: usize) -> Result<(), SqlError> {
        let limit = self.config.max_prepared_statements;
        if !name.is_empty() && self.statements.len() >= limit {
            let mut e = error("53400", format!("this session has {limit} prepared statements, the most it may have"));
            e.hint = Some("Close statements that are no longer needed, or run DEALLOCATE ALL.".to_owned());
            return Err(e);
        }
        let held: usize = self.statements.values().map(|s| s.text_bytes).sum();
        if held + text_bytes > self.config.max_message_bytes {
            return Err(error("53400", "the prepared statements of this session are too large together"));
        }
        Ok(())
    }

    pub fn bind(&mut self, bind: Bind) -> Result<(), Fail> {
        let tz = self.time_zone();
        let statement = self.statements.get(&bind.statement).ok_or_else(|| no_statement(&bind.statement))?;
        if bind.portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&bind.portal) {
            return Err(error("42P03", format!("cursor \"{}\" already exists", bind.portal)).into());
        } else if self.portals.len() >= self.config.max_prepared_statements {
            return Err(error("53400", "this session has too many open portals").into());
        }
        let param_bytes: usize = bind.params.iter().flatten().map(Bytes::len).sum();
        let held: usize = self.portals.values().map(|p| p.param_bytes).sum();
        if held + param_bytes > self.config.max_message_bytes {
            return Err(error("53400", "the parameters of this session's open portals are too large together").into());
        }
        let expected = statement.oids.len();
        if bind.params.len() != expected {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {expected}",
                bind.params.len(),
                bind.statement
            );
            return Err(error("08P01", message).into());
        }
        let formats = spread(&bind.param_formats, expected, "parameter")?;
        let mut params = Vec::new();
        let mut columns = 0;
        if let Some(prepared) = &statement.prepared {
            // Parameters that were declared and are not used have no place in the plan.
            let values = bind.params.into_iter().zip(&formats).zip(&statement.oids).zip(S::params(prepared));
            for (n, (((value, format), oid), target)) in values.enumerate() {
                let scalar = decode::parameter(*oid, *format, value, target, &tz).map_err(|mut e| {
                    e.detail.get_or_insert_with(|| format!("This is the value of parameter ${}.", n + 1));
                    e
                })?;
                params.push(scalar);
            }
            columns = S::columns(prepared).map_or(0, <[_]>::len);
        }
        let formats = if columns == 0 { Vec::new() } else { spread(&bind.result_formats, columns, "result")? };
        let portal = Portal { prepared: statement.prepared.clone(), formats, state: State::Bound(params), param_bytes };
        self.portals.insert(bind.portal, portal);
        self.out.bind_complete();
        Ok(())
    }

    pub fn describe(&mut self, target: Target, name: &str) -> Result<(), Fail> {
        let (prepared, formats) = match target {
            Target::Statement => {
                let statement = self.statements.get(name).ok_or_else(|| no_statement(name))?;
                self.out.parameter_description(&statement.oids);
                (&statement.prepared, None)
            }
            Target::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (&portal.prepared, Some(&portal.formats))
            }
        };
        match prepared.as_ref().and_then(S::columns) {
            Some(columns) => {
                let text = vec![Format::Text; columns.len()];
                self.out.row_description(columns, formats.unwrap_or(&text))?;
            }
            None => self.out.no_data(),
        }
        Ok(())
    }

    /// `max_rows` of 0 means all.
    pub async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Fail> {
        let max_rows = if max_rows == 0 { usize::MAX } else { max_rows };
        // Taken out while it runs; a portal that fails is gone.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let Some(prepared) = &portal.prepared else {
            self.out.empty_query();
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        };
        let token = self.signal.renew();
        let cursor = match std::mem::replace(&mut portal.state, State::Finished(None)) {
            State::Running(cursor) => Some(cursor),
            State::Finished(Some(tag)) => {
                self.rows_complete(tag, 0);
                portal.state = State::Finished(Some(tag));
                None
            }
            State::Finished(None) => {
                return Err(error("55000", format!("portal \"{name}\" cannot be run")).into());
            }
            State::Bound(params) => {
                let Self { session, inbox, signal, shutdown, .. } = self;
                let outcome = watched(inbox, signal, &token, shutdown, session.execute(prepared, params)).await??;
                self.begin_portal(outcome, prepared, &portal.formats)?
            }
        };
        if let Some(mut cursor) = cursor {
            portal.state = match self.pump(&mut cursor, max_rows, &token).await? {
                Pumped::Suspended => State::Running(cursor),
                // It cannot be said a second time that nothing came.
                Pumped::Complete => State::Finished(Some(cursor.tag()).filter(|tag| *tag != RowsTag::Copy)),
            };
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Rows must be those that were announced: the client has set itself up for them.
    fn begin_portal(
        &mut self,
        outcome: Outcome,
        prepared: &S::Prepared,
        formats: &[Format],
    ) -> Result<Option<Box<Cursor>>, Fail> {
        match outcome {
            // Its rows were not announced, as they are no result of their own.
            Outcome::Rows { columns, stream, tag: RowsTag::Copy } => {
                Ok(Some(Box::new(Cursor::new(columns, Vec::new(), stream, RowsTag::Copy))))
            }
            Outcome::Rows { columns, stream, tag } => {
                let announced = S::columns(prepared).unwrap_or_default();
                let oid = |c: &tidewater_sql::ResultColumn| PgType::of_column(&c.field, c.pg_type_hint).map(|t| t.oid);
                let mut same = announced.len() == columns.len();
                for (a, b) in announced.iter().zip(&columns) {
                    same &= oid(a)? == oid(b)?;
                }
                if !same {
                    return Err(error("0A000", "cached plan must not change result type").into());
                }
                Ok(Some(Box::new(Cursor::new(columns, formats.to_vec(), stream, tag))))
            }
            Outcome::Done { tag } => {
                self.done(prepared, tag)?;
                Ok(None)
            }
            Outcome::Empty => {
                self.out.empty_query();
                Ok(None)
            }
        }
    }

    /// Closing what is not there is no error.
    pub fn close(&mut self, target: Target, name: &str) {
        match target {
            Target::Statement => drop(self.statements.remove(name)),
            Target::Portal => drop(self.portals.remove(name)),
        }
        self.out.close_complete();
    }
}

/// What the client named stays; what it left open is what the planner found.
fn parameter_oids(declared: &[u32], found: &[arrow::datatypes::DataType]) -> Result<Vec<u32>, SqlError> {
    (0..declared.len().max(found.len()))
        .map(|i| match (declared.get(i), found.get(i)) {
            (Some(oid), _) if !matches!(*oid, 0 | oid::UNKNOWN) => Ok(*oid),
            (_, Some(data_type)) => PgType::of_data_type(data_type).map(|t| t.oid),
            (_, None) => Ok(oid::TEXT),
        })
        .collect()
}

/// No code: all text. One: for all. Else one each.
fn spread(codes: &[i16], count: usize, what: &str) -> Result<Vec<Format>, SqlError> {
    match codes {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![Format::of_code(*one)?; count]),
        many if many.len() == count => many.iter().map(|code| Format::of_code(*code)).collect(),
        many => Err(error("08P01", format!("bind message has {} {what} formats but {count} {what}s", many.len()))),
    }
}

pub(super) fn no_statement(name: &str) -> SqlError {
    match name {
        "" => error("26000", "unnamed prepared statement does not exist"),
        name => error("26000", format!("prepared statement \"{name}\" does not exist")),
    }
}

fn no_portal(name: &str) -> SqlError {
    error("34000", format!("portal \"{name}\" does not exist"))
}
