//! What did the server answer?
//!
//! The head is there; the body is pulled, chunk by chunk, under a deadline the caller names. A cut is an error and
//! never an end, except where HTTP itself cannot tell: an answer without a length that ends with its connection.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::upstream::connection::Connection;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::error::UpstreamError;

/// A server's answer, read as far as its head.
#[derive(Debug)]
pub struct Answer {
    /// The final status; interim ones were skipped.
    pub status: StatusCode,
    /// Everything the server sent. Only an allow-list of it may reach a client.
    pub headers: HeaderMap,
    /// The rest of the answer.
    pub body: Body,
    /// Connections tried: 1, or 2 when a kept one turned out closed before anything was written.
    pub attempts: u32,
    /// Whether the answer came on a kept connection.
    pub reused: bool,
    /// When the server's `timeout_ms` ends: a JSON answer must have ended by then.
    pub deadline: Instant,
}

/// An answer's body. Reading it to its end keeps the connection, and so does dropping one that is empty; dropping any
/// other before its end closes the connection at once.
pub struct Body {
    rest: Option<Source>,
    endpoint: Arc<Endpoint>,
    length: Option<u64>,
    attempts: u32,
}

/// Where the bytes of a body come from.
enum Source {
    /// The connection the request went out on.
    Connection(Incoming, Connection),
    /// A stream that somebody else reads.
    Relay(mpsc::Receiver<Bytes>),
}

impl Body {
    /// A body whose bytes another reader of the endpoint's answers hands on; it ends with the sender.
    pub fn relayed(bytes: mpsc::Receiver<Bytes>, endpoint: &Arc<Endpoint>) -> Self {
        Self { rest: Some(Source::Relay(bytes)), endpoint: Arc::clone(endpoint), length: None, attempts: 1 }
    }

    pub(crate) fn new(
        incoming: Incoming,
        connection: Connection,
        endpoint: &Arc<Endpoint>,
        length: Option<u64>,
        attempts: u32,
    ) -> Self {
        Self { rest: Some(Source::Connection(incoming, connection)), endpoint: Arc::clone(endpoint), length, attempts }
    }

    /// The next bytes, as they arrive; `None` after the proper end. A cut, a bad chunk or a passed `deadline` is one
    /// error, and `None` from then on. Dropping the future loses nothing.
    pub async fn next(&mut self, deadline: Instant) -> Option<Result<Bytes, UpstreamError>> {
        loop {
            let (incoming, connection) = match self.rest.as_mut()? {
                Source::Connection(incoming, connection) => (incoming, connection),
                Source::Relay(bytes) => match timeout_at(deadline, bytes.recv()).await {
                    Ok(Some(bytes)) => return Some(Ok(bytes)),
                    Ok(None) => {
                        self.rest = None;
                        return None;
                    }
                    Err(_) => return Some(Err(self.paused())),
                },
            };
            let mishap = match timeout_at(deadline, connection.drive(incoming.frame())).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    // Trailers say nothing that MCP uses.
                    _ => continue,
                },
                Ok(None) => {
                    if let Some(Source::Connection(_, connection)) = self.rest.take() {
                        self.endpoint.pool.put(connection);
                    }
                    return None;
                }
                Ok(Some(Err(error))) => Mishap::of_hyper(&error),
                Err(_) => return Some(Err(self.paused())),
            };
            self.rest = None;
            return Some(Err(mishap.at(&self.endpoint.target.origin, self.attempts, true)));
        }
    }

    fn paused(&mut self) -> UpstreamError {
        self.rest = None;
        let mishap = Mishap::new(Failure::Timeout, "its body paused for too long");
        mishap.at(&self.endpoint.target.origin, self.attempts, true)
    }

    /// The length the server announced, where it did.
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // An answer without a body (`202`, `204`) has ended already, whether or not anybody looked.
        if let Some(Source::Connection(incoming, connection)) = self.rest.take()
            && incoming.is_end_stream()
        {
            self.endpoint.pool.put(connection);
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("endpoint", &self.endpoint).field("length", &self.length).finish_non_exhaustive()
    }
}
