//! A client of Streamable HTTP and a server of HTTP+SSE: the gateway reads the server's stream, and hands out what comes.

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::gateway;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

use super::INITIALIZE;
use super::INITIALIZED;
use super::LIST;
use super::MESSAGES;
use super::PATIENCE;
use super::SECOND;
use super::STEP;
use super::Stage;
use super::Stream;
use super::call;
use super::get;
use super::reply;
use super::seal_table;

const VERSION: &str = "MCP-Protocol-Version: 2025-06-18";

/// One session of a Streamable HTTP client.
struct Session<'s> {
    stage: &'s Stage,
    header: String,
}

impl Stage {
    async fn session(&self) -> Session<'_> {
        let opened = self.post("/mcp/a", &[], INITIALIZE).await;
        assert_eq!((opened.status, opened.complete), (200, true), "{}", opened.text());
        assert_eq!(opened.events()[0]["result"]["protocolVersion"], "2025-06-18", "{}", opened.text());
        let token = opened.header("mcp-session-id").expect("a session").to_owned();
        let session = Session { stage: self, header: format!("Mcp-Session-Id: {token}") };
        assert_eq!(session.post(INITIALIZED).await.status, 202);
        session
    }
}

impl Session<'_> {
    async fn post(&self, body: &str) -> Answer {
        self.stage.post("/mcp/a", &[&self.header, VERSION], body).await
    }

    /// A request, and the messages it is answered with.
    async fn ask(&self, body: &str) -> Vec<Value> {
        let answer = self.post(body).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        answer.events()
    }

    fn request(&self, body: &str) -> String {
        client::post("/mcp/a", &[&self.header, VERSION, &self.stage.key()], body)
    }

    /// A request that is answered event by event.
    async fn stream(&self, body: &str) -> Stream {
        Stream::open(self.stage.gateway.data, self.request(body)).await
    }

    /// A standing stream.
    async fn stand(&self) -> Stream {
        let request = get("/mcp/a", &[&self.header, VERSION, &self.stage.key()]);
        Stream::open(self.stage.gateway.data, request).await
    }

    async fn delete(&self) -> u16 {
        let delete =
            format!("DELETE /mcp/a HTTP/1.1\r\nHost: localhost\r\n{}\r\n{}\r\n\r\n", self.header, self.stage.key());
        client::send(self.stage.gateway.data, delete).await.status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_from_its_beginning_to_its_end() {
    let stage = Stage::sse().await;
    let session = stage.session().await;
    assert!(!session.header.contains("sse-session"));
    let stream = stage.upstream.stream(0).await;
    assert_eq!(stream.request.header("accept").as_deref(), Some("text/event-stream"));
    stage.upstream.on("tools/list", Reply::json(json!({ "tools": [{ "name": "hidden" }, { "name": "echo" }] })));
    assert_eq!(session.ask(LIST).await[0]["result"]["tools"], json!([{ "name": "echo" }]));
    let denied = session.post(&call(4, "hidden")).await;
    assert_eq!((denied.status, denied.code()), (200, Some(-32602)));
    for request in stage.upstream.requests().iter().skip(1) {
        assert_eq!(request.line(), "POST /messages?session=sse-session-00000 HTTP/1.1");
        assert_eq!((request.header("mcp-session-id"), request.header("x-api-key")), (None, None));
    }
    assert!(stream.is_open());
    assert_eq!(session.delete().await, 200);
    stream.ended().await;
    assert_eq!(session.post(LIST).await.status, 404);
    assert_eq!(session.delete().await, 404);
    assert_eq!(stage.upstream.requests_for("DELETE").len(), 0, "there is no such thing on the server");
    let intent = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/list");
    let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!((&intent["transport"], &result["outcome"]), (&json!("streamable-http"), &json!("ok")), "{intent}");
    let intent = stage.gateway.wait_for_record("intent", |record| record["http_method"] == "GET");
    let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!(result["outcome"], "ok", "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_run_together_and_each_gets_its_own_progress_and_answer() {
    let stage = Stage::sse().await;
    let session = stage.session().await;
    let slow = vec![Event::progress(1), Event::result(json!({ "of": "slow" })).after(STEP * 5)];
    stage.upstream.on("tools/call slow", Reply::sse(slow));
    stage.upstream.on(
        "tools/call fast",
        Reply::sse(vec![Event::progress(2).after(STEP), Event::result(json!({ "of": "fast" }))]),
    );
    let mut first = session.stream(&call(1, "slow")).await;
    assert_eq!(first.message().await["params"], json!({ "progressToken": "p1", "progress": 1 }));
    let fast = session.ask(&call(2, "fast")).await;
    assert_eq!(fast[0]["params"], json!({ "progressToken": "p2", "progress": 2 }));
    assert_eq!((fast.len(), &fast[1]), (2, &json!({ "jsonrpc": "2.0", "id": 2, "result": { "of": "fast" } })));
    assert_eq!(first.message().await, json!({ "jsonrpc": "2.0", "id": 1, "result": { "of": "slow" } }));
    assert!(first.ends_within(SECOND).await);
    // The id of a call that is under way is taken, in whatever spelling; after it, it is free.
    let text = |id: &str| call(3, "slow").replacen("\"id\":3", &format!("\"id\":{id}"), 1);
    let mut open = session.stream(&text("\"x\"")).await;
    let taken = session.post(&text("\"\\u0078\"")).await;
    assert_eq!((taken.status, taken.code(), &taken.json()["id"]), (400, Some(-32600), &json!("x")));
    while open.message().await.get("result").is_none() {}
    assert_eq!(session.ask(&text("\"x\"").replace("slow", "fast")).await.pop().unwrap()["result"]["of"], "fast");
    // A client that uses one id again and again at once.
    stage.upstream.on("tools/call", Reply::text("quick"));
    for _ in 0..100 {
        let mut again = session.stream(&call(4, "echo")).await;
        assert_eq!(again.message().await["id"], 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_answer_before_it_accepts() {
    let stage = Stage::sse().await;
    stage.upstream.speak_sse_late(super::MESSAGES, STEP * 3);
    let session = stage.session().await;
    stage.upstream.on("tools/call", Reply::sse(vec![Event::progress(1), Event::result(json!({}))]));
    assert_eq!(session.ask(&call(2, "echo")).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_goes_to_the_standing_stream_or_else_onto_a_call_s() {
    let stage = Stage::sse().await;
    let session = stage.session().await;
    let server = stage.upstream.stream(0).await;
    // Without a reader it waits, and an id of the server's stream means nothing on another one.
    server.push(
        Event::notification("notifications/message", json!({ "level": "info", "data": "early" })).id("7").retry(5),
    );
    stage.upstream.on("tools/call", Reply::elicitation());
    let mut calling = session.stream(&call(2, "echo")).await;
    let early = calling.event().await.unwrap();
    assert!(early.contains("early") && !early.contains("id: 7") && !early.contains("retry"), "{early:?}");
    assert_eq!(calling.message().await["id"], "ask-1");
    assert_eq!(session.post(&reply("ask-1", "blue")).await.status, 202);
    assert_eq!(calling.message().await["result"]["content"][0]["text"], "blue");
    let answered = stage.upstream.requests_for("response").remove(0);
    assert_eq!(answered.line(), "POST /messages?session=sse-session-00000 HTTP/1.1");
    let mut standing = session.stand().await;
    let mut calling = session.stream(&call(3, "echo")).await;
    assert_eq!(standing.message().await["id"], "ask-1");
    assert_eq!(session.post(&reply("ask-1", "green")).await.status, 202);
    assert_eq!(calling.message().await["result"]["content"][0]["text"], "green");
    server.push(Event::notification("notifications/resources/updated", json!({ "uri": "file:///etc/passwd" })));
    server.push(Event::notification("notifications/tools/list_changed", json!({})));
    assert_eq!(standing.message().await["method"], "notifications/tools/list_changed", "secrets are not spoken of");
    // A second standing stream takes over; one that is gone is none.
    let mut second = session.stand().await;
    server.push(Event::notification("notifications/message", json!({ "data": 2 })));
    assert_eq!(second.message().await["params"]["data"], 2);
    drop(second);
    drop(standing);
    server.push(Event::notification("notifications/message", json!({ "data": 3 })).after(STEP * 5));
    server.push(Event::notification("notifications/message", json!({ "data": 4 })));
    tokio::time::sleep(STEP * 7).await;
    let mut third = session.stand().await;
    assert_eq!(third.message().await["params"]["data"], 3);
    assert_eq!(third.message().await["params"]["data"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_server_s_stream_ends_everything_that_waits_for_it() {
    for reset in [false, true] {
        let stage = Stage::sse().await;
        let session = stage.session().await;
        let server = stage.upstream.stream(0).await;
        let mut standing = session.stand().await;
        stage.upstream.on(
            "tools/call",
            Reply::sse(vec![Event::progress(1).id("1"), Event::result(json!({})).after(SECOND * 30)]),
        );
        let mut calling = session.stream(&call(2, "echo")).await;
        assert_eq!(calling.message().await["method"], "notifications/progress");
        if reset {
            server.reset()
        } else {
            server.end()
        }
        let error = calling.message().await;
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(2), &json!(-32603)), "{error}");
        assert!(calling.ends_within(SECOND).await && standing.ends_within(SECOND).await);
        let gone = session.post(LIST).await;
        assert_eq!((gone.status, gone.code()), (404, Some(-32600)));
        assert_eq!(stage.upstream.requests_for("tools/list").len(), 0);
        let record = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/call");
        let result = stage.gateway.wait_for_record("result", |result| result["intent"] == record["seq"]);
        assert_eq!(result["outcome"], "upstream_error", "{result}");
        stage.session().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_conversation_is_refused() {
    let stage = Stage::sse_with("", "", &seal_table()).await;
    let elsewhere = stage.second_node();
    let session = stage.session().await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    for (method, name, params) in [
        ("tools/list", None, json!({ "_meta": meta })),
        ("server/discover", None, json!({ "_meta": meta })),
        ("tools/call", Some("echo"), json!({ "name": "echo", "arguments": {}, "_meta": meta })),
    ] {
        let message = json!({ "jsonrpc": "2.0", "id": 6, "method": method, "params": params }).to_string();
        let headers = client::modern(method, name);
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let refused = stage.post("/mcp/a", &headers, &message).await;
        assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (400, Some(-32600), &json!(6)), "{method}");
        assert!(refused.text().contains("initialize"), "{}", refused.text());
    }
    for (what, answer, status) in [
        ("no session", stage.post("/mcp/a", &[VERSION], LIST).await, 400),
        ("no session for a stream", stage.refused("/mcp/a", &[VERSION]).await, 400),
        ("another node", stage.post_at(elsewhere.data, "/mcp/a", &[&session.header], LIST).await, 404),
        ("another server", stage.post("/mcp/b", &[&session.header], LIST).await, 404),
        (
            "another revision",
            stage.post("/mcp/a", &[&session.header, "MCP-Protocol-Version: 2025-03-26"], LIST).await,
            400,
        ),
    ] {
        assert_eq!((answer.status, answer.code().is_some()), (status, true), "{what}: {}", answer.text());
    }
    let foreign = format!("X-API-Key: {}", stage.other.key);
    let foreign = client::send(stage.gateway.data, client::post("/mcp/a", &[&session.header, &foreign], LIST)).await;
    assert_eq!(foreign.status, 404);
    assert_eq!(stage.upstream.requests_for("tools/list").len(), 0);
    assert_eq!(session.ask(LIST).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_take_a_message_is_an_error_and_the_session_goes_on() {
    let stage = Stage::sse_with("", "timeout_ms = 400", "").await;
    let session = stage.session().await;
    let rpc_error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "no" } });
    for (id, reply, status) in [
        (2, Reply::never(), 504),
        (3, Reply::html(500), 502),
        (4, Reply::reset(), 502),
        (5, Reply::message(rpc_error).status_code(400), 400),
        (6, Reply::html(503), 503),
    ] {
        stage.upstream.on("tools/call", reply);
        let mut connection = client::Connection::open(stage.gateway.data).await;
        connection.write(session.request(&call(id, "echo"))).await;
        let failed = connection.answer().await.unwrap();
        assert_eq!(
            (failed.status, &failed.json()["id"], failed.code().is_some()),
            (status, &json!(id), true),
            "{}",
            failed.text()
        );
        // The same connection and the same id serve again.
        stage.upstream.on("tools/call", Reply::text("fine"));
        connection.write(session.request(&call(id, "echo"))).await;
        assert_eq!(connection.answer().await.expect("a connection that goes on").events()[0]["id"], id);
    }
    stage.upstream.on("notifications/cancelled", Reply::html(500));
    let refused =
        session.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#).await;
    assert_eq!(refused.status, 502);
    stage.upstream.on("notifications/cancelled", Reply::never());
    let refused =
        session.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#).await;
    assert_eq!(refused.status, 504);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initialize_that_fails_leaves_no_stream_behind() {
    let stage = Stage::sse_with("", "timeout_ms = 400", "").await;
    stage.upstream.on("initialize", Reply::error(-32602, "not today"));
    let failed = stage.post("/mcp/a", &[], INITIALIZE).await;
    assert_eq!((failed.status, failed.header("mcp-session-id")), (200, None));
    assert_eq!(failed.events()[0]["error"]["code"], -32602, "{}", failed.text());
    stage.upstream.stream(0).await.ended().await;
    stage.upstream.on("initialize", Reply::never());
    assert_eq!(stage.post("/mcp/a", &[], INITIALIZE).await.status, 504);
    stage.upstream.stream(1).await.ended().await;
    let refusal = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no" } });
    stage.upstream.on("initialize", Reply::message(refusal).status_code(400));
    let failed = stage.post("/mcp/a", &[], INITIALIZE).await;
    assert_eq!((failed.status, failed.code(), &failed.json()["id"]), (400, Some(-32600), &json!(0)));
    stage.upstream.stream(2).await.ended().await;
    stage.upstream.on("GET", Reply::standing(vec![Event::endpoint("http://127.0.0.1:1/x")]));
    assert_eq!(stage.post("/mcp/a", &[], INITIALIZE).await.status, 502);
    stage.upstream.stream(3).await.ended().await;
    assert_eq!(stage.upstream.requests_for("initialize").len(), 3, "nothing was posted elsewhere");
    let own = stage.gateway.wait_for_record("intent", |record| record["http_method"] == "GET");
    assert_eq!(own["transport"], "streamable-http");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_that_was_unused_longest_makes_room_for_a_new_one() {
    let stage = Stage::sse_with("streams_max = 3", "", "").await;
    let foreign = format!("X-API-Key: {}", stage.other.key);
    let first = stage.session().await;
    let second = stage.session().await;
    let third = stage.session().await;
    assert_eq!(first.ask(LIST).await.len(), 1);
    let initialize = client::post("/mcp/a", &[&foreign], INITIALIZE);
    let other = client::send(stage.gateway.data, &initialize).await;
    assert_eq!(other.status, 200, "one key does not use up what others need: {}", other.text());
    stage.upstream.stream(1).await.ended().await;
    assert_eq!(second.post(LIST).await.status, 404);
    for session in [&first, &third] {
        assert_eq!(session.ask(LIST).await.len(), 1);
    }
    // Whoever has an unused session gives up that one, though another's is older.
    let fourth = stage.session().await;
    assert_eq!(first.post(LIST).await.status, 404);
    assert_eq!(fourth.ask(LIST).await.len(), 1);
    let header = format!("Mcp-Session-Id: {}", other.header("mcp-session-id").unwrap());
    let asked = client::send(stage.gateway.data, client::post("/mcp/a", &[&header, &foreign], LIST)).await;
    assert_eq!((asked.status, stage.upstream.stream(3).await.is_open()), (200, true));
    assert_eq!(third.delete().await, 200);
    stage.upstream.stream(2).await.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_many_children_nor_another_workspace_end_the_sessions_of_others() {
    let guests = ["guest-0", "guest-1", "guest-2"].map(gateway::make_key);
    let mut tables = "may_mint = true\n[agents.worker]\n".to_owned();
    for (name, key) in ["x", "y", "z"].iter().zip(&guests) {
        let digest = &key.digest;
        tables += &format!("[workspaces.guests.keys.{name}]\ndigest = \"{digest}\"\nmcp_servers = [\"*\"]\n");
    }
    let upstream = Upstream::start().await;
    upstream.speak_sse(MESSAGES);
    let server = format!("[workspaces.guests.servers.a]\ntransport = \"sse\"\nurl = \"{}\"\n", upstream.sse_url());
    let stage = Stage::sse_with("streams_max = 3", "", &(tables + &server)).await;
    let other = format!("X-API-Key: {}", stage.other.key);
    let first = stage.session().await;
    let initialize = async |key: &str| {
        let key = format!("X-API-Key: {key}");
        let opened = client::send(stage.gateway.data, client::post("/mcp/a", &[&key], INITIALIZE)).await;
        assert_eq!(opened.status, 200, "{}", opened.text());
        opened
    };
    for _ in 0..6 {
        let minted = client::post("/v1/mcp/keys", &[&other], r#"{"agent":"worker"}"#);
        let minted = client::send(stage.gateway.data, minted).await.json();
        initialize(minted["key"].as_str().unwrap()).await;
    }
    for number in 1..5 {
        stage.upstream.stream(number).await.ended().await;
    }
    assert_eq!(first.ask(LIST).await.len(), 1, "many children are no more than one key");
    // A first one of another workspace takes the place of the longest unused, and the others of that workspace its own.
    for key in &guests {
        initialize(&key.key).await;
    }
    for stream in [stage.upstream.stream(5), upstream.stream(0), upstream.stream(1)] {
        stream.await.ended().await;
    }
    assert!(stage.upstream.stream(6).await.is_open() && upstream.stream(2).await.is_open());
    assert_eq!(first.ask(LIST).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_used_makes_room_for_nobody() {
    let stage = Stage::sse_with("streams_max = 3", "", "").await;
    let first = stage.session().await;
    let _standing = first.stand().await;
    let second = stage.session().await;
    stage.upstream.on("tools/call", Reply::never());
    let request = second.request(&call(2, "echo"));
    let asked = tokio::spawn(client::send(stage.gateway.data, request));
    stage.upstream.wait_for("tools/call", 1).await;
    for _ in 0..5 {
        stage.session().await;
    }
    assert!(
        !asked.is_finished() && stage.upstream.stream(0).await.is_open() && stage.upstream.stream(1).await.is_open()
    );
    asked.abort();
    assert_eq!(first.ask(LIST).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_uses_is_given_up_however_lively_its_server() {
    let stage = Stage::sse_with("", "stream_idle_timeout_ms = 2000", "").await;
    let session = stage.session().await;
    let server = stage.upstream.stream(0).await;
    for _ in 0..80 {
        server.push(Event::comment("ping").after(STEP));
    }
    tokio::time::timeout(SECOND * 6, server.ended()).await.expect("given up while it still says something");
    assert_eq!(session.post(LIST).await.status, 404);
    // Whoever asks or listens keeps it.
    let session = stage.session().await;
    let server = stage.upstream.stream(1).await;
    // Together longer than it may be unused.
    for _ in 0..15 {
        server.push(Event::comment("ping").after(STEP * 2));
        tokio::time::sleep(STEP * 2).await;
        assert_eq!(session.ask(LIST).await.len(), 1);
    }
    assert!(server.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_session_of_2025_03_26_is_answered_whole() {
    let stage = Stage::sse().await;
    let opened = stage.post("/mcp/a", &[], &INITIALIZE.replace("2025-06-18", "2025-03-26")).await;
    let header = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    let batch = format!("[{LIST},{},{INITIALIZED},{}]", call(2, "hidden"), call(3, "echo"));
    let answer = tokio::time::timeout(PATIENCE, stage.post("/mcp/a", &[&header], &batch)).await.expect("in time");
    let body = if answer.header("content-type") == Some("application/json") {
        answer.json()
    } else {
        answer.events().pop().unwrap()
    };
    let told: Vec<_> =
        body.as_array().unwrap().iter().map(|item| (item["id"].as_u64(), item["error"]["code"].as_i64())).collect();
    assert_eq!(told, [(Some(1), None), (Some(2), Some(-32602)), (Some(3), None)]);
}
