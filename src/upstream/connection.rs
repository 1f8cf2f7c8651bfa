//! One open connection to an endpoint, driven by whoever uses it.
//!
//! hyper splits a connection into a handle and a future that reads and writes. That future gets no task of its own: the
//! task that waits for an answer polls it, so that an answer wakes one task, once, and nothing is handed from thread to
//! thread. What the handle and the future tell each other stays inside [`Connection::drive`]: only the socket and
//! deadlines wake the task.

use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

/// Header lines of one answer.
pub const ANSWER_HEADERS_MAX: usize = 64;
/// Bytes of one answer's head.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes read from a connection at once. Larger than a head may be, so that large answers need few reads.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Rounds in which handle and future may wake each other before the task lets others run.
const ROUNDS_MAX: usize = 16;

/// One open connection, ready for one request at a time. Dropping it closes the connection.
pub(crate) struct Connection {
    handle: SendRequest<Full<Bytes>>,
    /// Reads and writes; `None` once the connection is over.
    io: Option<Io>,
    relay: Arc<Relay>,
    waker: Waker,
    /// The pool's era in which it was dialled.
    pub(crate) era: u64,
}

type Io = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Connection {
    /// Begins HTTP/1.1 on a stream.
    pub(crate) async fn open<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (handle, io) = http1::Builder::new()
            .max_headers(ANSWER_HEADERS_MAX)
            .max_header_size(ANSWER_HEAD_BYTES_MAX)
            .max_buf_size(READ_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(Arc::clone(&relay));
        Ok(Self { handle, io: Some(Box::pin(io)), relay, waker, era: 0 })
    }

    /// Sends a request and waits for its answer's head. The request comes back if certainly none of it was written.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let sent = self.handle.try_send_request(request);
        self.drive(sent).await
    }

    /// Waits for what can only come to pass on this connection, and reads and writes meanwhile.
    pub(crate) async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let Self { io, relay, waker, .. } = self;
        poll_fn(|cx| {
            relay.task.register(cx.waker());
            let mut inner = Context::from_waker(waker);
            for _ in 0..ROUNDS_MAX {
                // Read as well as written: what a wake announced must be seen by this round.
                relay.state.swap(POLLED, Ordering::SeqCst);
                if let Poll::Ready(output) = future.as_mut().poll(&mut inner) {
                    return Poll::Ready(output);
                }
                poll_io(io, &mut inner);
                if let Poll::Ready(output) = future.as_mut().poll(&mut inner) {
                    return Poll::Ready(output);
                }
                if relay.rests() {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Whether it was seen to be over.
    pub(crate) fn has_ended(&self) -> bool {
        self.io.is_none() || self.handle.is_closed()
    }

    /// Whether it is over, as far as the socket says at this moment.
    pub(crate) fn is_over(&mut self) -> bool {
        poll_io(&mut self.io, &mut Context::from_waker(Waker::noop()));
        self.has_ended()
    }

    /// Waits until it can carry a request, at most so long. `false` if it cannot.
    pub(crate) async fn settle(&mut self, wait: Duration) -> bool {
        if self.is_over() {
            return false;
        }
        if self.handle.is_ready() {
            return true;
        }
        let is_ready = timeout(
            wait,
            poll_fn(|cx| {
                poll_io(&mut self.io, cx);
                self.handle.poll_ready(cx)
            }),
        );
        matches!(is_ready.await, Ok(Ok(())))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// What goes wrong on the connection is told to whoever waits for its answer.
fn poll_io(io: &mut Option<Io>, cx: &mut Context<'_>) {
    if let Some(running) = io
        && running.as_mut().poll(cx).is_ready()
    {
        *io = None;
    }
}

/// Nobody polls: a wake goes to the task.
const RESTS: u8 = 0;
/// Being polled: a wake makes for one more round.
const POLLED: u8 = 1;
/// Woken since the last round began.
const WOKEN: u8 = 2;

/// Keeps what handle and future tell each other from the task's scheduler, which would run the whole task once more.
#[derive(Default)]
struct Relay {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Relay {
    /// Ends a round; `false` if something happened meanwhile.
    fn rests(&self) -> bool {
        self.state.compare_exchange(POLLED, RESTS, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == RESTS {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;

    use super::*;

    async fn open() -> (Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(4096);
        (Connection::open(near).await.unwrap(), far)
    }

    fn request() -> Request<Full<Bytes>> {
        Request::builder().method("POST").uri("/").header("host", "a").body(Full::from("body")).unwrap()
    }

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn only_the_socket_wakes_the_task() {
        let (mut connection, mut far) = open().await;
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut sending = pin!(connection.send(request()));
        assert!(sending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0, "the request went out in the same breath");
        assert!(far.read(&mut [0; 4096]).await.unwrap() > 0);
        far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert!(sending.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_request_of_which_nothing_was_written_comes_back() {
        let (mut connection, far) = open().await;
        drop(far);
        let mut error = connection.send(request()).await.unwrap_err();
        assert!(error.take_message().is_some());
        assert!(connection.is_over() && connection.has_ended());
        assert!(!connection.settle(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_connection_carries_one_request_after_the_other() {
        let (mut connection, mut far) = open().await;
        for _ in 0..3 {
            assert!(connection.settle(Duration::from_secs(5)).await);
            let answering = async {
                assert!(far.read(&mut [0; 4096]).await.unwrap() > 0);
                far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            };
            let (response, ()) = tokio::join!(connection.send(request()), answering);
            assert_eq!(response.unwrap().status(), 204);
        }
    }

    #[tokio::test]
    async fn whoever_drops_it_closes_it() {
        let (connection, mut far) = open().await;
        drop(connection);
        assert_eq!(far.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
