//! The command line: parse, do, turn the outcome into one message and an exit code.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the configuration has mistakes, 4 refused by policy (`explain`), or
//! something that came out otherwise than expected (`test`) or recorded (`replay`).

mod asked;
mod audit;
mod check;
mod coverage;
pub mod demo;
mod explain;
mod import;
mod key_import;
mod keys;
mod logs;
mod past;
mod reload;
mod replay;
mod run;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::server::StartError;

/// Exit code for a configuration with mistakes.
const CONFIG_INVALID: u8 = 3;
/// Exit code of `explain` for a call that would be refused, and of `test` and `replay` where one comes out otherwise.
const REFUSED: u8 = 4;

/// MCP edge gateway: judges every call on its exact bytes, records it, and only then forwards it.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a configuration until SIGTERM. SIGHUP reloads it.
    Run(run::Arguments),
    /// Check a configuration as `run` would, without serving it.
    Check(ConfigFile),
    /// Have the running gateway load its configuration, and say what came of it.
    Reload(reload::Arguments),
    /// Start this program in place of the running gateway, without losing a call.
    Upgrade(ConfigFile),
    /// Try it out: a gateway with sample MCP servers, keys and a policy, in one process.
    Demo(demo::Arguments),
    /// Say what would become of a call, by which rule, and where the rule stands.
    Explain(Box<explain::Arguments>),
    /// Decide the calls in files of cases, and say which come out otherwise than expected.
    Test(test::Arguments),
    /// Read, verify and prove the record.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Search the record: which requests there were and what became of them, live if asked, or who calls what.
    Logs(Box<logs::Arguments>),
    /// Decide the calls on record again under a configuration, and say which come out otherwise.
    Replay(replay::Arguments),
    /// Say which rules the calls on record never needed.
    Coverage(coverage::Arguments),
    /// Make keys, or bring some along.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Turn an `mcpServers` JSON file into TOML, on standard output.
    Import(import::Arguments),
    /// Print the JSON schema of the configuration.
    Schema,
}

/// The configuration to work with.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

/// A command that did not do what it was asked, and the exit code that says so.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: format!("error: {message}") }
    }

    /// Mistakes of a configuration are rendered whole already.
    fn config(message: impl std::fmt::Display) -> Self {
        Self { code: CONFIG_INVALID, message: message.to_string() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error)
    }
}

/// The command line as `clap` knows it, for man pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(file) => check::run(&file.config),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Upgrade(file) => reload::upgrade(&file.config),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Audit(command) => audit::run(&command),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Coverage(arguments) => coverage::run(&arguments),
        Command::Keys(command) => keys::run(&command),
        Command::Import(arguments) => import::run(&arguments),
        Command::Schema => schema(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message.trim_end());
            }
            ExitCode::from(failure.code)
        }
    }
}

fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&crate::config::schema()).map_err(Failure::new)?;
    print(&text)
}

/// Prints to standard output; a reader that left is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(error)),
        _ => Ok(()),
    }
}
