//! What is asked of which server?

use std::fmt;
use std::sync::Arc;

use crate::mcp::message::Message;
use crate::mcp::splice::Splice;

/// Bytes of one event id that is sent to a server.
pub const EVENT_ID_BYTES_MAX: usize = 4_096;

/// One request of a client, on its way to being judged: policy decides about a `Call`, and only what it permits is sent.
#[derive(Debug)]
pub struct Call {
    /// The server's configured name.
    pub server: Arc<str>,
    /// What it is asked to do.
    pub action: Action,
    /// Substitutions made before judging, such as opened tokens, in the order of their spans. No part of a message that
    /// policy judges is among them.
    pub opened: Vec<Splice>,
    /// The tool whose task it is about, where that is known: what the tool may not do, its task may not either.
    pub task_tool: Option<Arc<str>>,
}

/// What a server is asked to do.
#[derive(Debug)]
pub enum Action {
    /// To take a JSON-RPC message (`POST`).
    Message(Message),
    /// To open a standing event stream, or to go on with one (`GET`).
    Listen(Listen),
    /// To end a session (`DELETE`).
    EndSession,
}

/// A standing event stream that is asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The last event that was seen of the stream to go on with, by the server's own id; `None` asks for a new stream.
    pub last_event_id: Option<EventId>,
}

impl Listen {
    /// What a `Last-Event-ID` header asks for. An empty one asks for nothing, as an absent one does.
    ///
    /// # Errors
    /// An id that cannot be sent on: see [`EventId::read`].
    pub fn after(last_event_id: Option<&[u8]>) -> Result<Self, UnfitEventId> {
        let last_event_id = last_event_id.filter(|id| !id.is_empty()).map(EventId::read).transpose()?;
        Ok(Self { last_event_id })
    }
}

/// A server's id of one event, fit for a header line: text of 1 to [`EVENT_ID_BYTES_MAX`] bytes without control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId(Box<str>);

impl EventId {
    /// Takes an id that a server gave to one of its events.
    ///
    /// # Errors
    /// Empty, longer than [`EVENT_ID_BYTES_MAX`], not UTF-8, or with a control character (the tab is one): a server
    /// could not get it back in a header, so nothing is sent in its place.
    pub fn read(id: &[u8]) -> Result<Self, UnfitEventId> {
        let text = Some(id).filter(|id| id.len() <= EVENT_ID_BYTES_MAX).and_then(|id| std::str::from_utf8(id).ok());
        let text = text.filter(|text| !text.is_empty() && !text.chars().any(char::is_control));
        text.map(|text| Self(text.into())).ok_or(UnfitEventId)
    }
}

impl std::ops::Deref for EventId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// An event id that no header line can carry, or that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnfitEventId;

impl fmt::Display for UnfitEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the event id is not text of at most {EVENT_ID_BYTES_MAX} bytes without control characters")
    }
}

impl std::error::Error for UnfitEventId {}

impl Action {
    /// The JSON-RPC message, if there is one.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Listen(_) | Self::EndSession => None,
        }
    }
}

impl Call {
    /// The JSON-RPC message, if the call carries one.
    pub fn message(&self) -> Option<&Message> {
        self.action.message()
    }

    /// The tool that is called, if the call is a `tools/call` that names one.
    pub fn tool(&self) -> Option<&str> {
        self.message().and_then(Message::tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_text_that_a_header_carries() {
        for id in ["1", "stream-7/42", "a b", "größe", "\u{10ffff}", "\"x\""] {
            assert_eq!(EventId::read(id.as_bytes()).as_deref(), Ok(id));
        }
        let long = "x".repeat(EVENT_ID_BYTES_MAX);
        assert_eq!(EventId::read(long.as_bytes()).as_deref(), Ok(long.as_str()));
        let too_long = "x".repeat(EVENT_ID_BYTES_MAX + 1);
        let unfit: [&[u8]; 9] =
            [b"", b"a\nb", b"a\r", b"a\tb", b"\0", b"\x7f", "\u{85}".as_bytes(), b"\xff", too_long.as_bytes()];
        for id in unfit {
            assert_eq!(EventId::read(id), Err(UnfitEventId), "{id:?}");
        }
    }

    #[test]
    fn an_empty_last_event_id_asks_for_a_new_stream() {
        assert_eq!(Listen::after(None), Ok(Listen::default()));
        assert_eq!(Listen::after(Some(b"")), Ok(Listen::default()));
        assert_eq!(Listen::after(Some(b"7")).unwrap().last_event_id.as_deref(), Some("7"));
        assert_eq!(Listen::after(Some(b"7\x01")), Err(UnfitEventId));
    }
}
