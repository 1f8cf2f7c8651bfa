//! Was every call recorded?
//!
//! A gateway that lost records under load would look fast. Lines are counted once all is over, and what is no longer
//! written to is removed between rounds, so that a long measurement does not fill the disk.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;

use crate::records::segments;

/// Counts the records in an audit directory as they come.
#[derive(Debug)]
pub(super) struct Tally {
    directory: PathBuf,
    counted: u64,
}

impl Tally {
    /// Of the records in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, counted: 0 }
    }

    /// Counts and removes every segment but the newest.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let mut segments = segments(&self.directory)?;
        segments.pop();
        for segment in segments {
            self.counted += records(&segment)?;
            fs::remove_file(segment)?;
        }
        Ok(())
    }

    /// All records so far.
    pub(super) fn total(&self) -> io::Result<u64> {
        let left: io::Result<Vec<u64>> = segments(&self.directory)?.iter().map(|path| records(path)).collect();
        Ok(self.counted + left?.iter().sum::<u64>())
    }
}

/// Tool calls that were on record before they went upstream, in one file.
fn records(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(path)?);
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let has = |part: &str| memchr::memmem::find(&line, part.as_bytes()).is_some();
        count += u64::from(has(r#""kind":"intent""#) && has(r#""rpc_method":"tools/call""#));
        line.clear();
    }
    Ok(count)
}
