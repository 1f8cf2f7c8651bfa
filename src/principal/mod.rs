//! Who calls?

mod minted;

use std::net::IpAddr;
use std::sync::Arc;

pub use crate::principal::minted::BINDING_BYTES;
pub use crate::principal::minted::Binding;
pub use crate::principal::minted::ChildId;
pub use crate::principal::minted::ID_BYTES;
pub use crate::principal::minted::Left;
pub use crate::principal::minted::LeftTools;
pub use crate::principal::minted::Link;
pub use crate::principal::minted::Minted;
pub use crate::principal::minted::id_of;
pub use crate::principal::minted::id_text;

/// An authenticated caller, or the one caller of public servers who showed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// Stable identity: `key:NAME`, `key:NAME>AGENT#ID` for a key that it minted, `oauth:ISSUER:SUBJECT`, or `public`. Sessions are bound to
    /// it, so that rotating a key does not cut them.
    pub id: Arc<str>,
    /// The workspace the caller is in; `None`: `default`. The names below say it too, as the configuration does.
    pub workspace: Option<Arc<str>>,
    /// Name of the key that was presented, or that what was presented stands on; `None` for the public caller.
    pub key: Option<Arc<str>>,
    /// Whether a client's certificate stands for the key, which itself was not shown.
    pub by_certificate: bool,
    /// What stands for the digest of the key that was shown: with another digest, another key has the name.
    pub binding: Option<Binding>,
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
    /// What the caller's key is, if another key minted it.
    pub minted: Option<Arc<Minted>>,
    /// Whether the caller may ask what it was taken for and what decided.
    pub debug_headers: bool,
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

    /// The caller who holds a key that another one minted. It belongs to whom that one belongs to; who it is itself is the last link's
    /// agent.
    pub fn of_child(minted: Minted) -> Self {
        let parent = Arc::clone(&minted.parent);
        let name = minted.last().map(Link::name).unwrap_or_default();
        Self {
            id: format!("{}>{name}", parent.id).into(),
            workspace: parent.workspace.clone(),
            key: parent.key.clone(),
            by_certificate: false,
            binding: None,
            teams: parent.teams.clone(),
            organisation: parent.organisation.clone(),
            user: parent.user.clone(),
            agent: minted.last().map(|link| Arc::clone(&link.agent)),
            scopes: Vec::new(),
            expires: Some(minted.expires),
            minted: Some(Arc::new(minted)),
            debug_headers: false,
        }
    }

    /// Under whose id use counts: a child uses what is its parent's.
    pub fn counted(&self) -> &Arc<str> {
        self.minted.as_ref().map_or(&self.id, |minted| &minted.parent.id)
    }

    /// Every agent that has a part in what the caller does: itself, and whoever invoked it.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<str>> {
        let minted = self.minted.as_deref().into_iter();
        let before =
            minted.flat_map(|minted| minted.parent.agent.iter().chain(minted.links.iter().map(|link| &link.agent)));
        before.chain(self.agent.iter().filter(|_| self.minted.is_none()))
    }

    /// What the caller showed, in the words of records: `key`, `child_key`, `certificate`, `token` or `none`.
    pub fn credential(&self) -> &'static str {
        match self.key {
            Some(_) if self.minted.is_some() => "child_key",
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
