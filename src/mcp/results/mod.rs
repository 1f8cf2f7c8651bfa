//! What does a result of 2026-07-28 say about itself?
//!
//! Whether it is the end of the matter or asks the client for something first, who may keep it, and which extensions
//! it takes for granted. What an SDK that ignores case could read in another way is named by a word, and not passed on.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use bytes::Bytes;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::headers::HeaderError;
use crate::mcp::message::META_CAPABILITIES;
use crate::mcp::message::URI_BYTES_MAX;
use crate::mcp::names;
use crate::mcp::splice::Splice;

/// The extension by which a server answers with a task.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// More requests to the client than this in one result are refused.
pub const INPUT_REQUESTS_MAX: usize = 64;

/// Keys at the top of a result that decide what becomes of it.
const RESULT_KEYS: [&str; 4] = ["resultType", "cacheScope", "inputRequests", "requestState"];
const INPUT_KEYS: [&str; 2] = ["method", "params"];
const ELICITATION_KEYS: [&str; 2] = ["mode", "url"];
/// What a server may ask a client for inside a result.
const INPUT_METHODS: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];

/// How far a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultType {
    /// It is the answer. Also where nothing is said, as by servers of earlier revisions.
    Complete,
    /// The client is asked for something first.
    InputRequired,
    /// The answer will be a task's.
    Task,
    /// Something no client may accept.
    Unknown,
}

/// One thing that a result asks the client for.
#[derive(Debug, Clone, Copy)]
pub struct InputRequest<'d> {
    /// By which the client names its answer.
    pub key: &'d str,
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`, and nothing else.
    pub method: &'static str,
    /// Its parameters: an object, where there are any.
    pub params: Option<Value<'d>>,
}

/// How far a result goes. What is no object, or says it in a spelling of its own, is unknown.
pub fn result_type(result: Value<'_>) -> ResultType {
    if result.kind() != Kind::Object || has_variant(result, &RESULT_KEYS) {
        return ResultType::Unknown;
    }
    match result.get("resultType").map(Value::text) {
        None | Some(Some("complete")) => ResultType::Complete,
        Some(Some("input_required")) => ResultType::InputRequired,
        Some(Some("task")) => ResultType::Task,
        Some(_) => ResultType::Unknown,
    }
}

/// Whether a method may be answered with `input_required`.
pub fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// What makes a result private to its caller; `None` if it is already, or says nothing of caches. Whatever else it says
/// is replaced.
pub fn relabel(result: Value<'_>) -> Result<Option<Splice>, &'static str> {
    if has_variant(result, &RESULT_KEYS) {
        return Err("result_key");
    }
    let scope = result.get("cacheScope").filter(|scope| scope.text() != Some("private"));
    Ok(scope.map(|scope| Splice { span: scope.span(), replacement: Bytes::from_static(br#""private""#) }))
}

/// What an `input_required` result asks the client for, in its order. It may ask for nothing and only be continued with
/// its state; that it has neither requests nor a state is an error.
pub fn input_requests(result: Value<'_>) -> Result<impl Iterator<Item = InputRequest<'_>>, &'static str> {
    let requests = checked_requests(result)?;
    match (requests, result.get("requestState").map(Value::kind)) {
        (_, Some(kind)) if kind != Kind::String => Err("request_state"),
        (None, None) => Err("input_missing"),
        (requests, _) => Ok(each(requests)),
    }
}

/// What a task asks the client for, in its order: mostly nothing. A task stands in the result of `tasks/get` and in the
/// parameters of `notifications/tasks`.
pub fn input_requests_of_task(task: Value<'_>) -> Result<impl Iterator<Item = InputRequest<'_>>, &'static str> {
    checked_requests(task).map(each)
}

/// The object that holds the requests, if there is one, once each of them was seen to be sound.
fn checked_requests(holder: Value<'_>) -> Result<Option<Value<'_>>, &'static str> {
    if has_variant(holder, &RESULT_KEYS) {
        return Err("result_key");
    }
    let Some(requests) = holder.get("inputRequests") else { return Ok(None) };
    if requests.kind() != Kind::Object {
        return Err("input_requests");
    }
    if requests.count() > INPUT_REQUESTS_MAX {
        return Err("input_requests_max");
    }
    requests.entries().try_for_each(|(key, request)| input_request(key, request).map(|_| ()))?;
    Ok(Some(requests))
}

fn each<'d>(requests: Option<Value<'d>>) -> impl Iterator<Item = InputRequest<'d>> {
    requests.into_iter().flat_map(Value::entries).filter_map(|(key, request)| input_request(key, request).ok())
}

fn input_request<'d>(key: &'d str, request: Value<'d>) -> Result<InputRequest<'d>, &'static str> {
    if request.kind() != Kind::Object || has_variant(request, &INPUT_KEYS) {
        return Err("input_requests");
    }
    let method = request.get("method").and_then(Value::text).ok_or("input_requests")?;
    let method = INPUT_METHODS.into_iter().find(|known| *known == method).ok_or("input_method")?;
    match request.get("params") {
        Some(params) if params.kind() != Kind::Object => Err("input_requests"),
        params => Ok(InputRequest { key, method, params }),
    }
}

/// Whether the URL to which the parameters of an `elicitation/create` send a user may be opened; `None` if they name
/// none. It must be `https`, or `http` on this very machine, with a host that every reader finds: no user, no character
/// that is not visible ASCII. A URL is judged whatever the mode says, as not every client asks for it.
pub fn elicitation_url(params: Value<'_>) -> Option<Result<(), &'static str>> {
    if has_variant(params, &ELICITATION_KEYS) {
        return Some(Err("elicitation_key"));
    }
    match (params.get("mode").map(Value::text), params.get("url").map(Value::text)) {
        (_, Some(Some(url))) => Some(judge_url(url)),
        (_, Some(None)) | (Some(Some("url")), None) => Some(Err("elicitation_url")),
        (Some(None), None) => Some(Err("elicitation_mode")),
        (None | Some(Some(_)), None) => None,
    }
}

fn judge_url(url: &str) -> Result<(), &'static str> {
    // Browsers strip some of these, and read a backslash as a slash.
    if url.len() > URI_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err("elicitation_url");
    }
    let (scheme, rest) = url.split_once("://").ok_or("elicitation_url_scheme")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("elicitation_url_user");
    }
    let host = host(authority).ok_or("elicitation_url_host")?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        _ => Err("elicitation_url_scheme"),
    }
}

/// The host of an authority without a user. Nothing in it is encoded, since not every reader decodes it.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (authority.get(..address.len().checked_add(2)?)?, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            (Some(host).filter(|host| !host.is_empty() && host.bytes().all(is_name))?, port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || address.and_then(|address| address.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_loopback())
}

/// Whether the `_meta` of a request declares the tasks extension.
pub fn tasks_declared(meta: Value<'_>) -> bool {
    let extensions = meta.get(META_CAPABILITIES).and_then(|capabilities| capabilities.get("extensions"));
    let tasks = extensions.and_then(|extensions| extensions.get(TASKS_EXTENSION));
    tasks.is_some_and(|tasks| tasks.kind() == Kind::Object)
}

/// The answer to a request about a task by a client that does not declare the tasks extension.
pub fn tasks_undeclared() -> HeaderError {
    HeaderError {
        code: error::MISSING_CAPABILITY,
        text: "the request needs the tasks extension, which the client does not declare".into(),
        data: Some(format!(r#"{{"requiredCapabilities":{{"extensions":{{"{TASKS_EXTENSION}":{{}}}}}}}}"#)),
        name: "missing_capability",
    }
}

fn has_variant(object: Value<'_>, reserved: &[&str]) -> bool {
    object.entries().any(|(key, _)| names::variant_of(key, reserved).is_some())
}
