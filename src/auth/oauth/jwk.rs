//! Which keys does an issuer have, and is this signature made with one of them?
//!
//! A set of keys (RFC 7517). What kind a key is decides by which algorithms it verifies, never the token alone; keys that are for
//! something else, secret, too weak or malformed are left out. ring does the arithmetic, and refuses what is out of range.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::signature;
use ring::signature::RsaParameters;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;

use crate::auth::oauth::token;
use crate::config::model::Algorithm;
use crate::mcp::document::Document;
use crate::mcp::document::Value;

/// Keys of one issuer.
pub const KEYS_MAX: usize = 100;
/// Bits of an RSA key: what is shorter can be broken, what is longer only costs time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    /// Not JSON, or without `keys`.
    #[error("this is no set of keys")]
    Form,
    /// More than [`KEYS_MAX`].
    #[error("there are more than {KEYS_MAX} keys")]
    TooMany,
    /// None that verifies a signature.
    #[error("there is no key that could verify a token")]
    None,
}

/// The keys of an issuer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeySet(Vec<Key>);

/// A key that verifies signatures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm it is for, where the issuer says so.
    bound: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Reads a set of keys, leaving out those that verify no token.
    ///
    /// # Errors
    /// It is none, or nothing of it is left.
    pub(super) fn parse(text: Bytes) -> Result<Self, KeySetError> {
        let document = Document::read(text, &token::limits()).map_err(|_| KeySetError::Form)?;
        let keys = document.root().get("keys").ok_or(KeySetError::Form)?;
        if keys.count() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = keys.items().filter_map(Key::read).collect();
        if keys.is_empty() { Err(KeySetError::None) } else { Ok(Self(keys)) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The key by which a token with this header is verified. A token that names none is verified only where there is no choice.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.fits(algorithm));
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }

    /// Whether there is a key of this id, whatever it is for.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        id.is_some() && self.0.iter().any(|key| key.id.as_deref() == id)
    }
}

impl Key {
    fn read(value: Value<'_>) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::text);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if value.get("use").is_some_and(|purpose| purpose.text() != Some("sig"))
            || value.get("key_ops").is_some_and(|all| !all.items().any(|one| one.text() == Some("verify")))
            // Whoever can read it could sign as the issuer.
            || ["d", "k", "p", "q"].iter().any(|secret| value.get(secret).is_some())
        {
            return None;
        }
        let id = match value.get("kid") {
            None => None,
            Some(id) => Some(id.text().filter(|id| id.len() <= token::KEY_ID_BYTES_MAX)?.to_owned()),
        };
        let bound = match value.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::named(name.text()?)?),
        };
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", None) => rsa(bytes("n")?, bytes("e")?)?,
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let key = Self { id, bound, material };
        let is_consistent = bound.is_none_or(|algorithm| key.fits(algorithm));
        is_consistent.then_some(key)
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        let by_kind = match self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
            }
            Material::P256(_) => algorithm == A::ES256,
            Material::P384(_) => algorithm == A::ES384,
            Material::Ed25519(_) => algorithm == A::EdDSA,
        };
        by_kind && self.bound.is_none_or(|bound| bound == algorithm)
    }

    /// Whether `signature` is this key's, by an algorithm that fits it.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &str, signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let plain = |by: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(by, key).verify(signed.as_bytes(), signature).is_ok()
        };
        match &self.material {
            Material::Rsa { n, e } => rsa_parameters(algorithm)
                .is_some_and(|by| RsaPublicKeyComponents { n, e }.verify(by, signed.as_bytes(), signature).is_ok()),
            Material::P256(point) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(key) => plain(&signature::ED25519, key),
        }
    }
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let leading = n.first().filter(|byte| **byte != 0)?.leading_zeros() as usize;
    let is_strong = RSA_BITS.contains(&(n.len() * 8 - leading));
    // Small exponents other than the usual one are how broken keys look.
    (is_strong && e == [1, 0, 1]).then_some(Material::Rsa { n, e })
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => None,
    }
}
