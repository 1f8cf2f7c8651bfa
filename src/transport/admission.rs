//! May this client have a connection?
//!
//! Asked before anything is read, and before a TLS handshake costs anything: the gateway takes so many connections at
//! once, so many of them from one address, and so many new ones a second from it. An address of IPv6 is its /64, as
//! one host has a whole one. Who has no address (a Unix socket) is bounded by the first limit alone. What is remembered
//! of addresses is bounded: of those with connections by the first limit, of arrivals by `ARRIVALS_MAX`.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::transport::head;
use crate::transport::head::Refusal;

/// Addresses whose arrivals are remembered. More of them within a second begin to be forgotten, the oldest first.
const ARRIVALS_MAX: usize = 65_536;
/// How many seconds' worth of new connections may come at once. An arrival is of no interest after as long.
const BURST: Duration = Duration::from_secs(1);

/// What one address may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; `None`: three quarters of all, so that no single address keeps everybody else out.
    pub per_address_max: Option<usize>,
    /// New connections a second, and as many at once.
    pub accepts_per_second_max: u32,
}

/// Whom a connection is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    /// An IPv4 address in IPv6 clothes counts as what it is.
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }
}

/// The connections there are.
pub struct Admission {
    places: Arc<Semaphore>,
    connections_max: usize,
    sources: Mutex<Sources>,
}

struct Sources {
    /// Connections now, by whom they are counted for. Has an entry only where there is one.
    open: HashMap<Source, usize>,
    arrivals: Arrivals,
}

impl Admission {
    /// Of at most so many connections at once.
    pub fn new(connections_max: usize) -> Arc<Self> {
        let sources = Sources { open: HashMap::new(), arrivals: Arrivals::new(ARRIVALS_MAX, Instant::now()) };
        let places = Arc::new(Semaphore::new(connections_max));
        Arc::new(Self { places, connections_max, sources: Mutex::new(sources) })
    }

    /// A place for a connection of which nothing is known yet.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn open(self: &Arc<Self>) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| head::BUSY)?;
        Ok(Place { admission: Arc::clone(self), counted_for: None, _permit: permit })
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place, until it is dropped.
#[must_use = "a place that is dropped is free again"]
pub struct Place {
    admission: Arc<Admission>,
    counted_for: Option<Source>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Counts the connection for the address of its client, as soon as that is known: the peer's, or the one that a
    /// trusted proxy names. Counts once; a place is given up with its connection.
    ///
    /// # Errors
    /// The address has as many as it may have, or opens them too fast.
    pub fn count_for(&mut self, address: IpAddr, limits: &Limits) -> Result<(), Refusal> {
        self.count_at(address, limits, Instant::now())
    }

    fn count_at(&mut self, address: IpAddr, limits: &Limits, now: Instant) -> Result<(), Refusal> {
        if self.counted_for.is_some() {
            return Ok(());
        }
        let source = Source::of(address);
        let fair = (self.admission.connections_max - self.admission.connections_max / 4).max(1);
        let mut sources = self.admission.sources();
        if !sources.arrivals.allows(source, limits.accepts_per_second_max, now) {
            return Err(head::TOO_FAST);
        }
        let open = sources.open.get(&source).copied().unwrap_or(0);
        if open >= limits.per_address_max.unwrap_or(fair) {
            return Err(head::TOO_MANY);
        }
        sources.open.insert(source, open + 1);
        drop(sources);
        self.counted_for = Some(source);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(source) = self.counted_for else { return };
        let mut sources = self.admission.sources();
        match sources.open.get_mut(&source) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(sources.open.remove(&source)),
        }
    }
}

/// Who came how often of late: for each source, when its next connection would be in time if all had kept their
/// distance. In two generations, of which the older one is forgotten whole: after [`BURST`] it says nothing any more.
struct Arrivals {
    generation_max: usize,
    start: Instant,
    began: Instant,
    young: HashMap<Source, Duration>,
    old: HashMap<Source, Duration>,
}

impl Arrivals {
    fn new(entries_max: usize, now: Instant) -> Self {
        let generation_max = (entries_max / 2).max(1);
        Self { generation_max, start: now, began: now, young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether a source may open a connection now; if so, it is noted.
    fn allows(&mut self, source: Source, per_second_max: u32, now: Instant) -> bool {
        let distance = Duration::from_secs(1) / per_second_max.max(1);
        let at = now.saturating_duration_since(self.start);
        let next = self.young.get(&source).or_else(|| self.old.get(&source)).copied().unwrap_or(at).max(at);
        if next + distance > at + BURST {
            return false;
        }
        if now.saturating_duration_since(self.began) > BURST || self.young.len() >= self.generation_max {
            self.old = mem::take(&mut self.young);
            self.began = now;
        }
        self.young.insert(source, next + distance);
        true
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Limits = Limits { per_address_max: Some(1000), accepts_per_second_max: 1_000_000 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A place for a client from here, or the reason why there is none.
    fn place(admission: &Arc<Admission>, from: &str, limits: &Limits) -> Result<Place, &'static str> {
        let opened = admission.open().and_then(|mut place| place.count_for(address(from), limits).map(|()| place));
        opened.map_err(|refusal| refusal.reason)
    }

    #[test]
    fn there_are_no_more_connections_than_the_limit_and_each_leaves_its_place() {
        let admission = Admission::new(2);
        let first = place(&admission, "10.0.0.1", &FREE).unwrap();
        let second = admission.open().unwrap();
        assert_eq!(place(&admission, "10.0.0.2", &FREE).err(), Some("connections_max"));
        drop((first, second));
        let _again = (place(&admission, "10.0.0.1", &FREE).unwrap(), admission.open().unwrap());
    }

    #[test]
    fn one_address_has_so_many_and_one_network_of_ipv6_counts_as_one() {
        let admission = Admission::new(100);
        let limits = Limits { per_address_max: Some(2), ..FREE };
        for (one, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            let held = [place(&admission, one, &limits).unwrap(), place(&admission, same, &limits).unwrap()];
            for full in [one, same] {
                assert_eq!(place(&admission, full, &limits).err(), Some("connections_per_address_max"), "{full}");
            }
            let _other = place(&admission, other, &limits).unwrap();
            drop(held);
            let _again = place(&admission, one, &limits).unwrap();
        }
        assert!(admission.sources().open.is_empty(), "nobody is remembered who has no connection");
    }

    #[test]
    fn without_a_number_one_address_leaves_a_quarter_for_the_others() {
        let admission = Admission::new(8);
        let limits = Limits { per_address_max: None, ..FREE };
        let _held: Vec<_> = (0..6).map(|_| place(&admission, "10.0.0.1", &limits).unwrap()).collect();
        assert_eq!(place(&admission, "10.0.0.1", &limits).err(), Some("connections_per_address_max"));
        assert!(place(&admission, "10.0.0.2", &limits).is_ok());
        let tiny = Admission::new(1);
        assert!(place(&tiny, "10.0.0.1", &limits).is_ok());
    }

    #[test]
    fn a_place_is_counted_for_one_address_only() {
        let admission = Admission::new(8);
        let limits = Limits { per_address_max: Some(1), ..FREE };
        let mut held = place(&admission, "10.0.0.1", &limits).unwrap();
        assert_eq!(held.count_for(address("10.0.0.2"), &limits), Ok(()));
        assert_eq!(place(&admission, "10.0.0.1", &limits).err(), Some("connections_per_address_max"));
        assert!(place(&admission, "10.0.0.2", &limits).is_ok());
    }

    #[test]
    fn one_address_opens_so_many_a_second_and_as_many_at_once() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(16, start);
        let source = Source::of(address("10.0.0.1"));
        let mut allowed = |milliseconds: u64| {
            let now = start + Duration::from_millis(milliseconds);
            (0..100).filter(|_| arrivals.allows(source, 10, now)).count()
        };
        assert_eq!([0, 0, 50, 100, 150, 400, 10_000].map(&mut allowed), [10, 0, 0, 1, 0, 3, 10]);
        assert!(arrivals.allows(Source::of(address("10.0.0.2")), 10, start), "others have their own");
    }

    #[test]
    fn what_is_remembered_of_arrivals_is_bounded_and_soon_forgotten() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(100, start);
        for number in 0..10_000_u32 {
            assert!(arrivals.allows(Source(std::net::Ipv4Addr::from_bits(number).into()), 1, start));
            assert!(arrivals.len() <= 100);
        }
        let last = Source(std::net::Ipv4Addr::from_bits(9_999).into());
        assert!(!arrivals.allows(last, 1, start), "the latest are remembered");
        for step in 1..=2_u32 {
            assert!(arrivals.allows(Source::of(address("10.0.0.1")), 1, start + BURST * step * 2));
        }
        assert_eq!(arrivals.len(), 1 + 1);
    }
}
