//! Rates, counts and budgets: does a limit hold, is the time to come again the true one, and is nobody charged for what was not sent?

use std::fs;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::wait_until;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const USED: &str = "portcullis_limit_used{level=\"key\",limit=\"calls_per_day_max\",name=\"ci\"}";

/// A server `a` that is `b` as well, one that nobody answers for, and the key `ci`.
struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    /// `key`: further lines of the key's table; `more`: further tables.
    async fn with(key_lines: &str, more: &str) -> Self {
        gateway::wait_for_midnight();
        let (upstream, key) = (Upstream::start().await, gateway::make_key("ci"));
        upstream.on("tools/call", Reply::text("done"));
        let gateway = Gateway::start(&config(&upstream, &key, key_lines, more));
        Self { upstream, gateway, key }
    }

    fn reload(&self, key_lines: &str, more: &str) {
        self.gateway.reload(&config(&self.upstream, &self.key, key_lines, more));
        self.gateway.wait_for_log("configuration reloaded");
    }

    async fn ask(&self, server: &str, body: &Value) -> Answer {
        let key = format!("X-API-Key: {}", self.key.key);
        self.gateway
            .post(&format!("/mcp/{server}"), &[&key, "MCP-Protocol-Version: 2025-03-26"], &body.to_string())
            .await
    }

    async fn call(&self, tool: &str) -> Answer {
        self.ask("a", &call(tool)).await
    }

    /// How many calls the key has used today, as the metrics tell it.
    async fn used(&self) -> f64 {
        self.gateway.metric(USED).await.unwrap_or_default()
    }
}

fn config(upstream: &Upstream, key: &Key, key_lines: &str, more: &str) -> String {
    format!(
        "[servers.a]\nurl = \"{}\"\nblocked_tools = [\"blocked\"]\n[servers.gone]\nurl = \"http://127.0.0.1:9/mcp\"\n\
         [servers.b]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"*\"]\n{key_lines}\n{more}\n",
        upstream.url(),
        upstream.url(),
        key.digest
    )
}

fn call(tool: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
}

/// That it is a refusal for the time being, under the caller's id, that does not say which limit it is; for how long.
#[track_caller]
fn refused(answer: &Answer, id: &Value) -> u64 {
    assert_eq!((answer.status, answer.code()), (429, Some(-31429)), "{answer:?}");
    assert_eq!(&answer.json()["id"], id);
    for word in ["key", "team", "plan", "budget", "rpm", "day"] {
        assert!(!answer.text().contains(word), "{answer:?}");
    }
    let wait = answer.header("retry-after").expect("a time to come again").parse().unwrap();
    assert_eq!(answer.json()["error"]["data"]["retryAfter"], json!(wait));
    wait
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_again_and_then_is_served() {
    let stage = Stage::with("limits.rpm_limit = 30", "").await;
    let begun = Instant::now();
    let mut limited = None;
    for number in 0..60 {
        let id = format!("call-{number}");
        let answer = stage.call(&id).await;
        if answer.status != 200 {
            limited = Some(refused(&answer, &json!(id)));
            break;
        }
    }
    let wait = limited.expect("a limit");
    let sent = stage.upstream.requests().len() as u64;
    // One more for each two seconds that this took.
    assert!((30..=30 + begun.elapsed().as_secs() / 2 + 1).contains(&sent), "{sent}");
    assert!((1..=2).contains(&wait), "{wait}");
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "key_rpm_limit");
    assert_eq!((&record["rule"], &record["limit_of"]), (&json!("keys.ci.limits.rpm_limit"), &json!("key:ci")));
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(stage.call("again").await.status, 200);
}

#[tokio::test]
async fn what_is_no_request_passes_at_the_limit_on_the_same_connection_and_does_not_count() {
    let stage = Stage::with("limits.rpm_limit = 1", "").await;
    stage.upstream.on("ping", Reply::json(json!({})));
    let ping = json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" });
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    for _ in 0..3 {
        assert_eq!(stage.ask("a", &ping).await.status, 200);
        assert_eq!(stage.ask("a", &note).await.status, 202);
    }
    assert_eq!(stage.call("first").await.status, 200);
    let mut connection = Connection::open(stage.gateway.data).await;
    let key = format!("X-API-Key: {}", stage.key.key);
    for (body, status) in [(&call("second"), 429), (&ping, 200), (&note, 202), (&call("third"), 429)] {
        connection.write(client::post("/mcp/a", &[&key], &body.to_string())).await;
        assert_eq!(connection.answer().await.expect("an answer").status, status, "{body}");
    }
    // What is too large to be worth it is not read.
    let mut large = call("large");
    large["params"]["arguments"] = json!({ "text": "x".repeat(100_000) });
    refused(&stage.ask("a", &large).await, &Value::Null);
    assert_eq!(stage.upstream.requests_for("tools/call").len(), 1);
}

#[tokio::test]
async fn each_message_of_a_batch_counts() {
    let stage = Stage::with("limits.rpm_limit = 3", "").await;
    let ping = json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" });
    stage.upstream.on("ping", Reply::json(json!({})));
    let batch = Value::from([call("a"), ping, call("b"), call("c"), call("d"), call("e")].to_vec());
    let answer = stage.ask("a", &batch).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers = answer.json();
    let codes: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, None, None, None, Some(-31429), Some(-31429)]);
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_is_one_request() {
    let stage = Stage::with("limits.rpm_limit = 2", "").await;
    let key = format!("X-API-Key: {}", stage.key.key);
    // Batches are of an earlier revision.
    let headers = [key.as_str(), "MCP-Protocol-Version: 2025-06-18"];
    let batch = Value::from([call("a"), call("b")].to_vec()).to_string();
    assert_eq!(stage.gateway.post("/mcp/a", &headers, &batch).await.status, 400);
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 429]);
}

#[tokio::test]
async fn a_session_of_an_http_sse_client_counts_while_it_stands_and_after() {
    let stage = Stage::with("limits.concurrent_streams_max = 1\nlimits.sessions_per_hour_max = 3", "").await;
    let get = format!(
        "GET /mcp/a/sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nX-API-Key: {}\r\n\r\n",
        stage.key.key
    );
    for number in 1..=2 {
        let mut open = Connection::open(stage.gateway.data).await;
        open.write(&get).await;
        open.read_until("event: endpoint").await;
        // It is the only one that may stand, and one that is refused begins no session.
        for _ in 0..3 {
            assert_eq!(refused(&client::send(stage.gateway.data, &get).await, &Value::Null), 1);
        }
        drop(open);
        while stage.gateway.records().iter().filter(|record| record["kind"] == "result").count() < number {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut last = Connection::open(stage.gateway.data).await;
    last.write(&get).await;
    last.read_until("event: endpoint").await;
    // Of two limits, the one that lasts longer is told: three sessions have begun.
    assert!(refused(&client::send(stage.gateway.data, &get).await, &Value::Null) > 1_000);
    let reasons: Vec<_> = stage.gateway.records().iter().map(|record| record["reason"].clone()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "key_concurrent_streams_max").count(), 6);
    assert_eq!(reasons.last().unwrap(), "key_sessions_per_hour_max");
}

#[tokio::test]
async fn of_calls_made_at_once_no_more_run_than_may_and_places_are_given_back() {
    let stage = Stage::with("", "[servers.a.tools.slow.limits]\nconcurrent_calls_max = 3").await;
    stage.upstream.on("tools/call", Reply::text("late").delay(Duration::from_millis(1_500)));
    for _round in 0..2 {
        let answers = join_all((0..10).map(|_| stage.call("slow"))).await;
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(served, 3, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(refused(answer, &json!("slow")), 1);
        }
        // A place is free when the call is on record, just after its answer.
        let under_way = "portcullis_limit_used{level=\"tool\",limit=\"concurrent_calls_max\",name=\"a/slow\"}";
        while stage.gateway.metric(under_way).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "tool_concurrent_calls_max");
    assert_eq!(record["limit_of"], "tool:a/slow");
    // A client that leaves gives its place back too.
    stage.upstream.on("tools/call", Reply::never());
    let key = format!("X-API-Key: {}", stage.key.key);
    let mut connections = Vec::new();
    for number in 1..=3 {
        let mut connection = Connection::open(stage.gateway.data).await;
        connection.write(client::post("/mcp/a", &[&key], &call("slow").to_string())).await;
        connections.push(connection);
        stage.upstream.wait_for("tools/call", 6 + number).await;
    }
    assert_eq!(stage.call("slow").await.status, 429);
    // A call of these revisions is waited for until its connection breaks.
    for connection in &connections {
        connection.stream.set_zero_linger().unwrap();
    }
    drop(connections);
    stage.upstream.on("tools/call", Reply::text("done"));
    for _ in 0..500 {
        if stage.call("slow").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("places are held for ever");
}

#[tokio::test]
async fn denied_calls_and_those_that_were_never_sent_use_nothing_up() {
    let stage = Stage::with("limits.calls_per_day_max = 2\nlimits.budget_per_day_max = 0.2", costs("gone")).await;
    for _ in 0..5 {
        let answer = stage.call("blocked").await;
        assert_eq!(answer.code(), Some(-32602), "{answer:?}");
        // Nobody listens there.
        assert_eq!(stage.ask("gone", &call("t")).await.status, 502);
    }
    assert_eq!(stage.used().await, 0.0);
    let cost = stage
        .gateway
        .wait_for_record("result", |record| record["server"] == Value::Null && record["reason"] == "connect");
    assert_eq!(cost["cost"], Value::Null);
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 200]);
    let wait = refused(&stage.call("t").await, &json!("t"));
    assert!((1..=86_400).contains(&wait));
    assert_eq!(stage.used().await, 2.0);
}

/// A call of `tool` on a server, whose answer nobody waits for.
async fn begin(stage: &Stage, server: &str, tool: &str) -> Connection {
    let mut connection = Connection::open(stage.gateway.data).await;
    let key = format!("X-API-Key: {}", stage.key.key);
    connection.write(client::post(&format!("/mcp/{server}"), &[&key], &call(tool).to_string())).await;
    connection
}

#[tokio::test]
async fn a_call_whose_client_leaves_before_it_has_a_connection_uses_nothing_up() {
    // It takes connections and never answers a handshake.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = format!(
        "[servers.mute]\nurl = \"https://{}/mcp\"\nconnect_timeout_ms = 60000\ntimeout_ms = 60000\n\
         [servers.mute.mcp_server_cost_info]\ndefault_cost_per_query = 0.1\n{}",
        mute.local_addr().unwrap(),
        costs("a")
    );
    let stage = Stage::with("limits.calls_per_day_max = 2", &more).await;
    for number in 1..=3 {
        let connection = begin(&stage, "mute", "t").await;
        let dialled = mute.accept().await.unwrap();
        connection.stream.set_zero_linger().unwrap();
        drop(connection);
        let results = stage.gateway.wait_for_records("result", number);
        assert_eq!(
            (&results[number - 1]["cost"], &results[number - 1]["reason"]),
            (&Value::Null, &json!("client_gone"))
        );
        drop(dialled);
    }
    assert_eq!(stage.used().await, 0.0);
    // One that went out counts, though its client leaves as well.
    stage.upstream.on("tools/call", Reply::never());
    let connection = begin(&stage, "a", "cheap").await;
    stage.upstream.wait_for("tools/call", 1).await;
    connection.stream.set_zero_linger().unwrap();
    drop(connection);
    let results = stage.gateway.wait_for_records("result", 4);
    assert_eq!((&results[3]["cost"], stage.used().await), (&json!("0.01"), 1.0));
}

#[tokio::test]
async fn calls_to_one_server_have_their_own_rate_and_the_teams_holds_beside_it() {
    let team = "[teams.platform]\nmcp_rpm_limit = { b = 1 }";
    let stage = Stage::with("team = \"platform\"\nmcp_rpm_limit = { a = 2, b = 60 }", team).await;
    stage.upstream.on("tools/list", Reply::json(json!({ "tools": [] })));
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 200]);
    let wait = refused(&stage.call("t").await, &json!("t"));
    assert!((29..=30).contains(&wait), "{wait}");
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "key_mcp_rpm_limit");
    assert_eq!((&record["rule"], &record["limit_of"]), (&json!("keys.ci.mcp_rpm_limit.a"), &json!("key:ci")));
    // Neither lists nor what is blocked count, and another server has another.
    assert_eq!(stage.ask("a", &list).await.status, 200);
    assert_eq!(stage.call("blocked").await.code(), Some(-32602));
    assert_eq!(stage.ask("gone", &call("t")).await.status, 502);
    assert_eq!(stage.ask("b", &call("t")).await.status, 200);
    assert!((59..=60).contains(&refused(&stage.ask("b", &call("t")).await, &json!("t"))));
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "team_mcp_rpm_limit");
}

/// What a call costs, for a server.
fn costs(server: &str) -> &'static str {
    match server {
        "gone" => "[servers.gone.mcp_server_cost_info]\ndefault_cost_per_query = 0.1",
        _ => {
            "[servers.a.mcp_server_cost_info]\ndefault_cost_per_query = 0.01\ntool_name_to_cost_per_query = { dear = \"0.05\" }"
        }
    }
}

#[tokio::test]
async fn money_is_on_record_in_the_metrics_and_ends_at_the_budget_of_the_team() {
    let team = format!("[teams.platform.limits]\nbudget_per_month_max = 0.11\n{}", costs("a"));
    let stage = Stage::with("team = \"platform\"", &team).await;
    for tool in ["dear", "cheap", "dear"] {
        assert_eq!(stage.call(tool).await.status, 200);
    }
    refused(&stage.call("cheap").await, &json!("cheap"));
    let records = stage.gateway.wait_for_records("result", 3);
    let costs: Vec<&Value> = records.iter().map(|record| &record["cost"]).collect();
    assert_eq!(costs, [&json!("0.05"), &json!("0.01"), &json!("0.05")]);
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "team_budget_per_month_max");
    assert_eq!(record["limit_of"], "team:platform");
    assert_eq!(stage.gateway.metric("portcullis_cost_millionths_total{server=\"a\"}").await, Some(110_000.0));
    let spent = "portcullis_limit_used{level=\"team\",limit=\"budget_per_month_max\",name=\"platform\"}";
    assert_eq!(stage.gateway.metric(spent).await, Some(110_000.0));
    assert_eq!(
        stage.gateway.metric("portcullis_refusals_total{reason=\"team_budget_per_month_max\"}").await,
        Some(1.0)
    );
}

#[tokio::test]
async fn a_free_plan_reaches_its_servers_and_a_hundred_calls() {
    let plan = "[plans.free]\nservers_max = 1\ncalls_per_day_max = 100";
    let stage = Stage::with("plan = \"free\"", plan).await;
    for number in 1..=100 {
        assert_eq!(stage.call(&format!("t{number}")).await.status, 200);
    }
    refused(&stage.call("t101").await, &json!("t101"));
    let record = stage.gateway.wait_for_record("refused", |record| record["reason"] == "key_calls_per_day_max");
    assert_eq!(record["rule"], "plans.free.calls_per_day_max");
    // A list is no call.
    stage.upstream.on("tools/list", Reply::json(json!({ "tools": [] })));
    assert_eq!(stage.ask("a", &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).await.status, 200);
    refused(&stage.ask("gone", &call("t")).await, &json!("t"));
}

#[tokio::test]
async fn streams_and_sessions_have_their_own_limits() {
    let stage = Stage::with("limits.concurrent_streams_max = 1\nlimits.sessions_per_hour_max = 2", "").await;
    stage.upstream.on("GET", Reply::standing(Vec::new()));
    let get = format!(
        "GET /mcp/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nX-API-Key: {}\r\n\r\n",
        stage.key.key
    );
    let mut first = Connection::open(stage.gateway.data).await;
    first.write(&get).await;
    stage.upstream.wait_for("GET", 1).await;
    assert_eq!(client::send(stage.gateway.data, &get).await.status, 429);
    drop(first);
    // Its place is free when its end is on record; the server must be let run meanwhile.
    while !stage.gateway.records().iter().any(|record| record["kind"] == "result") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut second = Connection::open(stage.gateway.data).await;
    second.write(&get).await;
    stage.upstream.wait_for("GET", 2).await;
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let statuses = [stage.ask("a", &initialize).await, stage.ask("a", &initialize).await].map(|answer| answer.status);
    assert_eq!(statuses, [200, 200]);
    assert!(refused(&stage.ask("a", &initialize).await, &json!(1)) > 1_000);
    assert_eq!(stage.call("t").await.status, 200);
}

#[tokio::test]
async fn what_was_used_survives_a_reload_a_crash_and_a_restart() {
    let mut stage = Stage::with("limits.calls_per_day_max = 4", "").await;
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 200]);
    stage.reload("limits.calls_per_day_max = 3\nlimits.rpm_limit = 1000", "");
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 429]);
    let file = stage.gateway.directory.join("state/usage.json");
    wait_until("three calls are written down", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("\"used\":3"))
    });
    stage.gateway.kill();
    stage.gateway.restart();
    assert_eq!(stage.used().await, 3.0);
    assert_eq!(stage.call("t").await.status, 429);
    stage.reload("limits.calls_per_day_max = 5", "");
    wait_until("the higher limit holds", || stage.gateway.log().matches("configuration reloaded").count() >= 2);
    assert_eq!(stage.call("t").await.status, 200);
    // An orderly end writes at once.
    stage.gateway.signal("TERM");
    assert_eq!(stage.gateway.wait(), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("\"used\":4"));
    stage.gateway.restart();
    assert_eq!([stage.call("t").await.status, stage.call("t").await.status], [200, 429]);
}

#[tokio::test]
async fn a_damaged_file_of_what_was_used_refuses_the_start_and_says_so() {
    let mut stage = Stage::with("limits.calls_per_day_max = 4", "").await;
    stage.gateway.kill();
    let file = stage.gateway.directory.join("state/usage.json");
    fs::write(&file, "{\"version\":1,\"accounts\":{\"key:ci\":").unwrap();
    let config = stage.gateway.directory.join("portcullis.toml");
    let (code, _, error) = gateway::run(&["run", "--config", config.to_str().unwrap()]);
    assert_ne!(code, Some(0));
    assert!(error.contains("usage.json") && error.contains("remove it to begin at zero"), "{error}");
    fs::remove_file(&file).unwrap();
    stage.gateway.restart();
    assert_eq!(stage.call("t").await.status, 200);
}
