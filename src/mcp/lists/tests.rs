//! Lists before and after.

use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::mcp::document::Limits;
use crate::mcp::results;

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

#[test]
fn each_kind_of_list_is_cut_by_what_names_its_items() {
    for (method, kind, key, member) in [
        ("tools/list", ListKind::Tools, "tools", "name"),
        ("resources/list", ListKind::Resources, "resources", "uri"),
        ("resources/templates/list", ListKind::ResourceTemplates, "resourceTemplates", "uriTemplate"),
        ("prompts/list", ListKind::Prompts, "prompts", "name"),
    ] {
        assert_eq!(ListKind::of_method(method), Some(kind));
        let kept = json!({member: "k", "title": "x"});
        let other = if member == "name" { "uri" } else { "name" };
        let gone = [
            json!({member: "x"}),
            json!({other: "k"}),
            json!({member.to_uppercase(): "k"}),
            json!({member: "k", member.to_uppercase(): "x"}),
        ];
        let before = json!({key: [gone[0], kept, gone[1], gone[2], gone[3]], "nextCursor": "k"});
        let Filtered::Changed(body) = filter(&result(&before.to_string()), kind, |name| name == "k") else {
            panic!("{method} keeps all")
        };
        let after: Json = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(after["result"], json!({key: [kept], "nextCursor": "k"}), "{method}");
        for other in ListKind::ALL.into_iter().filter(|other| *other != kind) {
            assert_eq!(filter(&result(&before.to_string()), other, |_| true), Filtered::NotAList, "{method}");
        }
    }
    for method in ["tools/call", "Tools/list", "tasks/list", "roots/list", ""] {
        assert_eq!(ListKind::of_method(method), None, "{method}");
    }
}

#[test]
fn a_result_of_unknown_origin_tells_which_lists_it_holds() {
    let shapes = |body: &str| shapes(result(body).result().expect("a result")).map(Iterator::collect::<Vec<_>>);
    assert_eq!(shapes("{}"), Ok(vec![]));
    assert_eq!(shapes("null"), Ok(vec![]));
    assert_eq!(shapes(r#"{"content":[{"tools":[]}],"structuredContent":{"prompts":[]}}"#), Ok(vec![]));
    assert_eq!(shapes(r#"{"tools":[]}"#), Ok(vec![ListKind::Tools]));
    assert_eq!(shapes(r#"{"prompts":[],"\u0074ools":{}}"#), Ok(vec![ListKind::Tools, ListKind::Prompts]));
    assert_eq!(
        shapes(r#"{"resourceTemplates":[],"resources":[]}"#),
        Ok(vec![ListKind::Resources, ListKind::ResourceTemplates])
    );
    for body in [r#"{"Tools":[]}"#, r#"{"resourcetemplates":[]}"#, r#"{"tools":[],"promptſ":[]}"#] {
        assert_eq!(shapes(body), Err(NotAList), "{body}");
    }
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

    #[test]
    fn cuts_and_a_new_scope_change_what_they_should_and_nothing_else(
        names in prop::collection::vec("[kx][a-z]{0,3}", 0..8),
        scope in prop::sample::select(vec![r#""public""#, r#""private""#, r#"["public", {}]"#, "7", "null"]),
        places in Just(vec!["list", "scope", "type", "rest"]).prop_shuffle(),
        space in prop::sample::select(vec!["", " ", "\n\t"]),
        kind in prop::sample::select(ListKind::ALL.to_vec()),
    ) {
        let member = kind.naming_member();
        let items: Vec<_> =
            names.iter().map(|name| format!(r#"{{{space}"title":"{name}","{member}":"{name}"}}"#)).collect();
        let items = items.join(&format!("{space},"));
        let members: Vec<_> = places.iter().map(|place| match *place {
            "list" => format!(r#""{}":{space}[{space}{items}{space}]"#, kind.array_key()),
            "scope" => format!(r#""cacheScope":{scope}"#),
            "type" => r#""resultType":"complete""#.to_owned(),
            _ => format!(r#""ttlMs":{space}60000,"nextCursor":"c\u0061""#),
        }).collect();
        let message = result(&format!("{{{}}}", members.join(&format!(",{space}"))));
        let result = message.result().expect("a result");
        let mut splices: Vec<Splice> = results::relabel(result).expect("one meaning").into_iter().collect();
        splices.extend(cuts(result, kind, |name| name.starts_with('k')).expect("a list"));
        let merged = splice::merge(splices).expect("apart");
        let body = splice::apply(message.body(), &merged).expect("fits");
        let after: Json = serde_json::from_slice(&body).expect("JSON");
        let mut expected: Json = serde_json::from_slice(message.body()).expect("JSON");
        expected["result"]["cacheScope"] = "private".into();
        let list = expected["result"][kind.array_key()].as_array_mut().expect("a list");
        list.retain(|item| item["title"].as_str().is_some_and(|name| name.starts_with('k')));
        prop_assert_eq!(after, expected);
    }
}
