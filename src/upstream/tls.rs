//! Whom does a server's TLS trust, and as whom does the gateway present itself there?
//!
//! Built from the texts of the configured files, with every mistake reported. Always verified: a server's own authority
//! takes the place of the system's, and a name to verify takes the place of the URL's host.

use std::fmt;
use std::sync::Arc;

use pingora::tls::ClientConfig;
use pingora::tls::RootCertStore;
use pingora::tls::ServerName;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::config::model::UpstreamTls;
use crate::config::pem;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// The TLS of one server, where it is not the usual one.
#[derive(Clone, PartialEq)]
pub(crate) struct Tls {
    /// `None`: the system's authorities.
    roots: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
    /// The name to verify in place of the URL's host.
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// As whom the gateway presents itself. Never in an error or in `Debug`.
#[derive(PartialEq)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Tls {
    /// Reads `tls` of a server, reporting every mistake; `None` if nothing is configured.
    pub(crate) fn compile(tls: &UpstreamTls, at: &At, problems: &mut Problems) -> Option<Self> {
        let is_set = tls.ca_file.is_some()
            || tls.client_cert_file.is_some()
            || tls.client_key_file.is_some()
            || tls.server_name.is_some();
        if !is_set {
            return None;
        }
        let roots = certificates(tls.ca.as_ref(), tls.ca_file.as_ref(), &at.key("ca_file"), problems);
        let own = Self { roots, identity: identity(tls, at, problems), server_name: name(tls, at, problems) };
        if let Err(error) = own.config(&Arc::new(RootCertStore::empty())) {
            let help = "write the key that was made with the certificate, as PKCS#8, PKCS#1 or SEC1";
            problems.error(
                &at.key("client_key_file"),
                format!("it cannot be used with the certificate: {error}"),
                help,
            );
        }
        Some(own)
    }

    /// What connections to the server are secured with. `system`: the authorities trusted where the server has none of its
    /// own.
    pub(crate) fn config(&self, system: &Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
        pingora::tls::install_default_crypto_provider();
        let roots = match &self.roots {
            None => Arc::clone(system),
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone())?;
                }
                Arc::new(roots)
            }
        };
        let builder = ClientConfig::builder().with_root_certificates(roots);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key()),
        }
    }

    /// When the first of the authorities, and of the gateway's own certificates, ends: seconds since 1970.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let authority = self.roots.as_deref().and_then(first_end).map(|end| ("ca", end));
        let own = self.identity.as_ref().and_then(|identity| first_end(&identity.chain)).map(|end| ("client", end));
        authority.into_iter().chain(own)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own_roots, client) = (self.roots.is_some(), self.identity.is_some());
        f.debug_struct("Tls").field("own_roots", &own_roots).field("client", &client).finish_non_exhaustive()
    }
}

/// The certificates in a file that was read; nothing where it could not be, as that was reported.
fn certificates(
    text: Option<&String>,
    path: Option<&String>,
    at: &At,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    pem::certificates(text?, path?, at, problems)
}

fn identity(tls: &UpstreamTls, at: &At, problems: &mut Problems) -> Option<Identity> {
    match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(_), None) => {
            problems.error(at, "`client_cert_file` needs `client_key_file`", "add the key of the certificate");
        }
        (None, Some(_)) => {
            problems.error(at, "`client_key_file` needs `client_cert_file`", "add the certificate of the key");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let (text, path) = (tls.client_cert.as_ref(), tls.client_cert_file.as_ref());
    let chain = certificates(text, path, &at.key("client_cert_file"), problems);
    let key = tls.client_key.as_ref().zip(tls.client_key_file.as_ref());
    let key = key.and_then(|(text, path)| pem::key(text.expose(), path, &at.key("client_key_file"), problems));
    Some(Identity { chain: chain?, key: key? })
}

fn name(tls: &UpstreamTls, at: &At, problems: &mut Problems) -> Option<ServerName<'static>> {
    let text = tls.server_name.as_ref()?;
    let read = ServerName::try_from(text.clone());
    let reported = read.map_err(|_| {
        let help = "write the name that the server's certificate is for, such as `mcp.example.com`";
        problems.error(&at.key("server_name"), "this is neither a name nor an address", help);
    });
    reported.ok()
}

fn first_end(certificates: &[CertificateDer<'_>]) -> Option<i64> {
    let ends = certificates.iter().filter_map(|certificate| {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        Some(read.validity().not_after.timestamp())
    });
    ends.min()
}
