//! Raw HTTP against the edge: what two parsers could read differently, what is too large, too slow, or asked of nobody.
//!
//! Every refused vector comes from an address in a network of its own, so that each must leave exactly one record.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use std::net::Ipv4Addr;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const USUAL: &str =
    "Host: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
/// Follows every hostile request: taken for a request of its own, it would be answered.
const MARKER: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

/// A server open to everybody behind a gateway with these keys in `[listen]`.
async fn start_with(listen: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let gateway =
        Gateway::start(&format!("{listen}\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n", upstream.url()));
    (upstream, gateway)
}

/// A POST to the open server: the usual lines, these ones, and whatever follows the head.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    post_to("/mcp/open", lines, rest)
}

fn post_to(target: &str, lines: &str, rest: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\n{USUAL}{lines}\r\n{rest}").into_bytes()
}

/// The whole call with an exact length and these lines beside it.
fn call_with(lines: &str) -> Vec<u8> {
    post(&format!("{lines}Content-Length: {}\r\n", CALL.len()), CALL)
}

/// The call in chunks that are written like this.
fn chunked(chunks: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", chunks)
}

/// The call as one well-formed chunk.
fn one_chunk() -> String {
    format!("{:x}\r\n{CALL}\r\n0\r\n\r\n", CALL.len())
}

/// A hostile request, and what becomes of it.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
}

fn vector(name: impl Into<String>, bytes: impl Into<Vec<u8>>, status: u16, reason: &'static str) -> Vector {
    Vector { name: name.into(), bytes: bytes.into(), status, reason }
}

/// A well-formed call that can be told from all others.
fn marker_call(number: usize) -> String {
    client::post("/mcp/open", &[], &CALL.replace(r#""id":1"#, &format!(r#""id":{}"#, 9_000_000 + number)))
}

/// Whether an answer is the one to this marker and to nothing else.
#[track_caller]
fn assert_answers_marker(answer: Option<Answer>, number: usize, name: &str) {
    let answer = answer.unwrap_or_else(|| panic!("{name}: the marker was not answered"));
    assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(9_000_000 + number)), "{name}");
}

/// Sends a marker behind what was answered, on the same connection if that is kept, or else on a new one.
async fn follow_with_marker(gateway: &Gateway, connection: &mut Connection, number: usize, name: &str) {
    connection.write(marker_call(number)).await;
    if let Some(answer) = connection.answer().await {
        return assert_answers_marker(Some(answer), number, name);
    }
    let mut other = Connection::open(gateway.data).await;
    other.write(marker_call(number)).await;
    assert_answers_marker(other.answer().await, number, name);
}

/// Whether nothing but these markers reached the server.
#[track_caller]
fn assert_only_markers(upstream: &Upstream, count: usize) {
    let ids: Vec<Value> = upstream.requests().iter().map(|request| request.json()["id"].clone()).collect();
    assert_eq!(ids, (0..count).map(|number| json!(9_000_000 + number)).collect::<Vec<_>>());
    assert_nothing_beside(upstream);
}

/// Sends each vector on a connection of its own; holds it to one answer in JSON-RPC, the end of the connection, and one
/// record. A call from somebody else follows each of them, and gets its own answer; of everything that was sent, only
/// these calls reach the server, each as one well-formed request and with nothing beside them.
async fn all_refused(vectors: Vec<Vector>) {
    let (upstream, mut gateway) = start_with("").await;
    for (number, vector) in vectors.iter().enumerate() {
        let mut connection = Connection::open_from(client::source(number), gateway.data).await;
        connection.write(&vector.bytes).await;
        connection.write(MARKER).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("{}: no answer", vector.name));
        assert_eq!((answer.status, answer.code()), (vector.status, Some(-32600)), "{}: {}", vector.name, answer.text());
        assert_is_error(&answer, &vector.name);
        let rest = connection.remainder(SOON).await;
        assert_eq!(rest.as_deref(), Some(&b""[..]), "{}: nothing follows but the end of the connection", vector.name);
        let mut other = Connection::open(gateway.data).await;
        other.write(marker_call(number)).await;
        assert_answers_marker(other.answer().await, number, &vector.name);
    }
    let records = gateway.wait_for_records("refused", vectors.len());
    for (number, vector) in vectors.iter().enumerate() {
        let own: Vec<&Value> = from(&records, client::source(number));
        assert_eq!(own.len(), 1, "{}: {own:#?}", vector.name);
        assert_eq!(
            (&own[0]["reason"], &own[0]["status"]),
            (&json!(vector.reason), &json!(vector.status)),
            "{}",
            vector.name
        );
    }
    assert_only_markers(&upstream, vectors.len());
    let requests = upstream.requests();
    assert!(requests.iter().all(|request| request.head == requests[0].head), "one form");
    assert!(gateway.is_alive());
}

/// Every byte that the server received belongs to a request that it recorded.
#[track_caller]
fn assert_nothing_beside(upstream: &Upstream) {
    let of_requests: usize = upstream.requests().iter().map(|request| request.raw.len()).sum();
    let received: usize = upstream.connections().iter().map(|connection| connection.bytes.len()).sum();
    assert_eq!(received, of_requests);
}

fn from(records: &[Value], source: Ipv4Addr) -> Vec<&Value> {
    records.iter().filter(|record| record["source"] == source.to_string()).collect()
}

/// A JSON-RPC error with no id, which says of its own length that it is whole.
#[track_caller]
fn assert_is_error(answer: &Answer, name: &str) {
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], body.get("id")), (&json!("2.0"), None), "{name}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
    assert_eq!((answer.header("content-type"), answer.complete), (Some("application/json"), true), "{name}");
}

#[tokio::test]
async fn a_request_with_two_lengths_is_refused() {
    all_refused(two_lengths()).await;
}

fn two_lengths() -> Vec<Vector> {
    let length = CALL.len();
    let both = |first: &str, second: &str| post(&format!("{first}\r\n{second}\r\n"), &one_chunk());
    let mut vectors = vec![
        vector(
            "length, then chunks",
            both("Content-Length: 5", "Transfer-Encoding: chunked"),
            400,
            "head_length_and_transfer",
        ),
        vector(
            "chunks, then length",
            both("Transfer-Encoding: chunked", "Content-Length: 5"),
            400,
            "head_length_and_transfer",
        ),
        vector(
            "length zero and chunks",
            both("Content-Length: 0", "Transfer-Encoding: chunked"),
            400,
            "head_length_and_transfer",
        ),
        vector(
            "the same length twice",
            call_with(&format!("Content-Length: {length}\r\n")),
            400,
            "head_content_length",
        ),
        vector("two different lengths", call_with("Content-Length: 0\r\n"), 400, "head_content_length"),
        vector("two lengths, other case", call_with("content-LENGTH: 5\r\n"), 400, "head_content_length"),
        vector("an underscored twin", call_with("Content_Length: 5\r\n"), 400, "head_name"),
        vector("an underscored transfer coding", call_with("Transfer_Encoding: chunked\r\n"), 400, "head_name"),
    ];
    for value in [
        "2, 2",
        "2,2",
        "+2",
        "-1",
        "-0",
        "0x2",
        "2.0",
        "2e1",
        "1 2",
        "2;",
        "\"2\"",
        "",
        "two",
        "٢",
        "2\u{a0}",
        "0b1",
        "2_0",
        ",2",
        "2,",
        "0o17",
        "5 5",
        "5\t5",
        "5,",
        "5;q=1",
        "(5)",
        "5%",
        "\u{ff15}",
        "0000000000000000005",
        "99999999999999999999",
        "18446744073709551616",
        "9223372036854775808",
        "4294967296000000000",
    ] {
        let bytes = post(&format!("Content-Length: {value}\r\n"), "{}");
        vectors.push(vector(format!("length {value:?}"), bytes, 400, "head_content_length"));
    }
    vectors
}

#[tokio::test]
async fn a_transfer_coding_other_than_exactly_chunked_is_refused() {
    all_refused(transfer_codings()).await;
}

fn transfer_codings() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for value in [
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "gzip",
        "xchunked",
        "chunkedx",
        "identity",
        "",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\u{a0}",
        "\u{a0}chunked",
        "chun ked",
        "identity, chunked",
        "chunked ,",
        "chunked identity",
        "chunked\tgzip",
        "'chunked'",
        "chunked;",
        "trailers, chunked",
        "chunked\u{200b}",
        "c\u{212a}unked",
        "deflate",
    ] {
        let bytes = post(&format!("Transfer-Encoding: {value}\r\n"), &one_chunk());
        vectors.push(vector(format!("coding {value:?}"), bytes, 400, "head_transfer_encoding"));
    }
    for second in ["chunked", "gzip", "identity", ""] {
        let lines = format!("Transfer-Encoding: chunked\r\ntransfer-encoding: {second}\r\n");
        vectors.push(vector(
            format!("chunked, then {second:?}"),
            post(&lines, &one_chunk()),
            400,
            "head_transfer_encoding",
        ));
    }
    vectors
}

#[tokio::test]
async fn an_odd_byte_in_a_header_line_is_refused_wherever_it_stands() {
    all_refused(odd_bytes()).await;
}

fn odd_bytes() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let headers = [
        ("Content-Length", CALL.len().to_string(), CALL.to_owned()),
        ("Transfer-Encoding", "chunked".into(), one_chunk()),
    ];
    for (name, value, body) in &headers {
        for odd in ["\0", "\x01", "\x08", "\x0b", "\x0c", "\x1b", "\x1f", "\x7f"] {
            for line in [
                format!("{odd}{name}: {value}"),
                format!("{name}{odd}: {value}"),
                format!("{name}:{odd}{value}"),
                format!("{name}: {odd}{value}"),
                format!("{name}: {value}{odd}"),
                format!("{name}: {value} {odd}"),
            ] {
                let reason = if line.split(':').next().is_some_and(|name| name.contains(odd)) {
                    "head_name"
                } else {
                    "head_value"
                };
                vectors.push(vector(format!("{line:?}"), post(&format!("{line}\r\n"), body), 400, reason));
            }
        }
        for (line, reason) in [
            (format!("{name} : {value}"), "head_name"),
            (format!("{name}\t: {value}"), "head_name"),
            (format!(" {name}: {value}"), "head_folded"),
            (format!("\t{name}: {value}"), "head_folded"),
            (format!("X-A: b\r\n {name}: {value}"), "head_folded"),
            (
                format!("{name}:\r\n {value}"),
                if *name == "Content-Length" { "head_content_length" } else { "head_transfer_encoding" },
            ),
            (format!("{name}\r\n: {value}"), "head_name"),
            (format!("{name}; {value}"), "head_name"),
            ((*name).to_owned(), "head_name"),
            (format!("({name}): {value}"), "head_name"),
            (format!("{name}\u{e9}: {value}"), "head_name"),
            (format!(": {name}: {value}"), "head_name"),
        ] {
            vectors.push(vector(format!("{line:?}"), post(&format!("{line}\r\n"), body), 400, reason));
        }
        for line in [
            format!("X-A: b\n{name}: {value}\r"),
            format!("X-A: b\r{name}: {value}"),
            format!("X-A: b\r\r\n{name}: {value}"),
            format!("{name}: {value}\r"),
            format!("X-A: \r{value}"),
        ] {
            vectors.push(vector(format!("{line:?}"), post(&format!("{line}\r\n"), body), 400, "head_line_end"));
        }
    }
    vectors
}

#[tokio::test]
async fn a_request_line_has_one_form() {
    all_refused(request_lines()).await;
}

fn request_lines() -> Vec<Vector> {
    let length = format!("Content-Length: {}\r\n", CALL.len());
    let line = |line: &str| format!("{line}\r\n{USUAL}{length}\r\n{CALL}");
    let mut vectors = Vec::new();
    for (start, reason) in [
        ("POST /mcp/open HTTP/1.0", "head_version"),
        ("POST /mcp/open HTTP/1.2", "head_version"),
        ("POST /mcp/open HTTP/0.9", "head_version"),
        ("POST /mcp/open HTTP/2.0", "head_version"),
        ("POST /mcp/open HTTP/1.1 ", "head_request_line"),
        ("POST /mcp/open http/1.1", "head_request_line"),
        ("POST /mcp/open HTTP1.1", "head_request_line"),
        ("POST /mcp/open", "head_request_line"),
        ("POST", "head_request_line"),
        ("", "head_request_line"),
        ("POST /mcp/op en HTTP/1.1", "head_request_line"),
        ("POST  /mcp/open HTTP/1.1", "head_request_line"),
        ("POST /mcp/open  HTTP/1.1", "head_request_line"),
        (" POST /mcp/open HTTP/1.1", "head_request_line"),
        ("POST\t/mcp/open\tHTTP/1.1", "head_request_line"),
        ("POST /mcp/open\x0b HTTP/1.1", "head_request_line"),
        ("POST /mcp/open\0 HTTP/1.1", "head_request_line"),
        ("POST /mcp/open\u{a0} HTTP/1.1", "head_request_line"),
        ("POST /mcp/op\u{e9}n HTTP/1.1", "head_request_line"),
        ("POST /mcp/open#x HTTP/1.1", "head_request_line"),
        ("POST /mcp\\open HTTP/1.1", "head_request_line"),
        ("POST /mcp/open?a=<b> HTTP/1.1", "head_request_line"),
        ("POST /mcp/open?a=\"b\" HTTP/1.1", "head_request_line"),
        ("POST /mcp/op`en HTTP/1.1", "head_request_line"),
        ("POST /mcp/{server} HTTP/1.1", "head_request_line"),
        ("POST mcp/open HTTP/1.1", "head_request_line"),
        ("POST http://localhost/mcp/open HTTP/1.1", "head_request_line"),
        ("POST http://elsewhere.example/mcp/open HTTP/1.1", "head_request_line"),
        ("CONNECT localhost:80 HTTP/1.1", "head_request_line"),
        ("OPTIONS * HTTP/1.1", "head_request_line"),
        ("post /mcp/open HTTP/1.1", "head_request_line"),
        ("P\0ST /mcp/open HTTP/1.1", "head_request_line"),
        ("PO(ST /mcp/open HTTP/1.1", "head_request_line"),
        ("PRI * HTTP/2.0", "head_version"),
    ] {
        vectors.push(vector(format!("{start:?}"), line(start), 400, reason));
    }
    vectors.push(vector("HTTP/0.9", "GET /mcp/open\r\n\r\n", 400, "head_request_line"));
    vectors.push(vector(
        "chunks in HTTP/1.0",
        format!("POST /mcp/open HTTP/1.0\r\n{USUAL}Transfer-Encoding: chunked\r\n\r\n{}", one_chunk()),
        400,
        "head_version",
    ));
    vectors.push(vector("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "head_version"));
    vectors.push(vector(
        "a bare line feed after the request line",
        line("POST /mcp/open HTTP/1.1\nX-A: b"),
        400,
        "head_line_end",
    ));
    vectors.push(vector(
        "bare line feeds throughout",
        line("POST /mcp/open HTTP/1.1").replace("\r\n", "\n"),
        400,
        "head_line_end",
    ));
    vectors.push(vector("an empty line first", line("\r\nPOST /mcp/open HTTP/1.1"), 400, "head_request_line"));
    vectors.push(vector(
        "TLS",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(),
        400,
        "head_request_line",
    ));
    vectors
}

#[tokio::test]
async fn a_head_says_once_which_host_it_is_for_and_nothing_that_changes_the_protocol() {
    all_refused(hosts_and_protocols()).await;
}

fn hosts_and_protocols() -> Vec<Vector> {
    let length = format!("Content-Length: {}\r\n", CALL.len());
    let lines =
        |lines: &str| format!("POST /mcp/open HTTP/1.1\r\nContent-Type: application/json\r\n{lines}{length}\r\n{CALL}");
    let bodied = |method: &str, framing: &str| format!("{method} /mcp/open HTTP/1.1\r\n{USUAL}{framing}\r\n\r\n");
    vec![
        vector("no host", lines(""), 400, "head_host"),
        vector("an empty host", lines("Host:\r\n"), 400, "head_host"),
        vector("a host with a user", lines("Host: localhost@elsewhere.example\r\n"), 400, "head_host"),
        vector("a list of hosts", lines("Host: localhost, elsewhere.example\r\n"), 400, "head_host"),
        vector("two hosts", lines("Host: localhost\r\nHost: localhost\r\n"), 400, "head_host"),
        vector("two different hosts", lines("Host: localhost\r\nhost: elsewhere.example\r\n"), 400, "head_host"),
        vector(
            "an upgrade to websocket",
            call_with("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            400,
            "head_upgrade",
        ),
        vector("an upgrade to TLS", call_with("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), 400, "head_upgrade"),
        vector("another expectation", call_with("Expect: 200-ok\r\n"), 417, "head_expect"),
        vector("two expectations", call_with("Expect: 100-continue, x\r\n"), 417, "head_expect"),
        vector("GET with a body", bodied("GET", "Content-Length: 5"), 400, "head_unexpected_body"),
        vector("GET with chunks", bodied("GET", "Transfer-Encoding: chunked"), 400, "head_unexpected_body"),
        vector("HEAD with a body", bodied("HEAD", "Content-Length: 5"), 400, "head_unexpected_body"),
        vector("DELETE with a body", bodied("DELETE", "Content-Length: 5"), 400, "head_unexpected_body"),
        vector("HEAD with chunks", bodied("HEAD", "Transfer-Encoding: chunked"), 400, "head_unexpected_body"),
        vector("DELETE with chunks", bodied("DELETE", "Transfer-Encoding: chunked"), 400, "head_unexpected_body"),
        vector("GET with a length in hex", bodied("GET", "Content-Length: 0x0"), 400, "head_content_length"),
        vector(
            "GET with two lengths of nothing",
            bodied("GET", "Content-Length: 0\r\nContent-Length: 0"),
            400,
            "head_content_length",
        ),
        vector("a host with a path", lines("Host: localhost/mcp\r\n"), 400, "head_host"),
        vector("a host with a query", lines("Host: localhost?x\r\n"), 400, "head_host"),
        vector("a host with a fragment", lines("Host: localhost#x\r\n"), 400, "head_host"),
        vector("a host with a space", lines("Host: local host\r\n"), 400, "head_host"),
        vector("a host with an escape", lines("Host: localhost%00\r\n"), 400, "head_host"),
        vector("a host of another script", lines("Host: loc\u{430}lhost\r\n"), 400, "head_host"),
        vector("a host and an underscored twin", lines("Host: localhost\r\nX_Forwarded_Host: x\r\n"), 400, "head_name"),
        vector(
            "an upgrade with a request behind it",
            format!(
                "GET /mcp/open HTTP/1.1\r\n{USUAL}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{}",
                marker_call(1)
            ),
            400,
            "head_upgrade",
        ),
        vector(
            "an upgrade to one of two protocols",
            call_with("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"),
            400,
            "head_upgrade",
        ),
        vector(
            "two upgrades",
            call_with("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"),
            400,
            "head_upgrade",
        ),
        vector("an empty upgrade", call_with("Connection: Upgrade\r\nUpgrade:\r\n"), 400, "head_upgrade"),
        vector("an empty expectation", call_with("Expect:\r\n"), 417, "head_expect"),
    ]
}

#[tokio::test]
async fn a_line_ends_in_one_way() {
    all_refused(line_ends()).await;
}

/// Lines that end otherwise than in CR LF, wherever in the head, and lines that begin where another parser may see the
/// end of the head.
fn line_ends() -> Vec<Vector> {
    let length = format!("Content-Length: {}", CALL.len());
    let start = format!("POST /mcp/open HTTP/1.1\r\n{}", USUAL);
    let head = |head: &str| format!("{start}{head}{CALL}");
    let mut vectors = Vec::new();
    for (name, lines, reason) in [
        ("LF before the last line", format!("{length}\n\r\n"), "head_line_end"),
        ("LF LF at the end", format!("{length}\n\n"), "head_line_end"),
        ("CR LF LF at the end", format!("{length}\r\n\n"), "head_line_end"),
        ("LF CR at the end", format!("{length}\n\r{CALL}\r\n\r\n"), "head_line_end"),
        ("CR CR LF at the end", format!("{length}\r\r\n\r\n"), "head_line_end"),
        ("CR CR LF as the last line", format!("{length}\r\n\r\r\n\r\n"), "head_line_end"),
        ("LF between two lines", format!("X-A: b\n{length}\r\n\r\n"), "head_line_end"),
        ("LF behind a name", format!("X-A:\n{length}\r\n\r\n"), "head_line_end"),
        ("LF in a name", format!("X-\nA: b\r\n{length}\r\n\r\n"), "head_line_end"),
        ("LF before a fold", format!("X-A: b\n c\r\n{length}\r\n\r\n"), "head_line_end"),
        ("CR between two lines", format!("X-A: b\r{length}\r\n\r\n"), "head_line_end"),
        ("CR before a name", format!("\r{length}\r\n\r\n"), "head_line_end"),
        ("an empty line made of a space", format!("{length}\r\n \r\n\r\n"), "head_folded"),
        ("an empty line made of a tab", format!("{length}\r\n\t\r\n\r\n"), "head_folded"),
        ("a line of nothing but a colon", format!("{length}\r\n:\r\n\r\n"), "head_name"),
        ("an empty name that ends a list elsewhere", format!(": x\r\n{length}\r\n\r\n"), "head_name"),
        ("U+2028 for a line end", format!("X-A\u{2028}{length}\r\n\r\n"), "head_name"),
        ("U+0085 in a name", format!("X\u{85}A: b\r\n{length}\r\n\r\n"), "head_name"),
        ("a fold of a transfer coding", "Transfer-Encoding:\r\n chunked\r\n\r\n".to_owned(), "head_transfer_encoding"),
        ("a fold within a length", "Content-Length: 1\r\n 0\r\n\r\n".to_owned(), "head_folded"),
    ] {
        vectors.push(vector(name, head(&lines), 400, reason));
    }
    vectors
}

/// A row for each of these bodies, as a table of names and chunks.
fn chunk_vectors(rows: &[(&str, String)]) -> Vec<Vector> {
    rows.iter().map(|(name, chunks)| vector(*name, chunked(chunks), 400, "body_broken")).collect()
}

#[tokio::test]
async fn malformed_chunks_are_refused_before_anything_goes_upstream() {
    all_refused(malformed_chunks()).await;
}

fn malformed_chunks() -> Vec<Vector> {
    let size = format!("{:x}", CALL.len());
    let rest = format!("{CALL}\r\n0\r\n\r\n");
    chunk_vectors(&[
        ("a size line that ends in LF", format!("{size}\n{rest}")),
        ("a size line that ends in CR", format!("{size}\r{rest}")),
        ("a size with 0x", format!("0x{size}\r\n{rest}")),
        ("a size of 17 digits", format!("{size:0>17}\r\n{rest}")),
        ("a size beyond 64 bits", format!("1{}\r\n{rest}", "0".repeat(16))),
        ("the largest size of 64 bits", format!("{}\r\n{rest}", "f".repeat(16))),
        ("a size with a sign", format!("+{size}\r\n{rest}")),
        ("a negative size", format!("-{size}\r\n{rest}")),
        ("a size that is no number", format!("zz\r\n{rest}")),
        ("a size with something behind", format!("{size}x\r\n{rest}")),
        ("a size with a word behind", format!("{size} x\r\n{rest}")),
        ("white space before the size", format!(" {size}\r\n{rest}")),
        ("a vertical tab behind the size", format!("{size}\x0b\r\n{rest}")),
        ("an underscore in the size", format!("0_{size}\r\n{rest}")),
        ("a chunk that is longer than its size", format!("2\r\n{rest}")),
        ("data that ends in LF", format!("{size}\r\n{CALL}\n0\r\n\r\n")),
        ("data that ends in nothing", format!("{size}\r\n{CALL}0\r\n\r\n")),
        ("data that ends in CR CR", format!("{size}\r\n{CALL}\r\r0\r\n\r\n")),
        ("data that ends in other bytes", format!("{size}\r\n{CALL}xx0\r\n\r\n")),
        ("a last chunk that ends in LF", format!("{size}\r\n{CALL}\r\n0\n\n")),
        ("an end that is a bare LF", format!("{size}\r\n{CALL}\r\n0\r\n\n")),
        ("a trailer that ends in LF", format!("{size}\r\n{CALL}\r\n0\r\nX: y\n\r\n")),
        ("a bare CR in an extension", format!("{size};a=\rb\r\n{rest}")),
        ("an extension of 100 kB", format!("{size};{}\r\n{rest}", "a".repeat(100_000))),
        ("a trailer of 100 kB", format!("{size}\r\n{CALL}\r\n0\r\nX: {}\r\n\r\n", "a".repeat(100_000))),
    ])
}

#[tokio::test]
async fn chunks_that_another_parser_would_end_elsewhere_are_refused() {
    all_refused(differing_chunks()).await;
}

fn differing_chunks() -> Vec<Vector> {
    let size = format!("{:x}", CALL.len());
    let rest = format!("{CALL}\r\n0\r\n\r\n");
    chunk_vectors(&[
        ("a bare LF in an extension", format!("{size};a=\n\r\n{rest}")),
        ("a bare LF that hides a size line", format!("{size};\n{size}\r\n{rest}")),
        ("a NUL in an extension", format!("{size};a=\0\r\n{rest}")),
        ("an empty size", format!("\r\n{rest}")),
        ("an empty size at the end", format!("{size}\r\n{CALL}\r\n\r\n\r\n")),
        ("white space behind the size", format!("{size} \r\n{rest}")),
        ("a tab behind the size", format!("{size}\t\r\n{rest}")),
        ("a trailer that is no header", format!("{size}\r\n{CALL}\r\n0\r\nGET /mcp/open HTTP/1.1\r\n\r\n")),
        ("a trailer that is folded", format!("{size}\r\n{CALL}\r\n0\r\nX: y\r\n z\r\n\r\n")),
        ("a trailer with a space before its colon", format!("{size}\r\n{CALL}\r\n0\r\nX : y\r\n\r\n")),
        ("a trailer with an underscore", format!("{size}\r\n{CALL}\r\n0\r\nContent_Length: 5\r\n\r\n")),
        ("a trailer with a NUL", format!("{size}\r\n{CALL}\r\n0\r\nX: \0\r\n\r\n")),
        ("an extension before the size", format!(";a=b{size}\r\n{rest}")),
        ("an extension of another script", format!("{size};\u{e9}\r\n{rest}")),
        ("a space before an extension", format!("{size} ;a=b\r\n{rest}")),
        ("a size in full-width digits", format!("\u{ff11}\r\n{rest}")),
        ("a size line that is empty and bare", format!("\n{rest}")),
        ("CR CR LF behind the size", format!("{size}\r\r\n{rest}")),
        ("LF CR behind the size", format!("{size}\n\r{rest}")),
        ("endless trailers", format!("{size}\r\n{CALL}\r\n0\r\n{}\r\n", "X: y\r\n".repeat(10_000))),
    ])
}

#[tokio::test]
async fn each_size_limit_of_the_head_is_met_at_its_number() {
    let headers = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let long = |bytes: usize| format!("X-A: {}\r\n", "a".repeat(bytes - "X-A: ".len()));
    // Beside these lines there are four: host, two media types and the length.
    let block = |bytes: usize| {
        let rest = bytes - call_with("").len() + CALL.len();
        let (first, second) = (rest / 2, rest - rest / 2);
        format!("{}{}", long(first - 2), long(second - 2))
    };
    let target = |bytes: usize| {
        let query = "q".repeat(bytes - "/mcp/open?".len());
        post_to(&format!("/mcp/open?{query}"), &format!("Content-Length: {}\r\n", CALL.len()), CALL)
    };
    let (upstream, gateway) = start_with("").await;
    for (name, bytes) in [
        ("64 lines", call_with(&headers(60))),
        ("a line of 8 KiB", call_with(&long(8192))),
        ("a block of 16 KiB", call_with(&block(16_384))),
        ("a target of 4 KiB", target(4096)),
    ] {
        assert_eq!(client::send(gateway.data, &bytes).await.status, 200, "{name}");
    }
    assert_eq!(upstream.requests().len(), 4);
    all_refused(vec![
        vector("65 lines", call_with(&headers(61)), 431, "head_too_large"),
        vector("257 lines", call_with(&headers(253)), 431, "head_too_large"),
        vector("a line of 8 KiB and one", call_with(&long(8193)), 431, "head_too_large"),
        vector("a block of 16 KiB and one", call_with(&block(16_385)), 431, "head_too_large"),
        vector("a block of 200 KiB", call_with(&headers(60).replace('y', &"y".repeat(3400))), 431, "head_too_large"),
        vector("a line of 900 KB", call_with(&long(900_000)), 431, "head_too_large"),
        vector("a target of 4 KiB and one", target(4097), 414, "head_target_long"),
        vector("a target of 8 KiB", target(8192), 414, "head_target_long"),
        vector("a target longer than the block", target(20_000), 431, "head_too_large"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_taken_goes_upstream_in_one_form() {
    let (upstream, gateway) = start_with("").await;
    let length = CALL.len();
    let half = length / 2;
    let split = format!("{half:X}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &CALL[..half], length - half, &CALL[half..]);
    let vectors = [
        ("plain", call_with("")),
        ("a length with zeros in front", post(&format!("Content-Length: 000{length}\r\n"), CALL)),
        ("white space around values", post(&format!("Content-Length:\t {length} \t\r\nX-A:b\r\n"), CALL)),
        ("names in another case", post(&format!("cOnTeNt-lEnGtH: {length}\r\n"), CALL)),
        ("one chunk", chunked(&one_chunk())),
        ("a coding in another case", post("transfer-encoding: CHUNKED\r\n", &one_chunk())),
        ("several chunks", chunked(&split)),
        (
            "a size with zeros in front",
            chunked(&one_chunk().replacen(&format!("{length:x}"), &format!("000{length:x}"), 1)),
        ),
        ("chunk extensions", chunked(&split.replacen("\r\n", ";a=b;c=\"d e\"\r\n", 1))),
        (
            "trailers",
            chunked(&one_chunk().replace("0\r\n\r\n", "0\r\nX-Canary: t\r\nAuthorization: Bearer canary\r\n\r\n")),
        ),
        (
            "an offer of h2c",
            call_with(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
            ),
        ),
        (
            "hop by hop headers",
            call_with("Connection: keep-alive, X-Canary\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nX-Canary: h\r\n"),
        ),
        (
            "headers of proxies",
            call_with("Forwarded: for=canary\r\nX-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nVia: 1.1 canary\r\n"),
        ),
        (
            "headers that override",
            call_with("X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /canary\r\nX-Rewrite-URL: /canary\r\n"),
        ),
        (
            "cookies and the like",
            call_with("Cookie: canary=1\r\nProxy-Authorization: Basic canary\r\nReferer: http://canary/\r\n"),
        ),
    ];
    let marker_length = marker_call(0).split("\r\n\r\n").nth(1).unwrap().len();
    for (number, (name, bytes)) in vectors.iter().enumerate() {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(bytes).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(1)), "{name}: {}", answer.text());
        follow_with_marker(&gateway, &mut connection, number, name).await;
    }
    let (requests, markers): (Vec<_>, Vec<_>) =
        upstream.requests().into_iter().partition(|request| request.json()["id"] == 1);
    assert_eq!((requests.len(), markers.len()), (vectors.len(), vectors.len()));
    for ((request, marker), (name, _)) in requests.iter().zip(&markers).zip(&vectors) {
        assert_eq!((&request.head, &request.body[..]), (&requests[0].head, CALL.as_bytes()), "{name}");
        let as_long = String::from_utf8_lossy(&marker.head)
            .replace(&format!("content-length: {marker_length}"), &format!("content-length: {length}"));
        assert_eq!((as_long.as_bytes(), marker.body.len()), (&requests[0].head[..], marker_length), "{name}");
    }
    let mut names = requests[0].header_names();
    names.sort();
    assert_eq!(
        (names, requests[0].headers("accept-encoding")),
        (
            ["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"]
                .map(String::from)
                .to_vec(),
            vec!["identity".into()]
        )
    );
    assert_nothing_beside(&upstream);
}

#[test]
fn the_tables_of_refused_requests_are_complete() {
    let tables = [
        two_lengths(),
        transfer_codings(),
        odd_bytes(),
        request_lines(),
        hosts_and_protocols(),
        line_ends(),
        malformed_chunks(),
        differing_chunks(),
    ];
    let count: usize = tables.iter().map(Vec::len).sum();
    assert!(count >= 300, "{count}");
}

#[tokio::test]
async fn a_client_cannot_have_the_upstream_credential_taken_out() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&format!(
        "[servers.open]\nurl = \"{}\"\naccess = \"public\"\nauth = {{ type = \"bearer\", secret = \"s3cret\" }}\nheaders = {{ X-Tenant = \"acme\" }}\n",
        upstream.url()
    ));
    for line in [
        "Connection: authorization",
        "Connection: close, Authorization, X-Tenant",
        "Connection: x-tenant\r\nX-Tenant: evil",
    ] {
        assert_eq!(client::send(gateway.data, call_with(&format!("{line}\r\n"))).await.status, 200, "{line}");
    }
    for request in upstream.wait_for("tools/call", 3).await {
        assert_eq!(
            (request.headers("authorization"), request.headers("x-tenant")),
            (vec!["Bearer s3cret".into()], vec!["acme".into()])
        );
    }
}

#[tokio::test]
async fn hostile_requests_never_touch_what_others_are_answered() {
    let (upstream, gateway) = start_with("").await;
    let marker = |id: usize| client::post("/mcp/open", &[], &CALL.replace(r#""id":1"#, &format!(r#""id":{id}"#)));
    let mut kept = Connection::open(gateway.data).await;
    let hostile = [
        post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{}", marker(9001))),
        post("Content-Length: 0\r\nContent-Length: 400\r\n", &marker(9002)),
        post("Transfer-Encoding: xchunked\r\n", &marker(9003)),
        chunked(&format!("0\n\r\n{}", marker(9004))),
        format!("GET /mcp/open HTTP/1.1\r\n{USUAL}Content-Length: 9\r\n\r\n{}", marker(9005)).into_bytes(),
        post("Content-Length: 10\r\n X: y\r\n", &marker(9006)),
    ];
    for (number, bytes) in hostile.iter().cycle().take(60).enumerate() {
        let mut attacker = Connection::open(gateway.data).await;
        attacker.write(bytes).await;
        kept.write(marker(number)).await;
        let own = kept.answer().await.unwrap();
        assert_eq!((own.status, own.json()["id"].clone()), (200, json!(number)));
        assert_eq!(attacker.answer().await.unwrap().status, 400);
        assert_eq!(attacker.remainder(SOON).await, Some(Vec::new()));
    }
    let ids: Vec<Value> = upstream.requests().iter().map(|request| request.json()["id"].clone()).collect();
    assert_eq!(ids, (0..60).map(|id| json!(id)).collect::<Vec<_>>());
}

/// A call of exactly so many bytes, in strings that are short enough.
fn call_of(bytes: usize) -> String {
    let frame = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":["#;
    let piece = format!("\"{}\",", "x".repeat(60_000));
    let pieces = piece.repeat((bytes - frame.len() - 100) / piece.len());
    let rest = bytes - frame.len() - pieces.len() - "\"\"]}}}".len();
    format!("{frame}{pieces}\"{}\"]}}}}}}", "x".repeat(rest))
}

#[tokio::test]
async fn a_body_of_the_most_bytes_passes_and_one_more_is_413_even_to_a_client_that_reads_last() {
    let most = 4 * 1024 * 1024;
    let (upstream, gateway) = start_with("").await;
    upstream.on("*", Reply::text("fine"));
    let framed = |body: &str, chunk: usize| -> [Vec<u8>; 2] {
        let chunks: String = body
            .as_bytes()
            .chunks(chunk)
            .map(|part| format!("{:x}\r\n{}\r\n", part.len(), str::from_utf8(part).unwrap()))
            .collect();
        [client::post("/mcp/open", &[], body).into_bytes(), chunked(&format!("{chunks}0\r\n\r\n"))]
    };
    for bytes in framed(&call_of(most), 50_000) {
        assert_eq!(client::send(gateway.data, bytes).await.status, 200);
    }
    assert_eq!(upstream.requests().iter().map(|request| request.body.len()).collect::<Vec<_>>(), [most, most]);
    let far_more = framed(&"x".repeat(12 * 1024 * 1024), 1_000_000);
    for bytes in framed(&call_of(most + 1), 50_000).into_iter().chain(far_more) {
        let mut connection = Connection::open(gateway.data).await;
        // All of it, before the first look at the answer.
        connection.write(bytes).await;
        let answer = connection.answer().await.expect("the answer can be read");
        assert_eq!((answer.status, answer.code()), (413, Some(-32600)));
        assert_is_error(&answer, "413");
        assert_eq!(connection.remainder(SOON).await, Some(Vec::new()));
    }
    let records = gateway.wait_for_records("refused", 4);
    assert!(
        records.iter().all(|record| record["reason"] == "body_too_large" && record["principal"] == "public"),
        "{records:?}"
    );
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_answered_before_the_body_comes() {
    let (upstream, gateway) = start_with("body_bytes_max = 1000").await;
    for lines in [
        "Content-Length: 1001\r\n",
        "Content-Length: 999999999999\r\n",
        "Content-Length: 1001\r\nExpect: 100-continue\r\n",
    ] {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(post(lines, "")).await;
        assert_eq!(connection.answer().await.unwrap().status, 413, "{lines}");
    }
    assert_eq!(upstream.connections().len(), 0);
}

/// Writes one piece after the other with a pause behind each, until something comes back.
async fn drip(connection: &mut Connection, pieces: Vec<&[u8]>) -> Option<Answer> {
    for piece in pieces {
        connection.write(piece).await;
        if timeout(Duration::from_millis(120), connection.stream.peek(&mut [0])).await.is_ok() {
            break;
        }
    }
    connection.answer().await
}

#[tokio::test]
async fn a_slow_head_is_ended_after_its_time_however_it_drips() {
    let (upstream, mut gateway) = start_with("header_timeout_ms = 500").await;
    let call = call_with("");
    for (name, kept, pieces) in [
        ("a head that stops", false, vec![&call[..20]]),
        ("a head that stops, on a kept connection", true, vec![&call[..20]]),
        ("byte by byte", false, call.chunks(1).collect()),
        ("byte by byte, on a kept connection", true, call.chunks(1).collect()),
        ("line by line", false, call.split_inclusive(|byte| *byte == b'\n').collect()),
    ] {
        let mut connection = Connection::open(gateway.data).await;
        if kept {
            connection.write(&call).await;
            assert_eq!(connection.answer().await.unwrap().status, 200, "{name}");
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        let started = Clock::start();
        let answer = drip(&mut connection, pieces).await.expect(name);
        assert_eq!((answer.status, answer.code()), (408, Some(-32600)), "{name}");
        let took = started.elapsed();
        assert!(took > Duration::from_millis(450) && took < Duration::from_millis(1500), "{name}: {took:?}");
        assert_eq!(connection.remainder(SOON).await, Some(Vec::new()), "{name}");
    }
    let mut silent = Connection::open(gateway.data).await;
    assert_eq!(silent.remainder(SOON).await, Some(Vec::new()), "who says nothing is told nothing");
    let reasons = || {
        gateway
            .records()
            .iter()
            .filter(|record| record["reason"] == "head_timeout")
            .map(|record| record["count"].as_u64().unwrap_or(1))
            .sum::<u64>()
    };
    gateway::wait_until("five records of a late head", || reasons() == 5);
    assert_eq!(upstream.requests().len(), 2);
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn a_slow_body_is_ended_after_its_time_however_it_drips() {
    let (upstream, mut gateway) = start_with("body_timeout_ms = 500").await;
    let (head, body) = (post(&format!("Content-Length: {}\r\n", CALL.len()), ""), CALL.as_bytes());
    let (chunked_head, chunks) = (chunked(""), one_chunk());
    let vectors = [
        ("nothing of it", &head, vec![]),
        ("a body that stops", &head, vec![&body[..20]]),
        ("byte by byte", &head, body.chunks(1).collect()),
        ("no chunk", &chunked_head, vec![]),
        ("chunks byte by byte", &chunked_head, chunks.as_bytes().chunks(1).collect::<Vec<_>>()),
    ];
    let count = vectors.len();
    for (name, head, pieces) in vectors {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(head).await;
        let started = Clock::start();
        let answer = drip(&mut connection, pieces).await.expect(name);
        let took = started.elapsed();
        assert_eq!((answer.status, answer.code()), (408, Some(-32600)), "{name}");
        assert!(took > Duration::from_millis(450) && took < Duration::from_millis(1500), "{name}: {took:?}");
        assert_eq!(connection.remainder(SOON).await, Some(Vec::new()), "{name}");
    }
    assert!(gateway.wait_for_records("refused", count).iter().all(|record| record["reason"] == "body_timeout"));
    assert_eq!(upstream.connections().len(), 0);
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn a_body_that_ends_early_is_refused() {
    let (upstream, gateway) = start_with("").await;
    for bytes in [
        post("Content-Length: 500\r\n", CALL),
        chunked(&one_chunk()[..40]),
        chunked(&one_chunk().replace("0\r\n\r\n", "")),
        chunked(&one_chunk().replace("0\r\n\r\n", "0\r\n")),
    ] {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(&bytes).await;
        connection.finish_writing().await;
        let answer = connection.answer().await.expect("who half-closes still reads");
        assert_eq!((answer.status, answer.code()), (400, Some(-32600)), "{}", String::from_utf8_lossy(&bytes));
    }
    assert!(gateway.wait_for_records("refused", 4).iter().all(|record| record["reason"] == "body_broken"));
    assert_eq!(upstream.connections().len(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_then_closed_in_silence() {
    let (_upstream, gateway) = start_with("keepalive_timeout_ms = 2000\nheader_timeout_ms = 10000").await;
    let mut connection = Connection::open(gateway.data).await;
    // Together longer than it may be idle.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        connection.write(call_with("")).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
    }
    let idle = Instant::now();
    assert_eq!(connection.remainder(SOON).await, Some(Vec::new()));
    let took = idle.elapsed();
    assert!(took > Duration::from_millis(1900) && took < SOON, "{took:?}");
    assert_eq!(gateway.records().iter().filter(|record| record["kind"] == "refused").count(), 0);
}

#[tokio::test]
async fn a_short_idle_time_does_not_shorten_the_time_for_a_head() {
    let (_upstream, gateway) = start_with("keepalive_timeout_ms = 1000\nheader_timeout_ms = 6000").await;
    let mut connection = Connection::open(gateway.data).await;
    let call = call_with("");
    for pause in [0, 1600] {
        connection.write(&call[..30]).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        connection.write(&call[30..]).await;
        assert_eq!(connection.answer().await.expect("the head came in time").status, 200);
    }
}

#[tokio::test]
async fn connections_beyond_the_most_are_told_so_and_room_is_made_again() {
    let (upstream, mut gateway) = start_with("connections_max = 3").await;
    // The connection that looked whether the gateway serves may still be open.
    gateway::wait_until_left(gateway.admin).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(MARKER).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
        held.push(connection);
    }
    for number in 0..10 {
        let mut one_more = Connection::open_from(client::source(number), gateway.data).await;
        one_more.write(call_with("")).await;
        let answer = one_more.answer().await.expect("the refusal can be read");
        assert_eq!((answer.status, answer.code()), (503, Some(-32603)));
        assert_is_error(&answer, "503");
        assert!(answer.header("retry-after").is_some(), "{}", answer.head);
        assert_eq!(one_more.remainder(SOON).await, Some(Vec::new()));
    }
    let records = gateway.wait_for_records("refused", 10);
    assert!(
        records.iter().all(|record| record["reason"] == "connections_max" && record["status"] == 503),
        "{records:?}"
    );
    assert_eq!(upstream.connections().len(), 0);
    drop(held);
    let started = Instant::now();
    while client::send(gateway.data, call_with("")).await.status != 200 {
        assert!(started.elapsed() < SOON);
    }
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let (upstream, gateway) = start_with("").await;
    let call = |id: usize| {
        let by_length = client::post("/mcp/open", &[], CALL);
        let by_chunks = String::from_utf8(chunked(&one_chunk())).unwrap();
        [by_length, by_chunks][id % 2].replace(r#""id":1"#, &format!(r#""id":{id}"#))
    };
    let mut connection = Connection::open(gateway.data).await;
    connection.write((0..5).map(call).collect::<String>()).await;
    for id in 0..5 {
        let answer = connection.answer().await.expect("an answer to each");
        assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(id)));
    }
    // A refused request in the middle ends it: what follows is nobody's.
    let mut connection = Connection::open(gateway.data).await;
    connection.write(format!("{}GET /mcp/open HTTP/1.1\nHost: localhost\n\n{}", call(6), call(7))).await;
    let statuses = [connection.answer().await.unwrap().status, connection.answer().await.unwrap().status];
    assert_eq!((statuses, connection.remainder(SOON).await), ([200, 400], Some(Vec::new())));
    let ids: Vec<Value> = upstream.requests().iter().map(|request| request.json()["id"].clone()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 6].map(|id| json!(id)));
}

#[tokio::test]
async fn who_half_closes_is_answered_and_told_when_what_was_sent_ahead_is_not_taken() {
    let (upstream, gateway) = start_with("").await;
    let mut connection = Connection::open(gateway.data).await;
    connection.write([call_with(""), chunked(&one_chunk()), call_with("")].concat()).await;
    connection.finish_writing().await;
    let mut answers = Vec::new();
    while let Some(answer) = connection.answer().await {
        assert_eq!(answer.status, 200);
        answers.push(answer);
    }
    assert!(!answers.is_empty(), "the call in flight is answered");
    assert_eq!(upstream.requests().len(), answers.len(), "nothing is carried out that is not answered");
    if answers.len() < 3 {
        assert_eq!(answers.last().unwrap().header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn an_expectation_is_met_here_and_never_passed_on() {
    let (upstream, gateway) = start_with("").await;
    let head = post(&format!("Expect: 100-Continue\r\nContent-Length: {}\r\n", CALL.len()), "");
    let mut connection = Connection::open(gateway.data).await;
    for _ in 0..2 {
        connection.write(&head).await;
        assert_eq!(connection.answer().await.unwrap().status, 100);
        connection.write(CALL).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
    }
    assert!(upstream.wait_for("tools/call", 2).await.iter().all(|request| request.headers("expect").is_empty()));
    connection.write(&head).await;
    assert_eq!(connection.answer().await.unwrap().status, 100);
    connection.write("x".repeat(CALL.len())).await;
    assert_eq!(connection.answer().await.unwrap().status, 400, "a refusal may follow the permission to go on");
    let nowhere = String::from_utf8(head).unwrap().replace("/mcp/open", "/mcp/private");
    assert_eq!(
        client::send(gateway.data, nowhere).await.status,
        401,
        "nobody is asked for a body that will be refused"
    );
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn other_methods_are_405_and_name_those_that_are_served() {
    let (upstream, gateway) = start_with("").await;
    let methods = ["PUT", "OPTIONS", "PATCH", "TRACE", "PROPFIND"];
    for (number, method) in methods.iter().enumerate() {
        let mut connection = Connection::open_from(client::source(number), gateway.data).await;
        connection.write(format!("{method} /mcp/open HTTP/1.1\r\n{USUAL}\r\n{MARKER}")).await;
        let answer = connection.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.code(), answer.header("allow")),
            (405, Some(-32600), Some("POST, GET, DELETE")),
            "{method}"
        );
        assert_is_error(&answer, method);
        assert_eq!(
            connection.answer().await.unwrap().status,
            200,
            "{method} without a body leaves the connection usable"
        );
    }
    let mut connection = Connection::open(gateway.data).await;
    connection.write(format!("HEAD /mcp/open HTTP/1.1\r\n{USUAL}Connection: close\r\n\r\n")).await;
    let head = String::from_utf8(connection.remainder(SOON).await.unwrap()).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 405 ") && head.ends_with("\r\n\r\n") && head.contains("POST, GET, DELETE"),
        "a head alone: {head}"
    );
    let records = gateway.wait_for_records("refused", methods.len() + 1);
    assert!(records.iter().all(|record| record["reason"] == "method_not_served"), "{records:?}");
    assert_eq!(upstream.connections().len(), 0);
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_404_in_json_rpc() {
    let (upstream, gateway) = start_with("").await;
    let paths = [
        "/",
        "/mcp",
        "/mcp/",
        "/mcp/open/",
        "//mcp/open",
        "/mcp//open",
        "/mcp/./open",
        "/mcp/../mcp/open",
        "/./mcp/open",
        "/mcp/open/x",
        "/mcp/open;x",
        "/mcp/%6fpen",
        "/%6dcp/open",
        "/mcp/open%20",
        "/mcp%2fopen",
        "/mcp/open%00",
        "/MCP/open",
        "/mcp/Open",
        "/mcp/open.",
        "/open",
        "/open/mcp/",
        "/a/open/v1/stream/",
        "/a/open/V1/stream",
        "/a/b/open/v1/stream",
        "/healthz/",
        "/health",
        "/metrics",
        "/readyz",
        "/mcp/open/../open",
        "/.well-known/oauth-protected-resource",
    ];
    for (number, path) in paths.iter().enumerate() {
        let mut connection = Connection::open_from(client::source(number), gateway.data).await;
        connection.write(client::post(path, &[], CALL)).await;
        let answer = connection.answer().await.unwrap();
        assert_is_error(&answer, path);
        // A path of the right form with a name of the wrong form leads to a server that is not there.
        let names_nobody = [
            "/mcp/open;x",
            "/mcp/%6fpen",
            "/mcp/open%20",
            "/mcp/open%00",
            "/mcp/Open",
            "/mcp/open.",
            "/MCP/open",
            "/mcp/.",
            "/mcp/..",
        ];
        let expected = if names_nobody.contains(path) { 401 } else { 404 };
        let expected = if *path == "/MCP/open" { 404 } else { expected };
        assert_eq!((answer.status, answer.code()), (expected, Some(-32600)), "{path}");
        follow_with_marker(&gateway, &mut connection, number, path).await;
    }
    gateway.wait_for_records("refused", paths.len());
    assert_only_markers(&upstream, paths.len());
}

#[tokio::test]
async fn a_probe_of_health_is_answered_to_anybody_and_leaves_no_record() {
    let (_upstream, gateway) = start_with("").await;
    let mut connection = Connection::open(gateway.data).await;
    for request in [
        MARKER.to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: 10.0.0.7:8080\r\n\r\n".into(),
        "GET /healthz?from=lb HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n".into(),
        "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(),
    ] {
        connection.write(&request).await;
        let answer = connection.answer().await.unwrap();
        assert_eq!((answer.status, answer.json()), (200, json!({"status": "ok"})), "{request}");
    }
    connection.write("HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let head = String::from_utf8(connection.remainder(SOON).await.unwrap()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(gateway.records(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_body_sent_to_the_probe_is_never_taken_for_a_request() {
    let (upstream, gateway) = start_with("").await;
    let inner = client::post("/mcp/open", &[], CALL);
    for bytes in [
        format!("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()),
        format!(
            "POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        ),
    ] {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(&bytes).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
        connection.write(MARKER).await;
        if let Some(next) = connection.answer().await {
            assert_eq!((next.status, next.text()), (200, r#"{"status":"ok"}"#.into()));
        }
    }
    assert_eq!((upstream.connections().len(), gateway.records()), (0, Vec::new()));
}

#[tokio::test]
async fn only_our_own_hosts_are_answered() {
    let (upstream, on_loopback) = start_with("").await;
    let (_for_named, named) = start_with("public_url = \"https://mcp.example.com\"").await;
    let (_for_listed, listed) = start_with("allowed_hosts = [\"a.example\", \"b.example:8443\"]").await;
    for (gateway, host, status) in [
        (&on_loopback, "localhost", 200),
        (&on_loopback, "LocalHost:1", 200),
        (&on_loopback, "127.0.0.1:8080", 200),
        (&on_loopback, "[::1]:8080", 200),
        (&on_loopback, "evil.example", 403),
        (&on_loopback, "localhost.evil.example", 403),
        (&on_loopback, "127.0.0.1.evil.example:8080", 403),
        (&on_loopback, "127.0.0.2", 403),
        (&on_loopback, "0.0.0.0", 403),
        (&on_loopback, "2130706433", 403),
        (&on_loopback, "localhost, evil.example", 400),
        (&on_loopback, "localhost@evil.example", 400),
        (&on_loopback, "localhost:80:80", 403),
        (&on_loopback, "localhost:x", 403),
        (&on_loopback, "localhost/", 400),
        (&on_loopback, "localhost.", 403),
        (&on_loopback, "loc\u{e4}lhost", 400),
        (&named, "mcp.example.com", 200),
        (&named, "MCP.Example.com:443", 200),
        (&named, "localhost", 200),
        (&named, "example.com", 403),
        (&listed, "a.example:1234", 200),
        (&listed, "b.example:8443", 200),
        (&listed, "b.example", 403),
        (&listed, "localhost", 403),
    ] {
        let request = client::post("/mcp/open", &[], CALL).replace("Host: localhost", &format!("Host: {host}"));
        let answer = client::send(gateway.data, request).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
        if status != 200 {
            assert_is_error(&answer, host);
        }
    }
    let refused = on_loopback.wait_for_record("refused", |record| record["reason"] == "host_not_allowed");
    assert_eq!((&refused["status"], upstream.requests().len()), (&json!(403), 4));
}

#[tokio::test]
async fn browsers_may_ask_only_from_our_own_origins() {
    let (upstream, own) = start_with("public_url = \"https://mcp.example.com\"").await;
    let (_for_listed, listed) = start_with("allowed_origins = [\"https://app.example\"]").await;
    for (gateway, lines, status) in [
        (&own, vec![], 200),
        (&own, vec!["Origin: http://localhost"], 200),
        (&own, vec!["Origin: https://localhost"], 200),
        (&own, vec!["Origin: https://mcp.example.com"], 200),
        (&own, vec!["Origin: https://evil.example"], 403),
        (&own, vec!["Origin: null"], 403),
        (&own, vec!["Origin:"], 403),
        (&own, vec!["Origin: http://localhost:8080"], 403),
        (&own, vec!["Origin: http://localhost.evil.example"], 403),
        (&own, vec!["Origin: http://localhost/"], 403),
        (&own, vec!["Origin: http://evil@localhost"], 403),
        (&own, vec!["Origin: file://localhost"], 403),
        (&own, vec!["Origin: localhost"], 403),
        (&own, vec!["Origin: http://localhost http://evil.example"], 403),
        (&own, vec!["Origin: http://localhost", "Origin: http://localhost"], 403),
        (&own, vec!["Origin: http://localhost", "Origin: https://evil.example"], 403),
        (&own, vec!["origin: null", "Origin: http://localhost"], 403),
        (&listed, vec!["Origin: https://app.example"], 200),
        (&listed, vec!["Origin: HTTPS://APP.example"], 200),
        (&listed, vec!["Origin: http://app.example"], 403),
        (&listed, vec!["Origin: https://app.example:8443"], 403),
        (&listed, vec!["Origin: http://localhost"], 403),
        (&listed, vec!["Origin: null"], 403),
    ] {
        let answer = gateway.post("/mcp/open", &lines, CALL).await;
        assert_eq!(answer.status, status, "{lines:?}: {}", answer.text());
        if status == 403 {
            assert_is_error(&answer, lines[0]);
        }
    }
    let refused = own.wait_for_record("refused", |record| record["reason"] == "origin_not_allowed");
    assert_eq!((&refused["status"], upstream.requests().len()), (&json!(403), 4));
}

#[tokio::test]
async fn only_plain_json_is_read_and_both_forms_of_answer_must_be_welcome() {
    let (upstream, gateway) = start_with("").await;
    let (json, both) = ("Content-Type: application/json", "Accept: application/json, text/event-stream");
    let rows: &[(&[&str], u16, &str)] = &[
        (&[json, both], 200, ""),
        (&[json], 200, ""),
        (&["Content-Type: Application/JSON;charset=\"UTF-8\"", both], 200, ""),
        (&[json, "Accept: */*"], 200, ""),
        (&[json, "Accept: text/event-stream;q=0.9,application/*"], 200, ""),
        (&[json, "Accept: application/json", "Accept: text/event-stream"], 200, ""),
        (&[json, both, "Content-Encoding: identity"], 200, ""),
        (&[both], 415, "content_type"),
        (&["Content-Type:", both], 415, "content_type"),
        (&["Content-Type: text/plain", both], 415, "content_type"),
        (&["Content-Type: application/x-www-form-urlencoded", both], 415, "content_type"),
        (&["Content-Type: application/json-rpc", both], 415, "content_type"),
        (&["Content-Type: application/json; charset=utf-16", both], 415, "content_type"),
        (&["Content-Type: application/json, text/plain", both], 415, "content_type"),
        (&[json, json, both], 415, "content_type"),
        (&[json, "Content-Type: text/plain", both], 415, "content_type"),
        (&[json, both, "Content-Encoding: gzip"], 415, "content_encoding"),
        (&[json, both, "Content-Encoding: identity", "Content-Encoding: br"], 415, "content_encoding"),
        (&[json, both, "Content-Encoding: identity, gzip"], 415, "content_encoding"),
        (&[json, both, "Content-Encoding: x"], 415, "content_encoding"),
        (&[json, "Accept: application/json"], 406, "not_acceptable"),
        (&[json, "Accept: text/event-stream"], 406, "not_acceptable"),
        (&[json, "Accept: text/html"], 406, "not_acceptable"),
        (&[json, "Accept:"], 406, "not_acceptable"),
    ];
    for (number, (lines, status, reason)) in rows.iter().enumerate() {
        let lines = lines.join("\r\n");
        let mut connection = Connection::open_from(client::source(number), gateway.data).await;
        connection
            .write(format!(
                "POST /mcp/open HTTP/1.1\r\nHost: localhost\r\n{lines}\r\nContent-Length: {}\r\n\r\n{CALL}",
                CALL.len()
            ))
            .await;
        let answer = connection.answer().await.unwrap();
        assert_eq!(answer.status, *status, "{lines}");
        if *status != 200 {
            assert_is_error(&answer, &lines);
            let source = client::source(number).to_string();
            gateway.wait_for_record("refused", |record| record["source"] == source && record["reason"] == *reason);
        }
        follow_with_marker(&gateway, &mut connection, number, &lines).await;
    }
    assert_eq!(upstream.requests().len(), 7 + rows.len());
    assert_nothing_beside(&upstream);
    gateway.wait_for_records("refused", rows.len() - 7);
}

#[tokio::test]
async fn every_template_and_every_fixed_path_leads_to_its_server() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let config = |routes: &str| {
        let server = |name: &str, upstream: &Upstream| {
            format!("[servers.{name}]\nurl = \"{}\"\naccess = \"public\"\n", upstream.url())
        };
        format!("{routes}\n{}{}", server("one", &one), server("two", &two))
    };
    let default =
        Gateway::start(&config("[routes.fixed]\n\"/mcp\" = \"two\"\n\"/mcp/one\" = \"two\"\n\"/a/b/c\" = \"one\"\n"));
    let own =
        Gateway::start(&config("[routes]\ntemplates = [\"/x/{server}\", \"/{prefix}/{server}\", \"/{server}/x\"]\n"));
    for (gateway, path, leads_to) in [
        (&default, "/mcp/two", Some(&two)),
        (&default, "/gateway/mcp/one", Some(&one)),
        (&default, "/one/mcp", Some(&one)),
        (&default, "/acme/one/v1/stream", Some(&one)),
        (&default, "/mcp/two/v1/stream", Some(&two)),
        (&default, "/gateway/two/v1/stream", Some(&two)),
        (&default, "/one/mcp?session=1", Some(&one)),
        (&default, "/mcp", Some(&two)),
        (&default, "/mcp/one", Some(&two)),
        (&default, "/a/b/c", Some(&one)),
        (&default, "/a/b/c/", None),
        (&default, "/mcp/", None),
        (&own, "/x/one", Some(&one)),
        (&own, "/y/one", Some(&one)),
        (&own, "/two/x", Some(&two)),
        (&own, "/mcp/one/v1/stream", None),
        (&own, "/mcp", None),
    ] {
        let before = (one.requests().len(), two.requests().len());
        let answer = gateway.post(path, &[], CALL).await;
        let after = (one.requests().len(), two.requests().len());
        let expected = leads_to.map_or((404, before), |to| {
            (200, if std::ptr::eq(to, &one) { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) })
        });
        assert_eq!((answer.status, after), expected, "{path}: {}", answer.text());
    }
    let record = default.wait_for_record("intent", |record| record["path"] == "/mcp/one");
    assert_eq!(record["server"], "two", "the record names the server, not the path");
}

#[tokio::test]
async fn many_who_drip_their_heads_keep_nobody_from_being_served() {
    let (_upstream, gateway) = start_with("header_timeout_ms = 800").await;
    let mut drippers = Vec::new();
    for _ in 0..300 {
        let mut connection = Connection::open(gateway.data).await;
        connection.write("P").await;
        drippers.push(connection);
    }
    let started = Instant::now();
    for turn in 0..4 {
        for dripper in &mut drippers {
            dripper.write("O").await;
        }
        let asked = Clock::start();
        assert_eq!(gateway.post("/mcp/open", &[], CALL).await.status, 200);
        assert!(asked.elapsed() < Duration::from_millis(500), "turn {turn}: {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    for mut dripper in drippers {
        assert_eq!(dripper.answer().await.unwrap().status, 408);
        assert_eq!(dripper.remainder(SOON).await, Some(Vec::new()));
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}
