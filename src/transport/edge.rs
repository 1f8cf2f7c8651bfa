//! Connections on the data listener: admitted, counted, gated, and served one request after the other.
//!
//! A connection is HTTP/1.1, which is what the gate understands, or [`h2`](crate::transport::h2), where its client asked for
//! that in a handshake. It gets a task of its own, because the one that accepted it keeps what a TLS handshake needs until the
//! connection ends; an idle stream would carry that for hours. Requests are read and answers written by Pingora's session; its
//! proxy, whose every phase would be part of each request's future, is not asked.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::ErrorType;
use pingora::apps::HttpPersistentSettings;
use pingora::apps::ReusedHttpStream;
use pingora::apps::ServerApp;
use pingora::protocols::ALPN;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use crate::telemetry::metrics::Level;
use crate::transport::admission::Admission;
use crate::transport::admission::Place;
use crate::transport::arrival;
use crate::transport::connection::CURRENT;
use crate::transport::connection::Connection;
use crate::transport::connection::Stage;
use crate::transport::delay::Delay;
use crate::transport::gate_io::GateIo;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::h2::Http2;
use crate::transport::head::Refusal;

/// Connections that are told why they are not served, at once; what is beyond is closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// What answers requests.
pub trait Answerer: Send + Sync + 'static {
    /// Answers the request whose head was read, or ends the connection by cutting it.
    fn answer(&self, session: &mut ServerSession) -> impl Future<Output = ()> + Send;
}

/// The application on the data listener: wraps every connection in the gate and lets `answerer` answer what comes on it.
pub struct Edge<A, G> {
    answerer: Arc<A>,
    keeper: Arc<G>,
    admission: Arc<Admission>,
    turned_away: Semaphore,
    delay: Arc<Delay>,
    open: Level,
}

impl<A, G> Edge<A, G> {
    /// Serves the connections that `admission` lets in, counted in `open`; the others are told why not and closed. As
    /// long as there are any, `delay` is measured on the runtime that serves them.
    pub fn new(answerer: Arc<A>, keeper: Arc<G>, admission: Arc<Admission>, delay: Arc<Delay>, open: Level) -> Self {
        Self { answerer, keeper, admission, turned_away: Semaphore::new(TURNED_AWAY_MAX), delay, open }
    }
}

impl<A: Answerer, G: Gatekeeper> Edge<A, G> {
    /// A place for a connection. It is counted for its address, which a Unix socket has not, at once; where a proxy speaks for
    /// others, once it said for whom.
    fn admit(&self, peer: Option<SocketAddr>) -> Result<Place, Refusal> {
        let mut place = self.admission.open()?;
        if let Some(peer) = peer.filter(|peer| !self.keeper.front().is_proxy(peer.ip())) {
            place.count_for(peer.ip(), &self.keeper.limits().address)?;
        }
        Ok(place)
    }

    /// Tells a client why it is not served, if not too many are being told just now. What is to be spoken over TLS is not
    /// worth a handshake.
    async fn turn_away(&self, stream: Stream, connection: Connection, refusal: &Refusal) {
        if self.keeper.front().tls.is_some() {
            return self.keeper.dropped(&connection, refusal.reason);
        }
        let io = GateIo::new(stream, Arc::new(connection), Arc::clone(&self.keeper));
        match self.turned_away.try_acquire() {
            Ok(_told) => io.turn_away(refusal).await,
            Err(_) => io.cut_off(refusal),
        }
    }

    /// Serves a connection from what comes before its first request to its end.
    async fn see_through(&self, stream: Stream, peer: Option<SocketAddr>, mut place: Place) {
        // What a handshake needs is given back before the connection's long life begins.
        let arriving = Box::pin(arrival::arrive(stream, peer, &self.keeper, &mut place));
        let Some((stream, connection)) = arriving.await else { return };
        let (answerer, keeper) = (Arc::clone(&self.answerer), Arc::clone(&self.keeper));
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            return Box::pin(Http2 { answerer, keeper, connection }.serve(stream)).await;
        }
        let connection = Arc::new(connection);
        let io = GateIo::new(stream, Arc::clone(&connection), keeper);
        CURRENT.scope(Arc::clone(&connection), serve(answerer, connection, Box::new(io))).await;
    }
}

#[async_trait]
impl<A, G> ServerApp for Edge<A, G>
where
    A: Answerer,
    G: Gatekeeper,
{
    /// Never gives a stream back: the connection's own task serves it to its end.
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        if !self.keeper.is_open() {
            return None;
        }
        let peer = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr().and_then(|address| address.as_inet().copied()));
        let place = match self.admit(peer) {
            Ok(place) => place,
            Err(refusal) => {
                self.turn_away(stream, Connection::new(peer), &refusal).await;
                return None;
            }
        };
        let (edge, counted) = (Arc::clone(self), self.open.hold());
        let open = self.open.clone();
        self.delay.watch(move || open.value() > 0);
        // Pinned before it is handed over: a task moves its future several times, and this one is large.
        tokio::spawn(Box::pin(async move {
            edge.see_through(stream, peer, place).await;
            drop(counted);
        }));
        None
    }
}

/// Serves one request after the other, until the connection ends. A process on its way out ends it with an answer.
async fn serve<A: Answerer>(answerer: Arc<A>, connection: Arc<Connection>, io: Stream) {
    let mut session = first_session(io);
    while read_head(&mut session).await {
        answerer.answer(&mut session).await;
        connection.enter(Stage::Head);
        let settings = HttpPersistentSettings::for_session(&session);
        let Ok(Some(reusable)) = session.finish().await else { return };
        session = next_session(ReusedHttpStream::from_reusable_stream(reusable, settings));
    }
}

/// Reads a request's head; `false` when there is none to answer.
async fn read_head(session: &mut ServerSession) -> bool {
    match session.read_request().await {
        Ok(is_there) => is_there,
        Err(error) => {
            tracing::debug!(reason = error.etype().as_str(), "a request cannot be read");
            // The gate refuses what cannot be read, and answers; this is about what Pingora alone finds wrong.
            if *error.etype() == ErrorType::InvalidHTTPHeader {
                let _ = session.respond_error(400).await;
            }
            session.shutdown().await;
            false
        }
    }
}

/// How long the first request may take is for the gate to say, not for Pingora.
fn first_session(io: Stream) -> ServerSession {
    let mut session = ServerSession::new_http1(io);
    session.set_keepalive(Some(0));
    session
}

fn next_session(reused: ReusedHttpStream) -> ServerSession {
    let (io, settings) = reused.consume();
    let mut session = ServerSession::new_http1(io);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session
}
