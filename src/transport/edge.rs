//! Connections on the data listener: counted, bounded, gated, and handed to Pingora's proxy.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use crate::telemetry::metrics::Level;
use crate::transport::connection::CURRENT;
use crate::transport::connection::Connection;
use crate::transport::gate_io::GateIo;
use crate::transport::gate_io::Gatekeeper;
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
    P: ServerApp + Send + Sync + 'static,
    G: Gatekeeper,
{
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if !self.keeper.is_open() {
            return None;
        }
        let peer = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr().and_then(|address| address.as_inet().copied()));
        let connection = Arc::new(Connection::new(peer));
        let io = GateIo::new(stream, Arc::clone(&connection), Arc::clone(&self.keeper));
        let Ok(_permit) = self.permits.try_acquire() else {
            io.turn_away(&head::BUSY).await;
            return None;
        };
        let _open = self.open.hold();
        let io = Box::new(io);
        CURRENT.scope(connection, self.proxy.process_new(io, shutdown)).await
    }

    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}
