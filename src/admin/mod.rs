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

use tokio::sync::oneshot;

pub use crate::admin::address::AdminAddress;
pub use crate::admin::address::check_address;

/// What the admin listener asks of the gateway. Both are called on its thread, and are to answer at once.
pub struct Probes {
    /// The metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the gateway can take calls.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// Whether the gateway can take calls: it can if all of it is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// A configuration is in force.
    pub config_loaded: bool,
    /// The record can be written.
    pub audit_available: bool,
    /// The gateway is going down.
    pub draining: bool,
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
}

impl Admin {
    /// Where it listens, with the port that was chosen if port 0 was asked for.
    pub fn address(&self) -> &AdminAddress {
        &self.address
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

/// Starts the admin listener: when this returns, connections are accepted.
pub fn start(address: &AdminAddress, probes: Probes) -> Result<Admin, AdminError> {
    let refuse = |reason: String| AdminError { address: address.clone(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refuse(format!("no runtime: {error}")))?;
    let entered = runtime.enter();
    let (listener, address) = bind::bind(address).map_err(refuse)?;
    drop(entered);
    let (stop, stopped) = oneshot::channel();
    let router = routes::router(probes, matches!(address, AdminAddress::Tcp(_)));
    let spawned: io::Result<JoinHandle<()>> = std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || runtime.block_on(serve::serve(listener, router, stopped)));
    match spawned {
        Ok(thread) => Ok(Admin { address, stop: Some(stop), thread: Some(thread) }),
        Err(error) => Err(AdminError { address, reason: format!("no thread: {error}") }),
    }
}
