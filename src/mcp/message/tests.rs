//! Which documents are messages, and what is read in them.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mcp::splice;
use crate::mcp::splice::Splice;

fn read(body: &str) -> Result<Message, MessageError> {
    Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default())
}

fn message(body: &str) -> Message {
    read(body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// A `tools/call` with these parameters.
fn call(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#)
}

/// A request of any method with these parameters.
fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#)
}

/// The code and the fixed word of a refusal.
fn refusal(body: &str) -> Option<(i32, &'static str)> {
    read(body).err().map(|error| (error.code, error.name))
}

#[test]
fn a_call_says_what_it_asks_for() {
    let message = message(&call(r#"{"name":"get_user","arguments":{"id":1e2},"_meta":{"progressToken":"t"}}"#));
    assert_eq!(message.kind(), MessageKind::Request);
    assert_eq!(message.id(), Some("7"));
    assert_eq!(message.method(), Some("tools/call"));
    assert_eq!(message.tool(), Some("get_user"));
    assert_eq!(message.target(), Some("get_user"));
    assert_eq!(message.arguments().map(Value::raw), Some(&br#"{"id":1e2}"#[..]));
    assert_eq!(message.meta_revision(), None);
    assert!(message.result().is_none() && message.error().is_none());
}

#[test]
fn names_are_read_with_their_escapes_resolved() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/call","params":{"n\u0061me":"dr\u006fp","arguments":{}}}"#;
    let message = message(body);
    assert_eq!(message.method(), Some("tools/call"));
    assert_eq!(message.tool(), Some("drop"));
    assert_eq!(message.body(), body);
}

#[test]
fn the_kind_follows_from_the_keys() {
    for (body, kind, id) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, MessageKind::Request, Some("1")),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, MessageKind::Notification, None),
        (r#"{"jsonrpc":"2.0","id":"a","result":{}}"#, MessageKind::Response, Some("\"a\"")),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#, MessageKind::Response, Some("1")),
        (r#"{"error":{},"id":1,"jsonrpc":"2.0"}"#, MessageKind::Response, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"unknown/method","params":{}}"#, MessageKind::Request, Some("1")),
    ] {
        let message = message(body);
        assert_eq!((message.kind(), message.id()), (kind, id), "{body}");
    }
}

#[test]
fn an_id_is_a_short_string_or_an_integer_and_keeps_its_spelling() {
    let longest = format!("\"{}\"", "x".repeat(256));
    let digits = "9".repeat(64);
    for id in [
        "0",
        "1",
        "-1",
        "\"\"",
        "\"1\"",
        "\"\\u0041\"",
        "\"日本\"",
        "9007199254740991",
        "-9007199254740991",
        "9007199254740993",
        "12345678901234567890",
        &digits,
        &longest,
    ] {
        let message = message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
        assert_eq!(message.id(), Some(id));
    }
    let too_long = format!("\"{}\"", "x".repeat(257));
    for id in ["null", "true", "false", "1.0", "1.5", "1e3", "1E0", "-0", "{}", "[]", "[1]", "\"a\\u0000\"", &too_long]
    {
        for body in [
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{}}}}"#),
        ] {
            let error = read(&body).expect_err(&body);
            assert_eq!((error.code, error.name, error.id), (-32600, "id", None), "{body}");
        }
    }
}

#[test]
fn what_is_not_one_message_is_refused() {
    for (body, name) in [
        ("[]", "batch"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "batch"),
        ("null", "not_an_object"),
        ("1", "not_an_object"),
        ("\"ping\"", "not_an_object"),
        ("{}", "jsonrpc"),
        (r#"{"id":1,"method":"ping"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "jsonrpc"),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"2.0 ","id":1,"method":"ping"}"#, "jsonrpc"),
        (r#"{"jsonrpc":null,"id":1,"method":"ping"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"2.0"}"#, "no_method"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "no_method"),
        (r#"{"jsonrpc":"2.0","id":1,"params":{}}"#, "no_method"),
        (r#"{"jsonrpc":"2.0","id":1,"params":{},"result":{}}"#, "no_method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "two_kinds"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#, "two_kinds"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "two_kinds"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, "two_kinds"),
        (r#"{"jsonrpc":"2.0","id":1,"error":null}"#, "error"),
        (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, "error"),
        (r#"{"jsonrpc":"2.0","result":{}}"#, "id"),
        (r#"{"jsonrpc":"2.0","error":{}}"#, "id"),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call\u0000"}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/\u200bcall"}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}"#, "unknown_key"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","":1}"#, "unknown_key"),
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#, "id"),
        (r#"{"jsonrpc":"2.0","method":"tools/list"}"#, "id"),
    ] {
        assert_eq!(refusal(body), Some((-32600, name)), "{body}");
    }
}

#[test]
fn a_method_has_a_longest_name() {
    let body = |length: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(length));
    assert_eq!(refusal(&body(METHOD_BYTES_MAX)), None);
    assert_eq!(refusal(&body(METHOD_BYTES_MAX + 1)), Some((-32600, "method")));
}

#[test]
fn another_spelling_of_a_reserved_key_is_refused() {
    for body in [
        r#"{"Method":"x","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"METHOD":"x","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"m\u0045thod":"x","jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","ID":2,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","PARAMS":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","paramſ":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"Result":{}}"#,
        r#"{"JsonRpc":"2.0","id":1,"method":"ping"}"#,
        &call(r#"{"name":"safe","Name":"evil"}"#),
        &call(r#"{"name":"safe","nAme":"evil"}"#),
        &call(r#"{"name":"safe","Arguments":{}}"#),
        &call(r#"{"name":"safe","argumentſ":{}}"#),
        &call(r#"{"name":"safe","\u0041rguments":{}}"#),
        &call(r#"{"name":"safe","_META":{}}"#),
        &call(r#"{"name":"safe","_meta":{"io.modelcontextprotocol/ProtocolVersion":"2026-07-28"}}"#),
        &call(r#"{"name":"safe","_meta":{"ProgressToken":1}}"#),
        &request("resources/read", r#"{"uri":"a:b","URI":"c:d"}"#),
        &request("tasks/get", r#"{"taskId":"a","taskid":"b"}"#),
        &request("subscriptions/listen", r#"{"notifications":{"TaskIds":["a"]}}"#),
        &request("subscriptions/listen", r#"{"notifications":{"resourcesubscriptions":["a:b"]}}"#),
        &call(r#"{"name":"safe","_meta":{"io.modelcontextprotocol/Related-task":{"taskId":"a"}}}"#),
        &call(r#"{"name":"safe","_meta":{"io.modelcontextprotocol/related-task":{"TaskId":"a"}}}"#),
        &request("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"a","Name":"b"},"argument":{}}"#),
        &request("unknown/method", r#"{"Name":"a"}"#),
    ] {
        assert_eq!(refusal(body), Some((-32600, "key_variant")), "{body}");
    }
}

#[test]
fn arguments_and_unreserved_keys_may_be_spelt_in_any_case() {
    for body in [
        call(r#"{"name":"x","arguments":{"Name":1,"name":2,"NAME":3,"Method":4}}"#),
        call(r#"{"name":"x","vendorKey":1,"VendorKey":2}"#),
        call(r#"{"name":"x","_meta":{"com.example/Name":1}}"#),
    ] {
        assert_eq!(refusal(&body), None, "{body}");
    }
}

#[test]
fn parameters_of_the_wrong_form_are_refused_with_the_id() {
    for (body, name) in [
        (call("[]"), "params"),
        (call(r#"["get_user",{}]"#), "params"),
        (call("null"), "params"),
        (call("\"x\""), "params"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#.into(), "params"),
        (call("{}"), "name"),
        (call(r#"{"name":null}"#), "name"),
        (call(r#"{"name":1}"#), "name"),
        (call(r#"{"name":["x"]}"#), "name"),
        (call(r#"{"name":"x\u0000"}"#), "name"),
        (call(r#"{"name":"x\n"}"#), "name"),
        (call(r#"{"name":"x\u0085"}"#), "name"),
        (call(r#"{"name":"x\u202e"}"#), "name"),
        (call("{\"name\":\"x\u{2066}\"}"), "name"),
        (call("{\"name\":\"x\u{200b}\"}"), "name"),
        (call("{\"name\":\"x\u{e0041}\"}"), "name"),
        (call(&format!(r#"{{"name":"{}"}}"#, "x".repeat(NAME_BYTES_MAX + 1))), "name"),
        (call(r#"{"name":"x","arguments":[]}"#), "arguments"),
        (call(r#"{"name":"x","arguments":"{}"}"#), "arguments"),
        (call(r#"{"name":"x","arguments":null}"#), "arguments"),
        (call(r#"{"name":"x","_meta":[]}"#), "meta"),
        (call(r#"{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":20260728}}"#), "meta"),
        (call(r#"{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":null}}"#), "meta"),
        (request("prompts/get", "{}"), "name"),
        (request("prompts/get", r#"{"name":"p","arguments":1}"#), "arguments"),
        (request("prompts/get", r#"{"name":"p\u200d"}"#), "name"),
        (request("resources/read", "{}"), "uri"),
        (request("resources/read", r#"{"uri":{}}"#), "uri"),
        (request("resources/read", r#"{"uri":"file:///a\u0000b"}"#), "uri"),
        (request("resources/read", &format!(r#"{{"uri":"{}"}}"#, "x".repeat(URI_BYTES_MAX + 1))), "uri"),
        (request("resources/subscribe", r#"{"uri":1}"#), "uri"),
        (request("tasks/get", r#"{"taskId":1}"#), "taskId"),
        (request("completion/complete", "{}"), "ref"),
        (request("completion/complete", r#"{"ref":"x"}"#), "ref"),
        (request("completion/complete", r#"{"ref":{"type":"ref/other","name":"x"}}"#), "ref"),
        (request("completion/complete", r#"{"ref":{"type":"ref/prompt","uri":"x"}}"#), "name"),
        (request("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"x\n"}}"#), "uri"),
        (request("tools/list", "[]"), "params"),
    ] {
        let error = read(&body).expect_err(&body);
        assert_eq!((error.code, error.name, error.id.as_deref()), (-32602, name, Some("7")), "{body}");
    }
}

#[test]
fn the_target_is_what_the_method_is_about() {
    for (method, params, target) in [
        ("tools/call", r#"{"name":"日本語"}"#, Some("日本語")),
        ("prompts/get", r#"{"name":"p","arguments":{}}"#, Some("p")),
        ("resources/read", r#"{"uri":"file:///a%20b?id=1"}"#, Some("file:///a%20b?id=1")),
        ("resources/unsubscribe", r#"{"uri":"a:b"}"#, Some("a:b")),
        ("tasks/cancel", r#"{"taskId":"t"}"#, Some("t")),
        ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p"}}"#, Some("p")),
        ("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"a:{b}"}}"#, Some("a:{b}")),
        ("tools/list", r#"{"cursor":"","name":"x"}"#, None),
    ] {
        let message = message(&request(method, params));
        assert_eq!(message.target(), target, "{method}");
        assert_eq!(message.tool().is_some(), method == "tools/call", "{method}");
    }
}

#[test]
fn a_message_says_which_revision_it_speaks() {
    let message = message(&call(r#"{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#));
    assert_eq!(message.meta_revision(), Some("2026-07-28"));
}

#[test]
fn servers_may_answer_with_an_error_without_an_id() {
    for body in [
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x"}}"#,
    ] {
        let message = Message::read_from_server(Bytes::from(body), &Limits::default()).expect(body);
        assert_eq!((message.kind(), message.id()), (MessageKind::Response, None));
        assert!(message.error().is_some());
    }
    for body in [
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
    ] {
        let error = Message::read_from_server(Bytes::from(body), &Limits::default()).expect_err(body);
        assert_eq!(error.name, "id", "{body}");
    }
}

#[test]
fn a_body_that_is_not_read_has_the_code_of_its_fault() {
    for (body, code, name) in [
        ("{", -32700, "truncated"),
        ("\u{feff}{}", -32700, "byte_order_mark"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}x"#, -32700, "trailing_data"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"pong"}"#, -32600, "duplicate_key"),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, -32600, "duplicate_key"),
        (&call(r#"{"name":"safe","n\u0061me":"evil"}"#), -32600, "duplicate_key"),
        (&call(r#"{"name":"x","arguments":{"a":1,"a":2}}"#), -32600, "duplicate_key"),
        (&call(r#"{"name":"x","arguments":{"a":{"b":[{"c":1,"c":2}]}}}"#), -32600, "duplicate_key"),
        (&call(&format!(r#"{{"name":"x","arguments":{{"a":{}}}}}"#, "[".repeat(10_000))), -32600, "too_deep"),
        (&call(r#"{"name":"x","arguments":{"a":1e400}}"#), -32700, "number_too_large"),
        (&call(r#"{"name":"x","arguments":{"a":"\ud800"}}"#), -32700, "lone_surrogate"),
    ] {
        let error = read(body).expect_err(body);
        assert_eq!((error.code, error.name, error.id), (code, name, None), "{body}");
    }
}

/// What the gate takes and what it refuses, row by row of the list of ambiguities.
#[test]
fn each_ambiguity_has_its_verdict() {
    let arguments = |value: &str| call(&format!(r#"{{"name":"x","arguments":{{"a":{value}}}}}"#));
    let keys = |count: usize| -> String { (0..count).map(|key| format!("\"{key}\":0,")).collect::<String>() };
    for (what, body, expected) in [
        ("escaped spelling of keys and names", call(r#"{"n\u0061me":"\u0078"}"#), None),
        ("duplicate key below the arguments", arguments(r#"{"k":1,"\u006b":2}"#), Some((-32600, "duplicate_key"))),
        ("case variants inside the arguments", arguments(r#"{"k":1,"K":2}"#), None),
        (
            "case variant in the envelope",
            r#"{"jsonrpc":"2.0","Id":1,"method":"ping"}"#.into(),
            Some((-32600, "key_variant")),
        ),
        ("name that looks like another one", call("{\"name\":\"\u{435}val\"}"), None),
        ("name in another normal form", call("{\"name\":\"e\u{301}\"}"), None),
        (
            "unknown key in the envelope",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":1}"#.into(),
            Some((-32600, "unknown_key")),
        ),
        ("unknown key in the parameters", call(r#"{"name":"x","y":1}"#), None),
        ("number beyond a double", arguments("1E400"), Some((-32700, "number_too_large"))),
        ("number of 65 digits", arguments(&"1".repeat(65)), Some((-32600, "number_too_long"))),
        ("numbers in odd notation", arguments("[1.0,1e2,-0,1E-7]"), None),
        ("integer beyond 2^53 in the arguments", arguments("9007199254740993"), None),
        ("NUL in the arguments", arguments(r#""\u0000""#), None),
        ("NUL in a name", call(r#"{"name":"\u0000"}"#), Some((-32602, "name"))),
        ("text direction in the arguments", arguments("\"\u{202e}\""), None),
        ("batch", format!("[{}]", call(r#"{"name":"x"}"#)), Some((-32600, "batch"))),
        ("second document", format!("{0}{0}", call(r#"{"name":"x"}"#)), Some((-32700, "trailing_data"))),
        ("newline after the document", format!("{}\n", call(r#"{"name":"x"}"#)), None),
        (
            "65 spaces before",
            format!("{}{}", " ".repeat(65), call(r#"{"name":"x"}"#)),
            Some((-32700, "leading_whitespace")),
        ),
        ("comment", arguments("1/**/"), Some((-32700, "bad_number"))),
        ("not a number", arguments("NaN"), Some((-32700, "unexpected_byte"))),
        ("single quotes", arguments("'x'"), Some((-32700, "unexpected_byte"))),
        ("depth 64", arguments(&format!("{}{}", "[".repeat(61), "]".repeat(61))), None),
        ("depth 65", arguments(&format!("{}{}", "[".repeat(62), "]".repeat(62))), Some((-32600, "too_deep"))),
        ("10,000 keys", arguments(&format!("{{{}\"z\":0}}", keys(9_999))), None),
        ("10,001 keys", arguments(&format!("{{{}\"z\":0}}", keys(10_000))), Some((-32600, "too_many_keys"))),
        ("too many values", arguments(&format!("[{}0]", "0,".repeat(100_000))), Some((-32600, "too_many_values"))),
        ("long string", arguments(&format!("\"{}\"", "x".repeat(1_048_577))), Some((-32600, "string_too_long"))),
        ("long key", arguments(&format!("{{\"{}\":0}}", "x".repeat(257))), Some((-32600, "key_too_long"))),
    ] {
        assert_eq!(refusal(&body), expected, "{what}");
    }
}

#[test]
fn a_refusal_repeats_nothing_and_echoes_the_id() {
    let error = read(r#"{"jsonrpc":"2.0","id":"\u0061","method":"ping","SeCrEt":1}"#).unwrap_err();
    assert_eq!(error.to_string(), "unknown key in the message at byte 47");
    assert_eq!(error.id.as_deref(), Some(r#""\u0061""#));
}

#[test]
fn arguments_keep_every_byte() {
    let arguments = r#"{ "n": 12345678901234567890, "e":1E+2, "z":-0, "s":"\u0041\/", "nul":"\u0000" }"#;
    let message = message(&call(&format!(r#"{{"name":"x","arguments":{arguments}}}"#)));
    assert_eq!(message.arguments().map(Value::raw), Some(arguments.as_bytes()));
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value as Json;
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map("[a-cA-C\"\\\\]{0,3}", inner, 0..6)
                .prop_map(|entries| Json::from(serde_json::Map::from_iter(entries))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_in_a_call_is_what_serde_json_reads(
        name in any::<String>(),
        arguments in prop::collection::hash_map("[a-c\\\\\"é]{0,4}", any_value(), 0..5),
        pretty in any::<bool>(),
    ) {
        let arguments = serde_json::Value::from(serde_json::Map::from_iter(arguments));
        let sent = serde_json::json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": name, "arguments": arguments},
        });
        let body = if pretty { serde_json::to_string_pretty(&sent) } else { serde_json::to_string(&sent) };
        match read(&body.expect("is written")) {
            Ok(message) => {
                let theirs: serde_json::Value = serde_json::from_slice(message.body()).expect("is read");
                prop_assert_eq!(message.method(), theirs["method"].as_str());
                prop_assert_eq!(message.tool(), theirs["params"]["name"].as_str());
                let own = message.arguments().expect("are there");
                let own: serde_json::Value = serde_json::from_slice(own.raw()).expect("is a value");
                prop_assert_eq!(&own, &theirs["params"]["arguments"]);
            }
            Err(error) => prop_assert!(
                error.name == "name" && (name.len() > NAME_BYTES_MAX || !crate::mcp::names::is_plain(&name)),
                "{}", error
            ),
        }
    }

    /// Replacing any value of an accepted message by another one gives an accepted document that differs in nothing
    /// else.
    #[test]
    fn a_spliced_message_is_still_read(arguments in any_value(), replacement in any_value(), pick in any::<prop::sample::Index>()) {
        let sent = call(&format!(r#"{{"name":"x","arguments":{{"a":{arguments}}}}}"#));
        let message = message(&sent);
        let mut values = vec![message.arguments().expect("are there").get("a").expect("is there")];
        let mut next = 0;
        while let Some(value) = values.get(next).copied() {
            values.extend(value.items().chain(value.entries().map(|(_, value)| value)));
            next += 1;
        }
        let span = pick.get(&values).span();
        let splices = [Splice { span: span.clone(), replacement: Bytes::from(replacement.to_string()) }];
        let spliced = splice::apply(message.body(), &splices).expect("fits");
        let again = Message::read(spliced.clone(), &Limits::default()).expect("is read");
        prop_assert_eq!(again.tool(), Some("x"));
        prop_assert_eq!(&spliced[..span.start], &message.body()[..span.start]);
        prop_assert_eq!(&spliced[spliced.len() - (sent.len() - span.end)..], &message.body()[span.end..]);
    }
}
