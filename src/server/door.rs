//! How are connections taken, and how do they cease to be?
//!
//! Pingora accepts on a socket that is handed to it, until the door is closed. What has been accepted is served to its end:
//! Pingora would end idle connections when it stops accepting, and lose what clients are just sending on them.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::services::Service as PingoraService;
use pingora::services::listening::Service;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::disk::socket::SocketFile;

use super::sockets::Listening;

/// From the start of the listening service to the moment at which it certainly accepts: it would have panicked before.
const SETTLED: Duration = Duration::from_millis(20);

/// What is to be done once connections are taken.
pub(super) type Opened = Box<dyn FnOnce() + Send + Sync>;

/// An application whose connections outlive the accepting.
pub(super) struct Lasting<A> {
    app: Arc<A>,
    /// Says no for ever.
    never: ShutdownWatch,
    #[expect(dead_code, reason = "its end would be taken for a yes")]
    sender: watch::Sender<bool>,
}

impl<A> Lasting<A> {
    pub(super) fn new(app: A) -> Self {
        let (sender, never) = watch::channel(false);
        Self { app: Arc::new(app), never, sender }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Lasting<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        self.app.process_new(stream, &self.never).await
    }

    /// Pingora's proxy would end idle connections here, where nothing more is accepted.
    async fn cleanup(&self) {}
}

/// The listening service, on a socket that was bound before.
pub(super) struct Porter<A> {
    service: Service<A>,
    address: String,
    socket: Option<RawFd>,
    closing: ShutdownWatch,
    opened: Option<Opened>,
}

impl<A> Porter<A> {
    /// Accepts for `service`, whose one listener has this address, until `door` is closed; then calls `opened`.
    pub(super) fn new(service: Service<A>, address: String, socket: RawFd, door: &Door, opened: Opened) -> Self {
        Self { service, address, socket: Some(socket), closing: door.closing.subscribe(), opened: Some(opened) }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> PingoraService for Porter<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let (Some(fds), Some(socket)) = (&fds, self.socket.take()) {
            fds.lock().add(self.address.clone(), socket);
        }
        let opened = self.opened.take();
        let announced = async {
            tokio::time::sleep(SETTLED).await;
            if let Some(opened) = opened {
                // It may wait for another process.
                let _ = tokio::task::spawn_blocking(opened).await;
            }
        };
        tokio::join!(self.service.start_service(fds, self.closing.clone(), listeners_per_fd), announced);
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

/// What lets connections in. Closing it once is for good.
pub(super) struct Door {
    closing: watch::Sender<bool>,
    behind: Mutex<Behind>,
}

/// What goes when the door closes.
#[derive(Default)]
struct Behind {
    /// The listening sockets once more, for a successor.
    sockets: Vec<Listening>,
    admin: Option<Admin>,
    /// The control socket's file.
    control: Option<SocketFile>,
}

impl Door {
    /// A door through which `sockets` can be handed on.
    pub(super) fn new(sockets: Vec<Listening>, admin: Admin) -> Self {
        let (closing, _) = watch::channel(false);
        Self { closing, behind: Mutex::new(Behind { sockets, admin: Some(admin), control: None }) }
    }

    /// Calls `hand` with the listening sockets; there are none once the door is closed.
    pub(super) fn sockets<T>(&self, hand: impl FnOnce(&[Listening]) -> T) -> T {
        hand(&self.behind().sockets)
    }

    /// Takes no more connections.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        self.behind().sockets.clear();
    }

    /// Ends the admin listener, if a successor goes on with its socket.
    pub(super) fn hand_over_admin(&self) {
        let admin = self.behind().admin.take();
        if let Some(admin) = admin {
            admin.hand_over();
        }
    }

    /// Takes the control socket's file away when everything ends.
    pub(super) fn keep(&self, control: SocketFile) {
        self.behind().control = Some(control);
    }

    /// Ends what answers to the last, and takes the files of its sockets away.
    pub(super) fn end(&self) {
        let behind = std::mem::take(&mut *self.behind());
        drop(behind);
    }

    fn behind(&self) -> std::sync::MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
