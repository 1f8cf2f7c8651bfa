//! What must hold for any URI? Checked by the fuzz targets, and by the replay of their seeds.

use std::sync::OnceLock;

use crate::mcp::uri::Uri;
use crate::policy::uris;
use crate::policy::uris::Allowed;
use crate::policy::uris::Blocked;

/// Directories, templates, hosts, schemes of a server's own.
const PATTERNS: [&str; 6] = [
    "file:///data/**",
    "note:///*",
    "https://host.example/a/*/b",
    "**/.env",
    "db://user@host/t?x=*",
    "file:///d%C3%A4ta/*",
];

/// Whatever is allowed by a list is blocked by the same list: allowing is the narrower reading of it. And what a plain reader
/// of paths takes out of an allowed directory was never in it.
pub fn uri(input: &[u8]) {
    static LISTS: OnceLock<(Allowed, Blocked)> = OnceLock::new();
    let (allowed, blocked) = LISTS.get_or_init(|| uris::lists(&PATTERNS.map(String::from)));
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(uri) = Uri::read(text) else { return };
    assert_eq!(uri.text(), text, "it goes out as it came, or not at all");
    if !allowed.has(&uri) {
        return;
    }
    assert!(blocked.find(&uri).is_some(), "allowed, and not blocked by the same patterns");
    let path = text.split(['?', '#']).next().unwrap_or_default();
    assert!(!path.split(['/', '\\']).any(|segment| segment == ".."), "it climbs");
    if let Some(path) = path.strip_prefix("file://") {
        assert!(path.starts_with("/data/") || path.starts_with("/d%C3%A4ta/") || text.ends_with("/.env"), "{path}");
    }
}
