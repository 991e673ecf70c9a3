//! A row that comes back with other values keeps its id (Iceberg spec, "Row Lineage").

use std::collections::HashMap;

use arrow::array::Int64Array;
use tidewater_catalogs::Result;

use crate::lineage::Settled;
use crate::scan::{OwnRowIds, Places, own_row_ids};
use crate::state::TableState;

/// Ids that are in memory at a time. Rows of files beyond, where they list ids themselves, get new ones.
const MOST: usize = 1 << 20;

/// Ids of rows, by their places.
pub(super) struct RowIds<'a> {
    state: &'a TableState,
    places: &'a Places,
    settled: Settled,
    files: HashMap<u32, FileIds>,
    listed: usize,
}

enum FileIds {
    Unknown,
    /// Of its first row; the others follow.
    Counted(Option<i64>),
    Listed(Vec<Option<i64>>, Option<i64>),
}

impl FileIds {
    fn at(&self, position: u64) -> Option<i64> {
        let counted = |first: &Option<i64>| first.and_then(|first| first.checked_add_unsigned(position));
        match self {
            Self::Unknown => None,
            Self::Counted(first) => counted(first),
            Self::Listed(own, first) => {
                let own = usize::try_from(position).ok().and_then(|at| own.get(at).copied().flatten());
                own.or_else(|| counted(first))
            }
        }
    }
}

impl<'a> RowIds<'a> {
    pub(super) fn new(state: &'a TableState, places: &'a Places, settled: Settled) -> Self {
        Self { state, places, settled, files: HashMap::new(), listed: 0 }
    }

    /// Null for rows that are new.
    pub(super) async fn of(&mut self, places: &[Option<u64>]) -> Result<Int64Array> {
        let mut ids = Int64Array::builder(places.len());
        for place in places {
            let Some(place) = place else {
                ids.append_null();
                continue;
            };
            let (number, position) = Places::split(*place);
            if !self.files.contains_key(&number) {
                let read = self.read(number).await?;
                self.files.insert(number, read);
            }
            ids.append_option(self.files.get(&number).and_then(|file| file.at(position)));
        }
        Ok(ids.finish())
    }

    async fn read(&mut self, number: u32) -> Result<FileIds> {
        let file = self.places.file(number)?;
        let first = self.settled.first_row_id(&file);
        Ok(match own_row_ids(self.state, &file, MOST - self.listed).await? {
            OwnRowIds::TooMany => FileIds::Unknown,
            OwnRowIds::None => FileIds::Counted(first),
            OwnRowIds::Listed(own) => {
                self.listed = MOST.min(self.listed + own.len());
                FileIds::Listed(own, first)
            }
        })
    }
}
