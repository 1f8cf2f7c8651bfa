//! How many records of which kind, and how many are missing?
//!
//! Counters that are touched while the log itself cannot be: what was lost is told by the next record that can be written.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::audit::chain;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request is about to go upstream.
    Intent,
    /// How it ended.
    Result,
    /// A request was refused, or several.
    Refused,
    /// Something happened to the log itself.
    Recovered,
    /// Its first segments are about to be removed.
    Removed,
}

impl Kind {
    /// The word in records. Never changes once released.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Result => "result",
            Self::Refused => "refused",
            Self::Recovered => chain::RECOVERED,
            Self::Removed => "removed",
        }
    }
}

/// Records of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) intents: u64,
    pub(super) results: u64,
    pub(super) refusals: u64,
    pub(super) recoveries: u64,
}

impl Counts {
    /// Counts one more.
    pub(super) fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Intent => self.intents += 1,
            Kind::Result => self.results += 1,
            Kind::Refused => self.refusals += 1,
            Kind::Recovered | Kind::Removed => self.recoveries += 1,
        }
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            intents: self.intents + other.intents,
            results: self.results + other.results,
            refusals: self.refusals + other.refusals,
            recoveries: self.recoveries + other.recoveries,
        }
    }

    /// Records of all kinds.
    pub(super) fn all(self) -> u64 {
        self.intents + self.results + self.refusals + self.recoveries
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records kept.
    pub records: u64,
    /// Intents that were acknowledged, at `queued`, and lost.
    pub lost_intents: u64,
    /// Results that were lost.
    pub lost_results: u64,
    /// Refusals that were lost.
    pub lost_refusals: u64,
    /// Refusals before authentication that were counted instead of being written in full.
    pub coalesced: u64,
    /// Errors that ended a segment.
    pub failures: u64,
    /// Whether no checkpoint can be signed, which the log tells why.
    pub is_unsigned: bool,
}

/// The log's counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kept: AtomicU64,
    failures: AtomicU64,
    coalesced: AtomicU64,
    is_unsigned: AtomicBool,
    intents: Lost,
    results: Lost,
    refusals: Lost,
}

/// Since the start, and since a record last told.
#[derive(Debug, Default)]
struct Lost {
    total: AtomicU64,
    untold: AtomicU64,
}

impl Lost {
    fn add(&self, count: u64) {
        self.total.fetch_add(count, Ordering::Relaxed);
        self.untold.fetch_add(count, Ordering::Relaxed);
    }
}

impl Tally {
    /// Records that are kept as the level says.
    pub(super) fn keep(&self, count: u64) {
        self.kept.fetch_add(count, Ordering::Relaxed);
    }

    /// An error ended a segment.
    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A refusal was counted instead of being written.
    pub(super) fn coalesce(&self) {
        self.coalesced.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a checkpoint could not be signed when it was last tried.
    pub(super) fn unsigned(&self, is_unsigned: bool) {
        self.is_unsigned.store(is_unsigned, Ordering::Relaxed);
    }

    /// Records that will never be written.
    pub(super) fn lose(&self, lost: Counts) {
        self.intents.add(lost.intents);
        self.results.add(lost.results);
        self.refusals.add(lost.refusals);
    }

    /// What was lost and not told yet. It counts as told, unless [`Tally::untell`] takes it back.
    pub(super) fn tell(&self) -> Option<Counts> {
        let take = |lost: &Lost| match lost.untold.load(Ordering::Relaxed) {
            0 => 0,
            _ => lost.untold.swap(0, Ordering::Relaxed),
        };
        let lost = Counts {
            intents: take(&self.intents),
            results: take(&self.results),
            refusals: take(&self.refusals),
            recoveries: 0,
        };
        (lost.all() > 0).then_some(lost)
    }

    /// The record that told could not be written.
    pub(super) fn untell(&self, lost: Counts) {
        self.intents.untold.fetch_add(lost.intents, Ordering::Relaxed);
        self.results.untold.fetch_add(lost.results, Ordering::Relaxed);
        self.refusals.untold.fetch_add(lost.refusals, Ordering::Relaxed);
    }

    /// Totals since the start.
    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: read(&self.kept),
            lost_intents: read(&self.intents.total),
            lost_results: read(&self.results.total),
            lost_refusals: read(&self.refusals.total),
            coalesced: read(&self.coalesced),
            failures: read(&self.failures),
            is_unsigned: self.is_unsigned.load(Ordering::Relaxed),
        }
    }
}
