//! Vectors 40 to 69: sessions, the older transports, ids and what belongs together.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::time::sleep;

use crate::e2e::vectors::stage::Caller;
use crate::e2e::vectors::stage::Stage;
use crate::e2e::vectors::stage::call;
use crate::e2e::vectors::stage::is_error;
use crate::e2e::vectors::stage::is_result;
use crate::e2e::vectors::stage::modern_request;
use crate::e2e::vectors::stage::notification;
use crate::e2e::vectors::stage::request;
use crate::support::client;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const STEP: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
pub(super) async fn a_session_id_is_printable_unguessable_and_its_owners() {
    let stage = Stage::start().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let answer = stage.owner().initialize("2025-06-18", json!({})).await;
        let id = answer.header("mcp-session-id").unwrap().to_owned();
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) && id.len() >= 32, "{id}");
        let upstream = format!("upstream-session-{}", stage.upstream.requests().last().unwrap().connection);
        assert!(!id.contains("upstream-session"), "{id} holds {upstream}");
        ids.push(id);
    }
    let mut distinct = ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "one upstream session id never gives the same token twice");
    let session = format!("Mcp-Session-Id: {}", ids[0]);
    is_result(&stage.owner().and(&session).ask(1, "ping", json!({})).await, 1);
    is_error(&stage.stranger().and(&session).ask(1, "ping", json!({})).await, 404, -32600, 1);
}

#[tokio::test]
pub(super) async fn whether_a_session_is_needed_is_for_the_server_to_say() {
    let stage = Stage::start().await;
    is_result(&stage.owner().ask(3, "tools/list", json!({})).await, 3);
    assert_eq!(stage.upstream.requests_for("tools/list")[0].headers("mcp-session-id"), [""; 0]);
    stage.upstream.on("tools/list", Reply::error(-32600, "Missing session ID").status_code(400));
    is_error(&stage.owner().ask(4, "tools/list", json!({})).await, 400, -32600, 4);
    assert_eq!(stage.count("initialize"), 0, "none is opened behind a client's back");
}

#[tokio::test]
pub(super) async fn a_session_nobody_knows_is_404() {
    let stage = Stage::start().await;
    let token = stage.owner().initialize("2025-06-18", json!({})).await.header("mcp-session-id").unwrap().to_owned();
    let before = stage.upstream.requests().len();
    let cut = token[..token.len() - 1].to_owned();
    for id in ["upstream-session-0", "x", "", "%00", &cut, &format!("{token}A"), &token.to_lowercase()] {
        let caller = stage.owner().and(format!("Mcp-Session-Id: {id}"));
        is_error(&caller.ask(2, "tools/list", json!({})).await, 404, -32600, 2);
        for answer in [caller.get().await, caller.delete().await] {
            assert_eq!((answer.status, answer.code()), (404, Some(-32600)), "{id}: {}", answer.text());
        }
    }
    assert_eq!(stage.upstream.requests().len(), before);
}

#[tokio::test]
pub(super) async fn anothers_session_is_404_and_on_record() {
    let stage = Stage::start().await;
    let token = stage.owner().initialize("2025-06-18", json!({})).await.header("mcp-session-id").unwrap().to_owned();
    let thief = stage.stranger().and(format!("Mcp-Session-Id: {token}"));
    let before = stage.upstream.requests().len();
    let answer = thief.ask(2, "tools/list", json!({})).await;
    is_error(&answer, 404, -32600, 2);
    let unknown = stage.stranger().and("Mcp-Session-Id: unknown").ask(2, "tools/list", json!({})).await;
    assert_eq!(answer.text(), unknown.text(), "it cannot be told from one that does not exist");
    for answer in [thief.get().await, thief.delete().await] {
        assert_eq!((answer.status, answer.code()), (404, Some(-32600)), "{}", answer.text());
    }
    assert_eq!(stage.upstream.requests().len(), before);
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "session_unknown");
    assert_eq!((&record["principal"], &record["status"]), (&json!("key:stranger"), &json!(404)));
}

#[tokio::test]
pub(super) async fn a_session_that_was_ended_is_404() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-06-18").await;
    assert!((200..300).contains(&session.delete().await.status));
    let ended = stage.upstream.requests_for("DELETE").remove(0);
    let opened = stage.upstream.requests_for("initialize").remove(0);
    assert_eq!(ended.headers("mcp-session-id"), [format!("upstream-session-{}", opened.connection)]);
    stage.upstream.on("*", Reply::session_gone());
    is_error(&session.ask(2, "tools/list", json!({})).await, 404, -32600, 2);
}

#[tokio::test]
pub(super) async fn a_session_the_server_lost_is_404_and_nothing_is_done_twice() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-06-18").await;
    stage.upstream.on("tools/call", Reply::session_gone());
    is_error(&session.ask(2, "tools/call", call("echo")).await, 404, -32600, 2);
    assert_eq!((stage.count("tools/call"), stage.count("initialize")), (1, 1));
    // The client does what its revision says: it opens another one.
    let stage_again = stage.owner().session("2025-06-18").await;
    stage.upstream.on("tools/call", Reply::text("done"));
    is_result(&stage_again.ask(3, "tools/call", call("echo")).await, 3);
}

#[tokio::test]
pub(super) async fn a_get_that_takes_no_events_is_406_and_a_server_without_a_stream_405() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-06-18").await;
    for accept in ["application/json", "text/html", "application/json, text/plain", "text/event-streams", ""] {
        let answer = session.get_accepting(accept).await;
        assert_eq!((answer.status, answer.code()), (406, Some(-32600)), "{accept}: {}", answer.text());
    }
    assert_eq!(stage.count("GET"), 0);
    let answer = session.get().await;
    assert_eq!((answer.status, answer.code()), (405, Some(-32600)), "{}", answer.text());
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST") && !allow.contains("GET")), "{answer:?}");
    let asked = stage.upstream.requests_for("GET").remove(0);
    assert_eq!((asked.headers("accept"), asked.headers("mcp-session-id").len()), (vec!["text/event-stream".into()], 1));
}

#[tokio::test]
pub(super) async fn a_batch_is_judged_item_by_item_and_answered_as_one() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/list", Reply::json(json!({"tools": [{"name": "evil"}, {"name": "echo"}]})));
    let session = stage.owner().session("2025-03-26").await;
    let before = stage.upstream.requests().len();
    let items = [
        request(9_007_199_254_740_993_i64, "tools/list", json!({})),
        request("2", "tools/call", call("evil")),
        notification("notifications/roots/list_changed", json!({})).to_string(),
        request(2, "tools/call", json!({"name": "query", "arguments": {"sql": "DROP"}})),
        request("last", "tools/call", json!({"name": "echo", "arguments": {"n": 12_345_678_901_234_567_890_u64}})),
    ];
    let answer = session.post(&format!("[ {} ]", items.join(" ,\n"))).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    let answers = answer.json().as_array().cloned().unwrap_or_else(|| panic!("no array: {}", answer.text()));
    let of = |id: Value| -> Value {
        let found: Vec<&Value> = answers.iter().filter(|item| item["id"] == id).collect();
        assert_eq!(found.len(), 1, "{id}: {answers:?}");
        found[0].clone()
    };
    assert_eq!(answers.len(), 4, "a notification has no answer");
    assert_eq!(of(json!(9_007_199_254_740_993_i64))["result"]["tools"], json!([{"name": "echo"}]));
    assert_eq!(of(json!("2"))["error"]["code"], -32602);
    assert_eq!(of(json!(2))["error"]["code"], -31403);
    assert!(of(json!("last"))["result"]["content"][0]["text"].as_str().unwrap().contains("12345678901234567890"));
    let sent: Vec<Value> = stage.upstream.requests().iter().skip(before).map(|request| request.json()).collect();
    let methods: Vec<&Value> = sent.iter().map(|message| &message["method"]).collect();
    assert_eq!(methods, ["tools/list", "notifications/roots/list_changed", "tools/call"], "one after the other");
    stage.gateway.wait_for_records("refused", 2);
    let silent = notification("notifications/roots/list_changed", json!({}));
    let accepted = session.post(&json!([silent, silent]).to_string()).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
}

#[tokio::test]
pub(super) async fn only_a_session_of_2025_03_26_has_batches() {
    let stage = Stage::start().await;
    let batch = format!("[{}]", request(1, "tools/list", json!({})));
    for revision in ["2025-06-18", "2025-11-25"] {
        let session = stage.owner().session(revision).await;
        for session in [session.clone(), session.without("MCP-Protocol-Version")] {
            let answer = session.post(&batch).await;
            assert_eq!((answer.status, answer.code()), (400, Some(-32600)), "{revision}: {}", answer.text());
        }
    }
    assert_eq!(stage.count("tools/list"), 0);
}

#[tokio::test]
pub(super) async fn an_empty_batch_is_refused() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-03-26").await;
    let before = stage.upstream.requests().len();
    for empty in ["[]", " [ \n] "] {
        let answer = session.post(empty).await;
        assert_eq!((answer.status, answer.code()), (400, Some(-32600)), "{}", answer.text());
    }
    assert_eq!(stage.upstream.requests().len(), before);
}

#[tokio::test]
pub(super) async fn a_handshake_in_a_batch_is_refused() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-03-26").await;
    let params =
        json!({"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    for batch in [
        format!("[{}]", request("i", "initialize", params.clone())),
        format!("[{},{}]", request(1, "ping", json!({})), request("i", "initialize", params)),
        format!("[[{}]]", request("i", "tools/call", call("echo"))),
    ] {
        let answer = session.post(&batch).await;
        let items = answer.json().as_array().cloned();
        let refused = match &items {
            Some(items) => items.iter().any(|item| item["error"]["code"] == -32600),
            None => (answer.status, answer.code()) == (400, Some(-32600)),
        };
        assert!(refused, "{batch}: {}", answer.text());
        assert_eq!(answer.header("mcp-session-id"), None);
    }
    assert_eq!((stage.count("initialize"), stage.count("tools/call")), (1, 0));
}

#[tokio::test]
pub(super) async fn a_stream_is_resumed_only_in_the_session_it_was_sent_to() {
    let stage = Stage::start().await;
    let (mine, other) = (stage.owner().session("2025-06-18").await, stage.owner().session("2025-06-18").await);
    stage.upstream.on("GET", Reply::session_gone());
    let answer = mine.and("Last-Event-ID: stream-of-the-other/7").get().await;
    assert_eq!((answer.status, answer.code()), (404, Some(-32600)), "{}", answer.text());
    let asked = stage.upstream.requests_for("GET").remove(0);
    let opened = stage.upstream.requests_for("initialize").remove(0);
    // The server has both: whose event it is, it must know; the gateway sees to whose session it asks for.
    assert_eq!(asked.headers("mcp-session-id"), [format!("upstream-session-{}", opened.connection)]);
    assert_eq!(asked.headers("last-event-id"), ["stream-of-the-other/7"]);
    stage.upstream.on("GET", Reply::sse(vec![]));
    assert_eq!(other.and("Last-Event-ID: 7").get().await.events(), [Value::Null; 0]);
    let token = stage.owner().initialize("2025-06-18", json!({})).await.header("mcp-session-id").unwrap().to_owned();
    let thief = stage.stranger().and(format!("Mcp-Session-Id: {token}")).and("Last-Event-ID: 7");
    assert_eq!((thief.get().await.status, stage.count("GET")), (404, 2));
}

#[tokio::test]
pub(super) async fn a_stream_the_server_ends_early_is_taken_up_again_where_it_was() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let urls = [first.url(), second.url()].map(|url| format!("{{ url = \"{url}\" }}")).join(", ");
    let stage = Stage::behind(first, &format!("endpoints = [{urls}]\nhealth.type = \"none\""));
    for _ in 0..4 {
        let (one, two) = (&stage.upstream, &second);
        let before = one.requests_for("initialize").len();
        let session = stage.owner().session("2025-11-25").await;
        let on_one = one.requests_for("initialize").len() > before;
        let (own, other) = if on_one { (one, two) } else { (two, one) };
        own.on("tools/list", Reply::sse(vec![Event::raw("retry: 3000\nid: 7\ndata: \n\n")]));
        let ended = session.ask(5, "tools/list", json!({})).await;
        assert_eq!((ended.status, ended.complete, ended.events().len()), (200, true, 0), "{}", ended.text());
        assert_eq!(ended.text(), "retry: 3000\nid: 7\ndata: \n\n", "an early end is no failure");
        let list = json!({"jsonrpc": "2.0", "id": 5, "result": {"tools": [{"name": "evil"}, {"name": "echo"}]}});
        own.on("GET", Reply::sse(vec![Event::raw(&format!("id: 8\ndata: {list}\n\n"))]));
        let unasked = other.requests_for("GET").len();
        let resumed = session.and("Last-Event-ID: 7").get().await;
        assert_eq!((resumed.status, resumed.events().len()), (200, 1), "{}", resumed.text());
        assert!(resumed.text().starts_with("id: 8\n"), "{}", resumed.text());
        let names = json!([{"name": "echo"}]);
        assert_eq!((&resumed.events()[0]["id"], &resumed.events()[0]["result"]["tools"]), (&json!(5), &names));
        let asked = own.requests_for("GET").pop().unwrap();
        assert_eq!((asked.headers("last-event-id"), other.requests_for("GET").len()), (vec!["7".into()], unasked));
    }
}

#[tokio::test]
pub(super) async fn a_client_that_leaves_before_2026_has_not_cancelled() {
    let stage = Stage::start().await;
    let slow = Reply::sse(vec![Event::raw(": \n\n"), Event::result(json!({"content": []})).after(STEP * 5)]);
    for (number, reply) in [slow, Reply::text("late").delay(STEP * 5)].into_iter().enumerate() {
        stage.upstream.on("tools/call", reply);
        let session = stage.owner().session("2025-11-25").await;
        let mut connection = session.sent(&request(4, "tools/call", call("echo"))).await;
        let asked = stage.upstream.wait_for("tools/call", number + 1).await.remove(number);
        if number == 0 {
            // What was left unread would make the end a reset.
            connection.read_until(":").await;
        }
        drop(connection);
        let left = Instant::now();
        let is_open = || stage.upstream.connections()[asked.connection].closed.is_none();
        while left.elapsed() < STEP * 4 {
            assert!(is_open(), "case {number}: ended {:?} after the client left", left.elapsed());
            sleep(STEP / 10).await;
        }
    }
    assert_eq!(stage.count("notifications/cancelled"), 0);
    let session = stage.owner().session("2025-11-25").await;
    let cancelled = notification("notifications/cancelled", json!({"requestId": 4, "reason": "enough"})).to_string();
    let accepted = session.post(&cancelled).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
    assert_eq!(stage.upstream.requests_for("notifications/cancelled")[0].body, cancelled, "ids are the client's own");
}

#[tokio::test]
pub(super) async fn progress_tokens_of_different_clients_never_meet() {
    let stage = Stage::start().await;
    for (tool, number) in [("one", 1), ("two", 2), ("three", 3)] {
        let events = vec![Event::progress(number), Event::result(json!({"content": []})).after(STEP)];
        stage.upstream.on(&format!("tools/call {tool}"), Reply::sse(events).delay(STEP));
    }
    let asked = |caller: Caller<'_>, tool: &'static str, token: Value, number: u64| {
        let (data, session) = (stage.gateway.data, caller);
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": token}});
        let text = session.text(&request(1, "tools/call", params));
        async move {
            let events = client::send(data, text).await.events();
            assert_eq!(events.len(), 2, "{events:?}");
            assert_eq!(events[0]["params"], json!({"progressToken": token, "progress": number}));
        }
    };
    let (owner, again) = (stage.owner().session("2025-06-18").await, stage.owner().session("2025-06-18").await);
    let stranger = stage.stranger().session("2025-06-18").await;
    tokio::join!(
        asked(owner, "one", json!(7), 1),
        asked(again, "two", json!("7"), 2),
        asked(stranger, "three", json!(7), 3),
    );
}

#[tokio::test]
pub(super) async fn progress_nobody_asked_for_is_its_clients_to_ignore() {
    let stage = Stage::start().await;
    let unasked = notification("notifications/progress", json!({"progressToken": "none", "progress": 1}));
    let events = vec![Event::message(unasked.clone()), Event::result(json!({"content": []}))];
    stage.upstream.on("tools/call", Reply::sse(events));
    let (owner, stranger) = (stage.owner().session("2025-06-18").await, stage.stranger().session("2025-06-18").await);
    stage.upstream.on("GET", Reply::sse(vec![Event::comment("quiet"), Event::comment("quiet").after(STEP * 3)]));
    let mut other = stranger.listen().await;
    other.read_until(":").await;
    let answer = owner.ask(1, "tools/call", call("echo")).await;
    assert_eq!(answer.events()[0], unasked);
    let heard = other.answer().await.unwrap();
    assert_eq!(heard.events(), [Value::Null; 0], "nobody else hears of it");
}

#[tokio::test]
pub(super) async fn a_cancellation_goes_to_its_own_session_whatever_it_names() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call", Reply::text("late").delay(STEP * 4));
    let (owner, stranger) = (stage.owner().session("2025-06-18").await, stage.stranger().session("2025-06-18").await);
    let mut running = owner.sent(&request(4, "tools/call", call("echo"))).await;
    stage.upstream.wait_for("tools/call", 1).await;
    let cancelled = notification("notifications/cancelled", json!({"requestId": 4})).to_string();
    let accepted = stranger.post(&cancelled).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
    let sent = stage.upstream.requests_for("notifications/cancelled").remove(0);
    let opened = stage.upstream.requests_for("initialize").remove(1);
    assert_eq!(sent.headers("mcp-session-id"), [format!("upstream-session-{}", opened.connection)]);
    is_result(&running.answer().await.unwrap(), 4);
}

#[tokio::test]
pub(super) async fn a_response_to_nothing_goes_to_its_own_session_whose_server_decides() {
    let stage = Stage::start().await;
    let (owner, stranger) = (stage.owner().session("2025-06-18").await, stage.stranger().session("2025-06-18").await);
    let response = json!({"jsonrpc": "2.0", "id": "never-asked", "result": {}}).to_string();
    assert_eq!(owner.post(&response).await.status, 202);
    let sent = stage.upstream.requests_for("response").remove(0);
    let opened = stage.upstream.requests_for("initialize").remove(0);
    assert_eq!(sent.headers("mcp-session-id"), [format!("upstream-session-{}", opened.connection)]);
    stage.upstream.on("response", Reply::error(-32600, "no such request").status_code(400));
    let refused = stranger.post(&response).await;
    assert_eq!((refused.status, refused.code()), (400, Some(-32600)), "{}", refused.text());
    is_error(&stage.owner().ask_modern(1, "tools/call", call("evil")).await, 200, -32602, 1);
    let modern = stage.owner().and("MCP-Protocol-Version: 2026-07-28").post(&response).await;
    assert_eq!((modern.status, modern.code(), stage.count("response")), (400, Some(-32600), 2));
}

/// Opens a stream of 2024-11-05 and reads where its messages are to be posted.
async fn open_sse(caller: &Caller<'_>, path: &str) -> (Connection, String) {
    let mut stream = caller.on(path).listen().await;
    let text = stream.read_until("\n\n").await;
    let event = text.split("\r\n\r\n").nth(1).unwrap_or_else(|| panic!("no event: {text}"));
    assert!(text.starts_with("HTTP/1.1 200") && event.contains("event: endpoint"), "{text}");
    let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_else(|| panic!("{text}"));
    (stream, data.trim().to_owned())
}

/// A server of 2024-11-05.
async fn older_server() -> Stage {
    let upstream = Upstream::start().await;
    upstream.speak_sse("/message?sessionId=upstream-$session");
    upstream.on("tools/list", Reply::json(json!({"tools": [{"name": "evil"}, {"name": "echo"}]})));
    let url = upstream.sse_url();
    Stage::behind(upstream, &format!("url = \"{url}\"\ntransport = \"sse\""))
}

#[tokio::test]
pub(super) async fn the_endpoint_of_an_older_server_is_the_gateways_own() {
    let stage = older_server().await;
    for (number, (path, base)) in [
        ("/mcp/s/sse", "/mcp/s/message?sessionId="),
        ("/gateway/mcp/s/sse", "/gateway/mcp/s/message?sessionId="),
        ("/s/mcp/events", "/s/mcp/message?sessionId="),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut stream, target) = open_sse(&stage.owner(), path).await;
        assert!(target.starts_with(base) && !target.contains("upstream-"), "{path}: {target}");
        let body = request("l", "tools/list", json!({}));
        let accepted = stage.owner().on(&target).post(&body).await;
        assert_eq!((accepted.status, accepted.body.len()), (202, 0), "{}", accepted.text());
        let sent = stage.upstream.wait_for("tools/list", number + 1).await.remove(number);
        assert!(sent.line().starts_with("POST /message?sessionId=upstream-") && sent.body == body, "{sent:?}");
        let heard = stream.read_until("\"tools\"").await;
        assert!(heard.contains("echo") && !heard.contains("evil"), "{heard}");
        // A client of this revision waits for every answer on its stream.
        let denied = stage.owner().on(&target).post(&request("e", "tools/call", call("evil"))).await;
        assert_eq!((denied.status, denied.body.len()), (202, 0), "{}", denied.text());
        assert!(stream.read_until("-32602").await.contains("\"e\""));
        assert_eq!(stage.count("tools/call"), 0);
    }
}

#[tokio::test]
pub(super) async fn an_endpoint_on_another_origin_is_refused() {
    let elsewhere = Upstream::start().await;
    for target in [elsewhere.url(), elsewhere.url().replacen("http:", "", 1), "https://example.com/message".into()] {
        let upstream = Upstream::start().await;
        let url = upstream.url();
        let event = Event::raw(&format!("event: endpoint\ndata: {target}\n\n"));
        upstream.on("GET", Reply::sse(vec![event, Event::comment("").after(SECOND * 5)]));
        let stage = Stage::behind(upstream, &format!("url = \"{url}\"\ntransport = \"sse\""));
        let answer = stage.owner().on("/mcp/s/sse").get().await;
        assert_eq!((answer.status, answer.code()), (502, Some(-32603)), "{target}: {}", answer.text());
        assert!(!answer.text().contains(&target));
    }
    assert_eq!(elsewhere.connections().len(), 0);
}

#[tokio::test]
pub(super) async fn anothers_endpoint_takes_no_message() {
    let stage = older_server().await;
    let (_stream, target) = open_sse(&stage.owner(), "/mcp/s/sse").await;
    let body = request(1, "tools/list", json!({}));
    let mut forged = target.clone();
    forged.push('A');
    for answer in [stage.stranger().on(&target).post(&body).await, stage.owner().on(&forged).post(&body).await] {
        assert!(matches!(answer.status, 403 | 404) && answer.code().is_some(), "{answer:?}");
    }
    assert_eq!(stage.count("tools/list"), 0);
}

#[tokio::test]
pub(super) async fn a_client_of_2026_that_leaves_a_list_cancels_it_too() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/list", Reply::never());
    let body = modern_request(1, "tools/list", json!({}));
    let connection = stage.owner().modern(&body).sent(&body).await;
    let asked = stage.upstream.wait_for("tools/list", 1).await.remove(0);
    drop(connection);
    let left = Clock::start();
    stage.upstream.wait_closed(asked.connection).await;
    assert!(left.elapsed() < SECOND);
    assert_eq!(stage.count("notifications/cancelled"), 0);
}
