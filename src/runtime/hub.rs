//! Who gets what a server of HTTP+SSE says, when its client speaks Streamable HTTP?
//!
//! The server says everything on one stream. Answers go to the request that has their id, progress to the one that has
//! its token, and everything else to the client's standing stream, or as long as there is none to a request that is
//! still answered. What nobody can take is kept for a while, and then the oldest is dropped. Nobody is waited for: a reader
//! that does not keep up loses its stream, so that the others go on.

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
use tokio::time::Instant;

use crate::runtime::budget::Budget;
use crate::transport::buffers::Buffers;

/// Requests of one conversation under way at once.
const WAITING_MAX: usize = 256;
/// Standing streams of one conversation; a further one ends the oldest.
const STANDING_MAX: usize = 8;
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

/// Why there is nothing to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The conversation has ended.
    Over,
    /// Too many requests are under way, or one with this id.
    InUse,
}

/// One conversation.
pub struct Hub {
    principal: Arc<str>,
    path: PathAndQuery,
    endpoint: u64,
    readers: Mutex<Readers>,
    closed: Notify,
}

struct Readers {
    waiting: HashMap<Box<str>, Waiting>,
    /// The newest last.
    standing: VecDeque<mpsc::Sender<Bytes>>,
    unclaimed: VecDeque<Bytes>,
    /// Bytes that wait for readers: of answers and progress, and of everything else. A standing stream that nobody reads
    /// costs no request its answer.
    asked_for: Budget,
    unasked: Budget,
    is_over: bool,
    /// Readers there were so far.
    begun: u64,
    /// Readers there are, and when the last one went.
    uses: usize,
    used_at: Instant,
}

struct Waiting {
    /// Which reader it is: an id may be used again as soon as its answer is out.
    reader: u64,
    events: mpsc::Sender<Bytes>,
    progress_token: Option<Box<str>>,
}

impl Hub {
    /// A conversation of this principal whose messages go to `path` on an endpoint.
    pub fn new(principal: &Arc<str>, path: PathAndQuery, endpoint: u64, buffers: &Arc<Buffers>) -> Self {
        let readers = Readers {
            waiting: HashMap::new(),
            standing: VecDeque::new(),
            unclaimed: VecDeque::new(),
            asked_for: Budget::new(buffers),
            unasked: Budget::new(buffers),
            is_over: false,
            begun: 0,
            uses: 0,
            used_at: Instant::now(),
        };
        let principal = Arc::clone(principal);
        Self { principal, path, endpoint, readers: Mutex::new(readers), closed: Notify::new() }
    }

    /// Whose conversation it is.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Where messages go.
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// The endpoint the conversation lives on.
    pub fn endpoint(&self) -> u64 {
        self.endpoint
    }

    /// What is said about one request, until the guard is dropped.
    ///
    /// # Errors
    /// The conversation is over, too many requests are under way, or one with this id.
    pub fn wait(
        self: &Arc<Self>,
        id: &str,
        progress_token: Option<&str>,
    ) -> Result<(mpsc::Receiver<Bytes>, Reads), Unread> {
        let mut readers = self.readers();
        let key = meaning(id);
        if readers.is_over {
            return Err(Unread::Over);
        }
        if readers.waiting.len() >= WAITING_MAX || readers.waiting.contains_key(&key) {
            return Err(Unread::InUse);
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        readers.give_unclaimed(&events);
        let reader = readers.begin();
        let waiting = Waiting { reader, events, progress_token: progress_token.map(meaning) };
        readers.waiting.insert(key.clone(), waiting);
        Ok((receiver, Reads { hub: Arc::clone(self), waiting: Some((key, reader)) }))
    }

    /// What is said of the server's own accord, until the guard is dropped. Of several readers the last one gets it.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn stand(self: &Arc<Self>) -> Result<(mpsc::Receiver<Bytes>, Reads), Unread> {
        let mut readers = self.readers();
        if readers.is_over {
            return Err(Unread::Over);
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        readers.give_unclaimed(&events);
        readers.begin();
        readers.standing.retain(|standing| !standing.is_closed());
        if readers.standing.len() >= STANDING_MAX {
            readers.standing.pop_front();
        }
        readers.standing.push_back(events);
        Ok((receiver, Reads { hub: Arc::clone(self), waiting: None }))
    }

    /// Hands an event to whom it is for. A reader that does not keep up loses its stream, never single events of it.
    pub fn deliver(&self, event: Bytes, about: About<'_>) {
        let mut readers = self.readers();
        match about {
            About::Answer(id) => {
                if let Some(waiting) = readers.waiting.remove(&meaning(id))
                    && let Some(event) = readers.asked_for.take(&event)
                {
                    // A request nobody waits for any more needs no answer.
                    let _ = waiting.events.try_send(event);
                }
            }
            About::Progress(token) => {
                let token = meaning(token);
                let about = readers.waiting.iter().find(|(_, waiting)| waiting.progress_token.as_ref() == Some(&token));
                let is_lost = |waiting: &Waiting| {
                    let event = readers.asked_for.take(&event);
                    event.is_none_or(|event| waiting.events.try_send(event).is_err())
                };
                let id = about.filter(|(_, waiting)| is_lost(waiting)).map(|(id, _)| id.clone());
                if let Some(id) = id {
                    readers.waiting.remove(&id);
                }
            }
            About::Anything => readers.give(event),
        }
    }

    /// When somebody last waited for what the server says: now, if somebody does.
    pub fn used_at(&self) -> Instant {
        self.idle_since().unwrap_or_else(Instant::now)
    }

    /// Since when nobody asks or listens; `None` if somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        let readers = self.readers();
        (readers.uses == 0).then_some(readers.used_at)
    }

    /// Whether a request waits for its answer.
    pub fn is_asked(&self) -> bool {
        !self.readers().waiting.is_empty()
    }

    /// Ends the conversation: whoever reads has read everything, and nobody begins to.
    pub fn close(&self) {
        let mut readers = self.readers();
        readers.is_over = true;
        readers.waiting.clear();
        readers.standing.clear();
        readers.unclaimed.clear();
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
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.uses += 1;
        self.begun
    }

    fn give(&mut self, event: Bytes) {
        if self.is_over {
            return;
        }
        let mut event = loop {
            match self.unasked.take(&event) {
                Some(event) => break event,
                None if self.unclaimed.pop_front().is_some() => {}
                None => {
                    if self.standing.pop_back().is_none() {
                        tracing::debug!(reason = "queue_full", "an event of the upstream was dropped");
                    }
                    return;
                }
            }
        };
        while let Some(standing) = self.standing.back() {
            match standing.try_send(event) {
                Ok(()) => return,
                Err(error) => event = error.into_inner(),
            }
            self.standing.pop_back();
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

/// A reader's place in its conversation.
pub struct Reads {
    hub: Arc<Hub>,
    waiting: Option<(Box<str>, u64)>,
}

impl Drop for Reads {
    fn drop(&mut self) {
        let mut readers = self.hub.readers();
        readers.uses = readers.uses.saturating_sub(1);
        readers.used_at = Instant::now();
        if let Some((id, reader)) = &self.waiting
            && readers.waiting.get(id).is_some_and(|waiting| waiting.reader == *reader)
        {
            readers.waiting.remove(id);
        }
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
    use crate::runtime::budget::QUEUED_BYTES_MAX;

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(&"key:ci".into(), PathAndQuery::from_static("/message"), 7, &Buffers::new(usize::MAX)))
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
    async fn what_is_for_nobody_goes_to_the_last_standing_stream_or_a_request_or_waits() {
        let hub = hub();
        hub.deliver("early".into(), About::Anything);
        let (mut request, waits) = hub.wait("1", None).unwrap();
        hub.deliver("second".into(), About::Anything);
        let (mut standing, _stands) = hub.stand().unwrap();
        hub.deliver("third".into(), About::Anything);
        let (mut last, _stands) = hub.stand().unwrap();
        hub.deliver("fourth".into(), About::Anything);
        assert_eq!((request.try_recv().ok(), request.try_recv().ok()), (Some("early".into()), Some("second".into())));
        assert_eq!((standing.try_recv().ok(), last.try_recv().ok()), (Some("third".into()), Some("fourth".into())));
        drop(last);
        hub.deliver("fifth".into(), About::Anything);
        assert_eq!(standing.try_recv().ok(), Some("fifth".into()));
        drop(standing);
        hub.deliver("sixth".into(), About::Anything);
        assert_eq!(request.try_recv().ok(), Some("sixth".into()));
        drop(waits);
        hub.deliver("seventh".into(), About::Anything);
        assert_eq!(hub.stand().unwrap().0.try_recv().ok(), Some("seventh".into()));
    }

    #[tokio::test]
    async fn every_queue_has_its_limit() {
        let hub = hub();
        for number in 0..=UNCLAIMED_MAX {
            hub.deliver(number.to_string().into(), About::Anything);
        }
        let (mut standing, _stands) = hub.stand().unwrap();
        assert_eq!(standing.try_recv().ok(), Some("1".into()));
        for _ in 0..=EVENTS_MAX {
            hub.deliver("x".into(), About::Anything);
        }
        assert_eq!(std::iter::from_fn(|| standing.try_recv().ok()).count(), EVENTS_MAX);
        let mut streams: Vec<_> = (0..=STANDING_MAX).map(|_| hub.stand().unwrap()).collect();
        assert_eq!(std::iter::from_fn(|| streams[0].0.try_recv().ok()).count(), UNCLAIMED_MAX);
        assert!(streams[0].0.recv().await.is_none(), "the oldest is ended");
        assert!(streams[1].0.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
        let held: Vec<_> = (0..WAITING_MAX).map(|id| hub.wait(&id.to_string(), None)).collect();
        assert!(held.iter().all(Result::is_ok) && hub.wait("x", None).is_err());
        drop(held);
        let _first = hub.wait("1", None).unwrap();
        assert_eq!(hub.wait("1", None).err(), Some(Unread::InUse));
    }

    #[tokio::test]
    async fn a_reader_that_lets_too_many_bytes_wait_loses_its_stream_and_the_oldest_unclaimed_go() {
        let hub = hub();
        let quarter = |name: u8| Bytes::from(vec![name; QUEUED_BYTES_MAX / 4]);
        for name in 0..5 {
            hub.deliver(quarter(name), About::Anything);
        }
        let (mut lazy, _lazy) = hub.stand().unwrap();
        hub.deliver("more".into(), About::Anything);
        let (mut request, _waits) = hub.wait("1", Some("5")).unwrap();
        hub.deliver("about it".into(), About::Progress("5"));
        assert_eq!(request.try_recv().ok(), Some("about it".into()), "requests pay for nobody else");
        let first: Vec<_> = std::iter::from_fn(|| lazy.try_recv().ok()).map(|event| event[0]).collect();
        assert_eq!(first, [1, 2, 3, 4], "no event in between is missing");
        assert_eq!(lazy.recv().await, None);
        for _ in 0..5 {
            hub.deliver(quarter(9), About::Progress("5"));
        }
        let (mut other, _other) = hub.wait("2", None).unwrap();
        hub.deliver("answer".into(), About::Answer("2"));
        assert_eq!(other.recv().await, None, "an answer for which there is no room");
        assert_eq!((std::iter::from_fn(|| request.try_recv().ok()).count(), request.recv().await), (4, None));
    }

    #[tokio::test]
    async fn an_id_is_free_again_with_its_answer_though_the_first_reader_is_still_there() {
        let hub = hub();
        let (_, first) = hub.wait("1", None).unwrap();
        hub.deliver("first".into(), About::Answer("1"));
        let (mut events, _second) = hub.wait("1", None).unwrap();
        drop(first);
        hub.deliver("second".into(), About::Answer("1"));
        assert_eq!(events.recv().await, Some("second".into()));
    }

    #[tokio::test]
    async fn the_end_lets_readers_read_what_there_is_and_no_others_begin() {
        let hub = hub();
        let (mut request, _waits) = hub.wait("1", None).unwrap();
        let (mut standing, _stands) = hub.stand().unwrap();
        hub.deliver("last".into(), About::Anything);
        hub.close();
        hub.closed().await;
        assert_eq!((standing.recv().await, standing.recv().await), (Some("last".into()), None));
        assert_eq!(request.recv().await, None);
        assert_eq!((hub.wait("2", None).err(), hub.stand().err()), (Some(Unread::Over), Some(Unread::Over)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_is_in_use_as_long_as_somebody_reads() {
        let hub = hub();
        let second = std::time::Duration::from_secs(1);
        let (begun, (_, stands), (_, waits)) = (hub.used_at(), hub.stand().unwrap(), hub.wait("1", None).unwrap());
        tokio::time::advance(second).await;
        assert_eq!(hub.used_at(), begun + second);
        drop(stands);
        tokio::time::advance(second).await;
        assert_eq!(hub.idle_since(), None);
        drop(waits);
        tokio::time::advance(second).await;
        assert_eq!((hub.used_at(), hub.idle_since()), (begun + second * 2, Some(begun + second * 2)));
    }
}
