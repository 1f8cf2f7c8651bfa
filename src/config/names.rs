//! Are names well formed, and does what is referred to exist?

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::known_agents::known_agent;
use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::nearest::nearest;
use crate::config::problem::Problems;
use crate::config::trail::Trail;

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

/// Reports ill-formed names, and references to what is not there.
pub fn check_names(config: &Config, problems: &mut Problems) {
    let root = Trail::Root;
    for name in config.servers.keys() {
        if let Err(error) = check_server_name(name) {
            problems.error(&root.key("servers").key(name).at(), format!("`{name}` {error}"), error.help());
        }
    }
    check_aliases(config, problems);
    for (path, server) in &config.routes.fixed {
        check_server(config, server, &root.key("routes").key("fixed").key(path), problems);
    }
    let groups = config.servers.values().flat_map(|server| &server.access_groups).map(String::as_str).collect();
    for (name, key) in &config.keys {
        let trail = root.key("keys");
        let trail = trail.key(name);
        check_name(name, "a key", &trail, problems);
        check_grants(config, &groups, key.grants(), &trail, problems);
        exists("team", key.team.as_deref(), &config.teams, &trail, problems);
        exists("organisation", key.organisation.as_deref(), &config.organisations, &trail, problems);
        exists("user", key.user.as_deref(), &config.users, &trail, problems);
        exists("agent", key.agent.as_deref(), &config.agents, &trail, problems);
    }
    for (name, team) in &config.teams {
        let trail = root.key("teams");
        let trail = trail.key(name);
        check_name(name, "a team", &trail, problems);
        check_grants(config, &groups, team.grants(), &trail, problems);
        exists("organisation", team.organisation.as_deref(), &config.organisations, &trail, problems);
    }
    for (name, organisation) in &config.organisations {
        let trail = root.key("organisations");
        let trail = trail.key(name);
        check_name(name, "an organisation", &trail, problems);
        check_grants(config, &groups, organisation.grants(), &trail, problems);
    }
    for (name, user) in &config.users {
        let trail = root.key("users");
        let trail = trail.key(name);
        check_user_name(name, &trail, problems);
        check_grants(config, &groups, user.grants(), &trail, problems);
    }
    for (name, toolset) in &config.toolsets {
        let trail = root.key("toolsets");
        let trail = trail.key(name);
        check_name(name, "a toolset", &trail, problems);
        for server in toolset.tools.keys() {
            check_server(config, server, &trail.key("tools").key(server), problems);
        }
    }
    for (name, server) in &config.servers {
        let trail = root.key("servers");
        let trail = trail.key(name);
        for (index, user) in server.allowed_users.iter().flatten().enumerate() {
            exists_at("user", user, &config.users, &trail.key("allowed_users").index(index), problems);
        }
        for (index, agent) in server.allowed_agents.iter().flatten().enumerate() {
            exists_at("agent", agent, &config.agents, &trail.key("allowed_agents").index(index), problems);
        }
        for (index, agent) in server.blocked_agents.iter().enumerate().filter(|(_, agent)| known_agent(agent).is_none())
        {
            exists_at("agent", agent, &config.agents, &trail.key("blocked_agents").index(index), problems);
        }
    }
    for (name, agent) in &config.agents {
        let trail = root.key("agents");
        let trail = trail.key(name);
        check_name(name, "an agent", &trail, problems);
        check_grants(config, &groups, agent.grants(), &trail, problems);
        for server in agent.servers.keys() {
            check_server(config, server, &trail.key("servers").key(server), problems);
        }
    }
}

/// An alias stands where a name could, so nothing else may be meant by it.
fn check_aliases(config: &Config, problems: &mut Problems) {
    let root = Trail::Root;
    let trail = root.key("servers");
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let aliases = config.servers.iter().filter_map(|(name, server)| Some((name, server.alias.as_deref()?)));
    for (name, alias) in aliases {
        let trail = trail.key(name);
        let at = trail.key("alias").at();
        if let Err(error) = check_server_name(alias) {
            problems.error(&at, format!("`{alias}` {error}"), error.help());
        } else if config.servers.contains_key(alias) {
            problems.error(&at, format!("`{alias}` is the name of a server"), "choose a name that no server has");
        } else if let Some(other) = known.insert(alias, name) {
            let message = format!("`{alias}` is the alias of `{other}` as well");
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
            let known = groups.iter().copied().map(String::from).collect::<Vec<_>>();
            let help = nearest(group, known.iter()).map_or_else(
                || "name a group that stands in `access_groups` of a server".to_owned(),
                |known| format!("did you mean `{known}`?"),
            );
            let at = trail.key("mcp_access_groups").index(index).at();
            problems.error(&at, format!("no server is in an access group `{group}`"), help);
        }
    }
    for (index, toolset) in grants.toolsets.unwrap_or_default().iter().enumerate() {
        exists_at("toolset", toolset, &config.toolsets, &trail.key("mcp_toolsets").index(index), problems);
    }
    for server in grants.tool_permissions.keys() {
        check_server(config, server, &trail.key("mcp_tool_permissions").key(server), problems);
    }
}

/// Whether what the key named like its noun refers to is there.
pub(crate) fn exists<T>(
    noun: &str,
    name: Option<&str>,
    known: &BTreeMap<String, T>,
    trail: &Trail<'_>,
    problems: &mut Problems,
) {
    if let Some(name) = name {
        exists_at(noun, name, known, &trail.key(noun), problems);
    }
}

fn exists_at<T>(noun: &str, name: &str, known: &BTreeMap<String, T>, trail: &Trail<'_>, problems: &mut Problems) {
    if !known.contains_key(name) {
        let help = suggestion(name, known.keys(), noun);
        problems.error(&trail.at(), format!("there is no {noun} `{name}`"), help);
    }
}

/// Whether a server that is referred to is there.
pub(crate) fn check_server(config: &Config, server: &str, trail: &Trail<'_>, problems: &mut Problems) {
    if !config.servers.contains_key(server) {
        let help = suggestion(server, config.servers.keys(), "server");
        problems.error(&trail.at(), format!("there is no server `{server}`"), help);
    }
}

fn suggestion<'k>(word: &str, known: impl Iterator<Item = &'k String>, noun: &str) -> String {
    match nearest(word, known) {
        Some(known) => format!("did you mean `{known}`?"),
        None if word == "*" => format!("name one {noun}: `*` means all of them only in `mcp_servers`"),
        None => format!("add `[{noun}s.{word}]`, or name a configured {noun}"),
    }
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
