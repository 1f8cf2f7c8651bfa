//! Where does this URL lead, and does every reader of it agree?
//!
//! Stricter than browsers and `curl`: a host is a name of letters, digits and hyphens, four plain decimal numbers or a
//! bracketed IPv6 address. Everything that some resolver takes for an address in disguise (`0x7f.1`, `2130706433`, `127.1`) is
//! refused here, before anything is resolved.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::Uri;

/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 2048;
/// Bytes of a host's name.
const NAME_BYTES_MAX: usize = 253;
/// Bytes between two dots of a name.
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is no URL that the gateway asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFlaw {
    /// It cannot be read as a whole URL.
    #[error("this is not a whole URL such as `https://login.example.com/keys`")]
    Form,
    /// It is longer than [`URL_BYTES_MAX`].
    #[error("the URL is too long")]
    TooLong,
    /// Characters outside ASCII, or white space.
    #[error("the URL has characters that do not belong there: write an international name in its `xn--` form")]
    Characters,
    /// Neither `https` nor `http`.
    #[error("the URL's scheme is neither `https` nor `http`")]
    Scheme,
    /// A user or a password.
    #[error("the URL has a user or a password")]
    Userinfo,
    /// A fragment.
    #[error("the URL has a fragment")]
    Fragment,
    /// A host that is neither a name nor an address, or an address in disguise.
    #[error("the URL's host is neither a plain name nor a plain address")]
    Host,
    /// A port that is none.
    #[error("the URL's port is not between 1 and 65535")]
    Port,
}

/// A host: what is resolved, or what is connected to as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name in lower case, without a dot at its end.
    Name(Arc<str>),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Whether it is a name for this machine, whatever it resolves to.
    pub fn is_local_name(&self) -> bool {
        let Self::Name(name) = self else { return false };
        let last = name.rsplit('.').next().unwrap_or_default();
        matches!(last, "localhost" | "localdomain") || matches!(&**name, "ip6-localhost" | "ip6-loopback")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it begins with `https`.
    pub is_secure: bool,
    /// The host.
    pub host: Host,
    /// The port, that of the scheme where none is written.
    pub port: u16,
    /// Path and query, as they stand in a request line.
    pub path: Uri,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UrlFlaw> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlFlaw::TooLong);
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'<' | b'>' | b'"' | b'^' | b'`'))
        {
            return Err(UrlFlaw::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlFlaw::Form)?;
        let is_secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(UrlFlaw::Scheme),
        };
        if rest.contains('#') {
            return Err(UrlFlaw::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(UrlFlaw::Form)?;
        if authority.contains('@') {
            return Err(UrlFlaw::Userinfo);
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let port = port.map_or(Ok(if is_secure { 443 } else { 80 }), parse_port)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_secure, host, port, path: path.parse().map_err(|_| UrlFlaw::Form)? })
    }

    /// What a `Host` header says: the port stands there only where it is not the scheme's.
    pub fn authority(&self) -> String {
        let usual = if self.is_secure { 443 } else { 80 };
        if self.port == usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Shows neither path nor query, where a token could stand.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.authority())
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlFlaw> {
    let colon = match authority.strip_prefix('[') {
        Some(_) => authority.find(']').ok_or(UrlFlaw::Host)? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    match authority.split_at_checked(colon) {
        Some((host, "")) => Ok((host, None)),
        Some((host, port)) => Ok((host, Some(port.strip_prefix(':').ok_or(UrlFlaw::Host)?))),
        None => Err(UrlFlaw::Form),
    }
}

fn parse_port(digits: &str) -> Result<u16, UrlFlaw> {
    let is_plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain).ok_or(UrlFlaw::Port)
}

fn parse_host(text: &str) -> Result<Host, UrlFlaw> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| UrlFlaw::Host)?;
        return Ok(Host::Address(address.into()));
    }
    // The standard library reads exactly four decimal numbers without leading zeros.
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(UrlFlaw::Host);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if looks_like_a_number(last) {
        return Err(UrlFlaw::Host);
    }
    Ok(Host::Name(name.into()))
}

fn is_label(label: &str) -> bool {
    let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    plain && !label.is_empty() && label.len() <= LABEL_BYTES_MAX && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether the last part of a name would make a resolver take the whole for an IPv4 address.
fn looks_like_a_number(label: &str) -> bool {
    let digits = label.bytes().all(|byte| byte.is_ascii_digit());
    let hex = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits || hex
}
