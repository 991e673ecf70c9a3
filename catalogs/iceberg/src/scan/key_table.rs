//! Keys of deleted rows, to be looked up row by row.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use arrow::row::{RowConverter, Rows, SortField};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::{FutureExt, TryFutureExt};
use parking_lot::Mutex;
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::columns::ScanSchema;
use super::equality::EqualityPlan;
use super::keys::KeyColumn;
use super::reader::Readers;

/// Keys that are entered between two looks at whether anyone else wants to run.
const KEYS_PER_TURN: usize = 16_384;

const EMPTY: u32 = u32::MAX;

/// Rows as bytes that are equal where the keys are: nulls equal nulls, and -0.0 is not 0.0.
pub(super) fn converter(columns: &[&KeyColumn]) -> Result<RowConverter> {
    Ok(RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type.clone())).collect())?)
}

/// The keys of several delete files, each key with the highest sequence number at which it was deleted.
pub(super) struct KeyTable {
    /// Later deletes first, with their data sequence numbers.
    files: Vec<(Arc<Rows>, i64)>,
    /// Number of the first key of each file, counted through all files.
    starts: Vec<usize>,
    /// Open addressing: part of a key's hash, and its number or `EMPTY`. At most half of them are taken.
    slots: Vec<(u32, u32)>,
    hasher: RandomState,
    _memory: MemoryReservation,
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyTable").field("files", &self.files.len()).field("slots", &self.slots.len()).finish()
    }
}

impl KeyTable {
    /// `memory` has the bytes of `files` already; the table's own are added.
    pub(super) async fn build(files: Vec<(Arc<Rows>, i64)>, memory: MemoryReservation) -> Result<KeyTable> {
        let mut starts = Vec::with_capacity(files.len());
        let mut keys = 0usize;
        for (rows, _) in &files {
            starts.push(keys);
            keys += rows.num_rows();
        }
        if keys >= EMPTY as usize / 2 {
            return Err(Error::new(ErrorKind::ResourcesExhausted, "equality deletes list too many keys")
                .with_hint("Rewrite the table's data files with the engine that wrote the deletes.")
                .with_context("keys", keys));
        }
        let slots = (keys * 2).next_power_of_two().max(2);
        memory.try_grow(slots * size_of::<(u32, u32)>())?;
        let mut table =
            KeyTable { files, starts, slots: vec![(0, EMPTY); slots], hasher: RandomState::new(), _memory: memory };
        let mut number = 0u32;
        for file in 0..table.files.len() {
            let rows = table.files[file].0.clone();
            for row in rows.iter() {
                table.insert(row.as_ref(), number);
                number += 1;
                if (number as usize).is_multiple_of(KEYS_PER_TURN) {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(table)
    }

    fn key(&self, number: u32) -> (&[u8], i64) {
        let number = number as usize;
        let file = self.starts.partition_point(|start| *start <= number) - 1;
        let (rows, sequence_number) = &self.files[file];
        (rows.row(number - self.starts[file]).data(), *sequence_number)
    }

    /// The slot of a key, or the free one where it would be.
    fn slot(&self, key: &[u8], hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let tag = hash as u32;
        let mut at = (hash >> 32) as usize & mask;
        loop {
            let (other, number) = self.slots[at];
            if number == EMPTY || other == tag && self.key(number).0 == key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The first file that names a key has the highest sequence number, and wins.
    fn insert(&mut self, key: &[u8], number: u32) {
        let hash = self.hasher.hash_one(key);
        let at = self.slot(key, hash);
        if self.slots[at].1 == EMPTY {
            self.slots[at] = (hash as u32, number);
        }
    }

    /// True where a row with this key, in a file of this data sequence number, is deleted: by what came later only.
    pub(super) fn deletes(&self, key: &[u8], sequence_number: i64) -> bool {
        let (_, number) = self.slots[self.slot(key, self.hasher.hash_one(key))];
        number != EMPTY && self.key(number).1 > sequence_number
    }
}

/// The tables of one plan. Each is made when a file first needs it, and is there for as long as someone reads such
/// files; its memory is the query's.
pub(super) struct KeyTables {
    pool: Arc<dyn MemoryPool>,
    tables: Mutex<HashMap<usize, Entry>>,
}

/// Whoever waits for a table drives its making: none of the readers may be polled for ever, as one of several inputs
/// of an operator may not.
type Making = BoxFuture<'static, std::result::Result<Arc<KeyTable>, Arc<Error>>>;

#[derive(Default)]
struct Entry {
    made: Weak<KeyTable>,
    making: Option<WeakShared<Making>>,
}

impl std::fmt::Debug for KeyTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyTables").finish_non_exhaustive()
    }
}

impl KeyTables {
    pub(super) fn new(pool: Arc<dyn MemoryPool>) -> Self {
        Self { pool, tables: Mutex::default() }
    }

    pub(super) async fn get(
        &self,
        plan: &Arc<EqualityPlan>,
        group: usize,
        readers: &Arc<Readers>,
        schema: &Arc<ScanSchema>,
    ) -> Result<Arc<KeyTable>> {
        let making = {
            let mut tables = self.tables.lock();
            let entry = tables.entry(group).or_default();
            if let Some(made) = entry.made.upgrade() {
                return Ok(made);
            }
            match entry.making.as_ref().and_then(WeakShared::upgrade) {
                Some(making) => making,
                None => {
                    let memory = MemoryConsumer::new("equality deletes").register(&self.pool);
                    let made = make(plan.clone(), group, readers.clone(), schema.clone(), memory);
                    let making: Shared<Making> = made.map_err(Arc::new).boxed().shared();
                    entry.making = making.downgrade();
                    making
                }
            }
        };
        let table = making.await.map_err(|e| e.duplicate())?;
        self.tables.lock().entry(group).or_default().made = Arc::downgrade(&table);
        Ok(table)
    }
}

async fn make(
    plan: Arc<EqualityPlan>,
    group: usize,
    readers: Arc<Readers>,
    schema: Arc<ScanSchema>,
    memory: MemoryReservation,
) -> Result<Arc<KeyTable>> {
    let columns = plan.columns_of(group);
    let mut files = Vec::with_capacity(plan.groups[group].files.len());
    for delete in &plan.groups[group].files {
        let keys = readers.equality_keys(delete, &columns, &schema, &memory).await?;
        memory.try_grow(keys.size())?;
        files.push((keys, delete.sequence_number));
    }
    Ok(Arc::new(KeyTable::build(files, memory).await?))
}
