//! What attackers found beside the vectors, held shut.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::stage::Caller;
use super::stage::Stage;
use super::stage::call;
use super::stage::is_error;
use super::stage::modern_request;
use super::stage::notification;
use super::stage::request;
use crate::support::client;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// The server's own id of its task.
const TASK: &str = "upstream-task-1";

fn task(more: Value) -> Value {
    let mut task = json!({"taskId": TASK, "status": "working", "createdAt": "t", "lastUpdatedAt": "t"});
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    task
}

fn tasks_declared() -> Value {
    json!({"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}})
}

/// Makes a task of 2026-07-28 and gives the client's token for it.
async fn modern_task(stage: &Stage) -> String {
    stage.upstream.on("tools/call", Reply::json(task(json!({"resultType": "task", "ttlMs": null}))));
    let mut params = call("echo");
    params["_meta"] = tasks_declared();
    let made = stage.owner().ask_modern("made", "tools/call", params).await;
    made.json()["result"]["taskId"].as_str().expect("a task").to_owned()
}

async fn older_server() -> Stage {
    let upstream = Upstream::start().await;
    upstream.speak_sse("/message?sessionId=upstream-$session");
    let url = upstream.sse_url();
    Stage::behind(upstream, &format!("url = \"{url}\"\ntransport = \"sse\""))
}

/// Opens a stream of 2024-11-05: the stream, and who posts where it says.
async fn open_sse<'s>(stage: &'s Stage) -> (Connection, Caller<'s>) {
    let mut stream = stage.owner().on("/mcp/s/sse").listen().await;
    let text = stream.read_until("\n\n\r\n").await;
    let target = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("an endpoint");
    (stream, stage.owner().on(target))
}

#[tokio::test]
async fn a_task_asks_the_client_for_nothing_that_is_denied() {
    let stage = Stage::with("client_requests = { sampling = \"deny\" }").await;
    let token = modern_task(&stage).await;
    let sampling = json!({"method": "sampling/createMessage", "params": {}});
    let astray = json!({"method": "elicitation/create", "params": {"mode": "url", "url": "http://evil.example/"}});
    let form = json!({"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {}}});
    for (asked, passes) in [(sampling, false), (astray, false), (json!({"method": "tools/call"}), false), (form, true)]
    {
        let inputs = json!({"resultType": "complete", "status": "input_required", "inputRequests": {"a": asked}});
        stage.upstream.on("tasks/get", Reply::json(task(inputs.clone())));
        let params = json!({"taskId": token, "_meta": tasks_declared()});
        let answer = stage.owner().ask_modern(1, "tasks/get", params.clone()).await;
        assert_eq!(answer.json()["result"].is_object(), passes, "{}", answer.text());
        assert_eq!(answer.text().contains("inputRequests"), passes, "{}", answer.text());
        // Nor does an answer that says of itself that nothing is asked.
        stage.upstream.on("tools/call", Reply::json(inputs.clone()));
        let answer = stage.owner().ask_modern(2, "tools/call", call("echo")).await;
        assert_eq!(answer.text().contains("inputRequests"), passes, "{}", answer.text());
        // Nor a notification.
        let tagged = |mut params: Value| {
            params["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": 3});
            params
        };
        let agreed = tagged(json!({"notifications": {"taskIds": [TASK]}}));
        stage.upstream.on(
            "subscriptions/listen",
            Reply::sse(vec![
                Event::notification("notifications/subscriptions/acknowledged", agreed),
                Event::notification("notifications/tasks", tagged(task(inputs))),
                Event::result(json!({"resultType": "complete"})),
            ]),
        );
        let listen = json!({"notifications": {"taskIds": [token]}, "_meta": tasks_declared()});
        let body = modern_request(3, "subscriptions/listen", listen);
        let heard = stage.owner().modern(&body).post(&body).await;
        assert_eq!(heard.text().contains("inputRequests"), passes, "{}", heard.text());
        assert_eq!(heard.events().len(), if passes { 3 } else { 2 }, "{}", heard.text());
    }
}

#[tokio::test]
async fn an_acknowledgement_names_nothing_that_may_not_be_read() {
    let stage = Stage::start().await;
    let agreed = json!({"resourceSubscriptions": ["file:///etc/shadow", "x://a", 7], "taskIds": []});
    let params = json!({"notifications": agreed, "_meta": {"io.modelcontextprotocol/subscriptionId": 3}});
    let events = vec![
        Event::notification("notifications/subscriptions/acknowledged", params),
        Event::result(json!({"resultType": "complete"})),
    ];
    stage.upstream.on("subscriptions/listen", Reply::sse(events));
    let body =
        modern_request(3, "subscriptions/listen", json!({"notifications": {"resourceSubscriptions": ["x://a"]}}));
    let heard = stage.owner().modern(&body).post(&body).await.events();
    assert_eq!(heard[0]["params"]["notifications"], json!({"resourceSubscriptions": ["x://a"], "taskIds": []}));
    assert_eq!(heard.len(), 2);
}

#[tokio::test]
async fn an_error_that_sends_users_elsewhere_is_judged_under_every_status() {
    let error = |url: &str| {
        let data = json!({"elicitations": [{"mode": "url", "url": url, "elicitationId": "1", "message": "m"}]});
        json!({"jsonrpc": "2.0", "id": "$id", "error": {"code": -32042, "message": "go", "data": data}})
    };
    for (rules, url, passes) in [
        ("", "https://good.example/", true),
        ("", "http://evil.example/", false),
        ("client_requests = { elicitation = \"deny\" }", "https://good.example/", false),
    ] {
        let stage = Stage::with(rules).await;
        let caller = stage.owner().and("MCP-Protocol-Version: 2025-11-25");
        for status in [200, 400, 500] {
            stage.upstream.on("tools/call", Reply::message(error(url)).status_code(status));
            let answer = caller.ask(1, "tools/call", call("echo")).await;
            assert_eq!(answer.code(), Some(if passes { -32042 } else { -32603 }), "{status}: {}", answer.text());
            assert_eq!(answer.text().contains(url), passes, "{status}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_error_speaks_of_a_task_as_its_client_does() {
    let stage = Stage::start().await;
    let token = modern_task(&stage).await;
    let error = json!({"code": -32602, "message": format!("no task '{TASK}'"), "data": {"taskId": TASK, "of": [TASK]}});
    for status in [200, 400, 404] {
        let reply = Reply::message(json!({"jsonrpc": "2.0", "id": "$id", "error": error}));
        stage.upstream.on("tasks/get", reply.status_code(status));
        let params = json!({"taskId": token, "_meta": tasks_declared()});
        let answer = stage.owner().ask_modern(1, "tasks/get", params).await;
        let expected =
            json!({"code": -32602, "message": format!("no task '{token}'"), "data": {"taskId": token, "of": [token]}});
        assert_eq!((answer.status, &answer.json()["error"]), (status, &expected), "{}", answer.text());
    }
}

#[tokio::test]
async fn tasks_have_tokens_on_the_streams_of_older_clients_too() {
    let stage = older_server().await;
    let (mut stream, caller) = open_sse(&stage).await;
    caller.initialize("2025-11-25", json!({})).await;
    stream.read_until("serverInfo").await;
    stage.upstream.on("tools/call", Reply::json(json!({"task": task(json!({"ttl": null}))})));
    let caller = caller.and("MCP-Protocol-Version: 2025-11-25");
    caller.ask(5, "tools/call", call("echo")).await;
    let text = stream.read_until("lastUpdatedAt").await;
    assert!(!text.contains(TASK), "{text}");
    let token = text.split("\"taskId\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    stage.upstream.on("tasks/get", Reply::json(task(json!({"ttl": null}))));
    caller.ask(6, "tasks/get", json!({"taskId": token})).await;
    let asked = stage.upstream.wait_for("tasks/get", 1).await.remove(0);
    assert_eq!(asked.json()["params"]["taskId"], TASK);
}

#[tokio::test]
async fn a_task_has_one_token_on_every_stream_of_a_session() {
    let stage = older_server().await;
    let session = stage.owner().session("2025-11-25").await;
    stage.upstream.on("tools/call", Reply::json(json!({"task": task(json!({"ttl": null}))})));
    let made = session.ask(5, "tools/call", call("echo")).await.events().remove(0);
    let token = made["result"]["task"]["taskId"].as_str().unwrap();
    let mut standing = session.listen().await;
    standing.read_until("HTTP/1.1 200").await;
    let told = notification("notifications/tasks/status", task(json!({"ttl": null})));
    stage.upstream.stream(0).await.push(Event::message(told));
    let heard = standing.read_until("notifications/tasks/status").await;
    assert!(heard.contains(token), "{heard}\n{token}");
}

#[tokio::test]
async fn an_answer_that_may_not_pass_ends_no_stream_that_carries_others() {
    let stage = older_server().await;
    let (mut stream, caller) = open_sse(&stage).await;
    stage.upstream.on("tools/call", Reply::json(json!({"content": [], "resources": {"a": "canary"}})));
    caller.ask(1, "tools/call", call("echo")).await;
    let heard = stream.read_until("-32603").await;
    assert!(heard.contains("\"id\":1,") && !heard.contains("canary"), "{heard}");
    assert_eq!(caller.ask(2, "ping", json!({})).await.status, 202);
    stream.read_until("\"id\":2").await;
}

#[tokio::test]
async fn each_item_of_a_batch_is_decided_when_its_turn_comes() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let config = |blocked: &str| {
        let url = upstream.url();
        format!(
            "[servers.s]\nurl = \"{url}\"\nblocked_tools = [{blocked}]\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"s\"]\n",
            key.digest
        )
    };
    let gateway = Gateway::start(&config(""));
    upstream.on("tools/call slow", Reply::text("x").delay(Duration::from_secs(2)));
    let body = format!("[{},{}]", request(1, "tools/call", call("slow")), request(2, "tools/call", call("other")));
    let mut connection = Connection::open(gateway.data).await;
    connection.write(client::post("/mcp/s", &[&format!("X-API-Key: {}", key.key)], &body)).await;
    upstream.wait_for("tools/call slow", 1).await;
    gateway.reload(&config("\"other\""));
    let answers = connection.answer().await.unwrap().json();
    assert_eq!((answers[0]["result"].is_object(), &answers[1]["error"]["code"]), (true, &json!(-32602)), "{answers}");
    assert_eq!(upstream.requests_for("tools/call other").len(), 0);
    // What was decided under a configuration is on record under it.
    let refused = gateway.wait_for_records("refused", 1).remove(0);
    assert_eq!((&refused["tool"], &refused["snapshot"]), (&json!("other"), &json!("2")), "{refused}");
}

#[tokio::test]
async fn a_batch_in_a_session_the_server_lost_is_404() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-03-26").await;
    let body = format!("[{},{}]", request(1, "tools/call", call("echo")), request(2, "tools/list", json!({})));
    stage.upstream.on("tools/call", Reply::session_gone());
    let answer = session.post(&body).await;
    assert_eq!((answer.status, answer.code(), stage.count("tools/list")), (404, Some(-32600), 0), "{}", answer.text());
}

#[tokio::test]
async fn every_request_of_a_batch_has_an_answer() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-03-26").await;
    let body = format!("[{},{}]", request(1, "tools/call", call("echo")), request(2, "tools/list", json!({})));
    stage.upstream.on("tools/call", Reply::to_be_continued("e1", 10));
    let answers = session.post(&body).await.events().remove(0);
    let answered = (&answers[0]["id"], answers[0]["error"]["code"].as_i64(), &answers[1]["id"]);
    assert_eq!(answered, (&json!(1), Some(-32603), &json!(2)), "{answers}");
}

#[tokio::test]
async fn nobody_is_sent_what_they_rule_out() {
    let stage = Stage::start().await;
    stage.upstream.on("GET", Reply::sse(vec![Event::comment("")]));
    for (accept, status) in [("text/event-stream;q=0", 406), ("text/event-stream;q=0, */*", 406), ("*/*;q=0.1", 200)] {
        assert_eq!(stage.owner().get_accepting(accept).await.status, status, "{accept}");
    }
    is_error(&stage.owner().get_accepting("*/*; Q=0.0").await, 406, -32600, Value::Null);
}

#[tokio::test]
async fn a_stream_outside_any_session_is_gone_on_with_by_its_own_reader_only() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call", Reply::to_be_continued("e-7", 20));
    stage.upstream.on("GET e-7", Reply::sse(vec![Event::result(json!({"content": []}))]));
    let owner = stage.owner().and("MCP-Protocol-Version: 2025-11-25");
    let begun = owner.ask(5, "tools/call", call("echo")).await;
    let token = begun.text().lines().find_map(|line| line.strip_prefix("id: ").map(str::to_owned)).expect("an id");
    assert!(begun.complete && token != "e-7" && begun.text().contains("retry: 20"), "{}", begun.text());
    let after = |id: &str| format!("Last-Event-ID: {id}");
    let stranger = stage.stranger().and("MCP-Protocol-Version: 2025-11-25");
    for (caller, id) in [(&stranger, token.as_str()), (&stranger, "e-7"), (&owner, "e-7"), (&owner, "")] {
        let answer = caller.and(after(id)).get().await;
        assert!(!answer.text().contains("\"id\":5"), "{id}: {}", answer.text());
        assert_eq!(
            stage.upstream.requests().iter().filter(|request| request.header("last-event-id").is_some()).count(),
            0
        );
    }
    assert_eq!(owner.and(after(&token)).get().await.events()[0]["id"], 5);
    assert_eq!(stage.upstream.requests().last().unwrap().header("last-event-id").as_deref(), Some("e-7"));
}

#[tokio::test]
async fn a_client_of_http_sse_that_names_no_revision_may_use_what_a_later_one_has() {
    let stage = older_server().await;
    let (mut stream, caller) = open_sse(&stage).await;
    stage.upstream.on("tools/call", Reply::json(json!({"task": task(json!({"ttl": null}))})));
    caller.ask(5, "tools/call", call("echo")).await;
    let text = stream.read_until("lastUpdatedAt").await;
    let token = text.split("\"taskId\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    caller.ask(6, "tasks/get", json!({"taskId": token})).await;
    stage.upstream.wait_for("tasks/get", 1).await;
}
