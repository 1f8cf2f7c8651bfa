//! What a document says about its bytes, and its limits.

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mcp::fuzzing;
use crate::mcp::fuzzing::is_same;

fn read(body: &str) -> Document {
    Document::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).expect("is read")
}

fn fault(body: impl Into<Bytes>, limits: &Limits) -> Option<(Fault, usize)> {
    Document::read(body.into(), limits).err().map(|error| (error.fault, error.at))
}

/// The value at a path of keys.
fn at<'d>(document: &'d Document, path: &[&str]) -> Value<'d> {
    path.iter().fold(document.root(), |value, key| value.get(key).expect("is there"))
}

#[test]
fn a_value_knows_its_exact_bytes() {
    let document = read(" { \"a\" : [ 1.50, \"x\\u0079\" , {} ] , \"b\":null} ");
    assert_eq!(at(&document, &["a"]).raw(), b"[ 1.50, \"x\\u0079\" , {} ]");
    assert_eq!(at(&document, &["b"]).raw(), b"null");
    let items: Vec<_> = at(&document, &["a"]).items().map(|item| item.raw().escape_ascii().to_string()).collect();
    assert_eq!(items, ["1.50", "\\\"x\\\\u0079\\\"", "{}"]);
    assert_eq!(document.root().span(), 1..document.body().len() - 1);
}

#[test]
fn a_text_has_its_escapes_resolved() {
    let document = read(r#"{"plain":"é\u0301","all":"\"\\\/\b\f\n\r\t\u0041\ud83d\ude00","k\u0065y":1,"none":""}"#);
    assert_eq!(at(&document, &["plain"]).text(), Some("é\u{301}"));
    assert_eq!(at(&document, &["all"]).text(), Some("\"\\/\u{8}\u{c}\n\r\tA😀"));
    assert_eq!(at(&document, &["key"]).raw(), b"1");
    assert_eq!(at(&document, &["none"]).text(), Some(""));
    let keys: Vec<_> = document.root().entries().map(|(key, _)| key).collect();
    assert_eq!(keys, ["plain", "all", "key", "none"]);
}

#[test]
fn only_strings_have_a_text_and_only_containers_have_parts() {
    let document = read(r#"{"n":1,"t":true,"f":false,"z":null,"a":["x"],"o":{"x":1},"s":"x"}"#);
    for (key, kind, count) in [
        ("n", Kind::Number, 0),
        ("t", Kind::True, 0),
        ("f", Kind::False, 0),
        ("z", Kind::Null, 0),
        ("a", Kind::Array, 1),
        ("o", Kind::Object, 1),
        ("s", Kind::String, 0),
    ] {
        let value = at(&document, &[key]);
        assert_eq!((value.kind(), value.count()), (kind, count), "{key}");
        assert_eq!(value.text().is_some(), kind == Kind::String, "{key}");
        assert_eq!(value.items().count(), usize::from(kind == Kind::Array), "{key}");
        assert_eq!(value.entries().count(), usize::from(kind == Kind::Object), "{key}");
        assert_eq!(value.get("x").is_some(), kind == Kind::Object, "{key}");
    }
}

#[test]
fn a_key_inside_a_sibling_is_not_found() {
    let document = read(r#"{"a":{"deep":1},"b":["deep","deep"],"c":2}"#);
    assert!(document.root().get("deep").is_none());
    assert_eq!(at(&document, &["c"]).raw(), b"2");
}

#[test]
fn numbers_keep_their_digits() {
    for number in ["12345678901234567890123", "1.0", "1e2", "-0", "0.10", "1E+02"] {
        assert_eq!(read(&format!("[{number}]")).root().items().next().map(Value::raw), Some(number.as_bytes()));
    }
}

#[test]
fn each_limit_is_reached_and_not_passed() {
    let small = Limits {
        depth_max: 3,
        nodes_max: 8,
        object_keys_max: 3,
        string_bytes_max: 4,
        key_bytes_max: 2,
        number_bytes_max: 5,
    };
    for (within, beyond, expected) in [
        ("[[[]]]", "[[[[]]]]", (Fault::TooDeep, 3)),
        ("[1,2,3,4,5,6,7]", "[1,2,3,4,5,6,7,8]", (Fault::TooManyValues, 15)),
        ("[{},{},{},{},{},{},{}]", "[{},{},{},{},{},{},{},{}]", (Fault::TooManyValues, 22)),
        (r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2,"c":3,"d":4}"#, (Fault::TooManyKeys, 19)),
        (r#"["abcd"]"#, r#"["abcde"]"#, (Fault::StringTooLong, 1)),
        (r#"["é\n"]"#, r#"["éé\n"]"#, (Fault::StringTooLong, 1)),
        (r#"{"ab":1}"#, r#"{"abc":1}"#, (Fault::KeyTooLong, 1)),
        ("[-1234]", "[-12345]", (Fault::NumberTooLong, 1)),
    ] {
        assert_eq!(fault(within, &small), None, "{within}");
        assert_eq!(fault(beyond, &small), Some(expected), "{beyond}");
    }
}

#[test]
fn the_default_limits_hold() {
    let limits = Limits::default();
    let number = |digits: usize| format!("[{}]", "1".repeat(digits));
    assert_eq!(fault(number(64), &limits), None);
    assert_eq!(fault(number(65), &limits), Some((Fault::NumberTooLong, 1)));
    let key = |length: usize| format!("{{\"{}\":1}}", "k".repeat(length));
    assert_eq!(fault(key(256), &limits), None);
    assert_eq!(fault(key(257), &limits), Some((Fault::KeyTooLong, 1)));
    let text = |length: usize| format!("[\"{}\"]", "x".repeat(length));
    assert_eq!(fault(text(1024 * 1024), &limits), None);
    assert_eq!(fault(text(1024 * 1024 + 1), &limits), Some((Fault::StringTooLong, 1)));
    assert_eq!(fault(text(1024 * 1024 + 1), &Limits::for_answers()), None);
    let values = |count: usize| format!("[{}1]", "1,".repeat(count - 2));
    assert_eq!(fault(values(100_000), &limits), None);
    assert_eq!(fault(values(100_001), &limits).map(|(fault, _)| fault), Some(Fault::TooManyValues));
}

/// An object with `count` keys, the last of them `last`.
fn object(count: usize, last: &str) -> String {
    let keys: Vec<_> = (1..count).map(|key| format!("\"key{key}\":{key}")).collect();
    format!("{{{},\"{last}\":0}}", keys.join(","))
}

#[test]
fn a_duplicate_is_found_among_any_number_of_keys() {
    for count in [2, 3, 11, 12, 13, 14, 100, 10_000] {
        assert_eq!(fault(object(count, "other"), &Limits::default()), None, "{count}");
        for key in ["key1", "ke\\u0079\\u0031"] {
            let body = object(count, key);
            let second = body.rfind(&format!("\"{key}\"")).expect("is last");
            assert_eq!(fault(body, &Limits::default()), Some((Fault::DuplicateKey, second)), "{count}");
        }
    }
}

#[test]
fn ten_thousand_keys_are_not_compared_pair_by_pair() {
    let body = Bytes::from(object(10_000, "other"));
    let start = Instant::now();
    assert_eq!(fault(body, &Limits::default()), None);
    // Fifty million comparisons take longer than this even at full speed; hashing takes a few milliseconds.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_thread_gives_large_buffers_back() {
    let large = format!("[{}1]", "1,".repeat(60_000));
    let text = format!("[\"{}\"]", "x".repeat(1_000_000));
    for body in [large.clone(), format!("{large}x"), text] {
        let _ = fault(body, &Limits::default());
        SCRATCH.with_borrow(|scratch| {
            assert!(scratch.scan.nodes.capacity() * size_of::<Node>() <= SCRATCH_BYTES_MAX);
            assert!(scratch.agree.capacity_bytes() <= SCRATCH_BYTES_MAX);
        });
    }
    assert_eq!(fault("[1]", &Limits::default()), None);
}

#[test]
fn a_fault_says_where_and_repeats_nothing() {
    let error = Document::read(Bytes::from_static(b"{\"secret\":1,\"secret\":2}"), &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "duplicate key at byte 12");
}

/// JSON texts in odd spellings: escapes where none are needed, whitespace anywhere, numbers in any notation.
fn any_json() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        6 => proptest::char::range('a', 'e').prop_map(|character| character.to_string()),
        2 => proptest::char::range('a', 'e').prop_map(|character| format!("\\u{:04x}", u32::from(character))),
        1 => any::<char>().prop_map(|character| {
            let mut units = [0; 2];
            character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}")).collect()
        }),
        1 => any::<char>().prop_map(|character| match character {
            '"' | '\\' | '\0'..='\u{1f}' => "x".to_string(),
            character => character.to_string(),
        }),
        1 => prop::sample::select(vec!["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"]).prop_map(String::from),
    ];
    let text = prop::collection::vec(character, 0..40).prop_map(|parts| format!("\"{}\"", parts.concat())).boxed();
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
    ];
    let space = prop::sample::select(vec!["", "", "", " ", "\n", "\t\r\n  "]);
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "[]", "{}"]).prop_map(String::from),
        number,
        text.clone(),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let spaced =
            (space.clone(), inner, space.clone()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        prop_oneof![
            prop::collection::vec(spaced.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((text.clone(), spaced), 0..8).prop_map(|entries| {
                let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// On any JSON text: either refused for a duplicate or an infinite number, or serde_json reads the same in it.
    #[test]
    fn what_is_read_says_the_same_to_serde_json(body in any_json()) {
        match Document::read(Bytes::from(body.clone()), &Limits::default()) {
            Ok(document) => {
                let theirs: serde_json::Value = serde_json::from_str(&body).expect("serde_json reads it too");
                prop_assert!(is_same(document.root(), &theirs), "{body}");
            }
            Err(error) => prop_assert!(
                matches!(error.fault, Fault::DuplicateKey | Fault::NumberTooLarge | Fault::KeyTooLong | Fault::NumberTooLong),
                "{body}: {error}"
            ),
        }
    }

    /// On damaged JSON: what is read is read by serde_json too and says the same; no disagreement of our two readers.
    #[test]
    fn damage_never_makes_two_meanings(body in any_json(), at in any::<prop::sample::Index>(), with in any::<u8>(), how in 0..4) {
        let mut damaged = body.into_bytes();
        let at = at.index(damaged.len());
        match how {
            0 => damaged[at] = with,
            1 => drop(damaged.remove(at)),
            2 => damaged.insert(at, b"\"\\{}[],:0-. u"[usize::from(with) % 13]),
            _ => damaged.truncate(at),
        }
        fuzzing::scan(&damaged);
    }

    /// Any value of a document, cut out, is a document that says the same.
    #[test]
    fn a_span_holds_a_whole_value(body in any_json()) {
        let Ok(document) = Document::read(Bytes::from(body), &Limits::default()) else { return Ok(()) };
        let mut values = vec![document.root()];
        while let Some(value) = values.pop() {
            let theirs: serde_json::Value = serde_json::from_slice(value.raw()).expect("a whole value");
            prop_assert!(is_same(value, &theirs));
            values.extend(value.items().chain(value.entries().map(|(_, value)| value)));
        }
    }
}
