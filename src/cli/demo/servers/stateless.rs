//! How is a client of the second era served: 2026-07-28?
//!
//! Every request stands alone, says in `_meta` what it needs to and repeats in its headers what the way needs to see.
//! Checked in this order: shape, headers against body, completeness, version, method.

use std::sync::Arc;

use axum::response::IntoResponse;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::cli::demo::servers::http::Server;
use crate::cli::demo::servers::http::VERSION_HEADER;
use crate::cli::demo::servers::http::VERSION_KEY;
use crate::cli::demo::servers::http::text;
use crate::cli::demo::servers::message::Fault;
use crate::cli::demo::servers::message::Message;
use crate::cli::demo::servers::message::Object;
use crate::cli::demo::servers::message::answer;
use crate::cli::demo::servers::message::json_response;
use crate::cli::demo::servers::protocol;
use crate::cli::demo::servers::stream;
use crate::cli::demo::servers::toolbox::Asking;
use crate::cli::demo::servers::toolbox::Channel;

/// The revision of this era.
pub(super) const REVISION: &str = "2026-07-28";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";
/// How long a list may be kept.
const TTL_MS: u64 = 60_000;

/// Answers a POST.
pub(super) async fn post(server: Arc<Server>, headers: &HeaderMap, body: Value) -> Result<Response, Fault> {
    match Message::read(body)? {
        Message::Response { .. } => Err(Fault::invalid("a client of this revision sends no answers")),
        Message::Notification { .. } => Ok(StatusCode::ACCEPTED.into_response()),
        Message::Request { id, method, params } => {
            let about = |fault: Fault| fault.about(Some(id.clone()));
            let meta = check(headers, &method, &params).map_err(about)?;
            let can_ask = can_ask(&meta);
            request(server, id.clone(), &method, params, can_ask).await.map_err(about)
        }
    }
}

fn bad_request(fault: Fault) -> Fault {
    fault.with_status(StatusCode::BAD_REQUEST)
}

fn mismatch(text: &str) -> Fault {
    bad_request(Fault::new(-32020, format!("HeaderMismatch: {text}")))
}

/// Holds the headers against the body, and gives the request's `_meta`.
fn check(headers: &HeaderMap, method: &str, params: &Object) -> Result<Object, Fault> {
    if text(headers, "mcp-method") != Some(method) {
        return Err(mismatch("`Mcp-Method` is not the method of the body"));
    }
    let named = match method {
        "tools/call" | "prompts/get" => params.get("name"),
        "resources/read" => params.get("uri"),
        _ => None,
    };
    let named = named.and_then(Value::as_str);
    if named.is_some() && text(headers, "mcp-name").and_then(decoded).as_deref() != named {
        return Err(mismatch("`Mcp-Name` is not the name in the body"));
    }
    let meta = params.get("_meta").and_then(Value::as_object);
    let version = meta.and_then(|meta| meta.get(VERSION_KEY)).and_then(Value::as_str);
    let (Some(meta), Some(version)) = (meta, version) else {
        return Err(bad_request(Fault::new(-32602, format!("`_meta` lacks `{VERSION_KEY}`"))));
    };
    if !meta.get(CAPABILITIES_KEY).is_some_and(Value::is_object) {
        return Err(bad_request(Fault::new(-32602, format!("`_meta` lacks `{CAPABILITIES_KEY}`"))));
    }
    if text(headers, VERSION_HEADER) != Some(version) {
        return Err(mismatch("`MCP-Protocol-Version` is not the version of the body"));
    }
    if version == REVISION { Ok(meta.clone()) } else { Err(protocol::unsupported(version)) }
}

/// The value of a header that may be written as `=?base64?..?=`; `None` if it claims to be and is not.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

fn can_ask(meta: &Object) -> bool {
    let forms = meta.get(CAPABILITIES_KEY).and_then(|capabilities| capabilities.get("elicitation"));
    forms.and_then(Value::as_object).is_some_and(|modes| modes.is_empty() || modes.contains_key("form"))
}

async fn request(
    server: Arc<Server>,
    id: Value,
    method: &str,
    mut params: Object,
    can_ask: bool,
) -> Result<Response, Fault> {
    let result = match method {
        "server/discover" => json!({
            "supportedVersions": [REVISION],
            "capabilities": {"tools": {}},
            "instructions": server.toolbox.instructions(),
            "ttlMs": TTL_MS,
            "cacheScope": "public",
        }),
        "tools/list" if params.contains_key("cursor") => return Err(Fault::new(-32602, "Invalid cursor")),
        "tools/list" => json!({"tools": server.toolbox.tools(), "ttlMs": TTL_MS, "cacheScope": "public"}),
        "tools/call" => {
            let Some(tool) = params.get("name").and_then(Value::as_str).map(str::to_owned) else {
                return Err(bad_request(Fault::new(-32602, "`name` is missing")));
            };
            let asking = Asking::ByResult { responses: params.remove("inputResponses"), able: can_ask };
            let channel = Channel { events: None, progress_token: protocol::progress_token(&params), asking };
            // Without a wish for progress there is nothing to say before the answer.
            if server.toolbox.streams(&tool) && channel.progress_token.is_some() && tool != "ask" {
                // Nothing ends the call but its client's leaving; the sender lives as long as the call.
                let (end, ended) = oneshot::channel();
                let call = stream::Call { id, tool, arguments: protocol::arguments(params), channel, ended };
                return Ok(stream::respond(server, call, complete, move || drop(end)));
            }
            server.toolbox.call(&tool, &protocol::arguments(params), &channel).await?
        }
        _ => return Err(Fault::unknown_method(method).with_status(StatusCode::NOT_FOUND)),
    };
    Ok(json_response(StatusCode::OK, &answer(id, Ok(complete(&server, result)))))
}

/// A result with what every result of this era carries.
fn complete(server: &Server, mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.entry("resultType").or_insert_with(|| "complete".into());
        result.insert("_meta".into(), json!({SERVER_INFO_KEY: server.info()}));
    }
    result
}
