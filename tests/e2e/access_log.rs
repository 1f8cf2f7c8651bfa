//! Does the access log tell of each request in one line, whatever the client writes and however slow its reader is?

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Stage {
    gateway: Gateway,
    upstream: Upstream,
    key: Key,
    directory: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        Self::start_into(gateway::fresh_directory()).await
    }

    /// With an access log in this directory.
    async fn start_into(directory: PathBuf) -> Self {
        let (upstream, key) = (Upstream::start().await, gateway::make_key("ci"));
        let access = directory.join("access.log");
        let servers = key.config(&upstream).replacen("[keys.ci]", "blocked_tools = [\"hidden\"]\n[keys.ci]", 1);
        let config = format!("[log]\naccess = \"{}\"\n{servers}", access.display());
        Self { gateway: Gateway::start(&config), upstream, key, directory }
    }

    fn access(&self) -> PathBuf {
        self.directory.join("access.log")
    }

    /// Waits until so many lines are there, and reads each.
    fn lines(&self, count: usize) -> Vec<Value> {
        gateway::wait_until("lines of the access log", || read(&self.access()).lines().count() >= count);
        let text = read(&self.access());
        assert_eq!(text.lines().count(), count, "{text}");
        assert!(
            text.ends_with('\n') && text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)),
            "{text}"
        );
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn post(&self, headers: &[&str], body: &str) -> client::Answer {
        let key = format!("X-API-Key: {}", self.key.key);
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        self.gateway.post("/mcp/a", &headers, body).await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn call(tool: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
        .to_string()
}

#[tokio::test]
async fn each_request_is_one_line_in_the_words_of_its_record() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call failing", Reply::json(json!({ "content": [], "isError": true })));
    stage.post(&[&format!("Traceparent: {TRACE}")], &call("failing")).await;
    stage.lines(1);
    stage.post(&[], &call("hidden")).await;
    stage.lines(2);
    stage.gateway.post("/mcp/a", &["X-API-Key: wrong"], &call("echo")).await;
    stage.lines(3);
    client::send(stage.gateway.data, "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n").await;
    client::send(stage.gateway.data, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let lines = stage.lines(4);
    let [passed, refused, unknown, head] = lines.as_slice() else { panic!("{lines:#?}") };
    let (intent, result) =
        (stage.gateway.wait_for_record("intent", |_| true), stage.gateway.wait_for_record("result", |_| true));
    for (name, value) in passed.as_object().unwrap() {
        let of_record = match name.as_str() {
            "time" | "trace_id" => continue,
            "decision" => &intent[name],
            _ if result.get(name).is_some() => &result[name],
            _ => &intent[name],
        };
        assert_eq!(value, of_record, "{name}");
    }
    assert_eq!(
        (&passed["intent"], &passed["outcome"], &passed["trace_id"]),
        (&intent["seq"], &json!("tool_error"), &json!(&TRACE[3..35]))
    );
    assert!(passed["phases_us"]["total"].as_u64() > Some(0));
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "tool_blocked");
    for name in ["seq", "principal", "server", "tool", "decision", "reason", "rule", "status", "phases_us"] {
        assert!(refused[name] == record[name] && !refused[name].is_null(), "{name}: {refused} {record}");
    }
    assert!(refused.get("trace_id").is_none() || cfg!(feature = "otlp"));
    assert_eq!(
        (&unknown["status"], &unknown["reason"], unknown.get("principal")),
        (&json!(401), &json!("key_unknown"), None)
    );
    assert_eq!((&head["status"], &head["reason"], &head["path"]), (&json!(400), &json!("head_name"), &json!("/")));
    assert_eq!(stage.gateway.metric("portcullis_access_log_lines_total{outcome=\"written\"}").await, Some(4.0));
}

#[tokio::test]
async fn nothing_that_a_client_writes_ends_a_line_or_reaches_a_terminal() {
    let stage = Stage::start().await;
    let evil = "a\r\n{\"forged\":true}\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{2028}\u{7f}\"\\";
    let named = |method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "id": evil, "method": method, "params": params }).to_string()
    };
    let bodies = [
        named("tools/call", json!({ "name": evil, "arguments": {} })),
        named("resources/read", json!({ "uri": format!("file:///{evil}") })),
        named("prompts/get", json!({ "name": evil })),
        named(evil, json!({})),
    ];
    for body in &bodies {
        stage.post(&["User-Agent: a\tb\u{202e}\u{9b}31m{\"forged\":true}"], body).await;
    }
    let lines = stage.lines(bodies.len());
    assert!(lines.iter().all(|line| line.get("forged").is_none()));
    assert!(
        lines.iter().any(|line| line["user_agent"].as_str().is_some_and(|text| text.contains('\u{202e}'))),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_begun_anew_and_one_that_cannot_be_made_is_told() {
    let stage = Stage::start().await;
    stage.post(&[], &call("echo")).await;
    stage.lines(1);
    fs::rename(stage.access(), stage.directory.join("access.log.1")).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    stage.post(&[], &call("echo")).await;
    stage.lines(1);
    assert_eq!(read(&stage.directory.join("access.log.1")).lines().count(), 1);

    let path = stage.directory.display();
    let mut gateway = gateway::setup(&format!("[log]\naccess = \"{path}\"\n")).spawn();
    assert_ne!(gateway.wait(), Some(0));
    let told = gateway.log();
    assert!(told.contains(&format!("the access log `{path}` cannot be written")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_costs_lines_and_no_call() {
    let directory = gateway::fresh_directory();
    let pipe = directory.join("access.log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for reading, and never read.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut stage = Stage::start_into(directory).await;
    // Each line has some kilobytes: what a pipe holds, what is being written and what waits are soon full.
    let agent = format!("User-Agent: {}", "\u{202e}".repeat(100));
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "hidden", "x": 0 } });
    let request = client::post("/mcp/a", &[&agent, &format!("X-API-Key: {}", stage.key.key)], &body.to_string());
    let mut connection = Connection::open(stage.gateway.data).await;
    let dropped = "portcullis_access_log_lines_total{outcome=\"dropped\"}";
    let mut requests = 0;
    while stage.gateway.metric(dropped).await == Some(0.0) {
        assert!(requests < 20_000, "the queue has no end");
        for _ in 0..500 {
            connection.write(&request).await;
            assert_eq!(connection.answer().await.unwrap().status, 200);
        }
        requests += 500;
    }
    assert!(stage.gateway.peak_memory_bytes() < 512 * 1024 * 1024);
    let asked = Instant::now();
    stage.gateway.signal("INT");
    assert_eq!(stage.gateway.wait(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
