//! Topics and what is stored about them beside their logs: `broker.json`, and one directory per topic id.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::files::write_atomically;
use crate::log::{LogLimits, PartitionLog};
use crate::{DevBrokerConfig, Error, Result};

const STATE_FILE: &str = "broker.json";
const LOCK_FILE: &str = "lock";
const TOPICS_DIR: &str = "topics";
/// Producer ids are written ahead in blocks, so that none is given twice and few writes are needed.
const PRODUCER_ID_BLOCK: i64 = 1_000;

/// Options of one topic; what is not given is the broker's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<u64>,
}

#[derive(Debug)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub options: TopicOptions,
    pub partitions: Vec<Arc<PartitionLog>>,
}

impl Topic {
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionLog>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

#[derive(Debug)]
pub enum TopicError {
    InvalidName,
    InvalidPartitions,
    Exists,
    Unknown,
    TooMany,
    Storage(Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    format: u32,
    cluster_id: String,
    next_producer_id: i64,
    topics: Vec<TopicEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TopicEntry {
    name: String,
    id: Uuid,
    partitions: u32,
    #[serde(flatten)]
    options: TopicOptions,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

#[derive(Debug)]
struct ProducerIds {
    next: i64,
    reserved: i64,
}

#[derive(Debug)]
pub struct Store {
    pub config: DevBrokerConfig,
    pub cluster_id: String,
    topics: RwLock<Topics>,
    producer_ids: Mutex<ProducerIds>,
    /// Held over changes of `broker.json`.
    writing: Mutex<()>,
    /// Goes up with every append and every change of topics; who waits for records waits here.
    changes: watch::Sender<u64>,
    _lock: File,
}

impl Store {
    pub fn open(config: DevBrokerConfig) -> Result<Self> {
        let dir = config.data_dir.clone();
        fs::create_dir_all(dir.join(TOPICS_DIR)).map_err(Error::io(&dir))?;
        let lock = lock(&dir)?;
        let state = read_state(&dir.join(STATE_FILE))?;
        let mut topics = Topics::default();
        for entry in &state.topics {
            let topic = open_topic(&config, entry)?;
            topics.by_id.insert(topic.id, topic.clone());
            topics.by_name.insert(topic.name.clone(), topic);
        }
        remove_orphans(&dir.join(TOPICS_DIR), &topics)?;
        let store = Self {
            cluster_id: state.cluster_id,
            topics: RwLock::new(topics),
            producer_ids: Mutex::new(ProducerIds { next: state.next_producer_id, reserved: state.next_producer_id }),
            writing: Mutex::new(()),
            changes: watch::Sender::new(0),
            config,
            _lock: lock,
        };
        store.save()?;
        store.enforce_total();
        Ok(store)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: &Uuid) -> Option<Arc<Topic>> {
        self.topics.read().by_id.get(id).cloned()
    }

    /// By name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// With `dry_run` only says whether it would work.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        options: TopicOptions,
        dry_run: bool,
    ) -> Result<Arc<Topic>, TopicError> {
        if !is_topic_name(name) {
            return Err(TopicError::InvalidName);
        }
        if partitions == 0 {
            return Err(TopicError::InvalidPartitions);
        }
        let _writing = self.writing.lock();
        {
            let topics = self.topics.read();
            if topics.by_name.contains_key(name) {
                return Err(TopicError::Exists);
            }
            let used: usize = topics.by_name.values().map(|t| t.partitions.len()).sum();
            let fits = topics.by_name.len() < self.config.max_topics
                && used.saturating_add(partitions as usize) <= self.config.max_partitions;
            if !fits {
                return Err(TopicError::TooMany);
            }
        }
        let id = Uuid::new_v4();
        if dry_run {
            return Ok(Arc::new(Topic { name: name.into(), id, options, partitions: Vec::new() }));
        }
        // Directories first: those that no state names are removed on the next start.
        let topic = open_topic(&self.config, &TopicEntry { name: name.into(), id, partitions, options })
            .map_err(TopicError::Storage)?;
        self.put(topic.clone()).map_err(TopicError::Storage)?;
        Ok(topic)
    }

    /// Adds partitions until there are `count`.
    pub fn grow_topic(&self, name: &str, count: u32, dry_run: bool) -> Result<(), TopicError> {
        let _writing = self.writing.lock();
        let topic = self.topic(name).ok_or(TopicError::Unknown)?;
        let more = (count as usize).checked_sub(topic.partitions.len()).filter(|n| *n > 0);
        let more = more.ok_or(TopicError::InvalidPartitions)?;
        let used: usize = self.topics.read().by_name.values().map(|t| t.partitions.len()).sum();
        if used.saturating_add(more) > self.config.max_partitions {
            return Err(TopicError::TooMany);
        }
        if dry_run {
            return Ok(());
        }
        let mut partitions = topic.partitions.clone();
        let first = partitions.len() as u32;
        partitions
            .extend(open_partitions(&self.config, topic.id, topic.options, first..count).map_err(TopicError::Storage)?);
        let grown = Topic { name: topic.name.clone(), id: topic.id, options: topic.options, partitions };
        self.put(Arc::new(grown)).map_err(TopicError::Storage)
    }

    pub fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        let _writing = self.writing.lock();
        let topic = {
            let mut topics = self.topics.write();
            let topic = topics.by_name.remove(name).ok_or(TopicError::Unknown)?;
            topics.by_id.remove(&topic.id);
            topic
        };
        if let Err(e) = self.save() {
            let mut topics = self.topics.write();
            topics.by_id.insert(topic.id, topic.clone());
            topics.by_name.insert(topic.name.clone(), topic);
            return Err(TopicError::Storage(e));
        }
        for partition in &topic.partitions {
            partition.mark_deleted();
        }
        let dir = topic_dir(&self.config.data_dir, topic.id);
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(topic = %topic.name, %error, "files of a deleted topic stay until the next start");
        }
        self.changed();
        Ok(topic)
    }

    fn put(&self, topic: Arc<Topic>) -> Result<()> {
        let before = {
            let mut topics = self.topics.write();
            topics.by_id.insert(topic.id, topic.clone());
            topics.by_name.insert(topic.name.clone(), topic.clone())
        };
        if let Err(e) = self.save() {
            let mut topics = self.topics.write();
            match before {
                Some(before) => {
                    topics.by_id.insert(before.id, before.clone());
                    topics.by_name.insert(before.name.clone(), before);
                }
                None => {
                    topics.by_id.remove(&topic.id);
                    topics.by_name.remove(&topic.name);
                }
            }
            return Err(e);
        }
        self.changed();
        Ok(())
    }

    /// A producer id that was never given before.
    pub fn next_producer_id(&self) -> Result<i64> {
        let _writing = self.writing.lock();
        let id = {
            let mut ids = self.producer_ids.lock();
            let id = ids.next;
            if id < ids.reserved {
                ids.next += 1;
                return Ok(id);
            }
            ids.reserved = id + PRODUCER_ID_BLOCK;
            id
        };
        let saved = self.save();
        let mut ids = self.producer_ids.lock();
        match saved {
            Ok(()) => ids.next += 1,
            Err(_) => ids.reserved = id,
        }
        saved.map(|()| id)
    }

    fn save(&self) -> Result<()> {
        let entry = |t: &Arc<Topic>| TopicEntry {
            name: t.name.clone(),
            id: t.id,
            partitions: t.partitions.len() as u32,
            options: t.options,
        };
        let topics = self.topics.read().by_name.values().map(entry).collect();
        let state = StateFile {
            format: 1,
            cluster_id: self.cluster_id.clone(),
            next_producer_id: self.producer_ids.lock().reserved,
            topics,
        };
        let path = self.config.data_dir.join(STATE_FILE);
        let text = serde_json::to_vec_pretty(&state).map_err(|e| Error::io(&path)(e.into()))?;
        write_atomically(&path, &text)
    }

    /// Takes old segments from the largest logs until all of them together keep the bound.
    pub fn enforce_total(&self) {
        let logs: Vec<Arc<PartitionLog>> =
            self.topics.read().by_name.values().flat_map(|t| t.partitions.iter().cloned()).collect();
        let mut sizes: Vec<u64> = logs.iter().map(|l| l.bytes()).collect();
        let mut total: u64 = sizes.iter().sum();
        while total > self.config.max_bytes_total {
            let Some(largest) = (0..sizes.len()).max_by_key(|i| sizes[*i]).filter(|i| sizes[*i] > 0) else { break };
            match logs[largest].drop_oldest_segment() {
                Some(freed) => {
                    sizes[largest] = sizes[largest].saturating_sub(freed);
                    total = total.saturating_sub(freed);
                }
                // It has its open segment alone; the next largest may have more.
                None => {
                    total -= sizes[largest];
                    sizes[largest] = 0;
                }
            }
        }
    }
}

/// Kafka's rule.
pub fn is_topic_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(e)) => Err(Error::io(&path)(e)),
    }
}

fn read_state(path: &Path) -> Result<StateFile> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let cluster_id = Uuid::new_v4().simple().to_string();
            return Ok(StateFile { format: 1, cluster_id, next_producer_id: 1, topics: Vec::new() });
        }
        Err(e) => return Err(Error::io(path)(e)),
    };
    let state: StateFile =
        serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path, format!("not readable: {e}")))?;
    if state.format != 1 {
        return Err(Error::corrupt(path, format!("written by a later version (format {})", state.format)));
    }
    Ok(state)
}

fn topic_dir(data_dir: &Path, id: Uuid) -> PathBuf {
    data_dir.join(TOPICS_DIR).join(id.to_string())
}

fn open_topic(config: &DevBrokerConfig, entry: &TopicEntry) -> Result<Arc<Topic>> {
    let partitions = open_partitions(config, entry.id, entry.options, 0..entry.partitions)?;
    Ok(Arc::new(Topic { name: entry.name.clone(), id: entry.id, options: entry.options, partitions }))
}

fn open_partitions(
    config: &DevBrokerConfig,
    id: Uuid,
    options: TopicOptions,
    indexes: std::ops::Range<u32>,
) -> Result<Vec<Arc<PartitionLog>>> {
    let limits = LogLimits {
        segment_bytes: options.segment_bytes.unwrap_or(config.segment_bytes),
        retention_bytes: options.retention_bytes.unwrap_or(config.max_bytes_per_partition),
    };
    let dir = topic_dir(&config.data_dir, id);
    indexes.map(|i| PartitionLog::open(dir.join(i.to_string()), limits).map(Arc::new)).collect()
}

/// Removes what a kill left behind between the state file and the directories.
fn remove_orphans(dir: &Path, topics: &Topics) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| Uuid::parse_str(n).ok());
        if id.is_some_and(|id| !topics.by_id.contains_key(&id)) {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

impl std::fmt::Display for TopicError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidName => f.write_str("topic name is not legal"),
            Self::InvalidPartitions => f.write_str("number of partitions is not possible"),
            Self::Exists => f.write_str("topic exists already"),
            Self::Unknown => f.write_str("topic does not exist"),
            Self::TooMany => f.write_str("the development broker has as many topics or partitions as it may"),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TopicError {}
