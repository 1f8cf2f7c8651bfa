//! Where does a call go, and what does it hold on its way?
//!
//! An endpoint, a place among the calls that are pending, and, where the endpoint's circuit is half-open, the trial that
//! decides over it. All of it is given back when the ticket is dropped: by an answer, an error, a client that left, a panic.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::upstream::balance::Balance;
use crate::upstream::breaker::Outcome;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::UpstreamError;

/// A call's way to its endpoint.
pub struct Ticket {
    endpoint: Arc<Endpoint>,
    balance: Arc<Balance>,
    // One task has the ticket at a time: these are atomic to be shared across its waits, not between tasks.
    bytes: AtomicUsize,
    is_trial: AtomicBool,
    is_reported: AtomicBool,
}

impl Ticket {
    /// Takes what a call to an endpoint needs. Its place among the server's was taken before.
    pub(crate) fn new(endpoint: &Arc<Endpoint>, balance: &Arc<Balance>, is_trial: bool) -> Self {
        endpoint.begin();
        Self {
            endpoint: Arc::clone(endpoint),
            balance: Arc::clone(balance),
            bytes: AtomicUsize::new(0),
            is_trial: AtomicBool::new(is_trial),
            is_reported: AtomicBool::new(false),
        }
    }

    /// Takes room for the request's bytes, which stay with the call until its end.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), UpstreamError> {
        self.balance.hold(bytes)?;
        self.bytes.store(self.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The endpoint began to answer. For a trial that is enough: its answer may be a long stream, and others wait.
    pub(crate) fn began(&self) {
        if self.is_trial.load(Ordering::Relaxed) {
            self.is_trial.store(false, Ordering::Relaxed);
            self.balance.report(&self.endpoint, Outcome::Succeeded, true);
        }
    }

    /// The endpoint answered whole.
    pub fn succeeded(&self) {
        self.report(Outcome::Succeeded);
    }

    /// The endpoint answered that it cannot go on.
    pub(crate) fn gave_up(&self) {
        self.report(Outcome::Failed);
    }

    /// The endpoint failed, if this is a failure of its own.
    pub fn failed(&self, failure: Failure) {
        if failure.is_endpoints_own() {
            self.report(Outcome::Failed);
        }
    }

    /// Once: what a call came to is said by whoever knows first.
    fn report(&self, outcome: Outcome) {
        if !self.is_reported.load(Ordering::Relaxed) {
            self.is_reported.store(true, Ordering::Relaxed);
            let is_trial = self.is_trial.load(Ordering::Relaxed);
            self.is_trial.store(false, Ordering::Relaxed);
            self.balance.report(&self.endpoint, outcome, is_trial);
        }
    }
}

impl Deref for Ticket {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Self::Target {
        &self.endpoint
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if *self.is_trial.get_mut() {
            self.balance.report(&self.endpoint, Outcome::Left, true);
        }
        self.endpoint.end();
        self.balance.end(*self.bytes.get_mut());
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.endpoint).finish()
    }
}
