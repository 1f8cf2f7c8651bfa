//! Does anything cost more than it did? `scripts/test guard`
//!
//! `portcullis-guard` counts instructions (under callgrind) and allocations of each operation, and of whole requests
//! through the gateway, and compares them with `baseline.toml`, or the file that `BASELINE` names. README.md says how to read what it says. The program runs
//! itself as its own children: `operations` is what is measured one by one, `run --config FILE` is the gateway.
//!
//! Exit code: 0 nothing got worse, 1 something did, 77 this machine cannot say.

mod allocations;
mod baseline;
mod callgrind;
mod gateway;
mod mark;
mod operations;
mod toolchain;

// What is measured is what the benchmarks time.
#[path = "../../../benches/cases/mod.rs"]
mod cases;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use baseline::Baseline;
use baseline::Counts;
use toolchain::Toolchain;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// What a step of the tests says by its exit code when it cannot run here.
const SKIPPED: u8 = 77;

/// What differs from run to run only ever adds: of so many measurements the smallest counts are what is compared.
const MEASUREMENTS_MAX: usize = 3;
/// Where more seems worse than so much, it is no chance, and everything is measured once more.
const ONE_BY_ONE_MAX: usize = 4;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("operations") => operations::run(arguments.next().as_deref()),
        Some("run") => return gateway::serve(),
        only => return check(only),
    }
    ExitCode::SUCCESS
}

/// Measures, compares, tells. `only`: a part of the names of what is to be measured.
fn check(only: Option<&str>) -> ExitCode {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.toml");
    let path = std::env::var_os("BASELINE").map_or_else(committed, PathBuf::from);
    let here = Toolchain::here();
    let writes = std::env::var_os("WRITE_BASELINE").is_some_and(|value| value == "1");
    if here.valgrind.is_none() {
        println!("\n*** SKIPPED: valgrind is not installed, so no instruction can be counted.\n");
        return ExitCode::from(SKIPPED);
    }
    let baseline = (!writes).then(|| Baseline::read(&path));
    let differences = baseline.as_ref().map(|baseline| baseline.toolchain.differences(&here)).unwrap_or_default();
    if !differences.is_empty() {
        println!("\n*** SKIPPED: the baseline was written with another toolchain, whose counts are not this one's:");
        differences.iter().for_each(|difference| println!("***   {difference}"));
        println!("*** load-tests/guard/README.md says how to compare two trees here all the same.\n");
        return ExitCode::from(SKIPPED);
    }
    let mut measured = measure(only);
    let Some(baseline) = baseline else {
        assert!(only.is_none(), "a baseline is written whole");
        for _ in 1..MEASUREMENTS_MAX {
            measured = baseline::least(measured, &measure(only));
        }
        Baseline { toolchain: here, counts: measured }.write(&path);
        println!("wrote {}", path.display());
        return ExitCode::SUCCESS;
    };
    let mut comparison = baseline.compare(&measured, only);
    for _ in 1..MEASUREMENTS_MAX {
        if !comparison.is_worse() {
            break;
        }
        println!("something seems worse: measuring that once more, the smaller counts");
        measured = baseline::least(measured, &measure_again(comparison.doubtful(), only));
        comparison = baseline.compare(&measured, only);
    }
    if comparison.tell() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(only: Option<&str>) -> Vec<Counts> {
    let directory = Scratch::new();
    let mut measured = operations::measure(&directory.0, only);
    measured.extend(gateway::measure(&directory.0, only));
    measured
}

/// Measures again what is named; everything that was measured, if that is much.
fn measure_again(names: &[String], only: Option<&str>) -> Vec<Counts> {
    if names.len() > ONE_BY_ONE_MAX {
        return measure(only);
    }
    let one = |name: &String| {
        // Of its own: what callgrind wrote of another run must not be read with it.
        let directory = Scratch::new();
        if baseline::is_of_requests(name) {
            gateway::measure(&directory.0, Some(name))
        } else {
            operations::measure(&directory.0, Some(name))
        }
    };
    names.iter().flat_map(one).collect()
}

/// A directory for one run, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-guard-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a directory for temporary files is not worth a failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
