//! What is done in which order?

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::measure::document;
use crate::measure::load::Said;
use crate::measure::load::Workload;
use crate::measure::load::generate;
use crate::measure::machine::Machine;
use crate::measure::machine::others_cores;
use crate::measure::outcome;
use crate::measure::outcome::Method;
use crate::measure::outcome::OtherWorkload;
use crate::measure::outcome::Outcome;
use crate::measure::stage::BARE;
use crate::measure::stage::FULL;
use crate::measure::stage::Stage;
use crate::measure::stage::Way;
use crate::measure::stats::Median;
use crate::measure::stats::median;
use crate::measure::syscalls;
use crate::measure::syscalls::Syscalls;

/// The programs that are run.
#[derive(Debug)]
pub struct Programs {
    /// The gateway.
    pub gateway: PathBuf,
    /// The upstream.
    pub upstream: PathBuf,
    /// The yardstick.
    pub bare: PathBuf,
    /// The load.
    pub generator: PathBuf,
    /// nginx, if it is installed.
    pub nginx: Option<PathBuf>,
}

/// How much is measured, and where the result goes.
#[derive(Debug)]
pub struct Plan {
    /// Rounds that count, beside one to warm up.
    pub rounds: usize,
    /// Calls of a round on each way.
    pub calls: u64,
    /// Connections of the closed loop.
    pub connections: usize,
    /// Seconds of the open loop in a round on each way.
    pub seconds: f64,
    /// Requests a second in the open loop; absent: half of what the slower of bare Pingora and full policy answered.
    pub rate: Option<f64>,
    /// Threads of each proxy.
    pub threads: usize,
    /// For configurations, records and logs; removed at the end.
    pub scratch: PathBuf,
    /// Documents whose marked parts are written anew.
    pub documents: Vec<PathBuf>,
    /// Where the JSON and the charts go.
    pub figures: PathBuf,
    /// The day, the commit and the build profile.
    pub about: [String; 3],
}

const MAIN: Workload =
    Workload { name: "call", what: "`tools/call`, 300 bytes each way", era: "plain", mix: "call", share: 1.0 };

const OTHERS: [Workload; 5] = [
    Workload { name: "session", what: "the same in a session", era: "session", mix: "call", share: 1.0 },
    Workload { name: "modern", what: "the same, 2026-07-28", era: "modern", mix: "call", share: 1.0 },
    Workload { name: "stream", what: "5 progress events and a result", era: "plain", mix: "stream", share: 0.5 },
    Workload { name: "large", what: "64 KiB in one JSON answer", era: "plain", mix: "large", share: 0.25 },
    Workload { name: "mixed", what: "8 kinds of requests in a session", era: "session", mix: "mixed", share: 0.25 },
];

/// Rounds from which on figures may be published.
const ROUNDS_TO_PUBLISH: usize = 15;
/// Cores that others may use meanwhile.
const OTHERS_CORES_MAX: f64 = 0.1;
/// The profile that is shipped.
const PROFILE_TO_PUBLISH: &str = "dist";
/// Connections of the open loop: so many requests may be in flight.
const OPEN_CONNECTIONS: usize = 64;

/// Measures and writes down.
///
/// # Errors
/// When something does not run, or answers wrongly.
pub fn run(programs: &Programs, plan: &Plan) -> io::Result<()> {
    let mut stage = Stage::set(programs, &plan.scratch, plan.threads)?;
    let mut measured = Measured::new(programs, plan, stage.ways.len());
    for round in 0..=plan.rounds {
        measured.round(&mut stage.ways, round)?;
    }
    let syscalls = measured.syscalls(&mut stage)?;
    let outcome = measured.outcome(&mut stage, syscalls)?;
    drop(stage);
    document::write(&outcome, &plan.documents, &plan.figures)?;
    fs::remove_dir_all(&plan.scratch)
}

/// Values of one way, one a round.
#[derive(Default, Clone)]
struct Rounds {
    cpu_us: Vec<f64>,
    per_second: Vec<f64>,
    latency_us: [Vec<f64>; 3],
    calls: u64,
}

const PERCENTILES: [&str; 3] = ["p50", "p90", "p99"];

struct Measured<'a> {
    programs: &'a Programs,
    plan: &'a Plan,
    rate: f64,
    main: Vec<Rounds>,
    others: Vec<[Vec<f64>; 2]>,
    others_cores: Vec<f64>,
    start_delays: Vec<[f64; 2]>,
}

impl<'a> Measured<'a> {
    fn new(programs: &'a Programs, plan: &'a Plan, ways: usize) -> Self {
        Self {
            programs,
            plan,
            rate: plan.rate.unwrap_or(0.0),
            main: vec![Rounds::default(); ways],
            others: vec![<[Vec<f64>; 2]>::default(); OTHERS.len()],
            others_cores: Vec::new(),
            start_delays: Vec::new(),
        }
    }

    /// One round on all ways. The first opens connections, warms caches and finds the rate; it does not count.
    fn round(&mut self, ways: &mut [Way], round: usize) -> io::Result<()> {
        let counts = round > 0;
        let others = others_cores();
        self.others_cores.push(others);
        eprintln!("round {round} of {}, others use {others:.2} cores", self.plan.rounds);
        for at in turned(ways.len(), round) {
            let (cpu_us, said) = self.cost(&mut ways[at], &MAIN)?;
            self.main[at].calls += said.right;
            eprintln!("  {:32} {cpu_us:7.1} us CPU a call, {:7.0} calls a second", ways[at].label, said.per_second);
            if counts {
                self.main[at].cpu_us.push(cpu_us);
                self.main[at].per_second.push(said.per_second);
            } else if matches!(ways[at].name, BARE | FULL) && self.plan.rate.is_none() {
                // The slower one's half, so that neither queues.
                let half = (said.per_second / 2.0).round();
                self.rate = if self.rate == 0.0 { half } else { self.rate.min(half) };
            }
        }
        for at in turned(ways.len(), round) {
            let mode = ["open".to_owned(), format!("--rate={}", self.rate), format!("--seconds={}", self.plan.seconds)];
            let said = generate(&self.programs.generator, &ways[at].towards, &MAIN, &mode, OPEN_CONNECTIONS)?;
            self.main[at].calls += said.right;
            let (Some(latency), Some(delay)) = (said.latency_us, said.start_delay_us) else {
                return Err(io::Error::other("the open loop made no requests: raise the rate or the seconds"));
            };
            if counts {
                self.start_delays.push([delay.p50, delay.p99]);
                for (values, value) in self.main[at].latency_us.iter_mut().zip([latency.p50, latency.p90, latency.p99])
                {
                    values.push(value);
                }
            }
        }
        let (bare, full) = (position(ways, BARE)?, position(ways, FULL)?);
        for (index, workload) in OTHERS.iter().enumerate() {
            let mut order = [(0, bare), (1, full)];
            order.rotate_left(round % 2);
            for (column, at) in order {
                let (cpu_us, said) = self.cost(&mut ways[at], workload)?;
                // Of a mix not every request is a call.
                if workload.mix != "mixed" {
                    self.main[at].calls += said.right;
                }
                if counts {
                    self.others[index][column].push(cpu_us);
                }
            }
        }
        ways.iter_mut().filter_map(|way| way.tally.as_mut()).try_for_each(crate::measure::audit::Tally::sweep)
    }

    /// CPU time of the way's process for each call of this workload, in µs.
    fn cost(&self, way: &mut Way, workload: &Workload) -> io::Result<(f64, Said)> {
        let calls = ((self.plan.calls as f64 * workload.share) as u64).max(1);
        let mode = ["closed".to_owned(), format!("--calls={calls}")];
        let before = way.process.cpu_nanos();
        let said = generate(&self.programs.generator, &way.towards, workload, &mode, self.plan.connections)?;
        let took = way.process.cpu_nanos() - before;
        Ok((took as f64 / 1000.0 / said.right as f64, said))
    }

    fn syscalls(&mut self, stage: &mut Stage) -> io::Result<Vec<Option<Syscalls>>> {
        let directory = stage.directory.clone();
        let calls = (self.plan.calls / 4).max(100);
        let mode = ["closed".to_owned(), format!("--calls={calls}")];
        let (generator, connections) = (&self.programs.generator, self.plan.connections);
        let mut all = Vec::new();
        for (way, rounds) in stage.ways.iter().zip(&mut self.main) {
            eprintln!("system calls of {}", way.label);
            all.push(syscalls::count(&way.process.ids(), &directory, || {
                let said = generate(generator, &way.towards, &MAIN, &mode, connections)?;
                rounds.calls += said.right;
                Ok(said.right)
            })?);
        }
        if all.iter().all(Option::is_none) {
            stage.absent.push("system calls: neither `perf` nor `strace` can count here".to_owned());
        }
        Ok(all)
    }

    fn outcome(&self, stage: &mut Stage, mut syscalls: Vec<Option<Syscalls>>) -> io::Result<Outcome> {
        let bare = position(&stage.ways, BARE)?;
        let mut ways = Vec::new();
        for (at, way) in stage.ways.iter().enumerate() {
            let recorded = way.tally.as_ref().map(|tally| tally.total()).transpose()?;
            let made = self.main[at].calls;
            if let Some(recorded) = recorded.filter(|recorded| *recorded < made) {
                return Err(io::Error::other(format!("`{}` has {recorded} of {made} calls on record", way.name)));
            }
            let resident = way.process.resident_kib();
            ways.push(self.way(
                at,
                bare,
                way,
                Extra {
                    resident_mib: [resident.0 / 1024.0, resident.1 / 1024.0],
                    syscalls: syscalls[at].take(),
                    recorded: recorded.map(|recorded| [recorded, made]),
                },
            ));
        }
        let workloads = OTHERS.iter().zip(&self.others).map(|(workload, [bare, gateway])| OtherWorkload {
            name: workload.name.to_owned(),
            what: workload.what.to_owned(),
            bare_us: median(bare),
            gateway_us: median(gateway),
            ratio: compared(gateway, bare, |a, b| a / b),
        });
        let delays = |at: usize| median(&self.start_delays.iter().map(|pair| pair[at]).collect::<Vec<_>>()).median;
        let plan = self.plan;
        let method = Method {
            rounds: plan.rounds,
            calls_a_round: plan.calls,
            connections: plan.connections,
            rate: self.rate,
            seconds_a_round: plan.seconds,
            open_connections: OPEN_CONNECTIONS,
            others_cores: median(&self.others_cores).median,
            start_delay_us: [delays(0), delays(1)],
        };
        let [date, commit, profile] = plan.about.clone();
        Ok(Outcome {
            doubts: doubts(&method, &profile),
            date,
            commit,
            profile,
            machine: Machine::here(Path::new(&stage.directory)),
            method,
            ways,
            workloads: workloads.collect(),
            absent: std::mem::take(&mut stage.absent),
        })
    }

    fn way(&self, at: usize, bare: usize, way: &Way, extra: Extra) -> outcome::Way {
        let (own, yardstick) = (&self.main[at], &self.main[bare]);
        let latency = |of: &dyn Fn(usize) -> Median| -> BTreeMap<String, Median> {
            PERCENTILES.iter().enumerate().map(|(index, name)| ((*name).to_owned(), of(index))).collect()
        };
        let is_compared = !matches!(way.name, BARE | "direct");
        outcome::Way {
            name: way.name.to_owned(),
            label: way.label.to_owned(),
            what: way.what.to_owned(),
            cpu_us: median(&own.cpu_us),
            cpu_ratio: is_compared.then(|| compared(&own.cpu_us, &yardstick.cpu_us, |a, b| a / b)),
            per_second: median(&own.per_second),
            latency_us: latency(&|index| median(&own.latency_us[index])),
            added_us: is_compared.then(|| {
                latency(&|index| compared(&own.latency_us[index], &yardstick.latency_us[index], |a, b| a - b))
            }),
            resident_mib: extra.resident_mib,
            syscalls: extra.syscalls,
            recorded: extra.recorded,
        }
    }
}

/// What is known of a way beside its rounds.
struct Extra {
    resident_mib: [f64; 2],
    syscalls: Option<Syscalls>,
    recorded: Option<[u64; 2]>,
}

/// The order of a round: every other round backwards, and another first each time.
fn turned(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|at| (at + round / 2) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// The median of what each round says of two ways.
fn compared(own: &[f64], other: &[f64], how: impl Fn(f64, f64) -> f64) -> Median {
    let values: Vec<f64> = own.iter().zip(other).map(|(own, other)| how(*own, *other)).collect();
    median(&values)
}

fn position(ways: &[Way], name: &str) -> io::Result<usize> {
    ways.iter().position(|way| way.name == name).ok_or_else(|| io::Error::other(format!("no way `{name}`")))
}

/// Why these figures are none to publish.
fn doubts(method: &Method, profile: &str) -> Vec<String> {
    let mut doubts = Vec::new();
    if method.rounds < ROUNDS_TO_PUBLISH {
        doubts.push(format!("{} rounds, not {ROUNDS_TO_PUBLISH}", method.rounds));
    }
    if profile != PROFILE_TO_PUBLISH {
        doubts.push(format!("built with the profile `{profile}`, not `{PROFILE_TO_PUBLISH}`"));
    }
    if method.others_cores > OTHERS_CORES_MAX {
        doubts.push(format!("others used {:.1} cores of the machine meanwhile", method.others_cores));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_in_every_round_and_none_is_always_first() {
        for count in [5, 6] {
            let mut first = std::collections::BTreeSet::new();
            for round in 0..2 * count {
                let order = turned(count, round);
                first.insert(order[0]);
                let all: std::collections::BTreeSet<usize> = order.into_iter().collect();
                assert_eq!(all.len(), count);
            }
            assert_eq!(first.len(), count);
        }
    }

    #[test]
    fn figures_of_a_short_or_disturbed_run_say_so() {
        let method = |rounds, others_cores| Method {
            rounds,
            calls_a_round: 1,
            connections: 1,
            rate: 1.0,
            seconds_a_round: 1.0,
            open_connections: 1,
            others_cores,
            start_delay_us: [0.0; 2],
        };
        assert!(doubts(&method(15, 0.05), "dist").is_empty());
        assert_eq!(doubts(&method(14, 0.05), "dist").len(), 1);
        assert_eq!(doubts(&method(15, 0.2), "ci").len(), 2);
    }

    #[test]
    fn a_comparison_is_made_within_each_round() {
        // The machine got three times slower; the ratio did not change.
        let ratio = compared(&[11.0, 33.0, 22.0], &[10.0, 30.0, 20.0], |a, b| a / b);
        assert!((ratio.low - 1.1).abs() < 1e-9 && (ratio.high - 1.1).abs() < 1e-9);
    }
}
