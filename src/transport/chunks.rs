//! Where does a chunked body end, and do all parsers agree on it?
//!
//! Judges the raw bytes as they arrive, cut anywhere, before any parser has touched them. Extensions and trailers are
//! let through within bounds, as nothing here reads them; whatever is not exactly in the form of RFC 9112 is refused.
//! A bare line feed inside an extension, which some parsers end the line at and others skip, is the classic case.

use crate::transport::head;

/// Hexadecimal digits of one size.
const SIZE_DIGITS_MAX: usize = 15;
/// Bytes of one size line, its extensions included.
const SIZE_LINE_BYTES_MAX: usize = 1024;
/// Bytes of all trailers together.
const TRAILER_BYTES_MAX: usize = 8192;

/// The body is not framed as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: usize },
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    End,
    Done,
    Failed,
}

/// A chunked body on its way in.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of the present chunk that are still to come.
    left: u64,
    /// Bytes of the present size line, or of all trailers.
    line_bytes: usize,
}

impl Chunks {
    /// A body of which nothing has come yet.
    pub fn new() -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, line_bytes: 0 }
    }

    /// Whether all of it has come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next bytes and says how many of them belong to the body: all, unless it is done.
    ///
    /// # Errors
    /// The framing is malformed; so is everything that may follow.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            if self.state == State::Data {
                let count = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                rest = rest.get(count..).unwrap_or_default();
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            if self.state == State::Done {
                break;
            }
            self.state = self.next(*byte).unwrap_or(State::Failed);
            if self.state == State::Failed {
                return Err(Malformed);
            }
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    /// The state behind a byte that is not data; `None` if it cannot stand there.
    fn next(&mut self, byte: u8) -> Option<State> {
        self.line_bytes += 1;
        Some(match (self.state, byte) {
            (State::Size { digits }, b'\r') if digits > 0 => State::SizeEnd,
            (State::Size { digits }, b';') if digits > 0 => State::Extension,
            (State::Size { digits }, _) if digits < SIZE_DIGITS_MAX => {
                self.left = self.left * 16 + u64::from(char::from(byte).to_digit(16)?);
                State::Size { digits: digits + 1 }
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~') if self.line_bytes <= SIZE_LINE_BYTES_MAX => State::Extension,
            (State::SizeEnd, b'\n') => {
                self.line_bytes = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataEnd, b'\r') => State::DataEndLineFeed,
            (State::DataEndLineFeed, b'\n') => {
                self.line_bytes = 0;
                State::Size { digits: 0 }
            }
            (State::TrailerStart, b'\r') => State::End,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart | State::TrailerName, _) if self.is_in_bounds() && head::is_name_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) if self.is_in_bounds() => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::End, b'\n') => State::Done,
            _ => return None,
        })
    }

    fn is_in_bounds(&self) -> bool {
        self.line_bytes <= TRAILER_BYTES_MAX
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes belong to the body, fed in pieces of `step`; `None` if it is refused or not done.
    fn end(bytes: &[u8], step: usize) -> Option<usize> {
        let mut chunks = Chunks::new();
        let mut taken = 0;
        for piece in bytes.chunks(step) {
            taken += chunks.feed(piece).ok()?;
        }
        chunks.is_done().then_some(taken)
    }

    #[test]
    fn a_body_ends_behind_its_last_chunk_wherever_the_reads_were_cut() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "005\r\nhello\r\n000\r\n\r\n",
            "a\r\n0123456789\r\nA;x=\"y z\"\r\n0123456789\r\n0;last\r\n\r\n",
            "2\r\n\r\n\r\n0\r\n\r\n",
            "1\r\nx\r\n0\r\nX-A: b\r\nX-B:\tc \u{e9}\r\n\r\n",
        ] {
            let bytes = format!("{body}POST / HTTP/1.1\r\n\r\n");
            for step in [1, 2, 3, 7, bytes.len()] {
                assert_eq!(end(bytes.as_bytes(), step), Some(body.len()), "{body:?} in pieces of {step}");
            }
            for cut in 0..body.len() {
                assert_eq!(end(&body.as_bytes()[..cut], 4), None, "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_two_parsers_could_end_elsewhere_is_refused_and_stays_refused() {
        for body in [
            "\r\n",
            "5\n",
            "5\r5",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "5_0\r\n",
            "g\r\n",
            ";x\r\n",
            "5;x\n",
            "5;x\r\r\n",
            "5;\0\r\n",
            "5;\u{e9}\r\n",
            "0000000000000005\r\n",
            "fffffffffffffffff\r\n",
            "1\r\nxx",
            "1\r\nx\n",
            "1\r\nx\r\r",
            "1\r\nx0\r\n",
            "0\n",
            "0\r\n\n",
            "0\r\nX\r\n",
            "0\r\n: x\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: \0\r\n",
            "0\r\nX_Y: z\r\n",
            "0\r\nGET / HTTP/1.1\r\n",
        ] {
            let mut chunks = Chunks::new();
            assert_eq!(chunks.feed(body.as_bytes()), Err(Malformed), "{body:?}");
            assert_eq!(chunks.feed(b"0\r\n\r\n"), Err(Malformed), "{body:?}");
            assert_eq!(end(body.as_bytes(), 1), None, "{body:?}");
        }
    }

    #[test]
    fn each_limit_is_met_at_its_number() {
        let extension = |bytes: usize| format!("0;{}\r\n\r\n", "x".repeat(bytes - "0;".len()));
        let trailer = |bytes: usize| format!("0\r\nX:{}\r\n\r\n", "y".repeat(bytes - "X:".len()));
        assert!(end(extension(SIZE_LINE_BYTES_MAX).as_bytes(), 100).is_some());
        assert_eq!(end(extension(SIZE_LINE_BYTES_MAX + 1).as_bytes(), 100), None);
        assert!(end(trailer(TRAILER_BYTES_MAX).as_bytes(), 100).is_some());
        assert_eq!(end(trailer(TRAILER_BYTES_MAX + 1).as_bytes(), 100), None);
        assert_eq!(end(format!("0\r\n{}\r\n", "X: y\r\n".repeat(TRAILER_BYTES_MAX)).as_bytes(), 100), None);
    }
}
