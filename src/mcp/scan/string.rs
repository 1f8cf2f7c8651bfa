//! Where does a string end, and has it escapes?
//!
//! Control characters must be escaped, escapes must be known, and surrogates must come in pairs.

use crate::mcp::fault::Fault;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Shape;
use crate::mcp::scan::Scanner;

impl Scanner<'_> {
    /// Reads the string whose opening quote stands here.
    pub(super) fn string(&mut self, bytes_max: usize, too_long: Fault) -> Result<Shape, ReadError> {
        let start = self.at;
        self.at += 1;
        let mut shape = Shape::Plain;
        loop {
            self.skip_ordinary();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') => {
                    shape = Shape::Escaped { from: 0, to: 0 };
                    self.escape()?;
                }
                Some(_) => return self.fail(Fault::ControlCharacter),
                None => return self.fail(Fault::Truncated),
            }
        }
        // Both quotes are counted in what was read.
        if self.at - start - 2 > bytes_max {
            return Err(ReadError { fault: too_long, at: start });
        }
        Ok(shape)
    }

    /// Moves on to the next quote, backslash or control character, eight bytes at a time.
    fn skip_ordinary(&mut self) {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
            let found = special(u64::from_le_bytes(*chunk));
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
            rest = behind;
        }
        while let Some(byte) = self.peek() {
            if byte < b' ' || byte == b'"' || byte == b'\\' {
                return;
            }
            self.at += 1;
        }
    }

    /// Reads the escape whose backslash stands here.
    fn escape(&mut self) -> Result<(), ReadError> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => self.at += 1,
            Some(_) => return Err(ReadError { fault: Fault::BadEscape, at: start }),
            None => return self.fail(Fault::Truncated),
        }
        match self.four_digits()? {
            0xD800..=0xDBFF => {
                let is_followed = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"));
                if is_followed {
                    self.at += 2;
                    if let 0xDC00..=0xDFFF = self.four_digits()? {
                        return Ok(());
                    }
                }
                Err(ReadError { fault: Fault::LoneSurrogate, at: start })
            }
            0xDC00..=0xDFFF => Err(ReadError { fault: Fault::LoneSurrogate, at: start }),
            _ => Ok(()),
        }
    }

    fn four_digits(&mut self) -> Result<u32, ReadError> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else { return self.fail(Fault::Truncated) };
            let Some(digit) = char::from(byte).to_digit(16) else { return self.fail(Fault::BadEscape) };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);

/// The high bit of each byte that is a quote, a backslash or a control character. Bits above the lowest one that is set
/// may be false, because a subtraction borrows upwards only; the lowest is what callers use.
fn special(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5C)).wrapping_sub(ONES);
    (below_space | quote | backslash) & !word & HIGHS
}
