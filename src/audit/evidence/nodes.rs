//! Where are the hashes of the tree kept?
//!
//! In `tree/` below the audit directory: the nodes of every eighth level one after the other (`hashes.0` has the leaves,
//! `hashes.1` a node for each 256 of them), and in `positions` at which leaf a run of numbers begins. All of it follows from
//! the segments, is made again where it is missing, and is believed only as far as a signed root bears it out.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use rustix::fs::fallocate;

use crate::audit::evidence::base::Base;
use crate::audit::evidence::merkle;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::merkle::Nodes;

/// Levels of the tree from one file to the next.
const STEP: u32 = 8;
/// Files that can be needed: one for each eight levels.
const FILES_MAX: u32 = u64::BITS / STEP;
const HASH_BYTES: u64 = 32;
/// What the names of files end in that are made anew, with the process's number behind it.
const ATTEMPT: &str = ".new.";
/// Bytes of one entry of `positions`: a number and a leaf.
const POSITION_BYTES: u64 = 16;

/// The kept hashes of one log's tree.
#[derive(Debug)]
pub(super) struct NodeFiles {
    directory: PathBuf,
    /// What names end in while files are made anew.
    attempt: String,
    /// What stands for the records that were removed.
    base: Option<Base>,
    pending: [Vec<u8>; FILES_MAX as usize],
    positions: Vec<u8>,
}

impl NodeFiles {
    /// The files below an audit directory, whether or not they are there.
    pub(super) fn of(audit: &Path, base: Option<Base>) -> Self {
        let (directory, attempt) = (audit.join("tree"), String::new());
        Self { directory, attempt, base, pending: Default::default(), positions: Vec::new() }
    }

    /// Files that are made anew, under names of this process's own until they are [settled](NodeFiles::settle). They begin after
    /// what was removed, if anything was; the hashes of that are holes.
    pub(super) fn anew(audit: &Path, base: Option<Base>) -> io::Result<Self> {
        let nodes = Self { attempt: format!("{ATTEMPT}{}", std::process::id()), ..Self::of(audit, base) };
        make(&nodes.directory)?;
        let leaves = nodes.base.as_ref().map_or(0, |base| base.leaves);
        for file in 0..FILES_MAX {
            remove(&nodes.hashes(file))?;
            let bytes = (leaves >> (file * STEP)) * HASH_BYTES;
            if bytes > 0 {
                open(&nodes.hashes(file))?.set_len(bytes)?;
            }
        }
        remove(&nodes.positions_file())?;
        Ok(nodes)
    }

    /// Puts files that were made anew in place of those there are. To be called in turn with others who write them. A crash in between
    /// leaves files that bear no root out, and are made anew.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.write()?;
        let paths = |nodes: &Self| -> Vec<PathBuf> {
            (0..FILES_MAX).map(|file| nodes.hashes(file)).chain([nodes.positions_file()]).collect()
        };
        let made = paths(self);
        self.attempt.clear();
        for (made, place) in made.iter().zip(paths(self)).filter(|(made, place)| *made != place) {
            match fs::rename(made, &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove(&place)?,
                renamed => renamed?,
            }
        }
        Ok(())
    }

    /// Has the files made anew by whoever wants to go on with them.
    pub(super) fn discard(&self) -> io::Result<()> {
        remove(&self.positions_file())
    }

    fn hashes(&self, file: u32) -> PathBuf {
        self.directory.join(format!("hashes.{file}{}", self.attempt))
    }

    fn positions_file(&self) -> PathBuf {
        self.directory.join(format!("positions{}", self.attempt))
    }

    /// Takes in a node that became complete.
    pub(super) fn complete(&mut self, level: u32, hash: &Hash) {
        if level.is_multiple_of(STEP)
            && let Some(pending) = self.pending.get_mut((level / STEP) as usize)
        {
            pending.extend_from_slice(hash);
        }
    }

    /// Takes in that record `seq` is leaf `leaf`, where that does not follow from the one before.
    pub(super) fn position(&mut self, seq: u64, leaf: u64) {
        self.positions.extend_from_slice(&seq.to_be_bytes());
        self.positions.extend_from_slice(&leaf.to_be_bytes());
    }

    /// Hands to the kernel what was taken in.
    pub(super) fn write(&mut self) -> io::Result<()> {
        make(&self.directory)?;
        for file in 0..FILES_MAX {
            let path = self.hashes(file);
            if let Some(pending) = self.pending.get_mut(file as usize) {
                append(&path, pending)?;
            }
        }
        append(&self.positions_file(), &mut self.positions)
    }

    /// Cuts the files to a tree of `size` leaves. Whether they hold all of one.
    pub(super) fn cut(&mut self, size: u64) -> io::Result<bool> {
        make(&self.directory)?;
        self.pending.iter_mut().for_each(Vec::clear);
        self.positions.clear();
        let mut is_whole = true;
        for file in 0..FILES_MAX {
            is_whole &= cut(&self.hashes(file), (size >> (file * STEP)) * HASH_BYTES)?;
        }
        let runs = self.runs_before(size)?;
        cut(&self.positions_file(), runs * POSITION_BYTES)?;
        let is_empty = self.base.as_ref().map_or(0, |base| base.leaves) == size;
        Ok(is_whole && (runs > 0 || is_empty))
    }

    /// Gives back the room of hashes that no proof needs once the records before `base` are removed.
    pub(super) fn forget(&mut self, base: &Base) -> io::Result<()> {
        // What the base is made of stays readable from it alone.
        self.base = Some(base.clone());
        let bytes = (base.leaves >> STEP << STEP) * HASH_BYTES;
        if bytes > 0 {
            let file = open(&self.hashes(0))?;
            // A courtesy of the file system.
            let _ = fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, bytes);
        }
        Ok(())
    }

    /// The frontier of a tree of `size` leaves.
    pub(super) fn frontier(&self, size: u64) -> io::Result<Frontier> {
        let nodes: io::Result<Vec<Hash>> =
            merkle::complete_trees(size).map(|(level, index)| self.node(level, index)).collect();
        Frontier::new(size, nodes?).ok_or_else(damaged)
    }

    /// Which leaf record `seq` is, if it is one at all.
    pub(super) fn leaf_of(&self, seq: u64) -> io::Result<u64> {
        let (first, leaf) = self.run(|run| run.0 <= seq)?.ok_or_else(damaged)?;
        leaf.checked_add(seq - first).ok_or_else(damaged)
    }

    /// Which record leaf `leaf` is.
    pub(super) fn seq_of(&self, leaf: u64) -> io::Result<u64> {
        let (seq, first) = self.run(|run| run.1 <= leaf)?.ok_or_else(damaged)?;
        seq.checked_add(leaf - first).ok_or_else(damaged)
    }

    fn runs_before(&self, size: u64) -> io::Result<u64> {
        let Some(file) = existing(&self.positions_file())? else { return Ok(0) };
        partition(&file, |run| run.1 < size)
    }

    /// The last run of which `holds` is true; it is true of all before.
    fn run(&self, holds: impl Fn((u64, u64)) -> bool) -> io::Result<Option<(u64, u64)>> {
        let Some(file) = existing(&self.positions_file())? else { return Ok(None) };
        match partition(&file, holds)?.checked_sub(1) {
            Some(position) => entry(&file, position).map(Some),
            None => Ok(None),
        }
    }

    /// What the base says of a node, or why nobody can know it.
    fn base_node(&self, level: u32, index: u64) -> io::Result<Option<Hash>> {
        let Some(base) = &self.base else { return Ok(None) };
        let mut nodes = merkle::complete_trees(base.leaves).zip(&base.nodes);
        Ok(nodes.find(|(name, _)| *name == (level, index)).map(|(_, hash)| *hash))
    }
}

impl Nodes for NodeFiles {
    fn node(&self, level: u32, index: u64) -> io::Result<Hash> {
        if let Some(hash) = self.base_node(level, index)? {
            return Ok(hash);
        }
        let removed = self.base.as_ref().map_or(0, |base| base.leaves);
        if !level.is_multiple_of(STEP) && index << level < removed {
            // Of its halves at least one may be the base's.
            let (left, right) = (self.node(level - 1, index * 2)?, self.node(level - 1, index * 2 + 1)?);
            return Ok(merkle::node_hash(&left, &right));
        }
        let file = existing(&self.hashes(level / STEP))?.ok_or_else(damaged)?;
        let mut stored = vec![[0; 32]; 1 << (level % STEP)];
        let first =
            index.checked_shl(level % STEP).and_then(|first| first.checked_mul(HASH_BYTES)).ok_or_else(damaged)?;
        file.read_exact_at(stored.as_flattened_mut(), first)?;
        if stored.contains(&[0; 32]) {
            return Err(damaged());
        }
        while stored.len() > 1 {
            let (pairs, _) = stored.as_chunks::<2>();
            stored = pairs.iter().map(|[left, right]| merkle::node_hash(left, right)).collect();
        }
        stored.first().copied().ok_or_else(damaged)
    }
}

/// Removes what attempts to make the files anew left when they were killed. Nobody else may be at it.
pub(in crate::audit) fn forget_attempts(audit: &Path) -> io::Result<()> {
    let entries = match audit.join("tree").read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(ATTEMPT) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kept hashes of the tree are incomplete")
}

fn make(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn append(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(bytes)?;
    bytes.clear();
    Ok(())
}

/// Cuts a file to `bytes`; whether it had as many.
fn cut(path: &Path, bytes: u64) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > bytes => {
            OpenOptions::new().write(true).open(path)?.set_len(bytes).map(|()| true)
        }
        Ok(metadata) => Ok(metadata.len() == bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes == 0),
        Err(error) => Err(error),
    }
}

fn entry(file: &File, position: u64) -> io::Result<(u64, u64)> {
    let mut bytes = [[0; 8]; 2];
    file.read_exact_at(bytes.as_flattened_mut(), position * POSITION_BYTES)?;
    let [seq, leaf] = bytes.map(u64::from_be_bytes);
    Ok((seq, leaf))
}

/// How many runs there are before the first of which `holds` is not true.
fn partition(file: &File, holds: impl Fn((u64, u64)) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.metadata()?.len() / POSITION_BYTES);
    while low < high {
        let middle = low.midpoint(high);
        if holds(entry(file, middle)?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
