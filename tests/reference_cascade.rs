//! Does the cascade decide as its sentences say?
//!
//! A naive evaluator reads the configuration anew for every question, sentence by sentence: no index, no resolved level, no
//! set. Its verdicts are compared with the real ones on random configurations, callers and questions, from a seed that is the
//! same in every run. Along the way: what is callable is listed, a rule more never permits what its absence denied where it
//! must not, and the order in which tables are written changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::model::Access;
use portcullis::config::model::Agent;
use portcullis::config::model::AgentServer;
use portcullis::config::model::Cascade;
use portcullis::config::model::Config;
use portcullis::config::model::Grants;
use portcullis::config::model::Key;
use portcullis::config::model::Organisation;
use portcullis::config::model::Server;
use portcullis::config::model::Team;
use portcullis::config::model::Toolset;
use portcullis::config::model::User;
use portcullis::config::model::Workspace;
use portcullis::config::problem::Problems;
use portcullis::config::workspaces;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Principal;
use portcullis::principal::Report;
use portcullis::principal::Subject;

use crate::support::random::Random;

/// Cases in `make test`; `CASCADE_CASES` asks for more.
const CASES: usize = 200_000;
const CALLS_PER_CONFIG: usize = 80;
const TIME_MAX: Duration = Duration::from_secs(60);

pub(crate) const SERVERS: [&str; 4] = ["a", "b", "c", "d"];
const GROUPS: [&str; 2] = ["g", "h"];
const TOOLSETS: [&str; 2] = ["s", "t"];
const TOOLS: [&str; 3] = ["x", "y", "yy"];
pub(crate) const ENTRIES: [&str; 4] = ["x", "y", "y*", "*"];
pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];
const WORKSPACE: &str = "w";

/// Who asks for what. `tool` is none: for a prompt, which comes with the server as such.
#[derive(Debug)]
pub(crate) struct Asked {
    key: Option<&'static str>,
    token: Option<Principal>,
    toolset: Option<&'static str>,
    server: &'static str,
    tool: Option<&'static str>,
}

#[test]
fn the_cascade_decides_as_the_naive_evaluator() {
    let cases = std::env::var("CASCADE_CASES").map_or(CASES, |text| text.parse().unwrap());
    let mut random = Maker(Random(0x9e37_79b9_7f4a_7c15));
    let started = Instant::now();
    let (mut compared, mut permitted, mut by_toolset, mut crossed) = (0, 0, 0, 0);
    while compared < cases {
        let (top, mut own) = (random.config(), random.config());
        own.policy = top.policy.clone();
        let policy = Policy::compile(&with_workspace(top.clone(), own.clone()), &mut Problems::new());
        for _ in 0..CALLS_PER_CONFIG {
            let asked = random.asked();
            let is_known = asked.key.is_some() || asked.token.is_some();
            let caller = random.of(&[None, Some(WORKSPACE)]).filter(|_| is_known);
            let server = if random.below(8) == 0 { random.of(&[None, Some(WORKSPACE)]) } else { caller };
            // Each workspace decides as if it were alone, and nobody reaches into another.
            let config = if caller.is_some() { &own } else { &top };
            let expected = caller == server && evaluate(config, &asked);
            assert_eq!(
                decide_across(&policy, &asked, Report::default(), [caller, server]),
                expected,
                "{caller:?} {asked:?}\n{config:#?}"
            );
            compared += 1;
            crossed += usize::from(caller != server);
            permitted += usize::from(expected);
            by_toolset += usize::from(expected && asked.toolset.is_some());
        }
        assert!(cases > CASES || started.elapsed() < TIME_MAX, "{compared} cases in {TIME_MAX:?}");
    }
    assert!(permitted > compared / 10 && by_toolset > compared / 250, "{compared} {permitted} {by_toolset}");
    assert!(crossed > compared / 40, "{crossed}");
}

/// One configuration of both: the tables of `own` are those of a workspace.
fn with_workspace(mut top: Config, own: Config) -> Config {
    let Config { servers, keys, teams, organisations, users, agents, toolsets, .. } = own;
    let workspace = Workspace { servers, keys, teams, organisations, users, agents, toolsets };
    top.workspaces.insert(WORKSPACE.into(), workspace);
    workspaces::join(&mut top, &mut Problems::new());
    top
}

/// What is warned of may go, and nothing is decided otherwise. Asked as well is where nothing is warned of: there must be much.
#[test]
fn without_a_rule_that_is_said_to_have_no_effect_everything_is_decided_as_with_it() {
    let mut random = Maker(Random(0x51ab_1e5e_ed00_0001));
    let (mut levels, mut matrices, mut lists, mut keys) = (0, 0, 0, 0);
    for _ in 0..1_500 {
        let mut config = random.config();
        random.add_lists(&mut config);
        // Few keys belong to few: else somebody asks everybody.
        (random.below(3)..NAMES.len()).for_each(|index| drop(config.keys.remove(NAMES[index])));
        let policy = Policy::compile(&config, &mut Problems::new());
        let mut problems = Problems::new();
        policy.check_unused(&config, &mut problems);
        for problem in problems.iter() {
            let at = problem.at.to_string();
            let steps: Vec<&str> = at.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
            let without = match (problem.message.as_str(), &*steps) {
                ("the key reaches no server", ["keys", name]) => {
                    keys += 1;
                    reaches_nothing(&config, &policy, name);
                    continue;
                }
                ("what is granted here has no effect", [table, name, _]) => {
                    levels += 1;
                    silenced(&config, table, name)
                }
                (_, ["agents", name, "servers"]) => {
                    matrices += 1;
                    let mut without = config.clone();
                    without.agents.get_mut(*name).unwrap().servers.clear();
                    without
                }
                (_, ["agents", name, "servers", server]) => {
                    matrices += 1;
                    let mut without = config.clone();
                    without.agents.get_mut(*name).unwrap().servers.remove(*server);
                    without
                }
                (_, ["agents", name, "servers", server, "allowed_tools", index]) => {
                    lists += 1;
                    let mut without = config.clone();
                    let matrix = without.agents.get_mut(*name).unwrap().servers.get_mut(*server).unwrap();
                    matrix.allowed_tools.as_mut().unwrap().remove(index.parse().unwrap());
                    without
                }
                (_, ["servers", server, "allowed_tools", index]) => {
                    lists += 1;
                    let mut without = config.clone();
                    let list = &mut without.servers.get_mut(*server).unwrap().allowed_tools;
                    list.as_mut().unwrap().remove(index.parse().unwrap());
                    without
                }
                (message, _) => panic!("{at}: {message}"),
            };
            let other = Policy::compile(&without, &mut Problems::new());
            for asked in questions(&config) {
                assert_eq!(evaluate(&config, &asked), evaluate(&without, &asked), "{at}: {asked:?}\n{config:#?}");
                assert_eq!(decide(&policy, &asked), decide(&other, &asked), "{at}: {asked:?}\n{config:#?}");
            }
        }
    }
    assert!(levels > 500 && matrices > 500 && lists > 500 && keys > 20, "{levels} {matrices} {lists} {keys}");
}

/// Everything that a key of the configuration can ask.
fn questions(config: &Config) -> Vec<Asked> {
    let mut questions = Vec::new();
    for key in NAMES.into_iter().filter(|key| config.keys.contains_key(*key)) {
        for server in SERVERS {
            for tool in TOOLS.into_iter().map(Some).chain([None]) {
                for toolset in TOOLSETS.into_iter().map(Some).chain([None]) {
                    questions.push(Asked { key: Some(key), token: None, toolset, server, tool });
                }
            }
        }
    }
    questions
}

fn reaches_nothing(config: &Config, policy: &Policy, name: &str) {
    for asked in questions(config).into_iter().filter(|asked| asked.key == Some(name)) {
        assert!(!evaluate(config, &asked) && !decide(policy, &asked), "{asked:?}\n{config:#?}");
    }
}

/// The configuration in which a level says nothing.
fn silenced(config: &Config, table: &str, name: &str) -> Config {
    let mut without = config.clone();
    macro_rules! silence {
        ($level:expr) => {{
            let level = $level.get_mut(name).unwrap();
            (level.mcp_servers, level.mcp_access_groups, level.mcp_toolsets) = (None, None, None);
            level.mcp_tool_permissions.clear();
        }};
    }
    match table {
        "teams" => silence!(without.teams),
        "organisations" => silence!(without.organisations),
        "users" => silence!(without.users),
        "agents" => silence!(without.agents),
        other => panic!("{other}"),
    }
    without
}

/// The real verdict; what may be called is listed and reached, and what is not is not listed.
fn decide(policy: &Policy, asked: &Asked) -> bool {
    decide_reported(policy, asked, Report::default())
}

/// The same for a caller who says what it is.
pub(crate) fn decide_reported(policy: &Policy, asked: &Asked, report: Report<'_>) -> bool {
    decide_across(policy, asked, report, [None, None])
}

/// The same for a caller in one workspace and a server in another, or the same.
fn decide_across(policy: &Policy, asked: &Asked, report: Report<'_>, [caller, server]: [Option<&str>; 2]) -> bool {
    let named = |name: &str| workspaces::qualified(caller, name);
    let shared = |name: &Arc<str>| Arc::from(named(name));
    let principal = match (asked.key, &asked.token) {
        (Some(key), _) => Principal::of_key(&named(key)),
        (None, Some(token)) => Principal {
            workspace: caller.map(Into::into),
            teams: token.teams.iter().map(shared).collect(),
            organisation: token.organisation.as_ref().map(shared),
            user: token.user.as_ref().map(shared),
            agent: token.agent.as_ref().map(shared),
            ..token.clone()
        },
        (None, None) => Principal::public(),
    };
    let (toolset, server) = (asked.toolset.map(named), workspaces::qualified(server, asked.server));
    let subject = Subject { toolset: toolset.as_deref(), report, ..Subject::of(&principal) };
    let (method, params) = match asked.tool {
        Some(tool) => ("tools/call", format!(r#"{{"name":"{tool}"}}"#)),
        None => ("prompts/get", r#"{"name":"p"}"#.to_owned()),
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let message = Message::read(Bytes::from(body), &Limits::default()).unwrap();
    let call =
        Call { server: server.as_str().into(), action: Action::Message(message), opened: Vec::new(), task_tool: None };
    let granted = policy.decide(subject, Revision::V2025_11_25, call).is_ok();
    let view = policy.view(subject, &server);
    assert_eq!(asked.tool.map_or_else(|| view.gets("p"), |tool| view.lists(tool)), granted, "listed as it is callable");
    assert!(!granted || policy.reaches(subject, &server), "what has a callable tool is within reach");
    granted
}

// The naive evaluator, from here to `Maker`.

fn evaluate(config: &Config, asked: &Asked) -> bool {
    let in_toolset = |name: &str| config.toolsets.get(name).is_some_and(|toolset| has(toolset, asked));
    if asked.toolset.is_some_and(|name| !in_toolset(name)) {
        return false;
    }
    let Some(voices) = voices(config, asked) else { return false };
    let said: Vec<bool> = voices.iter().filter_map(|voice| together(config, voice, asked)).collect();
    let granted = match config.policy.cascade {
        Cascade::First => said.first() == Some(&true),
        Cascade::Intersect => !said.is_empty() && said.iter().all(|granted| *granted),
    };
    granted || config.servers[asked.server].access == Access::Public
}

/// The levels in their order, each of one or several blocks; `None`: nobody the configuration knows.
fn voices<'c>(config: &'c Config, asked: &Asked) -> Option<Vec<Vec<Block<'c>>>> {
    let mut voices: Vec<Vec<Block<'c>>> = Vec::new();
    let (mut teams, mut organisation, mut user, mut agent) = (Vec::new(), None, None, None);
    if let Some(name) = asked.key {
        let key = config.keys.get(name)?;
        voices.push(vec![Block::Grants(key.grants())]);
        teams.extend(key.team.clone());
        (organisation, user, agent) = (key.organisation.clone(), key.user.clone(), key.agent.clone());
    } else if let Some(token) = &asked.token {
        teams.extend(token.teams.iter().map(ToString::to_string));
        organisation = token.organisation.as_ref().map(ToString::to_string);
        user = token.user.as_ref().map(ToString::to_string);
        agent = token.agent.as_ref().map(ToString::to_string);
    }
    let teams: Vec<&Team> = teams.iter().filter_map(|name| config.teams.get(name)).collect();
    voices.push(teams.iter().map(|team| Block::Grants(team.grants())).collect());
    let organisations = match organisation {
        Some(name) => vec![name],
        None => teams.iter().filter_map(|team| team.organisation.clone()).collect(),
    };
    let organisations = organisations.iter().filter_map(|name| config.organisations.get(name));
    voices.push(organisations.map(|organisation| Block::Grants(organisation.grants())).collect());
    voices.push(
        user.and_then(|name| config.users.get(&name)).map(|user| Block::Grants(user.grants())).into_iter().collect(),
    );
    voices.push(
        agent
            .and_then(|name| config.agents.get(&name))
            .map(|agent| Block::Grants(agent.grants()))
            .into_iter()
            .collect(),
    );
    let is_known = asked.key.is_some() || asked.token.is_some();
    let toolset = asked.toolset.and_then(|name| config.toolsets.get(name)).filter(|toolset| toolset.open && is_known);
    voices.push(toolset.map(Block::Toolset).into_iter().collect());
    Some(voices)
}

enum Block<'c> {
    Grants(Grants<'c>),
    Toolset(&'c Toolset),
}

/// Several blocks grant if any grants, and deny if any denies and none grants.
fn together(config: &Config, blocks: &[Block<'_>], asked: &Asked) -> Option<bool> {
    blocks.iter().filter_map(|block| say(config, block, asked)).max()
}

fn say(config: &Config, block: &Block<'_>, asked: &Asked) -> Option<bool> {
    let grants = match block {
        Block::Toolset(toolset) => return has(toolset, asked).then_some(true),
        Block::Grants(grants) => grants,
    };
    let toolsets = grants.toolsets.unwrap_or_default();
    if toolsets.iter().any(|name| has(&config.toolsets[name], asked)) {
        return Some(true);
    }
    let in_group = |group: &String| config.servers[asked.server].access_groups.contains(group);
    let is_listed = grants.servers.unwrap_or_default().iter().any(|name| name == "*" || name == asked.server)
        || grants.access_groups.unwrap_or_default().iter().any(in_group);
    let has_list = grants.servers.is_some() || grants.access_groups.is_some();
    if has_list && !is_listed {
        return Some(false);
    }
    match (asked.tool, grants.tool_permissions.get(asked.server)) {
        (Some(tool), Some(entries)) => Some(entries.iter().any(|entry| match entry.strip_suffix('*') {
            Some(head) => tool.starts_with(head),
            None => tool == entry,
        })),
        _ => has_list.then_some(true),
    }
}

fn has(toolset: &Toolset, asked: &Asked) -> bool {
    let tools = toolset.tools.get(asked.server);
    tools.is_some_and(|tools| tools.iter().any(|name| Some(name.as_str()) == asked.tool))
}

/// Makes up configurations and questions.
pub(crate) struct Maker(pub(crate) Random);

impl Deref for Maker {
    type Target = Random;

    fn deref(&self) -> &Random {
        &self.0
    }
}

impl DerefMut for Maker {
    fn deref_mut(&mut self) -> &mut Random {
        &mut self.0
    }
}

impl Maker {
    fn maybe(&mut self, from: &[&str]) -> Option<Vec<String>> {
        (self.below(3) == 0).then(|| self.some(from, 2))
    }

    fn name(&mut self) -> Option<String> {
        (self.below(3) > 0).then(|| self.of(&NAMES).to_owned())
    }

    fn servers(&mut self) -> Option<Vec<String>> {
        if self.below(12) == 0 { Some(vec!["*".into()]) } else { self.maybe(&SERVERS) }
    }

    fn permissions(&mut self) -> BTreeMap<String, Vec<String>> {
        (0..self.below(3)).map(|_| (self.of(&SERVERS).to_owned(), self.some(&ENTRIES, 2))).collect()
    }

    pub(crate) fn config(&mut self) -> Config {
        let mut config = Config::default();
        if self.below(4) == 0 {
            config.policy.cascade = Cascade::Intersect;
        }
        for name in SERVERS {
            let access = if self.below(8) == 0 { Access::Public } else { Access::Key };
            let groups = self.some(&GROUPS, 2);
            let server = Server { access, access_groups: groups, blocked_resources: Vec::new(), ..Server::default() };
            config.servers.insert(name.into(), server);
        }
        for name in TOOLSETS {
            let tools = (0..self.below(3)).map(|_| (self.of(&SERVERS).to_owned(), self.some(&TOOLS, 2))).collect();
            config.toolsets.insert(name.into(), Toolset { tools, open: self.below(2) == 0 });
        }
        macro_rules! level {
            ($table:ident, $level:ident { $($field:ident: $value:expr),* }) => {
                for name in NAMES {
                    let level = $level {
                        mcp_servers: self.servers(),
                        mcp_access_groups: self.maybe(&GROUPS),
                        mcp_toolsets: self.maybe(&TOOLSETS),
                        mcp_tool_permissions: self.permissions(),
                        $($field: $value,)*
                        ..$level::default()
                    };
                    config.$table.insert(name.into(), level);
                }
            };
        }
        level!(organisations, Organisation {});
        level!(teams, Team { organisation: self.name() });
        level!(users, User {});
        level!(agents, Agent {});
        level!(keys, Key { team: self.name(), organisation: self.name(), user: self.name(), agent: self.name() });
        config
    }

    /// Lists of servers, and matrices of agents.
    fn add_lists(&mut self, config: &mut Config) {
        for server in config.servers.values_mut() {
            server.allowed_tools = self.maybe(&ENTRIES);
            server.blocked_tools = if self.below(3) == 0 { self.some(&ENTRIES, 2) } else { Vec::new() };
        }
        for agent in config.agents.values_mut() {
            for _ in 0..self.below(3) {
                let (allowed_tools, blocked_tools) = (self.maybe(&ENTRIES), self.maybe(&ENTRIES).unwrap_or_default());
                let matrix = AgentServer { allowed_tools, blocked_tools, ..AgentServer::default() };
                agent.servers.insert(self.of(&SERVERS).to_owned(), matrix);
            }
        }
    }

    pub(crate) fn asked(&mut self) -> Asked {
        let key = (self.below(2) == 0).then(|| if self.below(20) == 0 { "removed" } else { self.of(&NAMES) });
        let token = (self.below(8) > 0).then(|| Principal {
            id: "token".into(),
            key: None,
            teams: (0..self.below(4)).filter_map(|_| Some(self.name()?.into())).collect(),
            organisation: self.name().filter(|_| self.below(2) == 0).map(Into::into),
            user: self.name().map(Into::into),
            agent: self.name().map(Into::into),
            ..Principal::default()
        });
        let toolset = (self.below(4) == 0).then(|| if self.below(20) == 0 { "nowhere" } else { self.of(&TOOLSETS) });
        Asked { key, token, toolset, server: self.of(&SERVERS), tool: (self.below(5) > 0).then(|| self.of(&TOOLS)) }
    }
}
