//! Which segments go when records are not kept for ever?
//!
//! Whole ones, the oldest first, never the last, and only what is signed. What stands for them is proved to belong to the signed tree
//! before anything is removed, and a record tells of it before it happens.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::audit::Retention;
use crate::audit::chain;
use crate::audit::chain::LINE_BYTES_MAX;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::evidence::base::Base;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::grow::Tree;
use crate::audit::evidence::merkle;
use crate::audit::evidence::notary::SigningError;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::NOTE_BYTES_MAX;
use crate::audit::evidence::note::SigningKey;
use crate::audit::line;

const DAY_MICROS: u64 = 24 * 3_600 * 1_000_000;

/// What is to be removed.
#[derive(Debug)]
pub(in crate::audit) struct Removal {
    /// What will stand for all that was ever removed.
    pub(in crate::audit) base: Base,
    /// Bytes of the segments.
    pub(in crate::audit) bytes: u64,
}

impl Removal {
    /// Number of the last record that goes.
    pub(in crate::audit) fn last_seq(&self) -> u64 {
        self.base.tip.seq
    }

    /// Records that will have been removed in all.
    pub(in crate::audit) fn leaves(&self) -> u64 {
        self.base.leaves
    }
}

/// What is due by these rules, if anything is.
pub(super) fn due(
    audit: &Path,
    tree: &Tree,
    retention: Retention,
    now_micros: u64,
) -> Result<Option<Removal>, SigningError> {
    let removed = tree.removed();
    let mut segments = chain::segments(audit).map_err(io::Error::other)?;
    segments.retain(|segment| chain::first_seq(segment).is_some_and(|first| first > removed));
    let sizes: Vec<u64> = segments.iter().map(|segment| Ok(segment.metadata()?.len())).collect::<io::Result<_>>()?;
    let mut left: u64 = sizes.iter().sum();
    let oldest = retention.days.map(|days| line::time_text(now_micros.saturating_sub(days.saturating_mul(DAY_MICROS))));
    let mut count: usize = 0;
    for (next, bytes) in segments.iter().skip(1).zip(&sizes) {
        // No record of a segment is younger than the first of the next.
        let is_old = oldest.as_ref().is_some_and(|oldest| begun(next).is_ok_and(|begun| begun < *oldest));
        let is_too_much = retention.bytes_max.is_some_and(|max| left > max);
        if !is_old && !is_too_much {
            break;
        }
        count += 1;
        left -= bytes;
    }
    let Some((last, next)) = count.checked_sub(1).and_then(|last| segments.get(last).zip(segments.get(count))) else {
        return Ok(None);
    };
    let counted = chain::counted_bytes(last, Some(next))?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let tip = chain::end_of(last, counted)?.ok_or_else(|| bad("a segment's last line is torn"))?;
    let following = first_line(next)?;
    if Lead::read(&following).is_none_or(|lead| lead.seq > tree.tip.seq) {
        return Ok(None);
    }
    let leaves = tree.nodes.leaf_of(tip.seq).map_err(|_| SigningError::Hashes)?.saturating_add(1);
    // What the kept hashes say is believed only as far as the signed tree bears it out: that the last line which goes is the last of so
    // many leaves, and that the first which stays, by whose time its segment stays, is the next.
    if !tree.has_leaf(&last_line(last, counted)?, leaves - 1) || !tree.has_leaf(&following, leaves) {
        return Err(SigningError::Hashes);
    }
    let frontier = tree.nodes.frontier(leaves).map_err(|_| SigningError::Hashes)?;
    let ranges = merkle::consistency_ranges(leaves, tree.frontier.size());
    let path = merkle::path(&tree.nodes, &ranges).map_err(|_| SigningError::Hashes)?;
    if !merkle::continues(leaves, &frontier.root(), tree.frontier.size(), &tree.frontier.root(), &path) {
        return Err(SigningError::Hashes);
    }
    let base = Base { leaves, tip, nodes: frontier.nodes().to_vec() };
    let bytes = sizes.iter().take(count).sum();
    Ok(Some(Removal { base, bytes }))
}

/// When the first record of a segment was made.
fn begun(segment: &Path) -> io::Result<String> {
    let first = first_line(segment)?;
    let time = Lead::read(&first).and_then(|first| first.time());
    time.map(|time| String::from_utf8_lossy(time).into_owned()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn first_line(segment: &Path) -> io::Result<Vec<u8>> {
    let mut lines = Lines::open(segment, LINE_BYTES_MAX)?;
    let first = lines.next()?.and_then(|line| line.strip_suffix(b"\n"));
    Ok(first.unwrap_or_default().to_vec())
}

/// The last line within the first `bytes` bytes of a segment.
fn last_line(segment: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let end = segment.metadata()?.len().min(bytes);
    let (mut lines, mut last) = (Lines::open_at(segment, end.saturating_sub(LINE_BYTES_MAX), end)?, Vec::new());
    while let Some(line) = lines.next()? {
        last.clear();
        last.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    }
    Ok(last)
}

/// Removes what is due, once a record that is signed says so. After a crash in between, the next start removes the files that are left.
pub(super) fn remove(audit: &Path, key: &SigningKey, tree: &mut Tree, removal: &Removal) -> io::Result<()> {
    removal.base.write(audit, key)?;
    tree.forget(&removal.base)?;
    for segment in chain::segments(audit).map_err(io::Error::other)? {
        if chain::first_seq(&segment).is_some_and(|first| first <= removal.base.tip.seq) {
            fs::remove_file(&segment)?;
        }
    }
    forget_checkpoints(audit, removal.base.leaves)?;
    File::open(audit)?.sync_all()
}

/// Drops the checkpoints over less than what was removed, but for the last of them.
fn forget_checkpoints(audit: &Path, leaves: u64) -> io::Result<()> {
    let path = checkpoints::file(audit);
    let mut reader = BufReader::new(File::open(&path)?);
    let (mut keep, mut at) = (0, 0);
    loop {
        let mut note = Vec::new();
        for _ in 0..checkpoints::NOTE_LINES {
            reader.by_ref().take(NOTE_BYTES_MAX as u64).read_until(b'\n', &mut note)?;
        }
        let checkpoint = std::str::from_utf8(&note).ok().and_then(Checkpoint::unverified);
        if checkpoint.is_none_or(|checkpoint| checkpoint.size > leaves) {
            break;
        }
        keep = at;
        at += note.len() as u64;
    }
    if keep == 0 {
        return Ok(());
    }
    let temporary = audit.join(".checkpoints.new");
    let mut old = reader.into_inner();
    old.seek(SeekFrom::Start(keep))?;
    let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    io::copy(&mut old, &mut new)?;
    new.sync_all()?;
    fs::rename(&temporary, &path)
}
