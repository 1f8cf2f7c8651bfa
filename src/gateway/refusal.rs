//! What does a client get that is refused?
//!
//! A [`Refusal`] says for the operator why; [`Refusal::wire`] is the one table from reasons to HTTP status, JSON-RPC
//! code and public text. Codes follow the 2026-07-28 revision; our own stand outside the range it reserves.
//! No 400, 404 or 405 goes out without a JSON-RPC error: bare ones make clients fall back to another era.

use std::borrow::Cow;

use http::StatusCode;

use crate::audit::Ending;
use crate::audit::Unavailable;
use crate::auth::AuthError;
use crate::auth::TokenError;
use crate::config::problem::At;
use crate::mcp::error as code;
use crate::mcp::headers::HeaderError;
use crate::mcp::message::MessageError;
use crate::policy::About;
use crate::policy::Denial;
use crate::policy::NotMinted;
use crate::policy::Told;
use crate::quota::Reached;
use crate::transport::body::BodyError;
use crate::transport::head;
use crate::upstream::Failure;
use crate::upstream::UpstreamError;

/// A request the gateway answered itself instead of forwarding, or whose answer it did not let through.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The head is ambiguous or too large.
    Head(head::Refusal),
    /// No route leads anywhere from this path.
    NoRoute,
    /// The path is served, but not with this method; with these it is.
    Method(&'static str),
    /// The `Host` is not ours.
    Host,
    /// The `Origin` is not ours.
    Origin,
    /// No credential was shown and the server is not public.
    KeyMissing,
    /// What was shown as a credential is none.
    Key(AuthError),
    /// What was shown as an issuer's token is none, or not one for this.
    Token(TokenError),
    /// The issuer's metadata is to be repeated and not known yet.
    MetadataUnknown,
    /// The body is not JSON, or encoded.
    MediaType(&'static str),
    /// The client does not accept what MCP answers with.
    NotAcceptable,
    /// The body did not arrive as it should.
    Body(BodyError),
    /// The body is no acceptable JSON-RPC message.
    Message(MessageError),
    /// The MCP headers do not say what the body says, or say something unknown.
    Headers(HeaderError),
    /// The session is not known, or not this caller's.
    UnknownSession,
    /// A task that does not exist, or is not this caller's.
    UnknownTask,
    /// It does not fit the conversation it is sent in.
    Misplaced(Misplaced),
    /// The caller may not mint such a key; the place that says what it may.
    NotMinted(NotMinted, At),
    /// What is asked for is no key that could be minted; the text says why.
    MintRequest(&'static str),
    /// Policy said no.
    Denied(Box<Denial>, Option<String>),
    /// A limit of use is reached.
    Quota(Box<Reached>),
    /// The use of as many callers is counted as can be.
    CallersFull {
        /// Seconds until there may be a place.
        wait: u64,
    },
    /// The record cannot be kept.
    Record(Unavailable),
    /// The gateway has too much to do.
    Overloaded(Pressure),
    /// There is no room for the answer to what was sent.
    NoRoom,
    /// Too many event streams are open.
    StreamsBusy,
    /// Too many calls of one conversation are under way.
    CallsBusy,
    /// The upstream could not be asked, or broke off.
    Upstream(UpstreamError),
    /// The upstream answered something that is no acceptable answer; the word says what.
    Answer(&'static str),
    /// The upstream refuses the gateway, or more calls: its own status.
    UpstreamStatus(StatusCode),
    /// The permission was withdrawn while the answer was under way.
    Withdrawn,
    /// Randomness or sealing failed.
    Sealing,
    /// Nothing to seal with, no endpoint known, a state that start should have refused.
    Internal(&'static str),
    /// The client went away.
    ClientGone,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Bytes that are held.
    Bytes,
    /// Work that waits for a worker thread.
    Delay,
}

/// How a message does not fit its conversation. Always 400, and no error that clients of both eras take for one of
/// 2026-07-28: some of these are to make them fall back to `initialize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// A request that needs a session names none.
    SessionMissing,
    /// A message to an HTTP+SSE stream does not say to which.
    SseSessionMissing,
    /// A message of 2026-07-28 for a server that cannot speak it.
    OtherEra,
    /// A request whose id another one under way has, or one too many.
    IdInUse,
    /// The id of the last event is none that could have been given.
    LastEventId,
    /// A batch in a revision without batches.
    BatchRevision,
    /// A batch of nothing.
    BatchEmpty,
    /// A batch of more messages than may stand together.
    BatchTooLong,
    /// A batch with a message that must stand alone.
    BatchInitialize,
    /// A batch of requests and responses.
    BatchMixed,
}

impl Misplaced {
    fn name(self) -> &'static str {
        match self {
            Self::SessionMissing | Self::SseSessionMissing => "session_missing",
            Self::OtherEra => "other_era",
            Self::IdInUse => "id_in_use",
            Self::LastEventId => "last_event_id",
            Self::BatchRevision => "batch",
            Self::BatchEmpty => "batch_empty",
            Self::BatchTooLong => "batch_too_long",
            Self::BatchInitialize => "batch_initialize",
            Self::BatchMixed => "batch_mixed",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::SessionMissing => "an Mcp-Session-Id header is needed here",
            Self::SseSessionMissing => {
                "one `sessionId` is needed in the query, as the stream's `endpoint` event gave it"
            }
            Self::OtherEra => "this server speaks revisions up to 2025-11-25: begin with `initialize`",
            Self::IdInUse => "another request with this id is under way, or too many are: wait for their answers",
            Self::LastEventId => "the Last-Event-ID header is no id of an event",
            Self::BatchRevision => "only sessions of 2025-03-26 take batches: send the messages one by one",
            Self::BatchEmpty => "a batch needs at least one message",
            Self::BatchTooLong => "the batch has too many messages",
            Self::BatchInitialize => "`initialize` must stand alone, not in a batch",
            Self::BatchMixed => "a batch holds requests and notifications, or responses, not both",
        }
    }
}

/// A refusal as it goes over the wire.
#[derive(Debug)]
pub(crate) struct Wire {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON-RPC error code.
    pub(crate) code: i32,
    /// Public text.
    pub(crate) text: Cow<'static, str>,
    /// `error.data` as JSON text.
    pub(crate) data: Option<String>,
    /// One further response header.
    pub(crate) header: Option<(&'static str, Cow<'static, str>)>,
}

impl Wire {
    fn new(status: u16, code: i32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, text: text.into(), data: None, header: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.header = Some((name, value.into()));
        self
    }
}

impl Refusal {
    /// How a request ended whose intent was on record and whose answer was not let through.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            // The server was reached and did not speak HTTP as it should: no matter of the network.
            Self::Upstream(error) if error.failure() == Failure::Protocol => Ending::UpstreamError,
            Self::Upstream(error) if error.failure().is_refusal() => Ending::Refused,
            Self::Upstream(_) => Ending::NetworkFailure,
            Self::Answer(_) | Self::UpstreamStatus(_) => Ending::UpstreamError,
            Self::ClientGone => Ending::ClientGone,
            Self::Internal(_) => Ending::Abandoned,
            _ => Ending::Refused,
        }
    }

    /// Name from a fixed vocabulary, for records and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Head(refusal) => refusal.reason,
            Self::NoRoute => "no_route",
            Self::Method(_) => "method_not_served",
            Self::Host => "host_not_allowed",
            Self::Origin => "origin_not_allowed",
            Self::KeyMissing => "key_missing",
            Self::Key(error) => error.name(),
            Self::Token(error) => error.name(),
            Self::MetadataUnknown => "metadata_unknown",
            Self::MediaType(reason) => reason,
            Self::NotAcceptable => "not_acceptable",
            Self::Body(BodyError::TooLarge) => "body_too_large",
            Self::Body(BodyError::Timeout) => "body_timeout",
            Self::Body(BodyError::TooSlow) => "body_too_slow",
            Self::Body(BodyError::NoRoom) | Self::Overloaded(Pressure::Bytes) => "buffered_bytes_max",
            Self::Body(BodyError::Broken) => "body_broken",
            Self::Message(error) => error.name,
            Self::Headers(error) => error.name,
            Self::UnknownSession => "session_unknown",
            Self::UnknownTask => "task_unknown",
            Self::Misplaced(misplaced) => misplaced.name(),
            Self::NotMinted(why, _) => minting_name(*why),
            Self::MintRequest(_) => "mint_request",
            Self::Denied(denial, _) => denial.name(),
            Self::Quota(reached) => reached.name(),
            Self::CallersFull { .. } => "callers_max",
            Self::Record(unavailable) => unavailable.name(),
            Self::Overloaded(Pressure::Delay) => "queue_delay_ms_max",
            Self::NoRoom => "answer_no_room",
            Self::StreamsBusy => "streams_max",
            Self::CallsBusy => "calls_max",
            Self::Upstream(error) => error.name(),
            Self::Answer(reason) => reason,
            Self::UpstreamStatus(_) => "upstream_status",
            Self::Withdrawn => "permission_withdrawn",
            Self::Sealing => "sealing_failed",
            Self::Internal(reason) => reason,
            Self::ClientGone => "client_gone",
        }
    }

    /// The single table from reasons to the wire. `modern`: the request is of 2026-07-28; `named`: the tool it names.
    #[allow(clippy::too_many_lines, reason = "a table is read row by row")]
    pub(crate) fn wire(&self, modern: bool, named: Option<&str>) -> Wire {
        match self {
            Self::Head(refusal) if matches!(refusal.status, 429 | 503) => {
                Wire::new(refusal.status, code::INTERNAL_ERROR, refusal.text).with("retry-after", "1")
            }
            Self::Head(refusal) => Wire::new(refusal.status, code::INVALID_REQUEST, refusal.text),
            Self::NoRoute => Wire::new(404, code::INVALID_REQUEST, "no MCP server is reached on this path"),
            Self::Method(allowed) => {
                Wire::new(405, code::INVALID_REQUEST, format!("here is served: {allowed}")).with("allow", *allowed)
            }
            Self::Host => Wire::new(403, code::INVALID_REQUEST, "the Host header names no host of this gateway"),
            Self::Origin => Wire::new(403, code::INVALID_REQUEST, "requests from this origin are not allowed"),
            Self::KeyMissing => missing_wire(),
            Self::Key(error) => key_wire(*error),
            Self::Token(error) => token_wire(*error),
            Self::MetadataUnknown => {
                Wire::new(503, code::INTERNAL_ERROR, "the issuer's metadata is not known at the moment")
                    .with("retry-after", "5")
            }
            Self::MediaType(_) => Wire::new(
                415,
                code::INVALID_REQUEST,
                "send the message as `Content-Type: application/json` in UTF-8, without Content-Encoding",
            ),
            Self::NotAcceptable => Wire::new(
                406,
                code::INVALID_REQUEST,
                "the Accept header must admit application/json and text/event-stream",
            ),
            Self::Body(error) => body_wire(*error),
            Self::Message(error) => Wire::new(400, error.code, error.text.clone()),
            Self::Headers(error) => Wire { data: error.data.clone(), ..Wire::new(400, error.code, error.text.clone()) },
            Self::UnknownSession => Wire::new(404, code::INVALID_REQUEST, "the session is not known; initialize again"),
            Self::UnknownTask => Wire::new(200, code::INVALID_PARAMS, "Task not found"),
            Self::Misplaced(misplaced) => Wire::new(400, code::INVALID_REQUEST, misplaced.text()),
            Self::NotMinted(why, _) => Wire::new(403, code::INVALID_REQUEST, minting_text(*why)),
            Self::MintRequest(text) => Wire::new(400, code::INVALID_REQUEST, *text),
            Self::Denied(denial, explanation) => denial_wire(denial, explanation.as_deref(), modern, named),
            Self::Quota(reached) => quota_wire(reached.wait),
            Self::CallersFull { wait } => quota_wire(Some(*wait)),
            Self::Record(_) => Wire::new(503, code::INTERNAL_ERROR, "the gateway cannot keep its record at the moment")
                .with("retry-after", "5"),
            Self::CallsBusy => {
                Wire::new(503, code::INTERNAL_ERROR, "too many calls are under way; wait for their answers")
                    .with("retry-after", "1")
            }
            Self::Overloaded(_) => overloaded_wire(),
            // No time to try again is named: the call must not be made twice.
            Self::NoRoom => Wire::new(
                503,
                code::INTERNAL_ERROR,
                "the gateway has no room for the answer; the server may have carried out the request",
            ),
            Self::StreamsBusy => {
                Wire::new(503, code::INTERNAL_ERROR, "too many event streams are open; try again shortly")
                    .with("retry-after", "1")
            }
            Self::Upstream(error) => {
                let wire = upstream_wire(error.failure());
                match error.retry_after_seconds() {
                    Some(seconds) => wire.with("retry-after", seconds.to_string()),
                    None => wire,
                }
            }
            Self::Answer(_) => {
                Wire::new(502, code::INTERNAL_ERROR, "the server behind the gateway gave no valid answer")
            }
            Self::UpstreamStatus(status) => status_wire(*status),
            Self::Withdrawn => Wire::new(403, code::INVALID_PARAMS, "the permission for this call was withdrawn"),
            Self::Sealing | Self::Internal(_) => {
                Wire::new(500, code::INTERNAL_ERROR, "the gateway failed to handle the request")
            }
            Self::ClientGone => Wire::new(499, code::INTERNAL_ERROR, "the client went away"),
        }
    }
}

/// Of a request that showed nothing where something is needed.
fn missing_wire() -> Wire {
    Wire::new(
        401,
        code::INVALID_REQUEST,
        "a credential is needed: send an API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`, or log in where this \
         server takes tokens",
    )
    .with("www-authenticate", crate::auth::challenge(None))
}

fn minting_name(why: NotMinted) -> &'static str {
    match why {
        NotMinted::NoMinter => "mint_no_minter",
        NotMinted::Depth => "mint_depth",
        NotMinted::Agent => "mint_agent",
        NotMinted::Server => "mint_server",
        NotMinted::Tool => "mint_tool",
    }
}

/// What does not exist and what the caller may not know of are the same.
fn minting_text(why: NotMinted) -> &'static str {
    match why {
        NotMinted::NoMinter => "this key may mint no other",
        NotMinted::Depth => "keys that were minted so often may mint no other",
        NotMinted::Agent => "there is no such agent for this key",
        NotMinted::Server => "there is no such server for this key",
        NotMinted::Tool => "there is no such tool for this key",
    }
}

fn key_wire(error: AuthError) -> Wire {
    let text = match error {
        AuthError::Malformed => "the Authorization header is not of the form `Bearer <key>`",
        // Whose key it was is nobody's business.
        AuthError::Unknown
        | AuthError::Disabled
        | AuthError::Expired
        | AuthError::Revoked
        | AuthError::Source
        | AuthError::Certificate
        | AuthError::CertificateExpired
        | AuthError::CertificateUntrusted
        | AuthError::CertificateAmbiguous => "the API key is not known",
        AuthError::Conflicting => "the request carries two different keys; send one",
        AuthError::InQuery => {
            "a key must never be sent in the URL; send it in a header, and replace it, as URLs are logged"
        }
        AuthError::NotTaken => "API keys are not accepted by this server; log in for a token",
    };
    let status = match error {
        AuthError::Malformed
        | AuthError::Unknown
        | AuthError::Disabled
        | AuthError::Expired
        | AuthError::Revoked
        | AuthError::Source
        | AuthError::Certificate
        | AuthError::CertificateExpired
        | AuthError::CertificateUntrusted
        | AuthError::CertificateAmbiguous
        | AuthError::NotTaken => 401,
        AuthError::Conflicting | AuthError::InQuery => 400,
    };
    let wire = Wire::new(status, code::INVALID_REQUEST, text);
    if status == 401 { wire.with("www-authenticate", crate::auth::challenge(Some(error))) } else { wire }
}

/// Which limit it is, and whose, is for the operator to know; when to come again, for the client.
fn quota_wire(wait: Option<u64>) -> Wire {
    match wait {
        Some(seconds) => {
            let text = format!("a limit of use is reached; nothing was done; try again in {seconds} s");
            let data = format!("{{\"retryAfter\":{seconds}}}");
            let wire = Wire::new(429, code::QUOTA_EXCEEDED, text).with("retry-after", seconds.to_string());
            Wire { data: Some(data), ..wire }
        }
        None => Wire::new(429, code::QUOTA_EXCEEDED, "a limit of use is too low for this; nothing was done"),
    }
}

fn token_wire(error: TokenError) -> Wire {
    let text = match error {
        TokenError::KeysUnavailable => {
            return Wire::new(503, code::INTERNAL_ERROR, "tokens cannot be verified at the moment; try again shortly")
                .with("retry-after", "5");
        }
        TokenError::Expired => "the token has expired",
        TokenError::NotTaken => "tokens are not accepted by this server; send an API key",
        _ => "the token is not valid for this server",
    };
    Wire::new(401, code::INVALID_REQUEST, text).with("www-authenticate", crate::auth::token_challenge(error))
}

/// Of a request of which nothing was done.
fn overloaded_wire() -> Wire {
    Wire::new(503, code::INTERNAL_ERROR, "the gateway has too much to do; nothing was done; try again shortly")
        .with("retry-after", "1")
}

fn body_wire(error: BodyError) -> Wire {
    match error {
        BodyError::TooLarge => Wire::new(413, code::INVALID_REQUEST, "the request body is too large"),
        BodyError::Timeout => Wire::new(408, code::INVALID_REQUEST, "the request body did not arrive in time"),
        BodyError::TooSlow => Wire::new(408, code::INVALID_REQUEST, "the request body arrived too slowly"),
        BodyError::NoRoom => overloaded_wire(),
        BodyError::Broken => {
            Wire::new(400, code::INVALID_REQUEST, "the request body ended early or its chunks are malformed")
        }
    }
}

/// Denials are JSON-RPC errors under HTTP 200; a removed or unknown method is 404 in 2026-07-28, as that revision says.
fn denial_wire(denial: &Denial, explanation: Option<&str>, modern: bool, named: Option<&str>) -> Wire {
    match (denial.told(), named) {
        (Told::Hidden, _) if denial.about() == About::Resource => {
            // As a server of the revision would say it.
            let code = if modern { code::INVALID_PARAMS } else { code::RESOURCE_NOT_FOUND };
            Wire::new(200, code, "Resource not found")
        }
        (Told::Hidden, _) if denial.about() == About::Prompt => Wire::new(200, code::INVALID_PARAMS, "Unknown prompt"),
        (Told::Hidden, Some(tool)) => Wire::new(200, code::INVALID_PARAMS, format!("Unknown tool: {tool}")),
        // No call names a tool, so it is a task that does: as if the task were not there.
        (Told::Hidden, None) if denial.about() == About::Tool => Refusal::UnknownTask.wire(modern, None),
        (Told::Hidden, None) => Wire::new(404, code::INVALID_PARAMS, "Unknown server"),
        (Told::MethodUnknown, _) => {
            Wire::new(if modern { 404 } else { 200 }, code::METHOD_NOT_FOUND, "Method not found")
        }
        (Told::Scopes, _) => {
            let scopes = denial.needed_scopes().unwrap_or_default().join(" ");
            let challenge = format!(r#"Bearer realm="portcullis", error="insufficient_scope", scope="{scopes}""#);
            Wire::new(403, code::INVALID_REQUEST, "the token lacks a scope that this needs")
                .with("www-authenticate", challenge)
        }
        (Told::Refused, _) => {
            let text = explanation
                .map_or(Cow::Borrowed("the arguments are not permitted"), |text| Cow::Owned(text.to_owned()));
            Wire::new(200, code::REFUSED, text)
        }
    }
}

fn upstream_wire(failure: Failure) -> Wire {
    match failure {
        Failure::EndpointGone => Refusal::UnknownSession.wire(false, None),
        Failure::Timeout => {
            Wire::new(504, code::INTERNAL_ERROR, "the server behind the gateway did not answer in time")
        }
        Failure::PendingMax | Failure::PendingBytesMax | Failure::ConnectionsMax => Wire::new(
            503,
            code::INTERNAL_ERROR,
            "the server behind the gateway has as many calls under way as it may; try again shortly",
        )
        .with("retry-after", "1"),
        Failure::CircuitOpen => Wire::new(
            503,
            code::INTERNAL_ERROR,
            "the server behind the gateway failed repeatedly and is left alone for a while; try again later",
        )
        .with("retry-after", "1"),
        Failure::Draining => Wire::new(
            503,
            code::INTERNAL_ERROR,
            "the server behind the gateway takes nothing new at the moment; try again later",
        )
        .with("retry-after", "5"),
        Failure::NoEndpoint
        | Failure::Resolve
        | Failure::Connect
        | Failure::Tls
        | Failure::Reset
        | Failure::Protocol => {
            Wire::new(502, code::INTERNAL_ERROR, "the server behind the gateway could not be reached")
        }
    }
}

/// An upstream that refuses the gateway's own credential is the operator's concern; one that is busy is the client's.
fn status_wire(status: StatusCode) -> Wire {
    match status.as_u16() {
        405 => Wire::new(405, code::INVALID_REQUEST, "the server behind the gateway does not serve this")
            .with("allow", "POST"),
        429 => Wire::new(429, code::INTERNAL_ERROR, "the server behind the gateway is asked too often")
            .with("retry-after", "5"),
        503 => Wire::new(503, code::INTERNAL_ERROR, "the server behind the gateway is not available")
            .with("retry-after", "5"),
        _ => Wire::new(502, code::INTERNAL_ERROR, "the server behind the gateway gave no valid answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_reads_never_says_which_part_of_the_upstream_failed() {
        for refusal in [
            Refusal::Answer("answer_not_json"),
            Refusal::Answer("answer_id"),
            Refusal::UpstreamStatus(StatusCode::UNAUTHORIZED),
            Refusal::UpstreamStatus(StatusCode::FOUND),
            Refusal::UpstreamStatus(StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let wire = refusal.wire(false, None);
            assert_eq!(
                (wire.status, &*wire.text, wire.header),
                (502, "the server behind the gateway gave no valid answer", None)
            );
        }
    }

    #[test]
    fn a_challenge_goes_with_401_and_nothing_else() {
        for (error, status) in [
            (AuthError::Malformed, 401),
            (AuthError::Unknown, 401),
            (AuthError::Disabled, 401),
            (AuthError::Expired, 401),
            (AuthError::Revoked, 401),
            (AuthError::Source, 401),
            (AuthError::Certificate, 401),
            (AuthError::CertificateExpired, 401),
            (AuthError::CertificateUntrusted, 401),
            (AuthError::CertificateAmbiguous, 401),
            (AuthError::Conflicting, 400),
            (AuthError::InQuery, 400),
            (AuthError::NotTaken, 401),
        ] {
            let wire = Refusal::Key(error).wire(false, None);
            assert_eq!(wire.status, status);
            assert_eq!(wire.header.is_some_and(|(name, _)| name == "www-authenticate"), status == 401);
        }
        assert!(Refusal::KeyMissing.wire(false, None).header.is_some());
    }
}
