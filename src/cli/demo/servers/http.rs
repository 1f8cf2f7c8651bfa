//! What does a sample server do with an HTTP request?
//!
//! Judges the head, tells the two eras of the protocol apart and hands the message on. Reads JSON with a library of
//! its own: it is nobody's second opinion.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;

use crate::cli::demo::servers::message::Fault;
use crate::cli::demo::servers::protocol;
use crate::cli::demo::servers::sessions::Sessions;
use crate::cli::demo::servers::stateless;
use crate::cli::demo::servers::toolbox::Toolbox;

/// Bytes of one message.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) const VERSION_HEADER: &str = "mcp-protocol-version";
pub(super) const SESSION_HEADER: &str = "mcp-session-id";
/// Where a message of the second era names its revision.
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// One sample server.
pub(super) struct Server {
    /// Its tools.
    pub(super) toolbox: Toolbox,
    /// Its conversations in the first era.
    pub(super) sessions: Sessions,
}

impl Server {
    /// A server without conversations.
    pub(super) fn new(toolbox: Toolbox) -> Self {
        Self { toolbox, sessions: Sessions::default() }
    }

    /// How it introduces itself.
    pub(super) fn info(&self) -> Value {
        json!({"name": format!("portcullis-demo-{}", self.toolbox.name()), "version": env!("CARGO_PKG_VERSION")})
    }
}

/// The one endpoint, `/mcp`.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new().route("/mcp", any(endpoint)).with_state(server)
}

async fn endpoint(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !is_local(&head.headers) {
        return Fault::invalid("only local callers are served").with_status(StatusCode::FORBIDDEN).into_response();
    }
    match head.method {
        Method::POST => post(server, &head.headers, body).await.unwrap_or_else(Fault::into_response),
        Method::DELETE if !is_stateless_version(text(&head.headers, VERSION_HEADER)) => {
            protocol::delete(&server, &head.headers)
        }
        _ => {
            let fault = Fault::invalid("this server has no stream of its own; POST to it");
            let refusal = fault.with_status(StatusCode::METHOD_NOT_ALLOWED);
            ([(header::ALLOW, "POST, DELETE")], refusal).into_response()
        }
    }
}

async fn post(server: Arc<Server>, headers: &HeaderMap, body: Body) -> Result<Response, Fault> {
    let is_json = |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if !text(headers, "content-type").is_some_and(is_json) {
        let fault = Fault::invalid("`Content-Type` must be application/json");
        return Err(fault.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if !(accepts(headers, "application/json") && accepts(headers, "text/event-stream")) {
        let fault = Fault::invalid("`Accept` must list application/json and text/event-stream");
        return Err(fault.with_status(StatusCode::NOT_ACCEPTABLE));
    }
    let body = read(body).await?;
    let message: Value = serde_json::from_slice(&body)
        .map_err(|_| Fault::new(-32700, "Parse error").with_status(StatusCode::BAD_REQUEST))?;
    let is_stateless = message.pointer("/params/_meta").and_then(|meta| meta.get(VERSION_KEY)).is_some()
        || is_stateless_version(text(headers, VERSION_HEADER));
    if is_stateless {
        stateless::post(server, headers, message).await
    } else {
        protocol::post(server, headers, message).await
    }
}

async fn read(body: Body) -> Result<Bytes, Fault> {
    let whole = timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let whole = whole.map_err(|_| Fault::invalid("the body is late").with_status(StatusCode::REQUEST_TIMEOUT))?;
    let whole = whole.map_err(|_| Fault::invalid("too large, or cut").with_status(StatusCode::PAYLOAD_TOO_LARGE))?;
    Ok(whole.to_bytes())
}

/// The one value of a header; repeated headers and odd bytes give none.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Revisions are dates, and so are ordered as texts.
fn is_stateless_version(version: Option<&str>) -> bool {
    version.is_some_and(|version| version.starts_with("20") && version.len() == 10 && version >= "2026-07-28")
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let family = kind.split_once('/').map_or("", |(family, _)| family);
    let listed = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next()).any(|range| {
        let range = range.trim();
        range == "*/*" || range.eq_ignore_ascii_case(kind) || range.strip_suffix("/*") == Some(family)
    })
}

/// Whether the request is none of a web page's: those name another host, or another origin.
fn is_local(headers: &HeaderMap) -> bool {
    let is_loopback = |authority: &str| {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    };
    let is_our_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(is_loopback);
    text(headers, "host").is_some_and(is_loopback)
        && (!headers.contains_key(header::ORIGIN) || text(headers, "origin").is_some_and(is_our_origin))
}
