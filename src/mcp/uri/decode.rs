//! What does percent-encoding stand for?
//!
//! Encoded may be what cannot stand for itself, in capital hexadecimal digits, at most twice over, as UTF-8. Every other
//! encoding is one that resolving would change, or that readers decode to different characters.

use std::borrow::Cow;

use crate::mcp::names;
use crate::mcp::uri::flaw::UriFlaw;
use crate::mcp::uri::parts::path_end;

/// How often a text may be encoded.
const TIMES_MAX: usize = 2;

/// Whether the percent-encoding of a text is the usual one.
pub(super) fn check(text: &str) -> Result<(), UriFlaw> {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (_, from) = rest.split_at_checked(at).ok_or(UriFlaw::Encoding)?;
        let (byte, after) = escape(from).ok_or(UriFlaw::Encoding)?;
        let is_usual = from.iter().take(3).all(|byte| !byte.is_ascii_lowercase());
        if !is_usual || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            return Err(UriFlaw::Encoding);
        }
        rest = after;
    }
    let mut text = Cow::Borrowed(text);
    for _ in 0..=TIMES_MAX {
        let Some(bytes) = decoded_bytes(text.as_bytes()) else { return Ok(()) };
        let next = String::from_utf8(bytes).map_err(|_| UriFlaw::Encoding)?;
        check_hidden(&next)?;
        text = Cow::Owned(next);
    }
    Err(UriFlaw::Nested)
}

/// Nothing invisible may come of decoding. A query may have line ends: it is where texts are passed.
fn check_hidden(text: &str) -> Result<(), UriFlaw> {
    let (path, query) = text.split_at_checked(path_end(text)).unwrap_or((text, ""));
    let is_text = |character: char| matches!(character, '\t' | '\n' | '\r') || !names::is_hidden(character);
    if names::is_plain(path) && query.chars().all(is_text) { Ok(()) } else { Err(UriFlaw::Hidden) }
}

/// A text with its percent-encoded characters decoded once, where that gives a text; what encodes nothing stays.
pub fn decoded(text: &str) -> String {
    let decoded = decoded_bytes(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or_else(|| text.to_owned())
}

/// The bytes of a text decoded once; `None` if nothing in it is encoded.
fn decoded_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut rest = text;
    let mut has_escape = false;
    while let Some((first, after)) = rest.split_first() {
        let (byte, next) = match escape(rest) {
            Some(escape) => {
                has_escape = true;
                escape
            }
            None => (*first, after),
        };
        decoded.push(byte);
        rest = next;
    }
    has_escape.then_some(decoded)
}

/// The byte that a text begins with the encoding of, and what follows it.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let ([b'%', high, low], after) = text.split_first_chunk::<3>()? else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, after))
}
