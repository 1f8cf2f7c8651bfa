//! Vectors 104 to 135: caching, authorization and HTTP, as far as other tests do not hold them already.

use serde_json::json;

use crate::e2e::vectors::stage::Stage;
use crate::e2e::vectors::stage::call;
use crate::e2e::vectors::stage::modern_request;
use crate::e2e::vectors::stage::notification;
use crate::e2e::vectors::stage::request;
use crate::support::client;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;

/// How long the two streams of the next test are silent: longer than a gateway may be.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
pub(super) async fn an_idle_stream_is_kept_alive_by_comments() {
    let stage = Stage::with("sse_read_timeout_ms = 120000").await;
    let params = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": "$id"}, "notifications": {}});
    let acknowledged = Event::message(notification("notifications/subscriptions/acknowledged", params));
    let silent = Event::comment("late").after(SILENCE);
    stage.upstream.on("subscriptions/listen", Reply::sse(vec![acknowledged, silent.clone()]));
    let first = Event::message(notification("notifications/tools/list_changed", json!({})));
    stage.upstream.on("GET", Reply::sse(vec![first, silent]));
    let body = modern_request("l", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let session = stage.owner().session("2025-11-25").await;
    let (mut listening, mut standing) = (stage.owner().modern(&body).sent(&body).await, session.listen().await);
    listening.read_until("acknowledged").await;
    standing.read_until("list_changed").await;
    // A comment line of its own chunk: nothing a client hands on.
    tokio::join!(listening.read_until("\r\n:"), standing.read_until("\r\n:"));
}

#[tokio::test]
pub(super) async fn no_refusal_looks_like_another_era() {
    let stage = Stage::start().await;
    let (owner, session) = (stage.owner(), stage.owner().session("2025-06-18").await);
    let evil = modern_request(1, "tools/call", call("evil"));
    let query = json!({"name": "query", "arguments": {"sql": "DROP"}});
    let query_2026 = modern_request(1, "tools/call", query.clone());
    let sent = [
        session.text(&request(1, "tools/call", call("evil"))),
        session.text(&request(1, "tools/call", query)),
        session.text(&request(1, "no/such", json!({}))),
        session.text(&notification("notifications/no_such", json!({})).to_string()),
        session.text("[]"),
        session.text("{"),
        owner.modern(&evil).text(&evil),
        owner.modern(&query_2026).text(&query_2026),
        owner.modern(&evil).without("Mcp-Name").text(&evil),
        owner.on("/mcp/closed").text(&request(1, "initialize", json!({}))),
        owner.on("/mcp/closed").text(&request(1, "tools/call", call("echo"))),
        owner.on("/mcp/none").text(&request(1, "initialize", json!({}))),
        owner.on("/mcp/none").modern(&evil).text(&evil),
        owner.on("/nowhere").text(&evil),
        owner.without("Authorization").text(&request(1, "initialize", json!({}))),
        owner.and("Origin: https://evil.example").text(&request(1, "initialize", json!({}))),
        owner.and("Mcp-Session-Id: x").text(&request(1, "ping", json!({}))),
        owner.on("/mcp/closed").listening(),
        owner.on("/mcp/none/sse").listening(),
        session.listening(),
        session.text(&request(1, "ping", json!({}))).replacen("POST", "PUT", 1),
    ];
    let before = stage.upstream.requests().len();
    for text in &sent {
        let answer = client::send(stage.gateway.data, text).await;
        let line = text.lines().next().unwrap();
        assert_eq!(answer.header("content-type"), Some("application/json"), "{line}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["jsonrpc"], "2.0", "{line}: {body}");
        assert!(body["error"]["code"].is_i64() && body["error"]["message"].is_string(), "{line}: {body}");
    }
    let asked: Vec<String> = stage.upstream.requests().iter().skip(before).map(|request| request.method()).collect();
    assert_eq!(asked, ["GET"], "a server without a stream says so itself");
}

#[tokio::test]
pub(super) async fn a_busy_server_is_told_so_with_a_time_to_wait() {
    let stage = Stage::start().await;
    for status in [429, 503] {
        stage.upstream.on("*", Reply::status(status).header("Retry-After", "7"));
        let session = stage.owner().ask(1, "tools/call", call("echo")).await;
        let modern = stage.owner().ask_modern(1, "tools/call", call("echo")).await;
        for answer in [session, modern] {
            crate::e2e::vectors::stage::is_error(&answer, status, -32603, 1);
            let wait = answer.header("retry-after").expect("a time to wait");
            assert!(wait.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{wait}");
        }
    }
}
