//! Which keys and key headers does the configuration name?
//!
//! Every mistake is reported at its place: a digest that is none, a digest or certificate given to two keys, a header that
//! cannot carry a key because it means something else.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderName;
use http::header;

use crate::auth::Entry;
use crate::auth::Keys;
use crate::auth::Minter;
use crate::auth::Terms;
use crate::auth::certificate::Certificates;
use crate::auth::certificate::Mark;
use crate::auth::key;
use crate::auth::key::Beginnings;
use crate::auth::key::Digest;
use crate::auth::key::Form;
use crate::auth::presented::BUILT_IN;
use crate::clock;
use crate::config::model::ClientAuth;
use crate::config::model::Config;
use crate::config::model::Key;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::network::Networks;
use crate::policy::Minting;
use crate::principal::Principal;

/// Keys of one configuration.
pub const KEYS_MAX: usize = 100_000;
/// Headers named in `auth.key_headers`; each is looked for in every request.
pub const KEY_HEADERS_MAX: usize = 16;

/// Headers that mean something else, and so carry no key.
const RESERVED: [&str; 24] = [
    "accept",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "www-authenticate",
    "x-mcp-servers",
];
/// Beginnings of headers that mean something else.
const RESERVED_PREFIXES: [&str; 6] = ["accept-", "access-control-", "content-", "mcp-", "sec-", "x-forwarded-"];

impl Keys {
    /// The keys and key headers that `config` names. What is wrong with them is added to `problems`, and left out.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let key_headers = key_headers(&config.auth.key_headers, problems);
        let mut credential_headers = vec![header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];
        credential_headers.extend(key_headers.iter().cloned());
        let prefix = &config.auth.key_prefix;
        if !key::is_prefix(prefix) {
            let help = "use 2 to 24 letters, digits and `_`, a letter first and no `_` at the end";
            let at = At::root().key("auth").key("key_prefix");
            problems.error(&at, format!("keys cannot begin with `{prefix}`"), help);
        }
        let mut keys = Self {
            by_digest: HashMap::with_capacity(config.keys.len()),
            by_name: HashMap::with_capacity(config.keys.len()),
            certificates: Certificates::default(),
            has_imported: false,
            beginnings: Beginnings::of(prefix),
            key_headers,
            credential_headers,
            minters: HashMap::new(),
            nobody: [Arc::new(Entry::nobody())],
        };
        keys.add_all(config, problems);
        keys
    }

    fn add_all(&mut self, config: &Config, problems: &mut Problems) {
        let keys = At::root().key("keys");
        if config.keys.len() > KEYS_MAX {
            let help = "remove keys that are no longer used";
            problems.error(&keys, format!("{} keys, and at most {KEYS_MAX} are possible", config.keys.len()), help);
        }
        let mut owners = Owners { digests: HashMap::with_capacity(config.keys.len()), marks: HashMap::new() };
        for (name, key) in config.keys.iter().take(KEYS_MAX) {
            let at = At::entry("keys", name);
            let digest = self.digest(key, &at, problems);
            let mark = mark(key, config, &at, problems);
            // Where one of the two is wrong the other alone must not do.
            let is_lost = digest.is_none() && !key.digest.is_empty() || mark.is_none() && key.certificate.is_named();
            if is_lost || !owners.take(name, digest, mark.as_ref(), &at, problems) {
                continue;
            }
            let by_certificate = digest.is_none();
            let binding = digest.and_then(|(digest, _)| digest.first_chunk().copied());
            let principal = Arc::new(Principal { by_certificate, binding, ..principal(name, key, config) });
            let terms = terms(key, &at, problems);
            // What is wrong with it is reported where policy is compiled.
            if let Some(minting) = Minting::compile(key, &at, &mut Problems::new()) {
                let minter = Minter { principal: Arc::clone(&principal), terms: terms.clone(), minting };
                self.minters.insert(minter.minting.binding, minter);
            }
            let (digest, form) = digest.unwrap_or(([0; 32], Form::Own));
            let entry = Arc::new(Entry { digest, form, mark: mark.clone(), principal, terms });
            self.by_name.insert(name.as_str().into(), Arc::clone(&entry));
            match mark {
                Some(mark) if by_certificate => self.certificates.add(mark, entry),
                _ => {
                    self.has_imported |= form == Form::Any;
                    let Some(bucket) = key::bucket(&digest).filter(|_| !by_certificate) else { continue };
                    self.by_digest.entry(bucket).or_default().push(entry);
                }
            }
        }
    }

    fn digest(&self, key: &Key, at: &At, problems: &mut Problems) -> Option<(Digest, Form)> {
        let parsed = key::parse_digest(&key.digest);
        if parsed.is_some() {
            return parsed;
        }
        let help = "`portcullis keys create` prints the key, which is shown once, and the digest that belongs here";
        if key.digest.is_empty() {
            if !key.certificate.is_named() {
                problems.error(at, "the key has neither a `digest` nor a `certificate`", help);
            }
        } else if self.beginnings.begin(key.digest.trim_start()) || key::public_id(key.digest.trim()).is_some() {
            problems.error(&at.key("digest"), "this is a key, not its digest: take it for leaked", help);
        } else {
            problems.error(&at.key("digest"), "this is not a key's digest", help);
        }
        None
    }
}

/// Which keys have what: two with the same are one too many.
struct Owners<'c> {
    digests: HashMap<Digest, &'c str>,
    marks: HashMap<Mark, &'c str>,
}

impl<'c> Owners<'c> {
    /// Notes what a key is known by; `false`, with a problem reported, if another key is known by the same. Keys that are shown
    /// may be bound to one certificate together.
    fn take(
        &mut self,
        name: &'c str,
        digest: Option<(Digest, Form)>,
        mark: Option<&Mark>,
        at: &At,
        problems: &mut Problems,
    ) -> bool {
        if let Some((digest, _)) = digest {
            let Some(owner) = self.digests.insert(digest, name) else { return true };
            self.digests.insert(digest, owner);
            let help = "make a key for each caller with `portcullis keys create`";
            problems.error(&at.key("digest"), format!("keys `{owner}` and `{name}` have the same digest"), help);
            return false;
        }
        let Some(mark) = mark else { return false };
        let Some(owner) = self.marks.insert(mark.clone(), name) else { return true };
        let there = At::entry("keys", owner).key("certificate");
        self.marks.insert(mark.clone(), owner);
        let message = format!("keys `{owner}` and `{name}` have the same certificate");
        problems.error(&at.key("certificate"), message, format!("a certificate stands for one key: see `{there}`"));
        false
    }
}

/// The certificate that a key names, if it does. Without a listener that verifies certificates it would be anybody's.
fn mark(key: &Key, config: &Config, at: &At, problems: &mut Problems) -> Option<Mark> {
    if !key.certificate.is_named() {
        return None;
    }
    let at = at.key("certificate");
    if config.listen.tls.client_auth == ClientAuth::None {
        let help = "set `client_auth` and `client_ca_file` in `[listen.tls]`, or remove this";
        problems.error(&at, "nothing verifies certificates of clients", help);
    }
    Mark::compile(&key.certificate, &at, problems)
}

fn terms(key: &Key, at: &At, problems: &mut Problems) -> Terms {
    let expires = key.expires.as_deref().map(|text| {
        clock::seconds_of(text).unwrap_or_else(|| {
            let help = "write it as RFC 3339 does: `2027-01-31T00:00:00Z`";
            problems.error(&at.key("expires"), format!("`{text}` is not a time"), help);
            0
        })
    });
    let sources = key.allowed_sources.as_ref();
    let sources = sources.map(|list| Networks::compile(list, &at.key("allowed_sources"), problems));
    Terms { disabled: key.disabled, expires, sources }
}

/// The caller who holds a key.
pub fn principal(name: &str, key: &Key, config: &Config) -> Principal {
    let team = key.team.as_deref();
    let of_team = || config.teams.get(team?)?.organisation.as_deref();
    Principal {
        teams: key.team.as_deref().map(Into::into).into_iter().collect(),
        organisation: key.organisation.as_deref().or_else(of_team).map(Into::into),
        user: key.user.as_deref().map(Into::into),
        agent: key.agent.as_deref().map(Into::into),
        expires: key.expires.as_deref().and_then(clock::seconds_of),
        debug_headers: key.debug_headers,
        ..Principal::of_key(name)
    }
}

fn key_headers(names: &[String], problems: &mut Problems) -> Vec<HeaderName> {
    let list = At::root().key("auth").key("key_headers");
    if names.len() > KEY_HEADERS_MAX {
        let help = "every request is searched for each of them";
        problems.error(&list, format!("{} key headers, and at most {KEY_HEADERS_MAX} are possible", names.len()), help);
    }
    let mut headers = BUILT_IN.to_vec();
    let mut seen: HashSet<HeaderName> = headers.iter().cloned().collect();
    for (index, name) in names.iter().take(KEY_HEADERS_MAX).enumerate() {
        match key_header(name) {
            Ok(header) if seen.insert(header.clone()) => headers.push(header),
            Ok(_) => problems.warning(&list.index(index), format!("`{name}` carries a key already"), "remove it"),
            Err(help) => problems.error(&list.index(index), format!("`{name}` cannot carry a key"), help),
        }
    }
    headers
}

fn key_header(name: &str) -> Result<HeaderName, &'static str> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "write a header name such as `X-Team-Key`")?;
    if header == header::AUTHORIZATION {
        return Err("`Authorization: Bearer KEY` is always accepted");
    }
    let text = header.as_str();
    let reserved = RESERVED.contains(&text) || RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    if reserved { Err("the header has another meaning; choose one such as `X-Team-Key`") } else { Ok(header) }
}
