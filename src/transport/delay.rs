//! How long does work wait for a worker thread?
//!
//! A task among all others sleeps for a moment, again and again, and sees how late it is woken. What counts is the delay
//! that stands: the least one of a while, as a burst is worked off and a queue that stays is not. Where the task is not
//! woken at all, whoever asks notices it, and the delay stands as long as that goes on. While nobody is connected nothing
//! is measured.

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

/// The delay that stands. Times are in microseconds since `start`; 0 is none.
#[derive(Debug)]
pub struct Delay {
    start: Instant,
    /// What was seen last.
    seen: AtomicU64,
    /// When the task is to be woken, and when somebody noticed first that it was not.
    due: AtomicU64,
    noticed: AtomicU64,
    is_watched: AtomicBool,
}

impl Default for Delay {
    fn default() -> Self {
        let none = || AtomicU64::new(0);
        Self { start: Instant::now(), seen: none(), due: none(), noticed: none(), is_watched: AtomicBool::new(false) }
    }
}

impl Delay {
    /// What stands at this moment.
    pub fn standing(&self) -> Duration {
        let (now, due) = (self.micros(Instant::now()), self.due.load(Ordering::Relaxed));
        let since = if due != 0 && due < now {
            // Whoever comes first after a pause of the whole process notices it, and it is over before it stands.
            let noticed = self.noticed.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            now.saturating_sub(noticed.err().unwrap_or(now))
        } else {
            0
        };
        Duration::from_micros(since.max(self.seen.load(Ordering::Relaxed)))
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes what was seen, and when the next look is due; `None` when there is none.
    fn note(&self, seen: Duration, due: Option<Instant>) {
        self.seen.store(u64::try_from(seen.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.due.store(due.map_or(0, |due| self.micros(due)), Ordering::Relaxed);
        self.noticed.store(0, Ordering::Relaxed);
    }

    /// Begins to measure on the present runtime, unless that is done already; goes on as long as `is_busy`.
    pub fn watch(self: &Arc<Self>, is_busy: impl Fn() -> bool + Send + 'static) {
        if self.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let delay = Arc::clone(self);
        tokio::spawn(async move {
            let mut looks = Looks::default();
            let mut standing = Duration::ZERO;
            loop {
                while is_busy() {
                    let due = Instant::now() + PAUSE;
                    delay.note(standing, Some(due));
                    tokio::time::sleep_until(due).await;
                    let now = Instant::now();
                    standing = looks.add(now, now.saturating_duration_since(due));
                }
                delay.note(Duration::ZERO, None);
                delay.is_watched.store(false, Ordering::SeqCst);
                // Who became busy just before that found this still at work.
                if !is_busy() || delay.is_watched.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
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

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_not_woken_is_noticed_by_whoever_asks_and_a_pause_is_none() {
        let (delay, millis) = (Delay::default(), Duration::from_millis);
        delay.note(Duration::ZERO, Some(Instant::now() + millis(20)));
        assert_eq!(delay.standing(), millis(0));
        tokio::time::advance(millis(500)).await;
        assert_eq!(delay.standing(), millis(0), "it is noticed now");
        tokio::time::advance(millis(300)).await;
        assert_eq!((delay.standing(), delay.standing()), (millis(300), millis(300)));
        delay.note(millis(7), Some(Instant::now() + millis(20)));
        assert_eq!(delay.standing(), millis(7));
        delay.note(millis(0), None);
        tokio::time::advance(millis(300)).await;
        assert_eq!(delay.standing(), millis(0));
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
