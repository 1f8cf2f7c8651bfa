//! Where does an HTTP/1.1 message end, and what does its head say?
//!
//! As much of HTTP as both ends of a measurement on loopback need, and as little work as possible: both share the
//! machine's cores with what is measured.

use std::fmt;

/// Bytes of a head, at most. Whoever sends more is not one of ours.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a body, at most.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The bytes are no message we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A whole head at the beginning of what was received.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The request line or status line, without its end.
    pub line: &'a str,
    /// The header lines.
    headers: &'a str,
    /// Bytes up to the body.
    pub bytes: usize,
}

/// How a body's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(usize),
    /// After the chunk of no bytes.
    Chunked,
    /// When the connection closes.
    Close,
}

impl<'a> Head<'a> {
    /// The head that `held` begins with, once it is whole.
    ///
    /// # Errors
    /// When it is too long or no text.
    pub fn parse(held: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(end) = memchr::memmem::find(held, b"\r\n\r\n") else {
            return if held.len() > HEAD_BYTES_MAX { Err(Malformed("a head without end")) } else { Ok(None) };
        };
        let text = std::str::from_utf8(&held[..end]).map_err(|_| Malformed("a head that is no text"))?;
        let (line, headers) = text.split_once("\r\n").unwrap_or((text, ""));
        Ok(Some(Self { line, headers, bytes: end + 4 }))
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The status of an answer.
    ///
    /// # Errors
    /// When the head is no answer's.
    pub fn status(&self) -> Result<u16, Malformed> {
        let code = self.line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).ok_or(Malformed("no HTTP/1.1 status line"))
    }

    /// How the body of a request, or of an answer that has one, is framed.
    ///
    /// # Errors
    /// When it is too long, or its length is no number.
    pub fn framing(&self, without: Framing) -> Result<Framing, Malformed> {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        let Some(value) = self.header("content-length") else { return Ok(without) };
        match value.parse() {
            Ok(length) if length <= BODY_BYTES_MAX => Ok(Framing::Length(length)),
            Ok(_) => Err(Malformed("a body that is too long")),
            Err(_) => Err(Malformed("a length that is no number")),
        }
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Takes the first chunk off `held`: its data, and how many bytes it was with its frame. No data means the end.
///
/// # Errors
/// When there is no chunk.
pub fn chunk(held: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(end) = memchr::memmem::find(held, b"\r\n") else {
        return if held.len() > 64 { Err(Malformed("a chunk without size")) } else { Ok(None) };
    };
    let size = std::str::from_utf8(&held[..end]).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
    let size = size.filter(|size| *size <= BODY_BYTES_MAX).ok_or(Malformed("a chunk of no size"))?;
    let whole = end + 2 + size + 2;
    if held.len() < whole {
        return Ok(None);
    }
    if !held[..whole].ends_with(b"\r\n") {
        return Err(Malformed("a chunk longer than it says"));
    }
    Ok(Some((&held[end + 2..end + 2 + size], whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  5 \r\nConnection: close\r\n\r\nhello";
        assert!(Head::parse(&text[..40]).unwrap().is_none());
        let head = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status(), head.bytes), (Ok(200), text.len() - 5));
        assert_eq!(head.framing(Framing::Close), Ok(Framing::Length(5)));
        assert!(head.closes());
    }

    #[test]
    fn what_is_no_head_is_an_error() {
        assert!(Head::parse(&vec![b'a'; HEAD_BYTES_MAX + 1]).is_err());
        assert!(Head::parse(b"\xff\r\n\r\n").is_err());
        let long = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        assert!(Head::parse(long.as_bytes()).unwrap().unwrap().framing(Framing::Close).is_err());
    }

    #[test]
    fn chunks_are_taken_one_by_one() {
        let text = b"3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(chunk(&text[..6]), Ok(None));
        assert_eq!(chunk(text), Ok(Some((&b"abc"[..], 8))));
        assert_eq!(chunk(&text[8..]), Ok(Some((&b""[..], 5))));
        assert!(chunk(b"x\r\n").is_err());
        assert!(chunk(b"1\r\nabc\r\n").is_err());
    }
}
