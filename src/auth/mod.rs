//! Who calls?
//!
//! A caller shows an API key in a header; what is stored is its digest. Or it shows a token of an issuer's: see [`oauth`]. Or it
//! shows neither, and the certificate of its connection stands for a key. Whatever is shown must be right: a wrong key, two
//! different keys or a key in the query refuse the request even where no key is needed.
//! [`Keys`] is compiled from the configuration and never changes; all lines of all these headers are judged together.

mod certificate;
mod challenge;
pub mod child;
mod compile;
pub mod key;
pub mod oauth;
mod presented;
pub mod strength;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use subtle::ConstantTimeEq;

use crate::auth::certificate::Certificates;
use crate::auth::certificate::Mark;
use crate::auth::key::Beginnings;
use crate::auth::key::Digest;
use crate::auth::key::Form;
use crate::auth::key::KEY_BYTES_MAX;
use crate::auth::presented::Credential;
use crate::network::Networks;
use crate::policy::Minting;
use crate::principal::Binding;
use crate::principal::Principal;

pub use crate::auth::certificate::CERTIFICATE_TEXT_MAX;
pub use crate::auth::certificate::Certificate;
pub use crate::auth::challenge::challenge;
pub use crate::auth::challenge::token_challenge;
pub use crate::auth::compile::KEY_HEADERS_MAX;
pub use crate::auth::compile::KEYS_MAX;
pub use crate::auth::compile::principal;
pub use crate::auth::oauth::Oauth;
pub use crate::auth::oauth::TokenError;
pub use crate::auth::presented::AuthError;

/// The keys of one configuration, and the headers that may carry them.
pub struct Keys {
    /// By the first bytes of the digest: the rest is compared in constant time.
    by_digest: HashMap<[u8; 8], Vec<Arc<Entry>>>,
    by_name: HashMap<Arc<str>, Arc<Entry>>,
    /// Keys that certificates alone stand for.
    certificates: Certificates,
    /// Whether any was imported, and so may look like anything.
    has_imported: bool,
    /// How keys of ours may begin.
    beginnings: Beginnings,
    /// Headers whose whole value is a key.
    key_headers: Vec<HeaderName>,
    /// Headers that never go upstream.
    credential_headers: Vec<HeaderName>,
    /// Keys that mint others, by what stands for their digests.
    minters: HashMap<Binding, Minter>,
    /// What a key is compared with when no stored digest begins like its own.
    nobody: [Arc<Entry>; 1],
}

struct Entry {
    digest: Digest,
    form: Form,
    /// The certificate without which the key is none, or that stands for it.
    mark: Option<Mark>,
    principal: Arc<Principal>,
    terms: Terms,
}

/// A key that mints others.
struct Minter {
    principal: Arc<Principal>,
    terms: Terms,
    minting: Minting,
}

/// When, and from where, a key may be used.
#[derive(Debug, Clone, Default)]
struct Terms {
    disabled: bool,
    /// Seconds since 1970-01-01 UTC.
    expires: Option<u64>,
    sources: Option<Networks>,
}

impl Terms {
    fn allow(&self, from: Option<IpAddr>, now: u64) -> Result<(), AuthError> {
        if self.disabled {
            return Err(AuthError::Disabled);
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(AuthError::Expired);
        }
        let outside = |sources: &Networks| !from.is_some_and(|address| sources.contains(address));
        if self.sources.as_ref().is_some_and(outside) { Err(AuthError::Source) } else { Ok(()) }
    }
}

/// What a caller showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented<'s> {
    /// The key of this caller, or a certificate that stands for it.
    Key(Arc<Principal>),
    /// A key that another key minted, not opened yet.
    Child(&'s str),
    /// A token of an issuer's, not verified yet.
    Token(&'s str),
}

/// What a caller shows, from where, and when.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'s> {
    /// The request's headers.
    pub headers: &'s HeaderMap,
    /// The query of its target.
    pub query: Option<&'s str>,
    /// The certificate of its connection, if it has one. It was verified.
    pub certificate: Option<Certificate<'s>>,
    /// The caller's address, where it has one and it is known.
    pub source: Option<IpAddr>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

impl Keys {
    /// Who shows this, `None` if nothing was shown. A certificate counts where no key or token is shown.
    ///
    /// An error whenever something was shown that is not exactly one right key or one token, wherever it was shown. Whether the
    /// token, or the minted key, is right is not known yet.
    pub fn authenticate<'s>(&self, shown: Shown<'s>) -> Result<Option<Presented<'s>>, AuthError> {
        check_vouched(shown.certificate)?;
        if shown.query.is_some_and(|query| presented::is_key_in_query(query, &self.key_headers, &self.beginnings)) {
            return Err(AuthError::InQuery);
        }
        let key = match presented::credential_of(shown.headers, &self.key_headers, &self.beginnings)? {
            None => return Ok(self.certified(&shown)?.map(Presented::Key)),
            Some(Credential::Child(child)) => return Ok(Some(Presented::Child(child))),
            // An imported key may have a dot in it.
            Some(Credential::Token(token)) if !self.is_imported(token) => return Ok(Some(Presented::Token(token))),
            Some(Credential::Key(key) | Credential::Token(key)) => key,
        };
        let entry = self.entry_of(key).ok_or(AuthError::Unknown)?;
        let principal = entry.admit(shown.certificate, shown.source, shown.now)?;
        Ok(Some(Presented::Key(principal)))
    }

    /// Whether a caller who was let in would be let in now, showing the same on the same connection; until when, in seconds since
    /// 1970. Of a token nothing is known here but when it ends.
    ///
    /// # Errors
    /// What would be wrong with it.
    pub fn uphold(
        &self,
        principal: &Principal,
        certificate: Option<Certificate<'_>>,
        source: Option<IpAddr>,
        now: u64,
    ) -> Result<Option<u64>, AuthError> {
        check_vouched(certificate)?;
        let Some(name) = &principal.key else { return Ok(principal.expires) };
        if let Some(minted) = &principal.minted {
            return self.check_child(minted, source, now).map(Some);
        }
        let entry = match certificate {
            Some(certificate) if principal.by_certificate => self.certificates.find(&certificate)?,
            _ if principal.by_certificate => return Err(AuthError::Certificate),
            _ => self.by_name.get(name),
        };
        let is_same = |entry: &&Arc<Entry>| {
            let of_now = &entry.principal;
            of_now.id == principal.id && of_now.binding == principal.binding
        };
        let entry = entry.filter(is_same).ok_or(AuthError::Unknown)?;
        entry.admit(certificate, source, now).map(|principal| principal.expires)
    }

    /// The caller for whom the certificate of a connection stands; `None`: for nobody.
    fn certified(&self, shown: &Shown<'_>) -> Result<Option<Arc<Principal>>, AuthError> {
        let Some(certificate) = shown.certificate.filter(|_| !self.certificates.is_empty()) else { return Ok(None) };
        let Some(entry) = self.certificates.find(&certificate)? else { return Ok(None) };
        entry.admit(Some(certificate), shown.source, shown.now).map(Some)
    }

    fn is_imported(&self, text: &str) -> bool {
        self.has_imported && text.len() <= KEY_BYTES_MAX && self.entry_of(text).is_some()
    }

    /// Whether the key of this name may be used from here now.
    ///
    /// # Errors
    /// It may not; [`AuthError::Unknown`] if there is no such key.
    pub fn check_terms(&self, name: &str, source: Option<IpAddr>, now: u64) -> Result<(), AuthError> {
        self.by_name.get(name).ok_or(AuthError::Unknown)?.terms.allow(source, now)
    }

    /// What stands for the digest of a key that mints others; `None` for another key.
    pub fn binding(&self, name: &str) -> Option<Binding> {
        let minter = self.minters.iter().find(|(_, minter)| minter.principal.key.as_deref() == Some(name));
        minter.map(|(binding, _)| *binding)
    }

    /// Headers that may hold a key, beside `Authorization`.
    pub fn key_headers(&self) -> &[HeaderName] {
        &self.key_headers
    }

    /// Headers that carry credentials of callers, and so never go upstream.
    pub fn credential_headers(&self) -> &[HeaderName] {
        &self.credential_headers
    }

    /// The entry whose key this is. A key that cannot be one is told apart without a look-up: that its checksum is wrong is no
    /// secret. From there on a known and an unknown key cost the same.
    fn entry_of(&self, key: &str) -> Option<&Arc<Entry>> {
        let is_own = key::public_id(key).is_some();
        if !is_own && !self.has_imported {
            return None;
        }
        let shown = key::digest_of(key);
        let stored = key::bucket(&shown).and_then(|bucket| self.by_digest.get(&bucket));
        let candidates = stored.map_or(self.nobody.as_slice(), Vec::as_slice);
        let mut found = None;
        for entry in candidates {
            if bool::from(entry.digest.ct_eq(&shown)) {
                found = Some(entry);
            }
        }
        found.filter(|entry| entry.principal.key.is_some() && (is_own || entry.form == Form::Any))
    }
}

/// Refuses whoever could not connect with its certificate any more, whatever it shows beside.
fn check_vouched(certificate: Option<Certificate<'_>>) -> Result<(), AuthError> {
    let is_lost = certificate.is_some_and(|certificate| !certificate.is_vouched_for);
    if is_lost { Err(AuthError::CertificateUntrusted) } else { Ok(()) }
}

impl Entry {
    /// An entry that is nobody's: nobody knows a text of this digest, and it would not be taken for a key's if they did.
    fn nobody() -> Self {
        Self {
            digest: [0; 32],
            form: Form::Own,
            mark: None,
            principal: Arc::new(Principal::public()),
            terms: Terms::default(),
        }
    }

    /// The caller who showed the key, or the certificate that stands for it.
    fn admit(
        &self,
        certificate: Option<Certificate<'_>>,
        source: Option<IpAddr>,
        now: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        self.terms.allow(source, now)?;
        let Some(mark) = &self.mark else { return Ok(Arc::clone(&self.principal)) };
        let certificate = certificate.filter(|certificate| mark.fits(certificate)).ok_or(AuthError::Certificate)?;
        self.until(certificate.ends, now)
    }

    /// The caller, for as long as its certificate is good: connections and streams may outlast it.
    fn until(&self, ends: u64, now: u64) -> Result<Arc<Principal>, AuthError> {
        if now >= ends {
            return Err(AuthError::CertificateExpired);
        }
        let ends_before = self.principal.expires.is_some_and(|expires| expires <= ends);
        Ok(match ends_before {
            true => Arc::clone(&self.principal),
            false => Arc::new(Principal { expires: Some(ends), ..(*self.principal).clone() }),
        })
    }
}
