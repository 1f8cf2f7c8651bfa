//! `portcullis import`: from an `mcpServers` file to TOML.

use std::path::PathBuf;

use crate::config::mcp_servers;

use super::Failure;

/// What to import.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A JSON file of the `mcpServers` form.
    file: PathBuf,
}

/// Prints the servers of the file as TOML.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let import = mcp_servers::read(&arguments.file).map_err(Failure::config)?;
    super::print(mcp_servers::to_toml(&import).trim_end())
}
