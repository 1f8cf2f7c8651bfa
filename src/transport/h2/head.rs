//! Is the head of this stream unambiguous?
//!
//! The head is written down as HTTP/1.1 would have it and judged by the same table: what is refused there is refused here.
//! The authority and a `Host` must be one, and a body of unknown length is what a chunked one is there.

use http::header;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::server::HttpSession;

use crate::transport::buffers::Full;
use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;
use crate::transport::connection::Connection;
use crate::transport::gate_io::Refused;
use crate::transport::head;
use crate::transport::head::Limits;
use crate::transport::head::Refusal;

/// A head for which there is always room, where its connection has none other of the kind under way.
const SMALL_HEAD_BYTES_MAX: usize = 4096;

/// A head that was refused, and as what it was judged.
#[derive(Debug)]
pub(super) struct RefusedHead {
    pub(super) refusal: Refusal,
    pub(super) head: Vec<u8>,
}

/// Holds a head. A small one of a connection is held though there is no room, as it is under HTTP/1.1.
fn hold(bytes: usize, holder: &mut Holder) -> Result<(), Full> {
    holder.set(bytes, Share::Request).or_else(|full| {
        let is_small = bytes <= SMALL_HEAD_BYTES_MAX;
        let is_favoured = || Connection::current().is_some_and(|connection| connection.is_favoured());
        if !is_small || !is_favoured() {
            return Err(full);
        }
        holder.set_anyway(bytes);
        Ok(())
    })
}

/// Judges a head, and leaves its authority in its `Host`, where everybody looks for it. What it takes is held by `holder`.
///
/// # Errors
/// The first rule that the head breaks.
pub(super) fn judge(
    request: &mut RequestHeader,
    has_body: bool,
    limits: &Limits,
    holder: &mut Holder,
) -> Result<(), RefusedHead> {
    let head = as_http1(request, has_body);
    match head::judge(&head, limits) {
        Ok(_) if request.uri.scheme_str() != Some("https") => Err(RefusedHead { refusal: head::SCHEME, head }),
        Ok(_) if hold(head.len(), holder).is_err() => Err(RefusedHead { refusal: head::NO_ROOM, head }),
        Ok(_) => {
            let authority = request.uri.authority().map(ToString::to_string);
            if let Some(authority) = authority
                && request.insert_header(header::HOST, authority).is_err()
            {
                return Err(RefusedHead { refusal: head::SCHEME, head });
            }
            Ok(())
        }
        Err(refusal) => Err(RefusedHead { refusal, head }),
    }
}

/// The head as a client of HTTP/1.1 would have written it.
fn as_http1(request: &RequestHeader, has_body: bool) -> Vec<u8> {
    let mut head = [request.method.as_str().as_bytes(), b" ", request.raw_path(), b" HTTP/1.1\r\n"].concat();
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    let mut authority = request.uri.authority();
    if let Some(authority) = authority {
        line("host", authority.as_str().as_bytes());
    }
    for (name, value) in &request.headers {
        // Named twice, and the same: once is enough. Anything else stays, to be judged.
        let is_authority = name == header::HOST
            && authority.take_if(|authority| authority.as_str().as_bytes() == value.as_bytes()).is_some();
        if !is_authority {
            line(name.as_str(), value.as_bytes());
        }
    }
    if has_body && !request.headers.contains_key(header::CONTENT_LENGTH) {
        line("transfer-encoding", b"chunked");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Answers a refused head.
///
/// # Errors
/// The client is gone.
pub(super) async fn write(session: &mut HttpSession, refused: Refused) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(refused.status, Some(4))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, refused.body.len())?;
    if let Some((name, value)) = refused.header {
        head.insert_header(name, &*value)?;
    }
    session.write_response_header(Box::new(head), false)?;
    session.write_body(refused.body, true).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::buffers::Buffers;

    const LIMITS: Limits = Limits { count_max: 8, block_bytes_max: 600, line_bytes_max: 200, target_bytes_max: 200 };

    /// Method, URI, fields, whether a body follows, and the verdict.
    type Row<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)], bool, &'r str);

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> RequestHeader {
        let mut builder = http::Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0.into()
    }

    fn reason(request: &mut RequestHeader, has_body: bool) -> &'static str {
        let mut holder = Buffers::new(8192).holder();
        judge(request, has_body, &LIMITS, &mut holder).map_or_else(|refused| refused.refusal.reason, |()| "ok")
    }

    #[test]
    fn a_head_is_judged_as_one_of_http_1() {
        let long = "x".repeat(300);
        let table: [Row<'_>; 24] = [
            ("POST", "https://a/mcp/x", &[], true, "ok"),
            ("POST", "https://a/mcp/x", &[("content-length", "2")], true, "ok"),
            ("POST", "https://a/mcp/x", &[("host", "a")], true, "ok"),
            ("GET", "https://a:8443/mcp/x?y=%20", &[("accept", "*/*")], false, "ok"),
            ("GET", "https://[::1]:8443/", &[], false, "ok"),
            ("POST", "https://a/mcp/x", &[("host", "b")], true, "head_host"),
            ("POST", "https://a/mcp/x", &[("host", "A")], true, "head_host"),
            ("POST", "https://a/mcp/x", &[("host", "a"), ("host", "a")], true, "head_host"),
            ("POST", "https://u@a/mcp/x", &[], true, "head_host"),
            ("POST", "/mcp/x", &[], true, "head_host"),
            ("POST", "/mcp/x", &[("host", "a")], true, "head_scheme"),
            ("POST", "http://a/mcp/x", &[], true, "head_scheme"),
            ("POST", "ftp://a/mcp/x", &[], true, "head_scheme"),
            ("GET", "https://a/mcp/x", &[], true, "head_unexpected_body"),
            ("GET", "https://a/mcp/x", &[("content-length", "1")], true, "head_unexpected_body"),
            ("DELETE", "https://a/mcp/x", &[], true, "head_unexpected_body"),
            ("post", "https://a/mcp/x", &[], true, "head_request_line"),
            ("CONNECT", "https://a/mcp/x", &[], false, "head_request_line"),
            (
                "POST",
                "https://a/mcp/x",
                &[("content-length", "2"), ("content-length", "2")],
                true,
                "head_content_length",
            ),
            ("POST", "https://a/mcp/x", &[("content-length", "+2")], true, "head_content_length"),
            ("POST", "https://a/mcp/x", &[("transfer-encoding", "chunked")], true, "head_transfer_encoding"),
            ("POST", "https://a/mcp/x", &[("content_length", "2")], true, "head_name"),
            ("POST", "https://a/mcp/x", &[("expect", "200-ok")], true, "head_expect"),
            ("POST", "https://a/mcp/x", &[("x-a", &long)], true, "head_too_large"),
        ];
        for (method, uri, headers, has_body, expected) in table {
            assert_eq!(reason(&mut request(method, uri, headers), has_body), expected, "{method} {uri} {headers:?}");
        }
        let many: Vec<_> = (0..8).map(|_| ("x-a", "b")).collect();
        assert_eq!(reason(&mut request("POST", "https://a/", &many[..7]), false), "ok");
        assert_eq!(reason(&mut request("POST", "https://a/", &many), false), "head_too_large");
    }

    #[test]
    fn the_authority_is_found_in_the_host() {
        let mut head = request("POST", "https://a.example:8443/mcp/x", &[]);
        assert_eq!(reason(&mut head, true), "ok");
        assert_eq!(head.headers.get("host").map(|host| host.as_bytes()), Some(&b"a.example:8443"[..]));
    }
}
