//! What Iceberg's REST protocol sends (its OpenAPI text), as far as it is used here.

use std::collections::BTreeMap;

use iceberg::spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec};
use iceberg::{TableRequirement, TableUpdate};
use serde::{Deserialize, Serialize};

pub(super) type Properties = BTreeMap<String, String>;

#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub defaults: Properties,
    #[serde(default)]
    pub overrides: Properties,
    /// What the server serves, as `POST /v1/{prefix}/…`.
    #[serde(default)]
    pub endpoints: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Token {
    pub access_token: String,
    pub expires_in: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub error: ErrorModel,
}

#[derive(Deserialize)]
pub(super) struct ErrorModel {
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Namespaces {
    #[serde(default)]
    pub namespaces: Vec<Vec<String>>,
    #[serde(default)]
    pub next_page_token: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Identifier {
    pub name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Tables {
    #[serde(default)]
    pub identifiers: Vec<Identifier>,
    #[serde(default)]
    pub next_page_token: Option<String>,
}

#[derive(Serialize)]
pub(super) struct NewNamespace<'a> {
    pub namespace: &'a [String],
    pub properties: Properties,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NewTableRequest<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<&'a str>,
    pub schema: &'a Schema,
    pub partition_spec: &'a UnboundPartitionSpec,
    #[serde(skip_serializing_if = "SortOrder::is_unsorted")]
    pub write_order: &'a SortOrder,
    pub stage_create: bool,
    pub properties: &'a std::collections::HashMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Registration<'a> {
    pub name: &'a str,
    pub metadata_location: &'a str,
}

#[derive(Serialize)]
pub(super) struct Commit<'a> {
    pub identifier: FullName<'a>,
    pub requirements: &'a [TableRequirement],
    pub updates: &'a [TableUpdate],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Transaction<'a> {
    pub table_changes: Vec<Commit<'a>>,
}

#[derive(Serialize)]
pub(super) struct FullName<'a> {
    pub namespace: &'a [String],
    pub name: &'a str,
}

/// The answer to a load, a creation or a commit.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TableAnswer {
    #[serde(default)]
    pub metadata_location: Option<String>,
    pub metadata: TableMetadata,
    #[serde(default)]
    pub config: Option<Properties>,
    #[serde(default)]
    pub storage_credentials: Option<Vec<StorageCredential>>,
}

#[derive(Deserialize)]
pub(super) struct StorageCredential {
    pub prefix: String,
    #[serde(default)]
    pub config: Properties,
}

/// One segment of a path.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
