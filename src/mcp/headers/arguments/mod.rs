//! Do the headers that repeat arguments say the same as the arguments?
//!
//! Whatever the tool's schema marks is in both places with one meaning, or in neither. Numbers are compared as decimal
//! fractions of any length, never as doubles. Headers that the schema does not know mean nothing here.

#[cfg(test)]
mod tests;

use http::HeaderMap;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::headers::HeaderError;
use crate::mcp::headers::VALUE_BYTES_MAX;
use crate::mcp::headers::annotations::Annotated;
use crate::mcp::headers::annotations::Mirrored;
use crate::mcp::headers::decode;
use crate::mcp::headers::trim;

/// Compares the headers of a `tools/call` with its arguments.
pub fn verify(headers: &HeaderMap, arguments: Option<Value<'_>>, annotated: &Annotated) -> Result<(), HeaderError> {
    annotated.headers.iter().try_for_each(|mirrored| verify_one(headers, arguments, mirrored))
}

fn verify_one(headers: &HeaderMap, arguments: Option<Value<'_>>, mirrored: &Mirrored) -> Result<(), HeaderError> {
    let name = &mirrored.name;
    let mut lines = headers.get_all(name).iter().map(|line| trim(line.as_bytes()));
    let (line, second) = (lines.next(), lines.next());
    let value = argument(arguments, &mirrored.path);
    match (line, value) {
        _ if second.is_some() => Err(HeaderError::mismatch(format!("repeated header {name}"))),
        (None, None) => Ok(()),
        (None, Some(_)) => Err(HeaderError::mismatch(format!("missing header {name}"))),
        (Some(_), None) => Err(HeaderError::mismatch(format!("header {name} repeats nothing in the body"))),
        (Some(line), Some(_)) if line.len() > VALUE_BYTES_MAX => {
            Err(HeaderError::mismatch(format!("header {name} is too long")))
        }
        (Some(line), Some(value)) => match decode(line) {
            Some(text) if is_same(&text, value) => Ok(()),
            Some(_) => Err(HeaderError::mismatch(format!("header {name} differs from the body"))),
            None => Err(HeaderError::mismatch(format!("header {name} is malformed"))),
        },
    }
}

/// The argument at a path; `None` if it is not there or null.
fn argument<'d>(arguments: Option<Value<'d>>, path: &[Box<str>]) -> Option<Value<'d>> {
    let value = path.iter().try_fold(arguments?, |value, key| value.get(key))?;
    Some(value).filter(|value| value.kind() != Kind::Null)
}

/// Whether a header says the same as an argument. An argument of another type than its schema's is compared as what it
/// is, and left for the server to complain of.
fn is_same(text: &str, value: Value<'_>) -> bool {
    match value.kind() {
        Kind::String => value.text() == Some(text),
        Kind::True => text == "true",
        Kind::False => text == "false",
        Kind::Number => {
            let header = Decimal::parse(text.as_bytes());
            header.is_some() && header == Decimal::parse(value.raw())
        }
        // Nothing repeats these.
        Kind::Object | Kind::Array | Kind::Null => false,
    }
}

/// A JSON number by its value: the digits between the first and the last that is not zero, and the power of ten of the
/// last. Zero has no digits, no power and no sign.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    power: i64,
}

impl Decimal {
    /// Reads a number as JSON writes it; `None` if it is none.
    fn parse(text: &[u8]) -> Option<Decimal> {
        let (is_negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            text => (false, text),
        };
        let at = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (mantissa, power) = match at.and_then(|at| text.split_at_checked(at)) {
            Some((mantissa, exponent)) => (mantissa, exponent.get(1..)?),
            None => (text, b"0".as_slice()),
        };
        let mut parts = mantissa.splitn(2, |byte| *byte == b'.');
        let (whole, fraction) = (parts.next()?, parts.next());
        let is_whole = matches!(whole, [b'0'] | [b'1'..=b'9', ..]) && whole.iter().all(u8::is_ascii_digit);
        let is_fraction = fraction.is_none_or(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
        let bare = power.strip_prefix(b"+").or_else(|| power.strip_prefix(b"-")).unwrap_or(power);
        if !is_whole || !is_fraction || bare.is_empty() || !bare.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let fraction = fraction.unwrap_or_default();
        let mut digits: Vec<u8> = whole.iter().chain(fraction).copied().skip_while(|digit| *digit == b'0').collect();
        let written = digits.len();
        digits.truncate(digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last.saturating_add(1)));
        if digits.is_empty() {
            return Some(Decimal::default());
        }
        let dropped = i64::try_from(written.saturating_sub(digits.len())).ok()?;
        let power = std::str::from_utf8(power).ok()?.parse::<i64>().ok()?;
        let power = power.checked_add(dropped)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Decimal { is_negative, digits, power })
    }
}
