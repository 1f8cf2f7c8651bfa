//! How do two processes write one chain while one hands over to the other?
//!
//! Each line is written in turn, whatever the level. No segment is begun then and none is given up: what must wait for
//! that waits until the other process is gone.

use std::mem;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::audit::chain::Tip;
use crate::audit::encode;
use crate::audit::encode::Recovery;
use crate::audit::line::Line;
use crate::audit::segments::Keep;
use crate::audit::tally::Kind;
use crate::audit::writer::Appended;
use crate::audit::writer::PAUSE;
use crate::audit::writer::Phase;
use crate::audit::writer::Sharing;
use crate::audit::writer::State;
use crate::audit::writer::Unavailable;
use crate::audit::writer::Writer;
use crate::clock;
use crate::config::model::AuditLevel;

/// How long what has gathered may take to be written before the segment is shared.
const SHARE_TIME_MAX: Duration = Duration::from_secs(5);

impl Writer {
    /// Writes one line in turn with another process, and the count of what was lost before it.
    pub(super) fn write_beside(
        &self,
        state: &mut State,
        kind: Kind,
        now_micros: u64,
        fields: impl FnOnce(&mut Line<'_>),
    ) -> Result<Appended, Unavailable> {
        let before = state.tip;
        let mut bytes = 0;
        let synced = self.level == AuditLevel::Durable;
        let written = self.segments().append_beside(before, synced, |tip| {
            state.tip = tip;
            if let Some(lost) = self.tally.tell() {
                state.tell(lost, now_micros);
            }
            bytes = state.push(kind, now_micros, fields);
            (mem::take(&mut state.batch.lines), state.tip)
        });
        match written {
            Ok(end) => {
                state.kept = end;
                self.tally.keep(state.batch.counts.all());
                state.batch.clear();
                Ok(Appended { seq: end.seq, bytes, kept: None })
            }
            Err(missed) if missed.is_clean => {
                // The other process may be slow, or the disk full for a moment: no segment can be begun now, so the
                // next line is simply tried.
                tracing::warn!(error = %missed.error, "a line could not be written beside another process");
                self.tally.untell(state.batch.told);
                state.batch.clear();
                state.tip = before;
                Err(self.reject(kind, Unavailable::Failed))
            }
            Err(missed) => {
                // What the closure has not made is in no batch, and counted here.
                let is_made = state.batch.counts.all() > 0;
                self.fail(state, "write_failed", &missed.error);
                Err(if is_made { Unavailable::Failed } else { self.reject(kind, Unavailable::Failed) })
            }
        }
    }

    /// Lets another process write to the segment as well: what has gathered is written first, and from here on every line
    /// in turn.
    pub(super) fn share(&self) -> Result<(), Unavailable> {
        let begun = Instant::now();
        loop {
            let mut state = self.state();
            if state.phase != Phase::Up || state.stopping {
                state.sharing = if state.sharing.is_on() { state.sharing } else { Sharing::No };
                return Err(Unavailable::Failed);
            }
            let is_settled = state.batch.lines.is_empty() && state.in_flight == 0 && state.finished.is_empty();
            if is_settled || state.sharing.is_on() {
                let shared = self.segments().share();
                state.sharing = if shared.is_ok() { Sharing::Leaving } else { Sharing::No };
                return shared.map_err(|error| {
                    tracing::error!(%error, "the audit directory cannot be shared");
                    Unavailable::Failed
                });
            }
            if self.is_inline(&state) && !state.batch.lines.is_empty() {
                // The thread may be at a full segment, and lines that come wait for this.
                if let Err(unavailable) = self.write_inline(&mut state) {
                    state.sharing = Sharing::No;
                    return Err(unavailable);
                }
                continue;
            }
            if begun.elapsed() > SHARE_TIME_MAX {
                state.sharing = Sharing::No;
                return Err(Unavailable::QueueFull);
            }
            state.sharing = Sharing::Soon;
            drop(state);
            self.work.notify_one();
            thread::sleep(PAUSE);
        }
    }

    /// What was to take over did not: the segment is to be this process's own again.
    pub(super) fn inherit(&self) {
        let mut state = self.state();
        state.sharing = if state.sharing == Sharing::No { Sharing::No } else { Sharing::Heir };
    }

    /// Whether the segment is this process's alone, or just became so. To be asked once in a while.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.state();
        if state.sharing != Sharing::Heir {
            return state.sharing == Sharing::No;
        }
        let claimed = self.segments().claim(state.kept);
        match claimed {
            Ok(None) => return false,
            Ok(Some(tip)) => {
                // Numbers that were given to lines that never stood are not used again.
                state.tip = Tip { seq: tip.seq.max(state.tip.seq), hash: tip.hash };
                state.kept = tip;
                state.sharing = Sharing::No;
                if state.phase == Phase::Down {
                    self.segments().abandon(Keep::Written);
                } else {
                    state.tip = tip;
                    self.tell_cut(&mut state);
                }
            }
            Err(error) => {
                // What the other wrote last is not known: nothing may follow it before an attempt succeeds.
                self.fail(&mut state, "write_failed", &error);
                return false;
            }
        }
        self.work.notify_one();
        true
    }

    /// Puts on record what was cut off the segment when it was claimed.
    fn tell_cut(&self, state: &mut State) {
        let cut = self.segments().cut();
        if cut.is_none() {
            return;
        }
        let recovery = Recovery { cause: "torn_tail", cut: cut.as_ref(), ..Recovery::default() };
        state.push(Kind::Recovered, clock::now_micros(), |line| encode::recovery(line, &recovery));
        // A failure is told by the next record, and the cut with it. Other levels leave it to the thread.
        if !self.is_inline(state) || self.write_inline(state).is_ok() {
            self.segments().told_cut();
        }
    }
}
