//! A fake engine. Its statements are single words with a number, separated by `;`:
//!
//! `rows N` numbered rows · `failing N` the same, then an error · `endless` rows without end · `silent` no row, ever ·
//! `hang` an effect that only a cancel ends · `echo T` one parameter of type T and a row with it ·
//! `wrong` prepared as one type, executed as another · `begin`, `commit`, `notice`, `zone Z`, `do TAG`, `nonsense`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tidewater_sql::{Login, Notice, Outcome, ResultColumn, RowsTag, SqlError, TransactionStatus};
use tokio_util::sync::CancellationToken;

use crate::pgwire::port::{Backend, Deallocate, Port};
use crate::pgwire::types::error;

#[derive(Default)]
pub(super) struct FakeEngine {
    next_pid: AtomicI32,
    /// Batches that were pulled from all streams together.
    pub pulled: Arc<AtomicUsize>,
    /// Streams and hanging effects that are alive.
    pub alive: Arc<AtomicUsize>,
    pub logins: Mutex<Vec<Login>>,
}

pub(super) struct FakeSession {
    pid: i32,
    status: TransactionStatus,
    zone: String,
    changed: bool,
    notices: Vec<Notice>,
    cancel: Arc<Mutex<CancellationToken>>,
    pulled: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
}

#[derive(Clone)]
pub(super) struct FakePrepared {
    text: String,
    params: Vec<DataType>,
    columns: Option<Vec<ResultColumn>>,
}

impl Backend for FakeEngine {
    type Session = FakeSession;

    fn open(&self, login: Login) -> Result<FakeSession, SqlError> {
        self.logins.lock().push(login.clone());
        if login.database != "lake" {
            return Err(error("3D000", format!("database \"{}\" does not exist", login.database)));
        }
        Ok(FakeSession {
            pid: self.next_pid.fetch_add(1, Ordering::Relaxed) + 1,
            status: TransactionStatus::Idle,
            zone: "UTC".to_owned(),
            changed: false,
            notices: Vec::new(),
            cancel: Arc::default(),
            pulled: self.pulled.clone(),
            alive: self.alive.clone(),
        })
    }
}

/// Counts down when dropped.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn count(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false), Field::new("t", DataType::Utf8, true)]))
}

fn columns() -> Vec<ResultColumn> {
    schema().fields().iter().map(|f| ResultColumn::new(f.clone())).collect()
}

/// Rows `from..to`, the text of each being `row <n>`.
fn batch(from: i32, to: i32) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(from..to));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((from..to).map(|n| format!("row {n}"))));
    RecordBatch::try_new(schema(), vec![numbers, texts]).unwrap()
}

const BATCH_ROWS: i32 = 10;

impl FakeSession {
    fn rows(
        &self,
        batches: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
    ) -> SendableRecordBatchStream {
        let (pulled, alive) = (self.pulled.clone(), Alive::count(&self.alive));
        let counted = batches.inspect(move |_| {
            let _ = &alive;
            pulled.fetch_add(1, Ordering::SeqCst);
        });
        Box::pin(RecordBatchStreamAdapter::new(schema(), counted))
    }

    fn select(&self, stream: SendableRecordBatchStream) -> Outcome {
        Outcome::Rows { columns: columns(), stream, tag: RowsTag::Select }
    }
}

fn some_rows(count: i32) -> impl Stream<Item = Result<RecordBatch, DataFusionError>> {
    stream::iter((0..count).step_by(BATCH_ROWS as usize).map(move |n| Ok(batch(n, count.min(n + BATCH_ROWS)))))
}

fn type_named(name: &str) -> DataType {
    match name {
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "text" => DataType::Utf8,
        "numeric" => DataType::Decimal128(10, 2),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        "int4s" => DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
        other => panic!("no type {other}"),
    }
}

impl Port for FakeSession {
    type Statement = String;
    type Prepared = FakePrepared;

    fn parse(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        if let Some(at) = sql.find("syntax") {
            let mut e = error("42601", "syntax error at or near \"syntax\"");
            e.position = Some(at + 1);
            e.hint = Some("Do not.".to_owned());
            return Err(e);
        }
        Ok(sql.split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
    }

    async fn prepare(&mut self, statement: &String, types: &[Option<DataType>]) -> Result<FakePrepared, SqlError> {
        let (word, rest) = statement.split_once(' ').unwrap_or((statement, ""));
        let mut params = vec![];
        let columns = match word {
            "rows" | "failing" | "endless" | "silent" | "wrong" => Some(columns()),
            "echo" => {
                let data_type = types.first().cloned().flatten().unwrap_or_else(|| type_named(rest));
                params.push(data_type.clone());
                Some(vec![ResultColumn::new(Arc::new(Field::new("echo", data_type, true)))])
            }
            "hang" | "begin" | "commit" | "notice" | "zone" | "do" => None,
            _ => return Err(error("42P01", format!("table \"{word}\" does not exist"))),
        };
        Ok(FakePrepared { text: statement.clone(), params, columns })
    }

    async fn execute(&mut self, prepared: &FakePrepared, params: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        let cancel = CancellationToken::new();
        *self.cancel.lock() = cancel.clone();
        let (word, rest) = prepared.text.split_once(' ').unwrap_or((&prepared.text, ""));
        Ok(match word {
            "rows" => self.select(self.rows(some_rows(rest.parse().unwrap()))),
            "failing" => {
                let end = stream::iter([Err(DataFusionError::Execution("division by zero".to_owned()))]);
                self.select(self.rows(some_rows(rest.parse().unwrap()).chain(end)))
            }
            "endless" => self.select(self.rows(stream::iter(0..).map(|n| Ok(batch(n * 1000, (n + 1) * 1000))))),
            "silent" => self.select(self.rows(stream::pending())),
            "hang" => {
                let _alive = Alive::count(&self.alive);
                cancel.cancelled().await;
                return Err(error("57014", "canceling statement due to user request"));
            }
            "echo" => {
                let value = params[0].clone();
                let array = value.to_array().unwrap();
                let columns = prepared.columns.clone().unwrap();
                let field = Field::new("echo", array.data_type().clone(), true);
                let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
                let stream = stream::iter([Ok(batch.clone())]);
                let stream = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream));
                Outcome::Rows { columns, stream, tag: RowsTag::Select }
            }
            "wrong" => {
                let mut outcome = self.select(self.rows(some_rows(1)));
                if let Outcome::Rows { columns, .. } = &mut outcome {
                    columns.pop();
                }
                outcome
            }
            "begin" => {
                self.status = TransactionStatus::InBlock;
                Outcome::Done { tag: "BEGIN".to_owned() }
            }
            "commit" => {
                let failed = self.status == TransactionStatus::Failed;
                self.status = TransactionStatus::Idle;
                Outcome::Done { tag: if failed { "ROLLBACK" } else { "COMMIT" }.to_owned() }
            }
            "notice" => {
                self.notices.push(Notice::notice("look here"));
                Outcome::Done { tag: "DO".to_owned() }
            }
            "zone" => {
                self.zone = rest.to_owned();
                self.changed = true;
                Outcome::Done { tag: "SET".to_owned() }
            }
            _ => Outcome::Done { tag: rest.to_owned() },
        })
    }

    fn params(prepared: &FakePrepared) -> &[DataType] {
        &prepared.params
    }

    fn columns(prepared: &FakePrepared) -> Option<&[ResultColumn]> {
        prepared.columns.as_deref()
    }

    fn deallocates(prepared: &FakePrepared) -> Option<Deallocate> {
        match prepared.text.strip_prefix("do DEALLOCATE ")? {
            "ALL" => Some(Deallocate::All),
            name => Some(Deallocate::One(name.to_owned())),
        }
    }

    fn canceller(&self) -> Box<dyn Fn() + Send + Sync> {
        let cancel = self.cancel.clone();
        Box::new(move || cancel.lock().cancel())
    }

    fn idle_in_transaction(&self) -> Option<std::time::Duration> {
        None
    }

    fn status(&self) -> TransactionStatus {
        self.status
    }

    fn note_error(&mut self) {
        if self.status == TransactionStatus::InBlock {
            self.status = TransactionStatus::Failed;
        }
    }

    fn parameter_status(&self) -> Vec<(&'static str, String)> {
        vec![("server_version", "16.6".to_owned()), ("TimeZone", self.zone.clone())]
    }

    fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)> {
        if std::mem::take(&mut self.changed) { vec![("TimeZone", self.zone.clone())] } else { vec![] }
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn time_zone(&self) -> String {
        self.zone.clone()
    }

    fn pid(&self) -> i32 {
        self.pid
    }
}
