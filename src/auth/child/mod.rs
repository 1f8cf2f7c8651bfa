//! What does a key look like that another key minted?
//!
//! `ptc_m_` and a sealed text in base64url, which says what is in [`Minted`]: which key it stands on, each link, and when it ends. No
//! node keeps any of it: whoever has the sealing keys opens it, and looks up what the key it stands on may mint at this moment.

mod codec;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::AuthError;
use crate::auth::Keys;
use crate::auth::key::MINTED_PREFIX as PREFIX;
use crate::config::secret::Secret;
use crate::principal::Minted;
use crate::principal::Principal;
use crate::seal::Keyring;
use crate::seal::NONCE_BYTES;

/// Bytes of a child; what is longer is not looked at.
pub const CHILD_BYTES_MAX: usize = 2_048;

const PURPOSE: &[u8] = b"portcullis child key";

/// The text of a child; `None` if it would be too long.
pub fn seal(keyring: &Keyring, minted: &Minted, nonce: [u8; NONCE_BYTES]) -> Option<Secret> {
    let plain = codec::encode(minted)?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(keyring.seal(PURPOSE, &plain, nonce)));
    (text.len() <= CHILD_BYTES_MAX).then(|| Secret::new(text))
}

/// Whether a text is of the form of children.
pub(super) fn is_child(text: &str) -> bool {
    text.starts_with(PREFIX)
}

impl Keys {
    /// Who holds a child.
    ///
    /// # Errors
    /// It is none, or ended; or the key that it stands on is gone, was changed, or may not be used from here now.
    pub fn open_child(
        &self,
        keyring: &Keyring,
        text: &str,
        source: Option<IpAddr>,
        now: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let sealed = text.strip_prefix(PREFIX).filter(|_| text.len() <= CHILD_BYTES_MAX).ok_or(AuthError::Unknown)?;
        // The decoder refuses a second spelling of the same bytes, so that each child has one text.
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| AuthError::Unknown)?;
        let plain = keyring.open(PURPOSE, &sealed).ok_or(AuthError::Unknown)?;
        let told = codec::decode(&plain).ok_or(AuthError::Unknown)?;
        let minter = self.minters.get(&told.binding).ok_or(AuthError::Revoked)?;
        let parent = Arc::clone(&minter.principal);
        let minted = Minted { parent, binding: told.binding, links: told.links, expires: told.expires };
        self.check_child(&minted, source, now)?;
        Ok(Arc::new(Principal::of_child(minted)))
    }

    /// Whether a child that was opened may be used from here now; until when, in seconds since 1970.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check_child(&self, minted: &Minted, source: Option<IpAddr>, now: u64) -> Result<u64, AuthError> {
        let minter = self.minters.get(&minted.binding).ok_or(AuthError::Revoked)?;
        minter.terms.allow(source, now)?;
        if !minter.minting.upholds(minted) {
            return Err(AuthError::Revoked);
        }
        let ends = minter.terms.expires.map_or(minted.expires, |expires| expires.min(minted.expires));
        if now >= ends { Err(AuthError::Expired) } else { Ok(ends) }
    }
}
