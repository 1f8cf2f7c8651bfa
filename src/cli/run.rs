//! `portcullis run`: serve a configuration.

use std::path::PathBuf;

use crate::server;
use crate::telemetry::logging;

use super::Failure;

/// How a configuration is served.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Follow the gateway that runs with the same state directory: use its sockets, and let it finish what it has begun.
    #[arg(long)]
    take_over: bool,
}

/// Serves until a signal ends it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    serve(arguments).inspect_err(|failure| {
        // The log is that of the gateway to be followed; who started this one reads here why it did not.
        if arguments.take_over {
            let _ = super::print(failure.message.trim_end());
        }
    })
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let path = arguments.config.as_path();
    let mut origin = server::Origin::from_environment()?;
    // Before anything slow: a SIGHUP that nobody handles would end the process.
    let caught = server::Signals::catch()?;
    // The log's form is configuration, and a broken configuration is reported without a log.
    let compiled = server::compile(path, 1, None).map_err(Failure::config)?;
    logging::init(compiled.loaded.config.log.format).map_err(Failure::new)?;
    log_panics();
    // Confines this thread and those it starts: there is no other yet.
    if let Some(sandbox) = server::Sandbox::of(&compiled.loaded) {
        sandbox.enforce()?;
    }
    let signals = caught.receive()?;
    if arguments.take_over {
        origin = server::Origin::taking_over(&compiled)?;
    }
    Ok(server::prepare_from(origin, path, compiled, signals)?.run()?)
}

/// Logs a panic with its place and without its payload, which might quote a request.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic; the request it happened in was refused");
    }));
}
