//! When are checkpoints signed?
//!
//! On a thread of low priority, twice a second, so that every record is under one within a second. Calls never wait for it. Where it
//! fails, records are kept and chained as before, and the log says what is wrong; a failure of the disk is the writer's to deal with.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::audit::Retention;
use crate::audit::encode;
use crate::audit::encode::Recovery;
use crate::audit::evidence::Notary;
use crate::audit::evidence::Removal;
use crate::audit::evidence::SigningError;
use crate::audit::tally::Kind;
use crate::audit::writer::Writer;
use crate::clock;
use crate::config::model::AuditLevel;

/// From one look at what is kept to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// From one look at what is to be removed to the next.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// How long a record may take to be under a checkpoint before removing is put off.
const TELL_TIME_MAX: Duration = Duration::from_secs(10);
/// From one look at whether it is to the next.
const TELL_PAUSE: Duration = Duration::from_millis(1);
/// How long after an error nothing is tried at most, unless what was tried takes longer than that by [`WAIT_SHARE`].
const WAIT_TIME_MAX: Duration = Duration::from_secs(60);
/// How much longer than an attempt that failed nothing is tried: reading everything may take minutes, and is in vain until something
/// is mended.
const WAIT_SHARE: u32 = 20;
/// How long the end of service waits for what is not signed yet. The next start goes on with it.
const END_TIME_MAX: Duration = Duration::from_secs(5);
/// How far the thread steps back behind those that serve.
const NICE: i32 = 10;

/// The thread that signs.
pub(super) struct Notarizing {
    /// Dropped to end it.
    end: mpsc::Sender<()>,
    /// Set to end what takes its time.
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Notarizing {
    /// Begins to sign what the writer keeps.
    pub(super) fn start(notary: Notary, writer: Arc<Writer>, retention: Retention) -> io::Result<Self> {
        let (end, over) = mpsc::channel();
        let ended = notary.ended();
        let thread = thread::Builder::new().name("checkpoints".into()).spawn(move || {
            let mut work = Work {
                notary,
                writer,
                retention,
                looked: None,
                is_remade: false,
                failure: None,
                wait: Wait::default(),
            };
            // Without the right to step back it merely competes with serving.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            while over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                if work.wait.is_over() {
                    work.sign(None);
                    work.retain();
                }
            }
            work.sign(Some(Instant::now() + END_TIME_MAX));
            if let Err(error) = work.notary.copy() {
                work.tell(Some(error));
            }
        })?;
        Ok(Self { end, ended, thread })
    }

    /// Signs for all that is kept by now, as far as there is time, and ends. Blocks on the disk.
    pub(super) fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(self.end);
        // A thread that panicked has said so itself.
        let _ = self.thread.join();
    }
}

struct Work {
    notary: Notary,
    writer: Arc<Writer>,
    retention: Retention,
    /// When it was last seen what is to be removed.
    looked: Option<Instant>,
    /// The kept hashes were made anew for it.
    is_remade: bool,
    /// What was last told.
    failure: Option<String>,
    wait: Wait,
}

/// How long nothing is tried after an error.
#[derive(Debug, Default)]
struct Wait {
    until: Option<Instant>,
    last: Duration,
}

impl Wait {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// An attempt that took so long failed: returns how long the next one is put off.
    fn longer(&mut self, took: Duration) -> Duration {
        self.last = (self.last * 2).clamp(PAUSE, WAIT_TIME_MAX);
        self.last.max(took.saturating_mul(WAIT_SHARE))
    }
}

impl Work {
    fn sign(&mut self, until: Option<Instant>) {
        let begun = Instant::now();
        loop {
            let kept = self.writer.kept();
            // At `durable` what counts as kept is on the disk.
            let signed = self.notary.round(kept, self.writer.level != AuditLevel::Durable);
            if let Some(torn) = self.notary.torn() {
                let recovery = Recovery { cause: "torn_checkpoint", cut: Some(&torn), ..Recovery::default() };
                // Where no record is taken, there is more to tell than this.
                let _ =
                    self.writer.append(Kind::Recovered, clock::now_micros(), |line| encode::recovery(line, &recovery));
            }
            match signed {
                Ok(true) if until.is_none_or(|until| Instant::now() < until) => {}
                Ok(_) => {
                    self.wait = Wait::default();
                    return self.tell(None);
                }
                Err(error) => {
                    let wait = self.wait.longer(begun.elapsed());
                    self.wait.until = Some(Instant::now() + wait);
                    return self.tell(Some(error));
                }
            }
        }
    }

    /// Removes what is not to be kept any longer. Whatever fails is tried again; nothing goes that is not told of under a checkpoint.
    fn retain(&mut self) {
        let is_asked = self.retention != Retention::default() && self.failure.is_none();
        if !is_asked || self.looked.is_some_and(|looked| looked.elapsed() < LOOK_PAUSE) || !self.writer.is_alone() {
            return;
        }
        self.looked = Some(Instant::now());
        let due = self.notary.due(self.retention, clock::now_micros());
        let is_damaged = matches!(due, Err(SigningError::Hashes));
        if is_damaged && !self.is_remade {
            // They are made anew in the next round.
            self.looked = None;
        }
        self.is_remade = is_damaged;
        let removed = due.and_then(|removal| match removal {
            // Another process may have come meanwhile.
            Some(removal) if self.told(&removal) && self.writer.is_alone() && self.notary.remove(&removal)? => {
                tracing::info!(last_seq = removal.last_seq(), bytes = removal.bytes, "old records were removed");
                Ok(())
            }
            _ => Ok(()),
        });
        if let Err(error) = removed {
            tracing::error!(%error, "old records cannot be removed");
        }
    }

    /// Puts on record, and under a checkpoint, what is about to be removed.
    fn told(&mut self, removal: &Removal) -> bool {
        let told = self.writer.append(Kind::Removed, clock::now_micros(), |line| encode::removal(line, removal));
        let Ok(told) = told else { return false };
        let begun = Instant::now();
        while self.notary.signed_seq() < told.seq && begun.elapsed() < TELL_TIME_MAX && self.failure.is_none() {
            self.sign(None);
            thread::sleep(TELL_PAUSE);
        }
        self.notary.signed_seq() >= told.seq
    }

    /// Says once what is wrong, and once that it is over.
    fn tell(&mut self, error: Option<SigningError>) {
        if let Some(SigningError::Sync(error)) = &error {
            self.writer.fail(&mut self.writer.state(), "sync_failed", error);
        }
        self.writer.tally.unsigned(error.is_some());
        let failure = error.map(|error| error.to_string());
        match &failure {
            Some(failure) if self.failure.as_ref() != Some(failure) => {
                tracing::error!("no checkpoint of the audit log is signed until this is mended: {failure}");
            }
            None if self.failure.is_some() => tracing::info!("checkpoints of the audit log are signed again"),
            _ => {}
        }
        self.failure = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_often_and_never_most_of_the_time() {
        let mut wait = Wait::default();
        assert!(wait.is_over());
        let waits: Vec<u64> = (0..9).map(|_| wait.longer(Duration::ZERO).as_millis() as u64).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(wait.longer(Duration::from_secs(30)), Duration::from_secs(600));
        wait.until = Some(Instant::now() + WAIT_TIME_MAX);
        assert!(!wait.is_over());
    }
}
