//! Which URIs are taken, and what they are taken for.

use super::readings::READINGS_MAX;
use super::*;

fn flaw(text: &str) -> Option<UriFlaw> {
    Uri::read(text).err()
}

fn readings(text: &str) -> Vec<String> {
    Uri::read(text).unwrap().readings().map(str::to_owned).collect()
}

#[test]
fn what_resolving_does_not_change_is_taken() {
    for text in [
        "file:///data/a.txt",
        "file:///",
        "file:///C:/Users/a",
        "file:///a%20b",
        "file:///a b",
        "file:///a?b",
        "file://server/share/a",
        "file://notes.txt",
        "https://example.com",
        "https://example.com/",
        "https://example.com/a//b?c=d/e#f",
        "https://example.com:8443/a%2Fb",
        "http://127.0.0.1:3000/a",
        "http://[::1]:8080/a",
        "https://xn--mnchen-3ya.de/a",
        "https://example.com/?q=%0A",
        "test://static-resource",
        "demo://resource/static/document/x.md",
        "note:///Name",
        "ui://widget/x.html",
        "postgres://user@host/db/table/schema",
        "postgres://us%40er:p%3Aw@host/db",
        "urn:x:y",
        "github://repos/owner%2Frepo/contents?path=.",
        "github://Repos/A/b...c",
        "s3://bucket//key",
        "note://日本語/文書。md",
        "note:///%E6%97%A5",
        "data:text/plain;base64,aGk=",
        "mailto:a@b",
        "trello://board/100%25",
        "config",
        "a/b/c",
        "what is this?",
    ] {
        assert_eq!(flaw(text), None, "{text}");
        assert_eq!(Uri::read(text).unwrap().text(), text);
    }
}

/// URIs, and why they are refused.
const REFUSED: &[(&str, UriFlaw)] = &[
    ("", UriFlaw::Space),
    (" file:///a", UriFlaw::Space),
    ("file:///a ", UriFlaw::Space),
    ("\u{a0}file:///a", UriFlaw::Space),
    ("file:///a\tb", UriFlaw::Hidden),
    ("fi\nle:///a", UriFlaw::Hidden),
    ("file:///a\u{200b}", UriFlaw::Hidden),
    ("file:///a%00.txt", UriFlaw::Hidden),
    ("file:///a%0D%0Ab", UriFlaw::Hidden),
    ("file:///a%E2%80%8B", UriFlaw::Hidden),
    ("file:///a%250Ab", UriFlaw::Hidden),
    ("note:///a?b=%00", UriFlaw::Hidden),
    ("file:///a\\b", UriFlaw::Backslash),
    ("c:\\b", UriFlaw::Backslash),
    ("https:\\\\example.com\\", UriFlaw::Backslash),
    ("x:///%41", UriFlaw::Encoding),
    ("x:///%7E", UriFlaw::Encoding),
    ("x:///%2e%2e/", UriFlaw::Encoding),
    ("x:///%2E%2E/", UriFlaw::Encoding),
    ("x:///a%2fb", UriFlaw::Encoding),
    ("x:///a%", UriFlaw::Encoding),
    ("x:///a%2", UriFlaw::Encoding),
    ("x:///a%zz", UriFlaw::Encoding),
    ("x:///a%+1", UriFlaw::Encoding),
    ("x:///a%u002e", UriFlaw::Encoding),
    ("x:///%C0%AE%C0%AE/", UriFlaw::Encoding),
    ("x:///%FF", UriFlaw::Encoding),
    ("x:///%ED%A0%80", UriFlaw::Encoding),
    ("file:///a%2Fb", UriFlaw::Encoding),
    ("file:///a%5Cb", UriFlaw::Encoding),
    ("%66ile:///a", UriFlaw::Encoding),
    ("x:///%25252F", UriFlaw::Nested),
    ("file:///a/../b", UriFlaw::Dots),
    ("file:///a/./b", UriFlaw::Dots),
    ("file:///a/..", UriFlaw::Dots),
    ("file:///..", UriFlaw::Dots),
    ("x://..", UriFlaw::Dots),
    ("x://a/.. /b", UriFlaw::Dots),
    ("x://a/..%20/b", UriFlaw::Dots),
    ("x://a/..;b/c", UriFlaw::Dots),
    ("x://a/b%2F..%2Fc", UriFlaw::Dots),
    ("x://a/b%5C..%5Cc", UriFlaw::Dots),
    ("x://a/b%252F..%252Fc", UriFlaw::Dots),
    ("x://a/%252E%252E/c", UriFlaw::Dots),
    ("x://a/．．/c", UriFlaw::Dots),
    ("x://a/b?c/../../d", UriFlaw::Dots),
    ("x://a?path=../d", UriFlaw::Dots),
    ("x://a#/../d", UriFlaw::Dots),
    ("x:..", UriFlaw::Dots),
    ("../etc/passwd", UriFlaw::Dots),
    ("..", UriFlaw::Dots),
    ("FILE:///a", UriFlaw::Scheme),
    ("hTTps://example.com/", UriFlaw::Scheme),
    ("C:/a", UriFlaw::Scheme),
    ("file:/a", UriFlaw::Slashes),
    ("file:a", UriFlaw::Slashes),
    ("file://", UriFlaw::Slashes),
    ("file:////a", UriFlaw::Slashes),
    ("file:///a//b", UriFlaw::Slashes),
    ("https:example.com/", UriFlaw::Slashes),
    ("https:/example.com/", UriFlaw::Slashes),
    ("https:///example.com/", UriFlaw::Host),
    ("https://example.com?a", UriFlaw::Slashes),
    ("https://example.com#@evil/", UriFlaw::Slashes),
    ("https://a@example.com/", UriFlaw::User),
    ("ftp://a:b@example.com/", UriFlaw::User),
    ("ws://example.com@evil/", UriFlaw::User),
    ("file://a@b/c", UriFlaw::User),
    ("x://a@b@c/d", UriFlaw::User),
    ("x://trusted?@evil/d", UriFlaw::User),
    ("x://trusted#@evil/d", UriFlaw::User),
    ("https://Example.com/", UriFlaw::Host),
    ("https://example.com./", UriFlaw::Host),
    ("https://exämple.com/", UriFlaw::Host),
    ("https://example%2Ecom/", UriFlaw::Encoding),
    ("https://a%20b/", UriFlaw::Host),
    ("http://2852039166/", UriFlaw::Host),
    ("http://0xa9fea9fe/", UriFlaw::Host),
    ("http://169.254.43518/", UriFlaw::Host),
    ("http://0251.0376.0251.0376/", UriFlaw::Host),
    ("http://[::ffff:a9fe:a9fe]/", UriFlaw::Host),
    ("http://[FD00:ec2::254]/", UriFlaw::Host),
    ("http://[fd00:0ec2::254]/", UriFlaw::Host),
    ("http://１69.254.169.254/", UriFlaw::Host),
    ("file://localhost/a", UriFlaw::Host),
    ("file://127.0.0.1/a", UriFlaw::Host),
    ("file://[::1]/a", UriFlaw::Host),
    ("file:///C|/a", UriFlaw::Host),
    ("x://trusted%40evil/a", UriFlaw::Host),
    ("x://evil%3Ftrusted/a", UriFlaw::Host),
    ("x://evil%2F@trusted/a", UriFlaw::Host),
    ("http://example.com:80/", UriFlaw::Port),
    ("https://example.com:443/", UriFlaw::Port),
    ("https://example.com:/", UriFlaw::Port),
    ("https://example.com:08/", UriFlaw::Port),
    ("https://example.com:99999/", UriFlaw::Port),
];

#[test]
fn what_could_be_read_as_something_else_is_refused() {
    for (text, expected) in REFUSED {
        assert_eq!(flaw(text), Some(*expected), "{text:?}");
    }
}

#[test]
fn a_uri_has_a_length_and_a_number_of_readings() {
    let long = |bytes: usize| format!("x:{}", "a".repeat(bytes - 2));
    assert_eq!((flaw(&long(URI_BYTES_MAX)), flaw(&long(URI_BYTES_MAX + 1))), (None, Some(UriFlaw::Long)));
    let many = "view-source:x://ｕ%2540:%20@0x1;a%253Ba;a/b%2520;c%253Bd//e?f%2523g#h";
    assert_eq!(flaw(many), Some(UriFlaw::Many));
    assert!(readings("x://u@h/a;b//c?d#e").len() < READINGS_MAX);
}

#[test]
fn every_reader_is_thought_of() {
    for (text, taken_for) in [
        ("file:///etc", "file:///etc/"),
        ("file://host/etc/passwd", "file:///etc/passwd"),
        ("file://etc/passwd", "file:///etc/passwd"),
        ("/etc/passwd", "file:///etc/passwd"),
        ("etc/passwd", "file:///etc/passwd"),
        ("//etc//passwd", "file:///etc/passwd"),
        ("file%3A///etc/passwd", "file:///etc/passwd"),
        ("//169.254.169.254/a", "http://169.254.169.254/a"),
        ("0xa9fea9fe/a", "http://169.254.169.254/a"),
        ("gopher://0xa9fea9fe/a", "gopher://169.254.169.254/a"),
        ("gopher://[FD00:0ec2::0:254]:70/a", "gopher://[fd00:ec2::254]/a"),
        ("gopher://169。254。169。254/a", "gopher://169.254.169.254/a"),
        ("view-source:http://2852039166/a", "http://169.254.169.254/a"),
        ("jar:file:/etc/x", "file:///etc/x"),
        ("url:url:FILE:////etc/x", "file:///etc/x"),
        ("file:///a/id_rsa?x", "file:///a/id_rsa"),
        ("file:///a/id_rsa#x", "file:///a/id_rsa"),
        ("file:///a/id_rsa%3Fx", "file:///a/id_rsa"),
        ("file:///a/id_rsa%2523x", "file:///a/id_rsa"),
        ("file:///a/id_rsa;x", "file:///a/id_rsa"),
        ("file:///a/id_rsa::$DATA", "file:///a/id_rsa"),
        ("file:///a/id_rsa.", "file:///a/id_rsa"),
        ("file:///a/id_rsa%20", "file:///a/id_rsa"),
        ("file:///a/id_rsa/", "file:///a/id_rsa"),
        ("file:///ｅtc/passwd", "file:///etc/passwd"),
        ("x://a/b%2Fc", "x://a/b/c"),
        ("x://a/b%5Cc", "x://a/b/c"),
        ("x://a/b%252Fc", "x://a/b/c"),
        ("x://a//b", "x://a/b"),
        ("x://u:p@a/b", "x://a/b"),
    ] {
        let readings = readings(text);
        assert!(readings.iter().any(|reading| reading == taken_for), "{text} {readings:?}");
        assert_eq!(readings.first().map(String::as_str), Some(text));
    }
}

#[test]
fn a_less_exact_reader_decodes_separators_drops_users_and_joins_slashes() {
    for (text, expected) in [
        ("x://a/b", None),
        ("x:///a", None),
        ("x://a/%20%E6%97%A5", None),
        ("x://a/b%2Fc", Some("x://a/b/c")),
        ("x://a/b%252Fc", Some("x://a/b/c")),
        ("x://u@a/b", Some("x://a/b")),
        ("x://a//b", Some("x://a/b")),
        ("x:////a", Some("x:///a")),
        ("https://a/b//c?d=//e", Some("https://a/b/c?d=//e")),
    ] {
        assert_eq!(Uri::read(text).unwrap().loose(), expected, "{text}");
    }
}

#[test]
fn decoding_is_done_once_and_leaves_what_encodes_nothing() {
    for (text, expected) in [("a%20b", "a b"), ("%2541", "%41"), ("100%", "100%"), ("%zz%", "%zz%"), ("%FF", "%FF")] {
        assert_eq!(decoded(text), expected);
    }
}
