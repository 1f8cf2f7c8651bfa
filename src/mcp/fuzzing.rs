//! What must hold for any bytes at all? Checked by the fuzz targets, and by property tests.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use serde_json::Value as Json;

use crate::mcp::document::Document;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::fault::Fault;
use crate::mcp::headers;
use crate::mcp::headers::annotations;
use crate::mcp::lists;
use crate::mcp::lists::Filtered;
use crate::mcp::lists::ListKind;
use crate::mcp::message::Message;
use crate::mcp::names;
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

/// A stream that is no longer than this is cut in two at each of its bytes.
const CUT_EVERYWHERE_MAX: usize = 128;

/// Wherever a stream is cut, the same events come out: those that a simple reader finds, and their bytes are those of the
/// stream. The first byte chooses the size of the chunks, and how long an event may be.
pub fn sse(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else { return };
    let most = if size % 2 == 0 { 4096 } else { 48 };
    let whole = split(&[stream], most);
    let chunks: Vec<&[u8]> = stream.chunks(usize::from(*size).max(1)).collect();
    assert!(whole == split(&chunks, most), "cut in chunks, the stream has other events");
    for at in 0..stream.len().min(CUT_EVERYWHERE_MAX) {
        let (before, after) = stream.split_at(at);
        assert!(whole == split(&[before, after], most), "cut at {at}, the stream has other events");
    }
    if let Ok((events, raw)) = whole {
        let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
        assert!(stream.starts_with(&raw), "other bytes");
        assert!(events == simple_events(&String::from_utf8_lossy(stream)), "a simple reader finds other events");
    }
}

/// Type, id and data of an event.
type Read = (Option<String>, Option<String>, Option<Bytes>);

/// Goes by whole lines, as a browser would that has the stream in one piece.
fn simple_events(stream: &str) -> Vec<Read> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    // What is behind the last line end is no line yet.
    let Some((lines, _)) = lines.rsplit_once('\n') else { return Vec::new() };
    let (mut events, mut read, mut begun) = (Vec::new(), Read::default(), false);
    for line in lines.split('\n') {
        if line.is_empty() {
            let event = std::mem::take(&mut read);
            events.extend(begun.then_some(event));
            begun = false;
            continue;
        }
        // A comment begins no event, and does not end one either.
        begun = begun || !line.starts_with(':');
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => read.0 = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "id" if !value.contains('\0') => read.1 = Some(value.to_owned()),
            "data" => {
                let before = read.2.take().map(|data| [&data, "\n".as_bytes()].concat());
                read.2 = Some([before.unwrap_or_default(), value.into()].concat().into());
            }
            _ => {}
        }
    }
    events
}

/// The events of a stream that comes in these pieces, and the bytes handed on.
fn split(chunks: &[&[u8]], event_bytes_max: usize) -> Result<(Vec<Read>, Vec<u8>), SseError> {
    let mut splitter = Splitter::new(event_bytes_max);
    let (mut events, mut raw) = (Vec::new(), Vec::new());
    for chunk in chunks {
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

/// Of a list that is passed on, a reader finds what is for the caller, in its order and as it was, and nothing else; and
/// cutting it again changes nothing. The first byte chooses the kind of list, the second what is for the caller.
pub fn lists(input: &[u8]) {
    let [kind, kept, body @ ..] = input else { return };
    let Some(kind) = ListKind::ALL.get(usize::from(*kind) % ListKind::ALL.len()).copied() else { return };
    let keep = |name: &str| name.bytes().fold(*kept, u8::wrapping_add) % 2 == 0;
    let Ok(message) = Message::read_from_server(Bytes::copy_from_slice(body), &Limits::default()) else { return };
    let passed = match lists::filter(&message, kind, keep) {
        Filtered::Unchanged => message.body().clone(),
        Filtered::Changed(body) => body,
        Filtered::NotAList => return,
    };
    let items = |body: &[u8]| {
        let whole = serde_json::from_slice::<Json>(body).ok();
        let list = whole.as_ref().and_then(|whole| whole.get("result")?.get(kind.array_key()));
        (whole.is_some(), list.and_then(Json::as_array).cloned().unwrap_or_default())
    };
    let (_, mut wanted) = items(body);
    wanted.retain(|item| {
        item.get(kind.naming_member())
            .and_then(Json::as_str)
            .is_some_and(|name| names::is_plain(name) && keep(name) && !has_variant(item, kind.naming_member()))
    });
    assert_eq!(items(&passed), (true, wanted), "another list");
    let again = Message::read_from_server(passed.clone(), &Limits::default()).map(|it| lists::filter(&it, kind, keep));
    assert!(again.is_ok_and(|again| again == Filtered::Unchanged), "not a list any more, or something was left in");
}

fn has_variant(item: &Json, member: &str) -> bool {
    item.as_object().is_some_and(|item| item.keys().any(|key| names::is_variant(key, member)))
}

/// Whatever marks a tool's schema has, reading them twice says the same, and a call whose headers repeat nothing passes only
/// if there is nothing to repeat. Two numbers are the same only if a double cannot tell them apart, and each is itself.
/// The first line is a header's value, the second an argument, what follows a tool.
pub fn arguments(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let (header, argument) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let read = |bytes: &[u8]| Document::read(Bytes::copy_from_slice(bytes), &Limits::default());
    let wrapped = |argument: &[u8]| read(&[b"{\"n\":".as_slice(), argument, b"}"].concat());
    let Ok(schema) = read(NUMBER_SCHEMA) else { return };
    let Ok(annotated) = annotations::of_tool("t", schema.root()) else { return };
    let verify = |header: &[u8], arguments: &Document| {
        let value = HeaderValue::from_bytes(header).ok()?;
        let headers = HeaderMap::from_iter([(annotated.headers.first()?.name.clone(), value)]);
        Some(headers::arguments::verify(&headers, Some(arguments.root()), &annotated).is_ok())
    };
    if let Ok(document) = wrapped(argument)
        && let Some(value) = document.root().get("n")
    {
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<f64>().ok();
        if value.kind() == Kind::Number && value.raw().len() <= headers::VALUE_BYTES_MAX {
            let fits = value.raw().iter().filter(|byte| byte.is_ascii_digit()).count() < 18;
            assert!(!fits || verify(value.raw(), &document) == Some(true), "a number is not itself");
        }
        if value.kind() == Kind::Number && verify(header, &document) == Some(true) {
            let text = headers::decode(header.trim_ascii()).unwrap_or_default();
            assert_eq!(number(text.as_bytes()), number(value.raw()), "other numbers are the same");
        }
    }
    let Ok(tool) = read(parts.next().unwrap_or_default()) else { return };
    let first = annotations::of_tool("t", tool.root());
    assert_eq!(first, annotations::of_tool("t", tool.root()), "read twice, the marks are others");
    if let Ok(annotated) = first {
        assert!(annotated.headers.len() <= annotations::HEADERS_MAX);
        let none = headers::arguments::verify(&HeaderMap::new(), None, &annotated);
        assert_eq!(none, Ok(()), "nothing has to be repeated of nothing");
    }
}

/// A tool of which one number is repeated.
const NUMBER_SCHEMA: &[u8] =
    br#"{"name":"t","inputSchema":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}"#;

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
