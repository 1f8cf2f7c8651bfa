//! What must hold for any bytes at all? Checked by the fuzz targets, and by property tests.

use bytes::Bytes;
use serde_json::Value as Json;

use crate::mcp::document::Document;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::fault::Fault;
use crate::mcp::headers;
use crate::mcp::message::Message;
use crate::mcp::sse::Item;
use crate::mcp::sse::Splitter;
use crate::mcp::sse::SseError;

/// What is read, serde_json reads as well and with the same meaning; our two readers never disagree; what serde_json
/// does not read is never called well formed.
pub fn scan(body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let theirs = serde_json::from_slice::<Json>(&body);
    match Document::read(body.clone(), &Limits::default()) {
        Ok(document) => {
            assert!(theirs.as_ref().is_ok_and(|theirs| is_same(document.root(), theirs)), "another meaning");
            let message = Message::read(body.clone(), &Limits::default());
            if let (Ok(message), Ok(theirs)) = (message, theirs) {
                assert_eq!(message.method(), theirs.get("method").and_then(Json::as_str));
                if let Some(tool) = message.tool() {
                    assert_eq!(Some(tool), theirs.pointer("/params/name").and_then(Json::as_str));
                }
            }
        }
        Err(error) => assert!(error.fault != Fault::Ambiguous && error.at <= body.len(), "{error}"),
    }
}

/// Wherever a stream is cut, the same events come out, and their bytes are those of the stream. The first byte chooses
/// the size of the chunks.
pub fn sse(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else { return };
    let whole = split(stream, stream.len().max(1));
    assert!(whole == split(stream, usize::from(*size).max(1)), "cut in chunks, the stream has other events");
    if let Ok((_, raw)) = whole {
        let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
        assert!(stream.starts_with(&raw), "other bytes");
    }
}

/// Type, id and data of each event of a stream, and the bytes handed on.
type Events = (Vec<(Option<String>, Option<String>, Option<Bytes>)>, Vec<u8>);

fn split(stream: &[u8], size: usize) -> Result<Events, SseError> {
    let mut splitter = Splitter::new(4096);
    let (mut events, mut raw) = (Vec::new(), Vec::new());
    for chunk in stream.chunks(size) {
        splitter.feed(chunk);
        while let Some(item) = splitter.next_item()? {
            raw.extend_from_slice(item.raw());
            if let Item::Event(event) = item {
                events.push((event.name().map(String::from), event.id().map(String::from), event.data().cloned()));
            }
        }
    }
    Ok((events, raw))
}

/// Whether a value says the same as what serde_json made of the same bytes.
pub fn is_same(value: Value<'_>, theirs: &Json) -> bool {
    match theirs {
        Json::Null => value.kind() == Kind::Null,
        Json::Bool(true) => value.kind() == Kind::True,
        Json::Bool(false) => value.kind() == Kind::False,
        Json::Number(number) => {
            let own = std::str::from_utf8(value.raw()).ok().and_then(|text| text.parse::<f64>().ok());
            value.kind() == Kind::Number
                && own.zip(number.as_f64()).is_some_and(|(own, theirs)| {
                    // Its way to a double is a unit in the last place off at times; ours is compared with simd-json's.
                    (own - theirs).abs() <= own.abs() * 1e-15 + f64::MIN_POSITIVE
                })
        }
        Json::String(text) => value.text() == Some(text),
        Json::Array(items) => {
            value.count() == items.len()
                && value.items().count() == items.len()
                && value.items().zip(items).all(|(own, theirs)| is_same(own, theirs))
        }
        Json::Object(entries) => {
            value.count() == entries.len()
                && value.entries().count() == entries.len()
                && entries.iter().all(|(key, theirs)| value.get(key).is_some_and(|own| is_same(own, theirs)))
        }
    }
}

/// What a header that repeats a name stands for is told in one way, and every name can be told. Any bytes are a header's value,
/// and a name if they are a text.
pub fn headers(input: &[u8]) {
    if let Some(text) = headers::decode(input) {
        let again = headers::encode(&text);
        assert_eq!(headers::decode(again.as_bytes()).as_deref(), Some(&*text), "written anew, it says something else");
    }
    if let Ok(name) = std::str::from_utf8(input) {
        let value = headers::encode(name);
        if value.len() <= headers::VALUE_BYTES_MAX {
            assert_eq!(headers::decode(value.as_bytes()).as_deref(), Some(name), "it does not come back");
        }
    }
}
