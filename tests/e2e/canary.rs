//! Where do secrets end up? Each is a text found nowhere else, and everything that leaves the gateway is searched.
//!
//! Secrets of clients never go upstream; what belongs to an upstream never goes to a client; neither is ever in a log
//! (at its most talkative), the record, the access log, the spans, the metrics, or the output of a command.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::client;
use crate::support::client::Connection;
use crate::support::collector::Collector;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// What only the configuration and the upstream know. `ENV` comes from the environment.
const BEARER: &str = "canary-of-bearer-4f1c";
const PASSWORD: &str = "canary-of-password-9d2e";
const HEADER: &str = "canary-of-header-77ab";
const ENV: &str = "canary-of-environment-c0de";
const PATH: &str = "canary-of-path-51d0";
const QUERY: &str = "canary-of-query-3e3e";
const SESSION: &str = "canary-of-session-8b8b";
const OF_THE_UPSTREAM: [&str; 7] = [BEARER, PASSWORD, HEADER, ENV, PATH, QUERY, SESSION];
/// What a client shows besides its key. Nothing of it is the upstream's business.
const COOKIE: &str = "canary-of-cookie-19f3";
const PROXY: &str = "canary-of-proxy-aa02";
const WRONG_KEY: &str = "canary-of-wrong-key-6c6c";
const ASKED: &str = "canary-of-target-d4d4";
const OTHER: &str = "canary-of-other-header-e1e1";
const OF_THE_CLIENT: [&str; 5] = [COOKIE, PROXY, WRONG_KEY, ASKED, OTHER];
/// What calls and answers say: for the two sides, and for nobody else.
const ARGUMENT: &str = "canary-of-argument-2b2b";
const RESULT: &str = "canary-of-result-f0f0";

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;

struct Stage {
    collector: Collector,
    access: PathBuf,
    upstream: Upstream,
    gateway: Gateway,
    keys: [Key; 2],
    /// Everything that any client received.
    shown: String,
}

fn config(address: SocketAddr, keys: &[Key; 2]) -> String {
    format!(
        r#"
        [auth]
        key_headers = ["X-Team-Key"]
        [servers.a]
        breaker.enabled = false
        url = "http://{address}/{PATH}/mcp?token={QUERY}"
        timeout_ms = 300
        answer_bytes_max = 5000
        auth = {{ type = "bearer", secret = "{BEARER}" }}
        headers = {{ X-Extra = "{HEADER}", X-Env = "${{env:PORTCULLIS_TEST_CANARY}}" }}
        [servers.b]
        url = "http://{address}/{PATH}?token={QUERY}"
        auth = {{ type = "basic", username = "user", secret = "{PASSWORD}" }}
        [keys.one]
        digest = "{}"
        mcp_servers = ["*"]
        agent = "careful"
        [keys.two]
        digest = "{}"
        mcp_servers = ["a"]
        [agents.careful.servers.a]
        blocked_tools = ["hidden"]
        argument_constraints.query = [{{ arg = "sql", pattern = '^SELECT' }}]
        "#,
        keys[0].digest, keys[1].digest
    )
}

impl Stage {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let keys = [gateway::make_key("one"), gateway::make_key("two")];
        let collector = Collector::start().await;
        let access = gateway::fresh_directory().join("access.log");
        let log = format!("[log]\naccess = \"{}\"\n", access.display());
        let setup =
            collector.told_by(gateway::setup(&(log + &config(upstream.address(), &keys)))).audit("index = true");
        let gateway = setup.variable("PORTCULLIS_TEST_CANARY", ENV).variable("RUST_LOG", "trace").start();
        upstream.on("initialize", {
            let result = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
            Reply::json(result).header("Mcp-Session-Id", SESSION)
        });
        Self { collector, access, upstream, gateway, keys, shown: String::new() }
    }

    /// Sends on a connection of its own and keeps what comes back.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) -> u16 {
        let mut connection = Connection::open(self.gateway.data).await;
        connection.write(bytes).await;
        let answer = connection.answer().await.expect("an answer");
        self.shown.push_str(&format!("{}{}\n", answer.head, answer.text()));
        answer.status
    }

    async fn post(&mut self, target: &str, headers: &[&str], body: &str) -> u16 {
        self.send(client::post(target, headers, body)).await
    }

    /// Logs, records, metrics and spans.
    async fn kept(&self) -> Vec<(&'static str, String)> {
        let audit = self.gateway.directory.join("audit");
        let all = |directory: &Path| {
            let files = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
            let files = files.filter(|path| path.is_file());
            files.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect::<String>()
        };
        // What was told last has had its time.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let spans = String::from_utf8_lossy(&self.collector.bytes()).into_owned();
        vec![
            ("the log", self.gateway.log()),
            ("the record", all(&audit)),
            ("the index", all(&audit.join("index"))),
            ("the metrics", self.gateway.metrics().await),
            ("the access log", fs::read_to_string(&self.access).unwrap()),
            ("the spans", spans),
        ]
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(directory) = self.access.parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

fn call(tool: &str, arguments: &serde_json::Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } })
        .to_string()
}

/// Fails if one of the secrets is in the text, as it is or in base64 as basic credentials are.
#[track_caller]
fn has_none<'s>(place: &str, text: &str, secrets: impl IntoIterator<Item = &'s str>) {
    for secret in secrets {
        assert!(!text.contains(secret), "`{secret}` is in {place}:\n{text}");
        for user in ["user:", ""] {
            let encoded = STANDARD.encode(format!("{user}{secret}"));
            assert!(!text.contains(encoded.trim_end_matches('=')), "`{secret}` is in {place} in base64:\n{text}");
        }
    }
}

/// Every way in which a client shows a key, right or wrong, once and twice.
async fn show_keys(stage: &mut Stage) {
    let [one, two] = [stage.keys[0].key.clone(), stage.keys[1].key.clone()];
    let body = call("echo", &json!({ "text": ARGUMENT }));
    let extra = [
        format!("Cookie: session={COOKIE}"),
        format!("Proxy-Authorization: Basic {}", STANDARD.encode(PROXY)),
        format!("X-Other: {OTHER}"),
        format!("X-Extra: {OTHER}"),
        format!("Traceparent: 00-{OTHER}"),
        format!("Tracestate: a={OTHER}"),
        format!("Baggage: a={OTHER}"),
        format!("Forwarded: for={OTHER}"),
        format!("Mcp-Param-X: {OTHER}"),
        format!("Last-Event-ID: {OTHER}"),
    ];
    for name in ["Authorization: Bearer ", "X-API-Key: ", "API-Key: ", "X-Team-Key: "] {
        let mut headers: Vec<&str> = extra.iter().map(String::as_str).collect();
        let (right, wrong, second) =
            (format!("{name}{one}"), format!("{name}{WRONG_KEY}"), format!("X-API-Key: {two}"));
        headers.push(&right);
        let target = format!("/mcp/a?page={ASKED}");
        assert_eq!(stage.post(&target, &headers, &body).await, 200, "{name}");
        assert_eq!(stage.post("/mcp/a", &[&wrong], &body).await, 401, "{name}");
        assert_eq!(stage.post("/mcp/a", &[&right, &second], &body).await, 400, "{name}");
        assert_eq!(stage.post("/mcp/b", &headers, &body).await, 200, "{name}");
    }
    for query in ["api_key", "key", "access_token", "token"] {
        let status = stage.post(&format!("/mcp/a?{query}={one}"), &[], &body).await;
        assert!(matches!(status, 400 | 401), "{query}: {status}");
        assert_eq!(stage.post(&format!("/mcp/a?{query}={ASKED}"), &[], &body).await / 100, 4, "{query}");
    }
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("user:{WRONG_KEY}")));
    assert_eq!(stage.post("/mcp/a", &[&basic], &body).await, 401);
    // Heads that the gate refuses, and a key where no header is.
    stage.send(format!("POST /mcp/a HTTP/1.1\r\nHost: localhost\r\nX-API-Key : {one}\r\n\r\n")).await;
    stage
        .send(format!(
            "POST /mcp/a?k={one} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {one}\r\nX-API-Key:\r\n {ASKED}\r\n\r\n"
        ))
        .await;
}

/// Everything a server can do to its client, and all that policy refuses.
async fn misbehave(stage: &mut Stage) {
    let key = format!("X-API-Key: {}", stage.keys[0].key);
    let address = stage.upstream.address();
    let said = format!("http://{address}/{PATH}?token={QUERY} {BEARER} {ENV}");
    let replies = vec![
        Reply::html(200),
        Reply::html(502),
        Reply::entity(500, "text/plain", said.clone()),
        Reply::entity(404, "text/html", said.clone()),
        Reply::unauthorized().header("X-Secret", BEARER),
        Reply::error(-32001, &said).status_code(403).header("WWW-Authenticate", &format!("Bearer realm=\"{said}\"")),
        Reply::redirect(&format!("http://{address}/{PATH}")),
        Reply::text("x")
            .header("Set-Cookie", SESSION)
            .header("Server", HEADER)
            .header("Mcp-Session-Id", SESSION)
            .header("Via", &said),
        Reply::entity(200, "application/json", said.clone()),
        Reply::wrong_id(json!(&said), json!({ "of": &said })),
        Reply::json(json!({ "text": said.repeat(60) })),
        Reply::sse(vec![Event::raw(&format!("data: {said}\n\n"))]),
        Reply::sse(vec![Event::raw(&format!(
            "data: {{\"jsonrpc\":\"2.0\",\"id\":\"{PATH}\",\"result\":\"{said}\"}}\n\n"
        ))]),
        Reply::sse(vec![Event::progress(1)]).close_after(20),
        Reply::text(&said).close_after(80),
        Reply::garbage(),
        Reply::reset(),
        Reply::never(),
        Reply::gzip(json!({})),
        Reply::raw(format!("HTTP/1.1 200 {said}\r\nX-A: {BEARER}\x01\r\nContent-Length: {BEARER}\r\n\r\n")),
        Reply::session_gone(),
    ];
    let (count, before) = (replies.len(), stage.upstream.requests_for("tools/call").len());
    stage.upstream.on_each("tools/call", replies);
    for _ in 0..count {
        stage.post("/mcp/a", &[&key], &call("echo", &json!({ "text": ARGUMENT }))).await;
    }
    assert_eq!(stage.upstream.requests_for("tools/call").len(), before + count);
    stage.upstream.on("tools/call", Reply::text("x"));
    assert_eq!(stage.post("/mcp/a", &[&key], INITIALIZE).await, 200);
    let session =
        stage.shown.rsplit("Mcp-Session-Id: ").next().and_then(|rest| rest.split("\r\n").next()).unwrap_or_default();
    assert!(!session.is_empty() && session.len() < 2000, "a session was opened: {session}");
    for (tool, arguments) in [("hidden", json!({})), ("query", json!({ "sql": ARGUMENT })), ("query", json!({}))] {
        assert_eq!(stage.post("/mcp/a", &[&key], &call(tool, &arguments)).await, 200);
    }
    for body in
        [ARGUMENT.to_owned(), format!("{{\"{ARGUMENT}\":1,\"{ARGUMENT}\":2}}"), call("echo", &json!([ARGUMENT]))]
    {
        assert_eq!(stage.post("/mcp/a", &[&key], &body).await, 400);
    }
    stage.upstream.stop().await;
    assert_eq!(stage.post("/mcp/a", &[&key], &call("echo", &json!({ "text": ARGUMENT }))).await, 502);
}

#[tokio::test]
async fn no_secret_of_either_side_ever_reaches_the_other_or_is_kept() {
    let mut stage = Stage::start().await;
    let keys: Vec<String> = stage.keys.iter().map(|key| key.key.clone()).collect();
    let of_clients = || OF_THE_CLIENT.into_iter().chain(keys.iter().map(String::as_str));
    stage.upstream.on("tools/call", Reply::text("x"));
    show_keys(&mut stage).await;
    misbehave(&mut stage).await;

    let received: String = stage
        .upstream
        .connections()
        .iter()
        .map(|connection| String::from_utf8_lossy(&connection.bytes).into_owned())
        .collect();
    for sent in [BEARER, HEADER, ENV, PATH, QUERY, ARGUMENT] {
        assert!(received.contains(sent), "the upstream gets `{sent}`");
    }
    has_none("what the upstream received", &received, of_clients());

    has_none("what clients received", &stage.shown, OF_THE_UPSTREAM.into_iter().chain(of_clients()));
    for own in [
        format!(":{}", stage.upstream.address().port()),
        "127.0.0.1".into(),
        "internal.example".into(),
        "canary-cookie".into(),
        "nginx".into(),
    ] {
        assert!(!stage.shown.contains(&own), "`{own}` of the upstream is in what clients received:\n{}", stage.shown);
    }

    stage.gateway.signal("HUP");
    stage.gateway.wait_for_log("configuration reloaded");
    // Diagnostics show the lines they are about: here those of the credential and of a header.
    let broken = config(stage.upstream.address(), &stage.keys);
    stage.gateway.reload(&broken.replace("type = \"bearer\"", "type = \"none\"").replace("X-Extra", "Host"));
    stage.gateway.wait_for_log("has mistakes");
    let kept = stage.kept().await;
    for (place, expected) in [
        (0, "this `type` does not use"),
        (0, "DEBUG"),
        (1, "argument_mismatch"),
        (1, "key_unknown"),
        (3, "portcullis_"),
        (4, "argument_mismatch"),
        (4, "key_unknown"),
    ] {
        assert!(kept[place].1.contains(expected), "{} holds `{expected}`:\n{}", kept[place].0, kept[place].1);
    }
    #[cfg(feature = "otlp")]
    assert!(kept[5].1.contains("argument_mismatch") && kept[5].1.contains("tools/call echo"), "{}", kept[5].1);
    for (place, text) in &kept {
        has_none(place, text, OF_THE_UPSTREAM.into_iter().chain(of_clients()).chain([ARGUMENT, RESULT]));
    }
}

#[tokio::test]
async fn what_an_answer_says_is_for_its_client_alone() {
    let mut stage = Stage::start().await;
    let key = format!("X-API-Key: {}", stage.keys[0].key);
    let params = json!({ "level": "info", "data": RESULT });
    let streamed = vec![
        Event::message(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params })),
        Event::raw(&format!("event: other\ndata: {RESULT}\n\n: {RESULT}\n\n")),
        Event::result(json!({ "content": RESULT })),
    ];
    let replies = vec![
        Reply::text(RESULT),
        Reply::error(-32000, RESULT),
        Reply::sse(streamed),
        Reply::sse(vec![Event::raw(&format!("data: {RESULT}\n\n"))]),
    ];
    stage.upstream.on_each("tools/call", replies);
    for _ in 0..4 {
        assert_eq!(stage.post("/mcp/a", &[&key], &call("echo", &json!({ "text": ARGUMENT }))).await, 200);
    }
    // A comment and an event of another type are for nobody.
    assert_eq!(stage.shown.matches(RESULT).count(), 4, "{}", stage.shown);
    for (place, text) in stage.kept().await {
        has_none(place, &text, [ARGUMENT, RESULT]);
    }
}

#[test]
fn commands_show_no_secret_of_the_configuration_be_it_right_or_wrong() {
    let keys = [gateway::make_key("one"), gateway::make_key("two")];
    let directory = gateway::fresh_directory();
    let path = directory.join("portcullis.toml");
    let file = path.to_str().unwrap();
    // No variable can be set for a command here, so this one comes from a file.
    fs::write(directory.join("secret"), ENV).unwrap();
    let right =
        config("127.0.0.1:9".parse().unwrap(), &keys).replace("${env:PORTCULLIS_TEST_CANARY}", "${file:secret}");
    let wrongs = [
        ("timeout_ms = 300", "timeout_ms = \"300\""),
        ("type = \"bearer\"", "type = \"none\""),
        ("type = \"bearer\"", "type = \"carrier\""),
        ("X-Extra = ", "Host = "),
        ("X-Extra = \"", "X-Extra = \"\\u0000"),
        ("secret = \"canary", "secrete = \"canary"),
        ("http://127.0.0.1:9/", "ftp://127.0.0.1:9/"),
        ("http://127.0.0.1:9/", "http://user:canary-of-password-9d2e@127.0.0.1:9/"),
        ("answer_bytes_max = 5000", "answer_bytes_max = 5000\nurl = \"http://x/canary-of-path-51d0\""),
        ("headers = {", "headers = [ {"),
        ("digest = \"", "digest = \"canary-of-bearer-4f1c"),
        ("${file:secret}", "canary-of-environment-c0de${file:nowhere}"),
    ];
    // A diagnostic shows the line it is about, so a URL's path may be in it.
    let all =
        || OF_THE_UPSTREAM.into_iter().filter(|secret| *secret != PATH).chain(keys.iter().map(|key| key.key.as_str()));
    for (before, after) in [("", "")].iter().chain(&wrongs) {
        let text = if before.is_empty() { right.clone() } else { right.replacen(before, after, 1) };
        assert!(before.is_empty() || text != right, "{before}");
        fs::write(&path, text).unwrap();
        let explain = [
            "explain",
            "--config",
            file,
            "--key",
            "one",
            "--server",
            "a",
            "--tool",
            "query",
            "--arguments",
            r#"{"sql":"SELECT"}"#,
        ];
        for arguments in [&["check", "--config", file][..], &explain, &[&explain[..], &["--json"]].concat()] {
            let (code, out, error) = gateway::run(arguments);
            assert_eq!(code == Some(0), before.is_empty(), "{after}: {arguments:?}: {code:?} {out} {error}");
            has_none(&format!("`{}` after `{after}`", arguments[0]), &format!("{out}{error}"), all());
        }
    }
    fs::remove_dir_all(directory).unwrap();
}
