//! Is that more than it was?
//!
//! `baseline.toml` says what everything cost when somebody last looked and agreed. More than [`WORSE`] in instructions, or
//! an allocation more, fails; of whole requests, [`BESIDE`] beyond that. As much less is told, so that the baseline follows in a
//! commit that says why.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::cases::decide;
use crate::toolchain::Toolchain;

/// The part of the instructions by which an operation may differ.
const WORSE: f64 = 0.03;
/// Averages of many runs are compared: what is nearer to one allocation more than to none is one more.
const ALLOCATION: f64 = 0.5;
/// Requests are counted with what other threads do meanwhile, once or twice a second: the slower valgrind is run, the more of
/// that falls to each. Up to 3,700 instructions and 0.34 allocations were seen; a whole allocation is still more than allowed.
const BESIDE: (f64, f64) = (5_000.0, 0.3);
/// What a decision may cost under the large configuration, beside the small one: it must not grow with it.
const GROWTH: f64 = 0.05;

/// What one run of an operation costs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counts {
    /// The operation.
    pub(crate) name: String,
    /// Instructions of user space.
    pub(crate) instructions: f64,
    /// How many times memory is asked for.
    pub(crate) allocations: f64,
}

impl Counts {
    /// By how many instructions and allocations another measurement may differ from these.
    fn margins(&self) -> (f64, f64) {
        let (instructions, allocations) = (self.instructions * WORSE, ALLOCATION);
        if is_of_requests(&self.name) {
            (instructions + BESIDE.0, allocations + BESIDE.1)
        } else {
            (instructions, allocations)
        }
    }
}

/// Whether what is called so is a whole request through the gateway.
pub(crate) fn is_of_requests(name: &str) -> bool {
    name.starts_with("request, ")
}

/// The smaller counts of two measurements.
pub(crate) fn least(mut first: Vec<Counts>, second: &[Counts]) -> Vec<Counts> {
    for counts in &mut first {
        if let Some(again) = second.iter().find(|again| again.name == counts.name) {
            counts.instructions = counts.instructions.min(again.instructions);
            counts.allocations = counts.allocations.min(again.allocations);
        }
    }
    first
}

/// What was counted before, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Baseline {
    /// With what it was counted.
    pub(crate) toolchain: Toolchain,
    /// In the order of the file.
    pub(crate) counts: Vec<Counts>,
}

#[derive(Deserialize)]
struct File {
    toolchain: Toolchain,
    operations: BTreeMap<String, Figures>,
}

#[derive(Deserialize)]
struct Figures {
    instructions: f64,
    allocations: f64,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    lines: Vec<String>,
    worse: Vec<String>,
    better: Vec<String>,
    /// What another measurement may show not to be worse.
    doubtful: Vec<String>,
}

impl Baseline {
    /// Reads the baseline at `path`.
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap())
    }

    fn parse(text: &str) -> Self {
        let file: File = toml::from_str(text).unwrap();
        let counts = file.operations.into_iter().map(|(name, figures)| Counts {
            name,
            instructions: figures.instructions,
            allocations: figures.allocations,
        });
        Self { toolchain: file.toolchain, counts: counts.collect() }
    }

    /// Writes the baseline to `path`.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.text()).unwrap();
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# What each operation costs: written by `WRITE_BASELINE=1 scripts/test guard`, and changed only in a commit\n\
             # that says why. README.md beside it says how to read it.\n\n[toolchain]\n",
        );
        text.push_str(&toml::to_string(&self.toolchain).unwrap());
        text.push_str("\n[operations]\n");
        let mut counts = self.counts.clone();
        counts.sort_by(|a, b| a.name.cmp(&b.name));
        for Counts { name, instructions, allocations } in &counts {
            writeln!(text, "\"{name}\" = {{ instructions = {instructions:.1}, allocations = {allocations:.2} }}")
                .unwrap();
        }
        text
    }

    /// Holds `measured` against the baseline; with `only`, nothing else was measured.
    pub(crate) fn compare(&self, measured: &[Counts], only: Option<&str>) -> Comparison {
        let mut comparison = Comparison::default();
        for now in measured {
            match self.counts.iter().find(|then| then.name == now.name) {
                Some(then) => comparison.add(then, now),
                None => comparison.worse.push(format!("{}: not in the baseline; write it anew", now.name)),
            }
        }
        let is_measured = |then: &Counts| measured.iter().any(|now| now.name == then.name);
        let gone = self.counts.iter().filter(|then| only.is_none() && !is_measured(then));
        for (small, large) in grown(measured) {
            comparison.worse.push(said_of_growth(small, large));
            comparison.doubtful.extend([small.name.clone(), large.name.clone()]);
        }
        comparison.worse.extend(gone.map(|then| format!("{}: no longer measured; write the baseline anew", then.name)));
        comparison
    }
}

/// Decisions that cost more where there are more keys, servers and tools.
fn grown(measured: &[Counts]) -> Vec<(&Counts, &Counts)> {
    let (small, large) = (decide::SMALL.to_string(), decide::LARGE.to_string());
    let pairs = measured.iter().filter_map(|of_small| {
        let name = of_small.name.replace(&small, &large);
        Some((of_small, measured.iter().find(|counts| of_small.name != name && counts.name == name)?))
    });
    pairs.filter(|(small, large)| large.instructions > small.instructions * (1.0 + GROWTH)).collect()
}

fn said_of_growth(small: &Counts, large: &Counts) -> String {
    let (was, is) = (small.instructions, large.instructions);
    format!("{}: grows with the configuration, from {was:.0} to {is:.0} instructions", large.name)
}

impl Comparison {
    /// Whether anything got worse.
    pub(crate) fn is_worse(&self) -> bool {
        !self.worse.is_empty()
    }

    /// The names of what another measurement may show not to be worse.
    pub(crate) fn doubtful(&self) -> &[String] {
        &self.doubtful
    }

    fn add(&mut self, then: &Counts, now: &Counts) {
        let more = now.instructions / then.instructions - 1.0;
        let allocations = now.allocations - then.allocations;
        let line = format!(
            "{:<64} {:>12.0} {:>+7.2} % {:>10.2} {:>+7.2}",
            now.name,
            now.instructions,
            more * 100.0,
            now.allocations,
            // Not a negative nothing.
            if allocations.abs() < 0.005 { 0.0 } else { allocations }
        );
        let margins = then.margins();
        let instructions = now.instructions - then.instructions;
        if instructions > margins.0 || allocations > margins.1 {
            self.worse.push(line.clone());
            self.doubtful.push(now.name.clone());
        } else if instructions < -margins.0 || allocations < -margins.1 {
            self.better.push(line.clone());
        }
        self.lines.push(line);
    }

    /// Prints everything, what got worse last. Whether nothing did.
    pub(crate) fn tell(&self) -> bool {
        println!("{:<64} {:>12} {:>9} {:>10} {:>7}", "for one run", "instructions", "", "allocations", "");
        self.lines.iter().for_each(|line| println!("{line}"));
        if !self.better.is_empty() {
            println!(
                "\n*** better than the baseline: write it anew (`WRITE_BASELINE=1 scripts/test guard`), saying why"
            );
            self.better.iter().for_each(|line| println!("{line}"));
        }
        if !self.worse.is_empty() {
            println!(
                "\n*** WORSE than the baseline by more than {} % of instructions ({} more of a request), or an allocation:",
                WORSE * 100.0,
                BESIDE.0
            );
            self.worse.iter().for_each(|line| println!("{line}"));
        }
        println!("\n{} passed, {} failed", self.lines.len() - self.worse.len().min(self.lines.len()), self.worse.len());
        !self.is_worse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: f64, allocations: f64) -> Vec<Counts> {
        vec![Counts { name: "an operation".into(), instructions, allocations }]
    }

    fn baseline() -> Baseline {
        Baseline { toolchain: Toolchain::here(), counts: counts(1_000.0, 4.0) }
    }

    #[test]
    fn more_instructions_or_an_allocation_more_are_worse_and_less_is_told() {
        let worse = |instructions, allocations| {
            let comparison = baseline().compare(&counts(instructions, allocations), None);
            (comparison.worse.len(), comparison.better.len())
        };
        assert_eq!(worse(1_030.0, 4.4), (0, 0));
        assert_eq!(worse(1_031.0, 4.0), (1, 0));
        assert_eq!(worse(1_000.0, 5.0), (1, 0));
        assert_eq!(worse(900.0, 5.0), (1, 0), "an allocation more is worse however fast it is");
        assert_eq!(worse(969.0, 4.0), (0, 1));
        assert_eq!(worse(1_000.0, 3.0), (0, 1));
    }

    #[test]
    fn a_request_may_have_a_part_of_what_is_done_beside_it_but_no_allocation_of_its_own() {
        let counts = |instructions, allocations| {
            vec![Counts { name: "request, of some kind".into(), instructions, allocations }]
        };
        let baseline = Baseline { toolchain: Toolchain::here(), counts: counts(200_000.0, 48.7) };
        let doubtful =
            |instructions, allocations| baseline.compare(&counts(instructions, allocations), None).doubtful().to_vec();
        assert!(doubtful(210_999.0, 49.4).is_empty());
        assert_eq!(doubtful(211_001.0, 48.7), ["request, of some kind"]);
        assert_eq!(doubtful(200_000.0, 49.6), ["request, of some kind"]);
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_told() {
        let other = [Counts { name: "another".into(), instructions: 1.0, allocations: 0.0 }];
        assert_eq!(baseline().compare(&other, None).worse.len(), 2);
        assert_eq!(baseline().compare(&other, Some("another")).worse.len(), 1);
    }

    #[test]
    fn a_decision_that_costs_more_in_a_larger_configuration_is_told() {
        let at =
            |scale: String, instructions| Counts { name: format!("decide, {scale}"), instructions, allocations: 0.0 };
        let found =
            |large| grown(&[at(decide::SMALL.to_string(), 1_000.0), at(decide::LARGE.to_string(), large)]).len();
        assert_eq!((found(1_050.0), found(1_051.0)), (0, 1));
    }

    #[test]
    fn of_two_measurements_the_smaller_counts() {
        assert_eq!(least(counts(1_100.0, 4.0), &counts(1_000.0, 5.0)), counts(1_000.0, 4.0));
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let read = Baseline::parse(&baseline().text());
        assert_eq!(read.counts, baseline().counts);
        assert!(read.toolchain.differences(&baseline().toolchain).is_empty());
    }

    #[test]
    fn another_toolchain_is_named() {
        let text = baseline().text().replace("rustc 1.", "rustc 2.");
        let differences = Baseline::parse(&text).toolchain.differences(&Toolchain::here());
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].starts_with("rustc: baseline `rustc 2."), "{differences:?}");
    }
}
