//! Which certificate belongs to the name a client asks for?
//!
//! The names are those in the certificates. A whole name beats `*`, which stands for one label. A name may have several
//! certificates, for clients that know different kinds of keys. Who asks for no name, or for one that is not ours, is shown
//! the first certificate.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::transport::tls::certificate::Loaded;

/// The certificates of a listener, by name.
#[derive(Debug)]
pub(super) struct ByName {
    hosts: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wildcards: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(loaded: Vec<Loaded>) -> Self {
        let mut by_name = Self { hosts: HashMap::new(), wildcards: HashMap::new(), first: Vec::new() };
        for Loaded { facts, key } in loaded {
            for host in facts.hosts {
                let (map, name) = match host.strip_prefix("*.") {
                    Some(rest) => (&mut by_name.wildcards, rest.to_owned()),
                    None => (&mut by_name.hosts, host),
                };
                map.entry(name).or_default().push(Arc::clone(&key));
            }
            by_name.first.push(key);
        }
        by_name
    }

    /// The certificates for a name, the preferred one first.
    pub(super) fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let rest = name.split_once('.').map(|(_, rest)| rest);
            self.hosts.get(&name).or_else(|| self.wildcards.get(rest?))
        });
        // The first one alone: a client that cannot use it is not to be shown another's.
        found.map_or(self.first.get(..1).unwrap_or_default(), Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = self.find(hello.server_name());
        let usable = fitting.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or(fitting.first()).cloned()
    }
}
