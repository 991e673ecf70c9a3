//! Files on this machine's disk.
//!
//! Neither `FileIO` nor `object_store` makes a local file survive a power cut: the first forgets the directory, the
//! second forgets both. A catalog pointer that outlives the file it names is a lost table, so files are written here,
//! and are on disk, name included, when a call returns.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidewater_catalogs::{Error, Result};

use super::FoundFile;
use crate::error;

/// Makes the directory where it is missing; its location, without a slash at the end.
pub(super) fn open(directory: &str) -> Result<String> {
    let path = local_path(directory)?;
    make_directory(&path)?;
    let absolute = path.canonicalize().map_err(|e| error::io("open the warehouse", &path, e))?;
    let Some(text) = absolute.to_str() else {
        return Err(Error::invalid("the path of the warehouse is not UTF-8").with_context("path", path.display()));
    };
    Ok(format!("file://{}", text.trim_end_matches('/')))
}

pub(super) async fn read(location: &str) -> Result<Bytes> {
    let path = local_path(location)?;
    blocking(move || fs::read(&path).map(Bytes::from).map_err(|e| error::io("read file", &path, e))).await
}

/// Writes new files, all of them durable when this returns.
pub(super) async fn write_new(files: Vec<(String, Bytes)>) -> Result<()> {
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
pub(super) async fn put_new(location: &str, bytes: Bytes) -> Result<()> {
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
pub(super) fn create(location: &str) -> Result<LocalFile> {
    let path = local_path(location)?;
    let file = create_file(&path)?;
    Ok(LocalFile { file, path })
}

/// Removes files; those that are gone already are no error.
pub(super) async fn delete(locations: Vec<String>) -> Result<()> {
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
pub(super) async fn delete_tree(location: &str) -> Result<()> {
    let path = local_path(location)?;
    blocking(move || match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(error::io("remove directory", &path, e)),
        _ => Ok(()),
    })
    .await
}

/// Locations of all files below `location`, sorted; temporary ones left out.
pub(super) async fn list(location: &str) -> Result<Vec<FoundFile>> {
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
                    let about = match entry.metadata() {
                        Ok(about) => about,
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(e) => return Err(error::io("look at a file", &path, e)),
                    };
                    let modified = about.modified().map_err(|e| error::io("look at a file", &path, e))?;
                    let modified_ms = chrono::DateTime::<chrono::Utc>::from(modified).timestamp_millis();
                    found.push(FoundFile { location: format!("file://{text}"), bytes: about.len(), modified_ms });
                }
            }
        }
        Ok(found)
    })
    .await
}

/// A file that is being written. Garbage until `finish` returns.
pub(crate) struct LocalFile {
    file: File,
    path: PathBuf,
}

impl LocalFile {
    /// The same file, to be made durable later by [`sync_files`].
    pub(super) fn written(&self) -> Result<LocalFile> {
        let file = self.file.try_clone().map_err(|e| error::io("write file", &self.path, e))?;
        Ok(LocalFile { file, path: self.path.clone() })
    }
}

/// Makes files durable, names included. Blocks. Several at a time, as a disk takes them together for the price of
/// one.
pub(super) fn sync_files(files: &[LocalFile]) -> Result<()> {
    const THREADS: usize = 8;
    let share = files.len().div_ceil(THREADS).max(1);
    let sync = |file: &LocalFile| file.file.sync_all().map_err(|e| error::io("write file", &file.path, e));
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

impl Write for LocalFile {
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
            return Err(Error::internal(format!("a location of kind \"{scheme}\" is none of the local disk"))
                .with_context("location", location));
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
