//! `portcullis run`: serve a configuration.

use std::path::Path;

use crate::config;
use crate::server;
use crate::telemetry::logging;

use super::Failure;

/// Serves `path` until a signal ends it.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    // The log's form is configuration, and a broken configuration is reported without a log.
    let loaded = config::load(path).map_err(Failure::config)?;
    logging::init(loaded.config.log.format).map_err(Failure::new)?;
    drop(loaded);
    log_panics();
    server::prepare(path)?.run();
    Ok(())
}

/// Logs a panic with its place and without its payload, which might quote a request.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic; the request it happened in was refused");
    }));
}
