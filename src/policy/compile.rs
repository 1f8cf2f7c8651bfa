//! What do the tables of servers and agents mean together?
//!
//! What levels grant is read in `grants`. References to what does not exist are reported by `config::check_names`; here they
//! grant nothing. Patterns are taken over from the configuration before by their text; the outcome is the same as
//! without it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::config::model;
use crate::config::model::Access;
use crate::config::model::Agent;
use crate::config::model::AgentServer;
use crate::config::model::Cascade;
use crate::config::model::Config;
use crate::config::model::Relay;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces;
use crate::network::Networks;
use crate::policy::Policy;
use crate::policy::grants::Groups;
use crate::policy::hash::NameMap;
use crate::policy::names::Names;
use crate::policy::names::Noun;
use crate::policy::pattern::Patterns;
use crate::policy::reason::Reason;
use crate::policy::reason::ReasonKind;
use crate::policy::report::Reports;
use crate::policy::rules::Listed;
use crate::policy::rules::Lists;
use crate::policy::rules::Located;
use crate::policy::rules::Matrices;
use crate::policy::rules::Matrix;
use crate::policy::rules::Named;
use crate::policy::rules::Placed;
use crate::policy::rules::Relays;
use crate::policy::rules::Restrictions;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::ServerRules;
use crate::policy::rules::Servers;
use crate::policy::scopes::Scopes;
use crate::policy::times::Times;
use crate::policy::uris::UriLists;

/// Servers of one configuration.
pub(super) const SERVERS_MAX: usize = 10_000;
/// Agents of one configuration.
pub(super) const AGENTS_MAX: usize = 100_000;
/// Teams of one configuration.
pub(super) const TEAMS_MAX: usize = 100_000;
/// Organisations of one configuration.
pub(super) const ORGANISATIONS_MAX: usize = 100_000;
/// Users of one configuration.
pub(super) const USERS_MAX: usize = 100_000;
/// Toolsets of one configuration.
pub(super) const TOOLSETS_MAX: usize = 10_000;
/// Constraints of one tool of one agent on one server: every call is held against each.
pub(super) const CONSTRAINTS_MAX: usize = 64;

impl Policy {
    /// The rules that `config` states. What is wrong with them is added to `problems`; with an error among them the
    /// policy is not fit to be served.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        Self::compile_reusing(config, None, problems)
    }

    /// The same, with the patterns of `previous` taken over where their text is the same. The policy and the problems
    /// equal those of [`Policy::compile`].
    pub fn compile_reusing(config: &Config, previous: Option<&Policy>, problems: &mut Problems) -> Self {
        for (table, count, max) in [
            ("servers", config.servers.len(), SERVERS_MAX),
            ("agents", config.agents.len(), AGENTS_MAX),
            ("teams", config.teams.len(), TEAMS_MAX),
            ("organisations", config.organisations.len(), ORGANISATIONS_MAX),
            ("users", config.users.len(), USERS_MAX),
            ("toolsets", config.toolsets.len(), TOOLSETS_MAX),
        ] {
            limit(&At::root().key(table), count, max, problems);
        }
        let mut compiler = Compiler {
            index: NameMap::default(),
            servers: Vec::new(),
            sets: HashSet::new(),
            constraint_sets: HashMap::new(),
            patterns: Patterns::default(),
            uris: UriLists::default(),
            has_times: false,
            previous,
            problems,
        };
        compiler.servers(&config.servers);
        compiler.constraint_sets(&config.constraint_sets);
        let mut groups = Groups::new();
        for (position, server) in config.servers.values().enumerate() {
            server.access_groups.iter().for_each(|group| groups.entry(group).or_default().push(position));
        }
        let levels = compiler.levels(config, &groups);
        let keys = config.keys.iter();
        let keys = keys.map(|(name, key)| (name.as_str().into(), compiler.key(name, key, &levels, &groups))).collect();
        let Compiler { index, servers, patterns, uris, has_times, .. } = compiler;
        let intersects = config.policy.cascade == Cascade::Intersect;
        let scopes = Scopes::compile(config);
        let reports = Reports::compile(config, &levels.agents, problems);
        Self { index, servers, keys, levels, intersects, patterns, uris, scopes, reports, has_times }
    }
}

pub(super) fn limit(at: &At, count: usize, max: usize, problems: &mut Problems) {
    if count > max {
        problems.error(at, format!("{count} entries, and at most {max} are possible"), "remove what is no longer used");
    }
}

/// A policy in the making.
pub(super) struct Compiler<'c> {
    pub(super) index: NameMap<Box<str>, ServerIndex>,
    servers: Vec<ServerRules>,
    /// Every set of servers that a level has.
    pub(super) sets: HashSet<Servers>,
    /// The named sets of constraints.
    pub(super) constraint_sets: HashMap<String, Vec<Placed>>,
    pub(super) patterns: Patterns,
    uris: UriLists,
    /// Whether a window of time was written anywhere.
    has_times: bool,
    pub(super) previous: Option<&'c Policy>,
    pub(super) problems: &'c mut Problems,
}

impl Compiler<'_> {
    fn servers(&mut self, servers: &BTreeMap<String, model::Server>) {
        for (position, (name, server)) in servers.iter().enumerate() {
            let at = At::entry("servers", name);
            let lists = self.server_lists(server, &at);
            let public = (server.access == Access::Public).then(|| self.public(&at));
            if server.blocked_resources.is_empty() {
                self.nothing_blocked(&at);
            }
            let asked = &server.client_requests;
            let relays = Relays {
                sampling: asked.sampling == Relay::Allow,
                elicitation: asked.elicitation == Relay::Allow,
                roots: asked.roots == Relay::Allow,
            };
            self.index.insert(name.as_str().into(), position);
            let restrictions = self.restrictions(server, &at);
            let (name, workspace) = (name.as_str().into(), workspaces::split(name).0.map(Into::into));
            self.servers.push(ServerRules { name, workspace, public, lists, relays, restrictions, at });
        }
    }

    fn server_lists(&mut self, server: &model::Server, at: &At) -> Lists {
        let tools = (server.allowed_tools.as_deref(), server.blocked_tools.as_slice());
        let resources = (server.allowed_resources.as_deref(), server.blocked_resources.as_slice());
        let prompts = (server.allowed_prompts.as_deref(), server.blocked_prompts.as_slice());
        Lists {
            tools: self.named(tools, at, Noun::Tool, ReasonKind::ServerTools),
            resources: self.located(resources, at, ReasonKind::ServerResources),
            prompts: self.named(prompts, at, Noun::Prompt, ReasonKind::ServerPrompts),
        }
    }

    fn agent_lists(&mut self, rules: &AgentServer, at: &At) -> Lists {
        let tools = (rules.allowed_tools.as_deref(), rules.blocked_tools.as_slice());
        let resources = (rules.allowed_resources.as_deref(), rules.blocked_resources.as_slice());
        let prompts = (rules.allowed_prompts.as_deref(), rules.blocked_prompts.as_slice());
        Lists {
            tools: self.named(tools, at, Noun::Tool, ReasonKind::AgentTools),
            resources: self.located(resources, at, ReasonKind::AgentResources),
            prompts: self.named(prompts, at, Noun::Prompt, ReasonKind::AgentPrompts),
        }
    }

    /// Without a list of blocked resources nothing keeps secrets in well-known places from being read.
    fn nothing_blocked(&mut self, at: &At) {
        let help = "keep it if the server has no such files and addresses; else remove `blocked_resources`";
        self.problems.warning(
            &at.key("blocked_resources"),
            "files and addresses that hold secrets may be read here",
            help,
        );
    }

    /// The one exception to "no key, no call": the operator is told of it wherever the configuration is checked.
    fn public(&mut self, at: &At) -> Arc<Reason> {
        let at = at.key("access");
        let help = "keep it if everybody who can connect may call; else remove `access` and make keys with `portcullis keys create`";
        self.problems.warning(
            &at,
            "callers need no key here, and whoever holds a session's id holds the session",
            help,
        );
        reason(ReasonKind::Public, at)
    }

    /// The lists of allowed and blocked names of the table at `at`.
    fn named(&mut self, lists: (Option<&[String]>, &[String]), at: &At, noun: Noun, why: ReasonKind) -> Named {
        let (allowed_key, blocked_key) = match noun {
            Noun::Tool => ("allowed_tools", "blocked_tools"),
            Noun::Prompt => ("allowed_prompts", "blocked_prompts"),
        };
        let (allowed_at, (allowed, blocked)) = (at.key(allowed_key), lists);
        let allowed = allowed.map(|allowed| Names::compile(allowed, noun, &allowed_at, self.problems));
        let blocked = Names::compile(blocked, noun, &at.key(blocked_key), self.problems);
        let listed = allowed.is_some().then(|| reason(why, allowed_at));
        Named { allowed, blocked, listed }
    }

    /// The lists of allowed and blocked URIs of the table at `at`.
    fn located(&mut self, lists: (Option<&[String]>, &[String]), at: &At, why: ReasonKind) -> Located {
        let previous = self.previous.map(|policy| &policy.uris);
        let (allowed_at, (allowed, blocked)) = (at.key("allowed_resources"), lists);
        let allowed = allowed.map(|allowed| self.uris.allowed(allowed, previous, &allowed_at, self.problems));
        let blocked = self.uris.blocked(blocked, previous, &at.key("blocked_resources"), self.problems);
        let listed = allowed.is_some().then(|| reason(why, allowed_at));
        Located { allowed, blocked, listed }
    }

    /// Who may be on a server at all.
    fn restrictions(&mut self, server: &model::Server, at: &At) -> Restrictions {
        let names = |list: &Option<Vec<String>>| {
            list.as_ref().map(|list| list.iter().map(|name| (name.as_str().into(), ())).collect())
        };
        let sources = server.allowed_sources.as_ref();
        Restrictions {
            disabled: server.disabled,
            sources: sources.map(|list| Networks::compile(list, &at.key("allowed_sources"), self.problems)),
            times: self.times(server.allowed_times.as_deref(), at),
            users: names(&server.allowed_users),
            agents: names(&server.allowed_agents),
            blocked_agents: (server.blocked_agents.iter().enumerate())
                .map(|(index, name)| (name.as_str().into(), index))
                .collect(),
        }
    }

    pub(super) fn agent(&mut self, name: &str, agent: &Agent) -> Matrices {
        let at = At::entry("agents", name).key("servers");
        let mut matrices = Matrices::default();
        for (server, rules) in &agent.servers {
            let matrix = self.matrix(server, rules, at.key(workspaces::bare(server)));
            if let Some(index) = self.index.get(server.as_str()) {
                matrices.insert(*index, matrix);
            }
        }
        matrices
    }

    fn matrix(&mut self, server: &str, rules: &AgentServer, at: At) -> Matrix {
        let lists = self.agent_lists(rules, &at);
        let mut constraints = NameMap::default();
        for (tool, list) in &rules.argument_constraints {
            let at = at.key("argument_constraints").key(tool);
            self.check_constrained(tool, server, &lists, &at);
            constraints.insert(tool.as_str().into(), self.constraints(list, &at));
        }
        let mut parameters = NameMap::default();
        for (tool, names) in &rules.allowed_params {
            self.check_constrained(tool, server, &lists, &at.key("allowed_params").key(tool));
            parameters.insert(tool.as_str().into(), names.iter().map(|name| (name.as_str().into(), ())).collect());
        }
        let sources = rules.allowed_sources.as_ref();
        let sources = sources.map(|list| Networks::compile(list, &at.key("allowed_sources"), self.problems));
        let times = self.times(rules.allowed_times.as_deref(), &at);
        let reason = reason(ReasonKind::AgentTools, at.clone());
        Matrix { lists, sources, times, parameters, constraints, at, reason }
    }

    /// The windows of the table at `at`.
    fn times(&mut self, windows: Option<&[String]>, at: &At) -> Option<Times> {
        let windows = windows?;
        self.has_times = true;
        let times = Times::parse(windows).map_err(|index| {
            let help = "write days and hours in UTC: `Mon-Fri 08:00-18:00`; one over midnight as two";
            let text = windows.get(index).map(String::as_str).unwrap_or_default();
            self.problems.error(&at.key("allowed_times").index(index), format!("`{text}` is no window of time"), help);
        });
        Some(times.unwrap_or_else(|()| Times::never()))
    }

    /// What is odd about constraining `tool` at all.
    fn check_constrained(&mut self, tool: &str, server: &str, lists: &Lists, at: &At) {
        if tool.contains('*') {
            let help =
                "constraints are for one tool each: write its whole name, and list the same constraints for every tool";
            self.problems.error(at, format!("`{tool}` is not the name of a tool"), help);
            return;
        }
        let server = self.index.get(server).and_then(|index| self.servers.get(*index));
        let listed = Listed::Tool(tool);
        let by_server = server.and_then(|server| Some(server.lists.exclusion(listed)?.at(listed, &server.at)));
        let by_agent = || lists.exclusion(listed).map(|exclusion| exclusion.at(listed, &at.parent().parent()));
        if let Some(rule) = by_server.or_else(by_agent) {
            let message = format!("`{tool}` cannot be called, so its constraints have no effect");
            self.problems.warning(at, message, format!("`{rule}` excludes it"));
        }
    }
}

pub(super) fn reason(kind: ReasonKind, at: At) -> Arc<Reason> {
    Arc::new(Reason { kind, at })
}
