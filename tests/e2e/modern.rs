//! Requests of 2026-07-28: headers that say what the body says, no sessions, nothing of the older revisions.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const REVISION: &str = "2026-07-28";
const VERSION: &str = "MCP-Protocol-Version: 2026-07-28";

struct Bench {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

async fn start_with(policy: &str) -> Bench {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&format!(
        r#"
        [policy]
        {policy}
        [servers.s]
        url = "{}"
        blocked_tools = ["evil"]
        [keys.ci]
        digest = "{}"
        mcp_servers = ["s"]
        agent = "a"
        [agents.a.servers.s]
        argument_constraints.query = [{{ arg = "sql", pattern = '^SELECT', description = "SELECT only" }}]
        "#,
        upstream.url(),
        key.digest
    ));
    Bench { upstream, gateway, key }
}

impl Bench {
    async fn post(&self, lines: &[&str], body: &str) -> Answer {
        let key = format!("Authorization: Bearer {}", self.key.key);
        let lines: Vec<&str> = [key.as_str()].into_iter().chain(lines.iter().copied()).collect();
        self.gateway.post("/mcp/s", &lines, body).await
    }

    /// Holds what came upstream so far to these bodies.
    #[track_caller]
    fn assert_sent(&self, bodies: &[String]) {
        let sent: Vec<String> = self
            .upstream
            .requests()
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect();
        assert_eq!(sent, bodies);
    }
}

/// The `_meta` of a request, as it must be.
fn meta() -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": {}})
}

/// A request with these parameters and the right `_meta`.
fn request(method: &str, mut params: Value) -> String {
    params["_meta"] = meta();
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string()
}

fn call(tool: &str) -> String {
    request("tools/call", json!({"name": tool, "arguments": {}}))
}

#[tokio::test]
async fn headers_must_say_what_the_body_says() {
    let bench = start_with("").await;
    bench.upstream.on(
        "tools/list",
        Reply::json(json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"})),
    );
    bench.upstream.on("resources/read", Reply::json(json!({"resultType": "complete", "contents": []})));
    let list = || request("tools/list", json!({}));
    let read = || request("resources/read", json!({"uri": "file:///a%20b?id=1"}));
    let refused = Some(-32020);
    let rows: Vec<(&str, Vec<&str>, String, Option<i64>)> = vec![
        ("1 all headers", vec![VERSION, "Mcp-Method: tools/list"], list(), None),
        ("2 no method", vec![VERSION], list(), refused),
        ("3 another method", vec![VERSION, "Mcp-Method: prompts/list"], list(), refused),
        ("4 names in lower case", vec!["mcp-protocol-version: 2026-07-28", "mcp-method: tools/list"], list(), None),
        ("4 names in upper case", vec!["MCP-PROTOCOL-VERSION: 2026-07-28", "MCP-METHOD: tools/list"], list(), None),
        ("5 the method in upper case", vec![VERSION, "Mcp-Method: TOOLS/LIST"], list(), refused),
        ("the method twice", vec![VERSION, "Mcp-Method: tools/list", "Mcp-Method: tools/list"], list(), refused),
        ("the method twice in a line", vec![VERSION, "Mcp-Method: tools/list, tools/list"], list(), refused),
        ("an encoded method", vec![VERSION, "Mcp-Method: =?base64?dG9vbHMvbGlzdA==?="], list(), refused),
        ("the version twice", vec![VERSION, VERSION, "Mcp-Method: tools/list"], list(), refused),
        ("6 no name", vec![VERSION, "Mcp-Method: tools/call"], call("foo"), refused),
        ("7 another name", vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: foo"], call("bar"), refused),
        ("another case of the name", vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: Foo"], call("foo"), refused),
        ("8 white space around", vec![VERSION, "Mcp-Method: \t tools/call ", "Mcp-Name:   foo \t "], call("foo"), None),
        (
            "9 another script, encoded",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?5pel5pys6Kqe?="],
            call("日本語"),
            None,
        ),
        ("another script, plain", vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: 日本語"], call("日本語"), refused),
        (
            "10 bad padding",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?SGVsbG8?="],
            call("Hello"),
            refused,
        ),
        (
            "11 bad letters",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?SGVs!!!bG8=?="],
            call("Hello"),
            refused,
        ),
        (
            "bits that mean nothing",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?SGVsbG9=?="],
            call("Hello"),
            refused,
        ),
        (
            "12 a marker in upper case",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?BASE64?SGVsbG8=?="],
            call("=?BASE64?SGVsbG8=?="),
            None,
        ),
        (
            "12 which is no marker",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?BASE64?SGVsbG8=?="],
            call("Hello"),
            refused,
        ),
        (
            "13 half a marker",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?SGVsbG8="],
            call("=?base64?SGVsbG8="),
            None,
        ),
        (
            "14 a literal marker, plain",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?literal?="],
            call("=?base64?literal?="),
            refused,
        ),
        (
            "14 a literal marker, encoded",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: =?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="],
            call("=?base64?literal?="),
            None,
        ),
        (
            "15 two names",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: safe", "Mcp-Name: evil"],
            call("safe"),
            refused,
        ),
        (
            "15 the same name twice",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: safe", "Mcp-Name: safe"],
            call("safe"),
            refused,
        ),
        ("16 a URI", vec![VERSION, "Mcp-Method: resources/read", "Mcp-Name: file:///a%20b?id=1"], read(), None),
        (
            "16 a URI, decoded",
            vec![VERSION, "Mcp-Method: resources/read", "Mcp-Name: file:///a b?id=1"],
            read(),
            refused,
        ),
        ("a name where none belongs", vec![VERSION, "Mcp-Method: tools/list", "Mcp-Name: x"], list(), None),
        (
            "21 a parameter nobody knows",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: foo", "Mcp-Param-Foo: =?base64?eA==?="],
            call("foo"),
            None,
        ),
        (
            "22 an empty parameter",
            vec![VERSION, "Mcp-Method: tools/call", "Mcp-Name: foo", "Mcp-Param-X:"],
            call("foo"),
            None,
        ),
    ];
    let mut sent = Vec::new();
    for (name, lines, body, code) in &rows {
        let answer = bench.post(lines, body).await;
        let status = if code.is_some() { 400 } else { 200 };
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (status, *code, &json!(7)),
            "{name}: {}",
            answer.text()
        );
        if code.is_none() {
            assert_eq!(answer.json()["result"]["resultType"], "complete", "{name}");
            sent.push(body.clone());
        }
    }
    bench.assert_sent(&sent);
    let count = rows.iter().filter(|row| row.3.is_some()).count();
    assert!(
        bench
            .gateway
            .wait_for_records("refused", count)
            .iter()
            .all(|record| record["reason"] == "header_mismatch" && record["status"] == 400)
    );
    let last_two: Vec<_> = bench.upstream.requests_for("tools/call foo").into_iter().rev().take(2).collect();
    assert_eq!(
        (last_two[1].headers("mcp-param-foo"), last_two[0].headers("mcp-param-x")),
        (vec!["=?base64?eA==?=".into()], vec![String::new()])
    );
    assert_eq!(
        (last_two[0].headers("mcp-method"), last_two[0].headers("mcp-name")),
        (vec!["tools/call".into()], vec!["foo".into()])
    );
}

#[tokio::test]
async fn the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken() {
    let bench = start_with("").await;
    let with_meta =
        |meta: Value| json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta}}).to_string();
    let of = |version: &str| {
        with_meta(
            json!({"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}),
        )
    };
    let header = |version: &str| format!("MCP-Protocol-Version: {version}");
    let bare = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let rows: Vec<(&str, Option<String>, String, Option<i64>)> = vec![
        ("23 an older body", Some(header(REVISION)), of("2025-11-25"), Some(-32020)),
        ("an older header", Some(header("2025-11-25")), of(REVISION), Some(-32020)),
        ("an unknown body", Some(header(REVISION)), of("v999"), Some(-32020)),
        ("an unknown header", Some(header("v999")), of(REVISION), Some(-32020)),
        ("24 both unknown", Some(header("v999")), of("v999"), Some(-32022)),
        ("both of the future", Some(header("2027-01-01")), of("2027-01-01"), Some(-32022)),
        ("both older", Some(header("2025-11-25")), of("2025-11-25"), Some(-32022)),
        ("25 no header", None, of(REVISION), Some(-32020)),
        ("26 no _meta", Some(header(REVISION)), bare.into(), Some(-32602)),
        ("26 an empty _meta", Some(header(REVISION)), with_meta(json!({})), Some(-32602)),
        (
            "27 no capabilities",
            Some(header(REVISION)),
            with_meta(json!({"io.modelcontextprotocol/protocolVersion": REVISION})),
            Some(-32602),
        ),
        ("capabilities that are none", Some(header(REVISION)), of(REVISION).replace("{}", "null"), Some(-32602)),
        (
            "no version in _meta",
            Some(header(REVISION)),
            with_meta(json!({"io.modelcontextprotocol/clientCapabilities": {}})),
            Some(-32602),
        ),
        ("27 no clientInfo", Some(header(REVISION)), of(REVISION), None),
        ("38 a revision that never was", Some(header("1.0")), bare.into(), Some(-32022)),
        ("an empty version", Some(header("")), bare.into(), Some(-32022)),
        ("an older revision", Some(header("2025-11-25")), bare.into(), None),
    ];
    for (name, version, body, code) in &rows {
        let lines: Vec<&str> = version.iter().map(String::as_str).chain(["Mcp-Method: tools/list"]).collect();
        let answer = bench.post(&lines, body).await;
        let status = if code.is_some() { 400 } else { 200 };
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (status, *code, &json!(7)),
            "{name}: {}",
            answer.text()
        );
        if *code == Some(-32022) {
            let data = &answer.json()["error"]["data"];
            let requested = version.as_deref().unwrap().split_once(": ").unwrap().1;
            assert_eq!(data["requested"], requested, "{name}");
            assert!(data["supported"].as_array().unwrap().contains(&json!(REVISION)), "{name}: {data}");
        }
    }
    assert_eq!(bench.upstream.requests().len(), 2);
}

#[tokio::test]
async fn what_the_revision_removed_or_never_had_is_not_found() {
    let bench = start_with("").await;
    let params = json!({"uri": "file:///a", "taskId": "t", "level": "debug", "protocolVersion": "2025-11-25", "notifications": {}});
    let methods = [
        "ping",
        "initialize",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
        "sampling/createMessage",
        "roots/list",
        "elicitation/create",
        "no/such",
        "Tools/list",
        "notifications/initialized",
    ];
    for method in methods {
        let lines = [VERSION.to_owned(), format!("Mcp-Method: {method}"), "Mcp-Name: t".into()];
        let answer = bench.post(&lines.each_ref().map(String::as_str), &request(method, params.clone())).await;
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (404, Some(-32601), &json!(7)),
            "{method}: {}",
            answer.text()
        );
        assert_eq!(answer.header("mcp-session-id"), None, "{method}");
    }
    assert!(
        bench
            .gateway
            .wait_for_records("refused", methods.len())
            .iter()
            .all(|record| record["reason"] == "method_unknown" && record["revision"] == REVISION)
    );
    assert_eq!(bench.upstream.connections().len(), 0);
}

#[tokio::test]
async fn only_one_request_or_notification_may_come() {
    let bench = start_with("").await;
    let list = request("tools/list", json!({}));
    let notification = |method: &str| {
        json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta(), "requestId": 1, "progressToken": 1, "progress": 1}}).to_string()
    };
    for (name, body, status, code) in [
        ("35 a response", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(), 400, -32600),
        ("an error", r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#.to_owned(), 400, -32600),
        ("36 a batch", format!("[{list}]"), 400, -32600),
        ("an id that is null", list.replace("\"id\":7", "\"id\":null"), 400, -32600),
        ("a notification nobody may send", notification("notifications/cancelled"), 404, -32601),
        ("progress of a client", notification("notifications/progress"), 404, -32601),
        ("a call without an id", call("foo").replace("\"id\":7,", ""), 400, -32600),
    ] {
        let answer = bench.post(&[VERSION], &body).await;
        assert_eq!((answer.status, answer.code()), (status, Some(code)), "{name}: {}", answer.text());
    }
    assert_eq!(bench.upstream.connections().len(), 0);
}

#[tokio::test]
async fn sessions_and_resumption_are_ignored_and_never_passed_either_way() {
    let bench = start_with("").await;
    let with_session =
        |reply: Reply| reply.header("Mcp-Session-Id", "canary-session").header("Last-Event-ID", "canary-event");
    bench.upstream.on("tools/list", with_session(Reply::json(json!({"resultType": "complete", "tools": []}))));
    bench.upstream.on(
        "tools/call",
        with_session(Reply::sse(vec![
            Event::progress(1),
            Event::result(json!({"resultType": "complete", "content": []})),
        ])),
    );
    let session = ["Mcp-Session-Id: not-a-session", "Last-Event-ID: canary-event"];
    for (method, name, body) in
        [("tools/list", None, request("tools/list", json!({}))), ("tools/call", Some("foo"), call("foo"))]
    {
        let lines = client::modern(method, name);
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(session).collect();
        let answer = bench.post(&lines, &body).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert!(
            !answer.head.to_lowercase().contains("mcp-session-id") && !answer.head.contains("canary"),
            "{}",
            answer.head
        );
    }
    for request in bench.upstream.requests() {
        assert_eq!((request.headers("mcp-session-id"), request.headers("last-event-id")), (vec![], vec![]));
        assert_eq!(request.headers("mcp-protocol-version"), [REVISION]);
    }
}

#[tokio::test]
async fn get_and_delete_are_not_served() {
    let bench = start_with("").await;
    for method in ["GET", "DELETE"] {
        for session in ["", "Mcp-Session-Id: x\r\n"] {
            let request = format!(
                "{method} /mcp/s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {}\r\nAccept: text/event-stream\r\n{VERSION}\r\n{session}\r\n",
                bench.key.key
            );
            let answer = client::send(bench.gateway.data, request).await;
            assert_eq!((answer.status, answer.code()), (405, Some(-32600)), "{method} {session}: {}", answer.text());
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST")), "{}", answer.head);
        }
    }
    assert_eq!(bench.upstream.connections().len(), 0);
}

#[tokio::test]
async fn headers_decide_nothing_in_an_older_revision() {
    let bench = start_with("").await;
    let older = |tool: &str| {
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
            .to_string()
    };
    for version in [&["MCP-Protocol-Version: 2025-11-25"][..], &["MCP-Protocol-Version: 2025-03-26"], &[]] {
        let lines: Vec<&str> =
            version.iter().copied().chain(["Mcp-Method: tools/list", "Mcp-Name: safe", "Mcp-Param-X: y"]).collect();
        let answer = bench.post(&lines, &older("evil")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (200, Some(-32602)),
            "28 the body's name is judged: {}",
            answer.text()
        );
        assert_eq!(bench.upstream.requests_for("tools/call evil").len(), 0);
        assert_eq!(bench.post(&lines, &older("safe")).await.status, 200);
        let sent = bench.upstream.requests().pop().unwrap();
        assert_eq!(
            sent.header_names()
                .iter()
                .filter(|name| name.starts_with("mcp-") && *name != "mcp-protocol-version")
                .count(),
            0
        );
    }
}

#[tokio::test]
async fn a_handshake_never_settles_on_a_revision_without_one() {
    let bench = start_with("").await;
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}).to_string();
    let info = json!({"name": "s", "version": "1"});
    let answers = ["2025-11-25", REVISION]
        .map(|version| Reply::json(json!({"protocolVersion": version, "capabilities": {}, "serverInfo": info})));
    bench.upstream.on_each("initialize", answers.to_vec());
    let answer = bench.post(&[], &body).await;
    assert_eq!((answer.status, &answer.json()["result"]["protocolVersion"]), (200, &json!("2025-11-25")));
    let answer = bench.post(&[], &body).await;
    assert_eq!((answer.status, answer.code()), (502, Some(-32603)), "a server that does is not believed");
}

#[tokio::test]
async fn a_flood_of_parameter_headers_is_refused_before_it_is_decoded() {
    let bench = start_with("").await;
    let flood: Vec<String> = (0..40).map(|n| format!("Mcp-Param-{n}: {}", "p".repeat(5000))).collect();
    let lines: Vec<&str> = [VERSION, "Mcp-Method: tools/call", "Mcp-Name: foo"]
        .into_iter()
        .chain(flood.iter().map(String::as_str))
        .collect();
    let answer = bench.post(&lines, &call("foo")).await;
    assert_eq!((answer.status, answer.code()), (431, Some(-32600)));
    assert_eq!(bench.upstream.connections().len(), 0);
}

#[tokio::test]
async fn denials_have_the_form_of_the_revision() {
    let refused = |tool: &str, arguments: Value| request("tools/call", json!({"name": tool, "arguments": arguments}));
    for (policy, tool, expected) in [
        ("", "evil", json!({"error": {"code": -32602, "message": "Unknown tool: evil"}})),
        ("", "query", json!({"error": {"code": -31403, "message": "the arguments are not permitted"}})),
        (
            "explain_to_client = true",
            "query",
            json!({"error": {"code": -31403, "message": "argument `sql`: SELECT only"}}),
        ),
        (
            "denial_form = \"tool_result\"",
            "query",
            json!({"result": {"resultType": "complete", "content": [{"type": "text", "text": "the arguments are not permitted"}], "isError": true}}),
        ),
    ] {
        let bench = start_with(policy).await;
        let lines = client::modern("tools/call", Some(tool));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answer = bench.post(&lines, &refused(tool, json!({"sql": "DROP"}))).await;
        let mut told = expected;
        (told["jsonrpc"], told["id"]) = (json!("2.0"), json!(7));
        assert_eq!((answer.status, answer.json()), (200, told), "{policy} {tool}");
        let refused = bench.gateway.wait_for_record("refused", |record| record["tool"] == tool);
        assert_eq!((&refused["revision"], bench.upstream.connections().len()), (&json!(REVISION), 0));
    }
}
