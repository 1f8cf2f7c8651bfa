//! Which key does a client's certificate stand for?
//!
//! The listener verified it. What stands in it is compared with what the configuration names, whole and letter for letter;
//! only the letters' case of a host does not count. A certificate that stands for two keys stands for none.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::AuthError;
use crate::auth::Entry;
use crate::auth::key;
use crate::config::model::KeyCertificate;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// Bytes of a name or subject by which a certificate is known.
pub const CERTIFICATE_TEXT_MAX: usize = 256;

/// A certificate that a client showed in the handshake of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'s> {
    /// Whom it was issued to, where that can be read in one way only.
    pub subject: Option<&'s str>,
    /// Its alternative names, each with its kind: `dns:..`, `uri:..`, `email:..`.
    pub names: &'s [String],
    /// SHA-256 of the whole certificate.
    pub sha256: &'s [u8; 32],
    /// When it ends: seconds since 1970.
    pub ends: u64,
    /// Whether those who vouch for clients now vouch for it, as others did when its connection began.
    pub is_vouched_for: bool,
}

/// What a certificate is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    /// One of its names, with its kind.
    Name(Box<str>),
    /// Whom it was issued to.
    Subject(Box<str>),
    /// The digest of the whole.
    Sha256([u8; 32]),
}

impl Mark {
    /// What `certificate` of a key names; `None` with a problem reported, if it is no one thing.
    pub(super) fn compile(certificate: &KeyCertificate, at: &At, problems: &mut Problems) -> Option<Self> {
        let given = [
            ("uri", &certificate.uri),
            ("dns", &certificate.dns),
            ("email", &certificate.email),
            ("subject", &certificate.subject),
            ("sha256", &certificate.sha256),
        ];
        let mut given = given.into_iter().filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
        let help = "name one of `uri`, `dns`, `email`, `subject` and `sha256`";
        let (Some((kind, text)), None) = (given.next(), given.next()) else {
            problems.error(at, "a key has one certificate, known by one thing", help);
            return None;
        };
        let mark = Self::read(kind, text);
        if let Err(help) = &mark {
            problems.error(&at.key(kind), format!("`{text}` is nothing that a certificate is known by"), *help);
        }
        mark.ok()
    }

    fn read(kind: &str, text: &str) -> Result<Self, &'static str> {
        let fits = !text.is_empty() && text.len() <= CERTIFICATE_TEXT_MAX && text.trim() == text;
        // What was cut for the record ends so, and is nobody's whole name.
        if !fits || text.chars().any(|letter| letter.is_control() || letter == '…') {
            return Err("write the whole text as `openssl x509 -noout -text` shows it, at most 256 bytes");
        }
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        match kind {
            "sha256" => {
                let digits: String = text.chars().filter(|letter| *letter != ':').collect();
                let digest = key::parse_hex(&digits).ok_or("write 64 hexadecimal digits, with or without colons")?;
                Ok(Self::Sha256(digest))
            }
            "subject" => Ok(Self::Subject(text.into())),
            "dns" if is_plain && !text.contains('*') => Ok(Self::Name(format!("dns:{}", text.to_lowercase()).into())),
            "dns" => Err("write one host's whole name; `*` stands for nothing here"),
            "uri" if is_plain && text.contains(':') => Ok(Self::Name(format!("uri:{text}").into())),
            "uri" => Err("write a whole URI such as `spiffe://example.com/agent`"),
            "email" if is_plain && text.contains('@') => Ok(Self::Name(format!("email:{text}").into())),
            _ => Err("write a whole address such as `ana@example.com`"),
        }
    }

    /// Whether a certificate is known by this.
    pub(super) fn fits(&self, certificate: &Certificate<'_>) -> bool {
        match self {
            Self::Name(own) => certificate.names.iter().any(|name| **own == *comparable(name)),
            Self::Subject(own) => certificate.subject == Some(own),
            Self::Sha256(own) => own == certificate.sha256,
        }
    }
}

/// The keys for which certificates stand.
#[derive(Default)]
pub(super) struct Certificates(HashMap<Mark, Arc<Entry>>);

impl Certificates {
    /// Has `mark` stand for a key.
    pub(super) fn add(&mut self, mark: Mark, entry: Arc<Entry>) {
        self.0.insert(mark, entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key for which a certificate stands, if it does.
    ///
    /// # Errors
    /// It stands for more than one.
    pub(super) fn find(&self, certificate: &Certificate<'_>) -> Result<Option<&Arc<Entry>>, AuthError> {
        let names = certificate.names.iter().map(|name| Mark::Name(comparable(name).into()));
        let subject = certificate.subject.map(|subject| Mark::Subject(subject.into()));
        let marks = names.chain(subject).chain([Mark::Sha256(*certificate.sha256)]);
        let mut found: Option<&Arc<Entry>> = None;
        for entry in marks.filter_map(|mark| self.0.get(&mark)) {
            if found.is_some_and(|found| found.principal.id != entry.principal.id) {
                return Err(AuthError::CertificateAmbiguous);
            }
            found = Some(entry);
        }
        Ok(found)
    }
}

/// A name as it is compared.
fn comparable(name: &str) -> Cow<'_, str> {
    if name.starts_with("dns:") && name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}
