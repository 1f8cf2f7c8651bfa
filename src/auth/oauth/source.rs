//! Which keys of an issuer are in use, and may they be asked for now?
//!
//! One fetch at a time. One is begun when the keys are older than `refresh`, and, not more often than every [`ASK_INTERVAL`],
//! when a token names a key that is not known, however many such tokens come. Keys that cannot be fetched anew go on being used
//! for as long as the operator says; then nobody is let in by them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::auth::oauth::fetch::Fetch;
use crate::auth::oauth::fetch::Found;
use crate::auth::oauth::fetch::Place;
use crate::auth::oauth::jwk::KeySet;

/// The shortest time from one fetch on account of an unknown key to the next, and from one that failed to the next try.
pub(super) const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// How an issuer's keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upkeep {
    /// From one look at the keys to the next.
    pub refresh: Duration,
    /// For how long keys are used that cannot be looked at again.
    pub stale_max: Duration,
}

/// The keys of one issuer, across reloads.
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) upkeep: Upkeep,
    fetch: Arc<dyn Fetch>,
    held: ArcSwapOption<Held>,
    pace: Mutex<Pace>,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// Keys that were fetched.
pub(super) struct Held {
    pub(super) keys: KeySet,
    /// The issuer's metadata as it came, if it was looked for.
    pub metadata: Option<Bytes>,
    /// When the fetch that brought them began.
    since: Instant,
    /// Which keys these are: another number, other keys.
    pub(super) generation: u64,
}

#[derive(Default)]
struct Pace {
    is_running: bool,
    /// When the last fetch began.
    begun: Option<Instant>,
    /// When the last fetch began that a token brought about.
    asked: Option<Instant>,
}

/// What is known of an issuer's keys, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The issuer's name.
    pub issuer: Arc<str>,
    /// Keys in use.
    pub keys: usize,
    /// How long ago they were fetched; `None`: never.
    pub age: Option<Duration>,
    /// Fetches that brought keys.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
}

impl Source {
    /// A source that knows no keys yet, or those of `before` if it is of the same issuer.
    pub(super) fn new(
        name: &Arc<str>,
        place: Place,
        upkeep: Upkeep,
        fetch: Arc<dyn Fetch>,
        before: Option<&Self>,
    ) -> Self {
        let before = before.filter(|before| before.place.issuer == place.issuer && before.place.jwks == place.jwks);
        Self {
            name: Arc::clone(name),
            place,
            upkeep,
            fetch,
            held: ArcSwapOption::new(before.and_then(|before| before.held.load_full())),
            pace: Mutex::default(),
            ended: watch::Sender::new(0),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The keys that may be used at `now`.
    pub(super) fn held(&self, now: Instant) -> Option<Arc<Held>> {
        self.held.load_full().filter(|held| held.age(now) <= self.upkeep.stale_max)
    }

    /// Whether the keys of this generation may still be used at `now`.
    pub(super) fn is_current(&self, generation: u64, now: Instant) -> bool {
        let held = self.held.load();
        held.as_ref().is_some_and(|held| held.generation == generation && held.age(now) <= self.upkeep.stale_max)
    }

    /// Begins a fetch on `keeper` if the keys are due to be looked at.
    pub(super) fn keep_up(self: &Arc<Self>, keeper: &Handle, now: Instant) {
        let is_fresh = self.held.load().as_ref().is_some_and(|held| held.age(now) < self.upkeep.refresh);
        let mut pace = self.pace();
        if !is_fresh && !pace.is_running && is_past(pace.begun, now) {
            self.begin(&mut pace, keeper, now);
        }
    }

    /// Waits for keys that may hold one which is not known: for the fetch under way, or for a new one if it is time for one.
    /// Whether there was something to wait for.
    pub(super) async fn ask(self: &Arc<Self>, keeper: &Handle, now: Instant) -> bool {
        let mut ended = {
            let mut pace = self.pace();
            if !pace.is_running {
                if !is_past(pace.asked, now) {
                    return false;
                }
                pace.asked = Some(now);
                self.begin(&mut pace, keeper, now);
            }
            self.ended.subscribe()
        };
        ended.borrow_and_update();
        // It can have ended in between, which is as good. The fetch has a limit of time, and the sender lives as long as it.
        if self.pace().is_running {
            let _ = ended.changed().await;
        }
        true
    }

    fn begin(self: &Arc<Self>, pace: &mut Pace, keeper: &Handle, now: Instant) {
        pace.is_running = true;
        pace.begun = Some(now);
        let source = Arc::clone(self);
        keeper.spawn(async move { source.fetch(now).await });
    }

    async fn fetch(&self, now: Instant) {
        let ended = Ended(self);
        let issuer = &*self.name;
        match self.fetch.keys(&self.place).await {
            Ok(found) => {
                self.take(found, now);
                if self.fetched.fetch_add(1, Ordering::Relaxed) == 0 || self.held.load().is_none() {
                    tracing::info!(issuer, "the issuer's keys are known");
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                match self.held(now) {
                    Some(held) => {
                        let left = self.upkeep.stale_max.saturating_sub(held.age(now)).as_secs();
                        tracing::warn!(issuer, %error, seconds_left = left, "an issuer's keys cannot be looked at; those that are known go on being used");
                    }
                    None => tracing::warn!(issuer, %error, "an issuer's keys are not known; its tokens are refused"),
                }
            }
        }
        drop(ended);
    }

    fn take(&self, Found { keys, metadata }: Found, now: Instant) {
        let before = self.held.load_full();
        let generation = match &before {
            Some(before) if before.keys == keys => before.generation,
            Some(before) => before.generation + 1,
            None => 0,
        };
        let metadata = metadata.or_else(|| before.and_then(|before| before.metadata.clone()));
        self.held.store(Some(Arc::new(Held { keys, metadata, since: now, generation })));
    }

    /// What is known of the keys.
    pub(super) fn figures(&self, now: Instant) -> Figures {
        let held = self.held.load();
        Figures {
            issuer: Arc::clone(&self.name),
            keys: held.as_ref().map_or(0, |held| held.keys.count()),
            age: held.as_ref().map(|held| held.age(now)),
            fetched: self.fetched.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// The end of a fetch, a panic within it included.
struct Ended<'s>(&'s Source);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.pace().is_running = false;
        self.0.ended.send_modify(|count| *count += 1);
    }
}

fn is_past(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= ASK_INTERVAL)
}
