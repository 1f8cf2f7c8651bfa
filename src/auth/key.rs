//! What does an API key look like, and what is kept of it?
//!
//! `ptc_` + 8 characters of public id + `_` + 43 of secret (32 random bytes in base64url) + 6 of checksum (the CRC-32
//! of all before it, in base 62): 62 characters, e.g. `ptc_4k9x0b2m_` and 49 more. The prefix and the checksum let
//! scanners find leaked keys without asking us; the id names a key in a conversation without giving it away. What
//! is kept is `pk1_` + base64url of the SHA-256 of the whole text: a key has 256 random bits, so no slow hash is needed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;
use sha2::Digest as _;
use sha2::Sha256;

use crate::config::secret::Secret;

/// How every key begins.
pub const PREFIX: &str = "ptc_";
/// How every digest begins.
pub const DIGEST_PREFIX: &str = "pk1_";
/// Bytes of a presented key; what is longer is not looked at.
pub const KEY_BYTES_MAX: usize = 256;

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 6;
const KEY_BYTES: usize = PREFIX.len() + ID_BYTES + 1 + 43 + CHECKSUM_BYTES;
const BASE_36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What is kept of a key.
pub(super) type Digest = [u8; 32];

/// A key that was just made. It is shown once and kept nowhere.
#[derive(Debug)]
pub struct NewKey {
    /// The key itself.
    pub key: Secret,
    /// Its public part, by which people can speak of it.
    pub id: String,
    /// What goes into the configuration.
    pub digest: String,
}

/// A new key from the system's random source.
pub fn generate() -> Result<NewKey, getrandom::Error> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let mut id = [0; ID_BYTES];
    getrandom::fill(secret.as_mut_slice())?;
    getrandom::fill(&mut id)?;
    // The id is a name, not a secret: that some letters come a little more often than others does no harm.
    let id: String = id.iter().map(|byte| digit(BASE_36, u32::from(*byte))).collect();
    let body = Zeroizing::new(format!("{PREFIX}{id}_{}", &*Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()))));
    let key = Secret::new(format!("{}{}", &*body, checksum(&body)));
    let digest = digest(key.expose());
    Ok(NewKey { key, id, digest })
}

/// What the configuration keeps of `key`: `pk1_` and the base64url of its SHA-256.
pub fn digest(key: &str) -> String {
    format!("{DIGEST_PREFIX}{}", URL_SAFE_NO_PAD.encode(digest_of(key)))
}

/// The public id of a key; `None` for what is no key of ours, a mistyped one included.
pub fn public_id(key: &str) -> Option<&str> {
    if key.len() != KEY_BYTES {
        return None;
    }
    let (body, check) = key.split_at_checked(KEY_BYTES - CHECKSUM_BYTES)?;
    let (id, secret) = body.strip_prefix(PREFIX)?.split_at_checked(ID_BYTES)?;
    let secret = secret.strip_prefix('_')?;
    let well_formed = id.bytes().all(|byte| BASE_36.contains(&byte))
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    (well_formed && checksum(body) == check).then_some(id)
}

/// The digest that was written down as `text`; `None` unless [`digest`] could have written it.
pub(super) fn parse_digest(text: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(DIGEST_PREFIX)?).ok()?;
    bytes.try_into().ok()
}

/// The digest of a presented key.
pub(super) fn digest_of(key: &str) -> Digest {
    Sha256::digest(key.as_bytes()).into()
}

/// The part of a digest by which it is looked up.
pub(super) fn bucket(digest: &Digest) -> Option<[u8; 8]> {
    digest.first_chunk().copied()
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [0_u8 as char; CHECKSUM_BYTES];
    for place in digits.iter_mut().rev() {
        *place = digit(BASE_62, rest);
        rest /= 62;
    }
    digits.iter().collect()
}

/// The digit for `value` modulo the base.
fn digit<const BASE: usize>(digits: &[u8; BASE], value: u32) -> char {
    digits.get(value as usize % BASE).map_or('0', |digit| char::from(*digit))
}
