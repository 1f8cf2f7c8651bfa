//! Who gets what a server of HTTP+SSE says, when its client speaks Streamable HTTP?
//!
//! The server says everything on one stream. Answers go to the request that has their id, progress to the one that has
//! its token, and everything else to the client's standing stream, or as long as there is none to a request that is
//! still answered. What nobody can take is kept for a while, and then the oldest is dropped. Nobody is waited for: a reader
//! that does not keep up loses its stream, so that the others go on.

#[cfg(test)]
mod tests;

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

use crate::principal::Principal;
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

/// How far the caller of one conversation is from that of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// The same caller.
    Own,
    /// A caller whose use counts with its own: another one that stands on the same key.
    Counted,
    /// A caller in the same workspace.
    Workspace,
    /// Anybody else.
    Other,
}

/// One conversation.
pub struct Hub {
    principal: Arc<str>,
    /// Under whose id the caller's use counts.
    counted: Arc<str>,
    workspace: Option<Arc<str>>,
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
    pub fn new(principal: &Principal, path: PathAndQuery, endpoint: u64, buffers: &Arc<Buffers>) -> Self {
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
        let counted = Arc::clone(principal.counted());
        let (workspace, principal) = (principal.workspace.clone(), Arc::clone(&principal.id));
        Self { principal, counted, workspace, path, endpoint, readers: Mutex::new(readers), closed: Notify::new() }
    }

    /// How far its caller is from that of another conversation.
    pub fn distance(&self, other: &Self) -> Distance {
        if self.principal == other.principal {
            Distance::Own
        } else if self.counted == other.counted {
            Distance::Counted
        } else if self.workspace == other.workspace {
            Distance::Workspace
        } else {
            Distance::Other
        }
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
