//! How does the tree follow the segments?
//!
//! It reads the lines that are kept, follows their chain, and takes each in as a leaf. It can go on from any size that the
//! kept hashes cover, once they came out at a signed root.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::mem;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;

use crate::audit::chain;
use crate::audit::chain::Break;
use crate::audit::chain::Flaw;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::chain::Tip;
use crate::audit::evidence::base::BadBase;
use crate::audit::evidence::base::Base;
use crate::audit::evidence::find;
use crate::audit::evidence::merkle;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::nodes::NodeFiles;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::VerifyingKey;

/// How far lines are taken in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// Up to this number.
    Seq(u64),
    /// Until the tree has as many leaves.
    Leaves(u64),
}

/// A tree, and the place in the segments at which it goes on.
#[derive(Debug)]
pub(super) struct Tree {
    audit: PathBuf,
    pub(super) nodes: NodeFiles,
    pub(super) frontier: Frontier,
    /// The last line taken in.
    pub(super) tip: Tip,
    /// The segment that is read, and where the next line begins.
    at: Option<(PathBuf, u64)>,
    /// Number of the last record that was removed.
    removed: u64,
    /// Segments that lines were taken from since they were last asked for.
    touched: Vec<PathBuf>,
}

impl Tree {
    /// A tree with nothing in it but what was removed. Its hashes are kept beside those there are, until it is
    /// [settled](NodeFiles::settle).
    pub(super) fn begin(audit: &Path, key: &VerifyingKey) -> Result<Self, BadBase> {
        let base = Base::open(audit, key)?;
        let nodes = NodeFiles::anew(audit, base.clone())?;
        let frontier = base.as_ref().and_then(Base::frontier).unwrap_or_default();
        let tip = base.map_or(Tip::START, |base| base.tip);
        let (audit, removed) = (audit.to_owned(), tip.seq);
        Ok(Self { audit, nodes, frontier, tip, at: None, removed, touched: Vec::new() })
    }

    /// The tree as it was at a checkpoint, from the kept hashes; `None` if they do not bear it out.
    pub(super) fn resume(audit: &Path, checkpoint: &Checkpoint, key: &VerifyingKey) -> Result<Option<Self>, BadBase> {
        let base = Base::open(audit, key)?;
        let removed = base.as_ref().map_or(0, |base| base.tip.seq);
        let is_beyond_base = base.as_ref().map_or(0, |base| base.leaves) < checkpoint.size;
        let mut nodes = NodeFiles::of(audit, base);
        if !is_beyond_base || !nodes.cut(checkpoint.size)? {
            return Ok(None);
        }
        let resume = || {
            let frontier = nodes.frontier(checkpoint.size).ok().filter(|tree| tree.root() == checkpoint.root)?;
            let last = checkpoint.size.checked_sub(1)?;
            let seq = nodes.seq_of(last).ok()?;
            let place = find::find(audit, seq).ok()??;
            is_leaf(&nodes, &place.line, last, checkpoint.size, &checkpoint.root).then_some((frontier, seq, place))
        };
        let Some((frontier, seq, place)) = resume() else { return Ok(None) };
        let tip = Tip { seq, hash: Sha256::digest(&place.line).into() };
        let at = Some((place.segment, place.offset + place.line.len() as u64 + 1));
        Ok(Some(Self { audit: audit.to_owned(), nodes, frontier, tip, at, removed, touched: Vec::new() }))
    }

    /// Takes in lines, at most `lines_max` of them, and calls `grown` after each. Whether there may be more. The last line is followed by one
    /// that names its digest, or by none.
    pub(super) fn grow(
        &mut self,
        until: Until,
        lines_max: u64,
        mut grown: impl FnMut(&Frontier),
    ) -> Result<bool, Break> {
        let segments: Vec<PathBuf> = chain::segments(&self.audit)?
            .into_iter()
            .filter(|segment| chain::first_seq(segment).is_some_and(|first| first > self.removed))
            .collect();
        let first = self.at.as_ref().and_then(|(at, _)| segments.iter().position(|segment| segment == at));
        if let (Some((missing, _)), None) = (&self.at, first) {
            return Err(Break {
                file: missing.clone(),
                line: 0,
                flaw: Flaw::Unreadable(io::ErrorKind::NotFound.into()),
            });
        }
        let mut left = lines_max;
        for (position, segment) in segments.iter().enumerate().skip(first.unwrap_or(0)) {
            let next = segments.get(position + 1);
            let mut offset = self.at.take().filter(|(at, _)| at == segment).map_or(0, |(_, offset)| offset);
            let end = self.grow_by(segment, &mut offset, next, until, &mut left, &mut grown);
            self.at = Some((segment.clone(), offset));
            match end.map_err(|flaw| Break { file: segment.clone(), line: line_at(segment, offset), flaw })? {
                End::OfSegment => {}
                End::Reached => return Ok(false),
                End::Enough => return Ok(true),
            }
        }
        Ok(false)
    }

    fn grow_by(
        &mut self,
        segment: &Path,
        offset: &mut u64,
        next: Option<&PathBuf>,
        until: Until,
        left: &mut u64,
        grown: &mut impl FnMut(&Frontier),
    ) -> Result<End, Flaw> {
        let mut lines = Lines::open_at(segment, *offset, chain::counted_bytes(segment, next)?)?;
        let before = *offset;
        loop {
            if matches!(until, Until::Leaves(leaves) if self.frontier.size() >= leaves) {
                return Ok(End::Reached);
            }
            let Some(whole) = lines.next()? else { return Ok(End::OfSegment) };
            let Some(line) = whole.strip_suffix(b"\n") else {
                // The last line may be on its way; where another segment goes on, it never comes.
                let is_last = next.is_none_or(|next| next.metadata().is_ok_and(|next| next.len() == 0));
                return if is_last { Ok(End::Reached) } else { Err(Flaw::Torn) };
            };
            let lead = Lead::read(line).ok_or(Flaw::NotARecord)?;
            if matches!(until, Until::Seq(seq) if lead.seq > seq) {
                return Ok(End::Reached);
            }
            let tip = lead.follow(self.tip, line)?;
            if *offset == 0 && chain::first_seq(segment) != Some(tip.seq) {
                return Err(Flaw::WrongName);
            }
            if *left == 0 {
                // It vouches for the line before it, which is the last to be taken in.
                return Ok(End::Enough);
            }
            if tip.seq != self.tip.seq + 1 || self.at_start() {
                self.nodes.position(tip.seq, self.frontier.size());
            }
            if *offset == before {
                self.touched.push(segment.to_owned());
            }
            let nodes = &mut self.nodes;
            self.frontier.push(merkle::leaf_hash(line), |level, hash| nodes.complete(level, hash));
            self.tip = tip;
            *offset += whole.len() as u64;
            *left -= 1;
            grown(&self.frontier);
        }
    }

    /// Whether no line was taken in since what was removed.
    fn at_start(&self) -> bool {
        self.tip.seq == self.removed
    }

    /// The segment that the last line taken in stands in.
    pub(super) fn segment(&self) -> Option<&Path> {
        self.at.as_ref().map(|(segment, _)| segment.as_path())
    }

    /// Whether a line is this leaf of the tree: the kept hashes alone do not say so.
    pub(super) fn has_leaf(&self, line: &[u8], leaf: u64) -> bool {
        is_leaf(&self.nodes, line, leaf, self.frontier.size(), &self.frontier.root())
    }

    /// Number of the last record that was removed.
    pub(super) fn removed(&self) -> u64 {
        self.removed
    }

    /// Segments that lines were taken from since this was last asked.
    pub(super) fn touched(&mut self) -> Vec<PathBuf> {
        mem::take(&mut self.touched)
    }

    /// The first records are about to be removed.
    pub(super) fn forget(&mut self, base: &Base) -> io::Result<()> {
        self.removed = base.tip.seq;
        self.nodes.forget(base)
    }
}

/// Whether a line is proved to be this leaf of a tree of this root.
fn is_leaf(nodes: &NodeFiles, line: &[u8], leaf: u64, size: u64, root: &Hash) -> bool {
    leaf < size
        && merkle::path(nodes, &merkle::inclusion_ranges(leaf, size))
            .is_ok_and(|path| merkle::includes(&merkle::leaf_hash(line), leaf, size, &path, root))
}

/// Why no more lines of a segment are taken in.
enum End {
    OfSegment,
    Reached,
    Enough,
}

/// Number of the line that begins at `offset`, for a message; 0 if it cannot be told.
fn line_at(segment: &Path, offset: u64) -> u64 {
    let mut text = Vec::new();
    let read = File::open(segment).and_then(|file| file.take(offset).read_to_end(&mut text));
    read.map_or(0, |_| memchr::memchr_iter(b'\n', &text).count() as u64 + 1)
}
