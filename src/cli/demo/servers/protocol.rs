//! How is a client of the first era served: 2025-03-26, 2025-06-18, 2025-11-25?
//!
//! `initialize` opens a session, everything else names it. Arrays of messages belong to 2025-03-26 alone.

use std::sync::Arc;

use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::cli::demo::servers::http::SESSION_HEADER;
use crate::cli::demo::servers::http::Server;
use crate::cli::demo::servers::http::VERSION_HEADER;
use crate::cli::demo::servers::http::text;
use crate::cli::demo::servers::message::Fault;
use crate::cli::demo::servers::message::Message;
use crate::cli::demo::servers::message::Object;
use crate::cli::demo::servers::message::answer;
use crate::cli::demo::servers::message::json_response;
use crate::cli::demo::servers::sessions::Session;
use crate::cli::demo::servers::stream;
use crate::cli::demo::servers::toolbox::Asking;
use crate::cli::demo::servers::toolbox::Channel;

/// Newest first: the first is what a client of an unknown revision is offered.
pub(super) const REVISIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// Messages of one array.
const BATCH_MAX: usize = 32;

/// Answers a POST.
pub(super) async fn post(server: Arc<Server>, headers: &HeaderMap, body: Value) -> Result<Response, Fault> {
    if headers.contains_key(VERSION_HEADER) {
        let version = text(headers, VERSION_HEADER).unwrap_or_default();
        if !REVISIONS.contains(&version) {
            return Err(unsupported(version));
        }
    }
    if let Value::Array(messages) = body {
        return batch(&server, headers, messages).await;
    }
    let id = body.get("id").cloned();
    match Message::read(body)? {
        Message::Request { id, method, params } if method == "initialize" => initialize(&server, id, &params),
        message => {
            let session = session(&server, headers).map_err(|fault| fault.about(id))?;
            one(server, session, message).await
        }
    }
}

/// Answers a DELETE.
pub(super) fn delete(server: &Server, headers: &HeaderMap) -> Response {
    match text(headers, SESSION_HEADER) {
        None => Fault::invalid("`Mcp-Session-Id` is missing").into_response(),
        Some(id) if server.sessions.close(id) => StatusCode::NO_CONTENT.into_response(),
        Some(_) => unknown_session().into_response(),
    }
}

/// That a revision is not spoken here, in words both eras understand.
pub(super) fn unsupported(requested: &str) -> Fault {
    let supported: Vec<&str> = [crate::cli::demo::servers::stateless::REVISION].into_iter().chain(REVISIONS).collect();
    Fault::new(-32022, "Unsupported protocol version")
        .with_status(StatusCode::BAD_REQUEST)
        .with_data(json!({"supported": supported, "requested": requested}))
}

fn unknown_session() -> Fault {
    Fault::invalid("Session not found").with_status(StatusCode::NOT_FOUND)
}

fn session(server: &Server, headers: &HeaderMap) -> Result<Arc<Session>, Fault> {
    let id = text(headers, SESSION_HEADER).ok_or_else(|| Fault::invalid("`Mcp-Session-Id` is missing"))?;
    let session = server.sessions.find(id).ok_or_else(unknown_session)?;
    match text(headers, VERSION_HEADER) {
        Some(version) if version != session.revision => Err(unsupported(version)),
        _ => Ok(session),
    }
}

fn initialize(server: &Server, id: Value, params: &Object) -> Result<Response, Fault> {
    let Some(offered) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err(Fault::new(-32602, "`protocolVersion` is missing").about(Some(id)));
    };
    let [newest, ..] = REVISIONS;
    let revision = REVISIONS.into_iter().find(|known| *known == offered).unwrap_or(newest);
    let elicitation = params.get("capabilities").and_then(|capabilities| capabilities.get("elicitation"));
    // An empty capability means forms; 2025-03-26 has no such requests at all.
    let has_forms =
        |forms: &Value| forms.as_object().is_some_and(|modes| modes.is_empty() || modes.contains_key("form"));
    let can_ask = revision != "2025-03-26" && elicitation.is_some_and(has_forms);
    let opened = server.sessions.open(Session::new(revision, can_ask));
    let session = opened.map_err(|_| Fault::new(-32603, "no random numbers").about(Some(id.clone())))?;
    let result = json!({
        "protocolVersion": revision,
        "capabilities": {"tools": {}},
        "serverInfo": server.info(),
        "instructions": server.toolbox.instructions(),
    });
    let response = json_response(StatusCode::OK, &answer(id, Ok(result)));
    Ok(([(SESSION_HEADER, session)], response).into_response())
}

async fn one(server: Arc<Server>, session: Arc<Session>, message: Message) -> Result<Response, Fault> {
    let (id, method, params) = match message {
        Message::Request { id, method, params } => (id, method, params),
        other => {
            hear(&session, other);
            return Ok(StatusCode::ACCEPTED.into_response());
        }
    };
    let tool = params.get("name").and_then(Value::as_str).unwrap_or_default();
    if method != "tools/call" || !server.toolbox.streams(tool) {
        let result = request(&server, &method, params).await;
        return Ok(json_response(StatusCode::OK, &answer(id, result)));
    }
    let Some(ended) = session.begin(&id) else {
        return Err(Fault::new(-32603, "too many calls are under way").about(Some(id)));
    };
    let tool = tool.to_owned();
    let asking = if session.can_ask { Asking::OnStream(Arc::clone(&session)) } else { Asking::Never };
    let channel = Channel { events: None, progress_token: progress_token(&params), asking };
    let call = stream::Call { id: id.clone(), tool, arguments: arguments(params), channel, ended };
    Ok(stream::respond(server, call, |_, result| result, move || session.end(&id)))
}

/// Takes what wants no answer.
fn hear(session: &Session, message: Message) {
    match message {
        Message::Response { id, result } => session.answer(&id, result),
        Message::Notification { method, params } if method == "notifications/cancelled" => {
            if let Some(id) = params.get("requestId") {
                session.end(id);
            }
        }
        _ => {}
    }
}

/// Answers a request that is answered at once.
async fn request(server: &Server, method: &str, params: Object) -> Result<Value, Fault> {
    match method {
        "ping" => Ok(json!({})),
        "tools/list" if params.contains_key("cursor") => Err(Fault::new(-32602, "Invalid cursor")),
        "tools/list" => Ok(json!({"tools": server.toolbox.tools()})),
        "tools/call" => {
            let Some(tool) = params.get("name").and_then(Value::as_str).map(str::to_owned) else {
                return Err(Fault::new(-32602, "`name` is missing"));
            };
            let channel = Channel { events: None, progress_token: None, asking: Asking::Never };
            server.toolbox.call(&tool, &arguments(params), &channel).await
        }
        _ => Err(Fault::unknown_method(method)),
    }
}

/// What a call's progress is to be marked with.
pub(super) fn progress_token(params: &Object) -> Option<Value> {
    let token = params.get("_meta")?.get("progressToken")?;
    (token.is_string() || token.is_number()).then(|| token.clone())
}

/// The arguments of a call; none is the same as no arguments.
pub(super) fn arguments(mut params: Object) -> Object {
    match params.remove("arguments") {
        Some(Value::Object(arguments)) => arguments,
        _ => Object::new(),
    }
}

async fn batch(server: &Server, headers: &HeaderMap, messages: Vec<Value>) -> Result<Response, Fault> {
    let session = session(server, headers)?;
    if session.revision != "2025-03-26" || messages.is_empty() || messages.len() > BATCH_MAX {
        return Err(Fault::invalid("not a JSON-RPC message"));
    }
    let mut answers = Vec::new();
    for message in messages {
        match Message::read(message) {
            Err(fault) => answers.push(fault.into_message()),
            Ok(Message::Request { id, method, .. }) if method == "initialize" => {
                answers.push(answer(id, Err(Fault::invalid("`initialize` comes alone"))));
            }
            Ok(Message::Request { id, method, params }) => {
                answers.push(answer(id, request(server, &method, params).await));
            }
            Ok(other) => hear(&session, other),
        }
    }
    if answers.is_empty() {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    Ok(json_response(StatusCode::OK, &Value::Array(answers)))
}
