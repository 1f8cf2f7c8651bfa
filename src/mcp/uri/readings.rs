//! What might a URI be taken for?
//!
//! Each step is a habit of some reader; every step is applied to all that the steps before it gave, so that readers with
//! several habits are covered. Only what is blocked is looked for in all of them.

use std::net::IpAddr;

use crate::mcp::uri::decode::decoded;
use crate::mcp::uri::flaw::UriFlaw;
use crate::mcp::uri::host;
use crate::mcp::uri::parts;

/// Readings of one URI; what has more is refused.
pub(super) const READINGS_MAX: usize = 64;

/// A habit: what a reader takes a text for, if it has a say in it.
type Habit = fn(&str) -> Option<String>;

const HABITS: [Habit; 13] = [
    once_decoded,
    once_decoded,
    folded,
    innermost,
    as_path,
    as_address,
    as_local_file,
    without_host,
    |text| without_user(text),
    |text| text.split_once('#').map(|(before, _)| before.to_owned()),
    |text| text.split_once('?').map(|(before, _)| before.to_owned()),
    settled,
    // What may be read inside a directory may be read by reading the directory.
    |text| (!text.ends_with('/')).then(|| format!("{text}/")),
];

/// All that a text might be taken for but the text itself.
pub(super) fn of(text: &str) -> Result<Vec<String>, UriFlaw> {
    let mut readings: Vec<String> = Vec::new();
    for habit in HABITS {
        let mut more: Vec<String> = Vec::new();
        for reading in std::iter::once(text).chain(readings.iter().map(String::as_str)) {
            if let Some(next) = habit(reading)
                && next != text
                && !readings.contains(&next)
                && !more.contains(&next)
            {
                more.push(next);
            }
        }
        readings.append(&mut more);
        if readings.len() >= READINGS_MAX {
            return Err(UriFlaw::Many);
        }
    }
    Ok(readings)
}

/// A text as a reader takes it that decodes separators, joins slashes and drops the user's name. What is allowed must
/// be so for such a reader too.
pub fn loose(text: &str) -> String {
    let joined = joined(text);
    without_user(&joined).unwrap_or(joined)
}

/// A text as a reader takes it that decodes separators and joins slashes.
pub fn joined(text: &str) -> String {
    let mut joined = text.to_owned();
    for escape in ["%252F", "%252f", "%255C", "%255c", "%2F", "%2f", "%5C", "%5c", "\\"] {
        if joined.contains(escape) {
            joined = joined.replace(escape, "/");
        }
    }
    let (head, rest) = head(&joined);
    let (path, query) = rest.split_at_checked(parts::path_end(rest)).unwrap_or((rest, ""));
    if !path.contains("//") {
        return joined;
    }
    let mut joined = head.to_owned();
    for character in path.chars() {
        if character != '/' || !joined.ends_with('/') || joined.len() == head.len() {
            joined.push(character);
        }
    }
    joined + query
}

/// A text cut before its authority or path: after `scheme://`, after `scheme:`, or at its beginning.
fn head(text: &str) -> (&str, &str) {
    let Some((scheme, rest)) = parts::scheme(text) else { return ("", text) };
    let slashes = if rest.starts_with("//") { 2 } else { 0 };
    text.split_at_checked(scheme.len() + 1 + slashes).unwrap_or(("", text))
}

fn once_decoded(text: &str) -> Option<String> {
    text.contains('%').then(|| decoded(text))
}

/// Characters that look like others, and that some readers replace by them.
fn folded(text: &str) -> Option<String> {
    let fold = |character: char| match character {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(character) - 0xFEE0).unwrap_or(character),
        '\u{2024}' | '\u{3002}' | '\u{FF61}' => '.',
        '\u{2044}' | '\u{2215}' | '\u{29F8}' | '\\' | '\u{2216}' | '\u{29F5}' | '\u{FE68}' => '/',
        other => other,
    };
    let may_fold = !text.is_ascii() || text.contains('\\') || text.trim() != text;
    may_fold.then(|| text.trim().chars().map(fold).map(|it| if it == '\\' { '/' } else { it }).collect())
}

/// `view-source:file:///x` and the like.
fn innermost(text: &str) -> Option<String> {
    let (_, mut inner) = parts::scheme(text).filter(|(_, rest)| parts::scheme(rest).is_some())?;
    while let Some((_, rest)) = parts::scheme(inner).filter(|(_, rest)| parts::scheme(rest).is_some()) {
        inner = rest;
    }
    Some(inner.to_owned())
}

/// A text without a scheme may be the path of a file.
fn as_path(text: &str) -> Option<String> {
    parts::scheme(text).is_none().then(|| format!("file:///{}", text.trim_start_matches('/')))
}

/// A text without a scheme may begin with a host; and a host may be an address in disguise.
fn as_address(text: &str) -> Option<String> {
    if parts::scheme(text).is_none() {
        return Some(dotted(&format!("http://{}", text.trim_start_matches('/'))));
    }
    Some(dotted(text))
}

/// The same with the host as an address, if it is one.
fn dotted(text: &str) -> String {
    let Some((head, authority, rest)) = parts::authority(text) else { return text.to_owned() };
    let (_, host) = parts::user(authority).unwrap_or(("", authority));
    match host::address(host) {
        Some(IpAddr::V4(address)) => format!("{head}{address}{rest}"),
        Some(IpAddr::V6(address)) => format!("{head}[{address}]{rest}"),
        None => text.to_owned(),
    }
}

/// `file:x`, `file:/x` and `file://x` may all be taken for a path.
fn as_local_file(text: &str) -> Option<String> {
    let (scheme, rest) = parts::scheme(text)?;
    scheme.eq_ignore_ascii_case("file").then(|| format!("file:///{}", rest.trim_start_matches('/')))
}

/// Some readers take the path of `file://host/path` for one of their own.
fn without_host(text: &str) -> Option<String> {
    let (_, _, path) = parts::authority(text).filter(|(head, _, _)| head.eq_ignore_ascii_case("file://"))?;
    Some(format!("file://{path}"))
}

fn without_user(text: &str) -> Option<String> {
    let (head, authority, path) = parts::authority(text)?;
    parts::user(authority).map(|(_, host)| format!("{head}{host}{path}"))
}

/// Segments without parameters, streams, and the dots and spaces at their ends; no empty ones.
fn settled(text: &str) -> Option<String> {
    let (head, rest) = head(text);
    let (path, query) = rest.split_at_checked(parts::path_end(rest)).unwrap_or((rest, ""));
    let mut settled = head.to_owned();
    for (position, segment) in path.split('/').enumerate() {
        let is_authority = position == 0 && head.ends_with("//");
        let clean = if is_authority { segment } else { clean(segment) };
        if position > 0 && !clean.is_empty() {
            settled.push('/');
        }
        settled.push_str(clean);
    }
    Some(settled + query)
}

fn clean(segment: &str) -> &str {
    let segment = segment.split(';').next().unwrap_or_default();
    segment.split("::").next().unwrap_or_default().trim_end_matches(['.', ' '])
}
