//! Headers that say how a request was decided: to whom they are shown, what they say, and what they never say.

use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const ASKED: &str = "X-Portcullis-Debug: 1";

fn call(tool: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
        .to_string()
}

/// The debug headers of an answer, in their order, without those whose values differ from run to run.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    lines.filter_map(|(name, value)| Some((name.strip_prefix("x-portcullis-")?.to_owned(), value))).collect()
}

fn is(told: &[(String, String)], name: &str, expected: &str) -> bool {
    told.iter().any(|(known, value)| known == name && value == expected)
}

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    /// The header with the key of who may ask.
    key: String,
    /// That of who may not.
    other: String,
}

impl Stage {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        upstream.on("tools/call", Reply::text("done"));
        upstream.on("tools/call stream", Reply::sse(vec![Event::progress(1), Event::result(json!({ "content": [] }))]));
        upstream.on("tools/call broken", Reply::garbage());
        upstream.on("GET", Reply::standing(Vec::new()));
        let (dev, ci) = (gateway::make_key("dev"), gateway::make_key("ci"));
        let config = format!(
            "[servers.a]\nurl = \"{}\"\nblocked_tools = [\"never\"]\n[servers.b]\nurl = \"{}\"\n\
         [keys.dev]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\ndebug_headers = true\nmay_mint = true\n\
         [keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n[agents.helper]\n",
            upstream.url(),
            upstream.url(),
            dev.digest,
            ci.digest
        );
        let gateway = Gateway::start(&config);
        let (key, other) = (format!("X-API-Key: {}", dev.key), format!("X-API-Key: {}", ci.key));
        Self { upstream, gateway, key, other }
    }

    /// Calls a tool as who may ask, and asks.
    async fn asked(&self, path: &str, tool: &str) -> Answer {
        self.gateway.post(path, &[&self.key, ASKED], &call(tool)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_and_asks_is_told_who_it_was_and_what_decided() {
    let stage = Stage::start().await;
    let answer = stage.asked("/mcp/a", "x").await;
    let found = told(&answer);
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("identity", "key:dev"),
        ("credential", "key"),
        ("decision", "allowed"),
        ("reason", "key_servers"),
        ("level", "key"),
        ("rule", "keys.dev.mcp_servers"),
        ("server", "a"),
        ("configuration", "1"),
    ] {
        assert!(is(&found, name, value), "{name}: {found:?}");
    }
    let intent = stage.gateway.wait_for_record("intent", |record| record["tool"] == "x");
    assert!(is(&found, "record", &intent["seq"].to_string()), "{found:?}");
    let endpoint = found.iter().find(|(name, _)| name == "endpoint").unwrap();
    let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!(endpoint.1, format!("{}*", &result["endpoint"].as_str().unwrap()[..4]), "masked");
    assert!(
        !answer.head.contains(&stage.upstream.address().port().to_string()),
        "no address of a server: {}",
        answer.head
    );

    // On event streams, answers and standing ones.
    let stream = stage.asked("/mcp/a", "stream").await;
    assert!(stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    assert!(is(&told(&stream), "rule", "keys.dev.mcp_servers"), "{:?}", told(&stream));
    let mut standing = Connection::open(stage.gateway.data).await;
    let get = "GET /mcp/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
    standing.write(format!("{get}{}\r\n{ASKED}\r\n\r\n", stage.key)).await;
    let head = standing.read_until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("x-portcullis-identity: key:dev"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_it_too_before_and_after_something_was_sent() {
    let stage = Stage::start().await;
    for (path, tool, decision, reason, rule) in [
        ("/mcp/a", "never", "refused", "tool_blocked", Some("servers.a.blocked_tools[0]")),
        ("/mcp/b", "x", "refused", "server_not_granted", Some("keys.dev.mcp_servers")),
        ("/mcp/nowhere", "x", "refused", "server_unknown", None),
        ("/mcp/a", "broken", "refused", "protocol", Some("keys.dev.mcp_servers")),
    ] {
        let found = told(&stage.asked(path, tool).await);
        let of_rule = found.iter().find(|(name, _)| name == "rule").map(|(_, rule)| rule.as_str());
        assert_eq!(of_rule, rule, "{path} {tool}: {found:?}");
        assert!(is(&found, "decision", decision) && is(&found, "reason", reason), "{path} {tool}: {found:?}");
        assert!(found.iter().any(|(name, _)| name == "record"), "{path} {tool}: {found:?}");
    }
    let refused = stage.gateway.wait_for_record("refused", |record| record["tool"] == "never");
    let answer = stage.asked("/mcp/a", "never").await;
    assert!(
        told(&answer)
            .iter()
            .any(|(name, seq)| name == "record" && seq.parse::<u64>().unwrap() > refused["seq"].as_u64().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_told_and_nothing_that_is_not_asked_for() {
    let stage = Stage::start().await;
    let Stage { upstream, gateway, key, other } = &stage;
    let child = gateway.post("/v1/mcp/keys", &[key], r#"{"agent":"helper"}"#).await;
    assert!(told(&child).is_empty());
    let child = format!("X-API-Key: {}", child.json()["key"].as_str().unwrap());
    for headers in [
        vec![key.as_str()],
        vec![key.as_str(), "X-Portcullis-Debug: 0"],
        vec![other.as_str(), ASKED],
        vec![child.as_str(), ASKED],
        vec!["X-API-Key: wrong", ASKED],
        vec![ASKED],
    ] {
        for tool in ["x", "stream", "never"] {
            let answer = gateway.post("/mcp/a", &headers, &call(tool)).await;
            assert_eq!(told(&answer), [], "{headers:?} {tool}");
        }
    }
    for request in upstream.requests() {
        assert!(request.headers("x-portcullis-debug").is_empty(), "a server is not told that somebody asks");
    }
    let options = "OPTIONS /mcp/a HTTP/1.1\r\nHost: localhost\r\nX-Portcullis-Debug: 1\r\n";
    assert_eq!(
        told(&client::send(gateway.data, format!("{options}{key}\r\n\r\n")).await)
            .iter()
            .filter(|(name, _)| name == "decision")
            .count(),
        0
    );
}
