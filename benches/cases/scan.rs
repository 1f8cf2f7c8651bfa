//! Reading messages: the strict parse, keys that occur twice, events of a stream.

use std::fmt::Write;
use std::hint::black_box;

use bytes::Bytes;
use portcullis::mcp::document::Document;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::sse::Splitter;

use super::Case;

/// A call of 300 bytes, as agents send it.
pub(crate) const CALL: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"execute_query","arguments":{"#,
    r#""sql":"SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50","#,
    r#""database":"production","timeout_ms":5000,"read_only":true},"_meta":{"progressToken":"tok-8c1f","#,
    r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#
);

const ESCAPED: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"write_file","arguments":{"#,
    r#""path":"src\/main.rs","content":"fn main() {\n    println!(\"hello, \\u00e9t\u00e9\");\n}\n","#,
    r#""mode":"overwrite","backup":false,"owner":"日本語","size":1234.5},"_meta":{"progressToken":17,"#,
    r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#
);

/// Reading single messages and events.
pub(crate) fn cases() -> Vec<Case> {
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"text":"{}"}}}}"#, "x".repeat(64 * 1024));
    let event = format!("event: message\nid: 7\ndata: {CALL}\n\n");
    let mut splitter = Splitter::new(1024 * 1024);
    vec![
        message("scan, tools/call", 200, CALL.into()),
        document("scan, tools/call, document only", CALL.into()),
        message("scan, tools/call with escapes", 200, ESCAPED.into()),
        message("scan, 64 KiB of text", 20, long.into()),
        Case::new("scan, event", 200, move || {
            splitter.feed(event.as_bytes());
            assert!(black_box(splitter.next_item()).is_ok_and(|item| item.is_some()));
        }),
    ]
}

/// Does a key occur twice in an object: of so many keys, none of them twice.
pub(crate) fn duplicates() -> Vec<Case> {
    [12, 13, 100, 1_000, 10_000].map(|keys| message(&format!("duplicates, {keys} keys"), 20, with_keys(keys))).into()
}

fn message(name: &str, repeat: u32, body: Bytes) -> Case {
    let limits = Limits::for_answers();
    Case::new(name, repeat, move || {
        assert!(black_box(Message::read(body.clone(), &limits)).is_ok());
    })
}

fn document(name: &str, body: Bytes) -> Case {
    let limits = Limits::default();
    Case::new(name, 200, move || {
        assert!(black_box(Document::read(body.clone(), &limits)).is_ok());
    })
}

/// A call whose arguments have so many keys.
fn with_keys(keys: usize) -> Bytes {
    let mut text = String::from(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"#);
    for key in 0..keys {
        let comma = if key == 0 { "" } else { "," };
        write!(text, r#"{comma}"argument_{key}":{key}"#).unwrap();
    }
    text.push_str("}}}");
    text.into()
}
