//! How long does it take to read a message? Prints the fastest batch of each case in nanoseconds per message.
//!
//! Budget: 1,500 ns for a `tools/call` of 300 bytes, agreement of the two readers included.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use portcullis::mcp::document::Document;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::sse::Splitter;

const BATCHES: u32 = 200;
const MESSAGES_PER_BATCH: u32 = 2000;

const CALL: &str = concat!(
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

fn main() {
    let limits = Limits::default();
    let call = Bytes::from_static(CALL.as_bytes());
    let escaped = Bytes::from_static(ESCAPED.as_bytes());
    let long = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"text":"{}"}}}}"#, "x".repeat(64 * 1024)));
    measure("tools/call, message", &call, || Message::read(call.clone(), &limits).is_ok());
    measure("tools/call, document only", &call, || Document::read(call.clone(), &limits).is_ok());
    measure("tools/call with escapes, message", &escaped, || Message::read(escaped.clone(), &limits).is_ok());
    measure("64 KiB of text, message", &long, || Message::read(long.clone(), &limits).is_ok());
    let event = format!("event: message\nid: 7\ndata: {CALL}\n\n");
    let mut splitter = Splitter::new(1024 * 1024);
    measure("event", event.as_bytes(), || {
        splitter.feed(event.as_bytes());
        splitter.next_item().is_ok_and(|item| item.is_some())
    });
}

fn measure(name: &str, input: &[u8], mut read: impl FnMut() -> bool) {
    assert!(read(), "{name} is read");
    let fastest = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..MESSAGES_PER_BATCH {
                black_box(read());
            }
            start.elapsed() / MESSAGES_PER_BATCH
        })
        .min()
        .unwrap_or_default();
    println!("{name}: {} ns, {} bytes", fastest.as_nanos(), input.len());
}
