//! Is it too early for one more?
//!
//! The generic cell rate algorithm: all that is remembered of what came is the moment at which everything will have been
//! worked off. So many may come at once, then one each interval; over any time no more than that many and one for each
//! interval that is over. Times are billionths of a second since 1970.

use std::num::NonZeroU32;

/// A rate: so many at once, and as many again in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// From one to the next, rounded up: never more than the rate.
    interval: u64,
    /// How long it takes to work off as many as may come at once.
    period: u64,
}

/// What is remembered of what came: when everything is worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backlog(u64);

impl Rate {
    /// So many in each of so many seconds.
    pub(super) fn new(count: NonZeroU32, seconds: u64) -> Self {
        let count = u64::from(count.get());
        let interval = seconds.saturating_mul(1_000_000_000).div_ceil(count);
        Self { interval, period: interval.saturating_mul(count) }
    }
}

impl Backlog {
    /// When everything is worked off. Never more than a period from now: else the clock was set back meanwhile, and nobody has to
    /// wait until it is there again.
    fn end(self, rate: Rate, now: u64) -> u64 {
        self.0.clamp(now, now.saturating_add(rate.period))
    }

    /// Whether one more may come; if not, how long it is until then.
    pub(super) fn check(self, rate: Rate, now: u64) -> Result<(), u64> {
        let needed = self.end(rate, now).saturating_add(rate.interval);
        let wait = needed.saturating_sub(now.saturating_add(rate.period));
        if wait == 0 { Ok(()) } else { Err(wait) }
    }

    /// Adds one more.
    pub(super) fn add(&mut self, rate: Rate, now: u64) {
        self.0 = self.end(rate, now).saturating_add(rate.interval);
    }

    /// Takes one back that was added `then`. After an interval it may have been worked off, and is not taken back any more: else
    /// what others add could be lifted by what was given back late.
    pub(super) fn give_back(&mut self, rate: Rate, then: u64, now: u64) {
        if now.saturating_sub(then) < rate.interval {
            self.0 = self.0.saturating_sub(rate.interval);
        }
    }

    /// When nothing is remembered any more.
    pub(super) fn end_nanos(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate::new(NonZeroU32::new(count).unwrap(), seconds)
    }

    /// Takes one if it may come.
    fn take(backlog: &mut Backlog, rate: Rate, now: u64) -> Result<(), u64> {
        backlog.check(rate, now)?;
        backlog.add(rate, now);
        Ok(())
    }

    #[test]
    fn so_many_come_at_once_and_then_one_each_interval_to_the_nanosecond() {
        let (rate, begun) = (rate(60, 60), 1_700_000_000 * SECOND);
        let mut backlog = Backlog::default();
        assert!((0..60).all(|_| take(&mut backlog, rate, begun).is_ok()));
        assert_eq!(take(&mut backlog, rate, begun), Err(SECOND));
        assert_eq!(take(&mut backlog, rate, begun + SECOND - 1), Err(1));
        assert_eq!(take(&mut backlog, rate, begun + SECOND), Ok(()));
        assert_eq!(take(&mut backlog, rate, begun + SECOND), Err(SECOND));
        assert!((0..60).all(|_| take(&mut backlog, rate, begun + 61 * SECOND).is_ok()));
        assert!(take(&mut backlog, rate, begun + 61 * SECOND).is_err());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let (rate, now) = (rate(2, 1), 5 * SECOND);
        let mut backlog = Backlog::default();
        assert!(take(&mut backlog, rate, now).is_ok() && take(&mut backlog, rate, now).is_ok());
        backlog.give_back(rate, now, now);
        assert!(take(&mut backlog, rate, now).is_ok() && take(&mut backlog, rate, now).is_err());
        // Saved up and given back late, they would be a burst beyond the rate.
        let later = now + SECOND;
        assert!(take(&mut backlog, rate, later).is_ok() && take(&mut backlog, rate, later).is_ok());
        backlog.give_back(rate, now, later);
        assert!(take(&mut backlog, rate, later).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_waiting_for_longer_than_a_period() {
        let rate = rate(10, 60);
        let mut backlog = Backlog::default();
        (0..10).for_each(|_| backlog.add(rate, 1_000_000 * SECOND));
        assert_eq!(backlog.check(rate, 10 * SECOND), Err(6 * SECOND));
    }

    /// What the documentation promises, word by word: one may come unless with it there would be, over some time up to now,
    /// more than the rate's number and one for each interval that is over.
    fn naive(came: &[u64], count: u64, interval: u64, now: u64) -> bool {
        (0..came.len()).all(|first| {
            let during = (came.len() - first) as u64 + 1;
            during <= count + (now - came[first]) / interval
        })
    }

    proptest! {
        #[test]
        fn it_decides_as_the_naive_reference(
            count in 1_u32..8,
            seconds in 1_u64..5,
            steps in prop::collection::vec(0_u64..4, 1..80),
            nanos in prop::collection::vec(0_u64..3, 80),
        ) {
            let rate = rate(count, seconds);
            let (mut backlog, mut came, mut now) = (Backlog::default(), Vec::new(), 1_700_000_000 * SECOND);
            for (step, nano) in steps.iter().zip(nanos) {
                // Mostly at the very boundaries: whole thirds of an interval, and a nanosecond beside them.
                now += step * rate.interval / 3 + nano;
                let expected = naive(&came, count.into(), rate.interval, now);
                let decided = backlog.check(rate, now);
                prop_assert_eq!(decided.is_ok(), expected);
                match decided {
                    Ok(()) => {
                        backlog.add(rate, now);
                        came.push(now);
                    }
                    // The wait is the true one.
                    Err(wait) => {
                        prop_assert!(naive(&came, count.into(), rate.interval, now + wait));
                        prop_assert!(!naive(&came, count.into(), rate.interval, now + wait - 1));
                    }
                }
            }
        }
    }
}
