//! Which connection to an endpoint is free?
//!
//! One pool per endpoint of a server, so a connection never serves two credentials. A connection comes back only after
//! its answer ended properly, and is not used again once it idled longer than common servers keep one open.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::upstream::connection::Connection;

/// Idle connections kept for one endpoint; what is beyond is closed.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 256;
/// Servers commonly close an idle connection after 5 s. Being earlier avoids writing into one that is being closed.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection that just ended an answer may take to become ready again.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(50);

/// The idle connections to one endpoint.
pub(crate) struct Pool {
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Counts how often what was connected before was given up.
    era: u64,
    // Ordered by age, the oldest first.
    idle: Vec<(Instant, Connection)>,
}

impl Pool {
    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, state: Mutex::default() }
    }

    /// A connection that can carry a request now. The youngest is taken, so that the others age and are closed.
    pub(crate) async fn take(&self) -> Option<Connection> {
        while let Some(mut connection) = self.pop() {
            if connection.settle(SETTLE_TIMEOUT).await {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self) -> Option<Connection> {
        let mut state = self.state();
        let (since, connection) = state.idle.pop()?;
        if since.elapsed() < self.idle_timeout {
            return Some(connection);
        }
        // The youngest is too old: so are all.
        state.idle.clear();
        None
    }

    /// Keeps a connection whose answer has ended.
    pub(crate) fn put(&self, connection: Connection) {
        let mut state = self.state();
        let is_wanted = !state.closed && connection.era == state.era;
        if is_wanted && !connection.has_ended() && state.idle.len() < IDLE_CONNECTIONS_MAX {
            state.idle.push((Instant::now(), connection));
        }
    }

    /// Closes what idled too long.
    pub(crate) fn sweep(&self) {
        let idle_timeout = self.idle_timeout;
        self.state().idle.retain_mut(|(since, connection)| since.elapsed() < idle_timeout && !connection.is_over());
    }

    /// The era for a connection that is dialled from now on.
    pub(crate) fn era(&self) -> u64 {
        self.state().era
    }

    /// Closes every idle connection, and lets those in use go when their answer has ended: they may lead to where the
    /// endpoint is no more.
    pub(crate) fn renew(&self) {
        let mut state = self.state();
        state.era += 1;
        state.idle.clear();
    }

    /// Whether no connection is idle.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().idle.is_empty()
    }

    /// Closes every idle connection and keeps none from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state().idle.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
