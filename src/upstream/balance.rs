//! Which endpoint takes the next call?
//!
//! Weighted round robin over the healthy ones, or the one that a key belongs to, both by pingora-load-balancing. Its backends are addresses, and several
//! endpoints may share one (two paths of a host) or have none that lasts (a name): so a backend's address is only a
//! key, the endpoint's position, and the health check resolves and dials by itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Waker;

use pingora::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::Backend;
use pingora_load_balancing::Backends;
use pingora_load_balancing::Extensions;
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::health_check::HealthCheck;
use pingora_load_balancing::selection::RoundRobin;

use crate::upstream::endpoint::Endpoint;
use crate::upstream::ring::Ring;

/// Steps of one choice. The balancer's cursor is shared by all callers, so one of them may see an endpoint again and again.
const STEPS_MAX: usize = 256;

/// The endpoints of a server and the balancer before them.
pub(crate) struct Balance {
    endpoints: Vec<Arc<Endpoint>>,
    /// `None` with one endpoint: there is nothing to choose and nothing to check.
    balancer: Option<LoadBalancer<RoundRobin>>,
    /// `None` with one endpoint.
    ring: Option<Ring>,
}

impl Balance {
    pub(crate) fn new(endpoints: Vec<Arc<Endpoint>>, check: Option<Box<dyn HealthCheck + Send + Sync>>) -> Self {
        if endpoints.len() < 2 {
            return Self { endpoints, balancer: None, ring: None };
        }
        let backends: BTreeSet<Backend> = endpoints.iter().map(|endpoint| backend(endpoint)).collect();
        let mut balancer = LoadBalancer::from_backends(Backends::new(Static::new(backends)));
        if let Some(check) = check {
            balancer.set_health_check(check);
        }
        // The list is fixed, so this is done when it is first polled.
        let _ = pin!(balancer.update()).poll(&mut Context::from_waker(Waker::noop()));
        let weights: Vec<(u64, usize)> = endpoints.iter().map(|endpoint| (endpoint.id(), endpoint.weight)).collect();
        Self { endpoints, balancer: Some(balancer), ring: Some(Ring::new(&weights)) }
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The next endpoint: a healthy one if there is one.
    pub(crate) fn next(&self) -> Option<&Arc<Endpoint>> {
        let Some(balancer) = &self.balancer else {
            return self.endpoints.first();
        };
        let chosen = balancer.select(&[], STEPS_MAX).and_then(|backend| self.endpoints.get(position(&backend)?));
        // Others may have moved the shared cursor past every healthy one.
        let chosen = chosen.or_else(|| self.endpoints.iter().find(|endpoint| self.is_healthy(endpoint)));
        // With none healthy one is tried all the same: a check may be wrong, and a call cannot do worse than fail.
        chosen.or_else(|| {
            let any = balancer.select_with(&[], STEPS_MAX, |_, _| true)?;
            self.endpoints.get(position(&any)?)
        })
    }

    /// The endpoint that a key belongs to; while it is not healthy, the next healthy one on the ring.
    pub(crate) fn of(&self, key: &str) -> Option<&Arc<Endpoint>> {
        let Some(ring) = &self.ring else {
            return self.endpoints.first();
        };
        let mut owners = ring.owners(key);
        let first = owners.next()?;
        let own = self.endpoints.iter().find(|endpoint| endpoint.id() == first)?;
        if self.is_healthy(own) {
            return Some(own);
        }
        let healthy: Vec<&Arc<Endpoint>> = self.endpoints.iter().filter(|endpoint| self.is_healthy(endpoint)).collect();
        // With none healthy the key's own is tried all the same, as in [`Self::next`].
        if healthy.is_empty() {
            return Some(own);
        }
        let stand_in = owners.find_map(|id| healthy.iter().find(|endpoint| endpoint.id() == id));
        Some(stand_in.copied().unwrap_or(own))
    }

    /// Whether the last check of an endpoint went well; true where nothing is checked.
    pub(crate) fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        self.balancer.as_ref().is_none_or(|balancer| balancer.backends().ready(&backend(endpoint)))
    }

    /// Checks every endpoint once. Dropping the future ends the checks.
    pub(crate) async fn check(&self) {
        if let Some(balancer) = &self.balancer {
            balancer.backends().run_health_check(true).await;
        }
    }
}

fn backend(endpoint: &Endpoint) -> Backend {
    // A port of 0 would not be a valid address to some of pingora's code; the number itself means nothing.
    let key = std::net::SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(endpoint.position as u128)), 1);
    Backend { addr: SocketAddr::Inet(key), weight: endpoint.weight, ext: Extensions::new() }
}

/// The position of the endpoint that a backend stands for.
pub(crate) fn position(backend: &Backend) -> Option<usize> {
    match backend.addr.as_inet()?.ip() {
        IpAddr::V6(key) => usize::try_from(key.to_bits()).ok(),
        IpAddr::V4(_) => None,
    }
}
