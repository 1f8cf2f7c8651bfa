//! `portcullis reload` and `portcullis upgrade`: bring into force what has changed beside a running gateway, and wait for it.

use std::env;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::server;
use crate::server::ControlError;
use crate::server::Status;

use super::Failure;

/// How long the new process may take until it serves.
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of what it says if it does not.
const WORDS_BYTES_MAX: u64 = 256 * 1024;
/// From one look at it to the next.
const LOOK: Duration = Duration::from_millis(50);

/// What to bring into force.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// If this program is not the one that runs, let it take over, as `upgrade` does.
    #[arg(long)]
    upgrade: bool,
}

/// Has the running gateway load its configuration.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let state = state_directory(&arguments.config)?;
    if arguments.upgrade {
        let running = server::status(&state).map_err(Failure::new)?;
        if running.program != own_program() {
            return follow(&arguments.config, &state, &running);
        }
    }
    let (revision, notes) = server::reload(&state).map_err(|error| match error {
        ControlError::Refused(mistakes) => Failure::config(mistakes),
        error => Failure::new(error),
    })?;
    if !notes.is_empty() {
        eprintln!("{}", notes.trim_end());
    }
    super::print(&format!("{}: in force, revision {revision}", arguments.config.display()))
}

/// Starts this program beside the running gateway, and returns when it has taken over.
pub(super) fn upgrade(config: &Path) -> Result<(), Failure> {
    // So that a mistake is told before anything is started.
    server::compile(config, 1, None).map_err(Failure::config)?;
    let state = state_directory(config)?;
    let running = server::status(&state).map_err(Failure::new)?;
    follow(config, &state, &running)
}

/// Where the gateway is found. Whether the configuration is sound is for the gateway to say: it knows what is in force.
fn state_directory(config: &Path) -> Result<PathBuf, Failure> {
    let loaded = crate::config::load(config).map_err(Failure::config)?;
    Ok(PathBuf::from(loaded.config.state.directory))
}

fn own_program() -> Option<(u64, u64)> {
    fs::metadata("/proc/self/exe").ok().map(|program| (program.dev(), program.ino()))
}

fn follow(config: &Path, state: &Path, running: &Status) -> Result<(), Failure> {
    let own = rustix::process::geteuid().as_raw();
    if own != running.uid {
        return Err(Failure::new(format!(
            "the running gateway belongs to user {}, and what follows it must too, not to user {own}: use that user, or `systemctl reload`",
            running.uid
        )));
    }
    let log = server::log(state).map_err(Failure::new)?;
    let mut child = start(config, running, log).map_err(|error| Failure::new(format!("the new process: {error}")))?;
    let begun = Instant::now();
    loop {
        if let Some(ended) = child.try_wait().map_err(Failure::new)? {
            return Err(Failure::new(format!(
                "the new process ended before it served ({ended}); process {} serves on\n{}",
                running.pid,
                last_words(&mut child)
            )));
        }
        match server::status(state) {
            Ok(status) if status.pid == child.id() => {
                return super::print(&format!(
                    "process {} ({}) serves; process {} ({}) finishes what it has begun",
                    status.pid, status.version, running.pid, running.version
                ));
            }
            _ if begun.elapsed() > UPGRADE_TIME_MAX => {
                // It never served: nobody misses it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new(format!("the new process does not serve; process {} does", running.pid)));
            }
            _ => thread::sleep(LOOK),
        }
    }
}

/// What the new process said of its failure.
fn last_words(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        // What cannot be read is in the log as well.
        let _ = out.take(WORDS_BYTES_MAX).read_to_string(&mut said);
    }
    said
}

/// The new process goes on when this one ends: under the same service manager as the one it follows, and with the same log.
fn start(config: &Path, running: &Status, log: Option<OwnedFd>) -> std::io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["run", "--take-over", "--config"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    command.stderr(log.map_or_else(Stdio::null, Stdio::from));
    command.env_remove("WATCHDOG_PID");
    for (name, value) in [("NOTIFY_SOCKET", &running.notify_socket), ("WATCHDOG_USEC", &running.watchdog_usec)] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.spawn()
}
