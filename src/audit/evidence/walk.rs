//! Which records are in a directory?
//!
//! Reads every line of every segment and follows the chain from its beginning, or from where retention lets it begin. A pure reader:
//! it changes nothing and takes no lock. Beside a running gateway it stops at a line that is on its way.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::chain;
use crate::audit::chain::Break;
use crate::audit::chain::Flaw;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::chain::Tip;
use crate::audit::evidence::base::Base;

/// What an unbroken chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Segments read.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Number of the last record.
    pub last_seq: u64,
}

/// Reads every record of a directory and follows the chain.
///
/// # Errors
/// The first place at which it does not hold.
pub fn verify_chain(directory: &Path) -> Result<Verified, Break> {
    let base = base(directory)?;
    walk(directory, base.as_ref(), |_, _, _| Ok(())).map(|(verified, _)| verified)
}

/// How many records were removed from a directory, by its own word.
///
/// # Errors
/// What says so cannot be read.
pub fn removed(directory: &Path) -> io::Result<u64> {
    Ok(Base::read(directory)?.map_or(0, |base| base.leaves))
}

/// The end of what was removed from a directory: where its chain begins.
pub(in crate::audit) fn start(directory: &Path) -> Result<Tip, Break> {
    Ok(base(directory)?.map_or(Tip::START, |base| base.tip))
}

/// The segments of what is kept, in their order, without what retention left behind for a moment.
pub(super) fn kept(audit: &Path) -> io::Result<Vec<PathBuf>> {
    let removed = Base::read(audit)?.map_or(0, |base| base.tip.seq);
    let mut segments = chain::segments(audit).map_err(io::Error::other)?;
    segments.retain(|segment| chain::first_seq(segment).is_some_and(|first| first > removed));
    Ok(segments)
}

/// What was removed from a directory, by its own word.
pub(super) fn base(directory: &Path) -> Result<Option<Base>, Break> {
    Base::read(directory).map_err(|error| Break { file: directory.join("base"), line: 0, flaw: error.into() })
}

/// Calls `each` with every line that follows the one before, what it begins with, and the number before it. Also tells how many bytes stand
/// behind what counts of failed segments.
pub(super) fn walk<E: From<Break>>(
    directory: &Path,
    base: Option<&Base>,
    mut each: impl FnMut(&[u8], Lead<'_>, u64) -> Result<(), E>,
) -> Result<(Verified, u64), E> {
    let mut tip = base.map_or(Tip::START, |base| base.tip);
    let removed = tip.seq;
    let segments = chain::segments(directory)?;
    if let Some(left) = segments.iter().find(|segment| chain::first_seq(segment).is_some_and(|first| first <= removed))
    {
        return Err(Break { file: left.clone(), line: 0, flaw: Flaw::Leftover }.into());
    }
    let (mut verified, mut uncounted_bytes) = (Verified { last_seq: removed, ..Verified::default() }, 0);
    for (position, segment) in segments.iter().enumerate() {
        let broken = |line, flaw| Break { file: segment.clone(), line, flaw };
        let was_there = segment.metadata().map_or(u64::MAX, |file| file.len());
        let counted = chain::counted_bytes(segment, segments.get(position + 1));
        if let Ok(counted) = &counted {
            uncounted_bytes += was_there.saturating_sub(*counted);
        }
        let lines = counted.and_then(|bytes| Lines::open(segment, bytes));
        let mut lines = lines.map_err(|error| broken(0, error.into()))?;
        let (mut number, mut read) = (0, 0);
        while let Some(line) = lines.next().map_err(|error| broken(number + 1, error.into()))? {
            number += 1;
            read += line.len() as u64;
            let Some(line) = line.strip_suffix(b"\n") else {
                // Half a line at the very end is on its way where the file has grown since.
                let is_last = position + 1 == segments.len() && read >= was_there;
                if is_last && segment.metadata().is_ok_and(|file| file.len() > was_there) {
                    break;
                }
                return Err(broken(number, Flaw::Torn).into());
            };
            let lead = Lead::read(line).ok_or_else(|| broken(number, Flaw::NotARecord))?;
            let before = tip.seq;
            tip = lead.follow(tip, line).map_err(|flaw| broken(number, flaw))?;
            if number == 1 && chain::first_seq(segment) != Some(tip.seq) {
                return Err(broken(1, Flaw::WrongName).into());
            }
            each(line, lead, before)?;
            verified.records += 1;
        }
        verified.segments += 1;
    }
    verified.last_seq = tip.seq;
    Ok((verified, uncounted_bytes))
}
