//! Why is a call permitted?

use std::fmt;

use crate::config::problem::At;
use crate::policy::level::Speaker;

/// Why a call is permitted: the last rule that had a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub(super) kind: ReasonKind,
    pub(super) at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReasonKind {
    Public,
    Granted(Speaker, Rule),
    ServerTools,
    AgentTools,
    ServerResources,
    AgentResources,
    ServerPrompts,
    AgentPrompts,
}

/// Which rule of a level speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Its list of servers.
    Servers,
    /// Its permissions for tools of the server.
    ToolPermissions,
    /// One of its toolsets.
    Toolsets,
}

impl Reason {
    /// Fixed word for records and metrics.
    pub fn name(&self) -> &'static str {
        match self.kind {
            ReasonKind::Public => "public",
            ReasonKind::Granted(speaker, rule) => granted_name(speaker, rule),
            ReasonKind::ServerTools => "server_tools",
            ReasonKind::AgentTools => "agent_tools",
            ReasonKind::ServerResources => "server_resources",
            ReasonKind::AgentResources => "agent_resources",
            ReasonKind::ServerPrompts => "server_prompts",
            ReasonKind::AgentPrompts => "agent_prompts",
        }
    }

    /// Where the rule stands in the configuration.
    pub fn at(&self) -> Option<&At> {
        Some(&self.at)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.kind {
            ReasonKind::Public => "the server is open to everybody",
            ReasonKind::Granted(speaker, rule) => {
                let (speaker, rule) = (speaker.name(), rule.words());
                return write!(f, "the {speaker}'s {rule} ({})", self.at);
            }
            ReasonKind::ServerTools => "the server's tool list allows it",
            ReasonKind::AgentTools => "the agent's tool matrix allows it",
            ReasonKind::ServerResources => "the server's resource list allows it",
            ReasonKind::AgentResources => "the agent's resource list allows it",
            ReasonKind::ServerPrompts => "the server's prompt list allows it",
            ReasonKind::AgentPrompts => "the agent's prompt list allows it",
        };
        write!(f, "{text} ({})", self.at)
    }
}

fn granted_name(speaker: Speaker, rule: Rule) -> &'static str {
    match (speaker, rule) {
        (Speaker::Key, Rule::Servers) => "key_servers",
        (Speaker::Key, Rule::ToolPermissions) => "key_tool_permissions",
        (Speaker::Key, Rule::Toolsets) => "key_toolsets",
        (Speaker::Team, Rule::Servers) => "team_servers",
        (Speaker::Team, Rule::ToolPermissions) => "team_tool_permissions",
        (Speaker::Team, Rule::Toolsets) => "team_toolsets",
        (Speaker::Organisation, Rule::Servers) => "organisation_servers",
        (Speaker::Organisation, Rule::ToolPermissions) => "organisation_tool_permissions",
        (Speaker::Organisation, Rule::Toolsets) => "organisation_toolsets",
        (Speaker::User, Rule::Servers) => "user_servers",
        (Speaker::User, Rule::ToolPermissions) => "user_tool_permissions",
        (Speaker::User, Rule::Toolsets) => "user_toolsets",
        (Speaker::Agent, Rule::Servers) => "agent_servers",
        (Speaker::Agent, Rule::ToolPermissions) => "agent_tool_permissions",
        (Speaker::Agent, Rule::Toolsets) => "agent_toolsets",
        (Speaker::Toolset, _) => "toolset",
    }
}

impl Rule {
    fn words(self) -> &'static str {
        match self {
            Self::Servers => "list of servers",
            Self::ToolPermissions => "permissions for tools of the server",
            Self::Toolsets => "toolsets",
        }
    }
}
