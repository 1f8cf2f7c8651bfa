//! The stream around a client's socket: no parser sees a head that was not judged.
//!
//! Holds a request's head back until it is whole and [`head::judge`] let it through, under one deadline for all of
//! it. A refused head is answered here, as no later hook would see it. While a request is being answered, what the
//! client sends early is kept for the next head, so that it neither aborts the answer nor gets lost.

use std::borrow::Cow;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::GetSocketDigest;
use pingora::protocols::GetTimingDigest;
use pingora::protocols::Peek;
use pingora::protocols::Shutdown;
use pingora::protocols::SocketDigest;
use pingora::protocols::Ssl;
use pingora::protocols::Stream;
use pingora::protocols::TimingDigest;
use pingora::protocols::UniqueID;
use pingora::protocols::UniqueIDType;
use pingora::protocols::raw_connect::ProxyDigest;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::transport::admission;
use crate::transport::arrival::Front;
use crate::transport::buffers::Buffers;
use crate::transport::buffers::Full;
use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;
use crate::transport::chunks::Chunks;
use crate::transport::chunks::Malformed;
use crate::transport::connection::Connection;
use crate::transport::connection::Stage;
use crate::transport::head;
use crate::transport::head::Framing;
use crate::transport::head::Refusal;
use crate::transport::pace::Pace;

/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// Bytes a client may send ahead of the answer to its last request before the gateway stops reading.
const EARLY_BYTES_MAX: usize = 64 * 1024;
/// Bytes read and thrown away after the last answer on a connection, so that it is not lost in a reset.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);

/// What the gate asks of the gateway: its present limits, and an answer to a refused head.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Whether connections are still taken.
    fn is_open(&self) -> bool;

    /// The limits for the next head on a connection.
    fn limits(&self) -> Limits;

    /// The account of what is held.
    fn buffers(&self) -> &Arc<Buffers>;

    /// Who stands in front of the gateway, and how it is reached, at this moment.
    fn front(&self) -> Arc<Front>;

    /// Whether it is the gateway itself that asks on a connection, of which a byte has come: then nothing of it goes on record.
    fn is_itself(&self, connection: &Connection) -> bool;

    /// Puts a connection on record that ends without an answer.
    fn dropped(&self, connection: &Connection, reason: &'static str);

    /// Says yes once clients are to go elsewhere with their next request.
    fn draining(&self) -> watch::Receiver<bool>;

    /// Puts a refused head on record and returns the answer to it.
    fn refused(&self, connection: &Connection, refusal: &Refusal, head: &[u8]) -> Refused;
}

/// The answer to a refused head.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// One further header.
    pub header: Option<(&'static str, Cow<'static, str>)>,
    /// A JSON document.
    pub body: Bytes,
}

impl Refused {
    /// As it goes over a connection of HTTP/1.1, which it ends.
    fn to_http1(&self) -> BytesMut {
        let status = http::StatusCode::from_u16(self.status).ok();
        let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("Refused");
        let further = self.header.as_ref().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{further}Connection: close\r\n\r\n",
            self.status,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat().as_slice().into()
    }
}

/// Limits of a connection and of one head on it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What one address may have.
    pub address: admission::Limits,
    /// What a head may measure.
    pub head: head::Limits,
    /// From the first byte to the last.
    pub timeout: Duration,
    /// From the end of one request to the first byte of the next.
    pub idle: Duration,
    /// How fast a client must take what is written to it, and for how long it may take nothing.
    pub write: Pace,
    /// Requests on one connection.
    pub requests_max: u64,
}

/// A client's stream with the gate in front of it.
pub struct GateIo<G> {
    inner: Stream,
    connection: Arc<Connection>,
    keeper: Arc<G>,
    /// Bytes read and not yet handed on.
    held: BytesMut,
    /// How much of `held` was searched for the end of a head.
    searched: usize,
    /// How much may still be handed on as part of the present request.
    open: u64,
    /// What is known of a chunked body that has not ended yet: only what it lets through is opened.
    chunks: Option<Chunks>,
    deadline: Option<Pin<Box<Sleep>>>,
    first: bool,
    refusing: Option<Refusing>,
    /// What `held` takes of the process's account, beyond a first read.
    holder: Holder,
    /// What the client has yet to take.
    owed: Option<Owed>,
    /// The client took nothing for too long: nothing more is written.
    stuck: bool,
}

/// A write of which the client has not taken everything.
struct Owed {
    since: Instant,
    /// When it last took something, and how much it took since the write waits.
    last: Instant,
    taken: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Owed {
    fn new(now: Instant) -> Self {
        Self { since: now, last: now, taken: 0, deadline: Box::pin(tokio::time::sleep_until(now)) }
    }

    fn take(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        self.last = Instant::now();
    }

    /// Ready when nothing was taken for too long, or too little.
    fn poll_overdue(&mut self, cx: &mut Context<'_>, pace: &Pace) -> Poll<()> {
        let due = (self.last + pace.patience).min(self.since + pace.lasts(self.taken));
        if self.deadline.deadline() != due {
            self.deadline.as_mut().reset(due);
        }
        self.deadline.as_mut().poll(cx)
    }
}

/// The answer to a refused head on its way out.
struct Refusing {
    answer: BytesMut,
    linger_bytes: usize,
    shut: bool,
}

impl<G: Gatekeeper> GateIo<G> {
    /// Puts the gate around a fresh connection.
    pub fn new(inner: Stream, connection: Arc<Connection>, keeper: Arc<G>) -> Self {
        let holder = keeper.buffers().holder();
        Self {
            inner,
            connection,
            keeper,
            held: BytesMut::new(),
            searched: 0,
            open: 0,
            chunks: None,
            deadline: None,
            first: true,
            refusing: None,
            holder,
            owed: None,
            stuck: false,
        }
    }

    /// Answers a connection that is not served, reads a bounded rest of what it sends, and ends it.
    pub async fn turn_away(mut self, refusal: &Refusal) {
        self.refuse(refusal);
        // The client may be gone already.
        let _ = poll_fn(|cx| self.poll_refuse(cx)).await;
    }

    /// Ends a connection that is not served without waiting for anything: what the socket takes at once is all that its
    /// client may read.
    pub fn cut_off(mut self, refusal: &Refusal) {
        let answer = self.keeper.refused(&self.connection, refusal, &self.held).to_http1();
        let mut context = Context::from_waker(Waker::noop());
        // A client that does not take it loses the reason and nothing else.
        let _ = Pin::new(&mut self.inner).poll_write(&mut context, &answer);
    }

    /// Reads more of a head; ready once it was let through (bytes are held and open) or the connection is at its end.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.refusing.is_some() {
                return self.poll_refuse(cx);
            }
            let limits = self.keeper.limits();
            if let Some(end) = head::end(&self.held, self.searched) {
                self.let_through(end, &limits);
                if self.refusing.is_none() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            self.searched = self.held.len();
            if self.held.len() > limits.head.block_bytes_max {
                self.refuse(&head::TOO_LARGE);
                continue;
            }
            let before = self.held.len();
            if self.account().is_err() {
                self.refuse(&head::NO_ROOM);
                continue;
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {
                    if before == 0 {
                        self.deadline = None;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_deadline(cx, &limits));
                    if self.held.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    self.refuse(&head::TIMEOUT);
                }
            }
        }
    }

    /// Judges the head that ends at `end`, and opens it with its body to the reader or begins to refuse it.
    fn let_through(&mut self, end: usize, limits: &Limits) {
        self.deadline = None;
        let verdict = self.held.get(..end).map(|bytes| head::judge(bytes, &limits.head));
        match verdict {
            Some(Ok(framing)) => {
                self.searched = 0;
                self.first = false;
                (self.open, self.chunks) = match framing {
                    Framing::Length(length) => (length.saturating_add(end as u64), None),
                    Framing::Chunked => (end as u64, Some(Chunks::new())),
                };
                self.connection.enter(Stage::Body);
            }
            Some(Err(refusal)) => self.refuse(&refusal),
            None => self.refuse(&head::TOO_LARGE),
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let answer = self.keeper.refused(&self.connection, refusal, &self.held).to_http1();
        self.held.clear();
        self.holder.set_anyway(0);
        self.deadline = Some(Box::pin(tokio::time::sleep(LINGER)));
        self.refusing = Some(Refusing { answer, linger_bytes: LINGER_BYTES_MAX, shut: false });
    }

    /// Writes the refusal, says the end, and reads a bounded rest. Ready (with nothing to read) when the connection is over.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(deadline) = self.deadline.as_mut()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let Some(refusing) = self.refusing.as_mut() else { return Poll::Ready(Ok(())) };
        while !refusing.answer.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &refusing.answer))?;
            refusing.answer.advance(written);
        }
        if !refusing.shut {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            refusing.shut = true;
        }
        let mut waste = [0_u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 || read > refusing.linger_bytes {
                return Poll::Ready(Ok(()));
            }
            refusing.linger_bytes -= read;
        }
    }

    /// Reads once into `held`; 0 is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Takes what is held beyond a first read from the account.
    fn account(&mut self) -> Result<(), Full> {
        if self.held.len() <= READ_BYTES { Ok(()) } else { self.holder.set(self.held.len(), Share::Request) }
    }

    /// Ready when the head is late. The clock starts with the head's first byte; before it, the idle limit holds
    /// (on a fresh connection the head's own, as a client connects in order to ask).
    fn poll_deadline(&mut self, cx: &mut Context<'_>, limits: &Limits) -> Poll<()> {
        let wait = if self.held.is_empty() && !self.first { limits.idle } else { limits.timeout };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + wait)));
        deadline.as_mut().poll(cx)
    }

    /// Hands on what is held and open, or reads on within what is open.
    fn poll_open(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.open == 0 {
            ready!(self.poll_chunks(cx))?;
        }
        let open = usize::try_from(self.open).unwrap_or(usize::MAX);
        if open == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() {
            let room = buffer.remaining().min(open);
            let mut limited = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut limited))?;
            let read = limited.filled().len();
            buffer.advance(read);
            self.close(read);
            return Poll::Ready(Ok(()));
        }
        let count = self.held.len().min(open).min(buffer.remaining());
        if let Some(bytes) = self.held.get(..count) {
            buffer.put_slice(bytes);
        }
        self.held.advance(count);
        self.close(count);
        if self.held.is_empty() {
            self.holder.set_anyway(0);
        }
        Poll::Ready(Ok(()))
    }

    /// Judges more of a chunked body and opens it; what comes behind its end stays closed. Nothing is opened at the end
    /// of the stream.
    fn poll_chunks(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(chunks) = self.chunks.as_mut() {
            let sound = chunks.feed(&self.held).map_err(|Malformed| io::Error::from(io::ErrorKind::InvalidData))?;
            self.open = sound as u64;
            if chunks.is_done() {
                self.chunks = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, handed: usize) {
        self.open = self.open.saturating_sub(handed as u64);
    }

    /// Passes on how much of `offered` bytes was written, or that the client takes too little. Pingora's own write timeout
    /// covers neither heads, ends of bodies and flushes, nor a client that reads on, but hardly.
    fn unless_stuck(
        &mut self,
        cx: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(taken)) if *taken < offered => {
                if let Some(owed) = self.owed.as_mut() {
                    owed.take(*taken);
                }
                return written;
            }
            Poll::Ready(_) => {
                self.owed = None;
                return written;
            }
            Poll::Pending => {}
        }
        let pace = self.keeper.limits().write;
        let owed = self.owed.get_or_insert_with(|| Owed::new(Instant::now()));
        ready!(owed.poll_overdue(cx, &pace));
        self.stuck = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and throws away a bounded rest of what the client sends.
    async fn waste(&mut self) {
        let mut left = LINGER_BYTES_MAX;
        let mut chunk = [0_u8; READ_BYTES];
        while let Ok(read) = self.inner.read(&mut chunk).await {
            if read == 0 || read > left {
                return;
            }
            left -= read;
        }
    }

    /// Whether anything may still be written.
    fn check_writable(&self) -> io::Result<()> {
        match () {
            () if self.stuck => Err(io::ErrorKind::TimedOut.into()),
            () if self.connection.is_cut() => Err(io::ErrorKind::ConnectionAborted.into()),
            () => Ok(()),
        }
    }

    /// Reads ahead while a request is being answered; ready only at the end of the stream, and for a client that sends
    /// more ahead than is kept, which is cut off from sending.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            // The answer may be a stream of hours: it does not keep the room that the request took.
            self.held = BytesMut::new();
        }
        while self.held.len() < EARLY_BYTES_MAX && self.account().is_ok() {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<G: Gatekeeper> AsyncRead for GateIo<G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.connection.stage() {
            Stage::Head => {
                ready!(this.poll_head(cx))?;
                if this.connection.stage() == Stage::Body { this.poll_open(cx, buffer) } else { Poll::Ready(Ok(())) }
            }
            Stage::Body if this.open > 0 || this.chunks.is_some() => this.poll_open(cx, buffer),
            Stage::Body | Stage::Answering => this.poll_early(cx),
        }
    }
}

impl<G: Gatekeeper> AsyncWrite for GateIo<G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.unless_stuck(cx, bytes.len(), written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writable()?;
        let flushed = Pin::new(&mut self.inner).poll_flush(cx).map_ok(|()| 0);
        self.unless_stuck(cx, 0, flushed).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writable()?;
        let ended = Pin::new(&mut self.inner).poll_shutdown(cx).map_ok(|()| 0);
        self.unless_stuck(cx, 0, ended).map_ok(drop)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.unless_stuck(cx, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<G: Gatekeeper> Shutdown for GateIo<G> {
    async fn shutdown(&mut self) {
        let wait = self.keeper.limits().write.patience;
        if self.check_writable().is_ok() {
            // Dropping the stream ends it as well.
            let _ = tokio::time::timeout(wait, self.inner.shutdown()).await;
            // A client that sends ahead may be sending still: a reset would take the last answer from it.
            if !self.held.is_empty() {
                let _ = tokio::time::timeout(LINGER, self.waste()).await;
            }
        }
    }
}

impl<G> UniqueID for GateIo<G> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<G> Ssl for GateIo<G> {}

impl<G> GetTimingDigest for GateIo<G> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<G> GetProxyDigest for GateIo<G> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl<G> GetSocketDigest for GateIo<G> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl<G: Gatekeeper> Peek for GateIo<G> {}

impl<G> std::fmt::Debug for GateIo<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateIo").field("connection", &self.connection).finish_non_exhaustive()
    }
}
