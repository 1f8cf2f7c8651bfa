//! Does a new configuration come into force whole, at once, and beside any load?
//!
//! Calls carry a number in their user agent, which is on record: so a call's answer can be held against the revision
//! that judged it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::config;
use portcullis::config::problem::Problems;
use portcullis::runtime::Runtime;
use portcullis::server;
use portcullis::server::Signals;
use portcullis::snapshot::Snapshot;
use portcullis::snapshot::Source;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// Connections under load.
const CONNECTIONS: usize = 6;

/// What a client read of one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The server's answer.
    Answered,
    /// The tool is unknown or hidden.
    Hidden,
    /// A list that has exactly this tool.
    Lists(&'static str),
    /// The call was under way when another configuration took its permission back.
    Withdrawn,
}

/// A server with two tools, of which a configuration lets one be called.
async fn two_tools() -> Upstream {
    let upstream = Upstream::start().await;
    let tools = ["alpha", "beta"].map(|name| json!({ "name": name, "inputSchema": { "type": "object" } }));
    upstream.on("tools/list", Reply::json(json!({ "tools": tools })));
    upstream
}

fn only(upstream: &Upstream, key: &Key, tool: &str) -> String {
    format!(
        "[servers.a]\nurl = \"{}\"\nallowed_tools = [\"{tool}\"]\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
        upstream.url(),
        key.digest
    )
}

fn request(key: &Key, number: &str, method: &str, tool: &str) -> String {
    let params = if method == "tools/call" { json!({ "name": tool, "arguments": {} }) } else { json!({}) };
    let body = json!({ "jsonrpc": "2.0", "id": number, "method": method, "params": params }).to_string();
    client::post("/mcp/a", &[&format!("X-API-Key: {}", key.key), &format!("User-Agent: {number}")], &body)
}

/// What the answer says; anything but one of the three verdicts, for this very request, is a failure.
#[track_caller]
fn verdict(answer: &Answer, number: &str) -> Verdict {
    let body = answer.json();
    let is_withdrawn = answer.status == 403 && answer.text().contains("the permission for this call was withdrawn");
    if is_withdrawn && answer.complete && body["id"] == number {
        return Verdict::Withdrawn;
    }
    assert!(answer.status == 200 && answer.complete && body["id"] == number, "{number}: {answer:?}");
    if let Some(tools) = body["result"]["tools"].as_array() {
        let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        return match names[..] {
            ["alpha"] => Verdict::Lists("alpha"),
            ["beta"] => Verdict::Lists("beta"),
            _ => panic!("{number} lists {names:?}"),
        };
    }
    if body["result"].is_object() {
        return Verdict::Answered;
    }
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.starts_with("Unknown tool: ")), "{answer:?}");
    Verdict::Hidden
}

/// Calls both tools and lists them, in turn, on one connection that must never end, until told to stop.
async fn load(
    address: SocketAddr,
    key: Arc<Key>,
    client: usize,
    stop: Arc<AtomicBool>,
) -> Vec<(String, &'static str, Verdict)> {
    let mut connection = Connection::open(address).await;
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (method, tool) = [("tools/call", "alpha"), ("tools/call", "beta"), ("tools/list", "")][seen.len() % 3];
        let number = format!("c{client}-{}", seen.len());
        connection.write(request(&key, &number, method, tool)).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("{number} was lost"));
        let said = verdict(&answer, &number);
        seen.push((number, tool, said));
    }
    seen
}

async fn load_for(
    address: SocketAddr,
    key: &Arc<Key>,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<Vec<(String, &'static str, Verdict)>>> {
    (0..CONNECTIONS).map(|client| tokio::spawn(load(address, Arc::clone(key), client, Arc::clone(stop)))).collect()
}

/// The revision and the decision on record of each call, by its number.
fn judged(records: &[Value]) -> HashMap<String, (u64, bool)> {
    let decided = records.iter().filter(|record| record["kind"] != "result" && record["user_agent"].is_string());
    let mut judged = HashMap::new();
    for record in decided {
        let number = record["user_agent"].as_str().unwrap().to_owned();
        let revision = record["snapshot"].as_str().unwrap().parse().unwrap();
        let twice = judged.insert(number, (revision, record["decision"] == "allowed"));
        assert_eq!(twice, None, "one decision on record for each call: {record}");
    }
    judged
}

/// The one tool each revision lets through, as the answers and the records of every call say; fails where a call and its
/// record, or two calls of one revision, disagree.
fn tool_of_each_revision(
    seen: &[(String, &'static str, Verdict)],
    judged: &HashMap<String, (u64, bool)>,
) -> BTreeMap<u64, &'static str> {
    let other = |tool: &str| if tool == "alpha" { "beta" } else { "alpha" };
    let mut revisions = BTreeMap::new();
    for (number, tool, said) in seen {
        let (revision, allowed) = *judged.get(number).unwrap_or_else(|| panic!("{number} is not on record"));
        let (expected, allows) = match said {
            Verdict::Answered | Verdict::Withdrawn => (true, *tool),
            Verdict::Hidden => (false, other(tool)),
            Verdict::Lists(listed) => (true, *listed),
        };
        assert_eq!(allowed, expected, "{number}: {said:?} under revision {revision}");
        let known = *revisions.entry(revision).or_insert(allows);
        assert_eq!(known, allows, "{number}: {said:?} under revision {revision}");
    }
    revisions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_and_a_new_rule_are_in_force_within_a_second() {
    let upstream = two_tools().await;
    let (old, new) = (gateway::make_key("old"), gateway::make_key("new"));
    let gateway = Gateway::start(&only(&upstream, &old, "alpha"));
    let ask = async |key: &Key, tool: &str| client::send(gateway.data, request(key, "n", "tools/call", tool)).await;
    assert_eq!((ask(&old, "alpha").await.status, ask(&new, "beta").await.status), (200, 401));
    gateway.reload(&only(&upstream, &new, "beta"));
    let asked = Clock::start();
    while ask(&new, "beta").await.status != 200 {
        assert!(asked.elapsed() < Duration::from_secs(1), "not yet in force\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(verdict(&ask(&new, "beta").await, "n"), Verdict::Answered);
    assert_eq!(verdict(&ask(&new, "alpha").await, "n"), Verdict::Hidden);
    assert_eq!(ask(&old, "alpha").await.status, 401, "a key that is gone opens nothing");
    let intent = gateway.wait_for_record("intent", |record| record["tool"] == "beta");
    assert_eq!((&intent["snapshot"], &intent["principal"]), (&json!("2"), &json!("key:ci")));
    assert_eq!(gateway.metric("portcullis_config_revision").await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_is_logged_with_its_place() {
    let upstream = two_tools().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&only(&upstream, &key, "alpha"));
    let good = "portcullis_config_last_reload_successful";
    assert_eq!(gateway.metric(good).await, Some(1.0));
    let info =
        gateway.metrics().await.lines().find(|line| line.starts_with("portcullis_config_info")).unwrap().to_owned();
    for (round, mistake) in
        ["allowd_tools = []", "url = \"http://127.0.0.1:1/\" \"", "blocked_tools = 7", "auth.type = \"bearer\""]
            .into_iter()
            .enumerate()
    {
        gateway.reload(&only(&upstream, &key, "beta").replace("[keys.ci]", &format!("{mistake}\n[keys.ci]")));
        let text = fs::read_to_string(gateway.directory.join("portcullis.toml")).unwrap();
        let line = text.lines().position(|line| line == mistake).unwrap() + 1;
        gateway.wait_for_log(&format!("portcullis.toml:{line}:"));
        gateway::wait_until("the metric", || gateway.log().matches("was not loaded").count() == round + 1);
        assert_eq!(gateway.metric(good).await, Some(0.0), "{mistake}");
        let answer = client::send(gateway.data, request(&key, "n", "tools/call", "alpha")).await;
        assert_eq!(verdict(&answer, "n"), Verdict::Answered, "{mistake}");
        assert_eq!(gateway.metric("portcullis_config_revision").await, Some(1.0));
        assert!(gateway.metrics().await.contains(&info), "the one in force stays the one that is named");
    }
    fs::remove_file(gateway.directory.join("portcullis.toml")).unwrap();
    gateway.signal("HUP");
    gateway::wait_until("a file that is not there", || gateway.log().matches("was not loaded").count() == 5);
    gateway.reload(&only(&upstream, &key, "beta"));
    gateway.wait_for_log("configuration reloaded");
    assert_eq!(gateway.metric(good).await, Some(1.0));
    assert_eq!(gateway.metric("portcullis_config_revision").await, Some(2.0));
    assert!(!gateway.metrics().await.contains(&info));
    let answer = client::send(gateway.data, request(&key, "n", "tools/call", "alpha")).await;
    assert_eq!(verdict(&answer, "n"), Verdict::Hidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_and_the_rest_takes_effect() {
    let upstream = two_tools().await;
    let key = gateway::make_key("ci");
    let config = only(&upstream, &key, "alpha");
    let gateway = Gateway::start(&format!("threads = 1\n{config}"));
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}}";
    let ask = async || gateway.post("/mcp/a", &[&format!("X-API-Key: {}", key.key)], body).await.status;
    assert_eq!(ask().await, 200);
    gateway.reload(&format!(
        "threads = 2\ndrain_timeout_ms = 1234\nbody_bytes_max = 10\n{config}\n[log]\nformat = \"json\"\n"
    ));
    gateway.wait_for_log("configuration reloaded");
    let log = gateway.log();
    for key in ["listen.threads", "listen.drain_timeout_ms", "log.format"] {
        let named = log.lines().any(|line| line.contains("only after a restart") && line.contains(key));
        assert!(named, "{key}\n{log}");
    }
    assert_eq!(log.matches("only after a restart").count(), 3, "{log}");
    assert_eq!(ask().await, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_keys_can_come_and_go() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let config = only(&upstream, &key, "echo");
    let (code, seal, _) = gateway::run(&["keys", "seal"]);
    assert_eq!(code, Some(0));
    let gateway = Gateway::start(&format!("{config}[seal]\nkeys = [\"{}\"]\n", seal.trim()));
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18",
        "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
    let ask = async || gateway.post("/mcp/a", &[&format!("X-API-Key: {}", key.key)], &initialize.to_string()).await;
    assert!(ask().await.header("mcp-session-id").is_some());
    assert!(
        !gateway.directory.join("state/seal.key").exists(),
        "a key of its own is made only where none is configured"
    );
    gateway.reload(&config);
    gateway.wait_for_log("configuration reloaded");
    let answer = ask().await;
    assert!(answer.status == 200 && answer.header("mcp-session-id").is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_hangups_a_second_beside_load_lose_no_call_and_mix_no_policies() {
    let upstream = two_tools().await;
    let key = Arc::new(gateway::make_key("ci"));
    let configs = ["alpha", "beta"].map(|tool| only(&upstream, &key, tool));
    let gateway = Gateway::start(&configs[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load_for(gateway.data, &key, &stop).await;
    for hangup in 1..=60 {
        gateway.reload(&configs[hangup % 2]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    gateway::wait_until("every result", || {
        let records = gateway.records();
        let count = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
        count("intent") == count("result")
    });
    let revisions = tool_of_each_revision(&seen, &judged(&gateway.records()));
    let by_tool = |tool| revisions.values().filter(|allowed| **allowed == tool).count();
    println!("reload: {} calls in 3 s under {} revisions seen", seen.len(), revisions.len());
    assert!(by_tool("alpha") > 5 && by_tool("beta") > 5, "{revisions:?}");
    assert!(seen.len() > 100, "{}", seen.len());
}

/// A gateway in this process, beside which snapshots can be swapped.
struct Inside {
    runtime: Arc<Runtime>,
    address: SocketAddr,
    directory: PathBuf,
    hold: Option<server::Hold>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Inside {
    fn start(config: &str) -> Self {
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = gateway::fresh_directory();
        let path = directory.join("portcullis.toml");
        let listen = "[listen]\ndata = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[audit]\ndirectory = \"audit\"\n[state]\ndirectory = \"state\"\n";
        fs::write(&path, format!("{listen}{config}")).unwrap();
        let compiled = server::compile(&path, 1, None).unwrap_or_else(|error| panic!("{error}"));
        let (signals, hold) = Signals::none();
        let prepared = server::prepare(&path, compiled, signals).unwrap();
        let address = prepared.data_url().trim_start_matches("http://").parse().unwrap();
        let runtime = Arc::clone(prepared.runtime());
        let thread = thread::spawn(move || prepared.run().unwrap());
        gateway::wait_until("it serves", || std::net::TcpStream::connect(address).is_ok());
        Self { runtime, address, directory, hold: Some(hold), thread: Some(thread) }
    }

    /// Ends it, after which every record is on the disk.
    fn end(&mut self) -> Vec<Value> {
        drop(self.hold.take());
        self.thread.take().unwrap().join().unwrap();
        records(&self.directory.join("audit"))
    }
}

fn records(directory: &Path) -> Vec<Value> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    segments.sort();
    let text: String = segments.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Swaps snapshots, a thousand a second, until told to stop: odd revisions allow one tool, even ones the other.
fn swap(runtime: &Runtime, configs: &[config::model::Config; 2], stop: &AtomicBool) -> (u64, Duration) {
    let started = Instant::now();
    let mut revision = 1;
    while !stop.load(Ordering::Relaxed) {
        revision += 1;
        let config = &configs[usize::from(revision % 2 == 0)];
        let mut problems = Problems::new();
        let source = Source { revision, sha256: String::new() };
        let snapshot = Snapshot::compile(config, &source, Some(&runtime.active().snapshot), &mut problems);
        assert!(!problems.has_errors());
        runtime.adopt(snapshot);
        let due = started + Duration::from_millis(revision - 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    (revision, started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_a_second_beside_a_thousand_calls_mix_no_policies() {
    let upstream = two_tools().await;
    let key = Arc::new(gateway::make_key("ci"));
    let mut inside = Inside::start(&only(&upstream, &key, "alpha"));
    let path = inside.directory.join("other.toml");
    let configs = ["alpha", "beta"].map(|tool| {
        fs::write(&path, only(&upstream, &key, tool)).unwrap();
        config::load(&path).unwrap_or_else(|error| panic!("{error}")).config
    });
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (runtime, stop) = (Arc::clone(&inside.runtime), Arc::clone(&stop));
        thread::spawn(move || swap(&runtime, &configs, &stop))
    };
    let clients = load_for(inside.address, &key, &stop).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    let (swaps, took) = swapping.join().unwrap();
    let revisions = tool_of_each_revision(&seen, &judged(&inside.end()));
    for (revision, tool) in &revisions {
        assert_eq!(*tool, if revision % 2 == 1 { "alpha" } else { "beta" }, "revision {revision}");
    }
    let rate = |count: f64| count / took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (swap_rate, call_rate) = (rate(swaps as f64), rate(seen.len() as f64));
    println!("reload: {swap_rate:.0} swaps/s beside {call_rate:.0} calls/s, {} revisions judged", revisions.len());
    // Other tests share the machine, so the rates are theirs too. That many are enough for a mixture to be seen.
    assert!(swaps > 300 && seen.len() > 300, "{swap_rate} swaps/s, {call_rate} calls/s");
    assert!(revisions.len() > 100, "{}", revisions.len());
    fs::remove_dir_all(&inside.directory).unwrap();
}

/// 500 servers, 10,000 keys, 100 agents with 5,000 constraints over 200 patterns; `salt` changes one key and no pattern.
pub(super) fn large(salt: &str) -> String {
    let mut text = String::new();
    for server in 0..500 {
        let _ = writeln!(
            text,
            "[servers.s{server}]\nurl = \"http://127.0.0.1:9/s{server}\"\nallowed_tools = [\"query\", \"list_*\"]"
        );
    }
    for agent in 0..100 {
        for server in 0..10 {
            let server = (agent * 7 + server * 31) % 500;
            let constraint = |number: usize| {
                format!(
                    "{{ arg = \"a{number}\", pattern = '^(?:SELECT|SHOW)\\s+t{}(?:\\s|$)' }}",
                    (agent * 50 + server + number) % 200
                )
            };
            let constraints: Vec<String> = (0..5).map(constraint).collect();
            let _ = writeln!(
                text,
                "[agents.g{agent}.servers.s{server}]\nargument_constraints.query = [{}]",
                constraints.join(", ")
            );
        }
    }
    for key in 0..10_000 {
        let name = if key == 0 { format!("{key}{salt}") } else { key.to_string() };
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(name));
        let _ = writeln!(
            text,
            "[keys.k{key}]\ndigest = \"pk1_{digest}\"\nmcp_servers = [\"s{}\"]\nagent = \"g{}\"",
            key % 500,
            key % 100
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_configuration_reloads() {
    let started = Instant::now();
    let gateway = Gateway::start(&large(""));
    let start = started.elapsed();
    let mut reloads = Vec::new();
    for revision in 2..=4_u64 {
        gateway.write(&large(&revision.to_string()));
        let asked = Instant::now();
        gateway.signal("HUP");
        gateway::wait_until("a reload", || gateway.log().contains(&format!("\"revision\":{revision}")));
        reloads.push(asked.elapsed());
    }
    println!(
        "reload: 10,000 keys, 500 servers, 5,000 constraints over 200 patterns: start {start:?}, reloads {reloads:?}"
    );
    assert_eq!(gateway.metric("portcullis_config_revision").await, Some(4.0));
}
