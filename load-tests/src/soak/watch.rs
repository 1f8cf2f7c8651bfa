//! What does the gateway hold, second by second, and does the machine run anybody at all?

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::process::Running;
use crate::soak::faults::Stall;
use crate::stand::Held;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);

/// From one look for stalls to the next.
const STALLS_EVERY: Duration = Duration::from_millis(20);
/// What is shorter ends nothing: the time limits of the soak are two seconds and more.
const STALL_MIN: Duration = Duration::from_secs(1);

/// One look.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Seconds since the soak began.
    pub(super) at_s: f64,
    /// What was held.
    #[serde(flatten)]
    pub(super) held: Held,
}

/// Looks until `over`.
pub(super) fn watch(process: &Running, began: Instant, over: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !over.load(Relaxed) {
        samples.push(Sample { at_s: began.elapsed().as_secs_f64(), held: Held::by(process) });
        thread::sleep(EVERY);
    }
    samples
}

/// Notes until `over` when this process was not run for a second or more.
pub(super) fn note_stalls(over: &AtomicBool, stalls: &Mutex<Vec<Stall>>) {
    let mut seen = Instant::now();
    while !over.load(Relaxed) {
        thread::sleep(STALLS_EVERY);
        let now = Instant::now();
        if now - seen > STALL_MIN {
            stalls.lock().unwrap_or_else(PoisonError::into_inner).push(Stall { began: seen, ended: now });
        }
        seen = now;
    }
}
