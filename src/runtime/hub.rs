//! Who gets what a server of HTTP+SSE says, when its client speaks Streamable HTTP?
//!
//! The server says everything on one stream. Answers go to the request that has their id, progress to the one that has
//! its token, and everything else to the client's standing stream, or as long as there is none to a request that is
//! still answered. What nobody can take is kept for a while, and then the oldest is dropped.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::Notify;
use tokio::sync::mpsc;

/// Requests of one conversation under way at once.
const WAITING_MAX: usize = 256;
/// Events that wait for one reader.
const EVENTS_MAX: usize = 256;
/// Events that wait while there is no reader at all.
const UNCLAIMED_MAX: usize = 64;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// It answers the request of this id, in raw JSON.
    Answer(&'a str),
    /// It tells how far the request with this progress token is, in raw JSON.
    Progress(&'a str),
    /// Anything else.
    Anything,
}

/// One conversation.
pub struct Hub {
    path: PathAndQuery,
    endpoint: u64,
    readers: Mutex<Readers>,
    closed: Notify,
}

#[derive(Default)]
struct Readers {
    waiting: HashMap<Box<str>, Waiting>,
    standing: Option<mpsc::Sender<Bytes>>,
    unclaimed: VecDeque<Bytes>,
}

struct Waiting {
    events: mpsc::Sender<Bytes>,
    progress_token: Option<Box<str>>,
}

impl Hub {
    /// A conversation whose messages go to `path` on an endpoint.
    pub fn new(path: PathAndQuery, endpoint: u64) -> Self {
        Self { path, endpoint, readers: Mutex::default(), closed: Notify::new() }
    }

    /// Where messages go.
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// The endpoint the conversation lives on.
    pub fn endpoint(&self) -> u64 {
        self.endpoint
    }

    /// What is said about one request, until the guard is dropped. `None` if too many are under way, or one with this id.
    pub fn wait(self: &Arc<Self>, id: &str, progress_token: Option<&str>) -> Option<(mpsc::Receiver<Bytes>, Waits)> {
        let mut readers = self.readers();
        let key = meaning(id);
        if readers.waiting.len() >= WAITING_MAX || readers.waiting.contains_key(&key) {
            return None;
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        readers.give_unclaimed(&events);
        let waiting = Waiting { events, progress_token: progress_token.map(meaning) };
        readers.waiting.insert(key.clone(), waiting);
        Some((receiver, Waits { hub: Arc::clone(self), id: key }))
    }

    /// What is said of the server's own accord. Of several readers the last one gets it.
    pub fn stand(&self) -> mpsc::Receiver<Bytes> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let mut readers = self.readers();
        readers.give_unclaimed(&events);
        readers.standing = Some(events);
        receiver
    }

    /// Hands an event to whom it is for. A reader that does not keep up loses its stream, never single events of it.
    pub fn deliver(&self, event: Bytes, about: About<'_>) {
        let mut readers = self.readers();
        match about {
            About::Answer(id) => {
                if let Some(waiting) = readers.waiting.remove(&meaning(id)) {
                    // A request nobody waits for any more needs no answer.
                    let _ = waiting.events.try_send(event);
                }
            }
            About::Progress(token) => {
                let token = meaning(token);
                let about = readers.waiting.iter().find(|(_, waiting)| waiting.progress_token.as_ref() == Some(&token));
                let lost = about.is_some_and(|(_, waiting)| waiting.events.try_send(event).is_err());
                let id = about.map(|(id, _)| id.clone()).filter(|_| lost);
                if let Some(id) = id {
                    readers.waiting.remove(&id);
                }
            }
            About::Anything => readers.give(event),
        }
    }

    /// Whether somebody waits for what the server says.
    pub fn is_used(&self) -> bool {
        let readers = self.readers();
        !readers.waiting.is_empty() || readers.standing.as_ref().is_some_and(|standing| !standing.is_closed())
    }

    /// Ends the conversation.
    pub fn close(&self) {
        self.closed.notify_one();
    }

    /// Ready once the conversation is to end.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    fn give(&mut self, event: Bytes) {
        let mut event = event;
        if let Some(standing) = self.standing.take_if(|standing| standing.is_closed()).or(self.standing.clone()) {
            match standing.try_send(event) {
                Ok(()) => return,
                Err(error) => {
                    self.standing = None;
                    event = error.into_inner();
                }
            }
        }
        for waiting in self.waiting.values() {
            match waiting.events.try_send(event) {
                Ok(()) => return,
                Err(error) => event = error.into_inner(),
            }
        }
        if self.unclaimed.len() >= UNCLAIMED_MAX {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back(event);
    }

    fn give_unclaimed(&mut self, reader: &mpsc::Sender<Bytes>) {
        for event in self.unclaimed.drain(..) {
            // A fresh reader has more room than there are unclaimed events.
            let _ = reader.try_send(event);
        }
    }
}

/// A request's place among those that are waited for.
pub struct Waits {
    hub: Arc<Hub>,
    id: Box<str>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.hub.readers().waiting.remove(&self.id);
    }
}

/// An id or token by what it says: texts are escaped by each side in its own way.
fn meaning(raw: &str) -> Box<str> {
    match serde_json::from_str::<String>(raw) {
        Ok(text) => format!("\"{text}").into(),
        Err(_) => raw.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(PathAndQuery::from_static("/message"), 7))
    }

    #[tokio::test]
    async fn an_answer_goes_to_its_request_whatever_the_spelling_of_its_id() {
        let hub = hub();
        let (mut text, _text) = hub.wait(r#""a""#, None).unwrap();
        let (mut number, _number) = hub.wait("1", None).unwrap();
        hub.deliver("to text".into(), About::Answer(r#""\u0061""#));
        hub.deliver("to nobody".into(), About::Answer(r#""1""#));
        hub.deliver("to number".into(), About::Answer("1"));
        assert_eq!((text.recv().await, text.recv().await), (Some("to text".into()), None));
        assert_eq!((number.recv().await, number.recv().await), (Some("to number".into()), None));
    }

    #[tokio::test]
    async fn progress_goes_to_the_request_with_its_token_only() {
        let hub = hub();
        let (mut one, _one) = hub.wait("1", Some("5")).unwrap();
        let (mut two, _two) = hub.wait("2", Some(r#""5""#)).unwrap();
        hub.deliver("a".into(), About::Progress(r#""5""#));
        hub.deliver("b".into(), About::Progress("5"));
        hub.deliver("c".into(), About::Progress("6"));
        assert_eq!((two.try_recv().ok(), two.try_recv().ok()), (Some("a".into()), None));
        assert_eq!((one.try_recv().ok(), one.try_recv().ok()), (Some("b".into()), None));
    }

    #[tokio::test]
    async fn what_is_for_nobody_goes_to_the_standing_stream_or_a_request_or_waits() {
        let hub = hub();
        hub.deliver("early".into(), About::Anything);
        let (mut request, waits) = hub.wait("1", None).unwrap();
        hub.deliver("second".into(), About::Anything);
        let mut standing = hub.stand();
        hub.deliver("third".into(), About::Anything);
        assert_eq!((request.try_recv().ok(), request.try_recv().ok()), (Some("early".into()), Some("second".into())));
        assert_eq!(standing.try_recv().ok(), Some("third".into()));
        drop(standing);
        hub.deliver("fourth".into(), About::Anything);
        assert_eq!(request.try_recv().ok(), Some("fourth".into()));
        drop(waits);
        assert!(!hub.is_used());
        hub.deliver("fifth".into(), About::Anything);
        assert_eq!(hub.stand().try_recv().ok(), Some("fifth".into()));
    }

    #[tokio::test]
    async fn every_queue_has_its_limit() {
        let hub = hub();
        for number in 0..=UNCLAIMED_MAX {
            hub.deliver(number.to_string().into(), About::Anything);
        }
        let mut standing = hub.stand();
        assert_eq!(standing.try_recv().ok(), Some("1".into()));
        for _ in 0..=EVENTS_MAX {
            hub.deliver("x".into(), About::Anything);
        }
        assert_eq!(std::iter::from_fn(|| standing.try_recv().ok()).count(), EVENTS_MAX);
        let held: Vec<_> = (0..WAITING_MAX).map(|id| hub.wait(&id.to_string(), None)).collect();
        assert!(held.iter().all(Option::is_some) && hub.wait("x", None).is_none());
        drop(held);
        let _first = hub.wait("1", None).unwrap();
        assert!(hub.wait("1", None).is_none(), "an id is in use");
    }
}
