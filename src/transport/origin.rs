//! May a browser, or a name that was pointed at us, send this?
//!
//! The guard against DNS rebinding: the `Host` must be one of ours, and an `Origin`, where there is one, too.

use std::net::IpAddr;

use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::transport::forwarded::Scheme;

/// Bytes of a path in front of ours.
const PREFIX_BYTES_MAX: usize = 256;

/// Hosts and origins a configuration accepts.
#[derive(Debug)]
pub struct OriginRules {
    /// `None`: any host.
    hosts: Option<Vec<String>>,
    /// `None`: the gateway's own, which is the origin whose authority is the request's `Host`.
    origins: Option<Vec<String>>,
    public_origin: Option<String>,
    /// The public host, and the path in front of ours under which it is known.
    public_prefix: Option<(String, String)>,
}

impl OriginRules {
    /// Builds the rules, reporting hosts, origins and a public URL that cannot match.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let at = At::root().key("listen");
        let public = config.listen.public_url.as_deref().and_then(|url| {
            let parsed = split_prefix(url).and_then(|(origin, _)| parse_origin(origin));
            if parsed.is_none() {
                problems.error(
                    &at.key("public_url"),
                    format!("`{url}` is not a public URL"),
                    "write a scheme, a host and maybe a path in front of ours: `https://mcp.example.com/gateway`",
                );
            }
            parsed
        });
        let hosts = match &config.listen.allowed_hosts {
            Some(hosts) => Some(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
            None => default_hosts(config, public.as_ref(), problems, &at),
        };
        if let Some(origins) = &config.listen.allowed_origins {
            for (index, origin) in origins.iter().enumerate() {
                if parse_origin(origin).is_none() {
                    problems.error(
                        &at.key("allowed_origins").index(index),
                        format!("`{origin}` is not an origin"),
                        "write scheme, host and port only: `https://app.example.com`",
                    );
                }
            }
        }
        let origins = config
            .listen
            .allowed_origins
            .as_ref()
            .map(|origins| origins.iter().map(|origin| origin.to_ascii_lowercase()).collect());
        let prefix = config.listen.public_url.as_deref().and_then(split_prefix).map(|(_, prefix)| prefix.to_owned());
        let public_prefix = public.as_ref().map(|(_, authority)| authority.clone()).zip(prefix);
        let public_origin = public.map(|(scheme, authority)| format!("{scheme}://{authority}"));
        Self { hosts, origins, public_origin, public_prefix }
    }

    /// The path that stands in front of ours for a client that came in by `host`: that of the public URL.
    pub fn prefix(&self, host: &str) -> &str {
        let public = self.public_prefix.as_ref().filter(|(public, _)| public.eq_ignore_ascii_case(host));
        public.map_or("", |(_, prefix)| prefix)
    }

    /// Whether `host`, the value of a `Host` header, is one of ours. Its port matters only where the rule names one.
    pub fn allows_host(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let bare = without_port(host);
        hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(bare))
    }

    /// Whether a request to `host` may come from `origin`, the value of an `Origin` header. Where the client is known to speak
    /// `scheme`, a page of ours came by the same: one that came in the clear may be anybody's.
    pub fn allows_origin(&self, origin: &str, host: &str, scheme: Option<Scheme>) -> bool {
        if let Some(origins) = &self.origins {
            return origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        }
        let own = parse_origin(origin).is_some_and(|(by, authority)| {
            authority.eq_ignore_ascii_case(host) && scheme.is_none_or(|scheme| scheme.name() == by)
        });
        own || self.public_origin.as_deref().is_some_and(|public| public.eq_ignore_ascii_case(origin))
    }
}

/// Loopback names on a loopback listener (and the public host beside them), else the public host, else any.
fn default_hosts(
    config: &Config,
    public: Option<&(String, String)>,
    problems: &mut Problems,
    at: &At,
) -> Option<Vec<String>> {
    let public = public.map(|(_, authority)| without_port(authority).to_owned());
    let loopback = ["localhost", "127.0.0.1", "[::1]"].map(String::from);
    if is_loopback(&config.listen.data) {
        return Some(loopback.into_iter().chain(public).collect());
    }
    if public.is_none() {
        problems.warning(&at.key("data"), "requests for any host are accepted", "set `listen.public_url` or `listen.allowed_hosts`, so that a foreign name pointed at this address is refused");
    }
    public.map(|host| vec![host])
}

/// Whether a listener address can be reached from this machine only.
pub fn is_loopback(address: &str) -> bool {
    if address.starts_with("unix:") {
        return true;
    }
    let host = without_port(address).trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host of `host[:port]`, brackets of an IPv6 address kept.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// Whether a text is a path that can stand in front of ours: segments of letters, digits and `-._~`, none of them empty
/// or dots, each with a `/` before it.
pub fn is_prefix(path: &str) -> bool {
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let segments = path.strip_suffix('/').unwrap_or(path).strip_prefix('/');
    path.len() <= PREFIX_BYTES_MAX && segments.is_some_and(|segments| segments.split('/').all(plain))
}

/// A public URL as its origin and the path in front of ours, which is mostly empty.
fn split_prefix(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let at = rest.find('/').map_or(url.len(), |slash| url.len() - rest.len() + slash);
    let (origin, path) = url.split_at_checked(at)?;
    let path = path.trim_end_matches('/');
    (path.is_empty() || is_prefix(path)).then_some((origin, path))
}

/// Scheme and authority of an origin; nothing else may stand in it.
fn parse_origin(origin: &str) -> Option<(String, String)> {
    let (scheme, authority) = origin.split_once("://")?;
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\\"'<>".contains(&byte))
    };
    (matches!(scheme, "http" | "https") && plain(authority))
        .then(|| (scheme.to_owned(), authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Listen;

    fn rules(listen: Listen) -> (OriginRules, Vec<String>) {
        let mut problems = Problems::new();
        let rules = OriginRules::compile(&Config { listen, ..Config::default() }, &mut problems);
        (rules, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_only() {
        let (rules, problems) = rules(Listen::default());
        assert_eq!(problems, Vec::<String>::new());
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(rules.allows_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.0.0.1:80:80",
            "",
        ] {
            assert!(!rules.allows_host(host), "{host}");
        }
    }

    #[test]
    fn a_public_listener_answers_to_its_public_host_or_warns() {
        let listen = |public: Option<&str>| Listen {
            data: "0.0.0.0:8080".into(),
            public_url: public.map(String::from),
            ..Listen::default()
        };
        let (named, problems) = rules(listen(Some("https://mcp.example.com")));
        assert_eq!(problems, Vec::<String>::new());
        assert!(named.allows_host("mcp.example.com") && named.allows_host("MCP.example.com:443"));
        assert!(!named.allows_host("localhost"));
        let (any, problems) = rules(listen(None));
        assert_eq!(problems, ["requests for any host are accepted"]);
        assert!(any.allows_host("whatever"));
    }

    #[test]
    fn origins_are_our_own_unless_listed() {
        let (own, _) = rules(Listen { public_url: Some("https://mcp.example.com".into()), ..Listen::default() });
        assert!(own.allows_origin("http://localhost:8080", "localhost:8080", None));
        assert!(own.allows_origin("https://mcp.example.com", "127.0.0.1:8080", None));
        for origin in [
            "null",
            "https://evil.example",
            "http://localhost:9",
            "http://localhost:8080/",
            "http://u@localhost:8080",
            "file://localhost:8080",
            "",
        ] {
            assert!(!own.allows_origin(origin, "localhost:8080", None), "{origin}");
        }
        let by = |origin: &str, scheme| own.allows_origin(origin, "localhost:8080", Some(scheme));
        assert!(by("https://localhost:8080", Scheme::Https) && by("http://localhost:8080", Scheme::Http));
        assert!(!by("http://localhost:8080", Scheme::Https) && !by("https://localhost:8080", Scheme::Http));
        let (listed, _) =
            rules(Listen { allowed_origins: Some(vec!["https://App.example".into()]), ..Listen::default() });
        assert!(listed.allows_origin("https://app.example", "localhost:8080", None));
        assert!(!listed.allows_origin("http://localhost:8080", "localhost:8080", None));
    }

    #[test]
    fn a_public_url_may_have_a_path_in_front_of_ours() {
        let public = |url: &str| rules(Listen { public_url: Some(url.into()), ..Listen::default() });
        let (rules, problems) = public("https://mcp.example.com/c/d/");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!((rules.prefix("MCP.example.com"), rules.prefix("localhost:8080")), ("/c/d", ""));
        assert!(rules.allows_origin("https://mcp.example.com", "localhost", None));
        let (rules, _) = public("https://mcp.example.com");
        assert_eq!(rules.prefix("mcp.example.com"), "");
        for url in ["https://a/b?c", "https://a/%2e", "https://a//b", "https://a/../b", "https://a/b\"c"] {
            assert_eq!(public(url).1.len(), 1, "{url}");
        }
        for (path, expected) in
            [("/c", true), ("/c/", true), ("/", false), ("c", false), ("/c\r\nx", false), ("/<b>", false)]
        {
            assert_eq!(is_prefix(path), expected, "{path}");
        }
        assert!(!is_prefix(&format!("/{}", "x".repeat(PREFIX_BYTES_MAX))));
    }

    #[test]
    fn values_that_cannot_match_are_reported() {
        let (_, problems) = rules(Listen {
            public_url: Some("mcp.example.com".into()),
            allowed_origins: Some(vec!["https://a/b".into(), "null".into()]),
            ..Listen::default()
        });
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
