//! How does the gateway hand out what only it can read again?
//!
//! XChaCha20-Poly1305 under a ring of keys: the first key seals, every key opens, so that keys can be replaced
//! without cutting sessions. A sealed text is `version (1 byte) | key id (4) | nonce (24) | ciphertext and tag`.
//! The purpose and the version are authenticated with it: what was sealed for one purpose opens for no other.
//! Pure but for [`generate_key`] and [`fresh_nonce`]: whoever seals passes the nonce in, and never the same one twice,
//! or has it derived from the text.

mod hmac;
mod key;
pub mod pack;
#[cfg(test)]
mod tests;

use std::fmt;

use chacha20poly1305::KeyInit;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::aead::Payload;
use secrecy::zeroize::Zeroize;
use secrecy::zeroize::Zeroizing;
use sha2::Digest;
use sha2::Sha256;

use crate::seal::hmac::hmac_sha256;

pub use crate::seal::key::BadKey;
pub use crate::seal::key::fresh_nonce;
pub use crate::seal::key::generate_key;
pub use crate::seal::key::key_text;
pub use crate::seal::key::parse_key;

/// Keys of one ring. Each is tried by its id only, so the limit is about sense rather than cost.
pub const KEYS_MAX: usize = 16;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce: long enough to be drawn at random for ever.
pub const NONCE_BYTES: usize = 24;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
/// What a sealing key's second key is derived for.
const NONCE_KEY_LABEL: &[u8] = b"portcullis nonce";

/// Keys that seal and open. Its `Debug` shows how many there are and nothing else; they are wiped when it is dropped.
pub struct Keyring {
    first: SealKey,
    others: Vec<SealKey>,
}

struct SealKey {
    id: [u8; KEY_ID_BYTES],
    key: Zeroizing<[u8; KEY_BYTES]>,
    /// Derives nonces from texts; never encrypts anything.
    nonce_key: Zeroizing<[u8; KEY_BYTES]>,
}

/// Why no ring can be made of these keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is no key to seal with.
    #[error("no key to seal with")]
    Empty,
    /// There are more than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

impl Keyring {
    /// A ring of `keys`: the first seals, all open.
    pub fn new(mut keys: Vec<[u8; KEY_BYTES]>) -> Result<Self, KeyringError> {
        let ring = Self::from_keys(&keys);
        keys.zeroize();
        ring
    }

    fn from_keys(keys: &[[u8; KEY_BYTES]]) -> Result<Self, KeyringError> {
        let (first, others) = keys.split_first().ok_or(KeyringError::Empty)?;
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany);
        }
        Ok(Self { first: SealKey::new(first), others: others.iter().map(SealKey::new).collect() })
    }

    /// Seals `plain` for `purpose` with the first key. A nonce must never be used twice: take [`fresh_nonce`].
    ///
    /// What cannot be sealed (256 GiB and more) comes back empty, and an empty text opens for nobody.
    pub fn seal(&self, purpose: &[u8], plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let aad = associated(purpose);
        let payload = Payload { msg: plain, aad: &aad };
        let Ok(ciphertext) = self.first.cipher().encrypt(&XNonce::from(nonce), payload) else {
            return Vec::new();
        };
        let mut sealed = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_BYTES + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.first.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Seals `plain` for `purpose` with the first key, always to the same bytes: who sees two sealed texts learns
    /// whether they say the same, and nothing else.
    pub fn seal_same(&self, purpose: &[u8], plain: &[u8]) -> Vec<u8> {
        self.seal(purpose, plain, self.first.derived_nonce(purpose, plain))
    }

    /// What was sealed for this very purpose by a key of this ring; `None` for anything else, whatever the reason.
    pub fn open(&self, purpose: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (&version, rest) = sealed.split_first()?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if version != VERSION {
            return None;
        }
        let aad = associated(purpose);
        let nonce = XNonce::from(*nonce);
        // Two keys may share an id by chance, so the first match is not the last word.
        std::iter::once(&self.first)
            .chain(&self.others)
            .filter(|key| key.id == *id)
            .find_map(|key| key.cipher().decrypt(&nonce, Payload { msg: ciphertext, aad: &aad }).ok())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", 1 + self.others.len())
    }
}

impl SealKey {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self { id, key: Zeroizing::new(*key), nonce_key: Zeroizing::new(hmac_sha256(key, &[NONCE_KEY_LABEL])) }
    }

    /// The nonce for a text that must always be sealed to the same bytes.
    ///
    /// A stream cipher leaks what it hides when one nonce serves two texts. Here it never does: the nonce is a
    /// pseudo-random function of the purpose and the whole text under a key of its own, so the same nonce means the
    /// same text for the same purpose, hence the same sealed bytes again, which tell nothing new. Two different texts
    /// meet with the chance of a collision in 192 bits, as do texts sealed with a random nonce.
    fn derived_nonce(&self, purpose: &[u8], plain: &[u8]) -> [u8; NONCE_BYTES] {
        // With the purpose's length in front no end of a purpose can pass for the beginning of a text.
        let length = (purpose.len() as u64).to_be_bytes();
        let mac = hmac_sha256(&self.nonce_key, &[&length, purpose, plain]);
        let mut nonce = [0; NONCE_BYTES];
        nonce.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        nonce
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

/// What is authenticated beside the text: the version has one length, so no two purposes can run together.
fn associated(purpose: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(1 + purpose.len());
    aad.push(VERSION);
    aad.extend_from_slice(purpose);
    aad
}
