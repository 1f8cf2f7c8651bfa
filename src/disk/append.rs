//! How does a file grow by whole pieces?
//!
//! Space is reserved ahead of the end without moving it, so a reader never sees padding. A piece that could not be
//! written whole can be cut off again. After a failed sync the file must not be written to: the kernel may have
//! dropped pages and forgotten about it.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FallocateFlags;
use rustix::fs::FlockOperation;
use rustix::fs::fallocate;
use rustix::fs::flock;

use crate::failpoint::failpoint;

/// Bytes reserved at a time: large enough that a fast writer asks seldom, small enough for a small disk.
const RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How long another process may keep the end of a file to itself.
const TURN_TIME_MAX: Duration = Duration::from_secs(2);
/// From one attempt to get a turn to the next.
const TURN_PAUSE: Duration = Duration::from_micros(50);

/// A file that is only ever written at its end.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    bytes: u64,
    reserved: u64,
    /// Bytes reserved at a time.
    ahead: u64,
}

impl AppendFile {
    /// Makes a file that must not exist yet, mode 0600. Its name is on the disk after [`super::directory::Directory::sync`].
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::from_file(file, 0))
    }

    /// Opens a file to go on at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::from_file(file, bytes))
    }

    /// Takes a file that is open for appending and holds `bytes` bytes.
    pub fn from_file(file: File, bytes: u64) -> Self {
        Self { file, bytes, reserved: bytes, ahead: RESERVE_BYTES_MAX }
    }

    /// The same, of a file that grows slowly: it takes less of the disk ahead.
    #[must_use]
    pub fn reserving(self, bytes: u64) -> Self {
        Self { ahead: bytes.min(RESERVE_BYTES_MAX), ..self }
    }

    /// Bytes written whole.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands a piece to the kernel whole, with one `write` where the kernel takes it at once. After an error a part
    /// of it may stand in the file beyond [`AppendFile::bytes`]; see [`AppendFile::cut`].
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let end = self.bytes.saturating_add(piece.len() as u64);
        if end > self.reserved {
            self.reserve(end);
        }
        self.file.write_all(piece)?;
        self.bytes = end;
        Ok(())
    }

    /// Space is a courtesy of the file system: one that cannot reserve, or is full, says so when it is written to.
    fn reserve(&mut self, end: u64) {
        let bytes = (end - self.bytes).max(self.ahead);
        let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.bytes, bytes);
        self.reserved = self.bytes.saturating_add(bytes);
    }

    /// Returns when everything appended is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        failpoint!("disk_sync", Err(io::Error::other("the disk does not sync, as a test wants it")));
        self.file.sync_data()
    }

    /// Has the end of the file to itself while `act` runs, among processes that all append in this way. `act` is told
    /// whether somebody else wrote since [`AppendFile::bytes`] was last true; after an error the next is told again.
    pub fn in_turn<T>(&mut self, act: impl FnOnce(&mut Self, bool) -> io::Result<T>) -> io::Result<T> {
        let turn = Turn::take(&self.file)?;
        let bytes = turn.0.metadata()?.len();
        let known = self.bytes;
        self.bytes = bytes;
        self.reserved = self.reserved.max(bytes);
        let acted = act(self, bytes != known);
        if acted.is_err() {
            self.bytes = known;
        }
        acted
    }

    /// Whether this is the file that has that name: not where another was put in its place, or it was removed.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Cuts the file to its first `bytes` bytes and returns how many went. Also gives reserved space back.
    pub fn cut(&mut self, bytes: u64) -> io::Result<u64> {
        let before = self.file.metadata()?.len();
        self.file.set_len(bytes)?;
        self.bytes = bytes;
        self.reserved = bytes;
        Ok(before.saturating_sub(bytes))
    }

    /// Bytes that stand in the file beyond what was written whole.
    pub fn torn_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.bytes))
    }
}

/// A process's turn at a file's end; over when dropped.
struct Turn(File);

impl Turn {
    fn take(file: &File) -> io::Result<Self> {
        // The lock belongs to what was opened, so that another handle of it can let go.
        let handle = file.try_clone()?;
        let begun = Instant::now();
        loop {
            match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(handle)),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < TURN_TIME_MAX => thread::sleep(TURN_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portcullis-append-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn readers_never_see_reserved_space() {
        let path = fresh("reserved");
        let mut file = AppendFile::create(&path).unwrap();
        file.append(b"one\n").unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(file.bytes(), 8);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_grows_slowly_takes_little_ahead() {
        let path = fresh("little");
        AppendFile::create(&path).unwrap().reserving(8_192).append(b"x").unwrap();
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks * 512 <= 16_384, "{blocks} blocks");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn cutting_gives_reserved_space_back() {
        let path = fresh("cut");
        let mut file = AppendFile::create(&path).unwrap();
        file.append(&[b'x'; 10_000]).unwrap();
        let reserved = std::fs::metadata(&path).unwrap().blocks();
        assert_eq!(file.cut(4_000).unwrap(), 6_000);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 4_000);
        assert!(metadata.blocks() * 512 < RESERVE_BYTES_MAX, "{reserved} blocks before, {} after", metadata.blocks());
        file.append(b"y").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4_001);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_is_its_owners_and_made_once() {
        let path = fresh("mode");
        AppendFile::create(&path).unwrap().append(b"x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(AppendFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut again = AppendFile::open(&path).unwrap();
        again.append(b"y").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"xy");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn two_who_append_in_turn_see_what_the_other_wrote() {
        let path = fresh("turns");
        let mut one = AppendFile::create(&path).unwrap();
        let mut other = AppendFile::open(&path).unwrap();
        let write = |file: &mut AppendFile, piece: &[u8]| {
            file.in_turn(|file, is_moved| file.append(piece).map(|()| is_moved)).unwrap()
        };
        assert!(!write(&mut one, b"a"));
        assert!(write(&mut other, b"b"));
        assert!(!write(&mut other, b"c"));
        assert!(write(&mut one, b"d"));
        assert_eq!((one.bytes(), std::fs::read(&path).unwrap()), (4, b"abcd".to_vec()));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_another_took_the_name_of_is_not_there_any_more() {
        let path = fresh("name");
        let file = AppendFile::create(&path).unwrap();
        assert!(file.is_at(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!file.is_at(&path).unwrap());
        let other = AppendFile::create(&path).unwrap();
        assert!(!file.is_at(&path).unwrap() && other.is_at(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_full_device_is_an_error_and_counts_nothing() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut file = AppendFile::from_file(full, 0);
        assert_eq!(file.append(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.bytes(), 0);
    }
}
