//! Are names well formed, and does what is referred to exist?
//!
//! Messages say names as they are written: without the workspace in which they stand.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::known_agents::known_agent;
use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::nearest::nearest;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::trail::Trail;
use crate::config::workspaces::DEFAULT;
use crate::config::workspaces::bare;
use crate::config::workspaces::qualified;
use crate::config::workspaces::split;

/// Characters of a server's name.
pub(crate) const SERVER_NAME_MAX: usize = 32;
/// Characters of a key's or an agent's name.
pub(crate) const NAME_MAX: usize = 64;
/// Bytes of a user's name.
const USER_NAME_MAX: usize = 256;

/// First segments of the gateway's own paths, which no server may be called by.
const RESERVED: [&str; 12] = [
    "mcp",
    "gateway",
    "toolset",
    "sse",
    "message",
    "events",
    "v1",
    "mcp-rest",
    "registry",
    "connect",
    "approvals",
    "healthz",
];

/// Why a text is no server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerNameError {
    /// Not of the form `[a-z0-9][a-z0-9_-]{0,31}`.
    #[error("is not a server name")]
    Form,
    /// With `__`, which separates a server from its tool in merged lists.
    #[error("has `__` in it")]
    DoubleUnderscore,
    /// A word the gateway's own paths begin with.
    #[error("is a reserved name")]
    Reserved,
}

impl ServerNameError {
    /// What to write instead.
    pub fn help(self) -> &'static str {
        match self {
            Self::Form => "use a-z, 0-9, `_` and `-`, at most 32 of them, beginning with a letter or a digit",
            Self::DoubleUnderscore => "use one `_` or `-`: two separate a server from its tool",
            Self::Reserved => "the gateway's own paths begin with it; choose another name",
        }
    }
}

/// Whether a server may be called `name`.
pub fn check_server_name(name: &str) -> Result<(), ServerNameError> {
    let letter_or_digit = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    if name.len() > SERVER_NAME_MAX
        || !name.starts_with(letter_or_digit)
        || !name.chars().all(|letter| letter_or_digit(letter) || matches!(letter, '_' | '-'))
    {
        return Err(ServerNameError::Form);
    }
    if name.contains("__") {
        return Err(ServerNameError::DoubleUnderscore);
    }
    if RESERVED.contains(&name) {
        return Err(ServerNameError::Reserved);
    }
    Ok(())
}

/// Reports a name that no workspace can have; whether it is well formed.
pub(crate) fn check_workspace_name(name: &str, at: &At, problems: &mut Problems) -> bool {
    if name == DEFAULT {
        let help = "write its tables at the top level: `[servers.NAME]`, not `[workspaces.default.servers.NAME]`";
        problems.error(at, "what stands at the top level is the workspace `default`", help);
        return false;
    }
    // No path begins with it, so reserved words are as good as others.
    let is_formed = !matches!(check_server_name(name), Err(ServerNameError::Form | ServerNameError::DoubleUnderscore));
    if !is_formed {
        problems.error(at, format!("`{name}` is not a workspace's name"), ServerNameError::Form.help());
    }
    is_formed
}

/// Reports ill-formed names, and references to what is not there. Workspaces must be [joined](crate::config::workspaces::join).
pub fn check_names(config: &Config, problems: &mut Problems) {
    for name in config.servers.keys() {
        if let Err(error) = check_server_name(bare(name)) {
            problems.error(&At::entry("servers", name), format!("`{}` {error}", bare(name)), error.help());
        }
    }
    check_aliases(config, problems);
    check_fixed_routes(config, problems);
    let groups = config.servers.values().flat_map(|server| &server.access_groups).map(String::as_str).collect();
    for (name, key) in &config.keys {
        let trail = Trail::Entry("keys", name);
        check_name(bare(name), "a key", &trail, problems);
        check_grants(config, &groups, key.grants(), &trail, problems);
        exists("team", key.team.as_deref(), &config.teams, &trail, problems);
        exists("organisation", key.organisation.as_deref(), &config.organisations, &trail, problems);
        exists("user", key.user.as_deref(), &config.users, &trail, problems);
        exists("agent", key.agent.as_deref(), &config.agents, &trail, problems);
    }
    for (name, team) in &config.teams {
        let trail = Trail::Entry("teams", name);
        check_name(bare(name), "a team", &trail, problems);
        check_grants(config, &groups, team.grants(), &trail, problems);
        exists("organisation", team.organisation.as_deref(), &config.organisations, &trail, problems);
    }
    for (name, organisation) in &config.organisations {
        let trail = Trail::Entry("organisations", name);
        check_name(bare(name), "an organisation", &trail, problems);
        check_grants(config, &groups, organisation.grants(), &trail, problems);
    }
    for (name, user) in &config.users {
        let trail = Trail::Entry("users", name);
        check_user_name(bare(name), &trail, problems);
        check_grants(config, &groups, user.grants(), &trail, problems);
    }
    for (name, toolset) in &config.toolsets {
        let trail = Trail::Entry("toolsets", name);
        check_name(bare(name), "a toolset", &trail, problems);
        for server in toolset.tools.keys() {
            check_server(config, server, &trail.key("tools").key(bare(server)), problems);
        }
    }
    check_restrictions(config, problems);
    for (name, agent) in &config.agents {
        let trail = Trail::Entry("agents", name);
        check_name(bare(name), "an agent", &trail, problems);
        check_grants(config, &groups, agent.grants(), &trail, problems);
        for server in agent.servers.keys() {
            check_server(config, server, &trail.key("servers").key(bare(server)), problems);
        }
    }
    check_issuers(config, problems);
}

/// Whom servers let in and keep out must be there, or be known without being configured.
fn check_restrictions(config: &Config, problems: &mut Problems) {
    for (name, server) in &config.servers {
        let trail = Trail::Entry("servers", name);
        for (index, user) in server.allowed_users.iter().flatten().enumerate() {
            exists_at("user", user, &config.users, &trail.key("allowed_users").index(index), problems);
        }
        for (index, agent) in server.allowed_agents.iter().flatten().enumerate() {
            exists_at("agent", agent, &config.agents, &trail.key("allowed_agents").index(index), problems);
        }
        for (index, agent) in
            server.blocked_agents.iter().enumerate().filter(|(_, agent)| known_agent(bare(agent)).is_none())
        {
            exists_at("agent", agent, &config.agents, &trail.key("blocked_agents").index(index), problems);
        }
    }
}

/// The workspace that an issuer's callers are in must be there.
fn check_issuers(config: &Config, problems: &mut Problems) {
    for (name, issuer) in &config.auth.issuers {
        if let Some(workspace) = issuer.workspace().filter(|workspace| !config.workspaces.contains_key(*workspace)) {
            let at = At::root().key("auth").key("issuers").key(name).key("workspace");
            let help = match nearest(workspace, config.workspaces.keys()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add `[workspaces.{workspace}]`, or name a configured workspace"),
            };
            problems.error(&at, format!("there is no workspace `{workspace}`"), help);
        }
    }
}

/// A fixed path leads to the server of a name in the caller's workspace, so some workspace must have it.
fn check_fixed_routes(config: &Config, problems: &mut Problems) {
    for (path, server) in &config.routes.fixed {
        if !config.servers.keys().any(|name| bare(name) == server) {
            let (routes, fixed) = (Trail::Root.key("routes"), "fixed");
            check_server(config, &qualified(None, server), &routes.key(fixed).key(path), problems);
        }
    }
}

/// An alias stands where a name could, so nothing else may be meant by it.
fn check_aliases(config: &Config, problems: &mut Problems) {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let aliases = config.servers.iter().filter_map(|(name, server)| Some((name, server.alias.as_deref()?)));
    for (name, qualified_alias) in aliases {
        let at = At::entry("servers", name).key("alias");
        let alias = bare(qualified_alias);
        if let Err(error) = check_server_name(alias) {
            problems.error(&at, format!("`{alias}` {error}"), error.help());
        } else if config.servers.contains_key(qualified_alias) {
            problems.error(&at, format!("`{alias}` is the name of a server"), "choose a name that no server has");
        } else if let Some(other) = known.insert(qualified_alias, name) {
            let message = format!("`{alias}` is the alias of `{}` as well", bare(other));
            problems.error(&at, message, "choose another for one of them");
        }
    }
}

/// Reports a name that is not well formed.
pub(crate) fn check_name(name: &str, whose: &str, trail: &Trail<'_>, problems: &mut Problems) {
    let well_formed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(well_formed) {
        let help = "use letters, digits, `_`, `.` and `-`, at most 64 of them";
        problems.error(&trail.at(), format!("`{name}` is not {whose}'s name"), help);
    }
}

/// A user may be called by an address of mail, or as an identity provider calls it.
fn check_user_name(name: &str, trail: &Trail<'_>, problems: &mut Problems) {
    let well_formed = |letter: char| !letter.is_control() && !letter.is_whitespace();
    if name.is_empty() || name.len() > USER_NAME_MAX || !name.chars().all(well_formed) {
        let help = "use at most 256 bytes without spaces, such as `ana@example.com`";
        problems.error(&trail.at(), format!("`{name}` is not a user's name"), help);
    }
}

/// What a level grants must be there to be granted.
fn check_grants(
    config: &Config,
    groups: &BTreeSet<&str>,
    grants: Grants<'_>,
    trail: &Trail<'_>,
    problems: &mut Problems,
) {
    for (index, server) in grants.servers.unwrap_or_default().iter().enumerate() {
        if server != "*" {
            check_server(config, server, &trail.key("mcp_servers").index(index), problems);
        }
    }
    for (index, group) in grants.access_groups.unwrap_or_default().iter().enumerate() {
        if !groups.contains(group.as_str()) {
            let help = did_you_mean(group, groups.iter().copied())
                .unwrap_or_else(|| "name a group that stands in `access_groups` of a server".to_owned());
            let at = trail.key("mcp_access_groups").index(index).at();
            problems.error(&at, format!("no server is in an access group `{}`", bare(group)), help);
        }
    }
    for (index, toolset) in grants.toolsets.unwrap_or_default().iter().enumerate() {
        exists_at("toolset", toolset, &config.toolsets, &trail.key("mcp_toolsets").index(index), problems);
    }
    for server in grants.tool_permissions.keys() {
        check_server(config, server, &trail.key("mcp_tool_permissions").key(bare(server)), problems);
    }
}

/// Whether the plan is there.
pub(crate) fn plan_exists<T>(
    plan: Option<&str>,
    plans: &BTreeMap<String, T>,
    trail: &Trail<'_>,
    problems: &mut Problems,
) {
    if let Some(plan) = plan.filter(|plan| !plans.contains_key(*plan)) {
        let help = match nearest(plan, plans.keys()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("add `[plans.{plan}]`, or name a configured plan"),
        };
        problems.error(&trail.key("plan").at(), format!("there is no plan `{plan}`"), help);
    }
}

/// Whether what the key named like its noun refers to is there.
fn exists<T>(noun: &str, name: Option<&str>, known: &BTreeMap<String, T>, trail: &Trail<'_>, problems: &mut Problems) {
    if let Some(name) = name {
        exists_at(noun, name, known, &trail.key(noun), problems);
    }
}

fn exists_at<T>(noun: &str, name: &str, known: &BTreeMap<String, T>, trail: &Trail<'_>, problems: &mut Problems) {
    if !known.contains_key(name) {
        let help = suggestion(name, known.keys(), noun);
        problems.error(&trail.at(), format!("there is no {noun} `{}`", bare(name)), help);
    }
}

/// Whether a server that is referred to is there.
pub(crate) fn check_server(config: &Config, server: &str, trail: &Trail<'_>, problems: &mut Problems) {
    exists_at("server", server, &config.servers, trail, problems);
}

fn suggestion<'k>(word: &str, known: impl Iterator<Item = &'k String>, noun: &str) -> String {
    if let Some(known) = did_you_mean(word, known.map(String::as_str)) {
        return known;
    }
    match split(word) {
        (_, "*") => format!("name one {noun}: `*` means all of them only in `mcp_servers`"),
        (None, name) if noun != "user" && name.contains('/') => {
            format!("name a {noun} of the same workspace, which needs no `/`")
        }
        (None, name) => format!("add `[{noun}s.{name}]`, or name a configured {noun}"),
        (Some(workspace), name) => {
            format!("add `[workspaces.{workspace}.{noun}s.{name}]`, or name a {noun} of this workspace")
        }
    }
}

/// The name of the same workspace that was probably meant.
fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let (workspace, word) = split(word);
    let here = known.map(|name| split(name)).filter(|(known, _)| *known == workspace);
    let here: Vec<String> = here.map(|(_, name)| name.to_owned()).collect();
    nearest(word, here.iter()).map(|known| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_short_and_plain() {
        for name in ["a", "0", "github", "my-server_2", &"a".repeat(SERVER_NAME_MAX)] {
            assert_eq!(check_server_name(name), Ok(()), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a.b", "a b", "ä", &"a".repeat(SERVER_NAME_MAX + 1)] {
            assert_eq!(check_server_name(name), Err(ServerNameError::Form), "{name}");
        }
        assert_eq!(check_server_name("a__b"), Err(ServerNameError::DoubleUnderscore));
    }

    #[test]
    fn the_gateways_own_words_are_no_server_names() {
        for name in RESERVED {
            assert_eq!(check_server_name(name), Err(ServerNameError::Reserved), "{name}");
            assert_eq!(check_server_name(&format!("{name}1")), Ok(()));
        }
    }

    #[test]
    fn a_users_name_has_its_limit_and_may_be_an_address_of_mail() {
        let found = |name: &str| {
            let mut problems = Problems::new();
            check_user_name(name, &Trail::Root, &mut problems);
            problems.has_errors()
        };
        assert!(!found(&"a".repeat(USER_NAME_MAX)) && !found("ana+x@example.com") && !found("auth0|5f7c"));
        assert!(found(&"a".repeat(USER_NAME_MAX + 1)));
        assert!(found("a b") && found("") && found("a\n"));
    }

    #[test]
    fn a_key_name_has_its_limit() {
        let found = |name: &str| {
            let mut problems = Problems::new();
            check_name(name, "a key", &Trail::Root, &mut problems);
            problems.has_errors()
        };
        assert!(!found(&"a".repeat(NAME_MAX)));
        assert!(found(&"a".repeat(NAME_MAX + 1)));
        assert!(found("a b") && found("") && !found("Agent_1.x-y"));
    }
}
