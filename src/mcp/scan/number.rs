//! Where does a number end, and is it one?
//!
//! The grammar of RFC 8259, a limited length, and a value that a double can hold; never a value computed from it.

use crate::mcp::fault::Fault;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Shape;
use crate::mcp::scan::Scanner;

impl Scanner<'_> {
    /// Reads the number that begins here. Its value must be finite as a double; its text stays what it is.
    pub(super) fn number(&mut self) -> Result<Shape, ReadError> {
        let start = self.at;
        if let Some(b'-') = self.peek() {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if let Some(b'.') = self.peek() {
            self.at += 1;
            self.digits()?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at - start > self.limits.number_bytes_max {
            return Err(ReadError { fault: Fault::NumberTooLong, at: start });
        }
        if !ends_number(self.peek()) {
            return self.fail(Fault::BadNumber);
        }
        // Without an exponent only hundreds of digits could leave the range of a double.
        if (has_exponent || self.at - start > 300) && !self.is_finite(start) {
            return Err(ReadError { fault: Fault::NumberTooLarge, at: start });
        }
        Ok(Shape::Number)
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), ReadError> {
        let first = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.peek() {
            _ if self.at > first => Ok(()),
            Some(_) => self.fail(Fault::BadNumber),
            None => self.fail(Fault::Truncated),
        }
    }

    fn is_finite(&self, start: usize) -> bool {
        let text = self.bytes.get(start..self.at).and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
    }
}

/// Whether a number may be followed by this byte. Said here rather than left to the next step, so that `01`, `1x` and
/// `1.2.3` are malformed numbers wherever they stand.
fn ends_number(byte: Option<u8>) -> bool {
    matches!(byte, None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
}
