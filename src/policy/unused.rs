//! Which rules can never matter?
//!
//! Each is a warning at its place, and only what is certain is one: without the rule, every decision would be the same. Seen are
//! names on a list of what is allowed that a list of what is blocked takes whole; grants of a level that is never asked; matrices
//! for servers that no key of the agent reaches; keys that reach nothing. Not seen is what several entries take together, what
//! restrictions of networks, times and users take, and what only an issuer could know: where there is one, anybody may come.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::model::Cascade as How;
use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::model::Key;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces;
use crate::policy::Policy;
use crate::policy::level::Cascade;
use crate::policy::names::Names;
use crate::policy::rules::ServerIndex;

impl Policy {
    /// Warns of rules of `config`, from which this policy was compiled, that can never matter. Of a configuration with errors
    /// nothing is certain, and nothing is said.
    pub fn check_unused(&self, config: &Config, problems: &mut Problems) {
        if problems.has_errors() {
            return;
        }
        let mut search = Search { policy: self, config, problems };
        search.lists();
        if config.auth.issuers.is_empty() {
            search.levels();
            if !config.toolsets.values().any(|toolset| toolset.open) {
                search.keys();
                // A child that a key mints may be of any agent.
                if !config.keys.values().any(|key| key.may_mint) {
                    search.matrices();
                }
            }
        }
    }

    /// Whether what the configuration says of a key, restrictions aside, lets it reach a server.
    fn lets_reach(&self, key: &str, server: ServerIndex) -> bool {
        let Some(server_rules) = self.servers.get(server) else { return false };
        if server_rules.workspace.as_deref() != workspaces::split(key).0 {
            return false;
        }
        let is_public = server_rules.public.is_some();
        is_public
            || self.keys.get(key).is_some_and(|key| {
                let cascade =
                    Cascade { levels: &key.levels, claimed: None, toolset: None, intersects: self.intersects };
                cascade.reach(server).is_ok()
            })
    }
}

struct Search<'c> {
    policy: &'c Policy,
    config: &'c Config,
    problems: &'c mut Problems,
}

/// A level that keys belong to: its table, its name, what it grants.
type Belonging<'c> = (&'static str, &'c str, Grants<'c>);

impl<'c> Search<'c> {
    /// Names that are allowed and blocked.
    fn lists(&mut self) {
        for (rules, (name, server)) in self.policy.servers.iter().zip(&self.config.servers) {
            let at = At::entry("servers", name);
            self.swallowed(server.allowed_tools.as_deref(), &rules.lists.tools.blocked, &at, "allowed_tools", &at);
            self.swallowed(
                server.allowed_prompts.as_deref(),
                &rules.lists.prompts.blocked,
                &at,
                "allowed_prompts",
                &at,
            );
        }
        for (name, agent) in &self.config.agents {
            let Some(rules) = self.policy.levels.agents.get(name.as_str()) else { continue };
            for (server, written) in &agent.servers {
                let Some(index) = self.policy.index.get(server.as_str()) else { continue };
                let own = rules.matrices.get(index).map(|matrix| &matrix.lists);
                let of_server = self.policy.servers.get(*index).map(|server| &server.lists);
                let at = At::entry("agents", name).key("servers").key(workspaces::bare(server));
                let lists = [(own, at.clone()), (of_server, At::entry("servers", server))];
                for (lists, blocked_at) in lists.iter().filter_map(|(lists, at)| Some((lists.as_ref()?, at))) {
                    let (tools, prompts) = (&lists.tools.blocked, &lists.prompts.blocked);
                    self.swallowed(written.allowed_tools.as_deref(), tools, &at, "allowed_tools", blocked_at);
                    self.swallowed(written.allowed_prompts.as_deref(), prompts, &at, "allowed_prompts", blocked_at);
                }
            }
        }
    }

    fn swallowed(&mut self, allowed: Option<&[String]>, blocked: &Names, at: &At, key: &str, blocked_at: &At) {
        for (index, entry) in allowed.into_iter().flatten().enumerate() {
            if let Some(by) = blocked.find_whole(entry) {
                let rule = blocked_at.key(&key.replace("allowed", "blocked")).index(by);
                let help = format!("`{rule}` excludes all of it: remove one of them");
                self.problems.warning(&at.key(key).index(index), format!("`{entry}` has no effect"), help);
            }
        }
    }

    /// Levels that are never asked. Where all that say something must grant, each is asked.
    fn levels(&mut self) {
        let (mut belongs, mut asked) = (BTreeSet::new(), BTreeSet::new());
        for key in self.config.keys.values() {
            let mut is_answered = has_list(key.grants());
            for (table, name, grants) in self.belongings(key) {
                belongs.insert((table, name));
                if !is_answered || self.config.policy.cascade == How::Intersect {
                    asked.insert((table, name));
                }
                is_answered |= has_list(grants);
            }
        }
        let config = self.config;
        let teams = config.teams.iter().map(|(name, it)| ("teams", name.as_str(), it.grants()));
        let organisations = config.organisations.iter().map(|(name, it)| ("organisations", name.as_str(), it.grants()));
        let users = config.users.iter().map(|(name, it)| ("users", name.as_str(), it.grants()));
        let agents = config.agents.iter().map(|(name, it)| ("agents", name.as_str(), it.grants()));
        for (table, name, grants) in teams.chain(organisations).chain(users).chain(agents) {
            let Some(key) = first_word(grants).filter(|_| !asked.contains(&(table, name))) else { continue };
            let help = if belongs.contains(&(table, name)) {
                "an earlier level of each key that belongs to it has a list of servers, which answers for every server"
            } else {
                BELONGS_TO_NOBODY
            };
            let at = At::entry(table, name).key(key);
            self.problems.warning(&at, "what is granted here has no effect", help);
        }
    }

    /// The levels that a key belongs to, in the order in which they are asked.
    fn belongings(&self, key: &'c Key) -> impl Iterator<Item = Belonging<'c>> + use<'c> {
        let config = self.config;
        let team = key.team.as_deref().and_then(|name| Some((name, config.teams.get(name)?)));
        let organisation = key.organisation.as_deref().or(team.and_then(|(_, team)| team.organisation.as_deref()));
        let organisation = organisation.and_then(|name| Some((name, config.organisations.get(name)?)));
        let user = key.user.as_deref().and_then(|name| Some((name, config.users.get(name)?)));
        let agent = key.agent.as_deref().and_then(|name| Some((name, config.agents.get(name)?)));
        [
            team.map(|(name, it)| ("teams", name, it.grants())),
            organisation.map(|(name, it)| ("organisations", name, it.grants())),
            user.map(|(name, it)| ("users", name, it.grants())),
            agent.map(|(name, it)| ("agents", name, it.grants())),
        ]
        .into_iter()
        .flatten()
    }

    /// Matrices for servers that no key of the agent reaches.
    fn matrices(&mut self) {
        let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, key) in &self.config.keys {
            key.agent.iter().for_each(|agent| keys.entry(agent).or_default().push(name));
        }
        // Whoever reports itself as an agent is denied what that is denied, with whatever key.
        let agents = self.config.agents.iter().filter(|(_, agent)| agent.reported_as.is_empty());
        for (name, agent) in agents.filter(|(_, agent)| !agent.servers.is_empty()) {
            let at = At::entry("agents", name).key("servers");
            let Some(keys) = keys.get(name.as_str()) else {
                self.problems.warning(&at, "what the agent may do has no effect", BELONGS_TO_NOBODY);
                continue;
            };
            for server in agent.servers.keys() {
                let Some(index) = self.policy.index.get(server.as_str()) else { continue };
                if !keys.iter().any(|key| self.policy.lets_reach(key, *index)) {
                    let server = workspaces::bare(server);
                    let message = format!("no key of the agent reaches `{server}`, so this has no effect");
                    self.problems.warning(&at.key(server), message, "grant the server to one, or remove this");
                }
            }
        }
    }

    /// Keys that reach nothing.
    fn keys(&mut self) {
        let servers = self.policy.servers.len();
        for name in self.config.keys.iter().filter(|(_, key)| !key.disabled && servers > 0).map(|(name, _)| name) {
            if !(0..servers).any(|server| self.policy.lets_reach(name, server)) {
                let help = "give it `mcp_servers`, or a team, organisation, user or agent that grants a server";
                self.problems.warning(&At::entry("keys", name), "the key reaches no server", help);
            }
        }
    }
}

const BELONGS_TO_NOBODY: &str = "no key belongs to it, and there is no issuer that could say who does";

/// Whether a level has an answer for every server.
fn has_list(grants: Grants<'_>) -> bool {
    grants.servers.is_some() || grants.access_groups.is_some()
}

/// The first key by which a level says something.
fn first_word(grants: Grants<'_>) -> Option<&'static str> {
    let words = [
        ("mcp_servers", grants.servers.is_some()),
        ("mcp_access_groups", grants.access_groups.is_some()),
        ("mcp_toolsets", grants.toolsets.is_some_and(|toolsets| !toolsets.is_empty())),
        ("mcp_tool_permissions", !grants.tool_permissions.is_empty()),
    ];
    words.into_iter().find(|(_, says)| *says).map(|(word, _)| word)
}
