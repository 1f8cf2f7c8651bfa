//! Streams and what comes out of them, whole and cut at every byte.

use proptest::prelude::*;

use super::*;

/// What an item says, written short: `type|data|id|retry` with `-` for what is absent, or `#` for a filler.
fn said(item: &Item) -> String {
    match item {
        Item::Filler(_) => "#".into(),
        Item::Event(event) => {
            let data = event.data().map_or("-", |data| std::str::from_utf8(data).expect("UTF-8"));
            let retry = event.retry().map_or("-".into(), |retry| retry.to_string());
            format!("{}|{data}|{}|{retry}", event.name().unwrap_or("-"), event.id().unwrap_or("-"))
        }
    }
}

/// The items of a stream that arrives in these chunks.
fn items(chunks: &[&[u8]]) -> Result<Vec<Item>, SseError> {
    let mut splitter = Splitter::new(1024);
    let mut items = Vec::new();
    for chunk in chunks {
        splitter.feed(chunk);
        while let Some(item) = splitter.next_item()? {
            items.push(item);
        }
    }
    Ok(items)
}

/// The events of a stream. Checks that they and the bytes handed on are the same wherever the stream is cut.
fn events(stream: &[u8]) -> Vec<String> {
    let whole = items(&[stream]).expect("can be read");
    let raw = |items: &[Item]| items.iter().flat_map(|item| item.raw().to_vec()).collect::<Vec<u8>>();
    let all_said = |items: &[Item]| items.iter().map(said).filter(|said| said != "#").collect::<Vec<_>>();
    let without_mark = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    assert!(without_mark.starts_with(&raw(&whole)), "{}", stream.escape_ascii());
    let mut cuts: Vec<Vec<&[u8]>> = (0..=stream.len()).map(|at| vec![&stream[..at], &stream[at..]]).collect();
    cuts.push(stream.chunks(1).collect());
    cuts.push(stream.chunks(2).collect());
    cuts.push(stream.chunks(3).collect());
    for cut in cuts {
        let parts = items(&cut).expect("can be read in parts");
        assert_eq!(all_said(&parts), all_said(&whole), "{}", stream.escape_ascii());
        assert_eq!(raw(&parts), raw(&whole), "{}", stream.escape_ascii());
    }
    all_said(&whole)
}

const VECTORS: &[(&[u8], &[&str])] = &[
    // Line ends.
    (b"data: a\n\n", &["-|a|-|-"]),
    (b"data: a\r\r", &["-|a|-|-"]),
    (b"data: a\r\n\r\n", &["-|a|-|-"]),
    (b"data: a\n\r", &["-|a|-|-"]),
    (b"data: a\r\n\n", &["-|a|-|-"]),
    (b"data: a\n\r\n", &["-|a|-|-"]),
    (b"data: a\r\n\r", &["-|a|-|-"]),
    (b"data: a\rdata: b\ndata: c\r\n\n", &["-|a\nb\nc|-|-"]),
    (b"data: a\n\ndata: b\n\n", &["-|a|-|-", "-|b|-|-"]),
    (b"data: a\r\rdata: b\r\r", &["-|a|-|-", "-|b|-|-"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", &["-|a|-|-", "-|b|-|-"]),
    (b"\n\n\ndata: a\n\n\n\n", &["-|a|-|-"]),
    (b"\r\n\r\n\r\ndata: a\r\n\r\n", &["-|a|-|-"]),
    (b"\r\r\rdata: a\r\r\r", &["-|a|-|-"]),
    (b"data: a\x0b\n\n", &["-|a\x0b|-|-"]),
    (b"data: a\xc2\x85b\n\n", &["-|a\u{85}b|-|-"]),
    (b"data: a\xe2\x80\xa8b\n\n", &["-|a\u{2028}b|-|-"]),
    // Byte order marks.
    (b"\xef\xbb\xbfdata: a\n\n", &["-|a|-|-"]),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", &["-|-|-|-"]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", &["-|a|-|-", "-|-|-|-"]),
    (b"\xef\xbb\xbf: c\n\ndata: a\n\n", &["-|a|-|-"]),
    // Fields.
    (b"data:a\n\n", &["-|a|-|-"]),
    (b"data:  a\n\n", &["-| a|-|-"]),
    (b"data:\ta\n\n", &["-|\ta|-|-"]),
    (b"data: a \n\n", &["-|a |-|-"]),
    (b"data:\n\n", &["-||-|-"]),
    (b"data: \n\n", &["-||-|-"]),
    (b"data\n\n", &["-||-|-"]),
    (b"data\ndata\n\n", &["-|\n|-|-"]),
    (b"data:\ndata: a\n\n", &["-|\na|-|-"]),
    (b"data: a\ndata:\n\n", &["-|a\n|-|-"]),
    (b"data: a\ndata: b\n\n", &["-|a\nb|-|-"]),
    (b"data:: a\n\n", &["-|: a|-|-"]),
    (b"data: a: b\n\n", &["-|a: b|-|-"]),
    (b"data : a\n\n", &["-|-|-|-"]),
    (b" data: a\n\n", &["-|-|-|-"]),
    (b"Data: a\n\n", &["-|-|-|-"]),
    (b"DATA: a\n\n", &["-|-|-|-"]),
    (b"datas: a\n\n", &["-|-|-|-"]),
    (b"dat: a\n\n", &["-|-|-|-"]),
    (b"unknown: a\ndata: b\n\n", &["-|b|-|-"]),
    (b"unknown\n\n", &["-|-|-|-"]),
    (b"data: {\"a\":\"\xc3\xa9\xe6\x97\xa5\xf0\x9f\x98\x80\"}\n\n", &["-|{\"a\":\"é日😀\"}|-|-"]),
    (b"data: a\0b\n\n", &["-|a\0b|-|-"]),
    // Types.
    (b"event: message\ndata: a\n\n", &["message|a|-|-"]),
    (b"event: endpoint\ndata: /x?y=1\n\n", &["endpoint|/x?y=1|-|-"]),
    (b"data: a\nevent: late\n\n", &["late|a|-|-"]),
    (b"event: a\nevent: b\ndata: x\n\n", &["b|x|-|-"]),
    (b"event: a\nevent:\ndata: x\n\n", &["-|x|-|-"]),
    (b"event:\ndata: x\n\n", &["-|x|-|-"]),
    (b"event\ndata: x\n\n", &["-|x|-|-"]),
    (b"event:a b\ndata: x\n\n", &["a b|x|-|-"]),
    (b"event: a\n\n", &["a|-|-|-"]),
    // Ids.
    (b"id: 7\ndata: a\n\n", &["-|a|7|-"]),
    (b"id: 7\ndata:\n\n", &["-||7|-"]),
    (b"id: 7\n\n", &["-|-|7|-"]),
    (b"id\ndata: a\n\n", &["-|a||-"]),
    (b"id:\ndata: a\n\n", &["-|a||-"]),
    (b"id: 1\nid: 2\ndata: a\n\n", &["-|a|2|-"]),
    (b"id: a\0b\ndata: a\n\n", &["-|a|-|-"]),
    (b"id: 1\nid: a\0b\ndata: a\n\n", &["-|a|1|-"]),
    (b"ID: 1\ndata: a\n\n", &["-|a|-|-"]),
    (b"id:  x\ndata: a\n\n", &["-|a| x|-"]),
    // Retry.
    (b"retry: 3000\n\n", &["-|-|-|3000"]),
    (b"retry: 3000\ndata: a\n\n", &["-|a|-|3000"]),
    (b"retry:0\n\n", &["-|-|-|0"]),
    (b"retry: 1\nretry: 2\n\n", &["-|-|-|2"]),
    (b"retry: 1\nretry: x\n\n", &["-|-|-|1"]),
    (b"retry: -1\n\n", &["-|-|-|-"]),
    (b"retry: +1\n\n", &["-|-|-|-"]),
    (b"retry: 1.5\n\n", &["-|-|-|-"]),
    (b"retry: 1000 \n\n", &["-|-|-|-"]),
    (b"retry:  1000\n\n", &["-|-|-|-"]),
    (b"retry:\n\n", &["-|-|-|-"]),
    (b"retry: 99999999999999999999999\n\n", &["-|-|-|-"]),
    // Comments.
    (b": ping\n\n", &[]),
    (b":\n\n", &[]),
    (b":\n", &[]),
    (b": ping\r\r", &[]),
    (b": ping\r\n\r\n: ping\r\n\r\n", &[]),
    (b": c\ndata: a\n\n", &["-|a|-|-"]),
    (b"data: a\n: c\ndata: b\n\n", &["-|a\nb|-|-"]),
    (b"data: a\n: c\n\n", &["-|a|-|-"]),
    (b":data: a\n\n", &[]),
    (b"data: a\n\n: c\n\ndata: b\n\n", &["-|a|-|-", "-|b|-|-"]),
    // Incomplete ends.
    (b"", &[]),
    (b"data: a", &[]),
    (b"data: a\n", &[]),
    (b"data: a\r\n", &[]),
    (b"data: a\r", &[]),
    (b"data: a\n\ndata: b", &["-|a|-|-"]),
    (b"data: a\n\ndata: b\n", &["-|a|-|-"]),
    (b"data: a\n\nid: 5\n", &["-|a|-|-"]),
    (b"data: a\ndata: b", &[]),
    (b"\xef", &[]),
    (b"\xef\xbb", &[]),
    (b"\xef\xbb\xbf", &[]),
    (b": c", &[]),
    // Whole conversations.
    (
        b"retry: 500\nid: 0\ndata:\n\nevent: message\nid: 1\ndata: {\"a\":1}\n\n: ping\n\nid: 2\nevent: message\ndata: {}\n\n",
        &["-||0|500", "message|{\"a\":1}|1|-", "message|{}|2|-"],
    ),
];

#[test]
fn events_are_the_same_wherever_the_stream_is_cut() {
    for (stream, expected) in VECTORS {
        assert_eq!(events(stream), *expected, "{}", stream.escape_ascii());
    }
    assert!(VECTORS.len() >= 90, "{}", VECTORS.len());
}

#[test]
fn the_raw_bytes_of_an_event_are_its_own() {
    let stream = b"\xef\xbb\xbf: hi\n\nid: 1\n: inside\nunknown: x\ndata:a\r\n\r\nevent: b\rdata:c\r\rdata: lost\n";
    let raws: Vec<_> = items(&[stream]).expect("is read").iter().map(|item| item.raw().clone()).collect();
    let expected: [&[u8]; 4] =
        [b": hi\n", b"\n", b"id: 1\n: inside\nunknown: x\ndata:a\r\n\r\n", b"event: b\rdata:c\r\r"];
    assert_eq!(raws, expected);
}

#[test]
fn an_event_that_ends_with_a_cr_is_not_held_back() {
    let mut splitter = Splitter::new(1024);
    splitter.feed(b"data: a\r\r");
    let event = splitter.next_item().expect("is read").expect("is complete");
    assert_eq!(event.raw().as_ref(), b"data: a\r\r");
    splitter.feed(b"\ndata: b\r\n\r\n");
    let rest: Vec<_> = std::iter::from_fn(|| splitter.next_item().expect("is read")).map(|item| said(&item)).collect();
    assert_eq!(rest, ["#", "-|b|-|-"]);
}

#[test]
fn a_comment_is_handed_on_before_the_event_behind_it() {
    let mut splitter = Splitter::new(1024);
    splitter.feed(b": ping\n");
    assert_eq!(splitter.next_item(), Ok(Some(Item::Filler(Bytes::from_static(b": ping\n")))));
    assert!(splitter.is_between_events());
    splitter.feed(b"data: a\n");
    assert_eq!(splitter.next_item(), Ok(None));
    assert!(!splitter.is_between_events());
}

#[test]
fn data_on_one_line_is_not_copied() {
    let items = items(&[b"data: abc\n\n"]).expect("is read");
    let [Item::Event(event)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(event.data().map(|data| data.as_ptr()), Some(event.raw()[6..].as_ptr()));
}

#[test]
fn only_data_of_the_message_type_is_a_message() {
    for (stream, expected) in [
        ("data: {}\n\n", true),
        ("event: message\ndata: {}\n\n", true),
        ("event:\ndata: {}\n\n", true),
        ("event: Message\ndata: {}\n\n", false),
        ("event: endpoint\ndata: {}\n\n", false),
        ("id: 7\ndata:\n\n", false),
        ("id: 7\n\n", false),
        ("retry: 1\n\n", false),
    ] {
        let items = items(&[stream.as_bytes()]).expect("is read");
        let [Item::Event(event)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!(event.is_message(), expected, "{stream:?}");
    }
}

#[test]
fn an_event_or_comment_over_the_limit_ends_the_stream() {
    let read = |max: usize, stream: &str, chunk: usize| {
        let mut splitter = Splitter::new(max);
        let mut count = 0;
        for chunk in stream.as_bytes().chunks(chunk) {
            splitter.feed(chunk);
            while splitter.next_item()?.is_some() {
                count += 1;
            }
        }
        Ok(count)
    };
    for stream in ["data: 0123\n\n", "data: 0\ndata\n", ":: 01234567\n", "data: 0123456789", ": 0123456789"] {
        for chunk in [1, 2, 100] {
            let within = stream.get(..12).unwrap_or(stream);
            assert!(read(12, &format!("data:a\n\n{within}"), chunk).is_ok(), "{stream:?} {chunk}");
            assert_eq!(read(11, &format!("data:a\n\n{stream}"), chunk), Err(SseError::TooLong), "{stream:?} {chunk}");
        }
    }
    // A line end of two bytes may come in two pieces, of which the first already ends the event.
    for chunk in [1, 13, 100] {
        assert!(read(13, "data: 0123\r\n\r\n", chunk).is_ok(), "{chunk}");
        assert_eq!(read(12, "data: 0123\r\n\r\n", chunk), Err(SseError::TooLong), "{chunk}");
    }
    // The limit is one for each event, not for the stream.
    assert_eq!(read(12, &"data: 0123\n\n".repeat(100), 7), Ok(100));
}

#[test]
fn a_stream_that_failed_stays_failed() {
    let mut splitter = Splitter::new(1024);
    splitter.feed(b"data: \xff\n\ndata: a\n\n");
    for _ in 0..3 {
        assert_eq!(splitter.next_item(), Err(SseError::NotUtf8));
        splitter.feed(b"data: b\n\n");
    }
    assert_eq!(items(&[b": \xc0\x80\n"]), Err(SseError::NotUtf8));
    assert_eq!(items(&[b"data: a\n\ndata: \xe2\x82\n\n"]), Err(SseError::NotUtf8));
}

/// The one event of a stream.
fn event(stream: &[u8]) -> Event {
    match items(&[stream]).expect("is read").as_slice() {
        [Item::Event(event)] => event.clone(),
        items => panic!("{items:?}"),
    }
}

#[test]
fn a_rendered_event_keeps_all_but_its_data() {
    let rendered = event(b"retry: 5\nid:  a\n: c\nevent: x\nother: y\ndata: old\ndata: old\n\n").render(b"new");
    assert_eq!(rendered, "event: x\nid:  a\nretry: 5\ndata: new\n\n");
    assert_eq!(said(&Item::Event(event(&rendered))), "x|new| a|5");
    assert_eq!(event(b"data: old\n\n").render(b"new"), message_event(b"new"));
    assert_eq!(event(b"id\ndata: old\n\n").render(b""), "id: \ndata: \n\n");
}

#[test]
fn data_cannot_become_a_field() {
    for (data, read) in [
        ("a\nid: 6", "a\nid: 6"),
        ("a\rid: 6", "a\nid: 6"),
        ("a\r\nid: 6", "a\nid: 6"),
        ("a\n\ndata: b", "a\n\ndata: b"),
        ("a\n", "a\n"),
        ("\r\n\r\n", "\n\n"),
        (" a", " a"),
        (": a", ": a"),
        ("", ""),
    ] {
        for rendered in [message_event(data.as_bytes()), event(b"id: 1\ndata: x\n\n").render(data.as_bytes())] {
            let event = event(&rendered);
            assert_eq!(event.data().map(Bytes::as_ref), Some(read.as_bytes()), "{data:?}");
            assert_ne!(event.id(), Some("6"));
        }
    }
}

/// A plain reader of the same rules: whole text, line by line.
fn naive(stream: &str) -> Vec<String> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n").replace('\r', "\n");
    let complete = stream.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut events = Vec::new();
    let (mut seen, mut name, mut data, mut id, mut retry) = (false, None, None::<String>, None, None::<u64>);
    for line in complete.split('\n').filter(|_| stream.contains('\n')) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_string();
        match field {
            _ if line.is_empty() => {
                if seen {
                    let retry = retry.map_or("-".into(), |retry| retry.to_string());
                    let or_none = |value: Option<String>| value.unwrap_or("-".into());
                    events.push(format!("{}|{}|{}|{retry}", or_none(name), or_none(data), or_none(id)));
                }
                (seen, name, data, id, retry) = (false, None, None, None, None);
                continue;
            }
            "" => continue,
            "data" => data = Some(data.map_or(value.clone(), |data| format!("{data}\n{value}"))),
            "event" => name = Some(value).filter(|value| !value.is_empty()),
            "id" if !value.contains('\0') => id = Some(value),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                retry = value.parse().ok().or(retry);
            }
            _ => {}
        }
        seen = true;
    }
    events
}

/// What goes on to a client of a stream of one event.
fn forwarded(stream: &str) -> String {
    let mut splitter = Splitter::new(1000);
    splitter.feed(stream.as_bytes());
    match splitter.next_item() {
        Ok(Some(Item::Event(event))) => String::from_utf8(event.forwarded().to_vec()).unwrap(),
        other => panic!("no event: {other:?}"),
    }
}

#[test]
fn a_plain_event_goes_on_with_its_very_bytes() {
    for stream in [
        "data: {}\n\n",
        "id:7\r\ndata\r\n\r\n",
        "event: message\nid: 1\nretry: 5\ndata:{\ndata:}\n\n",
        "data: \"\u{e9}\u{2027}\"\r\r",
    ] {
        let expected = if stream.contains("data\r") { "id: 7\ndata: \n\n" } else { stream };
        assert_eq!(forwarded(stream), expected);
    }
}

#[test]
fn what_only_some_readers_take_for_a_line_does_not_reach_them_as_one() {
    let vectors = [
        ("data: {\"a\":\"x\u{2028}\u{2028}data: {}\"}\n\n", "data: {\"a\":\"x\\u2028\\u2028data: {}\"}\n\n"),
        ("data: \"\u{85}\u{2029}\"\n\n", "data: \"\\u0085\\u2029\"\n\n"),
        ("id: 1\nx: y\u{2028}data: {}\n\n", "id: 1\n\n"),
        ("id: x\u{85}data: {}\nretry: 7\n\n", "retry: 7\n\n"),
        ("event: a\u{c}data: {}\ndata: 1\n\n", "data: 1\n\n"),
        ("id: 1\n:a\ndata:\n\n", "id: 1\ndata: \n\n"),
        ("x: y\u{b}data: 2\ndata: 1\n\n", "data: 1\n\n"),
    ];
    for (stream, expected) in vectors {
        let forwarded = forwarded(stream);
        assert_eq!(forwarded, expected, "{stream:?}");
        assert!(
            !forwarded.contains(['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'])
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plain_reader_sees_the_same_events(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "data", "data: ", "event: ", "id: ", "retry: ", ": ", ":", "a", "é", "7", " ", "\0", "\n", "\r", "\r\n",
                "\n\n", "\r\r", "\r\n\r\n", "\u{feff}",
            ]),
            0..40,
        ),
    ) {
        let stream = parts.concat();
        prop_assert_eq!(events(stream.as_bytes()), naive(&stream), "{:?}", stream);
    }

    #[test]
    fn any_bytes_are_read_or_refused_the_same_way_in_any_chunks(
        stream in prop::collection::vec(prop::sample::select(b"data: id\r\n\n\xff\xe9".to_vec()), 0..60),
        size in 1..7_usize,
    ) {
        let chunks: Vec<&[u8]> = stream.chunks(size).collect();
        let said = |items: Vec<Item>| items.iter().map(said).filter(|said| said != "#").collect::<Vec<_>>();
        prop_assert_eq!(items(&chunks).map(said), items(&[&stream]).map(said));
    }
}
