//! What does a handshake tell about the client?

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;

use rustls::ProtocolVersion;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use sha2::Digest;
use sha2::Sha256;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use crate::transport::tls::issuers::ClientIssuers;

/// Names of a client's certificate that are kept: a key may be known by any of them.
const NAMES_MAX: usize = 64;
/// Bytes kept of its subject, and of each of its names.
const TEXT_BYTES_MAX: usize = 256;
/// What RFC 4514 would escape in a value, and the mark of what was cut.
const SPECIAL: &str = ",+\"\\<>;=#…";

/// What is known of a connection that is secure.
#[derive(Debug)]
pub struct Secured {
    /// The version of TLS, as records call it.
    pub version: &'static str,
    /// The client's certificate, if it showed one. It was verified.
    pub client: Option<ClientCertificate>,
    /// All certificates that the client showed, its own first.
    chain: Vec<CertificateDer<'static>>,
    /// Of which issuers it is known whether they vouch for the client, and whether they do.
    known: Mutex<([u8; 32], bool)>,
}

/// A client's certificate. Whoever issued it is vouched for; what stands in it is the issuer's word.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it was issued to, as RFC 4514 writes it.
    pub subject: String,
    /// Its alternative names, each with its kind: `dns:..`, `uri:..`, `email:..`, `ip:..`.
    pub names: Vec<String>,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// Whether the subject can be read in one way only: a text in it may look like the next attribute.
    pub is_plain: bool,
    /// When it ends: seconds since 1970.
    pub ends: u64,
}

impl Secured {
    /// What a finished handshake says, which these issuers verified.
    pub(super) fn of(connection: &ServerConnection, issuers: Option<&ClientIssuers>) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "unknown",
        };
        let chain = connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let client = chain.first().map(|own| ClientCertificate::read(own));
        let known = issuers.map_or(([0; 32], false), |issuers| (issuers.digest(), true));
        Self { version, client, chain, known: Mutex::new(known) }
    }

    /// Whether these issuers vouch for the certificate that the client showed. Issuers that it was asked of last are not asked
    /// again.
    pub fn is_vouched_for(&self, issuers: &ClientIssuers) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != issuers.digest() {
            *known = (issuers.digest(), issuers.vouch_for(&self.chain));
        }
        known.1
    }
}

impl ClientCertificate {
    /// Reads a certificate that was verified; of what cannot be read, the digest still says which it is.
    fn read(der: &[u8]) -> Self {
        let sha256 = Sha256::digest(der).into();
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            return Self { subject: String::new(), names: Vec::new(), sha256, is_plain: false, ends: 0 };
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(name).take(NAMES_MAX);
        Self {
            subject: bounded(parsed.subject().to_string()),
            names: names.map(bounded).collect(),
            sha256,
            is_plain: is_plain(parsed.subject()),
            ends: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
        }
    }
}

/// Whether no value of a subject has a character that separates them.
fn is_plain(subject: &X509Name<'_>) -> bool {
    let mut values = subject.iter_attributes().map(|attribute| attribute.as_str());
    values.all(|value| {
        value.is_ok_and(|value| !value.contains(|letter: char| letter.is_control() || SPECIAL.contains(letter)))
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(host) => Some(format!("dns:{host}")),
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::RFC822Name(address) => Some(format!("email:{address}")),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| format!("ip:{address}")),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(bounded("a".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
        let long = bounded(format!("{}é", "a".repeat(TEXT_BYTES_MAX - 1)));
        assert_eq!(long, format!("{}…", "a".repeat(TEXT_BYTES_MAX - 1)));
    }

    #[test]
    fn addresses_are_read_by_their_length() {
        assert_eq!(address(&[192, 0, 2, 7]), "192.0.2.7".parse().ok());
        assert_eq!(address(&[0; 16]), "::".parse().ok());
        assert_eq!(address(&[0; 5]), None);
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_digest() {
        let read = ClientCertificate::read(b"nonsense");
        assert_eq!((read.subject.as_str(), read.names.len(), read.is_plain, read.ends), ("", 0, false, 0));
        assert_eq!(read.sha256, <[u8; 32]>::from(Sha256::digest(b"nonsense")));
    }
}
