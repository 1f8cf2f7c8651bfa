//! How does something get onto an HTTP+SSE client's stream?
//!
//! The stream is open on this node; messages of the client come by other requests. What answers them is put into the
//! stream's mailbox as whole events, in order. A client that does not read fills its mailbox, and then its stream ends. Until then, what is to be put in
//! waits: where it is large, already when it is read from the server.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::runtime::budget::Budget;
use crate::session::Session;
use crate::transport::buffers::Buffers;

/// Events that wait for a client to read them.
const EVENTS_MAX: usize = 256;

/// Large answers to one client that are read from the server at once.
const LARGE_ANSWERS_MAX: usize = 1;

/// Requests of one client under way at once.
const CALLS_MAX: usize = 64;

/// The way onto one open stream.
pub struct Mailbox {
    events: mpsc::Sender<Bytes>,
    queued: Budget,
    turns: Arc<Semaphore>,
    session: Mutex<Option<Session>>,
    calls: Arc<Semaphore>,
    listens: AtomicBool,
    ends: AtomicBool,
}

impl Mailbox {
    /// A mailbox, and what is taken out of it.
    pub fn new(buffers: &Arc<Buffers>) -> (Self, mpsc::Receiver<Bytes>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let mailbox = Self {
            events,
            queued: Budget::new(buffers),
            turns: Arc::new(Semaphore::new(LARGE_ANSWERS_MAX)),
            session: Mutex::default(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            listens: AtomicBool::new(false),
            ends: AtomicBool::new(false),
        };
        (mailbox, receiver)
    }

    /// Puts whole events in. False once the stream is gone; waits while the mailbox is full, be it of events or of bytes.
    pub async fn put(&self, events: Bytes) -> bool {
        let counted = tokio::select! {
            counted = self.queued.wait(events) => counted,
            () = self.events.closed() => None,
        };
        match counted {
            Some(events) => self.events.send(events).await.is_ok(),
            None => false,
        }
    }

    /// Ends the stream behind everything that was put in. The end mark is an event of no bytes.
    pub async fn end(&self) {
        // A stream that is gone has ended.
        let _ = self.put(Bytes::new()).await;
    }

    /// Waits for the turn to read a large answer of the server, which lasts until it is dropped: there is no place in the
    /// mailbox for many of them. `None` once the stream is gone.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            turn = Arc::clone(&self.turns).acquire_owned() => turn.ok(),
            () = self.events.closed() => None,
        }
    }

    /// Ready once the stream is gone.
    pub async fn gone(&self) {
        self.events.closed().await;
    }

    /// A place among the requests under way, until it is dropped; `None` while there are as many as are allowed.
    pub fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Whether to begin listening to the server: true the first time that this is asked, however often a client says that
    /// it is ready.
    pub fn begins_to_listen(&self) -> bool {
        !self.listens.swap(true, Ordering::Relaxed)
    }

    /// Whether to end the stream: true the first time that this is asked, however often a client goes on in a session that
    /// is gone.
    pub fn begins_to_end(&self) -> bool {
        !self.ends.swap(true, Ordering::Relaxed)
    }

    /// Whether a request waits for its answer.
    pub fn is_asked(&self) -> bool {
        self.calls.available_permits() < CALLS_MAX
    }

    /// The server's session that the conversation on this stream has, once `initialize` was answered.
    pub fn session(&self) -> Option<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the server's session.
    pub fn settle(&self, session: Session) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::runtime::budget::QUEUED_BYTES_MAX;

    #[tokio::test]
    async fn events_come_out_in_order_until_the_stream_is_gone() {
        let (mailbox, mut events) = Mailbox::new(&Buffers::new(usize::MAX));
        assert!(mailbox.put("a".into()).await && mailbox.put("b".into()).await);
        assert_eq!((events.recv().await, events.recv().await), (Some("a".into()), Some("b".into())));
        drop(events);
        mailbox.gone().await;
        assert!(!mailbox.put("c".into()).await);
    }

    #[test]
    fn no_more_requests_are_under_way_than_the_limit() {
        let (mailbox, _events) = Mailbox::new(&Buffers::new(usize::MAX));
        let mut slots: Vec<_> = (0..CALLS_MAX).map(|_| mailbox.slot()).collect();
        assert!(slots.iter().all(Option::is_some) && mailbox.slot().is_none());
        slots.pop();
        assert!(mailbox.slot().is_some() && mailbox.is_asked());
        slots.clear();
        assert!(!mailbox.is_asked());
    }

    #[test]
    fn a_client_is_listened_for_and_ended_once() {
        let (mailbox, _events) = Mailbox::new(&Buffers::new(usize::MAX));
        assert!(mailbox.begins_to_listen() && !mailbox.begins_to_listen());
        assert!(mailbox.begins_to_end() && !mailbox.begins_to_end());
    }

    #[tokio::test]
    async fn a_full_mailbox_makes_its_writer_wait() {
        let (mailbox, mut events) = Mailbox::new(&Buffers::new(usize::MAX));
        for _ in 0..EVENTS_MAX {
            assert!(mailbox.put("x".into()).await);
        }
        let blocked = mailbox.put("y".into());
        tokio::select! {
            biased;
            _ = blocked => panic!("there was no room"),
            () = tokio::task::yield_now() => {}
        }
        assert!(events.recv().await.is_some());
        assert!(mailbox.put("y".into()).await);
    }

    #[tokio::test]
    async fn a_mailbox_full_of_bytes_makes_its_writers_wait_until_an_event_was_taken_out_or_the_stream_is_gone() {
        let (mailbox, mut events) = Mailbox::new(&Buffers::new(usize::MAX));
        let half = Bytes::from(vec![b'x'; QUEUED_BYTES_MAX / 2]);
        for _ in 0..2 {
            assert_eq!(mailbox.put(half.clone()).now_or_never(), Some(true));
        }
        assert_eq!(mailbox.put("y".into()).now_or_never(), None);
        let taken = events.recv().await;
        assert_eq!(mailbox.put("y".into()).now_or_never(), None, "what was taken out and not written counts");
        drop(taken);
        assert_eq!(mailbox.put("y".into()).now_or_never(), Some(true));
        let mut waits = std::pin::pin!(mailbox.put(half));
        assert_eq!(waits.as_mut().now_or_never(), None);
        drop(events);
        assert!(!waits.await);
    }

    #[tokio::test]
    async fn one_large_answer_is_read_at_a_time() {
        let (mailbox, events) = Mailbox::new(&Buffers::new(usize::MAX));
        let turn = mailbox.turn().await;
        assert!(turn.is_some() && mailbox.turn().now_or_never().is_none());
        drop(turn);
        let _turn = mailbox.turn().await.unwrap();
        drop(events);
        assert!(mailbox.turn().await.is_none());
    }
}
