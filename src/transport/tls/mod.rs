//! With which certificate does the data listener answer, and whose does it ask for?
//!
//! TLS 1.2 and 1.3 with one provider. [`Tls`] is part of the snapshot: a handshake uses that of the snapshot in force, so a
//! reload changes certificates without a restart, and connections that are open keep theirs. Nothing is taken in a
//! handshake's first flight (0-RTT): it could be replayed.

mod certificate;
mod client;
mod issuers;
mod names;
mod stream;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pingora::tls::TlsAcceptor;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::server::ServerSessionMemoryCache;

use crate::clock;
use crate::config::model::ClientAuth;
use crate::config::model::Config;
use crate::config::model::ListenTls;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::transport::tls::certificate::Loaded;
use crate::transport::tls::names::ByName;

pub use crate::transport::tls::certificate::Certificate;
pub use crate::transport::tls::client::ClientCertificate;
pub use crate::transport::tls::client::Secured;
pub use crate::transport::tls::issuers::CLIENT_ISSUERS_MAX;
pub use crate::transport::tls::issuers::ClientIssuers;
pub use crate::transport::tls::stream::TlsIo;

/// Certificates of one listener.
pub const CERTIFICATES_MAX: usize = 1000;
/// Sessions remembered for clients that come back, over all of them.
const SESSIONS_MAX: usize = 4096;
/// The longest a handshake may be allowed to take.
const HANDSHAKE_MS_MAX: u64 = 60_000;
/// The protocols offered within TLS, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How the data listener speaks TLS.
pub struct Tls {
    /// Makes a connection secure.
    pub acceptor: TlsAcceptor,
    /// From the first byte of a handshake to its end.
    pub handshake_timeout: Duration,
    /// What clients are shown.
    pub certificates: Vec<Certificate>,
    /// Who vouches for clients; `None`: they are not asked for certificates.
    pub issuers: Option<ClientIssuers>,
}

impl Tls {
    /// What `[listen.tls]` asks for; `None` if it names no certificate. Reports every mistake, in the files too. A
    /// certificate that expired while `previous` served it is not in the way of a reload.
    pub fn compile(config: &Config, previous: Option<&Self>, problems: &mut Problems) -> Option<Self> {
        let tls = &config.listen.tls;
        let at = At::root().key("listen").key("tls");
        check(tls, &at, problems);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let issuers = ClientIssuers::load(tls, &provider, &at, problems);
        let served = previous.map_or(&[][..], |previous| previous.certificates.as_slice());
        let now = i64::try_from(clock::now_seconds()).unwrap_or(i64::MAX);
        let mut loaded = Vec::new();
        for (index, files) in tls.certificates.iter().take(CERTIFICATES_MAX).enumerate() {
            let at = at.key("certificates").index(index);
            let read = certificate::load(files, &provider, &at, problems);
            loaded.extend(read.filter(|loaded| certificate::is_valid(&loaded.facts, now, served, &at, problems)));
        }
        if loaded.is_empty() {
            return None;
        }
        let certificates = loaded.iter().map(|loaded| loaded.facts.clone()).collect();
        let mut config = server_config(loaded, issuers.as_ref(), provider, &at, problems)?;
        config.alpn_protocols.retain(|protocol| tls.http2 || protocol != b"h2");
        Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshake_timeout: Duration::from_millis(tls.handshake_timeout_ms),
            certificates,
            issuers,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Mistakes that need no look into a file.
fn check(tls: &ListenTls, at: &At, problems: &mut Problems) {
    if tls.certificates.len() > CERTIFICATES_MAX {
        problems.error(
            &at.key("certificates"),
            format!("more than {CERTIFICATES_MAX} certificates"),
            "one certificate can hold many names",
        );
    }
    if tls.handshake_timeout_ms == 0 || tls.handshake_timeout_ms > HANDSHAKE_MS_MAX {
        problems.error(
            &at.key("handshake_timeout_ms"),
            format!("`{}` is out of range", tls.handshake_timeout_ms),
            format!("write a number from 1 to {HANDSHAKE_MS_MAX}"),
        );
    }
    let asks = tls.client_auth != ClientAuth::None;
    if asks && tls.client_ca_file.is_none() {
        problems.error(
            &at.key("client_auth"),
            "there is nothing to verify client certificates with",
            "name the issuers' certificates in `client_ca_file`",
        );
    }
    if !asks && tls.client_ca_file.is_some() {
        problems.error(
            &at.key("client_ca_file"),
            "clients are not asked for certificates",
            "set `client_auth` to `request` or `require`, or remove `client_ca_file`",
        );
    }
    if tls.certificates.is_empty() && (asks || tls.client_ca_file.is_some()) {
        problems.error(
            at,
            "without a certificate of its own the listener speaks no TLS, and asks no client for one",
            "add `certificates = [{ cert_file = \"..\", key_file = \"..\" }]`",
        );
    }
}

fn server_config(
    loaded: Vec<Loaded>,
    issuers: Option<&ClientIssuers>,
    provider: Arc<CryptoProvider>,
    at: &At,
    problems: &mut Problems,
) -> Option<ServerConfig> {
    let builder = match ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder,
        Err(error) => {
            problems.error(at, format!("TLS cannot be set up: {error}"), "");
            return None;
        }
    };
    let builder = match issuers {
        Some(issuers) => builder.with_client_cert_verifier(issuers.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(loaded)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.max_early_data_size = 0;
    if issuers.is_some() {
        // A session that is taken up again would not be verified again: a certificate could outlive its end.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    }
    Some(config)
}
