//! What is known about the connection a request came on?
//!
//! One [`Connection`] lives as long as its socket and is shared by the stream wrapper that reads it and the request
//! that is being answered on it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::transport::pace::Pace;
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

/// What streams of one connection have in common.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    /// One of them at a time is favoured.
    favour: Arc<Semaphore>,
    /// How fast each must be taken.
    write: Pace,
}

impl Streams {
    pub(super) fn new(write: Pace) -> Self {
        Self { favour: Arc::new(Semaphore::new(1)), write }
    }
}

/// A downstream connection.
#[derive(Debug)]
pub struct Connection {
    peer: Option<SocketAddr>,
    via: Option<IpAddr>,
    secured: Option<Arc<Secured>>,
    stage: AtomicU8,
    cut: AtomicBool,
    own: AtomicBool,
    requests: AtomicU64,
    /// `None` for a connection that carries one request at a time.
    streams: Option<Streams>,
    favoured: OnceLock<OwnedSemaphorePermit>,
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
            own: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            streams: None,
            favoured: OnceLock::new(),
        }
    }

    /// One stream of this connection, as a connection of its own.
    pub(super) fn of_stream(&self, streams: Streams) -> Self {
        Self { via: self.via, secured: self.secured.clone(), streams: Some(streams), ..Self::new(self.peer) }
    }

    /// Whether what is small of this request may be held though there is no room, so that a ping is answered however much is
    /// held. Of the requests under way on one connection one may, until it has ended: not a hundred of them.
    pub fn is_favoured(&self) -> bool {
        let Some(streams) = &self.streams else { return true };
        if self.favoured.get().is_none()
            && let Ok(favour) = Arc::clone(&streams.favour).try_acquire_owned()
        {
            // One task answers the request, so nobody else has set it.
            let _ = self.favoured.set(favour);
        }
        self.favoured.get().is_some()
    }

    /// How fast the client must take what is written to it, where the connection's stream does not see to that: one of HTTP/2.
    pub fn pace(&self) -> Option<Pace> {
        self.streams.as_ref().map(|streams| streams.write)
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

    /// Notes that it is the gateway itself that asks on it.
    pub(super) fn be_own(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether it is the gateway itself that asks on it.
    pub fn is_own(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// The connection of the request that the current task answers; `None` outside a request.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }
}
