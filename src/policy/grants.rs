//! What do the levels of the cascade grant?
//!
//! Each level's four keys become one [`Level`]; keys that share a team share the team's. What does not exist is reported
//! by `config::check_names`; here it grants nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::model::Key;
use crate::config::model::Toolset;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces::bare;
use crate::network::Networks;
use crate::policy::compile::Compiler;
use crate::policy::compile::reason;
use crate::policy::hash::NameMap;
use crate::policy::level::Bundle;
use crate::policy::level::Level;
use crate::policy::level::Levels;
use crate::policy::level::Speaker;
use crate::policy::level::Team;
use crate::policy::minting::Minting;
use crate::policy::names::Names;
use crate::policy::names::Noun;
use crate::policy::reason::ReasonKind;
use crate::policy::reason::Rule;
use crate::policy::rules::AgentRules;
use crate::policy::rules::KeyRules;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::Servers;
use crate::policy::rules::ToolsetRules;

/// Servers by the groups that they are in.
pub(super) type Groups<'c> = BTreeMap<&'c str, Vec<ServerIndex>>;

impl Compiler<'_> {
    /// Every level but those of keys. Servers must be known.
    pub(super) fn levels(&mut self, config: &Config, groups: &Groups<'_>) -> Levels {
        let mut levels = Levels::default();
        for (name, toolset) in &config.toolsets {
            let rules = self.toolset(toolset, At::entry("toolsets", name));
            levels.toolsets.insert(name.as_str().into(), rules);
        }
        for (name, organisation) in &config.organisations {
            let at = At::entry("organisations", name);
            let level = self.level(Speaker::Organisation, organisation.grants(), at, groups, &levels.toolsets);
            levels.organisations.insert(name.as_str().into(), level);
        }
        for (name, team) in &config.teams {
            let at = At::entry("teams", name);
            let level = self.level(Speaker::Team, team.grants(), at, groups, &levels.toolsets);
            let organisation = team.organisation.as_deref().and_then(|name| levels.organisations.get(name)).cloned();
            levels.teams.insert(name.as_str().into(), Team { level, organisation });
        }
        for (name, user) in &config.users {
            let at = At::entry("users", name);
            let level = self.level(Speaker::User, user.grants(), at, groups, &levels.toolsets);
            levels.users.insert(name.as_str().into(), level);
        }
        for (name, agent) in &config.agents {
            let at = At::entry("agents", name);
            let level = self.level(Speaker::Agent, agent.grants(), at, groups, &levels.toolsets);
            let rules = AgentRules { level, matrices: self.agent(name, agent), disabled: agent.disabled };
            levels.agents.insert(name.as_str().into(), Arc::new(rules));
        }
        levels
    }

    /// One key. Without the agent it names it would be less restricted than its author meant, so nothing is granted to it.
    pub(super) fn key(&mut self, name: &str, key: &Key, levels: &Levels, groups: &Groups<'_>) -> KeyRules {
        let at = At::entry("keys", name);
        let level = self.level(Speaker::Key, key.grants(), at.clone(), groups, &levels.toolsets);
        let names = (key.user.as_deref().map(Into::into), key.agent.as_deref().map(Into::into));
        let team = key.team.as_deref().and_then(|name| levels.teams.get(name));
        let organisation = match key.organisation.as_deref() {
            Some(name) => levels.organisations.get(name).cloned(),
            None => team.and_then(|team| team.organisation.clone()),
        };
        let user = key.user.as_deref().and_then(|name| levels.users.get(name)).cloned();
        let agent = key.agent.as_deref().and_then(|name| levels.agents.get(name)).cloned();
        let is_lost = key.agent.is_some() && agent.is_none();
        let known = &levels.agents;
        let levels = if is_lost {
            vec![Arc::new(Level::silent(Speaker::Key, at.clone()))]
        } else {
            let of_agent = agent.as_ref().map(|agent| Arc::clone(&agent.level));
            let of_team = team.map(|team| Arc::clone(&team.level));
            [Some(level), of_team, organisation, user, of_agent].into_iter().flatten().collect()
        };
        // What is wrong with the list is reported where keys are compiled.
        let sources = key.allowed_sources.as_ref();
        let sources = sources.map(|list| Networks::compile(list, &at.key("allowed_sources"), &mut Problems::new()));
        let minting = Minting::compile(key, &at, self.problems).map(Box::new);
        for (index, name) in key.children.agents.iter().flatten().enumerate() {
            if !known.contains_key(name.as_str()) {
                let at = at.key("children").key("agents").index(index);
                let help = format!("add `[{}]`, or name a configured agent", At::entry("agents", name));
                self.problems.error(&at, format!("there is no agent `{}`", bare(name)), help);
            }
        }
        KeyRules { levels: levels.into(), agent, sources, names, at, disabled: key.disabled, minting }
    }

    fn level(
        &mut self,
        speaker: Speaker,
        grants: Grants<'_>,
        at: At,
        groups: &Groups<'_>,
        toolsets: &NameMap<Box<str>, ToolsetRules>,
    ) -> Arc<Level> {
        let mut level = Level::silent(speaker, at.clone());
        if grants.servers.is_some() || grants.access_groups.is_some() {
            let key = if grants.servers.is_some() { "mcp_servers" } else { "mcp_access_groups" };
            let why = reason(ReasonKind::Granted(speaker, Rule::Servers), at.key(key));
            level.servers = Some((self.granted(grants, groups), why));
        }
        for (server, tools) in grants.tool_permissions {
            let (at, named) = (at.key("mcp_tool_permissions").key(bare(server)), bare(server));
            let names = Names::compile(tools, Noun::Tool, &at, self.problems);
            let Some(index) = self.index.get(server.as_str()).copied() else { continue };
            if level.servers.as_ref().is_some_and(|(list, _)| !list.has(index)) {
                let message = format!("the list of servers leaves `{named}` out, so these tools are not granted");
                self.problems.warning(&at, message, format!("add `{named}` to `mcp_servers`, or remove this"));
            }
            level.tools.insert(index, (names, reason(ReasonKind::Granted(speaker, Rule::ToolPermissions), at)));
        }
        for (position, name) in grants.toolsets.unwrap_or_default().iter().enumerate() {
            let Some(toolset) = toolsets.get(name.as_str()) else { continue };
            let at = at.key("mcp_toolsets").index(position);
            let why = reason(ReasonKind::Granted(speaker, Rule::Toolsets), at);
            level.bundles.push((Arc::clone(&toolset.bundle), why));
        }
        Arc::new(level)
    }

    /// The servers of a level's list, those of its groups included.
    fn granted(&mut self, grants: Grants<'_>, groups: &Groups<'_>) -> Servers {
        let (names, of_groups) = (grants.servers.unwrap_or_default(), grants.access_groups.unwrap_or_default());
        if names.iter().any(|name| name == "*") {
            // No caller is ever asked about another workspace's.
            return Servers::All;
        }
        let named = names.iter().filter_map(|name| self.index.get(name.as_str()));
        let grouped = of_groups.iter().filter_map(|group| groups.get(group.as_str())).flatten();
        let servers = Servers::of(named.chain(grouped).copied());
        let shared = self.sets.get(&servers).unwrap_or(&servers).clone();
        self.sets.insert(servers);
        shared
    }

    fn toolset(&mut self, toolset: &Toolset, at: At) -> ToolsetRules {
        let mut bundle = Bundle::default();
        for (server, tools) in &toolset.tools {
            let at = at.key("tools").key(bare(server));
            for (position, tool) in tools.iter().enumerate().filter(|(_, tool)| tool.contains('*')) {
                let help = "a toolset is a list of tools: write their whole names";
                self.problems.error(&at.index(position), format!("`{tool}` is not the name of a tool"), help);
            }
            // Reports what is no name, and how many there may be.
            Names::compile(tools, Noun::Tool, &at, self.problems);
            if let Some(index) = self.index.get(server.as_str()) {
                bundle.tools.insert(*index, tools.iter().map(|tool| (tool.as_str().into(), ())).collect());
            }
        }
        if bundle.tools.values().all(|tools| tools.is_empty()) {
            self.problems.warning(&at, "the toolset has no tools", "list some: `tools.SERVER = [..]`");
        }
        let bundle = Arc::new(bundle);
        let level = toolset.open.then(|| {
            let mut level = Level::silent(Speaker::Toolset, at.clone());
            let why = reason(ReasonKind::Granted(Speaker::Toolset, Rule::Toolsets), at.key("open"));
            level.bundles.push((Arc::clone(&bundle), why));
            Arc::new(level)
        });
        ToolsetRules { bundle, level, at }
    }
}
