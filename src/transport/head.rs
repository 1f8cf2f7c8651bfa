//! Is this request head unambiguous?
//!
//! Judges the raw bytes of an HTTP/1.1 head before any parser has touched them. What two parsers could read
//! differently is refused, not repaired: both lengths at once, lengths twice, transfer codings other than exactly
//! `chunked`, bare line feeds, folded lines, a missing host, names with an underscore (a twin of the dashed name for
//! many servers). Rules: RFC 9112 with every "MAY repair" taken as "refuse".

use memchr::memchr;
use memchr::memmem;

/// What a head may measure.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Header lines.
    pub count_max: usize,
    /// Bytes of the whole block, request line and final empty line included.
    pub block_bytes_max: usize,
    /// Bytes of one line.
    pub line_bytes_max: usize,
    /// Bytes of the request target: path and query.
    pub target_bytes_max: usize,
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length in bytes; zero when the head names none.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Why a head is refused. The names are stable: records and metrics use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the answer.
    pub status: u16,
    /// Name from a fixed vocabulary.
    pub reason: &'static str,
    /// What was wrong, for whoever sent it.
    pub text: &'static str,
}

const fn bad(reason: &'static str, text: &'static str) -> Refusal {
    Refusal { status: 400, reason, text }
}

const LINE_END: Refusal = bad("head_line_end", "every line of the request head must end in CR LF");
const REQUEST_LINE: Refusal =
    bad("head_request_line", "the request line must be: method, one space, path, one space, HTTP/1.1");
const VERSION: Refusal = bad("head_version", "only HTTP/1.1 is spoken here");
const FOLDED: Refusal = bad("head_folded", "a header line must not begin with white space");
const NAME: Refusal =
    bad("head_name", "a header name must consist of letters, digits and dashes, directly followed by a colon");
const VALUE: Refusal = bad("head_value", "a header value must not contain control characters");
const HOST: Refusal = bad("head_host", "a request needs exactly one Host header, and in it a name or an address");
const LENGTH: Refusal = bad("head_content_length", "Content-Length must be given once, as a plain decimal number");
const TRANSFER: Refusal = bad("head_transfer_encoding", "Transfer-Encoding must be given once, as exactly `chunked`");
const BOTH: Refusal = bad("head_length_and_transfer", "Content-Length and Transfer-Encoding exclude each other");
const BODY: Refusal = bad("head_unexpected_body", "a GET, HEAD or DELETE request must not carry a body");
const UPGRADE: Refusal = bad("head_upgrade", "protocol upgrades are not served here");
const EXPECT: Refusal =
    Refusal { status: 417, reason: "head_expect", text: "the only expectation served is 100-continue" };
/// A stream of HTTP/2 that is about another place than this one.
pub(super) const SCHEME: Refusal = bad("head_scheme", "a request over HTTP/2 needs the scheme https and one authority");
/// A request target longer than it may be.
const TARGET_LONG: Refusal =
    Refusal { status: 414, reason: "head_target_long", text: "the request target is too long" };
/// A header line, or the block, larger than allowed.
pub const TOO_LARGE: Refusal =
    Refusal { status: 431, reason: "head_too_large", text: "the request head has too many or too large header lines" };
/// A head that did not arrive in time.
pub const TIMEOUT: Refusal =
    Refusal { status: 408, reason: "head_timeout", text: "the request head did not arrive in time" };
/// More connections than the gateway may hold.
pub const BUSY: Refusal =
    Refusal { status: 503, reason: "connections_max", text: "too many connections; try again shortly" };
/// A head, or what was sent ahead of an answer, for which there is no room.
pub const NO_ROOM: Refusal = Refusal {
    status: 503,
    reason: "buffered_bytes_max",
    text: "the gateway holds as many bytes as it may; nothing was done; try again shortly",
};
/// More connections of one address than it may have.
pub const TOO_MANY: Refusal = Refusal {
    status: 429,
    reason: "connections_per_address_max",
    text: "too many connections from this address; close some or try again shortly",
};
/// Connections of one address faster than it may open them.
pub const TOO_FAST: Refusal = Refusal {
    status: 429,
    reason: "accepts_per_address_max",
    text: "this address opens connections too fast; keep them open and try again shortly",
};

/// Where the head ends in `bytes` (just behind the empty line), if it is there already.
///
/// An empty line counts as the end whichever way its line and the one before end, as it does for parsers that forgive:
/// a head with a bare line feed there is judged, and refused, at once.
pub fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    let tail = bytes.get(from..)?;
    let with_return = memmem::find(tail, b"\n\r\n").map(|at| from + at + 3);
    let bare = memmem::find(tail, b"\n\n").map(|at| from + at + 2);
    match (with_return, bare) {
        (Some(with_return), Some(bare)) => Some(with_return.min(bare)),
        (with_return, bare) => with_return.or(bare),
    }
}

/// Judges a whole head, final empty line included.
///
/// # Errors
/// The first rule that the head breaks.
pub fn judge(head: &[u8], limits: &Limits) -> Result<Framing, Refusal> {
    if head.len() > limits.block_bytes_max {
        return Err(TOO_LARGE);
    }
    let mut lines = Lines { rest: head };
    let request_line = lines.next().ok_or(REQUEST_LINE)??;
    if request_line.len() > limits.line_bytes_max {
        return Err(TARGET_LONG);
    }
    let method = judge_request_line(request_line, limits.target_bytes_max)?;
    let mut facts = Facts::default();
    let mut count = 0;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.count_max || line.len() > limits.line_bytes_max {
            return Err(TOO_LARGE);
        }
        facts.read(line)?;
    }
    facts.framing(method)
}

/// The lines of a head; each must end in CR LF and contain neither.
struct Lines<'h> {
    rest: &'h [u8],
}

impl<'h> Iterator for Lines<'h> {
    type Item = Result<&'h [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((line, rest)) = memchr(b'\n', self.rest).and_then(|at| self.rest.split_at_checked(at + 1)) else {
            self.rest = &[];
            return Some(Err(LINE_END));
        };
        self.rest = rest;
        let Some(line) = line.strip_suffix(b"\r\n") else { return Some(Err(LINE_END)) };
        Some(if memchr(b'\r', line).is_some() { Err(LINE_END) } else { Ok(line) })
    }
}

/// Checks `METHOD SP target SP HTTP/1.1` and returns the method.
fn judge_request_line(line: &[u8], target_bytes_max: usize) -> Result<&[u8], Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(REQUEST_LINE);
    };
    if version != b"HTTP/1.1" {
        return Err(if version.starts_with(b"HTTP/") { VERSION } else { REQUEST_LINE });
    }
    if target.len() > target_bytes_max {
        return Err(TARGET_LONG);
    }
    // Pingora answers CONNECT by itself, before anything of ours sees it.
    if method == b"CONNECT" {
        return Err(REQUEST_LINE);
    }
    let method_is_token = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    // Origin-form only: this is no forward proxy, and an absolute target is a second place for a host.
    let target_is_path = target.first() == Some(&b'/') && are(TARGET, target);
    if method_is_token && target_is_path { Ok(method) } else { Err(REQUEST_LINE) }
}

/// What the header lines say about the body and the connection.
#[derive(Default)]
struct Facts {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Facts {
    fn read(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(FOLDED);
        }
        let (name, value) = memchr(b':', line).and_then(|at| line.split_at_checked(at)).ok_or(NAME)?;
        if name.is_empty() || !are(TOKEN, name) {
            return Err(NAME);
        }
        let value = value.get(1..).unwrap_or_default();
        // Before trimming: a form feed around a value is white space to some and part of it to others.
        if !are(TEXT, value) {
            return Err(VALUE);
        }
        self.note(name, value.trim_ascii())
    }

    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 || value.is_empty() || !are(HOST_NAME, value) {
                    return Err(HOST);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(EXPECT);
            }
            // Clients that offer h2c this way go on in HTTP/1.1 when nobody takes the offer; other protocols cannot.
            7 if name.eq_ignore_ascii_case(b"upgrade") && !value.eq_ignore_ascii_case(b"h2c") => return Err(UPGRADE),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let before = self.length.replace(decimal(value).ok_or(LENGTH)?);
                if before.is_some() {
                    return Err(LENGTH);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(TRANSFER);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, method: &[u8]) -> Result<Framing, Refusal> {
        if self.hosts != 1 {
            return Err(HOST);
        }
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err(BOTH),
            (None, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        if matches!(method, b"GET" | b"HEAD" | b"DELETE") && framing != Framing::Length(0) {
            return Err(BODY);
        }
        Ok(framing)
    }
}

/// A byte that may stand in a path or query of RFC 3986. What may not, some parsers refuse and others rewrite.
const TARGET: u8 = 1;
/// A byte of a host name, an address or a port.
const HOST_NAME: u8 = 2;
/// A token byte of RFC 9110, without the underscore: `Content_Length` is `Content-Length` to many servers.
const TOKEN: u8 = 4;
/// A byte of a header value: no control character but the tab.
const TEXT: u8 = 8;

/// What each byte may stand in. Every byte of every head is asked about, and looking up costs less than comparing.
static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte <= 255 {
        let letter = (byte as u8).is_ascii_alphanumeric();
        let target = matches!(byte as u8, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'?' | b'[' | b']' | b'@')
            || matches!(byte as u8, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%');
        let host = matches!(byte as u8, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        let token = matches!(byte as u8, b'-' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(byte as u8, b'.' | b'^' | b'`' | b'|' | b'~');
        let text = (byte >= 0x20 && byte != 0x7f) || byte as u8 == b'\t';
        if letter || target {
            classes[byte] |= TARGET;
        }
        if letter || host {
            classes[byte] |= HOST_NAME;
        }
        if letter || token {
            classes[byte] |= TOKEN;
        }
        if text {
            classes[byte] |= TEXT;
        }
        byte += 1;
    }
    classes
}

#[expect(clippy::indexing_slicing, reason = "a byte is an index of 256 places")]
fn is(class: u8, byte: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Whether every byte of a text may stand there. Without an early end, so that several are looked at together.
fn are(class: u8, text: &[u8]) -> bool {
    text.iter().fold(true, |all, byte| all & is(class, *byte))
}

/// A byte of a header's name.
pub(super) fn is_name_byte(byte: u8) -> bool {
    is(TOKEN, byte)
}

/// A plain decimal number of at most 18 digits: no sign, no list, no white space inside.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { count_max: 4, block_bytes_max: 400, line_bytes_max: 100, target_bytes_max: 60 };

    fn reason(head: &str) -> &'static str {
        judge(head.as_bytes(), &LIMITS).map_or_else(|refusal| refusal.reason, |_| "ok")
    }

    #[test]
    fn plain_heads_pass_with_their_framing() {
        let head = |lines: &str| format!("POST /mcp/a HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        assert_eq!(judge(head("Content-Length: 12\r\n").as_bytes(), &LIMITS), Ok(Framing::Length(12)));
        assert_eq!(judge(head("Transfer-Encoding: Chunked\r\n").as_bytes(), &LIMITS), Ok(Framing::Chunked));
        assert_eq!(judge(head("").as_bytes(), &LIMITS), Ok(Framing::Length(0)));
        assert_eq!(judge(head("Upgrade: h2c\r\nExpect: 100-Continue\r\n").as_bytes(), &LIMITS), Ok(Framing::Length(0)));
    }

    #[test]
    fn whatever_two_parsers_could_read_differently_is_refused() {
        let vectors = [
            ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "head_length_and_transfer"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "head_length_and_transfer"),
            ("Content-Length: 2\r\nContent-Length: 2\r\n", "head_content_length"),
            ("Content-Length: 2\r\ncontent-length: 3\r\n", "head_content_length"),
            ("Content-Length: 2, 2\r\n", "head_content_length"),
            ("Content-Length: +2\r\n", "head_content_length"),
            ("Content-Length: 0x2\r\n", "head_content_length"),
            ("Content-Length: -1\r\n", "head_content_length"),
            ("Content-Length: 1 2\r\n", "head_content_length"),
            ("Content-Length:\r\n", "head_content_length"),
            ("Content-Length: 99999999999999999999\r\n", "head_content_length"),
            ("Transfer-Encoding: gzip, chunked\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding: xchunked\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding: chunked, chunked\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding: identity\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding:\r\n", "head_transfer_encoding"),
            ("Transfer-Encoding : chunked\r\n", "head_name"),
            ("Content_Length: 2\r\n", "head_name"),
            ("X-A\r\n", "head_name"),
            (": a\r\n", "head_name"),
            ("X A: b\r\n", "head_name"),
            (" folded: yes\r\n", "head_folded"),
            ("X-A: b\r\n\tfolded\r\n", "head_folded"),
            ("X-A: b\nX-B: c\r\n", "head_line_end"),
            ("X-A: b\rc\r\n", "head_line_end"),
            ("X-A: b\0c\r\n", "head_value"),
            ("X-A: b\x0bc\r\n", "head_value"),
            ("Content-Length:\x0c2\r\n", "head_value"),
            ("Content-Length: 2\x0c\r\n", "head_value"),
            ("Host: y\r\n", "head_host"),
            ("host: x\r\n", "head_host"),
            ("Upgrade: websocket\r\n", "head_upgrade"),
            ("Expect: 200-ok\r\n", "head_expect"),
        ];
        for (lines, expected) in vectors {
            assert_eq!(reason(&format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")), expected, "{lines:?}");
        }
    }

    #[test]
    fn request_lines_have_one_form() {
        let vectors = [
            ("POST / HTTP/1.1\r\n\r\n", "head_host"),
            ("POST / HTTP/1.1\r\nHost:\r\n\r\n", "head_host"),
            ("POST / HTTP/1.1\r\nHost: a@b\r\n\r\n", "head_host"),
            ("POST / HTTP/1.1\r\nHost: a, b\r\n\r\n", "head_host"),
            ("POST / HTTP/1.1\r\nHost: a_b.c-d:80\r\n\r\n", "ok"),
            ("POST / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "ok"),
            ("POST /a?b=%20&c=~!$'()*+,;@: HTTP/1.1\r\nHost: x\r\n\r\n", "ok"),
            ("POST /a\\b HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST /a?\"<>` HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST / HTTP/1.0\r\nHost: x\r\n\r\n", "head_version"),
            ("POST / HTTP/2.0\r\nHost: x\r\n\r\n", "head_version"),
            ("POST /\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST /a b HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST  / HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST /a#b HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("POST /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("post / HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            (" POST / HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "head_unexpected_body"),
            ("DELETE / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "head_unexpected_body"),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "ok"),
            ("POST / HTTP/1.1\nHost: x\n\n", "head_line_end"),
            ("\r\nPOST / HTTP/1.1\r\nHost: x\r\n\r\n", "head_request_line"),
        ];
        for (head, expected) in vectors {
            assert_eq!(reason(head), expected, "{head:?}");
        }
    }

    #[test]
    fn each_size_limit_is_met_at_its_number() {
        let lines = |count: usize| format!("POST / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(reason(&lines(3)), "ok");
        assert_eq!(reason(&lines(4)), "head_too_large");
        let long = |bytes: usize| format!("POST / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(bytes));
        assert_eq!(reason(&long(97)), "ok");
        assert_eq!(reason(&long(98)), "head_too_large");
        let target = |bytes: usize| format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(bytes));
        assert_eq!(reason(&target(59)), "ok");
        assert_eq!(reason(&target(60)), "head_target_long");
        assert_eq!(reason(&target(86)), "head_target_long", "nor is the line longer than a line may be");
    }

    #[test]
    fn the_end_is_found_wherever_the_reads_were_cut() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nbody";
        for cut in 0..head.len() {
            let first = end(&head[..cut], 0);
            let found = first.or_else(|| end(head, cut));
            assert_eq!(found, Some(head.len() - 4), "cut at {cut}");
        }
        assert_eq!(end(b"GET / HTTP/1.1\nHost: x\n\n", 0), Some(24));
        assert_eq!(
            end(b"GET / HTTP/1.1\r\nHost: x\n\r\nbody\r\n\r\n", 0),
            Some(26),
            "a bare line feed before the last line"
        );
    }
}
