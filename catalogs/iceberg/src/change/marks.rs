use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringTreemap;
use tidewater_catalogs::Result;

use crate::scan::{Places, TargetFile};

/// Rows that go, by the file they lie in: a few bits for each.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_number: HashMap<u32, RoaringTreemap>,
}

impl Marks {
    /// False where the row was marked before.
    pub(super) fn add(&mut self, place: u64) -> bool {
        let (number, position) = Places::split(place);
        self.by_number.entry(number).or_default().insert(position)
    }

    /// Positions in each touched file, in the order of the files' names.
    pub(super) fn by_file(self, places: &Places) -> Result<Vec<(Arc<TargetFile>, RoaringTreemap)>> {
        let mut files: BTreeMap<String, (Arc<TargetFile>, RoaringTreemap)> = BTreeMap::new();
        for (number, marked) in self.by_number {
            let file = places.file(number)?;
            // A scan that was planned twice has given the file two numbers.
            files.entry(file.location.clone()).or_insert_with(|| (file, RoaringTreemap::new())).1 |= marked;
        }
        Ok(files.into_values().collect())
    }
}
