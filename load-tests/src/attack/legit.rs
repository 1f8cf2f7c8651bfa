//! What do honest clients notice?
//!
//! Callers at a rate that nobody notices, each on a connection of its own that it keeps. A call counts from when it is
//! sent to when its answer is whole. Refused with 503 and told when to come again is no error, but it is counted.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::attack::Ground;
use crate::client::Connection;
use crate::client::judge;
use crate::messages::Ask;
use crate::messages::Era;
use crate::stand::Gateway;
use crate::verdict::Report;

/// How long an honest client waits.
const WAIT: Duration = Duration::from_secs(20);

/// How many of them, and how often they call altogether.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callers {
    pub(super) count: usize,
    pub(super) per_second: f64,
    pub(super) era: Era,
}

/// What they saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Times of right answers, in µs, in order of size.
    times: Vec<f64>,
    /// Calls that were refused for now.
    pub(super) refused: u64,
    /// What else went wrong.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Seen {
    /// Right answers.
    pub(super) fn right(&self) -> usize {
        self.times.len()
    }

    /// The time that so many of a hundred calls did not exceed, in µs.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(at).copied().unwrap_or(f64::NAN)
    }

    /// Whether each of them was answered. In the quick form, where all attacks share the machine, a gateway that is not run in
    /// time may put some off.
    pub(super) fn were_answered(&self, ground: &Ground) -> bool {
        self.errors.is_empty() && self.right() > 0 && (ground.is_quick || self.refused == 0)
    }

    /// Tells what they saw, and claims that each was answered, or refused and told when to come again.
    pub(super) fn report(&self, report: &mut Report) {
        report.figure("honest_answered", self.right());
        report.figure("honest_refused", self.refused);
        report.figure("honest_p90_us", self.percentile(90));
        report.claim(
            "honest calls are answered, or refused and told when to come again",
            self.errors.is_empty() && self.right() > 0,
            format!("{} answered, {} refused, {:?}", self.right(), self.refused, self.errors),
        );
    }

    /// Adds what others saw.
    pub(super) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_by(f64::total_cmp);
        self.refused += other.refused;
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
    }
}

/// What honest clients of `server` see while `what` goes on.
pub(super) fn during<T>(gateway: &Gateway, server: &str, callers: Callers, what: impl FnOnce() -> T) -> (Seen, T) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let calling: Vec<_> = (0..callers.count)
            .map(|nth| {
                scope.spawn({
                    let over = &over;
                    move || call(gateway, server, callers, nth, over)
                })
            })
            .collect();
        let done = what();
        over.store(true, Relaxed);
        let mut seen = Seen::default();
        for caller in calling {
            seen.add(caller.join().expect("an honest caller"));
        }
        (seen, done)
    })
}

fn call(gateway: &Gateway, server: &str, callers: Callers, nth: usize, over: &AtomicBool) -> Seen {
    let target = gateway.target(server);
    let mut prepared = target.prepare(Ask::Query, callers.era, None);
    let mut connection = Connection::new(gateway.data, WAIT);
    let interval = Duration::from_secs_f64(callers.count as f64 / callers.per_second);
    let mut seen = Seen::default();
    // Spread over the interval, so that they do not come all at once.
    let mut due = Instant::now() + interval.mul_f64(nth as f64 / callers.count as f64);
    let mut number = nth as u64;
    while !over.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due = (due + interval).max(Instant::now());
        number += callers.count as u64;
        let expected = prepared.expected();
        let (bytes, id) = prepared.numbered(number);
        let sent = Instant::now();
        match connection.send(bytes).and_then(|()| connection.receive()) {
            Ok(answer) if answer.status == 503 && answer.retry_after => seen.refused += 1,
            Ok(answer) => match judge(&answer, id, expected) {
                Ok(()) => seen.times.push((answer.whole - sent).as_secs_f64() * 1e6),
                Err(wrong) => *seen.errors.entry(wrong.name()).or_default() += 1,
            },
            Err(wrong) => *seen.errors.entry(wrong.name()).or_default() += 1,
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_seen() {
        let mut seen = Seen::default();
        seen.add(Seen { times: vec![3.0, 1.0], ..Seen::default() });
        seen.add(Seen { times: (4..=10).map(f64::from).chain([2.0]).collect(), ..Seen::default() });
        assert_eq!((seen.percentile(90), seen.percentile(100), seen.percentile(10)), (9.0, 10.0, 1.0));
        assert!(Seen::default().percentile(90).is_nan());
    }
}
