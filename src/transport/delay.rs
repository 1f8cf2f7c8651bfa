//! How long does work wait for a worker thread?
//!
//! A task among all others sleeps for a moment, again and again, and sees how late it is woken. What counts is the delay
//! that stands: the least one of a while, as a burst is worked off and a queue that stays is not. While nobody is
//! connected nothing is measured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a delay must stand to count, or for two looks where these take longer.
const STANDS: Duration = Duration::from_millis(100);
/// Looks that are remembered.
const LOOKS_MAX: usize = 16;

/// The delay that stands.
#[derive(Debug, Default)]
pub struct Delay {
    micros: AtomicU64,
    is_watched: AtomicBool,
}

impl Delay {
    /// What stands at this moment.
    pub fn standing(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Begins to measure on the present runtime, unless that is done already; goes on as long as `is_busy`.
    pub fn watch(self: &Arc<Self>, is_busy: impl Fn() -> bool + Send + 'static) {
        if self.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let delay = Arc::clone(self);
        tokio::spawn(async move {
            let mut looks = Looks::default();
            while is_busy() {
                let due = Instant::now() + PAUSE;
                tokio::time::sleep_until(due).await;
                let now = Instant::now();
                let standing = looks.add(now, now.saturating_duration_since(due));
                delay.micros.store(u64::try_from(standing.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            delay.micros.store(0, Ordering::Relaxed);
            delay.is_watched.store(false, Ordering::Release);
        });
    }
}

/// The latest looks, the newest last.
#[derive(Debug, Default)]
struct Looks(VecDeque<(Instant, Duration)>);

impl Looks {
    /// Adds a look and says what stands: the least of [`STANDS`], and of at least two.
    fn add(&mut self, now: Instant, late: Duration) -> Duration {
        self.0.push_back((now, late));
        while self.0.len() > LOOKS_MAX || (self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| *at + STANDS < now))
        {
            self.0.pop_front();
        }
        let is_enough = self.0.len() > 1;
        self.0.iter().map(|(_, late)| *late).min().filter(|_| is_enough).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_the_least_of_a_while() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut looks = Looks::default();
        let seen: Vec<u128> = [(20, 0), (40, 0), (500, 440), (900, 380), (1300, 360), (1320, 5), (1340, 5), (1450, 90)]
            .into_iter()
            .map(|(at, late)| looks.add(start + millis(at), millis(late)).as_millis())
            .collect();
        // One late look is a hiccup, two are a queue; the first that is in time ends it.
        assert_eq!(seen, [0, 0, 0, 380, 360, 5, 5, 5]);
        for at in 2000..2100 {
            looks.add(start + millis(at), millis(1));
        }
        assert!(looks.0.len() <= LOOKS_MAX);
    }

    #[tokio::test]
    async fn a_worker_that_is_kept_busy_is_seen_and_so_is_its_rest() {
        let delay = Arc::new(Delay::default());
        let is_busy = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&is_busy);
        delay.watch(move || asked.load(Ordering::Relaxed));
        for _ in 0..4 {
            tokio::time::sleep(PAUSE / 2).await;
            std::thread::sleep(Duration::from_millis(150));
        }
        tokio::task::yield_now().await;
        assert!(delay.standing() >= Duration::from_millis(50), "{:?}", delay.standing());
        is_busy.store(false, Ordering::Relaxed);
        for _ in 0..100 {
            tokio::time::sleep(PAUSE).await;
            if delay.standing() == Duration::ZERO {
                return;
            }
        }
        panic!("what is measured does not end with the work");
    }
}
