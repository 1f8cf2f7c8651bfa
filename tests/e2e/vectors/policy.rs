//! Vectors 70 to 103: what may not be seen, what may not be asked, rounds, subscriptions.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::e2e::vectors::stage::Caller;
use crate::e2e::vectors::stage::Stage;
use crate::e2e::vectors::stage::call;
use crate::e2e::vectors::stage::is_error;
use crate::e2e::vectors::stage::is_result;
use crate::e2e::vectors::stage::listing;
use crate::e2e::vectors::stage::modern_request;
use crate::e2e::vectors::stage::notification;
use crate::e2e::vectors::stage::request;
use crate::support::client::Answer;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const RULES: &str = r#"
    allowed_prompts = ["public_*"]
    allowed_resources = ["file:///allowed/**", "https://docs.example/**"]
    blocked_resources = ["file:///allowed/secret/**"]
"#;

/// That policy refused it as if there were no such thing.
#[track_caller]
fn is_hidden(answer: &Answer, id: impl Into<Value>) {
    let body = answer.json();
    assert_eq!((answer.status, &body["id"]), (200, &id.into()), "{}\n{body}", answer.head);
    assert!(matches!(answer.code(), Some(-32602 | -32002)), "{body}");
}

#[tokio::test]
pub(super) async fn a_denied_tool_is_neither_listed_nor_callable() {
    let stage = Stage::start().await;
    let tools = json!([{"name": "evil"}, {"name": "echo"}]);
    let list = json!({"resultType": "complete", "tools": tools, "ttlMs": 5, "cacheScope": "private"});
    stage.upstream.on("tools/list", Reply::json(list));
    let session = stage.owner().session("2025-06-18").await;
    let listed = [
        is_result(&session.ask(1, "tools/list", json!({})).await, 1),
        is_result(&stage.owner().ask_modern(1, "tools/list", json!({})).await, 1),
    ];
    assert!(listed.iter().all(|result| result["tools"] == json!([{"name": "echo"}])), "{listed:?}");
    is_error(&session.ask("c", "tools/call", call("evil")).await, 200, -32602, "c");
    is_error(&stage.owner().ask_modern("c", "tools/call", call("evil")).await, 200, -32602, "c");
    assert_eq!(stage.count("tools/call"), 0);
}

#[tokio::test]
pub(super) async fn a_page_that_is_empty_after_filtering_still_leads_on() {
    let stage = Stage::start().await;
    let first = json!({"tools": [{"name": "evil"}], "nextCursor": "page \"2\""});
    stage.upstream.on_each("tools/list", vec![Reply::json(first), Reply::json(json!({"tools": [{"name": "echo"}]}))]);
    let session = stage.owner().session("2025-06-18").await;
    let page = is_result(&session.ask(1, "tools/list", json!({})).await, 1);
    assert_eq!(page, json!({"tools": [], "nextCursor": "page \"2\""}));
    let page = is_result(&session.ask(2, "tools/list", json!({"cursor": page["nextCursor"]})).await, 2);
    assert_eq!(page, json!({"tools": [{"name": "echo"}]}));
    assert_eq!(stage.upstream.requests_for("tools/list")[1].json()["params"]["cursor"], "page \"2\"");
}

#[tokio::test]
pub(super) async fn nothing_is_completed_for_what_may_not_be_had() {
    let stage = Stage::with(RULES).await;
    let result = json!({"resultType": "complete", "completion": {"values": ["x"]}});
    stage.upstream.on("completion/complete", Reply::json(result));
    let session = stage.owner().session("2025-06-18").await;
    let mut asked = 0;
    for (reference, is_allowed) in [
        (json!({"type": "ref/prompt", "name": "public_one"}), true),
        (json!({"type": "ref/prompt", "name": "private_one"}), false),
        (json!({"type": "ref/resource", "uri": "file:///allowed/{name}"}), true),
        (json!({"type": "ref/resource", "uri": "file:///allowed/secret/{name}"}), false),
        (json!({"type": "ref/resource", "uri": "file:///etc/{name}"}), false),
    ] {
        let params = json!({"ref": reference, "argument": {"name": "name", "value": "a"}});
        for answer in [
            session.ask(1, "completion/complete", params.clone()).await,
            stage.owner().ask_modern(1, "completion/complete", params).await,
        ] {
            if is_allowed { drop(is_result(&answer, 1)) } else { is_hidden(&answer, 1) }
        }
        asked += if is_allowed { 2 } else { 0 };
        assert_eq!(stage.count("completion/complete"), asked, "{reference}");
    }
}

#[tokio::test]
pub(super) async fn a_resource_is_judged_by_where_its_address_leads() {
    let stage = Stage::with(RULES).await;
    let result = json!({"resultType": "complete", "contents": [], "ttlMs": 0, "cacheScope": "private"});
    stage.upstream.on("resources/read", Reply::json(result));
    let session = stage.owner().session("2025-06-18").await;
    let mut read = Vec::new();
    for (uri, is_allowed) in [
        ("file:///allowed/a.txt", true),
        ("https://docs.example/guide?page=1", true),
        ("file:///allowed/../etc/passwd", false),
        ("file:///allowed/x/../../etc/passwd", false),
        ("file:///allowed/%2e%2e/etc/passwd", false),
        ("file:///allowed/%2E%2E%2Fetc/passwd", false),
        ("file:///allowed/..%2fetc/passwd", false),
        ("file:///allowed/%252e%252e/etc/passwd", false),
        ("file:///allowed/..\\etc\\passwd", false),
        ("file:///allowed/./secret/a", false),
        ("file:///allowed/s%65cret/a", false),
        ("file:///allowed//secret/a", false),
        ("file:///allowed/secret/a", false),
        ("FILE:///allowed/secret/a", false),
        ("file://host/allowed/a", false),
        ("https://docs.example@evil.example/guide", false),
        ("https://user:docs.example@evil.example/", false),
        ("https://docs.example.evil.example/guide", false),
        ("https://docs.example:8443/guide", false),
        ("file:///etc/passwd", false),
        ("https://docs.example/../guide", false),
    ] {
        for answer in [
            session.ask(1, "resources/read", json!({"uri": uri})).await,
            stage.owner().ask_modern(1, "resources/read", json!({"uri": uri})).await,
        ] {
            if is_allowed {
                is_result(&answer, 1);
                read.push(uri);
            } else {
                assert!(answer.code().is_some(), "{uri} was read");
                is_hidden(&answer, 1);
            }
        }
    }
    let sent: Vec<Value> = stage.upstream.requests_for("resources/read").iter().map(|request| request.json()).collect();
    assert_eq!(sent.iter().map(|message| message["params"]["uri"].as_str().unwrap()).collect::<Vec<_>>(), read);
}

#[tokio::test]
pub(super) async fn what_a_result_links_to_is_judged_when_it_is_read() {
    let stage = Stage::with(RULES).await;
    let links = [("file:///allowed/a", true), ("file:///allowed/secret/a", false)];
    let content: Vec<Value> =
        links.iter().map(|(uri, _)| json!({"type": "resource_link", "uri": uri, "name": "n"})).collect();
    stage.upstream.on("tools/call", Reply::json(json!({"content": content})));
    stage.upstream.on("resources/read", Reply::json(json!({"contents": []})));
    let session = stage.owner().session("2025-06-18").await;
    is_result(&session.ask(1, "tools/call", call("echo")).await, 1);
    for (uri, is_allowed) in links {
        let answer = session.ask(2, "resources/read", json!({"uri": uri})).await;
        if is_allowed { drop(is_result(&answer, 2)) } else { is_hidden(&answer, 2) }
    }
    assert_eq!(stage.count("resources/read"), 1);
}

/// Has the server make a task under an id of its own, and gives the id the caller sees.
async fn task_of(stage: &Stage, caller: &Caller<'_>, is_modern: bool) -> String {
    let times = json!({"createdAt": "2026-11-21T00:00:00Z", "lastUpdatedAt": "2026-11-21T00:00:00Z"});
    let mut task = json!({"taskId": "upstream-task-9", "status": "working", "ttl": 60_000, "ttlMs": 60_000});
    task.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
    let mut params = call("echo");
    let seen = if is_modern {
        task["resultType"] = json!("task");
        stage.upstream.on("tools/call", Reply::json(task.clone()));
        params["_meta"] = tasks_declared();
        is_result(&caller.ask_modern(1, "tools/call", params).await, 1)["taskId"].clone()
    } else {
        stage.upstream.on("tools/call", Reply::json(json!({"task": task})));
        params["task"] = json!({"ttl": 60_000});
        is_result(&caller.ask(1, "tools/call", params).await, 1)["task"]["taskId"].clone()
    };
    task["status"] = json!("completed");
    task["resultType"] = json!("complete");
    stage.upstream.on("tasks/get", Reply::json(task));
    seen.as_str().unwrap_or_else(|| panic!("no task: {seen}")).to_owned()
}

fn tasks_declared() -> Value {
    json!({CAPABILITIES: {"extensions": {"io.modelcontextprotocol/tasks": {}}}})
}

#[tokio::test]
pub(super) async fn anothers_task_does_not_exist() {
    for is_modern in [false, true] {
        let stage = Stage::start().await;
        let (owner, stranger) = if is_modern {
            (stage.owner(), stage.stranger())
        } else {
            (stage.owner().session("2025-11-25").await, stage.stranger().session("2025-11-25").await)
        };
        let task = task_of(&stage, &owner, is_modern).await;
        assert_ne!(task, "upstream-task-9", "the id is bound to its owner");
        let get = async |caller: &Caller<'_>, id: &str| {
            let mut params = json!({"taskId": id});
            if is_modern {
                params["_meta"] = tasks_declared();
                caller.ask_modern(5, "tasks/get", params).await
            } else {
                caller.ask(5, "tasks/get", params).await
            }
        };
        let got = is_result(&get(&owner, &task).await, 5);
        assert_eq!((&got["taskId"], &got["status"]), (&json!(task), &json!("completed")));
        let sent = stage.upstream.requests_for("tasks/get").remove(0);
        assert_eq!(sent.json()["params"]["taskId"], "upstream-task-9");
        if is_modern {
            assert_eq!(sent.headers("mcp-name"), ["upstream-task-9"], "the header says what the body says");
        }
        for (caller, id) in [(&stranger, task.as_str()), (&owner, "upstream-task-9"), (&owner, &task[1..])] {
            let answer = get(caller, id).await;
            assert_eq!((answer.code(), &answer.json()["id"]), (Some(-32602), &json!(5)), "{}", answer.text());
        }
        assert_eq!(stage.count("tasks/get"), 1);
    }
}

#[tokio::test]
pub(super) async fn tasks_are_for_those_who_declare_them() {
    let stage = Stage::start().await;
    let task = task_of(&stage, &stage.owner(), true).await;
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let answer = stage.owner().ask_modern(5, method, json!({"taskId": task, "inputResponses": {}})).await;
        is_error(&answer, 400, -32021, 5);
        let required = &answer.json()["error"]["data"]["requiredCapabilities"];
        assert!(required["extensions"]["io.modelcontextprotocol/tasks"].is_object(), "{required}");
        assert_eq!(stage.count(method), 0);
    }
}

#[tokio::test]
pub(super) async fn a_server_neither_sees_nor_gets_what_it_may_not_ask_for() {
    let stage = Stage::with("client_requests = { sampling = \"deny\", elicitation = \"allow\" }").await;
    let declared = json!({"sampling": {"tools": {}}, "elicitation": {"form": {}}, "roots": {"listChanged": true}});
    let opened = stage.owner().initialize("2025-11-25", declared.clone()).await;
    let told = stage.upstream.requests_for("initialize").remove(0).json()["params"]["capabilities"].clone();
    assert_eq!(told, json!({"elicitation": {"form": {}}, "roots": {"listChanged": true}}));
    let session = stage.owner().and(format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap()));
    let ask = |method: &str| Event::raw(&format!("data: {}\n\n", request("ask-1", method, json!({}))));
    let events = vec![ask("sampling/createMessage"), ask("roots/list"), Event::result(json!({"content": []}))];
    stage.upstream.on("tools/call", Reply::sse(events.clone())).on("GET", Reply::sse(events[..2].to_vec()));
    let methods = |answer: &Answer| -> Vec<String> {
        answer.events().iter().filter_map(|event| Some(event["method"].as_str()?.to_owned())).collect()
    };
    let answer = session.ask(1, "tools/call", call("echo")).await;
    assert_eq!((methods(&answer), &answer.events().last().unwrap()["id"]), (vec!["roots/list".into()], &json!(1)));
    assert_eq!(methods(&session.get().await), ["roots/list"]);

    let mut params = call("echo");
    params["_meta"][CAPABILITIES] = json!({"sampling": {}, "elicitation": {}});
    let wanted = json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}});
    let round = json!({"resultType": "input_required", "inputRequests": {"a": wanted}, "requestState": "s"});
    stage.upstream.on("tools/call", Reply::json(round));
    let answer = stage.owner().ask_modern(2, "tools/call", params).await;
    assert!(answer.code().is_some() && !answer.text().contains("sampling/createMessage"), "{}", answer.text());
    let told = stage.upstream.requests_for("tools/call").pop().unwrap().json()["params"]["_meta"][CAPABILITIES].clone();
    assert_eq!(told, json!({"elicitation": {}}));
}

#[tokio::test]
pub(super) async fn a_schema_that_points_elsewhere_is_not_followed() {
    let (stage, elsewhere) = (Stage::start().await, Upstream::start().await);
    let schema = json!({
        "type": "object",
        "$ref": elsewhere.url(),
        "properties": {"region": {"$ref": format!("{}#/x", elsewhere.url()), "x-mcp-header": "Region"}},
    });
    stage.upstream.on("tools/list", listing("echo", schema.clone()));
    let listed = is_result(&stage.owner().ask_modern(1, "tools/list", json!({})).await, 1);
    assert_eq!(listed["tools"][0]["inputSchema"], schema, "a schema goes on as it came");
    is_result(
        &stage.owner().ask_modern(2, "tools/call", json!({"name": "echo", "arguments": {"region": "eu"}})).await,
        2,
    );
    assert_eq!(elsewhere.connections().len(), 0);
}

fn acknowledged(notifications: Value) -> Event {
    let params = json!({"_meta": {SUBSCRIPTION: "$id"}, "notifications": notifications});
    Event::message(notification("notifications/subscriptions/acknowledged", params))
}

fn tagged(method: &str, mut params: Value) -> Event {
    params["_meta"] = json!({SUBSCRIPTION: "$id"});
    Event::message(notification(method, params))
}

fn listen_ended() -> Event {
    Event::result(json!({"resultType": "complete", "_meta": {SUBSCRIPTION: "$id"}}))
}

/// The methods of the notifications on a stream.
fn heard(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
    answer.events().iter().filter_map(|event| Some(event["method"].as_str()?.to_owned())).collect()
}

#[tokio::test]
pub(super) async fn nobody_hears_of_a_resource_they_may_not_read() {
    let stage = Stage::with(RULES).await;
    let (open, secret) = ("file:///allowed/a", "file:///allowed/secret/a");
    stage.upstream.on(
        "subscriptions/listen",
        Reply::sse(vec![
            acknowledged(json!({"resourceSubscriptions": [open]})),
            tagged("notifications/resources/updated", json!({"uri": secret})),
            tagged("notifications/resources/updated", json!({"uri": open})),
            listen_ended(),
        ]),
    );
    let filter = json!({"notifications": {"resourceSubscriptions": [secret, open]}});
    let answer = stage.owner().ask_modern("l", "subscriptions/listen", filter).await;
    assert_eq!(heard(&answer), ["notifications/subscriptions/acknowledged", "notifications/resources/updated"]);
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    let sent = stage.upstream.requests_for("subscriptions/listen").remove(0).json();
    assert_eq!(sent["params"]["notifications"]["resourceSubscriptions"], json!([open]));
    assert_eq!(answer.events()[0]["params"]["notifications"]["resourceSubscriptions"], json!([open]));
}

#[tokio::test]
pub(super) async fn a_subscription_brings_only_what_it_asked_for() {
    let stage = Stage::start().await;
    stage.upstream.on(
        "subscriptions/listen",
        Reply::sse(vec![
            acknowledged(json!({"toolsListChanged": true, "promptsListChanged": true})),
            tagged("notifications/prompts/list_changed", json!({})),
            tagged("notifications/resources/updated", json!({"uri": "file:///a"})),
            tagged("notifications/message", json!({"level": "info", "data": "x"})),
            Event::raw(&format!("data: {}\n\n", request("ask", "roots/list", json!({})))),
            tagged("notifications/tools/list_changed", json!({})),
            listen_ended(),
        ]),
    );
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let answer = stage.owner().ask_modern("l", "subscriptions/listen", filter).await;
    assert_eq!(heard(&answer), ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]);
    assert_eq!(answer.events().last().unwrap()["result"]["_meta"][SUBSCRIPTION], "l");
}

#[tokio::test]
pub(super) async fn a_log_message_comes_only_to_who_asked_for_a_level() {
    let stage = Stage::start().await;
    let message = notification("notifications/message", json!({"level": "error", "data": "words of the server"}));
    let complete = json!({"resultType": "complete", "content": []});
    stage.upstream.on("tools/call", Reply::sse(vec![Event::message(message), Event::result(complete)]));
    for (level, count) in [(Value::Null, 1), (json!("info"), 2)] {
        let mut params = call("echo");
        if level.is_string() {
            params["_meta"] = json!({"io.modelcontextprotocol/logLevel": level});
        }
        let answer = stage.owner().ask_modern(1, "tools/call", params).await;
        assert_eq!(answer.events().len(), count, "{level}: {}", answer.text());
    }
}

#[tokio::test]
pub(super) async fn a_round_of_questions_passes_as_it_is_and_each_retry_is_judged() {
    let stage = Stage::start().await;
    let state = r#"eyJ\u0061\/ =~"#;
    let ask = r#"{"method":"elicitation/create","params":{"mode":"form","message":"Which?","requestedSchema":{"type":"object","properties":{"c":{"type":"string"}}}}}"#;
    let round = format!(
        r#"{{ "jsonrpc":"2.0","id":"first","result":{{"resultType":"input_required", "inputRequests":{{"k":{ask}}},"requestState":"{state}"}} }}"#
    );
    let done = Reply::json(json!({"resultType": "complete", "content": []}));
    stage.upstream.on_each("tools/call", vec![Reply::entity(200, "application/json", round.clone()), done]);
    let mut params = call("echo");
    params["_meta"][CAPABILITIES] = json!({"elicitation": {}});
    let answer = stage.owner().ask_modern("first", "tools/call", params.clone()).await;
    assert_eq!((answer.status, answer.text()), (200, round));
    params["inputResponses"] = json!({"k": {"action": "accept", "content": {"c": "blue"}}});
    params["requestState"] = json!("STATE");
    let retry = modern_request("second", "tools/call", params.clone()).replace("STATE", state);
    is_result(&stage.owner().modern(&retry).post(&retry).await, "second");
    assert_eq!(stage.upstream.requests_for("tools/call")[1].body, retry);
    for (changed, code) in
        [(json!({"name": "evil"}), -32602), (json!({"name": "query", "arguments": {"sql": "DROP"}}), -31403)]
    {
        let mut other = params.clone();
        other.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        is_error(&stage.owner().ask_modern("third", "tools/call", other).await, 200, code, "third");
    }
    assert_eq!(stage.count("tools/call"), 2);
}

#[tokio::test]
pub(super) async fn only_three_methods_may_ask_back() {
    let stage = Stage::start().await;
    let wanted = json!({"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}});
    let round = json!({"resultType": "input_required", "inputRequests": {"a": wanted}, "requestState": "s"});
    stage.upstream.on("*", Reply::json(round));
    let meta = json!({CAPABILITIES: {"elicitation": {}}});
    for (method, params) in [
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("server/discover", json!({})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}),
        ),
    ] {
        let mut params = params;
        params["_meta"] = meta.clone();
        let answer = stage.owner().ask_modern(1, method, params).await;
        assert_eq!((answer.status, answer.code()), (502, Some(-32603)), "{method}: {}", answer.text());
    }
    for (method, params) in [
        ("tools/call", call("echo")),
        ("prompts/get", json!({"name": "p"})),
        ("resources/read", json!({"uri": "file:///home/a.txt"})),
    ] {
        let mut params = params;
        params["_meta"] = meta.clone();
        let result = is_result(&stage.owner().ask_modern(1, method, params).await, 1);
        assert_eq!(result["resultType"], "input_required", "{method}");
    }
}

#[tokio::test]
pub(super) async fn a_user_is_sent_only_to_safe_addresses() {
    let stage = Stage::start().await;
    let mut params = call("echo");
    params["_meta"][CAPABILITIES] = json!({"elicitation": {"form": {}, "url": {}}});
    for (url, is_safe) in [
        ("https://login.example/consent?x=1", true),
        ("http://127.0.0.1:7777/callback", true),
        ("http://login.example/consent", false),
        ("javascript:alert(1)", false),
        ("file:///etc/passwd", false),
        ("data:text/html,x", false),
        ("https://login.example@evil.example/", false),
        ("https:\\\\evil.example", false),
        ("//evil.example", false),
    ] {
        let wanted = json!({"method": "elicitation/create", "params": {"mode": "url", "message": "?", "url": url}});
        let round = json!({"resultType": "input_required", "inputRequests": {"a": wanted}, "requestState": "s"});
        stage.upstream.on("tools/call", Reply::json(round.clone()));
        let answer = stage.owner().ask_modern(1, "tools/call", params.clone()).await;
        if is_safe {
            assert_eq!(is_result(&answer, 1), round);
        } else {
            assert!(answer.code().is_some() && !answer.text().contains(url), "{url}: {}", answer.text());
        }
    }
}

#[tokio::test]
pub(super) async fn a_subscription_begins_with_its_acknowledgement_and_ends_with_a_result() {
    let stage = Stage::start().await;
    for id in [json!(7), json!("7"), json!("listen-1")] {
        stage.upstream.on(
            "subscriptions/listen",
            Reply::sse(vec![
                tagged("notifications/tools/list_changed", json!({})),
                acknowledged(json!({"toolsListChanged": true})),
                tagged("notifications/tools/list_changed", json!({})).after(Duration::from_millis(50)),
                tagged("notifications/tools/list_changed", json!({})),
                listen_ended(),
            ]),
        );
        let filter = json!({"notifications": {"toolsListChanged": true}});
        let answer = stage.owner().ask_modern(id.clone(), "subscriptions/listen", filter).await;
        let changed = "notifications/tools/list_changed";
        assert_eq!(heard(&answer), ["notifications/subscriptions/acknowledged", changed, changed]);
        let mut events = answer.events();
        let ended = events.pop().unwrap();
        assert!(events.iter().all(|event| event["params"]["_meta"][SUBSCRIPTION] == id), "{events:?}");
        let (closed, result) = (ended["id"].clone(), &ended["result"]);
        assert_eq!(
            (closed, &result["_meta"][SUBSCRIPTION], &result["resultType"]),
            (id.clone(), &id, &json!("complete"))
        );
    }
}

#[tokio::test]
pub(super) async fn a_gateway_on_its_way_out_ends_subscriptions_with_a_result() {
    let stage = Stage::start().await;
    let events = vec![acknowledged(json!({"toolsListChanged": true})), listen_ended().after(Duration::from_secs(60))];
    stage.upstream.on("subscriptions/listen", Reply::sse(events));
    let body = modern_request("l", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut stream = stage.owner().modern(&body).sent(&body).await;
    stream.read_until("acknowledged").await;
    stage.gateway.signal("TERM");
    let answer = stream.answer().await.expect("an end");
    let ended = answer.events().pop().unwrap();
    assert_eq!((answer.complete, &ended["id"]), (true, &json!("l")), "{answer:?}");
    assert_eq!(ended["result"], json!({"resultType": "complete", "_meta": {SUBSCRIPTION: "l"}}));
}

#[tokio::test]
pub(super) async fn a_list_that_was_filtered_is_nobody_elses() {
    let stage = Stage::start().await;
    for (scope, tools, shown) in [
        ("public", json!([{"name": "evil"}, {"name": "echo"}]), "private"),
        ("private", json!([{"name": "evil"}, {"name": "echo"}]), "private"),
        ("private", json!([{"name": "echo"}]), "private"),
    ] {
        let list = json!({"resultType": "complete", "tools": tools, "ttlMs": 60_000, "cacheScope": scope});
        stage.upstream.on("tools/list", Reply::json(list));
        let result = is_result(&stage.owner().ask_modern(1, "tools/list", json!({})).await, 1);
        let expected =
            json!({"resultType": "complete", "tools": [{"name": "echo"}], "ttlMs": 60_000, "cacheScope": shown});
        assert_eq!(result, expected, "{scope} {tools}");
    }
}
