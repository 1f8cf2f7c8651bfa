//! Which key or token does a request show?
//!
//! `Authorization: Bearer`, `X-API-Key`, `API-Key` and the configured headers are read together, every line of them.
//! The same key twice is one key; two different ones are an attempt to be judged as one caller and seen as another.
//! A token comes in `Authorization` alone, and with nothing beside it: a text with a dot, which no key of ours has.
//! A key in the query is refused whatever the headers say: queries end up in logs and histories.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::auth::child;
use crate::auth::child::CHILD_BYTES_MAX;
use crate::auth::key;
use crate::auth::key::Beginnings;
use crate::auth::oauth::TOKEN_BYTES_MAX;

/// Headers whose whole value is a key, in every configuration.
pub(super) const BUILT_IN: [HeaderName; 2] = [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// Query parameters that mean a key, whatever their value; written without hyphens and underscores.
const QUERY_NAMES: [&str; 6] = ["key", "apikey", "xapikey", "token", "accesstoken", "authorization"];

/// What is wrong with what a caller showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not a bearer token, not readable, empty or too long.
    #[error("the key is not shown in a form that can be read")]
    Malformed,
    /// A key that no one has.
    #[error("the key is not known")]
    Unknown,
    /// A key that is turned off.
    #[error("the key is turned off")]
    Disabled,
    /// A key whose time is over.
    #[error("the key has expired")]
    Expired,
    /// A minted key that was ended, or whose own key is gone, changed or mints no more.
    #[error("the minted key is no longer upheld")]
    Revoked,
    /// A key shown from an address that it may not be used from.
    #[error("the key may not be used from here")]
    Source,
    /// A key without the certificate that it is bound to.
    #[error("the key is bound to a certificate that was not shown")]
    Certificate,
    /// A certificate whose time is over, on a connection from before.
    #[error("the client's certificate has expired")]
    CertificateExpired,
    /// A certificate for which nobody vouches any more, on a connection from before.
    #[error("nobody who is trusted vouches for the client's certificate any more")]
    CertificateUntrusted,
    /// A certificate that stands for two keys.
    #[error("the client's certificate stands for more than one key")]
    CertificateAmbiguous,
    /// Two different keys.
    #[error("two different keys are shown")]
    Conflicting,
    /// A key in the query.
    #[error("a key is shown in the query")]
    InQuery,
    /// The server takes tokens alone.
    #[error("keys are not accepted here")]
    NotTaken,
}

/// What a request shows. Nothing of it is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'h> {
    /// Something that can only be a key.
    Key(&'h str),
    /// Something that can only be a key that another key minted.
    Child(&'h str),
    /// Something that can only be a token of an issuer's.
    Token(&'h str),
}

impl AuthError {
    /// Fixed word for records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            AuthError::Malformed => "key_malformed",
            AuthError::Unknown => "key_unknown",
            AuthError::Disabled => "key_disabled",
            AuthError::Expired => "key_expired",
            AuthError::Revoked => "key_revoked",
            AuthError::Source => "key_source",
            AuthError::Certificate => "key_certificate",
            AuthError::CertificateExpired => "certificate_expired",
            AuthError::CertificateUntrusted => "certificate_untrusted",
            AuthError::CertificateAmbiguous => "certificate_ambiguous",
            AuthError::Conflicting => "keys_conflicting",
            AuthError::InQuery => "key_in_query",
            AuthError::NotTaken => "key_not_taken",
        }
    }
}

/// The one key or token that `headers` show, in `Authorization` or in any of `key_headers`.
pub(super) fn credential_of<'h>(
    headers: &'h HeaderMap,
    key_headers: &[HeaderName],
    beginnings: &Beginnings,
) -> Result<Option<Credential<'h>>, AuthError> {
    let bearers = headers.get_all(header::AUTHORIZATION).into_iter().map(|value| bearer(value, beginnings));
    let plain = key_headers.iter().flat_map(|name| headers.get_all(name)).map(readable);
    let mut shown: Option<Credential<'_>> = None;
    let mut conflicting = false;
    // Every value is read before two are compared, so that the answer does not depend on the order of the lines.
    for credential in bearers.chain(plain) {
        let credential = credential?;
        conflicting |= shown.is_some_and(|before| before != credential);
        shown = Some(credential);
    }
    if conflicting { Err(AuthError::Conflicting) } else { Ok(shown) }
}

/// The token of an `Authorization` line of the Bearer scheme.
fn bearer<'h>(value: &'h HeaderValue, beginnings: &Beginnings) -> Result<Credential<'h>, AuthError> {
    let value = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Malformed);
    }
    if is_token(token.trim_start(), beginnings) {
        token_of(token, TOKEN_BYTES_MAX).map(Credential::Token)
    } else {
        key_of(token)
    }
}

fn key_of(text: &str) -> Result<Credential<'_>, AuthError> {
    if child::is_child(text.trim_start()) {
        return token_of(text, CHILD_BYTES_MAX).map(Credential::Child);
    }
    token_of(text, key::KEY_BYTES_MAX).map(Credential::Key)
}

/// Whether a text is of the form of an issuer's tokens. A text with our prefix never is.
fn is_token(text: &str, beginnings: &Beginnings) -> bool {
    !beginnings.begin(text) && text.contains('.')
}

/// The key of a line that holds nothing else.
fn readable(value: &HeaderValue) -> Result<Credential<'_>, AuthError> {
    key_of(value.to_str().map_err(|_| AuthError::Malformed)?)
}

fn token_of(text: &str, bytes_max: usize) -> Result<&str, AuthError> {
    let token = text.trim_matches([' ', '\t']);
    let fits = !token.is_empty() && token.len() <= bytes_max;
    // A comma would be two values in one line, which others may read apart.
    let one = token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if fits && one { Ok(token) } else { Err(AuthError::Malformed) }
}

/// Whether `query` holds a key, told by a parameter's name or by how its value begins.
pub(super) fn is_key_in_query(query: &str, key_headers: &[HeaderName], beginnings: &Beginnings) -> bool {
    query.split(['&', ';']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        QUERY_NAMES.iter().any(|known| plain.eq_ignore_ascii_case(known))
            || key_headers.iter().any(|header| name.eq_ignore_ascii_case(header.as_str()))
            || looks_like_a_key(&name, beginnings)
            || looks_like_a_key(&decoded(value), beginnings)
    })
}

fn looks_like_a_key(text: &str, beginnings: &Beginnings) -> bool {
    let text = text.trim_start();
    let text = match text.split_at_checked("bearer".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        _ => text,
    };
    // Every token begins with a header in JSON, which begins so in base64url.
    let is_token = text.starts_with("eyJ") && text.matches('.').count() == 2;
    is_token || beginnings.begin(text) || key::public_id(text.trim_end()).is_some()
}

/// `text` without its percent-encoding; what is not UTF-8 afterwards is replaced, as no key contains it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.split_first_chunk::<2>().filter(|_| byte == b'%');
        match escaped.and_then(|([high, low], left)| Some((hex(*high)? << 4 | hex(*low)?, left))) {
            Some((value, left)) => {
                bytes.push(value);
                rest = left;
            }
            None => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
