//! What does the log's own thread do?
//!
//! It hands batches to the kernel and the disk (`durable`, `queued`), results nobody else took along to the kernel
//! (`written`), puts full segments on the disk, and after an
//! error begins a new segment as soon as one can be written, whether or not anybody calls. While it works on
//! segments it does not hold the state.

use std::io;
use std::mem;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::audit::encode;
use crate::audit::encode::Recovery;
use crate::audit::segments::Segments;
use crate::audit::tally::Kind;
use crate::audit::writer::Batch;
use crate::audit::writer::Phase;
use crate::audit::writer::Writer;
use crate::audit::writer::link;
use crate::clock;
use crate::config::model::AuditLevel;
use crate::disk::append::AppendFile;

/// How long a result may wait at `written` for a line that takes it along.
const GATHER: Duration = Duration::from_millis(2);

/// The thread's life: ends when the log is shut down and everything is written.
pub(super) fn run(writer: &Writer, retry: Duration) {
    let watch = Watch(writer);
    let mut attempts = Attempts { retry, last: None, farewell: false };
    loop {
        match next_job(writer, &mut attempts) {
            Job::Write(batch) => write(writer, batch),
            Job::Finish(segments) => finish(writer, segments),
            Job::Resume => resume(writer),
            Job::End => break,
        }
    }
    mem::forget(watch);
}

/// If the thread ends in any other way, nobody must wait for it.
struct Watch<'w>(&'w Writer);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.die(&mut self.0.state());
    }
}

/// When a new segment was last tried.
struct Attempts {
    retry: Duration,
    last: Option<Instant>,
    /// The one attempt at the end of service, so that what happened is on record.
    farewell: bool,
}

impl Attempts {
    fn due_in(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| self.retry.saturating_sub(last.elapsed()))
    }
}

enum Job {
    Write(Batch),
    Finish(Vec<AppendFile>),
    Resume,
    End,
}

/// Waits for something to do.
fn next_job(writer: &Writer, attempts: &mut Attempts) -> Job {
    let mut state = writer.state();
    state.finishing = false;
    // The last number given when results that gather were last looked after.
    let mut seen = state.tip.seq;
    loop {
        let mut wait = Duration::MAX;
        if !state.finished.is_empty() {
            if writer.is_inline(&state) && !state.batch.lines.is_empty() {
                // What has gathered does not wait for it; a failure is for the next round to deal with.
                let _ = writer.write_inline(&mut state);
            }
            state.finishing = true;
            return Job::Finish(mem::take(&mut state.finished));
        }
        if state.phase == Phase::Down && !state.sharing.is_on() {
            let farewell = state.stopping && !mem::replace(&mut attempts.farewell, state.stopping);
            wait = attempts.due_in();
            if farewell || (wait.is_zero() && !state.stopping) {
                attempts.last = Some(Instant::now());
                return Job::Resume;
            }
        } else if state.phase != Phase::Down && !state.batch.lines.is_empty() && !writer.is_inline(&state) {
            return Job::Write(state.take_batch());
        } else if state.attended {
            if !state.batch.lines.is_empty() {
                // A failure is for the next round to deal with.
                let _ = writer.write_inline(&mut state);
                continue;
            }
            // While lines come, the next results find this thread waiting and need not wake it.
            state.attended = mem::replace(&mut seen, state.tip.seq) != state.tip.seq;
            if state.attended {
                wait = GATHER;
            }
        }
        if state.stopping {
            state.drained = true;
            return Job::End;
        }
        let woken = match wait {
            Duration::MAX => writer.work.wait(state).map_err(PoisonError::into_inner),
            wait => writer
                .work
                .wait_timeout(state, wait)
                .map(|(state, _)| state)
                .map_err(|poisoned| poisoned.into_inner().0),
        };
        state = woken.unwrap_or_else(|mut state| {
            // A panic left a line half done; it must not be written.
            writer.die(&mut state);
            state
        });
    }
}

fn write(writer: &Writer, batch: Batch) {
    let written = write_batch(writer, &batch);
    match written {
        Ok(()) => writer.commit(batch),
        Err((cause, error)) => writer.abort(batch, cause, &error),
    }
}

fn write_batch(writer: &Writer, batch: &Batch) -> Result<(), (&'static str, io::Error)> {
    let mut segments = writer.segments();
    let finished = segments.append(&batch.lines, batch.first_seq).map_err(|error| ("write_failed", error))?;
    let synced = finished
        .map_or(Ok(()), |mut finished| Segments::finish(&mut finished))
        .and_then(|()| if writer.level == AuditLevel::Durable { segments.sync() } else { segments.sync_names() });
    synced.map_err(|error| ("sync_failed", error))
}

fn finish(writer: &Writer, finished: Vec<AppendFile>) {
    // Not under the lock of the segments: their next lines need not wait for this.
    let synced = finished.into_iter().try_for_each(|mut file| Segments::finish(&mut file));
    let named = synced.and_then(|()| writer.segments().sync_names());
    if let Err(error) = named {
        writer.fail(&mut writer.state(), "sync_failed", &error);
    }
}

/// Tries to begin a segment with a record of what happened.
fn resume(writer: &Writer) {
    let (tip, failure) = {
        let state = writer.state();
        (state.tip, state.failure.clone())
    };
    let now_micros = clock::now_micros();
    let lost = writer.tally.tell().unwrap_or_default();
    let mut line = Vec::new();
    let mut segments = writer.segments();
    let cut = segments.cut();
    let recovery = Recovery {
        cause: failure.as_ref().map_or("write_failed", |failure| failure.cause),
        error: failure.as_ref().map(|failure| failure.error.as_str()),
        cut: cut.as_ref(),
        lost,
        unavailable_micros: failure.as_ref().map(|failure| now_micros.saturating_sub(failure.since_micros)),
        ..Recovery::default()
    };
    let end = link(&mut line, tip, Kind::Recovered, now_micros, |line| encode::recovery(line, &recovery));
    let resumed = segments.resume(&line, end.seq);
    drop(segments);

    let mut state = writer.state();
    match resumed {
        Ok(()) if state.phase == Phase::Down => {
            state.tip = end;
            state.kept = end;
            state.phase = Phase::Up;
            state.failure = None;
            writer.tally.keep(1);
            writer.up.store(true, Ordering::Release);
            tracing::info!(seq = end.seq, "the audit log can be written to again");
        }
        Ok(()) => {}
        Err(error) => {
            writer.tally.untell(lost);
            if error.kind() == io::ErrorKind::AlreadyExists {
                // Somebody's file has the name of the next segment: the number is given up.
                state.tip.seq = end.seq;
            }
            tracing::debug!(%error, "the audit log still cannot be written to");
        }
    }
}
