use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use object_store::ObjectStore;
use tidewater_catalogs::{Error, Result};

use crate::error;

/// Where the warehouse lies, and the only place that writes to it.
///
/// Neither `FileIO` nor `object_store` makes a local file survive a power cut: the first forgets the directory, the
/// second forgets both. A catalog pointer that outlives the file it names is a lost table, so files are written here,
/// and are on disk, name included, when a call returns.
#[derive(Debug, Clone)]
pub struct Storage {
    file_io: FileIO,
    object_store: Arc<dyn ObjectStore>,
    warehouse: String,
}

impl Storage {
    /// `warehouse` is a directory or a `file://` URL; the directory is made where it is missing.
    pub fn open(warehouse: &str, object_store: Arc<dyn ObjectStore>) -> Result<Self> {
        let path = local_path(warehouse)?;
        make_directory(&path)?;
        let absolute = path.canonicalize().map_err(|e| error::io("open the warehouse", &path, e))?;
        let Some(text) = absolute.to_str() else {
            return Err(Error::invalid("the path of the warehouse is not UTF-8").with_context("path", path.display()));
        };
        let warehouse = format!("file://{}", text.trim_end_matches('/'));
        Ok(Self { file_io: FileIO::new_with_fs(), object_store, warehouse })
    }

    pub fn file_io(&self) -> &FileIO {
        &self.file_io
    }

    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.object_store
    }

    /// `file:///…`, without a slash at the end.
    pub fn warehouse(&self) -> &str {
        &self.warehouse
    }

    pub async fn read(&self, location: &str) -> Result<Bytes> {
        let path = local_path(location)?;
        blocking(move || fs::read(&path).map(Bytes::from).map_err(|e| error::io("read file", &path, e))).await
    }

    /// Writes new files, all of them durable when this returns.
    pub async fn write_new(&self, files: Vec<(String, Bytes)>) -> Result<()> {
        blocking(move || {
            let mut directories = BTreeSet::new();
            for (location, bytes) in &files {
                let path = local_path(location)?;
                let mut file = create_file(&path)?;
                file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| error::io("write file", &path, e))?;
                directories.extend(path.parent().map(Path::to_path_buf));
            }
            directories.iter().try_for_each(|d| sync_directory(d))
        })
        .await
    }

    /// Like `write_new` for one file, and `AlreadyExists` where the name is taken. Nobody ever sees half a file.
    pub async fn put_new(&self, location: &str, bytes: Bytes) -> Result<()> {
        let path = local_path(location)?;
        blocking(move || {
            let Some(directory) = path.parent() else {
                return Err(Error::invalid("the path has no directory").with_context("path", path.display()));
            };
            make_directory(directory)?;
            let temporary = directory.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
            let written = create_file(&temporary).and_then(|mut file| {
                file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|e| error::io("write file", &path, e))
            });
            // A hard link fails where the name is taken, which a rename does not.
            let linked =
                written.and_then(|()| fs::hard_link(&temporary, &path).map_err(|e| error::io("write file", &path, e)));
            let _ = fs::remove_file(&temporary);
            linked?;
            sync_directory(directory)
        })
        .await
    }

    /// A new file to write piece by piece. Blocks: call it where blocking is allowed.
    pub fn create(&self, location: &str) -> Result<FileSink> {
        let path = local_path(location)?;
        let file = create_file(&path)?;
        Ok(FileSink { file, path })
    }

    /// Removes files; those that are gone already are no error.
    pub async fn delete(&self, locations: Vec<String>) -> Result<()> {
        blocking(move || {
            for location in &locations {
                let path = local_path(location)?;
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error::io("remove file", &path, e));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes a directory with all that is in it.
    pub async fn delete_tree(&self, location: &str) -> Result<()> {
        let path = local_path(location)?;
        blocking(move || match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(error::io("remove directory", &path, e)),
            _ => Ok(()),
        })
        .await
    }

    /// Locations of all files below `location`, sorted; temporary ones left out.
    pub async fn list(&self, location: &str) -> Result<Vec<String>> {
        let path = local_path(location)?;
        blocking(move || {
            let mut found = Vec::new();
            let mut waiting = vec![path];
            while let Some(directory) = waiting.pop() {
                let entries = match fs::read_dir(&directory) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(error::io("list directory", &directory, e)),
                };
                for entry in entries {
                    let entry = entry.map_err(|e| error::io("list directory", &directory, e))?;
                    let path = entry.path();
                    if entry.file_type().is_ok_and(|t| t.is_dir()) {
                        waiting.push(path);
                    } else if let Some(text) = path.to_str()
                        && !entry.file_name().to_string_lossy().starts_with('.')
                    {
                        found.push(format!("file://{text}"));
                    }
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }
}

/// A file that is being written. Garbage until `finish` returns.
pub struct FileSink {
    file: File,
    path: PathBuf,
}

impl FileSink {
    /// The same file, to be made durable later by [`sync_files`].
    pub fn written(&self) -> Result<FileSink> {
        let file = self.file.try_clone().map_err(|e| error::io("write file", &self.path, e))?;
        Ok(FileSink { file, path: self.path.clone() })
    }
}

/// Makes files durable, names included. Blocks. Several at a time, as a disk takes them together for the price of
/// one.
pub(crate) fn sync_files(files: &[FileSink]) -> Result<()> {
    const THREADS: usize = 8;
    let share = files.len().div_ceil(THREADS).max(1);
    let sync = |file: &FileSink| file.file.sync_all().map_err(|e| error::io("write file", &file.path, e));
    if let [one] = files {
        sync(one)?;
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                files.chunks(share).map(|some| scope.spawn(move || some.iter().try_for_each(sync))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::internal("a file task did not finish")))
            })
        })?;
    }
    let directories: BTreeSet<&Path> = files.iter().filter_map(|f| f.path.parent()).collect();
    directories.into_iter().try_for_each(sync_directory)
}

impl Write for FileSink {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.file.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The path of a `file:` location or of a plain path. Nothing is decoded: locations are not percent-encoded, as in
/// the other implementations.
pub(crate) fn local_path(location: &str) -> Result<PathBuf> {
    let path = match location.split_once(':') {
        Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, rest)) if rest.starts_with("//") => {
            return Err(Error::unsupported(format!("object stores of kind \"{scheme}\" cannot be used yet"))
                .with_context("location", location)
                .with_hint("Use a directory, or a URL that begins with file://."));
        }
        _ => location,
    };
    if path.is_empty() {
        return Err(Error::invalid("the location of a file is empty"));
    }
    Ok(PathBuf::from(path))
}

fn create_file(path: &Path) -> Result<File> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| error::io("create file", path, e))
}

/// Each new directory is an entry of its parent, which has to be on disk too.
fn make_directory(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent();
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(error::io("create directory", path, e)),
        _ => parent.map_or(Ok(()), sync_directory),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    #[cfg(unix)]
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| error::io("write directory", path, e))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    error::joined(tokio::task::spawn_blocking(f).await)
}
