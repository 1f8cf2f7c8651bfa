//! Where does a record stand?
//!
//! Numbers grow within a segment and from one to the next, so that one is found by halving, without reading the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::chain;
use crate::audit::chain::LINE_BYTES_MAX;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::evidence::walk;

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its segment.
    pub segment: PathBuf,
    /// Where its line begins.
    pub offset: u64,
    /// The line, without its newline.
    pub line: Vec<u8>,
}

/// The record with this number, if it is there.
///
/// # Errors
/// A segment cannot be read, or is none.
pub fn find(audit: &Path, seq: u64) -> io::Result<Option<Place>> {
    let segments = walk::kept(audit)?;
    let after = segments.partition_point(|segment| chain::first_seq(segment).is_some_and(|first| first <= seq));
    let Some(segment) = after.checked_sub(1).and_then(|position| segments.get(position)) else { return Ok(None) };
    let file = File::open(segment)?;
    let counted = chain::counted_bytes(segment, segments.get(after))?.min(file.metadata()?.len());
    // The line begins in this range, if it is there.
    let (mut low, mut high) = (0, counted);
    while high - low > LINE_BYTES_MAX {
        let middle = low.midpoint(high);
        let (start, line) = line_after(&file, middle, counted)?;
        match line.and_then(|line| Lead::read(&line).map(|lead| lead.seq)) {
            _ if start >= high => high = middle + 1,
            Some(number) if number <= seq => low = start,
            Some(_) => high = start,
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is not a record")),
        }
    }
    let mut lines = Lines::open_at(segment, low, counted)?;
    let mut offset = low;
    while let Some(line) = lines.next()? {
        let bytes = line.len() as u64;
        if let Some(line) = line.strip_suffix(b"\n")
            && Lead::read(line).is_some_and(|lead| lead.seq == seq)
        {
            return Ok(Some(Place { segment: segment.clone(), offset, line: line.to_vec() }));
        }
        offset += bytes;
        if offset >= high {
            break;
        }
    }
    Ok(None)
}

/// The first line that begins after `offset`, and where.
fn line_after(file: &File, offset: u64, end: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let room = end.saturating_sub(offset).min(2 * LINE_BYTES_MAX);
    let mut bytes = vec![0; room as usize];
    file.read_exact_at(&mut bytes, offset)?;
    let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok((end, None)) };
    let start = offset + newline as u64 + 1;
    let line = bytes.get(newline + 1..).unwrap_or_default();
    let line = line.iter().position(|byte| *byte == b'\n').and_then(|newline| line.get(..newline));
    Ok((start, line.map(<[u8]>::to_vec)))
}
