//! Measures what the gateway costs. `load-tests/run` builds everything and calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use load_tests::measure::Plan;
use load_tests::measure::Programs;

/// Measures Portcullis beside bare Pingora and nginx, and writes down what it found.
#[derive(Debug, Parser)]
struct Options {
    /// Directory with the programs `portcullis`, `upstream`, `bare` and `generator`.
    #[arg(long)]
    programs: PathBuf,
    /// nginx, if it is to be measured.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Rounds that count.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Calls of a round on each way.
    #[arg(long, default_value_t = 8000)]
    calls: u64,
    /// Connections of the closed loop.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seconds of the open loop, each round on each way.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Requests a second in the open loop; absent: half of what bare Pingora and full policy can both answer.
    #[arg(long)]
    rate: Option<f64>,
    /// Directory for configurations, records and logs, on a real disk. It must not exist and is removed at the end.
    #[arg(long)]
    scratch: PathBuf,
    /// A document whose marked part is written anew.
    #[arg(long)]
    document: Vec<PathBuf>,
    /// Directory for the JSON and the charts.
    #[arg(long)]
    figures: PathBuf,
    /// The day.
    #[arg(long)]
    date: String,
    /// The commit that was built.
    #[arg(long)]
    commit: String,
    /// The profile that was built with.
    #[arg(long)]
    profile: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    assert!(!options.scratch.exists(), "the scratch directory {} exists", options.scratch.display());
    let program = |name: &str| options.programs.join(name);
    let programs = Programs {
        gateway: program("portcullis"),
        upstream: program("upstream"),
        bare: program("bare"),
        generator: program("generator"),
        nginx: options.nginx,
    };
    let plan = Plan {
        rounds: usize::try_from(options.rounds).unwrap_or(usize::MAX),
        calls: options.calls,
        connections: options.connections,
        seconds: options.seconds,
        rate: options.rate,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        scratch: options.scratch,
        documents: options.document,
        figures: options.figures,
        about: [options.date, options.commit, options.profile],
    };
    match load_tests::measure::run(&programs, &plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
