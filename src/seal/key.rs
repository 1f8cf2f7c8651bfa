//! How is a sealing key written, and where do keys and nonces come from?
//!
//! A key is written as 32 bytes in base64, in either alphabet, with or without padding. Errors never show it.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;

use crate::config::secret::Secret;
use crate::seal::KEY_BYTES;
use crate::seal::NONCE_BYTES;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const EITHER: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&alphabet::STANDARD, LENIENT), GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT)];

/// Why a text is no sealing key. It says nothing about the text but its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// It is not 32 bytes long.
    #[error("the key has {0} bytes instead of {KEY_BYTES}")]
    Length(usize),
    /// All its bytes are the same: a placeholder, not a key.
    #[error("the key is one byte repeated")]
    Placeholder,
}

/// Reads a key as an operator writes it; white space around it is ignored (a file ends with a newline).
pub fn parse_key(base64: &str) -> Result<[u8; KEY_BYTES], BadKey> {
    let text = base64.trim();
    let bytes = EITHER.iter().find_map(|engine| engine.decode(text).ok()).map(Zeroizing::new);
    let bytes = bytes.ok_or(BadKey::NotBase64)?;
    let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| BadKey::Length(bytes.len()))?;
    if key.windows(2).all(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(BadKey::Placeholder);
    }
    Ok(key)
}

/// The form in which [`parse_key`] reads `key` back.
pub fn key_text(key: &[u8; KEY_BYTES]) -> Secret {
    Secret::new(STANDARD.encode(key))
}

/// A new key from the system's random source.
pub fn generate_key() -> Result<[u8; KEY_BYTES], getrandom::Error> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// A nonce that no one has used before, from the system's random source.
pub fn fresh_nonce() -> Result<[u8; NONCE_BYTES], getrandom::Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}
