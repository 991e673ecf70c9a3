//! Whole objects: put once, read, listed, removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use tidewater_catalogs::{Error, ErrorKind, Result};

use crate::error;

/// How long a put whose answer was lost is tried again, beyond what object_store does by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// Objects under way at a time.
const CONCURRENT: usize = 8;

pub(super) async fn read(store: &dyn ObjectStore, path: &Path, location: &str) -> Result<Bytes> {
    let failed = |e| error::store("read file", location, e);
    store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)
}

/// Puts an object that nobody has put yet (`If-None-Match: *`, or the store's own word for it).
pub(super) async fn put_new(store: &dyn ObjectStore, path: &Path, location: &str, bytes: Bytes) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(50);
    loop {
        let put = store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
        let e = match put {
            Ok(_) => return Ok(()),
            Err(e) => error::store("write file", location, e),
        };
        let e = match e.kind() {
            // object_store itself asks again after an answer of 500 or 503, and the first request may have been
            // served: so what is there is looked at.
            ErrorKind::AlreadyExists => match read(store, path, location).await {
                Ok(found) if found == bytes => return Ok(()),
                Ok(_) => return Err(e),
                // Someone else's request that has not ended yet.
                Err(e) => e,
            },
            _ => e,
        };
        let again = matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::NotFound);
        if !again || Instant::now() + wait >= deadline {
            return Err(e);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

pub(super) async fn put_all(objects: Vec<(Arc<dyn ObjectStore>, Path, String, Bytes)>) -> Result<()> {
    let put = |(store, path, location, bytes): (Arc<dyn ObjectStore>, Path, String, Bytes)| {
        async move { put_new(store.as_ref(), &path, &location, bytes).await }.boxed()
    };
    let puts: Vec<BoxFuture<'static, Result<()>>> = objects.into_iter().map(put).collect();
    futures::stream::iter(puts).buffer_unordered(CONCURRENT).try_collect().await
}

pub(super) async fn list(store: &dyn ObjectStore, path: &Path, location: &str) -> Result<Vec<ObjectMeta>> {
    let found = store.list(Some(path)).try_collect().await;
    found.map_err(|e| error::store("list files", location, e))
}

pub(super) async fn delete(store: &dyn ObjectStore, paths: Vec<Path>) -> Result<()> {
    let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    removed(store.delete_stream(paths), "the files").await
}

pub(super) async fn delete_tree(store: &dyn ObjectStore, path: &Path, location: &str) -> Result<()> {
    if path.as_ref().is_empty() {
        return Err(Error::internal("a whole bucket is not removed").with_context("location", location));
    }
    let all = store.list(Some(path)).map_ok(|meta| meta.location).boxed();
    removed(store.delete_stream(all), location).await
}

async fn removed(
    mut answers: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    location: &str,
) -> Result<()> {
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(error::store("remove files", location, e)),
        }
    }
    Ok(())
}
