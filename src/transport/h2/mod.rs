//! How are many requests served on one connection?
//!
//! HTTP/2 over TLS, where the client asks for it in the handshake; never in the clear. Each stream is a request of its own,
//! with a [`Connection`] of its own, judged as one of HTTP/1.1 (`head`). Whatever a client can open, send or withhold has
//! a bound here: streams, header lists, windows, resets, malformed requests and silence.

mod head;

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::Digest;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server;
use pingora::protocols::http::v2::server::H2Accept;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::http::v2::server::HttpSession;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::transport::connection::CURRENT;
use crate::transport::connection::Connection;
use crate::transport::connection::Streams;
use crate::transport::edge::Answerer;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::gate_io::Limits;

/// Requests under way on one connection.
const STREAMS_MAX: u32 = 100;
/// Bytes of one body that may be under way unread.
const STREAM_WINDOW_BYTES_MAX: u32 = 64 * 1024 - 1;
/// The same of all bodies of a connection together.
const CONNECTION_WINDOW_BYTES_MAX: u32 = 1024 * 1024;
/// Bytes of one frame.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of answers that wait on one stream for the connection.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Streams that the client may reset before they were looked at, and that are remembered after a reset.
const RESETS_MAX: usize = 20;
/// Streams that were reset for errors of the client's.
const ERRORS_MAX: usize = 32;
/// Streams after which errors are forgotten: a client of long standing makes one now and then.
const FORGIVEN_AFTER: u64 = 1_000;
/// Streams that the client may open after the end was announced, as it may not have heard of it.
const LATE_MAX: usize = 2 * STREAMS_MAX as usize;
/// How long the end of a connection may take.
const LINGER: Duration = Duration::from_secs(1);

const ABUSE: &str = "h2_abuse";
const MALFORMED: &str = "h2_malformed";
const PROTOCOL: &str = "h2_protocol";
const STREAMS: &str = "h2_streams_max";

/// A connection that speaks HTTP/2.
pub(super) struct Http2<A, G> {
    pub(super) answerer: Arc<A>,
    pub(super) keeper: Arc<G>,
    pub(super) connection: Connection,
}

type Wire = h2::server::Connection<Stream, bytes::Bytes>;

impl<A, G> Http2<A, G>
where
    A: Answerer,
    G: Gatekeeper,
{
    /// Whether the certificate that the client showed, if any, would be taken now.
    fn is_vouched_for(&self) -> bool {
        let shows = self.connection.secured().is_some_and(|secured| secured.client.is_some());
        !shows || self.keeper.front().vouches_for(&self.connection)
    }

    /// Serves requests until the connection ends.
    pub(super) async fn serve(self, stream: Stream) {
        let limits = self.keeper.limits();
        let digest = Arc::new(Digest {
            ssl_digest: None,
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let mut wire = match timeout(limits.timeout, server::handshake(stream, Some(options(&limits)))).await {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return self.note(&error),
            Err(_) => return self.keeper.dropped(&self.connection, PROTOCOL),
        };
        let mut draining = self.keeper.draining();
        let slots = Arc::new(Semaphore::new(STREAMS_MAX as usize));
        let streams = Streams::new(limits.write);
        let (mut requests, mut late, mut errors, mut is_ending) = (0_u64, 0, 0, false);
        loop {
            let accepted = tokio::select! {
                biased;
                () = told(&mut draining), if !is_ending => {
                    wire.graceful_shutdown();
                    is_ending = true;
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut wire, Arc::clone(&digest)) => accepted,
                () = idle(&slots, limits.idle) => return end(wire, h2::Reason::NO_ERROR).await,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    requests += 1;
                    late += usize::from(is_ending);
                    // Its client is to come back with a certificate that is good.
                    let is_worn = requests >= self.keeper.limits().requests_max || !self.is_vouched_for();
                    if !is_ending && is_worn {
                        wire.graceful_shutdown();
                        is_ending = true;
                    }
                    if !self.begin(session, &slots, &streams) {
                        self.keeper.dropped(&self.connection, STREAMS);
                        errors += 1;
                    }
                    if requests.is_multiple_of(FORGIVEN_AFTER) {
                        errors = 0;
                    }
                }
                Ok(Some(H2Accept::Rejected)) => {
                    self.keeper.dropped(&self.connection, MALFORMED);
                    errors += 1;
                }
                Ok(None) => return,
                Err(error) => return self.note(&error),
            }
            if errors > ERRORS_MAX || late > LATE_MAX {
                self.keeper.dropped(&self.connection, ABUSE);
                return end(wire, h2::Reason::ENHANCE_YOUR_CALM).await;
            }
        }
    }

    /// Begins to answer a request, in a task of its own. False if there is no place: a stream that the client reset makes room
    /// for another at once, but the work on it goes on for a while.
    fn begin(&self, mut session: HttpSession, slots: &Arc<Semaphore>, streams: &Streams) -> bool {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            session.shutdown_with_reason(h2::Reason::REFUSED_STREAM);
            return false;
        };
        let connection = Arc::new(self.connection.of_stream(streams.clone()));
        let (answerer, keeper) = (Arc::clone(&self.answerer), Arc::clone(&self.keeper));
        let answered = answer(answerer, keeper, session, slot);
        tokio::spawn(CURRENT.scope(connection, answered));
        true
    }

    /// Puts a connection on record that broke the protocol. One that is merely gone is nothing to speak of.
    fn note(&self, error: &pingora::Error) {
        let cause = error.root_cause().downcast_ref::<h2::Error>();
        if cause.is_some_and(|cause| cause.is_library()) {
            tracing::debug!(client = ?self.connection.peer(), %error, "an HTTP/2 connection was ended");
            self.keeper.dropped(&self.connection, PROTOCOL);
        }
    }
}

/// Answers one request.
async fn answer<A, G>(answerer: Arc<A>, keeper: Arc<G>, mut session: HttpSession, slot: OwnedSemaphorePermit)
where
    A: Answerer,
    G: Gatekeeper,
{
    let limits = keeper.limits();
    let has_body = !session.is_body_empty();
    // INVARIANT: held until the stream ends. A connection's first read is a free one under HTTP/1.1; here there are many.
    let mut holder = keeper.buffers().holder();
    match head::judge(session.req_header_mut(), has_body, &limits.head, &mut holder) {
        Ok(()) => {
            let mut session = ServerSession::new_http2(session);
            answerer.answer(&mut session).await;
            // The client may be gone already.
            let _ = session.finish().await;
        }
        Err(refused) => {
            session.set_write_timeout(Some(limits.write.patience));
            if let Some(connection) = Connection::current() {
                let answer = keeper.refused(&connection, &refused.refusal, &refused.head);
                // The client may be gone already.
                let _ = head::write(&mut session, answer).await;
            }
        }
    }
    drop((slot, holder));
}

/// The limits of a connection. Whoever sets one of them sets all: Pingora's own hold only where none is set.
fn options(limits: &Limits) -> H2Options {
    let head = &limits.head;
    // HTTP/2 counts 32 bytes more for each header than its line has; what is over the gateway's own limit is to be refused
    // by the gateway, on record.
    let list_bytes = head.block_bytes_max.saturating_add(head.count_max.saturating_mul(64));
    let mut options = server::default_h2_options();
    options
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(list_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_BYTES_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(SEND_BYTES_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX));
    options
}

/// Ready once the process is on its way out.
async fn told(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|is_draining| *is_draining).await.is_err() {
        // Nobody is left to say so.
        std::future::pending::<()>().await;
    }
}

/// Ready once nothing was under way for so long.
async fn idle(slots: &Semaphore, wait: Duration) {
    let all = slots.acquire_many(STREAMS_MAX).await;
    tokio::time::sleep(wait).await;
    drop(all);
}

/// Says the end, and waits a moment for it to be heard.
async fn end(mut wire: Wire, reason: h2::Reason) {
    wire.abrupt_shutdown(reason);
    // Dropping the connection ends it as well.
    let _ = timeout(LINGER, std::future::poll_fn(|cx| wire.poll_closed(cx))).await;
}
