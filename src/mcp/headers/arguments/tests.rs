//! Arguments and headers that say the same, and others.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::mcp::document::Document;
use crate::mcp::document::Limits;
use crate::mcp::headers::annotations;

const SCHEMA: &str = r#"{"name":"t","inputSchema":{"properties":{
    "region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},
    "b":{"type":"boolean","x-mcp-header":"B"},
    "o":{"type":"object","properties":{"deep":{"type":"string","x-mcp-header":"Deep"}}}}}}"#;

fn read(body: &str) -> Document {
    Document::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).expect("is read")
}

/// The code with which arguments and headers are refused.
fn verified(arguments: &str, pairs: &[(&str, &str)]) -> Result<(), i32> {
    let annotated = annotations::of_tool("t", read(SCHEMA).root()).expect("is valid");
    let arguments = read(arguments);
    let headers = pairs.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(format!("mcp-param-{name}").as_bytes()).expect("a name");
        (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
    });
    verify(&headers.collect(), Some(arguments.root()), &annotated).map_err(|error| error.code)
}

fn one(name: &str, header: &str, key: &str, value: &str) -> Result<(), i32> {
    verified(&format!(r#"{{"{key}":{value}}}"#), &[(name, header)])
}

#[test]
fn what_stands_in_one_place_only_is_refused() {
    for (arguments, headers, expected) in [
        ("{}", [].as_slice(), Ok(())),
        (r#"{"region":"eu"}"#, &[("Region", "eu")], Ok(())),
        (r#"{"region":"eu"}"#, &[("REGION", " \teu ")], Ok(())),
        (r#"{"region":"eu"}"#, &[], Err(-32020)),
        (r#"{"region":""}"#, &[], Err(-32020)),
        (r#"{"region":null}"#, &[], Ok(())),
        (r#"{"region":null}"#, &[("Region", "eu")], Err(-32020)),
        (r#"{"region":null}"#, &[("Region", "null")], Err(-32020)),
        ("{}", &[("Region", "eu")], Err(-32020)),
        ("{}", &[("Region", "")], Err(-32020)),
        (r#"{"region":"eu"}"#, &[("Region", "eu"), ("region", "eu")], Err(-32020)),
        ("{}", &[("Region", "eu"), ("region", "eu")], Err(-32020)),
        (r#"{"Region":"eu"}"#, &[("Region", "eu")], Err(-32020)),
        (r#"{"o":{"deep":"x"}}"#, &[("Deep", "x")], Ok(())),
        (r#"{"o":{"deep":"x"}}"#, &[], Err(-32020)),
        (r#"{"deep":"x"}"#, &[("Deep", "x")], Err(-32020)),
        (r#"{"o":[{"deep":"x"}]}"#, &[], Ok(())),
        (r#"{"o":null}"#, &[("Deep", "x")], Err(-32020)),
        (r#"{"region":"eu","n":1,"b":false}"#, &[("N", "1"), ("B", "false"), ("Region", "eu")], Ok(())),
        (r#"{"region":"eu","n":1,"b":false}"#, &[("N", "1"), ("B", "true"), ("Region", "eu")], Err(-32020)),
        (r#"{"region":"eu"}"#, &[("Region", "eu"), ("Foo", "é"), ("Foo", "x")], Ok(())),
    ] {
        assert_eq!(verified(arguments, headers), expected, "{arguments} {headers:?}");
    }
    let annotated = annotations::of_tool("t", read(SCHEMA).root()).expect("is valid");
    assert_eq!(verify(&HeaderMap::new(), None, &annotated), Ok(()), "a call without arguments");
}

#[test]
fn a_text_is_repeated_byte_for_byte() {
    for (header, value, expected) in [
        ("us-west1", r#""us-west1""#, Ok(())),
        ("us-west1", r#""us\u002dwest1""#, Ok(())),
        ("us-West1", r#""us-west1""#, Err(-32020)),
        ("", r#""""#, Ok(())),
        ("=?base64??=", r#""""#, Ok(())),
        ("a b", r#""a b""#, Ok(())),
        ("=?base64?SGVsbG8sIOS4lueVjA==?=", r#""Hello, 世界""#, Ok(())),
        ("Hello, 世界", r#""Hello, 世界""#, Err(-32020)),
        ("=?base64?IHBhZGRlZCA=?=", r#"" padded ""#, Ok(())),
        (" padded ", r#"" padded ""#, Err(-32020)),
        ("=?base64?bGluZTEKbGluZTI=?=", r#""line1\nline2""#, Ok(())),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", r#""=?base64?literal?=""#, Ok(())),
        ("=?base64?literal?=", r#""=?base64?literal?=""#, Err(-32020)),
        ("=?base64?SGVsbG8?=", r#""Hello""#, Err(-32020)),
        ("=?BASE64?SGVsbG8=?=", r#""Hello""#, Err(-32020)),
        ("42.0", r#""42""#, Err(-32020)),
    ] {
        assert_eq!(one("Region", header, "region", value), expected, "{header} {value}");
    }
    let long = "x".repeat(VALUE_BYTES_MAX);
    assert_eq!(one("Region", &long, "region", &format!("\"{long}\"")), Ok(()));
    assert_eq!(one("Region", &format!("{long}x"), "region", &format!("\"{long}x\"")), Err(-32020));
}

#[test]
fn truth_is_written_in_one_way() {
    for (header, value, expected) in [
        ("true", "true", Ok(())),
        ("false", "false", Ok(())),
        ("=?base64?dHJ1ZQ==?=", "true", Ok(())),
        ("True", "true", Err(-32020)),
        ("1", "true", Err(-32020)),
        ("", "false", Err(-32020)),
        ("false", "true", Err(-32020)),
        ("{}", "{}", Err(-32020)),
        ("[]", "[]", Err(-32020)),
    ] {
        assert_eq!(one("B", header, "b", value), expected, "{header} {value}");
    }
}

#[test]
fn numbers_are_the_same_if_their_values_are_exactly() {
    for (header, value, expected) in [
        ("42", "42", true),
        ("42.0", "42", true),
        ("4.2e1", "42", true),
        ("42", "420e-1", true),
        ("0.42E+2", "42.000", true),
        ("-7", "-7.0", true),
        ("0", "-0.0", true),
        ("0e99999999999999999999", "0", true),
        ("9007199254740993", "9007199254740993", true),
        ("9007199254740993", "9007199254740993.0", true),
        ("9007199254740992", "9007199254740993", false),
        ("9007199254740993", "9007199254740992", false),
        ("1e300", "1e300", true),
        ("10e299", "1e300", true),
        ("1e99999999999999999999", "1e300", false),
        ("42.00000000000000000001", "42", false),
        ("-42", "42", false),
        ("042", "42", false),
        ("+42", "42", false),
        ("42.", "42", false),
        (".5", "0.5", false),
        ("42e", "42", false),
        ("4 2", "42", false),
        ("42,42", "42", false),
        ("0x2A", "42", false),
        ("", "0", false),
        ("-", "0", false),
        ("NaN", "0", false),
    ] {
        let expected = if expected { Ok(()) } else { Err(-32020) };
        assert_eq!(one("N", header, "n", value), expected, "{header} {value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_is_the_same_wherever_its_point_stands(digits in "[1-9][0-9]{0,30}", point in -20_i64..20, other in "[1-9][0-9]{0,30}") {
        let shifted = format!("{digits}{}e{}", "0".repeat(usize::try_from(point.max(0)).unwrap_or(0)), -point.max(0));
        prop_assert_eq!(one("N", &shifted, "n", &digits), Ok(()));
        prop_assert_eq!(one("N", &digits, "n", &other).is_ok(), digits == other);
    }
}
