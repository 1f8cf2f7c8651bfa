//! Tests of where messages name tasks.
//!
//! In the tables a server's id is `own-..` where it must be sealed and a client's token is `token-..` where it must be
//! opened; every other id must stay.

use super::*;
use crate::mcp::document::Limits;
use crate::mcp::message::TASK_ID_BYTES_MAX;
use crate::mcp::splice::apply;

const OLD: Revision = Revision::V2025_06_18;
const LEGACY: Revision = Revision::V2025_11_25;
const MODERN: Revision = Revision::V2026_07_28;

fn of_server(body: &str) -> Message {
    Message::read_from_server(Bytes::copy_from_slice(body.as_bytes()), &Limits::for_answers()).expect(body)
}

fn of_client(body: &str) -> Message {
    Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).expect(body)
}

fn spliced(message: &Message, splices: &[Splice]) -> String {
    String::from_utf8(apply(message.body(), splices).unwrap().to_vec()).unwrap()
}

fn sealed(revision: Revision, asked: Option<&str>, body: &str) -> Result<String, &'static str> {
    let message = of_server(body);
    let splices = seal(&message, asked, revision, |id| Some(format!("token-{}", id.strip_prefix("own-")?)))?;
    Ok(spliced(&message, &splices))
}

/// What the tables' tokens stand for; those that end in a digit live on that endpoint, all others on endpoint 1.
fn open_one(token: &str) -> Option<Owned> {
    let name = token.strip_prefix("token-")?;
    let endpoint = name.chars().last().and_then(|last| last.to_digit(10)).map_or(1, u64::from);
    Some(Owned { id: format!("own-{name}"), endpoint, tool: None })
}

fn opened(revision: Revision, body: &str) -> Result<(String, Option<u64>, Option<String>), NotFound> {
    let message = of_client(body);
    let opened = open(&message, revision, open_one)?;
    Ok((spliced(&message, &opened.splices), opened.endpoint, opened.named))
}

fn result(result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

fn related(id: &str) -> String {
    format!(r#"{{"_meta":{{"x":1,"io.modelcontextprotocol/related-task":{{"taskId":"{id}"}}}},"level":"info"}}"#)
}

/// Whether exactly the ids marked for it were sealed.
fn assert_sealed(revision: Revision, asked: Option<&str>, body: &str) {
    assert_eq!(sealed(revision, asked, body).as_deref(), Ok(&*body.replace("own-", "token-")), "{revision} {asked:?}");
}

#[test]
fn the_ids_of_a_servers_tasks_of_2025_11_25_are_sealed() {
    let created = result(r#"{"task":{"taskId":"own-a","status":"working","ttl":60000},"taskId":"other","tasks":[]}"#);
    assert_sealed(LEGACY, Some("tools/call"), &created);
    assert_sealed(LEGACY, Some("prompts/get"), &created);
    let state = result(r#"{"status":"working","taskId":"own-a","task":{"taskId":"other"}}"#);
    assert_sealed(LEGACY, Some("tasks/get"), &state);
    assert_sealed(LEGACY, Some("tasks/cancel"), &state);
    assert_sealed(LEGACY, Some("tasks/list"), &result(r#"{"tasks":[{"taskId":"own-a"},{"taskId":"own-b"},7,{}]}"#));
    assert_sealed(LEGACY, Some("tasks/result"), &result(&related("own-a")));
    assert_sealed(LEGACY, Some("tasks/result"), &result(r#"{"task":{"taskId":"other"},"content":[]}"#));
    assert_sealed(LEGACY, Some("tools/call"), &result(&related("own-a")));
    assert_sealed(LEGACY, None, &result(r#"{"taskId":"own-a"}"#));
    assert_sealed(LEGACY, None, &result(r#"{"tasks":[{"taskId":"own-a"}],"task":{"taskId":"own-b"}}"#));
    assert_sealed(LEGACY, None, &notification("notifications/tasks/status", r#"{"taskId":"own-a","status":"failed"}"#));
    assert_sealed(LEGACY, None, &notification("notifications/message", &related("own-a")));
    assert_sealed(LEGACY, None, &request("sampling/createMessage", &related("own-a")));
    assert_sealed(LEGACY, None, &request("elicitation/create", &related("own-a")));
}

#[test]
fn the_ids_of_a_servers_tasks_of_2026_07_28_are_sealed() {
    let task = |kind: &str| result(&format!(r#"{{"resultType":"{kind}","taskId":"own-a","ttlMs":null}}"#));
    assert_sealed(MODERN, Some("tools/call"), &task("task"));
    assert_sealed(MODERN, None, &task("task"));
    for asked in ["tasks/get", "tasks/update", "tasks/cancel"] {
        assert_sealed(MODERN, Some(asked), &task("complete"));
        assert_sealed(MODERN, Some(asked), &result(r#"{"resultType":"complete"}"#));
    }
    let done = r#"{"taskId":"own-a","status":"completed","result":{"content":[],"taskId":"other"}}"#;
    assert_sealed(MODERN, Some("tasks/get"), &result(done));
    assert_sealed(MODERN, Some("subscriptions/listen"), &notification("notifications/tasks", done));
    let acknowledged = r#"{"notifications":{"toolsListChanged":true,"taskIds":["own-a","own-b"]}}"#;
    assert_sealed(MODERN, None, &notification("notifications/subscriptions/acknowledged", acknowledged));
    assert_sealed(MODERN, Some("tools/call"), &notification("notifications/progress", &related("own-a")));
}

#[test]
fn what_only_looks_like_the_id_of_a_servers_task_stays() {
    let inner = r#"{"content":[{"taskId":"other"}],"structuredContent":{"taskId":"other","task":{"taskId":"other"}}}"#;
    for (revision, asked, body) in [
        (LEGACY, Some("tools/call"), result(inner)),
        (MODERN, Some("tools/call"), result(inner)),
        (LEGACY, Some("tools/call"), result(r#"{"taskId":"other","content":[]}"#)),
        (MODERN, Some("tools/call"), result(r#"{"resultType":"complete","taskId":"other","task":{"taskId":"other"}}"#)),
        (LEGACY, Some("tools/call"), result(r#"{"task":"other"}"#)),
        (LEGACY, Some("ping"), result("{}")),
        (LEGACY, Some("ping"), result("[]")),
        // The client's own tasks, of which the server asks.
        (LEGACY, None, request("tasks/get", r#"{"taskId":"other"}"#)),
        (LEGACY, None, request("tasks/result", r#"{"taskId":"other"}"#)),
        (LEGACY, None, request("tasks/cancel", r#"{"taskId":"other"}"#)),
        (LEGACY, None, request("tasks/list", &related("other"))),
        (LEGACY, None, request("ping", "{}")),
        // Revisions without tasks.
        (OLD, Some("tools/call"), result(r#"{"task":{"taskId":"other"}}"#)),
        (OLD, None, notification("notifications/message", &related("other"))),
        (LEGACY, Some("tasks/get"), r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"data":{"taskId":"other"}}}"#.into()),
        (LEGACY, None, r#"{"jsonrpc":"2.0","method":"notifications/tasks/status"}"#.into()),
    ] {
        assert_eq!(sealed(revision, asked, &body).as_deref(), Ok(&*body), "{revision} {asked:?}");
    }
}

#[test]
fn a_message_in_which_a_client_might_see_an_unsealed_id_does_not_go_on() {
    for (revision, asked, body, word) in [
        (LEGACY, "tools/call", r#"{"task":{"taskid":"own-a"}}"#, "answer_task_key"),
        (LEGACY, "tools/call", r#"{"Task":{"taskId":"own-a"}}"#, "answer_task_key"),
        (LEGACY, "tools/call", r#"{"task":{"taskId":"own-a"},"taſk":{}}"#, "answer_task_key"),
        (LEGACY, "tasks/get", r#"{"taskId":"own-a","TaskID":"own-b"}"#, "answer_task_key"),
        (LEGACY, "tasks/list", r#"{"Tasks":[]}"#, "answer_task_key"),
        (LEGACY, "ping", r#"{"_META":{}}"#, "answer_task_key"),
        (LEGACY, "ping", r#"{"_meta":{"io.modelcontextprotocol/Related-Task":{}}}"#, "answer_task_key"),
        (MODERN, "tools/call", r#"{"ResultType":"task","taskId":"own-a"}"#, "answer_task_key"),
        (MODERN, "tools/call", r#"{"resultType":"task","\u0054askId":"own-a"}"#, "answer_task_key"),
        (LEGACY, "tools/call", r#"{"task":{"taskId":7}}"#, "answer_task_id"),
        (MODERN, "tasks/get", r#"{"taskId":null}"#, "answer_task_id"),
        (MODERN, "tasks/get", r#"{"taskId":"cannot be sealed"}"#, "answer_task_id"),
    ] {
        assert_eq!(sealed(revision, Some(asked), &result(body)), Err(word), "{body}");
    }
    let acknowledged = |ids: &str| {
        let params = format!(r#"{{"notifications":{{"taskIds":{ids}}}}}"#);
        sealed(MODERN, None, &notification("notifications/subscriptions/acknowledged", &params))
    };
    assert!(acknowledged("[]").is_ok());
    assert_eq!(acknowledged("[1]"), Err("answer_task_id"));
    assert_eq!(acknowledged(r#""own-a""#), Err("answer_task_id"));
}

/// Whether exactly the tokens marked for it were opened.
fn assert_opened(revision: Revision, body: &str, endpoint: Option<u64>, named: Option<&str>) {
    let expected = (body.replace("token-", "own-"), endpoint, named.map(str::to_owned));
    assert_eq!(opened(revision, body), Ok(expected), "{revision}");
}

#[test]
fn the_tokens_of_a_client_are_opened() {
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        assert_opened(LEGACY, &request(method, r#"{"taskId":"token-a2"}"#), Some(2), Some("own-a2"));
    }
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = r#"{"_meta":{"taskId":"other"},"inputResponses":{"taskId":"other"},"taskId":"token-a"}"#;
        assert_opened(MODERN, &request(method, params), Some(1), Some("own-a"));
    }
    assert_opened(
        LEGACY,
        &request("tools/call", &format!(r#"{{"name":"x",{}"#, &related("token-a3")[1..])),
        Some(3),
        None,
    );
    assert_opened(LEGACY, &notification("notifications/progress", &related("token-a")), Some(1), None);
    assert_opened(LEGACY, &result(&related("token-a")), Some(1), None);
    // The task that the request is about says where it goes.
    let both = |related: &str| format!(r#"{{"taskId":"token-a2",{}"#, &self::related(related)[1..]);
    assert_opened(LEGACY, &request("tasks/get", &both("token-b2")), Some(2), Some("own-a2"));
    let elsewhere = opened(LEGACY, &request("tasks/get", &both("token-b3"))).unwrap();
    assert_eq!(
        elsewhere,
        (request("tasks/get", &both("token-b3")).replace("token-a", "own-a"), Some(2), Some("own-a2".into()))
    );
}

#[test]
fn a_request_about_a_task_that_is_not_the_callers_is_refused() {
    for (revision, method) in [
        (LEGACY, "tasks/get"),
        (LEGACY, "tasks/result"),
        (LEGACY, "tasks/cancel"),
        (MODERN, "tasks/get"),
        (MODERN, "tasks/update"),
        (MODERN, "tasks/cancel"),
    ] {
        for id in ["own-a", "", "Token-a", "786512e2-9e0d-44bd-8f29-789f320fe840"] {
            assert_eq!(opened(revision, &request(method, &format!(r#"{{"taskId":"{id}"}}"#))), Err(NotFound), "{id}");
        }
    }
    assert_eq!(NotFound.to_string(), "Task not found");
}

#[test]
fn what_only_looks_like_a_token_stays() {
    for (revision, body) in [
        (LEGACY, request("tools/call", r#"{"name":"x","arguments":{"taskId":"token-a"},"task":{"taskId":"token-a"}}"#)),
        (LEGACY, request("tools/call", &format!(r#"{{"name":"x",{}"#, &related("other")[1..]))),
        (LEGACY, result(r#"{"taskId":"token-a","task":{"taskId":"token-a"},"tasks":[{"taskId":"token-a"}]}"#)),
        (LEGACY, result(&related("other"))),
        (LEGACY, notification("notifications/tasks/status", r#"{"taskId":"token-a"}"#)),
        (LEGACY, r#"{"jsonrpc":"2.0","id":1,"error":{"data":{"taskId":"token-a"}}}"#.into()),
        (LEGACY, r#"{"jsonrpc":"2.0","id":1,"method":"tasks/list"}"#.into()),
        // Methods that the revision does not know are refused for that.
        (MODERN, request("tasks/result", r#"{"taskId":"token-a"}"#)),
        (OLD, request("tasks/get", r#"{"taskId":"other"}"#)),
        (LEGACY, request("subscriptions/listen", r#"{"notifications":{"taskIds":["token-a"]}}"#)),
    ] {
        assert_eq!(opened(revision, &body), Ok((body.clone(), None, None)), "{revision}");
    }
}

#[test]
fn a_subscription_watches_the_callers_tasks_on_one_endpoint() {
    let listen =
        |ids: &str| request("subscriptions/listen", &format!(r#"{{"notifications":{{"a":1,"taskIds":{ids}}}}}"#));
    for (ids, watched, endpoint) in [
        (r#"["token-a2", "token-b2"]"#, r#"["own-a2","own-b2"]"#, Some(2)),
        (r#"["other","token-a2",7,null,["token-a"],"token-b3"]"#, r#"["own-a2"]"#, Some(2)),
        (r#"["own-a"]"#, "[]", None),
        ("[]", "[]", None),
        (r#""own-a""#, "[]", None),
        (r#"{"0":"own-a"}"#, "[]", None),
    ] {
        assert_eq!(opened(MODERN, &listen(ids)), Ok((listen(watched), endpoint, None)), "{ids}");
    }
    let without = request("subscriptions/listen", r#"{"notifications":{"toolsListChanged":true}}"#);
    assert_eq!(opened(MODERN, &without), Ok((without.clone(), None, None)));
}

#[test]
fn a_message_names_a_bounded_number_of_tasks() {
    let ids = |name: &str, count: usize| format!("[{}]", vec![format!("\"{name}-a\""); count].join(","));
    let acknowledged = |count: usize| {
        let params = format!(r#"{{"notifications":{{"taskIds":{}}}}}"#, ids("own", count));
        sealed(MODERN, None, &notification("notifications/subscriptions/acknowledged", &params))
    };
    assert!(acknowledged(TASK_IDS_MAX).is_ok());
    assert_eq!(acknowledged(TASK_IDS_MAX + 1), Err("answer_task_id"));
    let listened = |count: usize| {
        let params = format!(r#"{{"notifications":{{"taskIds":{}}}}}"#, ids("token", count));
        opened(MODERN, &request("subscriptions/listen", &params)).unwrap().0.matches("own-a").count()
    };
    assert_eq!(listened(TASK_IDS_MAX), TASK_IDS_MAX);
    assert_eq!(listened(TASK_IDS_MAX + 1), TASK_IDS_MAX);
}

#[test]
fn ids_of_any_text_are_escaped() {
    let id = "a\"\\\n\u{1}\u{2028}日本";
    let body = result(&format!(r#"{{"taskId":{}}}"#, error::json_string("own")));
    let splices = seal(&of_server(&body), Some("tasks/get"), MODERN, |_| Some(id.to_owned())).unwrap();
    let message = of_server(&spliced(&of_server(&body), &splices));
    assert_eq!(message.result().and_then(|result| result.get("taskId")?.text()), Some(id));
    let owned = |_: &str| Some(Owned { id: id.to_owned(), endpoint: 1, tool: None });
    for body in [
        request("tasks/get", r#"{"taskId":"t"}"#),
        request("subscriptions/listen", r#"{"notifications":{"taskIds":["t"]}}"#),
        request("tools/list", &related("t")),
    ] {
        let message = of_client(&body);
        let out = spliced(&message, &open(&message, MODERN, owned).unwrap().splices);
        assert!(out.contains(&error::json_string(id)), "{out}");
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    }
}

#[test]
fn the_places_are_told_in_the_order_of_the_body() {
    let body = format!(
        r#"{{"id":1,"result":{{"task":{{"status":"x","taskId" : "own-\u0061"}},{},"jsonrpc":"2.0"}}"#,
        &related("own-b")[1..]
    );
    let message = of_server(&body);
    let places = sealable(&message, Some("tools/call"), LEGACY).unwrap();
    assert_eq!(places.iter().map(|place| place.id).collect::<Vec<_>>(), ["own-a", "own-b"]);
    assert_eq!(&body[places[0].span.clone()], r#""own-\u0061""#);
}

#[test]
fn a_token_may_be_as_long_as_a_task_id_in_a_message() {
    let get = |length: usize| request("tasks/get", &format!(r#"{{"taskId":"token-{}"}}"#, "x".repeat(length - 6)));
    assert!(opened(MODERN, &get(TASK_ID_BYTES_MAX)).is_ok());
    let too_long = Message::read(Bytes::from(get(TASK_ID_BYTES_MAX + 1)), &Limits::default()).unwrap_err();
    assert_eq!((too_long.code, too_long.name), (-32602, "taskId"));
}

#[test]
fn the_list_of_tasks_is_hidden_and_nothing_else() {
    for (tasks, hidden) in [
        (
            r#"{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}"#,
            r#"{"cancel":{},"requests":{"tools":{"call":{}}}}"#,
        ),
        (r#"{ "list" : {} , "cancel" : {} }"#, r#"{ "cancel" : {} }"#),
        (r#"{"cancel":{} , "l\u0069st": true }"#, r#"{"cancel":{} }"#),
        (r#"{"cancel":{},"list":{"list":1},"requests":{}}"#, r#"{"cancel":{},"requests":{}}"#),
        (r#"{"list":{}}"#, "{}"),
        (r#"{ "list":null }"#, "{  }"),
    ] {
        let answer = |tasks: &str| result(&format!(r#"{{"capabilities":{{"tools":{{"list":1}},"tasks":{tasks}}}}}"#));
        let message = of_server(&answer(tasks));
        let splice = hide_list(message.result().unwrap()).unwrap();
        assert_eq!(spliced(&message, &[splice]), answer(hidden));
    }
    for body in [
        r#"{"capabilities":{"tasks":{"cancel":{}}}}"#,
        r#"{"capabilities":{"tasks":["list"]}}"#,
        r#"{"list":{}}"#,
        "[]",
    ] {
        assert_eq!(hide_list(of_server(&result(body)).result().unwrap()), None, "{body}");
    }
}
