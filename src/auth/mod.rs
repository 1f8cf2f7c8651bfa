//! Who calls?
//!
//! A caller shows an API key in a header; what is stored is its digest. Or it shows a token of an issuer's: see [`oauth`]. Whatever
//! is shown must be right: a wrong key, two different keys or a key in the query refuse the request even where no key is needed.
//! [`Keys`] is compiled from the configuration and never changes; all lines of all these headers are judged together.

mod challenge;
pub mod child;
mod compile;
pub mod key;
pub mod oauth;
mod presented;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use subtle::ConstantTimeEq;

use crate::auth::key::Digest;
use crate::auth::presented::Credential;
use crate::network::Networks;
use crate::policy::Minting;
use crate::principal::Binding;
use crate::principal::Principal;

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
    by_digest: HashMap<[u8; 8], Vec<Entry>>,
    /// Headers whose whole value is a key.
    key_headers: Vec<HeaderName>,
    /// Headers that never go upstream.
    credential_headers: Vec<HeaderName>,
    /// Keys that mint others, by what stands for their digests.
    minters: HashMap<Binding, Minter>,
    /// What a key is compared with when no stored digest begins like its own.
    nobody: [Entry; 1],
}

struct Entry {
    digest: Digest,
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
    /// The key of this caller.
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
    /// The caller's address, where it has one and it is known.
    pub source: Option<IpAddr>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

impl Keys {
    /// Who shows this, `None` if nothing was shown.
    ///
    /// An error whenever something was shown that is not exactly one right key or one token, wherever it was shown. Whether the
    /// token, or the minted key, is right is not known yet.
    pub fn authenticate<'s>(&self, shown: Shown<'s>) -> Result<Option<Presented<'s>>, AuthError> {
        if shown.query.is_some_and(|query| presented::is_key_in_query(query, &self.key_headers)) {
            return Err(AuthError::InQuery);
        }
        match presented::credential_of(shown.headers, &self.key_headers)? {
            None => Ok(None),
            Some(Credential::Token(token)) => Ok(Some(Presented::Token(token))),
            Some(Credential::Child(child)) => Ok(Some(Presented::Child(child))),
            Some(Credential::Key(key)) => {
                let entry = self.entry_of(key).ok_or(AuthError::Unknown)?;
                entry.terms.allow(shown.source, shown.now)?;
                Ok(Some(Presented::Key(Arc::clone(&entry.principal))))
            }
        }
    }

    /// Whether the key of this name may be used from here now.
    ///
    /// # Errors
    /// It may not; [`AuthError::Unknown`] if there is no such key.
    pub fn check_terms(&self, name: &str, source: Option<IpAddr>, now: u64) -> Result<(), AuthError> {
        let mut entries = self.by_digest.values().flatten();
        let entry = entries.find(|entry| entry.principal.key.as_deref() == Some(name)).ok_or(AuthError::Unknown)?;
        entry.terms.allow(source, now)
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

    /// The entry whose key this is. A key that cannot be one of ours is told apart without a look-up: that its
    /// checksum is wrong is no secret. From there on a known and an unknown key cost the same.
    fn entry_of(&self, key: &str) -> Option<&Entry> {
        key::public_id(key)?;
        let shown = key::digest_of(key);
        let stored = key::bucket(&shown).and_then(|bucket| self.by_digest.get(&bucket));
        let candidates = stored.map_or(self.nobody.as_slice(), Vec::as_slice);
        let mut found = None;
        for entry in candidates {
            if bool::from(entry.digest.ct_eq(&shown)) {
                found = Some(entry);
            }
        }
        found.filter(|entry| entry.principal.key.is_some())
    }
}

impl Entry {
    /// An entry that is nobody's: nobody knows a text of this digest, and it would not be taken for a key's if they did.
    fn nobody() -> Self {
        Self { digest: [0; 32], principal: Arc::new(Principal::public()), terms: Terms::default() }
    }
}
