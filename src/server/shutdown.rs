//! How does the gateway end without losing a call?
//!
//! On SIGTERM it says so first (`/readyz` and `/healthz` 503, answers close their connections) while it still accepts,
//! then takes no more connections and waits for the calls in flight; SIGINT ends the waiting. Pingora closes idle connections without a word when it
//! shuts down, which would lose what clients are just sending on them: hence the announcement before.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use pingora::server::ShutdownSignal;
use pingora::server::ShutdownSignalWatch;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::clock;
use crate::runtime::Runtime;

use super::signals::End;

/// How long clients and load balancers are given to learn that the gateway is going.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// How long calls that were broken off may take to be dropped.
const DROPPED: Duration = Duration::from_secs(1);
/// How often calls in flight are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Tells Pingora when to stop.
pub(super) struct Watch {
    end: watch::Receiver<End>,
    runtime: Arc<Runtime>,
    drain: Duration,
}

impl Watch {
    /// Ends as `end` says; calls in flight have at most `drain`.
    pub(super) fn new(end: watch::Receiver<End>, runtime: Arc<Runtime>, drain: Duration) -> Self {
        Self { end, runtime, drain }
    }
}

/// Puts everything on the disk and leaves no socket behind: the record of `runtime`, and the admin listener, which answers
/// to the end. The process may end afterwards.
pub(super) fn close(runtime: &Runtime, admin: Admin) {
    let started = Instant::now();
    // What was broken off puts its result on record as it is dropped, which its runtime does in its own time.
    while runtime.in_flight() > 0 && started.elapsed() < DROPPED {
        thread::sleep(Duration::from_millis(1));
    }
    runtime.audit.shutdown(clock::now_micros());
    drop(admin);
    tracing::info!("ended");
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let mut end = self.end.clone();
        let wish = end.wait_for(|end| *end != End::No).await.map_or(End::Now, |end| *end);
        if wish == End::Now {
            return ShutdownSignal::FastShutdown;
        }
        self.runtime.drain();
        tracing::info!(in_flight = self.runtime.in_flight(), "draining");
        let begun = Instant::now();
        let drained = async {
            tokio::time::sleep(ANNOUNCE.min(self.drain)).await;
            self.runtime.close();
            // A connection accepted in the last moment must have had time to begin its call.
            tokio::time::sleep(5 * LOOK).await;
            while self.runtime.in_flight() > 0 && begun.elapsed() < ANNOUNCE + self.drain {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = drained => {}
            // Whoever sends SIGINT now wants no more waiting.
            _ = end.wait_for(|end| *end == End::Now) => {}
        }
        ShutdownSignal::FastShutdown
    }
}
