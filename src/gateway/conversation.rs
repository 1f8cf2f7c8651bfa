//! Step 5: in which conversation, and which revision of the protocol, does a message stand?
//!
//! The body decides, never a header alone: a message that says 2026-07-28 in its `_meta`, or whose version header does,
//! is held to that revision's rules whole. Everything else is of the revisions with a handshake.

use http::HeaderMap;
use pingora::http::RequestHeader;

use crate::mcp::headers;
use crate::mcp::message::Message;
use crate::mcp::method;
use crate::mcp::method::Towards;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::seal::Keyring;
use crate::session;
use crate::session::Kind;
use crate::session::Session;
use crate::transport::route::Door;

use super::refusal::Misplaced;
use super::refusal::Refusal;

/// Name of the session header, in the spelling of the older revisions; header names have no case.
pub(crate) const SESSION_HEADER: &str = "mcp-session-id";
/// Name of the version header.
pub(crate) const VERSION_HEADER: &str = "mcp-protocol-version";

/// What stands before the session in the URL an HTTP+SSE client posts to.
pub(crate) const TOKEN_QUERY: &str = "sessionId=";

/// Revisions spoken here; whether a server behind the gateway speaks one is for it to say.
const SERVED: [Revision; 5] = Revision::ALL;
/// Those of them that a message without handshake can be of: what such a message is told when it is of none.
const MODERN: [Revision; 1] = [Revision::V2026_07_28];

/// In which conversation a request stands.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    /// The revision the request is judged under.
    pub(crate) revision: Revision,
    /// The session it names, opened; `None` without one, and always in 2026-07-28.
    pub(crate) session: Option<Session>,
    /// The session token as the client sent it: answers that repeat the session repeat the token.
    pub(crate) token: Option<String>,
    /// How the client comes in.
    pub(crate) door: Door,
}

impl Conversation {
    /// Whether the request is of a revision without handshake and sessions.
    pub(crate) fn is_modern(&self) -> bool {
        self.revision.era() == Era::Modern
    }
}

/// Who asks for which server: what a session must have been sealed for.
pub(crate) struct Asker<'a> {
    /// The principal's stable id.
    pub(crate) principal: &'a str,
    /// The server's name.
    pub(crate) server: &'a str,
    /// The present time in seconds since 1970.
    pub(crate) now_seconds: u64,
    /// How the client comes in.
    pub(crate) door: Door,
    /// Whether the server speaks HTTP+SSE.
    pub(crate) server_speaks_sse: bool,
    /// What opens tokens.
    pub(crate) keyring: &'a Keyring,
}

impl Asker<'_> {
    /// The kind of token that this client and this server have between them.
    pub(crate) fn token_kind(&self) -> Kind {
        match (self.door, self.server_speaks_sse) {
            (Door::Streamable, false) => Kind::Streamable,
            (Door::Streamable, true) | (_, false) => Kind::Pair,
            (_, true) => Kind::Sse,
        }
    }

    fn open(&self, token: &str) -> Option<Session> {
        session::open(self.keyring, self.token_kind(), token, self.principal, self.server, self.now_seconds)
    }
}

/// Finds the conversation of a message.
///
/// # Errors
/// Headers that do not fit the body, a revision not spoken here, a session that is not the caller's.
pub(crate) fn of_message(head: &RequestHeader, message: &Message, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    let headers = &head.headers;
    let is_modern = headers::claims_modern(headers, message);
    if asker.door == Door::SseMessage {
        let meant = message.meta_revision().unwrap_or(Revision::V2026_07_28.as_str());
        return if is_modern { Err(unsupported(meant)) } else { of_sse_message(head, message, asker) };
    }
    if is_modern {
        let revision = headers::verify(headers, message, &MODERN).map_err(Refusal::Headers)?;
        return Ok(Conversation { revision, session: None, token: None, door: asker.door });
    }
    let offered = (message.method() == Some("initialize")).then(|| offered(message));
    of_legacy(headers, offered, asker)
}

/// Finds the conversation of a batch. Only 2025-03-26 has batches; what says nothing is taken for it.
///
/// # Errors
/// See [`of_message`]; another revision.
pub(crate) fn of_batch(head: &RequestHeader, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    // HTTP+SSE is at home in a revision that says nothing of batches.
    if is_modern(&head.headers) || asker.door != Door::Streamable {
        return Err(Refusal::Misplaced(Misplaced::BatchRevision));
    }
    let conversation = of_legacy(&head.headers, None, asker)?;
    if conversation.revision == Revision::V2025_03_26 {
        Ok(conversation)
    } else {
        Err(Refusal::Misplaced(Misplaced::BatchRevision))
    }
}

/// Finds the conversation in which a stream is to stand.
///
/// # Errors
/// A revision without such streams, a session that is not the caller's.
pub(crate) fn of_stream(head: &RequestHeader, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    refuse_modern(&head.headers)?;
    if asker.door == Door::Streamable {
        return of_legacy(&head.headers, None, asker);
    }
    let revision = version_header(&head.headers)?.unwrap_or(Revision::V2024_11_05);
    Ok(Conversation { revision, session: None, token: None, door: asker.door })
}

/// Finds the conversation that a `DELETE` is to end.
///
/// # Errors
/// No session header, a session that is not the caller's, or a revision without sessions.
pub(crate) fn of_delete(head: &RequestHeader, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    refuse_modern(&head.headers)?;
    let conversation = of_legacy(&head.headers, None, asker)?;
    if conversation.session.is_some() { Ok(conversation) } else { Err(Refusal::Misplaced(Misplaced::SessionMissing)) }
}

/// The conversation of Streamable HTTP with a handshake.
fn of_legacy(headers: &HeaderMap, offered: Option<Revision>, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    let version = version_header(headers)?;
    let (session, token) = open_session(headers, asker)?;
    let sealed = session.as_ref().and_then(|session| Revision::parse(&session.revision));
    let revision = match (sealed, version) {
        // The negotiated revision is the session's; a header that names another one is a client's mistake or a trick.
        (Some(sealed), Some(version)) if sealed != version => return Err(unsupported(version.as_str())),
        (Some(sealed), _) => sealed,
        (None, Some(version)) => version,
        // The rule of 2025-06-18 for a server that cannot know better.
        (None, None) => offered.unwrap_or(Revision::V2025_03_26),
    };
    Ok(Conversation { revision, session, token, door: asker.door })
}

/// The conversation of a message that an HTTP+SSE client posts: the URL says which, as its stream told it. The revision
/// was negotiated on the stream, maybe at another node; clients that know the version header repeat it.
fn of_sse_message(head: &RequestHeader, message: &Message, asker: &Asker<'_>) -> Result<Conversation, Refusal> {
    let mut tokens = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix(TOKEN_QUERY));
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        return Err(Refusal::Misplaced(Misplaced::SseSessionMissing));
    };
    let session = asker.open(token).ok_or(Refusal::UnknownSession)?;
    let knows = |revision: &Revision| {
        message.method().is_none_or(|method| method::find(method, Towards::Server, *revision).is_some())
    };
    // Without the header, the oldest that knows the method.
    let known = || Revision::ALL.into_iter().filter(|revision| revision.era() == Era::Legacy).find(knows);
    let revision = version_header(&head.headers)?.or_else(known).unwrap_or(Revision::V2024_11_05);
    Ok(Conversation { revision, session: Some(session), token: Some(token.to_owned()), door: asker.door })
}

/// 2026-07-28 has neither standing streams nor sessions that could be ended, and wants this to be said to who tries.
fn refuse_modern(headers: &HeaderMap) -> Result<(), Refusal> {
    if is_modern(headers) { Err(Refusal::Method("POST")) } else { Ok(()) }
}

fn is_modern(headers: &HeaderMap) -> bool {
    headers.get_all(VERSION_HEADER).iter().any(|version| version == Revision::V2026_07_28.as_str())
}

fn unsupported(revision: &str) -> Refusal {
    Refusal::Headers(headers::unsupported(revision, &SERVED))
}

/// The legacy revision that the version header names, if there is one.
fn version_header(headers: &HeaderMap) -> Result<Option<Revision>, Refusal> {
    let mut lines = headers.get_all(VERSION_HEADER).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().unwrap_or_default();
    match Revision::parse(text) {
        Some(revision) if revision.era() == Era::Legacy && SERVED.contains(&revision) && lines.next().is_none() => {
            Ok(Some(revision))
        }
        _ => Err(unsupported(text)),
    }
}

/// The revision an `initialize` offers, as far as it is one with a handshake.
fn offered(message: &Message) -> Revision {
    let offered = message.params().and_then(|params| params.get("protocolVersion")).and_then(|version| version.text());
    offered.and_then(Revision::parse).filter(|revision| revision.era() == Era::Legacy).unwrap_or(Revision::V2025_11_25)
}

fn open_session(headers: &HeaderMap, asker: &Asker<'_>) -> Result<(Option<Session>, Option<String>), Refusal> {
    let mut lines = headers.get_all(SESSION_HEADER).iter();
    let Some(line) = lines.next() else { return Ok((None, None)) };
    let token = line.to_str().ok().filter(|_| lines.next().is_none()).ok_or(Refusal::UnknownSession)?;
    let session = asker.open(token).ok_or(Refusal::UnknownSession)?;
    Ok((Some(session), Some(token.to_owned())))
}
