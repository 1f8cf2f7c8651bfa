//! When are checkpoints signed?
//!
//! On a thread of low priority, twice a second, so that every record is under one within a second. Calls never wait for it. Where it
//! fails, records are kept and chained as before, and the log says what is wrong; a failure of the disk is the writer's to deal with.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::audit::Retention;
use crate::audit::encode;
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
/// How far the thread steps back behind those that serve.
const NICE: i32 = 10;

/// The thread that signs.
pub(super) struct Notarizing {
    /// Dropped to end it.
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Notarizing {
    /// Begins to sign what the writer keeps.
    pub(super) fn start(notary: Notary, writer: Arc<Writer>, retention: Retention) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("checkpoints".into()).spawn(move || {
            let mut work = Work { notary, writer, retention, looked: None, failure: None };
            // Without the right to step back it merely competes with serving.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                work.sign();
                work.retain();
            }
            work.sign();
            let copied = work.notary.copy();
            work.tell(copied.err());
        })?;
        Ok(Self { end, thread })
    }

    /// Signs for all that is kept by now, and ends. Blocks on the disk.
    pub(super) fn end(self) {
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
    /// What was last told.
    failure: Option<String>,
}

impl Work {
    fn sign(&mut self) {
        loop {
            let kept = self.writer.kept();
            // At `durable` what counts as kept is on the disk.
            match self.notary.round(kept, self.writer.level != AuditLevel::Durable) {
                Ok(true) => {}
                Ok(false) => return self.tell(None),
                Err(error) => return self.tell(Some(error)),
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
        let removed = self.notary.due(self.retention, clock::now_micros()).and_then(|removal| match removal {
            Some(removal) if self.told(&removal) => {
                self.notary.remove(&removal)?;
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
        while self.notary.signed_seq() < told.seq && begun.elapsed() < TELL_TIME_MAX {
            self.sign();
            thread::sleep(TELL_PAUSE);
        }
        self.notary.signed_seq() >= told.seq
    }

    /// Says once what is wrong, and once that it is over.
    fn tell(&mut self, error: Option<SigningError>) {
        if let Some(SigningError::Sync(error)) = &error {
            self.writer.fail(&mut self.writer.state(), "sync_failed", error);
        }
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
