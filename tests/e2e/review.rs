//! What an attacker of the first version found, held shut.

use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::client;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

async fn start(listen: &str) -> (Upstream, Gateway, Key) {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&format!(
        "{listen}\n[servers.a]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
        upstream.url(),
        key.digest
    ));
    (upstream, gateway, key)
}

fn call(key: &Key, id: usize) -> String {
    let body =
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "echo", "arguments": {} } });
    client::post("/mcp/a", &[&format!("Authorization: Bearer {}", key.key)], &body.to_string())
}

#[tokio::test]
async fn clients_that_read_nothing_do_not_keep_others_out() {
    let (_upstream, gateway, _key) =
        start("connections_max = 4\nwrite_timeout_ms = 500\nkeepalive_timeout_ms = 2000").await;
    let flood = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20_000);
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.data).await;
        // What does not fit into the sockets stays unsent: nobody reads on either side.
        let _ = tokio::time::timeout(Duration::from_millis(500), connection.write(&flood)).await;
        stuck.push(connection);
    }
    let started = Instant::now();
    while client::send(gateway.data, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(10), "stuck clients hold every connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn streams_to_clients_that_read_nothing_end_and_are_on_record() {
    let (upstream, gateway, key) = start("write_timeout_ms = 500").await;
    upstream.on("tools/call", Reply::sse(vec![Event::progress(1), Event::result(json!({ "content": [] }))]));
    let mut connection = Connection::open(gateway.data).await;
    let calls: String = (0..4_000).map(|id| call(&key, id)).collect();
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.write(&calls)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gateway.metric("portcullis_streams").await, Some(0.0));
    let records = gateway.records();
    let count = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!(count("intent"), count("result"));
}

#[tokio::test]
async fn a_key_sent_as_a_path_is_not_on_record() {
    let (_upstream, gateway, key) = start("").await;
    let authorization = format!("Authorization: Bearer {}", key.key);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(gateway.post(&format!("/mcp/{}", key.key), &[&authorization], ping).await.status, 404);
    let record = gateway.wait_for_record("refused", |record| record["reason"] == "server_unknown").to_string();
    assert!(!record.contains(&key.key[13..]), "{record}");
}

#[tokio::test]
async fn nothing_in_an_event_reaches_a_client_that_was_not_screened() {
    let (upstream, gateway, key) = start("").await;
    let forged = r#"data: {"jsonrpc":"2.0","id":7,"result":{"forged":true}}"#;
    let events = vec![
        Event::raw(&format!(": http://10.1.2.3:99 \u{2028}{forged}\u{2028}\u{2028}\n\n")),
        Event::raw(&format!("x: y\u{2028}{forged}\u{2028}\u{2028}\nid: 1\n\n")),
        Event::raw(&format!("id: x\u{85}{forged}\u{85}\u{85}\n\n")),
        Event::result(json!({ "content": [{ "type": "text", "text": "a\u{2028}\u{2028}b" }] })),
    ];
    upstream.on("tools/call", Reply::sse(events));
    let answer = client::send(gateway.data, call(&key, 7)).await;
    let text = answer.text();
    assert!(!text.contains("forged") && !text.contains("10.1.2.3") && !text.contains(['\u{2028}', '\u{85}']), "{text}");
    assert!(text.contains(":\n") && text.contains("id: "), "{text}");
    assert_eq!(answer.events().last().unwrap()["result"]["content"][0]["text"], "a\u{2028}\u{2028}b");
}

#[tokio::test]
async fn a_header_that_repeats_an_argument_stands_there_once_and_is_never_a_key() {
    let (upstream, gateway, key) = start("").await;
    let authorization = format!("Authorization: Bearer {}", key.key);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut headers = client::modern("tools/call", Some("echo"));
    headers.push(authorization);
    headers.push("Mcp-Param-Region: eu".into());
    let headers_of = |headers: &[String]| -> Vec<String> { headers.to_vec() };
    upstream.on("tools/call", Reply::json(json!({ "resultType": "complete", "content": [] })));
    let once = headers_of(&headers);
    assert_eq!(gateway.post("/mcp/a", &once.iter().map(String::as_str).collect::<Vec<_>>(), body).await.status, 200);
    headers.push("Mcp-Param-Region: us".into());
    let answer = gateway.post("/mcp/a", &headers.iter().map(String::as_str).collect::<Vec<_>>(), body).await;
    assert_eq!((answer.status, answer.code()), (400, Some(-32020)));
    assert_eq!(upstream.requests_for("tools/call").len(), 1);
}

#[tokio::test]
async fn bytes_sent_ahead_do_not_keep_a_cancelled_call_alive() {
    let (upstream, gateway, key) = start("").await;
    upstream.on("tools/call", Reply::never());
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut headers = client::modern("tools/call", Some("echo"));
    headers.push(format!("Authorization: Bearer {}", key.key));
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let mut connection = Connection::open(gateway.data).await;
    connection.write(client::post("/mcp/a", &headers, body)).await;
    let asked = upstream.wait_for("tools/call", 1).await;
    connection.write("x".repeat(100_000)).await;
    drop(connection);
    let left = Clock::start();
    upstream.wait_closed(asked[0].connection).await;
    assert!(left.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_whose_connection_broke_is_noticed_in_the_older_revisions_too() {
    let (upstream, gateway, key) = start("").await;
    upstream.on("tools/call", Reply::never());
    let connection = std::net::TcpStream::connect(gateway.data).unwrap();
    std::io::Write::write_all(&mut &connection, call(&key, 1).as_bytes()).unwrap();
    let asked = upstream.wait_for("tools/call", 1).await;
    // Without lingering, closing resets.
    let socket = tokio::net::TcpSocket::from_std_stream(connection);
    socket.set_zero_linger().unwrap();
    drop(socket);
    let left = Clock::start();
    upstream.wait_closed(asked[0].connection).await;
    assert!(left.elapsed() < Duration::from_secs(1));
    gateway.wait_for_record("result", |record| record["outcome"] == "client_gone");
}

#[tokio::test]
async fn an_error_under_another_id_is_no_answer() {
    let (upstream, gateway, key) = start("").await;
    let errors = [
        (json!({ "jsonrpc": "2.0", "id": 999, "error": { "code": -1, "message": "x" } }), 502, -32603),
        (json!({ "id": 1, "error": { "code": -1, "message": "x" } }), 502, -32603),
        (json!({ "jsonrpc": "2.0", "id": 1, "result": {}, "error": { "code": -1, "message": "x" } }), 502, -32603),
        (json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -1, "message": "x" } }), 400, -1),
        (json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -1, "message": "x" } }), 400, -1),
    ];
    for (error, status, code) in errors {
        upstream
            .on("tools/call", Reply::message(error.clone()).status_code(400).header("Retry-After", "http://10.1.2.3/"));
        let answer = client::send(gateway.data, call(&key, 1)).await;
        assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (status, Some(code), None), "{error}");
        assert_eq!(answer.json()["id"], 1);
    }
}

#[tokio::test]
async fn nobody_but_the_gateway_answers() {
    let (_upstream, gateway, _key) = start("").await;
    for head in [
        "CONNECT /x HTTP/1.1\r\nHost: localhost",
        "GET /<> HTTP/1.1\r\nHost: localhost",
        "GET /a`b HTTP/1.1\r\nHost: localhost",
        "GET / HTTP/1.1\r\nHost: a@b",
    ] {
        let answer = client::send(gateway.data, format!("{head}\r\n\r\n")).await;
        assert_eq!((answer.header("server"), answer.code()), (None, Some(-32600)), "{head}: {}", answer.head);
    }
}
