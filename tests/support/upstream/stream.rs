//! What does a server say on a stream that stays open, and when?
//!
//! A standing stream is a reply like others, but what goes out on it is pushed by the test. The HTTP+SSE transport is one
//! such stream for every client, on which the replies to its messages go out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::support::upstream::Request;
use crate::support::upstream::Shared;
use crate::support::upstream::State;
use crate::support::upstream::WAIT_MAX;
use crate::support::upstream::reply::Content;
use crate::support::upstream::reply::Event;
use crate::support::upstream::reply::Piece;
use crate::support::upstream::reply::Reply;
use crate::support::upstream::wire;

/// The streams of a server.
#[derive(Default)]
pub(super) struct Streams {
    /// Every standing stream so far.
    standing: Vec<Standing>,
    /// What `$id` and `$token` stand for on the stream that an event id belongs to.
    resumable: HashMap<String, (Value, Value)>,
    /// Whether every message is answered on a standing stream, and how late it is accepted.
    sse: Option<Duration>,
}

struct Standing {
    request: Request,
    pushes: mpsc::UnboundedSender<Push>,
    open: bool,
}

/// What shall happen on a standing stream.
pub(super) enum Push {
    Event(Event),
    /// The text of an event.
    Text(String),
    End,
    Close,
    Reset,
}

/// A standing stream, for the test to speak on.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    index: usize,
    pushes: mpsc::UnboundedSender<Push>,
    /// The request that opened it; its `connection` tells when the other side left, its `Last-Event-ID` where it goes on.
    pub(crate) request: Request,
}

impl Stream {
    /// Waits for the stream of this index: they are counted from 0 as they are opened.
    pub(super) async fn wait(shared: &Arc<Shared>, index: usize) -> Self {
        let found = shared.until(|state| {
            let standing = state.streams.standing.get(index)?;
            Some((standing.pushes.clone(), standing.request.clone()))
        });
        let waited = tokio::time::timeout(WAIT_MAX, found).await;
        let (pushes, request) = waited.unwrap_or_else(|_| panic!("stream {index} is not opened"));
        Self { shared: Arc::clone(shared), index, pushes, request }
    }

    /// What `$session` stands for in the first events.
    pub(crate) fn session(&self) -> String {
        session(self.index)
    }

    /// Sends an event. What follows waits for its delay; nothing waits for the answer to a question.
    pub(crate) fn push(&self, event: Event) -> &Self {
        self.do_next(Push::Event(event))
    }

    /// Ends the stream properly.
    pub(crate) fn end(&self) {
        self.do_next(Push::End);
    }

    /// Closes the connection, as if the server had died.
    pub(crate) fn close(&self) {
        self.do_next(Push::Close);
    }

    /// Resets the connection.
    pub(crate) fn reset(&self) {
        self.do_next(Push::Reset);
    }

    /// Whether neither side has ended it.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.look(|state| state.streams.standing[self.index].open)
    }

    /// Waits until one side has ended it.
    pub(crate) async fn ended(&self) {
        let ended = self.shared.until(|state| (!state.streams.standing[self.index].open).then_some(()));
        let waited = tokio::time::timeout(WAIT_MAX, ended).await;
        waited.unwrap_or_else(|_| panic!("stream {} is still open", self.index));
    }

    fn do_next(&self, push: Push) -> &Self {
        // A stream that has ended says nothing more, as a server would find out by itself.
        let _ = self.pushes.send(push);
        self
    }
}

/// The name of a standing stream's session.
pub(super) fn session(index: usize) -> String {
    // No name is the beginning of another.
    format!("sse-session-{index:05}")
}

/// A standing stream while it is served.
pub(super) struct Open {
    shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) pushed: mpsc::UnboundedReceiver<Push>,
}

impl Open {
    pub(super) fn new(shared: &Arc<Shared>, request: &Request) -> Self {
        let (pushes, pushed) = mpsc::unbounded_channel();
        let index = shared.with(|state| {
            state.streams.standing.push(Standing { request: request.clone(), pushes, open: true });
            state.streams.standing.len() - 1
        });
        Self { shared: Arc::clone(shared), index, pushed }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.with(|state| state.streams.standing[self.index].open = false);
    }
}

/// What `$id` and `$token` stand for: those of the request, or of the one whose stream it goes on with.
pub(super) fn placeholders(state: &State, request: &Request) -> (Value, Value) {
    let resumed = request.header("last-event-id").and_then(|id| state.streams.resumable.get(&id));
    resumed.cloned().unwrap_or_else(|| {
        let body = request.json();
        let at = |pointer| body.pointer(pointer).cloned().unwrap_or(Value::Null);
        (at("/id"), at("/params/_meta/progressToken"))
    })
}

/// Remembers to which request an event id leads back.
pub(super) fn remember(state: &mut State, event_id: &str, placeholders: &(Value, Value)) {
    state.streams.resumable.insert(event_id.to_owned(), placeholders.clone());
}

/// Answers every message on a standing stream from now on.
pub(super) fn speak_sse(state: &mut State, accept_after: Duration) {
    state.streams.sse = Some(accept_after);
}

/// Of a server of the HTTP+SSE transport: sends the reply out on the message's stream, and tells what the message itself is
/// answered with. Refusals and what breaks the connection stay what they are.
pub(super) fn divert(shared: &Arc<Shared>, request: &Request, reply: Reply) -> Reply {
    let Some(accept_after) = shared.look(|state| state.streams.sse).filter(|_| request.line().starts_with("POST "))
    else {
        return reply;
    };
    if !(200..300).contains(&reply.status) || reply.end.is_some() {
        return reply;
    }
    let events = match reply.content {
        Content::Message(message, false) => vec![Event::message(message)],
        Content::Events(events) => events,
        Content::Entity(_) => return Reply::accepted().delay(accept_after),
        _ => return reply,
    };
    let Some(pushes) = shared.look(|state| stream_of(&state.streams.standing, request)) else {
        return Reply::entity(404, "text/plain", "Could not find session");
    };
    let (shared, request) = (Arc::clone(shared), request.clone());
    tokio::spawn(async move {
        tokio::time::sleep(reply.delay).await;
        let placeholders = shared.look(|state| placeholders(state, &request));
        let mut answer = String::new();
        for event in events {
            tokio::time::sleep(event.delay).await;
            let event = event.named_if_nameless("message");
            let _ = pushes.send(Push::Text(wire::text(&event, &placeholders, &answer)));
            if let Piece::Ask(asked, _) = &event.piece {
                answer = wire::answered(&shared, asked, request.at).await;
            }
        }
    });
    Reply::entity(202, "text/plain", "Accepted").delay(accept_after)
}

/// The stream whose session the request line names, or the last one if it names none.
fn stream_of(standing: &[Standing], request: &Request) -> Option<mpsc::UnboundedSender<Push>> {
    let named = standing.iter().enumerate().find(|(index, _)| request.line().contains(&session(*index)));
    let is_nameless = !request.line().contains("sse-session-");
    let found = named.map(|(_, stream)| stream).or(standing.last().filter(|_| is_nameless));
    found.filter(|stream| stream.open).map(|stream| stream.pushes.clone())
}
