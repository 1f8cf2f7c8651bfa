//! What does an API key look like, and what is kept of it?
//!
//! A key of ours: the prefix (`ptc_`, unless the configuration has another) + 8 characters of public id + `_` + 43 of secret
//! (32 random bytes in base64url) + 6 of checksum (the CRC-32 of all before it, in base 62), e.g. `ptc_4k9x0b2m_` and 49 more.
//! The prefix and the checksum let scanners find leaked keys without asking us; the id names a key in a conversation without
//! giving it away. What is kept is `pk1_` + base64url of the SHA-256 of the whole text: a key has 256 random bits, so no slow
//! hash is needed. Of a key that was imported, which may look like anything, it is `sha256:` and the same digest in hex.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;
use sha2::Digest as _;
use sha2::Sha256;

use crate::config::model::KEY_PREFIX;
use crate::config::secret::Secret;

/// How the digest of a key of ours begins.
pub const DIGEST_PREFIX: &str = "pk1_";
/// How the digest of an imported key begins.
pub const IMPORTED_PREFIX: &str = "sha256:";
/// Characters of a prefix.
pub const PREFIX_MAX: usize = 24;
/// Bytes of a presented key; what is longer is not looked at.
pub const KEY_BYTES_MAX: usize = 256;

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 6;
/// Bytes of a key without its prefix.
const KEY_BYTES: usize = 1 + ID_BYTES + 1 + 43 + CHECKSUM_BYTES;
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

/// Which keys a digest is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Those that were made here: what has no right checksum is none.
    Own,
    /// Imported ones, of any form.
    Any,
}

/// How keys of ours may begin: those made before a prefix was configured stay what they are.
#[derive(Debug)]
pub(super) struct Beginnings([Box<str>; 2]);

impl Beginnings {
    pub(super) fn of(prefix: &str) -> Self {
        Self([KEY_PREFIX, prefix].map(|prefix| format!("{prefix}_").into()))
    }

    /// Whether a text begins as a key does. Nothing else may be meant by it.
    pub(super) fn begin(&self, text: &str) -> bool {
        self.0.iter().any(|beginning| text.starts_with(&**beginning))
    }
}

/// How keys begin that other keys mint.
pub const MINTED_PREFIX: &str = "ptc_m_";

/// Whether keys may begin with this and a `_`.
pub fn is_prefix(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = (2..=PREFIX_MAX).contains(&text.len()) && text.bytes().all(word);
    // A digest would be taken for a key, the beginning of a token for that of a key, and a key for one that was minted.
    let is_taken = text == "pk1" || MINTED_PREFIX.strip_suffix('_') == Some(text) || text.starts_with(MINTED_PREFIX);
    fits && text.starts_with(|first: char| first.is_ascii_alphabetic()) && !text.ends_with('_') && !is_taken
}

/// A new key with this prefix from the system's random source.
pub fn generate(prefix: &str) -> Result<NewKey, getrandom::Error> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let mut id = [0; ID_BYTES];
    getrandom::fill(secret.as_mut_slice())?;
    getrandom::fill(&mut id)?;
    // The id is a name, not a secret: that some letters come a little more often than others does no harm.
    let id: String = id.iter().map(|byte| digit(BASE_36, u32::from(*byte))).collect();
    let body = Zeroizing::new(format!("{prefix}_{id}_{}", &*Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()))));
    let key = Secret::new(format!("{}{}", &*body, checksum(&body)));
    let digest = digest(key.expose());
    Ok(NewKey { key, id, digest })
}

/// What the configuration keeps of `key`: `pk1_` and the base64url of its SHA-256.
pub fn digest(key: &str) -> String {
    format!("{DIGEST_PREFIX}{}", URL_SAFE_NO_PAD.encode(digest_of(key)))
}

/// What the configuration keeps of a key that was imported: `sha256:` and its SHA-256 in hex.
pub fn imported_digest(key: &str) -> String {
    digest_of(key).iter().fold(IMPORTED_PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The public id of a key; `None` for what is no key of ours, a mistyped one included. Its prefix may be any.
pub fn public_id(key: &str) -> Option<&str> {
    let (prefix, rest) = key.split_at_checked(key.len().checked_sub(KEY_BYTES)?)?;
    if !is_prefix(prefix) {
        return None;
    }
    let (body, check) = key.split_at_checked(key.len() - CHECKSUM_BYTES)?;
    let (id, rest) = rest.strip_prefix('_')?.split_at_checked(ID_BYTES)?;
    let secret = rest.strip_prefix('_')?.strip_suffix(check)?;
    let well_formed = id.bytes().all(|byte| BASE_36.contains(&byte))
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    (well_formed && checksum(body) == check).then_some(id)
}

/// The digest that was written down as `text`, and which keys it is of; `None` unless it is written as [`digest`] or
/// [`imported_digest`] write it, the digits of the latter in either case.
pub(super) fn parse_digest(text: &str) -> Option<(Digest, Form)> {
    if let Some(hex) = text.strip_prefix(IMPORTED_PREFIX) {
        return Some((parse_hex(hex)?, Form::Any));
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(DIGEST_PREFIX)?).ok()?;
    Some((bytes.try_into().ok()?, Form::Own))
}

/// Whether a text is the digest of a key of ours.
pub fn is_digest(text: &str) -> bool {
    parse_digest(text).is_some_and(|(_, form)| form == Form::Own)
}

/// A SHA-256 in hex.
pub(super) fn parse_hex(text: &str) -> Option<Digest> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut digest = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest)
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
