//! How long does a decision take? `cargo bench --bench decide`
//!
//! 10,000 keys, 500 servers, 5,000 tools, 200 agents with matrices and 200 patterns. Budget: 300 ns for the decision
//! alone (constraints come on top, a table step per byte), 2 µs with reading a message of 300 bytes before it.
//! Every figure is the median of rounds; the calls go over all keys and servers, so that caches are as cold as in use.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::model::Config;
use portcullis::config::problem::Problems;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Principal;

const KEYS: usize = 10_000;
const SERVERS: usize = 500;
const TOOLS_PER_SERVER: usize = 10;
const AGENTS: usize = 200;
const CALLS: usize = 20_000;
const ROUNDS: usize = 15;

fn main() {
    let config: Config = toml::from_str(&config()).unwrap();
    let mut problems = Problems::new();
    let started = Instant::now();
    let policy = Policy::compile(&config, &mut problems);
    println!("compile             {:>9.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    let policy = Policy::compile_reusing(&config, Some(&policy), &mut problems);
    println!("compile, patterns reused {:>4.1} ms", started.elapsed().as_secs_f64() * 1e3);
    assert!(!problems.has_errors());

    let principals: Vec<Principal> = config.keys.keys().map(|name| principal(name)).collect();
    for (label, tool, budget_ns) in [
        ("decide, no constraint", "tool_3", 300.0),
        ("decide, 3 constraints", "execute_query", 1_000.0),
        ("decide, blocked tool", "drop_table", 2_000.0),
        ("decide, no such server", "", 2_000.0),
    ] {
        let ns = median(|| decide(&policy, &principals, tool));
        println!("{label:<24} {ns:>7.0} ns   budget {budget_ns:.0} ns{}", over(ns, budget_ns));
    }
    println!("{:<24} {:>7.0} ns   in each of the above", "the loop itself", median(move_calls));
    let view = policy.view(&principals[0], "server_0");
    let ns = median(|| timed(CALLS, |i| usize::from(view.lists(TOOLS[i % TOOLS.len()]))));
    println!("{:<24} {ns:>7.0} ns   for each tool of a list", "view.lists");
    let ns = median(|| scan_and_decide(&policy, &principals));
    println!("{:<24} {ns:>7.0} ns   budget 2000 ns{}", "read 300 B and decide", over(ns, 2_000.0));
}

const TOOLS: [&str; 5] = ["tool_3", "execute_query", "drop_table", "delete_rows", "unknown"];

fn over(ns: f64, budget_ns: f64) -> &'static str {
    if ns > budget_ns { "   OVER" } else { "" }
}

/// The median over rounds of what one of them took, in nanoseconds a call.
fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn timed(count: usize, mut work: impl FnMut(usize) -> usize) -> f64 {
    let started = Instant::now();
    let sum: usize = (0..count).map(&mut work).sum();
    black_box(sum);
    started.elapsed().as_nanos() as f64 / count as f64
}

/// A few hundred calls go round, as warm as a call is that was just read; keys and servers are all visited. A call
/// comes back from its verdict and is judged again, so that neither reading nor freeing a body is counted.
fn decide(policy: &Policy, principals: &[Principal], tool: &str) -> f64 {
    let permitted = !matches!(tool, "drop_table" | "");
    let mut calls: Vec<Option<Call>> = (0..AGENTS).map(|key| Some(call(key, tool))).collect();
    timed(CALLS, |i| {
        let key = i * 7919 % KEYS;
        let call = calls[key % AGENTS].take().unwrap();
        let (call, allowed) = match policy.decide(&principals[key], Revision::V2025_11_25, call) {
            Ok(permitted) => (permitted.into_call(), true),
            Err(denied) => (denied.call, false),
        };
        assert_eq!(allowed, permitted);
        calls[key % AGENTS] = Some(call);
        usize::from(allowed)
    })
}

/// What the loop of [`decide`] costs without deciding.
fn move_calls() -> f64 {
    let mut calls: Vec<Option<Call>> = (0..AGENTS).map(|key| Some(call(key, "tool_3"))).collect();
    timed(CALLS, |i| {
        let key = i * 7919 % KEYS;
        let call = black_box(calls[key % AGENTS].take().unwrap());
        calls[key % AGENTS] = Some(call);
        1
    })
}

fn scan_and_decide(policy: &Policy, principals: &[Principal]) -> f64 {
    let bodies: Vec<Bytes> = (0..64).map(|i| body(i, "execute_query")).collect();
    assert!((280..320).contains(&bodies[0].len()), "{}", bodies[0].len());
    let limits = Limits::default();
    let servers: Vec<Arc<str>> = (0..SERVERS).map(|i| format!("server_{i}").into()).collect();
    timed(CALLS, |i| {
        let key = i * 7919 % KEYS;
        let message = Message::read(bodies[i % bodies.len()].clone(), &limits).unwrap();
        let call =
            Call { server: Arc::clone(&servers[server_of(key)]), action: Action::Message(message), opened: Vec::new() };
        usize::from(policy.decide(&principals[key], Revision::V2025_11_25, call).is_ok())
    })
}

fn principal(name: &str) -> Principal {
    Principal { id: format!("key:{name}").into(), key: Some(name.into()), team: None, agent: None }
}

/// A server that this key and its agent's matrix cover. Names of keys are padded, so the order is that of numbers.
fn server_of(key: usize) -> usize {
    (key % AGENTS + 1) % SERVERS
}

fn call(key: usize, tool: &str) -> Call {
    let server = if tool.is_empty() { "nowhere".into() } else { format!("server_{}", server_of(key)).into() };
    let tool = if tool.is_empty() { "x" } else { tool };
    Call {
        server,
        action: Action::Message(Message::read(body(key, tool), &Limits::default()).unwrap()),
        opened: Vec::new(),
    }
}

fn body(id: usize, tool: &str) -> Bytes {
    let sql = "SELECT id, name, created_at FROM customers WHERE region = 'eu' AND active = true ORDER BY created_at";
    let arguments =
        format!(r#"{{"sql":"{sql}","limit":100,"mode":"read","comment":"asked for by the weekly report"}}"#);
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":"#);
    format!(r#"{head}{arguments},"_meta":{{"progressToken":17}}}}}}"#).into()
}

fn config() -> String {
    let mut text = String::new();
    for server in 0..SERVERS {
        let tools: Vec<String> = (0..TOOLS_PER_SERVER - 2).map(|i| format!("\"tool_{i}\"")).collect();
        let tools = tools.join(",");
        writeln!(text, "[servers.server_{server}]\nurl = \"https://x.example/mcp\"").unwrap();
        writeln!(text, "allowed_tools = [{tools}, \"execute_query\", \"drop_table\"]").unwrap();
        writeln!(text, "blocked_tools = [\"drop_*\", \"delete_*\"]").unwrap();
    }
    for agent in 0..AGENTS {
        for server in (agent..agent + 5).map(|server| server % SERVERS) {
            writeln!(text, "[agents.agent_{agent}.servers.server_{server}]").unwrap();
            writeln!(text, "allowed_tools = [\"execute_query\", \"tool_*\"]").unwrap();
            writeln!(text, "argument_constraints.execute_query = [").unwrap();
            writeln!(text, "{{ arg = \"sql\", pattern = '^\\s*SELECT [a-z, _]+ FROM (t{agent}|customers)' }},")
                .unwrap();
            writeln!(text, "{{ arg = \"limit\", pattern = '^[0-9]{{1,3}}$' }},").unwrap();
            writeln!(text, "{{ arg = \"mode\", pattern = '^(read|list)$' }} ]").unwrap();
        }
    }
    for key in 0..KEYS {
        let agent = key % AGENTS;
        writeln!(text, "[keys.key_{key:05}]\nagent = \"agent_{agent}\"").unwrap();
        let servers: Vec<String> = (agent..agent + 20).map(|i| format!("\"server_{}\"", i % SERVERS)).collect();
        writeln!(text, "mcp_servers = [{}]", servers.join(",")).unwrap();
    }
    text
}
