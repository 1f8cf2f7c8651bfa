//! Does the compiled policy decide as a reader of the configuration would?
//!
//! A naive evaluator reads the configuration anew for every call: no index, no cache, no automaton. Globs are matched
//! by trying every split, paths are cut by hand, patterns come from a list in which each stands beside a function that
//! says the same in Rust, and arguments are judged as they were made up, before they became JSON. Its verdicts are
//! compared with the real ones on random configurations and calls, from a seed that is the same in every run.

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

const CONFIGS: usize = 4_000;
const CALLS_PER_CONFIG: usize = 50;
const TIME_MAX: Duration = Duration::from_secs(60);

/// A JSON value as it is made up: numbers keep their text.
#[derive(Clone, Debug)]
enum Json {
    Null,
    Scalar(&'static str),
    Text(&'static str),
    Array(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

/// What is asked: by whom, of which server, which tool, with which arguments.
#[derive(Debug)]
struct Asked {
    key: Option<&'static str>,
    server: &'static str,
    tool: &'static str,
    arguments: Option<Json>,
}

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
const SERVERS: [&str; 4] = ["db", "docs", "git", "nowhere"];
const KEYS: [&str; 4] = ["k1", "k2", "k3", "removed"];
const AGENTS: [&str; 2] = ["a1", "a2"];
const TOOLS: [&str; 6] = ["get", "get_user", "get_users", "drop", "日本", "Get"];
const ENTRIES: [&str; 9] = ["get", "get_user", "get_*", "*", "*_user", "g*t*r", "drop", "日*", "x"];

#[test]
fn the_policy_decides_as_the_naive_evaluator() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let started = Instant::now();
    let mut previous: Option<Policy> = None;
    let (mut compared, mut permitted, mut constrained) = (0, 0, 0);
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
        }
        previous = Some(policy);
        if started.elapsed() > TIME_MAX {
            break;
        }
    }
    // A comparison that only ever sees one verdict would compare nothing.
    assert!(
        compared >= 20_000 && permitted > compared / 20 && constrained > compared / 50,
        "{compared} {permitted} {constrained}"
    );
}

/// The real verdict; along the way, that a tool is listed exactly if a call of it is not hidden.
fn decide(policy: &Policy, asked: &Asked) -> &'static str {
    let principal = match asked.key {
        Some(key) => Principal { id: format!("key:{key}").into(), key: Some(key.into()), team: None, agent: None },
        None => Principal::public(),
    };
    let arguments = asked.arguments.as_ref().map(|json| format!(r#","arguments":{}"#, write(json))).unwrap_or_default();
    let params = format!(r#"{{"name":{}{arguments}}}"#, quoted(asked.tool));
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let message = Message::read(Bytes::from(body), &Limits::default()).unwrap();
    let call = Call { server: asked.server.into(), action: Action::Message(message), opened: Vec::new() };
    let verdict = policy.decide(&principal, Revision::V2025_11_25, call);
    let lists = policy.view(&principal, asked.server).lists(asked.tool);
    assert_eq!(lists, !verdict.as_ref().is_err_and(|denied| denied.denial.is_hidden()));
    verdict.map_or_else(|denied| denied.denial.name(), |_| "permitted")
}

// The naive evaluator, from here to `write`.

fn evaluate(config: &Config, asked: &Asked) -> &'static str {
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
    if server.blocked_tools.iter().any(|entry| glob(entry, asked.tool)) {
        return "tool_blocked";
    }
    if server.allowed_tools.as_ref().is_some_and(|list| !list.iter().any(|entry| glob(entry, asked.tool))) {
        return "tool_not_allowed";
    }
    let Some(matrix) = agent.and_then(|agent| agent.servers.get(asked.server)) else { return "permitted" };
    if matrix.blocked_tools.iter().any(|entry| glob(entry, asked.tool)) {
        return "agent_tool_blocked";
    }
    if matrix.allowed_tools.as_ref().is_some_and(|list| !list.iter().any(|entry| glob(entry, asked.tool))) {
        return "agent_tool_not_allowed";
    }
    for constraint in matrix.argument_constraints.get(asked.tool).into_iter().flatten() {
        let arguments = asked.arguments.clone().unwrap_or(Json::Object(Vec::new()));
        if let Err(name) = constrain(constraint, &arguments, &steps(&constraint.arg)) {
            return name;
        }
    }
    "permitted"
}

/// `*` takes any number of characters: all are tried.
fn glob(entry: &str, name: &str) -> bool {
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
    let pattern = PATTERNS.iter().find(|(pattern, _)| *pattern == constraint.pattern).unwrap();
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

/// A seeded xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn some(&mut self, from: &[&str], most: usize) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| self.of(from).to_owned()).collect()
    }

    fn maybe(&mut self, from: &[&str], most: usize) -> Option<Vec<String>> {
        (!self.one_in(3)).then(|| self.some(from, most))
    }

    fn config(&mut self) -> Config {
        let mut config = Config::default();
        for name in &SERVERS[..3] {
            let access = if self.one_in(4) { Access::Public } else { Access::Key };
            let blocked_tools = if self.one_in(2) { self.some(&ENTRIES[3..], 1) } else { Vec::new() };
            let allowed_tools = if self.one_in(2) { None } else { self.maybe(&ENTRIES, 4) };
            config.servers.insert((*name).into(), Server { access, allowed_tools, blocked_tools, ..Server::default() });
        }
        for name in AGENTS {
            let servers = (0..self.below(4)).map(|_| (self.of(&SERVERS[..3]).to_owned(), self.matrix())).collect();
            config.agents.insert(name.into(), Agent { mcp_servers: self.servers(), servers });
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
                pattern: self.of(&PATTERNS).0.to_owned(),
                description: String::new(),
                optional: self.one_in(2),
            });
            let list = list.collect();
            (self.of(&TOOLS).to_owned(), list)
        });
        let argument_constraints = constrained.collect();
        let blocked_tools = if self.one_in(3) { self.some(&ENTRIES, 1) } else { Vec::new() };
        let allowed_tools = if self.one_in(2) { None } else { self.maybe(&ENTRIES, 5) };
        AgentServer { allowed_tools, blocked_tools, argument_constraints, ..AgentServer::default() }
    }

    fn call(&mut self) -> Asked {
        let key = (!self.one_in(6)).then(|| self.of(&KEYS));
        let server = if self.one_in(12) { SERVERS[3] } else { self.of(&SERVERS[..3]) };
        let arguments = (!self.one_in(10)).then(|| self.object(0));
        Asked { key, server, tool: self.of(&TOOLS), arguments }
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
