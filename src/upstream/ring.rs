//! Which endpoint belongs to a key?
//!
//! Ketama, by pingora-load-balancing: every endpoint owns points on a ring, as many as its weight says, and a key
//! belongs to the owner of the next point. The points come from nothing but an endpoint's stable id and the weights, so
//! every process that serves the same endpoints agrees, in whatever order they are listed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use pingora::protocols::l4::socket;
use pingora_load_balancing::Backend;
use pingora_load_balancing::Extensions;
use pingora_load_balancing::selection::BackendIter;
use pingora_load_balancing::selection::BackendSelection;
use pingora_load_balancing::selection::Consistent;

/// Sum of weights that a ring is made for: each unit is 160 points of 8 bytes. Greater sums are scaled down.
pub(crate) const RING_WEIGHT_MAX: usize = 1_024;
/// Points for a unit of weight: Ketama's own number.
const POINTS_PER_WEIGHT: usize = 160;

/// Endpoints on a ring.
pub(crate) struct Ring {
    ketama: Arc<Consistent>,
    points: usize,
}

impl Ring {
    /// A ring of endpoints, each by its id and weight.
    pub(crate) fn new(endpoints: &[(u64, usize)]) -> Self {
        let scaled = scaled(endpoints);
        let points = scaled.iter().map(|(_, weight)| weight * POINTS_PER_WEIGHT).sum();
        let backends: BTreeSet<Backend> = scaled.into_iter().map(|(id, weight)| backend(id, weight)).collect();
        Self { ketama: Arc::new(Consistent::build(&backends)), points }
    }

    /// The ids of a key's owners, the first one first, some of them repeatedly; each endpoint is among them.
    pub(crate) fn owners(&self, key: &str) -> impl Iterator<Item = u64> {
        let mut owners = self.ketama.iter(key.as_bytes());
        std::iter::from_fn(move || owners.next().and_then(id)).take(self.points)
    }
}

/// The same weights, at least 1 each and about [`RING_WEIGHT_MAX`] together.
fn scaled(endpoints: &[(u64, usize)]) -> Vec<(u64, usize)> {
    let sum: usize = endpoints.iter().map(|(_, weight)| weight).sum();
    // A power of two, so that an endpoint more or less seldom changes the scale, which would move many keys.
    let divisor = sum.div_ceil(RING_WEIGHT_MAX).next_power_of_two();
    endpoints.iter().map(|(id, weight)| (*id, (weight / divisor).max(1))).collect()
}

/// Ketama hashes an address, as text. An endpoint has none that lasts, so its id is written as one.
fn backend(id: u64, weight: usize) -> Backend {
    let key = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(id.into())), 1);
    Backend { addr: socket::SocketAddr::Inet(key), weight, ext: Extensions::new() }
}

fn id(backend: &Backend) -> Option<u64> {
    match backend.addr.as_inet()?.ip() {
        IpAddr::V6(key) => u64::try_from(key.to_bits()).ok(),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::upstream::ENDPOINTS_MAX;
    use crate::upstream::WEIGHT_MAX;
    use crate::upstream::target::Target;

    const KEYS: usize = 10_000;

    /// The id of the endpoint with this URL's path.
    fn id_of(path: &str) -> u64 {
        Target::parse(&format!("https://mcp.example.com/{path}")).ok().unwrap().id
    }

    fn ring(endpoints: &[(&str, usize)]) -> Ring {
        Ring::new(&endpoints.iter().map(|(path, weight)| (id_of(path), *weight)).collect::<Vec<_>>())
    }

    fn owner(ring: &Ring, key: &str) -> u64 {
        ring.owners(key).next().unwrap()
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..KEYS).map(|number| format!("key:agent-{number}"))
    }

    /// How many of the keys belong to the endpoint with this path.
    fn share(ring: &Ring, path: &str) -> usize {
        keys().filter(|key| owner(ring, key) == id_of(path)).count()
    }

    #[test]
    fn a_key_keeps_its_endpoint_across_processes_and_versions() {
        let (one, other) = (ring(&[("a", 1), ("b", 1), ("c", 1)]), ring(&[("c", 1), ("a", 1), ("b", 1)]));
        let path_of = |id: u64| ["a", "b", "c"].into_iter().find(|path| id_of(path) == id).unwrap();
        let owners = ["key:ci", "key:dev", "key:ops", "key:x", "public"].map(|key| path_of(owner(&one, key)));
        assert_eq!(owners, ["b", "c", "b", "a", "b"], "sessionless callers would all change their endpoint");
        assert!(keys().all(|key| owner(&one, &key) == owner(&other, &key)), "the order of the list does not matter");
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let even = ring(&[("a", 1), ("b", 1), ("c", 1)]);
        let shares = ["a", "b", "c"].map(|path| share(&even, path));
        assert!(shares.iter().all(|share| (KEYS / 4..KEYS * 5 / 12).contains(share)), "{shares:?}");
        let uneven = ring(&[("a", 1), ("b", 1), ("c", 8)]);
        let shares = ["a", "b", "c"].map(|path| share(&uneven, path));
        assert!((KEYS * 3 / 4..KEYS * 17 / 20).contains(&shares[2]), "{shares:?}");
        assert!(shares[..2].iter().all(|share| (KEYS / 20..KEYS * 3 / 20).contains(share)), "{shares:?}");
    }

    #[test]
    fn an_endpoint_that_comes_or_goes_moves_its_own_keys_alone() {
        let (three, four) = (ring(&[("a", 1), ("b", 1), ("c", 1)]), ring(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]));
        let moved: Vec<u64> =
            keys().filter(|key| owner(&three, key) != owner(&four, key)).map(|key| owner(&four, &key)).collect();
        assert!(moved.iter().all(|now| *now == id_of("d")), "a key moved between endpoints that stayed");
        assert!((KEYS / 6..KEYS / 3).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn every_endpoint_is_among_the_owners_of_a_key() {
        let ring = ring(&[("a", WEIGHT_MAX), ("b", 1), ("c", 1)]);
        for path in ["a", "b", "c"] {
            assert!(ring.owners("key:ci").any(|id| id == id_of(path)), "{path}");
        }
    }

    #[test]
    fn weights_beyond_the_limit_are_scaled_down() {
        let sum = |weights: &[usize]| {
            let endpoints: Vec<_> = weights.iter().enumerate().map(|(at, weight)| (at as u64, *weight)).collect();
            scaled(&endpoints).iter().map(|(_, weight)| weight).sum::<usize>()
        };
        assert_eq!(sum(&[RING_WEIGHT_MAX - 1, 1]), RING_WEIGHT_MAX);
        assert_eq!(sum(&[RING_WEIGHT_MAX, 1]), RING_WEIGHT_MAX / 2 + 1);
        assert!(sum(&[WEIGHT_MAX; ENDPOINTS_MAX]) <= RING_WEIGHT_MAX);
        let mut uneven = [1; ENDPOINTS_MAX];
        uneven[0] = RING_WEIGHT_MAX;
        assert!(sum(&uneven) <= RING_WEIGHT_MAX + ENDPOINTS_MAX);
    }
}
