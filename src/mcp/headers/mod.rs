//! Do the headers of a 2026-07-28 message say the same as its body?
//!
//! The body is what is judged and carried out; headers that repeat it must agree, or something between client and
//! gateway was told another story. What `Mcp-Param-*` repeats is known only with the tool's schema: `annotations` reads
//! it, `arguments` compares.

pub mod annotations;
pub mod arguments;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderValue;

use crate::mcp::document::Kind;
use crate::mcp::error;
use crate::mcp::message::META_CAPABILITIES;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;

/// The header that repeats `_meta`'s protocol version.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The header that repeats the method.
pub const METHOD: &str = "mcp-method";
/// The header that repeats what the method is about.
pub const NAME: &str = "mcp-name";
/// What the name of a header that repeats an argument begins with.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// A mirrored value longer than this is refused before it is decoded.
pub const VALUE_BYTES_MAX: usize = 8192;
/// Headers that repeat arguments and are longer than this in all are refused before any is decoded.
pub const PARAMS_BYTES_MAX: usize = 64 * 1024;

/// Why headers and body do not go together. Always answered with HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderError {
    /// The JSON-RPC error code.
    pub code: i32,
    /// What is wrong, without any content.
    pub text: String,
    /// JSON for the error's `data`.
    pub data: Option<String>,
    /// A fixed word for metrics and records.
    pub name: &'static str,
}

impl HeaderError {
    fn mismatch(text: impl Into<String>) -> Self {
        Self { code: error::HEADER_MISMATCH, text: text.into(), data: None, name: "header_mismatch" }
    }

    fn params(text: &str) -> Self {
        Self { code: error::INVALID_PARAMS, text: text.into(), data: None, name: "meta" }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for HeaderError {}

/// Whether a message claims to be of 2026-07-28 or later, by its body or by its version header. Such a message is
/// verified.
pub fn claims_modern(headers: &HeaderMap, message: &Message) -> bool {
    message.meta_revision().is_some()
        || headers.get_all(PROTOCOL_VERSION).iter().any(|value| is_modern_date(value.as_bytes().trim_ascii()))
}

/// Whether a version is a date not before the first stateless revision.
fn is_modern_date(version: &[u8]) -> bool {
    let is_date = version.len() == 10
        && version.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    is_date && version >= Revision::V2026_07_28.as_str().as_bytes()
}

/// The revision of a message that claims to be modern, once its headers were seen to agree with its body.
///
/// A request must have the headers and the `_meta` of its revision. Of a notification, for which no revision says what
/// it must have, whatever is there must agree.
pub fn verify(headers: &HeaderMap, message: &Message, supported: &[Revision]) -> Result<Revision, HeaderError> {
    let is_request = match message.kind() {
        MessageKind::Request => true,
        MessageKind::Notification => false,
        MessageKind::Response => {
            let text = "responses of clients are not part of this revision".into();
            return Err(HeaderError { code: error::INVALID_REQUEST, text, data: None, name: "response" });
        }
    };
    let version = single(headers, PROTOCOL_VERSION)?;
    verify_method(headers, message, is_request)?;
    verify_name(headers, message, is_request)?;
    verify_params(headers)?;
    if is_request {
        verify_meta(message)?;
    }
    let requested = match (version, message.meta_revision()) {
        (Some(header), Some(body)) if header == body.as_bytes() => body,
        (None, Some(body)) if !is_request => body,
        (Some(header), None) if !is_request => std::str::from_utf8(header).unwrap_or_default(),
        (None, _) => return Err(HeaderError::mismatch("missing header MCP-Protocol-Version")),
        (Some(_), _) => return Err(HeaderError::mismatch("MCP-Protocol-Version differs from the body")),
    };
    let revision = Revision::parse(requested).filter(|revision| revision.era() == Era::Modern);
    revision.filter(|revision| supported.contains(revision)).ok_or_else(|| unsupported(requested, supported))
}

/// The error for a revision that is not spoken here, in the form that clients of both eras understand.
pub fn unsupported(requested: &str, supported: &[Revision]) -> HeaderError {
    let supported: Vec<String> = supported.iter().map(|revision| error::json_string(revision.as_str())).collect();
    let requested = error::json_string(requested);
    HeaderError {
        code: error::UNSUPPORTED_REVISION,
        text: "unsupported protocol version".into(),
        data: Some(format!(r#"{{"supported":[{}],"requested":{requested}}}"#, supported.join(","))),
        name: "unsupported_revision",
    }
}

fn verify_method(headers: &HeaderMap, message: &Message, is_required: bool) -> Result<(), HeaderError> {
    match (single(headers, METHOD)?, message.method()) {
        (Some(header), Some(method)) if header == method.as_bytes() => Ok(()),
        (None, _) if !is_required => Ok(()),
        (None, _) => Err(HeaderError::mismatch("missing header Mcp-Method")),
        (Some(_), _) => Err(HeaderError::mismatch("Mcp-Method differs from the body")),
    }
}

fn verify_name(headers: &HeaderMap, message: &Message, is_required: bool) -> Result<(), HeaderError> {
    let header = single(headers, NAME)?;
    // On a method that names nothing the header has no meaning, and nothing here reads it.
    if !message.method().is_some_and(method::is_named_in_header) {
        return Ok(());
    }
    let Some(header) = header else {
        return if is_required { Err(HeaderError::mismatch("missing header Mcp-Name")) } else { Ok(()) };
    };
    match decode(header) {
        Some(name) if Some(name.as_ref()) == message.target() => Ok(()),
        Some(_) => Err(HeaderError::mismatch("Mcp-Name differs from the body")),
        None => Err(HeaderError::mismatch("Mcp-Name is malformed")),
    }
}

fn verify_meta(message: &Message) -> Result<(), HeaderError> {
    let Some(meta) = message.meta() else { return Err(HeaderError::params("missing `_meta`")) };
    if message.meta_revision().is_none() {
        return Err(HeaderError::params("missing protocol version in `_meta`"));
    }
    match meta.get(META_CAPABILITIES) {
        Some(capabilities) if capabilities.kind() == Kind::Object => Ok(()),
        Some(_) => Err(HeaderError::params("the client capabilities in `_meta` must be an object")),
        None => Err(HeaderError::params("missing client capabilities in `_meta`")),
    }
}

/// Headers that repeat arguments may stand there once each: of two, servers would read either. What they repeat is known
/// only with the tool's schema.
fn verify_params(headers: &HeaderMap) -> Result<(), HeaderError> {
    let mut bytes: usize = 0;
    for name in headers.keys().filter(|name| name.as_str().starts_with(PARAM_PREFIX)) {
        let mut lines = headers.get_all(name).iter();
        bytes = bytes.saturating_add(lines.next().map_or(0, |line| line.as_bytes().len()));
        if lines.next().is_some() {
            return Err(HeaderError::mismatch("repeated header Mcp-Param-*"));
        }
    }
    if bytes > PARAMS_BYTES_MAX {
        return Err(HeaderError::mismatch("the headers Mcp-Param-* are too long"));
    }
    Ok(())
}

/// The value of a header that may stand there once, without the whitespace around it.
fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h [u8]>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| trim(value.as_bytes()));
    match (value, values.next()) {
        (_, Some(_)) => Err(HeaderError::mismatch(format!("repeated header {}", shown(name)))),
        (Some(value), None) if value.len() > VALUE_BYTES_MAX => {
            Err(HeaderError::mismatch(format!("header {} is too long", shown(name))))
        }
        (value, None) => Ok(value),
    }
}

fn shown(name: &'static str) -> &'static str {
    match name {
        PROTOCOL_VERSION => "MCP-Protocol-Version",
        METHOD => "Mcp-Method",
        _ => "Mcp-Name",
    }
}

/// Takes away what HTTP allows around a value: spaces and tabs.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

const SENTINEL_START: &[u8] = b"=?base64?";
const SENTINEL_END: &[u8] = b"?=";

/// A name as the value of [`NAME`]: itself where it is visible ASCII that means itself, else in base64.
pub fn encode(name: &str) -> HeaderValue {
    let means_itself = decode(name.as_bytes()).is_some_and(|meant| meant == name);
    let plain = HeaderValue::from_str(name).ok().filter(|_| means_itself);
    plain.unwrap_or_else(|| {
        let encoded = format!("=?base64?{}?=", STANDARD.encode(name));
        // Base64 is visible ASCII throughout.
        HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// What a mirrored value means: itself, or the text inside `=?base64?..?=`. `None` if it is neither visible ASCII (with
/// spaces or tabs inside) nor canonical base64 of UTF-8. Markers in another case, or only one of them, are part of the
/// text.
pub fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = trim(value);
    let encoded = value.strip_prefix(SENTINEL_START).and_then(|rest| rest.strip_suffix(SENTINEL_END));
    match encoded {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None if value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) => {
            std::str::from_utf8(value).ok().map(Cow::Borrowed)
        }
        None => None,
    }
}
