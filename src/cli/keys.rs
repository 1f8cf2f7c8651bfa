//! `portcullis keys`: API keys for callers, and those that seal session ids and sign the record.

use std::path::PathBuf;

use serde_json::json;

use crate::auth::key;
use crate::config;
use crate::config::model::KEY_PREFIX;
use crate::seal;

use super::Failure;
use super::key_import;
use super::key_import::Import;

/// What to make.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make an API key. It is shown once; the configuration holds only its digest.
    Create(Create),
    /// Read keys that users already have from standard input, and print their tables for the configuration, which hold only
    /// their digests.
    Import(Import),
    /// Make a key for `seal.keys`, which seals session ids.
    Seal,
    /// Make a key for `audit.key_file`, which signs checkpoints of the record.
    Audit,
}

/// The key to make.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The key's name in the configuration.
    #[arg(long)]
    name: String,
    /// How the key begins; absent: as the configuration says, or `ptc`.
    #[arg(long)]
    prefix: Option<String>,
    /// The configuration whose `auth.key_prefix` the key begins with.
    #[arg(long, short, value_name = "FILE", conflicts_with = "prefix")]
    config: Option<PathBuf>,
    #[command(flatten)]
    holder: Holder,
    /// Print one JSON object: `key`, `digest`, `toml`.
    #[arg(long)]
    json: bool,
}

/// Whose a key is, and what it may reach.
#[derive(Debug, clap::Args)]
pub(super) struct Holder {
    /// The team it belongs to.
    #[arg(long)]
    team: Option<String>,
    /// The agent that uses it.
    #[arg(long)]
    agent: Option<String>,
    /// Servers it may reach, separated by commas; `*` for all.
    #[arg(long, value_delimiter = ',')]
    mcp_servers: Option<Vec<String>>,
}

/// Makes what is asked for and prints it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Create(create) => print_key(create),
        Command::Import(import) => key_import::run(import),
        Command::Seal | Command::Audit => {
            super::print(seal::key_text(&seal::generate_key().map_err(Failure::new)?).expose())
        }
    }
}

fn print_key(create: &Create) -> Result<(), Failure> {
    if !is_name(&create.name) {
        return Err(Failure {
            code: 2,
            message: format!(
                "error: `{}` cannot be a key's name: use 1 to 64 letters, digits, `_`, `-` or `.`",
                create.name
            ),
        });
    }
    let prefix = prefix(create)?;
    if !key::is_prefix(&prefix) {
        let message =
            format!("error: keys cannot begin with `{prefix}`: use 2 to 24 letters, digits and `_`, a letter first");
        return Err(Failure { code: 2, message });
    }
    let new = key::generate(&prefix).map_err(Failure::new)?;
    let toml = document([(create.name.as_str(), table(&create.holder, &new.digest))]);
    if create.json {
        return super::print(&json!({ "key": new.key.expose(), "digest": new.digest, "toml": toml }).to_string());
    }
    super::print(&format!("key (shown this once): {}\n\nadd to the configuration:\n\n{toml}", new.key.expose()))
}

fn prefix(create: &Create) -> Result<String, Failure> {
    match (&create.prefix, &create.config) {
        (Some(prefix), _) => Ok(prefix.clone()),
        (None, Some(file)) => Ok(config::load(file).map_err(Failure::config)?.config.auth.key_prefix),
        (None, None) => Ok(KEY_PREFIX.to_owned()),
    }
}

/// Whether a key may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(valid)
}

/// A key's table in the configuration.
pub(super) fn table(holder: &Holder, digest: &str) -> toml_edit::Table {
    let mut table = toml_edit::Table::new();
    table.insert("digest", toml_edit::value(digest));
    if let Some(servers) = &holder.mcp_servers {
        table.insert("mcp_servers", toml_edit::value(servers.iter().map(String::as_str).collect::<toml_edit::Array>()));
    }
    for (name, value) in [("team", &holder.team), ("agent", &holder.agent)] {
        if let Some(value) = value {
            table.insert(name, toml_edit::value(value));
        }
    }
    table
}

/// The tables of keys as they stand in the configuration.
pub(super) fn document<'n>(tables: impl IntoIterator<Item = (&'n str, toml_edit::Table)>) -> String {
    let mut keys = toml_edit::Table::new();
    keys.set_implicit(true);
    for (name, table) in tables {
        keys.insert(name, toml_edit::Item::Table(table));
    }
    let mut document = toml_edit::DocumentMut::new();
    document.insert("keys", toml_edit::Item::Table(keys));
    document.to_string()
}
