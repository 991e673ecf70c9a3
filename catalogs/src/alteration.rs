use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use crate::{PartitionField, SortField};

/// One change of a table's columns, layout or properties. Paths name columns from the outside in: members of structs by
/// their names, elements of arrays as `element`, keys and values of maps as `key` and `value`.
#[derive(Debug, Clone, PartialEq)]
pub enum Alteration {
    AddColumn(AddColumn),
    DropColumn {
        path: Vec<String>,
        if_exists: bool,
    },
    RenameColumn {
        path: Vec<String>,
        to: String,
    },
    /// Iceberg spec, "Schema Evolution": to a type that holds every value of the old one.
    ChangeType {
        path: Vec<String>,
        to: DataType,
    },
    /// SET NOT NULL or DROP NOT NULL. The former goes through on the state whose rows were looked at, and on no other.
    ChangeNull {
        path: Vec<String>,
        nullable: bool,
    },
    /// What is written into the column where a statement leaves it out; none for null.
    ChangeDefault {
        path: Vec<String>,
        default: Option<ScalarValue>,
    },
    CommentColumn {
        path: Vec<String>,
        comment: Option<String>,
    },
    MoveColumn {
        path: Vec<String>,
        place: ColumnPlace,
    },
    AddPartition(NamedPartition),
    DropPartition(PartitionRef),
    ReplacePartition {
        old: PartitionRef,
        new: NamedPartition,
    },
    /// In which files are written from now on; empty for none.
    SetSortOrder(Vec<SortField>),
    SetProperties(BTreeMap<String, String>),
    ResetProperties(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct AddColumn {
    pub path: Vec<String>,
    pub data_type: DataType,
    /// Of the rows that are there and, until it is changed, of those to come.
    pub default: Option<ScalarValue>,
    /// NOT NULL, which needs a default.
    pub required: bool,
    pub comment: Option<String>,
    pub place: Option<ColumnPlace>,
    pub if_not_exists: bool,
}

/// Among the columns beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnPlace {
    First,
    After(String),
}

/// A partition field, and its name where the user gave one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPartition {
    pub field: PartitionField,
    pub name: Option<String>,
}

/// A partition field that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionRef {
    /// A column by itself looks the same.
    Name(String),
    Field(PartitionField),
}
