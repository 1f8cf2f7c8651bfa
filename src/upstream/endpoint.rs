//! What is one address of a server, at run time?
//!
//! Its target, its idle connections, and the addresses its name last resolved to. Names are resolved anew for every
//! connection; while the resolver fails, the last answer serves.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::pool::IDLE_TIMEOUT;
use crate::upstream::pool::Pool;
use crate::upstream::target::Target;

/// Addresses of one name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// One address of a server.
pub struct Endpoint {
    pub(crate) target: Target,
    pub(crate) weight: usize,
    /// Its place among the server's endpoints.
    pub(crate) position: usize,
    pub(crate) pool: Pool,
    last_addresses: Mutex<Vec<SocketAddr>>,
}

impl Endpoint {
    pub(crate) fn new(target: Target, weight: usize, position: usize) -> Self {
        Self { target, weight, position, pool: Pool::new(IDLE_TIMEOUT), last_addresses: Mutex::default() }
    }

    /// A stable number made of the endpoint's URL: the same after a restart, on another machine, in a later version.
    pub fn id(&self) -> u64 {
        self.target.id
    }

    /// `scheme://host:port`, for operators and records. Path and query, where a token may stand, are never in it.
    pub fn origin(&self) -> &str {
        &self.target.origin
    }

    /// The addresses to dial, by the system's resolver.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Mishap> {
        let Target { host, port, .. } = &self.target;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        let found = tokio::net::lookup_host((&**host, *port)).await;
        let mut last = self.last_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) => {
                *last = addresses.take(ADDRESSES_MAX).collect();
                if last.is_empty() { Err(Mishap::new(Failure::Resolve, "an empty answer")) } else { Ok(last.clone()) }
            }
            Err(error) if last.is_empty() => Err(Mishap::of(Failure::Resolve, &error)),
            Err(error) => {
                tracing::warn!(endpoint = self.origin(), %error, "an endpoint's name does not resolve; its last addresses are used");
                Ok(last.clone())
            }
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.target.origin).finish()
    }
}

/// The endpoints of a plan, in its order.
pub(crate) fn endpoints(targets: &[(Target, usize)]) -> Vec<Arc<Endpoint>> {
    let numbered = targets.iter().enumerate();
    numbered.map(|(position, (target, weight))| Arc::new(Endpoint::new(target.clone(), *weight, position))).collect()
}
