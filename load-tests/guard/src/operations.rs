//! What does one operation cost?
//!
//! The child sets up one operation after the other and runs each several times between two marks, after a first time
//! that is not counted. It prints a line for each: its name, how often it ran, and how many allocations there were.

use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;

use crate::allocations;
use crate::baseline::Counts;
use crate::callgrind::Counted;
use crate::cases;
use crate::cases::Case;
use crate::mark::guard_mark;

/// Runs the operations whose names hold `only`.
pub(crate) fn run(only: Option<&str>) {
    let parts: [fn() -> Vec<Case>; 7] = [
        cases::scan::cases,
        cases::scan::duplicates,
        cases::constraint::cases,
        cases::session::cases,
        cases::screen::cases,
        cases::record::cases,
        cases::decide::cases,
    ];
    for part in parts {
        for case in part().iter_mut().filter(|case| only.is_none_or(|only| case.name.contains(only))) {
            count(case);
        }
    }
}

fn count(case: &mut Case) {
    // Two rounds: the second finds caches, branches taken once, and buffers as they will be.
    for _ in 0..2 {
        case.run();
    }
    let before = allocations::count();
    guard_mark();
    for _ in 0..case.repeat {
        case.run();
    }
    guard_mark();
    println!("{}\t{}\t{}", case.name, case.repeat, allocations::count() - before);
}

/// What each operation costs whose name holds `only`.
pub(crate) fn measure(directory: &Path, only: Option<&str>) -> Vec<Counts> {
    let mut counted = Counted::start(directory, &["operations", only.unwrap_or_default()]);
    let lines: Vec<String> = BufReader::new(counted.child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(counted.child.wait().unwrap().success(), "the operations ran to their end");
    let parts = counted.parts();
    assert_eq!(parts.len(), lines.len() * 2, "two marks for each operation");
    // The first part of each two is what stands before the operation.
    lines.iter().zip(parts.chunks(2)).map(|(line, parts)| read(line, parts[1])).collect()
}

fn read(line: &str, instructions: u64) -> Counts {
    let [name, repeat, allocations] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let repeat: f64 = repeat.parse().unwrap();
    let allocations: f64 = allocations.parse().unwrap();
    Counts { name: name.to_owned(), instructions: instructions as f64 / repeat, allocations: allocations / repeat }
}
