//! What do well-known agents call themselves?
//!
//! Data, not code: how each reports itself, in the words of who saw it. Programs rename themselves with any release, so a row
//! says when it was looked at, and one for which nothing could be found is not here. Nothing of it is proof of anything: see
//! docs/access.md.

/// An agent that is known without being configured.
#[derive(Debug)]
pub struct KnownAgent {
    /// What rules call it.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What it says it is in `clientInfo.name` or in the `User-Agent`, the letters' case aside; `*` is any text.
    pub reported_as: &'static [&'static str],
    /// Who saw that.
    pub source: &'static str,
    /// When that was looked at last.
    pub looked_at: &'static str,
}

/// All of them, in the order of their names.
pub const KNOWN_AGENTS: [KnownAgent; 13] = [
    KnownAgent {
        name: "antigravity",
        title: "Google Antigravity",
        reported_as: &["antigravity-client", "google antigravity", "antigravity ide mcp client", "antigravity-cli"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "chatgpt",
        title: "OpenAI's connectors",
        reported_as: &["chatgpt", "openai-mcp", "openai-mcp/*"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "claude-ai",
        title: "claude.ai, and the conversations of Claude Desktop, which say the same",
        reported_as: &["claude-ai", "anthropic/claudeai", "claude-user", "claude-user/*", "claude-user (*"],
        source: "apify/mcp-client-capabilities; labels of PostHog's MCP analytics",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "claude-code",
        title: "Claude Code, on whichever surface",
        reported_as: &["claude-code", "claude-code/*"],
        source: "PostHog/posthog-js#4419",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "claude-desktop",
        title: "Claude Code within Claude Desktop, where it says so",
        reported_as: &["claude desktop", "claude-code/* (claude-desktop*"],
        source: "PostHog/posthog-js#4419; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "cline",
        title: "Cline",
        reported_as: &["cline", "cline-cli"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "codex",
        title: "OpenAI Codex",
        reported_as: &["codex", "codex-mcp-client", "codex-mcp-client/*", "openai-mcp/* (codex)"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "cursor",
        title: "Cursor",
        reported_as: &["cursor", "cursor-vscode"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "gemini-cli",
        title: "Gemini CLI; its User-Agent is that of Node.js",
        reported_as: &["gemini-cli-mcp-client*", "gemini cli mcp client"],
        source: "apify/mcp-client-capabilities; google-gemini/gemini-cli#11262",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "goose",
        title: "Goose",
        reported_as: &["goose", "goose-cli", "goose-desktop"],
        source: "apify/mcp-client-capabilities; logs of Goose 1.38 and 1.41",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "vscode",
        title: "Visual Studio Code, which says its product's name; builds of others say theirs",
        reported_as: &[
            "visual studio code",
            "visual studio code/*",
            "visual-studio-code",
            "visual studio code - insiders",
            "visual studio code - insiders/*",
        ],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "windsurf",
        title: "Windsurf",
        reported_as: &["windsurf", "windsurf-client"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
    KnownAgent {
        name: "zed",
        title: "Zed",
        reported_as: &["zed", "zed/*"],
        source: "apify/mcp-client-capabilities; neondatabase/mcp-server-neon#342",
        looked_at: "2026-11-30",
    },
];

/// The agent of this name.
pub fn known_agent(name: &str) -> Option<&'static KnownAgent> {
    KNOWN_AGENTS.iter().find(|agent| agent.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_held_against_what_was_seen() {
        assert!(KNOWN_AGENTS.is_sorted_by(|one, next| one.name < next.name));
        for agent in &KNOWN_AGENTS {
            assert!(agent.reported_as.iter().all(|text| !text.is_empty() && *text == text.to_lowercase()), "{agent:?}");
            assert!(!agent.source.is_empty() && agent.looked_at.len() == "2026-11-30".len(), "{agent:?}");
        }
    }

    #[test]
    fn the_documents_have_every_row() {
        let text = include_str!("../../docs/access.md");
        for agent in &KNOWN_AGENTS {
            let reports: Vec<String> = agent.reported_as.iter().map(|text| format!("`{text}`")).collect();
            let (name, reports) = (agent.name, reports.join(", "));
            let row = format!("| `{name}` | {reports} | {}, {} |", agent.source, agent.looked_at);
            assert!(text.contains(&row), "docs/access.md lacks\n{row}");
        }
    }
}
