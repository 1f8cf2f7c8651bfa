//! In which order do records reach the disk?
//!
//! Numbers and links are given under one lock, so the order of lines is the order of the chain. At `written` intents
//! and refusals are handed to the kernel under that lock, and with them the results that have gathered: nobody waits for a
//! result, so it goes with the next line that somebody waits for, or soon by itself. Otherwise the thread (`worker`)
//! takes whatever has gathered. An error ends the segment: numbers given until then are not used again, and the thread begins new segments until one holds.
//!
//! While one process hands over to the next, both write to one segment, line by line and in turn, whatever the level:
//! the chain stays one. No segment is begun then, and none is given up; see docs/audit.md.
//!
//! Locks are taken in the order state, segments.

use std::io;
use std::mem;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::oneshot;

use crate::audit::chain::Tip;
use crate::audit::encode;
use crate::audit::encode::Recovery;
use crate::audit::line::Line;
use crate::audit::segments::Keep;
use crate::audit::segments::Segments;
use crate::audit::tally::Counts;
use crate::audit::tally::Kind;
use crate::audit::tally::Tally;
use crate::clock;
use crate::config::model::AuditLevel;
use crate::disk::append::AppendFile;

/// From one look at whether the segment is shared by now to the next.
pub(super) const PAUSE: Duration = Duration::from_micros(200);

/// Why the log takes no record at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The disk failed; the log tries again by itself.
    #[error("the audit log cannot be written to")]
    Failed,
    /// Records come faster than the disk takes them.
    #[error("the audit log's queue is full")]
    QueueFull,
    /// The gateway is going down.
    #[error("the audit log is shut down")]
    ShutDown,
}

impl Unavailable {
    /// The word in metrics. Never changes once released.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::QueueFull => "queue_full",
            Self::ShutDown => "shut_down",
        }
    }
}

/// Bytes of results that may gather at `written` before one is handed over by whoever brings it.
pub(super) const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Lines that go to the kernel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    pub(super) first_seq: u64,
    /// The chain's end after its last line.
    pub(super) end: Option<Tip>,
    pub(super) counts: Counts,
    /// Losses that a line of it tells.
    pub(super) told: Counts,
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Up,
    /// After an error; the thread tries to begin a new segment.
    Down,
    /// Part of the log itself broke half-way: nothing is written any more.
    Dead,
}

/// What ended the last segment.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) cause: &'static str,
    pub(super) error: String,
    pub(super) since_micros: u64,
}

/// What is under the lock.
pub(super) struct State {
    pub(super) phase: Phase,
    /// The last number given, and the digest of the line that has it.
    pub(super) tip: Tip,
    /// The same of the last line that is kept as the level says.
    pub(super) kept: Tip,
    pub(super) batch: Batch,
    /// A batch's buffer that is not in use.
    pub(super) spare: Vec<u8>,
    /// Records the thread is writing.
    pub(super) in_flight: u64,
    /// Segments that have their size, to be put on the disk by the thread.
    pub(super) finished: Vec<AppendFile>,
    pub(super) failure: Option<Failure>,
    /// The thread looks after results that gather at `written`, so nobody need wake it.
    pub(super) attended: bool,
    /// The thread puts full segments on the disk, which takes its time: nothing gathers meanwhile.
    pub(super) finishing: bool,
    /// No more intents; the thread ends when nothing is left to do.
    pub(super) stopping: bool,
    /// The thread has ended: lines are handed to the kernel by whoever brings them.
    pub(super) drained: bool,
    /// Whether another process writes to the same segment.
    pub(super) sharing: Sharing,
}

/// Whether the segment is this process's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// It is.
    No,
    /// It is about to be shared: what has gathered is written first.
    Soon,
    /// Another process is on its way out, and the segment will be ours.
    Heir,
    /// Another process takes over; this one is on its way out.
    Leaving,
}

impl Sharing {
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::Heir | Self::Leaving)
    }
}

/// What callers and the thread share.
pub(super) struct Writer {
    pub(super) level: AuditLevel,
    queue_records_max: u64,
    pub(super) up: AtomicBool,
    pub(super) tally: Tally,
    state: Mutex<State>,
    segments: Mutex<Segments>,
    /// Wakes the thread.
    pub(super) work: Condvar,
}

/// A record that has its number.
pub(super) struct Appended {
    pub(super) seq: u64,
    /// Length of its line.
    pub(super) bytes: u64,
    /// Says when the record is on the disk; only for an intent at `durable`.
    pub(super) kept: Option<oneshot::Receiver<()>>,
}

impl Writer {
    /// Goes on at `tip`.
    pub(super) fn new(
        level: AuditLevel,
        queue_records_max: usize,
        tip: Tip,
        sharing: Sharing,
        segments: Segments,
    ) -> Self {
        let state = State {
            phase: Phase::Up,
            tip,
            kept: tip,
            batch: Batch::default(),
            spare: Vec::new(),
            in_flight: 0,
            finished: Vec::new(),
            failure: None,
            attended: false,
            finishing: false,
            stopping: false,
            drained: false,
            sharing,
        };
        Self {
            level,
            queue_records_max: queue_records_max as u64,
            up: AtomicBool::new(true),
            tally: Tally::default(),
            state: Mutex::new(state),
            segments: Mutex::new(segments),
            work: Condvar::new(),
        }
    }

    /// Gives a record its number and its place, and at `written` hands it to the kernel. A result or refusal that
    /// cannot be written is counted.
    pub(super) fn append(
        &self,
        kind: Kind,
        now_micros: u64,
        fields: impl FnOnce(&mut Line<'_>),
    ) -> Result<Appended, Unavailable> {
        // Asked without the lock first: a disk may be hanging under it.
        if !self.up.load(Ordering::Acquire) {
            return Err(self.reject(kind, Unavailable::Failed));
        }
        let mut state = self.state();
        while state.sharing == Sharing::Soon {
            drop(state);
            thread::sleep(PAUSE);
            state = self.state();
        }
        if let Err(unavailable) = self.admit(&state, kind) {
            return Err(self.reject(kind, unavailable));
        }
        if state.sharing.is_on() {
            return self.write_beside(&mut state, kind, now_micros, fields);
        }
        if let Some(lost) = self.tally.tell() {
            state.tell(lost, now_micros);
        }
        let bytes = state.push(kind, now_micros, fields);
        let seq = state.tip.seq;
        if self.may_gather(&state, kind) {
            let attended = mem::replace(&mut state.attended, true);
            drop(state);
            if !attended {
                self.work.notify_one();
            }
            return Ok(Appended { seq, bytes, kept: None });
        }
        if self.is_inline(&state) {
            self.write_inline(&mut state)?;
            return Ok(Appended { seq, bytes, kept: None });
        }
        let kept = (kind == Kind::Intent && self.level == AuditLevel::Durable).then(|| {
            let (sender, receiver) = oneshot::channel();
            state.batch.waiters.push(sender);
            receiver
        });
        drop(state);
        self.work.notify_one();
        Ok(Appended { seq, bytes, kept })
    }

    /// An intent that is not taken is refused; everything else has happened and is missing.
    pub(super) fn reject(&self, kind: Kind, why: Unavailable) -> Unavailable {
        if kind != Kind::Intent {
            let mut lost = Counts::default();
            lost.add(kind);
            self.tally.lose(lost);
        }
        why
    }

    /// Results have as much room again as intents, so that what was begun can end.
    fn admit(&self, state: &State, kind: Kind) -> Result<(), Unavailable> {
        let queued = state.in_flight + state.batch.counts.all();
        let room = if kind == Kind::Intent { self.queue_records_max } else { self.queue_records_max.saturating_mul(2) };
        match state.phase {
            Phase::Down | Phase::Dead => Err(Unavailable::Failed),
            Phase::Up if state.stopping && kind == Kind::Intent => Err(Unavailable::ShutDown),
            Phase::Up if queued >= room => Err(Unavailable::QueueFull),
            Phase::Up => Ok(()),
        }
    }

    /// Whether whoever brings a line hands it to the kernel.
    pub(super) fn is_inline(&self, state: &State) -> bool {
        state.drained || self.level == AuditLevel::Written
    }

    /// Whether a line at `written` may wait for the next: a result, while somebody is there who sees to it.
    fn may_gather(&self, state: &State, kind: Kind) -> bool {
        let is_served = !state.drained && !state.stopping && !state.finishing;
        let has_room = state.batch.lines.len() <= GATHERED_BYTES_MAX;
        self.level == AuditLevel::Written && kind == Kind::Result && is_served && has_room
    }

    /// Bytes of results that wait for a line to take them along.
    #[cfg(test)]
    pub(super) fn gathered_bytes(&self) -> usize {
        if self.level == AuditLevel::Written { self.state().batch.lines.len() } else { 0 }
    }

    /// Hands everything that has gathered to the kernel.
    pub(super) fn write_inline(&self, state: &mut State) -> Result<(), Unavailable> {
        let written = self.segments().append(&state.batch.lines, state.batch.first_seq);
        match written {
            Ok(finished) => {
                state.kept = state.tip;
                self.tally.keep(state.batch.counts.all());
                state.batch.clear();
                // After the end of service nobody is left to sync it; the kernel writes it in its own time.
                if let Some(finished) = finished
                    && !state.drained
                {
                    state.finished.push(finished);
                    self.work.notify_one();
                }
                Ok(())
            }
            Err(error) => {
                self.fail(state, "write_failed", &error);
                Err(Unavailable::Failed)
            }
        }
    }

    /// Puts a record about the log itself in first place after a start, on the disk.
    pub(super) fn begin(&self, now_micros: u64, recovery: &Recovery<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.sharing.is_on() {
            // The other process may have gone on since the chain's end was read.
            let written =
                self.write_beside(&mut state, Kind::Recovered, now_micros, |line| encode::recovery(line, recovery));
            return written.map(drop).map_err(io::Error::other);
        }
        state.push(Kind::Recovered, now_micros, |line| encode::recovery(line, recovery));
        let mut segments = self.segments();
        if let Some(mut finished) = segments.append(&state.batch.lines, state.batch.first_seq)? {
            Segments::finish(&mut finished)?;
        }
        segments.sync()?;
        state.kept = state.tip;
        state.batch.clear();
        self.tally.keep(1);
        Ok(())
    }

    /// The last record that is kept as the level says. Nothing up to it is ever cut off.
    pub(super) fn kept(&self) -> Tip {
        self.state().kept
    }

    /// Whether no other process writes to the directory.
    pub(super) fn is_alone(&self) -> bool {
        self.state().sharing == Sharing::No
    }

    /// Takes no more intents and lets the thread end when everything is written.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.work.notify_one();
    }

    /// Puts everything on the disk, after the thread has ended.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let finished = mem::take(&mut state.finished);
        let mut synced = finished.into_iter().try_for_each(|mut file| Segments::finish(&mut file));
        if state.phase == Phase::Up {
            let mut segments = self.segments();
            synced = synced.and_then(|()| segments.sync());
            // The other process may have written behind what this one knows of.
            if !state.sharing.is_on() {
                synced = synced.and_then(|()| segments.trim());
            }
        }
        if let Err(error) = synced {
            self.fail(&mut state, "sync_failed", &error);
        }
    }

    /// A batch is kept: those who wait for it go on.
    pub(super) fn commit(&self, mut batch: Batch) {
        let mut state = self.state();
        self.tally.keep(batch.counts.all());
        state.kept = batch.end.unwrap_or(state.kept);
        state.in_flight = 0;
        for waiter in batch.waiters.drain(..) {
            // Nobody listens any more if the caller has gone away; the record stands all the same.
            let _ = waiter.send(());
        }
        batch.clear();
        state.spare = batch.lines;
    }

    /// A batch could not be kept, and so neither can what refers to it.
    pub(super) fn abort(&self, batch: Batch, cause: &'static str, error: &io::Error) {
        let mut state = self.state();
        state.in_flight = 0;
        let gathered = mem::replace(&mut state.batch, batch);
        state.batch.counts = state.batch.counts.plus(gathered.counts);
        state.batch.told = state.batch.told.plus(gathered.told);
        state.batch.waiters.extend(gathered.waiters);
        self.fail(&mut state, cause, error);
    }

    /// Closes the segment for good and takes no record until the thread has begun another. Whoever waits is refused.
    pub(super) fn fail(&self, state: &mut State, cause: &'static str, error: &io::Error) {
        if state.phase != Phase::Up {
            return;
        }
        self.up.store(false, Ordering::Release);
        state.phase = Phase::Down;
        tracing::error!(cause, %error, "the audit log cannot be written to: calls are refused until it can");
        state.failure = Some(Failure { cause, error: error.to_string(), since_micros: clock::now_micros() });
        self.tally.fail();
        self.tally.untell(state.batch.told);
        let acknowledged = self.level == AuditLevel::Queued && !state.drained;
        let intents = if acknowledged { state.batch.counts.intents } else { 0 };
        self.tally.lose(Counts { intents, ..state.batch.counts });
        state.batch.clear();
        state.tip.hash = state.kept.hash;
        // What the other process wrote stands behind: the segment is given up once it is ours alone.
        if !state.sharing.is_on() {
            let keep = if self.level == AuditLevel::Durable { Keep::Synced } else { Keep::Written };
            self.segments().abandon(keep);
        }
        self.work.notify_one();
    }

    /// Ends the log for good: what is in memory may be half done.
    pub(super) fn die(&self, state: &mut State) {
        if state.phase != Phase::Dead {
            self.up.store(false, Ordering::Release);
            state.phase = Phase::Dead;
            self.tally.lose(Counts { intents: 0, ..state.batch.counts });
            state.batch.clear();
            tracing::error!("the audit log broke: calls are refused until the gateway is started again");
        }
    }

    /// The state; if a panic left it half done, the log is dead.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            self.die(&mut state);
            state
        })
    }

    /// The segments.
    pub(super) fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything that has gathered, for the thread.
    pub(super) fn take_batch(&mut self) -> Batch {
        let lines = mem::take(&mut self.spare);
        let mut batch = mem::replace(&mut self.batch, Batch { lines, ..Batch::default() });
        batch.end = Some(self.tip);
        self.in_flight = batch.counts.all();
        batch
    }

    /// Adds a line to the batch; returns its length.
    pub(super) fn push(&mut self, kind: Kind, now_micros: u64, fields: impl FnOnce(&mut Line<'_>)) -> u64 {
        if self.batch.lines.is_empty() {
            self.batch.first_seq = self.tip.seq + 1;
        }
        let before = self.batch.lines.len();
        self.tip = link(&mut self.batch.lines, self.tip, kind, now_micros, fields);
        self.batch.counts.add(kind);
        (self.batch.lines.len() - before) as u64
    }

    pub(super) fn tell(&mut self, lost: Counts, now_micros: u64) {
        self.batch.told = self.batch.told.plus(lost);
        let recovery = Recovery { cause: "records_lost", lost, ..Recovery::default() };
        self.push(Kind::Recovered, now_micros, |line| encode::recovery(line, &recovery));
    }
}

impl Batch {
    /// Empties it, keeping the buffer. Whoever still waits is told that the record is not kept.
    pub(super) fn clear(&mut self) {
        let mut lines = mem::take(&mut self.lines);
        lines.clear();
        *self = Self { lines, ..Self::default() };
    }
}

/// Adds the line that follows `tip`, newline included, and returns the chain's new end.
pub(super) fn link(
    buffer: &mut Vec<u8>,
    tip: Tip,
    kind: Kind,
    now_micros: u64,
    fields: impl FnOnce(&mut Line<'_>),
) -> Tip {
    let seq = tip.seq + 1;
    let start = buffer.len();
    let mut line = Line::begin(buffer);
    line.number("seq", seq);
    line.hex("prev", &tip.hash);
    line.word("kind", kind.name());
    line.time("time", now_micros);
    fields(&mut line);
    line.end();
    let hash = Sha256::digest(buffer.get(start..).unwrap_or_default()).into();
    buffer.push(b'\n');
    Tip { seq, hash }
}
