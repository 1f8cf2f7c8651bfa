//! Is the record in this directory the one that was kept?
//!
//! With the public key alone: the chain holds, each checkpoint is signed and its tree comes out, results belong to intents, and what is
//! missing at the beginning was removed on record. A checkpoint from elsewhere also tells whether the directory is an older copy.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use crate::audit::chain::Break;
use crate::audit::chain::Lead;
use crate::audit::evidence::base::Base;
use crate::audit::evidence::checkpoints;
use crate::audit::evidence::merkle;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::note::BadNote;
use crate::audit::evidence::note::Checkpoint;
use crate::audit::evidence::note::NOTE_BYTES_MAX;
use crate::audit::evidence::note::VerifyingKey;
use crate::audit::evidence::walk;

/// Notes that may wait for their signatures to be verified.
const WAITING_MAX: usize = 1_024;

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
        let report = Walk::new(audit, known, notes).and_then(Walk::through);
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
    intents: HashSet<u64>,
    /// Numbers that no record has.
    gaps: Vec<(u64, u64)>,
    /// Records that a record says were removed.
    said_removed: u64,
}

impl<'a> Walk<'a> {
    fn new(audit: &'a Path, known: &'a [Known], notes: mpsc::SyncSender<(u64, String)>) -> Result<Self, Fault> {
        let base = walk::base(audit)?;
        let tree = base.as_ref().and_then(Base::frontier).unwrap_or_default();
        let own = Notes::open(checkpoints::file(audit), notes)?;
        let mut known: Vec<&Known> = known.iter().collect();
        known.sort_by_key(|known| std::cmp::Reverse(known.checkpoint.size));
        let (intents, gaps) = (HashSet::new(), Vec::new());
        Ok(Self { audit, base, tree, own, next: None, known, signed: 0, intents, gaps, said_removed: 0 })
    }

    fn through(mut self) -> Result<Report, Fault> {
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
        let walked = walk::walk(self.audit, base.as_ref(), |line, lead, before| {
            self.tree.push(merkle::leaf_hash(line), |_, _| {});
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
        if self.said_removed < removed {
            return Err(Fault::Removed { removed });
        }
        Ok(Report {
            segments: walked.segments,
            records: walked.records,
            removed,
            last_seq: walked.last_seq,
            checkpoints: self.own.number,
            unsigned: records - self.signed.min(records),
            unanswered: self.intents.len() as u64,
        })
    }

    /// Compares the tree with the checkpoints over as many records.
    fn meet(&mut self) -> Result<(), Fault> {
        let size = self.tree.size();
        let wrong = |file: &Path| Fault::Root { file: file.to_owned(), size };
        if let Some(next) = self.next.take_if(|next| next.size <= size) {
            if next.size < size {
                return Err(Fault::Order { file: self.own.file.clone(), number: self.own.number });
            }
            if next.root != self.tree.root() {
                return Err(wrong(&self.own.file));
            }
            self.signed = size;
            self.next = self.own.next()?;
        }
        while let Some(known) = self.known.pop_if(|known| known.checkpoint.size <= size) {
            if known.checkpoint.root != self.tree.root() {
                return Err(wrong(&known.file));
            }
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
                self.said_removed = self.said_removed.max(leaves.unwrap_or(0));
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
    /// How much of the file was there when it was opened.
    bytes: u64,
    number: u64,
    handed: mpsc::SyncSender<(u64, String)>,
}

impl Notes {
    fn open(file: PathBuf, handed: mpsc::SyncSender<(u64, String)>) -> Result<Self, Fault> {
        // What a running gateway adds meanwhile is over records that are not looked at either.
        let opened = File::open(&file).and_then(|reader| Ok((reader.metadata()?.len(), reader)));
        let (bytes, reader) = match opened {
            Ok((bytes, reader)) => (bytes, Some(BufReader::with_capacity(64 * 1024, reader.take(bytes)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, None),
            Err(error) => return Err(Fault::Unreadable { file, error }),
        };
        Ok(Self { file, reader, bytes, number: 0, handed })
    }

    fn next(&mut self) -> Result<Option<Checkpoint>, Fault> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut note = Vec::new();
        for _ in 0..checkpoints::NOTE_LINES {
            let mut line = reader.by_ref().take(NOTE_BYTES_MAX as u64);
            let read = line.read_until(b'\n', &mut note);
            read.map_err(|error| Fault::Unreadable { file: self.file.clone(), error })?;
        }
        let is_whole = note.iter().filter(|byte| **byte == b'\n').count() == checkpoints::NOTE_LINES;
        // Half a note is on its way where the file has grown since.
        if note.is_empty() || (!is_whole && self.file.metadata().is_ok_and(|file| file.len() > self.bytes)) {
            return Ok(None);
        }
        self.number += 1;
        let bad = |why| Fault::Note { file: self.file.clone(), number: self.number, why };
        let note = String::from_utf8(note).map_err(|_| bad(BadNote::Form))?;
        let checkpoint = Checkpoint::unverified(&note).ok_or_else(|| bad(BadNote::Form))?;
        // The other side is there as long as this one is.
        let _ = self.handed.send((self.number, note));
        Ok(Some(checkpoint))
    }
}
