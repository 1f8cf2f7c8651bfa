//! Requests of servers that their clients may not be asked, wherever they come from.

use serde_json::Value;
use serde_json::json;

use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Request;

use super::INITIALIZE;
use super::Stage;
use super::Stream;
use super::call;
use super::get;

const DENIED: &str = "client_requests = { sampling = \"deny\" }";

fn sampling(id: &str) -> Event {
    Event::ask(id, "sampling/createMessage", json!({ "messages": [], "maxTokens": 1 }))
}

fn by_url(id: &str, url: &str) -> Event {
    let params = json!({ "mode": "url", "elicitationId": "e", "message": "look", "url": url });
    Event::ask(id, "elicitation/create", params)
}

fn last() -> Event {
    Event::notification("notifications/message", json!({ "level": "info", "data": "last" }))
}

/// What the server was told.
fn errors(requests: &[Request]) -> Vec<(Value, Value)> {
    requests.iter().map(|request| (request.json()["id"].clone(), request.json()["error"]["code"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_stream_of_an_http_sse_server() {
    let stage = Stage::sse_with("", DENIED, "").await;
    let mut client = stage.client().await;
    let server = stage.upstream.stream(0).await;
    for (number, asked) in [
        sampling("s-1"),
        by_url("u-1", "http://evil"),
        by_url("u-2", "https://user@good.example"),
        by_url("u-3", "javascript:alert(1)"),
    ]
    .into_iter()
    .enumerate()
    {
        server.push(asked);
        stage.upstream.wait_for("response", number + 1).await;
    }
    server.push(by_url("u-4", "https://good.example/form")).push(last());
    assert_eq!(client.stream.message().await["id"], "u-4", "the others are not heard of");
    assert_eq!(client.stream.message().await["params"]["data"], "last");
    let told = stage.upstream.requests_for("response");
    let expected = ["s-1", "u-1", "u-2", "u-3"].map(|id| (json!(id), json!(-32601)));
    assert_eq!(errors(&told), expected);
    assert!(told.iter().all(|request| request.line() == "POST /messages?session=sse-session-00000 HTTP/1.1"));
    declined_on_record(&stage, "sse");
    // What the client is told of its own capabilities.
    client.ask(INITIALIZE).await;
    let sent = stage.upstream.requests_for("initialize").remove(0).json();
    assert_eq!(sent["params"]["capabilities"], json!({ "elicitation": {} }));
}

#[track_caller]
fn declined_on_record(stage: &Stage, transport: &str) {
    let stated = |record: &Value| record["http_method"] == "POST" && record["rpc_method"].is_null();
    let intent = stage.gateway.wait_for_record("intent", stated);
    let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!((&intent["transport"], &result["outcome"]), (&json!(transport), &json!("ok")), "{intent} {result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_standing_stream() {
    let stage = Stage::streamable_with("", DENIED).await;
    stage.upstream.on("GET", Reply::standing(vec![]));
    let opened = stage.post("/mcp/a", &[], INITIALIZE).await;
    let header = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    let mut standing = Stream::open(stage.gateway.data, get("/mcp/a", &[&header, &stage.key()])).await;
    let server = stage.upstream.stream(0).await;
    server.push(sampling("s-1"));
    let told = stage.upstream.wait_for("response", 1).await;
    server.push(by_url("u-1", "http://evil/x"));
    stage.upstream.wait_for("response", 2).await;
    server.push(last());
    assert_eq!(standing.message().await["params"]["data"], "last");
    assert_eq!(told[0].header("mcp-session-id"), server.request.header("mcp-session-id"));
    let expected = ["s-1", "u-1"].map(|id| (json!(id), json!(-32601)));
    assert_eq!(errors(&stage.upstream.requests_for("response")), expected);
    declined_on_record(&stage, "streamable-http");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_stream_that_the_gateway_listens_to_for_an_http_sse_client() {
    let stage = Stage::streamable_with("", DENIED).await;
    stage.upstream.on("GET", Reply::standing(vec![]));
    let mut client = stage.initialized().await;
    let server = stage.upstream.stream(0).await;
    server.push(sampling("s-1"));
    stage.upstream.wait_for("response", 1).await;
    server.push(last());
    assert_eq!(client.stream.message().await["params"]["data"], "last");
    stage.upstream.on("tools/call", Reply::sse(vec![sampling("s-2"), Event::result(json!({}))]));
    assert_eq!(client.ask(&call(4, "echo")).await["id"], 4, "the call goes on with what the gateway answered");
    let expected = ["s-1", "s-2"].map(|id| (json!(id), json!(-32601)));
    assert_eq!(errors(&stage.upstream.requests_for("response")), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_stream_of_an_http_sse_server_for_a_client_of_streamable_http() {
    let stage = Stage::sse_with("", DENIED, "").await;
    let opened = stage.post("/mcp/a", &[], INITIALIZE).await;
    let header = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    let mut standing = Stream::open(stage.gateway.data, get("/mcp/a", &[&header, &stage.key()])).await;
    let server = stage.upstream.stream(0).await;
    server.push(sampling("s-1"));
    let told = stage.upstream.wait_for("response", 1).await;
    assert_eq!(errors(&told), [(json!("s-1"), json!(-32601))]);
    assert_eq!(told[0].line(), "POST /messages?session=sse-session-00000 HTTP/1.1");
    server.push(last());
    assert_eq!(standing.message().await["params"]["data"], "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_configuration_in_force_and_not_that_of_the_stream_s_beginning() {
    let keys = format!("{DENIED}\nauth = {{ type = \"bearer\", secret = \"before\" }}");
    let stage = Stage::sse_with("", &keys, "").await;
    let mut client = stage.client().await;
    let server = stage.upstream.stream(0).await;
    stage.reload("\"before\"", "\"after\"");
    server.push(sampling("s-1"));
    let told = stage.upstream.wait_for("response", 1).await;
    assert_eq!(told[0].header("authorization").as_deref(), Some("Bearer after"));
    let stated = |record: &Value| record["http_method"] == "POST" && record["rpc_method"].is_null();
    assert_eq!(stage.gateway.wait_for_record("intent", stated)["snapshot"], "2");
    server.push(last());
    assert_eq!(client.stream.message().await["params"]["data"], "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_can_be_declined_at_once_are_dropped_and_not_relayed() {
    let stage = Stage::sse_with("", DENIED, "").await;
    stage.upstream.on("response", Reply::never());
    let mut client = stage.client().await;
    let server = stage.upstream.stream(0).await;
    for number in 0..20 {
        server.push(sampling(&format!("s-{number}")));
    }
    server.push(last());
    assert_eq!(client.stream.message().await["params"]["data"], "last");
    stage.upstream.wait_for("response", 8).await;
    tokio::time::sleep(super::STEP * 3).await;
    assert_eq!(stage.upstream.requests_for("response").len(), 8);
}
