//! `portcullis run`: serve a configuration.

use std::path::Path;

use crate::server;
use crate::telemetry::logging;

use super::Failure;

/// Serves `path` until a signal ends it.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    // Before anything slow: a SIGHUP that nobody handles would end the process.
    let signals = server::Signals::install()?;
    // The log's form is configuration, and a broken configuration is reported without a log.
    let compiled = server::compile(path, 1, None).map_err(Failure::config)?;
    logging::init(compiled.loaded.config.log.format).map_err(Failure::new)?;
    log_panics();
    server::prepare(path, compiled, signals)?.run();
    Ok(())
}

/// Logs a panic with its place and without its payload, which might quote a request.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic; the request it happened in was refused");
    }));
}
