//! A client and a server of HTTP+SSE: both halves are passed on, and may reach different nodes.

use serde_json::json;

use crate::support::client;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

use super::Client;
use super::INITIALIZE;
use super::INITIALIZED;
use super::LIST;
use super::MESSAGES;
use super::SECOND;
use super::STEP;
use super::Stage;
use super::call;
use super::reply;
use super::seal_table;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_event_names_the_path_family_the_client_came_in_by() {
    let stage = Stage::sse().await;
    for (index, (path, messages)) in [
        ("/mcp/a/sse", "/mcp/a/message"),
        ("/mcp/a/events", "/mcp/a/message"),
        ("/gateway/mcp/a/sse", "/gateway/mcp/a/message"),
        ("/a/mcp/events", "/a/mcp/message"),
        ("/acme/a/events", "/acme/a/message"),
        ("/acme/a/sse", "/acme/a/message"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = stage.client_at(path, &[]).await;
        let (named, token) = client.endpoint.split_once("?sessionId=").unwrap();
        assert_eq!(named, messages, "{path}");
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        assert!(!client.endpoint.contains("sse-session"), "the server's own session stays here");
        assert_eq!(client.ask(INITIALIZE).await["result"]["serverInfo"]["name"], "scripted", "{path}");
        let posted = stage.upstream.requests_for("initialize").remove(index);
        assert_eq!(posted.line(), format!("POST /messages?session=sse-session-{index:05} HTTP/1.1"), "{path}");
        assert_eq!((posted.header("mcp-session-id"), posted.header("x-api-key")), (None, None));
        let other = client.endpoint.replace(messages, "/mcp/a/message");
        assert_eq!(stage.post(&other, &[], INITIALIZED).await.status, 202, "the family itself does not matter");
        let (at_stream, at_messages) = (stage.post(path, &[], INITIALIZE).await, stage.refused(messages, &[]).await);
        assert_eq!((at_stream.status, at_stream.header("allow")), (405, Some("GET")), "{path}");
        assert_eq!((at_messages.status, at_messages.header("allow")), (405, Some("POST")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_comes_from_the_proxy_or_the_public_url_if_it_is_a_plain_path() {
    let stage = Stage::sse_with("public_url = \"https://mcp.example.com/c/d\"", "", "").await;
    let public = "Host: mcp.example.com";
    let long = format!("X-Forwarded-Prefix: /{}", "x".repeat(300));
    let cases: &[(&[&str], &str)] = &[
        (&[], ""),
        (&[public], "/c/d"),
        (&["Host: MCP.example.com"], "/c/d"),
        (&["X-Forwarded-Prefix: /edge"], "/edge"),
        (&["X-Forwarded-Prefix: /edge/"], "/edge"),
        (&["X-Forwarded-Prefix: /a/b-._~1"], "/a/b-._~1"),
        (&[public, "X-Forwarded-Prefix: /edge"], "/edge"),
        (&["X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http"], ""),
        (&["X-Forwarded-Prefix: //evil.example"], ""),
        (&["X-Forwarded-Prefix: /a//evil.example"], ""),
        (&["X-Forwarded-Prefix: https://evil.example"], ""),
        (&["X-Forwarded-Prefix: /a/../b"], ""),
        (&["X-Forwarded-Prefix: /%2e%2e"], ""),
        (&["X-Forwarded-Prefix: /a b"], ""),
        (&["X-Forwarded-Prefix: /a?x=y"], ""),
        (&["X-Forwarded-Prefix: /a\\b"], ""),
        (&["X-Forwarded-Prefix: /@evil.example"], ""),
        (&["X-Forwarded-Prefix: edge"], ""),
        (&["X-Forwarded-Prefix: /"], ""),
        (&["X-Forwarded-Prefix:"], ""),
        (&["X-Forwarded-Prefix: /a, /b"], ""),
        (&["X-Forwarded-Prefix: /a", "X-Forwarded-Prefix: /b"], ""),
        (&[&long], ""),
        (&[public, "X-Forwarded-Prefix: //evil.example"], "/c/d"),
    ];
    for (headers, prefix) in cases {
        let client = stage.client_at("/mcp/a/sse", headers).await;
        assert!(
            client.endpoint.starts_with(&format!("{prefix}/mcp/a/message?sessionId=")),
            "{headers:?}: {}",
            client.endpoint
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_are_accepted_and_everything_else_is_said_on_the_stream() {
    let stage = Stage::sse().await;
    let mut client = stage.client().await;
    let tools = json!({ "tools": [{ "name": "echo", "inputSchema": {} }, { "name": "hidden" }, { "name": "other" }], "nextCursor": "c" });
    stage.upstream.on("tools/list", Reply::json(tools));
    assert_eq!(client.ask(INITIALIZE).await["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(client.post(INITIALIZED).await.status, 202);
    let list = client.ask(LIST).await;
    let kept = json!([{ "name": "echo", "inputSchema": {} }, { "name": "other" }]);
    assert_eq!((&list["result"]["tools"], &list["result"]["nextCursor"]), (&kept, &json!("c")));
    stage.upstream.on("tools/call", Reply::sse(vec![Event::progress(1), Event::progress(2), Event::result(json!({}))]));
    assert_eq!(client.ask(&call(7, "echo")).await["params"], json!({ "progressToken": "p7", "progress": 1 }));
    assert_eq!(client.stream.message().await["params"]["progress"], 2);
    assert_eq!(client.stream.message().await, json!({ "jsonrpc": "2.0", "id": 7, "result": {} }));
    stage.upstream.on("tools/call", Reply::elicitation());
    assert_eq!(client.ask(&call(8, "echo")).await["method"], "elicitation/create");
    assert_eq!(client.post(&reply("ask-1", "blue")).await.status, 202);
    assert_eq!(client.stream.message().await["result"]["content"][0]["text"], "blue");
    let stream = stage.upstream.stream(0).await;
    stream.push(Event::notification("notifications/tools/list_changed", json!({})));
    assert_eq!(client.stream.message().await["method"], "notifications/tools/list_changed");
    for (method, outcome) in
        [("initialize", "accepted"), ("tools/list", "accepted"), ("notifications/initialized", "ok")]
    {
        let intent = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == method);
        let result = stage.gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
        assert_eq!((&intent["transport"], &intent["http_method"]), (&json!("sse"), &json!("POST")), "{intent}");
        assert_eq!((&result["outcome"], &result["status"]), (&json!(outcome), &json!(202)), "{result}");
    }
    stream.end();
    assert!(client.stream.ends_within(SECOND).await);
    let ended = stage.gateway.wait_for_record("result", |record| record["outcome"] == "ok" && record["status"] == 200);
    assert_eq!(ended["kind"], "result");
    assert_eq!(client.post(LIST).await.status, 404, "the server knows the session no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_call_is_answered_on_the_stream_where_that_is_here_and_by_the_post_elsewhere() {
    let stage = Stage::sse_with("", "", &seal_table()).await;
    let mut client = stage.client().await;
    let elsewhere = stage.second_node();
    let denied = client.ask(&call(5, "hidden")).await;
    assert_eq!((&denied["id"], &denied["error"]["code"]), (&json!(5), &json!(-32602)), "{denied}");
    assert_eq!(denied["error"]["message"], "Unknown tool: hidden");
    let refused = client.post_at(elsewhere.data, &call(6, "hidden")).await;
    assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (403, Some(-32602), &json!(6)));
    for (node, status) in [(&stage.gateway, 202), (&elsewhere, 403)] {
        let record = node.wait_for_record("refused", |record| record["reason"] == "tool_blocked");
        assert_eq!((&record["tool"], &record["status"]), (&json!("hidden"), &json!(status)), "{record}");
    }
    assert_eq!(stage.upstream.requests_for("tools/call").len(), 0);
    let accepted = client.post_at(elsewhere.data, &call(7, "echo")).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0), "{}", accepted.text());
    assert_eq!(client.stream.message().await["id"], 7);
    let record = elsewhere.wait_for_record("result", |_| true);
    assert_eq!((&record["outcome"], &record["status"]), (&json!("accepted"), &json!(202)));
    assert!(client.stream.is_silent_for(STEP).await, "what the other node refused is not said here");
    // The stream's node screens what it did not ask for.
    stage.upstream.on("tools/list", Reply::json(json!({ "tools": [{ "name": "hidden" }, { "name": "echo" }] })));
    assert_eq!(client.post_at(elsewhere.data, LIST).await.status, 202);
    assert_eq!(client.stream.message().await["result"]["tools"], json!([{ "name": "echo" }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_s_token_opens_for_its_owner_on_its_server_and_path_only() {
    let stage = Stage::sse().await;
    let client = stage.client().await;
    let token = client.token();
    let foreign = format!("X-API-Key: {}", stage.other.key);
    let post = async |path: String, headers: &[&str]| {
        client::send(stage.gateway.data, client::post(&path, headers, LIST)).await
    };
    let key = stage.key();
    let own = [key.as_str()];
    let mut changed = token.to_owned();
    let middle = changed.len() / 2;
    let flipped = if &changed[middle..=middle] == "A" { "B" } else { "A" };
    changed.replace_range(middle..=middle, flipped);
    for (what, path, headers) in [
        ("another's", format!("/mcp/a/message?sessionId={token}"), [foreign.as_str()]),
        ("of another server", format!("/mcp/b/message?sessionId={token}"), own),
        ("changed", format!("/mcp/a/message?sessionId={changed}"), own),
        ("cut", format!("/mcp/a/message?sessionId={}", &token[..token.len() - 1]), own),
        ("empty", "/mcp/a/message?sessionId=".to_owned(), own),
        ("escaped", format!("/mcp/a/message?sessionId=%41{token}"), own),
    ] {
        let refused = post(path, &headers).await;
        assert_eq!((refused.status, refused.code()), (404, Some(-32600)), "{what}: {}", refused.text());
    }
    for (what, path) in [
        ("none", "/mcp/a/message".to_owned()),
        ("none", "/mcp/a/message?session_id=x".to_owned()),
        ("two", format!("/mcp/a/message?sessionId={token}&sessionId={token}")),
        ("two", format!("/mcp/a/message?sessionId={token}&x=y&sessionId=x")),
    ] {
        let refused = post(path, &own).await;
        assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (400, Some(-32600), &json!(1)), "{what}");
    }
    assert_eq!(stage.upstream.requests_for("tools/list").len(), 0);
    assert_eq!(post(format!("/mcp/a/message?x=y&sessionId={token}"), &own).await.status, 202);
    stage.upstream.wait_for("tools/list", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_the_two_transports_are_not_each_other_s() {
    let upstream = Upstream::start().await;
    let stage =
        Stage::sse_with("", "", &format!("[servers.s]\nurl = \"{}\"\naccess = \"key\"\n", upstream.url())).await;
    stage.reload("mcp_servers = [\"a\", \"b\"]", "mcp_servers = [\"a\", \"b\", \"s\"]");
    let opened = stage.post("/mcp/s", &[], INITIALIZE).await;
    let session = opened.header("mcp-session-id").unwrap().to_owned();
    let client = stage.client().await;
    let at = |path: &str, token: &str| format!("{path}?sessionId={token}");
    for (path, token) in [("/mcp/s/message", &session), ("/mcp/a/message", &session)] {
        assert_eq!(stage.post(&at(path, token), &[], LIST).await.status, 404, "{path}");
    }
    assert_eq!(stage.post(&at("/mcp/s/message", client.token()), &[], LIST).await.status, 404);
    for path in ["/mcp/s", "/mcp/a"] {
        let as_session = format!("Mcp-Session-Id: {}", client.token());
        assert_eq!(stage.post(path, &[&as_session], LIST).await.status, 404, "{path}");
    }
    let front = stage.client_at("/mcp/s/sse", &[]).await;
    let as_session = format!("Mcp-Session-Id: {}", front.token());
    assert_eq!(stage.post("/mcp/s", &[&as_session], LIST).await.status, 404);
    assert_eq!((upstream.requests_for("tools/list").len(), stage.upstream.requests_for("tools/list").len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_its_clients_elsewhere_is_not_followed() {
    let stage = Stage::sse().await;
    let elsewhere = Upstream::start().await;
    let (own, foreign) = (stage.upstream.address(), elsewhere.address());
    let port = own.port();
    for (index, endpoint) in [
        format!("http://{foreign}/messages"),
        format!("//{foreign}/messages"),
        format!("HTTP://{foreign}/messages"),
        format!("http://{own}@{foreign}/messages"),
        format!("http://user@{own}/messages"),
        format!("https://{own}/messages"),
        format!("http://localhost:{port}/messages"),
        format!("http://127.0.0.1:{port}0/messages"),
        "http://127.0.0.1/messages".to_owned(),
        format!("http:{foreign}/messages"),
        format!("http:/{foreign}/messages"),
        format!("\\\\{foreign}\\messages"),
        format!("/\\{foreign}/messages"),
        format!("///{foreign}/messages"),
        format!("/..//{foreign}/messages"),
        "javascript:alert(1)".to_owned(),
        "data:text/plain,x".to_owned(),
        "/messages#fragment".to_owned(),
        "/mess ages".to_owned(),
        String::new(),
        format!("/{}", "x".repeat(1_100)),
    ]
    .into_iter()
    .enumerate()
    {
        stage.upstream.on("GET", Reply::standing(vec![Event::endpoint(&endpoint)]));
        let refused = stage.refused("/mcp/a/sse", &[]).await;
        assert_eq!((refused.status, refused.code()), (502, Some(-32603)), "{endpoint}: {}", refused.text());
        assert!(!refused.text().contains(&foreign.to_string()), "{}", refused.text());
        stage.upstream.stream(index).await.ended().await;
    }
    assert_eq!(elsewhere.connections().len(), 0);
    assert!(stage.upstream.requests().iter().all(|request| request.line().starts_with("GET ")));
    for own in [format!("http://{own}/messages?x=$session"), "messages?x=$session".to_owned(), "?x=$session".to_owned()]
    {
        stage.upstream.on("GET", Reply::standing(vec![Event::endpoint(&own)]));
        assert_eq!(stage.client().await.ask(LIST).await["id"], 1, "{own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_say_where_to_post_is_none() {
    let stage = Stage::sse_with("", "timeout_ms = 300", "").await;
    for (what, reply, status) in [
        ("silence", Reply::standing(vec![]), 504),
        ("comments", Reply::standing(vec![Event::comment("wait"), Event::comment("wait").after(STEP)]), 504),
        ("a head that does not come", Reply::never(), 504),
        ("a message first", Reply::standing(vec![Event::notification("notifications/message", json!({}))]), 502),
        ("an end", Reply::sse(vec![]), 502),
        ("half an event", Reply::sse(vec![Event::raw("event: endpoint\ndata: /messages\n")]), 502),
        ("a reset", Reply::reset(), 502),
        ("no stream", Reply::json(json!({})), 502),
        ("not found", Reply::html(404), 502),
        ("a wrong method", Reply::status(405), 405),
        ("unauthorized", Reply::unauthorized(), 502),
        ("elsewhere", Reply::redirect("http://127.0.0.1:1/"), 502),
        ("busy", Reply::html(503), 503),
    ] {
        stage.upstream.on("GET", reply);
        let refused = stage.refused("/mcp/a/sse", &[]).await;
        let code = if status == 405 { -32600 } else { -32603 };
        assert_eq!((refused.status, refused.code()), (status, Some(code)), "{what}: {}", refused.text());
    }
    assert_eq!(stage.gateway.metric("portcullis_streams_by_kind{kind=\"sse\"}").await, Some(0.0));
    stage.upstream.speak_sse(MESSAGES);
    stage.client().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_server_does_not_take_is_told_so() {
    let stage = Stage::sse().await;
    let mut client = stage.client().await;
    stage.upstream.on("tools/call", Reply::html(500));
    let failed = client.ask(&call(3, "echo")).await;
    assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(3), &json!(-32603)));
    let record = stage.gateway.wait_for_record("result", |record| record["reason"] == "upstream_status");
    assert_eq!((&record["outcome"], &record["status"]), (&json!("upstream_error"), &json!(202)));
    stage.upstream.on("tools/call", Reply::reset());
    assert_eq!(client.ask(&call(4, "echo")).await["error"]["code"], -32603);
    stage.upstream.on("notifications/initialized", Reply::html(500));
    assert_eq!(client.post(INITIALIZED).await.status, 502);
    let modern = r#"{"jsonrpc":"2.0","id":9,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let refused = client.post(modern).await;
    assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (400, Some(-32022), &json!(9)));
    let nothing = client.post("{").await;
    assert_eq!((nothing.status, nothing.code()), (400, Some(-32700)));
    assert_eq!(client.ask(LIST).await["id"], 1, "the stream is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_closes_the_server_s_stream() {
    let stage = Stage::sse().await;
    let client = stage.client().await;
    let stream = stage.upstream.stream(0).await;
    stage.has_streams("sse", 1.0).await;
    drop(client);
    stream.ended().await;
    let record = stage.gateway.wait_for_record("result", |_| true);
    assert_eq!(record["outcome"], "client_gone", "{record}");
    stage.has_streams("sse", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_of_an_event_leaves_nothing_of_it() {
    let stage = Stage::sse().await;
    let mut client = stage.client().await;
    let stream = stage.upstream.stream(0).await;
    stream.push(Event::raw("event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n"));
    stream.close();
    // Half an event would fail this.
    assert!(client.stream.ends_within(SECOND).await);
    let record = stage.gateway.wait_for_record("result", |_| true);
    assert_eq!(record["outcome"], "network_failure", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_stream_of_a_server_that_is_not_theirs() {
    let stage = Stage::sse().await;
    let unknown = stage.refused("/mcp/nothing/sse", &[]).await;
    assert_eq!((unknown.status, unknown.code()), (404, Some(-32602)));
    let nobody = client::send(stage.gateway.data, super::get("/mcp/a/sse", &[])).await;
    assert_eq!((nobody.status, nobody.header("www-authenticate").is_some()), (401, true));
    assert_eq!(stage.upstream.requests().len(), 0);
    let foreign = format!("X-API-Key: {}", stage.other.key);
    let mut other = Client::open(stage.gateway.data, "/mcp/a/sse", &[&foreign]).await;
    assert_eq!(other.ask(LIST).await["id"], 1);
}
