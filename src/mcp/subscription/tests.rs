//! Streams that keep to what was asked for, and others.

use bytes::Bytes;

use super::*;
use crate::mcp::document::Limits;

const ALL: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,
    "resourceSubscriptions":["file:///a","file:///dir/"],"taskIds":["t1"]}"#;

fn request(id: &str, params: &str) -> Message {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{LISTEN}","params":{params}}}"#);
    Message::read(body.into(), &Limits::default()).expect("is a message")
}

fn listen(id: &str, filter: &str) -> Result<Subscription, HeaderError> {
    Subscription::read(&request(id, &format!(r#"{{"notifications":{filter}}}"#)))
}

fn from_server(body: String) -> Message {
    Message::read_from_server(Bytes::from(body), &Limits::for_answers()).expect("is a message")
}

/// A notification marked with an id, with more parameters.
fn marked(method: &str, id: &str, more: &str) -> Message {
    from_server(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{"_meta":{{"{META_SUBSCRIPTION}":{id}}}{more}}}}}"#
    ))
}

/// A stream that was agreed to.
fn open(id: &str, filter: &str) -> Subscription {
    let mut stream = listen(id, filter).expect("is sound");
    let agreed = marked("subscriptions/acknowledged", id, &format!(r#","notifications":{filter}"#));
    assert_eq!(stream.screen(&agreed), Screened::Pass);
    stream
}

#[test]
fn nothing_comes_before_the_agreement() {
    let mut stream = listen("1", ALL).expect("is sound");
    assert!(!stream.is_open());
    assert_eq!(stream.screen(&marked("tools/list_changed", "1", "")), Screened::Drop("listen_order"));
    assert_eq!(stream.screen(&marked("message", "1", "")), Screened::Drop("listen_order"));
    let early = from_server(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into());
    assert_eq!(stream.screen(&early), Screened::Refuse("listen_order"));
    assert_eq!(stream.screen(&marked("subscriptions/acknowledged", "1", "")), Screened::Pass);
    assert!(stream.is_open());
    assert_eq!(stream.screen(&marked("subscriptions/acknowledged", "1", "")), Screened::Drop("listen_type"));
    assert_eq!(stream.screen(&marked("tools/list_changed", "1", "")), Screened::Pass);
}

#[test]
fn an_agreement_of_another_stream_is_refused() {
    for id in ["2", r#""1""#, "1.0", "null"] {
        let mut stream = listen("1", ALL).expect("is sound");
        assert_eq!(stream.screen(&marked("subscriptions/acknowledged", id, "")), Screened::Refuse("listen_id"), "{id}");
    }
    let mut stream = listen("1", ALL).expect("is sound");
    let bare = from_server(r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#.into());
    assert_eq!(stream.screen(&bare), Screened::Refuse("listen_id"));
}

#[test]
fn only_what_was_asked_for_passes() {
    let each = [
        ("toolsListChanged", "tools/list_changed"),
        ("promptsListChanged", "prompts/list_changed"),
        ("resourcesListChanged", "resources/list_changed"),
    ];
    for (asked, _) in each {
        let mut stream = open("1", &format!(r#"{{"{asked}":true}}"#));
        for (key, method) in each {
            let expected = if key == asked { Screened::Pass } else { Screened::Drop("listen_type") };
            assert_eq!(stream.screen(&marked(method, "1", "")), expected, "{asked} {method}");
        }
    }
    for filter in ["{}", r#"{"toolsListChanged":false}"#, r#"{"toolsListChanged":null,"resourceSubscriptions":null}"#] {
        let mut stream = open("1", filter);
        assert_eq!(stream.screen(&marked("tools/list_changed", "1", "")), Screened::Drop("listen_type"), "{filter}");
    }
    let mut stream = open("1", ALL);
    for method in ["progress", "message", "cancelled", "tasks/status", "elicitation/complete", "x"] {
        assert_eq!(stream.screen(&marked(method, "1", "")), Screened::Drop("listen_type"), "{method}");
    }
    let request = from_server(r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#.into());
    assert_eq!(stream.screen(&request), Screened::Drop("answer_request"));
}

#[test]
fn a_message_carries_the_id_of_its_stream_in_its_type() {
    for (asked, carried, passes) in [
        ("1", "1", true),
        ("1", r#""1""#, false),
        (r#""1""#, "1", false),
        ("10", "1e1", false),
        ("9007199254740993", "9007199254740993", true),
        ("9007199254740993", "9007199254740992", false),
        (r#""a/b""#, r#""a\/b""#, true),
        (r#""\u0061""#, r#""a""#, true),
        (r#""a""#, r#""A""#, false),
        (r#""""#, "null", false),
    ] {
        let mut stream = open(asked, ALL);
        let expected = if passes { Screened::Pass } else { Screened::Drop("listen_id") };
        assert_eq!(stream.screen(&marked("tools/list_changed", carried, "")), expected, "{asked} {carried}");
    }
    let mut stream = open("1", ALL);
    let bare = from_server(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#.into());
    assert_eq!(stream.screen(&bare), Screened::Drop("listen_id"));
}

#[test]
fn updates_come_for_what_was_named_and_what_is_below() {
    for (uri, passes) in [
        (r"file:///a", true),
        (r"file:\/\/\/\u0061", true),
        (r"file:///a/b", true),
        (r"file:///a?x", true),
        (r"file:///a#x", true),
        (r"file:///dir/", true),
        (r"file:///dir/x", true),
        (r"file:///dir/x..y/..z", true),
        (r"file:///dir", false),
        (r"file:///ab", false),
        (r"file:///", false),
        (r"file:///A", false),
        (r"file:///a/..", false),
        (r"file:///a/../etc/passwd", false),
        (r"file:///a/%2e%2E/etc/passwd", false),
        (r"file:///a/.%2e/etc/passwd", false),
        (r"file:///dir/..\\x", false),
        (r"file:///dir/\u202e", false),
        ("", false),
    ] {
        let mut stream = open("1", ALL);
        let expected = if passes { Screened::Pass } else { Screened::Drop("listen_type") };
        let update = marked("resources/updated", "1", &format!(r#","uri":"{uri}""#));
        assert_eq!(stream.screen(&update), expected, "{uri}");
    }
    let mut stream = open("1", ALL);
    for more in ["", r#","uri":null"#, r#","uri":["file:///a"]"#] {
        assert_eq!(stream.screen(&marked("resources/updated", "1", more)), Screened::Drop("listen_type"), "{more}");
    }
}

#[test]
fn tasks_come_only_by_name() {
    let mut stream = open("1", ALL);
    let task = |id: &str| marked("tasks", "1", &format!(r#","taskId":"{id}","status":"working""#));
    assert_eq!(stream.screen(&task("t1")), Screened::Pass);
    assert_eq!(stream.screen(&task("t")), Screened::Drop("listen_type"));
    assert_eq!(stream.screen(&task("t1/x")), Screened::Drop("listen_type"));
    assert_eq!(stream.screen(&marked("tasks", "1", "")), Screened::Drop("listen_type"));
}

#[test]
fn the_result_is_the_answer_and_the_end() {
    let result = |id: &str, result: &str| from_server(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    let marked_result = |id: &str| format!(r#"{{"resultType":"complete","_meta":{{"{META_SUBSCRIPTION}":{id}}}}}"#);
    let mut stream = open("1", ALL);
    assert_eq!(stream.screen(&result("2", "{}")), Screened::Drop("answer_id"));
    assert_eq!(stream.screen(&result(r#""1""#, "{}")), Screened::Drop("answer_id"));
    assert_eq!(stream.screen(&result("1", &marked_result("2"))), Screened::Refuse("listen_id"));
    assert_eq!(stream.screen(&result("1", &marked_result("1"))), Screened::Answer);
    assert_eq!(stream.screen(&result("1", &marked_result("1"))), Screened::Drop("answer_twice"));
    assert_eq!(stream.screen(&marked("tools/list_changed", "1", "")), Screened::Drop("answer_twice"));
    assert!(!stream.is_open());
    assert_eq!(open(r#""\u0061""#, ALL).screen(&result(r#""a""#, "{}")), Screened::Answer);
}

#[test]
fn an_error_may_come_at_any_time() {
    let error = |id: &str| from_server(format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":-32601,"message":"no"}}}}"#));
    assert_eq!(listen("1", ALL).expect("is sound").screen(&error(r#""id":1,"#)), Screened::Answer);
    assert_eq!(open("1", ALL).screen(&error(r#""id":1,"#)), Screened::Answer);
    assert_eq!(open("1", ALL).screen(&error("")), Screened::Drop("answer_id"));
}

#[test]
fn a_request_that_could_be_read_in_two_ways_opens_no_stream() {
    for params in [
        "{}",
        r#"{"notifications":null}"#,
        r#"{"notifications":[]}"#,
        r#"{"notifications":{"toolsListChanged":1}}"#,
        r#"{"notifications":{"toolsListChanged":"true"}}"#,
        r#"{"notifications":{"resourceSubscriptions":"x"}}"#,
        r#"{"notifications":{"resourceSubscriptions":{"x":true}}}"#,
        r#"{"notifications":{"resourceSubscriptions":[1]}}"#,
        r#"{"notifications":{"resourceSubscriptions":["a\u0000"]}}"#,
        r#"{"notifications":{"taskIds":[null]}}"#,
    ] {
        let error = Subscription::read(&request("1", params)).expect_err(params);
        assert_eq!((error.code, error.name), (-32602, "notifications"), "{params}");
    }
    assert!(listen("1", r#"{"somethingElse":7}"#).is_ok(), "what only the server knows is its own");
}

#[test]
fn a_request_names_so_many_resources_and_no_more() {
    let named = |count: usize| {
        let uris: Vec<_> = (0..count).map(|at| format!(r#""a:{at}""#)).collect();
        listen("1", &format!(r#"{{"resourceSubscriptions":[{}]}}"#, uris.join(",")))
    };
    assert!(named(NAMED_MAX).is_ok());
    assert!(named(NAMED_MAX + 1).is_err());
}
