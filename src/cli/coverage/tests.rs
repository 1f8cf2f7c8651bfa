//! Is a rule that is called unused one without which every recorded call is decided as it is?
//!
//! Random configurations, callers and calls, from a seed that is the same in every run; the record is what the rules decided, without
//! the arguments. What is listed is taken out of the configuration, one by one and all at once, and every call is decided again,
//! with its arguments.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;
use toml::Table;
use toml::Value;

use super::rules::Rules;
use super::rules::UNMENTIONED_MAX;
use crate::call::Action;
use crate::call::Call;
use crate::cli::past::Part;
use crate::cli::past::Read;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::problem::Step;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::revision::Revision;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::principal::Report;
use crate::principal::Subject;
use crate::server;

const CONFIGS: u64 = 150;
const CALLS: usize = 12;
const SERVERS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["one", "two", "three"];
const TOOLS: [&str; 3] = ["x", "y", "yy"];
const ENTRIES: [&str; 4] = ["x", "y", "y*", "*"];
const ISSUER: &str = "idp";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    fn list(&mut self, texts: &[&str]) -> String {
        let entries: BTreeSet<&str> = (0..self.below(3)).map(|_| self.of(texts)).collect();
        format!("{entries:?}").replace('{', "[").replace('}', "]")
    }

    /// What a level grants.
    fn level(&mut self, text: &mut String) {
        for (key, texts, one_in) in [
            ("mcp_servers", &["a", "b", "c", "*"][..], 2),
            ("mcp_access_groups", &["g"][..], 4),
            ("mcp_toolsets", &["s", "t"][..], 3),
        ] {
            if self.below(one_in) == 0 {
                writeln!(text, "{key} = {}", self.list(texts)).unwrap();
            }
        }
        for server in SERVERS {
            if self.below(4) == 0 {
                writeln!(text, "mcp_tool_permissions.{server} = {}", self.list(&ENTRIES)).unwrap();
            }
        }
    }

    fn lists(&mut self, text: &mut String) {
        for (key, texts) in [("tools", &ENTRIES[..]), ("prompts", &["p", "*"][..])] {
            if self.below(3) == 0 {
                writeln!(text, "allowed_{key} = {}", self.list(texts)).unwrap();
            }
            if self.below(4) == 0 {
                writeln!(text, "blocked_{key} = {}", self.list(texts)).unwrap();
            }
        }
    }

    fn config(&mut self) -> String {
        let mut text =
            String::from("[sandbox]\nenabled = false\n[listen]\npublic_url = \"https://gw.test\"\n[policy]\n");
        if self.below(3) == 0 {
            text.push_str("cascade = \"intersect\"\n");
        }
        text.push_str(
            "[constraint_sets]\nshort = [{ arg = \"q\", max_length = 1 }, { arg = \"q\", not_pattern = \"b\" }]\n",
        );
        write!(text, "[auth.issuers.{ISSUER}]\nissuer = \"https://idp.test\"\njwks_url = \"https://idp.test/k\"\naudiences = [\"gw\"]\n").unwrap();
        for server in SERVERS {
            writeln!(text, "[servers.{server}]\nurl = \"http://127.0.0.1:9\"").unwrap();
            if server == "a" || self.below(2) == 0 {
                text.push_str("access_groups = [\"g\"]\n");
            }
            if self.below(6) == 0 {
                text.push_str("access = \"public\"\n");
            }
            if self.below(4) == 0 {
                writeln!(text, "blocked_agents = {}", self.list(&["one", "two"])).unwrap();
            }
            self.lists(&mut text);
        }
        for toolset in ["s", "t"] {
            writeln!(text, "[toolsets.{toolset}.tools]\na = {}\nb = {}", self.list(&TOOLS), self.list(&TOOLS)).unwrap();
        }
        for table in ["organisations", "teams", "users", "agents", "keys"] {
            for (index, name) in NAMES.into_iter().enumerate() {
                writeln!(text, "[{table}.{name}]").unwrap();
                let further: &[&str] = match table {
                    "keys" => &["team", "organisation", "user", "agent"],
                    "teams" => &["organisation"],
                    _ => &[],
                };
                for further in further {
                    if self.below(2) == 0 {
                        writeln!(text, "{further} = \"{}\"", self.of(&NAMES)).unwrap();
                    }
                }
                if table == "keys" {
                    writeln!(text, "digest = \"sha256:{}\"", format!("{:02x}", index + 1).repeat(32)).unwrap();
                }
                self.level(&mut text);
                if table == "agents" {
                    self.matrices(name, &mut text);
                }
            }
        }
        text
    }

    fn matrices(&mut self, agent: &str, text: &mut String) {
        if self.below(2) == 0 {
            writeln!(text, "reported_as = [\"is-{agent}\"]").unwrap();
        }
        for server in SERVERS {
            if self.below(3) == 0 {
                writeln!(text, "[agents.{agent}.servers.{server}]").unwrap();
                self.lists(text);
                if self.below(2) == 0 {
                    let one = self.of(&["{ use = \"short\" }", "{ arg = \"q\", pattern = \"a\" }"]);
                    writeln!(
                        text,
                        "argument_constraints.x = [{one}, {{ arg = \"q\", optional = true, pattern = \"q\" }}]"
                    )
                    .unwrap();
                }
            }
        }
    }

    fn call(&mut self) -> Asked {
        let caller = match self.below(3) {
            0 => Principal {
                teams: (0..self.below(3)).map(|_| self.of(&NAMES).into()).collect(),
                organisation: (self.below(3) == 0).then(|| self.of(&NAMES).into()),
                user: (self.below(2) == 0).then(|| self.of(&NAMES).into()),
                agent: (self.below(2) == 0).then(|| self.of(&NAMES).into()),
                ..Principal::of_token(ISSUER, "s")
            },
            _ => Principal::of_key(self.of(&NAMES)),
        };
        let (method, params) = match self.below(6) {
            0 => ("tools/list", json!({})),
            1 => ("prompts/get", json!({ "name": self.of(&["p", "r"]) })),
            _ => (
                "tools/call",
                json!({ "name": self.of(&TOOLS), "arguments": { "q": self.of(&["a", "b", "ab", "q"]) } }),
            ),
        };
        let client = (self.below(3) == 0).then(|| format!("is-{}", self.of(&NAMES)));
        let user_agent = (self.below(4) == 0).then(|| format!("is-{}", self.of(&NAMES)));
        Asked { caller, server: self.of(&SERVERS), method, params, client, user_agent }
    }
}

#[derive(Debug)]
struct Asked {
    caller: Principal,
    server: &'static str,
    method: &'static str,
    params: serde_json::Value,
    client: Option<String>,
    user_agent: Option<String>,
}

impl Asked {
    fn report(&self) -> Report<'_> {
        Report { client: self.client.as_deref(), user_agent: self.user_agent.as_deref().map(str::as_bytes) }
    }

    fn call(&self) -> Call {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": self.method, "params": self.params }).to_string();
        let message = Message::read(Bytes::from(body), &Limits::default()).unwrap();
        Call { server: self.server.into(), action: Action::Message(message), opened: Vec::new(), task_tool: None }
    }

    /// Whether it is permitted, why, and by which rule.
    fn decide(&self, policy: &Policy) -> (bool, &'static str, Option<At>) {
        let subject = Subject { report: self.report(), ..Subject::of(&self.caller) };
        match policy.decide(subject, Revision::V2025_11_25, self.call()) {
            Ok(permitted) => (true, permitted.reason().name(), permitted.reason().at().cloned()),
            Err(denied) => (false, denied.denial.name(), denied.denial.at().cloned()),
        }
    }

    fn line(&self, seq: usize, policy: &Policy, config: &Config) -> String {
        let (permitted, reason, rule) = self.decide(policy);
        // As the gateway would take the key for.
        let key = self.caller.key.as_deref().map(|key| crate::auth::principal(key, &config.keys[key], config));
        let caller = key.as_ref().unwrap_or(&self.caller);
        let named = self.params.get("name");
        let reported = policy.reported(None, self.report()).join(",");
        let mut line = json!({
            "seq": seq, "kind": if permitted { "intent" } else { "refused" }, "time": "2027-01-31T12:00:00.000000Z",
            "principal": &*caller.id, "user": caller.user.as_deref(), "agent": caller.agent.as_deref(),
            "organisation": caller.organisation.as_deref(), "user_agent": self.user_agent, "workspace": "default",
            "teams": caller.teams.iter().map(|team| &**team).collect::<Vec<_>>(),
            "server": self.server, "rpc_method": self.method, "reason": reason, "rule": rule.map(|at| at.to_string()),
            "reported_agent": Some(reported).filter(|agents| !agents.is_empty()),
            "tool": named.filter(|_| self.method == "tools/call"), "prompt": named.filter(|_| self.method == "prompts/get"),
        });
        line.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        line.to_string()
    }
}

/// Compiles a configuration that stands in no file.
fn policy(table: &Table) -> (Policy, Config) {
    let config: Config = Value::Table(table.clone()).try_into().unwrap();
    (Policy::compile(&config, &mut Problems::new()), config)
}

/// Takes what stands at a place out of a configuration.
fn take_out(table: &mut Table, at: &At) {
    let (last, path) = at.steps().split_last().unwrap();
    let mut value: Option<&mut Value> = None;
    for step in path {
        value = Some(match (value, step) {
            (None, Step::Key(key)) => table.get_mut(key).unwrap(),
            (Some(Value::Table(table)), Step::Key(key)) => table.get_mut(key).unwrap(),
            (Some(Value::Array(array)), Step::Index(index)) => &mut array[*index],
            (value, step) => panic!("{step:?} of {value:?}"),
        });
    }
    match (value, last) {
        (Some(Value::Table(table)), Step::Key(key)) => drop(table.remove(key).unwrap()),
        (Some(Value::Array(array)), Step::Index(index)) => drop(array.remove(*index)),
        (value, step) => panic!("{step:?} of {value:?}"),
    }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("portcullis-coverage-{}-{name}", std::process::id()));
        fs::create_dir_all(directory.join("audit")).unwrap();
        Self(directory)
    }

    /// What is listed of this configuration after these records.
    fn unused(&self, config: &str, lines: &[String]) -> (Vec<At>, Read, u64, usize) {
        let path = self.0.join("portcullis.toml");
        fs::write(&path, config).unwrap();
        fs::write(self.0.join("audit/00000000000000000001.jsonl"), lines.join("\n") + "\n").unwrap();
        let compiled = server::compile(&path, 1, None).unwrap_or_else(|error| panic!("{error}\n{config}"));
        let mut rules = Rules::of(&compiled.loaded.config);
        let part = Part::whole(&self.0.join("audit"));
        let read = part.each(&compiled.loaded, &compiled.snapshot, |decided| rules.take(decided)).ok().unwrap();
        rules.finish(&read.keys);
        let at = rules.unused().into_iter().map(|rule| rule.at.clone()).collect();
        (at, read, rules.unmentioned_others, rules.unmentioned().len())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_what_is_listed_every_recorded_call_is_decided_as_it_is() {
    let scratch = Scratch::new("truth");
    let (mut listed, mut permitted, mut refused) = (0, 0, 0);
    for seed in 0..CONFIGS {
        let mut random = Random(seed);
        let text = random.config();
        let table: Table = text.parse().unwrap();
        let (whole, config) = policy(&table);
        let calls: Vec<Asked> = (0..CALLS).map(|_| random.call()).collect();
        let truth: Vec<bool> = calls.iter().map(|call| call.decide(&whole).0).collect();
        let lines: Vec<_> = calls.iter().enumerate().map(|(at, call)| call.line(at + 1, &whole, &config)).collect();
        let (unused, read, ..) = scratch.unused(&text, &lines);
        assert_eq!((read.decisions, read.unclear), (CALLS as u64, 0), "{lines:#?}");
        let check = |without: &Table, what: &dyn std::fmt::Debug| {
            let (policy, _) = policy(without);
            for (call, truth) in calls.iter().zip(&truth) {
                assert_eq!(call.decide(&policy).0, *truth, "{seed}: without {what:?}: {call:?}\n{text}");
            }
        };
        for at in &unused {
            let mut without = table.clone();
            take_out(&mut without, at);
            check(&without, &at.to_string());
        }
        let mut without = table.clone();
        // Those that stand further behind go first.
        unused.iter().rev().for_each(|at| take_out(&mut without, at));
        check(&without, &unused);
        listed += unused.len();
        permitted += truth.iter().filter(|truth| **truth).count();
        refused += truth.iter().filter(|truth| !**truth).count();
    }
    assert!(listed > 1_000 && permitted > 300 && refused > 300, "{listed} {permitted} {refused}");
}

const PLAIN: &str = r#"
[sandbox]
enabled = false
[constraint_sets]
short = [{ arg = "q", max_length = 1 }]
[servers.db]
url = "http://127.0.0.1:9"
blocked_agents = ["bot", "claude-code"]
[agents.bot]
[agents.helper.servers.db]
allowed_tools = ["read", "write"]
argument_constraints.read = [{ use = "short" }]
argument_constraints.write = [{ use = "short" }]
[keys.ci]
digest = "sha256:0101010101010101010101010101010101010101010101010101010101010101"
mcp_servers = ["db"]
may_mint = true
[keys.idle]
digest = "sha256:0202020202020202020202020202020202020202020202020202020202020202"
mcp_servers = ["db"]
"#;

fn line(fields: serde_json::Value) -> String {
    let mut line = json!({ "seq": 1, "time": "2027-01-31T12:00:00.000000Z", "workspace": "default", "server": "db" });
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    line.to_string()
}

#[test]
fn what_minted_keys_and_refusals_of_other_kinds_came_to_is_used() {
    let scratch = Scratch::new("minted");
    let child = json!({
        "kind": "intent", "principal": "key:ci>helper#0123", "agent": "helper", "chain": ["key:ci", "helper#0123"],
        "rpc_method": "tools/call", "tool": "read", "reason": "agent_tools",
    });
    let by_set = json!({
        "kind": "refused", "principal": "key:ci>helper#0123", "agent": "helper", "chain": ["key:ci", "helper#0123"],
        "rpc_method": "tools/call", "tool": "read", "reason": "argument_too_long", "rule": "constraint_sets.short[0]",
    });
    let limited = json!({ "kind": "refused", "principal": "key:idle", "reason": "quota_rpm" });
    let (unused, read, ..) = scratch.unused(PLAIN, &[line(child), line(by_set), line(limited)]);
    let unused: Vec<String> = unused.iter().map(ToString::to_string).collect();
    let expected = [
        "keys.idle.mcp_servers[0]",
        "servers.db.blocked_agents[0]",
        "servers.db.blocked_agents[1]",
        "agents.helper.servers.db.allowed_tools[1]",
        "agents.helper.servers.db.argument_constraints.write[0]",
    ];
    assert_eq!(unused, expected);
    assert_eq!((read.minted, read.unclear, read.decisions), (2, 2, 0));
}

#[test]
fn what_was_cut_in_the_record_is_taken_for_nothing_else() {
    let scratch = Scratch::new("cut");
    let whole = json!({ "kind": "intent", "principal": "key:ci", "rpc_method": "tools/list", "reason": "key_servers" });
    let mut lines = vec![line(whole.clone())];
    for (field, cut) in [("user", json!("ann…")), ("teams", json!(["a", "b…"])), ("tool", json!("read…"))] {
        let mut fields = whole.clone();
        fields[field] = cut;
        lines.push(line(fields));
    }
    let (_, read, ..) = scratch.unused(PLAIN, &lines);
    assert_eq!((read.decisions, read.unclear, read.minted), (1, 3, 0));
}

#[test]
fn tools_that_no_rule_mentions_are_told_apart_up_to_a_limit() {
    let scratch = Scratch::new("many");
    let call = |tool: usize| {
        line(
            json!({ "kind": "intent", "principal": "key:ci", "rpc_method": "tools/call", "tool": format!("t{tool}"), "reason": "key_servers" }),
        )
    };
    let lines: Vec<String> = (0..UNMENTIONED_MAX + 3).chain([0]).map(call).collect();
    let (_, _, others, known) = scratch.unused(PLAIN, &lines);
    assert_eq!((known, others), (UNMENTIONED_MAX, 3));
}
