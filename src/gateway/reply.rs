//! Answers on their way to the client.

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::mcp::error;
use crate::mcp::revision::Era;
use crate::transport::connection::Connection;
use crate::transport::cors;
use crate::transport::pace::Pace;

use super::refusal::Wire;

/// Bytes of a body that a client of HTTP/2 must take within the write timeout.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// The client could not be written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

/// A whole answer: status, JSON body, further headers.
pub(crate) struct Reply<'r> {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body; empty for none.
    pub(crate) body: Bytes,
    /// Headers beside the length and the media type.
    pub(crate) headers: &'r [(&'static str, &'r str)],
}

/// Whether the answer has begun. A `100 Continue` is none: the answer is still to come.
pub(crate) fn is_begun(session: &ServerSession) -> bool {
    session.response_written().is_some_and(|head| !head.status.is_informational())
}

/// Writes a whole answer.
///
/// # Errors
/// The client is gone.
pub(crate) async fn whole(session: &mut ServerSession, reply: Reply<'_>) -> Result<(), Gone> {
    let mut head = ResponseHeader::build(reply.status, Some(4)).map_err(|_| Gone)?;
    let length = reply.body.len();
    // A 202 to a notification has no body and no media type.
    if length > 0 {
        head.insert_header(http::header::CONTENT_TYPE, "application/json").map_err(|_| Gone)?;
    }
    // A 204 says already that it has none.
    if reply.status != 204 {
        head.insert_header(http::header::CONTENT_LENGTH, length).map_err(|_| Gone)?;
    }
    name_page(session, &mut head)?;
    for (name, value) in reply.headers {
        head.insert_header(*name, *value).map_err(|_| Gone)?;
    }
    session.write_response_header(Box::new(head)).await.map_err(|_| Gone)?;
    write_body(session, reply.body, true).await
}

/// Writes the head of an event stream.
///
/// # Errors
/// The client is gone.
pub(crate) async fn stream_head(session: &mut ServerSession, headers: &[(&'static str, &str)]) -> Result<(), Gone> {
    let mut head = ResponseHeader::build(200, Some(6)).map_err(|_| Gone)?;
    let fixed = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ];
    for (name, value) in fixed.iter().chain(headers) {
        head.insert_header(*name, *value).map_err(|_| Gone)?;
    }
    name_page(session, &mut head)?;
    session.write_response_header(Box::new(head)).await.map_err(|_| Gone)
}

/// Tells a browser that the page may read the answer. A page that is still named in the request's head was let in.
fn name_page(session: &ServerSession, head: &mut ResponseHeader) -> Result<(), Gone> {
    let Some(origin) = session.req_header().headers.get(http::header::ORIGIN) else { return Ok(()) };
    for (name, value) in cors::let_in(origin) {
        head.insert_header(name, value).map_err(|_| Gone)?;
    }
    Ok(())
}

/// Writes and flushes a piece of an event stream.
///
/// # Errors
/// The client is gone.
pub(crate) async fn stream_piece(session: &mut ServerSession, piece: Bytes) -> Result<(), Gone> {
    write_body(session, piece, false).await
}

/// Writes a body, or a part of one.
async fn write_body(session: &mut ServerSession, body: Bytes, is_end: bool) -> Result<(), Gone> {
    match Connection::current().and_then(|connection| connection.pace()).filter(|_| session.is_http2()) {
        Some(pace) => write_at_pace(session, body, is_end, pace).await,
        None => session.write_response_body(body, is_end).await.map_err(|_| Gone),
    }
}

/// Over HTTP/2 the write timeout is one for all that is written at once: in pieces, it holds for a client that stands still, as
/// under HTTP/1.1, and not for a long answer. One that goes on must keep its pace.
async fn write_at_pace(session: &mut ServerSession, mut body: Bytes, is_end: bool, pace: Pace) -> Result<(), Gone> {
    let (began, bytes) = (Instant::now(), body.len());
    loop {
        let due = began + pace.lasts(bytes - body.len());
        let piece = body.split_to(body.len().min(PIECE_BYTES_MAX));
        let is_last = body.is_empty();
        let written = timeout_at(due, session.write_response_body(piece, is_end && is_last)).await;
        written.map_err(|_| Gone)?.map_err(|_| Gone)?;
        if is_last {
            return Ok(());
        }
    }
}

/// Ends an event stream.
///
/// # Errors
/// The client is gone.
pub(crate) async fn stream_end(session: &mut ServerSession) -> Result<(), Gone> {
    session.write_response_body(Bytes::new(), true).await.map_err(|_| Gone)
}

/// Ends an answer that cannot be completed, so that it does not look complete: with its connection, or with its stream where
/// a connection has many.
pub(crate) fn cut(session: &mut ServerSession) {
    session.set_keepalive(None);
    session.shutdown_with_reason(h2::Reason::INTERNAL_ERROR);
    if let Some(connection) = Connection::current() {
        connection.cut();
    }
}

/// The body of a refusal: a JSON-RPC error, or a tool result that says the same where the operator chose that form.
pub(crate) fn refusal_body(wire: &Wire, id: Option<&str>, as_tool_result: Option<Era>) -> Bytes {
    match (as_tool_result, id) {
        (Some(era), Some(id)) => error::tool_error_body(id, &wire.text, era),
        _ => error::error_body(id, wire.code, &wire.text, wire.data.as_deref()),
    }
}

/// Answers a load balancer's probe: 200 while new requests are welcome, 503 on the way out.
pub(crate) async fn health(session: &mut ServerSession, draining: bool) {
    let (status, body): (u16, &'static [u8]) =
        if draining { (503, b"{\"status\":\"draining\"}") } else { (200, b"{\"status\":\"ok\"}") };
    // A prober that left needs no answer.
    let _ = whole(session, Reply { status, body: Bytes::from_static(body), headers: &[("cache-control", "no-store")] })
        .await;
}
