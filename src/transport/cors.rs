//! What does a browser have to be told?
//!
//! A page of an allowed origin may call the gateway with its key in a header: a preflight names the methods and headers that
//! MCP needs, and every answer says which of its own headers the page may read. Cookies and other credentials that a browser
//! adds by itself are never allowed, so no page can borrow what it does not hold.

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http::header::HeaderName;

/// How long a browser may remember a preflight, in seconds.
const MAX_AGE_SECONDS: &str = "600";
/// Headers of one request that a preflight may ask for.
const ASKED_MAX: usize = 64;
/// Bytes of one such header's name.
const NAME_BYTES_MAX: usize = 128;

/// Headers that clients of the revisions send: the body's, the key's, those of sessions and resumption (2025-03-26 on), and
/// those that repeat the message (2026-07-28).
const ALLOWED_HEADERS: [&str; 11] = [
    "accept",
    "api-key",
    "authorization",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "x-api-key",
    "x-requested-with",
];

/// The headers in which clients of 2026-07-28 repeat arguments; which, each tool's schema says.
const PARAMETER_PREFIX: &str = "mcp-param-";

/// Headers of answers that a page may read beside those that every page may.
const EXPOSED_HEADERS: &str = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After, Allow";

/// What a request says of the page it comes from.
#[derive(Debug)]
pub enum Page {
    /// It comes from none, as far as it says.
    None,
    /// Its origin.
    Of(HeaderValue),
    /// More than one origin.
    Many,
}

impl Page {
    /// The page that `headers` name.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Self::None,
            (Some(origin), None) => Self::Of(origin.clone()),
            (Some(_), Some(_)) => Self::Many,
        }
    }
}

/// Whether an OPTIONS request with these headers asks on a page's behalf whether another request may be sent.
pub fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Headers of the answer to a preflight, where `methods` are served. `further` are the operator's own headers for keys.
pub fn preflight(headers: &HeaderMap, methods: &'static str, further: &[HeaderName]) -> Vec<(&'static str, String)> {
    let asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let asked = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).take(ASKED_MAX);
    let parameters = asked.map(|name| name.trim().to_ascii_lowercase()).filter(|name| is_parameter(name));
    let own = ALLOWED_HEADERS.iter().map(|name| (*name).to_owned());
    let named: Vec<String> = own.chain(further.iter().map(ToString::to_string)).chain(parameters).collect();
    vec![
        ("access-control-allow-methods", methods.to_owned()),
        ("access-control-allow-headers", named.join(", ")),
        ("access-control-max-age", MAX_AGE_SECONDS.to_owned()),
    ]
}

/// Whether a header's name is one in which an argument is repeated.
fn is_parameter(name: &str) -> bool {
    let rest = name.strip_prefix(PARAMETER_PREFIX).unwrap_or_default();
    !rest.is_empty() && name.len() <= NAME_BYTES_MAX && HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Headers of every answer to a request whose page, `origin`, was let in.
pub fn let_in(origin: &HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS)),
        (header::VARY, HeaderValue::from_static("Origin")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn allowed(asked: &str) -> String {
        let headers = headers(&[("access-control-request-headers", asked)]);
        let further = [HeaderName::from_static("x-team-key")];
        let answer = preflight(&headers, "POST", &further);
        answer.into_iter().find(|(name, _)| *name == "access-control-allow-headers").unwrap().1
    }

    #[test]
    fn a_preflight_is_what_the_standard_calls_one() {
        let both = headers(&[("origin", "https://a"), ("access-control-request-method", "POST")]);
        assert!(is_preflight(&both));
        assert!(!is_preflight(&headers(&[("origin", "https://a")])));
        assert!(!is_preflight(&headers(&[("access-control-request-method", "POST")])));
    }

    #[test]
    fn headers_of_every_revision_and_of_the_operator_are_allowed() {
        let allowed = allowed("");
        for name in
            ["authorization", "mcp-session-id", "mcp-protocol-version", "mcp-method", "last-event-id", "x-team-key"]
        {
            assert!(allowed.split(", ").any(|it| it == name), "{name}");
        }
    }

    #[test]
    fn of_what_is_asked_for_only_repeated_arguments_are_allowed() {
        let fixed = allowed("");
        assert_eq!(allowed("Mcp-Param-Region, mcp-param-x"), format!("{fixed}, mcp-param-region, mcp-param-x"));
        for asked in ["cookie", "x-evil", "mcp-param-", "mcp-param-a b", "mcp-param-a\u{e9}", "mcp-paramx", "*"] {
            assert_eq!(allowed(asked), fixed, "{asked}");
        }
        assert_eq!(allowed(&format!("mcp-param-{}", "x".repeat(NAME_BYTES_MAX))), fixed);
        let many = allowed(&"mcp-param-x,".repeat(ASKED_MAX + 1));
        assert_eq!(many.matches("mcp-param-x").count(), ASKED_MAX);
    }

    #[test]
    fn a_page_names_itself_once() {
        assert!(matches!(Page::of(&headers(&[])), Page::None));
        assert!(matches!(Page::of(&headers(&[("origin", "https://a")])), Page::Of(_)));
        assert!(matches!(Page::of(&headers(&[("origin", "https://a"), ("origin", "https://a")])), Page::Many));
    }
}
