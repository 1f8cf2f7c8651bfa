//! Is what was permitted still permitted?
//!
//! Asked of calls under way and of open streams, under the configuration that is in force by then: one question, wherever it is asked.
//! Whoever would not be let in now goes on with nothing.

use std::sync::Arc;

use crate::auth::AuthError;
use crate::auth::TokenError;
use crate::call::Call;
use crate::clock;
use crate::mcp::revision::Revision;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::runtime::Active;
use crate::runtime::Runtime;

use super::refusal::Refusal;
use super::whence::Whence;

/// A call that was permitted.
pub(crate) struct Standing<'s> {
    pub(crate) runtime: &'s Arc<Runtime>,
    pub(crate) subject: Subject<'s>,
    pub(crate) whence: &'s Whence,
    pub(crate) revision: Revision,
    pub(crate) call: &'s Call,
}

impl Standing<'_> {
    /// Whether this configuration permits the call now.
    ///
    /// # Errors
    /// It does not, any more.
    pub(crate) fn check(&self, active: &Active) -> Result<(), Refusal> {
        let subject = Subject { now: clock::now_seconds(), ..self.subject };
        let snapshot = &active.snapshot;
        let is_permitted = uphold(active, subject, self.whence).is_ok()
            && snapshot.oauth.takes(subject.principal, &self.call.server)
            && snapshot.policy.still_permits(subject, self.revision, self.call);
        if is_permitted { Ok(()) } else { Err(Refusal::Withdrawn) }
    }

    /// When this configuration has the caller's key, token or certificate end: seconds since 1970.
    pub(crate) fn ends(&self, active: &Active) -> Option<u64> {
        // What is not upheld has ended.
        uphold(active, self.subject, self.whence).unwrap_or(Some(0))
    }

    /// The configuration in force, if it is not the one that judged the call last; checked.
    ///
    /// # Errors
    /// It does not permit the call.
    pub(crate) fn check_again(&self, judged_under: u64) -> Result<Option<Arc<Active>>, Refusal> {
        if self.runtime.revision() == judged_under {
            return Ok(None);
        }
        let active = self.runtime.active();
        self.check(&active)?;
        Ok(Some(active))
    }

    /// Ends when a configuration after this one no longer permits the call.
    pub(crate) async fn withdrawn(&self, mut judged_under: u64) {
        let mut changes = self.runtime.changes();
        loop {
            match self.check_again(judged_under) {
                Ok(Some(active)) => judged_under = active.snapshot.revision,
                Ok(None) => {}
                Err(_) => return,
            }
            if changes.changed().await.is_err() {
                // The runtime is gone, and the process with it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether a configuration would let a caller in; until when, in seconds since 1970.
///
/// # Errors
/// What would be wrong with what the caller showed.
pub(crate) fn uphold(active: &Active, subject: Subject<'_>, whence: &Whence) -> Result<Option<u64>, AuthError> {
    active.snapshot.keys.uphold(
        subject.principal,
        whence.certificate(&active.snapshot.front),
        subject.source,
        subject.now,
    )
}

/// The refusal of a caller whose key, certificate or token has ended.
pub(crate) fn ended(principal: &Principal) -> Refusal {
    match principal.key {
        Some(_) => Refusal::Key(AuthError::Expired),
        None => Refusal::Token(TokenError::Expired),
    }
}
