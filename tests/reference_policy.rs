//! Does the compiled policy decide as a reader of the configuration would?
//!
//! A naive evaluator reads the configuration anew for every call: no index, no cache, no automaton. Globs are matched
//! by trying every split, paths are cut by hand, patterns come from a list in which each stands beside a function that
//! says the same in Rust, and arguments are judged as they were made up, before they became JSON. Its verdicts are
//! compared with the real ones on random configurations and calls, from a seed that is the same in every run. What a
//! resource's URI may be taken for is written beside it by hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::model::Access;
use portcullis::config::model::Agent;
use portcullis::config::model::AgentServer;
use portcullis::config::model::Config;
use portcullis::config::model::Constraint;
use portcullis::config::model::Key;
use portcullis::config::model::Server;
use portcullis::config::problem::Problems;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Principal;
use portcullis::principal::Subject;

use crate::support::random::Random;

const CONFIGS: usize = 2_500;
const CALLS_PER_CONFIG: usize = 50;
const TIME_MAX: Duration = Duration::from_secs(60);

/// A JSON value as it is made up: numbers keep their text.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    Null,
    Scalar(&'static str),
    Text(&'static str),
    Array(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

/// What is asked: by whom, of which server, for what.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) key: Option<&'static str>,
    pub(crate) server: &'static str,
    pub(crate) of: Of,
}

/// What is asked for: a tool with arguments, a prompt, or a resource.
#[derive(Debug)]
pub(crate) enum Of {
    Tool(&'static str, Option<Json>),
    Prompt(&'static str),
    Resource(&'static Known),
}

/// A resource: its URI; everything it may be taken for, or nothing if it is refused for that; and what it must be
/// allowed as.
#[derive(Debug)]
pub(crate) struct Known {
    uri: &'static str,
    readings: &'static [&'static str],
    allowed_as: &'static [&'static str],
}

static RESOURCES: [Known; 9] = [
    Known { uri: "note:///a", readings: &["note:///a", "note:///a/"], allowed_as: &["note:///a"] },
    Known { uri: "note:///B", readings: &["note:///b", "note:///b/"], allowed_as: &["note:///B"] },
    Known { uri: "note:///a/b", readings: &["note:///a/b", "note:///a/b/"], allowed_as: &["note:///a/b"] },
    Known {
        uri: "note:///a%2Fb",
        readings: &["note:///a%2fb", "note:///a%2fb/", "note:///a/b", "note:///a/b/"],
        allowed_as: &["note:///a%2Fb", "note:///a/b"],
    },
    Known {
        uri: "note:///a?q",
        readings: &["note:///a?q", "note:///a?q/", "note:///a", "note:///a/"],
        allowed_as: &["note:///a?q"],
    },
    Known {
        uri: "x://u@h/a",
        readings: &["x://u@h/a", "x://u@h/a/", "x://h/a", "x://h/a/"],
        allowed_as: &["x://u@h/a", "x://h/a"],
    },
    Known { uri: "file:///etc/a", readings: &["file:///etc/a", "file:///etc/a/"], allowed_as: &["file:///etc/a"] },
    Known { uri: "note:///a/../b", readings: &[], allowed_as: &[] },
    Known { uri: "FILE:///etc/a", readings: &[], allowed_as: &[] },
];
const URI_LISTS: [&[&str]; 8] = [
    &[],
    &["note:///a"],
    &["note:///*"],
    &["note:///**", "x://h/**"],
    &["**/b"],
    &["**"],
    &["x://*@h/*", "note:///a?q", "note:///B"],
    &["file:///etc/**", "note:///a/*"],
];

/// What a pattern means, in Rust.
type Meaning = fn(&str) -> bool;

/// Each pattern beside what it means.
const PATTERNS: [(&str, Meaning); 10] = [
    ("^SELECT", |text| text.starts_with("SELECT")),
    ("SELECT", |text| text.contains("SELECT")),
    ("^(?:SELECT|SHOW)$", |text| text == "SELECT" || text == "SHOW"),
    ("^SELECT|SHOW$", |text| text.starts_with("SELECT") || text.ends_with("SHOW")),
    ("(?m)^SELECT", |text| text.split('\n').any(|line| line.starts_with("SELECT"))),
    ("(?i)^select", |text| text.get(..6).is_some_and(|head| head.eq_ignore_ascii_case("select"))),
    ("^[0-9]+$", |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())),
    ("^.$", |text| text.chars().count() == 1 && text != "\n"),
    ("", |_| true),
    ("^(?:true|1|é)$", |text| ["true", "1", "é"].contains(&text)),
];
const TEXTS: [&str; 13] = [
    "SELECT 1",
    "SELECT",
    "SHOW",
    "select 1",
    "DROP;\nSELECT",
    "x SHOW",
    "SELECT\n",
    "12",
    "é",
    "",
    "\"\\\u{1}",
    "日",
    "true",
];
const SCALARS: [&str; 8] = ["1", "1.0", "12", "-1", "1e3", "12345678901234567890", "true", "false"];
const PATHS: [&str; 8] = ["a", "b", "a.b", "a[*]", "a[*].b", "\"x.y\"", "a.\"x.y\"[*]", "é"];
const ARGUMENT_KEYS: [&str; 6] = ["a", "b", "A", "x.y", "é", "c"];
pub(crate) const SERVERS: [&str; 4] = ["db", "docs", "git", "nowhere"];
pub(crate) const KEYS: [&str; 4] = ["k1", "k2", "k3", "removed"];
pub(crate) const AGENTS: [&str; 2] = ["a1", "a2"];
const TOOLS: [&str; 6] = ["get", "get_user", "get_users", "drop", "日本", "Get"];
pub(crate) const ENTRIES: [&str; 9] = ["get", "get_user", "get_*", "*", "*_user", "g*t*r", "drop", "日*", "x"];

#[test]
fn the_policy_decides_as_the_naive_evaluator() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let started = Instant::now();
    let mut previous: Option<Policy> = None;
    let (mut compared, mut permitted, mut constrained, mut read, mut hidden) = (0, 0, 0, 0, 0);
    for _ in 0..CONFIGS {
        let config = random.config();
        let mut problems = Problems::new();
        let policy = Policy::compile_reusing(&config, previous.as_ref(), &mut problems);
        assert!(!problems.has_errors(), "{:?}", problems.iter().next());
        for _ in 0..CALLS_PER_CONFIG {
            let asked = random.call();
            let expected = evaluate(&config, &asked);
            assert_eq!(decide(&policy, &asked), expected, "{asked:?}\n{config:#?}");
            compared += 1;
            permitted += usize::from(expected == "permitted");
            constrained += usize::from(expected.starts_with("argument"));
            read += usize::from(expected == "permitted" && matches!(asked.of, Of::Resource(_)));
            hidden += usize::from(expected.contains("resource_"));
        }
        previous = Some(policy);
        if started.elapsed() > TIME_MAX {
            break;
        }
    }
    // A comparison that only ever sees one verdict would compare nothing.
    assert!(
        compared >= 20_000
            && permitted > compared / 20
            && constrained > compared / 200
            && read > compared / 100
            && hidden > compared / 50,
        "{compared} {permitted} {constrained} {read} {hidden}"
    );
}

fn decide(policy: &Policy, asked: &Asked) -> &'static str {
    let principal = match asked.key {
        Some(key) => Principal::of_key(key),
        None => Principal::public(),
    };
    decide_for(policy, &principal, asked)
}

/// The real verdict; along the way, that something is listed exactly if a request for it is not hidden.
pub(crate) fn decide_for(policy: &Policy, principal: &Principal, asked: &Asked) -> &'static str {
    let view = policy.view(Subject::of(principal), asked.server);
    let (method, params, is_listed) = match &asked.of {
        Of::Tool(tool, arguments) => {
            let arguments =
                arguments.as_ref().map(|json| format!(r#","arguments":{}"#, write(json))).unwrap_or_default();
            ("tools/call", format!(r#"{{"name":{}{arguments}}}"#, quoted(tool)), view.lists(tool))
        }
        Of::Prompt(prompt) => ("prompts/get", format!(r#"{{"name":{}}}"#, quoted(prompt)), view.gets(prompt)),
        Of::Resource(Known { uri, .. }) => ("resources/read", format!(r#"{{"uri":{}}}"#, quoted(uri)), view.reads(uri)),
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let message = Message::read(Bytes::from(body), &Limits::default()).unwrap();
    let call =
        Call { server: asked.server.into(), action: Action::Message(message), opened: Vec::new(), task_tool: None };
    let verdict = policy.decide(Subject::of(principal), Revision::V2025_11_25, call);
    assert_eq!(is_listed, !verdict.as_ref().is_err_and(|denied| denied.denial.is_hidden()));
    verdict.map_or_else(|denied| denied.denial.name(), |_| "permitted")
}

// The naive evaluator, from here to `write`.

pub(crate) fn evaluate(config: &Config, asked: &Asked) -> &'static str {
    let Some(server) = config.servers.get(asked.server) else { return "server_unknown" };
    let key = asked.key.map(|name| config.keys.get(name));
    let agent = key.flatten().and_then(|key| config.agents.get(key.agent.as_ref()?));
    let reachable = match key {
        Some(None) => false,
        None => server.access == Access::Public,
        Some(Some(key)) => {
            let list = key.mcp_servers.as_ref().or(agent.and_then(|agent| agent.mcp_servers.as_ref()));
            let granted = list.is_some_and(|list| list.iter().any(|name| name == "*" || name == asked.server));
            granted || server.access == Access::Public
        }
    };
    if !reachable {
        return "server_not_granted";
    }
    judge(server, agent.and_then(|agent| agent.servers.get(asked.server)), asked)
}

/// What the lists of a server, and of an agent on it, say of something.
pub(crate) fn judge(server: &Server, matrix: Option<&AgentServer>, asked: &Asked) -> &'static str {
    match &asked.of {
        Of::Tool(tool, arguments) => {
            let of_agent = matrix.map(|matrix| (&matrix.blocked_tools, matrix.allowed_tools.as_ref()));
            if let Some(list) = excluding((&server.blocked_tools, server.allowed_tools.as_ref()), of_agent, tool) {
                return ["tool_blocked", "tool_not_allowed", "agent_tool_blocked", "agent_tool_not_allowed"][list];
            }
            constraints(matrix, tool, arguments)
        }
        Of::Prompt(prompt) => {
            let of_agent = matrix.map(|matrix| (&matrix.blocked_prompts, matrix.allowed_prompts.as_ref()));
            match excluding((&server.blocked_prompts, server.allowed_prompts.as_ref()), of_agent, prompt) {
                Some(list) => {
                    ["prompt_blocked", "prompt_not_allowed", "agent_prompt_blocked", "agent_prompt_not_allowed"][list]
                }
                None => "permitted",
            }
        }
        Of::Resource(known) => {
            let of_agent = matrix.map(|matrix| (&matrix.blocked_resources, matrix.allowed_resources.as_ref()));
            resource((&server.blocked_resources, server.allowed_resources.as_ref()), of_agent, known)
        }
    }
}

type Lists<'c> = (&'c Vec<String>, Option<&'c Vec<String>>);

/// The first list that excludes a name: the server's blocked and allowed ones, then the agent's.
fn excluding(of_server: Lists<'_>, of_agent: Option<Lists<'_>>, name: &str) -> Option<usize> {
    for (level, (blocked, allowed)) in std::iter::once(of_server).chain(of_agent).enumerate() {
        if blocked.iter().any(|entry| glob(entry, name)) {
            return Some(level * 2);
        }
        if allowed.is_some_and(|list| !list.iter().any(|entry| glob(entry, name))) {
            return Some(level * 2 + 1);
        }
    }
    None
}

fn resource(of_server: Lists<'_>, of_agent: Option<Lists<'_>>, known: &Known) -> &'static str {
    if known.readings.is_empty() {
        return "resource_ambiguous";
    }
    for (level, (blocked, allowed)) in std::iter::once(of_server).chain(of_agent).enumerate() {
        let is_blocked = |entry: &String| known.readings.iter().any(|reading| uri_glob(&entry.to_lowercase(), reading));
        if blocked.iter().any(is_blocked) {
            return ["resource_blocked", "agent_resource_blocked"][level];
        }
        // A pattern that names users allows what a reader takes the URI for that drops them.
        let has = |list: &[String], reading: &str| {
            list.iter().any(|entry| uri_glob(entry, reading) || uri_glob(&entry.replace("*@", ""), reading))
        };
        let is_allowed = |list: &Vec<String>| known.allowed_as.iter().all(|reading| has(list, reading));
        if allowed.is_some_and(|list| !is_allowed(list)) {
            return ["resource_not_allowed", "agent_resource_not_allowed"][level];
        }
    }
    "permitted"
}

/// `**` takes any text, `*` any without a slash: all are tried.
fn uri_glob(pattern: &str, text: &str) -> bool {
    let mut splits = (0..=text.len()).filter_map(|cut| text.split_at_checked(cut));
    if let Some(rest) = pattern.strip_prefix("**") {
        return splits.any(|(_, after)| uri_glob(rest, after));
    }
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => splits.any(|(taken, after)| !taken.contains('/') && uri_glob(&pattern[1..], after)),
        Some(first) => text.strip_prefix(first).is_some_and(|rest| uri_glob(&pattern[first.len_utf8()..], rest)),
    }
}

fn constraints(matrix: Option<&AgentServer>, tool: &str, arguments: &Option<Json>) -> &'static str {
    let list = matrix.and_then(|matrix| matrix.argument_constraints.get(tool));
    for constraint in list.into_iter().flatten() {
        let arguments = arguments.clone().unwrap_or(Json::Object(Vec::new()));
        if let Err(name) = constrain(constraint, &arguments, &steps(&constraint.arg)) {
            return name;
        }
    }
    "permitted"
}

/// `*` takes any number of characters: all are tried.
pub(crate) fn glob(entry: &str, name: &str) -> bool {
    match entry.chars().next() {
        None => name.is_empty(),
        Some('*') => (0..=name.len()).any(|cut| name.get(cut..).is_some_and(|rest| glob(&entry[1..], rest))),
        Some(first) => name.strip_prefix(first).is_some_and(|rest| glob(&entry[first.len_utf8()..], rest)),
    }
}

/// The keys of a path, `None` for every element. Good for the paths above only.
fn steps(path: &str) -> Vec<Option<String>> {
    let marked = path.replace("\"x.y\"", "XY").replace("[*]", ".*");
    let named = |step: &str| (step != "*").then(|| step.replace("XY", "x.y"));
    marked.split('.').map(named).collect()
}

fn constrain(constraint: &Constraint, value: &Json, steps: &[Option<String>]) -> Result<(), &'static str> {
    let pattern = PATTERNS.iter().find(|(pattern, _)| Some(*pattern) == constraint.pattern.as_deref()).unwrap();
    let Some(step) = steps.first() else {
        return match value {
            Json::Null => Err("argument_null"),
            Json::Array(_) | Json::Object(_) => Err("argument_not_scalar"),
            Json::Scalar(text) | Json::Text(text) if pattern.1(text) => Ok(()),
            Json::Scalar(_) | Json::Text(_) => Err("argument_mismatch"),
        };
    };
    match (step, value) {
        (_, Json::Null) => Err("argument_null"),
        (None, Json::Array(items)) if !items.is_empty() => {
            items.iter().try_for_each(|item| constrain(constraint, item, &steps[1..]))
        }
        (Some(key), Json::Object(entries)) => {
            let alike = |name: &str| name != key && name.to_lowercase() == key.to_lowercase();
            if entries.iter().any(|(name, _)| alike(name)) {
                return Err("argument_ambiguous");
            }
            match entries.iter().find(|(name, _)| name == key) {
                Some((_, member)) => constrain(constraint, member, &steps[1..]),
                None if constraint.optional => Ok(()),
                None => Err("argument_missing"),
            }
        }
        _ => Err("argument_unreachable"),
    }
}

/// JSON text, with more escapes than needed.
fn write(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Scalar(text) => (*text).to_owned(),
        Json::Text(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(" , ")),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}:{}", quoted(key), write(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.char_indices().map(|(at, character)| match character {
        '"' | '\\' => format!("\\{character}"),
        character if character < ' ' || (at % 3 == 1 && character < '\u{ffff}') => {
            format!("\\u{:04x}", character as u32)
        }
        character => character.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

impl Random {
    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn maybe(&mut self, from: &[&str], most: usize) -> Option<Vec<String>> {
        (!self.one_in(3)).then(|| self.some(from, most))
    }

    pub(crate) fn config(&mut self) -> Config {
        let mut config = Config::default();
        for name in &SERVERS[..3] {
            let access = if self.one_in(4) { Access::Public } else { Access::Key };
            let blocked_tools = if self.one_in(2) { self.some(&ENTRIES[3..], 1) } else { Vec::new() };
            let allowed_tools = if self.one_in(2) { None } else { self.maybe(&ENTRIES, 4) };
            let allowed_prompts = if self.one_in(2) { None } else { self.maybe(&ENTRIES, 4) };
            let blocked_prompts = self.some(&ENTRIES[4..], 1);
            let allowed_resources = (!self.one_in(3)).then(|| self.uris());
            let usual = Server { access, allowed_tools, blocked_tools, ..Server::default() };
            let blocked_resources = if self.one_in(2) { usual.blocked_resources } else { self.uris() };
            let server = Server { allowed_prompts, blocked_prompts, allowed_resources, blocked_resources, ..usual };
            config.servers.insert((*name).into(), server);
        }
        for name in AGENTS {
            let servers = (0..self.below(4)).map(|_| (self.of(&SERVERS[..3]).to_owned(), self.matrix())).collect();
            config.agents.insert(name.into(), Agent { mcp_servers: self.servers(), servers, ..Agent::default() });
        }
        for name in &KEYS[..3] {
            let agent = (!self.one_in(5)).then(|| self.of(&AGENTS).to_owned());
            config.keys.insert((*name).into(), Key { mcp_servers: self.servers(), agent, ..Key::default() });
        }
        config
    }

    fn servers(&mut self) -> Option<Vec<String>> {
        if self.one_in(3) { Some(vec!["*".into()]) } else { self.maybe(&SERVERS[..3], 3) }
    }

    fn matrix(&mut self) -> AgentServer {
        let constrained = (0..self.below(8)).map(|_| {
            let list = (0..=self.below(2)).map(|_| Constraint {
                arg: self.of(&PATHS).to_owned(),
                pattern: Some(self.of(&PATTERNS).0.to_owned()),
                optional: self.one_in(2),
                ..Constraint::default()
            });
            let list = list.collect();
            (self.of(&TOOLS).to_owned(), list)
        });
        let argument_constraints = constrained.collect();
        let blocked_tools = if self.one_in(3) { self.some(&ENTRIES, 1) } else { Vec::new() };
        let allowed_tools = if self.one_in(2) { None } else { self.maybe(&ENTRIES, 5) };
        AgentServer {
            allowed_tools,
            blocked_tools,
            allowed_resources: self.one_in(3).then(|| self.uris()),
            blocked_resources: if self.one_in(3) { self.uris() } else { Vec::new() },
            allowed_prompts: if self.one_in(2) { None } else { self.maybe(&ENTRIES, 5) },
            blocked_prompts: if self.one_in(3) { self.some(&ENTRIES, 1) } else { Vec::new() },
            argument_constraints,
            ..AgentServer::default()
        }
    }

    pub(crate) fn call(&mut self) -> Asked {
        let key = (!self.one_in(6)).then(|| self.of(&KEYS));
        let server = if self.one_in(12) { SERVERS[3] } else { self.of(&SERVERS[..3]) };
        let of = match self.below(5) {
            0 => Of::Prompt(self.of(&TOOLS)),
            1 | 2 => Of::Resource(&RESOURCES[self.below(RESOURCES.len())]),
            _ => Of::Tool(self.of(&TOOLS), (!self.one_in(10)).then(|| self.object(0))),
        };
        Asked { key, server, of }
    }

    fn uris(&mut self) -> Vec<String> {
        self.of(&URI_LISTS).iter().map(|uri| (*uri).to_owned()).collect()
    }

    fn object(&mut self, depth: usize) -> Json {
        let mut entries: Vec<(&'static str, Json)> = Vec::new();
        for key in ARGUMENT_KEYS {
            let odds = if key == "A" { 12 } else { 2 };
            if self.one_in(odds) {
                entries.push((key, self.value(depth + 1)));
            }
        }
        Json::Object(entries)
    }

    fn value(&mut self, depth: usize) -> Json {
        match self.below(if depth > 3 { 7 } else { 11 }) {
            0..4 => Json::Text(self.of(&TEXTS)),
            4..6 => Json::Scalar(self.of(&SCALARS)),
            6 => Json::Null,
            7..9 => Json::Array((0..self.below(4)).map(|_| self.value(depth + 1)).collect()),
            _ => self.object(depth),
        }
    }
}
