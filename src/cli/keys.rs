//! `portcullis keys`: API keys for callers, and those that seal session ids and sign the record.

use serde_json::json;

use crate::auth::key;
use crate::seal;

use super::Failure;

/// What to make.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make an API key. It is shown once; the configuration holds only its digest.
    Create(Create),
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
    /// The team it belongs to.
    #[arg(long)]
    team: Option<String>,
    /// The agent that uses it.
    #[arg(long)]
    agent: Option<String>,
    /// Servers it may reach, separated by commas; `*` for all.
    #[arg(long, value_delimiter = ',')]
    mcp_servers: Option<Vec<String>>,
    /// Print one JSON object: `key`, `digest`, `toml`.
    #[arg(long)]
    json: bool,
}

/// Makes what is asked for and prints it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Create(create) => print_key(create),
        Command::Seal | Command::Audit => {
            super::print(seal::key_text(&seal::generate_key().map_err(Failure::new)?).expose())
        }
    }
}

fn print_key(create: &Create) -> Result<(), Failure> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if create.name.is_empty() || create.name.len() > 64 || !create.name.bytes().all(valid) {
        return Err(Failure {
            code: 2,
            message: format!(
                "error: `{}` cannot be a key's name: use 1 to 64 letters, digits, `_`, `-` or `.`",
                create.name
            ),
        });
    }
    let new = key::generate().map_err(Failure::new)?;
    let toml = table(create, &new.digest);
    if create.json {
        return super::print(&json!({ "key": new.key.expose(), "digest": new.digest, "toml": toml }).to_string());
    }
    super::print(&format!("key (shown this once): {}\n\nadd to the configuration:\n\n{toml}", new.key.expose()))
}

/// The key's table in the configuration.
fn table(create: &Create, digest: &str) -> String {
    let mut keys = toml_edit::Table::new();
    let mut table = toml_edit::Table::new();
    table.insert("digest", toml_edit::value(digest));
    if let Some(servers) = &create.mcp_servers {
        table.insert("mcp_servers", toml_edit::value(servers.iter().map(String::as_str).collect::<toml_edit::Array>()));
    }
    for (name, value) in [("team", &create.team), ("agent", &create.agent)] {
        if let Some(value) = value {
            table.insert(name, toml_edit::value(value));
        }
    }
    keys.set_implicit(true);
    keys.insert(&create.name, toml_edit::Item::Table(table));
    let mut document = toml_edit::DocumentMut::new();
    document.insert("keys", toml_edit::Item::Table(keys));
    document.to_string()
}
