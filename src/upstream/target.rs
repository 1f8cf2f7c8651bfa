//! Where does an endpoint's URL lead?
//!
//! Parsed once, when the configuration is compiled: whether TLS, which name to verify, which address to ask, which
//! `Host` to send and which path to ask for. Neither `Debug` nor any message shows the path or the query: an operator
//! may have put a token there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use http::Uri;
use pingora::tls::ServerName;
use sha2::Digest;
use sha2::Sha256;

/// A URL that cannot be an endpoint, and what to write instead.
pub(crate) struct BadUrl {
    pub(crate) message: &'static str,
    pub(crate) help: &'static str,
}

const fn bad(message: &'static str, help: &'static str) -> BadUrl {
    BadUrl { message, help }
}

const EXAMPLE: &str = "write a whole URL, such as `https://mcp.example.com/mcp`";

/// An endpoint's URL, taken apart.
#[derive(Clone, PartialEq)]
pub(crate) struct Target {
    /// Stable across restarts, versions and machines: sessions are sealed with it.
    pub(crate) id: u64,
    /// `scheme://host:port`, for operators and records.
    pub(crate) origin: Arc<str>,
    /// The name whose certificate is asked for; `None` speaks plain HTTP.
    pub(crate) tls: Option<ServerName<'static>>,
    /// Name or address, without the brackets of an IPv6 address.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// What the `Host` header says.
    pub(crate) authority: HeaderValue,
    /// Path and query, as they stand in the request line.
    pub(crate) path: Uri,
}

impl Target {
    /// Reads an endpoint's URL.
    pub(crate) fn parse(text: &str) -> Result<Self, BadUrl> {
        if !text.is_ascii() {
            return Err(bad("the URL has characters outside ASCII", "write an international name in its `xn--` form"));
        }
        // The parser below drops a fragment silently.
        if text.contains('#') {
            return Err(bad("the URL has a fragment", "leave `#` and what follows it out"));
        }
        let uri: Uri = text.parse().map_err(|_| bad("this is not a URL", EXAMPLE))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| bad("the URL has no scheme", EXAMPLE))?;
        let secure = match scheme.as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("the URL's scheme is neither `http` nor `https`", EXAMPLE)),
        };
        let authority = parts.authority.ok_or_else(|| bad("the URL has no host", EXAMPLE))?;
        if authority.as_str().contains('@') {
            return Err(bad("the URL has a user or a password", "write them as `auth = { type = \"basic\", .. }`"));
        }
        let default_port = if secure { 443 } else { 80 };
        let (host, port) = host_and_port(authority.as_str(), default_port)?;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let tls = if secure {
            // INVARIANT: no name, no TLS. A connection without a name to verify would be open to anybody.
            let name = ServerName::try_from(host.clone());
            Some(name.map_err(|_| bad("the URL's host is no name that a certificate could be verified for", EXAMPLE))?)
        } else {
            None
        };
        let sent = if port == default_port { bracketed.clone() } else { format!("{bracketed}:{port}") };
        let authority = HeaderValue::try_from(sent).map_err(|_| bad("this is not a URL", EXAMPLE))?;
        let path = parts.path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from);
        let origin = format!("{scheme}://{bracketed}:{port}");
        let id = stable_id(&format!("{origin}{path}"));
        Ok(Self { id, origin: origin.into(), tls, host: host.into(), port, authority, path })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.origin).finish()
    }
}

/// The host in lower case and without brackets, and the port.
pub(crate) fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16), BadUrl> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| bad("this is not a URL", EXAMPLE))?;
            let is_v6 = matches!(host.parse(), Ok(IpAddr::V6(_)));
            (is_v6.then_some(host), port)
        }
        None => {
            let (host, port) =
                authority.split_at_checked(authority.find(':').unwrap_or(authority.len())).unwrap_or_default();
            let is_name =
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            (is_name.then_some(host), port)
        }
    };
    let host = host.ok_or_else(|| bad("the URL's host is neither a name nor an address", EXAMPLE))?;
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(bad("the URL's port is not between 1 and 65535", EXAMPLE)),
        },
        _ => return Err(bad("this is not a URL", EXAMPLE)),
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn stable_id(url: &str) -> u64 {
    let digest = Sha256::digest(url.as_bytes());
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|bad| panic!("{url}: {}", bad.message))
    }

    #[track_caller]
    fn refused(url: &str) -> &'static str {
        match Target::parse(url) {
            Ok(target) => panic!("{url} was read as {target:?}"),
            Err(bad) => bad.message,
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let target = read("https://MCP.Example.com/a/mcp?tenant=7");
        assert_eq!(&*target.origin, "https://mcp.example.com:443");
        assert_eq!(target.authority, "mcp.example.com");
        assert_eq!(target.path, "/a/mcp?tenant=7");
        assert!(target.tls.is_some());
        let target = read("http://127.0.0.1:8001");
        assert_eq!((&*target.host, target.port), ("127.0.0.1", 8001));
        assert_eq!(target.authority, "127.0.0.1:8001");
        assert_eq!(target.path, "/");
        assert!(target.tls.is_none());
    }

    #[test]
    fn an_ipv6_address_is_dialled_bare_and_sent_in_brackets() {
        let target = read("http://[::1]:9000/mcp");
        assert_eq!((&*target.host, target.port), ("::1", 9000));
        assert_eq!(target.authority, "[::1]:9000");
    }

    #[test]
    fn an_id_depends_on_the_whole_url_and_on_nothing_else() {
        let id = read("http://a.test/mcp").id;
        assert_eq!(id, read("http://A.test:80/mcp").id);
        assert_eq!(id, 0x6442_2acc_b57a_f518, "sealed sessions of earlier versions hold this number");
        assert_ne!(id, read("http://a.test/mcp2").id);
        assert_ne!(id, read("https://a.test/mcp").id);
        assert_ne!(id, read("http://a.test:81/mcp").id);
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        assert_eq!(refused("ftp://a.test/"), "the URL's scheme is neither `http` nor `https`");
        assert_eq!(refused("http://u:p@a.test/"), "the URL has a user or a password");
        assert_eq!(refused("http://a.test/#x"), "the URL has a fragment");
        assert_eq!(refused("http://a.test:0/"), "the URL's port is not between 1 and 65535");
        assert_eq!(refused("http://a.test:65536/"), "the URL's port is not between 1 and 65535");
        assert_eq!(refused("http://münchen.test/"), "the URL has characters outside ASCII");
        for url in [
            "",
            "a.test/mcp",
            "/mcp",
            "http://",
            "http:///mcp",
            "http://a b/",
            "http://a.test:8x/",
            "http://[::1/",
            "http://a..b:/x y",
        ] {
            refused(url);
        }
    }

    #[test]
    fn an_https_url_without_a_name_to_verify_is_refused() {
        for url in ["https://:443/mcp", "https:///mcp", "https://", "https://./mcp", "https://-./mcp"] {
            refused(url);
        }
    }

    #[test]
    fn debug_shows_neither_path_nor_query() {
        assert_eq!(format!("{:?}", read("http://a.test/s3cret?token=s3cret")), "Target(\"http://a.test:80\")");
    }
}
