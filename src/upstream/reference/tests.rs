//! Where references lead, and which lead nowhere.

use super::*;

use crate::session::UPSTREAM_ID_BYTES_MAX;

const BASE: &str = "http://a.test:8080/b/c/sse?tenant=7";

fn at(base: &str, reference: &str) -> Result<String, &'static str> {
    let target = Target::parse(base).unwrap_or_else(|bad| panic!("{base}: {}", bad.message));
    resolve(&target, reference).map(|path| path.to_string())
}

#[track_caller]
fn leads(base: &str, table: &[(&str, &str)]) {
    for (reference, path) in table {
        assert_eq!(at(base, reference).as_deref(), Ok(*path), "{reference}");
        assert_eq!(at(base, path).as_deref(), Ok(*path), "what {reference} leads to, read again");
    }
}

#[track_caller]
fn refused(base: &str, word: &str, references: &[&str]) {
    for reference in references {
        assert_eq!(at(base, reference), Err(word), "{reference:?}");
    }
}

#[test]
fn a_reference_is_seen_from_the_stream() {
    let table = [
        ("message?sessionId=1", "/b/c/message?sessionId=1"),
        ("./message", "/b/c/message"),
        ("/message?sessionId=1", "/message?sessionId=1"),
        ("/messages/?session_id=0f", "/messages/?session_id=0f"),
        ("?sessionId=1", "/b/c/sse?sessionId=1"),
        ("?", "/b/c/sse?"),
        ("../message", "/b/message"),
        ("../../message", "/message"),
        ("../../../message", "/message"),
        ("/../../message", "/message"),
        ("/../..", "/"),
        ("..", "/b/"),
        (".", "/b/c/"),
        ("x/../y/./z", "/b/c/y/z"),
        ("/x/..", "/"),
        ("/x/./", "/x/"),
        ("...", "/b/c/..."),
        ("/a.b/..c/d..", "/a.b/..c/d.."),
        ("m//n", "/b/c/m//n"),
        ("/m?a=b/../c", "/m?a=b/../c"),
        ("/m?next=//evil.test/x", "/m?next=//evil.test/x"),
        ("/m?a=b?c", "/m?a=b?c"),
        ("/m;v=1/a,b", "/m;v=1/a,b"),
        ("/m%2F%41?x=%00", "/m%2F%41?x=%00"),
        ("/%2e%2e/m", "/%2e%2e/m"),
        ("/a:b", "/a:b"),
        ("./a:b", "/b/c/a:b"),
        ("1:2", "/b/c/1:2"),
        ("x@y", "/b/c/x@y"),
        ("http://a.test:8080/m?s=1", "/m?s=1"),
        ("HTTP://A.Test:8080/m", "/m"),
        ("http://a.test:08080/m", "/m"),
        ("http://a.test:8080", "/"),
        ("http://a.test:8080?s=1", "/?s=1"),
        ("http://a.test:8080/x/../m", "/m"),
        ("//a.test:8080/m", "/m"),
    ];
    leads(BASE, &table);
}

#[test]
fn the_default_port_need_not_be_named() {
    leads("https://a.test/sse", &[("https://a.test:443/m", "/m"), ("https://a.test/m", "/m"), ("//a.test/m", "/m")]);
    leads("http://a.test:80", &[("http://a.test/m", "/m"), ("m", "/m"), ("?s=1", "/?s=1")]);
    refused("https://a.test/sse", ORIGIN, &["https://a.test:80/m", "http://a.test:443/m", "http://a.test/m"]);
}

#[test]
fn an_address_is_the_same_however_it_is_written() {
    let same = [("http://[::1]:9000/m", "/m"), ("http://[0:0:0:0:0:0:0:1]:9000/m", "/m"), ("m", "/m")];
    leads("http://[::1]:9000/sse", &same);
    refused("http://[::1]:9000/sse", ORIGIN, &["http://[::2]:9000/m", "http://::1:9000/m", "http://[::1/m"]);
    refused("http://127.0.0.1/sse", ORIGIN, &["http://[::ffff:127.0.0.1]/m", "http://2130706433/m", "http://127.1/m"]);
}

#[test]
fn another_origin_is_refused() {
    let elsewhere = [
        "//evil.test/x",
        "///evil.test/x",
        "////evil.test",
        "//",
        "//?s=1",
        "http://evil.test/",
        "http://evil.test:8080/",
        "http://a.test/m",
        "http://a.test:8081/m",
        "http://a.test:/m",
        "http://a.test:0/m",
        "http://a.test:73616/m",
        "http://a.test.:8080/m",
        "http://a.test.evil.test:8080/m",
        "http://a%2etest:8080/m",
        "http://a.test%00:8080/m",
        "http://a.test:8080@evil.test/m",
        "http://me@a.test:8080/m",
        "http://:@a.test:8080/m",
        "//me:pw@a.test:8080/m",
        "https://a.test:8080/m",
        "https:evil.test",
        "http:evil.test",
        "http:/m",
        "http:///m",
        "http:",
        "ws://a.test:8080/m",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:,x",
        "a.test:8080/m",
        "message:1",
    ];
    refused(BASE, ORIGIN, &elsewhere);
}

#[test]
fn what_readers_understand_differently_is_refused() {
    let text = ["", "\\\\evil.test", "/\\evil.test/x", "/m\\n", "\t//evil.test", "ht\ntp://evil.test", "/m\r\nx: y"];
    refused(BASE, "endpoint_text", &text);
    refused(
        BASE,
        "endpoint_text",
        &[" /m", "/m ", "/a b", "/m\0", "/m\u{7f}", "/größe", "//evil\u{3002}test", "/\u{202e}m"],
    );
    refused(BASE, "endpoint_fragment", &["#", "/m#x", "http://a.test:8080/m#@evil.test", "?s#"]);
    refused(
        BASE,
        "endpoint_path",
        &["/..//evil.test/x", "/.//evil.test", "http://a.test:8080//evil.test/x", "/a/../..//b"],
    );
    refused(BASE, "endpoint_path", &["/<x>", "/m`"]);
}

#[test]
fn a_path_has_a_limit() {
    let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    assert_eq!(at(BASE, &path(MESSAGE_PATH_BYTES_MAX)).map(|path| path.len()), Ok(MESSAGE_PATH_BYTES_MAX));
    refused(BASE, "endpoint_length", &[&path(MESSAGE_PATH_BYTES_MAX + 1), &"x".repeat(MESSAGE_PATH_BYTES_MAX)]);
    assert_eq!(MESSAGE_PATH_BYTES_MAX, UPSTREAM_ID_BYTES_MAX, "a path that is accepted can be sealed");
}
