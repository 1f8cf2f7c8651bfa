//! Whom does the configuration limit?
//!
//! References to plans that do not exist are reported by `config`; here they limit nothing.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model;
use crate::config::model::Config;
use crate::config::model::Costs;
use crate::config::model::Money;
use crate::principal::Principal;
use crate::quota::rules::Rule;
use crate::quota::rules::Subject;
use crate::quota::words;
use crate::quota::words::Level;

type Rules = HashMap<Arc<str>, Arc<Rule>>;

/// The limits and costs of one configuration. Never changes.
#[derive(Debug, Default)]
pub struct Quotas {
    each_caller: Option<Rule>,
    keys: Rules,
    teams: Rules,
    organisations: Rules,
    users: Rules,
    agents: Rules,
    servers: HashMap<Arc<str>, Server>,
    /// The organisation that a team belongs to.
    organisation_of_team: HashMap<Arc<str>, Arc<str>>,
    /// Callers of one issuer whose use is counted at once. Each has as many places, so that none takes another's.
    pub callers_of_issuer_max: usize,
}

#[derive(Debug, Default)]
struct Server {
    rule: Option<Arc<Rule>>,
    tools: Rules,
    costs: Costs,
}

impl Quotas {
    /// The limits and costs that `config` states.
    pub fn compile(config: &Config) -> Self {
        let plans = &config.plans;
        let each_caller = Subject { level: Level::Caller, name: "".into() };
        let organisations = config.teams.iter().filter_map(|(name, team)| Some((name, team.organisation.as_deref()?)));
        let quotas = Self {
            each_caller: Rule::new(each_caller, &config.limits.each_caller, &NONE, None),
            keys: rules(Level::Key, plans, &config.keys, |it| (&it.plan, &it.limits, &it.mcp_rpm_limit)),
            teams: rules(Level::Team, plans, &config.teams, |it| (&it.plan, &it.limits, &it.mcp_rpm_limit)),
            organisations: rules(Level::Organisation, plans, &config.organisations, |it| (&it.plan, &it.limits, &NONE)),
            users: rules(Level::User, plans, &config.users, |it| (&it.plan, &it.limits, &NONE)),
            agents: rules(Level::Agent, plans, &config.agents, |it| (&it.plan, &it.limits, &NONE)),
            servers: config
                .servers
                .iter()
                .filter_map(|(name, it)| Some((name.as_str().into(), server(name, it)?)))
                .collect(),
            organisation_of_team: organisations.map(|(team, name)| (team.as_str().into(), name.into())).collect(),
            callers_of_issuer_max: (config.limits.callers_max / config.auth.issuers.len().max(1)).max(1),
        };
        // Nothing is looked up where nothing can be found.
        if quotas.organisations.is_empty() { Self { organisation_of_team: HashMap::new(), ..quotas } } else { quotas }
    }

    /// Whether nobody who calls is limited.
    pub fn limits_no_caller(&self) -> bool {
        let tables = [&self.keys, &self.teams, &self.organisations, &self.users, &self.agents];
        self.each_caller.is_none() && tables.iter().all(|rules| rules.is_empty())
    }

    /// Whether nothing is limited, and nothing costs.
    pub fn is_empty(&self) -> bool {
        self.limits_no_caller() && self.servers.is_empty()
    }

    /// The rules of a caller, each subject once, in one order for all.
    pub fn of_caller(&self, principal: &Principal) -> Vec<Arc<Rule>> {
        let mut rules = Vec::new();
        if let Some(each) = &self.each_caller {
            rules.push(Arc::new(each.of(Subject { level: Level::Caller, name: Arc::clone(principal.counted()) })));
        }
        let mut add =
            |table: &Rules, name: Option<&Arc<str>>| rules.extend(name.and_then(|name| table.get(name)).cloned());
        add(&self.keys, principal.key.as_ref());
        principal.teams.iter().for_each(|team| add(&self.teams, Some(team)));
        let of_teams = principal.teams.iter().filter_map(|team| self.organisation_of_team.get(team));
        match &principal.organisation {
            Some(own) => add(&self.organisations, Some(own)),
            None => of_teams.for_each(|organisation| add(&self.organisations, Some(organisation))),
        }
        add(&self.users, principal.user.as_ref());
        principal.agents().for_each(|agent| add(&self.agents, Some(agent)));
        rules.sort_by(|one, other| one.subject.cmp(&other.subject));
        rules.dedup_by(|one, other| one.subject == other.subject);
        rules
    }

    /// The rules of a server, and of its tool that is called.
    pub fn of_call(&self, server: &str, tool: Option<&str>) -> impl Iterator<Item = &Arc<Rule>> {
        let server = self.servers.get(server);
        let of_tool = server.zip(tool).and_then(|(server, tool)| server.tools.get(tool));
        server.and_then(|server| server.rule.as_ref()).into_iter().chain(of_tool)
    }

    /// What a call of a tool costs.
    pub fn cost(&self, server: &str, tool: &str) -> Money {
        self.servers.get(server).map(|server| server.costs.of(tool)).unwrap_or_default()
    }

    /// Every rule that names its subject: all but what each caller may use.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let tables = [&self.keys, &self.teams, &self.organisations, &self.users, &self.agents];
        let of_servers = self.servers.values().flat_map(|server| server.rule.iter().chain(server.tools.values()));
        tables.into_iter().flat_map(HashMap::values).chain(of_servers)
    }
}

/// Where no server is limited by itself.
static NONE: BTreeMap<String, u32> = BTreeMap::new();

/// What a subject says: its plan, its limits, and calls a minute to single servers.
type Said<'c> = (&'c Option<String>, &'c model::Limits, &'c BTreeMap<String, u32>);

fn rules<'c, T>(
    level: Level,
    plans: &BTreeMap<String, model::Limits>,
    subjects: &'c BTreeMap<String, T>,
    says: impl Fn(&'c T) -> Said<'c>,
) -> Rules {
    let rule = |(name, subject): (&'c String, &'c T)| {
        let (name, (plan, limits, servers)): (Arc<str>, _) = (name.as_str().into(), says(subject));
        let plan = plan.as_deref().and_then(|plan| Some((plan, plans.get(plan)?)));
        let rule = Rule::new(Subject { level, name: Arc::clone(&name) }, limits, servers, plan)?;
        Some((name, Arc::new(rule)))
    };
    subjects.iter().filter_map(rule).collect()
}

/// `None` if nothing is limited and nothing costs.
fn server(name: &str, server: &model::Server) -> Option<Server> {
    let subject = Subject { level: Level::Server, name: name.into() };
    let tool = |(tool, entry): (&String, &model::ServerTool)| {
        let subject = Subject { level: Level::Tool, name: words::tool_name(name, tool).into() };
        Some((tool.as_str().into(), Arc::new(Rule::new(subject, &(&entry.limits).into(), &NONE, None)?)))
    };
    let compiled = Server {
        rule: Rule::new(subject, &(&server.limits).into(), &NONE, None).map(Arc::new),
        tools: server.tools.iter().filter_map(tool).collect(),
        costs: server.mcp_server_cost_info.clone(),
    };
    let is_empty = compiled.rule.is_none() && compiled.tools.is_empty() && compiled.costs.is_empty();
    (!is_empty).then_some(compiled)
}
