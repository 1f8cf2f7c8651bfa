//! Whom do other issuers vouch for?
//!
//! The gateway is a resource server (OAuth 2.1): it takes tokens that issuers of the configuration signed for it, and gives none.
//! [`Oauth`] is compiled from the configuration; [`Issuers`] has their keys and survives a reload; [`Tokens`] belong to both.

mod claims;
mod compile;
mod error;
mod fetch;
mod issuers;
mod jwk;
mod metadata;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::Algorithm;
use crate::config::model::Claims;
use crate::config::model::Credentials;
use crate::principal::Principal;

use crate::auth::oauth::fetch::Place;
use crate::auth::oauth::source::Upkeep;

pub use crate::auth::oauth::claims::SCOPES_MAX;
pub use crate::auth::oauth::claims::TEAMS_MAX;
pub use crate::auth::oauth::compile::ISSUERS_MAX;
pub use crate::auth::oauth::error::TokenError;
pub use crate::auth::oauth::issuers::Issuers;
pub use crate::auth::oauth::jwk::KEYS_MAX as ISSUER_KEYS_MAX;
pub use crate::auth::oauth::metadata::RESOURCE_PATH;
pub use crate::auth::oauth::metadata::SERVER_PATH;
pub use crate::auth::oauth::source::Figures;
pub use crate::auth::oauth::token::TOKEN_BYTES_MAX;
pub use crate::auth::oauth::tokens::LeadsTo;
pub use crate::auth::oauth::tokens::Shown;
pub use crate::auth::oauth::tokens::TOKENS_MAX;
pub use crate::auth::oauth::tokens::Tokens;

/// The issuers of one configuration, and where their tokens are taken.
#[derive(Default)]
pub struct Oauth {
    issuers: Vec<Issuer>,
    /// The URL clients know this gateway by, without a `/` at its end.
    public_url: Box<str>,
    servers: HashMap<Box<str>, Accepts>,
    /// Whether tokens lead into other workspaces than `default`: then, before it is known who calls, no server is told from another.
    leads_elsewhere: bool,
    /// Scopes that metadata names for every server.
    scopes: Vec<Box<str>>,
    /// The issuer whose metadata is repeated.
    metadata_of: Option<usize>,
}

/// An issuer.
pub struct Issuer {
    name: Arc<str>,
    /// Where its callers are; `None`: in `default`.
    workspace: Option<Arc<str>>,
    url: Box<str>,
    algorithms: Vec<Algorithm>,
    audiences: Option<Vec<String>>,
    leeway_seconds: u64,
    claims: Claims,
    place: Place,
    upkeep: Upkeep,
}

/// What a server takes.
#[derive(Default)]
struct Accepts {
    credentials: Credentials,
    /// Scopes for everything on the server.
    required: Vec<Box<str>>,
    /// Those, and those of single tools.
    known: Vec<Box<str>>,
}

impl Oauth {
    /// All issuers, in the order of their names.
    fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// The issuer of this URL, letter for letter, and its place in the order.
    fn issuer(&self, url: &str) -> Option<(usize, &Issuer)> {
        self.issuers.iter().enumerate().find(|(_, issuer)| *issuer.url == *url)
    }

    /// Whether tokens are taken anywhere.
    pub fn is_on(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Whether tokens are taken at a server; of one that does not exist, what is usual.
    pub fn takes_tokens(&self, server: &str) -> bool {
        self.is_on() && self.servers.get(server).is_none_or(|accepts| accepts.credentials != Credentials::Key)
    }

    /// Whether tokens may be taken where a path names what in `default` means `server`, before it is known who calls. Names alone
    /// decide nothing where other workspaces have names of their own.
    pub fn may_take_tokens(&self, server: &str) -> bool {
        self.takes_tokens(server) || self.leads_elsewhere
    }

    /// Whether keys are taken at a server.
    fn takes_keys(&self, server: &str) -> bool {
        self.servers.get(server).is_none_or(|accepts| accepts.credentials != Credentials::Token)
    }

    /// Whether what a caller showed is taken at a server.
    pub fn takes(&self, principal: &Principal, server: &str) -> bool {
        match principal.key {
            Some(_) => self.takes_keys(server),
            None => principal.is_public() || self.takes_tokens(server),
        }
    }

    /// The path within the gateway that a URL of ours has; `None` if it is not ours.
    fn path_of<'u>(&self, url: &'u str) -> Option<&'u str> {
        let path = url.strip_prefix(&*self.public_url)?;
        (path.is_empty() || path.starts_with('/')).then_some(path)
    }
}
