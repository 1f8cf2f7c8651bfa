//! Which issuers does the configuration name?
//!
//! Every mistake is reported at its place: a URL that is none, an issuer that is there twice, algorithms and times that cannot
//! be, a gateway that does not know its own URL.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use crate::auth::oauth::Accepts;
use crate::auth::oauth::Issuer;
use crate::auth::oauth::Oauth;
use crate::auth::oauth::fetch;
use crate::auth::oauth::fetch::Place;
use crate::auth::oauth::source::Upkeep;
use crate::config::check_server_name;
use crate::config::model;
use crate::config::model::Config;
use crate::config::model::Credentials;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::net::Rules;
use crate::net::Url;
use crate::network::Networks;

/// Issuers of one configuration.
pub const ISSUERS_MAX: usize = 64;
/// How far a clock may be off: what is more would make dead tokens live on.
const LEEWAY_SECONDS_MAX: u64 = 300;
const DAY_MS: u64 = 86_400_000;
/// From one look at an issuer's keys to the next, at least: it is somebody else's server.
const REFRESH_MS_MIN: u64 = 30_000;

impl Oauth {
    /// The issuers that `config` names. What is wrong with them is added to `problems`.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let at = At::root().key("auth");
        let public_url = config.listen.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
        if config.auth.issuers.len() > ISSUERS_MAX {
            problems.error(&at.key("issuers"), format!("more than {ISSUERS_MAX} issuers"), "remove some");
        }
        if !config.auth.issuers.is_empty() && public_url.is_empty() {
            problems.error(
                &at.key("issuers"),
                "the gateway does not know its own URL, which tokens are for and clients are told",
                "set `listen.public_url`",
            );
        }
        let mut urls = HashSet::new();
        let mut issuers = Vec::new();
        for (name, issuer) in config.auth.issuers.iter().take(ISSUERS_MAX) {
            let at = at.key("issuers").key(name);
            if !urls.insert(issuer.issuer.as_str()) {
                problems.error(&at.key("issuer"), "another issuer has this URL", "write one table for each issuer");
            }
            let repeats = config.auth.metadata_of.as_deref() == Some(name);
            issuers.extend(Issuer::compile(name, issuer, repeats, &at, problems));
        }
        let metadata_of = config.auth.metadata_of.as_deref().and_then(|name| {
            let found = issuers.iter().position(|issuer| *issuer.name == *name);
            if !config.auth.issuers.contains_key(name) {
                problems.error(
                    &at.key("metadata_of"),
                    format!("there is no issuer `{name}`"),
                    "write the name of one in `auth.issuers`",
                );
            }
            found
        });
        let scopes = config.auth.issuers.values().flat_map(|issuer| &issuer.scopes_supported);
        check_servers(config, problems);
        Self {
            issuers,
            public_url: public_url.into(),
            servers: servers(config),
            leads_elsewhere: config.auth.issuers.values().any(|issuer| issuer.workspace().is_some()),
            scopes: unique(scopes),
            metadata_of,
        }
    }
}

impl Issuer {
    fn compile(
        name: &str,
        issuer: &model::Issuer,
        repeats_metadata: bool,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Self> {
        if check_server_name(name).is_err() {
            problems.error(
                at,
                format!("`{name}` cannot be an issuer's name"),
                "write letters a-z, digits, `_` and `-`, 32 at most",
            );
        }
        if issuer.allow_http {
            let help = "leave it to tests: who can change an answer on its way can then be anybody";
            problems.warning(&at.key("allow_http"), "the issuer may be asked without TLS", help);
        }
        check_numbers(issuer, at, problems);
        check_scopes(&issuer.scopes_supported, &at.key("scopes_supported"), problems);
        let own = parse_url(&issuer.issuer, issuer, &at.key("issuer"), problems);
        let jwks = issuer.jwks_url.as_ref().map(|url| parse_url(url, issuer, &at.key("jwks_url"), problems));
        let proxy = issuer.proxy.as_ref().map(|url| {
            let parsed = Url::parse(url).map_err(|flaw| flaw.to_string());
            let help = "write scheme, host and port: `http://proxy.example:3128`";
            parsed.map_err(|flaw| problems.error(&at.key("proxy"), flaw, help)).ok()
        });
        let networks = Networks::compile(&issuer.allowed_networks, &at.key("allowed_networks"), problems);
        let (own, jwks, proxy) = (own?, transpose(jwks)?, transpose(proxy)?);
        let mut metadata = Vec::new();
        if jwks.is_none() || repeats_metadata {
            metadata.extend(fetch::metadata_places(&issuer.issuer).iter().filter_map(|url| Url::parse(url).ok()));
        }
        // The ports that the operator wrote, and the usual one for what a document names.
        let ports = [443, own.port].into_iter().chain(jwks.as_ref().map(|url| url.port)).collect();
        let rules = Rules { http: issuer.allow_http, ports, networks, proxy, ..Rules::default() };
        Some(Self {
            name: name.into(),
            workspace: issuer.workspace().map(Into::into),
            url: issuer.issuer.as_str().into(),
            algorithms: issuer.algorithms.clone(),
            audiences: issuer.audiences.clone(),
            leeway_seconds: issuer.leeway_seconds,
            claims: issuer.claims.clone(),
            place: Place { issuer: issuer.issuer.as_str().into(), jwks, metadata, rules },
            upkeep: Upkeep {
                refresh: Duration::from_millis(issuer.refresh_ms),
                stale_max: Duration::from_millis(issuer.stale_ms_max),
            },
        })
    }
}

/// `None` only for what was there and is none.
fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
        None => Some(None),
    }
}

fn parse_url(text: &str, issuer: &model::Issuer, at: &At, problems: &mut Problems) -> Option<Url> {
    match Url::parse(text) {
        Ok(url) if url.is_secure || issuer.allow_http => Some(url),
        Ok(_) => {
            problems.error(at, "the URL is not `https`", "write an `https` URL; for tests, `allow_http = true`");
            None
        }
        Err(flaw) => {
            problems.error(at, flaw.to_string(), "write a whole URL, such as `https://login.example.com`");
            None
        }
    }
}

fn check_numbers(issuer: &model::Issuer, at: &At, problems: &mut Problems) {
    if issuer.algorithms.is_empty() {
        problems.error(
            &at.key("algorithms"),
            "no token could be verified",
            "name one, such as `RS256`, or leave it out",
        );
    }
    if issuer.audiences.as_ref().is_some_and(Vec::is_empty) {
        problems.error(&at.key("audiences"), "no token could be for the gateway", "name one, or leave it out");
    }
    let ranges = [
        ("leeway_seconds", issuer.leeway_seconds, 0, LEEWAY_SECONDS_MAX),
        ("refresh_ms", issuer.refresh_ms, REFRESH_MS_MIN, DAY_MS),
        ("stale_ms_max", issuer.stale_ms_max, issuer.refresh_ms, 30 * DAY_MS),
    ];
    for (key, value, least, most) in ranges {
        if value < least || value > most {
            let help = format!("write a number from {least} to {most}");
            problems.error(&at.key(key), format!("`{value}` is out of range"), help);
        }
    }
}

/// Scopes must be such as stand in a challenge (RFC 6749, section 3.3).
fn check_scopes(scopes: &[String], at: &At, problems: &mut Problems) {
    for (index, scope) in scopes.iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(plain) {
            let help = "write one word without spaces, quotes and backslashes";
            problems.error(&at.index(index), format!("`{scope}` is not a scope"), help);
        }
    }
}

fn check_servers(config: &Config, problems: &mut Problems) {
    for (name, server) in &config.servers {
        let at = At::entry("servers", name);
        if server.credentials == Credentials::Token && config.auth.issuers.is_empty() {
            problems.error(
                &at.key("credentials"),
                "nobody could call: there is no issuer of tokens",
                "add one to `auth.issuers`",
            );
        }
        check_scopes(&server.required_scopes, &at.key("required_scopes"), problems);
        for (tool, settings) in &server.tools {
            check_scopes(&settings.required_scopes, &at.key("tools").key(tool).key("required_scopes"), problems);
        }
    }
}

fn servers(config: &Config) -> HashMap<Box<str>, Accepts> {
    let accepts = |server: &model::Server| Accepts {
        credentials: server.credentials,
        required: unique(server.required_scopes.iter()),
        known: unique(
            server.required_scopes.iter().chain(server.tools.values().flat_map(|tool| &tool.required_scopes)),
        ),
    };
    config.servers.iter().map(|(name, server)| (name.as_str().into(), accepts(server))).collect()
}

fn unique<'s>(texts: impl Iterator<Item = &'s String>) -> Vec<Box<str>> {
    let mut seen = HashSet::new();
    texts.filter(|text| seen.insert(text.as_str())).map(|text| text.as_str().into()).collect()
}
