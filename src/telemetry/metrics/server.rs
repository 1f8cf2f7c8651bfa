//! What is counted about one configured server?
//!
//! Every series has its slot, found by position: after a slot's first use an observation is a few atomic additions,
//! without a lock, a hash or an allocation. Only a tool's name is searched, among the configured ones.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::Histogram;
use prometheus::IntCounter;
use prometheus::IntGauge;

use crate::config::model::Money;
use crate::mcp::revision::Revision;
use crate::telemetry::metrics::Families;
use crate::telemetry::metrics::labels::Method;
use crate::telemetry::metrics::labels::OTHER;
use crate::telemetry::metrics::labels::Outcome;
use crate::telemetry::metrics::labels::REVISION_ROWS;
use crate::telemetry::metrics::labels::Transport;
use crate::telemetry::metrics::labels::revision_label;
use crate::telemetry::metrics::labels::revision_row;

/// The metrics of one server. Made with each snapshot; counters go on where the last snapshot's stood.
#[derive(Clone)]
pub struct ServerMetrics(Arc<Inner>);

struct Inner {
    families: Arc<Families>,
    name: Box<str>,
    /// By method, then outcome.
    requests: Slots<IntCounter>,
    /// By revision (one more for none known), then transport.
    protocols: Slots<IntCounter>,
    /// Sorted, so that a name is found by halving.
    tools: Box<[Box<str>]>,
    /// By tool (one more for the rest), then outcome.
    tool_calls: Slots<IntCounter>,
    /// By word of the vocabulary, one more for the rest.
    decisions: Slots<IntCounter>,
    cost: OnceLock<IntCounter>,
    upstream_seconds: OnceLock<Histogram>,
    upstream_up: OnceLock<IntGauge>,
    upstream_pending: OnceLock<(IntGauge, IntGauge)>,
}

type Slots<T> = Box<[OnceLock<T>]>;

fn slots<T>(count: usize) -> Slots<T> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

impl ServerMetrics {
    pub(super) fn new(families: Arc<Families>, name: &str, tools: &[&str]) -> Self {
        let mut tools: Vec<Box<str>> = tools.iter().map(|tool| Box::from(*tool)).collect();
        tools.sort_unstable();
        tools.dedup();
        Self(Arc::new(Inner {
            requests: slots(Method::ALL.len() * Outcome::ALL.len()),
            protocols: slots(REVISION_ROWS * Transport::ALL.len()),
            tool_calls: slots((tools.len() + 1) * Outcome::ALL.len()),
            decisions: slots(families.decision_words.len() + 1),
            tools: tools.into(),
            cost: OnceLock::new(),
            upstream_seconds: OnceLock::new(),
            upstream_up: OnceLock::new(),
            upstream_pending: OnceLock::new(),
            name: name.into(),
            families,
        }))
    }

    /// Counts a request that ended.
    pub fn request(&self, method: Method, outcome: Outcome) {
        let inner = &self.0;
        let at = method as usize * Outcome::ALL.len() + outcome as usize;
        count(&inner.requests, at, || inner.families.requests.series(&[&inner.name, method.label(), outcome.label()]));
    }

    /// Counts a request that ended by the revision it was judged under, `None` where it came to none, and by the
    /// client's transport. Called once for each [`ServerMetrics::request`].
    pub fn protocol(&self, revision: Option<Revision>, transport: Transport) {
        let inner = &self.0;
        let at = revision_row(revision) * Transport::ALL.len() + transport as usize;
        count(&inner.protocols, at, || {
            inner.families.protocols.series(&[&inner.name, revision_label(revision), transport.label()])
        });
    }

    /// Counts a `tools/call` that ended. A tool in no configured allow list counts as `_other`.
    pub fn tool_call(&self, tool: &str, outcome: Outcome) {
        let inner = &self.0;
        let found = inner.tools.binary_search_by(|known| known.as_ref().cmp(tool));
        let row = found.unwrap_or(inner.tools.len());
        count(&inner.tool_calls, row * Outcome::ALL.len() + outcome as usize, || {
            let label = inner.tools.get(row).map_or(OTHER, AsRef::as_ref);
            inner.families.tool_calls.series(&[&inner.name, label, outcome.label()])
        });
    }

    /// Counts a decision of policy by its name. A name outside the vocabulary counts as `_other`.
    pub fn decided(&self, decision: &str) {
        let inner = &self.0;
        let words = inner.families.decision_words;
        let at = words.iter().position(|word| *word == decision).unwrap_or(words.len());
        count(&inner.decisions, at, || {
            let label = words.get(at).copied().unwrap_or(OTHER);
            inner.families.decisions.series(&[&inner.name, label])
        });
    }

    /// Counts what a call cost.
    pub fn cost(&self, cost: Money) {
        let inner = &self.0;
        inner.cost.get_or_init(|| inner.families.cost.series(&[&inner.name])).inc_by(cost.micros());
    }

    /// Notes how long the server took, from sending to the end of its answer.
    pub fn upstream_took(&self, took: Duration) {
        let inner = &self.0;
        let series = inner.upstream_seconds.get_or_init(|| inner.families.upstream_seconds.series(&[&inner.name]));
        series.observe(took.as_secs_f64());
    }

    /// Notes whether any of the server's endpoints can be used.
    pub fn upstream_up(&self, up: bool) {
        let inner = &self.0;
        let series = inner.upstream_up.get_or_init(|| inner.families.upstream_up.series(&[&inner.name]));
        series.set(up.into());
    }

    /// Notes how many of the server's calls are pending, and how many bytes their requests hold.
    pub fn upstream_pending(&self, pending: usize, bytes: usize) {
        let inner = &self.0;
        let (calls, held) = inner.upstream_pending.get_or_init(|| {
            let families = &inner.families;
            (families.upstream_pending.series(&[&inner.name]), families.upstream_pending_bytes.series(&[&inner.name]))
        });
        calls.set(pending.try_into().unwrap_or(i64::MAX));
        held.set(bytes.try_into().unwrap_or(i64::MAX));
    }
}

fn count(slots: &[OnceLock<IntCounter>], at: usize, make: impl FnOnce() -> IntCounter) {
    if let Some(slot) = slots.get(at) {
        slot.get_or_init(make).inc();
    }
}
