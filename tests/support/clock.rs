//! How long did it take, had this machine not stood still?
//!
//! "Within a second" is a promise of the gateway, not of the machine that tests it. A thread that asks to be woken every
//! 10 ms knows for how long nobody was run here, and that is not counted. What is merely slow is.

use std::sync::LazyLock;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::time::timeout;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(10);
/// A look that comes no later than this after the one before says nothing.
const IN_TIME: Duration = Duration::from_millis(30);
/// How long beyond its limit something is waited for, which may have been held up by the machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the thread was run last, and for how long it was not until then, altogether.
struct Stalls {
    seen: Instant,
    sum: Duration,
}

static STALLS: LazyLock<Mutex<Stalls>> = LazyLock::new(|| {
    thread::spawn(|| {
        loop {
            thread::sleep(EVERY);
            let mut stalls = STALLS.lock().unwrap();
            stalls.sum = stalls.until(Instant::now());
            stalls.seen = Instant::now();
        }
    });
    Mutex::new(Stalls { seen: Instant::now(), sum: Duration::ZERO })
});

impl Stalls {
    /// For how long the thread was not run, a stall that lasts included.
    fn until(&self, now: Instant) -> Duration {
        self.sum + now.saturating_duration_since(self.seen).saturating_sub(IN_TIME)
    }
}

/// Time that passes, but for that in which this process was not run.
pub(crate) struct Clock {
    began: Instant,
    stalled: Duration,
}

impl Clock {
    /// From now on.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, stalled: STALLS.lock().unwrap().until(now) }
    }

    /// The time since then.
    pub(crate) fn elapsed(&self) -> Duration {
        let now = Instant::now();
        let stalled = STALLS.lock().unwrap().until(now).saturating_sub(self.stalled);
        (now - self.began).saturating_sub(stalled)
    }
}

/// What comes of it within `limit`; none if it comes later, or never.
pub(crate) async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
    let clock = Clock::start();
    let done = timeout(limit + PATIENCE, what).await.ok()?;
    (clock.elapsed() <= limit).then_some(done)
}

#[test]
fn only_what_is_beyond_a_late_look_is_a_stall() {
    let now = Instant::now();
    let stalls = Stalls { seen: now, sum: Duration::from_secs(1) };
    let until = |ms| stalls.until(now + Duration::from_millis(ms));
    assert_eq!([10, 30, 1_030].map(until), [1, 1, 2].map(Duration::from_secs));
}

#[tokio::test]
async fn what_comes_late_without_a_stall_does_not_count() {
    assert_eq!(within(Duration::from_secs(1), async { 1 }).await, Some(1));
    // One of these is not stalled for almost all of its time.
    let mut late = Vec::new();
    for _ in 0..5 {
        late.push(within(Duration::from_millis(20), tokio::time::sleep(Duration::from_millis(300))).await);
    }
    assert!(late.contains(&None), "{late:?}");
}
