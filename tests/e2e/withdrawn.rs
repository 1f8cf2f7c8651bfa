//! What was permitted and no longer is: tasks of a tool that was blocked since, and streams that stand when their time is over.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const DECLARED: &str = "io.modelcontextprotocol/clientCapabilities";

async fn ask(gateway: &Gateway, key: &str, method: &str, name: &str, mut params: Value) -> Answer {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        DECLARED: { "extensions": { "io.modelcontextprotocol/tasks": {} } },
    });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut headers = client::modern(method, Some(name));
    headers.push(format!("X-API-Key: {key}"));
    gateway.post("/mcp/a", &headers.iter().map(String::as_str).collect::<Vec<_>>(), &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_a_tool_that_was_blocked_since_is_not_there_but_can_be_ended() {
    let upstream = Upstream::start().await;
    let task = |kind: &str, status: &str| {
        let task = json!({ "taskId": "upstream-task-1", "status": status, "createdAt": "t", "lastUpdatedAt": "t", "ttlMs": null });
        let mut task = task.as_object().unwrap().clone();
        task.insert("resultType".into(), json!(kind));
        Value::Object(task)
    };
    upstream.on("tools/call", Reply::json(task("task", "working")));
    upstream.on("tasks/get", Reply::json(task("complete", "completed")));
    upstream.on("tasks/cancel", Reply::json(json!({ "resultType": "complete" })));
    let key = gateway::make_key("ci");
    let config = key.config(&upstream);
    let mut gateway = Gateway::start(&config);
    let made = ask(&gateway, &key.key, "tools/call", "slow", json!({ "name": "slow", "arguments": {} })).await;
    let token = made.json()["result"]["taskId"].as_str().unwrap().to_owned();
    let other = ask(&gateway, &key.key, "tools/call", "other", json!({ "name": "other", "arguments": {} })).await;
    assert_eq!(other.json()["result"]["taskId"], token, "a task keeps the token that its client knows");
    let got = ask(&gateway, &key.key, "tasks/get", &token, json!({ "taskId": token })).await;
    assert_eq!((got.code(), &got.json()["result"]["taskId"]), (None, &json!(token)), "{}", got.text());

    let blocked = config.replace("[servers.a]", "[servers.a]\nblocked_tools = [\"slow\"]");
    gateway.write(&blocked);
    // Nothing that a process remembers is needed for it.
    gateway.kill();
    gateway.restart();
    for method in ["tasks/get", "tasks/update"] {
        let params = json!({ "taskId": token, "inputResponses": {} });
        let answer = ask(&gateway, &key.key, method, &token, params).await;
        assert_eq!((answer.status, answer.code()), (200, Some(-32602)), "{method}: {}", answer.text());
        assert!(answer.text().contains("Task not found"), "{}", answer.text());
        let found = gateway.wait_for_record("refused", |record| record["rpc_method"] == method);
        assert_eq!((&found["reason"], &found["rule"]), (&json!("tool_blocked"), &json!("servers.a.blocked_tools[0]")));
    }
    assert_eq!(upstream.requests_for("tasks/get").len(), 1, "nothing went out");
    let ended = ask(&gateway, &key.key, "tasks/cancel", &token, json!({ "taskId": token })).await;
    assert_eq!(ended.code(), None, "{}", ended.text());
    assert_eq!(upstream.requests_for("tasks/cancel").len(), 1);
}

/// Whether a stream comes to its end within `patience`; its connection may go on.
async fn ends_within(stream: &mut Connection, patience: Duration) -> bool {
    tokio::time::timeout(patience, stream.read_until("\r\n0\r\n\r\n")).await.is_ok()
}

/// A window that holds at this second, `now` of the clock, and ends with a minute at least 12 s from now: as a configuration
/// says it, and in how many seconds it ends. None if that minute is another day's, whose window has not begun.
fn window_at(now: u64) -> Option<(String, u64)> {
    const DAY: u64 = 24 * 60 * 60;
    let end = (now + 12).div_ceil(60) * 60;
    // Of its day alone: a window of every day that ends at midnight is followed by the next day's.
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from((end - 1) / DAY % 7).unwrap()];
    let minutes = (end - 1) % DAY / 60 + 1;
    let is_today = (end - 1) / DAY == now / DAY;
    is_today.then(|| (format!("{day} 00:00-{:02}:{:02}", minutes / 60, minutes % 60), end - now))
}

/// The next such window, waiting for it.
fn next_window() -> (String, u64) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if let Some(window) = window_at(now) {
            return window;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_window_for_the_test_ends_with_its_own_day() {
    // The first day of all was a Thursday.
    assert_eq!(window_at(0), Some(("Thu 00:00-00:01".to_owned(), 60)));
    assert_eq!(window_at(86_400 + 48), Some(("Fri 00:00-00:01".to_owned(), 12)));
    assert_eq!(window_at(86_400 + 49), Some(("Fri 00:00-00:02".to_owned(), 71)));
    assert_eq!(window_at(4 * 86_400 - 12), Some(("Sun 00:00-24:00".to_owned(), 12)));
    assert_eq!(window_at(4 * 86_400 - 11), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stands_ends_when_its_window_of_time_closes() {
    let upstream = Upstream::start().await;
    upstream.on("GET", Reply::standing(Vec::new()));
    let key = gateway::make_key("ci");
    let (window, seconds) = next_window();
    let config = key.config(&upstream);
    let bound = config.replace("[servers.a]", &format!("[servers.a]\nallowed_times = [\"{window}\"]"));
    let gateway = Gateway::start(&bound);
    let free = Gateway::start(&config);
    let mut streams = Vec::new();
    for gateway in [&gateway, &free] {
        let mut stream = Connection::open(gateway.data).await;
        let get = "GET /mcp/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
        stream.write(format!("{get}X-API-Key: {}\r\n\r\n", key.key)).await;
        stream.read_until("text/event-stream").await;
        streams.push(stream);
    }
    // A reload in between that changes nothing of it.
    gateway.reload(&format!("{bound}[teams.t]\n"));
    assert!(!ends_within(&mut streams[0], Duration::from_millis(500)).await, "its time is not over");
    // One read waits for less than a minute.
    tokio::time::sleep(Duration::from_secs(seconds.saturating_sub(3))).await;
    let ended = ends_within(&mut streams[0], Duration::from_secs(8)).await;
    assert!(ended, "the stream outlives its window, {window}");
    gateway.wait_for_record("result", |record| record["reason"] == "permission_withdrawn");
    assert!(!ends_within(&mut streams[1], Duration::from_millis(500)).await, "others stand");
}
