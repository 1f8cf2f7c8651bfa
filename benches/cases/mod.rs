//! What is measured, one operation at a time?
//!
//! Each file sets up the operations of one part. The benchmarks time them with [`time`]; the guard (`load-tests/guard`)
//! counts their instructions and allocations, so both speak of the same work. A set-up is never measured, a second run
//! of an operation does what the first did, and every run checks that it did what its name says.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement stops at the first surprise, and each takes a part of these"
)]

pub(crate) mod constraint;
pub(crate) mod decide;
pub(crate) mod record;
pub(crate) mod rules;
pub(crate) mod scan;
pub(crate) mod screen;
pub(crate) mod session;

use std::time::Duration;
use std::time::Instant;

/// Rounds of which [`time`] tells the median.
const ROUNDS: usize = 15;
/// How long a round takes, about.
const ROUND: Duration = Duration::from_millis(20);

/// One operation, ready to be run.
pub(crate) struct Case {
    /// What it is: never changes, for it is the name in the guard's baseline.
    pub(crate) name: String,
    /// How often the guard runs it: more for what is short.
    pub(crate) repeat: u32,
    run: Box<dyn FnMut()>,
}

impl Case {
    /// The operation `run`, which the guard repeats `repeat` times.
    pub(crate) fn new(name: impl Into<String>, repeat: u32, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), repeat, run: Box::new(run) }
    }

    /// Runs it once.
    pub(crate) fn run(&mut self) {
        (self.run)();
    }
}

/// Times each of `cases` and prints the median of rounds, in nanoseconds an operation.
pub(crate) fn time(cases: impl IntoIterator<Item = Case>) {
    for mut case in cases {
        let (label, ns) = (case.name.clone(), nanos(&mut case));
        println!("{label:<48} {ns:>9.0} ns");
    }
}

/// The median over rounds of what one operation of `case` takes.
pub(crate) fn nanos(case: &mut Case) -> f64 {
    let started = Instant::now();
    let mut warm_ups = 0;
    while started.elapsed() < ROUND {
        case.run();
        warm_ups += 1;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..warm_ups).for_each(|_| case.run());
            started.elapsed().as_nanos() as f64 / f64::from(warm_ups)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
