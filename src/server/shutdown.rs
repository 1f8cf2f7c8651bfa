//! How does the gateway end without losing a call?
//!
//! On SIGTERM it says so first (`/readyz` and `/healthz` 503, answers close their connections) while it still accepts,
//! then takes no more connections and waits for the calls in flight; SIGINT ends the waiting. Pingora closes idle connections without a word when it
//! shuts down, which would lose what clients are just sending on them: hence the announcement before. Once another process
//! accepts on the same sockets, nothing need be announced.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use pingora::server::ShutdownSignal;
use pingora::server::ShutdownSignalWatch;
use tokio::sync::watch;

use crate::clock;
use crate::runtime::Runtime;

use super::door::Door;
use super::notify;
use super::signals::End;

/// How long clients and load balancers are given to learn that the gateway is going.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// How long calls that were broken off may take to be dropped.
const DROPPED: Duration = Duration::from_secs(1);
/// How long a connection that was just accepted may take to begin its call.
const STRAGGLERS: Duration = Duration::from_millis(250);
/// How often calls in flight are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Tells Pingora when to stop.
pub(super) struct Watch {
    end: watch::Receiver<End>,
    leaving: watch::Receiver<Option<u32>>,
    runtime: Arc<Runtime>,
    door: Arc<Door>,
    drain: Duration,
}

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It was told to, at once.
    Now,
    /// It was told to.
    Told,
    /// Another process has its sockets.
    HandedOver,
}

impl Watch {
    /// Ends as `end` says, or when `leaving` names a successor; calls in flight have at most `drain`.
    pub(super) fn new(
        end: watch::Receiver<End>,
        leaving: watch::Receiver<Option<u32>>,
        runtime: Arc<Runtime>,
        door: Arc<Door>,
        drain: Duration,
    ) -> Self {
        Self { end, leaving, runtime, door, drain }
    }

    async fn why(&self) -> Why {
        let (mut end, mut leaving) = (self.end.clone(), self.leaving.clone());
        tokio::select! {
            ended = end.wait_for(|end| *end != End::No) => match ended.map_or(End::Now, |end| *end) {
                End::Now => Why::Now,
                End::Drained | End::No => Why::Told,
            },
            Ok(_) = leaving.wait_for(Option::is_some) => Why::HandedOver,
        }
    }

    /// Takes no more connections, and waits for what was begun.
    async fn finish(&self, why: Why) {
        let begun = Instant::now();
        if why == Why::HandedOver {
            self.door.hand_over_admin();
        } else {
            // Nobody takes connections in this one's place yet.
            tokio::time::sleep(ANNOUNCE.min(self.drain)).await;
        }
        self.door.close();
        // A connection accepted in the last moment must have had time to begin its call.
        tokio::time::sleep(STRAGGLERS).await;
        self.runtime.close();
        tokio::time::sleep(LOOK).await;
        while self.is_waited_for(why) && begun.elapsed() < ANNOUNCE + self.drain {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a call is in flight. When another process serves there is no hurry: idle connections are then also waited
    /// for, until their clients ask once more and are told to open another.
    fn is_waited_for(&self, why: Why) -> bool {
        self.runtime.in_flight() > 0 || why == Why::HandedOver && self.runtime.metrics.connections().value() > 0
    }
}

/// Puts everything on the disk, hands on what is left for others, and leaves no socket behind: the record of `runtime`, and the admin listener, which answers
/// to the end. The process may end afterwards.
pub(super) fn close(runtime: &Runtime, door: &Door) {
    let started = Instant::now();
    // What was broken off puts its result on record as it is dropped, which its runtime does in its own time.
    while runtime.in_flight() > 0 && started.elapsed() < DROPPED {
        thread::sleep(Duration::from_millis(1));
    }
    runtime.audit.shutdown(clock::now_micros());
    runtime.observers.close();
    door.end();
    tracing::info!("ended");
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let why = self.why().await;
        if why == Why::Now {
            return ShutdownSignal::FastShutdown;
        }
        self.runtime.drain();
        if why == Why::Told {
            notify::stopping();
        }
        tracing::info!(in_flight = self.runtime.in_flight(), "draining");
        let mut end = self.end.clone();
        tokio::select! {
            () = self.finish(why) => {}
            // Whoever sends SIGINT now wants no more waiting.
            _ = end.wait_for(|end| *end == End::Now) => {}
        }
        ShutdownSignal::FastShutdown
    }
}
