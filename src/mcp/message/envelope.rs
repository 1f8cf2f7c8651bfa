//! Which of the three kinds of message is it?
//!
//! Six keys are known, in exactly one spelling; an unknown key refuses the message, and so does one that does not
//! belong to its kind.

use crate::mcp::document::Document;
use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::Flaw;
use crate::mcp::message::ID_BYTES_MAX;
use crate::mcp::message::METHOD_BYTES_MAX;
use crate::mcp::message::MessageKind;
use crate::mcp::message::Parts;
use crate::mcp::message::Sender;
use crate::mcp::message::params;
use crate::mcp::names;

const KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// The envelope's values, none of them judged yet.
#[derive(Default)]
struct Envelope<'d> {
    jsonrpc: Option<Value<'d>>,
    id: Option<Value<'d>>,
    method: Option<Value<'d>>,
    params: Option<Value<'d>>,
    result: Option<Value<'d>>,
    error: Option<Value<'d>>,
}

/// Judges a document as a message.
pub(super) fn read(document: &Document, sender: Sender) -> Result<Parts, Flaw> {
    let root = document.root();
    match root.kind() {
        Kind::Object => {}
        Kind::Array => return Err(Flaw::request("batch", "batches are not supported", root)),
        _ => return Err(Flaw::request("not_an_object", "a message must be an object", root)),
    }
    let envelope = open(root)?;
    match envelope.jsonrpc.map(Value::text) {
        Some(Some("2.0")) => {}
        _ => return Err(Flaw::request("jsonrpc", "`jsonrpc` must be \"2.0\"", envelope.jsonrpc.unwrap_or(root))),
    }
    match envelope.method {
        Some(method) => called(&envelope, method),
        None => response(&envelope, root, sender),
    }
}

fn open(root: Value<'_>) -> Result<Envelope<'_>, Flaw> {
    let mut envelope = Envelope::default();
    for (key, value) in root.pairs() {
        let slot = match key.text().unwrap_or_default() {
            "jsonrpc" => &mut envelope.jsonrpc,
            "id" => &mut envelope.id,
            "method" => &mut envelope.method,
            "params" => &mut envelope.params,
            "result" => &mut envelope.result,
            "error" => &mut envelope.error,
            other => {
                return Err(match names::variant_of(other, &KEYS) {
                    Some(reserved) => Flaw::request("key_variant", format!("misspelt key `{reserved}`"), key),
                    None => Flaw::request("unknown_key", "unknown key in the message", key),
                });
            }
        };
        *slot = Some(value);
    }
    Ok(envelope)
}

/// A request or a notification.
fn called(envelope: &Envelope<'_>, method: Value<'_>) -> Result<Parts, Flaw> {
    if let Some(answer) = envelope.result.or(envelope.error) {
        return Err(Flaw::request("two_kinds", "a message with a method has no result and no error", answer));
    }
    let kind = match envelope.id {
        Some(id) if is_id(id) => MessageKind::Request,
        Some(id) => return Err(bad_id(id)),
        None => MessageKind::Notification,
    };
    let name = match method.text() {
        Some(name) if !name.is_empty() && name.len() <= METHOD_BYTES_MAX && names::is_plain(name) => name,
        _ => return Err(Flaw::request("method", "`method` must be a short string of visible characters", method)),
    };
    Ok(Parts {
        kind,
        id: envelope.id.map(Value::index),
        method: Some(method.index()),
        params: envelope.params.map(Value::index),
        result: None,
        error: None,
        about: params::read(name, kind, method, envelope.params)?,
    })
}

fn response(envelope: &Envelope<'_>, root: Value<'_>, sender: Sender) -> Result<Parts, Flaw> {
    if let Some(params) = envelope.params {
        return Err(Flaw::request("no_method", "a message with parameters must have a method", params));
    }
    match (envelope.result, envelope.error) {
        (Some(_), None) => {}
        (None, Some(error)) if error.kind() == Kind::Object => {}
        (None, Some(error)) => return Err(Flaw::request("error", "`error` must be an object", error)),
        (Some(_), Some(error)) => return Err(Flaw::request("two_kinds", "both a result and an error", error)),
        (None, None) => return Err(Flaw::request("no_method", "neither a method nor a result nor an error", root)),
    }
    let may_lack_id = sender == Sender::Server && envelope.error.is_some();
    let id = match envelope.id {
        Some(id) if is_id(id) => Some(id),
        Some(id) if may_lack_id && id.kind() == Kind::Null => None,
        Some(id) => return Err(bad_id(id)),
        None if may_lack_id => None,
        None => return Err(Flaw::request("id", "a response must have an id", root)),
    };
    Ok(Parts {
        kind: MessageKind::Response,
        id: id.map(Value::index),
        method: None,
        params: None,
        result: envelope.result.map(Value::index),
        error: envelope.error.map(Value::index),
        about: None,
    })
}

fn bad_id(id: Value<'_>) -> Flaw {
    Flaw::request("id", "`id` must be a short string or an integer", id)
}

/// Whether a value can be the id of a message.
///
/// Integers beyond 2^53 are taken: they are kept and echoed as text, so no digit is lost here. A minus zero is not,
/// because many readers hand it back as zero.
pub(super) fn is_id(id: Value<'_>) -> bool {
    let raw = id.raw();
    match id.kind() {
        Kind::String => raw.len() <= ID_BYTES_MAX + 2 && id.text().is_some_and(|text| !text.contains('\0')),
        Kind::Number => {
            let digits = raw.strip_prefix(b"-").unwrap_or(raw);
            digits.iter().all(u8::is_ascii_digit) && raw != b"-0"
        }
        _ => false,
    }
}
