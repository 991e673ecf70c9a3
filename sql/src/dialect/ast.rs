//! The statements that are ours. `Display` of a statement is its canonical text: it parses to the same value again,
//! and it is what SHOW CREATE prints and the metastore keeps.

use std::fmt;

use sqlparser::ast::{self, ColumnDef, DataType, Expr, Query, TableConstraint};
use sqlparser::tokenizer::Location;
use tidewater_catalogs::{Alteration, Offsets, PartitionField, ReferenceChange, RowOrder};

use super::options::Options;
use super::write_order::WriteOrder;

/// One statement of a text.
#[derive(Clone, PartialEq)]
pub struct ParsedStatement {
    pub statement: Statement,
    /// The statement as it was written, without the semicolon and the blanks around it.
    pub text: String,
    /// Where `text` begins, in characters from the beginning of the whole text.
    pub offset: usize,
}

impl ParsedStatement {
    /// The position that a client is told for a place in this statement: spans inside `statement` count from the
    /// beginning of `text`, positions from 1 at the beginning of the whole text.
    pub fn position(&self, location: Location) -> Option<usize> {
        super::text::chars_before(&self.text, location).map(|n| self.offset + n + 1)
    }

    /// BEGIN, COMMIT, SAVEPOINT and their like.
    pub fn is_transaction_control(&self) -> bool {
        use ast::Statement as S;
        matches!(&self.statement, Statement::Sql(sql) if matches!(
            **sql,
            S::StartTransaction { .. }
                | S::Commit { .. }
                | S::Rollback { .. }
                | S::Savepoint { .. }
                | S::ReleaseSavepoint { .. }
        ))
    }

    /// INSERT, UPDATE, DELETE and MERGE, which may return rows and must still run once only.
    pub fn changes_rows(&self) -> bool {
        use ast::Statement as S;
        matches!(&self.statement, Statement::Sql(sql) if matches!(
            super::behind_with(sql).1,
            S::Insert(_) | S::Update(_) | S::Delete(_) | S::Merge(_)
        ))
    }

    /// SET, RESET and DISCARD: what they do is seen by later statements of the same session.
    pub fn changes_session(&self) -> bool {
        use ast::Statement as S;
        matches!(&self.statement, Statement::Sql(sql)
            if matches!(**sql, S::Set(_) | S::Reset(_) | S::Discard { .. }))
    }

    /// The text as it may be logged or listed: without the values of secrets.
    pub fn log_text(&self) -> std::borrow::Cow<'_, str> {
        match &self.statement {
            Statement::CreateSecret(s) => s.to_string().into(),
            Statement::AlterSecret(s) => s.to_string().into(),
            Statement::Explain(Explain { target: ExplainTarget::Statement(inner), .. })
                if matches!(**inner, Statement::CreateSecret(_) | Statement::AlterSecret(_)) =>
            {
                "EXPLAIN …".into()
            }
            _ => self.text.as_str().into(),
        }
    }
}

impl fmt::Debug for ParsedStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedStatement")
            .field("statement", &self.statement)
            .field("text", &self.log_text())
            .field("offset", &self.offset)
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// PostgreSQL's own. `FROM STREAM x` inside is `STREAM(x)`, see [`super::stream_marker`].
    Sql(Box<ast::Statement>),
    /// CREATE TABLE and CREATE TABLE AS (not TEMPORARY or EXTERNAL, which stay in `Sql` for the refusal).
    CreateTable(Box<CreateTable>),
    CreateSchema(CreateSchema),
    CreateSecret(CreateSecret),
    AlterSecret(AlterSecret),
    CreateConnection(CreateConnection),
    AlterConnection(AlterConnection),
    ValidateConnection(Name),
    CreateCatalog(CreateCatalog),
    CreateStream(CreateStream),
    CreateStreamingTable(Box<CreateStreamingTable>),
    AlterFlow(AlterFlow),
    /// ALTER TABLE, and COMMENT ON a table or a column.
    AlterTable(Box<AlterTable>),
    /// DROP of SECRET, CONNECTION, CATALOG, STREAM, STREAMING TABLE, FLOW, TABLE and SCHEMA.
    Drop(Drop),
    /// SHOW STREAMS and its like. SHOW of a setting is in `Sql`.
    Show(Show),
    ShowCreate(ShowCreate),
    Describe(Describe),
    DescribeInferred(DescribeInferred),
    Explain(Explain),
    Subscribe(Box<Subscribe>),
    ReplayDlq(Box<ReplayDlq>),
    Optimize(Box<Optimize>),
    Vacuum(Vacuum),
    Analyze(Analyze),
    /// ALTER TABLE … { CREATE | REPLACE | DROP } { BRANCH | TAG } …
    AlterReference(AlterReference),
    Call(Call),
    /// COPY (…) TO STDOUT of a query or a SUBSCRIBE.
    CopyOut(Box<Statement>),
}

/// A name of one to three parts, as PostgreSQL folds it: lower case where it was not quoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(pub Vec<String>);

impl Name {
    pub fn bare(name: impl Into<String>) -> Self {
        Self(vec![name.into()])
    }

    /// The part behind the last dot.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// None where a part is not a plain identifier.
    pub fn from_object_name(name: &ast::ObjectName) -> Option<Self> {
        name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// An identifier as PostgreSQL stores it.
pub fn fold(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Name,
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<TableConstraint>,
    pub partition_by: Vec<PartitionField>,
    pub write_order: Option<WriteOrder>,
    pub comment: Option<String>,
    pub properties: Vec<(String, String)>,
    /// `WITH (…)`; no option is defined for plain tables yet.
    pub options: Options,
    pub query: Option<Box<Query>>,
    /// `WITH NO DATA`.
    pub no_data: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSchema {
    pub if_not_exists: bool,
    pub name: Name,
}

/// A secret's value. It prints as dots wherever it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'…'")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    Literal(SecretText),
    Env(String),
    File(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSecret {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Name,
    pub from: SecretFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterSecret {
    pub name: Name,
    pub from: SecretFrom,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateConnection {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Name,
    /// The word after TO, in lower case.
    pub kind: String,
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateCatalog {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Name,
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlterConnection {
    pub name: Name,
    pub set: Options,
    pub reset: Vec<String>,
}

/// What a column of a stream is filled from.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnSource {
    /// The member of the record's value that has the column's name.
    Value,
    /// `METADATA FROM '…'`.
    Metadata(String),
    /// `GENERATED ALWAYS AS (…)`. The text is the expression as it was written.
    Generated { expr: Expr, text: String },
}

#[derive(Debug, Clone, PartialEq)]
pub struct StreamColumnDef {
    pub name: String,
    pub data_type: DataType,
    pub not_null: bool,
    pub source: ColumnSource,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateStream {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Name,
    /// Infer columns from a sample: there is no list, or `*` stands in it.
    pub infer: bool,
    pub columns: Vec<StreamColumnDef>,
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TargetColumnDef {
    pub name: String,
    pub data_type: DataType,
    pub not_null: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    Create,
    OrReplace,
    OrRefresh,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateStreamingTable {
    pub mode: CreateMode,
    pub if_not_exists: bool,
    pub name: Name,
    /// Empty: the query's columns.
    pub columns: Vec<TargetColumnDef>,
    pub partition_by: Vec<PartitionField>,
    pub write_order: Option<WriteOrder>,
    pub comment: Option<String>,
    pub properties: Vec<(String, String)>,
    pub options: Options,
    pub query: Box<Query>,
    /// The query as it was written.
    pub query_text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Optimize {
    pub name: Name,
    /// Files that may hold such rows.
    pub filter: Option<Expr>,
    /// Other than the table's.
    pub order: Option<RowOrder>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacuum {
    pub name: Name,
    pub retain: Option<RetainFor>,
    pub dry_run: bool,
}

/// ANALYZE table [(column, …)].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyze {
    pub name: Name,
    /// Empty: all.
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetainFor {
    /// An interval.
    Age(String),
    Snapshots(u64),
}

/// What is carried out together, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterTable {
    /// What the client is told when it is done.
    pub tag: &'static str,
    pub if_exists: bool,
    pub name: Name,
    pub alterations: Vec<Alteration>,
    /// Defaults that are to be put into alterations, by their numbers.
    pub defaults: Vec<(usize, Expr)>,
}

/// ALTER FLOW and ALTER STREAMING TABLE.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterFlow {
    /// FLOW or STREAMING TABLE, for messages.
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub name: Name,
    pub action: AlterFlowAction,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AlterFlowAction {
    /// PAUSE or SUSPEND.
    Pause,
    Resume,
    Set(Options),
    Reset(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    Secret,
    Connection,
    Catalog,
    Stream,
    StreamingTable,
    Flow,
    Table,
    Schema,
}

impl ObjectKind {
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Secret => "SECRET",
            Self::Connection => "CONNECTION",
            Self::Catalog => "CATALOG",
            Self::Stream => "STREAM",
            Self::StreamingTable => "STREAMING TABLE",
            Self::Flow => "FLOW",
            Self::Table => "TABLE",
            Self::Schema => "SCHEMA",
        }
    }

    /// As messages say it: `streaming table "x" does not exist`.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Connection => "connection",
            Self::Catalog => "catalog",
            Self::Stream => "stream",
            Self::StreamingTable => "streaming table",
            Self::Flow => "flow",
            Self::Table => "table",
            Self::Schema => "schema",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    pub kind: ObjectKind,
    pub if_exists: bool,
    /// One or more.
    pub names: Vec<Name>,
    pub cascade: bool,
    /// KEEP DATA: the Iceberg table stays.
    pub keep_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowWhat {
    Streams,
    StreamingTables,
    Flows,
    Connections,
    Secrets,
    Catalogs,
    Schemas,
    Tables,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Show {
    pub what: ShowWhat,
    /// A LIKE pattern.
    pub like: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowCreate {
    pub kind: ObjectKind,
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe {
    pub extended: bool,
    /// Where the statement names one.
    pub kind: Option<ObjectKind>,
    pub name: Name,
}

/// DESCRIBE STREAM INFERRED FROM CONNECTION c TOPIC 'x' [WITH (format = …, infer_rows = …)].
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeInferred {
    pub connection: Name,
    pub topic: String,
    pub options: Options,
}

/// SUBSCRIBE (query) [FROM …] [UNTIL …].
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    pub query: Box<Query>,
    pub from: SubscribeFrom,
    pub until: Option<SubscribeUntil>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// What comes from now on.
    Now,
    /// All that is there, and what comes.
    Snapshot,
    /// The next offset to read of each partition; those that are not named from their earliest record.
    Offsets(Offsets),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeUntil {
    /// The first offset not to read of each partition.
    Offsets(Offsets),
    /// This many rows.
    Limit(u64),
}

/// REPLAY DLQ stream [WHERE …].
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayDlq {
    pub stream: Name,
    pub filter: Option<ReplayFilter>,
}

/// Which dead letters are meant, over the columns of their table.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayFilter {
    pub expr: Expr,
    /// As it was written.
    pub text: String,
}

/// Branches and tags of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterReference {
    pub if_exists: bool,
    pub table: Name,
    pub change: ReferenceChange,
}

/// CALL [catalog.]system.procedure(argument, name => argument, …).
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub procedure: Name,
    pub arguments: Vec<CallArgument>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CallArgument {
    pub name: Option<String>,
    pub value: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    /// EXPLAIN (DRY RUN).
    pub dry_run: bool,
    /// FORMAT, in lower case; `text` where not said.
    pub format: String,
    pub target: ExplainTarget,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExplainTarget {
    Statement(Box<Statement>),
    /// EXPLAIN FLOW f.
    Flow(Name),
}
