//! Is what was permitted still permitted?
//!
//! Asked of calls under way and of open streams, under the configuration that is in force by then: one question, wherever it is asked.

use std::sync::Arc;

use crate::call::Call;
use crate::clock;
use crate::mcp::revision::Revision;
use crate::principal::Subject;
use crate::runtime::Active;
use crate::runtime::Runtime;

use super::refusal::Refusal;

/// A call that was permitted.
pub(crate) struct Standing<'s> {
    pub(crate) runtime: &'s Arc<Runtime>,
    pub(crate) subject: Subject<'s>,
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
        let minted = subject.principal.minted.as_ref();
        let is_upheld =
            minted.is_none_or(|minted| active.snapshot.keys.check_child(minted, subject.source, subject.now).is_ok());
        let is_permitted = is_upheld && active.snapshot.policy.still_permits(subject, self.revision, self.call);
        if is_permitted { Ok(()) } else { Err(Refusal::Withdrawn) }
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
