//! What can be shown of one record to somebody who has nothing but the public key?
//!
//! Two texts that stand alone. The proof of a record has the form of c2sp.org/tlog-proof, with the record's line as its extra data. The proof
//! that one checkpoint continues another is of the same make and our own.

use std::fmt;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::evidence::base::Base;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::find;
use crate::audit::evidence::merkle;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::merkle::Range;
use crate::audit::evidence::nodes::NodeFiles;
use crate::audit::evidence::note::BadNote;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::VerifyingKey;
use crate::audit::evidence::verify::Fault;
use crate::audit::evidence::walk;

/// The first line of a proof that a record is there.
const OF_RECORD: &str = "c2sp.org/tlog-proof@v1";
/// The first line of a proof that one checkpoint continues another.
const OF_CHECKPOINTS: &str = "portcullis/consistency-proof@v1";

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum NoProof {
    /// There is no such record.
    #[error("there is no record {0}")]
    NoRecord(u64),
    /// No checkpoint covers it.
    #[error("no checkpoint covers this yet: a running gateway signs one within a second")]
    Unsigned,
    /// The text is no checkpoint.
    #[error("`{0}` is no checkpoint")]
    Note(String),
    /// A part of the tree that is needed was removed.
    #[error("this cannot be proved any more: records that it rests on were removed")]
    Removed,
    /// The records are not what was signed.
    #[error("the records are not those of the checkpoint: `portcullis audit verify` says where")]
    Changed,
    /// The record does not hold.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Something cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Proves that record `seq` is in the tree of `note`, or of the newest checkpoint in the directory.
///
/// # Errors
/// See [`NoProof`].
pub fn prove_record(audit: &Path, seq: u64, note: Option<&str>) -> Result<String, NoProof> {
    let (note, checkpoint) = head(audit, note)?;
    let place = find::find(audit, seq)?.ok_or(NoProof::NoRecord(seq))?;
    let base = Base::read(audit)?;
    let nodes = NodeFiles::of(audit, base.clone());
    let leaf = merkle::leaf_hash(&place.line);
    let proves = |index: u64, path: &[Hash]| merkle::includes(&leaf, index, checkpoint.size, path, &checkpoint.root);
    let kept = nodes.leaf_of(seq).ok().and_then(|index| {
        let path = merkle::path(&nodes, &merkle::inclusion_ranges(index, checkpoint.size)).ok()?;
        proves(index, &path).then_some((index, path))
    });
    let (index, path) = match kept {
        Some(kept) => kept,
        None => {
            // The kept hashes are gone, or damaged: everything is read.
            let index = leaf_by_reading(audit, base.as_ref(), seq)?.ok_or(NoProof::NoRecord(seq))?;
            if index >= checkpoint.size {
                return Err(NoProof::Unsigned);
            }
            let path = path_by_reading(audit, base.as_ref(), &merkle::inclusion_ranges(index, checkpoint.size))?;
            if !proves(index, &path) {
                return Err(NoProof::Changed);
            }
            (index, path)
        }
    };
    Ok(format!("{OF_RECORD}\nextra {}\nindex {index}\n{}\n{note}", STANDARD.encode(&place.line), Lines(&path)))
}

/// Proves that the tree of `new`, or of the newest checkpoint in the directory, continues that of `old`.
///
/// # Errors
/// See [`NoProof`].
pub fn prove_continued(audit: &Path, old: &str, new: Option<&str>) -> Result<String, NoProof> {
    let (old, before) = head(audit, Some(old))?;
    let (new, after) = head(audit, new)?;
    let base = Base::read(audit)?;
    let nodes = NodeFiles::of(audit, base.clone());
    let ranges = merkle::consistency_ranges(before.size, after.size);
    let proves = |path: &[Hash]| merkle::continues(before.size, &before.root, after.size, &after.root, path);
    let path = match merkle::path(&nodes, &ranges).ok().filter(|path| proves(path)) {
        Some(path) => path,
        None => path_by_reading(audit, base.as_ref(), &ranges)?,
    };
    if !proves(&path) {
        return Err(NoProof::Changed);
    }
    Ok(format!("{OF_CHECKPOINTS}\n{}\n{old}\n{new}", Lines(&path)))
}

/// A note and what it says.
fn head(audit: &Path, note: Option<&str>) -> Result<(String, Checkpoint), NoProof> {
    let note = match note {
        Some(note) => note.to_owned(),
        None => checkpoints::tail(&checkpoints::file(audit))?.last.ok_or(NoProof::Unsigned)?,
    };
    match Checkpoint::unverified(&note) {
        Some(checkpoint) => Ok((note, checkpoint)),
        None => Err(NoProof::Note(note.lines().next().unwrap_or_default().to_owned())),
    }
}

fn leaf_by_reading(audit: &Path, base: Option<&Base>, seq: u64) -> Result<Option<u64>, Fault> {
    let (mut leaf, mut found) = (base.map_or(0, |base| base.leaves), None);
    walk::walk(audit, base, |_, lead, _| {
        if lead.seq == seq {
            found = Some(leaf);
        }
        leaf += 1;
        Ok::<(), Fault>(())
    })?;
    Ok(found)
}

/// The hashes of nodes, from the lines alone.
fn path_by_reading(audit: &Path, base: Option<&Base>, ranges: &[Range]) -> Result<Vec<Hash>, NoProof> {
    let first = base.map_or(0, |base| base.leaves);
    let mut trees: Vec<(Range, Frontier)> = ranges.iter().map(|range| (*range, Frontier::default())).collect();
    for ((start, end), tree) in trees.iter_mut().filter(|((start, _), _)| *start < first) {
        // A node that begins before what is kept must begin as the base does, or be made of its nodes.
        let nodes = base.map(|base| merkle::complete_trees(base.leaves).zip(&base.nodes)).into_iter().flatten();
        let within = |(level, index): (u32, u64)| index << level >= *start && (index + 1) << level <= *end;
        let inner = nodes.filter(|(name, _)| within(*name)).map(|(_, hash)| *hash).collect();
        *tree = Frontier::new(first.min(*end) - *start, inner).ok_or(NoProof::Removed)?;
    }
    let mut leaf = first;
    walk::walk(audit, base, |line, _, _| {
        if let Some((_, tree)) = trees.iter_mut().find(|((start, end), _)| (*start..*end).contains(&leaf)) {
            tree.push(merkle::leaf_hash(line), |_, _| {});
        }
        leaf += 1;
        Ok::<(), Fault>(())
    })?;
    Ok(trees.iter().map(|(_, tree)| tree.root()).collect())
}

/// Hashes, one a line.
struct Lines<'h>(&'h [Hash]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))
    }
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proved {
    /// A record is in the tree of a checkpoint.
    Record {
        /// The record's line.
        line: String,
        /// Which leaf it is, from 0.
        index: u64,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// One checkpoint continues another.
    Continued {
        /// The older.
        old: Checkpoint,
        /// The newer.
        new: Checkpoint,
    },
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// It does not have the form.
    #[error("it is no proof")]
    Form,
    /// Its checkpoint is not to be believed.
    #[error("its checkpoint is not valid: {0}")]
    Note(#[from] BadNote),
    /// The hashes do not come out.
    #[error("its hashes do not lead to what the checkpoint says")]
    Hashes,
}

/// What a proof proves to whoever trusts this key.
///
/// # Errors
/// See [`BadProof`].
pub fn check_proof(text: &str, key: &VerifyingKey) -> Result<Proved, BadProof> {
    let (first, rest) = text.split_once('\n').ok_or(BadProof::Form)?;
    // The notes behind the hashes have an empty line of their own.
    match first {
        OF_RECORD => {
            let (extra, rest) =
                rest.strip_prefix("extra ").and_then(|rest| rest.split_once('\n')).ok_or(BadProof::Form)?;
            let (index, rest) =
                rest.strip_prefix("index ").and_then(|rest| rest.split_once('\n')).ok_or(BadProof::Form)?;
            let number: u64 = index.parse().map_err(|_| BadProof::Form)?;
            if number.to_string() != index {
                return Err(BadProof::Form);
            }
            let (path, note) = hashes(rest)?;
            let checkpoint = key.open(note)?;
            let line = STANDARD.decode(extra).map_err(|_| BadProof::Form)?;
            if !merkle::includes(&merkle::leaf_hash(&line), number, checkpoint.size, &path, &checkpoint.root) {
                return Err(BadProof::Hashes);
            }
            let line = String::from_utf8(line).map_err(|_| BadProof::Form)?;
            Ok(Proved::Record { line, index: number, checkpoint })
        }
        OF_CHECKPOINTS => {
            let (path, notes) = hashes(rest)?;
            let (old, new) = checkpoints::split_pair(notes).ok_or(BadProof::Form)?;
            let (old, new) = (key.open(old)?, key.open(new)?);
            if !merkle::continues(old.size, &old.root, new.size, &new.root, &path) {
                return Err(BadProof::Hashes);
            }
            Ok(Proved::Continued { old, new })
        }
        _ => Err(BadProof::Form),
    }
}

/// Hashes up to an empty line, and what follows it.
fn hashes(text: &str) -> Result<(Vec<Hash>, &str), BadProof> {
    let (mut path, mut rest) = (Vec::new(), text);
    loop {
        let (line, after) = rest.split_once('\n').ok_or(BadProof::Form)?;
        rest = after;
        if line.is_empty() {
            return Ok((path, rest));
        }
        let hash = STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok()).ok_or(BadProof::Form)?;
        path.push(hash);
    }
}
