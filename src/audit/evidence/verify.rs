//! Is the record in this directory the one that was kept?
//!
//! With the public key alone: the chain holds, each checkpoint is signed and its tree comes out, results belong to intents, and what is
//! missing at the beginning was removed on record. A checkpoint from elsewhere also tells whether the directory is an older copy.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::mem;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::audit::chain::Break;
use crate::audit::chain::Lead;
use crate::audit::evidence::base;
use crate::audit::evidence::base::BadBase;
use crate::audit::evidence::base::Base;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::merkle;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::notary::CHECKPOINT_RECORDS_MAX;
use crate::audit::evidence::note::BadNote;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::NOTE_BYTES_MAX;
use crate::audit::evidence::note::VerifyingKey;
use crate::audit::evidence::walk;

/// Notes that may wait for their signatures to be verified.
const WAITING_MAX: usize = 1_024;
/// Records behind the last checkpoint that are remembered until a running gateway signs them: far more than one leaves.
const SINCE_RECORDS_MAX: usize = 100_000;
/// How long a running gateway may take to sign what was read.
const SIGN_TIME_MAX: Duration = Duration::from_secs(2);
/// From one look at whether it did to the next.
const SIGN_PAUSE: Duration = Duration::from_millis(50);

/// What a record that holds consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Records before them that were removed.
    pub removed: u64,
    /// Number of the last record.
    pub last_seq: u64,
    /// Checkpoints in the directory.
    pub checkpoints: u64,
    /// Records at the end that no checkpoint covers: the last of them could be changed or cut off unseen.
    pub unsigned: u64,
    /// Intents without a result: the gateway was killed in between, or they are under way.
    pub unanswered: u64,
    /// Bytes behind what counts of segments that failed and could not be cut back: whatever they are, they are no records.
    pub uncounted_bytes: u64,
}

/// A checkpoint that was kept elsewhere.
#[derive(Debug, Clone)]
pub struct Known {
    /// Where.
    pub file: PathBuf,
    /// What it says; its signature was verified.
    pub checkpoint: Checkpoint,
}

/// The first thing that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The chain does not hold.
    #[error(transparent)]
    Chain(#[from] Break),
    /// A file cannot be read.
    #[error("`{}` cannot be read: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A note in the file of checkpoints is none, or not of this key.
    #[error("checkpoint {number} in `{}` is not valid: {why}", file.display())]
    Note {
        /// The file.
        file: PathBuf,
        /// Which one, from 1.
        number: u64,
        /// What is wrong with it.
        why: BadNote,
    },
    /// The file of checkpoints goes back.
    #[error("checkpoint {number} in `{}` does not follow the one before", file.display())]
    Order {
        /// The file.
        file: PathBuf,
        /// Which one, from 1.
        number: u64,
    },
    /// What stands for removed records is not this key's.
    #[error("`{}`, which stands for removed records, is not valid: {why}", file.display())]
    Base {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: BadNote,
    },
    /// Nothing vouches for records at the end.
    #[error(
        "{unsigned} records at the end are under no checkpoint, and {max} may be: a gateway signs them within a second, or when it is started \
         again after a crash; otherwise somebody else wrote them (`--unsigned-max` takes as many)"
    )]
    Unsigned {
        /// How many they are.
        unsigned: u64,
        /// How many may be.
        max: u64,
    },
    /// A tree does not come out.
    #[error("the records are not those of the checkpoint over {size} records in `{}`", file.display())]
    Root {
        /// The file with the checkpoint.
        file: PathBuf,
        /// Records it is over.
        size: u64,
    },
    /// Records are missing at the end.
    #[error(
        "a checkpoint in `{}` is over {size} records, and there are {records}: records were cut off, or an older copy was put in place",
        file.display()
    )]
    Short {
        /// The file with the checkpoint.
        file: PathBuf,
        /// Records it is over.
        size: u64,
        /// Records there are, those that were removed included.
        records: u64,
    },
    /// Records are missing at the beginning.
    #[error("the first {removed} records are missing, and no record says that they were removed")]
    Removed {
        /// How many.
        removed: u64,
    },
    /// A checkpoint from elsewhere is over less than what was removed.
    #[error("the checkpoint in `{}` is over {size} records, of which retention removed so many that nothing can be compared", file.display())]
    TooOld {
        /// The file with the checkpoint.
        file: PathBuf,
        /// Records it is over.
        size: u64,
    },
    /// A line that nothing vouches for is no JSON object.
    #[error("record {seq} in `{}`, which is under no checkpoint, is no JSON object", file.display())]
    NoRecord {
        /// The directory.
        file: PathBuf,
        /// The number that the line begins with.
        seq: u64,
    },
    /// A result belongs to nothing.
    #[error("record {seq} is the result of {intent}, which is no intent without a result")]
    Result {
        /// The result.
        seq: u64,
        /// The intent it names.
        intent: u64,
    },
}

/// Verifies a directory against its own checkpoints and those that are known from elsewhere.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn verify(audit: &Path, key: &VerifyingKey, known: &[Known]) -> Result<Report, Fault> {
    verify_allowing(audit, key, known, None)
}

/// The same, where so many records at the end may be under no checkpoint. Otherwise as many may be as a gateway leaves from one checkpoint
/// to the next, and none where there is no checkpoint.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn verify_allowing(
    audit: &Path,
    key: &VerifyingKey,
    known: &[Known],
    unsigned_max: Option<u64>,
) -> Result<Report, Fault> {
    let file = checkpoints::file(audit);
    let (notes, waiting) = mpsc::sync_channel::<(u64, String)>(WAITING_MAX);
    thread::scope(|scope| {
        let signatures = scope.spawn(|| {
            // Ends when the other side does; after a fault it takes the rest without looking.
            let mut fault = None;
            for (number, note) in waiting {
                if fault.is_none() {
                    fault = key.open(&note).err().map(|why| Fault::Note { file: file.clone(), number, why });
                }
            }
            fault
        });
        let report = Walk::new(audit, key, known, notes).and_then(|walk| walk.through(unsigned_max));
        match signatures.join() {
            Ok(Some(fault)) => Err(fault),
            _ => report,
        }
    })
}

/// A way through all records, along which checkpoints are met.
struct Walk<'a> {
    audit: &'a Path,
    base: Option<Base>,
    tree: Frontier,
    own: Notes,
    /// The next checkpoint of the directory.
    next: Option<Checkpoint>,
    /// Those from elsewhere that are yet to be met, the smallest last.
    known: Vec<&'a Known>,
    signed: u64,
    /// What was read since the last checkpoint there was, for those that a running gateway adds.
    since: Since,
    intents: HashSet<u64>,
    /// Numbers that no record has.
    gaps: Vec<(u64, u64)>,
    /// Records that a record under a checkpoint says were removed.
    said_removed: u64,
    /// The same of a record that is yet to be under one.
    claimed: u64,
}

/// Leaves behind the last checkpoint, and the tree in front of them.
#[derive(Default)]
struct Since {
    tree: Frontier,
    leaves: VecDeque<Hash>,
    /// There were too many of them.
    is_full: bool,
}

impl<'a> Walk<'a> {
    fn new(
        audit: &'a Path,
        key: &VerifyingKey,
        known: &'a [Known],
        notes: mpsc::SyncSender<(u64, String)>,
    ) -> Result<Self, Fault> {
        let file = base::file(audit);
        let base = Base::open(audit, key).map_err(|bad| match bad {
            BadBase::Unreadable(error) => Fault::Unreadable { file, error },
            BadBase::Note(why) => Fault::Base { file, why },
        })?;
        let tree = base.as_ref().and_then(Base::frontier).unwrap_or_default();
        let own = Notes::open(checkpoints::file(audit), notes)?;
        let mut known: Vec<&Known> = known.iter().collect();
        known.sort_by_key(|known| std::cmp::Reverse(known.checkpoint.size));
        let since = Since { tree: tree.clone(), ..Since::default() };
        let (intents, gaps) = (HashSet::new(), Vec::new());
        Ok(Self {
            audit,
            base,
            tree,
            own,
            next: None,
            known,
            signed: 0,
            since,
            intents,
            gaps,
            said_removed: 0,
            claimed: 0,
        })
    }

    fn through(mut self, unsigned_max: Option<u64>) -> Result<Report, Fault> {
        let base = self.base.take();
        let (removed, first) = base.as_ref().map_or((0, 0), |base| (base.leaves, base.tip.seq));
        self.next = self.own.next()?;
        while let Some(next) = self.next.take_if(|next| next.size < removed) {
            self.signed = next.size;
            self.next = self.own.next()?;
        }
        if let Some(known) = self.known.last().filter(|known| known.checkpoint.size < removed) {
            return Err(Fault::TooOld { file: known.file.clone(), size: known.checkpoint.size });
        }
        self.meet()?;
        let (walked, uncounted_bytes) = walk::walk(self.audit, base.as_ref(), |line, lead, before| {
            let leaf = merkle::leaf_hash(line);
            if self.next.is_none() {
                self.behind(line, lead, leaf)?;
            }
            self.tree.push(leaf, |_, _| {});
            self.pair(line, lead, before, first)?;
            self.meet()
        })?;
        let records = self.tree.size();
        let short = |file: &Path, size| Fault::Short { file: file.to_owned(), size, records };
        if let Some(next) = &self.next {
            return Err(short(&self.own.file, next.size));
        }
        if let Some(known) = self.known.last() {
            return Err(short(&known.file, known.checkpoint.size));
        }
        self.wait_signed(unsigned_max)?;
        if self.said_removed < removed {
            return Err(Fault::Removed { removed });
        }
        Ok(Report {
            segments: walked.segments,
            records: walked.records,
            removed,
            last_seq: walked.last_seq,
            checkpoints: self.own.number,
            unsigned: self.unsigned(),
            unanswered: self.intents.len() as u64,
            uncounted_bytes,
        })
    }

    /// Compares the tree with the checkpoints over as many records.
    fn meet(&mut self) -> Result<(), Fault> {
        let size = self.tree.size();
        let wrong = |file: &Path| Fault::Root { file: file.to_owned(), size };
        let mut is_met = false;
        if let Some(next) = self.next.take_if(|next| next.size == size) {
            if next.root != self.tree.root() {
                return Err(wrong(&self.own.file));
            }
            is_met = true;
            self.next = self.own.next()?;
            if self.next.is_none() {
                self.since = Since { tree: self.tree.clone(), ..Since::default() };
            }
        }
        while let Some(known) = self.known.pop_if(|known| known.checkpoint.size <= size) {
            if known.checkpoint.root != self.tree.root() {
                return Err(wrong(&known.file));
            }
            is_met = true;
        }
        if is_met {
            self.signed = size;
            self.said_removed = self.claimed;
        }
        Ok(())
    }

    /// Takes in a line behind the last checkpoint there was. Nothing vouches for it, so that it is read whole.
    fn behind(&mut self, line: &[u8], lead: Lead<'_>, leaf: Hash) -> Result<(), Fault> {
        if !serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|record| record.is_object()) {
            let file = self.audit.to_owned();
            return Err(Fault::NoRecord { file, seq: lead.seq });
        }
        if self.since.leaves.len() == SINCE_RECORDS_MAX && !self.since.is_full {
            self.look_again()?;
            // Otherwise nobody signs them.
            self.since.is_full = self.since.leaves.len() == SINCE_RECORDS_MAX;
        }
        if !self.since.is_full && self.next.is_none() {
            self.since.leaves.push_back(leaf);
        }
        Ok(())
    }

    fn unsigned(&self) -> u64 {
        self.tree.size() - self.signed.min(self.tree.size())
    }

    /// Sees that no more is unsigned than may be. A running gateway is given the time in which it signs.
    fn wait_signed(&mut self, unsigned_max: Option<u64>) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let unsigned = self.unsigned();
            let max = unsigned_max.unwrap_or(if self.signed > 0 { CHECKPOINT_RECORDS_MAX } else { 0 });
            if unsigned <= max {
                return Ok(());
            }
            if begun.elapsed() > SIGN_TIME_MAX || self.since.is_full {
                return Err(Fault::Unsigned { unsigned, max });
            }
            self.look_again()?;
            if self.unsigned() == unsigned {
                thread::sleep(SIGN_PAUSE);
            }
        }
    }

    /// Compares what was read behind the last checkpoint with those that came meanwhile.
    fn look_again(&mut self) -> Result<(), Fault> {
        self.own.follow()?;
        while let Some(next) = self.next.take().map_or_else(|| self.own.next(), |next| Ok(Some(next)))? {
            if next.size > self.tree.size() {
                self.next = Some(next);
                break;
            }
            while self.since.tree.size() < next.size
                && let Some(leaf) = self.since.leaves.pop_front()
            {
                self.since.tree.push(leaf, |_, _| {});
            }
            if self.since.tree.size() != next.size || self.since.tree.root() != next.root {
                return Err(Fault::Root { file: self.own.file.clone(), size: next.size });
            }
            self.signed = self.signed.max(next.size);
        }
        Ok(())
    }

    /// Sees that a result belongs to an intent, and what a record says was removed.
    fn pair(&mut self, line: &[u8], lead: Lead<'_>, before: u64, removed: u64) -> Result<(), Fault> {
        match lead.kind {
            b"intent" => drop(self.intents.insert(lead.seq)),
            b"result" => {
                let intent = lead.intent().unwrap_or(0);
                // An intent may be among those that were removed, or lost on its way to the disk.
                let is_gone = intent <= removed || self.gaps.iter().any(|gap| (gap.0..=gap.1).contains(&intent));
                if !self.intents.remove(&intent) && (intent == 0 || !is_gone) {
                    return Err(Fault::Result { seq: lead.seq, intent });
                }
            }
            b"removed" => {
                let record: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
                let leaves = record.get("leaves").and_then(serde_json::Value::as_u64);
                self.claimed = self.claimed.max(leaves.unwrap_or(0));
            }
            _ => {}
        }
        if before + 1 < lead.seq {
            self.gaps.push((before + 1, lead.seq - 1));
        }
        Ok(())
    }
}

/// The notes of a file, one after the other; each is handed on to have its signature verified.
struct Notes {
    file: PathBuf,
    reader: Option<BufReader<io::Take<File>>>,
    /// How much of the file is read: what was there when it was last looked at.
    bytes: u64,
    /// Part of a note that is on its way.
    half: Vec<u8>,
    number: u64,
    /// Records that the last one is over.
    last: Option<u64>,
    handed: mpsc::SyncSender<(u64, String)>,
}

impl Notes {
    fn open(file: PathBuf, handed: mpsc::SyncSender<(u64, String)>) -> Result<Self, Fault> {
        let opened = File::open(&file).and_then(|reader| Ok((reader.metadata()?.len(), reader)));
        let (bytes, reader) = match opened {
            Ok((bytes, reader)) => (bytes, Some(BufReader::with_capacity(64 * 1024, reader.take(bytes)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, None),
            Err(error) => return Err(Fault::Unreadable { file, error }),
        };
        Ok(Self { file, reader, bytes, half: Vec::new(), number: 0, last: None, handed })
    }

    /// Reads on to where the file ends by now.
    fn follow(&mut self) -> Result<(), Fault> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let unreadable = |error| Fault::Unreadable { file: self.file.clone(), error };
        let bytes = reader.get_ref().get_ref().metadata().map_err(unreadable)?.len().max(self.bytes);
        let limit = reader.get_ref().limit() + (bytes - self.bytes);
        reader.get_mut().set_limit(limit);
        self.bytes = bytes;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Checkpoint>, Fault> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut note = mem::take(&mut self.half);
        let lines = |note: &[u8]| memchr::memchr_iter(b'\n', note).count();
        let mut is_whole = lines(&note) == checkpoints::NOTE_LINES;
        while !is_whole {
            let mut line = reader.by_ref().take(NOTE_BYTES_MAX as u64);
            let read = line.read_until(b'\n', &mut note);
            if read.map_err(|error| Fault::Unreadable { file: self.file.clone(), error })? == 0 {
                break;
            }
            is_whole = lines(&note) == checkpoints::NOTE_LINES || note.len() > NOTE_BYTES_MAX;
        }
        if note.is_empty() {
            return Ok(None);
        }
        // Half a note is on its way where the file has grown since.
        if !is_whole && self.file.metadata().is_ok_and(|file| file.len() > self.bytes) {
            self.half = note;
            return Ok(None);
        }
        self.number += 1;
        let bad = |why| Fault::Note { file: self.file.clone(), number: self.number, why };
        let note = String::from_utf8(note).map_err(|_| bad(BadNote::Form))?;
        let checkpoint = Checkpoint::unverified(&note).filter(|_| is_whole).ok_or_else(|| bad(BadNote::Form))?;
        if self.last.replace(checkpoint.size).is_some_and(|last| last >= checkpoint.size) {
            return Err(Fault::Order { file: self.file.clone(), number: self.number });
        }
        // The other side is there as long as this one is.
        let _ = self.handed.send((self.number, note));
        Ok(Some(checkpoint))
    }
}
