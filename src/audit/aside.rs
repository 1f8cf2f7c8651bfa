//! Where does what a start cuts off go?
//!
//! Into files of their own beside the segments, `NAME.OFFSET.torn`, which nobody reads as records. Nothing is ever deleted: what a crash
//! left looks the same as what somebody damaged, and may be evidence.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

/// Copies what stands in a file from byte `from` on; it is on the disk when this returns, its name when the directory is synced.
pub(super) fn keep(path: &Path, from: u64) -> io::Result<()> {
    let mut source = File::open(path)?;
    source.seek(SeekFrom::Start(from))?;
    let name = free(path, from)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
    if copied.is_err() {
        // Half a copy is of no use, and on a full disk in the way.
        let _ = fs::remove_file(&name);
    }
    copied
}

/// Gives a file whole, in which nothing became a record, a name of this kind; an empty one goes.
pub(super) fn put(path: &Path) -> io::Result<u64> {
    let bytes = fs::metadata(path)?.len();
    match bytes {
        0 => fs::remove_file(path)?,
        _ => fs::rename(path, free(path, 0)?)?,
    }
    Ok(bytes)
}

/// A name that no file has yet.
fn free(path: &Path, from: u64) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let first = path.with_file_name(format!("{name}.{from}.torn"));
    let others = (2_u32..).map(|number| path.with_file_name(format!("{name}.{from}.{number}.torn")));
    for candidate in [first].into_iter().chain(others) {
        if !candidate.try_exists()? {
            return Ok(candidate);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
