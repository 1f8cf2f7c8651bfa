//! Where does an answer go?
//!
//! Mostly back on the request itself. The answer to an item of a batch is gathered, and an HTTP+SSE client reads its
//! answers on another stream. Whoever answers need not know which of them it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::mcp::sse;
use crate::runtime::Mailbox;

use super::batch::Gathering;
use super::reply;
use super::reply::Gone;
use super::reply::Reply;

/// How much of an answer any number of calls of one HTTP+SSE client may hold at once.
const SMALL_ANSWER: usize = 64 * 1024;

/// Where an answer goes.
pub(crate) enum Client<'c> {
    /// Back on the request.
    Http(&'c mut ServerSession),
    /// Into the one answer to a batch.
    Batch(&'c mut ServerSession, &'c mut Gathering),
    /// Onto the stream of an HTTP+SSE client, and the turn to read an answer that is large.
    Stream(Arc<Mailbox>, Option<OwnedSemaphorePermit>),
}

impl Client<'_> {
    /// Waits for `future`, but no longer than the client is there.
    ///
    /// In 2026-07-28 a client cancels by leaving, and who only reads a stream leaves it so: the end of what it sends is
    /// enough (`ends_on_close`). A call of the older revisions whose client half-closed is still waited for; only a broken
    /// connection says that nobody does.
    pub(crate) async fn watched<F: Future>(&mut self, ends_on_close: bool, future: F) -> Result<F::Output, Gone> {
        match self {
            Self::Http(session) | Self::Batch(session, _) => {
                session.set_abort_on_close(ends_on_close);
                tokio::select! {
                    biased;
                    output = future => Ok(output),
                    // Ready only when the client is gone: what it sends early is held back by the gate.
                    _ = session.read_body_or_idle(true) => Err(Gone),
                }
            }
            Self::Stream(mailbox, _) => {
                tokio::select! {
                    biased;
                    output = future => Ok(output),
                    () = mailbox.gone() => Err(Gone),
                }
            }
        }
    }

    /// Waits until more may be read of an answer of which so many bytes are held, and tells how long that took.
    ///
    /// A client that reads its own answers holds up its server by itself. Of what goes into a mailbox, one large answer is
    /// read at a time, and the next when that was put in: many calls would otherwise hold theirs in memory.
    pub(crate) async fn room(&mut self, held: usize) -> Result<Duration, Gone> {
        let Self::Stream(mailbox, turn) = self else { return Ok(Duration::ZERO) };
        if held < SMALL_ANSWER {
            *turn = None;
            return Ok(Duration::ZERO);
        }
        let asked = Instant::now();
        if turn.is_none() {
            *turn = Some(mailbox.turn().await.ok_or(Gone)?);
        }
        Ok(asked.elapsed())
    }

    /// Answers with one whole message, or with a status alone.
    pub(crate) async fn whole(&mut self, reply: Reply<'_>) -> Result<(), Gone> {
        match self {
            Self::Http(session) => reply::whole(session, reply).await,
            Self::Batch(_, gathering) => {
                gathering.push(reply.body);
                Ok(())
            }
            // A message that is only accepted has no answer on the stream.
            Self::Stream(..) if reply.body.is_empty() => Ok(()),
            Self::Stream(mailbox, _) => put(mailbox, sse::message_event(&reply.body)).await,
        }
    }

    /// Whether something was written that cannot be taken back.
    pub(crate) fn is_begun(&self) -> bool {
        match self {
            Self::Http(session) => reply::is_begun(session),
            Self::Batch(..) | Self::Stream(..) => true,
        }
    }

    /// Begins to answer with events.
    pub(crate) async fn begin(&mut self, headers: &[(&'static str, &str)]) -> Result<(), Gone> {
        match self {
            Self::Http(session) => reply::stream_head(session, headers).await,
            // A batch becomes a stream only when there is something to say before its answer.
            Self::Batch(..) | Self::Stream(..) => Ok(()),
        }
    }

    /// Writes whole events.
    pub(crate) async fn events(&mut self, events: Bytes) -> Result<(), Gone> {
        match self {
            Self::Http(session) => reply::stream_piece(session, events).await,
            Self::Batch(session, _) => {
                if !reply::is_begun(session) {
                    reply::stream_head(session, &[]).await?;
                }
                reply::stream_piece(session, events).await
            }
            Self::Stream(mailbox, _) => put(mailbox, events).await,
        }
    }

    /// Takes the answer's message if it goes elsewhere than among the events.
    pub(crate) fn takes_answer(&mut self, message: &Bytes) -> bool {
        match self {
            Self::Batch(_, gathering) => {
                gathering.push(message.clone());
                true
            }
            Self::Http(_) | Self::Stream(..) => false,
        }
    }

    /// Ends what [`Client::begin`] began.
    pub(crate) async fn end(&mut self) -> Result<(), Gone> {
        match self {
            Self::Http(session) => reply::stream_end(session).await,
            Self::Batch(..) | Self::Stream(..) => Ok(()),
        }
    }

    /// Whether comments keep this way to the client alive. A batch may still become a plain answer; the stream of an
    /// HTTP+SSE client is kept alive by itself.
    pub(crate) fn is_kept_alive(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    /// Nothing more can be said on this connection.
    pub(crate) fn give_up(&mut self) {
        if let Self::Http(session) | Self::Batch(session, _) = self {
            reply::cut(session);
        }
    }

    /// The mailbox of the stream this client reads, if it is one of HTTP+SSE.
    pub(crate) fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        match self {
            Self::Stream(mailbox, _) => Some(mailbox),
            Self::Http(_) | Self::Batch(..) => None,
        }
    }
}

async fn put(mailbox: &Mailbox, events: Bytes) -> Result<(), Gone> {
    if mailbox.put(events).await { Ok(()) } else { Err(Gone) }
}
