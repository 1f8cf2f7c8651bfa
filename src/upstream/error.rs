//! Why did an exchange with a server fail?
//!
//! For operators and records only: nothing here is ever shown to a client. The text may name an endpoint's origin,
//! never its path, its query or a credential.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, as a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The session's endpoint is no longer configured: the session is lost.
    EndpointGone,
    /// The server has no endpoint at all.
    NoEndpoint,
    /// Every endpoint of the server is draining, and the call belongs to none of their sessions.
    Draining,
    /// As many calls of the server are pending as may be.
    PendingMax,
    /// The pending calls of the server hold as many bytes of requests as they may.
    PendingBytesMax,
    /// As many connections to the endpoint are open as may be.
    ConnectionsMax,
    /// The endpoint failed repeatedly and is left alone for a while.
    CircuitOpen,
    /// The endpoint's name has no address.
    Resolve,
    /// No connection could be opened.
    Connect,
    /// The connection could not be secured, or the endpoint is not who it should be.
    Tls,
    /// The endpoint was silent for too long.
    Timeout,
    /// The endpoint closed the connection before its answer ended.
    Reset,
    /// What the endpoint sent is not HTTP as the gateway accepts it.
    Protocol,
}

impl Failure {
    /// Name for metrics and records. Never changes once released.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndpointGone => "endpoint_gone",
            Self::NoEndpoint => "no_endpoint",
            Self::Draining => "draining",
            Self::PendingMax => "pending_max",
            Self::PendingBytesMax => "pending_bytes_max",
            Self::ConnectionsMax => "upstream_connections_max",
            Self::CircuitOpen => "circuit_open",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
        }
    }

    /// Whether it tells something about the endpoint's health.
    pub(crate) fn is_endpoints_own(self) -> bool {
        match self {
            Self::Resolve | Self::Connect | Self::Tls | Self::Timeout | Self::Reset | Self::Protocol => true,
            Self::EndpointGone
            | Self::NoEndpoint
            | Self::Draining
            | Self::PendingMax
            | Self::PendingBytesMax
            | Self::ConnectionsMax
            | Self::CircuitOpen => false,
        }
    }

    /// Whether the gateway itself did not let the call out, for the time being.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Draining | Self::PendingMax | Self::PendingBytesMax | Self::ConnectionsMax | Self::CircuitOpen => {
                true
            }
            Self::EndpointGone
            | Self::NoEndpoint
            | Self::Resolve
            | Self::Connect
            | Self::Tls
            | Self::Timeout
            | Self::Reset
            | Self::Protocol => false,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::EndpointGone => "the session's endpoint is no longer configured",
            Self::NoEndpoint => "the server has no endpoint",
            Self::Draining => "every endpoint of the server is draining",
            Self::PendingMax => "as many calls of the server are pending as `pending_max` allows",
            Self::PendingBytesMax => "the pending calls of the server hold as many bytes as `pending_bytes_max` allows",
            Self::ConnectionsMax => "as many connections to the endpoint are open as `connections_max` allows",
            Self::CircuitOpen => "the endpoint failed repeatedly and is left alone for a while",
            Self::Resolve => "the endpoint's name has no address",
            Self::Connect => "no connection to the endpoint",
            Self::Tls => "no secure connection to the endpoint",
            Self::Timeout => "the endpoint did not answer in time",
            Self::Reset => "the endpoint closed the connection before its answer ended",
            Self::Protocol => "the endpoint's answer is not acceptable HTTP",
        }
    }
}

/// A failed exchange with a server. `Display` is for operators.
#[derive(Debug)]
pub struct UpstreamError {
    failure: Failure,
    detail: String,
    endpoint: Option<Arc<str>>,
    attempts: u32,
    sent: bool,
    retry_after: Option<Duration>,
}

impl UpstreamError {
    /// A failure before any endpoint was asked.
    pub(crate) fn unasked(failure: Failure, detail: impl Into<String>) -> Self {
        Self { failure, detail: detail.into(), endpoint: None, attempts: 0, sent: false, retry_after: None }
    }

    /// The same, and when it is worth asking again.
    pub(crate) fn until(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// When it is worth asking again, in whole seconds, where that is known.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_millis().div_ceil(1_000).max(1)).and_then(|wait| wait.try_into().ok())
    }

    /// What went wrong.
    pub fn failure(&self) -> Failure {
        self.failure
    }

    /// What went wrong, as a fixed name for metrics and records.
    pub fn name(&self) -> &'static str {
        self.failure.name()
    }

    /// Whether the endpoint said nothing for too long.
    pub fn is_silence(&self) -> bool {
        self.failure == Failure::Timeout
    }

    /// How many connections were tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether bytes of the request may have reached the endpoint. `false` is certain: none did.
    pub fn sent(&self) -> bool {
        self.sent
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure.text())?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " (`{endpoint}`)")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl Error for UpstreamError {}

/// A failure that does not yet know to which exchange it belongs.
#[derive(Debug)]
pub(crate) struct Mishap {
    failure: Failure,
    detail: String,
}

impl Mishap {
    pub(crate) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self { failure, detail: detail.into() }
    }

    pub(crate) fn of(failure: Failure, error: &dyn Error) -> Self {
        Self::new(failure, chain(error))
    }

    /// What hyper reports while a head or a body is read.
    pub(crate) fn of_hyper(error: &hyper::Error) -> Self {
        let failure = if error.is_parse() {
            Failure::Protocol
        } else if let Some(error) = io_source(error) {
            match error.kind() {
                // hyper reports a bad chunk size, a bad length and the like with these kinds.
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Failure::Protocol,
                _ => Failure::Reset,
            }
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Failure::Reset
        } else {
            Failure::Protocol
        };
        Self::of(failure, error)
    }

    /// The finished error. `attempts` counts connections, `sent` says whether request bytes may have left.
    pub(crate) fn at(self, endpoint: &Arc<str>, attempts: u32, sent: bool) -> UpstreamError {
        let Self { failure, detail } = self;
        UpstreamError { failure, detail, endpoint: Some(Arc::clone(endpoint)), attempts, sent, retry_after: None }
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.text(), self.detail)
    }
}

fn io_source(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
