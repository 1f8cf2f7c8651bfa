//! What is still done while the gateway has too much to do?
//!
//! Too much is held in memory, or work waits too long for a worker thread. What opens more work is put off first: new
//! sessions, lists, streams. Calls follow. What ends work or merely asks whether anybody is there is always let in: pings,
//! notifications, answers to the server's own requests, the end of a session; `/healthz` is answered before any of this.
//! Whoever is refused here is refused before anything was sent anywhere.

use crate::call::Action;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;

use super::refusal::Pressure;
use super::refusal::Refusal;

/// Methods whose answer leads to more requests, or stays open.
const OPENING: [&str; 10] = [
    "initialize",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "subscriptions/listen",
    "completion/complete",
    "logging/setLevel",
];

/// In which order things are put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// First.
    Opening,
    /// When that was not enough.
    Call,
    /// Never.
    Always,
}

impl Urgency {
    /// That of an action.
    pub(crate) fn of(action: &Action) -> Self {
        match action {
            Action::Listen(_) => Self::Opening,
            Action::EndSession => Self::Always,
            Action::Message(message) if message.kind() != MessageKind::Request => Self::Always,
            Action::Message(message) => Self::of_method(message),
        }
    }

    fn of_method(message: &Message) -> Self {
        match message.method() {
            Some("ping") => Self::Always,
            Some(method) if OPENING.contains(&method) => Self::Opening,
            _ => Self::Call,
        }
    }
}

/// Whether something as urgent as this, whose body is held already, is done now.
///
/// # Errors
/// It is put off.
pub(crate) fn check(urgency: Urgency, body: &Holder, runtime: &Runtime, active: &Active) -> Result<(), Refusal> {
    let (share, delay_max) = match urgency {
        Urgency::Opening => (Share::Opening, active.snapshot.queue_delay_max / 2),
        Urgency::Call => (Share::Request, active.snapshot.queue_delay_max),
        Urgency::Always => return Ok(()),
    };
    if !body.has_room(share) {
        return Err(Refusal::Overloaded(Pressure::Bytes));
    }
    if runtime.delay.standing() > delay_max {
        return Err(Refusal::Overloaded(Pressure::Delay));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::call::Listen;
    use crate::mcp::document::Limits;

    fn urgency(text: &str) -> Urgency {
        let message = Message::read(Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
        Urgency::of(&Action::Message(message.unwrap_or_else(|error| panic!("{text}: {}", error.name))))
    }

    #[test]
    fn what_opens_work_is_put_off_before_calls_and_what_ends_work_never() {
        for (method, params, expected) in [
            (
                "initialize",
                r#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"a","version":"1"}}"#,
                Urgency::Opening,
            ),
            ("tools/list", "{}", Urgency::Opening),
            ("resources/templates/list", "{}", Urgency::Opening),
            ("tools/call", r#"{"name":"a","arguments":{}}"#, Urgency::Call),
            ("prompts/get", r#"{"name":"a"}"#, Urgency::Call),
            ("resources/read", r#"{"uri":"file:///a"}"#, Urgency::Call),
            ("something/else", "{}", Urgency::Call),
            ("ping", "{}", Urgency::Always),
        ] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            assert_eq!(urgency(&request), expected, "{method}");
        }
        assert_eq!(
            urgency(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#),
            Urgency::Always
        );
        assert_eq!(urgency(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Urgency::Always);
        assert_eq!(Urgency::of(&Action::Listen(Listen::default())), Urgency::Opening);
        assert_eq!(Urgency::of(&Action::EndSession), Urgency::Always);
    }
}
