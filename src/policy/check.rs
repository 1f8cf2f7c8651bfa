//! What must hold of one argument's text?
//!
//! Each key of a constraint beside its path is one check. Texts are judged as the tool will see them, escapes resolved; of
//! numbers and booleans, their JSON text.

use std::sync::Arc;

use crate::mcp::names::is_plain;
use crate::mcp::uri;
use crate::mcp::uri::Uri;
use crate::policy::constraint::Mismatch;
use crate::policy::decimal::Decimal;
use crate::policy::hash::NameMap;
use crate::policy::pattern::Pattern;

/// One check.
pub(super) enum Check {
    /// The pattern is found.
    Pattern(Arc<Pattern>),
    /// The pattern takes the whole text.
    FullMatch(Arc<Pattern>),
    /// The pattern is not found.
    NotPattern(Arc<Pattern>),
    /// The text is one of these.
    OneOf(NameMap<Box<str>, ()>),
    /// It is a number, and no smaller.
    Min(Decimal),
    /// It is a number, and no larger.
    Max(Decimal),
    /// It has at most so many characters.
    MaxLength(usize),
    /// It is a path within one of these directories.
    PathWithin(Vec<Directory>),
    /// It is a URL of one of these hosts.
    UrlHosts(Vec<Host>),
}

impl Check {
    /// Whether a text holds; `is_number` if it is the JSON text of a number.
    pub(super) fn judge(&self, text: &str, is_number: bool) -> Result<(), Mismatch> {
        let (holds, mismatch) = match self {
            Self::Pattern(pattern) => (pattern.is_in(text), Mismatch::NotFound),
            Self::FullMatch(pattern) => (pattern.is_in(text), Mismatch::NotFound),
            Self::NotPattern(pattern) => (pattern.is_not_in(text), Mismatch::Found),
            Self::OneOf(texts) => (texts.contains_key(text), Mismatch::NotListed),
            Self::Min(least) => (number(text, is_number).is_some_and(|number| number >= *least), Mismatch::OutOfRange),
            Self::Max(most) => (number(text, is_number).is_some_and(|number| number <= *most), Mismatch::OutOfRange),
            Self::MaxLength(most) => (text.chars().nth(*most).is_none(), Mismatch::TooLong),
            Self::PathWithin(directories) => (is_within(directories, text), Mismatch::OutsidePath),
            Self::UrlHosts(hosts) => (is_of_host(hosts, text), Mismatch::OtherHost),
        };
        if holds { Ok(()) } else { Err(mismatch) }
    }
}

fn number(text: &str, is_number: bool) -> Option<Decimal> {
    if is_number { Decimal::parse(text) } else { None }
}

/// A directory that paths must stay within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    is_absolute: bool,
    segments: Vec<Box<str>>,
}

impl Directory {
    /// Reads what an operator wrote: an absolute path, or a relative one; `.` is wherever the tool works. `None`: it leads out of
    /// itself, or is no plain path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_absolute, segments) = normalized(text)?;
        Some(Self { is_absolute, segments: segments.into_iter().map(Box::from).collect() })
    }
}

/// The segments of a path without `.` and empty ones, `..` resolved; `None`: it leads out of where it starts, or could be read
/// as another path: it has a backslash, a control character, or begins with `~`.
fn normalized(text: &str) -> Option<(bool, Vec<&str>)> {
    if text.is_empty() || text.starts_with('~') || text.contains('\\') || !is_plain(text) {
        return None;
    }
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            segment => segments.push(segment),
        }
    }
    let is_absolute = text.starts_with('/');
    // `file:///etc` and `C:/Windows` are no relative paths.
    if !is_absolute && segments.first().is_some_and(|first| first.contains(':')) {
        return None;
    }
    Some((is_absolute, segments))
}

/// Whether a path stays within one of the directories, as it is written and as a reader sees it who decodes `%2e` and the like.
fn is_within(directories: &[Directory], text: &str) -> bool {
    let stays = |text: &str| {
        normalized(text).is_some_and(|(is_absolute, segments)| {
            directories.iter().any(|directory| {
                let begins = directory.segments.iter().zip(&segments).all(|(own, other)| **own == **other);
                directory.is_absolute == is_absolute && directory.segments.len() <= segments.len() && begins
            })
        })
    };
    if !has_escape(text) {
        return stays(text);
    }
    // What is encoded twice, or stands for no text, is read in too many ways.
    let decoded = uri::decoded(text);
    decoded != text && stays(text) && stays(&decoded) && !has_escape(&decoded)
}

/// Whether something in a text could be taken for a percent-encoded byte.
fn has_escape(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|three| matches!(three, [b'%', one, two] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit()))
}

/// A host that URLs may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: Box<str>,
    /// Whether the names below it are meant, and not itself.
    below: bool,
}

impl Host {
    /// Reads what an operator wrote: `api.example.com`, `*.example.com`, `[2001:db8::1]`; `None`: it is no host.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let is_ipv6 = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| !below && inner.parse::<std::net::Ipv6Addr>().is_ok());
        let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.chars().all(letter);
        (is_ipv6 || is_name).then(|| Self { name: name.to_ascii_lowercase().into(), below })
    }

    fn is(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.below {
            host.strip_suffix(&*self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == *self.name
        }
    }
}

/// Whether a text is an http or https URL of one of the hosts, whoever reads it.
fn is_of_host(hosts: &[Host], text: &str) -> bool {
    let Ok(uri) = Uri::read(text) else { return false };
    uri.readings().all(|reading| host_of(reading).is_some_and(|host| hosts.iter().any(|own| own.is(host))))
}

/// The host of an http or https URL that names no user.
fn host_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('@') {
        return None;
    }
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at_checked(end)?;
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_within_a_directory_however_it_is_written() {
        let directories: Vec<_> = ["/srv/data", "reports"].map(|text| Directory::parse(text).unwrap()).to_vec();
        for path in [
            "/srv/data",
            "/srv/data/",
            "/srv/data/a",
            "/srv//data/./a",
            "/srv/data/a/../b",
            "/srv/x/../data/a",
            "reports/a",
            "./reports/a",
            "/srv/data/...",
        ] {
            assert!(is_within(&directories, path), "{path}");
        }
        for path in [
            "",
            "/",
            "/srv",
            "/srv/database",
            "/srv/data/..",
            "/srv/data/../x",
            "/srv/data/a/../../x",
            "/../srv/data",
            "srv/data",
            "/reports/a",
            "reports/../a",
            "../reports",
            "~/reports",
            "~root",
            "/srv/data/%2e%2e/x",
            "/srv/data/%2E%2E%2Fx",
            "/srv/data/%252e%252e/x",
            "/srv/data/..\\x",
            "/srv\\data",
            "/srv/data/\u{0}",
            "/srv/data/a\n",
            "/SRV/data/a",
            "file:///srv/data/a",
            "/srv/data/a\u{202e}b",
            "/srv/data/%ff/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/srv/data/%ff",
            "C:/Windows/win.ini",
        ] {
            assert!(!is_within(&directories, path), "{path:?}");
        }
        assert_eq!(Directory::parse("../x"), None);
        assert!(
            is_within(&[Directory::parse(".").unwrap()], "any/where")
                && !is_within(&[Directory::parse(".").unwrap()], "/etc")
                && !is_within(&[Directory::parse(".").unwrap()], "file:///etc/passwd")
        );
        assert!(
            is_within(&[Directory::parse("/").unwrap()], "/etc")
                && !is_within(&[Directory::parse("/").unwrap()], "etc")
        );
    }

    #[test]
    fn a_url_is_of_a_host_whoever_reads_it() {
        let hosts: Vec<_> = ["api.example.com", "*.example.org", "[2001:db8::1]", "192.0.2.7"]
            .map(|text| Host::parse(text).unwrap())
            .to_vec();
        for url in [
            "https://api.example.com",
            "https://api.example.com/a?b#c",
            "http://api.example.com:8080/",
            "https://a.example.org/x",
            "https://a.b.example.org",
            "https://[2001:db8::1]:8443/x",
            "http://192.0.2.7/",
        ] {
            assert!(is_of_host(&hosts, url), "{url}");
        }
        for url in [
            "",
            "api.example.com",
            "//api.example.com",
            "https://example.org",
            "https://evilexample.org",
            "https://api.example.com.evil.com",
            "https://api.example.com@evil.com/",
            "https://evil.com@api.example.com/",
            "https://evil.com/api.example.com",
            "https://evil.com#api.example.com",
            "https://evil.com?api.example.com",
            "https://api.example.com\\@evil.com",
            "https:/api.example.com",
            "https:api.example.com",
            "ftp://api.example.com",
            "file://api.example.com/etc/passwd",
            "https://api.example.com:x/",
            "https://api.example.com:/",
            "https://3221225991/",
            "https://0xc0000207/",
            "https://api.example.com%2eevil.com/",
            "https://api%2eexample.com/",
            " https://api.example.com",
            "https://api.example.com\n",
            "https://[2001:db8::2]/",
            "https://api.example.com./",
            "javascript:alert(1)//https://api.example.com",
        ] {
            assert!(!is_of_host(&hosts, url), "{url:?}");
        }
        for text in ["", "*", "*.", ".a", "a.", "https://a", "a/b", "a:80", "[::1", "*.[::1]", "a b"] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }
}
