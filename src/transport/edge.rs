//! Connections on the data listener: counted, bounded, gated, and handed to Pingora's proxy.
//!
//! A connection is HTTP/1.1, which is what the gate understands, or [`h2`](crate::transport::h2), where its client asked for
//! that in a handshake. It gets a task of its own, because the one that accepted it
//! keeps what a TLS handshake needs until the connection ends; an idle stream would carry that for hours.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::apps::ReusedHttpStream;
use pingora::apps::ServerApp;
use pingora::protocols::ALPN;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use crate::telemetry::metrics::Level;
use crate::transport::arrival;
use crate::transport::connection::CURRENT;
use crate::transport::connection::Connection;
use crate::transport::gate_io::GateIo;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::h2::Http2;
use crate::transport::head;

/// The application on the data listener: wraps every connection in the gate and lets `proxy` serve it.
pub struct Edge<P, G> {
    proxy: Arc<P>,
    keeper: Arc<G>,
    permits: Arc<Semaphore>,
    open: Level,
}

impl<P, G> Edge<P, G> {
    /// Serves at most `connections_max` connections at once, counted in `open`; further ones get 503 and are closed.
    pub fn new(proxy: Arc<P>, keeper: Arc<G>, connections_max: usize, open: Level) -> Self {
        Self { proxy, keeper, permits: Arc::new(Semaphore::new(connections_max)), open }
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
        let keeper = Arc::clone(&self.keeper);
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.turn_away(stream, peer).await;
            return None;
        };
        let counted = (permit, self.open.hold());
        let (proxy, shutdown) = (Arc::clone(&self.proxy), shutdown.clone());
        tokio::spawn(async move {
            // What a handshake needs is given back before the connection's long life begins.
            match Box::pin(arrival::arrive(stream, peer, &keeper)).await {
                Some((stream, connection)) if stream.selected_alpn_proto() == Some(ALPN::H2) => {
                    Box::pin(Http2 { proxy, keeper, connection, shutdown }.serve(stream)).await;
                }
                Some((stream, connection)) => {
                    let connection = Arc::new(connection);
                    let io = GateIo::new(stream, Arc::clone(&connection), keeper);
                    CURRENT.scope(connection, serve(proxy, Box::new(io), shutdown)).await;
                }
                None => {}
            }
            drop(counted);
        });
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

impl<P, G: Gatekeeper> Edge<P, G> {
    /// Ends a connection that finds no room. What is to be spoken over TLS is not worth a handshake.
    async fn turn_away(&self, stream: Stream, peer: Option<SocketAddr>) {
        let connection = Connection::new(peer);
        if self.keeper.front().tls.is_some() {
            self.keeper.dropped(&connection, head::BUSY.reason);
        } else {
            GateIo::new(stream, Arc::new(connection), Arc::clone(&self.keeper)).turn_away(&head::BUSY).await;
        }
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
