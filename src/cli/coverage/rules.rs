//! Which rules of a configuration did no call come to?
//!
//! A rule is used as soon as it has a part in a decision, however small: where several entries say the same, all of them are. So
//! without all that is left, every call would be decided as it is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::cli::past::Decided;
use crate::cli::past::Depends;
use crate::cli::past::Named;
use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::problem::At;
use crate::config::workspaces::bare;

use super::entries::Entries;

/// Tools that no rule mentions and that are told apart; what is called beyond them is only counted.
pub(super) const UNMENTIONED_MAX: usize = 10_000;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// What it is, if no call comes to it.
    pub(super) what: &'static str,
    /// Where it stands.
    pub(super) at: At,
    /// The entry, as it is written.
    pub(super) text: String,
    is_used: bool,
}

/// All rules of a configuration, and what came to them.
#[derive(Debug)]
pub(super) struct Rules<'c> {
    config: &'c Config,
    rules: Vec<Rule>,
    /// Keys, each with the rules of its own table.
    keys: BTreeMap<&'c str, (usize, Vec<usize>)>,
    /// Levels, by their tables' places.
    levels: HashMap<String, Level<'c>>,
    /// Lists of what is allowed on a server: its own, and those of agents.
    allowed: HashMap<&'c str, (Allowed, HashMap<&'c str, Allowed>)>,
    /// Rules that refuse, by the place that a refusal names; a set of constraints stands for all that use it for one server's tool.
    refusing: HashMap<String, Vec<usize>>,
    sets: HashMap<(String, String, String), Vec<usize>>,
    unmentioned: BTreeMap<(String, String), u64>,
    /// Calls of further tools that no rule mentions.
    pub(super) unmentioned_others: u64,
}

/// What one level grants.
#[derive(Debug, Default)]
struct Level<'c> {
    /// Entries of the list of servers, and groups of servers.
    servers: Vec<(&'c str, usize)>,
    groups: Vec<(&'c str, usize)>,
    toolsets: Vec<(&'c str, usize)>,
    /// What is left of permissions for tools, by server, and the rules of all of them.
    tools: HashMap<&'c str, (Entries, Vec<usize>)>,
    /// Servers that were within reach for some tool that the level grants.
    opened: BTreeSet<&'c str>,
}

#[derive(Debug, Default)]
struct Allowed {
    tools: Entries,
    prompts: Entries,
}

impl<'c> Rules<'c> {
    /// Those of a configuration; nothing came to them yet.
    pub(super) fn of(config: &'c Config) -> Self {
        let mut rules = Self {
            config,
            rules: Vec::new(),
            keys: BTreeMap::new(),
            levels: HashMap::new(),
            allowed: HashMap::new(),
            refusing: HashMap::new(),
            sets: HashMap::new(),
            unmentioned: BTreeMap::new(),
            unmentioned_others: 0,
        };
        for (name, key) in &config.keys {
            let at = At::entry("keys", name);
            let own = rules.add("key that called nothing", at.clone(), "");
            let first = rules.rules.len();
            rules.level(&at, key.grants());
            rules.keys.insert(name, (own, (first..rules.rules.len()).collect()));
        }
        let teams = config.teams.iter().map(|(name, level)| ("teams", name, level.grants()));
        let organisations = config.organisations.iter().map(|(name, level)| ("organisations", name, level.grants()));
        let users = config.users.iter().map(|(name, level)| ("users", name, level.grants()));
        let agents = config.agents.iter().map(|(name, level)| ("agents", name, level.grants()));
        for (table, name, grants) in teams.chain(organisations).chain(users).chain(agents) {
            rules.level(&At::entry(table, name), grants);
        }
        rules.lists();
        rules
    }

    /// Every entry by which a level grants something.
    fn level(&mut self, at: &At, grants: Grants<'c>) {
        let mut level = Level::default();
        let lists = [
            ("mcp_servers", grants.servers, &mut level.servers),
            ("mcp_access_groups", grants.access_groups, &mut level.groups),
            ("mcp_toolsets", grants.toolsets, &mut level.toolsets),
        ];
        for (key, entries, rules) in lists {
            for (index, entry) in entries.unwrap_or_default().iter().enumerate() {
                rules.push((entry.as_str(), self.add("grant", at.key(key).index(index), bare(entry))));
            }
        }
        for (server, tools) in grants.tool_permissions {
            let (left, all) = level.tools.entry(server).or_default();
            let at = at.key("mcp_tool_permissions").key(bare(server));
            for (index, entry) in tools.iter().enumerate() {
                let rule = self.add("grant", at.index(index), entry);
                left.add(entry, rule);
                all.push(rule);
            }
        }
        self.levels.insert(at.to_string(), level);
    }

    /// Every entry of a list of tools and prompts, and every constraint.
    fn lists(&mut self) {
        let config = self.config;
        for (name, server) in &config.servers {
            let at = At::entry("servers", name);
            let lists = [server.allowed_tools.as_deref(), server.allowed_prompts.as_deref()];
            let own = self.allowing(&at, lists);
            self.allowed.entry(name).or_default().0 = own;
            self.refusing(&at, "blocked_tools", &server.blocked_tools);
            self.refusing(&at, "blocked_prompts", &server.blocked_prompts);
            self.refusing(&at, "blocked_agents", &server.blocked_agents);
        }
        for (agent, settings) in &config.agents {
            for (name, matrix) in &settings.servers {
                let at = At::entry("agents", agent).key("servers").key(bare(name));
                let lists = [matrix.allowed_tools.as_deref(), matrix.allowed_prompts.as_deref()];
                let own = self.allowing(&at, lists);
                self.allowed.entry(name).or_default().1.insert(agent, own);
                self.refusing(&at, "blocked_tools", &matrix.blocked_tools);
                self.refusing(&at, "blocked_prompts", &matrix.blocked_prompts);
                for (tool, constraints) in &matrix.argument_constraints {
                    let at = at.key("argument_constraints").key(tool);
                    for (index, constraint) in constraints.iter().enumerate() {
                        let set = constraint.r#use.as_deref();
                        let rule =
                            self.add("entry that refused nothing", at.index(index), set.unwrap_or(&constraint.arg));
                        match set {
                            // What refuses stands in the set.
                            Some(set) => {
                                let set = At::root().key("constraint_sets").key(set).to_string();
                                self.sets.entry((set, name.clone(), tool.clone())).or_default().push(rule);
                            }
                            None => self.refusing.entry(at.index(index).to_string()).or_default().push(rule),
                        }
                    }
                }
            }
        }
    }

    fn allowing(&mut self, at: &At, [tools, prompts]: [Option<&[String]>; 2]) -> Allowed {
        let mut allowed = Allowed::default();
        for (key, entries, left) in
            [("allowed_tools", tools, &mut allowed.tools), ("allowed_prompts", prompts, &mut allowed.prompts)]
        {
            for (index, entry) in entries.unwrap_or_default().iter().enumerate() {
                left.add(entry, self.add("entry that allowed nothing", at.key(key).index(index), entry));
            }
        }
        allowed
    }

    fn refusing(&mut self, at: &At, list: &str, entries: &[String]) {
        let list = at.key(list);
        for (index, entry) in entries.iter().enumerate() {
            let at = list.index(index);
            // Where the agents of a minted key are asked, the list is named as a whole.
            let places = [at.to_string(), list.to_string()];
            let rule = self.add("entry that refused nothing", at, entry);
            places.into_iter().for_each(|place| self.refusing.entry(place).or_default().push(rule));
        }
    }

    fn add(&mut self, what: &'static str, at: At, text: &str) -> usize {
        self.rules.push(Rule { what, at, text: text.to_owned(), is_used: false });
        self.rules.len() - 1
    }

    /// Sees what a call came to.
    pub(super) fn take(&mut self, decided: &Decided) {
        // Constraints refused then, for arguments are not on record; lists do now.
        for verdict in [&decided.then, &decided.now].into_iter().filter(|verdict| !verdict.permitted) {
            verdict.rule.iter().for_each(|rule| self.refused(rule, decided));
        }
        if !may_pass(decided) {
            return;
        }
        for level in &decided.granted_by {
            self.granted(&level.to_string(), decided);
        }
        for level in &decided.opened_by {
            self.opened(&level.to_string(), &decided.server);
        }
        if let Some((own, of_agents)) = self.allowed.get_mut(decided.server.as_str()) {
            let mut taken = own.take(&decided.named);
            for agent in &decided.agents {
                taken.extend(of_agents.get_mut(agent.as_str()).into_iter().flat_map(|own| own.take(&decided.named)));
            }
            self.used(taken);
        }
        if let Named::Tool(tool) = &decided.named
            && decided.now.permitted
            && !decided.is_minted
            && decided.now.reason.ends_with("_servers")
        {
            self.not_mentioned(&decided.server, tool);
        }
    }

    fn refused(&mut self, rule: &str, decided: &Decided) {
        if let Some(start) = rule.strip_suffix('…') {
            // A place that was cut in the record may be any of these.
            let cut = self.refusing.iter().filter(|(place, _)| place.starts_with(start));
            let rules: Vec<usize> = cut.flat_map(|(_, rules)| rules).copied().collect();
            return self.used(rules);
        }
        let of_set = rule.rsplit_once('[').map(|(set, _)| set).zip(match &decided.named {
            Named::Tool(tool) => Some(tool),
            _ => None,
        });
        let of_set =
            of_set.and_then(|(set, tool)| self.sets.get(&(set.to_owned(), decided.server.clone(), tool.clone())));
        let rules = self.refusing.get(rule).into_iter().chain(of_set).flatten().copied().collect::<Vec<_>>();
        self.used(rules);
    }

    /// A level grants a call.
    fn granted(&mut self, level: &str, decided: &Decided) {
        let config = self.config;
        let Some(level) = self.levels.get_mut(level) else { return };
        let server = decided.server.as_str();
        let mut used = Vec::new();
        if let Named::Tool(tool) = &decided.named {
            let has = |toolset: &str| {
                let tools = config.toolsets.get(toolset).and_then(|toolset| toolset.tools.get(server));
                tools.is_some_and(|tools| tools.contains(tool))
            };
            used.extend(level.toolsets.iter().filter(|(toolset, _)| has(toolset)).map(|(_, rule)| *rule));
            // Toolsets grant whatever the list says.
            if used.is_empty() {
                used.extend(level.tools.get_mut(server).into_iter().flat_map(|(left, _)| left.take(tool)));
                used.extend(level.listing(config, server));
            }
        } else {
            used.extend(level.listing(config, server));
        }
        self.used(used);
    }

    /// Some tool that a level grants may be why a server is within reach.
    fn opened(&mut self, level: &str, server: &str) {
        let config = self.config;
        let (Some((server, _)), Some(level)) = (config.servers.get_key_value(server), self.levels.get_mut(level))
        else {
            return;
        };
        level.opened.insert(server);
        let listing = level.listing(config, server);
        self.used(listing);
    }

    fn used(&mut self, rules: Vec<usize>) {
        for rule in rules {
            if let Some(rule) = self.rules.get_mut(rule) {
                rule.is_used = true;
            }
        }
    }

    fn not_mentioned(&mut self, server: &str, tool: &str) {
        let tool = (server.to_owned(), tool.to_owned());
        if let Some(calls) = self.unmentioned.get_mut(&tool) {
            *calls += 1;
        } else if self.unmentioned.len() < UNMENTIONED_MAX {
            self.unmentioned.insert(tool, 1);
        } else {
            self.unmentioned_others += 1;
        }
    }

    /// Nothing more will come. These keys asked for something.
    pub(super) fn finish(&mut self, keys: &BTreeSet<String>) {
        let config = self.config;
        let mut used = Vec::new();
        for level in self.levels.values() {
            for server in &level.opened {
                let has = |toolset: &str| {
                    let tools = config.toolsets.get(toolset).and_then(|toolset| toolset.tools.get(*server));
                    tools.is_some_and(|tools| !tools.is_empty())
                };
                let bundled = level.toolsets.iter().filter(|(toolset, _)| has(toolset)).map(|(_, rule)| *rule);
                let permitted = level.tools.get(server).into_iter().flat_map(|(_, all)| all.iter().copied());
                let opening: Vec<usize> = bundled.chain(permitted).collect();
                // One of them keeps the server within reach, whichever it is: those that were called do, if any was.
                if !opening.iter().any(|rule| self.rules.get(*rule).is_some_and(|rule| rule.is_used)) {
                    used.extend(opening);
                }
            }
        }
        for (name, (own, rules)) in &self.keys {
            // Of a key that nobody used it is enough to say that.
            if keys.contains(*name) {
                used.push(*own);
            } else {
                used.extend(rules);
            }
        }
        self.used(used);
    }

    /// What no call came to.
    pub(super) fn unused(&self) -> Vec<&Rule> {
        self.rules.iter().filter(|rule| !rule.is_used).collect()
    }

    /// Tools that were called without any list naming them, by server and tool; those that were called most come first.
    pub(super) fn unmentioned(&self) -> Vec<(&(String, String), u64)> {
        let mut tools: Vec<_> = self.unmentioned.iter().map(|(tool, calls)| (tool, *calls)).collect();
        tools.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        tools
    }
}

impl Allowed {
    /// The entries by which something is on its list, which are then no longer left.
    fn take(&mut self, named: &Named) -> Vec<usize> {
        match named {
            Named::Tool(tool) => self.tools.take(tool),
            Named::Prompt(prompt) => self.prompts.take(prompt),
            Named::Resource(_) | Named::Nothing => Vec::new(),
        }
    }
}

impl Level<'_> {
    /// The entries of the list of servers, groups included, that a server is on it by.
    fn listing(&self, config: &Config, server: &str) -> Vec<usize> {
        let groups = config.servers.get(server).map(|server| server.access_groups.as_slice()).unwrap_or_default();
        let by_name = self.servers.iter().filter(|(name, _)| *name == "*" || *name == server);
        let by_group = self.groups.iter().filter(|(group, _)| groups.iter().any(|of| of == group));
        by_name.chain(by_group).map(|(_, rule)| *rule).collect()
    }
}

/// Whether what lets a call pass had a part in it. A refusal for want of what is not on record may be none.
fn may_pass(decided: &Decided) -> bool {
    let depends = match decided.depends {
        Some(Depends::Arguments) => decided.now.is_of_arguments(),
        Some(Depends::Scopes | Depends::Client) => true,
        None => false,
    };
    // What is left of a URI in the record may be judged otherwise than the URI was.
    let is_concealed = decided.then.permitted && matches!(decided.named, Named::Resource(_));
    decided.now.permitted || depends || is_concealed || (decided.is_minted && decided.then.permitted)
}
