//! One server at a time on a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

const FILE: &str = "tidewater.lock";

/// The lock of a data directory, held until it is dropped or the process ends, however it ends: the lock is the
/// kernel's, and the file that carries it stays behind and means nothing by itself.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the directory where it is not there. Fails at once where another server holds it.
    pub fn take(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another server{} uses the data directory {}: stop it first, or choose another directory with --data-dir",
                owner(&path),
                dir.display()
            ),
            Err(TryLockError::Error(e)) => {
                return Err(e)
                    .with_context(|| format!("cannot lock {}: choose a directory on a disk that can", path.display()));
            }
        }
        // For people who look. The lock holds without it, on a full disk too.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn owner(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(pid) => format!(" (process {pid})"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = DataLock::take(&data).unwrap();
        let e = format!("{:#}", DataLock::take(&data).unwrap_err());
        assert!(e.contains(data.to_str().unwrap()) && e.contains("--data-dir"), "{e}");
        assert!(e.contains(&format!("process {}", std::process::id())), "{e}");
        DataLock::take(&dir.path().join("other")).unwrap();
        drop(first);
        DataLock::take(&data).unwrap();
    }
}
