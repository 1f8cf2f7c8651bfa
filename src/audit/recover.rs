//! Where does the chain go on after a start?
//!
//! Everything behind the last checkpoint is read, and the segment it stands in. What a crash or a power cut leaves there is cut off and
//! kept aside: half a line, pages that were never written, and all that stands behind them. Every other flaw is somebody's doing or a
//! broken disk, is named by file and line, and is not repaired; and nothing that a checkpoint covers is cut off, whatever is wrong with it.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::OpenError;
use crate::audit::aside;
use crate::audit::chain;
use crate::audit::chain::Break;
use crate::audit::chain::Flaw;
use crate::audit::chain::Head;
use crate::audit::chain::LINE_BYTES_MAX;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::chain::Tip;
use crate::audit::evidence;
use crate::audit::evidence::SignedTo;
use crate::audit::segments::Cut;
use crate::audit::writer::Sharing;
use crate::disk::append::AppendFile;

/// What a disk writes at least at a time: a page that never reached it ends at a multiple of this.
const BLOCK_BYTES: u64 = 512;

/// What was found in the directory.
#[derive(Debug)]
pub(super) struct Found {
    /// The chain's end.
    pub(super) tip: Tip,
    /// The segment to go on with, and its name.
    pub(super) last: Option<(String, AppendFile)>,
    /// What was cut off.
    pub(super) cut: Option<Cut>,
    /// Records behind the last checkpoint.
    pub(super) unsigned: u64,
    /// Whether another process still writes.
    pub(super) sharing: Sharing,
}

/// Finds the chain's end and cuts off what is torn. What is signed was read as far as `signed` says.
pub(super) fn recover(directory: &Path, signed: Option<&SignedTo>) -> Result<Found, OpenError> {
    let removed = evidence::start(directory)?;
    let mut segments = chain::segments(directory)?;
    let is_left = |segment: &PathBuf| chain::first_seq(segment).is_some_and(|first| first <= removed.seq);
    let left: Vec<PathBuf> = segments.extract_if(.., |segment| is_left(segment)).collect();
    let seen = look(&segments, removed, signed)?;
    let signed_seq = signed.map_or(0, |signed| signed.seq);
    if let Some(torn) = seen.torn
        && seen.tip.seq < signed_seq
    {
        return Err(OpenError::Damaged { torn, seq: seen.tip.seq + 1, signed: signed_seq });
    }
    let failed = |error: io::Error| OpenError::Io { path: directory.to_owned(), error };
    // A crash came between what stands for them and their removal; who signs has looked at what stands for them.
    for segment in left.iter().filter(|_| signed.is_some()) {
        fs::remove_file(segment).map_err(failed)?;
    }
    evidence::forget_attempts(directory).map_err(failed)?;
    let (mut cut, mut is_changed) = (0, !left.is_empty());
    // From the end, so that after a crash in between there is still something torn before what is left.
    for segment in seen.beyond.iter().rev() {
        cut += aside::put(segment).map_err(failed)?;
        is_changed = true;
    }
    let mut last = None;
    let mut kept = (seen.beyond.first().and_then(|segment| name(segment)).unwrap_or_default(), 0);
    if let Some((segment, bytes)) = seen.last {
        let mut file = AppendFile::open(&segment).map_err(failed)?;
        if file.bytes() > bytes {
            aside::keep(&segment, bytes).map_err(failed)?;
            is_changed = true;
        }
        // Also gives back space that the last run had reserved.
        cut += file.cut(bytes).and_then(|torn| file.sync().map(|()| torn)).map_err(failed)?;
        let name = name(&segment).unwrap_or_default();
        kept = (name.clone(), bytes);
        last = Some((name, file));
    }
    if is_changed {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    let cut = (cut > 0).then_some(Cut { segment: kept.0, kept: kept.1, cut });
    Ok(Found { tip: seen.tip, last, cut, unsigned: seen.unsigned, sharing: Sharing::No })
}

fn name(segment: &Path) -> Option<String> {
    segment.file_name().map(|name| name.to_string_lossy().into_owned())
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
        None if file.bytes() > 0 => return Err(Break { file: segment.to_path_buf(), line: 0, flaw: Flaw::Torn }.into()),
        None => match segments.iter().rev().nth(1) {
            Some(before) => end_of(before, Some(segment))?,
            None => evidence::start(directory)?,
        },
    };
    let name = name(segment).unwrap_or_default();
    Ok(Found { tip, last: Some((name, file)), cut: None, unsigned: 0, sharing: Sharing::Heir })
}

/// What there is, before anything is changed.
struct Seen {
    tip: Tip,
    /// The last segment with a record in it, and how much of it counts.
    last: Option<(PathBuf, u64)>,
    /// The segments behind it.
    beyond: Vec<PathBuf>,
    /// The first thing that does not count.
    torn: Option<Break>,
    unsigned: u64,
}

fn look(segments: &[PathBuf], removed: Tip, signed: Option<&SignedTo>) -> Result<Seen, Break> {
    let mut begin = match signed {
        Some(signed) => segments.iter().position(|segment| Some(segment) == signed.segment.as_ref()).unwrap_or(0),
        None => segments.len().saturating_sub(1),
    };
    while begin > 0 && !is_joined(segments, begin)? {
        begin -= 1;
    }
    let tip = match begin.checked_sub(1).and_then(|before| segments.get(before)) {
        Some(before) => end_of(before, segments.get(begin))?,
        None => removed,
    };
    let signed_seq = signed.map_or(u64::MAX, |signed| signed.seq);
    let mut seen = Seen { tip, last: None, beyond: Vec::new(), torn: None, unsigned: 0 };
    for (position, segment) in segments.iter().enumerate().skip(begin) {
        // Behind a checkpoint, the end of a segment may be missing where the next is there: a power cut takes what it likes.
        let may_lack = signed.is_some() && position > begin;
        let end = end_of_segment(segment, segments.get(position + 1), seen.tip, may_lack, signed_seq)?;
        seen.unsigned += end.unsigned;
        seen.tip = end.tip;
        seen.torn = end.torn;
        if end.bytes > 0 {
            seen.last = Some((segment.clone(), end.bytes));
            seen.beyond.clear();
        } else {
            seen.beyond.push(segment.clone());
        }
        if seen.torn.is_some() {
            seen.beyond.extend_from_slice(segments.get(position + 1..).unwrap_or_default());
            break;
        }
    }
    Ok(seen)
}

/// Whether a segment begins with a record, and the one before ends with one.
fn is_joined(segments: &[PathBuf], position: usize) -> Result<bool, Break> {
    let (Some(segment), Some(before)) = (segments.get(position), segments.get(position - 1)) else { return Ok(true) };
    let broken = |error: io::Error| Break { file: segment.to_path_buf(), line: 0, flaw: error.into() };
    let ends = chain::counted_bytes(before, Some(segment)).and_then(|bytes| chain::end_of(before, bytes));
    Ok(begins(segment).map_err(broken)? && ends.map_err(broken)?.is_some())
}

/// Whether the first line of a segment is a record.
fn begins(segment: &Path) -> io::Result<bool> {
    let mut lines = Lines::open(segment, LINE_BYTES_MAX)?;
    Ok(lines.next()?.is_some_and(is_record))
}

fn is_record(line: &[u8]) -> bool {
    line.strip_suffix(b"\n").and_then(Head::read).is_some()
}

/// How far the chain holds within a segment.
struct End {
    tip: Tip,
    bytes: u64,
    /// What does not count behind that.
    torn: Option<Break>,
    /// Records beyond the number that is signed.
    unsigned: u64,
}

fn end_of_segment(segment: &Path, next: Option<&PathBuf>, tip: Tip, may_lack: bool, signed: u64) -> Result<End, Break> {
    let broken = |line, flaw| Break { file: segment.to_path_buf(), line, flaw };
    let mut end = End { tip, bytes: 0, torn: None, unsigned: 0 };
    let mut number = 0;
    let counted = chain::counted_bytes(segment, next).map_err(|error| broken(0, error.into()))?;
    let mut lines = Lines::open(segment, counted).map_err(|error| broken(0, error.into()))?;
    loop {
        number += 1;
        let Some(line) = lines.next().map_err(|error| broken(number, error.into()))? else { break };
        let followed = match line.strip_suffix(b"\n") {
            Some(line) => chain::follow(end.tip, line),
            None => Err(Flaw::Torn),
        };
        match followed {
            Ok(tip) => {
                end.tip = tip;
                end.bytes += line.len() as u64;
                end.unsigned += u64::from(tip.seq > signed);
            }
            Err(flaw) => {
                let is_torn = match flaw {
                    // A whole record that does not continue the chain was not torn by a crash: somebody changed what it followed.
                    Flaw::WrongPrev | Flaw::WrongSeq => {
                        may_lack
                            && number == 1
                            && Lead::read(line.trim_ascii_end()).is_some_and(|lead| lead.seq > end.tip.seq + 1)
                    }
                    _ => {
                        let line = line.to_vec();
                        is_torn(segment, end.bytes, &line, &mut lines, next)
                            .map_err(|error| broken(number, error.into()))?
                    }
                };
                if !is_torn {
                    return Err(broken(number, flaw));
                }
                end.torn = Some(broken(number, flaw));
                break;
            }
        }
    }
    Ok(end)
}

/// Whether a line that is no record is what a crash leaves. It begins at `offset`, and `rest` is what follows it.
fn is_torn(segment: &Path, offset: u64, line: &[u8], rest: &mut Lines, next: Option<&PathBuf>) -> io::Result<bool> {
    let zero = line.iter().position(|byte| *byte == 0);
    if let Some(zero) = zero
        && is_hole(segment, offset + zero as u64)?
    {
        return Ok(true);
    }
    let (mut lines, mut records) = (0_u64, 0_u64);
    while let Some(line) = rest.next()? {
        lines += 1;
        records += u64::from(is_record(line));
    }
    if lines == 0 && !line.ends_with(b"\n") {
        return Ok(true);
    }
    // A line that was written whole is not torn, nor is one with a bad byte in it: unless nothing whole follows, records would be lost.
    let is_last = records == 0 && next.map_or(Ok(true), |next| begins(next).map(|begins| !begins))?;
    Ok(is_last && (zero.is_some() || lines == 0))
}

/// Whether the zeros that begin at `offset` are a page, or the rest of one, that never reached the disk: they go on to where one ends.
fn is_hole(segment: &Path, mut offset: u64) -> io::Result<bool> {
    let mut file = File::open(segment)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; LINE_BYTES_MAX as usize];
    loop {
        let read = file.read(&mut bytes)?;
        let zeros = bytes.iter().take(read).take_while(|byte| **byte == 0).count();
        offset += zeros as u64;
        if zeros < read || read == 0 {
            return Ok(offset == end || offset.is_multiple_of(BLOCK_BYTES));
        }
    }
}

/// The end of the chain at the end of a segment.
fn end_of(segment: &Path, next: Option<&PathBuf>) -> Result<Tip, Break> {
    let broken = |flaw| Break { file: segment.to_path_buf(), line: 0, flaw };
    match chain::counted_bytes(segment, next).and_then(|bytes| chain::end_of(segment, bytes)) {
        Ok(Some(tip)) => Ok(tip),
        Ok(None) => Err(broken(Flaw::Torn)),
        Err(error) => Err(broken(error.into())),
    }
}
