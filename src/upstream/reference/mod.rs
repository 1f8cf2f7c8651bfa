//! Where does an `endpoint` event point?
//!
//! A server of the HTTP+SSE transport names the URL that takes messages, often relative to its stream. RFC 3986
//! section 5.2, and stricter: whatever two readers of URLs could understand differently is refused, and so is every other
//! origin. What comes out is a path: it is asked of the endpoint itself, so not even a mistake here leads elsewhere.

#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;

use http::uri::PathAndQuery;

use crate::upstream::target::Target;
use crate::upstream::target::host_and_port;

/// Bytes of a path with its query that an `endpoint` event may lead to: as much as a sealed session can hold.
pub const MESSAGE_PATH_BYTES_MAX: usize = 1_024;

/// The path that `reference` means, seen from the stream at `target`.
///
/// # Errors
/// A word for records: `endpoint_text`, `endpoint_fragment`, `endpoint_origin`, `endpoint_path` or `endpoint_length`.
pub(crate) fn resolve(target: &Target, reference: &str) -> Result<PathAndQuery, &'static str> {
    // Browsers read `\` as `/` and skip tabs and line ends; others do not.
    if reference.is_empty() || !reference.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err("endpoint_text");
    }
    if reference.contains('#') {
        return Err("endpoint_fragment");
    }
    let after_scheme = match scheme(reference) {
        Some((scheme, rest)) => {
            let own = if target.tls.is_some() { "https" } else { "http" };
            // Without `//` a browser would guess what was meant.
            Some(rest).filter(|rest| scheme.eq_ignore_ascii_case(own) && rest.starts_with("//")).ok_or(ORIGIN)?
        }
        None => reference,
    };
    let resolved = match after_scheme.strip_prefix("//") {
        Some(rest) => {
            let (authority, rest) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len())).ok_or(ORIGIN)?;
            if !is_own(target, authority) {
                return Err(ORIGIN);
            }
            let (path, query) = split_query(rest);
            with_query(without_dots(if path.is_empty() { "/" } else { path }), query)
        }
        None => relative(target, after_scheme),
    };
    // Some servers would take the first segment of such a path for a host.
    if resolved.starts_with("//") {
        return Err("endpoint_path");
    }
    if resolved.len() > MESSAGE_PATH_BYTES_MAX {
        return Err("endpoint_length");
    }
    resolved.parse().map_err(|_| "endpoint_path")
}

const ORIGIN: &str = "endpoint_origin";

/// The scheme and what follows its colon, if the reference has one.
fn scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

/// Whether an authority is the target's own: no user, the same host, the same port.
fn is_own(target: &Target, authority: &str) -> bool {
    let default_port = if target.tls.is_some() { 443 } else { 80 };
    let Ok((host, port)) = host_and_port(authority, default_port) else {
        return false;
    };
    let address = |host: &str| host.parse::<Ipv6Addr>().ok();
    let is_same_host = *host == *target.host || address(&host).is_some_and(|it| address(&target.host) == Some(it));
    is_same_host && port == target.port
}

/// A reference without scheme and authority.
fn relative(target: &Target, reference: &str) -> String {
    let base = target.path.path();
    let (path, query) = split_query(reference);
    let path = if path.is_empty() {
        base.to_owned()
    } else if path.starts_with('/') {
        without_dots(path)
    } else {
        let folder = base.rfind('/').and_then(|slash| base.get(..=slash)).unwrap_or("/");
        without_dots(&format!("{folder}{path}"))
    };
    with_query(path, query)
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)))
}

fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// A path that begins with `/`, with its segments `.` and `..` carried out: RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // A path that ends in dots names a folder.
        if is_last {
            kept.push("");
        }
    }
    kept.iter().flat_map(|segment| ["/", segment]).collect()
}
