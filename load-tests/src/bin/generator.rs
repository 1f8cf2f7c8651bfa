//! Makes load that speaks MCP, and says in JSON what became of it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use load_tests::generate;
use load_tests::generate::Load;
use load_tests::generate::Mix;
use load_tests::generate::Name;
use load_tests::messages::Era;
use load_tests::messages::Target;

/// A load generator for MCP over Streamable HTTP. Prints one JSON object; ends with failure if any answer was wrong,
/// unless `--tolerate` is given.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    mode: Mode,
    /// Where to connect: a loopback address.
    #[arg(long, global = true, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Path of the MCP endpoint.
    #[arg(long, global = true, default_value = "/mcp")]
    path: String,
    /// The API key, from this environment variable.
    #[arg(long, global = true)]
    key_env: Option<String>,
    /// What the gateway puts before the names of tools.
    #[arg(long, global = true, default_value = "")]
    tool_prefix: String,
    /// How is spoken.
    #[arg(long, global = true, value_enum, default_value = "plain")]
    era: Era,
    /// What is asked.
    #[arg(long, global = true, value_enum, default_value = "call")]
    mix: Name,
    /// So many of a hundred requests are to fail at the server.
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100))]
    errors_percent: u64,
    /// So many of a hundred requests are to be refused by policy.
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100))]
    refused_percent: u64,
    /// Connections, and so requests in flight at most.
    #[arg(long, global = true, default_value_t = 16)]
    connections: usize,
    /// How long one answer may take.
    #[arg(long, global = true, default_value_t = 10)]
    timeout_seconds: u64,
    /// Wrong answers are counted, but no failure.
    #[arg(long, global = true)]
    tolerate: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Mode {
    /// Requests on a fixed schedule: for latency.
    Open {
        /// Requests a second.
        #[arg(long)]
        rate: f64,
        /// For so long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Requests as fast as answers come: for CPU per call.
    Closed {
        /// So many.
        #[arg(long)]
        calls: u64,
    },
    /// Standing streams (GET) that are only read.
    Listen {
        /// For so long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
}

/// The longest run.
const SECONDS_MAX: f64 = 24.0 * 3600.0;

fn main() -> ExitCode {
    let options = Options::parse();
    assert!(options.address.ip().is_loopback(), "this load stays on loopback");
    let key = options.key_env.as_deref().map(|name| std::env::var(name).expect("the variable of --key-env"));
    let target =
        Target { host: options.address.to_string(), path: options.path.clone(), key, tool_prefix: options.tool_prefix };
    let load = Load {
        address: options.address,
        target,
        era: options.era,
        mix: Mix::new(options.mix, options.errors_percent, options.refused_percent),
        connections: options.connections.max(1),
        timeout: Duration::from_secs(options.timeout_seconds),
    };
    let length = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, SECONDS_MAX));
    let report = match options.mode {
        Mode::Open { rate, seconds } => {
            assert!(rate > 0.0 && rate <= 1e6, "a rate between 0 and a million");
            generate::open(&load, rate, length(seconds))
        }
        Mode::Closed { calls } => generate::closed(&load, calls),
        Mode::Listen { seconds } => generate::listen(&load, length(seconds)).expect("a runtime"),
    };
    println!("{}", report.to_json());
    if report.wrong() > 0 && !options.tolerate { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
