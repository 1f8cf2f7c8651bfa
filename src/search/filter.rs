//! Which entries does somebody look for?

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::network;
use crate::search::entry::COUNTED_BITS_V4;
use crate::search::entry::COUNTED_BITS_V6;
use crate::search::entry::Decision;
use crate::search::entry::Entry;

/// The word for a request that was let through and has no result on record.
pub const OPEN: &str = "open";

/// What an entry must be like; what is `None` is not asked. Texts are compared whole and letter by letter, but for the domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// From this time on.
    pub since_micros: Option<u64>,
    /// Before this time.
    pub until_micros: Option<u64>,
    /// The server's configured name.
    pub server: Option<String>,
    /// The tool's name.
    pub tool: Option<String>,
    /// The agent of key or token.
    pub agent: Option<String>,
    /// The principal, as the record has it: `key:ci`.
    pub principal: Option<String>,
    /// What stands behind the `@` of the user, in lower case.
    pub domain: Option<String>,
    /// The workspace.
    pub workspace: Option<String>,
    /// Whether it was let through.
    pub decision: Option<Decision>,
    /// How it ended, or [`OPEN`].
    pub outcome: Option<String>,
    /// The reason of the decision, or what went wrong afterwards.
    pub reason: Option<String>,
    /// Where it came from.
    pub source: Option<Sources>,
}

impl Filter {
    /// Whether an entry is looked for. The index answers the same question by its own means.
    pub fn matches(&self, entry: &Entry) -> bool {
        let is = |asked: &Option<String>, found: Option<&String>| asked.is_none() || asked.as_ref() == found;
        let ended = entry.ended.as_ref();
        let outcome = match &self.outcome {
            None => true,
            Some(asked) if asked == OPEN => entry.is_open(),
            Some(asked) => ended.is_some_and(|ended| ended.outcome == *asked),
        };
        let reason = self.reason.is_none()
            || self.reason == entry.reason
            || ended.is_some_and(|ended| ended.reason == self.reason);
        self.since_micros.is_none_or(|since| entry.time_micros >= since)
            && self.until_micros.is_none_or(|until| entry.time_micros < until)
            && is(&self.server, entry.server.as_ref())
            && is(&self.tool, entry.tool.as_ref())
            && is(&self.agent, entry.agent.as_ref())
            && is(&self.principal, entry.principal.as_ref())
            && is(&self.workspace, entry.workspace.as_ref())
            && is(&self.domain, entry.domain().as_ref())
            && self.decision.is_none_or(|decision| decision == entry.decision)
            && outcome
            && reason
            && self.source.as_ref().is_none_or(|sources| sources.contain(entry))
    }
}

/// The addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    range: RangeInclusive<u128>,
}

/// Where IPv4 stands among the IPv6 addresses.
const MAPPED: RangeInclusive<u128> = 0xffff_0000_0000..=0xffff_ffff_ffff;

impl Sources {
    /// Reads an address, or an address and a prefix length.
    ///
    /// # Errors
    /// It is neither; the text says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        network::range(text).map(|range| Self { range })
    }

    /// Refusals that were counted are found by networks that hold all of theirs.
    fn contain(&self, entry: &Entry) -> bool {
        let Some(source) = entry.source else { return false };
        if entry.count.is_some() && !self.holds_counted(source.is_ipv4()) {
            return false;
        }
        self.range.contains(&number(source))
    }

    /// Whether this network is as wide as those under which refusals are counted.
    pub(super) fn holds_counted(&self, is_ipv4: bool) -> bool {
        let bits = if is_ipv4 { 32 - COUNTED_BITS_V4 } else { 128 - COUNTED_BITS_V6 };
        self.range.end() - self.range.start() >= (1 << bits) - 1
    }

    /// The IPv4 addresses in it.
    pub(super) fn v4(&self) -> Option<RangeInclusive<u32>> {
        let start = *self.range.start().max(MAPPED.start());
        let end = *self.range.end().min(MAPPED.end());
        (start <= end).then_some(start as u32..=end as u32)
    }

    /// The IPv6 addresses in it, as bytes; `None` where it holds IPv4 alone.
    pub(super) fn v6(&self) -> Option<RangeInclusive<[u8; 16]>> {
        let is_v4 = MAPPED.contains(self.range.start()) && MAPPED.contains(self.range.end());
        (!is_v4).then(|| self.range.start().to_be_bytes()..=self.range.end().to_be_bytes())
    }
}

/// An address as one number, IPv4 in IPv6 clothes.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
