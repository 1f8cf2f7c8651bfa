//! How do refusals of unknown callers stay small?
//!
//! The first of each (address prefix, reason, second) is written in full, the rest is counted. All of it has a
//! bounded share of the disk per hour; beyond that one number is kept. Pure: it is told the time and writes nothing.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Reason under which refusals are counted that found the table full.
const OTHER: &str = "other";
/// Reason under which refusals are counted that found the hour's share of the disk used up.
const OVER_BUDGET: &str = "over_budget";

const SECOND_MICROS: u64 = 1_000_000;
const HOUR_MICROS: u64 = 3_600 * SECOND_MICROS;

/// The network an address is counted under: /24 of IPv4, /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Prefix(IpAddr);

impl Prefix {
    /// The network of an address. An IPv4 address in IPv6 clothes counts as what it is.
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !0xff))),
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(network) => write!(f, "{network}/24"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// Refusals that were counted instead of being written in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coalesced {
    /// Where they came from; `None` for a Unix socket or a mixture.
    pub(super) prefix: Option<Prefix>,
    /// Why they were refused.
    pub(super) reason: &'static str,
    /// How many.
    pub(super) count: u64,
    /// Start of the second, or of the hour, in which they came.
    pub(super) since_micros: u64,
}

/// What is to be written now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Counts whose second is over.
    pub(super) counted: Vec<Coalesced>,
    /// Whether the refusal at hand is written in full.
    pub(super) full: bool,
}

/// The refusals of the current second.
#[derive(Debug)]
pub(super) struct Coalescer {
    pending_max: usize,
    bytes_per_hour_max: u64,
    pending: HashMap<(Option<Prefix>, &'static str), Count>,
    other: Count,
    over_budget: Count,
    hour: u64,
    spent_bytes: u64,
}

/// How often since when.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    since_micros: u64,
    count: u64,
}

impl Count {
    fn add(&mut self, since_micros: u64) {
        if self.count == 0 {
            self.since_micros = since_micros;
        }
        self.count = self.count.saturating_add(1);
    }

    fn take(&mut self, prefix: Option<Prefix>, reason: &'static str) -> Option<Coalesced> {
        let Self { since_micros, count } = mem::take(self);
        (count > 0).then_some(Coalesced { prefix, reason, count, since_micros })
    }
}

impl Coalescer {
    /// Remembers at most `pending_max` kinds of refusals a second, and lets `bytes_per_hour_max` bytes be written.
    pub(super) fn new(pending_max: usize, bytes_per_hour_max: u64) -> Self {
        Self {
            pending_max,
            bytes_per_hour_max,
            pending: HashMap::new(),
            other: Count::default(),
            over_budget: Count::default(),
            hour: 0,
            spent_bytes: 0,
        }
    }

    /// Takes one refusal and says what is to be written for it.
    pub(super) fn refused(&mut self, address: Option<IpAddr>, reason: &'static str, now_micros: u64) -> Due {
        let mut due = Due { counted: Vec::new(), full: false };
        due.counted.extend(self.new_hour(now_micros));
        let second = now_micros - now_micros % SECOND_MICROS;
        let key = (address.map(Prefix::of), reason);
        let room = self.pending.len() < self.pending_max;
        match self.pending.get_mut(&key) {
            Some(seen) if seen.since_micros == second => seen.count = seen.count.saturating_add(1),
            Some(seen) => {
                due.counted.extend(seen.take(key.0, reason));
                seen.since_micros = second;
                due.full = self.within_budget();
            }
            None if room => {
                self.pending.insert(key, Count { since_micros: second, count: 0 });
                due.full = self.within_budget();
            }
            None => self.other.add(second),
        }
        due
    }

    /// The counts of all seconds that are over at `now_micros`. Bounded by `pending_max` and two more.
    pub(super) fn over(&mut self, now_micros: u64) -> Vec<Coalesced> {
        let second = now_micros - now_micros % SECOND_MICROS;
        let mut over: Vec<Coalesced> = self.new_hour(now_micros).into_iter().collect();
        self.pending.retain(|(prefix, reason), seen| {
            let current = seen.since_micros == second;
            if !current {
                over.extend(seen.take(*prefix, reason));
            }
            current
        });
        if self.other.since_micros != second {
            over.extend(self.other.take(None, OTHER));
        }
        over
    }

    /// Every count there is, at the end of service.
    pub(super) fn all(&mut self) -> Vec<Coalesced> {
        let pending = mem::take(&mut self.pending);
        let mut all: Vec<Coalesced> =
            pending.into_iter().filter_map(|((prefix, reason), mut seen)| seen.take(prefix, reason)).collect();
        all.extend(self.other.take(None, OTHER));
        all.extend(self.over_budget.take(None, OVER_BUDGET));
        all
    }

    /// Whether a count may be written; if not, it joins the number that is kept for the end of the hour.
    pub(super) fn may_write(&mut self, coalesced: &Coalesced) -> bool {
        let may = self.spent_bytes < self.bytes_per_hour_max || coalesced.reason == OVER_BUDGET;
        if !may {
            self.over_budget.add(self.hour);
            self.over_budget.count = self.over_budget.count.saturating_add(coalesced.count - 1);
        }
        may
    }

    /// Takes the bytes of a line that was written from the hour's share.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.spent_bytes = self.spent_bytes.saturating_add(bytes);
    }

    fn within_budget(&mut self) -> bool {
        let within = self.spent_bytes < self.bytes_per_hour_max;
        if !within {
            self.over_budget.add(self.hour);
        }
        within
    }

    /// Begins a new share when the hour is over, and hands out what the old one had no room for.
    fn new_hour(&mut self, now_micros: u64) -> Option<Coalesced> {
        let hour = now_micros - now_micros % HOUR_MICROS;
        if hour == self.hour {
            return None;
        }
        self.hour = hour;
        self.spent_bytes = 0;
        self.over_budget.take(None, OVER_BUDGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000 * SECOND_MICROS;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn prefix(text: &str) -> String {
        Prefix::of(text.parse().unwrap()).to_string()
    }

    #[test]
    fn an_address_is_counted_under_its_network() {
        assert_eq!(prefix("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(prefix("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(prefix("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn the_first_of_a_second_is_written_and_the_rest_counted() {
        let mut table = Coalescer::new(8, u64::MAX);
        assert!(table.refused(address("192.0.2.1"), "unknown", START).full);
        for other in 2..=10 {
            let due = table.refused(address(&format!("192.0.2.{other}")), "unknown", START + 999_999);
            assert_eq!(due, Due { counted: Vec::new(), full: false });
        }
        assert!(table.refused(address("192.0.2.1"), "malformed", START).full, "another reason");
        assert!(table.refused(address("192.0.3.1"), "unknown", START).full, "another network");
        assert_eq!(table.over(START + 999_999), Vec::new());
        let nine = Coalesced {
            prefix: address("192.0.2.0").map(Prefix::of),
            reason: "unknown",
            count: 9,
            since_micros: START,
        };
        assert_eq!(table.over(START + SECOND_MICROS), [nine]);
        assert_eq!(table.over(START + 2 * SECOND_MICROS), Vec::new());
    }

    #[test]
    fn the_next_second_hands_out_the_count_of_the_last() {
        let mut table = Coalescer::new(8, u64::MAX);
        table.refused(None, "unknown", START);
        table.refused(None, "unknown", START);
        let due = table.refused(None, "unknown", START + SECOND_MICROS);
        assert!(due.full);
        assert_eq!(due.counted, [Coalesced { prefix: None, reason: "unknown", count: 1, since_micros: START }]);
        assert_eq!(table.all(), Vec::new());
    }

    #[test]
    fn kinds_beyond_pending_max_are_counted_as_other() {
        let mut table = Coalescer::new(2, u64::MAX);
        let full = (0..5).filter(|n| table.refused(address(&format!("10.0.{n}.1")), "unknown", START).full).count();
        assert_eq!(full, 2);
        let other = Coalesced { prefix: None, reason: "other", count: 3, since_micros: START };
        assert_eq!(table.over(START + SECOND_MICROS), [other]);
        assert!(table.refused(address("10.0.9.1"), "unknown", START + SECOND_MICROS).full, "there is room again");
    }

    #[test]
    fn beyond_the_hours_share_one_number_is_kept() {
        let mut table = Coalescer::new(8, 1_000);
        let hour = START - START % HOUR_MICROS;
        assert!(table.refused(address("10.0.0.1"), "unknown", START).full);
        table.refused(address("10.0.0.1"), "unknown", START);
        table.spend(1_000);
        assert!(!table.refused(address("10.0.1.1"), "unknown", START).full);
        for coalesced in table.over(START + SECOND_MICROS) {
            assert!(!table.may_write(&coalesced));
        }
        let kept = Coalesced { prefix: None, reason: "over_budget", count: 2, since_micros: hour };
        let due = table.refused(address("10.0.0.1"), "unknown", hour + HOUR_MICROS);
        assert_eq!(due, Due { counted: vec![kept], full: true });
        assert!(table.may_write(&kept));
    }
}
