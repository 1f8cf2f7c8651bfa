//! Which of a server's endpoints may be asked at this moment?
//!
//! The circuits of all endpoints, decided by [`breaker`]. While nothing fails, asking and reporting read one atomic
//! each and take no lock. What changes is logged once, where it changes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::upstream::breaker;
use crate::upstream::breaker::Answer;
use crate::upstream::breaker::Outcome;
use crate::upstream::breaker::Rules;
use crate::upstream::breaker::State;
use crate::upstream::endpoint::Endpoint;

/// What an operator is told about an endpoint's circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Calls go through.
    Closed,
    /// The next call, or one under way, decides.
    HalfOpen,
    /// No call goes through.
    Open,
}

/// Closed, and nothing failed since the last success.
const PLAIN: u8 = 0;
/// Closed, and the last call failed.
const FAILING: u8 = 1;
/// Open, or on trial.
const OPEN: u8 = 2;

/// The circuits of one server.
pub(crate) struct Circuits {
    server: Arc<str>,
    rules: Option<Rules>,
    // INVARIANT: as long as `states`, and each mark says what the state beside it is.
    marks: Vec<AtomicU8>,
    openings: Vec<AtomicU64>,
    open: AtomicUsize,
    states: Mutex<Vec<State>>,
}

impl Circuits {
    /// All closed.
    pub(crate) fn new(server: &Arc<str>, rules: Option<Rules>, endpoints: usize) -> Self {
        Self {
            server: Arc::clone(server),
            rules,
            marks: std::iter::repeat_with(|| AtomicU8::new(PLAIN)).take(endpoints).collect(),
            openings: std::iter::repeat_with(|| AtomicU64::new(0)).take(endpoints).collect(),
            open: AtomicUsize::new(0),
            states: Mutex::new(vec![State::NEW; endpoints]),
        }
    }

    /// Whether every call to the endpoint goes through.
    pub(crate) fn is_closed(&self, endpoint: &Endpoint) -> bool {
        self.mark(endpoint) != OPEN
    }

    /// Whether any circuit is not closed.
    pub(crate) fn any_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    /// Whether a call may go to the endpoint.
    pub(crate) fn ask(&self, endpoint: &Endpoint) -> Answer {
        if self.is_closed(endpoint) {
            return Answer::Pass;
        }
        let mut states = self.states();
        let Some(state) = states.get_mut(endpoint.position) else { return Answer::Pass };
        let (next, answer) = breaker::ask(*state, Instant::now());
        *state = next;
        answer
    }

    /// Takes note of what a call to the endpoint came to.
    pub(crate) fn report(&self, endpoint: &Endpoint, outcome: Outcome, is_trial: bool) {
        let Some(rules) = &self.rules else { return };
        let is_nothing_new = outcome != Outcome::Failed && self.mark(endpoint) == PLAIN;
        if is_nothing_new && !is_trial {
            return;
        }
        let now = Instant::now();
        let mut states = self.states();
        let open = states.iter().filter(|state| !state.is_closed()).count();
        let may_open = open < rules.open_at_once_max(states.len());
        let Some(state) = states.get_mut(endpoint.position) else { return };
        let before = *state;
        *state = breaker::report(rules, before, (outcome, is_trial), may_open, now);
        let after = *state;
        if let Some(mark) = self.marks.get(endpoint.position) {
            mark.store(mark_of(after), Ordering::Relaxed);
        }
        self.open.store(states.iter().filter(|state| !state.is_closed()).count(), Ordering::Relaxed);
        drop(states);
        self.tell(endpoint, before, after, now);
    }

    fn tell(&self, endpoint: &Endpoint, before: State, after: State, now: Instant) {
        let (server, origin) = (&*self.server, endpoint.origin());
        match (before, after) {
            (State::Closed { .. } | State::Trial { .. }, State::Open { until, openings }) if until > now => {
                if let Some(count) = self.openings.get(endpoint.position) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let open_ms = until.saturating_duration_since(now).as_millis();
                tracing::warn!(
                    server,
                    endpoint = origin,
                    open_ms,
                    openings,
                    "an endpoint failed repeatedly and is not asked for a while: its circuit is open"
                );
            }
            (State::Trial { .. }, State::Closed { .. }) => {
                endpoint.came();
                tracing::info!(server, endpoint = origin, "an endpoint answers again: its circuit is closed");
            }
            _ => {}
        }
    }

    /// What an operator is told.
    pub(crate) fn circuit(&self, endpoint: &Endpoint) -> Circuit {
        let states = self.states();
        match states.get(endpoint.position) {
            None | Some(State::Closed { .. }) => Circuit::Closed,
            Some(State::Open { until, .. }) if Instant::now() < *until => Circuit::Open,
            Some(State::Open { .. } | State::Trial { .. }) => Circuit::HalfOpen,
        }
    }

    /// How often the endpoint's circuit opened.
    pub(crate) fn openings(&self, endpoint: &Endpoint) -> u64 {
        self.openings.get(endpoint.position).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Takes over what another server's circuits know of an endpoint: the configuration changed, the endpoint did not.
    pub(crate) fn take_over(&self, endpoint: &Endpoint, from: &Self, there: &Endpoint) {
        let known = from.states().get(there.position).copied();
        let openings = from.openings(there);
        // The trial's call reports to the circuits it was sent by.
        let known = known.map(|state| match state {
            State::Trial { openings } => State::Open { until: Instant::now(), openings },
            other => other,
        });
        let mut states = self.states();
        if let (Some(known), Some(state)) = (known.filter(|_| self.rules.is_some()), states.get_mut(endpoint.position))
        {
            *state = known;
            if let Some(mark) = self.marks.get(endpoint.position) {
                mark.store(mark_of(known), Ordering::Relaxed);
            }
        }
        if let Some(count) = self.openings.get(endpoint.position) {
            count.store(openings, Ordering::Relaxed);
        }
        self.open.store(states.iter().filter(|state| !state.is_closed()).count(), Ordering::Relaxed);
    }

    fn mark(&self, endpoint: &Endpoint) -> u8 {
        self.marks.get(endpoint.position).map_or(PLAIN, |mark| mark.load(Ordering::Relaxed))
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark_of(state: State) -> u8 {
    match state {
        State::Closed { failures: 0, .. } => PLAIN,
        State::Closed { .. } => FAILING,
        State::Open { .. } | State::Trial { .. } => OPEN,
    }
}
