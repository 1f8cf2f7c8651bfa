//! A server that hangs, drips, resets or floods: does it hurt anybody but its own callers?
//!
//! Whatever one server does, the others are served as ever, what it holds is bounded and given back, a call goes out on
//! one connection alone, and everybody who is refused is told so under their own id, with a time to wait.

use std::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::wait_until;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;

/// Numbers that look random and are the same in every run.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A gateway before the server `a`, which misbehaves, and the server `b`, which does not.
struct Stage {
    a: Upstream,
    _b: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    /// `more`: further lines of the table of `a`.
    async fn with(more: &str) -> Self {
        let (a, b, key) = (Upstream::start().await, Upstream::start().await, gateway::make_key("ci"));
        let gateway = Gateway::start(&format!(
            "[servers.a]\nurl = \"{}\"\n{more}\n[servers.b]\nurl = \"{}\"\n{}",
            a.url(),
            b.url(),
            keys(&key)
        ));
        Self { a, _b: b, gateway, key }
    }

    fn call(&self, server: &str, tool: &str) -> String {
        call(&self.key, server, tool)
    }

    async fn ask(&self, server: &str, tool: &str) -> Answer {
        client::send(self.gateway.data, self.call(server, tool)).await
    }

    /// Calls `b` so many times; how long the slowest took.
    async fn ask_the_healthy(&self, times: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for number in 0..times {
            let begun = Instant::now();
            let answer = self.ask("b", &format!("healthy-{number}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }

    async fn pending(&self) -> Option<f64> {
        self.gateway.metric("portcullis_upstream_pending{server=\"a\"}").await
    }

    async fn wait_until_nothing_is_pending(&self) {
        for _ in 0..500 {
            if self.pending().await == Some(0.0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} calls are pending for ever", self.pending().await);
    }
}

fn keys(key: &Key) -> String {
    format!("[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"*\"]\n", key.digest)
}

fn call(key: &Key, server: &str, tool: &str) -> String {
    let params = json!({ "name": tool, "arguments": {}, "_meta": { "progressToken": 7 } });
    let message = json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params });
    client::post(&format!("/mcp/{server}"), &[&format!("X-API-Key: {}", key.key)], &message.to_string())
}

/// That it is a refusal for the time being, under the caller's id, that says nothing of the server.
#[track_caller]
fn refused_for_now(answer: &Answer, id: &str) {
    assert_eq!((answer.status, answer.code()), (503, Some(-32603)), "{answer:?}");
    assert_eq!(answer.json()["id"], json!(id));
    let wait: u64 = answer.header("retry-after").expect("a time to wait").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(!answer.text().contains("127.0.0.1"), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_hangs_fills_its_own_places_and_nobody_elses() {
    let stage = Stage::with("pending_max = 4\ntimeout_ms = 6000\nbreaker.enabled = false").await;
    stage.a.on("tools/call", Reply::never());
    let hanging = async {
        let asked = (0..4).map(|number| stage.ask("a", Box::leak(format!("hangs-{number}").into_boxed_str())));
        join_all(asked).await
    };
    let meanwhile = async {
        stage.a.wait_for("tools/call", 4).await;
        assert_eq!(stage.pending().await, Some(4.0));
        for number in 0..8 {
            let id = format!("refused-{number}");
            refused_for_now(&stage.ask("a", &id).await, &id);
            assert!(stage.ask_the_healthy(3).await < Duration::from_secs(4));
        }
    };
    let (hung, ()) = tokio::join!(hanging, meanwhile);
    assert!(hung.iter().all(|answer| answer.status == 504), "{hung:?}");
    assert_eq!(stage.a.requests().len(), 4, "what was refused was not sent");
    let refused = stage.gateway.wait_for_record("result", |record| record["reason"] == "pending_max");
    assert_eq!(
        (&refused["outcome"], &refused["status"], &refused["attempts"]),
        (&json!("refused"), &json!(503), &json!(0))
    );
    let counted = stage.gateway.metric("portcullis_refusals_total{reason=\"pending_max\"}").await;
    assert_eq!(counted, Some(8.0));
    stage.wait_until_nothing_is_pending().await;
    stage.a.on("tools/call", Reply::text("well again"));
    assert_eq!(stage.ask("a", "after").await.status, 200);
}

#[tokio::test]
async fn places_are_given_back_by_clients_that_leave() {
    let stage = Stage::with("pending_max = 3\nbreaker.enabled = false").await;
    stage.a.on("tools/call", Reply::never());
    for round in 1..=5 {
        let mut connections = Vec::new();
        for number in 0..3 {
            let mut connection = Connection::open(stage.gateway.data).await;
            let tool = format!("left-{round}-{number}");
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {}
            });
            let params = json!({ "name": tool, "arguments": {}, "_meta": meta });
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
            let headers = client::modern("tools/call", Some(&tool));
            let mut headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let key = format!("X-API-Key: {}", stage.key.key);
            headers.push(&key);
            connection.write(client::post("/mcp/a", &headers, &message)).await;
            connections.push(connection);
        }
        stage.a.wait_for("tools/call", round * 3).await;
        refused_for_now(&stage.ask("a", "too-many").await, "too-many");
        drop(connections);
        stage.wait_until_nothing_is_pending().await;
    }
}

#[tokio::test]
async fn servers_that_drip_reset_or_flood_leave_the_others_alone() {
    let stage =
        Stage::with("pending_max = 16\ntimeout_ms = 400\nanswer_bytes_max = 65536\nbreaker.enabled = false").await;
    let mut seeded = Seeded(20_261_130);
    let part = Duration::from_millis(50);
    for round in 0..24 {
        let reply = match seeded.below(6) {
            0 => Reply::text("drip").drip(4, part),
            1 => Reply::text(&"x".repeat(2_000)).reset_after(usize::try_from(seeded.below(2_000)).unwrap()),
            2 => Reply::huge(1 << 20),
            3 => Reply::huge(1 << 20).chunked().reset_after(1 << 16),
            4 => Reply::sse(vec![Event::raw(&format!("data: {}", "x".repeat(1 << 20)))]),
            _ => Reply::garbage(),
        };
        stage.a.on("tools/call", reply);
        let ids: Vec<String> = (0..4).map(|number| format!("bad-{round}-{number}")).collect();
        let bad = join_all(ids.iter().map(|id| stage.ask("a", id)));
        let (bad, slowest) = tokio::join!(bad, stage.ask_the_healthy(4));
        for (answer, id) in bad.iter().zip(&ids) {
            let error = answer.events().pop().unwrap_or_else(|| answer.json());
            assert_eq!((&error["error"]["code"], &error["id"]), (&json!(-32603), &json!(id)), "{answer:?}");
        }
        assert!(slowest < Duration::from_secs(4), "round {round}: {slowest:?}");
    }
    stage.wait_until_nothing_is_pending().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_refused_at_once_and_served_when_it_is_back() {
    let stage = Stage::with("breaker = { failures_max = 3, open_ms = 1500 }").await;
    let session = stage.gateway.post("/mcp/a", &[&format!("X-API-Key: {}", stage.key.key)], INITIALIZE).await;
    let session = format!("Mcp-Session-Id: {}", session.header("mcp-session-id").unwrap());
    let address = stage.a.address();
    stage.a.stop().await;
    let mut statuses = Vec::new();
    for number in 0..10 {
        let id = format!("down-{number}");
        let answer = stage.ask("a", &id).await;
        if answer.status == 503 {
            refused_for_now(&answer, &id);
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..3], [502, 502, 502], "{statuses:?}");
    assert!(statuses[3..].iter().filter(|status| **status == 503).count() >= 5, "{statuses:?}");
    stage.gateway.wait_for_log("its circuit is open");
    let refused = stage.gateway.wait_for_record("result", |record| record["reason"] == "circuit_open");
    assert_eq!((&refused["outcome"], &refused["attempts"]), (&json!("refused"), &json!(0)));
    let metrics = stage.gateway.metrics().await;
    let state =
        metrics.lines().find(|line| line.starts_with("portcullis_upstream_circuit{") && line.contains("server=\"a\""));
    assert!(state.is_some_and(|line| line.contains(&address.to_string()) && !line.ends_with(" 0")), "{state:?}");
    assert!(metrics.contains("portcullis_upstream_circuit_openings_total"), "{metrics}");
    assert!(stage.ask_the_healthy(3).await < Duration::from_secs(4));

    let back = Upstream::start_at(address).await;
    let begun = Instant::now();
    loop {
        let key = format!("X-API-Key: {}", stage.key.key);
        if stage.gateway.post("/mcp/a", &[&key, &session], PING).await.status == 200 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never asked again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stage.ask("a", "back").await.status, 200);
    stage.gateway.wait_for_log("its circuit is closed");
    assert!(!back.requests().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_resets_costs_a_few_calls_and_its_neighbour_takes_the_rest() {
    let (ill, well, key) = (Upstream::start().await, Upstream::start().await, gateway::make_key("ci"));
    ill.on("tools/call", Reply::reset());
    let endpoints = format!("endpoints = [{{ url = \"{}\" }}, {{ url = \"{}\" }}]", ill.url(), well.url());
    let breaker = "breaker = { failures_max = 3, open_ms = 60000 }\nhealth.type = \"none\"\nbalance = \"round_robin\"";
    let gateway = Gateway::start(&format!("[servers.a]\n{endpoints}\n{breaker}\n{}", keys(&key)));
    let mut failed = 0;
    for number in 0..60 {
        // Of 2025-06-18 and without a session a caller has an endpoint of its own: modern calls are balanced.
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}
        });
        let tool = format!("t{number}");
        let params = json!({ "name": tool, "arguments": {}, "_meta": meta });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let mut headers = client::modern("tools/call", Some(&tool));
        headers.push(format!("X-API-Key: {}", key.key));
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        failed += usize::from(gateway.post("/mcp/a", &headers, &message).await.status != 200);
    }
    assert_eq!((failed, ill.requests().len(), well.requests().len()), (3, 3, 57));
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_closed_50_ms_before_never_costs_a_call() {
    let stage = Stage::with("").await;
    // Closed behind the answer, without a word about it.
    stage.a.on("tools/call", Reply::text("x").close_after(1 << 20));
    for round in 0..10 {
        let ids: Vec<String> = (0..8).map(|number| format!("kept-{round}-{number}")).collect();
        for answer in join_all(ids.iter().map(|id| stage.ask("a", id))).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for round in 0..10 {
        for number in 0..8 {
            let sent = stage.a.requests_for(&format!("tools/call kept-{round}-{number}")).len();
            assert_eq!(sent, 1, "kept-{round}-{number}");
        }
    }
    assert!(stage.gateway.records().iter().all(|record| record["kind"] != "result" || record["outcome"] == "ok"));
}

/// On how many connections any byte of a call arrived, by a name that stands in no other.
fn connections_with(upstream: &Upstream, name: &str) -> usize {
    let holds = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    upstream.connections().iter().filter(|connection| holds(&connection.bytes)).count()
}

#[tokio::test]
async fn no_call_reaches_two_connections_while_its_server_is_killed_at_any_moment() {
    let stage = Stage::with("breaker.enabled = false\ntimeout_ms = 2000").await;
    let address = stage.a.address();
    stage.a.stop().await;
    let mut seeded = Seeded(7);
    let (mut answered, mut lost) = (0, 0);
    for round in 0..25 {
        let server = Upstream::start_at(address).await;
        server.on("tools/call", Reply::text("x").delay(Duration::from_millis(seeded.below(12))));
        let ids: Vec<String> = (0..8).map(|number| format!("<killed-{round}-{number}>")).collect();
        // Some find a kept connection, some do not.
        join_all((0..4).map(|number| stage.ask("a", Box::leak(format!("warm-{round}-{number}").into_boxed_str()))))
            .await;
        let killed_after = Duration::from_micros(seeded.below(14_000));
        let asked = join_all(ids.iter().map(|id| stage.ask("a", id)));
        let killed = async {
            tokio::time::sleep(killed_after).await;
            server.stop().await;
        };
        let (answers, ()) = tokio::join!(asked, killed);
        for (answer, id) in answers.iter().zip(&ids) {
            assert!(matches!(answer.status, 200 | 502), "{answer:?}");
            answered += usize::from(answer.status == 200);
            lost += usize::from(answer.status == 502);
            assert!(connections_with(&server, id) <= 1, "{id} went out twice");
        }
    }
    assert!(answered > 0 && lost > 0, "{answered} answered, {lost} lost: nothing was shown");
    let count = |kind: &str| stage.gateway.records().iter().filter(|record| record["kind"] == kind).count();
    wait_until("every call is on record", || (count("intent"), count("result")) == (25 * 12, 25 * 12));
}

#[tokio::test]
async fn a_tools_own_time_is_reset_by_progress_up_to_its_ceiling() {
    let tools = "tools.steady = { timeout_ms = 1000, timeout_max_ms = 4000 }\ntools.quick.timeout_ms = 300";
    let stage = Stage::with(&format!("timeout_ms = 10000\n{tools}\nbreaker.enabled = false")).await;
    let part = Duration::from_millis(250);
    let progress = |count: u64| (0..count).map(move |number| Event::progress(number).after(part));
    let result = || Event::result(json!({"content": []})).after(part);
    stage.a.on("tools/call steady", Reply::sse(progress(6).chain([result()]).collect()));
    let answer = stage.ask("a", "steady").await;
    assert_eq!(
        answer.events().last().unwrap()["result"],
        json!({"content": []}),
        "it took more than its time: {answer:?}"
    );

    let ends_with_error = |answer: &Answer, took: Duration, about: std::ops::Range<u64>| {
        let last = answer.events().pop().unwrap_or_else(|| answer.json());
        assert_eq!(last["error"]["code"], json!(-32603), "{answer:?}");
        assert!(about.contains(&u64::try_from(took.as_millis()).unwrap()), "{took:?}");
    };
    let timed = async |tool: &str| {
        let begun = Instant::now();
        let answer = stage.ask("a", tool).await;
        (answer, begun.elapsed())
    };
    let comments = (0..40).map(|_| Event::comment("still here").after(part));
    stage.a.on("tools/call steady", Reply::sse(comments.chain([result()]).collect()));
    let (answer, took) = timed("steady").await;
    ends_with_error(&answer, took, 900..3_500);
    stage.a.on("tools/call steady", Reply::sse(progress(60).chain([result()]).collect()));
    let (answer, took) = timed("steady").await;
    ends_with_error(&answer, took, 3_800..8_000);

    stage.a.on("tools/call", Reply::text("x").delay(Duration::from_millis(3_000)));
    let (answer, took) = timed("quick").await;
    assert_eq!(answer.status, 504);
    ends_with_error(&answer, took, 250..2_900);
    assert_eq!(stage.ask("a", "other").await.status, 200, "other tools have the server's time");
}

#[tokio::test]
async fn connections_are_never_shared_between_credentials() {
    let (upstream, key) = (Upstream::start().await, gateway::make_key("ci"));
    let config = |second: &str| {
        let server = |name: &str, secret: &str| {
            format!(
                "[servers.{name}]\nurl = \"{}\"\nauth = {{ type = \"bearer\", secret = \"{secret}\" }}\n",
                upstream.url()
            )
        };
        format!("{}{}{}", server("one", "credential-1"), server("two", second), keys(&key))
    };
    let gateway = Gateway::start(&config("credential-2"));
    let ask = async |server: &str| assert_eq!(client::send(gateway.data, call(&key, server, "t")).await.status, 200);
    for _ in 0..5 {
        ask("one").await;
        ask("two").await;
    }
    gateway.reload(&config("credential-3"));
    gateway.wait_for_log("configuration reloaded");
    for _ in 0..5 {
        ask("two").await;
        ask("one").await;
    }
    let mut of_connection = std::collections::BTreeMap::new();
    for request in upstream.requests() {
        let credential = request.header("authorization").unwrap();
        let known = of_connection.entry(request.connection).or_insert_with(|| credential.clone());
        assert_eq!(*known, credential, "connection {} served both", request.connection);
    }
    assert_eq!(of_connection.len(), 3, "one for each credential, and each is kept: {of_connection:?}");
}

#[tokio::test]
async fn an_endpoint_drains_by_configuration() {
    let (one, two, key) = (Upstream::start().await, Upstream::start().await, gateway::make_key("ci"));
    let config = |draining: bool| {
        let endpoints =
            format!("[{{ url = \"{}\" }}, {{ url = \"{}\", draining = {draining} }}]", one.url(), two.url());
        format!("[servers.a]\nendpoints = {endpoints}\nhealth.type = \"none\"\n{}", keys(&key))
    };
    let gateway = Gateway::start(&config(false));
    let owner = format!("X-API-Key: {}", key.key);
    let begin = async || {
        let answer = gateway.post("/mcp/a", &[&owner], INITIALIZE).await;
        format!("Mcp-Session-Id: {}", answer.header("mcp-session-id").unwrap())
    };
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(begin().await);
    }
    assert_eq!((one.requests_for("initialize").len(), two.requests_for("initialize").len()), (3, 3));
    gateway.reload(&config(true));
    gateway.wait_for_log("configuration reloaded");
    for _ in 0..6 {
        sessions.push(begin().await);
    }
    assert_eq!((one.requests_for("initialize").len(), two.requests_for("initialize").len()), (9, 3), "nothing new");
    for session in &sessions {
        assert_eq!(gateway.post("/mcp/a", &[&owner, session], PING).await.status, 200);
    }
    assert_eq!(two.requests_for("ping").len(), 3, "its sessions go on");
    wait_until("the sessions' records", || gateway.records().len() >= 40);
}

#[tokio::test]
async fn a_status_of_a_failing_server_counts_unless_the_server_itself_made_it_for_the_call() {
    let stage = Stage::with("breaker = { failures_max = 3, open_ms = 60000 }").await;
    // A tool's own error, whatever its status, is nothing that its caller could shut out others by.
    stage.a.on("tools/call", Reply::error(-32000, "no such row").status_code(503));
    for _ in 0..8 {
        assert_eq!(stage.ask("a", "echo").await.code(), Some(-32000));
    }
    let body = r#"{"message":"Service Unavailable"}"#;
    stage.a.on("tools/call", Reply::entity(503, "application/json", body));
    for _ in 0..8 {
        assert_eq!(stage.ask("a", "echo").await.code(), Some(-32603));
    }
    assert_eq!(stage.a.requests_for("tools/call").len(), 8 + 3, "three failures open the circuit");
}
