//! In which conversation is this call, and about which task?
//!
//! The gateway keeps no session: what names one to a client is a sealed token that says which endpoint of which
//! server, under which id the server knows the session, who opened it, and when. Any node with the keys opens it.
//! Whatever is wrong with a token (another caller's, another server's, of another kind, changed, cut, too old), the
//! answer is the same: there is no such session. Pure: the nonce and the time are arguments.

mod codec;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::seal::Keyring;
use crate::seal::NONCE_BYTES;
use crate::session::codec::decode;
use crate::session::codec::encode;

pub use crate::session::task::Task;
pub use crate::session::task::open_event;
pub use crate::session::task::open_task;
pub use crate::session::task::seal_event;
pub use crate::session::task::seal_task;

/// Bytes of an upstream's id of a session or task.
pub const UPSTREAM_ID_BYTES_MAX: usize = 1_024;
/// Bytes of a principal's id.
pub const PRINCIPAL_BYTES_MAX: usize = 1_024;
/// Bytes of a server's name, and of a revision.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of the name of a tool whose task is given a token.
pub const TOOL_BYTES_MAX: usize = 512;
/// Bytes of a token; what is longer cannot be one of ours and is not even decoded.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// How long a token opens after the session began, however much it is used: 30 days.
pub const AGE_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// How far another node's clock may be ahead of ours.
pub const SKEW_SECONDS_MAX: u64 = 5 * 60;

/// What a session's token is for: a token of one kind never opens as one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The `Mcp-Session-Id` of Streamable HTTP.
    Streamable,
    /// The `sessionId` of HTTP+SSE. The upstream's id is the path and query that its `endpoint` event named.
    Sse,
    /// Either of them where the gateway itself holds the conversation, on one node, because client and server speak
    /// different transports. The upstream's id is that node's own name for it.
    Pair,
}

impl Kind {
    const fn purpose(self) -> &'static [u8] {
        match self {
            Kind::Streamable => b"portcullis session",
            Kind::Sse => b"portcullis sse session",
            Kind::Pair => b"portcullis pair",
        }
    }
}

/// What a session token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The server's configured name.
    pub server: Arc<str>,
    /// The endpoint the session lives on, by its stable id.
    pub endpoint: u64,
    /// The session's id at that endpoint; what it is depends on the [`Kind`].
    pub upstream_id: String,
    /// Stable id of the caller who opened it.
    pub principal: Arc<str>,
    /// The protocol revision that was negotiated.
    pub revision: String,
    /// When it began, in seconds since 1970.
    pub since: u64,
}

/// Why a session or task cannot be given a token: the server's fault, never the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// One of its texts is longer than its limit.
    #[error("the upstream's id, or the name of its server, principal or revision, is too long")]
    TooLong,
    /// The upstream's id is empty, or not made of visible ASCII as MCP demands; it could not be sent back in a header.
    #[error("the upstream's session id is empty or not visible ASCII")]
    NotVisibleAscii,
    /// What should be the path that takes a stream's messages does not begin with `/`.
    #[error("the upstream's path for messages does not begin with `/`")]
    NotAPath,
    /// A task's id is empty.
    #[error("the upstream's task id is empty")]
    EmptyTaskId,
}

/// The token that stands for `session`: base64url, so that it fits a header and a query value as it is.
pub fn seal(keyring: &Keyring, kind: Kind, session: &Session, nonce: [u8; NONCE_BYTES]) -> Result<String, Unsealable> {
    let within = session.upstream_id.len() <= UPSTREAM_ID_BYTES_MAX
        && session.principal.len() <= PRINCIPAL_BYTES_MAX
        && session.server.len() <= NAME_BYTES_MAX
        && session.revision.len() <= NAME_BYTES_MAX;
    if !within {
        return Err(Unsealable::TooLong);
    }
    if session.upstream_id.is_empty() || !session.upstream_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unsealable::NotVisibleAscii);
    }
    if kind == Kind::Sse && !session.upstream_id.starts_with('/') {
        return Err(Unsealable::NotAPath);
    }
    Ok(URL_SAFE_NO_PAD.encode(keyring.seal(kind.purpose(), &encode(session), nonce)))
}

/// The session `token` stands for, if it is of this kind, this principal opened it on this server and it is not too
/// old.
pub fn open(
    keyring: &Keyring,
    kind: Kind,
    token: &str,
    principal: &str,
    server: &str,
    now_seconds: u64,
) -> Option<Session> {
    let session = decode(&unsealed(keyring, kind.purpose(), token)?)?;
    let fits = *session.principal == *principal && *session.server == *server;
    let begun = session.since <= now_seconds.saturating_add(SKEW_SECONDS_MAX);
    let young = now_seconds.saturating_sub(session.since) < AGE_SECONDS_MAX;
    (fits && begun && young).then_some(session)
}

/// What a token of this purpose holds.
fn unsealed(keyring: &Keyring, purpose: &[u8], token: &str) -> Option<Vec<u8>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    // The decoder refuses a second spelling of the same bytes, so that each sealed text has one token.
    let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
    keyring.open(purpose, &sealed)
}
