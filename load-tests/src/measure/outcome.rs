//! What is written down: the file that a table and a chart are made of.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::machine::Machine;
use crate::measure::stats::Median;
use crate::measure::syscalls::Syscalls;

/// All of a measurement.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// The day.
    pub(super) date: String,
    /// The commit that was built.
    pub(super) commit: String,
    /// The build profile.
    pub(super) profile: String,
    /// Why these figures are not to be published, if so.
    pub(super) doubts: Vec<String>,
    /// Where.
    pub(super) machine: Machine,
    /// How.
    pub(super) method: Method,
    /// Of the main workload, by way, in the order of the table.
    pub(super) ways: Vec<Way>,
    /// Of the other workloads.
    pub(super) workloads: Vec<OtherWorkload>,
    /// What could not be measured here, and why.
    pub(super) absent: Vec<String>,
}

/// How much was measured.
#[derive(Debug, Serialize)]
pub(super) struct Method {
    pub(super) rounds: usize,
    pub(super) calls_a_round: u64,
    pub(super) connections: usize,
    /// Open loop: requests a second, and seconds a round.
    pub(super) rate: f64,
    pub(super) seconds_a_round: f64,
    pub(super) open_connections: usize,
    /// How many cores others used while ours were idle, median of the rounds.
    pub(super) others_cores: f64,
    /// How late the generator itself was, p50 and p99 in µs, median of all open runs.
    pub(super) start_delay_us: [f64; 2],
}

/// One way to the upstream.
#[derive(Debug, Serialize)]
pub(super) struct Way {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) what: String,
    /// CPU of the process itself, µs a call.
    pub(super) cpu_us: Median,
    /// The same, as a multiple of bare Pingora in the same round.
    pub(super) cpu_ratio: Option<Median>,
    /// Calls a second that were answered in the closed loop.
    pub(super) per_second: Median,
    /// Latency in µs by percentile.
    pub(super) latency_us: BTreeMap<String, Median>,
    /// What is more than over bare Pingora in the same round, µs by percentile.
    pub(super) added_us: Option<BTreeMap<String, Median>>,
    /// Resident memory after all of it, MiB: all, and without what files back.
    pub(super) resident_mib: [f64; 2],
    /// System calls.
    pub(super) syscalls: Option<Syscalls>,
    /// Calls that were on record, and calls that were made.
    pub(super) recorded: Option<[u64; 2]>,
}

/// Another workload, through bare Pingora and through the gateway.
#[derive(Debug, Serialize)]
pub(super) struct OtherWorkload {
    pub(super) name: String,
    pub(super) what: String,
    pub(super) bare_us: Median,
    pub(super) gateway_us: Median,
    pub(super) ratio: Median,
}
