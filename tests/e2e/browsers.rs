//! Browsers: which pages may call, what their browser is told, and that a preflight goes nowhere.

use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::gateway::Gateway;
use crate::support::gateway::make_key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const PAGE: &str = "https://app.example";

async fn start() -> (Upstream, Gateway, String) {
    let upstream = Upstream::start().await;
    let key = make_key("page");
    let gateway = Gateway::start(&format!(
        "allowed_origins = [\"{PAGE}\"]\n[auth]\nkey_headers = [\"X-Team-Key\"]\n[servers.open]\nurl = \"{}\"\n[keys.page]\ndigest = \"{}\"\nmcp_servers = [\"open\"]\n",
        upstream.url(),
        key.digest
    ));
    (upstream, gateway, key.key)
}

async fn preflight(gateway: &Gateway, path: &str, lines: &[&str]) -> Answer {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client::send(
        gateway.data,
        format!("OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n"),
    )
    .await
}

/// Names in a header that lists some, in small letters.
fn listed(answer: &Answer, name: &str) -> Vec<String> {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}: {}", answer.head));
    value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_page_that_is_allowed_calls_as_browsers_do() {
    let (upstream, gateway, key) = start().await;
    let origin = format!("Origin: {PAGE}");
    let asked = "Access-Control-Request-Headers: authorization,content-type,mcp-protocol-version,mcp-method,mcp-name,mcp-param-region";
    let answer = preflight(&gateway, "/mcp/open", &[&origin, "Access-Control-Request-Method: POST", asked]).await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (204, 0, None));
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (Some(PAGE), Some("Origin")));
    assert_eq!(answer.header("access-control-allow-credentials"), None, "no cookie is anybody's key here");
    assert_eq!(listed(&answer, "access-control-allow-methods"), ["post", "get", "delete"]);
    let allowed = listed(&answer, "access-control-allow-headers");
    let needed = asked.split_once(": ").unwrap().1.split(',');
    for name in needed.chain(["mcp-session-id", "last-event-id", "x-api-key", "api-key", "x-team-key", "accept"]) {
        assert!(allowed.iter().any(|it| it == name), "{name}: {allowed:?}");
    }
    assert_eq!(gateway.metric("portcullis_cors_preflights_total").await, Some(1.0));
    assert_eq!(upstream.connections().len(), 0, "nothing of a preflight is forwarded");
    assert!(gateway.records().is_empty(), "it is counted, not recorded");

    let bearer = format!("Authorization: Bearer {key}");
    let called = gateway.post("/mcp/open", &[&origin, &bearer], CALL).await;
    let unknown = gateway.post("/mcp/open", &[&origin], CALL).await;
    let misplaced = gateway.post("/nowhere/at/all", &[&origin, &bearer], CALL).await;
    assert_eq!((called.status, unknown.status, misplaced.status), (200, 401, 404));
    for answer in [&called, &unknown, &misplaced] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{}", answer.head);
        assert_eq!(answer.header("vary"), Some("Origin"));
        let exposed = listed(answer, "access-control-expose-headers");
        assert!(exposed.contains(&"mcp-session-id".to_owned()) && exposed.contains(&"www-authenticate".to_owned()));
    }
    let request = &upstream.requests()[0];
    assert_eq!(request.header("origin"), None, "the page is no matter of the server's");
}

#[tokio::test]
async fn an_event_stream_may_be_read_by_the_page() {
    let (upstream, gateway, key) = start().await;
    upstream.on("tools/call", Reply::sse(vec![Event::result(json!({"content":[]}))]));
    let headers = [format!("Origin: {PAGE}"), format!("X-Team-Key: {key}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let answer = gateway.post("/mcp/open", &headers, CALL).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
}

#[tokio::test]
async fn other_pages_are_refused_and_told_nothing() {
    let (upstream, gateway, key) = start().await;
    let bearer = format!("Authorization: Bearer {key}");
    for origin in [
        "https://evil.example",
        "http://app.example",
        "https://app.example.evil.example",
        "null",
        "*",
        "http://localhost",
    ] {
        let origin = format!("Origin: {origin}");
        let asked = preflight(&gateway, "/mcp/open", &[&origin, "Access-Control-Request-Method: POST"]).await;
        let called = gateway.post("/mcp/open", &[&origin, &bearer], CALL).await;
        for answer in [asked, called] {
            assert_eq!(answer.status, 403, "{origin}");
            assert!(!answer.head.to_ascii_lowercase().contains("access-control-"), "{origin}: {}", answer.head);
        }
    }
    let twice = format!("Origin: {PAGE}\r\nOrigin: {PAGE}");
    assert_eq!(gateway.post("/mcp/open", &[&twice, &bearer], CALL).await.status, 403);
    let foreign = client::send(gateway.data, format!("OPTIONS /mcp/open HTTP/1.1\r\nHost: evil.example\r\nOrigin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n\r\n")).await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    let health =
        client::send(gateway.data, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n")
            .await;
    assert_eq!((health.status, health.header("access-control-allow-origin")), (200, None));
    gateway.wait_for_record("refused", |record| {
        record["reason"] == "origin_not_allowed" && record["http_method"] == "OPTIONS"
    });
    assert_eq!(gateway.metric("portcullis_cors_preflights_total").await, Some(0.0));
    assert_eq!(upstream.connections().len(), 0);
}

#[tokio::test]
async fn each_path_names_its_methods_and_other_questions_are_none() {
    let (_upstream, gateway, _key) = start().await;
    let origin = format!("Origin: {PAGE}");
    let method = "Access-Control-Request-Method: POST";
    for (path, methods) in [("/mcp/open", "POST, GET, DELETE"), ("/mcp/open/sse", "GET"), ("/mcp/open/message", "POST")]
    {
        let answer = preflight(&gateway, path, &[&origin, method]).await;
        assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some(methods)), "{path}");
    }
    let nowhere = preflight(&gateway, "/nowhere", &[&origin, method]).await;
    assert_eq!(nowhere.status, 404);
    // OPTIONS of no page, or that asks for nothing, is a method like any other.
    for lines in [&[method][..], &[&origin], &[]] {
        assert_eq!(preflight(&gateway, "/mcp/open", lines).await.status, 405, "{lines:?}");
    }
}
