//! How does an operator reach the running gateway?
//!
//! On a listener of its own, with its own thread and runtime: whatever the data path does, this answers. It is
//! unauthenticated, so it listens on loopback or on a Unix socket only, and answers only `GET`s that name a loopback host.

mod address;
mod bind;
mod routes;
mod serve;

#[cfg(test)]
mod tests;

use std::io;
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::sync::oneshot;

pub use crate::admin::address::AdminAddress;
pub use crate::admin::address::check_address;
pub use crate::admin::bind::AdminSocket;
use crate::admin::bind::Listener;
use crate::disk::socket::SocketFile;

/// What the admin listener asks of the gateway. Both are called on its thread, and are to answer at once.
pub struct Probes {
    /// The metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the gateway can take calls.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// Whether the gateway can take calls: it can if everything that counts is as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What was looked at, in the order in which it is told.
    pub checks: Vec<Check>,
}

/// One thing that should be as it is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What should be: `audit_available`, `server/github`.
    pub name: String,
    /// Whether it is.
    pub ok: bool,
    /// Whether calls are to go elsewhere while it is not. A server that is down is down for every gateway.
    pub counts: bool,
    /// More about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Check {
    /// Something without which the gateway is not ready.
    pub fn counting(name: impl Into<String>, ok: bool) -> Self {
        Self { name: name.into(), ok, counts: true, detail: None }
    }

    /// Something that is good to know.
    pub fn informing(name: impl Into<String>, ok: bool) -> Self {
        Self { counts: false, ..Self::counting(name, ok) }
    }

    /// With more about it.
    pub fn with(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl Readiness {
    /// Whether calls may come.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.ok || !check.counts)
    }
}

/// The admin listener could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the admin listener cannot use `{address}`: {reason}")]
pub struct AdminError {
    address: AdminAddress,
    reason: String,
}

/// The running admin listener. Dropping it ends it, and takes its Unix socket away.
#[must_use = "the listener ends when this is dropped"]
pub struct Admin {
    address: AdminAddress,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    file: Option<SocketFile>,
}

impl Admin {
    /// Where it listens, with the port that was chosen if port 0 was asked for.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Ends it, and leaves its Unix socket to the process that goes on with it.
    pub fn hand_over(mut self) {
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and ends nothing here.
            let _ = thread.join();
        }
    }
}

/// Binds an address and starts the admin listener there: when this returns, connections are accepted.
pub fn start(address: &AdminAddress, probes: Probes) -> Result<Admin, AdminError> {
    let socket = AdminSocket::bind(address).map_err(|reason| AdminError { address: address.clone(), reason })?;
    start_on(socket, address, probes)
}

/// Starts the admin listener on a socket that is bound to `address` already.
pub fn start_on(socket: AdminSocket, address: &AdminAddress, probes: Probes) -> Result<Admin, AdminError> {
    let refuse = |reason: String| AdminError { address: address.clone(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refuse(format!("no runtime: {error}")))?;
    let entered = runtime.enter();
    let address = socket.address(address).map_err(|error| refuse(error.to_string()))?;
    let (listener, file) = Listener::new(socket).map_err(|error| refuse(error.to_string()))?;
    drop(entered);
    let (stop, stopped) = oneshot::channel();
    let router = routes::router(probes, matches!(address, AdminAddress::Tcp(_)));
    let spawned: io::Result<JoinHandle<()>> = std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || runtime.block_on(serve::serve(listener, router, stopped)));
    match spawned {
        Ok(thread) => Ok(Admin { address, stop: Some(stop), thread: Some(thread), file }),
        Err(error) => Err(AdminError { address, reason: format!("no thread: {error}") }),
    }
}
