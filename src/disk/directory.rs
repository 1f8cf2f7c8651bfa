//! Whose directory is this, and are its names on the disk?
//!
//! The lock is advisory, held on the directory itself, and ends with the process however that ends. While one process
//! hands over to the next, both hold it together; of those, at most one may try to get it back for itself.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::fs::flock;

/// A directory that this process alone writes to.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process, or another part of this one, holds it.
    #[error("directory `{}` is in use by another gateway", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("directory `{}` cannot be used: {error}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        error: io::Error,
    },
}

impl Directory {
    /// Makes the directory if it is missing (mode 0700, its name on the disk) and locks it. The lock ends when the value is dropped.
    pub fn lock(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |error| DirectoryError::Io { path: path.to_owned(), error };
        make(path).map_err(failed)?;
        let handle = File::open(path).map_err(failed)?;
        match handle.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Takes a directory beside the process that shares it with this one; see [`Directory::share`].
    pub fn join(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |error| DirectoryError::Io { path: path.to_owned(), error };
        let handle = File::open(path).map_err(failed)?;
        match flock(&handle, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Locked { path: path.to_owned() }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Lets another process [`join`](Directory::join).
    pub fn share(&self) -> io::Result<()> {
        Ok(flock(&self.handle, FlockOperation::NonBlockingLockShared)?)
    }

    /// Whether the directory is this process's alone again. Must be tried by one of those who share it only: a failed
    /// attempt lets the lock go for a moment, in which a second one would succeed.
    pub fn claim(&self) -> io::Result<bool> {
        match flock(&self.handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => self.share().map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when names made, changed or removed in the directory are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Makes a directory and its missing parents, each with its name on the disk.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => File::open(parent)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portcullis-directory-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_directory_has_one_holder_and_the_error_names_it() {
        let root = fresh("lock");
        let path = root.join("deep/audit");
        let held = Directory::lock(&path).unwrap();
        held.sync().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Directory::lock(&path).unwrap_err();
        assert!(matches!(refused, DirectoryError::Locked { .. }));
        assert_eq!(refused.to_string(), format!("directory `{}` is in use by another gateway", path.display()));
        drop(held);
        assert_eq!(Directory::lock(&path).unwrap().path(), path);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_shared_directory_takes_one_more_and_goes_back_to_who_is_left() {
        let path = fresh("shared");
        let first = Directory::lock(&path).unwrap();
        assert!(matches!(Directory::join(&path), Err(DirectoryError::Locked { .. })), "not before it is shared");
        first.share().unwrap();
        let second = Directory::join(&path).unwrap();
        assert!(matches!(Directory::lock(&path), Err(DirectoryError::Locked { .. })));
        assert!(!second.claim().unwrap(), "the first is still there");
        drop(first);
        assert!(second.claim().unwrap());
        assert!(matches!(Directory::join(&path), Err(DirectoryError::Locked { .. })));
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_is_no_directory_cannot_be_taken() {
        let path = fresh("file");
        std::fs::write(&path, b"x").unwrap();
        let refused = Directory::lock(&path).unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        assert!(matches!(Directory::lock(&path.join("below")), Err(DirectoryError::Io { .. })));
        std::fs::remove_file(&path).unwrap();
    }
}
