//! What is one address of a server, at run time?
//!
//! Its target, its connections, what is pending, and the addresses its name last resolved to. Names are resolved anew
//! for every connection; while the resolver fails, the last answer serves.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::upstream::counted::Held;
use crate::upstream::counted::Slot;
use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::plan::Plan;
use crate::upstream::pool::IDLE_TIMEOUT;
use crate::upstream::pool::Pool;
use crate::upstream::reference;
use crate::upstream::target::Target;
use http::uri::PathAndQuery;

/// Addresses of one name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 8;
/// Addresses of one name that are remembered.
const SEEN_MAX: usize = 256;
/// How long a connection that was just given up may take to be closed, where another waits for its place.
const SLOT_WAIT: Duration = Duration::from_millis(50);
/// Share of its weight, in thousandths, that an endpoint has at least.
const SHARE_MIN: u128 = 100;
/// The whole of its weight.
pub(crate) const SHARE_WHOLE: usize = 1_000;

/// One address of a server.
pub struct Endpoint {
    pub(crate) target: Target,
    pub(crate) weight: usize,
    /// Its place among the server's endpoints.
    pub(crate) position: usize,
    pub(crate) pool: Pool,
    /// It keeps its sessions and gets nothing new.
    pub(crate) is_draining: bool,
    /// What calls hold of it, whichever configuration they were sent by.
    held: Arc<Held>,
    /// Connections that may be open.
    connections_max: usize,
    is_healthy: AtomicBool,
    slow_start: Duration,
    /// Whether it came not long ago; when that was.
    is_fresh: AtomicBool,
    came: Mutex<Option<Instant>>,
    /// How long an address that a name no longer has is still taken for one of its own.
    resolve_interval: Duration,
    addresses: Mutex<Addresses>,
}

/// What a name resolved to.
#[derive(Clone, Default)]
struct Addresses {
    /// The last answer.
    last: Vec<SocketAddr>,
    /// Every address of the last answers, and when it was last among them: some resolvers tell a part each time.
    seen: Vec<(SocketAddr, Instant)>,
}

impl Endpoint {
    pub(crate) fn new(target: Target, weight: usize, position: usize) -> Self {
        Self {
            target,
            weight,
            position,
            pool: Pool::new(IDLE_TIMEOUT),
            is_draining: false,
            held: Arc::default(),
            connections_max: usize::MAX,
            is_healthy: AtomicBool::new(true),
            slow_start: Duration::ZERO,
            is_fresh: AtomicBool::new(false),
            came: Mutex::default(),
            resolve_interval: Duration::ZERO,
            addresses: Mutex::default(),
        }
    }

    /// A stable number made of the endpoint's URL: the same after a restart, on another machine, in a later version.
    pub fn id(&self) -> u64 {
        self.target.id
    }

    /// `scheme://host:port`, for operators and records. Path and query, where a token may stand, are never in it.
    pub fn origin(&self) -> &str {
        &self.target.origin
    }

    /// Whether the last health check went well; true where nothing is checked.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Takes note of a health check.
    pub(crate) fn set_healthy(&self, is_healthy: bool) {
        if !self.is_healthy.swap(is_healthy, Ordering::Relaxed) && is_healthy {
            self.came();
        }
    }

    /// Calls on their way there or back.
    pub fn pending(&self) -> usize {
        self.held.pending.load(Ordering::Relaxed)
    }

    /// A call sets out.
    pub(crate) fn begin(&self) {
        self.held.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is over.
    pub(crate) fn end(&self) {
        self.held.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.held.connections()
    }

    /// Whether there is neither a connection to spare nor room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.held.connections() >= self.connections_max && self.pool.is_empty()
    }

    /// A place for one more connection, held for as long as that is open.
    pub(crate) async fn slot(&self) -> Result<Slot, Mishap> {
        if let Some(slot) = self.held.try_slot(self.connections_max) {
            return Ok(slot);
        }
        let waited = tokio::time::timeout(SLOT_WAIT, self.held.slot(self.connections_max)).await;
        waited.map_err(|_| Mishap::new(Failure::ConnectionsMax, ""))
    }

    /// The same endpoint under another configuration: what was found out about it stays true, and what calls of before hold
    /// goes on to count. `is_checked`: somebody will find out when it is well again.
    fn succeeding(self, known: &Self, is_checked: bool) -> Self {
        let came = *known.came.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = known.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            held: Arc::clone(&known.held),
            is_healthy: AtomicBool::new(known.is_healthy() || !is_checked),
            is_fresh: AtomicBool::new(came.is_some()),
            came: Mutex::new(came),
            addresses: Mutex::new(addresses),
            ..self
        }
    }

    /// It came, or came back: it gets less than its share for a while.
    pub(crate) fn came(&self) {
        if self.slow_start.is_zero() {
            return;
        }
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.is_fresh.store(true, Ordering::Relaxed);
    }

    /// How much of its weight it has at this moment, in thousandths.
    pub(crate) fn share(&self) -> usize {
        if !self.is_fresh.load(Ordering::Relaxed) {
            return SHARE_WHOLE;
        }
        let came = *self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = came.map_or(self.slow_start, |came| came.elapsed());
        if passed >= self.slow_start {
            self.is_fresh.store(false, Ordering::Relaxed);
            return SHARE_WHOLE;
        }
        let share = passed.as_micros() * SHARE_WHOLE as u128 / self.slow_start.as_micros().max(1);
        share.max(SHARE_MIN).try_into().unwrap_or(SHARE_WHOLE)
    }

    /// The path that an `endpoint` event of a stream from here means: what [`crate::upstream::Dispatch::path`] takes. A path that
    /// came out of this leads to itself.
    ///
    /// # Errors
    /// A word for records: what cannot be read beyond doubt, another origin, a path that is too long.
    pub fn resolve_path(&self, reference: &str) -> Result<PathAndQuery, &'static str> {
        reference::resolve(&self.target, reference)
    }

    /// The addresses to dial, by the system's resolver.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Mishap> {
        let Target { host, port, .. } = &self.target;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        let found = tokio::net::lookup_host((&**host, *port)).await;
        self.settle(found.map(Iterator::collect))
    }

    /// What a resolver's answer means: its addresses, or the last ones while it fails.
    fn settle(&self, found: io::Result<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, Mishap> {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) if addresses.is_empty() => Err(Mishap::new(Failure::Resolve, "an empty answer")),
            Ok(mut addresses) => {
                if known.note(&addresses, self.resolve_interval, Instant::now()) {
                    let origin = self.origin();
                    tracing::info!(
                        endpoint = origin,
                        "an endpoint's name lost an address: kept connections are let go"
                    );
                    self.pool.renew();
                }
                addresses.truncate(ADDRESSES_MAX);
                known.last.clone_from(&addresses);
                Ok(addresses)
            }
            Err(error) if known.last.is_empty() => Err(Mishap::of(Failure::Resolve, &error)),
            Err(error) => {
                let origin = self.origin();
                tracing::warn!(endpoint = origin, %error, "an endpoint's name does not resolve; its last addresses are used");
                Ok(known.last.clone())
            }
        }
    }

    /// What the resolver answered last, if it ever did.
    pub(crate) fn last_addresses(&self) -> Option<Vec<SocketAddr>> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.last.clone()).filter(|last| !last.is_empty())
    }

    /// Whether its addresses may change.
    pub(crate) fn has_name(&self) -> bool {
        self.target.host.parse::<IpAddr>().is_err()
    }
}

impl Addresses {
    /// Takes note of an answer; whether an address is gone that was there before.
    fn note(&mut self, addresses: &[SocketAddr], interval: Duration, now: Instant) -> bool {
        for address in addresses.iter().take(SEEN_MAX) {
            match self.seen.iter_mut().find(|(known, _)| known == address) {
                Some((_, at)) => *at = now,
                None => self.seen.push((*address, now)),
            }
        }
        let before = self.seen.len();
        self.seen.retain(|(_, at)| *at == now || now.saturating_duration_since(*at) < interval);
        let is_any_gone = self.seen.len() < before;
        self.seen.truncate(SEEN_MAX);
        is_any_gone
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.target.origin).finish()
    }
}

/// The endpoints of a plan, in its order. `previous`: those of the server until now.
pub(crate) fn endpoints(plan: &Plan, previous: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let numbered = plan.endpoints.iter().enumerate();
    let endpoints = numbered.map(|(position, placed)| {
        let endpoint = Endpoint {
            is_draining: placed.is_draining,
            connections_max: plan.limits.connections_max,
            slow_start: plan.slow_start,
            resolve_interval: plan.resolve_interval,
            ..Endpoint::new(placed.target.clone(), placed.weight, position)
        };
        Arc::new(match previous.iter().find(|known| known.id() == endpoint.id()) {
            Some(known) => endpoint.succeeding(known, plan.checks_health()),
            None => endpoint,
        })
    });
    endpoints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_addresses_serve_while_the_resolver_fails() {
        let endpoint = Endpoint::new(Target::parse("http://a.test/").ok().unwrap(), 1, 0);
        let failed = || Err(io::Error::other("no resolver"));
        assert!(endpoint.settle(failed()).is_err());
        let addresses: Vec<SocketAddr> = vec!["127.0.0.1:80".parse().unwrap()];
        assert_eq!(endpoint.settle(Ok(addresses.clone())).unwrap(), addresses);
        assert_eq!(endpoint.settle(failed()).unwrap(), addresses);
        assert!(endpoint.settle(Ok(Vec::new())).is_err());
    }

    #[test]
    fn no_more_addresses_are_tried_than_the_limit() {
        let endpoint = Endpoint::new(Target::parse("http://a.test/").ok().unwrap(), 1, 0);
        let addresses = |count: usize| vec![SocketAddr::from(([127, 0, 0, 1], 80)); count];
        assert_eq!(endpoint.settle(Ok(addresses(ADDRESSES_MAX + 1))).unwrap().len(), ADDRESSES_MAX);
    }

    #[test]
    fn an_address_is_gone_once_no_answer_had_it_for_the_interval() {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        let (interval, begun) = (Duration::from_secs(30), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut known = Addresses::default();
        assert!(!known.note(&[address(1), address(2)], interval, begun));
        assert!(!known.note(&[address(2)], interval, after(29)), "a part of the answer may be told in turn");
        assert!(!known.note(&[address(1)], interval, after(58)));
        assert!(known.note(&[address(1)], interval, after(88)));
        assert!(!known.note(&[address(1)], interval, after(200)), "what is there stays");
        let many: Vec<SocketAddr> = (0..=SEEN_MAX).map(|port| SocketAddr::from(([10, 0, 0, 1], port as u16))).collect();
        known.note(&many, interval, after(201));
        assert!(known.seen.len() <= SEEN_MAX);
    }

    #[tokio::test]
    async fn an_address_is_not_resolved() {
        let endpoint = Endpoint::new(Target::parse("http://[::1]:81/").ok().unwrap(), 1, 0);
        assert_eq!(endpoint.resolve().await.unwrap(), ["[::1]:81".parse().unwrap()]);
    }
}
