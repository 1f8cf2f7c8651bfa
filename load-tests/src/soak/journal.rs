//! What did the clients do, and what became of it?
//!
//! Each request has a number, which its `User-Agent` carries, so that it can be found on record. What it left there is
//! compared with what its client saw.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::client::Wrong;
use crate::records::Reader;
use crate::records::Record;

/// What a `User-Agent` of ours begins with.
pub(super) const AGENT: &str = "soak/";
/// Findings that are told; what is beyond is counted.
const FINDINGS_MAX: usize = 20;

/// Whom a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Server {
    /// Nothing ever happens to this one.
    Steady,
    /// This one is killed, stopped, reset.
    Flappy,
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As it must.
    Right,
    /// Otherwise.
    Wrong(Wrong),
    /// The client went away on purpose.
    Left,
}

/// What a request leaves on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// An intent and its result.
    Call,
    /// A refusal.
    Refusal,
    /// Either of these.
    Either,
    /// A refusal that may be counted with others like it.
    Counted,
    /// Whatever it got to.
    Anything,
    /// As many intents, each with its result, as the gateway needed to keep a stream of its own going.
    Stream,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) kind: &'static str,
    pub(super) server: Server,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) end: End,
    pub(super) leaves: Leaves,
}

/// What was done since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Journal {
    next: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl Journal {
    /// A number for the next request.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Notes what became of a request.
    pub(super) fn note(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Takes what was noted.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request, and what of it is on record.
#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: &'static str,
    leaves: Leaves,
    is_right: bool,
    intents: u8,
    results: u8,
    refusals: u8,
}

impl Slot {
    const EMPTY: Self =
        Self { kind: "", leaves: Leaves::Anything, is_right: false, intents: 0, results: 0, refusals: 0 };

    /// What is wrong with its record.
    fn flaw(&self) -> Option<&'static str> {
        let Self { intents, results, refusals, .. } = *self;
        let called = (intents, results, refusals) == (1, 1, 0);
        let refused = (intents, results, refusals) == (0, 0, 1);
        let absent = (intents, results, refusals) == (0, 0, 0);
        match self.leaves {
            Leaves::Stream if results == intents => None,
            _ if intents > 1 => Some("has two intents"),
            _ if results != intents => Some("has an intent without its result"),
            _ if intents + refusals > 1 => Some("is both forwarded and refused"),
            Leaves::Call if self.is_right && !called => Some("was answered and has no intent and result"),
            Leaves::Call | Leaves::Either if !called && !refused => Some("is not on record"),
            Leaves::Refusal if !refused => Some("was refused and has no refusal on record"),
            Leaves::Counted if !refused && !absent => Some("was forwarded, where it must be refused"),
            Leaves::Call | Leaves::Refusal | Leaves::Either | Leaves::Counted => None,
            Leaves::Anything | Leaves::Stream => None,
        }
    }
}

/// Every request so far, beside its record.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    slots: Vec<Slot>,
    /// Results, by how they ended.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Refusals on record, those that were counted together included.
    pub(super) refusals: u64,
    /// Lines of requests that are not ours.
    pub(super) strangers: u64,
}

impl Ledger {
    /// Takes in what clients saw.
    pub(super) fn enter(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Some(slot) = self.slot(entry.number) else { continue };
            slot.kind = entry.kind;
            slot.leaves = entry.leaves;
            slot.is_right = entry.end == End::Right;
        }
    }

    /// Requests of which the record says something else than their clients saw; and how many.
    pub(super) fn flaws(&self) -> (Vec<String>, usize) {
        let flaws = self.slots.iter().enumerate().filter_map(|(number, slot)| Some((number, slot, slot.flaw()?)));
        let told = flaws.clone().take(FINDINGS_MAX);
        (told.map(|(number, slot, flaw)| format!("{} {number} {flaw}", slot.kind)).collect(), flaws.count())
    }

    /// How many requests must have left a refusal.
    pub(super) fn refusals_due(&self) -> u64 {
        let due = self.slots.iter().filter(|slot| matches!(slot.leaves, Leaves::Refusal | Leaves::Counted));
        due.count() as u64
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = usize::try_from(number).ok()?;
        if at >= self.slots.len() {
            // Numbers are given one after the other; a far one is not ours.
            if at > self.slots.len() + 1_000_000 {
                return None;
            }
            self.slots.resize(at + 1, Slot::EMPTY);
        }
        self.slots.get_mut(at)
    }

    fn of(&mut self, record: &Record<'_>) -> Option<(u64, &mut Slot)> {
        let number = record.user_agent.as_deref().and_then(|agent| agent.strip_prefix(AGENT)?.parse().ok())?;
        self.slot(number).map(|slot| (number, slot))
    }
}

/// What an intent is numbered that is not ours.
const STRANGER: u64 = u64::MAX;

impl Reader for Ledger {
    fn intent(&mut self, record: &Record<'_>) -> u64 {
        if let Some((number, slot)) = self.of(record) {
            slot.intents = slot.intents.saturating_add(1);
            return number;
        }
        self.strangers += 1;
        STRANGER
    }

    fn result(&mut self, number: u64, record: &Record<'_>) {
        let outcome = record.outcome.as_deref().unwrap_or("none");
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        if let Some(slot) = self.slot(number) {
            slot.results = slot.results.saturating_add(1);
        }
    }

    fn refused(&mut self, record: &Record<'_>) {
        self.refusals += record.count.unwrap_or(1);
        if let Some((_, slot)) = self.of(record) {
            slot.refusals = slot.refusals.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(leaves: Leaves, [intents, results, refusals]: [u8; 3]) -> Slot {
        Slot { kind: "call", leaves, is_right: true, intents, results, refusals }
    }

    #[test]
    fn what_the_record_does_not_say_is_a_flaw() {
        assert_eq!(slot(Leaves::Call, [1, 1, 0]).flaw(), None);
        assert!(slot(Leaves::Call, [0, 0, 0]).flaw().is_some());
        assert!(slot(Leaves::Call, [0, 0, 1]).flaw().is_some(), "it was answered");
        assert!(slot(Leaves::Call, [2, 2, 0]).flaw().is_some());
        assert!(slot(Leaves::Anything, [1, 0, 0]).flaw().is_some());
        assert_eq!(slot(Leaves::Stream, [3, 3, 0]).flaw(), None);
        assert!(slot(Leaves::Stream, [3, 2, 0]).flaw().is_some());
        assert_eq!(slot(Leaves::Anything, [0, 0, 0]).flaw(), None);
        assert!(slot(Leaves::Refusal, [1, 1, 0]).flaw().is_some());
        assert!(slot(Leaves::Counted, [1, 1, 0]).flaw().is_some());
        assert_eq!(slot(Leaves::Counted, [0, 0, 0]).flaw(), None);
        let failed = Slot { is_right: false, ..slot(Leaves::Call, [0, 0, 1]) };
        assert_eq!(failed.flaw(), None);
    }
}
