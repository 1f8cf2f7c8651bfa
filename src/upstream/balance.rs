//! Which endpoint takes the next call?
//!
//! One that can be used: healthy, its circuit closed, not draining, with a connection to spare; and where the circuit of
//! one is half-open, the call that tries it. Where none can be used, a check may be wrong, and one whose circuit is closed
//! is tried all the same. Weights count in every way of choosing.

use std::sync::Arc;
use std::time::Duration;

use crate::config::model::Balancing;
use crate::upstream::breaker::Answer;
use crate::upstream::breaker::Outcome;
use crate::upstream::circuits::Circuits;
use crate::upstream::endpoint;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoint::SHARE_WHOLE;
use crate::upstream::error::Failure;
use crate::upstream::error::UpstreamError;
use crate::upstream::limits::Limits;
use crate::upstream::limits::Load;
use crate::upstream::plan::Plan;
use crate::upstream::ring::Ring;
use crate::upstream::rotation::Rotation;

/// Turns that may fall on endpoints that cannot be used, before one is looked for in the order of the list.
const TURNS_MAX: usize = 16;
/// With more endpoints the pending calls of two are compared, not of all.
const COMPARED_MAX: usize = 8;

/// The endpoints of a server, and what is known of them.
pub(crate) struct Balance {
    server: Arc<str>,
    limits: Limits,
    method: Balancing,
    endpoints: Vec<Arc<Endpoint>>,
    rotation: Rotation,
    /// `None` with one endpoint.
    ring: Option<Ring>,
    circuits: Circuits,
    load: Arc<Load>,
}

/// A choice: an endpoint, and whether the call tries a half-open circuit.
type Chosen<'b> = (&'b Arc<Endpoint>, bool);

impl Balance {
    /// The endpoints of a plan. `previous`: what ran under the server's name before.
    pub(crate) fn new(plan: &Plan, previous: Option<&Self>) -> Self {
        let known = previous.map_or(&[][..], |previous| &previous.endpoints);
        let endpoints = endpoint::endpoints(plan, known);
        let circuits = Circuits::new(&plan.name, plan.breaker, endpoints.len());
        if let Some(previous) = previous {
            for endpoint in &endpoints {
                match previous.endpoints.iter().find(|known| known.id() == endpoint.id()) {
                    Some(known) => circuits.take_over(endpoint, &previous.circuits, known),
                    None => endpoint.came(),
                }
            }
        }
        let weights: Vec<(u64, usize)> = endpoints.iter().map(|endpoint| (endpoint.id(), endpoint.weight)).collect();
        let weight_of = |endpoint: &Arc<Endpoint>| if endpoint.is_draining { 0 } else { endpoint.weight };
        Self {
            server: Arc::clone(&plan.name),
            limits: plan.limits,
            method: plan.balance,
            rotation: Rotation::new(endpoints.iter().map(weight_of)),
            ring: (endpoints.len() > 1).then(|| Ring::new(&weights)),
            circuits,
            load: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.load)),
            endpoints,
        }
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(crate) fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// Takes a place for one more call of the server.
    pub(crate) fn begin(&self) -> Result<(), UpstreamError> {
        self.load.begin(&self.limits, &self.server).map_err(at_limit)
    }

    /// Takes room for the bytes of a request.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), UpstreamError> {
        self.load.hold(bytes, &self.limits, &self.server).map_err(at_limit)
    }

    /// Gives back what a call held.
    pub(crate) fn end(&self, bytes: usize) {
        self.load.end(bytes);
    }

    /// Takes note of what a call came to.
    pub(crate) fn report(&self, endpoint: &Endpoint, outcome: Outcome, is_trial: bool) {
        self.circuits.report(endpoint, outcome, is_trial);
    }

    /// The endpoint that a session lives on, whatever its health.
    pub(crate) fn pinned(&self, id: u64) -> Result<Chosen<'_>, UpstreamError> {
        let found = self.endpoints.iter().find(|endpoint| endpoint.id() == id);
        let endpoint = found.ok_or_else(|| UpstreamError::unasked(Failure::EndpointGone, ""))?;
        match self.circuits.ask(endpoint) {
            Answer::Pass => Ok((endpoint, false)),
            Answer::Trial => Ok((endpoint, true)),
            Answer::Refuse(wait) => Err(self.open(wait, endpoint.origin())),
        }
    }

    /// The next endpoint for what belongs nowhere.
    pub(crate) fn next(&self) -> Result<Chosen<'_>, UpstreamError> {
        if self.circuits.any_open() {
            let trial = self.endpoints.iter().find(|endpoint| self.is_to_be_tried(endpoint));
            if let Some(endpoint) = trial {
                return Ok((endpoint, true));
            }
        }
        if let [only] = &*self.endpoints
            && self.is_usable(only)
        {
            return Ok((only, false));
        }
        let turn = self.by_turns();
        let chosen = match self.method {
            Balancing::LeastPending => turn.map(|(turn, first)| self.less_pending(turn, first)),
            Balancing::RoundRobin | Balancing::Ketama => turn.map(|(_, endpoint)| endpoint),
        };
        chosen.map_or_else(|| self.any(), |endpoint| Ok((endpoint, false)))
    }

    /// The endpoint that a key belongs to; while it cannot be used, the next usable one on the ring.
    pub(crate) fn of(&self, key: &str) -> Result<Chosen<'_>, UpstreamError> {
        let Some(ring) = &self.ring else { return self.next() };
        let mut owners = ring.owners(key);
        let find = |id: u64| self.endpoints.iter().find(|endpoint| endpoint.id() == id);
        let own = owners.next().and_then(find).ok_or_else(|| UpstreamError::unasked(Failure::NoEndpoint, ""))?;
        if self.is_usable(own) {
            return Ok((own, false));
        }
        if self.is_to_be_tried(own) {
            return Ok((own, true));
        }
        if !self.endpoints.iter().any(|endpoint| self.is_usable(endpoint)) {
            // With none usable the key's own is tried all the same, as in [`Self::any`].
            let is_closed = !own.is_draining && self.circuits.is_closed(own);
            return if is_closed { Ok((own, false)) } else { self.any() };
        }
        let stand_in = owners.filter_map(find).find(|endpoint| self.is_usable(endpoint));
        stand_in.map_or_else(|| self.any(), |endpoint| Ok((endpoint, false)))
    }

    /// One that can be used, by weight, and the number of its turn. What an unusable one leaves is not all its neighbour's.
    fn by_turns(&self) -> Option<(usize, &Arc<Endpoint>)> {
        let turn = self.rotation.turn();
        for attempt in 0..TURNS_MAX {
            let unit = if attempt == 0 { turn } else { scattered(turn.wrapping_mul(TURNS_MAX).wrapping_add(attempt)) };
            let endpoint = self.rotation.position(unit).and_then(|position| self.endpoints.get(position))?;
            let share = endpoint.share();
            // One that only just came lets turns go by, ever fewer of them.
            if self.is_usable(endpoint) && (share == SHARE_WHOLE || scattered(unit) % SHARE_WHOLE < share) {
                return Some((turn, endpoint));
            }
        }
        self.endpoints.iter().find(|endpoint| self.is_usable(endpoint)).map(|endpoint| (turn, endpoint))
    }

    /// The one with the fewest pending calls for its weight; `first` among equals, so that turns decide between them.
    fn less_pending<'b>(&'b self, turn: usize, first: &'b Arc<Endpoint>) -> &'b Arc<Endpoint> {
        let count = self.endpoints.len();
        let compared = if count <= COMPARED_MAX { count } else { 1 };
        let start = scattered(turn) % count.max(1);
        let mut best = first;
        for other in self.endpoints.iter().cycle().skip(start).take(compared) {
            // Pending calls by weight, without a division.
            if weighted(other, best) < weighted(best, other) && self.is_usable(other) {
                best = other;
            }
        }
        best
    }

    /// One whose circuit is closed though no check speaks for it, or else one to be tried.
    fn any(&self) -> Result<Chosen<'_>, UpstreamError> {
        let open_to_new = || self.endpoints.iter().filter(|endpoint| !endpoint.is_draining);
        if open_to_new().next().is_none() {
            let is_empty = self.endpoints.is_empty();
            return Err(UpstreamError::unasked(if is_empty { Failure::NoEndpoint } else { Failure::Draining }, ""));
        }
        let closed = |position: usize| {
            self.endpoints.get(position).filter(|endpoint| self.circuits.is_closed(endpoint) && !endpoint.is_draining)
        };
        let by_turn = || self.rotation.position(self.rotation.turn()).and_then(closed);
        let found = std::iter::repeat_with(by_turn).take(TURNS_MAX).flatten().next();
        let found = found.or_else(|| (0..self.endpoints.len()).find_map(closed));
        if let Some(endpoint) = found {
            return Ok((endpoint, false));
        }
        let mut shortest = Duration::MAX;
        for endpoint in open_to_new() {
            match self.circuits.ask(endpoint) {
                Answer::Pass => return Ok((endpoint, false)),
                Answer::Trial => return Ok((endpoint, true)),
                Answer::Refuse(wait) => shortest = shortest.min(wait),
            }
        }
        Err(self.open(shortest, ""))
    }

    fn open(&self, wait: Duration, origin: &str) -> UpstreamError {
        UpstreamError::unasked(Failure::CircuitOpen, origin).until(wait)
    }

    /// Whether anything may be sent there without a thought.
    fn is_usable(&self, endpoint: &Endpoint) -> bool {
        !endpoint.is_draining && endpoint.is_healthy() && self.circuits.is_closed(endpoint) && !endpoint.is_full()
    }

    /// Whether this call is to try a half-open circuit. If so, the circuit counts on it.
    fn is_to_be_tried(&self, endpoint: &Endpoint) -> bool {
        let is_candidate = !endpoint.is_draining && endpoint.is_healthy() && !self.circuits.is_closed(endpoint);
        is_candidate && self.circuits.ask(endpoint) == Answer::Trial
    }
}

/// A limit passes as soon as any call ends.
fn at_limit(failure: Failure) -> UpstreamError {
    UpstreamError::unasked(failure, "").until(Duration::from_secs(1))
}

/// The pending calls of one, multiplied by the weight of the other.
fn weighted(one: &Endpoint, other: &Endpoint) -> u64 {
    let weight = other.weight * other.share();
    (one.pending() as u64).saturating_mul(weight as u64)
}

/// A number without visible relation to the next one's: the finisher of SplitMix64.
fn scattered(turn: usize) -> usize {
    let mut bits = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((bits ^ (bits >> 31)) >> 1).unwrap_or(0)
}
