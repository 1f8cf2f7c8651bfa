//! How much of one server may be pending at once?
//!
//! Counted for each server by itself, so that one that hangs takes no place of another. A place is held by a
//! [`Ticket`](crate::upstream::Ticket) and given back when that is dropped, whatever ends the call.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::config::model::Server;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::upstream::error::Failure;

/// Largest of the limits that can be configured.
const LIMIT_MAX: usize = 1 << 40;
/// Most connections to one endpoint that can be configured.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The limits of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Calls pending.
    pub(crate) pending_max: usize,
    /// Bytes of their requests.
    pub(crate) pending_bytes_max: usize,
    /// Connections to each endpoint.
    pub(crate) connections_max: usize,
}

impl Limits {
    /// Reads the limits of a server, reporting every mistake.
    pub(crate) fn compile(server: &Server, at: &At, problems: &mut Problems) -> Self {
        let mut limit = |key: &str, value: usize, max: usize| {
            if value == 0 || value > max {
                problems.error(&at.key(key), format!("`{value}` is out of range"), format!("write 1 to {max}"));
            }
            value.clamp(1, max)
        };
        Self {
            pending_max: limit("pending_max", server.pending_max, LIMIT_MAX),
            pending_bytes_max: limit("pending_bytes_max", server.pending_bytes_max, LIMIT_MAX),
            connections_max: limit("connections_max", server.connections_max, CONNECTIONS_MAX),
        }
    }
}

/// What of a server is pending. Goes on over a reload, so that it stays bounded while calls of before are under way.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pending: AtomicUsize,
    bytes: AtomicUsize,
    is_full: AtomicBool,
}

impl Load {
    /// Takes a place, if there is one.
    pub(crate) fn begin(&self, limits: &Limits, server: &str) -> Result<(), Failure> {
        if self.pending.fetch_add(1, Ordering::Relaxed) < limits.pending_max {
            return Ok(());
        }
        self.end(0);
        self.tell(server, "pending_max");
        Err(Failure::PendingMax)
    }

    /// Takes room for the bytes of a request, if there is any.
    pub(crate) fn hold(&self, bytes: usize, limits: &Limits, server: &str) -> Result<(), Failure> {
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if held.saturating_add(bytes) <= limits.pending_bytes_max {
            return Ok(());
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.tell(server, "pending_bytes_max");
        Err(Failure::PendingBytesMax)
    }

    /// Gives a place back, and the room it held.
    pub(crate) fn end(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        // Told again only when it was empty in between: a server at its limit comes and goes there with every call.
        if self.pending.fetch_sub(1, Ordering::Relaxed) == 1 && self.is_full.load(Ordering::Relaxed) {
            self.is_full.store(false, Ordering::Relaxed);
        }
    }

    fn tell(&self, server: &str, limit: &'static str) {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(server, limit, "a server is at its limit of pending calls: further ones are refused");
        }
    }

    /// Calls pending now.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Bytes of their requests.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { pending_max: 2, pending_bytes_max: 100, connections_max: 1 };

    #[test]
    fn no_more_calls_and_bytes_are_pending_than_the_limits() {
        let load = Load::default();
        assert_eq!(load.begin(&LIMITS, "x"), Ok(()));
        assert_eq!(load.begin(&LIMITS, "x"), Ok(()));
        assert_eq!(load.begin(&LIMITS, "x"), Err(Failure::PendingMax));
        assert_eq!(load.pending(), 2, "what was refused holds nothing");
        assert_eq!(load.hold(60, &LIMITS, "x"), Ok(()));
        assert_eq!(load.hold(41, &LIMITS, "x"), Err(Failure::PendingBytesMax));
        assert_eq!(load.hold(40, &LIMITS, "x"), Ok(()));
        load.end(60);
        assert_eq!((load.pending(), load.bytes()), (1, 40));
        assert_eq!(load.begin(&LIMITS, "x"), Ok(()));
    }
}
