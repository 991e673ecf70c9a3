use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use iceberg::TableUpdate;
use iceberg::spec::{Snapshot, TableMetadata};
use moka::future::Cache;
use tidewater_catalogs::{Error, ErrorKind, NewTable, Result, TableName};
use uuid::Uuid;

use crate::commit::{
    Base, MetadataJson, Staged, current_manifests, load_manifest, manifest_paths, metadata_file, print, unpacked,
};
use crate::error;
use crate::in_flight::InFlight;
use crate::new_table::{check_name, new_metadata, ours};
use crate::pointers::{Pointed, PointerMove, Pointers, Swapped};
use crate::rest::{Posted, RestCatalog};
use crate::scan::MetadataCache;
use crate::schema::to_arrow;
use crate::state::TableState;
use crate::storage::{Storage, check_location};

/// Parsed metadata files that are kept, in bytes of their JSON.
const PARSED_METADATA_BYTES: u64 = 64 << 20;
/// Manifest lists of which is kept what they name.
const NAMED_BYTES: u64 = 32 << 20;

/// Who knows where the metadata of a table is.
#[derive(Debug)]
pub(crate) enum Backend {
    /// Someone who keeps their locations; metadata files are ours to write.
    Pointers(Box<dyn Pointers>),
    /// A server that takes changes and writes metadata files by itself.
    Rest(Arc<RestCatalog>),
}

/// What all handles of one lake share.
#[derive(Debug)]
pub(crate) struct Lake {
    pub(crate) backend: Backend,
    storage: Storage,
    cache: Arc<MetadataCache>,
    /// By location: a metadata file never changes. Which one is current is asked each time.
    parsed: Cache<String, Parsed>,
    /// Prints of the manifests that a manifest list names, by its location.
    named: Cache<String, Arc<[u64]>>,
    /// Properties of new tables.
    defaults: BTreeMap<String, String>,
    pub(crate) in_flight: Arc<InFlight>,
    /// How many answers to swaps are lost from now on.
    #[cfg(test)]
    pub(crate) lost_answers: std::sync::atomic::AtomicUsize,
    /// How many loads fail after an answer was lost, and how many of them are left.
    #[cfg(test)]
    pub(crate) blind_after_loss: std::sync::atomic::AtomicUsize,
    #[cfg(test)]
    blind: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Clone)]
struct Parsed {
    metadata: Arc<TableMetadata>,
    /// As the next commit needs it, where one has been.
    json: Option<Arc<MetadataJson>>,
    bytes: usize,
}

/// What came of one attempt to replace a table's state.
pub(crate) enum Swap<T = Base> {
    Done(T),
    /// The catalog said that the table is not what it was.
    Moved,
    /// Nothing happened, for another reason: files could not be written, or the catalog said no for good.
    Refused(Error),
    /// The catalog was asked and did not answer.
    Unknown(Error),
}

/// A table that nobody sees yet.
pub(crate) struct Unseen {
    pub(crate) state: Arc<TableState>,
    /// For a catalog that makes the table from changes: all since the table was empty.
    updates: Vec<TableUpdate>,
    /// What was written, for a catalog whose tables may share a folder.
    files: Vec<String>,
}

impl Lake {
    pub(crate) fn new(
        backend: Backend,
        storage: Storage,
        cache: Arc<MetadataCache>,
        defaults: BTreeMap<String, String>,
    ) -> Self {
        let parsed = Cache::builder()
            .max_capacity(PARSED_METADATA_BYTES)
            .weigher(|_, parsed: &Parsed| {
                u32::try_from(if parsed.json.is_some() { 2 * parsed.bytes } else { parsed.bytes }).unwrap_or(u32::MAX)
            })
            .build();
        let named = Cache::builder()
            .max_capacity(NAMED_BYTES)
            .weigher(|location: &String, prints: &Arc<[u64]>| {
                u32::try_from(2 * location.len() + 8 * prints.len()).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            backend,
            storage,
            cache,
            parsed,
            named,
            defaults,
            in_flight: Arc::default(),
            #[cfg(test)]
            lost_answers: 0.into(),
            #[cfg(test)]
            blind_after_loss: 0.into(),
            #[cfg(test)]
            blind: 0.into(),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What a database that is gone looks like.
    #[cfg(test)]
    pub(crate) async fn close_database(&self) {
        if let Backend::Pointers(pointers) = &self.backend {
            pointers.close().await;
        }
    }

    #[cfg(test)]
    fn lose_answer(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        let lost = self.lost_answers.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        if lost {
            self.blind.store(self.blind_after_loss.load(SeqCst), SeqCst);
        }
        lost
    }

    #[cfg(test)]
    fn is_blind(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        self.blind.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis()
    }

    /// The current state. The catalog is asked each time.
    pub(crate) async fn load(&self, name: &TableName) -> Result<Arc<TableState>> {
        #[cfg(test)]
        if self.is_blind() {
            return Err(Error::unavailable("the catalog cannot be read"));
        }
        match &self.backend {
            Backend::Pointers(pointers) => self.load_by_pointer(pointers.as_ref(), name).await,
            Backend::Rest(rest) => {
                let loaded = rest.load(name).await?;
                let storage = rest.storage(&self.storage, name, &loaded)?;
                self.state(name, Arc::new(loaded.metadata), &loaded.metadata_location, storage)
            }
        }
    }

    /// Whether a change of `base` that is on its way can no longer come to be, now that the table is in state `now`.
    /// A server behind REST takes it as long as the branch that moves is the same.
    pub(crate) fn has_passed(&self, base: &TableState, now: &TableState, branch: &str) -> bool {
        let tip = |state: &TableState| state.metadata.snapshot_for_ref(branch).map(|s| s.snapshot_id());
        match &self.backend {
            Backend::Pointers(_) => base.metadata_location != now.metadata_location,
            Backend::Rest(_) => tip(base) != tip(now),
        }
    }

    /// What a commit onto this state starts from.
    pub(crate) async fn base(&self, state: Arc<TableState>) -> Result<Base> {
        let json = match &self.backend {
            Backend::Pointers(_) => Some(self.json(&state).await?),
            Backend::Rest(_) => None,
        };
        Ok(Base { state, manifests: None, json })
    }

    async fn json(&self, state: &TableState) -> Result<Arc<MetadataJson>> {
        let parsed = self.parsed.get(&state.metadata_location).await;
        if let Some(json) = parsed.as_ref().and_then(|parsed| parsed.json.clone()) {
            return Ok(json);
        }
        let metadata = Arc::clone(&state.metadata);
        // Off the async threads, as for parsing.
        let json = error::joined(tokio::task::spawn_blocking(move || MetadataJson::of(&metadata)).await)?;
        let json = Arc::new(json);
        if let Some(parsed) = parsed {
            let with = Parsed { json: Some(Arc::clone(&json)), ..parsed };
            self.parsed.insert(state.metadata_location.clone(), with).await;
        }
        Ok(json)
    }

    async fn load_by_pointer(&self, pointers: &dyn Pointers, name: &TableName) -> Result<Arc<TableState>> {
        let namespace = name.namespace().join(".");
        let mut last = None;
        // The metadata file may be removed between the two reads where the table moves on very fast.
        for _ in 0..3 {
            let location = pointers
                .get(&namespace, &name.name)
                .await?
                .ok_or_else(|| Error::not_found(format!("table \"{name}\" does not exist")))?;
            match self.state_at(name, &location).await {
                Err(e) if e.kind() == ErrorKind::NotFound => last = Some(e),
                other => return other,
            }
        }
        // The table is there and its file is not; `NotFound` would say that the table was dropped.
        Err(Error::new(ErrorKind::DataCorrupt, format!("the metadata file of table \"{name}\" is missing"))
            .with_source(last.unwrap_or_else(|| Error::internal("not read"))))
    }

    async fn state_at(&self, name: &TableName, location: &str) -> Result<Arc<TableState>> {
        let parsed = match self.parsed.get(location).await {
            Some(parsed) => parsed,
            None => {
                let parsed = self.parse(location).await.map_err(|e| e.with_context("table", name))?;
                self.parsed.insert(location.to_string(), parsed.clone()).await;
                parsed
            }
        };
        self.state(name, parsed.metadata, location, self.storage.clone())
    }

    pub(crate) fn state(
        &self,
        name: &TableName,
        metadata: Arc<TableMetadata>,
        location: &str,
        storage: Storage,
    ) -> Result<Arc<TableState>> {
        let arrow_schema = Arc::new(to_arrow(metadata.current_schema())?);
        Ok(Arc::new(TableState {
            name: name.clone(),
            metadata,
            metadata_location: location.to_string(),
            storage,
            cache: Arc::clone(&self.cache),
            arrow_schema,
        }))
    }

    async fn parse(&self, location: &str) -> Result<Parsed> {
        let file = self.storage.read(location).await?;
        let at = location.to_owned();
        // Off the async threads: a table with many snapshots has megabytes of it.
        let parsed = tokio::task::spawn_blocking(move || parse(file).map_err(|e| e.with_context("file", at)));
        error::joined(parsed.await)
    }

    /// Prints of the manifests of a snapshot. Expiry asks for those of every snapshot that stays, each time.
    pub(crate) async fn named(&self, state: &TableState, snapshot: &Snapshot) -> Result<Arc<[u64]>> {
        let list = snapshot.manifest_list();
        if let Some(known) = self.named.get(list).await {
            return Ok(known);
        }
        let prints: Arc<[u64]> = manifest_paths(state, snapshot).await?.iter().map(|path| print(path)).collect();
        self.named.insert(list.to_owned(), Arc::clone(&prints)).await;
        Ok(prints)
    }

    /// Writes what was staged, then asks the catalog, once.
    pub(crate) async fn swap(&self, base: &Base, staged: Staged) -> Swap {
        match &self.backend {
            Backend::Pointers(pointers) => self.swap_pointer(pointers.as_ref(), base, staged).await,
            Backend::Rest(rest) => self.post(rest, base, staged).await,
        }
    }

    /// The same for several tables at once, all or none.
    pub(crate) async fn swap_all(&self, mut parts: Vec<(Base, Staged)>) -> Swap<()> {
        if parts.len() > 1 {
            return match &self.backend {
                Backend::Pointers(pointers) => self.swap_pointers(pointers.as_ref(), parts).await,
                Backend::Rest(rest) => self.post_all(rest, parts).await,
            };
        }
        let Some((base, staged)) = parts.pop() else { return Swap::Done(()) };
        match self.swap(&base, staged).await {
            Swap::Done(_) => Swap::Done(()),
            Swap::Moved => Swap::Moved,
            Swap::Refused(e) => Swap::Refused(e),
            Swap::Unknown(e) => Swap::Unknown(e),
        }
    }

    async fn swap_pointers(&self, pointers: &dyn Pointers, parts: Vec<(Base, Staged)>) -> Swap<()> {
        let (mut moves, mut made, mut expired) = (Vec::new(), Vec::new(), Vec::new());
        for (base, staged) in parts {
            if let Err(e) = self.storage.write_new(staged.files).await {
                return Swap::Refused(e);
            }
            let name = &base.state.name;
            moves.push(PointerMove {
                namespace: name.namespace().join("."),
                table: name.name.clone(),
                from: base.state.metadata_location.clone(),
                to: staged.location.clone(),
            });
            let bytes = staged.json.as_ref().map_or(0, |json| json.bytes());
            let parsed = Parsed { metadata: Arc::new(staged.metadata), json: staged.json, bytes };
            made.push((staged.location, parsed));
            expired.extend(staged.expired);
        }
        match pointers.swap_all(moves).await {
            Swapped::Done => {}
            Swapped::Moved => return Swap::Moved,
            Swapped::Refused(e) => return Swap::Refused(e),
            Swapped::Unknown(e) => return Swap::Unknown(e),
        }
        #[cfg(test)]
        if self.lose_answer() {
            return Swap::Unknown(Error::unavailable("the answer was lost"));
        }
        for (location, parsed) in made {
            self.parsed.insert(location, parsed).await;
        }
        if let Err(e) = self.storage.delete(expired).await {
            tracing::warn!(error = %e, "old metadata files were not removed");
        }
        Swap::Done(())
    }

    async fn post_all(&self, rest: &Arc<RestCatalog>, parts: Vec<(Base, Staged)>) -> Swap<()> {
        let mut changes = Vec::with_capacity(parts.len());
        for (base, staged) in parts {
            let files = staged.files.into_iter().filter(|(at, _)| *at != staged.location).collect();
            if let Err(e) = base.state.storage.write_new(files).await {
                return Swap::Refused(e);
            }
            changes.push((base.state.name.clone(), staged.requirements, staged.updates));
        }
        let posted = rest.commit_all(&changes).await;
        #[cfg(test)]
        if matches!(posted, Posted::Done(())) && self.lose_answer() {
            return Swap::Unknown(Error::unavailable("the answer was lost"));
        }
        match posted {
            Posted::Done(()) => Swap::Done(()),
            Posted::Moved => Swap::Moved,
            Posted::Refused(e) => Swap::Refused(e),
            Posted::Unknown(e) => Swap::Unknown(e),
        }
    }

    async fn swap_pointer(&self, pointers: &dyn Pointers, base: &Base, staged: Staged) -> Swap {
        let name = &base.state.name;
        let namespace = name.namespace().join(".");
        let bytes = staged.json.as_ref().map_or(0, |json| json.bytes());
        if let Err(e) = self.storage.write_new(staged.files).await {
            return Swap::Refused(e);
        }
        let metadata = Arc::new(staged.metadata);
        let next = match self.state(name, Arc::clone(&metadata), &staged.location, base.state.storage.clone()) {
            Ok(next) => next,
            Err(e) => return Swap::Refused(e),
        };
        let pointed = Pointed { location: &staged.location, metadata: &metadata };
        match pointers.swap(&namespace, &name.name, &base.state.metadata_location, pointed).await {
            Swapped::Done => {}
            Swapped::Moved => return Swap::Moved,
            Swapped::Refused(e) => return Swap::Refused(e),
            Swapped::Unknown(e) => return Swap::Unknown(e),
        }
        #[cfg(test)]
        if self.lose_answer() {
            return Swap::Unknown(Error::unavailable("the answer was lost"));
        }
        self.parsed.insert(staged.location, Parsed { metadata, json: staged.json.clone(), bytes }).await;
        // They left the log with this commit, so nothing names them. A file that stays is only a file too many.
        if let Err(e) = self.storage.delete(staged.expired).await {
            tracing::warn!(table = %name, error = %e, "old metadata files were not removed");
        }
        let known = !staged.manifests.is_empty();
        Swap::Done(Base { state: next, manifests: known.then_some(staged.manifests), json: staged.json })
    }

    async fn post(&self, rest: &Arc<RestCatalog>, base: &Base, staged: Staged) -> Swap {
        let state = &base.state;
        let files = staged.files.into_iter().filter(|(at, _)| *at != staged.location).collect();
        if let Err(e) = state.storage.write_new(files).await {
            return Swap::Refused(e);
        }
        let answer = match rest.commit(&state.name, &staged.requirements, &staged.updates).await {
            Posted::Done(answer) => *answer,
            Posted::Moved => return Swap::Moved,
            Posted::Refused(e) => return Swap::Refused(e),
            Posted::Unknown(e) => return Swap::Unknown(e),
        };
        #[cfg(test)]
        if self.lose_answer() {
            return Swap::Unknown(Error::unavailable("the answer was lost"));
        }
        let ours = staged.metadata.current_snapshot_id();
        let known = !staged.manifests.is_empty() && answer.metadata.current_snapshot_id() == ours;
        let storage = state.storage.clone();
        match self.state(&state.name, Arc::new(answer.metadata), &answer.metadata_location, storage) {
            Ok(next) => Swap::Done(Base { state: next, manifests: known.then_some(staged.manifests), json: None }),
            // Done, and its outcome cannot be used: the next load says what there is.
            Err(e) => Swap::Unknown(e),
        }
    }

    /// Makes a table and its first state.
    pub(crate) async fn create(&self, table: NewTable) -> Result<Arc<TableState>> {
        let name = table.name.clone();
        match &self.backend {
            Backend::Pointers(pointers) => {
                let unseen = self.new_unseen(table).await?;
                self.put(pointers.as_ref(), &unseen.state).await.map_err(|(e, _)| e)?;
                Ok(unseen.state)
            }
            Backend::Rest(rest) => {
                check_name("table", &name.name)?;
                let made = rest.create(&self.defaults, table, false).await?;
                let storage = rest.storage(&self.storage, &name, &made)?;
                self.state(&name, Arc::new(made.metadata), &made.metadata_location, storage)
            }
        }
    }

    /// Puts a table that is there under a name.
    pub(crate) async fn register(&self, name: &TableName, metadata_location: &str) -> Result<Arc<TableState>> {
        check_location(metadata_location)?;
        let location = match metadata_location {
            path if path.starts_with('/') => format!("file://{path}"),
            url if url.contains("://") || url.starts_with("file:/") => url.to_owned(),
            other => {
                return Err(Error::invalid(format!("\"{other}\" is no location of a file"))
                    .with_hint("Use a URL, or a path that begins with a slash."));
            }
        };
        let metadata_location = location.as_str();
        match &self.backend {
            Backend::Pointers(pointers) => {
                pointers.check_name("table", &name.name)?;
                let state = self.state_at(name, metadata_location).await?;
                if let Some(other) = who_has(pointers.as_ref(), state.metadata.location()).await? {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("the table is there as \"{other}\""))
                        .with_detail("Its files are in the folder of that table, which would remove them as garbage.")
                        .with_hint("Drop the other name first, or read the old state with FOR VERSION AS OF."));
                }
                self.put(pointers.as_ref(), &state).await.map_err(|(e, _)| e)?;
                Ok(state)
            }
            Backend::Rest(rest) => {
                check_name("table", &name.name)?;
                let found = rest.register(name, metadata_location).await?;
                let storage = rest.storage(&self.storage, name, &found)?;
                self.state(name, Arc::new(found.metadata), &found.metadata_location, storage)
            }
        }
    }

    /// The first state of a new table, not yet under its name.
    pub(crate) async fn new_unseen(&self, table: NewTable) -> Result<Unseen> {
        let name = table.name.clone();
        match &self.backend {
            Backend::Pointers(pointers) => {
                pointers.check_name("table", &name.name)?;
                if pointers.get(&name.namespace().join("."), &name.name).await?.is_some() {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{name}\" already exists")));
                }
                let folder = match &table.location {
                    None => pointers.folder(&name.namespace().join(".")).await?,
                    Some(_) => None,
                };
                let folder = folder.as_deref().map(|f| f.trim_end_matches('/'));
                let metadata = new_metadata(&self.storage, folder, &self.defaults, table)?;
                let (location, file) = metadata_file(None, &metadata, &MetadataJson::of(&metadata)?)?;
                self.storage.write_new(vec![(location.clone(), file)]).await?;
                let state = self.state(&name, Arc::new(metadata), &location, self.storage.clone())?;
                Ok(Unseen { state, updates: Vec::new(), files: Vec::new() })
            }
            Backend::Rest(rest) => {
                check_name("table", &name.name)?;
                let made = rest.create(&self.defaults, table, true).await?;
                let storage = rest.storage(&self.storage, &name, &made)?;
                let updates = from_nothing(&made.metadata);
                // Committing needs no location of metadata; the log of a table that is not there begins empty.
                let location = format!("{}/metadata/00000.metadata.json", made.metadata.location());
                let state = self.state(&name, Arc::new(made.metadata), &location, storage)?;
                Ok(Unseen { state, updates, files: Vec::new() })
            }
        }
    }

    /// Writes the next state of a table that has no name yet.
    pub(crate) async fn write_unseen(&self, unseen: &mut Unseen, data: &[String], staged: Staged) -> Result<()> {
        let state = &unseen.state;
        let files = match &self.backend {
            Backend::Pointers(_) => staged.files,
            Backend::Rest(_) => {
                unseen.updates.extend(staged.updates);
                staged.files.into_iter().filter(|(at, _)| *at != staged.location).collect()
            }
        };
        unseen.files.extend(data.iter().cloned());
        unseen.files.extend(files.iter().map(|(at, _)| at.clone()));
        state.storage.write_new(files).await?;
        unseen.state = self.state(&state.name, Arc::new(staged.metadata), &staged.location, state.storage.clone())?;
        Ok(())
    }

    /// Puts a new table under its name. The error comes with `true` where that is certain to have failed, so that the
    /// files may go.
    pub(crate) async fn publish(&self, unseen: &Unseen) -> Result<(), (Error, bool)> {
        let name = &unseen.state.name;
        match &self.backend {
            Backend::Pointers(pointers) => self.put(pointers.as_ref(), &unseen.state).await,
            Backend::Rest(rest) => {
                let absent = [iceberg::TableRequirement::NotExist];
                let e = match rest.commit(name, &absent, &unseen.updates).await {
                    Posted::Done(_) => return Ok(()),
                    Posted::Moved => {
                        let taken = Error::new(ErrorKind::AlreadyExists, format!("table \"{name}\" already exists"));
                        return Err((taken, true));
                    }
                    Posted::Refused(e) => return Err((e, true)),
                    Posted::Unknown(e) => e,
                };
                // A request whose answer was lost may still be under way: what it names must stay.
                match rest.load(name).await {
                    Ok(found) if found.metadata.uuid() == unseen.state.metadata.uuid() => Ok(()),
                    _ => Err((e, false)),
                }
            }
        }
    }

    /// Puts a state whose files are written under its name. As for [`Self::publish`].
    async fn put(&self, pointers: &dyn Pointers, state: &TableState) -> Result<(), (Error, bool)> {
        let (namespace, name) = (state.name.namespace().join("."), &state.name.name);
        let first = Pointed { location: &state.metadata_location, metadata: &state.metadata };
        let Err(e) = pointers.create(&namespace, name, first).await else { return Ok(()) };
        if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) {
            return Err((e, true));
        }
        // The answer may be lost, and the table there.
        match pointers.get(&namespace, name).await {
            Ok(Some(found)) if found == state.metadata_location => Ok(()),
            Ok(_) => {
                let failed = e.kind() != ErrorKind::CommitUnknown;
                Err((e, failed))
            }
            Err(_) => Err((e, false)),
        }
    }

    /// Removes what was written for a table that has no name.
    pub(crate) async fn remove_unseen(&self, unseen: &Unseen) -> Result<()> {
        match &self.backend {
            Backend::Pointers(_) => self.storage.delete_tree(unseen.state.metadata.location()).await,
            Backend::Rest(_) => unseen.state.storage.delete(unseen.files.clone()).await,
        }
    }

    /// Forgets the table, if it is the expected one; with `purge`, its files are removed as well.
    pub(crate) async fn drop_table(&self, name: &TableName, expected: Option<Uuid>, purge: bool) -> Result<()> {
        let pointers = match &self.backend {
            Backend::Pointers(pointers) => pointers,
            Backend::Rest(rest) => return rest.drop_table(name, expected, purge).await,
        };
        let namespace = name.namespace().join(".");
        loop {
            let Some(location) = pointers.get(&namespace, &name.name).await? else {
                return Err(Error::not_found(format!("table \"{name}\" does not exist")));
            };
            // What is removed is what the dropped state names, so it is read first. A table whose metadata is lost
            // can still be dropped.
            let state = self.state_at(name, &location).await;
            if let Some(expected) = expected {
                match &state {
                    Ok(state) if state.metadata.uuid() == expected => {}
                    Ok(_) => return Err(another(name)),
                    // Files are removed after the pointer: the table may have been dropped between the two reads.
                    Err(e)
                        if e.kind() == ErrorKind::NotFound
                            && pointers.get(&namespace, &name.name).await?.as_ref() != Some(&location) =>
                    {
                        continue;
                    }
                    // Whose table it is cannot be told, so it stays.
                    Err(_) => return state.map(|_| ()),
                }
            }
            // The catalog compares the location again, which no other table ever has.
            if !pointers.remove(&namespace, &name.name, &location).await? {
                continue;
            }
            if purge {
                match state {
                    Ok(state) => self.purge(&state).await?,
                    Err(e) => tracing::warn!(table = %name, error = %e, "files of the dropped table were not removed"),
                }
            }
            return Ok(());
        }
    }

    /// Whether the table's folder was chosen here, so that nothing else is in it.
    pub(crate) fn owns_folder(&self, state: &TableState) -> bool {
        let (location, own) = (state.metadata.location(), format!("{}/", self.storage.warehouse()));
        location.starts_with(&own) && location.ends_with(&ours(state.metadata.uuid()))
    }

    async fn purge(&self, state: &TableState) -> Result<()> {
        if self.owns_folder(state) {
            return self.storage.delete_tree(state.metadata.location()).await;
        }
        // The folder may hold other things: what the table names is removed, and nothing else.
        let mut files: BTreeSet<String> = BTreeSet::new();
        let mut manifests = HashSet::new();
        for snapshot in state.metadata.snapshots() {
            let at = state.at_snapshot(snapshot.snapshot_id())?;
            for manifest in current_manifests(&at).await? {
                if manifests.insert(manifest.manifest_path.clone()) {
                    let entries = load_manifest(state, &manifest).await?;
                    files.extend(entries.entries().iter().map(|e| e.file_path().to_string()));
                }
            }
            files.insert(snapshot.manifest_list().to_string());
        }
        files.extend(manifests);
        files.extend(state.metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
        files.insert(state.metadata_location.clone());
        self.storage.delete(files.into_iter().collect()).await
    }
}

pub(crate) fn another(name: &TableName) -> Error {
    Error::not_found(format!("table \"{name}\" was dropped")).with_detail("Another table has its name now.")
}

/// The table whose metadata is in this folder.
async fn who_has(pointers: &dyn Pointers, folder: &str) -> Result<Option<String>> {
    let below = format!("{}/", folder.trim_end_matches('/'));
    for namespace in pointers.namespaces().await? {
        for table in pointers.tables(&namespace).await? {
            let location = pointers.get(&namespace, &table).await?;
            if location.is_some_and(|location| location.starts_with(&below)) {
                return Ok(Some(format!("{namespace}.{table}")));
            }
        }
    }
    Ok(None)
}

fn parse(file: bytes::Bytes) -> Result<Parsed> {
    let json = unpacked(file)?;
    let metadata = serde_json::from_slice::<TableMetadata>(&json).map_err(|e| {
        crate::defaults::unknown_type(&json)
            .unwrap_or_else(|| Error::new(ErrorKind::DataCorrupt, "cannot read table metadata").with_source(e))
    })?;
    crate::defaults::check(&json, &metadata)?;
    Ok(Parsed { metadata: Arc::new(metadata), json: None, bytes: json.len() })
}

/// The changes that make this table out of none.
fn from_nothing(metadata: &TableMetadata) -> Vec<TableUpdate> {
    let properties: HashMap<String, String> = metadata.properties().clone();
    vec![
        TableUpdate::AssignUuid { uuid: metadata.uuid() },
        TableUpdate::UpgradeFormatVersion { format_version: metadata.format_version() },
        TableUpdate::AddSchema { schema: metadata.current_schema().as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec: metadata.default_partition_spec().as_ref().clone().into_unbound() },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
        TableUpdate::AddSortOrder { sort_order: metadata.default_sort_order().as_ref().clone() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
        TableUpdate::SetLocation { location: metadata.location().to_string() },
        TableUpdate::SetProperties { updates: properties },
    ]
}
