//! Files that one process at a time works on.

use discon::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Takes a file for this process; where the file system knows no locks, trusts the user.
pub(super) fn hold(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let found = "another `discon sample` that works on it";
            Err(Error::input(path.display().to_string(), "a file that nobody is writing", found))
        }
        Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Opens a file to be written and, if need be, made, which stays as it is until it is held.
pub(super) fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|e| Error::io(path, e))?;
    hold(&file, path)?;
    Ok(file)
}

/// Writes what a file begins with where a machine that went down has left it empty, under its name already. It is held.
pub(super) fn fill_if_empty(mut file: &File, begin: &[u8], path: &Path) -> Result<()> {
    let done = match file.metadata() {
        Ok(there) if there.len() > 0 => Ok(()),
        Ok(_) => file.write_all(begin).and_then(|()| file.sync_all()),
        Err(e) => Err(e),
    };
    done.map_err(|e| Error::io(path, e))
}

/// A file that grows under another name, and gets its own when it is whole; dropped before, it leaves nothing. What a process
/// that was killed left under that name is written over.
pub(super) struct Unfinished {
    path: PathBuf,
    name: TempPath,
}

impl Unfinished {
    pub(super) fn create(path: &Path, name: PathBuf) -> Result<(Self, File)> {
        let file = open(&name)?;
        // Nobody else's from here on.
        let name = TempPath::try_from_path(name).map_err(|e| Error::io(path, e))?;
        file.set_len(0).map_err(|e| Error::io(path, e))?;
        Ok((Self { path: path.to_owned(), name }, file))
    }

    /// Gives it its name, unless that is taken. It is on the disk before, lest a machine that goes down leave it empty.
    pub(super) fn finish(self, file: &File) -> Result<()> {
        file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        self.name.persist_noclobber(&self.path).map_err(|e| Error::io(&self.path, e.error))
    }
}

/// The name with an ending behind it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
