//! Header vectors of the 2026-07-28 revision.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use super::*;
use crate::mcp::document::Limits;

const META: &str =
    r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            (HeaderName::from_bytes(name.as_bytes()).expect("a name"), value)
        })
        .collect()
}

fn message(body: &str) -> Message {
    Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).expect("is a message")
}

fn request(method: &str, params: &str) -> Message {
    message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
}

fn verified(pairs: &[(&str, &str)], message: &Message) -> Result<Revision, i32> {
    verify(&headers(pairs), message, &Revision::ALL).map_err(|error| error.code)
}

/// The outcome of a `tools/call` of `name` (as JSON) whose `Mcp-Name` is `header`.
fn named(header: &str, name: &str) -> Result<Revision, i32> {
    let message = request("tools/call", &format!(r#"{{"name":{name},"_meta":{META}}}"#));
    verified(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", header)], &message)
}

const FINE: Result<Revision, i32> = Ok(Revision::V2026_07_28);

#[test]
fn headers_that_agree_pass() {
    let list = request("tools/list", &format!(r#"{{"_meta":{META}}}"#));
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/list")], &list), FINE);
    assert_eq!(verified(&[("MCP-PROTOCOL-VERSION", "2026-07-28"), ("MCP-Method", "tools/list")], &list), FINE);
    assert_eq!(named("foo", r#""foo""#), FINE);
    assert_eq!(named("  \tfoo  ", r#""foo""#), FINE);
}

#[test]
fn a_method_header_must_be_there_and_exact() {
    let list = request("tools/list", &format!(r#"{{"_meta":{META}}}"#));
    assert_eq!(verified(&[VERSION], &list), Err(-32020));
    for method in ["prompts/list", "TOOLS/LIST", "tools/list,tools/list", "", "=?base64?dG9vbHMvbGlzdA==?="] {
        assert_eq!(verified(&[VERSION, ("mcp-method", method)], &list), Err(-32020), "{method}");
    }
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/list"), ("mcp-method", "tools/list")], &list), Err(-32020));
}

#[test]
fn a_name_header_must_be_there_and_mean_the_name() {
    let call = request("tools/call", &format!(r#"{{"name":"foo","_meta":{META}}}"#));
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/call")], &call), Err(-32020));
    for (header, name, expected) in [
        ("foo", r#""bar""#, Err(-32020)),
        ("Foo", r#""foo""#, Err(-32020)),
        ("foo, foo", r#""foo""#, Err(-32020)),
        ("", r#""foo""#, Err(-32020)),
        ("", r#""""#, FINE),
        ("a b\tc", "\"a b\\u0063\"", Err(-32020)),
        ("a b c", r#""a b c""#, FINE),
        ("=?base64?5pel5pys6Kqe?=", r#""日本語""#, FINE),
        ("=?base64?5pel5pys6Kqe?=", r#""\u65e5\u672c\u8a9e""#, FINE),
        ("=?base64?5pel5pys6Kqe?=", r#""日本""#, Err(-32020)),
        ("=?base64?Zm9v?=", r#""foo""#, FINE),
        ("=?base64?IGZvbyA=?=", r#"" foo ""#, FINE),
        ("=?base64??=", r#""""#, FINE),
        ("日本語", r#""日本語""#, Err(-32020)),
        ("=?base64?SGVsbG8?=", r#""Hello""#, Err(-32020)),
        ("=?base64?SGVsbG8=?=", r#""Hello""#, FINE),
        ("=?base64?SGVsbG9=?=", r#""Hello""#, Err(-32020)),
        ("=?base64?SGVs bG8=?=", r#""Hello""#, Err(-32020)),
        ("=?base64?SGVs!!!bG8=?=", r#""Hello""#, Err(-32020)),
        ("=?base64?__8=?=", r#""x""#, Err(-32020)),
        ("=?base64?//8=?=", r#""x""#, Err(-32020)),
        ("=?BASE64?SGVsbG8=?=", r#""=?BASE64?SGVsbG8=?=""#, FINE),
        ("=?BASE64?SGVsbG8=?=", r#""Hello""#, Err(-32020)),
        ("=?base64?SGVsbG8=", r#""=?base64?SGVsbG8=""#, FINE),
        ("SGVsbG8=?=", r#""SGVsbG8=?=""#, FINE),
        ("=?base64?=", r#""=?base64?=""#, FINE),
        ("=?base64?literal?=", r#""=?base64?literal?=""#, Err(-32020)),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", r#""=?base64?literal?=""#, FINE),
    ] {
        assert_eq!(named(header, name), expected, "{header} {name}");
    }
}

#[test]
fn a_name_header_stands_once() {
    let call = request("tools/call", &format!(r#"{{"name":"safe","_meta":{META}}}"#));
    for second in ["evil", "safe"] {
        let pairs = [VERSION, ("mcp-method", "tools/call"), ("mcp-name", "safe"), ("mcp-name", second)];
        assert_eq!(verified(&pairs, &call), Err(-32020), "{second}");
    }
}

#[test]
fn each_method_is_named_by_its_own_parameter() {
    for (method, params, name) in [
        ("prompts/get", r#""name":"p""#, "p"),
        ("resources/read", r#""uri":"file:///a%20b?id=1""#, "file:///a%20b?id=1"),
        ("tasks/get", r#""taskId":"t""#, "t"),
        ("tasks/update", r#""taskId":"t""#, "t"),
        ("tasks/cancel", r#""taskId":"t""#, "t"),
    ] {
        let message = request(method, &format!(r#"{{{params},"_meta":{META}}}"#));
        assert_eq!(verified(&[VERSION, ("mcp-method", method), ("mcp-name", name)], &message), FINE, "{method}");
        assert_eq!(verified(&[VERSION, ("mcp-method", method), ("mcp-name", "x")], &message), Err(-32020), "{method}");
        assert_eq!(verified(&[VERSION, ("mcp-method", method)], &message), Err(-32020), "{method}");
    }
    let list = request("tools/list", &format!(r#"{{"_meta":{META}}}"#));
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/list"), ("mcp-name", "x")], &list), FINE);
}

#[test]
fn the_version_must_agree_and_be_spoken() {
    let of = |version: &str| META.replace("2026-07-28", version);
    for (header, meta, expected) in [
        (Some("2026-07-28"), of("2025-11-25"), Err(-32020)),
        (Some("2025-11-25"), of("2026-07-28"), Err(-32020)),
        (Some("2026-07-28"), of("v999"), Err(-32020)),
        (Some("v999"), of("v999"), Err(-32022)),
        (Some("2027-01-01"), of("2027-01-01"), Err(-32022)),
        (Some("2025-11-25"), of("2025-11-25"), Err(-32022)),
        (None, of("2026-07-28"), Err(-32020)),
        (Some(" 2026-07-28 "), of("2026-07-28"), FINE),
    ] {
        let list = request("tools/list", &format!(r#"{{"_meta":{meta}}}"#));
        let pairs: Vec<_> =
            [("mcp-method", "tools/list")].into_iter().chain(header.map(|header| (PROTOCOL_VERSION, header))).collect();
        assert_eq!(verified(&pairs, &list), expected, "{header:?} {meta}");
    }
    let list = request("tools/list", &format!(r#"{{"_meta":{META}}}"#));
    assert_eq!(verified(&[VERSION, VERSION, ("mcp-method", "tools/list")], &list), Err(-32020));
    let older = verify(&headers(&[VERSION, ("mcp-method", "tools/list")]), &list, &[Revision::V2025_11_25]);
    assert_eq!(older.map_err(|error| error.code), Err(-32022));
}

#[test]
fn a_version_that_is_not_spoken_is_answered_with_those_that_are() {
    let meta = META.replace("2026-07-28", r#"v\"9"#);
    let list = request("tools/list", &format!(r#"{{"_meta":{meta}}}"#));
    let pairs = headers(&[(PROTOCOL_VERSION, "v\"9"), ("mcp-method", "tools/list")]);
    let error = verify(&pairs, &list, &[Revision::V2025_11_25, Revision::V2026_07_28]).expect_err("unknown");
    let data: serde_json::Value = serde_json::from_str(&error.data.expect("data")).expect("JSON");
    assert_eq!(data, serde_json::json!({"supported": ["2025-11-25", "2026-07-28"], "requested": "v\"9"}));
    assert!(!error.text.contains("v\"9"));
}

#[test]
fn a_request_has_the_meta_of_its_revision() {
    let pairs = [VERSION, ("mcp-method", "tools/list")];
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    for (params, expected) in [
        ("{}".into(), Err(-32602)),
        (r#"{"_meta":{}}"#.into(), Err(-32602)),
        (format!(r#"{{"_meta":{{{version}}}}}"#), Err(-32602)),
        (format!(r#"{{"_meta":{{{capabilities}}}}}"#), Err(-32602)),
        (format!(r#"{{"_meta":{{{version},"io.modelcontextprotocol/clientCapabilities":[]}}}}"#), Err(-32602)),
        (format!(r#"{{"_meta":{{{version},{capabilities}}}}}"#), FINE),
        (format!(r#"{{"_meta":{{{version},{capabilities},"io.modelcontextprotocol/clientInfo":{{}}}}}}"#), FINE),
    ] {
        assert_eq!(verified(&pairs, &request("tools/list", &params)), expected, "{params}");
    }
}

#[test]
fn method_and_name_are_checked_before_meta_and_version() {
    let call = request("tools/call", r#"{"name":"foo"}"#);
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/list")], &call), Err(-32020));
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "bar")], &call), Err(-32020));
    assert_eq!(verified(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "foo")], &call), Err(-32602));
    let unknown = META.replace("2026-07-28", "v999");
    let call = request("tools/call", &format!(r#"{{"name":"foo","_meta":{unknown}}}"#));
    let pairs = [("mcp-protocol-version", "v999"), ("mcp-method", "tools/call"), ("mcp-name", "bar")];
    assert_eq!(verified(&pairs, &call), Err(-32020));
}

#[test]
fn of_a_notification_only_what_is_there_must_agree() {
    let bare = message(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    assert_eq!(verified(&[VERSION], &bare), FINE);
    assert_eq!(verified(&[VERSION, ("mcp-method", "notifications/x")], &bare), FINE);
    assert_eq!(verified(&[VERSION, ("mcp-method", "notifications/y")], &bare), Err(-32020));
    assert_eq!(verified(&[("mcp-protocol-version", "v999")], &bare), Err(-32022));
    let with_meta = message(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"_meta":{META}}}}}"#));
    assert_eq!(verified(&[], &with_meta), FINE);
    assert_eq!(verified(&[("mcp-protocol-version", "2025-11-25")], &with_meta), Err(-32020));
}

#[test]
fn a_response_of_a_client_is_refused() {
    let response = message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(verified(&[VERSION], &response), Err(-32600));
}

#[test]
fn a_long_value_is_refused_before_it_is_decoded() {
    let name = "x".repeat(200);
    let encoded = format!("=?base64?{}?=", STANDARD.encode(&name));
    assert_eq!(named(&encoded, &format!("\"{name}\"")), FINE);
    assert_eq!(named(&"x".repeat(VALUE_BYTES_MAX + 1), r#""x""#), Err(-32020));
}

#[test]
fn a_message_claims_to_be_modern_by_body_or_header() {
    let legacy = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    for (version, expected) in [
        ("2026-07-28", true),
        (" 2026-07-28", true),
        ("2027-01-01", true),
        ("2025-11-25", false),
        ("v999", false),
        ("9", false),
        ("1.0", false),
    ] {
        assert_eq!(claims_modern(&headers(&[(PROTOCOL_VERSION, version)]), &legacy), expected, "{version}");
    }
    assert!(!claims_modern(&HeaderMap::new(), &legacy));
    assert!(claims_modern(&headers(&[(PROTOCOL_VERSION, "2025-06-18"), VERSION]), &legacy));
    let modern = request("tools/list", &format!(r#"{{"_meta":{META}}}"#));
    assert!(claims_modern(&HeaderMap::new(), &modern));
    assert!(claims_modern(&headers(&[(PROTOCOL_VERSION, "2025-11-25")]), &modern));
}

#[test]
fn headers_that_repeat_arguments_stand_once_each_and_are_not_too_long_in_all() {
    let call = request("tools/call", &format!(r#"{{"name":"foo","_meta":{META}}}"#));
    let with = |params: &[(String, String)]| {
        let params = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<_> =
            [VERSION, ("mcp-method", "tools/call"), ("mcp-name", "foo")].into_iter().chain(params).collect();
        verified(&pairs, &call)
    };
    let param = |name: &str, length: usize| (format!("Mcp-Param-{name}"), "x".repeat(length));
    assert_eq!(with(&[param("a", 1), param("b", 1)]), FINE);
    assert_eq!(with(&[param("a", 1), param("A", 1)]), Err(-32020));
    assert_eq!(with(&[param("a", PARAMS_BYTES_MAX / 2), param("b", PARAMS_BYTES_MAX / 2)]), FINE);
    assert_eq!(with(&[param("a", PARAMS_BYTES_MAX / 2), param("b", PARAMS_BYTES_MAX / 2 + 1)]), Err(-32020));
}
