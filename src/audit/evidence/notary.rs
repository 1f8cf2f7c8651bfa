//! What does the gateway vouch for, and when does it refuse to?
//!
//! On a thread of its own, beside the calls: it reads the lines that are kept, has them on the disk, and signs a checkpoint for
//! each thousand of them and for the last. It signs no tree that does not begin with all of the one it signed before: a log of which
//! records are gone or others came is not gone on with.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::audit::Retention;
use crate::audit::chain::Break;
use crate::audit::chain::Tip;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::grow::Links;
use crate::audit::evidence::grow::Tree;
use crate::audit::evidence::grow::Until;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::SigningKey;
use crate::audit::evidence::retain;
use crate::audit::evidence::retain::Removal;
use crate::audit::segments::Cut;
use crate::disk::append::AppendFile;
use crate::disk::replace::replace;

/// Records from one checkpoint to the next.
pub const CHECKPOINT_RECORDS_MAX: u64 = 1_000;
/// Records that are taken in at a time, so that another process gets its turn.
pub(in crate::audit) const ROUND_RECORDS_MAX: u64 = 100_000;
/// Bytes of the disk that are reserved for checkpoints at a time.
const RESERVE_BYTES: u64 = 64 * 1024;
/// How often the newest checkpoint is put down where the log is not.
const COPY_PAUSE: Duration = Duration::from_secs(10);

/// What signs, and where the newest checkpoint is put down a second time.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The key.
    pub key: Arc<SigningKey>,
    /// A file outside of the audit directory: whoever puts an older copy of that in its place is found out by it.
    pub copy: PathBuf,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The log does not begin with what was signed.
    #[error(
        "the log is not the one that was signed: {signed} records were signed by `{file}`, and {what} (help: records were removed or \
         changed, or an older copy was put in place of the directory. Put the records back; or keep the directory as evidence and move it \
         away together with `audit.key` and `audit.checkpoint` in the state directory: a new log with a new key begins)",
        file = file.display()
    )]
    Inconsistent {
        /// Records that were signed.
        signed: u64,
        /// The file that says so.
        file: PathBuf,
        /// What was found instead.
        what: &'static str,
    },
    /// The chain does not hold where it was read.
    #[error(
        "the audit chain is broken: {0} (help: the segment was changed or damaged; keep it, and begin a new audit directory)"
    )]
    Broken(#[from] Break),
    /// A line is not what was written.
    #[error(
        "record {0} in the segment is not the one that was written: somebody changes the record (help: keep the audit directory as evidence)"
    )]
    Changed(u64),
    /// The newest checkpoint is not this key's.
    #[error(
        "the newest checkpoint in `{file}` cannot be relied on: {why} (help: put back the file, or the key that signed it; or move the audit \
         directory and `audit.checkpoint` in the state directory away, so that a new log begins)",
        file = file.display()
    )]
    Note {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: crate::audit::evidence::note::BadNote,
    },
    /// Lines did not reach the disk.
    #[error("records cannot be put on the disk: {0}")]
    Sync(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("checkpoints cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Signs checkpoints for one audit directory, in turn with other processes.
#[derive(Debug)]
pub(in crate::audit) struct Notary {
    audit: PathBuf,
    signing: Signing,
    file: AppendFile,
    /// The tree up to the last checkpoint; made again after an error, or when another process signed.
    tree: Option<Tree>,
    /// The newest checkpoint, where this process signed it, and what of it was put down a second time.
    newest: Option<String>,
    copied: Option<Instant>,
}

impl Notary {
    /// Looks whether the log continues what was signed, and cuts off what a crash left of a checkpoint. Reads only what follows
    /// the last checkpoint, unless the kept hashes are gone.
    pub(in crate::audit) fn open(audit: &Path, signing: Signing) -> Result<(Self, Option<Cut>), SigningError> {
        let path = checkpoints::file(audit);
        let mut file = match AppendFile::create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => AppendFile::open(&path)?,
            created => created?,
        };
        file = file.reserving(RESERVE_BYTES);
        let cut = file.in_turn(|file, _| {
            let tail = checkpoints::tail(&path)?;
            let is_torn = tail.torn > 0;
            if is_torn {
                file.cut(tail.whole)?;
            }
            let name = "checkpoints".to_owned();
            Ok(is_torn.then_some(Cut { segment: name, kept: tail.whole, cut: tail.torn }))
        })?;
        let mut notary = Self { audit: audit.to_owned(), signing, file, tree: None, newest: None, copied: None };
        let tree = notary.in_turn(|audit, signing, _, _| {
            let mut tree = load(audit, signing)?;
            continues_copy(&mut tree, signing)?;
            Ok(tree)
        })?;
        notary.tree = Some(tree);
        Ok((notary, cut))
    }

    fn in_turn<T>(
        &mut self,
        act: impl FnOnce(&Path, &Signing, &mut AppendFile, bool) -> Result<T, SigningError>,
    ) -> Result<T, SigningError> {
        let (audit, signing) = (&self.audit, &self.signing);
        self.file.in_turn(|file, is_moved| Ok(act(audit, signing, file, is_moved)))?
    }

    /// Signs for everything up to record `kept`. With `sync` it puts the lines on the disk first; they are there otherwise. Whether there
    /// may be more.
    pub(in crate::audit) fn round(&mut self, kept: Tip, sync: bool) -> Result<bool, SigningError> {
        if self.tree.as_ref().is_some_and(|tree| tree.tip.seq >= kept.seq) {
            return Ok(false);
        }
        let before = self.tree.take();
        let (tree, newest, more) = self.in_turn(|audit, signing, file, is_moved| {
            let mut tree = match before.filter(|_| !is_moved) {
                Some(tree) => tree,
                None => load(audit, signing)?,
            };
            let mut heads = Vec::new();
            let mut signed = tree.frontier.size();
            let more = tree.grow(Until::Seq(kept.seq), Links::First, ROUND_RECORDS_MAX, |frontier| {
                if frontier.size() - signed == CHECKPOINT_RECORDS_MAX {
                    signed = frontier.size();
                    heads.push((signed, frontier.root()));
                }
            })?;
            if tree.tip.seq == kept.seq && tree.tip.hash != kept.hash {
                return Err(SigningError::Changed(kept.seq));
            }
            if tree.frontier.size() > signed {
                heads.push((tree.frontier.size(), tree.frontier.root()));
            }
            for segment in tree.touched().into_iter().filter(|_| sync) {
                // What is signed must be there after a power cut.
                File::open(segment).and_then(|segment| segment.sync_data()).map_err(SigningError::Sync)?;
            }
            tree.nodes.write()?;
            let notes: Vec<String> = heads.iter().map(|(size, root)| signing.key.sign(*size, root)).collect();
            let whole = file.bytes();
            if let Err(error) = file.append(notes.concat().as_bytes()) {
                file.cut(whole)?;
                return Err(error.into());
            }
            Ok((tree, notes.into_iter().next_back(), more))
        })?;
        self.tree = Some(tree);
        self.newest = newest.or(self.newest.take());
        if self.copied.is_none_or(|copied| copied.elapsed() > COPY_PAUSE) {
            self.copy()?;
        }
        Ok(more)
    }

    /// Number of the last record under a checkpoint.
    pub(in crate::audit) fn signed_seq(&self) -> u64 {
        self.tree.as_ref().map_or(0, |tree| tree.tip.seq)
    }

    /// What is to be removed by these rules, if anything is and all is well.
    pub(in crate::audit) fn due(&self, retention: Retention, now_micros: u64) -> Result<Option<Removal>, SigningError> {
        let Some(tree) = &self.tree else { return Ok(None) };
        Ok(retain::due(&self.audit, tree, retention, now_micros)?)
    }

    /// Removes it. A record that says so must be signed, and no other process may write.
    pub(in crate::audit) fn remove(&mut self, removal: &Removal) -> Result<(), SigningError> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        retain::remove(&self.audit, tree, removal)?;
        self.file = AppendFile::open(&checkpoints::file(&self.audit))?.reserving(RESERVE_BYTES);
        Ok(())
    }

    /// Puts the newest checkpoint down a second time.
    pub(in crate::audit) fn copy(&mut self) -> Result<(), SigningError> {
        self.copied = Some(Instant::now());
        if let Some(newest) = self.newest.take() {
            // First the one, then the other: the copy is never ahead of the log.
            self.file.sync().map_err(SigningError::Sync)?;
            replace(&self.signing.copy, newest.as_bytes())?;
        }
        Ok(())
    }
}

/// The tree up to the newest checkpoint in the file.
fn load(audit: &Path, signing: &Signing) -> Result<Tree, SigningError> {
    let file = checkpoints::file(audit);
    let Some(note) = checkpoints::tail(&file)?.last else { return Ok(Tree::begin(audit)?) };
    let checkpoint = signing.key.public().open(&note).map_err(|why| SigningError::Note { file: file.clone(), why })?;
    if let Some(tree) = Tree::resume(audit, &checkpoint)? {
        return Ok(tree);
    }
    tracing::warn!(
        records = checkpoint.size,
        "the kept hashes of the audit log's tree do not hold: every record is read"
    );
    let mut tree = Tree::begin(audit)?;
    reach(&mut tree, &checkpoint, &file)?;
    tree.nodes.write()?;
    Ok(tree)
}

/// Takes in lines up to a checkpoint, and sees whether it comes out.
fn reach(tree: &mut Tree, checkpoint: &Checkpoint, file: &Path) -> Result<(), SigningError> {
    let inconsistent = |what| SigningError::Inconsistent { signed: checkpoint.size, file: file.to_owned(), what };
    tree.grow(Until::Leaves(checkpoint.size), Links::All, u64::MAX, |_| {})?;
    if tree.frontier.size() < checkpoint.size {
        return Err(inconsistent("fewer are there"));
    }
    let is_same = tree.frontier.size() == checkpoint.size && tree.frontier.root() == checkpoint.root;
    if is_same { Ok(()) } else { Err(inconsistent("others are there")) }
}

/// Whether the log reaches as far as the copy outside of it says.
fn continues_copy(tree: &mut Tree, signing: &Signing) -> Result<(), SigningError> {
    let file = &signing.copy;
    let note = match std::fs::read_to_string(file) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let opened = signing.key.public().open(&note);
    let checkpoint = opened.map_err(|why| SigningError::Note { file: file.clone(), why })?;
    if checkpoint.size > tree.frontier.size() {
        return reach(tree, &checkpoint, file);
    }
    if checkpoint.size > 0 {
        // Where the hashes were removed there is nothing to compare with, and later roots were.
        let is_same = tree.nodes.frontier(checkpoint.size).map_or(true, |then| then.root() == checkpoint.root);
        if !is_same {
            let what = "others are there";
            return Err(SigningError::Inconsistent { signed: checkpoint.size, file: file.clone(), what });
        }
    }
    Ok(())
}
