//! What must hold for any bytes that a client may send? Checked by the fuzz targets, and by the replay of their seeds.
#![expect(clippy::expect_used, clippy::panic, reason = "what breaks a rule is to end the run")]

use std::net::SocketAddr;

use http::HeaderMap;
use http::HeaderValue;

use crate::config::model::Config;
use crate::config::model::ForwardedHeader;
use crate::config::problem::Problems;
use crate::transport::chunks::Chunks;
use crate::transport::forwarded::Proxies;
use crate::transport::head;
use crate::transport::head::Framing;
use crate::transport::head::Limits;
use crate::transport::proxy_protocol;
use crate::transport::proxy_protocol::Reading;

const LIMITS: Limits =
    Limits { count_max: 64, block_bytes_max: 16 * 1024, line_bytes_max: 8 * 1024, target_bytes_max: 4096 };

/// What balancers and proxies say about the client: no bytes make it stumble, and nobody is believed who is not trusted.
pub fn front(input: &[u8]) {
    match proxy_protocol::read(input) {
        Reading::Whole(header) => assert!(header.bytes <= input.len()),
        Reading::Partial => assert!(input.len() < proxy_protocol::HEADER_BYTES_MAX),
        Reading::Malformed => {}
    }
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let mut headers = HeaderMap::new();
    for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded"] {
        headers.append(name, value.clone());
    }
    let stranger = SocketAddr::from(([192, 0, 2, 7], 1));
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let mut config = Config::default();
        config.listen.trusted_proxies = vec!["10.0.0.0/8".into()];
        config.listen.forwarded_header = header;
        let proxies = Proxies::compile(&config, &mut Problems::new());
        proxies.origin(&headers, Some(SocketAddr::from(([10, 0, 0, 1], 1))), None);
        assert_eq!(proxies.origin(&headers, Some(stranger), None).client, Some(stranger));
    }
}

/// Wherever a head is cut, it ends at the same byte; and one that passes has one meaning for a reader who goes by lines
/// alone. The first byte chooses the size of the pieces.
pub fn head(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let whole = head::end(bytes, 0);
    assert_eq!(whole, end_in_pieces(bytes, usize::from(*size).max(1)), "cut in pieces, the head ends elsewhere");
    let Some(head) = whole.and_then(|end| bytes.get(..end)) else { return };
    let Ok(framing) = head::judge(head, &LIMITS) else { return };
    let text = head.strip_suffix(b"\r\n\r\n").expect("a head that passed ends in an empty line");
    assert!(!text.windows(2).any(|pair| pair == b"\n\n" || pair == b"\r\r"));
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(|line| line.trim_suffix_cr()).collect();
    let (request, fields) = lines.split_first().expect("a first line");
    assert!(request.ends_with(b" HTTP/1.1") && request.iter().filter(|byte| **byte == b' ').count() == 2);
    let named = |name: &[u8]| {
        let fields = fields.iter().filter_map(|field| {
            let at = field.iter().position(|byte| *byte == b':')?;
            field.get(..at)?.eq_ignore_ascii_case(name).then(|| field.get(at + 1..).unwrap_or_default().trim_ascii())
        });
        fields.collect::<Vec<_>>()
    };
    assert_eq!(named(b"host").len(), 1);
    match (named(b"content-length").as_slice(), named(b"transfer-encoding").as_slice()) {
        ([], []) => assert_eq!(framing, Framing::Length(0)),
        ([length], []) => {
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            assert_eq!(Some(framing), length.map(Framing::Length));
        }
        ([], [coding]) => assert!(coding.eq_ignore_ascii_case(b"chunked") && framing == Framing::Chunked),
        other => panic!("two lengths passed: {other:?}"),
    }
}

fn end_in_pieces(bytes: &[u8], size: usize) -> Option<usize> {
    let mut searched = 0;
    while searched < bytes.len() {
        let come = (searched + size).min(bytes.len());
        if let Some(end) = head::end(bytes.get(..come)?, searched) {
            return Some(end);
        }
        searched = come;
    }
    None
}

/// A line without the carriage return at its end.
trait TrimCr {
    fn trim_suffix_cr(&self) -> &[u8];
}

impl TrimCr for [u8] {
    fn trim_suffix_cr(&self) -> &[u8] {
        self.strip_suffix(b"\r").unwrap_or(self)
    }
}

/// Wherever a chunked body is cut, it ends at the same byte, and at the one a simple reader finds. The first byte chooses the
/// size of the pieces.
pub fn chunks(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let whole = body_end(bytes, bytes.len().max(1));
    assert_eq!(whole, body_end(bytes, usize::from(*size).max(1)), "cut in pieces, the body ends elsewhere");
    if let Some(end) = whole {
        assert_eq!(simple_end(bytes), Some(end), "a simple reader ends the body elsewhere");
    }
}

fn body_end(bytes: &[u8], size: usize) -> Option<usize> {
    let mut chunks = Chunks::new();
    let mut taken = 0;
    for piece in bytes.chunks(size) {
        taken += chunks.feed(piece).ok()?;
        if chunks.is_done() {
            return Some(taken);
        }
    }
    None
}

/// Goes by lines and sizes, and believes everything.
fn simple_end(bytes: &[u8]) -> Option<usize> {
    let line_end = |from: usize| bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n").map(|at| from + at);
    let mut at = 0;
    loop {
        let end = line_end(at)?;
        let line = std::str::from_utf8(bytes.get(at..end)?).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        (bytes.get(at..at + 2)? == b"\r\n").then_some(())?;
        at += 2;
    }
    loop {
        let end = line_end(at)?;
        let is_last = end == at;
        at = end + 2;
        if is_last {
            return Some(at);
        }
    }
}
