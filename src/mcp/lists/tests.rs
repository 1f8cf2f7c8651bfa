//! Lists before and after.

use proptest::prelude::*;

use super::*;
use crate::mcp::document::Limits;

fn message(body: &str) -> Message {
    Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::for_answers()).expect("is a message")
}

fn result(result: &str) -> Message {
    message(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#))
}

/// The tools of a list in which only tools whose names begin with `k` are kept.
fn kept(tools: &str) -> String {
    let whole = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{tools},"nextCursor":"c"}}}}"#);
    let body = match filter(&message(&whole), ListKind::Tools, |name| name.starts_with('k')) {
        Filtered::Unchanged => Bytes::from(whole),
        Filtered::Changed(body) => body,
        Filtered::NotAList => return "not a list".into(),
    };
    let body = std::str::from_utf8(&body).expect("UTF-8");
    let inner = body.strip_prefix(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":"#).expect("the same beginning");
    inner.strip_suffix(r#","nextCursor":"c"}}"#).expect("the same end").into()
}

#[test]
fn only_allowed_tools_remain_and_the_rest_is_the_same_bytes() {
    for (tools, expected) in [
        ("[]", "[]"),
        (r#"[{"name":"k"}]"#, r#"[{"name":"k"}]"#),
        (r#"[{"name":"x"}]"#, "[]"),
        (r#"[ {"name":"x"} ]"#, "[  ]"),
        (r#"[{"name":"x"},{"name":"k"}]"#, r#"[{"name":"k"}]"#),
        (r#"[{"name":"k"},{"name":"x"}]"#, r#"[{"name":"k"}]"#),
        (r#"[{"name":"k1"} , {"name":"x"} , {"name":"k2"}]"#, r#"[{"name":"k1"} , {"name":"k2"}]"#),
        (r#"[{"name":"x"},{"name":"y"},{"name":"k"},{"name":"z"}]"#, r#"[{"name":"k"}]"#),
        (r#"[{"name":"x"},{"name":"y"},{"name":"z"}]"#, "[]"),
        (r#"[{"name":"k2"},{"name":"x"},{"name":"y"},{"name":"k1"}]"#, r#"[{"name":"k2"},{"name":"k1"}]"#),
        (
            r#"[{"inputSchema":{"n":1.0},"name":"k\u0031"},{"name":"\u0078"}]"#,
            r#"[{"inputSchema":{"n":1.0},"name":"k\u0031"}]"#,
        ),
        ("[\n  {\"name\":\"x\"},\n  {\"name\":\"k\"}\n]", "[\n  {\"name\":\"k\"}\n]"),
    ] {
        assert_eq!(kept(tools), expected, "{tools}");
    }
}

#[test]
fn a_tool_that_no_call_could_name_goes() {
    for tool in [
        "{}",
        r#"{"name":null}"#,
        r#"{"name":1}"#,
        r#"{"name":["k"]}"#,
        r#"{"name":"k\u0000"}"#,
        r#"{"name":"k\u200b"}"#,
        r#"{"Name":"k"}"#,
        r#"{"name":"k","Name":"x"}"#,
        r#"{"meta":{"name":"k"}}"#,
        "null",
        "\"k\"",
        "[]",
    ] {
        assert_eq!(kept(&format!(r#"[{{"name":"k"}},{tool}]"#)), r#"[{"name":"k"}]"#, "{tool}");
    }
}

#[test]
fn what_is_no_list_with_certainty_is_not_passed_on() {
    for body in [
        "{}",
        "null",
        "[]",
        r#"{"tools":{}}"#,
        r#"{"tools":null}"#,
        r#"{"tools":"x"}"#,
        r#"{"Tools":[]}"#,
        r#"{"tools":[],"TOOLS":[{"name":"x"}]}"#,
        r#"{"tools":[],"toolſ":[{"name":"x"}]}"#,
    ] {
        assert_eq!(filter(&result(body), ListKind::Tools, |_| true), Filtered::NotAList, "{body}");
    }
    assert_eq!(
        filter(&message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), ListKind::Tools, |_| true),
        Filtered::NotAList
    );
}

#[test]
fn a_list_that_is_allowed_whole_and_an_error_are_unchanged() {
    assert_eq!(
        filter(&result(r#"{"tools":[{"name":"a"},{"name":"b"}]}"#), ListKind::Tools, |_| true),
        Filtered::Unchanged
    );
    let error = message(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#);
    assert_eq!(filter(&error, ListKind::Tools, |_| false), Filtered::Unchanged);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_remains_are_the_allowed_tools_in_their_order(
        names in prop::collection::vec("[kx][a-z]{0,3}", 0..12),
        separator in prop::sample::select(vec![",", " , ", ",\n  ", "\t,"]),
    ) {
        let tools: Vec<_> = names.iter().map(|name| format!(r#"{{"name":"{name}","inputSchema":{{}}}}"#)).collect();
        let filtered = kept(&format!("[{}]", tools.join(separator)));
        let allowed: Vec<_> = tools.iter().filter(|tool| tool.contains("\"name\":\"k")).cloned().collect();
        prop_assert_eq!(filtered, format!("[{}]", allowed.join(separator)));
    }
}
