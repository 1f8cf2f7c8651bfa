//! May an endpoint be asked, after what became of the calls before?
//!
//! A circuit for each endpoint. Closed, it lets calls through and counts failures in a row; open, it lets none through,
//! for a time that doubles with every opening; then a single trial call decides. Pure steps over (state, event, now).

use std::time::Duration;
use std::time::Instant;

use crate::config::model::Breaker;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::upstream::plan::WAIT_MS_MAX;

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Failures in a row that open it.
    pub(crate) failures_max: u32,
    /// How long it is open the first time.
    pub(crate) open: Duration,
    /// How long it is open at most.
    pub(crate) open_max: Duration,
    /// Percentage of a server's endpoints whose circuits may be open at once.
    pub(crate) share_max: usize,
}

impl Rules {
    /// Reads `breaker` of a server, reporting every mistake; `None` if it is switched off.
    pub(crate) fn compile(breaker: &Breaker, at: &At, problems: &mut Problems) -> Option<Self> {
        let mut in_range = |key: &str, value: u64, max: u64| {
            if value == 0 || value > max {
                problems.error(&at.key(key), format!("`{value}` is out of range"), format!("write 1 to {max}"));
            }
        };
        in_range("failures_max", breaker.failures_max.into(), 1_000_000);
        in_range("open_ms", breaker.open_ms, WAIT_MS_MAX);
        in_range("open_ms_max", breaker.open_ms_max, WAIT_MS_MAX);
        in_range("ejected_percent_max", breaker.ejected_percent_max.into(), 100);
        if breaker.open_ms_max < breaker.open_ms {
            let help = "it bounds how far `open_ms` grows: write at least as much";
            problems.error(&at.key("open_ms_max"), "`open_ms_max` is less than `open_ms`", help);
        }
        breaker.enabled.then(|| Self {
            failures_max: breaker.failures_max.max(1),
            open: Duration::from_millis(breaker.open_ms),
            open_max: Duration::from_millis(breaker.open_ms_max),
            share_max: usize::from(breaker.ejected_percent_max),
        })
    }

    /// How many of so many circuits may be open at once: never all of several, and one of one.
    pub(crate) fn open_at_once_max(&self, endpoints: usize) -> usize {
        (endpoints * self.share_max / 100).min(endpoints.saturating_sub(1)).max(1)
    }

    fn open_for(&self, openings: u32) -> Duration {
        let factor = 1_u32.checked_shl(openings.saturating_sub(1)).unwrap_or(u32::MAX);
        self.open.saturating_mul(factor).min(self.open_max)
    }
}

/// What is remembered of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Calls go through.
    Closed {
        /// Failures since the last success.
        failures: u32,
        /// Openings not long before.
        openings: u32,
        /// When it closed, if it ever was open.
        since: Option<Instant>,
    },
    /// No call goes through; from then on one may.
    Open { until: Instant, openings: u32 },
    /// One call is under way that decides.
    Trial { openings: u32 },
}

impl State {
    /// Where every circuit begins.
    pub(crate) const NEW: Self = Self::Closed { failures: 0, openings: 0, since: None };

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// Whether a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may.
    Pass,
    /// It may, and decides over the circuit: one at a time.
    Trial,
    /// It may not; after this time it is worth asking again.
    Refuse(Duration),
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    /// Nobody knows: its client left, say.
    Left,
}

/// How long a call is told to wait while a trial is under way.
const TRIAL_WAIT: Duration = Duration::from_secs(1);

/// A call asks to go out.
pub(crate) fn ask(state: State, now: Instant) -> (State, Answer) {
    match state {
        State::Closed { .. } => (state, Answer::Pass),
        State::Open { until, .. } if now < until => (state, Answer::Refuse(until - now)),
        State::Open { openings, .. } => (State::Trial { openings }, Answer::Trial),
        State::Trial { .. } => (state, Answer::Refuse(TRIAL_WAIT)),
    }
}

/// A call ended. `is_trial`: it was the one to decide. `may_open`: another circuit of the server may be open. What calls
/// of before an opening come to says nothing about the endpoint as it is now.
pub(crate) fn report(
    rules: &Rules,
    state: State,
    (outcome, is_trial): (Outcome, bool),
    may_open: bool,
    now: Instant,
) -> State {
    match (state, outcome) {
        (State::Closed { openings, since, .. }, Outcome::Succeeded) => State::Closed { failures: 0, openings, since },
        (State::Closed { failures, openings, since }, Outcome::Failed) => {
            let failures = failures.saturating_add(1).min(rules.failures_max);
            if failures < rules.failures_max || !may_open {
                return State::Closed { failures, openings, since };
            }
            let is_recent = since.is_some_and(|since| now.saturating_duration_since(since) < rules.open_max);
            opened(rules, if is_recent { openings.saturating_add(1) } else { 1 }, now)
        }
        (State::Trial { openings }, Outcome::Succeeded) if is_trial => {
            State::Closed { failures: 0, openings, since: Some(now) }
        }
        (State::Trial { openings }, Outcome::Failed) if is_trial => opened(rules, openings.saturating_add(1), now),
        (State::Trial { openings }, Outcome::Left) if is_trial => State::Open { until: now, openings },
        (State::Closed { .. } | State::Open { .. } | State::Trial { .. }, _) => state,
    }
}

fn opened(rules: &Rules, openings: u32, now: Instant) -> State {
    State::Open { until: now + rules.open_for(openings), openings }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { failures_max: 3, open: Duration::from_secs(1), open_max: Duration::from_secs(5), share_max: 50 };

    /// One circuit and a clock that only tests move.
    struct Bench {
        state: State,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { state: State::NEW, now: Instant::now() }
        }

        fn ask(&mut self) -> Answer {
            let (state, answer) = ask(self.state, self.now);
            self.state = state;
            answer
        }

        fn report(&mut self, outcome: Outcome, is_trial: bool) {
            self.state = report(&RULES, self.state, (outcome, is_trial), true, self.now);
        }

        fn fail(&mut self, times: usize) {
            for _ in 0..times {
                self.report(Outcome::Failed, false);
            }
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// Lets the circuit's time pass and fails the trial; how long it is then open.
        fn fail_trial(&mut self) -> Duration {
            self.pass(60);
            assert_eq!(self.ask(), Answer::Trial);
            self.report(Outcome::Failed, true);
            match self.ask() {
                Answer::Refuse(wait) => wait,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn failures_in_a_row_open_a_circuit_and_a_success_between_them_does_not() {
        let mut bench = Bench::new();
        bench.fail(2);
        bench.report(Outcome::Succeeded, false);
        bench.fail(2);
        bench.report(Outcome::Left, false);
        assert_eq!(bench.ask(), Answer::Pass);
        bench.fail(1);
        assert_eq!(bench.ask(), Answer::Refuse(RULES.open));
    }

    #[test]
    fn one_trial_at_a_time_decides() {
        let mut bench = Bench::new();
        bench.fail(3);
        bench.pass(1);
        assert_eq!(bench.ask(), Answer::Trial);
        assert_eq!(bench.ask(), Answer::Refuse(TRIAL_WAIT));
        bench.report(Outcome::Succeeded, false);
        bench.report(Outcome::Failed, false);
        assert_eq!(bench.ask(), Answer::Refuse(TRIAL_WAIT), "what others come to does not decide");
        bench.report(Outcome::Succeeded, true);
        assert_eq!(bench.ask(), Answer::Pass);
        bench.fail(2);
        assert_eq!(bench.ask(), Answer::Pass, "it counts from zero again");
    }

    #[test]
    fn a_trial_that_comes_to_nothing_leaves_its_place_to_the_next_call() {
        let mut bench = Bench::new();
        bench.fail(3);
        bench.pass(1);
        assert_eq!(bench.ask(), Answer::Trial);
        bench.report(Outcome::Left, true);
        assert_eq!(bench.ask(), Answer::Trial);
    }

    #[test]
    fn the_time_grows_to_its_ceiling_and_is_short_again_after_a_while_without_openings() {
        let mut bench = Bench::new();
        bench.fail(3);
        let waits: Vec<u64> = (0..4).map(|_| bench.fail_trial().as_secs()).collect();
        assert_eq!(waits, [2, 4, 5, 5]);
        bench.pass(5);
        assert_eq!(bench.ask(), Answer::Trial);
        bench.report(Outcome::Succeeded, true);
        bench.fail(3);
        assert_eq!(bench.ask(), Answer::Refuse(RULES.open_max), "it only just closed");
        bench.pass(5);
        assert_eq!(bench.ask(), Answer::Trial);
        bench.report(Outcome::Succeeded, true);
        bench.pass(5);
        bench.fail(3);
        assert_eq!(bench.ask(), Answer::Refuse(RULES.open));
    }

    #[test]
    fn what_was_sent_before_the_opening_changes_nothing() {
        let mut bench = Bench::new();
        bench.fail(3);
        let open = bench.state;
        for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Left] {
            bench.report(outcome, false);
            assert_eq!(bench.state, open);
        }
    }

    #[test]
    fn a_circuit_stays_closed_where_no_other_may_open_and_opens_when_one_may() {
        let now = Instant::now();
        let mut state = State::NEW;
        for _ in 0..10 {
            state = report(&RULES, state, (Outcome::Failed, false), false, now);
        }
        assert!(state.is_closed());
        assert!(!report(&RULES, state, (Outcome::Failed, false), true, now).is_closed());
    }

    #[test]
    fn never_all_of_several_circuits_may_be_open() {
        let shares = |share_max| [1, 2, 3, 4, 64].map(|count| Rules { share_max, ..RULES }.open_at_once_max(count));
        assert_eq!(shares(50), [1, 1, 1, 2, 32]);
        assert_eq!(shares(100), [1, 1, 2, 3, 63]);
        assert_eq!(shares(1), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn openings_without_number_do_not_overflow() {
        assert_eq!(RULES.open_for(u32::MAX), RULES.open_max);
        assert_eq!(RULES.open_for(0), RULES.open);
    }
}
