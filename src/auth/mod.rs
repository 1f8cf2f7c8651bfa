//! Who calls?
//!
//! A caller shows an API key in a header; what is stored is its digest. Or it shows a token of an issuer's: see [`oauth`]. Whatever
//! is shown must be right: a wrong key, two different keys or a key in the query refuse the request even where no key is needed.
//! [`Keys`] is compiled from the configuration and never changes; all lines of all these headers are judged together.

mod challenge;
mod compile;
pub mod key;
pub mod oauth;
mod presented;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use subtle::ConstantTimeEq;

use crate::auth::key::Digest;
use crate::principal::Principal;

pub use crate::auth::challenge::challenge;
pub use crate::auth::challenge::token_challenge;
pub use crate::auth::compile::KEY_HEADERS_MAX;
pub use crate::auth::compile::KEYS_MAX;
pub use crate::auth::oauth::Oauth;
pub use crate::auth::oauth::TokenError;
pub use crate::auth::presented::AuthError;
pub use crate::auth::presented::Credential;

/// The keys of one configuration, and the headers that may carry them.
pub struct Keys {
    /// By the first bytes of the digest: the rest is compared in constant time.
    by_digest: HashMap<[u8; 8], Vec<Entry>>,
    /// Headers whose whole value is a key.
    key_headers: Vec<HeaderName>,
    /// Headers that never go upstream.
    credential_headers: Vec<HeaderName>,
    /// What a key is compared with when no stored digest begins like its own.
    nobody: [Entry; 1],
}

struct Entry {
    digest: Digest,
    principal: Arc<Principal>,
}

impl Keys {
    /// What a request with these headers shows, `None` if nothing.
    ///
    /// # Errors
    /// Something was shown that is not exactly one key or token, wherever it was shown.
    pub fn shown<'h>(&self, headers: &'h HeaderMap, query: Option<&str>) -> Result<Option<Credential<'h>>, AuthError> {
        if query.is_some_and(|query| presented::is_key_in_query(query, &self.key_headers)) {
            return Err(AuthError::InQuery);
        }
        presented::credential_of(headers, &self.key_headers)
    }

    /// The caller whose key this is.
    ///
    /// # Errors
    /// `Unknown`: nobody's.
    pub fn holder(&self, key: &str) -> Result<Arc<Principal>, AuthError> {
        self.principal_of(key).ok_or(AuthError::Unknown)
    }

    /// Headers that may hold a key, beside `Authorization`.
    pub fn key_headers(&self) -> &[HeaderName] {
        &self.key_headers
    }

    /// Headers that carry credentials of callers, and so never go upstream.
    pub fn credential_headers(&self) -> &[HeaderName] {
        &self.credential_headers
    }

    /// The caller whose key this is. A key that cannot be one of ours is told apart without a look-up: that its
    /// checksum is wrong is no secret. From there on a known and an unknown key cost the same.
    fn principal_of(&self, key: &str) -> Option<Arc<Principal>> {
        key::public_id(key)?;
        let shown = key::digest_of(key);
        let stored = key::bucket(&shown).and_then(|bucket| self.by_digest.get(&bucket));
        let candidates = stored.map_or(self.nobody.as_slice(), Vec::as_slice);
        let mut found = None;
        for entry in candidates {
            if bool::from(entry.digest.ct_eq(&shown)) {
                found = Some(Arc::clone(&entry.principal));
            }
        }
        found.filter(|principal| principal.key.is_some())
    }
}

impl Entry {
    /// An entry that is nobody's: nobody knows a text of this digest, and it would not be taken for a key's if they did.
    fn nobody() -> Self {
        Self { digest: [0; 32], principal: Arc::new(Principal::public()) }
    }
}
