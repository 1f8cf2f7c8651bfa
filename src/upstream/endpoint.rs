//! What is one address of a server, at run time?
//!
//! Its target, its idle connections, and the addresses its name last resolved to. Names are resolved anew for every
//! connection; while the resolver fails, the last answer serves.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::uri::PathAndQuery;

use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::pool::IDLE_TIMEOUT;
use crate::upstream::pool::Pool;
use crate::upstream::reference;
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
        let mut last = self.last_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) if addresses.is_empty() => Err(Mishap::new(Failure::Resolve, "an empty answer")),
            Ok(mut addresses) => {
                addresses.truncate(ADDRESSES_MAX);
                last.clone_from(&addresses);
                Ok(addresses)
            }
            Err(error) if last.is_empty() => Err(Mishap::of(Failure::Resolve, &error)),
            Err(error) => {
                let origin = self.origin();
                tracing::warn!(endpoint = origin, %error, "an endpoint's name does not resolve; its last addresses are used");
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

    #[tokio::test]
    async fn an_address_is_not_resolved() {
        let endpoint = Endpoint::new(Target::parse("http://[::1]:81/").ok().unwrap(), 1, 0);
        assert_eq!(endpoint.resolve().await.unwrap(), ["[::1]:81".parse().unwrap()]);
    }
}
