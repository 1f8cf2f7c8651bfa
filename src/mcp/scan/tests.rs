//! What is JSON with one meaning, and what is not: vectors by class, each also shown to serde_json as a second opinion.

use bytes::Bytes;

use crate::mcp::document::Document;
use crate::mcp::document::Limits;
use crate::mcp::fault::Fault;

/// What is wrong with a body, and where; `None` if it is read.
fn fault(body: impl AsRef<[u8]>) -> Option<(Fault, usize)> {
    let read = Document::read(Bytes::copy_from_slice(body.as_ref()), &Limits::default());
    read.err().map(|error| (error.fault, error.at))
}

const ACCEPTED: &[&str] = &[
    // Scalars and whitespace.
    "null",
    "true",
    "false",
    "0",
    "-0",
    "\"\"",
    " null ",
    "\t\n\r null\n",
    "\"a\"",
    "-1",
    "[]",
    "{}",
    "[ ]",
    "{ }",
    "[\n]",
    "{\t}",
    // Arrays.
    "[1]",
    "[1,2]",
    "[ 1 , 2 ]",
    "[null,true,false]",
    "[[]]",
    "[[],[]]",
    "[[[]],[]]",
    "[{}]",
    "[\"\"]",
    "[1 ]",
    "[\"a\",1,{},[]]",
    // Objects.
    "{\"a\":1}",
    "{ \"a\" : 1 }",
    "{\"a\":{}}",
    "{\"a\":[]}",
    "{\"\":0}",
    "{\"a\":1,\"b\":2}",
    "{\"a\":{\"a\":1}}",
    "{\"a\":[{\"a\":1},{\"a\":2}]}",
    "{\"a\":1,\"A\":2}",
    "{\"a\":1,\"a \":2}",
    "{\"a\\u0000\":1,\"a\":2}",
    "{\"a\":\n1\n,\n\"b\"\n:\n2\n}",
    // Numbers.
    "[0.1]",
    "[-0.1]",
    "[1e5]",
    "[1E5]",
    "[1e+5]",
    "[1e-5]",
    "[1.5e10]",
    "[0e1]",
    "[0e+1]",
    "[-0.0]",
    "[1E+2]",
    "[123.456e78]",
    "[1.0]",
    "[0.000001]",
    "[1e-400]",
    "[1.7976931348623157e308]",
    "[9007199254740993]",
    "[9223372036854775807]",
    "[-9223372036854775808]",
    "[18446744073709551615]",
    "[18446744073709551616]",
    "[-9223372036854775809]",
    "[12345678901234567890123456789012345678901234567890123456789012]",
    "[0.123456789012345678901234567890]",
    "[5e-324]",
    // Strings.
    "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
    "[\"\\u0041\"]",
    "[\"\\u0000\"]",
    "[\"\\u00e9\\u00E9\"]",
    "[\"\\ud83d\\ude00\"]",
    "[\"\\uD834\\uDD1E\"]",
    "[\"\\uDBFF\\uDFFF\"]",
    "[\"\\uFFFF\"]",
    "[\"\\uFDD0\"]",
    "[\"\\u2028\"]",
    "[\"é\"]",
    "[\"日本語\"]",
    "[\"😀\"]",
    "[\"\u{7f}\"]",
    "[\"\u{80}\"]",
    "[\"\u{2028}\u{2029}\"]",
    "[\"\u{feff}\"]",
    "[\"\u{10ffff}\"]",
    "[\"a/b\"]",
    "[\"\\\\u0041\"]",
    "[\"\\\\\\\"\"]",
    "[\"{}[]:,\"]",
    "[\"//\"]",
    "[\"01234567890123456789012345678901234567890123456789012345678901234567\"]",
    "[\"0123456789012345678901234567890\\n\"]",
    "[\"01234567890123456789012345678901\\\"\"]",
];

#[test]
fn what_follows_the_grammar_is_read() {
    for body in ACCEPTED {
        assert_eq!(fault(body), None, "{body}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}

const REFUSED: &[(&[u8], Fault, usize)] = &[
    // Nothing, or not all of it.
    (b"", Fault::Empty, 0),
    (b"  ", Fault::Empty, 2),
    (b"[", Fault::Truncated, 1),
    (b"{", Fault::Truncated, 1),
    (b"[1", Fault::Truncated, 2),
    (b"[1,", Fault::Truncated, 3),
    (b"[[]", Fault::Truncated, 3),
    (b"{\"a\"", Fault::Truncated, 4),
    (b"{\"a\":", Fault::Truncated, 5),
    (b"{\"a\":1", Fault::Truncated, 6),
    (b"{\"a\":1,", Fault::Truncated, 7),
    (b"\"", Fault::Truncated, 1),
    (b"\"a", Fault::Truncated, 2),
    (b"\"\\", Fault::Truncated, 2),
    (b"\"\\u", Fault::Truncated, 3),
    (b"\"\\u00", Fault::Truncated, 5),
    (b"\"\\\"", Fault::Truncated, 3),
    (b"tru", Fault::Truncated, 3),
    (b"n", Fault::Truncated, 1),
    (b"-", Fault::Truncated, 1),
    (b"1.", Fault::Truncated, 2),
    (b"1e", Fault::Truncated, 2),
    (b"1e+", Fault::Truncated, 3),
    // More than one.
    (b"1 2", Fault::TrailingData, 2),
    (b"{}{}", Fault::TrailingData, 2),
    (b"{}\n{}", Fault::TrailingData, 3),
    (b"[]]", Fault::TrailingData, 2),
    (b"{}}", Fault::TrailingData, 2),
    (b"null,", Fault::TrailingData, 4),
    (b"\"a\"b", Fault::TrailingData, 3),
    (b"truee", Fault::TrailingData, 4),
    (b"{}#", Fault::TrailingData, 2),
    (b"{}\0", Fault::TrailingData, 2),
    (b"[]\x0c", Fault::TrailingData, 2),
    // Structure.
    (b"[,]", Fault::Unexpected, 1),
    (b"[,1]", Fault::Unexpected, 1),
    (b"[1,]", Fault::Unexpected, 3),
    (b"[1,,2]", Fault::Unexpected, 3),
    (b"[1 2]", Fault::Unexpected, 3),
    (b"[1:2]", Fault::BadNumber, 2),
    (b"[\"a\":1]", Fault::Unexpected, 4),
    (b"[1}", Fault::Unexpected, 2),
    (b"{\"a\":1]", Fault::Unexpected, 6),
    (b"{,}", Fault::Unexpected, 1),
    (b"{\"a\":1,}", Fault::Unexpected, 7),
    (b"{\"a\":1,,\"b\":2}", Fault::Unexpected, 7),
    (b"{\"a\" 1}", Fault::Unexpected, 5),
    (b"{\"a\",1}", Fault::Unexpected, 4),
    (b"{\"a\"::1}", Fault::Unexpected, 5),
    (b"{\"a\":}", Fault::Unexpected, 5),
    (b"{:1}", Fault::Unexpected, 1),
    (b"{a:1}", Fault::Unexpected, 1),
    (b"{1:1}", Fault::Unexpected, 1),
    (b"{null:1}", Fault::Unexpected, 1),
    (b"{[]:1}", Fault::Unexpected, 1),
    (b"{'a':1}", Fault::Unexpected, 1),
    (b"{\"a\":'b'}", Fault::Unexpected, 5),
    (b"{\"a\":b}", Fault::Unexpected, 5),
    (b"{\"a\"}", Fault::Unexpected, 4),
    (b"{\"a\":1 \"b\":2}", Fault::Unexpected, 7),
    (b"]", Fault::Unexpected, 0),
    (b"}", Fault::Unexpected, 0),
    (b":", Fault::Unexpected, 0),
    (b",", Fault::Unexpected, 0),
    (b"*", Fault::Unexpected, 0),
    (b"[\x0c]", Fault::Unexpected, 1),
    (b"[\x0b1]", Fault::Unexpected, 1),
    (b"[\0]", Fault::Unexpected, 1),
    (b"\x0cnull", Fault::Unexpected, 0),
    (b"[\xc2\xa01]", Fault::Unexpected, 1),
    (b"[\xe2\x81\xa0]", Fault::Unexpected, 1),
    (b"<.>", Fault::Unexpected, 0),
    // Comments.
    (b"// a\n{}", Fault::Unexpected, 0),
    (b"/* a */{}", Fault::Unexpected, 0),
    (b"{/* a */}", Fault::Unexpected, 1),
    (b"{} // a", Fault::TrailingData, 3),
    (b"[1/**/]", Fault::BadNumber, 2),
    // Words.
    (b"True", Fault::Unexpected, 0),
    (b"TRUE", Fault::Unexpected, 0),
    (b"[nul]", Fault::Unexpected, 4),
    (b"[fals]", Fault::Unexpected, 5),
    (b"[nulll]", Fault::Unexpected, 5),
    (b"NaN", Fault::Unexpected, 0),
    (b"[NaN]", Fault::Unexpected, 1),
    (b"[nan]", Fault::Unexpected, 2),
    (b"Infinity", Fault::Unexpected, 0),
    (b"[-Infinity]", Fault::BadNumber, 2),
    (b"[-NaN]", Fault::BadNumber, 2),
    (b"undefined", Fault::Unexpected, 0),
    // Numbers.
    (b"[+1]", Fault::Unexpected, 1),
    (b"[.5]", Fault::Unexpected, 1),
    (b"[-.5]", Fault::BadNumber, 2),
    (b"[1.]", Fault::BadNumber, 3),
    (b"[1.e5]", Fault::BadNumber, 3),
    (b"[01]", Fault::BadNumber, 2),
    (b"[-01]", Fault::BadNumber, 3),
    (b"[00]", Fault::BadNumber, 2),
    (b"[1e]", Fault::BadNumber, 3),
    (b"[1e+]", Fault::BadNumber, 4),
    (b"[1e-x]", Fault::BadNumber, 4),
    (b"[1e5.5]", Fault::BadNumber, 4),
    (b"[1ee5]", Fault::BadNumber, 3),
    (b"[--1]", Fault::BadNumber, 2),
    (b"[-]", Fault::BadNumber, 2),
    (b"[- 1]", Fault::BadNumber, 2),
    (b"[1.2.3]", Fault::BadNumber, 4),
    (b"[0x1F]", Fault::BadNumber, 2),
    (b"[1a]", Fault::BadNumber, 2),
    (b"[1_000]", Fault::BadNumber, 2),
    (b"[1-2]", Fault::BadNumber, 2),
    (b"[1+2]", Fault::BadNumber, 2),
    (b"[1\"a\"]", Fault::BadNumber, 2),
    (b"[1\0]", Fault::BadNumber, 2),
    (b"[\xef\xbc\x91]", Fault::Unexpected, 1),
    (b"[1\xc2\xa0]", Fault::BadNumber, 2),
    (b"1e309", Fault::NumberTooLarge, 0),
    (b"[-1e309]", Fault::NumberTooLarge, 1),
    (b"[1E400]", Fault::NumberTooLarge, 1),
    (b"[1e99999999999999999999]", Fault::NumberTooLarge, 1),
    // Strings.
    (b"['a']", Fault::Unexpected, 1),
    (b"[\"a\nb\"]", Fault::ControlCharacter, 3),
    (b"[\"\t\"]", Fault::ControlCharacter, 2),
    (b"[\"\0\"]", Fault::ControlCharacter, 2),
    (b"[\"\x1f\"]", Fault::ControlCharacter, 2),
    (b"[\"0123456789\x010\"]", Fault::ControlCharacter, 12),
    (b"[\"\\x41\"]", Fault::BadEscape, 2),
    (b"[\"\\a\"]", Fault::BadEscape, 2),
    (b"[\"\\0\"]", Fault::BadEscape, 2),
    (b"[\"\\'\"]", Fault::BadEscape, 2),
    (b"[\"\\U0041\"]", Fault::BadEscape, 2),
    (b"[\"\\ \"]", Fault::BadEscape, 2),
    (b"[\"\\\n\"]", Fault::BadEscape, 2),
    (b"[\"\\\xc3\xa9\"]", Fault::BadEscape, 2),
    (b"[\"\\u00g0\"]", Fault::BadEscape, 6),
    (b"[\"\\u 041\"]", Fault::BadEscape, 4),
    (b"[\"\\u+041\"]", Fault::BadEscape, 4),
    (b"[\"\\u041\"]", Fault::BadEscape, 7),
    (b"[\"\\u{41}\"]", Fault::BadEscape, 4),
    (b"[\"\\ud800\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\udfff\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\ud800a\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\ud800\\n\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\ud800\\ud800\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\udc00\\ud800\"]", Fault::LoneSurrogate, 2),
    (b"[\"\\ud800\\u0041\"]", Fault::LoneSurrogate, 2),
    (b"[\"a\\ud83d\\ude00\\ude00\"]", Fault::LoneSurrogate, 15),
    (b"{\"\\ud800\":1}", Fault::LoneSurrogate, 2),
    // Encodings.
    (b"\xef\xbb\xbf{}", Fault::ByteOrderMark, 0),
    (b"\xef\xbb\xbf", Fault::ByteOrderMark, 0),
    (b"\xff\xfe{\0}\0", Fault::NotUtf8, 0),
    (b"\xfe\xff\0{\0}", Fault::NotUtf8, 0),
    (b"{\0}\0", Fault::Unexpected, 1),
    (b"\0\0\0{", Fault::Unexpected, 0),
    (b"[\"\xff\"]", Fault::NotUtf8, 2),
    (b"[\"\xc0\x80\"]", Fault::NotUtf8, 2),
    (b"[\"\xc0\xaf\"]", Fault::NotUtf8, 2),
    (b"[\"\xe0\x80\xaf\"]", Fault::NotUtf8, 2),
    (b"[\"\xed\xa0\x80\"]", Fault::NotUtf8, 2),
    (b"[\"\xed\xbf\xbf\"]", Fault::NotUtf8, 2),
    (b"[\"\xf4\x90\x80\x80\"]", Fault::NotUtf8, 2),
    (b"[\"\xf8\x88\x80\x80\x80\"]", Fault::NotUtf8, 2),
    (b"[\"\xe9\"]", Fault::NotUtf8, 2),
    (b"[\"\xe6\x97\"]", Fault::NotUtf8, 2),
    (b"[\"\x80\"]", Fault::NotUtf8, 2),
    (b"{}\xff", Fault::NotUtf8, 2),
    (b"\xef\xbb{}", Fault::NotUtf8, 0),
    // Keys.
    (b"{\"a\":1,\"a\":1}", Fault::DuplicateKey, 7),
    (b"{\"a\":1,\"b\":2,\"a\":3}", Fault::DuplicateKey, 13),
    (b"{\"\":1,\"\":2}", Fault::DuplicateKey, 6),
    (b"{\"name\":1,\"n\\u0061me\":2}", Fault::DuplicateKey, 10),
    (b"{\"\\u006eame\":1,\"n\\u0061me\":2}", Fault::DuplicateKey, 15),
    (b"{\"\\/\":1,\"/\":2}", Fault::DuplicateKey, 8),
    (b"{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", Fault::DuplicateKey, 18),
    (b"[{\"x\":{\"a\":1,\"a\":1}}]", Fault::DuplicateKey, 13),
    (b"{\"a\":{\"b\":[{\"c\":1,\"d\":{},\"c\":2}]}}", Fault::DuplicateKey, 25),
];

#[test]
fn what_leaves_the_grammar_is_refused_where_it_does() {
    for (body, expected, at) in REFUSED {
        assert_eq!(fault(body), Some((*expected, *at)), "{}", body.escape_ascii());
    }
}

#[test]
fn serde_json_reads_nothing_of_what_is_malformed() {
    for (body, expected, _) in REFUSED {
        let reads = serde_json::from_slice::<serde_json::Value>(body).is_ok();
        assert_eq!(reads, *expected == Fault::DuplicateKey, "{}", body.escape_ascii());
    }
}

#[test]
fn there_are_vectors_enough() {
    assert!(ACCEPTED.len() + REFUSED.len() >= 240, "{} {}", ACCEPTED.len(), REFUSED.len());
}

/// Puts something special at every offset of a string, so that it falls on every place of the eight-byte steps.
#[test]
fn the_end_of_a_string_is_found_at_every_offset() {
    for filler in ["x", "é", "日", "😀", "\u{7f}", "\u{80}", "!", "\\n"] {
        for length in 0..40 {
            let text = filler.repeat(length);
            assert_eq!(fault(format!("[\"{text}\",1]")), None);
            assert_eq!(fault(format!("[\"{text}\\\"{text}\",1]")), None);
            let at = 2 + text.len();
            assert_eq!(fault(format!("[\"{text}\u{1f}\"]")), Some((Fault::ControlCharacter, at)));
            assert_eq!(fault(format!("[\"{text}\\q\"]")), Some((Fault::BadEscape, at)));
            assert_eq!(fault(format!("[\"{text}\" x]")), Some((Fault::Unexpected, at + 2)));
            assert_eq!(fault(format!("[\"{text}")), Some((Fault::Truncated, at)));
        }
    }
}

#[test]
fn every_control_character_must_be_escaped() {
    for code in 0_u8..=255 {
        let body = [b'"', code, b'"'];
        let expected = match code {
            0..0x20 => Some((Fault::ControlCharacter, 1)),
            b'"' => Some((Fault::TrailingData, 2)),
            b'\\' => Some((Fault::Truncated, 3)),
            0x80.. => Some((Fault::NotUtf8, 1)),
            _ => None,
        };
        assert_eq!(fault(body), expected, "{code:#x}");
    }
}

#[test]
fn whitespace_before_the_document_is_limited() {
    assert_eq!(fault(format!("{}{{}}", " ".repeat(64))), None);
    assert_eq!(fault(format!("{}{{}}", "\n".repeat(65))), Some((Fault::LeadingWhitespace, 65)));
    assert_eq!(fault(format!("{{}}{}", "\n".repeat(500))), None);
}

#[test]
fn depth_is_limited_and_costs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}{}{}", open.repeat(depth - 1), "[]", close.repeat(depth - 1));
        assert_eq!(fault(nested(64)), None);
        assert_eq!(fault(nested(65)), Some((Fault::TooDeep, 64 * open.len())));
        assert_eq!(fault(open.repeat(1_000_000)), Some((Fault::TooDeep, 64 * open.len())));
    }
}
