//! How is the generator run, and what did it say?

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use serde::Deserialize;

/// What the generator reports, as far as it is used.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Said {
    pub(super) right: u64,
    pub(super) wrong: u64,
    pub(super) errors: serde_json::Value,
    pub(super) per_second: f64,
    pub(super) latency_us: Option<Times>,
    pub(super) start_delay_us: Option<Times>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

/// Where load goes.
#[derive(Debug, Clone)]
pub(super) struct Towards {
    pub(super) address: SocketAddr,
    pub(super) path: String,
    /// What is presented as API key; whoever does not look is sent one all the same.
    pub(super) key: Option<String>,
}

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Its name in tables.
    pub(super) name: &'static str,
    /// What it is, in a few words.
    pub(super) what: &'static str,
    pub(super) era: &'static str,
    pub(super) mix: &'static str,
    /// Its share of the calls of the main workload: what is heavier is asked less often.
    pub(super) share: f64,
}

/// Variable that hands the key over: arguments are for all to see.
const KEY: &str = "PORTCULLIS_LOAD_KEY";

/// Runs the generator in this mode.
pub(super) fn generate(
    program: &Path,
    towards: &Towards,
    workload: &Workload,
    mode: &[String],
    connections: usize,
) -> io::Result<Said> {
    let mut command = Command::new(program);
    command.args(mode);
    command.args(["--address", &towards.address.to_string(), "--path", &towards.path]);
    command.args(["--era", workload.era, "--mix", workload.mix, "--connections", &connections.to_string()]);
    command.args(["--tolerate", "--timeout-seconds", "20"]);
    if let Some(key) = &towards.key {
        command.args(["--key-env", KEY]).env(KEY, key);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let said: Said = serde_json::from_slice(&output.stdout)
        .map_err(|error| io::Error::other(format!("the generator did not report: {error}")))?;
    if said.wrong > 0 {
        let name = workload.name;
        return Err(io::Error::other(format!("{} wrong answers to `{name}`: {}", said.wrong, said.errors)));
    }
    Ok(said)
}
