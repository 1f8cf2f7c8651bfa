//! What would the candidate have decided?
//!
//! A candidate (`policy.shadow_file`) is asked about every request that policy decides on, after policy and without effect on it.
//! What it would have decided otherwise goes on record with the request, and is counted.

use std::time::Instant;

use crate::call::Call;
use crate::config::problem::At;
use crate::mcp::revision::Revision;
use crate::policy::Denied;
use crate::policy::Permitted;
use crate::principal::Principal;
use crate::runtime::Active;
use crate::telemetry::metrics::Compared;

use super::entry::Entry;

/// A decision that the candidate would have made otherwise.
#[derive(Debug)]
pub(crate) struct Diverging {
    /// Whether it would have permitted the request.
    pub(crate) permitted: bool,
    /// The name of its reason.
    pub(crate) reason: &'static str,
    /// Where its rule stands, in the candidate.
    pub(crate) rule: Option<At>,
}

/// Asks the candidate, if there is one, about what was decided, and notes what it says.
pub(crate) fn compare(
    entry: &mut Entry,
    active: &Active,
    principal: &Principal,
    revision: Revision,
    decided: &Result<Permitted, Box<Denied>>,
) {
    let Some(shadow) = &active.snapshot.shadow else { return };
    let began = Instant::now();
    let call: &Call = match decided {
        Ok(permitted) => permitted.call(),
        Err(denied) => &denied.call,
    };
    let weighed = shadow.weigh(entry.subject(principal), revision, call);
    let diverging = match (decided, &weighed) {
        (Ok(_), Err(denial)) => Some(Diverging { permitted: false, reason: denial.name(), rule: denial.at().cloned() }),
        (Err(_), Ok(reason)) => Some(Diverging { permitted: true, reason: reason.name(), rule: reason.at().cloned() }),
        (Ok(_), Ok(_)) | (Err(_), Err(_)) => None,
    };
    let compared = match &diverging {
        None => Compared::Alike,
        Some(Diverging { permitted: true, .. }) => Compared::Permitted,
        Some(_) => Compared::Refused,
    };
    entry.shadow = diverging;
    entry.shadow_judged(compared, began.elapsed());
}
