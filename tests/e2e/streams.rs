//! Answers that are event streams: what passes, when, how they end, and who ends them.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::clock::within;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
/// Long enough to be told from at once, short enough to be waited for.
const STEP: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    async fn start() -> Self {
        Self::with("", "").await
    }

    /// A gateway in front of one scripted server whose tool `hidden` may not be called, with keys of `[listen]` and of
    /// the server.
    async fn with(listen: &str, server: &str) -> Self {
        let upstream = Upstream::start().await;
        let key = gateway::make_key("ci");
        let gateway = Gateway::start(&config(&upstream, &key, listen, server));
        Self { upstream, gateway, key }
    }

    fn key(&self) -> String {
        format!("X-API-Key: {}", self.key.key)
    }

    fn post(&self, headers: &[&str], body: &str) -> String {
        let key = self.key();
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        client::post("/mcp/a", &headers, body)
    }

    /// A call of 2025-06-18.
    fn call(&self, id: u64) -> String {
        self.post(&["MCP-Protocol-Version: 2025-06-18"], &self.call_body(id))
    }

    fn call_body(&self, id: u64) -> String {
        let params = json!({ "name": "echo", "arguments": {}, "_meta": { "progressToken": "t" } });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
    }

    /// The header of a fresh session, in which events keep their ids.
    async fn session(&self) -> String {
        let opened = self.answer_to(self.post(&[], INITIALIZE)).await;
        format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap())
    }

    /// A call of 2026-07-28.
    fn modern_call(&self, id: u64) -> String {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": "t",
        });
        let params = json!({ "name": "echo", "arguments": {}, "_meta": meta });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let headers = client::modern("tools/call", Some("echo"));
        self.post(&headers.iter().map(String::as_str).collect::<Vec<_>>(), &message.to_string())
    }

    async fn answer_to(&self, request: String) -> Answer {
        client::send(self.gateway.data, request).await
    }

    /// A connection on which this request was sent.
    async fn sent(&self, request: String) -> Connection {
        let mut connection = Connection::open(self.gateway.data).await;
        connection.write(request).await;
        connection
    }

    fn only_result(&self) -> Value {
        self.gateway.wait_for_records("result", 1).remove(0)
    }
}

fn config(upstream: &Upstream, key: &Key, listen: &str, server: &str) -> String {
    format!(
        "{listen}\n[servers.a]\nurl = \"{}\"\nblocked_tools = [\"hidden\"]\n{server}\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
        upstream.url(),
        key.digest
    )
}

fn answer(id: u64) -> String {
    format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n\n")
}

fn progress(number: u64) -> String {
    let params = json!({ "progressToken": "t", "progress": number });
    format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
}

#[track_caller]
fn is_event_stream(answer: &Answer) {
    let media_type = answer.header("content-type");
    assert_eq!((answer.status, media_type, answer.complete), (200, Some("text/event-stream"), true), "{answer:?}");
}

/// The error that ends a stream in place of its answer.
#[track_caller]
fn ends_with_error(answer: &Answer, id: u64) -> Value {
    is_event_stream(answer);
    let last = answer.events().pop().expect("an event");
    assert_eq!((&last["id"], last.get("result")), (&json!(id), None), "{answer:?}");
    assert!(answer.text().ends_with("}\n\n"), "{answer:?}");
    last["error"]["code"].clone()
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_are_sent() {
    let stage = Stage::start().await;
    // What each exchange is late by adds up, and must not come to a whole pause.
    let pause = STEP * 5;
    let events: Vec<Event> = (1..=4).map(|number| Event::progress(number).after(pause)).collect();
    stage.upstream.on("tools/call", Reply::sse([events, vec![Event::result(json!({})).after(pause)]].concat()));
    let began = Instant::now();
    let mut connection = stage.sent(stage.call(9)).await;
    for number in 1..=4_u32 {
        connection.read_until(&format!("\"progress\":{number}")).await;
        let at = began.elapsed();
        assert!(at >= pause * number && at < pause * (number + 1), "event {number} came after {at:?}");
    }
    let answer = connection.answer().await.unwrap();
    is_event_stream(&answer);
    assert_eq!((answer.events().len(), &answer.events()[4]["id"]), (5, &json!(9)));
    assert!(answer.header("cache-control").unwrap().contains("no-cache"));
    assert_eq!(stage.only_result()["outcome"], "ok");
}

#[tokio::test]
async fn what_is_not_filtered_passes_byte_for_byte_but_for_what_clients_ignore() {
    let stage = Stage::start().await;
    let session = stage.session().await;
    let streams = [
        format!("id: 1\ndata: \n\nretry: 1500\n\n: hello\n\nid: 2\n{}id: 3\n{}", progress(1), answer(1)),
        format!(":\n:c\nevent: message\n{}\n\n\nevent:message\nid\n{}", progress(2), answer(1)),
        format!("{}{}", progress(1), answer(1)).replace('\n', "\r\n"),
        format!("{}{}", progress(1), answer(1)).replace('\n', "\r"),
        format!("unknown: field\n{}", answer(1)),
        "data: {\"jsonrpc\":\"2.0\",\ndata:\"id\":1,\ndata: \"result\":{} }\n\n".to_owned(),
    ];
    for stream in streams {
        stage.upstream.on("tools/call", Reply::sse(vec![Event::raw(&stream)]));
        let answer = stage.answer_to(stage.post(&[&session], &stage.call_body(1))).await;
        is_event_stream(&answer);
        let expected = stream
            .replace(": hello\n", ":\n")
            .replace(":c\n", ":\n")
            .replace("unknown: field\n", "")
            .replace("event:message\nid\n", "event: message\nid: \n");
        assert_eq!(answer.text(), expected);
    }
}

#[tokio::test]
async fn a_list_in_a_stream_is_filtered_wherever_it_is_cut() {
    let stage = Stage::start().await;
    let session = stage.session().await;
    let text = concat!(
        ": c\nid: 4\nretry: 10\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"echo\"},\n",
        "data: {\"name\":\"hi\\u0064den\"},{\"name\":\"other\"}\ndata: ]}}\n\n",
    );
    let mut replies = Vec::new();
    for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
        for at in 1..text.len() {
            let (head, tail) = text.split_at(at);
            replies.push(Reply::sse(vec![Event::raw(head), Event::raw(tail).after(Duration::from_millis(1))]));
        }
        replies.push(Reply::sse(text.split_inclusive(|_| true).map(Event::raw).collect()));
        replies.push(Reply::sse(vec![Event::raw(&text)]));
    }
    let count = replies.len();
    stage.upstream.on_each("tools/list", replies);
    let mut connection = Connection::open(stage.gateway.data).await;
    for number in 0..count {
        connection.write(stage.post(&[&session], LIST)).await;
        let answer = connection.answer().await.unwrap();
        is_event_stream(&answer);
        let text = answer.text();
        assert!(text.contains("id: 4") && text.contains("retry: 10"), "{number}: {text}");
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let message: Value =
            serde_json::from_str(&data.join("\n")).unwrap_or_else(|error| panic!("{number}: {error}: {text}"));
        let names: Vec<&Value> =
            message["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["echo", "other"], "{number}: {text}");
        assert!(!text.contains("den"), "{number}: {text}");
    }
}

#[tokio::test]
async fn an_answer_under_another_id_and_a_second_answer_are_dropped() {
    let stage = Stage::start().await;
    let foreign = |id: &str| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"of\":\"another\"}}}}\n\n");
    let stream = [foreign("8"), foreign("\"7\""), progress(1), answer(7), answer(7), foreign("7")].concat();
    stage.upstream.on("tools/call", Reply::sse(vec![Event::raw(&stream)]));
    let got = stage.answer_to(stage.call(7)).await;
    is_event_stream(&got);
    assert_eq!(got.text(), [progress(1), answer(7)].concat());
    stage.upstream.on("tools/call", Reply::twice(json!({})));
    assert_eq!(stage.answer_to(stage.call(7)).await.events().len(), 1);
}

#[tokio::test]
async fn an_event_of_another_type_is_dropped_and_answers_nothing() {
    let stage = Stage::start().await;
    let stream = format!("event: other\n{}event: x\ndata: no json\n\n{}", answer(7), answer(7));
    stage.upstream.on("tools/call", Reply::sse(vec![Event::raw(&stream)]));
    let got = stage.answer_to(stage.call(7)).await;
    is_event_stream(&got);
    assert_eq!(got.text(), answer(7));
    assert_eq!(stage.only_result()["outcome"], "ok");
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_answer_ends_with_an_error_under_the_right_id() {
    let stage = Stage::with("", "answer_bytes_max = 2000").await;
    let whole = [progress(1), answer(5)].concat();
    let mut cases = Vec::new();
    for at in [1, progress(1).len(), progress(1).len() + 10, whole.len() - 1] {
        // The last of these lacks only the blank line that makes it an event.
        let cut = &whole[..at];
        cases.push((Reply::sse(vec![Event::raw(cut)]), "upstream_error", "answer_missing"));
        cases.push((Reply::sse(vec![Event::raw(cut)]).until_close(), "upstream_error", "answer_missing"));
        cases.push((Reply::sse(vec![Event::raw(&whole)]).close_after(4 + at), "network_failure", "reset"));
        cases.push((
            Reply::sse(vec![Event::raw(cut), Event::raw(".").after(STEP)]).reset_after(4 + at + 2),
            "network_failure",
            "reset",
        ));
    }
    cases.push((
        Reply::sse(vec![Event::raw("data: {\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{}}\n\n")]),
        "upstream_error",
        "answer_malformed",
    ));
    cases.push((Reply::sse(vec![]), "upstream_error", "answer_missing"));
    cases.push((
        Reply::html(200).without_header("Content-Type").header("Content-Type", "text/event-stream"),
        "upstream_error",
        "answer_missing",
    ));
    cases.push((Reply::sse(vec![Event::raw("data: nothing\n\n")]), "upstream_error", "answer_malformed"));
    cases.push((
        Reply::sse(vec![Event::raw("data: {\"jsonrpc\":\"2.0\",\"id\":5,\"id\":5,\"result\":{}}\n\n")]),
        "upstream_error",
        "answer_malformed",
    ));
    cases.push((
        Reply::sse(vec![Event::raw(&format!("data: [{}]\n\n", answer(5).trim().trim_start_matches("data: ")))]),
        "upstream_error",
        "answer_malformed",
    ));
    cases.push((
        Reply::sse(vec![Event::raw(&format!("data: {}", "x".repeat(2100)))]),
        "upstream_error",
        "answer_event",
    ));
    cases.push((
        Reply::sse(vec![Event::raw(&format!(": {}\n\n{}", "x".repeat(2100), answer(5)))]),
        "upstream_error",
        "answer_event",
    ));
    let mut connection = Connection::open(stage.gateway.data).await;
    for (number, (reply, outcome, reason)) in cases.into_iter().enumerate() {
        stage.upstream.on("tools/call", reply);
        connection.write(stage.call(5)).await;
        let answer = connection.answer().await.unwrap();
        assert_eq!(ends_with_error(&answer, 5), json!(-32603), "case {number}");
        let result = stage.gateway.wait_for_records("result", number + 1).remove(number);
        assert_eq!(
            (&result["outcome"], &result["reason"]),
            (&json!(outcome), &json!(reason)),
            "case {number}: {answer:?}"
        );
        assert_eq!((&result["status"], &result["attempts"]), (&json!(200), &json!(1)), "case {number}");
        assert_eq!(stage.upstream.requests().len(), number + 1, "case {number}: sent once");
    }
}

#[tokio::test]
async fn silence_ends_a_stream_and_comments_are_no_silence() {
    let stage = Stage::with("", "sse_read_timeout_ms = 1500").await;
    // Together longer than silence may last.
    let mut events: Vec<Event> = (0..8).map(|_| Event::comment("still here").after(STEP * 3)).collect();
    events.push(Event::raw(&answer(1)).after(STEP));
    stage.upstream.on("tools/call", Reply::sse(events));
    let got = stage.answer_to(stage.call(1)).await;
    assert_eq!(got.text(), [":\n\n".repeat(8), answer(1)].concat());
    stage
        .upstream
        .on("tools/call", Reply::sse(vec![Event::raw(&progress(1)), Event::raw(&answer(1)).after(SECOND * 4)]));
    let began = Instant::now();
    let got = stage.answer_to(stage.call(1)).await;
    assert_eq!(ends_with_error(&got, 1), json!(-32603));
    assert!(began.elapsed() >= STEP * 15 && began.elapsed() < SECOND * 4, "{:?}", began.elapsed());
    let result = stage.gateway.wait_for_records("result", 2).remove(1);
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("network_failure"), &json!("timeout")));
    stage.upstream.wait_closed(stage.upstream.connections().len() - 1).await;
}

#[tokio::test]
async fn a_question_of_the_server_is_answered_in_the_session_and_completes_the_call() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call", Reply::elicitation());
    let opened = stage.answer_to(stage.post(&[], INITIALIZE)).await;
    let session = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    let call = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    let mut connection = stage.sent(stage.post(&[&session], call)).await;
    assert!(connection.read_until("elicitation/create").await.contains("\"ask-1\""));
    let answer = r#"{"jsonrpc":"2.0","id":"ask-1","result":{"action":"accept","content":{"answer":"blue"}}}"#;
    let accepted = stage.answer_to(stage.post(&[&session], answer)).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
    let got = connection.answer().await.unwrap();
    is_event_stream(&got);
    let events = got.events();
    assert_eq!((events.len(), &events[1]["result"]["content"][0]["text"]), (2, &json!("blue")));
    let received = stage.upstream.requests_for("response").remove(0);
    assert_eq!(
        (received.body.as_ref(), received.headers("mcp-session-id")),
        (answer.as_bytes(), vec!["upstream-session-0".to_owned()])
    );
}

#[tokio::test]
async fn a_session_can_be_opened_by_a_stream() {
    let stage = Stage::start().await;
    let result =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
    let events = vec![Event::raw("id: 0\ndata: \n\n"), Event::result(result).after(STEP)];
    stage.upstream.on("initialize", Reply::sse(events).header("Mcp-Session-Id", "opened-by-stream"));
    let opened = stage.answer_to(stage.post(&[], INITIALIZE)).await;
    is_event_stream(&opened);
    assert!(opened.text().starts_with("id: 0\ndata: \n\n"));
    let session = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    assert_eq!(
        stage.answer_to(stage.post(&[&session], r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)).await.status,
        200
    );
    assert_eq!(stage.upstream.requests_for("ping")[0].headers("mcp-session-id"), ["opened-by-stream"]);
    stage.upstream.on("initialize", Reply::sse(vec![Event::raw("id: 0\ndata: \n\n")]));
    let broken = stage.answer_to(stage.post(&[], INITIALIZE)).await;
    assert_eq!((broken.status, broken.code(), &broken.json()["id"]), (502, Some(-32603), &json!(1)));
}

#[tokio::test]
async fn a_request_of_the_server_does_not_reach_a_client_of_2026() {
    let stage = Stage::start().await;
    let request = "data: {\"jsonrpc\":\"2.0\",\"id\":\"s\",\"method\":\"sampling/createMessage\",\"params\":{}}\n\n";
    stage.upstream.on("tools/call", Reply::sse(vec![Event::raw(&[progress(1), request.into(), answer(2)].concat())]));
    let got = stage.answer_to(stage.modern_call(2)).await;
    is_event_stream(&got);
    assert_eq!(got.text(), [progress(1), answer(2)].concat());
    let got = stage.answer_to(stage.call(2)).await;
    assert_eq!(got.text(), [progress(1), request.into(), answer(2)].concat(), "clients before 2026 are asked");
}

#[tokio::test]
async fn a_client_of_2026_that_leaves_cancels_its_call_within_a_second() {
    let waiting = || Reply::never();
    let streaming = || Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(SECOND * 60)]);
    let reading = || {
        let events = vec![Event::raw("{"), Event::raw("}").after(SECOND * 60)];
        Reply::sse(events).without_header("Content-Type").header("Content-Type", "application/json")
    };
    let cases = [(waiting(), false), (waiting(), true), (streaming(), false), (streaming(), true), (reading(), false)];
    for (number, (reply, only_half)) in cases.into_iter().enumerate() {
        let stage = Stage::start().await;
        stage.upstream.on("tools/call", reply);
        let mut connection = stage.sent(stage.modern_call(1)).await;
        stage.upstream.wait_for("tools/call", 1).await;
        sleep(STEP).await;
        if only_half {
            connection.finish_writing().await;
        } else {
            drop(connection);
        }
        let left = Clock::start();
        stage.upstream.wait_closed(0).await;
        let took = left.elapsed();
        assert!(took < SECOND, "case {number}: {took:?}");
        let result = stage.only_result();
        assert_eq!(
            (&result["outcome"], &result["attempts"]),
            (&json!("client_gone"), &json!(1)),
            "case {number}: {result}"
        );
        assert_eq!(stage.gateway.metric("portcullis_streams").await, Some(0.0), "case {number}");
    }
}

#[tokio::test]
async fn before_2026_a_client_that_stops_writing_still_gets_its_answer() {
    let stage = Stage::start().await;
    let replies = [
        Reply::text("late").delay(STEP * 3),
        Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(STEP * 3)]),
        Reply::sse(vec![Event::result(json!({}))]).delay(STEP * 3),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        stage.upstream.on("tools/call", reply);
        let mut connection = stage.sent(stage.call(4)).await;
        stage.upstream.wait_for("tools/call", number + 1).await;
        connection.finish_writing().await;
        let answer = connection.answer().await.expect("an answer");
        assert!(answer.complete && answer.status == 200 && answer.text().contains("\"id\":4"), "{number}: {answer:?}");
        assert!(connection.is_closed_within(SECOND).await, "{number}");
    }
    let outcomes: Vec<Value> =
        stage.gateway.wait_for_records("result", 3).iter().map(|result| result["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok"]);
}

#[tokio::test]
async fn before_2026_a_client_that_is_gone_altogether_is_noticed_with_the_next_event() {
    let stage = Stage::start().await;
    let events = (1..100).map(|number| Event::progress(number).after(STEP / 2)).collect();
    stage.upstream.on("tools/call", Reply::sse(events));
    let mut connection = stage.sent(stage.call(1)).await;
    connection.read_until("progress").await;
    drop(connection);
    let left = Clock::start();
    stage.upstream.wait_closed(0).await;
    let took = left.elapsed();
    assert!(took < SECOND, "{took:?}");
    assert_eq!(stage.only_result()["outcome"], "client_gone");
    assert_eq!(stage.gateway.metric("portcullis_streams").await, Some(0.0));
}

#[tokio::test]
async fn a_request_sent_early_is_answered_after_the_one_in_flight() {
    let stage = Stage::start().await;
    for (number, modern) in [false, true, false, true].into_iter().enumerate() {
        let call = |id| if modern { stage.modern_call(id) } else { stage.call(id) };
        let in_a_stream = number > 1;
        let first = if in_a_stream {
            Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(STEP * 2)])
        } else {
            Reply::text("x").delay(STEP * 2)
        };
        stage.upstream.on_each("tools/call", vec![first, Reply::text("second"), Reply::text("third")]);
        let before = stage.upstream.requests().len();
        let mut connection = stage.sent(call(1)).await;
        stage.upstream.wait_for("tools/call", before + 1).await;
        let second = call(2);
        let (head, tail) = second.split_at(second.len() / 2);
        connection.write(head).await;
        sleep(STEP / 2).await;
        connection.write([tail, &call(3)].concat()).await;
        assert_eq!(stage.upstream.requests().len(), before + 1, "one at a time");
        let answer = connection.answer().await.unwrap();
        assert!(answer.status == 200 && answer.text().contains("\"id\":1"), "{answer:?}");
        for (id, text) in [(2, "second"), (3, "third")] {
            let answer = connection.answer().await.unwrap();
            assert_eq!((&answer.json()["id"], answer.text().contains(text)), (&json!(id), true), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn no_more_streams_are_open_than_the_limit() {
    let stage = Stage::with("streams_max = 2", "").await;
    let long = Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(STEP * 5)]);
    stage.upstream.on("tools/call", long);
    let mut open = Vec::new();
    for id in 0..2 {
        let mut connection = stage.sent(stage.call(id)).await;
        connection.read_until("progress").await;
        open.push(connection);
    }
    assert_eq!(stage.gateway.metric("portcullis_streams").await, Some(2.0));
    let refused = stage.answer_to(stage.call(2)).await;
    assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (503, Some(-32603), &json!(2)));
    assert!(refused.header("retry-after").is_some());
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "streams_max");
    assert_eq!(stage.upstream.requests_for("tools/call").len(), 2, "a refused call was not carried out");
    for (id, mut connection) in (0..).zip(open) {
        assert_eq!(connection.answer().await.unwrap().events()[1]["id"], json!(id));
    }
    stage.upstream.on("tools/call", Reply::sse(vec![Event::result(json!({}))]));
    is_event_stream(&stage.answer_to(stage.call(3)).await);
}

#[tokio::test]
async fn a_permission_withdrawn_by_a_reload_ends_the_stream() {
    let withdrawals = [
        ("blocked_tools = [\"hidden\"]", "blocked_tools = [\"hidden\", \"echo\"]"),
        ("blocked_tools = [\"hidden\"]", "allowed_tools = [\"other\"]"),
        ("mcp_servers = [\"a\"]", "mcp_servers = []"),
        ("[keys.ci]", "[keys.other]"),
    ];
    for (before, after) in withdrawals {
        let stage = Stage::start().await;
        stage
            .upstream
            .on("tools/call", Reply::sse((1..300).map(|number| Event::progress(number).after(STEP / 2)).collect()));
        let mut connection = stage.sent(stage.call(6)).await;
        connection.read_until("\"progress\":2").await;
        let config = config(&stage.upstream, &stage.key, "", "");
        stage.gateway.reload(&config);
        connection.read_until("\"progress\":8").await;
        assert!(stage.gateway.log().contains("configuration reloaded"), "a reload that changes nothing ends nothing");
        stage.gateway.reload(&config.replace(before, after));
        let answer = connection.answer().await.unwrap();
        assert_eq!(ends_with_error(&answer, 6), json!(-32602), "{after}");
        let result = stage.only_result();
        assert_eq!(
            (&result["outcome"], &result["reason"]),
            (&json!("refused"), &json!("permission_withdrawn")),
            "{after}"
        );
        stage.upstream.wait_closed(0).await;
    }
}

#[tokio::test]
async fn a_permission_withdrawn_by_a_reload_ends_a_silent_stream_too() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call", Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(SECOND * 4)]));
    let mut connection = stage.sent(stage.call(6)).await;
    connection.read_until("progress").await;
    let config = config(&stage.upstream, &stage.key, "", "").replace("\"hidden\"", "\"*\"");
    stage.gateway.reload(&config);
    let answer = within(SECOND * 2, connection.answer()).await.expect("the end within a second").unwrap();
    assert_eq!(ends_with_error(&answer, 6), json!(-32602));
}

#[tokio::test]
async fn a_permission_withdrawn_while_the_head_is_awaited_ends_the_call_with_it() {
    let stage = Stage::start().await;
    let late = Reply::sse(vec![Event::result(json!({})).after(SECOND * 4)]).delay(SECOND);
    stage.upstream.on("tools/call", late);
    let mut connection = stage.sent(stage.call(6)).await;
    stage.upstream.wait_for("tools/call", 1).await;
    let config = config(&stage.upstream, &stage.key, "", "").replace("\"hidden\"", "\"*\"");
    stage.gateway.reload(&config);
    let answer = within(SECOND * 3, connection.answer()).await.expect("the end with the head").unwrap();
    assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (403, Some(-32602), &json!(6)));
}

#[tokio::test]
async fn a_permission_withdrawn_between_the_head_and_the_end_of_a_json_answer_ends_the_call() {
    // A server that goes on with its answer, and one that falls silent in the middle of it.
    for (bytes, pause) in [(1_000, STEP), (5_000, SECOND * 5)] {
        let stage = Stage::start().await;
        stage.upstream.on("tools/call", Reply::text(&"x".repeat(30_000)).drip(bytes, pause));
        let mut connection = stage.sent(stage.call(6)).await;
        stage.upstream.wait_for("tools/call", 1).await;
        sleep(STEP * 3).await;
        let config = config(&stage.upstream, &stage.key, "", "").replace("\"hidden\"", "\"*\"");
        stage.gateway.reload(&config);
        let answer = within(SECOND * 2, connection.answer()).await.expect("the end within a second").unwrap();
        assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (403, Some(-32602), &json!(6)));
        let result = stage.only_result();
        assert_eq!((&result["outcome"], &result["reason"]), (&json!("refused"), &json!("permission_withdrawn")));
        stage.upstream.wait_closed(0).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let event = Event::raw(&format!(
        "data: {}\n\n",
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "x".repeat(1 << 20) } })
    ));
    let large = Reply::text(&"x".repeat(15 << 20));
    for reply in [Reply::sse(vec![event; 60]), large] {
        let stage = Stage::with("write_timeout_ms = 300", "").await;
        stage.upstream.on("tools/call", reply);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut lazy = socket.connect(stage.gateway.data).await.unwrap();
        let began = Instant::now();
        lazy.write_all(stage.call(1).as_bytes()).await.unwrap();
        let gone = async {
            while stage.gateway.records().iter().all(|record| record["kind"] != "result") {
                sleep(STEP / 4).await;
            }
        };
        timeout(SECOND * 5, gone).await.expect("cut off");
        assert!(began.elapsed() >= STEP * 3);
        assert_eq!(stage.only_result()["outcome"], "client_gone");
        assert_eq!(stage.gateway.metric("portcullis_streams").await, Some(0.0));
        // What was sent already may be read; then there is an end.
        let rest = async { while lazy.read(&mut vec![0; 1 << 16]).await.is_ok_and(|read| read > 0) {} };
        timeout(SECOND * 5, rest).await.expect("the connection is closed");
        stage.upstream.on("tools/call", Reply::text("fine"));
        assert_eq!(stage.answer_to(stage.call(2)).await.status, 200);
    }
}
