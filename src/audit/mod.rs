//! What happened, in which order, and can anybody have changed it since?
//!
//! Every request leaves lines in append-only segments: an intent before the first byte goes upstream, a result
//! afterwards, or a refusal. Each line names the digest of the line before it. A log that cannot take a record says
//! so before anything is sent. Fields are listed in docs/audit.md.

mod access;
mod aside;
mod beside;
mod chain;
mod coalesce;
mod encode;
pub mod evidence;
mod line;
mod notarize;
mod record;
mod recover;
mod segments;
mod tally;
mod uri;
mod worker;
mod writer;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

pub use crate::audit::access::Ended;
pub use crate::audit::access::access_line;
pub use crate::audit::chain::Break;
pub use crate::audit::chain::Flaw;
use crate::audit::coalesce::Coalesced;
use crate::audit::coalesce::Coalescer;
use crate::audit::encode::Recovery;
use crate::audit::evidence::Notary;
use crate::audit::evidence::Signing;
use crate::audit::evidence::SigningError;
pub use crate::audit::evidence::Verified;
pub use crate::audit::evidence::verify_chain;
pub use crate::audit::line::time_text;
use crate::audit::notarize::Notarizing;
pub use crate::audit::record::Certificate;
pub use crate::audit::record::Digested;
pub use crate::audit::record::Digester;
pub use crate::audit::record::Ending;
pub use crate::audit::record::Outcome;
pub use crate::audit::record::Permission;
pub use crate::audit::record::Phases;
pub use crate::audit::record::Refusal;
pub use crate::audit::record::Request;
pub use crate::audit::record::Secured;
pub use crate::audit::record::Shadow;
use crate::audit::recover::Found;
use crate::audit::segments::Create;
use crate::audit::segments::Cut;
use crate::audit::segments::Segments;
use crate::audit::tally::Counts;
use crate::audit::tally::Kind;
pub use crate::audit::tally::Stats;
pub use crate::audit::uri::concealed;
use crate::audit::writer::Appended;
pub use crate::audit::writer::Unavailable;
use crate::audit::writer::Writer;
use crate::clock;
use crate::config::model::AuditLevel;
use crate::disk::append::AppendFile;
use crate::disk::directory::Directory;
pub use crate::disk::directory::DirectoryError;

/// Records that may wait for the disk at `durable` and `queued`.
pub const QUEUE_RECORDS_MAX: usize = 8_192;
/// Kinds of refusals before authentication that are told apart within a second.
pub const PENDING_MAX: usize = 1_024;
/// Bytes an hour that refusals before authentication may take of the disk.
pub const REFUSAL_BYTES_PER_HOUR_MAX: u64 = 32 * 1024 * 1024;

/// Where and how the log is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the segments; made if missing.
    pub directory: PathBuf,
    /// When a record counts as kept.
    pub level: AuditLevel,
    /// Bytes after which a new segment is begun.
    pub segment_bytes_max: u64,
    /// Records that may wait for the disk at `durable` and `queued`; results have as much room again.
    pub queue_records_max: usize,
    /// Kinds of refusals before authentication that are told apart within a second.
    pub pending_max: usize,
    /// Bytes an hour that refusals before authentication may take of the disk.
    pub refusal_bytes_per_hour_max: u64,
    /// How long after a failed attempt to begin a segment the next one is made.
    pub retry_ms: u64,
    /// What signs checkpoints; without it there are none.
    pub signing: Option<Signing>,
    /// Which segments are removed in time.
    pub retention: Retention,
}

/// How much of the record is kept. Only whole segments are removed, and never the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Days for which a record is kept at least.
    pub days: Option<u64>,
    /// Bytes of segments above which the oldest go.
    pub bytes_max: Option<u64>,
}

impl Settings {
    /// What an operator chooses; the rest as it is by default.
    pub fn new(directory: impl Into<PathBuf>, level: AuditLevel, segment_bytes_max: u64) -> Self {
        Self {
            directory: directory.into(),
            level,
            segment_bytes_max,
            queue_records_max: QUEUE_RECORDS_MAX,
            pending_max: PENDING_MAX,
            refusal_bytes_per_hour_max: REFUSAL_BYTES_PER_HOUR_MAX,
            retry_ms: 1_000,
            signing: None,
            retention: Retention::default(),
        }
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is somebody else's, or cannot be used.
    #[error("the audit {0}")]
    Directory(#[from] DirectoryError),
    /// The last segment does not hold together.
    #[error(
        "the audit chain is broken: {0} (help: the segment was changed or damaged, and `portcullis audit verify` says more. Put it back from \
         a copy; or keep the directory as evidence and move it away together with `audit.key` and `audit.checkpoint` in the state \
         directory: a new log with a new key begins)"
    )]
    Broken(#[from] Break),
    /// Records that were signed are damaged.
    #[error(
        "record {seq} of the audit log, which a checkpoint covers, is damaged: {torn}. Records up to {signed} were signed, and nothing of \
         them is cut off (help: `portcullis audit verify` says more. Put the segment back from a copy; or keep the directory as evidence and \
         move it away together with `audit.key` and `audit.checkpoint` in the state directory: a new log with a new key begins)"
    )]
    Damaged {
        /// Where.
        torn: Break,
        /// The first record that is damaged, or the next that is there.
        seq: u64,
        /// The last that was signed.
        signed: u64,
    },
    /// The log is not the one that was signed, or nothing can be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// A file, or the log's thread, could not be made or changed.
    #[error("the audit log `{}` cannot be written to: {error}", .path.display())]
    Io {
        /// The directory or the segment.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// The right and the duty to put one result on record.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an intent without a result looks like a crash"]
pub struct Receipt {
    seq: u64,
}

impl Receipt {
    /// Number of the intent.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// The record of every request. Shared by all; one per directory.
pub struct Log {
    writer: Arc<Writer>,
    coalescer: Mutex<Coalescer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    notarizing: Mutex<Option<Notarizing>>,
}

impl Log {
    /// Opens the directory, alone: makes it if missing, cuts off and puts on record what a crash has torn. Only what stands behind the
    /// last checkpoint is read, and the segment it stands in, so this is quick however much there is. Blocks on the disk.
    pub fn open(settings: Settings, now_micros: u64) -> Result<Self, OpenError> {
        Self::open_with(settings, Box::new(|path: &Path| AppendFile::create(path)), now_micros)
    }

    /// Opens the directory beside the log of another process, which has [shared](Log::share) it: both write to one chain, in
    /// turn, until the other is gone.
    pub fn open_beside(settings: Settings, now_micros: u64) -> Result<Self, OpenError> {
        let directory = Directory::join(&settings.directory)?;
        let found = recover::beside(&settings.directory)?;
        let notary = Self::notary(&settings)?;
        Self::begin(settings, directory, notary, found, Box::new(|path: &Path| AppendFile::create(path)), now_micros)
    }

    fn open_with(settings: Settings, create: Create, now_micros: u64) -> Result<Self, OpenError> {
        let directory = Directory::lock(&settings.directory)?;
        // Before anything is cut off it must be known what was signed.
        let notary = Self::notary(&settings)?;
        let signed = notary.as_ref().map(|(notary, _)| notary.signed_to());
        let found = recover::recover(&settings.directory, signed.as_ref())?;
        Self::begin(settings, directory, notary, found, create, now_micros)
    }

    /// What signs, and what it cut off the file of checkpoints.
    fn notary(settings: &Settings) -> Result<Option<(Notary, Option<Cut>)>, SigningError> {
        settings.signing.clone().map(|signing| Notary::open(&settings.directory, signing)).transpose()
    }

    fn begin(
        settings: Settings,
        directory: Directory,
        notary: Option<(Notary, Option<Cut>)>,
        found: Found,
        create: Create,
        now_micros: u64,
    ) -> Result<Self, OpenError> {
        let path = settings.directory;
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let (notary, torn) = notary.unzip();
        let mut segments = Segments::new(directory, create, settings.segment_bytes_max, found.last);
        segments.prepare(found.tip.seq + 1).map_err(failed)?;
        let writer = Writer::new(settings.level, settings.queue_records_max, found.tip, found.sharing, segments);
        let writer = Arc::new(writer);
        if let Some(cut) = &found.cut {
            let recovery = Recovery { cause: "torn_tail", cut: Some(cut), ..Recovery::default() };
            writer.begin(now_micros, &recovery).map_err(failed)?;
        }
        if let Some(torn) = torn.flatten() {
            let recovery = Recovery { cause: "torn_checkpoint", cut: Some(&torn), ..Recovery::default() };
            writer.begin(now_micros, &recovery).map_err(failed)?;
        }
        if found.unsigned > 0 {
            let recovery = Recovery { cause: "unsigned", unsigned: Some(found.unsigned), ..Recovery::default() };
            writer.begin(now_micros, &recovery).map_err(failed)?;
        }
        let shared = Arc::clone(&writer);
        let retry = Duration::from_millis(settings.retry_ms);
        let thread =
            thread::Builder::new().name("audit".into()).spawn(move || worker::run(&shared, retry)).map_err(failed)?;
        let notarizing = notary.map(|notary| Notarizing::start(notary, Arc::clone(&writer), settings.retention));
        let notarizing = Mutex::new(notarizing.transpose().map_err(failed)?);
        let coalescer = Coalescer::new(settings.pending_max, settings.refusal_bytes_per_hour_max);
        Ok(Self { writer, coalescer: Mutex::new(coalescer), thread: Mutex::new(Some(thread)), notarizing })
    }

    /// Puts on record that a request is about to go upstream; only then may it.
    ///
    /// Returns when the record is kept as the level says. Needs no particular runtime. If the future is dropped while
    /// it waits, the intent gets the result `abandoned` by itself.
    pub async fn intent(
        &self,
        request: &Request<'_>,
        permission: &Permission<'_>,
        now_micros: u64,
    ) -> Result<Receipt, Unavailable> {
        let appended = self.writer.append(Kind::Intent, now_micros, |line| {
            encode::request(line, request);
            encode::permission(line, permission);
        })?;
        let receipt = Receipt { seq: appended.seq };
        let Some(kept) = appended.kept else { return Ok(receipt) };
        let mut unclaimed = Unclaimed { log: self, receipt: Some(receipt) };
        let kept = kept.await;
        let receipt = unclaimed.receipt.take();
        kept.ok().and(receipt).ok_or(Unavailable::Failed)
    }

    /// Puts on record how the request of an intent ended. Never fails and never panics: what cannot be written is
    /// counted, and the count is put on record as soon as something can.
    pub fn result(&self, receipt: Receipt, outcome: &Outcome<'_>, now_micros: u64) {
        let _ = self.writer.append(Kind::Result, now_micros, |line| encode::outcome(line, receipt.seq, outcome));
    }

    /// Puts on record that an authenticated caller's request was refused, and tells the record's number. What cannot be
    /// written is counted like a result.
    pub fn refused(&self, request: &Request<'_>, refusal: &Refusal<'_>, now_micros: u64) -> Result<u64, Unavailable> {
        self.write_refusal(request, refusal, now_micros).map(|appended| appended.seq)
    }

    /// Puts on record that a request was refused before its caller was known: the first of its address prefix, reason
    /// and second in full, the rest as a count. Their share of the disk is bounded.
    pub fn refused_before_auth(&self, request: &Request<'_>, refusal: &Refusal<'_>, now_micros: u64) {
        let mut coalescer = self.coalescer();
        let due = coalescer.refused(request.source.map(|source| source.ip()), refusal.reason, now_micros);
        self.write_counts(&mut coalescer, due.counted, now_micros);
        if !due.full {
            self.writer.tally.coalesce();
        } else if let Ok(appended) = self.write_refusal(request, refusal, now_micros) {
            coalescer.spend(appended.bytes);
        }
    }

    /// Writes the counts of the seconds that are over. To be called once a second.
    pub fn flush_coalesced(&self, now_micros: u64) {
        let mut coalescer = self.coalescer();
        let over = coalescer.over(now_micros);
        self.write_counts(&mut coalescer, over, now_micros);
    }

    /// Whether the disk takes records at the moment.
    pub fn available(&self) -> bool {
        self.writer.up.load(Ordering::Acquire)
    }

    /// Lets the log of another process write to the same chain: [`Log::open_beside`]. From here on each line is written in turn
    /// with it, and at `durable` synced by itself. Blocks on the disk.
    pub fn share(&self) -> Result<(), Unavailable> {
        self.writer.share()
    }

    /// The other process has gone without taking over: the directory is to be this one's alone again.
    pub fn take_back(&self) {
        self.writer.inherit();
        self.writer.settle();
    }

    /// Whether the directory is this process's alone. A log that shares it finds out here that the other is gone; to be called
    /// once a second.
    pub fn settle(&self) -> bool {
        self.writer.settle()
    }

    /// Totals since the start.
    pub fn stats(&self) -> Stats {
        self.writer.tally.stats()
    }

    /// Writes all counts and returns when everything is on the disk. From here on there are no intents; results that
    /// come late are still written. Blocks on the disk.
    pub fn shutdown(&self, now_micros: u64) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        {
            let mut coalescer = self.coalescer();
            let all = coalescer.all();
            self.write_counts(&mut coalescer, all, now_micros);
        }
        self.writer.stop();
        // A thread that panicked has said so itself.
        let _ = thread.join();
        self.writer.close();
        if let Some(notarizing) = self.notarizing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            notarizing.end();
        }
    }

    fn write_refusal(
        &self,
        request: &Request<'_>,
        refusal: &Refusal<'_>,
        now_micros: u64,
    ) -> Result<Appended, Unavailable> {
        self.writer.append(Kind::Refused, now_micros, |line| {
            encode::request(line, request);
            encode::refusal(line, refusal);
        })
    }

    fn write_counts(&self, coalescer: &mut Coalescer, counted: Vec<Coalesced>, now_micros: u64) {
        for coalesced in counted {
            if coalescer.may_write(&coalesced) {
                match self.writer.append(Kind::Refused, now_micros, |line| encode::coalesced(line, &coalesced)) {
                    Ok(appended) => coalescer.spend(appended.bytes),
                    // The line itself is counted as one.
                    Err(_) => self.writer.tally.lose(Counts { refusals: coalesced.count - 1, ..Counts::default() }),
                }
            }
        }
    }

    fn coalescer(&self) -> std::sync::MutexGuard<'_, Coalescer> {
        self.coalescer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shutdown(clock::now_micros());
    }
}

/// An intent whose caller still waits; without a caller it is abandoned.
struct Unclaimed<'l> {
    log: &'l Log,
    receipt: Option<Receipt>,
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.log.result(receipt, &Outcome::of(Ending::Abandoned), clock::now_micros());
        }
    }
}

#[cfg(test)]
mod tests;
