//! What creeps in an hour full of faults? `scripts/soak` builds everything and calls it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use load_tests::soak;

/// Mixed load with reloads, upstream faults and clients that leave, and what the gateway holds meanwhile and afterwards.
/// Prints figures and claims; ends with failure if a claim does not hold.
#[derive(Debug, Parser)]
struct Options {
    /// Directory with the programs `portcullis` and `upstream`.
    #[arg(long)]
    programs: PathBuf,
    /// Directory for configurations, records and logs, on a real disk. It must not exist.
    #[arg(long)]
    scratch: PathBuf,
    /// Minutes of all of it.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seconds of one round, without the quiet after it.
    #[arg(long, default_value_t = 45.0)]
    round_seconds: f64,
    /// Usual calls a second; what else is done does not change.
    #[arg(long, default_value_t = 240.0)]
    rate: f64,
    /// What happens when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the figures, as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    assert!(!options.scratch.exists(), "the scratch directory {} exists", options.scratch.display());
    assert!((0.0..=24.0 * 60.0).contains(&options.minutes), "up to a day");
    assert!((12.0..=3600.0).contains(&options.round_seconds), "rounds of 12 s to an hour");
    let bounded = load_tests::process::end_all_after((options.minutes * 60.0) as u64 + 600);
    let plan = soak::Plan {
        programs: options.programs,
        scratch: options.scratch,
        length: Duration::from_secs_f64(options.minutes * 60.0),
        round: Duration::from_secs_f64(options.round_seconds),
        rate: options.rate,
        seed: options.seed,
    };
    let report = bounded.and_then(|()| soak::run(&plan));
    load_tests::verdict::end(report.map(|report| vec![report]), options.out.as_deref())
}
