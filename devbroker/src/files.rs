use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// The file holds the old bytes or the new ones, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(Error::io(path))
}
