//! A client of HTTP+SSE and a server of Streamable HTTP: the gateway asks in the client's place.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::clock::Clock;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;

use super::INITIALIZE;
use super::INITIALIZED;
use super::LIST;
use super::SECOND;
use super::STEP;
use super::Stage;
use super::call;
use super::reply;
use super::seal_table;

/// As many calls of one client are under way at once.
const CALLS_MAX: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_from_its_beginning_to_its_end() {
    let stage = Stage::streamable().await;
    let mut client = stage.client().await;
    assert!(client.endpoint.starts_with("/mcp/a/message?sessionId="));
    assert_eq!(stage.upstream.requests().len(), 0, "the server hears of the client when that says something");
    let initialized = client.ask(INITIALIZE).await;
    assert_eq!((&initialized["id"], &initialized["result"]["protocolVersion"]), (&json!(0), &json!("2025-06-18")));
    assert_eq!(client.post(INITIALIZED).await.status, 202);
    stage.upstream.on("tools/list", Reply::json(json!({ "tools": [{ "name": "hidden" }, { "name": "echo" }] })));
    assert_eq!(client.ask(LIST).await["result"]["tools"], json!([{ "name": "echo" }]));
    stage.upstream.on(
        "tools/call",
        Reply::sse(vec![Event::progress(1), Event::progress(2).after(STEP), Event::result(json!({})).after(STEP)]),
    );
    assert_eq!(client.ask(&call(7, "echo")).await["params"], json!({ "progressToken": "p7", "progress": 1 }));
    assert_eq!(client.stream.message().await["params"]["progress"], 2);
    assert_eq!(client.stream.message().await, json!({ "jsonrpc": "2.0", "id": 7, "result": {} }));
    let denied = client.ask(&call(8, "hidden")).await;
    assert_eq!((&denied["id"], &denied["error"]["code"]), (&json!(8), &json!(-32602)));
    let session = stage.upstream.requests_for("tools/list").remove(0).header("mcp-session-id").unwrap();
    assert!(session.starts_with("upstream-session-"));
    for request in stage.upstream.requests() {
        let is_first = request.method() == "initialize";
        let expected = if is_first { (None, None) } else { (Some(session.clone()), Some("2025-06-18".to_owned())) };
        assert_eq!((request.header("mcp-session-id"), request.header("mcp-protocol-version")), expected, "{request:?}");
        assert_eq!((request.header("x-api-key"), request.line().contains("sessionId")), (None, false));
    }
    drop(client);
    let ended = stage.upstream.wait_for("DELETE", 1).await.remove(0);
    assert_eq!(
        (ended.header("mcp-session-id"), ended.header("mcp-protocol-version")),
        (Some(session), Some("2025-06-18".into()))
    );
    let record = stage.gateway.wait_for_record("intent", |record| record["http_method"] == "DELETE");
    let result = stage.gateway.wait_for_record("result", |result| result["intent"] == record["seq"]);
    assert_eq!((&record["transport"], &result["outcome"]), (&json!("sse"), &json!("ok")), "{result}");
    let listed = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/list");
    let result = stage.gateway.wait_for_record("result", |result| result["intent"] == listed["seq"]);
    assert_eq!((&listed["transport"], &listed["http_method"]), (&json!("sse"), &json!("POST")));
    assert_eq!((&result["outcome"], &result["status"]), (&json!("ok"), &json!(202)), "{result}");
    let called = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/call");
    let result = stage.gateway.wait_for_record("result", |result| result["intent"] == called["seq"]);
    assert_eq!((&result["outcome"], &result["status"]), (&json!("ok"), &json!(202)), "{result}");
    stage.has_streams("sse", 0.0).await;
    stage.has_streams("answer", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_of_the_server_goes_to_the_stream_and_its_answer_to_the_server() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    stage.upstream.on("tools/call", Reply::elicitation());
    let asked = client.ask(&call(3, "echo")).await;
    assert_eq!((&asked["method"], &asked["id"]), (&json!("elicitation/create"), &json!("ask-1")));
    assert_eq!(client.post(&reply("ask-1", "blue")).await.status, 202);
    assert_eq!(client.stream.message().await["result"]["content"][0]["text"], "blue");
    let received = stage.upstream.requests_for("response").remove(0);
    assert_eq!(
        received.header("mcp-session-id"),
        stage.upstream.requests_for("tools/call")[0].header("mcp-session-id")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_of_its_own_accord_comes_by_a_stream_that_the_gateway_opens_and_keeps() {
    let stage = Stage::streamable().await;
    stage.upstream.on("GET", Reply::standing(vec![]));
    let mut client = stage.client().await;
    client.ask(INITIALIZE).await;
    assert_eq!(stage.upstream.requests_for("GET").len(), 0, "not before the client is ready");
    for _ in 0..3 {
        assert_eq!(client.post(INITIALIZED).await.status, 202);
    }
    let stream = stage.upstream.stream(0).await;
    let session = stage.upstream.requests_for("notifications/initialized")[0].header("mcp-session-id");
    assert_eq!(
        (stream.request.header("mcp-session-id"), stream.request.header("last-event-id")),
        (session.clone(), None)
    );
    assert_eq!(stream.request.header("accept").as_deref(), Some("text/event-stream"));
    stream.push(Event::notification("notifications/tools/list_changed", json!({})));
    assert_eq!(client.stream.message().await["method"], "notifications/tools/list_changed");
    stream.push(Event::ask("s-1", "sampling/createMessage", json!({ "messages": [], "maxTokens": 1 })));
    assert_eq!(client.stream.message().await["id"], "s-1");
    assert_eq!(client.post(&reply("s-1", "x")).await.status, 202);
    assert_eq!(stage.upstream.wait_for("response", 1).await[0].json()["id"], "s-1");
    stream
        .push(Event::notification("notifications/message", json!({ "level": "info", "data": 1 })).id("ev-7").retry(50));
    assert_eq!(client.stream.message().await["params"]["data"], 1);
    assert_eq!(
        stage.upstream.requests_for("GET").len(),
        1,
        "one is enough, however often the client says that it is ready"
    );
    // A stream that ends is taken up where it ended, and one that breaks too.
    stream.end();
    let second = stage.upstream.stream(1).await;
    assert_eq!(
        (second.request.header("last-event-id").as_deref(), second.request.header("mcp-session-id")),
        (Some("ev-7"), session)
    );
    second.push(Event::notification("notifications/message", json!({ "data": 2 })));
    assert_eq!(client.stream.message().await["params"]["data"], 2);
    second.reset();
    let third = stage.upstream.stream(2).await;
    assert_eq!(third.request.header("last-event-id").as_deref(), Some("ev-7"), "the last that had an id");
    third.push(Event::notification("notifications/message", json!({ "data": 3 })));
    assert_eq!(client.stream.message().await["params"]["data"], 3);
    drop(client);
    third.ended().await;
    stage.upstream.wait_for("DELETE", 1).await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(stage.upstream.requests_for("GET").len(), 3, "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_answer_becomes_one_event_for_every_reader_of_lines() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    let text = "one\u{2028}data: two\u{2029}\u{85}three";
    stage.upstream.on("tools/call", Reply::text(text));
    assert_eq!(client.post(&call(3, "echo")).await.status, 202);
    let event = client.stream.event().await.unwrap();
    assert!(!event.contains(['\u{2028}', '\u{2029}', '\u{85}']), "some clients end a line at these: {event:?}");
    let data = event.strip_prefix("data: ").unwrap();
    let message: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(message["result"]["content"][0]["text"], text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_such_streams_is_not_asked_again_and_the_client_not_bothered() {
    let stage = Stage::streamable().await;
    let refusal =
        json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "Method not allowed." } });
    stage.upstream.on("GET", Reply::message(refusal).status_code(405));
    let mut client = stage.initialized().await;
    stage.upstream.wait_for("GET", 1).await;
    assert!(client.stream.is_silent_for(SECOND * 2).await);
    assert_eq!(stage.upstream.requests_for("GET").len(), 1);
    assert_eq!(client.ask(LIST).await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_stream_ends_early_is_fetched_where_the_server_says() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    stage.upstream.on("tools/call", Reply::to_be_continued("ev-1", 50));
    let rest =
        vec![Event::progress(1).id("ev-2"), Event::result(json!({ "tools": [{ "name": "hidden" }] })).id("ev-3")];
    stage.upstream.on("GET ev-1", Reply::standing(rest));
    // What only tells where to go on is no message, and some clients of HTTP+SSE take it for a broken one.
    let event = client_event(&mut client, &call(5, "echo")).await;
    assert!(
        event.contains("notifications/progress") && !event.contains("ev-") && !event.contains("retry"),
        "{event:?}"
    );
    let answer = client.stream.event().await.unwrap();
    assert!(answer.contains("\"id\":5") && answer.contains("hidden"), "no list was asked for: {answer}");
    assert!(!answer.contains("ev-3"));
    let resumed = stage.upstream.requests_for("GET ev-1").remove(0);
    assert_eq!(resumed.header("mcp-session-id"), stage.upstream.requests_for("tools/call")[0].header("mcp-session-id"));
    stage.upstream.stream(0).await.ended().await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(stage.upstream.requests_for("GET ev-3").len(), 0, "what was answered is not gone on with");
    // A stream that can be gone on with once more, and a list that is one.
    stage.upstream.on("tools/list", Reply::to_be_continued("li-1", 10));
    stage.upstream.on("GET li-1", Reply::to_be_continued("li-2", 10));
    let list = Event::result(json!({ "tools": [{ "name": "hidden" }, { "name": "echo" }] }));
    stage.upstream.on("GET li-2", Reply::sse(vec![list]));
    assert_eq!(client.ask(LIST).await["result"]["tools"], json!([{ "name": "echo" }]));
}

async fn client_event(client: &mut super::Client, body: &str) -> String {
    assert_eq!(client.post(body).await.status, 202);
    let piece = tokio::time::timeout(super::PATIENCE, client.stream.piece()).await.expect("in time");
    piece.expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_cannot_be_gone_on_with_ends_in_an_error() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    for (id, reply) in (10..).zip([
        Reply::status(405),
        Reply::session_gone(),
        Reply::reset(),
        Reply::sse(vec![]),
        Reply::json(json!({})),
        Reply::sse(vec![Event::raw("data: {\"jsonrpc\":\"2.0\"\n")]),
    ]) {
        stage.upstream.on("tools/call", Reply::to_be_continued("ev-1", 10));
        stage.upstream.on("GET ev-1", reply);
        let failed = client.ask(&call(id, "echo")).await;
        assert_eq!((&failed["id"], failed["error"]["code"].is_i64()), (&json!(id), true), "{failed}");
    }
    stage.upstream.on("tools/call", Reply::text("fine"));
    assert_eq!(client.ask(&call(20, "echo")).await["result"]["content"][0]["text"], "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_the_server_are_answers_on_the_stream() {
    let stage = Stage::streamable_with("", "timeout_ms = 300").await;
    let mut client = stage.initialized().await;
    for (id, reply) in (10..).zip([
        Reply::html(500),
        Reply::reset(),
        Reply::never(),
        Reply::accepted(),
        Reply::sse(vec![Event::progress(1)]).reset_after(4),
        Reply::sse(vec![]),
        Reply::wrong_id(json!(99), json!({})),
        Reply::unauthorized(),
        Reply::error(-32000, "busy"),
    ]) {
        stage.upstream.on("tools/call", reply);
        let mut failed = client.ask(&call(id, "echo")).await;
        if failed["method"] == "notifications/progress" {
            failed = client.stream.message().await;
        }
        assert_eq!((&failed["id"], failed["error"]["code"].is_i64()), (&json!(id), true), "{failed}");
    }
    assert_eq!(client.ask(LIST).await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_server_lost_ends_the_client_s_stream_after_it_was_told() {
    let stage = Stage::streamable().await;
    stage.upstream.on("tools/call", Reply::session_gone());
    let mut client = stage.initialized().await;
    let failed = client.ask(&call(3, "echo")).await;
    assert_eq!((&failed["id"], failed["error"]["code"].is_i64()), (&json!(3), true), "{failed}");
    assert!(client.stream.ends_within(SECOND).await);
    assert_eq!(client.post(LIST).await.status, 404);
    stage.upstream.on("notifications/cancelled", Reply::session_gone());
    let mut client = stage.initialized().await;
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    assert_eq!(client.post(cancelled).await.status, 404);
    assert!(client.stream.ends_within(SECOND).await);
    // A server that only does not know streams may say so in the same words.
    stage.upstream.on("GET", Reply::session_gone());
    let mut client = stage.initialized().await;
    assert!(client.stream.is_silent_for(STEP * 3).await);
    assert_eq!(client.ask(LIST).await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_under_way_together_up_to_a_limit_and_answered_in_any_order() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    stage.upstream.on("tools/call slow", Reply::text("slow").delay(SECOND * 2));
    for id in 0..CALLS_MAX {
        assert_eq!(client.post(&call(100 + id, "slow")).await.status, 202);
    }
    let beyond = client.ask(&call(9, "echo")).await;
    assert_eq!((&beyond["id"], &beyond["error"]["code"]), (&json!(9), &json!(-32603)), "{beyond}");
    let mut answered = BTreeSet::new();
    for _ in 0..CALLS_MAX {
        let answer = client.stream.message().await;
        assert_eq!(answer["result"]["content"][0]["text"], "slow");
        answered.insert(answer["id"].as_u64().unwrap());
    }
    assert_eq!(answered, (100..100 + CALLS_MAX).collect());
    assert_eq!(stage.upstream.requests_for("tools/call").len() as u64, CALLS_MAX);
    stage.upstream.on("tools/call late", Reply::text("late").delay(STEP * 3));
    assert_eq!(client.post(&call(1, "late")).await.status, 202);
    assert_eq!(client.ask(&call(2, "echo")).await["id"], 2);
    assert_eq!(client.stream.message().await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_calls_along() {
    let stage = Stage::streamable().await;
    stage.upstream.on("tools/call", Reply::never());
    let client = stage.initialized().await;
    assert_eq!(client.post(&call(3, "echo")).await.status, 202);
    let under_way = stage.upstream.wait_for("tools/call", 1).await.remove(0);
    let left = Clock::start();
    drop(client);
    stage.upstream.wait_closed(under_way.connection).await;
    assert!(left.elapsed() < SECOND * 2);
    let intent = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/call");
    let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!(result["outcome"], "client_gone");
    stage.upstream.wait_for("DELETE", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_s_node_is_the_only_one_that_takes_its_messages() {
    let stage = Stage::of(crate::support::upstream::Upstream::start().await, "", "", &seal_table());
    let elsewhere = stage.second_node();
    let mut client = stage.initialized().await;
    let refused = client.post_at(elsewhere.data, LIST).await;
    assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (404, Some(-32600), &json!(1)));
    assert_eq!(client.ask(LIST).await["id"], 1);
    let endpoint = client.endpoint.clone();
    drop(client);
    stage.upstream.wait_for("DELETE", 1).await;
    assert_eq!(stage.post(&endpoint, &[], LIST).await.status, 404, "the stream was the session");
    assert_eq!(stage.upstream.requests_for("tools/list").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_not_taken_where_the_gateway_asks_in_the_client_s_place() {
    let stage = Stage::streamable().await;
    let client = stage.initialized().await;
    let batch = format!("[{LIST}]");
    let version = "MCP-Protocol-Version: 2025-03-26";
    for headers in [&[][..], &[version]] {
        let refused = stage.post(&client.endpoint, headers, &batch).await;
        assert_eq!((refused.status, refused.code()), (400, Some(-32600)), "{}", refused.text());
    }
    assert_eq!(stage.upstream.requests_for("*").len(), stage.upstream.requests().len());
    assert!(stage.upstream.requests().iter().all(|request| request.method() != "tools/list"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_sessions_is_served_and_nothing_is_ended_on_it() {
    let stage = Stage::streamable().await;
    let result =
        json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
    stage.upstream.on("initialize", Reply::json(result));
    let mut client = stage.client().await;
    assert_eq!(client.ask(INITIALIZE).await["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(client.post(INITIALIZED).await.status, 202);
    assert_eq!(client.ask(LIST).await["id"], 1);
    let listed = stage.upstream.requests_for("tools/list").remove(0);
    assert_eq!((listed.header("mcp-session-id"), listed.header("mcp-protocol-version")), (None, None));
    drop(client);
    stage.has_streams("sse", 0.0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.upstream.requests_for("DELETE").len(), 0);
}
