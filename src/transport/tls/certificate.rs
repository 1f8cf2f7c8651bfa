//! What is in the files that an operator names as certificate and key?
//!
//! PEM: the certificate first, then those of its issuers; the key unencrypted. What cannot serve is reported at the key of
//! the configuration that names the file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use sha2::Digest;
use sha2::Sha256;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::config::model::CertificateFiles;
use crate::config::pem;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// What is known of a certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The first host name it is for, or its subject.
    pub name: String,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// Host names it is for, in small letters; the first label may be `*`.
    pub hosts: Vec<String>,
}

/// A certificate with its issuers and its key.
pub(super) struct Loaded {
    pub(super) facts: Certificate,
    pub(super) key: Arc<CertifiedKey>,
}

/// Reads a certificate and its key, reporting what is wrong with them.
pub(super) fn load(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    at: &At,
    problems: &mut Problems,
) -> Option<Loaded> {
    let chain = read_certificates(&files.cert_file, &at.key("cert_file"), problems);
    let key = read_key(&files.key_file, &at.key("key_file"), problems);
    let (chain, key) = (chain?, key?);
    let Some(facts) = chain.first().and_then(facts) else {
        problems.error(
            &at.key("cert_file"),
            format!("the first certificate in `{}` cannot be read", files.cert_file),
            "it must be an X.509 certificate in version 3",
        );
        return None;
    };
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(key) => Some(Loaded { facts, key: Arc::new(key) }),
        Err(rustls::Error::InconsistentKeys(_)) => {
            problems.error(
                &at.key("key_file"),
                format!("the key in `{}` does not belong to the certificate in `{}`", files.key_file, files.cert_file),
                "name the key that the certificate was made for; the certificate must be the first in its file",
            );
            None
        }
        Err(_) => {
            problems.error(
                &at.key("key_file"),
                format!("the key in `{}` is of no kind that can be used", files.key_file),
                "write an RSA key of 2,048 to 8,192 bits, an ECDSA key on P-256 or P-384, or an Ed25519 key",
            );
            None
        }
    }
}

/// Whether a certificate may be shown at `now`. One that is `served` already may have expired meanwhile.
pub(super) fn is_valid(
    facts: &Certificate,
    now: i64,
    served: &[Certificate],
    at: &At,
    problems: &mut Problems,
) -> bool {
    let at = at.key("cert_file");
    if now < facts.not_before {
        let from = date(facts.not_before);
        problems.error(
            &at,
            format!("the certificate of `{}` is not valid before {from}", facts.name),
            "check the system's clock",
        );
        return false;
    }
    if now <= facts.not_after {
        return true;
    }
    let message = format!("the certificate of `{}` expired on {}", facts.name, date(facts.not_after));
    let is_served = served.iter().any(|served| served.sha256 == facts.sha256);
    if is_served {
        problems.warning(&at, message, "it is served on until another takes its place; clients will refuse it");
    } else {
        problems.error(&at, message, "put a new one in its place");
    }
    is_served
}

/// Every certificate in a PEM file; at least one.
pub(super) fn read_certificates(path: &str, at: &At, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let text = pem::text(Path::new(path), path, at, problems)?;
    pem::certificates(&text, path, at, problems)
}

fn read_key(path: &str, at: &At, problems: &mut Problems) -> Option<PrivateKeyDer<'static>> {
    let text = pem::secret(Path::new(path), path, at, problems)?;
    pem::key(text.expose(), path, at, problems)
}

/// What stands in a certificate; `None` if it cannot be read.
fn facts(der: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let hosts: Vec<String> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    Some(Certificate {
        name: hosts.first().cloned().unwrap_or_else(|| parsed.subject().to_string()),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        sha256: Sha256::digest(der).into(),
        hosts,
    })
}

/// A day and time as people read it.
fn date(seconds: i64) -> String {
    x509_parser::time::ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
