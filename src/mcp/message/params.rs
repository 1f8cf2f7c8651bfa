//! What do the parameters of a request say that policy depends on?
//!
//! Names, URIs and task ids are short strings without invisible characters, arguments are an object. Reserved keys have
//! one spelling; keys inside the arguments are the tool's own.

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::About;
use crate::mcp::message::Flaw;
use crate::mcp::message::META_CAPABILITIES;
use crate::mcp::message::META_RELATED_TASK;
use crate::mcp::message::META_REVISION;
use crate::mcp::message::MessageKind;
use crate::mcp::message::NAME_BYTES_MAX;
use crate::mcp::message::TASK_ID_BYTES_MAX;
use crate::mcp::message::URI_BYTES_MAX;
use crate::mcp::method;
use crate::mcp::method::Target;
use crate::mcp::method::Towards;
use crate::mcp::names;
use crate::mcp::revision::Revision;

/// Keys of `params` that the protocol gives a meaning to, in any method.
const KEYS: [&str; 19] = [
    "name",
    "arguments",
    "_meta",
    "uri",
    "cursor",
    "ref",
    "argument",
    "context",
    "level",
    "requestId",
    "progressToken",
    "taskId",
    "task",
    "inputResponses",
    "requestState",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "notifications",
];
const REF_KEYS: [&str; 3] = ["type", "name", "uri"];
const META_KEYS: [&str; 6] = [
    META_REVISION,
    META_CAPABILITIES,
    META_RELATED_TASK,
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
];

/// What `params.notifications` of a subscription asks for.
const NOTIFICATION_KEYS: [&str; 5] =
    ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"];

/// Judges the parameters of a request or notification, and finds what the request is about.
pub(super) fn read(
    name: &str,
    kind: MessageKind,
    method: Value<'_>,
    params: Option<Value<'_>>,
) -> Result<Option<About>, Flaw> {
    if let Some(params) = params {
        if params.kind() != Kind::Object {
            return Err(Flaw::params("params", "`params` must be an object", params));
        }
        refuse_variants(params, &KEYS)?;
        if let Some(notifications) = params.get("notifications") {
            refuse_variants(notifications, &NOTIFICATION_KEYS)?;
        }
        check_meta(params)?;
    }
    // Some servers carry such a message out although nobody waits for the answer.
    if kind == MessageKind::Notification && method::is_request(name) {
        return Err(Flaw::request("id", "the method needs an `id`", method));
    }
    let Some(target) = method::target(name) else { return Ok(None) };
    if is_removed(name, params) {
        return Ok(None);
    }
    let Some(params) = params else {
        return Err(Flaw::params("params", "the method needs `params`", method));
    };
    let value = match target {
        Target::Name => {
            check_arguments(params)?;
            named(params, "name", NAME_BYTES_MAX)?
        }
        Target::Uri => named(params, "uri", URI_BYTES_MAX)?,
        Target::Task => named(params, "taskId", TASK_ID_BYTES_MAX)?,
        Target::Reference => reference(params)?,
    };
    Ok(Some(About { target, value: value.index(), is_tool: name == "tools/call" }))
}

/// Whether the message itself says that it is of a revision without this method. Nothing in it is judged then: it is
/// refused for its method.
fn is_removed(name: &str, params: Option<Value<'_>>) -> bool {
    let revision = params.and_then(|params| params.get("_meta")).and_then(|meta| meta.get(META_REVISION));
    let revision = revision.and_then(Value::text).and_then(Revision::parse);
    revision.is_some_and(|revision| method::find(name, Towards::Server, revision).is_none())
}

fn check_meta(params: Value<'_>) -> Result<(), Flaw> {
    let Some(meta) = params.get("_meta") else { return Ok(()) };
    if meta.kind() != Kind::Object {
        return Err(Flaw::params("meta", "`_meta` must be an object", meta));
    }
    refuse_variants(meta, &META_KEYS)?;
    if let Some(related) = meta.get(META_RELATED_TASK) {
        refuse_variants(related, &["taskId"])?;
    }
    // Left unread, a revision of another type would make the message look like one of the older era.
    match meta.get(META_REVISION) {
        Some(revision) if revision.kind() != Kind::String => {
            Err(Flaw::params("meta", "the protocol version in `_meta` must be a string", revision))
        }
        _ => Ok(()),
    }
}

fn check_arguments(params: Value<'_>) -> Result<(), Flaw> {
    match params.get("arguments") {
        Some(arguments) if arguments.kind() != Kind::Object => {
            Err(Flaw::params("arguments", "`arguments` must be an object", arguments))
        }
        _ => Ok(()),
    }
}

/// The prompt or resource that a completion is for.
fn reference(params: Value<'_>) -> Result<Value<'_>, Flaw> {
    let Some(reference) = params.get("ref").filter(|reference| reference.kind() == Kind::Object) else {
        return Err(Flaw::params("ref", "`ref` must be an object", params));
    };
    refuse_variants(reference, &REF_KEYS)?;
    match reference.get("type").and_then(Value::text) {
        Some("ref/prompt") => named(reference, "name", NAME_BYTES_MAX),
        Some("ref/resource") => named(reference, "uri", URI_BYTES_MAX),
        _ => Err(Flaw::params("ref", "`ref` must refer to a prompt or a resource", reference)),
    }
}

/// The value under a key that must be a name.
fn named<'d>(object: Value<'d>, key: &'static str, bytes_max: usize) -> Result<Value<'d>, Flaw> {
    let Some(value) = object.get(key) else {
        return Err(Flaw::params(key, format!("missing `{key}`"), object));
    };
    match value.text() {
        None => Err(Flaw::params(key, format!("`{key}` must be a string"), value)),
        Some(text) if text.len() > bytes_max => Err(Flaw::params(key, format!("`{key}` is too long"), value)),
        Some(text) if !names::is_plain(text) => {
            Err(Flaw::params(key, format!("`{key}` has a control or invisible character"), value))
        }
        Some(_) => Ok(value),
    }
}

/// Refuses a key that a reader which ignores case would take for another one.
fn refuse_variants(object: Value<'_>, reserved: &[&str]) -> Result<(), Flaw> {
    for (key, _) in object.pairs() {
        let text = key.text().unwrap_or_default();
        if reserved.contains(&text) {
            continue;
        }
        if let Some(reserved) = names::variant_of(text, reserved) {
            return Err(Flaw::request("key_variant", format!("misspelt key `{reserved}`"), key));
        }
    }
    Ok(())
}
