//! Does the cascade decide as its sentences say?
//!
//! A naive evaluator reads the configuration anew for every question, sentence by sentence: no index, no resolved level, no
//! set. Its verdicts are compared with the real ones on random configurations, callers and questions, from a seed that is the
//! same in every run. Along the way: what is callable is listed, a rule more never permits what its absence denied where it
//! must not, and the order in which tables are written changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::model::Access;
use portcullis::config::model::Agent;
use portcullis::config::model::Cascade;
use portcullis::config::model::Config;
use portcullis::config::model::Grants;
use portcullis::config::model::Key;
use portcullis::config::model::Organisation;
use portcullis::config::model::Server;
use portcullis::config::model::Team;
use portcullis::config::model::Toolset;
use portcullis::config::model::User;
use portcullis::config::problem::Problems;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Principal;
use portcullis::principal::Report;
use portcullis::principal::Subject;

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
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let started = Instant::now();
    let (mut compared, mut permitted, mut by_toolset) = (0, 0, 0);
    while compared < cases {
        let config = random.config();
        let policy = Policy::compile(&config, &mut Problems::new());
        for _ in 0..CALLS_PER_CONFIG {
            let asked = random.asked();
            let expected = evaluate(&config, &asked);
            assert_eq!(decide(&policy, &asked), expected, "{asked:?}\n{config:#?}");
            compared += 1;
            permitted += usize::from(expected);
            by_toolset += usize::from(expected && asked.toolset.is_some());
        }
        assert!(cases > CASES || started.elapsed() < TIME_MAX, "{compared} cases in {TIME_MAX:?}");
    }
    assert!(permitted > compared / 10 && by_toolset > compared / 250, "{compared} {permitted} {by_toolset}");
}

/// The real verdict; what may be called is listed and reached, and what is not is not listed.
fn decide(policy: &Policy, asked: &Asked) -> bool {
    decide_reported(policy, asked, Report::default())
}

/// The same for a caller who says what it is.
pub(crate) fn decide_reported(policy: &Policy, asked: &Asked, report: Report<'_>) -> bool {
    let principal = match (asked.key, &asked.token) {
        (Some(key), _) => Principal::of_key(key),
        (None, Some(token)) => token.clone(),
        (None, None) => Principal::public(),
    };
    let subject = Subject { toolset: asked.toolset, report, ..Subject::of(&principal) };
    let (method, params) = match asked.tool {
        Some(tool) => ("tools/call", format!(r#"{{"name":"{tool}"}}"#)),
        None => ("prompts/get", r#"{"name":"p"}"#.to_owned()),
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let message = Message::read(Bytes::from(body), &Limits::default()).unwrap();
    let call = Call { server: asked.server.into(), action: Action::Message(message), opened: Vec::new() };
    let granted = policy.decide(subject, Revision::V2025_11_25, call).is_ok();
    let view = policy.view(subject, asked.server);
    assert_eq!(asked.tool.map_or_else(|| view.gets("p"), |tool| view.lists(tool)), granted, "listed as it is callable");
    assert!(!granted || policy.reaches(subject, asked.server), "what has a callable tool is within reach");
    granted
}

// The naive evaluator, from here to `Random`.

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

/// A seeded xorshift generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub(crate) fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn some(&mut self, from: &[&str]) -> Vec<String> {
        (0..self.below(3)).map(|_| self.of(from).to_owned()).collect()
    }

    fn maybe(&mut self, from: &[&str]) -> Option<Vec<String>> {
        (self.below(3) == 0).then(|| self.some(from))
    }

    fn name(&mut self) -> Option<String> {
        (self.below(3) > 0).then(|| self.of(&NAMES).to_owned())
    }

    fn servers(&mut self) -> Option<Vec<String>> {
        if self.below(12) == 0 { Some(vec!["*".into()]) } else { self.maybe(&SERVERS) }
    }

    fn permissions(&mut self) -> BTreeMap<String, Vec<String>> {
        (0..self.below(3)).map(|_| (self.of(&SERVERS).to_owned(), self.some(&ENTRIES))).collect()
    }

    pub(crate) fn config(&mut self) -> Config {
        let mut config = Config::default();
        if self.below(4) == 0 {
            config.policy.cascade = Cascade::Intersect;
        }
        for name in SERVERS {
            let access = if self.below(8) == 0 { Access::Public } else { Access::Key };
            let groups = self.some(&GROUPS);
            let server = Server { access, access_groups: groups, blocked_resources: Vec::new(), ..Server::default() };
            config.servers.insert(name.into(), server);
        }
        for name in TOOLSETS {
            let tools = (0..self.below(3)).map(|_| (self.of(&SERVERS).to_owned(), self.some(&TOOLS))).collect();
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
