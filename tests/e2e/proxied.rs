//! Behind balancers and proxies: the client's address is the true one, and nobody can make up another.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const SOON: Duration = Duration::from_secs(5);

/// The balancer, and somebody else.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 7, 0, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);

async fn start(listen: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let gateway =
        Gateway::start(&format!("{listen}\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n", upstream.url()));
    (upstream, gateway)
}

/// Sends these bytes and then a call from `address`.
async fn call_after(gateway: &Gateway, address: Ipv4Addr, bytes: &[u8], headers: &[&str]) -> Option<Answer> {
    let mut connection = Connection::open_from(address, gateway.data).await;
    connection.write([bytes, client::post("/mcp/open", headers, CALL).as_bytes()].concat()).await;
    connection.answer().await
}

/// The one record of a call since `before` records of its kind.
fn newest(gateway: &Gateway, kind: &str, before: usize) -> Value {
    gateway.wait_for_records(kind, before + 1).pop().unwrap()
}

fn v2(client: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [SIGNATURE, &[0x21, 0x11, 0, 12], &client, &[127, 0, 0, 1], &port, &[0, 80]].concat()
}

#[tokio::test]
async fn a_balancer_says_for_whom_it_speaks() {
    let (upstream, gateway) = start("proxy_protocol_from = [\"127.7.0.0/16\"]").await;
    let v4 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n";
    let v6 = b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n";
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let table: [(&[u8], Value); 5] = [
        (v4, json!(["203.0.113.9", 4711, "127.7.0.1"])),
        (v6, json!(["2001:db8::9", 4711, "127.7.0.1"])),
        (&v2([203, 0, 113, 10], 99), json!(["203.0.113.10", 99, "127.7.0.1"])),
        (b"PROXY UNKNOWN\r\n", json!(["127.7.0.1", "its own", null])),
        (&local, json!(["127.7.0.1", "its own", null])),
    ];
    for (number, (header, expected)) in table.into_iter().enumerate() {
        let answer = call_after(&gateway, BALANCER, header, &[]).await.unwrap();
        assert_eq!(answer.status, 200, "{expected}: {}", answer.text());
        let intent = newest(&gateway, "intent", number);
        let field = |name: &str| intent.get(name).cloned().unwrap_or_default();
        let port = if field("via").is_null() { json!("its own") } else { field("source_port") };
        assert_eq!(json!([field("source"), port, field("via")]), expected);
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[tokio::test]
async fn the_header_may_come_in_pieces_and_the_connection_is_kept() {
    let (_upstream, gateway) = start("proxy_protocol_from = [\"127.7.0.0/16\"]").await;
    for header in [b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec(), v2([203, 0, 113, 9], 4711)] {
        let mut connection = Connection::open_from(BALANCER, gateway.data).await;
        for piece in header.chunks(7) {
            connection.write(piece).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..2 {
            connection.write(client::post("/mcp/open", &[], CALL)).await;
            assert_eq!(connection.answer().await.unwrap().status, 200);
        }
    }
    let sources: Vec<_> = gateway.wait_for_records("intent", 4).iter().map(|intent| intent["source"].clone()).collect();
    assert_eq!(sources, vec![json!("203.0.113.9"); 4]);
}

#[tokio::test]
async fn a_header_is_required_from_balancers_and_read_from_nobody_else() {
    let (upstream, gateway) = start("proxy_protocol_from = [\"127.7.0.0/16\"]\nheader_timeout_ms = 500").await;
    let mut unused = SIGNATURE.to_vec();
    unused.extend([0x21, 0x11, 0, 12, 1, 2, 3]);
    let from_balancer: [(&str, &[u8]); 5] = [
        ("none", b""),
        ("not well-formed", b"PROXY TCP4 203.0.113.9 127.0.0.1 4711\r\n"),
        ("another protocol", b"PROXY UDP4 203.0.113.9 127.0.0.1 4711 80\r\n"),
        ("another version", &[SIGNATURE, &[0x31, 0x11, 0, 0]].concat()),
        ("twice, the second read as a request", b"PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n"),
    ];
    for (name, bytes) in from_balancer {
        let answer = call_after(&gateway, BALANCER, bytes, &[]).await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!((answer.status, answer.code()), (400, Some(-32600)), "{name}");
    }
    let mut slow = Connection::open_from(BALANCER, gateway.data).await;
    slow.write(&unused).await;
    assert_eq!(slow.answer().await.map(|answer| answer.status), Some(400), "cut short");
    for header in [b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec(), v2([203, 0, 113, 9], 4711)] {
        let answer = call_after(&gateway, STRANGER, &header, &[]).await.unwrap();
        assert_eq!(answer.status, 400, "what a stranger says is no header but a bad request");
    }
    assert_eq!(call_after(&gateway, STRANGER, b"", &[]).await.unwrap().status, 200, "and no stranger needs one");
    // A balancer's probe of the port leaves nothing.
    drop(Connection::open_from(BALANCER, gateway.data).await);

    let intent = gateway.wait_for_records("intent", 1).pop().unwrap();
    assert_eq!((&intent["source"], intent.get("via")), (&json!("127.8.0.1"), None));
    let refused = gateway.wait_for_record("refused", |record| record["reason"] == "proxy_header");
    assert_eq!((&refused["source"], &refused["status"]), (&json!("127.7.0.1"), &json!(400)));
    let series = "portcullis_refusals_total{reason=\"proxy_header\"}";
    assert_eq!(gateway.metric(series).await, Some(5.0));
    assert_eq!(upstream.requests().len(), 1);
    assert!(!gateway.records().iter().any(|record| record["source"] == "203.0.113.9"));
}

#[tokio::test]
async fn a_trusted_proxy_says_for_whom_it_speaks() {
    let (_upstream, gateway) = start("trusted_proxies = [\"127.7.0.0/16\"]").await;
    let both = "X-Forwarded-For: 1.1.1.1, 203.0.113.9";
    let table: [(Ipv4Addr, &[&str], Value); 6] = [
        (BALANCER, &[both, "X-Forwarded-Proto: https"], json!(["203.0.113.9", null, "127.7.0.1", "https"])),
        (BALANCER, &["X-Forwarded-For: 203.0.113.9:4711"], json!(["203.0.113.9", 4711, "127.7.0.1", null])),
        (BALANCER, &["X-Forwarded-For: 203.0.113.9, 127.7.0.2"], json!(["203.0.113.9", null, "127.7.0.1", null])),
        (BALANCER, &["Forwarded: for=1.1.1.1;proto=https"], json!(["127.7.0.1", 1, null, null])),
        (BALANCER, &["X-Forwarded-For: nonsense"], json!(["127.7.0.1", 1, null, null])),
        (STRANGER, &[both, "X-Forwarded-Proto: https"], json!(["127.8.0.1", 1, null, null])),
    ];
    for (number, (address, headers, expected)) in table.into_iter().enumerate() {
        assert_eq!(call_after(&gateway, address, b"", headers).await.unwrap().status, 200);
        let intent = newest(&gateway, "intent", number);
        let field = |name: &str| intent.get(name).cloned().unwrap_or_default();
        // A port of the test's own is known only by being there.
        let port =
            if expected[1] == 1 { json!(u8::from(!field("source_port").is_null())) } else { field("source_port") };
        assert_eq!(json!([field("source"), port, field("via"), field("scheme")]), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn forwarded_is_read_where_it_is_named_and_refusals_count_by_client() {
    let (_upstream, gateway) = start("trusted_proxies = [\"127.7.0.0/16\"]\nforwarded_header = \"forwarded\"").await;
    let headers = ["Forwarded: for=\"[2001:db8::9]:4711\";proto=https", "X-Forwarded-For: 1.1.1.1"];
    assert_eq!(call_after(&gateway, BALANCER, b"", &headers).await.unwrap().status, 200);
    let intent = newest(&gateway, "intent", 0);
    assert_eq!((&intent["source"], &intent["scheme"]), (&json!("2001:db8::9"), &json!("https")));
    // Two unknown callers behind one proxy are two: each has its record.
    for client in ["203.0.113.9", "198.51.100.9"] {
        let forwarded = format!("Forwarded: for={client}");
        let headers = [forwarded.as_str(), "Authorization: Bearer nonsense"];
        assert_eq!(call_after(&gateway, BALANCER, b"", &headers).await.unwrap().status, 401);
    }
    let sources: Vec<_> = gateway.wait_for_records("refused", 2).iter().map(|it| it["source"].clone()).collect();
    assert_eq!(sources, ["203.0.113.9", "198.51.100.9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_as_a_balancer_is_understood() {
    let (_upstream, gateway) = start("proxy_protocol_from = [\"127.0.0.1\"]").await;
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--haproxy-protocol", "-H", "Content-Type: application/json"]);
    command.args(["-H", "Accept: application/json, text/event-stream", "-d", CALL]);
    let output = command.arg(format!("http://{}/mcp/open", gateway.data)).output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"result\""), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let intent = newest(&gateway, "intent", 0);
    assert_eq!((&intent["source"], &intent["via"]), (&json!("127.0.0.1"), &json!("127.0.0.1")));
    // Without it the balancer is told, and the connection ends.
    let mut silent = Connection::open(gateway.data).await;
    silent.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(silent.answer().await.unwrap().status, 400);
    assert!(silent.is_closed_within(SOON).await);
}

#[tokio::test]
async fn limits_per_address_hold_for_the_client_that_a_balancer_names() {
    let listen = "proxy_protocol_from = [\"127.7.0.0/16\"]\ntrusted_proxies = [\"127.9.0.0/16\"]\nconnections_per_address_max = 2\n";
    let (_upstream, gateway) = start(listen).await;
    let of_client =
        |client: u8| [v2([203, 0, 113, client], 4711), client::post("/mcp/open", &[], CALL).into()].concat();
    let mut held = Vec::new();
    for (client, status) in [(9, 200), (9, 200), (9, 429), (10, 200), (10, 200), (10, 429), (11, 200)] {
        let mut connection = Connection::open_from(BALANCER, gateway.data).await;
        connection.write(of_client(client)).await;
        assert_eq!(connection.answer().await.unwrap().status, status, "client {client}");
        held.push(connection);
    }
    // A proxy that is trusted brings many clients on its connections, and is not counted.
    for _ in 0..4 {
        let mut connection = Connection::open_from(Ipv4Addr::new(127, 9, 0, 1), gateway.data).await;
        connection.write(client::post("/mcp/open", &[], CALL)).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
        held.push(connection);
    }
}
