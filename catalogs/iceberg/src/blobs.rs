use async_trait::async_trait;
use bytes::Bytes;
use tidewater_catalogs::{BlobStore, Error, Result};

use crate::storage::Storage;

/// Folder of the warehouse that holds what is not a table.
const FOLDER: &str = "_streaming";

/// Small objects under `_streaming/` of the warehouse.
#[derive(Debug, Clone)]
pub struct WarehouseBlobs {
    storage: Storage,
}

impl WarehouseBlobs {
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    fn root(&self) -> String {
        format!("{}/{FOLDER}/", self.storage.warehouse())
    }

    fn location(&self, path: &str) -> Result<String> {
        let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.contains(['\\', '\0', ':']);
        if path.split('/').any(bad) {
            return Err(Error::invalid(format!("\"{path}\" is no path of an object")));
        }
        Ok(format!("{}{path}", self.root()))
    }
}

#[async_trait]
impl BlobStore for WarehouseBlobs {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.storage.put_new(&self.location(path)?, bytes).await
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        self.storage.read(&self.location(path)?).await
    }

    /// Paths of all objects whose path begins with `prefix`, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let root = self.root();
        let folder = match prefix.rsplit_once('/') {
            Some((folder, _)) => self.location(folder)?,
            None => root.trim_end_matches('/').to_string(),
        };
        let all = self.storage.list(&folder).await?;
        let paths = all.iter().filter_map(|location| location.strip_prefix(&root));
        Ok(paths.filter(|path| path.starts_with(prefix)).map(str::to_string).collect())
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.storage.delete(vec![self.location(path)?]).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use tidewater_catalogs::ErrorKind;

    #[tokio::test]
    async fn objects_are_put_once_and_listed_by_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_str().unwrap(), &Default::default()).unwrap();
        let blobs = WarehouseBlobs::new(storage);
        blobs.put_new("f1/ckpt/1-a.json", Bytes::from_static(b"one")).await.unwrap();
        blobs.put_new("f1/ckpt/2-b.json", Bytes::from_static(b"two")).await.unwrap();
        blobs.put_new("f2/ckpt/1-c.json", Bytes::from_static(b"three")).await.unwrap();
        let again = blobs.put_new("f1/ckpt/1-a.json", Bytes::from_static(b"other")).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(blobs.get("f1/ckpt/1-a.json").await.unwrap(), Bytes::from_static(b"one"));
        assert_eq!(blobs.list("f1/").await.unwrap(), ["f1/ckpt/1-a.json", "f1/ckpt/2-b.json"]);
        assert_eq!(blobs.list("f1/ckpt/2").await.unwrap(), ["f1/ckpt/2-b.json"]);
        assert_eq!(blobs.list("").await.unwrap().len(), 3);
        assert!(blobs.list("nowhere/").await.unwrap().is_empty());
        blobs.delete("f1/ckpt/1-a.json").await.unwrap();
        blobs.delete("f1/ckpt/1-a.json").await.unwrap();
        assert_eq!(blobs.get("f1/ckpt/1-a.json").await.unwrap_err().kind(), ErrorKind::NotFound);
        for path in ["../x", "/x", "a//b", ".hidden", ""] {
            assert_eq!(blobs.get(path).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        }
    }
}
