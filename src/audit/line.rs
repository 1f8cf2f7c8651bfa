//! What does a canonical line look like?
//!
//! One JSON object, no spaces, ASCII only: whatever is not a printable ASCII character is escaped as `\uXXXX`, so
//! that no client's text can end a line, move a terminal's cursor, reorder what a reader sees or hide from a search.
//! Texts have a bound; what is longer ends in `…`. Written by hand into a buffer that is used again and again.

use std::fmt;

/// The character that marks a text as cut, escaped like every other that is not ASCII.
const CUT_MARK: char = '…';
/// Names of a query that are kept.
const QUERY_NAMES_MAX: usize = 16;
/// Bytes of a query's name; a longer one could be a credential that lost its name.
const QUERY_NAME_BYTES_MAX: usize = 32;
/// Bytes of one path segment. Server names are shorter and our keys are longer.
const SEGMENT_BYTES_MAX: usize = 40;
/// Bytes kept of a path segment that is longer: enough to recognise, not enough to use.
const SEGMENT_BYTES_KEPT: usize = 6;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 256;

/// Bytes turned into digits at a time: a whole digest.
const HEX_CHUNK_BYTES: usize = 32;
/// The digits of every byte.
static HEX: [[u8; 2]; 256] = hex_digits();

#[expect(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
const fn hex_digits() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        digits[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    digits
}

/// An object being written at the end of a buffer. Names of fields are ours and need no escaping.
#[derive(Debug)]
pub(super) struct Line<'b> {
    buffer: &'b mut Vec<u8>,
    first: bool,
}

impl<'b> Line<'b> {
    /// Opens the object.
    pub(super) fn begin(buffer: &'b mut Vec<u8>) -> Self {
        buffer.push(b'{');
        Self { buffer, first: true }
    }

    /// Closes the object; the newline is not part of it.
    pub(super) fn end(self) {
        self.buffer.push(b'}');
    }

    fn name(&mut self, name: &str) {
        self.buffer.extend_from_slice(if self.first { b"\"" } else { b",\"" });
        self.first = false;
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }

    /// A number.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        push_number(self.buffer, number, 1);
    }

    /// A word of ours: it needs no escaping.
    pub(super) fn word(&mut self, name: &str, word: &str) {
        self.name(name);
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(word.as_bytes());
        self.buffer.push(b'"');
    }

    /// Bytes as lower-case hexadecimal digits.
    pub(super) fn hex(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.buffer.push(b'"');
        for chunk in bytes.chunks(HEX_CHUNK_BYTES) {
            push_hex_chunk(self.buffer, chunk);
        }
        self.buffer.push(b'"');
    }

    /// A text of somebody else's: escaped, at most `bytes_max` bytes of it. What is not UTF-8 becomes U+FFFD.
    pub(super) fn text(&mut self, name: &str, text: &[u8], bytes_max: usize) {
        self.name(name);
        self.buffer.push(b'"');
        push_text(self.buffer, text, bytes_max);
        self.buffer.push(b'"');
    }

    /// A list of such texts, at most `count_max` of them.
    pub(super) fn texts<'t>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = &'t str>,
        count_max: usize,
        bytes_max: usize,
    ) {
        self.name(name);
        self.buffer.push(b'[');
        for (position, text) in texts.take(count_max).enumerate() {
            if position > 0 {
                self.buffer.push(b',');
            }
            self.buffer.push(b'"');
            push_text(self.buffer, text.as_bytes(), bytes_max);
            self.buffer.push(b'"');
        }
        self.buffer.push(b']');
    }

    /// What a value says of itself: escaped and bounded like [`Line::text`].
    pub(super) fn display(&mut self, name: &str, value: &dyn fmt::Display, bytes_max: usize) {
        self.name(name);
        self.buffer.push(b'"');
        let mut writer = Bounded { buffer: self.buffer, left: bytes_max, cut: false };
        // The only error is the one that `Bounded` itself makes to stop early.
        let _ = fmt::Write::write_fmt(&mut writer, format_args!("{value}"));
        self.buffer.push(b'"');
    }

    /// A time in RFC 3339, UTC, with microseconds.
    pub(super) fn time(&mut self, name: &str, micros: u64) {
        self.name(name);
        self.buffer.push(b'"');
        push_time(self.buffer, micros);
        self.buffer.push(b'"');
    }

    /// The path of a request target, and the names of its query in a list of their own. Values are left out, and so
    /// is what could be one: a name without `=`, a long name, the rest of a long path segment.
    pub(super) fn target(&mut self, target: &[u8]) {
        let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
        let (path, rest) = target.split_at_checked(end).unwrap_or((target, &[]));
        self.name("path");
        self.buffer.push(b'"');
        push_path(self.buffer, path);
        self.buffer.push(b'"');
        if let Some((b'?', query)) = rest.split_first()
            && !query.is_empty()
        {
            self.name("query");
            push_query_names(self.buffer, query);
        }
    }

    /// An object of numbers; those that are unknown stay out, and so does the object if all are.
    pub(super) fn numbers(&mut self, name: &str, numbers: &[(&'static str, Option<u64>)]) {
        if numbers.iter().all(|(_, number)| number.is_none()) {
            return;
        }
        self.name(name);
        let mut object = Line::begin(self.buffer);
        for (name, number) in numbers {
            if let Some(number) = number {
                object.number(name, *number);
            }
        }
        object.end();
    }
}

fn push_path(buffer: &mut Vec<u8>, path: &[u8]) {
    let (kept, cut) = bounded(path, PATH_BYTES_MAX);
    for (position, segment) in kept.split(|byte| *byte == b'/').enumerate() {
        if position > 0 {
            buffer.push(b'/');
        }
        if segment.len() > SEGMENT_BYTES_MAX {
            push_text(buffer, segment, SEGMENT_BYTES_KEPT);
        } else {
            push_text(buffer, segment, SEGMENT_BYTES_MAX);
        }
    }
    if cut {
        push_char(buffer, CUT_MARK);
    }
}

fn push_query_names(buffer: &mut Vec<u8>, query: &[u8]) {
    buffer.push(b'[');
    for (position, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if position > 0 {
            buffer.push(b',');
        }
        buffer.push(b'"');
        if position == QUERY_NAMES_MAX {
            push_char(buffer, CUT_MARK);
            buffer.push(b'"');
            break;
        }
        match pair.iter().position(|byte| *byte == b'=') {
            Some(end) if end <= QUERY_NAME_BYTES_MAX => {
                push_text(buffer, pair.get(..end).unwrap_or_default(), QUERY_NAME_BYTES_MAX);
            }
            _ => push_char(buffer, CUT_MARK),
        }
        buffer.push(b'"');
    }
    buffer.push(b']');
}

/// The first bytes of a text up to the bound, without half a character; and whether something is missing.
fn bounded(text: &[u8], bytes_max: usize) -> (&[u8], bool) {
    let Some((mut kept, rest)) = text.split_at_checked(bytes_max) else { return (text, false) };
    if rest.is_empty() {
        return (kept, false);
    }
    // A character has at most three bytes after its first; text that is not UTF-8 is cut where it stands.
    let mut next = rest.first().copied();
    for _ in 0..3 {
        match (next, kept.split_last()) {
            (Some(0x80..=0xbf), Some((last, before))) => {
                next = Some(*last);
                kept = before;
            }
            _ => break,
        }
    }
    (kept, true)
}

fn push_text(buffer: &mut Vec<u8>, text: &[u8], bytes_max: usize) {
    let (kept, cut) = bounded(text, bytes_max);
    push_escaped(buffer, kept);
    if cut {
        push_char(buffer, CUT_MARK);
    }
}

fn push_escaped(buffer: &mut Vec<u8>, text: &[u8]) {
    if text.iter().fold(true, |all, byte| all & plain(*byte)) {
        buffer.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        chunk.valid().chars().for_each(|character| push_char(buffer, character));
        if !chunk.invalid().is_empty() {
            push_char(buffer, char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether a byte stands for itself.
fn plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn push_char(buffer: &mut Vec<u8>, character: char) {
    match u8::try_from(character) {
        Ok(byte) if plain(byte) => buffer.push(byte),
        Ok(byte @ (b'"' | b'\\')) => buffer.extend_from_slice(&[b'\\', byte]),
        _ => {
            let mut units = [0u16; 2];
            for unit in character.encode_utf16(&mut units) {
                buffer.extend_from_slice(b"\\u");
                push_hex_chunk(buffer, &unit.to_be_bytes());
            }
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "a byte is an index of 256 places")]
fn hex(byte: u8) -> [u8; 2] {
    HEX[usize::from(byte)]
}

/// Digits go through an array, so that the buffer's room is asked for once.
fn push_hex_chunk(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let mut digits = [[b'0'; 2]; HEX_CHUNK_BYTES];
    for (pair, byte) in digits.iter_mut().zip(bytes) {
        *pair = hex(*byte);
    }
    buffer.extend_from_slice(digits.as_flattened().get(..bytes.len() * 2).unwrap_or_default());
}

/// Decimal digits, at least `digits_min` of them.
fn push_number(buffer: &mut Vec<u8>, mut number: u64, digits_min: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if number == 0 && used >= digits_min {
            break;
        }
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        used += 1;
    }
    buffer.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// A time as it stands in records. Texts of times sort like times.
pub fn time_text(micros: u64) -> String {
    let mut text = Vec::new();
    push_time(&mut text, micros);
    String::from_utf8_lossy(&text).into_owned()
}

fn push_time(buffer: &mut Vec<u8>, micros: u64) {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    // Where each number ends; its digits go from there to the left, as far as it has any.
    let numbers = [
        (4, year),
        (7, month),
        (10, day),
        (13, second / 3600),
        (16, second / 60 % 60),
        (19, second % 60),
        (26, micros),
    ];
    for (end, mut number) in numbers {
        for digit in text.iter_mut().take(end).rev() {
            if number == 0 {
                break;
            }
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    buffer.extend_from_slice(&text);
}

/// Year, month and day of a day since 1970-01-01, by eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_of_year, shift) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + shift, month_of_year, day - (153 * month + 2) / 5 + 1)
}

/// Escapes what is written to it, up to a bound.
struct Bounded<'b> {
    buffer: &'b mut Vec<u8>,
    left: usize,
    cut: bool,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Err(fmt::Error);
        }
        let (kept, cut) = bounded(text.as_bytes(), self.left);
        push_escaped(self.buffer, kept);
        self.left -= kept.len();
        if cut {
            self.cut = true;
            push_char(self.buffer, CUT_MARK);
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line with one text field holds, and what a JSON reader makes of it.
    fn written(text: &[u8], bytes_max: usize) -> (String, String) {
        let mut buffer = Vec::new();
        let mut line = Line::begin(&mut buffer);
        line.text("t", text, bytes_max);
        line.end();
        let line = String::from_utf8(buffer).unwrap();
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        (line, read["t"].as_str().unwrap().to_owned())
    }

    fn target(target: &str) -> serde_json::Value {
        let mut buffer = Vec::new();
        let mut line = Line::begin(&mut buffer);
        line.target(target.as_bytes());
        line.end();
        serde_json::from_slice(&buffer).unwrap()
    }

    fn time(micros: u64) -> String {
        let mut buffer = Vec::new();
        push_time(&mut buffer, micros);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn every_character_reads_back_and_stays_on_one_ascii_line() {
        let mut hostile: String = (0..0x500u32).chain(0x2000..0x2100).filter_map(char::from_u32).collect();
        hostile.push_str("\u{feff}\u{1f600}\u{e0041}</script>");
        let (line, read) = written(hostile.as_bytes(), usize::MAX);
        assert_eq!(read, hostile);
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
    }

    #[test]
    fn bytes_that_are_not_utf8_become_a_mark() {
        assert_eq!(written(b"a\xff\xfeb\xe2\x82", 64).1, "a\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(written(b"abcd", 4).1, "abcd");
        assert_eq!(written(b"abcde", 4).1, "abcd…");
        assert_eq!(written("abcé".as_bytes(), 4).1, "abc…");
        assert_eq!(written("ab😀".as_bytes(), 5).1, "ab…");
        assert_eq!(written(b"\x80\x80\x80\x80\x80\x80", 5).1, "\u{fffd}\u{fffd}…");
    }

    #[test]
    fn what_displays_itself_is_escaped_and_cut_alike() {
        let mut buffer = Vec::new();
        let mut line = Line::begin(&mut buffer);
        line.display("a", &format_args!("{}\n{}", "x\"", "yé"), 64);
        line.display("b", &format_args!("{}{}{}", "abc", "def", "ghi"), 4);
        line.end();
        assert_eq!(String::from_utf8(buffer).unwrap(), r#"{"a":"x\"\u000ay\u00e9","b":"abcd\u2026"}"#);
    }

    #[test]
    fn no_query_value_is_kept_and_nothing_that_could_be_one() {
        assert_eq!(target("/mcp/x"), serde_json::json!({"path": "/mcp/x"}));
        assert_eq!(target("/mcp/x?"), serde_json::json!({"path": "/mcp/x"}));
        assert_eq!(
            target("/mcp/x?sessionId=SECRET&api_key=SECRET&SECRET&=SECRET#SECRET"),
            serde_json::json!({"path": "/mcp/x", "query": ["sessionId", "api_key", "…", ""]})
        );
        assert_eq!(target(&format!("/a?{}=1", "S".repeat(33))), serde_json::json!({"path": "/a", "query": ["…"]}));
        assert_eq!(target("/a#SECRET"), serde_json::json!({"path": "/a"}));
        assert_eq!(
            target(&format!("/mcp/{}/sse", "abcdef".repeat(7))),
            serde_json::json!({"path": "/mcp/abcdef…/sse"})
        );
    }

    #[test]
    fn paths_and_queries_are_bounded() {
        let long = target(&"/abcdefg".repeat(100));
        assert_eq!(long["path"].as_str().unwrap().chars().count(), PATH_BYTES_MAX + 1);
        let many = target(&format!("/a?{}", "k=v&".repeat(100)));
        assert_eq!(many["query"].as_array().unwrap().len(), QUERY_NAMES_MAX + 1);
        assert_eq!(many["query"][QUERY_NAMES_MAX], "…");
    }

    #[test]
    fn times_are_rfc_3339_in_utc_with_microseconds() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(time(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(time(1_767_225_599_123_456), "2025-12-31T23:59:59.123456Z");
        assert_eq!(time(4_107_542_400_000_000), "2100-03-01T00:00:00.000000Z");
        assert_eq!(time(253_402_300_799_000_000), "9999-12-31T23:59:59.000000Z");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        let mut buffer = Vec::new();
        for number in [0, 7, 10, 999, u64::MAX] {
            push_number(&mut buffer, number, 1);
            buffer.push(b' ');
        }
        assert_eq!(buffer, b"0 7 10 999 18446744073709551615 ");
    }
}
