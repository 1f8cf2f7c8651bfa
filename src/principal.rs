//! Who calls?

use std::net::IpAddr;
use std::sync::Arc;

/// An authenticated caller, or the one caller of public servers who showed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// Stable identity: `key:NAME`, `oauth:ISSUER:SUBJECT`, or `public`. Sessions are bound to it, so that rotating a key does not cut them.
    pub id: Arc<str>,
    /// The workspace the caller is in; `None`: `default`. The names below say it too, as the configuration does.
    pub workspace: Option<Arc<str>>,
    /// Name of the key that was presented; `None` for the public caller.
    pub key: Option<Arc<str>>,
    /// Whether a client's certificate stands for the key, which itself was not shown.
    pub by_certificate: bool,
    /// The teams the caller belongs to; together they are one level of the cascade.
    pub teams: Vec<Arc<str>>,
    /// The organisation the caller belongs to, where it is not that of the teams.
    pub organisation: Option<Arc<str>>,
    /// The user the caller is, or acts for.
    pub user: Option<Arc<str>>,
    /// The agent the caller is.
    pub agent: Option<Arc<str>>,
    /// What the caller's token is good for, in the words of its issuer. A key has none and needs none.
    pub scopes: Vec<Arc<str>>,
    /// When the caller's key, token or certificate ends: seconds since 1970.
    pub expires: Option<u64>,
}

impl Principal {
    /// The caller who showed no credential; reaches public servers only.
    pub fn public() -> Self {
        Self { id: "public".into(), ..Self::default() }
    }

    /// The caller who holds the key of this qualified name.
    pub fn of_key(name: &str) -> Self {
        let workspace = name.split_once('/').map(|(workspace, _)| workspace.into());
        Self { id: format!("key:{name}").into(), workspace, key: Some(name.into()), ..Self::default() }
    }

    /// The caller whom an issuer's token speaks of.
    pub fn of_token(issuer: &str, subject: &str) -> Self {
        Self { id: format!("oauth:{issuer}:{subject}").into(), ..Self::default() }
    }

    /// What the caller showed, in the words of records: `key`, `certificate`, `token` or `none`.
    pub fn credential(&self) -> &'static str {
        match self.key {
            Some(_) if self.by_certificate => "certificate",
            Some(_) => "key",
            None if self.is_public() => "none",
            None => "token",
        }
    }

    /// Whether it is the caller who showed nothing.
    pub fn is_public(&self) -> bool {
        &*self.id == "public"
    }
}

/// Who asks, and what else rules may speak of: from where, by which way, when.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// The caller.
    pub principal: &'s Principal,
    /// The address the caller comes from, where it has one and it is known.
    pub source: Option<IpAddr>,
    /// The toolset by whose URL the caller came.
    pub toolset: Option<&'s str>,
    /// What the caller says it is.
    pub report: Report<'s>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// What a caller's program says it is. It may say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report<'s> {
    /// The `User-Agent` header.
    pub user_agent: Option<&'s [u8]>,
    /// `clientInfo.name`.
    pub client: Option<&'s str>,
}

impl<'s> Subject<'s> {
    /// A caller of whom nothing else is known, at the beginning of 1970.
    pub fn of(principal: &'s Principal) -> Self {
        Self { principal, source: None, toolset: None, report: Report::default(), now: 0 }
    }
}
