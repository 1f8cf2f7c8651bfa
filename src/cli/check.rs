//! `portcullis check`: everything `run` would do with a configuration, but serve it.

use std::path::Path;

use crate::server;

use super::Failure;

/// Checks `path`, printing warnings on standard error and a summary on standard output.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let compiled = server::compile(path, 1, None).map_err(Failure::config)?;
    let text = compiled.warnings();
    if !text.is_empty() {
        eprintln!("{text}");
    }
    let loaded = compiled.loaded;
    let warnings = loaded.warnings.iter().count();
    let config = &loaded.config;
    let sandbox = server::Sandbox::of(&loaded).map_or_else(|| "off".to_owned(), |sandbox| sandbox.describe());
    super::print(&format!(
        "{}: ok, {} servers, {} keys, {} agents, {warnings} warnings\nsandbox: {sandbox}",
        path.display(),
        config.servers.len(),
        config.keys.len(),
        config.agents.len()
    ))
}
