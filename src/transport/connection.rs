//! What is known about the connection a request came on?
//!
//! One [`Connection`] lives as long as its socket and is shared by the stream wrapper that reads it and the request
//! that is being answered on it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::transport::tls::Secured;

tokio::task_local! {
    /// The connection of the request that the current task answers.
    pub(crate) static CURRENT: Arc<Connection>;
}

/// What the bytes that arrive next belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The head of a request.
    Head = 0,
    /// The body of the request whose head was let through.
    Body = 1,
    /// Nothing yet: the request is complete and being answered. What arrives is kept for the next head.
    Answering = 2,
}

/// A downstream connection.
#[derive(Debug)]
pub struct Connection {
    peer: Option<SocketAddr>,
    via: Option<IpAddr>,
    secured: Option<Arc<Secured>>,
    stage: AtomicU8,
    cut: AtomicBool,
    requests: AtomicU64,
}

impl Connection {
    /// A connection that waits for its first head.
    pub fn new(peer: Option<SocketAddr>) -> Self {
        Self {
            peer,
            via: None,
            secured: None,
            stage: AtomicU8::new(Stage::Head as u8),
            cut: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        }
    }

    /// One stream of this connection, as a connection of its own.
    pub(super) fn of_stream(&self) -> Self {
        Self { via: self.via, secured: self.secured.clone(), ..Self::new(self.peer) }
    }

    /// Notes for whom the balancer at the other end speaks.
    pub(super) fn announce(&mut self, client: SocketAddr) {
        self.via = self.peer.map(|peer| peer.ip().to_canonical());
        self.peer = Some(client);
    }

    /// Notes what a handshake said.
    pub(super) fn secure(&mut self, secured: Secured) {
        self.secured = Some(Arc::new(secured));
    }

    /// The client's address, as the socket or a balancer that is believed says it; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The balancer that speaks for the client.
    pub fn via(&self) -> Option<IpAddr> {
        self.via
    }

    /// What is known of a connection over TLS; `None` for one in the clear.
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.as_deref()
    }

    /// What arrives next.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Head,
            1 => Stage::Body,
            _ => Stage::Answering,
        }
    }

    /// Says what arrives next. Only ever called by the task that owns the connection.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Counts a request that came on it; the first is 1.
    pub fn begin_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends the connection where it is: an answer that cannot be completed must not look complete.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended so.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The connection of the request that the current task answers; `None` outside a request.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }
}
