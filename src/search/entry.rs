//! What is one line of a search's answer?
//!
//! A request that was let through, with how it ended where that is on record, or a refusal. Texts are what the record holds,
//! unescaped: whoever shows them escapes them.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Outcomes that are no error of a server or of the way to it.
const NO_ERRORS: [&str; 3] = ["ok", "accepted", "client_gone"];

/// What policy or an earlier step said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The request went on to the server.
    Allowed,
    /// The gateway answered it itself.
    Refused,
}

impl Decision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Allowed, Self::Refused];

    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// A request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the record of the request: the intent or the refusal.
    pub seq: u64,
    /// When that record was made.
    pub time_micros: u64,
    /// Whether it was let through.
    pub decision: Decision,
    /// How many refusals this one stands for, where they were only counted; then `source` is the first address of their network.
    pub count: Option<u64>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// The JSON-RPC method.
    pub method: Option<String>,
    /// Who called.
    pub principal: Option<String>,
    /// The user of key or token.
    pub user: Option<String>,
    /// The agent of key or token.
    pub agent: Option<String>,
    /// The workspace of the request.
    pub workspace: Option<String>,
    /// The server's configured name.
    pub server: Option<String>,
    /// The tool, as the client wrote it.
    pub tool: Option<String>,
    /// The resource, as the record has it.
    pub resource: Option<String>,
    /// The prompt, as the client wrote it.
    pub prompt: Option<String>,
    /// Why it was let through or refused.
    pub reason: Option<String>,
    /// The place of the rule that said so.
    pub rule: Option<String>,
    /// HTTP status of a refusal.
    pub status: Option<u16>,
    /// How it ended; `None` for a refusal, and as long as no result is on record.
    pub ended: Option<Ended>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Number of the result's record.
    pub seq: u64,
    /// The word for it.
    pub outcome: String,
    /// What went wrong.
    pub reason: Option<String>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// From the request's first byte to the end of the answer.
    pub latency_micros: Option<u64>,
    /// What the call cost, a decimal number.
    pub cost: Option<String>,
}

impl Ended {
    /// Whether it counts as an error in the workflow graph: every outcome but `ok`, `accepted` and `client_gone`.
    pub fn is_error(&self) -> bool {
        !NO_ERRORS.contains(&&*self.outcome)
    }
}

impl Entry {
    /// The part of `user` after the last `@`, in lower case.
    pub fn domain(&self) -> Option<String> {
        let (_, domain) = self.user.as_deref()?.rsplit_once('@')?;
        (!domain.is_empty()).then(|| domain.to_ascii_lowercase())
    }

    /// Whether it was let through and no result is on record.
    pub fn is_open(&self) -> bool {
        self.decision == Decision::Allowed && self.ended.is_none()
    }

    pub(super) fn is_timed(&self) -> bool {
        is_timed(self.method.as_deref())
    }

    /// The address, or the network of refusals that were counted, as text.
    pub fn source_text(&self) -> Option<String> {
        let mut text = self.source?.to_string();
        if self.count.is_some() {
            let bits = if self.source?.is_ipv4() { COUNTED_BITS_V4 } else { COUNTED_BITS_V6 };
            // Writing to a text does not fail.
            let _ = write!(text, "/{bits}");
        }
        Some(text)
    }
}

/// Whether a request lasts as long as a call does. A stream lasts as long as its client stays, which says nothing of a server.
pub(super) fn is_timed(method: Option<&str>) -> bool {
    method.is_some_and(|method| method != "subscriptions/listen")
}

/// Prefix lengths under which refusals are counted.
pub(super) const COUNTED_BITS_V4: u32 = 24;
pub(super) const COUNTED_BITS_V6: u32 = 64;

/// A place between two entries: everything older follows it. Stays good while records are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Day of the entry, counted from 1970-01-01 UTC.
    pub(super) day: u64,
    /// Number of its record.
    pub(super) seq: u64,
}

impl Cursor {
    /// The place right behind an entry.
    pub fn after(entry: &Entry) -> Self {
        Self { day: entry.time_micros / DAY_MICROS, seq: entry.seq }
    }

    /// Reads what [`Cursor`] shows itself as.
    pub fn parse(text: &str) -> Option<Self> {
        let (day, seq) = text.split_once('.')?;
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (is_plain(day) && is_plain(seq)).then_some(Self { day: day.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.day, self.seq)
    }
}

pub(super) const DAY_MICROS: u64 = 86_400 * 1_000_000;
