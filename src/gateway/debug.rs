//! What is a caller told who may ask how a request was decided?
//!
//! Only the holder of a key with `debug_headers`, only where the request asks, and in headers alone: nothing of it is in a body.
//! Nothing here names an upstream's address, and every value is visible ASCII of a bounded length.

use http::HeaderMap;

use crate::config::problem::At;
use crate::config::workspaces;
use crate::principal::Principal;

use super::entry::Entry;

/// The header by which a request asks; its value is `1`.
const ASKED: &str = "x-portcullis-debug";
/// Bytes of one header's value.
const VALUE_BYTES_MAX: usize = 256;
/// Digits of an endpoint's id that are shown: enough to tell replicas apart, too few to guess an address by.
const ENDPOINT_DIGITS: usize = 4;

/// What was decided, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Debug {
    /// Whether something was let through.
    pub(crate) is_allowed: bool,
    /// The word for it.
    pub(crate) reason: Option<&'static str>,
    /// The rule's place in the configuration.
    pub(crate) rule: Option<At>,
    /// The number of the record.
    pub(crate) record: Option<u64>,
}

/// Whether a request asks, and its caller may.
pub(crate) fn is_asked(headers: &HeaderMap, principal: &Principal) -> bool {
    principal.debug_headers && headers.get(ASKED).is_some_and(|value| value == "1")
}

/// The headers that say how a request was decided; none unless its caller asked and may.
pub(crate) fn headers(entry: &Entry) -> Vec<(&'static str, String)> {
    let (Some(debug), Some(principal)) = (&entry.debug, &entry.principal) else { return Vec::new() };
    let decision = match (debug.reason, debug.is_allowed) {
        (None, _) => None,
        (Some(_), true) => Some("allowed".to_owned()),
        (Some(_), false) => Some("refused".to_owned()),
    };
    let rule = debug.rule.as_ref().map(At::to_string);
    let told = [
        ("x-portcullis-identity", Some(principal.id.to_string())),
        ("x-portcullis-credential", Some(principal.credential().to_owned())),
        ("x-portcullis-decision", decision),
        ("x-portcullis-reason", debug.reason.map(str::to_owned)),
        ("x-portcullis-level", rule.as_deref().map(|rule| level(rule).to_owned())),
        ("x-portcullis-rule", rule),
        ("x-portcullis-server", entry.server.as_deref().map(|server| workspaces::bare(server).to_owned())),
        ("x-portcullis-endpoint", entry.endpoint.map(masked)),
        ("x-portcullis-configuration", Some(entry.configuration().to_owned())),
        ("x-portcullis-record", debug.record.map(|record| record.to_string())),
    ];
    told.into_iter().filter_map(|(name, value)| Some((name, plain(&value?)))).collect()
}

/// Which level of the cascade, or what else, a rule belongs to: its table.
fn level(rule: &str) -> &str {
    let mut steps = rule.split(['.', '[']);
    let table = match steps.next() {
        // Its name has none of these characters.
        Some("workspaces") => steps.nth(1),
        table => table,
    };
    match table.unwrap_or_default() {
        "keys" => "key",
        "teams" => "team",
        "organisations" => "organisation",
        "users" => "user",
        "agents" => "agent",
        "toolsets" => "toolset",
        "servers" => "server",
        other => other,
    }
}

fn masked(endpoint: u64) -> String {
    format!("{endpoint:016x}").chars().take(ENDPOINT_DIGITS).chain(['*']).collect()
}

/// A value as a header may carry it.
fn plain(value: &str) -> String {
    let shown = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
    value.chars().take(VALUE_BYTES_MAX).map(shown).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_short_line_of_visible_characters() {
        assert_eq!(plain("keys.ci.mcp_servers[0]"), "keys.ci.mcp_servers[0]");
        assert_eq!(plain("a\r\nSet-Cookie: x\0é\u{7f}"), "a??Set-Cookie: x???");
        assert_eq!(plain(&"é".repeat(1_000)).len(), VALUE_BYTES_MAX);
    }

    #[test]
    fn an_endpoint_is_told_from_its_neighbour_and_no_more() {
        assert_eq!((masked(0x0123_4567_89ab_cdef), masked(u64::MAX)), ("0123*".to_owned(), "ffff*".to_owned()));
    }

    #[test]
    fn a_rule_belongs_to_its_table() {
        let levels =
            ["keys.ci.mcp_servers", "servers.a.blocked_tools[0]", "limits.each_caller", "plans.free"].map(level);
        assert_eq!(levels, ["key", "server", "limits", "plans"]);
        assert_eq!(level("workspaces.acme.teams.t.mcp_servers[0]"), "team");
    }

    #[test]
    fn it_must_be_asked_for_by_one_who_may() {
        let mut headers = HeaderMap::new();
        let may = Principal { debug_headers: true, ..Principal::of_key("ci") };
        assert!(!is_asked(&headers, &may));
        headers.insert(ASKED, "0".parse().unwrap());
        assert!(!is_asked(&headers, &may));
        headers.insert(ASKED, "1".parse().unwrap());
        assert!(is_asked(&headers, &may) && !is_asked(&headers, &Principal::of_key("ci")));
    }
}
