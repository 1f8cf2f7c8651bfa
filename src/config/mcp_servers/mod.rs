//! What does an `mcpServers` file, as MCP clients keep it, say?
//!
//! Two uses: an operator includes one in a configuration, where every mistake is an error (`include`), or turns
//! one into TOML once, where what cannot be kept is noted (`import`).

mod conceal;
mod import;
mod include;

pub use import::Import;
pub use import::read;
pub use import::to_toml;
pub(crate) use include::include;

use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// The keys of an entry that are understood, and the model's names for them.
const KEYS: [(&str, &str); 6] = [
    ("url", "url"),
    ("type", "type"),
    ("transport", "transport"),
    ("headers", "headers"),
    ("timeout", "timeout_ms"),
    ("sseReadTimeout", "sse_read_timeout_ms"),
];

/// Takes the `mcpServers` table out of a file's root; what else the file says stays there.
fn take_servers(root: &mut Node, problems: &mut Problems) -> Option<Node> {
    let spot = root.span;
    match root.entries_mut().and_then(|entries| entries.remove("mcpServers")) {
        Some(servers) if matches!(servers.kind, Kind::Table(_)) => Some(servers),
        other => {
            let spot = other.map_or(spot, |node| node.span);
            let help = "write `{ \"mcpServers\": { \"NAME\": { \"url\": \"..\" } } }`";
            problems.add(Problem::error(&At::root(), "no `mcpServers` table is in this file", help).on(spot));
            None
        }
    }
}
