//! Step 5: in which conversation, and which revision of the protocol, does a message stand?
//!
//! The body decides, never a header alone: a message that says 2026-07-28 in its `_meta`, or whose version header does,
//! is held to that revision's rules whole. Everything else is of the revisions with a handshake.

use http::HeaderMap;

use crate::mcp::headers;
use crate::mcp::message::Message;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::seal::Keyring;
use crate::session;
use crate::session::Kind;
use crate::session::Session;

use super::refusal::Refusal;

/// Name of the session header, in the spelling of the older revisions; header names have no case.
pub(crate) const SESSION_HEADER: &str = "mcp-session-id";
/// Name of the version header.
pub(crate) const VERSION_HEADER: &str = "mcp-protocol-version";

/// Revisions spoken here; whether a server behind the gateway speaks one is for it to say.
const SERVED: [Revision; 5] = Revision::ALL;

/// In which conversation a request stands.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The revision the request is judged under.
    pub(crate) revision: Revision,
    /// The session it names, opened; `None` without one, and always in 2026-07-28.
    pub(crate) session: Option<Session>,
    /// The session token as the client sent it: answers that repeat the session repeat the token.
    pub(crate) token: Option<String>,
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
}

/// Finds the conversation of a message.
///
/// # Errors
/// Headers that do not fit the body, a revision not spoken here, a session that is not the caller's.
pub(crate) fn of_message(
    headers: &HeaderMap,
    message: &Message,
    asker: &Asker<'_>,
    keyring: &Keyring,
) -> Result<Conversation, Refusal> {
    if headers::claims_modern(headers, message) {
        let revision = headers::verify(headers, message, &SERVED).map_err(Refusal::Headers)?;
        return Ok(Conversation { revision, session: None, token: None });
    }
    let version = version_header(headers)?;
    let (session, token) = open_session(headers, asker, keyring)?;
    let sealed = session.as_ref().and_then(|session| Revision::parse(&session.revision));
    let revision = match (sealed, version) {
        // The negotiated revision is the session's; a header that names another one is a client's mistake or a trick.
        (Some(sealed), Some(version)) if sealed != version => {
            return Err(Refusal::Headers(headers::unsupported(version.as_str(), &SERVED)));
        }
        (Some(sealed), _) => sealed,
        (None, Some(version)) => version,
        (None, None) if message.method() == Some("initialize") => offered(message),
        // The rule of 2025-06-18 for a server that cannot know better.
        (None, None) => Revision::V2025_03_26,
    };
    Ok(Conversation { revision, session, token })
}

/// Finds the conversation that a `DELETE` is to end.
///
/// # Errors
/// No session header, a session that is not the caller's, or a revision without sessions.
pub(crate) fn of_delete(headers: &HeaderMap, asker: &Asker<'_>, keyring: &Keyring) -> Result<Conversation, Refusal> {
    // 2026-07-28 has no sessions that could be ended, and wants this to be said to who tries.
    if headers.get_all(VERSION_HEADER).iter().any(|version| version == Revision::V2026_07_28.as_str()) {
        return Err(Refusal::Method);
    }
    version_header(headers)?;
    let (session, token) = open_session(headers, asker, keyring)?;
    let session = session.ok_or(Refusal::SessionMissing)?;
    let revision = Revision::parse(&session.revision).unwrap_or(Revision::V2025_03_26);
    Ok(Conversation { revision, session: Some(session), token })
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
        _ => Err(Refusal::Headers(headers::unsupported(text, &SERVED))),
    }
}

/// The revision an `initialize` offers, as far as it is one with a handshake.
fn offered(message: &Message) -> Revision {
    let offered = message.params().and_then(|params| params.get("protocolVersion")).and_then(|version| version.text());
    offered.and_then(Revision::parse).filter(|revision| revision.era() == Era::Legacy).unwrap_or(Revision::V2025_11_25)
}

fn open_session(
    headers: &HeaderMap,
    asker: &Asker<'_>,
    keyring: &Keyring,
) -> Result<(Option<Session>, Option<String>), Refusal> {
    let mut lines = headers.get_all(SESSION_HEADER).iter();
    let Some(line) = lines.next() else { return Ok((None, None)) };
    let token = line.to_str().ok().filter(|_| lines.next().is_none()).ok_or(Refusal::UnknownSession)?;
    let session = session::open(keyring, Kind::Streamable, token, asker.principal, asker.server, asker.now_seconds)
        .ok_or(Refusal::UnknownSession)?;
    Ok((Some(session), Some(token.to_owned())))
}
