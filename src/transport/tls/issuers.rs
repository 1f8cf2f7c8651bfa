//! Who vouches for clients?
//!
//! The issuers that one configuration names. Connections outlive it: what was verified when one began is held against the issuers
//! that are in force, once for each change of theirs.

use std::sync::Arc;

use pingora::tls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::Digest;
use sha2::Sha256;

use crate::config::model::ClientAuth;
use crate::config::model::ListenTls;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::transport::tls::certificate;

/// Certificates in the file of issuers that vouch for clients.
pub const CLIENT_ISSUERS_MAX: usize = 1000;

/// Those who vouch for clients' certificates.
#[derive(Debug)]
pub struct ClientIssuers {
    verifier: Arc<dyn ClientCertVerifier>,
    digest: [u8; 32],
}

impl ClientIssuers {
    /// Those whom `[listen.tls]` names, where clients are asked for certificates. Reports a file that names none.
    pub(super) fn load(
        tls: &ListenTls,
        provider: &Arc<CryptoProvider>,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = tls.client_ca_file.as_deref().filter(|_| tls.client_auth != ClientAuth::None)?;
        let at = at.key("client_ca_file");
        let issuers = certificate::read_certificates(path, &at, problems)?;
        let mut digest = Sha256::new();
        for issuer in &issuers {
            digest.update((issuer.len() as u64).to_be_bytes());
            digest.update(issuer);
        }
        let mut roots = RootCertStore::empty();
        let added = issuers.len() <= CLIENT_ISSUERS_MAX && issuers.into_iter().all(|issuer| roots.add(issuer).is_ok());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if tls.client_auth == ClientAuth::Request { builder.allow_unauthenticated() } else { builder };
        match builder.build() {
            Ok(verifier) if added => Some(Self { verifier, digest: digest.finalize().into() }),
            _ => {
                problems.error(
                    &at,
                    format!("the certificates in `{path}` cannot vouch for clients"),
                    format!(
                        "write the path of a PEM file with the certificates of issuers, at most {CLIENT_ISSUERS_MAX}"
                    ),
                );
                None
            }
        }
    }

    /// What verifies certificates in handshakes.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// What tells these issuers from others.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether they vouch for a client that shows these certificates now, its own first.
    pub(super) fn vouch_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, intermediates)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
    }
}
