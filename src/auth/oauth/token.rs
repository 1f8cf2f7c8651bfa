//! What does a token say, before anybody vouches for it?
//!
//! A signed token in the compact form (RFC 7515, 7519), read strictly: exactly three parts of canonical base64url, JSON in which
//! no key stands twice, and no header that changes what is verified or with what.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::auth::oauth::error::TokenError;
use crate::config::model::Algorithm;
use crate::mcp::document::Document;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;

/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the id of a key.
pub(super) const KEY_ID_BYTES_MAX: usize = 256;

/// Headers by which a token would bring its own key, or say how it is to be read otherwise.
const REFUSED_HEADERS: [&str; 12] =
    ["crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip", "cty", "epk", "apu", "apv"];
/// What a token for access may call itself; others are for logging out, for proofs, and so on.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token that was read and not yet verified.
pub(super) struct Token<'t> {
    /// The algorithm that its header names.
    pub(super) algorithm: Algorithm,
    /// The key that its header names.
    pub(super) key_id: Option<String>,
    /// What is signed.
    pub(super) signed: &'t str,
    pub(super) signature: Vec<u8>,
    pub(super) claims: Document,
}

/// How much the JSON of a token, or of a set of keys, may hold.
pub(super) fn limits() -> Limits {
    Limits { depth_max: 16, nodes_max: 10_000, object_keys_max: 512, string_bytes_max: 64 * 1024, ..Limits::default() }
}

impl<'t> Token<'t> {
    /// Reads a token.
    pub(super) fn read(text: &'t str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let (algorithm, key_id) = read_header(&object(header)?)?;
        let signed = text.get(..header.len() + 1 + claims.len()).ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        Ok(Self { algorithm, key_id, signed, signature, claims: object(claims)? })
    }

    /// A claim's value.
    pub(super) fn claim(&self, name: &str) -> Option<Value<'_>> {
        self.claims.root().get(name)
    }
}

/// The JSON object in one part of a token.
fn object(part: &str) -> Result<Document, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    let document = Document::read(Bytes::from(bytes), &limits()).map_err(|_| TokenError::Malformed)?;
    if document.root().kind() == Kind::Object { Ok(document) } else { Err(TokenError::Malformed) }
}

fn read_header(header: &Document) -> Result<(Algorithm, Option<String>), TokenError> {
    let root = header.root();
    // Whatever their case: nobody who reads them carelessly may be led elsewhere.
    let is_refused = |name: &str| REFUSED_HEADERS.iter().any(|refused| name.eq_ignore_ascii_case(refused));
    if root.entries().any(|(name, _)| is_refused(name)) {
        return Err(TokenError::Header);
    }
    let algorithm = root.get("alg").and_then(Value::text).ok_or(TokenError::Algorithm)?;
    let algorithm = Algorithm::named(algorithm).ok_or(TokenError::Algorithm)?;
    if let Some(kind) = root.get("typ") {
        let kind = kind.text().ok_or(TokenError::Kind)?;
        if !KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            return Err(TokenError::Kind);
        }
    }
    let key_id = match root.get("kid") {
        None => None,
        Some(id) => {
            let id = id.text().filter(|id| !id.is_empty() && id.len() <= KEY_ID_BYTES_MAX);
            Some(id.ok_or(TokenError::Header)?.to_owned())
        }
    };
    Ok((algorithm, key_id))
}

/// The value that a claim's name, or a path that begins with `/` (RFC 6901), leads to.
pub(super) fn find<'d>(root: Value<'d>, claim: &str) -> Option<Value<'d>> {
    let Some(path) = claim.strip_prefix('/') else { return root.get(claim) };
    path.split('/').try_fold(root, |value, step| {
        let step =
            if step.contains('~') { Cow::Owned(step.replace("~1", "/").replace("~0", "~")) } else { step.into() };
        value.get(&step)
    })
}
