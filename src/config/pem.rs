//! What is in a PEM file: certificates, or a key?
//!
//! One reading for all who need certificates, with one limit and one set of texts. What is wrong is reported at the key of
//! the configuration that names the file; `path` is how a message names it. No content is in any message.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::config::bounded::read_regular;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::secret::Secret;

/// Bytes of one file.
pub(crate) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The text of the file at `from`.
pub(crate) fn text(from: &Path, path: &str, at: &At, problems: &mut Problems) -> Option<String> {
    let read = read_regular(from, FILE_BYTES_MAX);
    let reported = read.map_err(|error| {
        let help =
            "write the path of a PEM file that this user may read; a relative one starts at the file it stands in";
        problems.error(at, format!("cannot read `{path}`: {error}"), help);
    });
    reported.ok()
}

/// The same for a file that holds a key. What everybody on the machine can read is no secret, but the operator may know who
/// everybody is.
pub(crate) fn secret(from: &Path, path: &str, at: &At, problems: &mut Problems) -> Option<Secret> {
    let text = Secret::new(text(from, path, at, problems)?);
    if std::fs::metadata(from).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        let help = "take the rights of others away: `chmod o= FILE`";
        problems.warning(at, format!("everybody on this machine can use the key in `{path}`"), help);
    }
    Some(text)
}

/// Every certificate in a text; at least one.
pub(crate) fn certificates(
    text: &str,
    path: &str,
    at: &At,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let Ok(certificates) = read else {
        let help = "write the path of a PEM file: certificates in base64 between their BEGIN and END lines";
        problems.error(at, format!("`{path}` is damaged: a certificate in it cannot be read"), help);
        return None;
    };
    if certificates.is_empty() {
        let help = "write the path of a PEM file; a certificate begins with `-----BEGIN CERTIFICATE-----`";
        problems.error(at, format!("there is no certificate in `{path}`"), help);
        return None;
    }
    let Some(position) = certificates.iter().position(|der| X509Certificate::from_der(der).is_err()) else {
        return Some(certificates);
    };
    let help = "it must be an X.509 certificate in version 3";
    problems.error(at, format!("certificate {} in `{path}` cannot be read", position + 1), help);
    None
}

/// The private key in a text.
pub(crate) fn key(text: &str, path: &str, at: &At, problems: &mut Problems) -> Option<PrivateKeyDer<'static>> {
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Some(key),
        Err(pem::Error::NoItemsFound) if text.contains("BEGIN ENCRYPTED PRIVATE KEY") => {
            let help = "store it decrypted, readable for this user alone: `openssl pkey -in FILE -out NEW`";
            problems.error(at, format!("the key in `{path}` is encrypted"), help);
            None
        }
        Err(_) => {
            let help = "write the path of a PEM file; a key begins with `-----BEGIN PRIVATE KEY-----`";
            problems.error(at, format!("there is no private key in `{path}`"), help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_refused_beyond_it() {
        let from = std::env::temp_dir().join(format!("portcullis-pem-{}", std::process::id()));
        let read = |bytes: usize| {
            std::fs::write(&from, "a".repeat(bytes)).unwrap();
            let mut problems = Problems::new();
            let text = text(&from, "a.pem", &At::root(), &mut problems);
            (text.map(|text| text.len()), problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>())
        };
        assert_eq!(read(FILE_BYTES_MAX), (Some(FILE_BYTES_MAX), vec![]));
        assert_eq!(
            read(FILE_BYTES_MAX + 1),
            (None, vec!["cannot read `a.pem`: it is larger than 1048576 bytes".into()])
        );
        std::fs::remove_file(&from).unwrap();
    }
}
