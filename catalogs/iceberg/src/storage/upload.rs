//! A data file on its way into an object store: parts are sent while the next one is encoded.

use std::io;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tidewater_catalogs::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error;

/// Size of a part. Stores take 10,000 parts a file and at least 5 MiB each.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Parts under way at a time, over all files of a warehouse; a writer waits for its turn.
const PARTS_UNDER_WAY: usize = 16;
/// Files that are completed at a time.
const COMPLETED_TOGETHER: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Permits(Arc<Semaphore>);

impl Default for Permits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PARTS_UNDER_WAY)))
    }
}

/// Bytes go in from a thread that may block; requests run on the runtime that the thread belongs to. A file that
/// fits into one part is one plain put. Dropped before its end, the upload is aborted and the parts go.
pub(crate) struct Upload {
    open: Option<Open>,
}

struct Open {
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
    permits: Permits,
    runtime: Handle,
    held: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
    under_way: JoinSet<object_store::Result<()>>,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, location: &str, permits: Permits) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|e| Error::internal("an upload needs a runtime").with_source(e))?;
        Ok(Self {
            open: Some(Open {
                store,
                path,
                location: location.to_string(),
                permits,
                runtime,
                held: Vec::new(),
                parts: None,
                under_way: JoinSet::new(),
            }),
        })
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.held.capacity())
    }

    /// Takes all of `buf`. Blocks while as many parts as may be are under way.
    pub(super) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let ended = || io::Error::other("the upload has ended");
        let open = self.open.as_mut().ok_or_else(ended)?;
        let mut rest = buf;
        while !rest.is_empty() {
            let room = PART_BYTES - open.held.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            open.held.extend_from_slice(now);
            rest = later;
            if open.held.len() == PART_BYTES
                && let Err(e) = open.runtime.clone().block_on(open.send())
            {
                self.abort();
                return Err(io::Error::other(e));
            }
        }
        Ok(buf.len())
    }

    fn abort(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let Some(mut parts) = open.parts.take() else { return };
        let (location, mut under_way) = (open.location, open.under_way);
        open.runtime.spawn(async move {
            under_way.shutdown().await;
            if let Err(e) = parts.abort().await {
                tracing::warn!(file = %location, error = %e, "parts of a file that was given up were left behind");
            }
        });
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Open {
    /// Sends what is held as a part.
    async fn send(&mut self) -> object_store::Result<()> {
        while let Some(done) = self.under_way.try_join_next() {
            joined(done)?;
        }
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(self.store.put_multipart(&self.path).await?),
        };
        let permit = Arc::clone(&self.permits.0).acquire_owned().await;
        let part = parts.put_part(std::mem::take(&mut self.held).into());
        self.under_way.spawn_on(
            async move {
                let _permit = permit;
                part.await
            },
            &self.runtime,
        );
        Ok(())
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        if self.parts.is_none() {
            let _permit = self.permits.0.acquire().await;
            let bytes = std::mem::take(&mut self.held);
            return self.store.put(&self.path, bytes.into()).await.map(|_| ());
        }
        if !self.held.is_empty() {
            self.send().await?;
        }
        while let Some(done) = self.under_way.join_next().await {
            joined(done)?;
        }
        if let Some(parts) = &mut self.parts {
            parts.complete().await?;
            self.parts = None;
        }
        Ok(())
    }
}

fn joined(done: Result<object_store::Result<()>, tokio::task::JoinError>) -> object_store::Result<()> {
    done.unwrap_or_else(|e| Err(object_store::Error::JoinError { source: e }))
}

/// Sends the rest of each file and completes it. Blocks.
pub(super) fn finish_all(uploads: &[Arc<Mutex<Upload>>]) -> Result<()> {
    for some in uploads.chunks(COMPLETED_TOGETHER) {
        let open: Vec<Open> = some.iter().filter_map(|upload| upload.lock().open.take()).collect();
        let Some(runtime) = open.first().map(|o| o.runtime.clone()) else { continue };
        if open.len() < some.len() {
            return Err(Error::internal("an upload that has ended is ended again"));
        }
        runtime.block_on(futures::future::try_join_all(open.into_iter().map(|mut open| async move {
            let done = open.complete().await.map_err(|e| error::store("write file", &open.location, e));
            if done.is_err() {
                // Takes what there is back.
                drop(Upload { open: Some(open) });
            }
            done
        })))?;
    }
    Ok(())
}
