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
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::audit::Retention;
use crate::audit::chain::Break;
use crate::audit::chain::Tip;
use crate::audit::evidence::base;
use crate::audit::evidence::base::BadBase;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::grow::Tree;
use crate::audit::evidence::grow::Until;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::note::BadNote;
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
        "the audit chain is broken: {0} (help: the segment was changed or damaged, and `portcullis audit verify` says more. Put it back from \
         a copy; or keep the directory as evidence and move it away together with `audit.key` and `audit.checkpoint` in the state \
         directory: a new log with a new key begins)"
    )]
    Broken(#[from] Break),
    /// What stands for removed records is not this key's.
    #[error(
        "what stands for removed records in `{file}` cannot be relied on: {why} (help: put back the file and the first segments, or keep the \
         directory as evidence and move it away together with `audit.key` and `audit.checkpoint` in the state directory: a new log with a \
         new key begins)",
        file = file.display()
    )]
    Base {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: BadNote,
    },
    /// The kept hashes of the tree are not what they were.
    #[error(
        "the kept hashes of the audit log's tree are damaged: they are made anew, and until then nothing is removed"
    )]
    Hashes,
    /// Lines that were written are gone.
    #[error(
        "record {0} was written and is not in its segment: somebody cuts records off (help: keep the audit directory as evidence)"
    )]
    Missing(u64),
    /// It was to end while it read everything.
    #[error("the end came before every record was read: the next start goes on")]
    Ended,
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
        why: BadNote,
    },
    /// Lines did not reach the disk.
    #[error("records cannot be put on the disk: {0}")]
    Sync(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("checkpoints cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// A checkpoint that the log must continue, and which file it is from.
#[derive(Debug, Clone)]
struct Signed {
    checkpoint: Checkpoint,
    file: PathBuf,
}

/// How far the log is signed.
#[derive(Debug)]
pub(in crate::audit) struct SignedTo {
    /// The last record under a checkpoint.
    pub(in crate::audit) seq: u64,
    /// The segment it stands in.
    pub(in crate::audit) segment: Option<PathBuf>,
}

/// Signs checkpoints for one audit directory, in turn with other processes.
#[derive(Debug)]
pub(in crate::audit) struct Notary {
    audit: PathBuf,
    signing: Signing,
    file: AppendFile,
    /// The tree up to the last checkpoint; made again after an error, or when another process signed.
    tree: Option<Tree>,
    /// Whether the tree is beyond the newest checkpoint in the file, which was put in place of a newer one.
    is_ahead: bool,
    /// What this process signed last, or another before it: the log goes on from there, whatever becomes of the file.
    signed: Option<Signed>,
    /// The newest checkpoint, where this process signed it, and when one was last put down a second time.
    newest: Option<String>,
    copied: Option<Instant>,
    /// What was cut off the file and is not on record yet.
    torn: Option<Cut>,
    /// Set when the gateway is to end: nothing that takes its time is gone on with.
    ended: Arc<AtomicBool>,
}

impl Notary {
    /// Looks whether the log continues what was signed, and cuts off what a crash left of a checkpoint. Reads only what follows
    /// the last checkpoint, unless the kept hashes are gone.
    pub(in crate::audit) fn open(audit: &Path, signing: Signing) -> Result<(Self, Option<Cut>), SigningError> {
        let file = open_file(&checkpoints::file(audit))?;
        let mut notary = Self {
            audit: audit.to_owned(),
            signing,
            file,
            tree: None,
            is_ahead: false,
            signed: None,
            newest: None,
            copied: None,
            torn: None,
            ended: Arc::default(),
        };
        notary.signed = read_copy(&notary.signing)?;
        notary.load()?;
        let cut = notary.torn.take();
        Ok((notary, cut))
    }

    /// Number of the last record under a checkpoint, and the segment it stands in.
    pub(in crate::audit) fn signed_to(&self) -> SignedTo {
        let segment = self.tree.as_ref().and_then(Tree::segment).map(Path::to_owned);
        SignedTo { seq: self.signed_seq(), segment }
    }

    /// To be set when the gateway is to end.
    pub(in crate::audit) fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }

    /// What was cut off the file of checkpoints since this was last asked; it belongs on record.
    pub(in crate::audit) fn torn(&mut self) -> Option<Cut> {
        self.torn.take()
    }

    /// Has the file of checkpoints to itself: the one that the directory has now.
    fn in_turn<T>(&mut self, act: impl FnOnce(Turn<'_>) -> Result<T, SigningError>) -> Result<T, SigningError> {
        let path = checkpoints::file(&self.audit);
        let (mut act, mut is_other) = (Some(act), false);
        loop {
            let (audit, signing, torn) = (&self.audit, &self.signing, &mut self.torn);
            let acted = self.file.in_turn(|file, is_moved| {
                let act = if file.is_at(&path)? { act.take() } else { None };
                let is_moved = is_moved || is_other;
                Ok(act.map(|act| act(Turn { audit, signing, path: &path, file, torn, is_moved })))
            })?;
            if let Some(acted) = acted {
                return acted;
            }
            tracing::warn!(
                "the audit log's file of checkpoints is another than before: signing goes on in the one that is there"
            );
            self.file = open_file(&path)?;
            is_other = true;
        }
    }

    /// Takes up the tree at the newest checkpoint, and sees that it continues what was signed before. Where the kept hashes do not bear it
    /// out, every record is read, while others may sign.
    fn load(&mut self) -> Result<(), SigningError> {
        let (ended, signed) = (Arc::clone(&self.ended), self.signed.clone());
        let (resumed, newest) = self.in_turn(|turn| {
            *turn.torn = checkpoints::mend(turn.path, turn.file)?.or(turn.torn.take());
            let newest = newest(turn.path, turn.signing)?;
            let Some(then) = &newest else { return Ok((None, newest)) };
            let key = turn.signing.key.public();
            let mut tree = Tree::resume(turn.audit, &then.checkpoint, key).map_err(of_base(turn.audit))?;
            if let (Some(tree), Some(signed)) = (&mut tree, &signed) {
                continues(tree, signed, &ended)?;
            }
            Ok((tree, newest))
        })?;
        let (tree, newest) = match resumed {
            Some(tree) => (tree, newest),
            None => self.read_all(newest.as_ref())?,
        };
        self.is_ahead = newest.map_or(0, |newest| newest.checkpoint.size) < tree.frontier.size();
        self.tree = Some(tree);
        Ok(())
    }

    /// Reads every record up to the newest checkpoint, and in turn what was signed meanwhile.
    fn read_all(&mut self, newest_then: Option<&Signed>) -> Result<(Tree, Option<Signed>), SigningError> {
        if let Some(then) = newest_then {
            let records = then.checkpoint.size;
            tracing::warn!(records, "the kept hashes of the audit log's tree do not hold: every record is read");
        }
        let mut tree = Tree::begin(&self.audit, self.signing.key.public()).map_err(of_base(&self.audit))?;
        for signed in newest_then.into_iter().chain(&self.signed) {
            continues(&mut tree, signed, &self.ended)?;
        }
        let ended = Arc::clone(&self.ended);
        self.in_turn(|turn| {
            let newest = newest(turn.path, turn.signing)?;
            if let Some(newest) = &newest {
                continues(&mut tree, newest, &ended)?;
            }
            tree.nodes.settle()?;
            Ok((tree, newest))
        })
    }

    /// Signs for everything up to record `kept`. With `sync` it puts the lines on the disk first; they are there otherwise. Whether there
    /// may be more.
    pub(in crate::audit) fn round(&mut self, kept: Tip, sync: bool) -> Result<bool, SigningError> {
        let path = checkpoints::file(&self.audit);
        let is_done = self.tree.as_ref().is_some_and(|tree| tree.tip.seq >= kept.seq);
        if is_done && !self.is_ahead && self.file.is_at(&path)? {
            return Ok(false);
        }
        if self.tree.is_none() {
            self.load()?;
        }
        let Some(mut tree) = self.tree.take() else { return Ok(true) };
        let is_ahead = self.is_ahead;
        let signed = self.in_turn(|turn| {
            if turn.is_moved {
                // Somebody else signed, or wrote there: the tree is taken up anew.
                return Ok(None);
            }
            let mut signed = tree.frontier.size();
            let mut heads: Vec<(u64, Hash)> = is_ahead.then(|| (signed, tree.frontier.root())).into_iter().collect();
            let more = tree.grow(Until::Seq(kept.seq), ROUND_RECORDS_MAX, |frontier| {
                if frontier.size() - signed == CHECKPOINT_RECORDS_MAX {
                    signed = frontier.size();
                    heads.push((signed, frontier.root()));
                }
            })?;
            if tree.tip.seq == kept.seq && tree.tip.hash != kept.hash {
                return Err(SigningError::Changed(kept.seq));
            }
            if tree.tip.seq < kept.seq && !more {
                return Err(SigningError::Missing(kept.seq));
            }
            if tree.frontier.size() > signed {
                heads.push((tree.frontier.size(), tree.frontier.root()));
            }
            for segment in tree.touched().into_iter().filter(|_| sync) {
                // What is signed must be there after a power cut.
                File::open(segment).and_then(|segment| segment.sync_data()).map_err(SigningError::Sync)?;
            }
            tree.nodes.write()?;
            let notes: Vec<String> = heads.iter().map(|(size, root)| turn.signing.key.sign(*size, root)).collect();
            let whole = turn.file.bytes();
            if let Err(error) = turn.file.append(notes.concat().as_bytes()) {
                turn.file.cut(whole)?;
                return Err(error.into());
            }
            Ok(Some((tree, heads.pop().zip(notes.into_iter().next_back()), more)))
        })?;
        let Some((tree, newest, more)) = signed else { return Ok(true) };
        self.tree = Some(tree);
        self.is_ahead = false;
        if let Some(((size, root), note)) = newest {
            let origin = self.signing.key.public().name().to_owned();
            self.signed = Some(Signed { checkpoint: Checkpoint { origin, size, root }, file: path });
            self.newest = Some(note);
        }
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
    pub(in crate::audit) fn due(
        &mut self,
        retention: Retention,
        now_micros: u64,
    ) -> Result<Option<Removal>, SigningError> {
        let Some(tree) = &self.tree else { return Ok(None) };
        let due = retain::due(&self.audit, tree, retention, now_micros);
        if let Err(SigningError::Hashes) = &due {
            tree.nodes.discard()?;
            self.tree = None;
        }
        due
    }

    /// Removes it, and says whether it did: not where another process signed meanwhile. A record that says so must be signed.
    pub(in crate::audit) fn remove(&mut self, removal: &Removal) -> Result<bool, SigningError> {
        let Some(mut tree) = self.tree.take() else { return Ok(false) };
        let tree = self.in_turn(|turn| {
            if turn.is_moved {
                return Ok(None);
            }
            retain::remove(turn.audit, &turn.signing.key, &mut tree, removal)?;
            Ok(Some(tree))
        })?;
        // Whoever waits for a turn finds that the file is another.
        self.file = open_file(&checkpoints::file(&self.audit))?;
        self.tree = tree;
        Ok(self.tree.is_some())
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

/// The file of checkpoints, which nobody else may write to meanwhile.
struct Turn<'n> {
    audit: &'n Path,
    signing: &'n Signing,
    path: &'n Path,
    file: &'n mut AppendFile,
    torn: &'n mut Option<Cut>,
    /// Whether somebody else wrote since the last turn, or put another file there.
    is_moved: bool,
}

fn open_file(path: &Path) -> io::Result<AppendFile> {
    let file = match AppendFile::create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => AppendFile::open(path)?,
        created => created?,
    };
    Ok(file.reserving(RESERVE_BYTES))
}

fn of_base(audit: &Path) -> impl Fn(BadBase) -> SigningError {
    let file = base::file(audit);
    move |bad| match bad {
        BadBase::Unreadable(error) => SigningError::Io(error),
        BadBase::Note(why) => SigningError::Base { file: file.clone(), why },
    }
}

/// The newest checkpoint in the file.
fn newest(file: &Path, signing: &Signing) -> Result<Option<Signed>, SigningError> {
    checkpoints::tail(file)?.last.map(|note| opened(&note, file, signing)).transpose()
}

/// The checkpoint outside of the log.
fn read_copy(signing: &Signing) -> Result<Option<Signed>, SigningError> {
    match std::fs::read_to_string(&signing.copy) {
        Ok(note) => opened(&note, &signing.copy, signing).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn opened(note: &str, file: &Path, signing: &Signing) -> Result<Signed, SigningError> {
    let opened = signing.key.public().open(note);
    let checkpoint = opened.map_err(|why| SigningError::Note { file: file.to_owned(), why })?;
    Ok(Signed { checkpoint, file: file.to_owned() })
}

/// Sees that the log begins with what was signed: takes in lines up to there, or looks back.
fn continues(tree: &mut Tree, signed: &Signed, ended: &AtomicBool) -> Result<(), SigningError> {
    let Signed { checkpoint, file } = signed;
    let inconsistent = |what| SigningError::Inconsistent { signed: checkpoint.size, file: file.clone(), what };
    if checkpoint.size < tree.frontier.size() {
        // Where the hashes were removed there is nothing to compare with, and later roots were.
        let then = tree.nodes.frontier(checkpoint.size);
        let is_same = checkpoint.size == 0 || then.map_or(true, |then| then.root() == checkpoint.root);
        return if is_same { Ok(()) } else { Err(inconsistent("others are there")) };
    }
    while tree.grow(Until::Leaves(checkpoint.size), ROUND_RECORDS_MAX, |_| {})? {
        tree.nodes.write()?;
        if ended.load(Ordering::Relaxed) {
            return Err(SigningError::Ended);
        }
    }
    tree.nodes.write()?;
    if tree.frontier.size() < checkpoint.size {
        return Err(inconsistent("fewer are there"));
    }
    let is_same = tree.frontier.size() == checkpoint.size && tree.frontier.root() == checkpoint.root;
    if is_same { Ok(()) } else { Err(inconsistent("others are there")) }
}
