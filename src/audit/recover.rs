//! Where does the chain go on after a start?
//!
//! Only the last segment is read. A torn tail — what a crash or a power cut leaves — is cut off; every other flaw is
//! somebody's doing or a broken disk, is named by file and line, and is not repaired.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::OpenError;
use crate::audit::chain;
use crate::audit::chain::Break;
use crate::audit::chain::Flaw;
use crate::audit::chain::Lines;
use crate::audit::chain::Tip;
use crate::audit::evidence;
use crate::audit::segments::Cut;
use crate::audit::writer::Sharing;
use crate::disk::append::AppendFile;

/// What was found in the directory.
#[derive(Debug)]
pub(super) struct Found {
    /// The chain's end.
    pub(super) tip: Tip,
    /// The segment to go on with, and its name.
    pub(super) last: Option<(String, AppendFile)>,
    /// What was cut off.
    pub(super) cut: Option<Cut>,
    /// Whether another process still writes.
    pub(super) sharing: Sharing,
}

/// Finds the chain's end and cuts off what is torn.
pub(super) fn recover(directory: &Path) -> Result<Found, OpenError> {
    let mut segments = chain::segments(directory)?;
    let mut cut: Option<Cut> = None;
    while let Some(segment) = segments.pop() {
        let failed = |error: io::Error| OpenError::Io { path: segment.clone(), error };
        let end = end_of_segment(&segment, segments.last())?;
        let mut file = AppendFile::open(&segment).map_err(failed)?;
        // Also gives back space that the last run had reserved.
        let torn = file.cut(end.bytes).and_then(|torn| file.sync().map(|()| torn)).map_err(failed)?;
        let name = segment.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if torn > 0 {
            let before = cut.map_or(0, |cut| cut.cut);
            cut = Some(Cut { segment: name.clone(), kept: end.bytes, cut: before + torn });
        }
        if end.bytes > 0 {
            return Ok(Found { tip: end.tip, last: Some((name, file)), cut, sharing: Sharing::No });
        }
        // Nothing in it became a record, so the chain ends in the segment before.
        fs::remove_file(&segment).map_err(failed)?;
    }
    Ok(Found { tip: evidence::start(directory)?, last: None, cut, sharing: Sharing::No })
}

/// Finds the chain's end beside the process that writes it, which vouches for it.
pub(super) fn beside(directory: &Path) -> Result<Found, OpenError> {
    let segments = chain::segments(directory)?;
    let missing = || OpenError::Io { path: directory.to_owned(), error: io::ErrorKind::NotFound.into() };
    let segment = segments.last().ok_or_else(missing)?;
    let failed = |error: io::Error| OpenError::Io { path: segment.clone(), error };
    let mut file = AppendFile::open(segment).map_err(failed)?;
    let tip = file.in_turn(|_, _| chain::end_of(segment, u64::MAX)).map_err(failed)?;
    // A segment in which nothing stands yet continues the one before.
    let tip = match tip {
        Some(tip) => tip,
        None if file.bytes() > 0 => return Err(Break { file: segment.clone(), line: 0, flaw: Flaw::Torn }.into()),
        None => start_of(segment, segments.iter().rev().nth(1))?,
    };
    let name = segment.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Found { tip, last: Some((name, file)), cut: None, sharing: Sharing::Heir })
}

/// How far the chain holds within a segment.
struct End {
    tip: Tip,
    bytes: u64,
}

fn end_of_segment(segment: &PathBuf, before: Option<&PathBuf>) -> Result<End, Break> {
    let broken = |line, flaw| Break { file: segment.clone(), line, flaw };
    let mut end = End { tip: start_of(segment, before)?, bytes: 0 };
    let mut number = 0;
    let mut lines = Lines::open(segment, u64::MAX).map_err(|error| broken(0, error.into()))?;
    loop {
        number += 1;
        let Some(line) = lines.next().map_err(|error| broken(number, error.into()))? else { return Ok(end) };
        let followed = match line.strip_suffix(b"\n") {
            Some(line) => chain::follow(end.tip, line),
            None => Err(Flaw::Torn),
        };
        match followed {
            Ok(tip) => {
                end.tip = tip;
                end.bytes += line.len() as u64;
            }
            Err(flaw) => {
                // No record has a zero byte in it: they are what a disk shows where a page never reached it.
                let never_written = line.contains(&0);
                let record = matches!(flaw, Flaw::WrongPrev | Flaw::WrongSeq);
                let last = lines.next().map_err(|error| broken(number, error.into()))?.is_none();
                // A whole record that does not continue the chain was not torn by a crash: somebody changed what it followed.
                let torn = never_written || (last && !record);
                return if torn { Ok(end) } else { Err(broken(number, flaw)) };
            }
        }
    }
}

/// The end of the chain before a segment. Before the first it is what retention left of it.
fn start_of(segment: &PathBuf, before: Option<&PathBuf>) -> Result<Tip, Break> {
    let Some(before) = before else { return evidence::start(segment.parent().unwrap_or(Path::new("."))) };
    let broken = |flaw| Break { file: before.clone(), line: 0, flaw };
    let end = chain::counted_bytes(before, Some(segment)).and_then(|bytes| chain::end_of(before, bytes));
    match end {
        Ok(Some(tip)) => Ok(tip),
        Ok(None) => Err(broken(Flaw::Torn)),
        Err(error) => Err(broken(error.into())),
    }
}
