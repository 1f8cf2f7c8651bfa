//! Connections on the data listener: admitted, counted, gated, and handed to Pingora's proxy.
//!
//! A connection is HTTP/1.1, which is what the gate understands. It gets a task of its own, because the one that accepted it
//! keeps what a TLS handshake needs until the connection ends; an idle stream would carry that for hours.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::apps::ReusedHttpStream;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use crate::telemetry::metrics::Level;
use crate::transport::admission::Admission;
use crate::transport::admission::Place;
use crate::transport::connection::CURRENT;
use crate::transport::connection::Connection;
use crate::transport::delay::Delay;
use crate::transport::gate_io::GateIo;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::head::Refusal;

/// Connections that are told why they are not served, at once; what is beyond is closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// The application on the data listener: wraps every connection in the gate and lets `proxy` serve it.
pub struct Edge<P, G> {
    proxy: Arc<P>,
    keeper: Arc<G>,
    admission: Arc<Admission>,
    turned_away: Semaphore,
    delay: Arc<Delay>,
    open: Level,
}

impl<P, G> Edge<P, G> {
    /// Serves the connections that `admission` lets in, counted in `open`; the others are told why not and closed. As
    /// long as there are any, `delay` is measured on the runtime that serves them.
    pub fn new(proxy: Arc<P>, keeper: Arc<G>, admission: Arc<Admission>, delay: Arc<Delay>, open: Level) -> Self {
        Self { proxy, keeper, admission, turned_away: Semaphore::new(TURNED_AWAY_MAX), delay, open }
    }
}

impl<P, G: Gatekeeper> Edge<P, G> {
    /// A place for a connection from this address, which a Unix socket has not.
    fn admit(&self, peer: Option<SocketAddr>) -> Result<Place, Refusal> {
        let mut place = self.admission.open()?;
        if let Some(peer) = peer {
            place.count_for(peer.ip(), &self.keeper.limits().address)?;
        }
        Ok(place)
    }

    /// Tells a client why it is not served, if not too many are being told just now.
    async fn turn_away(&self, io: GateIo<G>, refusal: &Refusal) {
        match self.turned_away.try_acquire() {
            Ok(_told) => io.turn_away(refusal).await,
            Err(_) => io.cut_off(refusal),
        }
    }
}

#[async_trait]
impl<P, G> ServerApp for Edge<P, G>
where
    P: HttpServerApp + Send + Sync + 'static,
    G: Gatekeeper,
{
    /// Never gives a stream back: the connection's own task serves it to its end.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if !self.keeper.is_open() {
            return None;
        }
        let peer = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr().and_then(|address| address.as_inet().copied()));
        let connection = Arc::new(Connection::new(peer));
        let io = GateIo::new(stream, Arc::clone(&connection), Arc::clone(&self.keeper));
        let place = match self.admit(peer) {
            Ok(place) => place,
            Err(refusal) => {
                self.turn_away(io, &refusal).await;
                return None;
            }
        };
        let counted = (place, self.open.hold());
        let open = self.open.clone();
        self.delay.watch(move || open.value() > 0);
        let served = serve(Arc::clone(&self.proxy), Box::new(io), shutdown.clone());
        tokio::spawn(CURRENT.scope(connection, async move {
            served.await;
            drop(counted);
        }));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Serves one request after the other.
async fn serve<P: HttpServerApp>(proxy: Arc<P>, io: Stream, shutdown: ShutdownWatch) {
    let mut served = proxy.process_new_http(first_session(io, &shutdown), &shutdown).await;
    while let Some(reused) = served {
        served = proxy.process_new_http(next_session(reused), &shutdown).await;
    }
}

/// How long the first request may take is for the gate to say, not for Pingora.
fn first_session(io: Stream, shutdown: &ShutdownWatch) -> ServerSession {
    let mut session = ServerSession::new_http1(io);
    session.set_keepalive(if *shutdown.borrow() { None } else { Some(0) });
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
