//! The whole body of a request, or why not.
//!
//! Bounded in bytes, at a pace, and under one deadline for all of it, read before anything is sent anywhere.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;
use crate::transport::connection::Connection;
use crate::transport::pace::Pace;

/// The beginning of a body, for which there is always room: a ping and the like are read however much is held. Of the requests
/// under way on one connection, for one of them.
const SMALL_BODY_BYTES_MAX: usize = 4096;
/// Bytes read and thrown away after a refusal, so that the client reads the answer instead of a reset.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long that may take.
const DRAIN: Duration = Duration::from_secs(2);

/// Limits of one body.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its bytes.
    pub bytes_max: usize,
    /// From the end of the head to its end.
    pub timeout: Duration,
    /// How fast it must come.
    pub pace: Pace,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// It did not arrive in time.
    Timeout,
    /// It came too slowly to be waited for.
    TooSlow,
    /// There is no room for it.
    NoRoom,
    /// It ended early, or its chunks are malformed.
    Broken,
}

/// Bytes of a body that must have come before its announced length is believed and room is made for the whole of it.
const BELIEVED_BYTES: usize = 1024 * 1024;
/// Until then there is room for so many times what came.
const AHEAD: usize = 4;

/// Chunks put together; a single one, which is the usual case, is not copied.
///
/// Where the length is known, a body is put together where it stays. It would otherwise leave behind, with every growth, as
/// much as it had, which together is as much again as the whole.
#[derive(Debug, Default)]
pub struct Gathered {
    first: Bytes,
    all: Vec<u8>,
    expected: usize,
}

impl Gathered {
    /// Nothing so far, of a body of this length if that was announced. Whoever announces much and sends little gets little.
    pub fn expecting(length: Option<u64>) -> Self {
        let expected = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        Self { expected, ..Self::default() }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if self.is_empty() {
            self.first = chunk;
            return;
        }
        let bytes = self.len() + chunk.len();
        if bytes > self.all.capacity() {
            let ahead = if bytes >= BELIEVED_BYTES { self.expected } else { self.expected.min(bytes * AHEAD) };
            // More than was announced, or of unknown length: as a vector grows.
            self.all.reserve_exact(ahead.saturating_sub(self.all.len()));
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.all.extend_from_slice(&chunk);
    }

    /// All of it.
    pub fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

/// Reads the body of the present request; `holder` holds it from now on.
///
/// # Errors
/// See [`BodyError`]; nothing of the body is kept, and `holder` holds nothing.
pub async fn read_whole(session: &mut ServerSession, limits: &Limits, holder: &mut Holder) -> Result<Bytes, BodyError> {
    let read = gather(session, limits, holder).await;
    if read.is_err() {
        // The refusal takes a while to be written and the rest of the body to be drained; others wait for this room.
        holder.set_anyway(0);
    }
    read
}

async fn gather(session: &mut ServerSession, limits: &Limits, holder: &mut Holder) -> Result<Bytes, BodyError> {
    let began = Instant::now();
    let length = content_length(session);
    if length.is_some_and(|length| length > limits.bytes_max as u64) {
        return Err(BodyError::TooLarge);
    }
    if session.req_header().headers.contains_key(http::header::EXPECT) {
        let kept = session.get_keepalive();
        session.write_continue_response().await.map_err(|_| BodyError::Broken)?;
        // Pingora takes it for an answer ahead of the request's end, after which it would close the connection.
        session.set_keepalive(kept);
    }
    let mut whole = Gathered::expecting(length);
    loop {
        let lasts = limits.pace.lasts(whole.len());
        let next = session.read_request_body();
        let chunk = match timeout_at(began + lasts.min(limits.timeout), next).await {
            Ok(chunk) => chunk.map_err(|_| BodyError::Broken)?,
            Err(_) if lasts < limits.timeout => return Err(BodyError::TooSlow),
            Err(_) => return Err(BodyError::Timeout),
        };
        let Some(chunk) = chunk else { return Ok(whole.finish()) };
        let bytes = whole.len() + chunk.len();
        if bytes > limits.bytes_max {
            return Err(BodyError::TooLarge);
        }
        if holder.set(bytes, Share::Request).is_err() {
            let is_favoured = || Connection::current().is_none_or(|connection| connection.is_favoured());
            if bytes > SMALL_BODY_BYTES_MAX || !is_favoured() {
                return Err(BodyError::NoRoom);
            }
            holder.set_anyway(bytes);
        }
        whole.push(chunk);
    }
}

/// Reads and drops what is left of a refused request's body, within bounds.
pub async fn drain(session: &mut ServerSession) {
    let read = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            read += chunk.len();
            if read > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // Either way the connection is closed next.
    let _ = tokio::time::timeout(DRAIN, read).await;
}

fn content_length(session: &ServerSession) -> Option<u64> {
    session.req_header().headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_in_order_and_a_single_one_is_not_copied() {
        let mut one = Gathered::default();
        let chunk = Bytes::from(vec![1, 2, 3]);
        one.push(chunk.clone());
        assert_eq!(one.finish().as_ptr(), chunk.as_ptr());
        let mut many = Gathered::default();
        assert!(many.is_empty());
        for part in ["ab", "", "c", "def"] {
            many.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(many.len(), 6);
        assert_eq!(many.finish(), "abcdef");
    }

    #[test]
    fn a_body_of_known_length_stays_where_it_is_put_together() {
        let (chunk, length) = (Bytes::from(vec![7; 16 * 1024]), 3 * BELIEVED_BYTES);
        let mut body = Gathered::expecting(Some(length as u64));
        let mut places = Vec::new();
        while body.len() < length {
            body.push(chunk.clone());
            let whole = body.all.capacity();
            assert!(whole <= length && (body.len() >= BELIEVED_BYTES || whole <= AHEAD * body.len()), "{whole}");
            places.push(body.all.as_ptr());
        }
        places.dedup();
        assert!(places.len() <= 6, "{} places", places.len());
        assert_eq!(body.finish().as_ptr(), *places.last().unwrap());
    }

    #[test]
    fn more_than_was_announced_is_put_together_all_the_same() {
        let mut body = Gathered::expecting(Some(3));
        for part in ["abc", "def", "g"] {
            body.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(body.finish(), "abcdefg");
        let mut huge = Gathered::expecting(Some(u64::MAX));
        huge.push(Bytes::from_static(b"a"));
        huge.push(Bytes::from_static(b"b"));
        assert!(huge.all.capacity() <= 64);
    }
}
