//! What a JSON-RPC message must be to go upstream, and that it goes there byte for byte.
//!
//! Every refused body leaves one record with its reason and not one byte upstream; every accepted one arrives as it
//! was written, and the record holds the digest of exactly that.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// A server and an agent whose calls are constrained; `policy` is the `[policy]` table's content.
struct Bench {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

async fn start_with(policy: &str) -> Bench {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&format!(
        r#"
        [policy]
        {policy}
        [servers.db]
        url = "{}"
        blocked_tools = ["drop_*"]
        [keys.ci]
        digest = "{}"
        mcp_servers = ["db"]
        agent = "analyst"
        [agents.analyst.servers.db.argument_constraints]
        query = [
            {{ arg = "sql", pattern = '^SELECT [^;]*$', description = "one SELECT" }},
            {{ arg = "limit", pattern = '^[0-9]{{1,3}}$', optional = true }},
        ]
        send = [{{ arg = "to[*].address", pattern = '@example\.com$', description = "our own addresses" }}]
        move = [{{ arg = 'options."dry.run"', pattern = '^true$' }}]
        plain = [{{ arg = "n", pattern = '^(1|1\.0|1e2|-0|12345678901234567890)$' }}]
        "#,
        upstream.url(),
        key.digest
    ));
    Bench { upstream, gateway, key }
}

impl Bench {
    async fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(&[], body.as_ref()).await
    }

    async fn post_with(&self, lines: &[&str], body: &[u8]) -> Answer {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!(
            "POST /mcp/db HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n",
            self.key.key,
            body.len()
        );
        client::send(self.gateway.data, [head.as_bytes(), body].concat()).await
    }

    /// Posts a call of a tool with arguments as they stand.
    async fn call(&self, tool: &str, arguments: &str) -> Answer {
        self.post(format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        ))
        .await
    }
}

/// A body, and what its refusal says: the code, the id as written where one could be read, the reason on record.
struct Row {
    name: &'static str,
    body: Vec<u8>,
    code: i64,
    id: Option<&'static str>,
    reason: &'static str,
}

fn row(name: &'static str, body: impl Into<Vec<u8>>, code: i64, id: Option<&'static str>, reason: &'static str) -> Row {
    Row { name, body: body.into(), code, id, reason }
}

/// Posts each body; holds the answers and the records to their rows, and the upstream to silence.
async fn all_refused(rows: Vec<Row>) {
    let mut bench = start_with("").await;
    for row in &rows {
        // The newest revision without batches and without headers of its own.
        let answer = bench.post_with(&["MCP-Protocol-Version: 2025-06-18"], &row.body).await;
        let Row { name, code, .. } = row;
        assert_eq!((answer.status, answer.code()), (400, Some(*code)), "{name}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        let start =
            format!(r#"{{"jsonrpc":"2.0",{}"error":{{"#, row.id.map(|id| format!("\"id\":{id},")).unwrap_or_default());
        assert!(answer.text().starts_with(&start), "{name}: {}", answer.text());
    }
    let records = bench.gateway.wait_for_records("refused", rows.len());
    for (record, row) in records.iter().zip(&rows) {
        let expected = (&json!(row.reason), &json!(400), &json!("key:ci"), &json!("db"));
        assert_eq!(
            (&record["reason"], &record["status"], &record["principal"], &record["server"]),
            expected,
            "{}",
            row.name
        );
    }
    assert_eq!(bench.upstream.connections().len(), 0);
    assert!(bench.gateway.is_alive());
    assert_eq!(bench.call("echo", "{}").await.status, 200);
}

/// A call with these arguments.
fn with_arguments(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#)
}

/// A call of a tool by its name as JSON.
fn with_name(name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name}}}}}"#)
}

fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#)
}

fn utf_16(text: &str, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

#[tokio::test]
async fn bytes_that_are_no_json_text_are_refused() {
    let list = with_id("1");
    let inside = |bytes: &[u8]| {
        [br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"#, bytes, br#""}}"#].concat()
    };
    all_refused(vec![
        row("nothing", "", -32700, None, "empty"),
        row("white space", " \r\n\t", -32700, None, "empty"),
        row("a byte that is no UTF-8", inside(b"\xff"), -32700, None, "not_utf8"),
        row("half a character", inside(b"\xe2\x82"), -32700, None, "not_utf8"),
        row("an overlong slash", inside(b"\xc0\xaf"), -32700, None, "not_utf8"),
        row("an overlong quote", inside(b"\xe0\x80\xa2"), -32700, None, "not_utf8"),
        row("a surrogate in UTF-8", inside(b"\xed\xa0\x80"), -32700, None, "not_utf8"),
        row("beyond the last character", inside(b"\xf4\x90\x80\x80"), -32700, None, "not_utf8"),
        row("a byte order mark", format!("\u{feff}{list}"), -32700, None, "byte_order_mark"),
        row(
            "UTF-16 with a mark",
            [b"\xff\xfe".to_vec(), utf_16(&list, u16::to_le_bytes)].concat(),
            -32700,
            None,
            "not_utf8",
        ),
        row("UTF-16", utf_16(&list, u16::to_le_bytes), -32700, None, "unexpected_byte"),
        row("UTF-16, the other way round", utf_16(&list, u16::to_be_bytes), -32700, None, "unexpected_byte"),
        row(
            "UTF-32",
            list.chars().flat_map(|c| (c as u32).to_le_bytes()).collect::<Vec<u8>>(),
            -32700,
            None,
            "unexpected_byte",
        ),
        row("a second document", format!("{list}{list}"), -32700, None, "trailing_data"),
        row("a second document on a line of its own", format!("{list}\n{list}"), -32700, None, "trailing_data"),
        row("a bracket too many", format!("{list}}}"), -32700, None, "trailing_data"),
        row("a NUL behind", format!("{list}\0"), -32700, None, "trailing_data"),
        row("a comma behind", format!("{list},"), -32700, None, "trailing_data"),
        row("65 bytes of white space first", format!("{}{list}", " ".repeat(65)), -32700, None, "leading_whitespace"),
        row("a form feed first", format!("\x0c{list}"), -32700, None, "unexpected_byte"),
        row("half a document", &list.as_bytes()[..list.len() - 1], -32700, None, "truncated"),
        row("half a string", &list.as_bytes()[..20], -32700, None, "truncated"),
        row("a comment", list.replacen('{', "{/* x */", 1), -32700, None, "unexpected_byte"),
        row("a comment behind", format!("{list}// x"), -32700, None, "trailing_data"),
        row("single quotes", list.replace('"', "'"), -32700, None, "unexpected_byte"),
        row("a key without quotes", list.replace(r#""id""#, "id"), -32700, None, "unexpected_byte"),
        row("a comma at the end", list.replace('}', ",}"), -32700, None, "unexpected_byte"),
        row("XML", "<methodCall/>", -32700, None, "unexpected_byte"),
        row("a form", "method=tools%2Flist&id=1", -32700, None, "unexpected_byte"),
    ])
    .await;
}

#[tokio::test]
async fn strings_and_numbers_have_one_reading() {
    let string = |text: &str| with_arguments(&format!(r#"{{"a":"{text}"}}"#));
    let number = |text: &str| with_arguments(&format!(r#"{{"a":{text}}}"#));
    let mut rows = vec![
        row("a high surrogate alone", string(r"\ud800"), -32700, None, "lone_surrogate"),
        row("a low surrogate alone", string(r"\udc00"), -32700, None, "lone_surrogate"),
        row("a pair the wrong way round", string(r"\udc00\ud800"), -32700, None, "lone_surrogate"),
        row("two high surrogates", string(r"\ud83d\ud83d"), -32700, None, "lone_surrogate"),
        row("a high surrogate before a letter", string(r"\ud83dx"), -32700, None, "lone_surrogate"),
        row("a lone surrogate in a key", with_arguments(r#"{"\ud800":1}"#), -32700, None, "lone_surrogate"),
        row("a lone surrogate in the name", with_name(r#""\udfff""#), -32700, None, "lone_surrogate"),
        row("an escape of three digits", string(r"\u12"), -32700, None, "bad_escape"),
        row("an escape with another letter", string(r"\u12G4"), -32700, None, "bad_escape"),
        row("an escape in braces", string(r"\u{41}"), -32700, None, "bad_escape"),
        row("an unknown escape", string(r"\x41"), -32700, None, "bad_escape"),
        row("a quote of another language", string(r"\'"), -32700, None, "bad_escape"),
        row("a line feed in a string", string("a\nb"), -32700, None, "control_character"),
        row("a NUL in a string", string("a\0b"), -32700, None, "control_character"),
        row("a tab in a string", string("a\tb"), -32700, None, "control_character"),
        row("a number beyond a double", number("1E400"), -32700, None, "number_too_large"),
        row("the same below zero", number("-1e400"), -32700, None, "number_too_large"),
        row("400 digits", number(&"9".repeat(400)), -32600, None, "number_too_long"),
        row("65 digits", number(&"1".repeat(65)), -32600, None, "number_too_long"),
    ];
    for text in ["01", "+1", ".5", "1.", "1.e1", "1e", "1e+", "-", "--1", "0x10", "1_0", "1,0", "1f", "00", "-01"] {
        let reason = if matches!(text, "1_0" | "1,0" | "1f" | "+1" | ".5" | "0x10") { "" } else { "bad_number" };
        rows.push(row("a number that is none", number(text), -32700, None, reason));
    }
    for text in ["NaN", "Infinity", "-Infinity", "nan", "undefined", "True", "TRUE", "nul", "None"] {
        rows.push(row("a word that is none", number(text), -32700, None, ""));
    }
    // Which of two words names these flaws is no contract; that each is refused is.
    let (named, unnamed): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| !row.reason.is_empty());
    let bench = start_with("").await;
    for row in &unnamed {
        let answer = bench.post(&row.body).await;
        assert_eq!((answer.status, answer.code()), (400, Some(-32700)), "{}", String::from_utf8_lossy(&row.body));
    }
    bench.gateway.wait_for_records("refused", unnamed.len());
    assert_eq!(bench.upstream.connections().len(), 0);
    all_refused(named).await;
}

#[tokio::test]
async fn a_key_that_stands_twice_refuses_the_message_wherever_it_stands() {
    let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params}}}}}"#);
    let duplicate = |name: &'static str, body: String| row(name, body, -32600, None, "duplicate_key");
    all_refused(vec![
        duplicate("method", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#.into()),
        duplicate(
            "method, escaped",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","me\u0074hod":"tools/call"}"#.into(),
        ),
        duplicate("id", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list"}"#.into()),
        duplicate("params", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{},"params":{}}"#.into()),
        duplicate("the version, equal", r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"tools/list"}"#.into()),
        duplicate("name", call(r#""name":"safe","name":"evil""#)),
        duplicate("name, escaped", call(r#""name":"safe","n\u0061me":"evil""#)),
        duplicate("name, both escaped", call(r#""\u006eame":"safe","nam\u0065":"evil""#)),
        duplicate("arguments", call(r#""name":"a","arguments":{},"arguments":{"sql":"x"}"#)),
        duplicate("an argument", call(r#""name":"a","arguments":{"sql":"SELECT 1","sql":"DROP"}"#)),
        duplicate("an argument, escaped", call(r#""name":"a","arguments":{"sql":"SELECT 1","s\u0071l":"DROP"}"#)),
        duplicate("deep inside", call(r#""name":"a","arguments":{"b":[[{"c":{"d":1,"d":1}}]]}"#)),
        duplicate("a key of another script", call(r#""name":"a","arguments":{"é":1,"\u00e9":2}"#)),
        duplicate("a key beyond the first plane", call(r#""name":"a","arguments":{"😀":1,"\ud83d\ude00":2}"#)),
        duplicate("an empty key", call(r#""name":"a","arguments":{"":1,"":2}"#)),
        duplicate(
            "far apart",
            call(&format!(
                r#""name":"a","arguments":{{"z":0,{}"z":1}}"#,
                (0..5000).map(|n| format!("\"k{n}\":0,")).collect::<String>()
            )),
        ),
        duplicate("_meta", call(r#""name":"a","_meta":{},"_meta":{}"#)),
        duplicate("inside _meta", call(r#""name":"a","_meta":{"progressToken":1,"progressToken":2}"#)),
        duplicate(
            "unknown keys in the envelope",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","x":1,"x":2}"#.into(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_reserved_key_has_one_spelling() {
    let envelope = |key: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","{key}":"tools/call"}}"#);
    let params = |key: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"safe","{key}":"evil"}}}}"#)
    };
    let variant = |name: &'static str, body: String| row(name, body, -32600, Some("1"), "key_variant");
    all_refused(vec![
        variant("Method", envelope("Method")),
        variant("METHOD", envelope("METHOD")),
        variant("Method alone", r#"{"jsonrpc":"2.0","id":1,"Method":"tools/list"}"#.into()),
        variant("PARAMS", envelope("PARAMS")),
        variant("Params, escaped", envelope(r"\u0050arams")),
        variant("params with a long s", envelope("param\u{17f}")),
        variant("ID", r#"{"jsonrpc":"2.0","ID":2,"id":1,"method":"tools/list"}"#.into()),
        variant("JsonRpc", envelope("JsonRpc")),
        variant("Name", params("Name")),
        variant("NAME", params("NAME")),
        variant("Arguments", params("Arguments")),
        variant("_Meta", params("_Meta")),
        variant("URI", params("URI")),
        variant("the version in _meta", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/ProtocolVersion":"2026-07-28"}}}"#.into()),
        row("an unknown key", envelope("x"), -32600, Some("1"), "unknown_key"),
        row("a key of an extension", envelope("meta"), -32600, Some("1"), "unknown_key"),
        row("a key with a space", envelope("method "), -32600, Some("1"), "unknown_key"),
        row("a key with a NUL", envelope(r"method\u0000"), -32600, Some("1"), "unknown_key"),
    ])
    .await;
}

#[tokio::test]
async fn an_envelope_is_a_request_a_notification_or_a_response_and_its_id_can_be_echoed() {
    let mut rows = vec![
        row("a batch", format!("[{}]", with_id("1")), -32600, None, "batch"),
        row(
            "an allowed and a denied call",
            format!("[{},{}]", with_id("1"), with_name(r#""drop_table""#)),
            -32600,
            None,
            "batch",
        ),
        row("an empty batch", "[]", -32600, None, "batch"),
        row("a batch in a batch", format!("[[{}]]", with_id("1")), -32600, None, "batch"),
        row(
            "initialize in a batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]"#,
            -32600,
            None,
            "batch",
        ),
        row(
            "a batch of notifications",
            r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#,
            -32600,
            None,
            "batch",
        ),
        row("a string", r#""tools/list""#, -32600, None, "not_an_object"),
        row("a number", "1", -32600, None, "not_an_object"),
        row("null", "null", -32600, None, "not_an_object"),
        row("true", "true", -32600, None, "not_an_object"),
        row("an empty object", "{}", -32600, None, "jsonrpc"),
        row("no version", r#"{"id":1,"method":"tools/list"}"#, -32600, Some("1"), "jsonrpc"),
        row("version 1.0", r#"{"jsonrpc":"1.0","id":1,"method":"tools/list"}"#, -32600, Some("1"), "jsonrpc"),
        row(
            "a version that is a number",
            r#"{"jsonrpc":2.0,"id":1,"method":"tools/list"}"#,
            -32600,
            Some("1"),
            "jsonrpc",
        ),
        row("no method", r#"{"jsonrpc":"2.0","id":1}"#, -32600, Some("1"), "no_method"),
        row(
            "parameters without a method",
            r#"{"jsonrpc":"2.0","id":"a","params":{}}"#,
            -32600,
            Some(r#""a""#),
            "no_method",
        ),
        row("a method that is a number", r#"{"jsonrpc":"2.0","id":1,"method":1}"#, -32600, Some("1"), "method"),
        row("a method that is null", r#"{"jsonrpc":"2.0","id":1,"method":null}"#, -32600, Some("1"), "method"),
        row("an empty method", r#"{"jsonrpc":"2.0","id":1,"method":""}"#, -32600, Some("1"), "method"),
        row(
            "a method with a NUL",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list\u0000"}"#,
            -32600,
            Some("1"),
            "method",
        ),
        row(
            "a method of 129 bytes",
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(129)),
            -32600,
            Some("1"),
            "method",
        ),
        row(
            "a method and a result",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","result":{}}"#,
            -32600,
            Some("1"),
            "two_kinds",
        ),
        row(
            "a method and an error",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","error":{}}"#,
            -32600,
            Some("1"),
            "two_kinds",
        ),
        row(
            "a result and an error",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            -32600,
            Some("1"),
            "two_kinds",
        ),
        row("an error that is a text", r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#, -32600, Some("1"), "error"),
        row("a response without an id", r#"{"jsonrpc":"2.0","result":{}}"#, -32600, None, "id"),
        row(
            "a call without an id",
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}"#,
            -32600,
            None,
            "id",
        ),
        row("a list without an id", r#"{"jsonrpc":"2.0","method":"tools/list"}"#, -32600, None, "id"),
    ];
    for id in ["null", "true", "1.5", "1.0", "1e2", "-0", "{}", "[]", "[1]", r#""a\u0000b""#] {
        rows.push(row("an id that cannot be echoed", with_id(id), -32600, None, "id"));
    }
    rows.push(row("an id of 257 bytes", with_id(&format!("\"{}\"", "i".repeat(257))), -32600, None, "id"));
    all_refused(rows).await;
}

#[tokio::test]
async fn parameters_that_policy_depends_on_have_their_form() {
    let of =
        |method: &str, params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let mut rows = vec![
        row("parameters in a list", of("tools/call", r#"["echo"]"#), -32602, Some("1"), "params"),
        row("parameters that are null", of("tools/list", "null"), -32602, Some("1"), "params"),
        row("parameters in a text", of("tools/call", r#""echo""#), -32602, Some("1"), "params"),
        row(
            "a call without parameters",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            -32602,
            Some("1"),
            "params",
        ),
        row("no name", of("tools/call", "{}"), -32602, Some("1"), "name"),
        row("a name that is a number", with_name("1"), -32602, Some("1"), "name"),
        row("a name that is null", with_name("null"), -32602, Some("1"), "name"),
        row("a name in a list", with_name(r#"["echo"]"#), -32602, Some("1"), "name"),
        row("a name of 257 bytes", with_name(&format!("\"{}\"", "n".repeat(257))), -32602, Some("1"), "name"),
        row("a URI with a NUL", of("resources/read", r#"{"uri":"file:///a\u0000"}"#), -32602, Some("1"), "uri"),
        row("no URI", of("resources/read", "{}"), -32602, Some("1"), "uri"),
        row("_meta in a list", of("tools/list", r#"{"_meta":[]}"#), -32602, Some("1"), "meta"),
        row(
            "a version in _meta that is a number",
            of("tools/list", r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":1}}"#),
            -32602,
            Some("1"),
            "meta",
        ),
    ];
    for hidden in [
        r"\u0000",
        r"\n",
        r"\u007f",
        r"\u0085",
        r"\u200b",
        r"\u200f",
        r"\u202e",
        r"\u2066",
        r"\ufeff",
        r"\udb40\udc41",
        "\u{200b}",
        "\u{ad}",
    ] {
        rows.push(row(
            "a name with something invisible",
            with_name(&format!("\"echo{hidden}\"")),
            -32602,
            Some("1"),
            "name",
        ));
    }
    for arguments in ["[]", r#""{}""#, "null", "1", "true", r#"["SELECT"]"#] {
        rows.push(row("arguments that are no object", with_arguments(arguments), -32602, Some("1"), "arguments"));
    }
    all_refused(rows).await;
}

#[tokio::test]
async fn what_a_message_may_hold_has_limits_met_at_their_numbers() {
    let nested = |levels: usize| with_arguments(&format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels)));
    let keys = |count: usize| {
        with_arguments(&format!("{{{}}}", (0..count).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",")))
    };
    let string = |bytes: usize| with_arguments(&format!(r#"{{"a":"{}"}}"#, "s".repeat(bytes)));
    let key = |bytes: usize| with_arguments(&format!(r#"{{"{}":0}}"#, "k".repeat(bytes)));
    let digits = |count: usize| with_arguments(&format!(r#"{{"a":{}}}"#, "1".repeat(count)));
    // Everything beside the elements: the envelope, its keys, and the list itself.
    let values = |count: usize| with_arguments(&format!(r#"{{"a":[{}]}}"#, vec!["0"; count].join(",")));
    let bench = start_with("").await;
    bench.upstream.on("*", Reply::text("fine"));
    for body in [
        nested(61),
        keys(10_000),
        string(1024 * 1024),
        key(256),
        digits(64),
        values(99_000),
        format!("{}{}", " ".repeat(64), with_arguments("{}")),
    ] {
        let answer = bench.post(&body).await;
        assert_eq!(answer.status, 200, "{:.100}: {}", body, answer.text());
        assert_eq!(bench.upstream.requests().last().unwrap().body, body);
    }
    all_refused(vec![
        row("65 levels", nested(62), -32600, None, "too_deep"),
        row("10,000 levels", nested(10_000), -32600, None, "too_deep"),
        row("a million levels", "[".repeat(1_000_000), -32600, None, "too_deep"),
        row("10,001 keys", keys(10_001), -32600, None, "too_many_keys"),
        row("a string of a MiB and one", string(1024 * 1024 + 1), -32600, None, "string_too_long"),
        row("a key of 257 bytes", key(257), -32600, None, "key_too_long"),
        row("a number of 65 digits", digits(65), -32600, None, "number_too_long"),
        row("100,000 values", values(100_000), -32600, None, "too_many_values"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_accepted_arrives_byte_for_byte_and_its_digest_is_on_record() {
    let bench = start_with("").await;
    let long_id = format!("\"{}\"", "i".repeat(256));
    let rows: Vec<(String, &str)> = vec![
        (with_id("1"), "1"),
        (with_id(r#""1""#), r#""1""#),
        (with_id("0"), "0"),
        (with_id("-7"), "-7"),
        (with_id("9007199254740993"), "9007199254740993"),
        (with_id("123456789012345678901234567890"), "123456789012345678901234567890"),
        (with_id(r#""""#), r#""""#),
        (with_id(r#""\u0041\/é""#), r#""\u0041\/é""#),
        (with_id(&long_id), &long_id),
        (r#"{"method":"tools\/list" ,"id": "x","jsonrpc":"\u0032.0"}"#.into(), r#""x""#),
        (r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools/c\u0061ll","p\u0061rams":{"n\u0061me":"ech\u006f"}}"#.into(), "1"),
        (format!("\r\n\t {} \n", with_id("1")), "1"),
        (with_arguments(r#"{"a":12345678901234567890,"b":1.0,"c":1e2,"d":-0,"e":0.1000,"f":1E-400,"g":1e308}"#), "1"),
        (with_arguments(r#"{"a":"\u0000\u0085\u200b\u202e\ud83d\ude00","b":"<!--\"\\\/\b\f\n\r\t"}"#), "1"),
        (with_arguments(r#"{"Method":"x","NAME":"y","sql ":1,"":null,"__proto__":{"a":true}}"#), "1"),
        (with_arguments("{ }"), "1"),
        (with_name("\"日本語 файл 🦀\""), "1"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","x-unknown":[1],"_meta":{"progressToken":9007199254740993,"a.b/c":"d"}}}"#.into(), "1"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":""}}"#.into(), "1"),
    ];
    for (body, id) in &rows {
        // The scripted server would lose digits; this one repeats the id as it was written.
        let told = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[],"content":[]}}}}"#);
        bench.upstream.on("*", Reply::entity(200, "application/json", told.clone()));
        let answer = bench.post(body).await;
        assert_eq!((answer.status, answer.text()), (200, told), "{body}");
    }
    let requests = bench.upstream.requests();
    assert_eq!(requests.len(), rows.len());
    gateway::wait_until("all results", || {
        bench.gateway.records().iter().filter(|record| record["kind"] == "result").count() == rows.len()
    });
    let intents: Vec<Value> = bench.gateway.records().into_iter().filter(|record| record["kind"] == "intent").collect();
    for ((request, intent), (body, _)) in requests.iter().zip(&intents).zip(&rows) {
        assert_eq!(request.body, body);
        let digest: String = Sha256::digest(&request.body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&intent["sent_sha256"], &intent["sent_bytes"]), (&json!(digest), &json!(body.len())), "{body}");
    }
}

#[tokio::test]
async fn an_argument_is_judged_by_what_it_means_and_sent_as_it_was_written() {
    let bench = start_with("").await;
    let rows = [
        ("query", r#"{"sql":"SELECT 1"}"#, "allowed"),
        ("query", r#"{"sql":"\u0053ELECT\u00201"}"#, "allowed"),
        ("query", r#"{"s\u0071l":"SELECT 1"}"#, "allowed"),
        ("query", r#"{"sql":"SELECT \n1"}"#, "allowed"),
        ("query", r#"{"sql":"SELECT 1","limit":10,"more":{"sql":"DROP"}}"#, "allowed"),
        ("query", r#"{"sql":"SELECT 1","limit":"10"}"#, "allowed"),
        ("query", r#"{"sql":"select 1"}"#, "argument_mismatch"),
        ("query", r#"{"sql":" SELECT 1"}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1; DROP TABLE t"}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1\u003b DROP TABLE t"}"#, "argument_mismatch"),
        ("query", r#"{"sql":"\u0044ROP TABLE t"}"#, "argument_mismatch"),
        ("query", r#"{"s\u0071l":"DROP TABLE t"}"#, "argument_mismatch"),
        ("query", r#"{"sql":"x\nSELECT 1"}"#, "argument_mismatch"),
        ("query", r#"{}"#, "argument_missing"),
        ("query", r#"{"SQL":"SELECT 1"}"#, "argument_ambiguous"),
        ("query", r#"{"sql":null}"#, "argument_null"),
        ("query", r#"{"sql":["SELECT 1"]}"#, "argument_not_scalar"),
        ("query", r#"{"sql":{"a":"SELECT 1"}}"#, "argument_not_scalar"),
        ("query", r#"{"sql":true}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1","Sql":"DROP"}"#, "argument_ambiguous"),
        ("query", r#"{"sql":"SELECT 1","limit":1000}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1","limit":1e2}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1","limit":-1}"#, "argument_mismatch"),
        ("query", r#"{"sql":"SELECT 1","limit":null}"#, "argument_null"),
        ("send", r#"{"to":[{"address":"a@example.com"},{"address":"b@example.com"}]}"#, "allowed"),
        ("send", r#"{"to":[{"address":"a@example.com"},{"address":"b@evil.example"}]}"#, "argument_mismatch"),
        ("send", r#"{"to":[{"address":"b@evil.example\u0040example.com.evil"}]}"#, "argument_mismatch"),
        ("send", r#"{"to":[{"address":"a@example.com"},{}]}"#, "argument_missing"),
        ("send", r#"{"to":[]}"#, "argument_unreachable"),
        ("send", r#"{"to":{"address":"a@example.com"}}"#, "argument_unreachable"),
        ("send", r#"{"to":"a@example.com"}"#, "argument_unreachable"),
        ("move", r#"{"options":{"dry.run":true}}"#, "allowed"),
        ("move", r#"{"options":{"dry.run":"true"}}"#, "allowed"),
        ("move", r#"{"options":{"dry.run":false}}"#, "argument_mismatch"),
        ("move", r#"{"options":{"dry":{"run":true}}}"#, "argument_missing"),
        ("move", r#"{"options.dry.run":true}"#, "argument_missing"),
        ("plain", r#"{"n":1}"#, "allowed"),
        ("plain", r#"{"n":1.0}"#, "allowed"),
        ("plain", r#"{"n":1e2}"#, "allowed"),
        ("plain", r#"{"n":-0}"#, "allowed"),
        ("plain", r#"{"n":12345678901234567890}"#, "allowed"),
        ("plain", r#"{"n":100}"#, "argument_mismatch"),
        ("plain", r#"{"n":12345678901234567891}"#, "argument_mismatch"),
        ("drop_table", r#"{}"#, "tool_blocked"),
        ("other", r#"{"anything":[null]}"#, "allowed"),
    ];
    let mut sent = Vec::new();
    for (tool, arguments, verdict) in rows {
        let answer = bench.call(tool, arguments).await;
        let expected = match verdict {
            "allowed" => None,
            "tool_blocked" => Some(-32602),
            _ => Some(-31403),
        };
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (200, expected, &json!(7)),
            "{tool} {arguments}: {}",
            answer.text()
        );
        if expected.is_none() {
            sent.push(format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#));
        }
    }
    let bodies: Vec<String> =
        bench.upstream.requests().iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect();
    assert_eq!(bodies, sent);
    let refused: Vec<&str> = rows.iter().map(|row| row.2).filter(|verdict| *verdict != "allowed").collect();
    let records = bench.gateway.wait_for_records("refused", refused.len());
    assert_eq!(records.iter().map(|record| record["reason"].as_str().unwrap()).collect::<Vec<_>>(), refused);
    assert!(
        records.iter().all(|record| record["rule"].is_string() && !record.to_string().contains("evil")),
        "{records:?}"
    );
}

#[tokio::test]
async fn a_denial_has_the_form_the_operator_chose() {
    let refused = r#"{"sql":"DROP"}"#;
    let rows = [
        ("", "query", Err((-31403, "the arguments are not permitted"))),
        ("", "drop_table", Err((-32602, "Unknown tool: drop_table"))),
        ("explain_to_client = true", "query", Err((-31403, "argument `sql`: one SELECT"))),
        ("explain_to_client = true", "move", Err((-31403, "argument `options.\"dry.run\"` is not permitted"))),
        ("explain_to_client = true", "drop_table", Err((-32602, "Unknown tool: drop_table"))),
        ("denial_form = \"tool_result\"", "query", Ok("the arguments are not permitted")),
        ("denial_form = \"tool_result\"", "drop_table", Ok("Unknown tool: drop_table")),
        ("denial_form = \"tool_result\"\nexplain_to_client = true", "query", Ok("argument `sql`: one SELECT")),
    ];
    for (policy, tool, expected) in rows {
        let bench = start_with(policy).await;
        let answer = bench.call(tool, refused).await;
        let told = match expected {
            Err((code, text)) => json!({"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": text}}),
            Ok(text) => {
                json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": text}], "isError": true}})
            }
        };
        assert_eq!((answer.status, answer.json()), (200, told), "{policy} {tool}");
        if policy.contains("tool_result") {
            // Only refused calls take that form: what is no call stays an error.
            assert_eq!(bench.post(r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#).await.code(), Some(-32601));
            assert_eq!(bench.post("[]").await.status, 400);
        }
        assert_eq!(bench.upstream.connections().len(), 0);
    }
}

#[tokio::test]
async fn a_refused_notification_or_response_is_told_by_its_status() {
    let bench = start_with("").await;
    for (body, status, reason) in [
        (r#"{"jsonrpc":"2.0","method":"notifications/no_such"}"#, 403, "method_unknown"),
        (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#, 403, "method_unknown"),
        (r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{}}"#, 403, "method_unknown"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#, 200, "method_unknown"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}"#, 200, "method_unknown"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#, 200, "method_unknown"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"Tools/list"}"#, 200, "method_unknown"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t"}}"#, 200, "method_unknown"),
    ] {
        let answer = bench.post(body).await;
        let id = serde_json::from_str::<Value>(body).unwrap().get("id").cloned();
        assert_eq!(
            (answer.status, answer.code(), answer.json().get("id").cloned()),
            (status, Some(-32601), id),
            "{body}"
        );
        bench.gateway.wait_for_record("refused", |record| record["reason"] == reason && record["status"] == status);
    }
    assert_eq!(bench.upstream.connections().len(), 0);
    for body in
        [r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, r#"{"jsonrpc":"2.0","id":"ask-1","result":{}}"#]
    {
        let answer = bench.post(body).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{body}");
        assert_eq!(bench.upstream.requests().last().unwrap().body, body);
    }
}

#[tokio::test]
async fn clients_with_the_same_ids_each_get_their_own_answer() {
    let bench = start_with("").await;
    let calls = (0..40).map(|client| {
        let (data, key) = (bench.gateway.data, bench.key.key.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(data).await;
            for turn in 0..5 {
                let id = if client % 2 == 0 { json!(turn) } else { json!(turn.to_string()) };
                let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"client": client, "turn": turn}}});
                connection.write(client::post("/mcp/db", &[&format!("X-API-Key: {key}")], &body.to_string())).await;
                let answer = connection.answer().await.unwrap().json();
                let text: Value = serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
                assert_eq!((&answer["id"], text), (&id, json!({"client": client, "turn": turn})));
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(bench.upstream.requests().len(), 200);
}
