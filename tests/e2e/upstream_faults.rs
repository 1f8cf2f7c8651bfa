//! A server that is down, slow, broken or hostile: what does its client get, and what is on record?
//!
//! Whatever it does, the client reads a JSON-RPC error under its own id, nothing of the server shows in it, the call
//! was sent once and never again, one intent and one result tell how it went, and the next call is served.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
/// The id of every call.
const ID: &str = "asked";
/// A good answer to it.
const GOOD: &str = r#"{"jsonrpc":"2.0","id":"asked","result":{}}"#;
const TIMEOUT: Duration = Duration::from_millis(1500);
/// What only an upstream says, or what only its configuration knows.
const UPSTREAMS_OWN: [&str; 9] = [
    "127.0.0.1",
    "hidden-path",
    "hidden-query",
    "internal.example",
    "canary",
    "nginx",
    "www-authenticate",
    "set-cookie",
    "location",
];

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    /// A gateway in front of one scripted server, which is given little time and space.
    async fn start() -> Self {
        Self::with(Upstream::start().await, "").await
    }

    async fn with(upstream: Upstream, more: &str) -> Self {
        let key = gateway::make_key("ci");
        let gateway = Gateway::start(&config(&upstream, &key, more));
        Self { upstream, gateway, key }
    }

    fn key(&self) -> String {
        format!("X-API-Key: {}", self.key.key)
    }

    /// A call of a tool.
    fn call(&self, tool: &str) -> String {
        let params = json!({ "name": tool, "arguments": {} });
        let message = json!({ "jsonrpc": "2.0", "id": ID, "method": "tools/call", "params": params });
        client::post("/mcp/a", &[&self.key()], &message.to_string())
    }

    /// The result on record of the one call of a tool.
    fn result_of(&self, tool: &str) -> Value {
        let intent = self.gateway.wait_for_record("intent", |record| record["tool"] == tool);
        let result = self.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
        let records = self.gateway.records();
        let about = |record: &&Value| record["tool"] == tool || record["intent"] == intent["seq"];
        assert_eq!(records.iter().filter(about).count(), 2, "{tool}: one intent and one result");
        result
    }

    #[track_caller]
    fn nothing_leaks(&self, answer: &Answer) {
        let shown = format!("{}{}", answer.head, answer.text()).to_lowercase();
        let port = format!(":{}", self.upstream.address().port());
        for own in UPSTREAMS_OWN.into_iter().chain([port.as_str(), "\r\nserver:", "transfer-coding"]) {
            assert!(!shown.contains(own), "`{own}` of the upstream shows in {shown}");
        }
    }

    /// Plays every fault on one connection, each followed by a good call.
    async fn play(&mut self, faults: Vec<Fault>) {
        let mut connection = Connection::open(self.gateway.data).await;
        for (number, fault) in faults.into_iter().enumerate() {
            let (tool, good) = (format!("fault-{number}"), format!("good-{number}"));
            let what = fault.what;
            self.upstream.on("tools/call", fault.reply);
            connection.write(self.call(&tool)).await;
            let answer = connection.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
            let body = answer.json();
            assert_eq!((answer.status, answer.complete), (fault.status, true), "{what}: {answer:?}");
            assert_eq!((&body["error"]["code"], &body["id"]), (&json!(-32603), &json!(ID)), "{what}: {body}");
            assert!(body.get("result").is_none(), "{what}: {body}");
            self.nothing_leaks(&answer);
            assert_eq!(self.upstream.requests_for(&format!("tools/call {tool}")).len(), 1, "{what}: sent once");
            let result = self.result_of(&tool);
            assert_eq!(
                (&result["outcome"], &result["reason"]),
                (&json!(fault.outcome), &json!(fault.reason)),
                "{what}"
            );
            assert_eq!((&result["status"], &result["attempts"]), (&json!(fault.status), &json!(1)), "{what}: {result}");
            self.upstream.on("tools/call", Reply::text("fine"));
            connection.write(self.call(&good)).await;
            let answer = connection.answer().await.unwrap_or_else(|| panic!("after {what}: no answer"));
            assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(ID)), "after {what}");
            assert_eq!(self.upstream.requests_for(&format!("tools/call {good}")).len(), 1, "after {what}");
        }
        assert!(self.gateway.is_alive());
    }
}

fn config(upstream: &Upstream, key: &Key, more: &str) -> String {
    format!(
        r#"
        [servers.a]
        url = "http://{}/hidden-path?t=hidden-query"
        timeout_ms = {}
        answer_bytes_max = 4096
        {more}
        [keys.ci]
        digest = "{}"
        mcp_servers = ["*"]
        "#,
        upstream.address(),
        TIMEOUT.as_millis(),
        key.digest
    )
}

struct Fault {
    what: &'static str,
    reply: Reply,
    status: u16,
    outcome: &'static str,
    reason: &'static str,
}

/// The connection broke before the answer was whole.
fn broken(what: &'static str, reply: Reply) -> Fault {
    Fault { what, reply, status: 502, outcome: "network_failure", reason: "reset" }
}

/// The answer was too late.
fn late(what: &'static str, reply: Reply) -> Fault {
    Fault { what, reply, status: 504, outcome: "network_failure", reason: "timeout" }
}

/// There was an answer, and it is no acceptable one.
fn wrong(what: &'static str, reason: &'static str, reply: Reply) -> Fault {
    Fault { what, reply, status: 502, outcome: "upstream_error", reason }
}

fn raw(head: &str, body: &str) -> Reply {
    Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{head}\r\n{body}"))
}

/// An answer of this text, which is JSON or not.
fn json_text(text: &str) -> Reply {
    Reply::entity(200, "application/json", text.to_owned())
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_whole_is_a_failure_and_no_answer() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";
    let mut faults = vec![
        broken("a reset at once", Reply::reset()),
        broken("an end at once", Reply::raw("").close()),
        broken("a chunk cut in its size", raw("Transfer-Encoding: chunked\r\n", "1").close()),
        broken("a chunk cut in its data", raw("Transfer-Encoding: chunked\r\n", "40\r\n{\"jsonrpc\"").close()),
        broken("chunks without the last one", {
            raw("Transfer-Encoding: chunked\r\n", &format!("{:x}\r\n{GOOD}\r\n", GOOD.len())).close()
        }),
        broken("a length that is not reached", raw(&format!("Content-Length: {}\r\n", GOOD.len() + 1), GOOD).close()),
    ];
    for at in [1, 9, 17, 40, head.len() - 1] {
        faults.push(broken("a head, reset", Reply::raw(head).reset_after(at)));
        faults.push(broken("a head, cut", Reply::raw(head).close_after(at)));
    }
    for at in [1, 20, 60, 137] {
        faults.push(broken("a body, reset", Reply::text(&"x".repeat(60)).reset_after(at)));
        faults.push(broken("a body, cut", Reply::text(&"x".repeat(60)).close_after(at)));
        faults.push(broken("chunks, reset", Reply::text(&"x".repeat(60)).chunked().reset_after(at)));
        faults.push(broken("chunks, cut", Reply::text(&"x".repeat(60)).chunked().close_after(at)));
    }
    Stage::start().await.play(faults).await;
}

#[tokio::test]
async fn an_answer_that_is_late_in_head_or_body_is_given_up_in_time() {
    let part = TIMEOUT / 6;
    let dripping = |pieces: usize| {
        let mut events = vec![Event::raw("{\"jsonrpc\":")];
        events.extend(std::iter::repeat_n(Event::raw(" ").after(part), pieces));
        Reply::sse(events).without_header("Content-Type").header("Content-Type", "application/json")
    };
    let mut stage = Stage::start().await;
    let began = Instant::now();
    stage
        .play(vec![
            late("never", Reply::never()),
            late("too late", Reply::text("late").delay(TIMEOUT * 2)),
            late("a dripping head", Reply::text("drip").drip(4, part)),
            late("a dripping body", dripping(20)),
            late(
                "a head and nothing more",
                raw("Content-Length: 400\r\n", "{").delay(Duration::ZERO).drip(4096, TIMEOUT * 2),
            ),
        ])
        .await;
    assert!(began.elapsed() < TIMEOUT * 5 * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_not_acceptable_http_is_no_answer() {
    let good = GOOD;
    let length = format!("Content-Length: {}\r\n", good.len());
    let faults = vec![
        wrong("no HTTP", "protocol", Reply::garbage()),
        wrong("a length and chunks", "protocol", raw(&format!("{length}Transfer-Encoding: chunked\r\n"), good)),
        wrong("two lengths", "protocol", raw(&format!("{length}Content-Length: 3\r\n"), good)),
        wrong("a list of lengths", "protocol", raw(&format!("Content-Length: {0}, {0}\r\n", good.len()), good)),
        wrong("a negative length", "protocol", raw("Content-Length: -1\r\n", good)),
        wrong("a chunk size in words", "protocol", raw("Transfer-Encoding: chunked\r\n", "many\r\n{}\r\n0\r\n\r\n")),
        wrong("another transfer encoding", "protocol", raw("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        wrong("a folded line", "protocol", raw(&format!("{length}X-A: b\r\n c: d\r\n"), good)),
        wrong("a huge head", "protocol", raw(&format!("{length}X-A: {}\r\n", "a".repeat(17 << 10)), good)),
        wrong("too many lines", "protocol", raw(&format!("{length}{}", "X-A: b\r\n".repeat(65)), good)),
        wrong("too many interim answers", "protocol", {
            Reply::raw(format!(
                "{}HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n{good}",
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9)
            ))
        }),
        wrong("a switch of protocols", "protocol", {
            Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
        }),
    ];
    Stage::start().await.play(faults).await;
}

#[tokio::test]
async fn what_is_http_but_no_answer_to_the_request_does_not_pass() {
    let ok = |more: &str| json_text(&format!(r#"{{"jsonrpc":"2.0","id":"{ID}"{more}}}"#));
    let faults = vec![
        wrong("a page", "answer_status", Reply::html(200)),
        wrong("a page about a failure", "upstream_status", Reply::html(502)),
        wrong("a page about nothing", "upstream_status", Reply::html(404)),
        wrong(
            "JSON as text",
            "answer_status",
            Reply::text("x").without_header("Content-Type").header("Content-Type", "text/plain"),
        ),
        wrong("no media type", "answer_status", Reply::text("x").without_header("Content-Type")),
        wrong("another charset", "answer_status", Reply::entity(200, "application/json; charset=utf-16", "{}")),
        wrong("another id", "answer_id", Reply::wrong_id(json!("another"), json!({}))),
        wrong("a number for an id", "answer_id", Reply::wrong_id(json!(7), json!({}))),
        wrong("two answers", "answer_malformed", json_text(&GOOD.repeat(2))),
        wrong("compressed", "answer_encoded", Reply::gzip(json!({}))),
        wrong("compressed, it says", "answer_encoded", Reply::text("x").header("Content-Encoding", "br")),
        wrong("202", "answer_status", Reply::accepted()),
        wrong("204", "answer_status", Reply::status(204)),
        wrong("206", "answer_status", Reply::text("x").status_code(206)),
        wrong("nearly an event stream", "answer_status", Reply::entity(200, "text/event-streams", "")),
        wrong("too large", "answer_too_large", Reply::huge(5000)),
        wrong("too large in chunks", "answer_too_large", Reply::huge(5000).chunked()),
        wrong("too large without a length", "answer_too_large", Reply::huge(5000).until_close()),
        wrong("a key twice", "answer_malformed", ok(r#","result":{"a":1,"\u0061":2}"#)),
        wrong("the result twice", "answer_malformed", ok(r#","result":{},"result":{}"#)),
        wrong("a result and an error", "answer_malformed", ok(r#","result":{},"error":{"code":1,"message":""}"#)),
        wrong("neither", "answer_malformed", ok("")),
        wrong("half of it", "answer_malformed", json_text(r#"{"jsonrpc":"2.0","id":"#)),
        wrong("nothing", "answer_malformed", json_text("")),
        wrong("a word", "answer_malformed", json_text("NaN")),
        wrong("a list", "answer_malformed", json_text(&format!("[{GOOD}]"))),
        wrong("a mark before it", "answer_malformed", json_text(&format!("\u{feff}{GOOD}"))),
        wrong(
            "no UTF-8",
            "answer_malformed",
            Reply::entity(200, "application/json", &b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"result\":{}}"[..]),
        ),
        wrong("too deep", "answer_malformed", ok(&format!(r#","result":{}1{}"#, "[".repeat(600), "]".repeat(600)))),
        wrong(
            "a notification",
            "answer_kind",
            Reply::message(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})),
        ),
        wrong("a request", "answer_kind", Reply::message(json!({"jsonrpc": "2.0", "id": "$id", "method": "ping"}))),
    ];
    Stage::start().await.play(faults).await;
}

#[tokio::test]
async fn redirects_and_challenges_are_neither_followed_nor_passed_on() {
    let elsewhere = Upstream::start().await;
    let mut stage = Stage::start().await;
    let challenge = r#"Bearer resource_metadata="http://auth.internal.example/canary""#;
    let mut faults: Vec<Fault> = [301, 302, 303, 307, 308]
        .map(|status| wrong("a redirect", "answer_status", Reply::redirect(&elsewhere.url()).status_code(status)))
        .into();
    faults.push(wrong(
        "a redirect with an answer",
        "answer_status",
        Reply::text("x").status_code(302).header("Location", &elsewhere.url()),
    ));
    faults.push(wrong("401", "upstream_status", Reply::unauthorized()));
    for status in [401, 402, 403, 407] {
        let reply = Reply::error(-32001, "canary: ask auth.internal.example").status_code(status);
        let reply = reply.header("WWW-Authenticate", challenge).header("Proxy-Authenticate", challenge);
        faults.push(wrong("a challenge", "upstream_status", reply));
    }
    stage.play(faults).await;
    assert_eq!(elsewhere.connections().len(), 0, "nobody followed");
}

#[tokio::test]
async fn an_upstreams_headers_stay_with_the_gateway() {
    let stage = Stage::start().await;
    for framed in [
        Reply::text("x"),
        Reply::text("x").chunked(),
        Reply::text("x").until_close(),
        Reply::sse(vec![Event::result(json!({}))]),
    ] {
        let reply = framed
            .header("Set-Cookie", "canary=1")
            .header("Server", "nginx")
            .header("X-Backend", "canary.internal.example");
        let reply = reply
            .header("Location", "http://canary/")
            .header("Access-Control-Allow-Origin", "canary")
            .header("Mcp-Session-Id", "canary");
        stage.upstream.on("tools/call", reply.header("WWW-Authenticate", "Basic canary").header("Trailer", "canary"));
        let answer = client::send(stage.gateway.data, stage.call("a")).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
        stage.nothing_leaks(&answer);
        let names: Vec<String> =
            answer.head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_lowercase())).collect();
        let known = [
            "content-type",
            "content-length",
            "date",
            "connection",
            "cache-control",
            "x-accel-buffering",
            "transfer-encoding",
            "keep-alive",
        ];
        assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_server_itself_passes_in_the_words_of_json_rpc_alone() {
    let stage = Stage::start().await;
    for (status, shown) in [(200, 200), (400, 400), (404, 404), (409, 409), (429, 429), (500, 502), (503, 503)] {
        let reply =
            Reply::error(-32050, "busy").status_code(status).header("Retry-After", "3").header("Server", "nginx");
        stage.upstream.on("tools/call", reply);
        let answer = client::send(stage.gateway.data, stage.call(&format!("e{status}"))).await;
        let error = json!({ "jsonrpc": "2.0", "id": ID, "error": { "code": -32050, "message": "busy" } });
        assert_eq!((answer.status, answer.json()), (shown, error));
        stage.nothing_leaks(&answer);
        assert_eq!(stage.result_of(&format!("e{status}"))["outcome"], "rpc_error");
    }
    // A server that could not read the request does not know its id.
    let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no" } });
    stage.upstream.on("tools/call", Reply::message(error).status_code(400));
    let answer = client::send(stage.gateway.data, stage.call("unread")).await;
    assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (400, Some(-32600), &json!(ID)));
}

#[tokio::test]
async fn an_id_is_the_same_however_its_text_is_escaped() {
    let stage = Stage::start().await;
    for (asked, answered) in
        [(r#""é/a""#, r#""\u00e9\/a""#), (r#""\u0061\/b""#, r#""a/b""#), ("9007199254740993", "9007199254740993")]
    {
        stage.upstream.on("tools/call", json_text(&format!(r#"{{"jsonrpc":"2.0","id":{answered},"result":{{}}}}"#)));
        let body = format!(r#"{{"jsonrpc":"2.0","id":{asked},"method":"tools/call","params":{{"name":"a"}}}}"#);
        let answer = stage.gateway.post("/mcp/a", &[&stage.key()], &body).await;
        assert_eq!(answer.status, 200, "{asked}: {answer:?}");
    }
    stage.upstream.on("tools/call", json_text(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#));
    let answer = stage
        .gateway
        .post("/mcp/a", &[&stage.key()], r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#)
        .await;
    assert_eq!(answer.status, 502, "a number is no text");
}

#[tokio::test]
async fn a_server_that_is_down_is_a_failure_until_it_comes_back() {
    let mut stage = Stage::start().await;
    let address = stage.upstream.address();
    stage.upstream.stop().await;
    let answer = client::send(stage.gateway.data, stage.call("down")).await;
    assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (502, Some(-32603), &json!(ID)));
    stage.nothing_leaks(&answer);
    let result = stage.result_of("down");
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("network_failure"), &json!("connect")));
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let answer = stage.gateway.post("/mcp/a", &[&stage.key()], notification).await;
    assert_eq!((answer.status, answer.code(), answer.json().get("id")), (502, Some(-32603), None));
    stage.upstream = Upstream::start_at(address).await;
    assert_eq!(client::send(stage.gateway.data, stage.call("up")).await.status, 200);
}

#[tokio::test]
async fn a_notification_is_accepted_whatever_its_answer_holds_and_refused_if_it_was() {
    let stage = Stage::start().await;
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let accepted = [
        Reply::accepted(),
        Reply::status(204),
        Reply::text("canary"),
        Reply::html(200),
        Reply::sse(vec![Event::comment("canary")]),
    ];
    for (reply, status) in
        accepted.into_iter().map(|reply| (reply, 202)).chain([(Reply::html(500), 502), (Reply::redirect("/"), 502)])
    {
        stage.upstream.on("notifications/initialized", reply);
        let answer = stage.gateway.post("/mcp/a", &[&stage.key()], notification).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.body.is_empty(), status == 202, "{answer:?}");
        stage.nothing_leaks(&answer);
    }
    let outcomes: Vec<Value> =
        stage.gateway.wait_for_records("result", 7).iter().map(|result| result["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok", "ok", "ok", "upstream_error", "upstream_error"]);
    stage.upstream.on("tools/call", Reply::text("fine"));
    assert_eq!(client::send(stage.gateway.data, stage.call("a")).await.status, 200);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced_without_losing_a_call() {
    let stage = Stage::start().await;
    let mut connection = Connection::open(stage.gateway.data).await;
    // Closed right after the answer, without a word about it.
    stage.upstream.on("tools/call", Reply::text("x").close_after(1 << 20));
    for number in 0..40 {
        connection.write(stage.call(&format!("c{number}"))).await;
        assert_eq!(connection.answer().await.unwrap().status, 200, "call {number}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((stage.upstream.requests().len(), stage.upstream.connections().len()), (40, 40));
    stage.upstream.on("tools/call", Reply::text("x"));
    for number in 40..60 {
        connection.write(stage.call(&format!("c{number}"))).await;
        assert_eq!(connection.answer().await.unwrap().status, 200, "call {number}");
    }
    assert_eq!(stage.upstream.connections().len(), 41, "one connection serves call after call");
}

#[tokio::test]
async fn no_call_is_sent_twice_while_the_server_closes_connections_at_any_moment() {
    let stage = Stage::with(Upstream::start().await, "breaker.enabled = false").await;
    let replies = vec![
        Reply::text("x"),
        Reply::text("x").close_after(1 << 20),
        Reply::text("x").reset_after(30),
        Reply::text("x").reset_after(1 << 20),
        Reply::reset(),
    ];
    stage.upstream.on_each("tools/call", replies.into_iter().cycle().take(200).collect());
    let mut statuses = Vec::new();
    for batch in 0..20 {
        let calls = (0..10).map(|number| client::send(stage.gateway.data, stage.call(&format!("c{batch}-{number}"))));
        statuses.extend(futures_util::future::join_all(calls).await.iter().map(|answer| answer.status));
    }
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)) && good >= 40, "{good} of 200");
    for (batch, number) in (0..20).flat_map(|batch| (0..10).map(move |number| (batch, number))) {
        let sent = stage.upstream.requests_for(&format!("tools/call c{batch}-{number}")).len();
        assert!(sent <= 1, "c{batch}-{number} was sent {sent} times");
    }
    assert_eq!(
        stage.gateway.wait_for_records("result", 200).len(),
        stage.gateway.wait_for_records("intent", 200).len()
    );
}

#[tokio::test]
async fn a_session_the_server_no_longer_knows_is_404_in_any_clothing() {
    let stage = Stage::start().await;
    let token =
        stage.gateway.post("/mcp/a", &[&stage.key()], INITIALIZE).await.header("mcp-session-id").unwrap().to_owned();
    let session = format!("Mcp-Session-Id: {token}");
    for reply in [Reply::session_gone(), Reply::html(404), Reply::status(404)] {
        stage.upstream.on("ping", reply);
        let answer = stage.gateway.post("/mcp/a", &[&stage.key(), &session], PING).await;
        assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (404, Some(-32600), &json!(2)));
        stage.nothing_leaks(&answer);
    }
    let reason = stage.gateway.wait_for_record("result", |record| record["status"] == 404);
    assert_eq!((&reason["reason"], &reason["outcome"]), (&json!("session_unknown"), &json!("refused")));
}

#[tokio::test]
async fn a_session_stays_on_its_endpoint_and_is_lost_with_it() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let key = gateway::make_key("ci");
    let config = |endpoints: &[&Upstream]| {
        let list: Vec<String> =
            endpoints.iter().map(|upstream| format!("{{ url = \"{}\" }}", upstream.url())).collect();
        let keys = format!("[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n", key.digest);
        format!("[servers.a]\nendpoints = [{}]\nhealth.type = \"none\"\n{keys}", list.join(", "))
    };
    let gateway = Gateway::start(&config(&[&one, &two]));
    let owner = format!("X-API-Key: {}", key.key);
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let before = one.requests_for("initialize").len();
        let answer = gateway.post("/mcp/a", &[&owner], INITIALIZE).await;
        let session = format!("Mcp-Session-Id: {}", answer.header("mcp-session-id").unwrap());
        sessions.push((session, one.requests_for("initialize").len() > before));
    }
    assert_eq!(sessions.iter().filter(|(_, on_one)| *on_one).count(), 5, "both take their share");
    for (session, on_one) in sessions.iter().chain(&sessions) {
        let before = (one.requests_for("ping").len(), two.requests_for("ping").len());
        assert_eq!(gateway.post("/mcp/a", &[&owner, session], PING).await.status, 200);
        let after = (before.0 + usize::from(*on_one), before.1 + usize::from(!on_one));
        assert_eq!((one.requests_for("ping").len(), two.requests_for("ping").len()), after);
    }
    gateway.reload(&config(&[&one]));
    gateway.wait_for_log("configuration reloaded");
    let before = two.requests().len();
    for (session, on_one) in &sessions {
        let answer = gateway.post("/mcp/a", &[&owner, session], PING).await;
        assert_eq!((answer.status, &answer.json()["id"]), (if *on_one { 200 } else { 404 }, &json!(2)));
    }
    assert_eq!(two.requests().len(), before);
    assert_eq!(gateway.wait_for_record("result", |record| record["status"] == 404)["reason"], "endpoint_gone");
}

#[tokio::test]
async fn the_configured_credential_and_headers_arrive_under_the_endpoints_own_host() {
    let forms = [
        (r#"auth = { type = "bearer", secret = "tok-1" }"#, "authorization", "Bearer tok-1"),
        (r#"auth = { type = "basic", username = "u", secret = "p:w" }"#, "authorization", "Basic dTpwOnc="),
        (r#"auth = { type = "header", name = "X-Token", secret = "tok-2" }"#, "x-token", "tok-2"),
        (r#"auth = { type = "api_key", name = "X-API-Key", secret = "tok-3" }"#, "x-api-key", "tok-3"),
        ("", "x-one", "1"),
    ];
    for (auth, name, value) in forms {
        let more = format!("{auth}\nheaders = {{ X-One = \"1\", X-Two = \"${{env:PORTCULLIS_TEST_TWO}}\" }}");
        let upstream = Upstream::start().await;
        let key = gateway::make_key("ci");
        let gateway = gateway::setup(&config(&upstream, &key, &more)).variable("PORTCULLIS_TEST_TWO", "two").start();
        let answer =
            gateway.post("/mcp/a", &[&format!("X-API-Key: {}", key.key), "X-One: mine", "X-Token: mine"], PING).await;
        assert_eq!(answer.status, 200);
        let request = upstream.requests().remove(0);
        assert_eq!(request.headers(name), [value]);
        assert_eq!(
            (request.headers("x-one"), request.headers("x-two")),
            (vec!["1".to_owned()], vec!["two".to_owned()])
        );
        assert_eq!(request.headers("host"), [upstream.address().to_string()]);
        assert_eq!(request.line(), "POST /hidden-path?t=hidden-query HTTP/1.1");
        assert!(!String::from_utf8_lossy(&request.raw).contains(&key.key));
        assert_eq!(request.headers("authorization").is_empty(), name != "authorization");
    }
}
