//! What does the gateway hold, second by second?

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::process::Running;
use crate::stand::Held;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);

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
