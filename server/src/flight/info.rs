//! What the server can do: SqlInfo and XdbcTypeInfo. Built once; a value that changes belongs to neither.

use std::sync::LazyLock;

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedTransaction, SqlTransactionIsolationLevel, XdbcDataType,
};
use tonic::Status;

use super::status::internal;

static SQL_INFO: LazyLock<Result<SqlInfoData, FlightError>> = LazyLock::new(|| {
    use SqlInfo as I;
    let mut info = SqlInfoDataBuilder::new();
    info.append(I::FlightSqlServerName, "Tidewater");
    info.append(I::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(I::FlightSqlServerArrowVersion, "58");
    info.append(I::FlightSqlServerReadOnly, false);
    info.append(I::FlightSqlServerSql, true);
    info.append(I::FlightSqlServerSubstrait, false);
    info.append(I::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(I::FlightSqlServerCancel, true);
    info.append(I::FlightSqlServerBulkIngestion, false);
    info.append(I::FlightSqlServerIngestTransactionsSupported, false);
    info.append(I::FlightSqlServerStatementTimeout, 0_i32);
    info.append(I::FlightSqlServerTransactionTimeout, 0_i32);
    info.append(I::SqlDdlCatalog, false);
    info.append(I::SqlDdlSchema, true);
    info.append(I::SqlDdlTable, true);
    info.append(I::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(I::SqlIdentifierQuoteChar, "\"");
    info.append(I::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    info.append(I::SqlAllTablesAreSelectable, true);
    info.append(I::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(I::SqlKeywords, &["CONNECTION", "FLOW", "SECRET", "STREAM", "STREAMING"][..]);
    info.append(
        I::SqlNumericFunctions,
        &["abs", "ceil", "exp", "floor", "ln", "log", "mod", "power", "round", "sqrt", "trunc"][..],
    );
    info.append(
        I::SqlStringFunctions,
        &[
            "char_length",
            "concat",
            "left",
            "lower",
            "lpad",
            "ltrim",
            "position",
            "replace",
            "right",
            "rpad",
            "rtrim",
            "substring",
            "trim",
            "upper",
        ][..],
    );
    info.append(I::SqlSystemFunctions, &["current_database", "current_schema", "current_user", "version"][..]);
    info.append(
        I::SqlDatetimeFunctions,
        &["current_date", "current_timestamp", "date_part", "date_trunc", "extract", "now"][..],
    );
    info.append(I::SqlSearchStringEscape, "\\");
    info.append(I::SqlExtraNameCharacters, "$");
    info.append(I::SqlSupportsColumnAliasing, true);
    info.append(I::SqlNullPlusNullIsNull, true);
    info.append(I::SqlSupportsTableCorrelationNames, true);
    info.append(I::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(I::SqlSupportsExpressionsInOrderBy, true);
    info.append(I::SqlSupportsOrderByUnrelated, true);
    // GROUP BY of columns that are not selected, and beyond.
    info.append(I::SqlSupportedGroupBy, 0b11_i32);
    info.append(I::SqlSupportsLikeEscapeClause, true);
    info.append(I::SqlSupportsNonNullableColumns, true);
    // Minimum, core and extended ODBC grammar; ANSI-92 entry level.
    info.append(I::SqlSupportedGrammar, 0b111_i32);
    info.append(I::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(I::SqlOuterJoinsSupportLevel, 1_i32 << SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32);
    info.append(I::SqlSchemaTerm, "schema");
    info.append(I::SqlCatalogTerm, "database");
    info.append(I::SqlProcedureTerm, "procedure");
    info.append(I::SqlCatalogAtStart, true);
    info.append(I::SqlSchemasSupportedActions, 0_i32);
    info.append(I::SqlCatalogsSupportedActions, 0_i32);
    info.append(I::SqlSupportedPositionedCommands, 0_i32);
    info.append(I::SqlSelectForUpdateSupported, false);
    info.append(I::SqlStoredProceduresSupported, false);
    // In comparisons, EXISTS, IN and quantified comparisons.
    info.append(I::SqlSupportedSubqueries, 0b1111_i32);
    info.append(I::SqlCorrelatedSubqueriesSupported, true);
    // UNION and UNION ALL.
    info.append(I::SqlSupportedUnions, 0b11_i32);
    info.append(I::SqlMaxColumnNameLength, 0_i64);
    info.append(I::SqlMaxColumnsInSelect, 0_i64);
    info.append(I::SqlMaxStatementLength, 0_i64);
    info.append(I::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionReadCommitted as i64);
    info.append(I::SqlTransactionsSupported, false);
    info.append(I::SqlSupportedTransactionsIsolationLevels, 0_i32);
    info.append(I::SqlDataDefinitionCausesTransactionCommit, true);
    info.append(I::SqlDataDefinitionsInTransactionsIgnored, false);
    // Forward only.
    info.append(I::SqlSupportedResultSetTypes, 0b10_i32);
    info.append(I::SqlBatchUpdatesSupported, true);
    info.append(I::SqlSavepointsSupported, false);
    info.append(I::SqlNamedParametersSupported, false);
    info.append(I::SqlLocatorsUpdateCopy, false);
    info.append(I::SqlStoredFunctionsUsingCallSyntaxSupported, false);
    info.build()
});

pub(super) fn sql_info() -> Result<&'static SqlInfoData, Status> {
    SQL_INFO.as_ref().map_err(internal)
}

static TYPES: LazyLock<Result<XdbcTypeInfoData, FlightError>> = LazyLock::new(|| {
    use XdbcDataType as X;
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, quoted) in [
        ("boolean", X::XdbcBit, 1, false),
        ("smallint", X::XdbcSmallint, 5, false),
        ("integer", X::XdbcInteger, 10, false),
        ("bigint", X::XdbcBigint, 19, false),
        ("real", X::XdbcReal, 7, false),
        ("double precision", X::XdbcDouble, 15, false),
        ("numeric", X::XdbcDecimal, 38, false),
        ("text", X::XdbcVarchar, i32::MAX, true),
        ("bytea", X::XdbcVarbinary, i32::MAX, true),
        ("date", X::XdbcDate, 10, true),
        ("time", X::XdbcTime, 15, true),
        ("timestamp", X::XdbcTimestamp, 26, true),
        ("timestamptz", X::XdbcTimestamp, 32, true),
    ] {
        let quote = quoted.then(|| "'".to_owned());
        let scale = match name {
            "numeric" => Some((0, 38)),
            "time" | "timestamp" | "timestamptz" => Some((0, 6)),
            _ => None,
        };
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            create_params: (name == "numeric").then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "text",
            searchable: Searchable::Full,
            unsigned_attribute: (!quoted && name != "boolean").then_some(false),
            fixed_prec_scale: false,
            auto_increment: Some(false),
            local_type_name: Some(name.to_owned()),
            minimum_scale: scale.map(|s| s.0),
            maximum_scale: scale.map(|s| s.1),
            sql_data_type: data_type,
            datetime_subcode: None,
            num_prec_radix: (!quoted && name != "boolean").then_some(10),
            interval_precision: None,
        });
    }
    types.build()
});

pub(super) fn types() -> Result<&'static XdbcTypeInfoData, Status> {
    TYPES.as_ref().map_err(internal)
}
