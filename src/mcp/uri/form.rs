//! Does resolving a URI leave it as it is?
//!
//! Schemes of the web, and `file`, have rules that every reader applies; a URI that they change is refused. What other
//! schemes mean is the server's own: they are held to what holds for all, and their user's name is kept.

use crate::mcp::uri::flaw::UriFlaw;
use crate::mcp::uri::host;
use crate::mcp::uri::parts;
use crate::mcp::uri::parts::path_end;

/// Judges the scheme and what it says about the rest. A text without a scheme is no URI, and passes.
pub(super) fn check(text: &str) -> Result<(), UriFlaw> {
    let Some((scheme, rest)) = parts::scheme(text) else { return Ok(()) };
    if scheme.chars().any(|letter| letter.is_ascii_uppercase()) {
        return Err(UriFlaw::Scheme);
    }
    match scheme {
        "file" => check_file(rest),
        "http" | "ws" => check_web(text, Some(80)),
        "https" | "wss" => check_web(text, Some(443)),
        "ftp" => check_web(text, Some(21)),
        _ => check_own(text),
    }
}

/// `//host/path`: readers differ in what they make of the host, so it is looked at elsewhere as well.
fn check_file(rest: &str) -> Result<(), UriFlaw> {
    let rest = rest.strip_prefix("//").ok_or(UriFlaw::Slashes)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (path, _) = path.split_at_checked(path_end(path)).unwrap_or((path, ""));
    if path.starts_with('/') || path.contains("//") {
        return Err(UriFlaw::Slashes);
    }
    if path.contains("%2F") || path.contains("%5C") {
        return Err(UriFlaw::Encoding);
    }
    if host.contains('@') {
        return Err(UriFlaw::User);
    }
    // `file://localhost/` is another spelling of `file:///`, and `C|` of `C:`.
    let is_here = host == "localhost" || host::address(host).is_some_and(|address| address.is_loopback());
    if is_here || host.contains(':') || path.get(1..2) == Some("|") {
        return Err(UriFlaw::Host);
    }
    match (host, path) {
        ("", "") if !rest.starts_with('/') => Err(UriFlaw::Slashes),
        ("", _) => Ok(()),
        (host, _) => host::check(host, None),
    }
}

fn check_web(text: &str, default_port: Option<u16>) -> Result<(), UriFlaw> {
    let (_, authority, path) = parts::authority(text).ok_or(UriFlaw::Slashes)?;
    if authority.contains('@') {
        return Err(UriFlaw::User);
    }
    host::check(authority, default_port)?;
    // Without a path there is nothing a query could belong to; some read the host on.
    if path.is_empty() || path.starts_with('/') { Ok(()) } else { Err(UriFlaw::Slashes) }
}

/// What readers of schemes of one's own could understand differently is where the host ends.
fn check_own(text: &str) -> Result<(), UriFlaw> {
    let Some((_, authority, path)) = parts::authority(text) else { return Ok(()) };
    if authority.matches('@').count() > 1 {
        return Err(UriFlaw::User);
    }
    let to_slash = path.split('/').next().unwrap_or_default();
    if to_slash.contains('@') {
        return Err(UriFlaw::User);
    }
    let (user, host) = parts::user(authority).unwrap_or(("", authority));
    let has = |text: &str, escapes: &[&str]| escapes.iter().any(|escape| text.contains(escape));
    if has(user, &["%2F", "%5C", "%3F", "%23"]) || has(host, &["%5C", "%3F", "%23", "%40"]) {
        return Err(UriFlaw::Host);
    }
    Ok(())
}

/// Refuses segments that lead elsewhere. Some servers take a query, or a parameter, for a part of the path.
pub(super) fn check_dots(text: &str) -> Result<(), UriFlaw> {
    let (path, query) = text.split_at_checked(path_end(text)).unwrap_or((text, ""));
    let mut in_path = path.split(['/', '\\', ':', ';', '@', '&', '=']).map(str::trim);
    let mut in_query = query.split(['/', '\\', ':', ';', '@', '&', '=', '?', '#']).map(str::trim);
    if in_path.any(|part| part == "." || part == "..") || in_query.any(|part| part == "..") {
        return Err(UriFlaw::Dots);
    }
    Ok(())
}
