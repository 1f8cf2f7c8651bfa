//! HTTP/2: the same calls, the same rules, and frames that no client should send.
//!
//! Every hostile vector is followed by an ordinary request: on the same connection if that goes on, else on another.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::h2::ACK;
use crate::support::h2::CONTINUATION;
use crate::support::h2::Connection;
use crate::support::h2::DATA;
use crate::support::h2::END_HEADERS;
use crate::support::h2::END_STREAM;
use crate::support::h2::End;
use crate::support::h2::GOAWAY;
use crate::support::h2::HEADERS;
use crate::support::h2::PADDED;
use crate::support::h2::PING;
use crate::support::h2::PREFACE;
use crate::support::h2::PRIORITY;
use crate::support::h2::PUSH_PROMISE;
use crate::support::h2::RST_STREAM;
use crate::support::h2::SETTINGS;
use crate::support::h2::WINDOW_UPDATE;
use crate::support::h2::WITH_PRIORITY;
use crate::support::h2::block;
use crate::support::h2::frame;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

pub(super) struct Stage {
    authority: Authority,
    pub(super) gateway: Gateway,
    pub(super) upstream: Upstream,
    directory: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Stage {
    pub(super) async fn start(listen: &str, tls: &str) -> Self {
        let directory = gateway::fresh_directory();
        let authority = Authority::new(&directory, "ca");
        authority.issue("here", "DNS:localhost", 30);
        let upstream = Upstream::start().await;
        let gateway = Gateway::start(&format!(
            "{listen}\n[listen.tls]\n{tls}\ncertificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n",
            authority.path("here.pem"),
            authority.path("here.key"),
            upstream.url()
        ));
        Self { authority, gateway, upstream, directory }
    }

    /// A connection on which nothing was written.
    pub(super) async fn raw(&self, source: Ipv4Addr) -> Connection {
        Connection::open(&self.authority.path("ca.pem"), source, self.gateway.data).await
    }

    /// A connection that has said hello.
    pub(super) async fn open(&self, source: Ipv4Addr) -> Connection {
        let mut connection = self.raw(source).await;
        connection.write([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        connection
    }
}

/// The fields of the call, with these instead of those of the same name, and these beside them. An empty value leaves a field
/// of the call out.
pub(super) fn fields<'f>(changed: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let usual = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/mcp/open"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let kept = usual.iter().filter(|(name, _)| !changed.iter().any(|(it, _)| it == name)).copied();
    let pseudo = changed.iter().filter(|(name, value)| name.starts_with(':') && !value.is_empty()).copied();
    let others = changed.iter().filter(|(name, value)| !name.starts_with(':') && !value.is_empty()).copied();
    let mut fields: Vec<_> = pseudo.collect();
    fields.extend(kept);
    fields.extend(others);
    fields.sort_by_key(|(name, _)| !name.starts_with(':'));
    fields
}

/// The call on a stream, with such fields.
pub(super) fn call(stream: u32, changed: &[(&str, &str)]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &block(&fields(changed)));
    [head, frame(DATA, END_STREAM, stream, CALL.as_bytes())].concat()
}

/// A request without a body.
pub(super) fn get(stream: u32, changed: &[(&str, &str)]) -> Vec<u8> {
    let with: Vec<_> =
        [(":method", "GET"), ("content-type", ""), ("accept", "")].iter().chain(changed).copied().collect();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields(&with)))
}

/// The ordinary request that follows each vector.
pub(super) fn marker(stream: u32) -> Vec<u8> {
    get(stream, &[(":path", "/healthz")])
}

/// What becomes of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is served, and the server sees one request.
    Served,
    /// Its stream is answered by the gateway, for a reason that is on record; the connection goes on.
    Refused(&'static str),
    /// Its stream ends with an error of some kind; the connection goes on.
    Stopped,
    /// It is passed over; the connection goes on.
    Ignored,
    /// The connection ends.
    Dead,
}

struct Vector {
    name: String,
    bytes: Vec<u8>,
    fate: Fate,
}

fn vector(name: impl Into<String>, bytes: impl Into<Vec<u8>>, fate: Fate) -> Vector {
    Vector { name: name.into(), bytes: bytes.into(), fate }
}

/// Sends each vector on a connection of its own, on stream 1, and then the marker. All that differ are told at once.
async fn hold(vectors: Vec<Vector>) {
    let stage = Stage::start("header_count_max = 20", "").await;
    let mut findings = Vec::new();
    for (number, vector) in vectors.iter().enumerate() {
        let mut connection = stage.open(client::source(number)).await;
        connection.write(&vector.bytes).await;
        let end = match vector.fate {
            Fate::Ignored => None,
            _ => Some(connection.end_of(1).await),
        };
        let fits = match (vector.fate, &end) {
            (Fate::Served, Some(End::Answered { ok: true, body })) => {
                String::from_utf8_lossy(body).contains("\"result\"")
            }
            (Fate::Refused(_), Some(End::Answered { ok: false, body })) => {
                serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"]["code"] == -32600)
            }
            (Fate::Stopped, Some(End::Answered { ok: false, .. } | End::Reset(_))) => true,
            (Fate::Ignored, None) | (Fate::Dead, Some(End::Dead(_))) => true,
            _ => false,
        };
        if !fits {
            findings.push(format!("{}: {:?}, but {end:?}", vector.name, vector.fate));
        }
        if matches!(end, Some(End::Dead(_))) {
            connection = stage.open(HERE).await;
        }
        connection.write(marker(101)).await;
        let end = connection.end_of(101).await;
        if !matches!(end, End::Answered { ok: true, .. }) {
            findings.push(format!("{}: after it {end:?}", vector.name));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let expected = vectors.iter().filter(|vector| vector.fate == Fate::Served).count();
    assert_eq!(stage.upstream.requests().len(), expected, "requests that reached the server");
    for (number, vector) in vectors.iter().enumerate() {
        let Fate::Refused(reason) = vector.fate else { continue };
        let source = client::source(number).to_string();
        let own = stage.gateway.wait_for_record("refused", |record| record["source"] == source);
        assert_eq!((&own["reason"], &own["tls"]), (&json!(reason), &json!("1.3")), "{}", vector.name);
    }
}

#[tokio::test]
async fn heads_are_held_to_the_rules_of_http_1() {
    let length = CALL.len().to_string();
    let refused = |name: &str, changed: &[(&str, &str)], reason| vector(name, call(1, changed), Fate::Refused(reason));
    let long = "x".repeat(9_000);
    let path = format!("/{}", "x".repeat(9_000));
    let many: Vec<(String, &str)> = (0..21).map(|number| (format!("x-{number}"), "a")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut vectors = vec![
        vector("the call", call(1, &[]), Fate::Served),
        vector("with its length", call(1, &[("content-length", &length)]), Fate::Served),
        vector("with its authority again", call(1, &[("host", "localhost")]), Fate::Served),
        // Allowed for what was HTTP/1.1 before; who speaks HTTP/2 to us has an authority.
        vector(
            "with a host alone",
            call(1, &[(":authority", ""), ("host", "localhost")]),
            Fate::Refused("head_scheme"),
        ),
        // No part of a target: the parser drops it before anybody could read it in two ways.
        vector("with a fragment", call(1, &[(":path", "/mcp/open#x")]), Fate::Served),
        vector("with an expectation", call(1, &[("expect", "100-continue")]), Fate::Served),
        vector("with te: trailers", call(1, &[("te", "trailers")]), Fate::Served),
        vector("with cookies apart", call(1, &[("cookie", "a=b"), ("cookie", "c=d")]), Fate::Served),
        refused("a foreign authority", &[(":authority", "evil.example")], "host_not_allowed"),
        refused("plain scheme", &[(":scheme", "http")], "head_scheme"),
        refused("a method in small letters", &[(":method", "post")], "head_request_line"),
        refused("an unknown method", &[(":method", "PATCH")], "method_not_served"),
        refused("a name with an underscore", &[("content_length", &length)], "head_name"),
        refused("another expectation", &[("expect", "200-ok")], "head_expect"),
        refused("a long field", &[("x-long", &long)], "head_too_large"),
        refused("a long path", &[(":path", &path)], "head_target_long"),
        refused("many fields", &many, "head_too_large"),
        refused("a path that is nowhere", &[(":path", "/nowhere")], "no_route"),
        refused("a foreign page", &[("origin", "https://evil.example")], "origin_not_allowed"),
        refused("no JSON", &[("content-type", "text/plain")], "content_type"),
        refused("an encoded body", &[("content-encoding", "gzip")], "content_encoding"),
        refused("an answer of one kind", &[("accept", "application/json")], "not_acceptable"),
        vector("an unknown key", call(1, &[("authorization", "Bearer nonsense")]), Fate::Refused("key_unknown")),
        vector("GET with a body", call(1, &[(":method", "GET")]), Fate::Refused("head_unexpected_body")),
        vector("DELETE with a body", call(1, &[(":method", "DELETE")]), Fate::Refused("head_unexpected_body")),
    ];
    for (name, changed) in
        [("a quote in the path", [(":path", "/mcp/\"open")]), ("a backslash in the path", [(":path", "/mcp\\open")])]
    {
        vectors.push(vector(name, call(1, &changed), Fate::Refused("head_request_line")));
    }
    for (name, changed) in [
        ("another host", vec![("host", "127.0.0.1")]),
        ("an authority that is none", vec![(":authority", "a b")]),
        ("an angle bracket in the path", vec![(":path", "/mcp/open?<x>")]),
        ("user in the authority", vec![(":authority", "user@localhost")]),
        ("no authority at all", vec![(":authority", "")]),
        ("host twice", vec![("host", "localhost"), ("host", "localhost")]),
        ("an absolute path", vec![(":path", "https://localhost/mcp/open")]),
        ("a path without its slash", vec![(":path", "mcp/open")]),
        ("a space in the path", vec![(":path", "/mcp/open x")]),
        ("a line end in the path", vec![(":path", "/mcp/open\r\nx: y")]),
        ("no method", vec![(":method", "")]),
        ("no scheme", vec![(":scheme", "")]),
        ("no path", vec![(":path", "")]),
        ("an asterisk", vec![(":path", "*")]),
        ("a status", vec![(":status", "200")]),
        ("a protocol", vec![(":protocol", "websocket")]),
        ("CONNECT", vec![(":method", "CONNECT")]),
        ("a length too small", vec![("content-length", "1")]),
        ("a length too large", vec![("content-length", "100000")]),
        ("two lengths", vec![("content-length", &length), ("content-length", "1")]),
        ("a length with a sign", vec![("content-length", "+86")]),
        ("a list of lengths", vec![("content-length", "86, 87")]),
        ("a length that is none", vec![("content-length", "x")]),
        ("a coding", vec![("transfer-encoding", "chunked")]),
        ("connection", vec![("connection", "close")]),
        ("keep-alive", vec![("keep-alive", "timeout=5")]),
        ("proxy-connection", vec![("proxy-connection", "close")]),
        ("upgrade", vec![("upgrade", "h2c")]),
        ("te with more", vec![("te", "gzip")]),
    ] {
        vectors.push(vector(name, call(1, &changed), Fate::Stopped));
    }
    for (name, changed) in [
        ("an unknown pseudo-field", [(":x", "y")]),
        ("a capital letter", [("X-Capital", "a")]),
        ("a space in a name", [("x y", "a")]),
        ("a colon in a name", [("x:y", "a")]),
        ("a line end in a value", [("x-a", "b\r\nhost: evil.example")]),
        ("a null in a value", [("x-a", "b\0c")]),
    ] {
        vectors.push(vector(name, call(1, &changed), Fate::Dead));
    }
    assert!(vectors.len() >= 60, "{}", vectors.len());
    hold(vectors).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_no_more_than_they_must() {
    let head = |flags: u8, payload: &[u8]| frame(HEADERS, flags, 1, payload);
    let usual = block(&fields(&[]));
    let body = |flags: u8| frame(DATA, flags, 1, CALL.as_bytes());
    let (first, second) = usual.split_at(20);
    let wire = |parts: &[&[u8]]| parts.concat();
    let setting = |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let twice = [&block(&[(":method", "POST")])[..], &usual].concat();
    let late = [&usual[..], &block(&[(":path", "/x")])].concat();
    let padded = |pad: u8, payload: &[u8], zeros: usize| [&[pad][..], payload, &vec![0; zeros]].concat();
    let open = head(END_HEADERS, &usual);
    use Fate::Dead;
    use Fate::Ignored;
    use Fate::Served;
    use Fate::Stopped;
    let vectors = vec![
        // What is allowed, in every form.
        vector(
            "head in two frames",
            wire(&[&head(0, first), &frame(CONTINUATION, END_HEADERS, 1, second), &body(1)]),
            Served,
        ),
        vector(
            "empty continuation",
            wire(&[&head(0, first), &frame(CONTINUATION, 0, 1, &[]), &frame(CONTINUATION, 4, 1, second), &body(1)]),
            Served,
        ),
        vector("padded head", wire(&[&head(END_HEADERS | PADDED, &padded(7, &usual, 7)), &body(1)]), Served),
        vector(
            "padded body",
            wire(&[&open, &frame(DATA, END_STREAM | PADDED, 1, &padded(9, CALL.as_bytes(), 9))]),
            Served,
        ),
        vector(
            "priority in the head",
            wire(&[&head(END_HEADERS | WITH_PRIORITY, &[&[0, 0, 0, 3, 9][..], &usual].concat()), &body(1)]),
            Served,
        ),
        vector(
            "empty data before and behind",
            wire(&[&open, &frame(DATA, 0, 1, &[]), &body(0), &frame(DATA, END_STREAM, 1, &[])]),
            Served,
        ),
        vector(
            "trailers",
            wire(&[&open, &body(0), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-t", "v")]))]),
            Served,
        ),
        vector(
            "a late key in trailers",
            wire(&[
                &open,
                &body(0),
                &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("authorization", "Bearer x")])),
            ]),
            Served,
        ),
        vector("unknown flags", wire(&[&frame(HEADERS, END_HEADERS | 0xc2, 1, &usual), &body(1)]), Served),
        vector("a reserved bit", wire(&[&frame(HEADERS, END_HEADERS, 1 | 1 << 31, &usual), &body(1)]), Served),
        vector("an unknown frame", frame(0x42, 0xff, 0, &[1, 2, 3]), Ignored),
        vector("an unknown frame on a stream", frame(0x42, 0, 7, &[]), Ignored),
        vector("an unknown setting", setting(0x4242, 7), Ignored),
        vector("a priority", frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]), Ignored),
        vector("a ping", frame(PING, 0, 0, &[0; 8]), Ignored),
        vector("an answer to no ping", frame(PING, ACK, 0, &[0; 8]), Ignored),
        vector("a window for all", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]), Ignored),
        // Heads that cannot be told apart from attacks: the stream ends.
        vector("a pseudo-field twice", wire(&[&head(END_HEADERS, &twice), &body(1)]), Stopped),
        vector("a pseudo-field behind fields", wire(&[&head(END_HEADERS, &late), &body(1)]), Stopped),
        vector(
            "pseudo-fields in trailers, which nobody reads",
            wire(&[&open, &body(0), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":path", "/")]))]),
            Served,
        ),
        vector(
            "trailers that do not end",
            wire(&[&open, &body(0), &frame(HEADERS, END_HEADERS, 1, &block(&[("x-t", "v")]))]),
            Stopped,
        ),
        vector(
            "depends on itself",
            wire(&[&head(END_HEADERS | WITH_PRIORITY, &[&[0, 0, 0, 1, 9][..], &usual].concat()), &body(1)]),
            Stopped,
        ),
        // Order of frames.
        vector("data before any head", body(END_STREAM), Dead),
        vector("continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &usual), Dead),
        vector("continuation of another", wire(&[&head(0, first), &frame(CONTINUATION, END_HEADERS, 3, second)]), Dead),
        vector("data within a head", wire(&[&head(0, first), &body(0)]), Dead),
        vector("a ping within a head", wire(&[&head(0, first), &frame(PING, 0, 0, &[0; 8])]), Dead),
        vector("a head within a head", wire(&[&head(0, first), &frame(HEADERS, END_HEADERS, 3, &usual)]), Dead),
        vector("an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &usual), Dead),
        vector("stream zero", frame(HEADERS, END_HEADERS | END_STREAM, 0, &usual), Dead),
        vector("a smaller stream", wire(&[&marker(5), &frame(HEADERS, END_HEADERS | END_STREAM, 3, &usual)]), Dead),
        vector("a reset of an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Dead),
        vector("a reset of no stream", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), Dead),
        vector("a window of an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Dead),
        vector("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &usual].concat()), Dead),
        vector("data on stream zero", frame(DATA, 0, 0, b"x"), Dead),
        vector("settings on a stream", frame(SETTINGS, 0, 1, &[]), Dead),
        vector("a ping on a stream", frame(PING, 0, 1, &[0; 8]), Dead),
        vector("a goaway on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Dead),
        vector("a priority on stream zero", frame(PRIORITY, 0, 0, &[0; 5]), Dead),
        // Sizes.
        vector("a settings acknowledgement with content", frame(SETTINGS, ACK, 0, &[0; 6]), Dead),
        vector("half a setting", frame(SETTINGS, 0, 0, &[0; 5]), Dead),
        vector("a short ping", frame(PING, 0, 0, &[0; 7]), Dead),
        vector("a long ping", frame(PING, 0, 0, &[0; 9]), Dead),
        vector("a short goaway", frame(GOAWAY, 0, 0, &[0; 7]), Dead),
        vector("a short window", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Dead),
        vector("a short reset", wire(&[&open, &frame(RST_STREAM, 0, 1, &[0; 3])]), Dead),
        vector("a short priority", frame(PRIORITY, 0, 3, &[0; 4]), Dead),
        vector("a frame of 16 MiB", wire(&[&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1], &[0; 4096]]), Dead),
        vector("a frame one byte too long", frame(DATA, 0, 1, &vec![0; 16_385]), Dead),
        vector("more padding than body", wire(&[&open, &frame(DATA, END_STREAM | PADDED, 1, &[200, 1, 2])]), Dead),
        vector("more padding than head", head(END_HEADERS | PADDED, &[255, 0]), Dead),
        vector("padding without a length", wire(&[&open, &frame(DATA, PADDED, 1, &[])]), Dead),
        vector("a priority cut short", head(END_HEADERS | WITH_PRIORITY, &[0, 0]), Dead),
        // Values.
        vector("push neither on nor off", setting(2, 2), Dead),
        vector("a window too large", setting(4, 1 << 31), Dead),
        vector("frames too small", setting(5, 16_383), Dead),
        vector("frames too large", setting(5, 1 << 24), Dead),
        vector("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Dead),
        vector("a window beyond its end", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Dead),
        vector("a stream's window of nothing", wire(&[&open, &frame(WINDOW_UPDATE, 0, 1, &[0; 4])]), Dead),
        // Compressed heads.
        vector("field zero", head(END_HEADERS, &[0x80]), Dead),
        vector("a field beyond the table", head(END_HEADERS, &[0xff, 0xff, 0x03]), Dead),
        vector("a number without end", head(END_HEADERS, &[0xff; 12]), Dead),
        vector("a table too large", head(END_HEADERS, &[0x3f, 0xe1, 0xff, 0x03]), Dead),
        vector("a text cut short", head(END_HEADERS, &[0x00, 0x05, b'x']), Dead),
        vector("letters that are none", head(END_HEADERS, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff]), Dead),
        vector("a head without content", head(END_HEADERS | END_STREAM, &[]), Stopped),
    ];
    assert!(vectors.len() >= 60, "{}", vectors.len());
    hold(vectors).await;
}

#[tokio::test]
async fn another_beginning_than_the_preface_ends_the_connection() {
    let stage = Stage::start("header_timeout_ms = 500", "").await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI"] {
        let mut connection = stage.raw(HERE).await;
        connection.write(bytes).await;
        assert!(matches!(connection.end_of(1).await, End::Dead(_)), "{bytes:?}");
    }
    let mut plain = client::Connection::open(stage.gateway.data).await;
    plain.write(PREFACE).await;
    assert_eq!(plain.answer().await.map(|answer| answer.status), Some(400), "never in the clear");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "h2_protocol");
}

#[tokio::test]
async fn floods_end_their_connection_and_disturb_nobody() {
    let stage = Stage::start("", "").await;
    let mut other = stage.open(HERE).await;
    let odd = |count: u32| (0..count).map(|number| number * 2 + 1);
    let resets: Vec<u8> = odd(2_000)
        .flat_map(|stream| {
            [frame(HEADERS, END_HEADERS, stream, &block(&fields(&[]))), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                .concat()
        })
        .collect();
    let malformed: Vec<u8> = odd(200).flat_map(|stream| get(stream, &[("connection", "close")])).collect();
    let ambiguous: Vec<u8> =
        odd(200).flat_map(|stream| get(stream, &[("host", "localhost"), ("host", "localhost")])).collect();
    let endless = [
        frame(HEADERS, 0, 1, &block(&fields(&[]))),
        frame(CONTINUATION, 0, 1, &block(&[("x-a", &"y".repeat(1_000))])).repeat(2_000),
    ]
    .concat();
    let empty = [frame(HEADERS, END_HEADERS, 1, &block(&fields(&[]))), frame(DATA, 0, 1, &[]).repeat(50_000)].concat();
    let before = stage.gateway.peak_memory_bytes();
    for (name, flood) in
        [("resets", resets), ("malformed", malformed), ("ambiguous", ambiguous), ("endless", endless), ("empty", empty)]
    {
        let mut connection = stage.open(HERE).await;
        connection.write(&flood).await;
        let end = connection.end_of(1_000_001).await;
        assert!(matches!(end, End::Dead(_)), "{name}: {end:?}");
    }
    for ping in 0..100_u8 {
        other.write(frame(PING, 0, 0, &[ping; 8])).await;
    }
    other.write(call(1, &[])).await;
    assert!(matches!(other.end_of(1).await, End::Answered { ok: true, .. }));
    let grown = stage.gateway.peak_memory_bytes() - before;
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn streams_windows_and_silence_have_bounds() {
    let stage = Stage::start(
        "keepalive_timeout_ms = 1000\nbody_timeout_ms = 1000\nwrite_timeout_ms = 1000\nbody_bytes_max = 200000",
        "",
    )
    .await;
    let mut connection = stage.open(HERE).await;
    // What the gateway says of itself.
    let settings = loop {
        let frame = connection.frame().await.unwrap();
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            break frame.payload;
        }
    };
    let said = |id: u16| {
        let found = settings.chunks(6).find(|setting| setting[..2] == id.to_be_bytes());
        found.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!((said(3), said(4), said(6)), (Some(100), Some(65_535), Some(16 * 1024 + 64 * 64)));
    // One stream too many is refused; those before it wait for their bodies, and are told in time that these did not come.
    for number in 0..=100_u32 {
        connection.write(frame(HEADERS, END_HEADERS, number * 2 + 1, &block(&fields(&[])))).await;
    }
    assert!(matches!(connection.end_of(201).await, End::Reset(7)), "REFUSED_STREAM");
    assert!(matches!(connection.end_of(1).await, End::Answered { ok: false, .. }), "408");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "body_timeout");

    let mut large = stage.open(HERE).await;
    large.write(frame(HEADERS, END_HEADERS, 1, &block(&fields(&[("content-length", "200001")])))).await;
    assert!(matches!(large.end_of(1).await, End::Answered { ok: false, .. }), "413");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "body_too_large");

    // A client that takes nothing: the answer is not finished, and does not look as if it were.
    let mut stuck = stage.raw(HERE).await;
    stuck.write([PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await;
    stuck.write(call(1, &[])).await;
    let end = stuck.end_of(1).await;
    assert!(matches!(end, End::Reset(2)), "INTERNAL_ERROR: {end:?}");
    stage.gateway.wait_for_record("result", |record| record["outcome"] == "client_gone");

    let mut idle = stage.open(HERE).await;
    idle.write(marker(1)).await;
    assert!(matches!(idle.end_of(1).await, End::Answered { ok: true, .. }));
    let ended = tokio::time::timeout(Duration::from_secs(5), idle.end_of(3)).await;
    assert!(matches!(ended, Ok(End::Dead(None))), "an idle connection is ended: {ended:?}");
}

#[tokio::test]
async fn streams_are_apart_and_a_client_may_leave_one() {
    let stage = Stage::start("", "").await;
    stage.upstream.on_each(
        "tools/call",
        vec![Reply::sse(vec![Event::progress(1), Event::result(json!({"content":[]}))]), Reply::never()],
    );
    let mut connection = stage.open(HERE).await;
    connection.write(call(1, &[])).await;
    let End::Answered { ok: true, body } = connection.end_of(1).await else { panic!("a stream of events") };
    assert!(String::from_utf8_lossy(&body).contains("progress"), "{body:?}");
    connection.write(call(3, &[])).await;
    stage.upstream.wait_for("tools/call", 2).await;
    // The client leaves one stream; the server is left, the others go on.
    connection.write(frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])).await;
    stage.gateway.wait_for_record("result", |record| record["outcome"] == "client_gone");
    connection.write(marker(5)).await;
    assert!(matches!(connection.end_of(5).await, End::Answered { ok: true, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_it_where_it_is_offered() {
    for (tls, version) in [("", "2"), ("http2 = false", "1.1")] {
        let stage = Stage::start("", tls).await;
        let body = fs::canonicalize(&stage.directory).unwrap().join("body");
        let filler = "x".repeat(300_000);
        fs::write(&body, CALL.replace("{}", &format!("{{\"text\":\"{filler}\"}}"))).unwrap();
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--http2", "--cacert", &stage.authority.path("ca.pem")]);
        command.args(["-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream"]);
        command.args(["-w", "\n%{http_version}", "--data-binary", &format!("@{}", body.display())]);
        let output = command
            .arg(format!("https://localhost:{}/mcp/open", stage.gateway.data.port()))
            .stdin(Stdio::null())
            .output()
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\"result\"") && text.ends_with(&format!("\n{version}")), "{text}");
        let sent = fs::read(&body).unwrap();
        assert_eq!(stage.upstream.requests()[0].body, sent, "whole, and as it was sent");
    }
}
