//! Whose token is this?
//!
//! Tokens of one configuration: what was verified under another one is verified again. One that was verified is remembered by its
//! digest until it ends, or until its issuer has other keys; a token that was refused is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use ring::digest;
use tokio::runtime::Handle;

use crate::auth::oauth::Issuer;
use crate::auth::oauth::Oauth;
use crate::auth::oauth::claims;
use crate::auth::oauth::error::TokenError;
use crate::auth::oauth::source::Source;
use crate::auth::oauth::token::TOKEN_BYTES_MAX;
use crate::auth::oauth::token::Token;
use crate::mcp::document::Value;
use crate::principal::Principal;

/// Tokens that are remembered at once.
pub const TOKENS_MAX: usize = 16_384;
/// Parts of the table, so that threads seldom wait for each other.
const SHARDS: usize = 16;

type Digest = [u8; 32];
type Shard = Mutex<HashMap<Digest, Verified>>;

/// Tokens, and the keys by which they are verified.
#[derive(Default)]
pub struct Tokens {
    sources: Vec<Arc<Source>>,
    keeper: Option<Handle>,
    shards: [Shard; SHARDS],
}

/// A token that was verified.
#[derive(Clone)]
struct Verified {
    principal: Arc<Principal>,
    reach: Reach,
    until: u64,
    issuer: usize,
    generation: u64,
}

/// Where a token may be shown.
#[derive(Clone)]
enum Reach {
    /// Anywhere at this gateway.
    Gateway,
    /// At these servers.
    Servers(Arc<[Arc<str>]>),
}

impl Reach {
    /// Whether it may be shown there, by a caller in this workspace.
    fn covers(&self, shown: &Shown<'_>, workspace: Option<&str>) -> bool {
        let Self::Servers(servers) = self else { return true };
        let is_one = |server: &str| servers.iter().any(|one| **one == *server);
        match workspace {
            None => is_one(shown.server),
            workspace => (shown.leads_to)(shown.path, workspace).is_some_and(|server| is_one(&server)),
        }
    }
}

/// The server that a path of ours leads to in a workspace, `None` for `default`.
pub type LeadsTo<'s> = dyn Fn(&str, Option<&str>) -> Option<Arc<str>> + Sync + 's;

/// What a token is shown for.
pub struct Shown<'s> {
    /// The issuers that are trusted.
    pub oauth: &'s Oauth,
    /// The path that is called.
    pub path: &'s str,
    /// The server that it leads to in the workspace `default`.
    pub server: &'s str,
    /// The server that a path of ours leads to in a workspace.
    pub leads_to: &'s LeadsTo<'s>,
    /// Seconds since 1970.
    pub now: u64,
    /// The same moment.
    pub instant: Instant,
}

impl Tokens {
    pub(super) fn new(sources: Vec<Arc<Source>>, keeper: Handle) -> Self {
        Self { sources, keeper: Some(keeper), shards: Default::default() }
    }

    /// The caller whose token this is, if it was verified before and would be now; otherwise nothing is said.
    pub fn recall(&self, token: &str, shown: &Shown<'_>) -> Option<Result<Arc<Principal>, TokenError>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest = digest_of(token);
        let shard = self.shard(&digest)?.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shard.get(&digest)?;
        let source = self.sources.get(known.issuer)?;
        if shown.now >= known.until || !source.is_current(known.generation, shown.instant) {
            return None;
        }
        Some(known.at(shown))
    }

    /// The caller whose token this is. May wait for the issuer's keys, once.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub async fn verify(&self, text: &str, shown: &Shown<'_>) -> Result<Arc<Principal>, TokenError> {
        let token = Token::read(text)?;
        let issuer = token.claim("iss").and_then(Value::text).ok_or(TokenError::Issuer)?;
        let (at, issuer) = shown.oauth.issuer(issuer).ok_or(TokenError::Issuer)?;
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let source = self.sources.get(at).ok_or(TokenError::KeysUnavailable)?;
        let generation = match self.signed_by(&token, source, shown.instant) {
            Err(TokenError::KeyUnknown | TokenError::KeysUnavailable) => {
                let keeper = self.keeper.as_ref().ok_or(TokenError::KeysUnavailable)?;
                source.ask(keeper, shown.instant).await;
                self.signed_by(&token, source, shown.instant)?
            }
            signed => signed?,
        };
        let times = claims::times(&token, issuer.leeway_seconds, shown.now)?;
        let reach = reach(&token, issuer, shown)?;
        let principal = Arc::new(claims::principal(&token, issuer, times)?);
        let verified = Verified { principal, reach, until: times.until, issuer: at, generation };
        let caller = verified.at(shown);
        self.remember(digest_of(text), verified, shown.now);
        caller
    }

    /// Whether one of the issuer's keys signed the token; which generation of them it was.
    fn signed_by(&self, token: &Token<'_>, source: &Source, now: Instant) -> Result<u64, TokenError> {
        let held = source.held(now).ok_or(TokenError::KeysUnavailable)?;
        let key_id = token.key_id.as_deref();
        let Some(key) = held.keys.find(key_id, token.algorithm) else {
            // A key that is known, and for something else, will not become another by asking.
            return Err(if held.keys.has(key_id) { TokenError::Algorithm } else { TokenError::KeyUnknown });
        };
        let is_signed = key.verifies(token.algorithm, token.signed, &token.signature);
        if is_signed { Ok(held.generation) } else { Err(TokenError::Signature) }
    }

    fn remember(&self, digest: Digest, verified: Verified, now: u64) {
        let Some(shard) = self.shard(&digest) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= TOKENS_MAX / SHARDS {
            shard.retain(|_, known| now < known.until);
        }
        // Still full: one makes room, and is verified again when it comes back.
        if shard.len() >= TOKENS_MAX / SHARDS
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        shard.insert(digest, verified);
    }

    /// Tokens remembered now.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// The metadata of the issuer at this place in the configuration's order, as it gave it.
    pub fn metadata(&self, issuer: usize) -> Option<bytes::Bytes> {
        self.sources.get(issuer)?.held(Instant::now())?.metadata.clone()
    }

    fn shard(&self, digest: &Digest) -> Option<&Shard> {
        self.shards.get(usize::from(digest.first().copied()?) % SHARDS)
    }
}

impl Verified {
    fn at(&self, shown: &Shown<'_>) -> Result<Arc<Principal>, TokenError> {
        let is_covered = self.reach.covers(shown, self.principal.workspace.as_deref());
        if is_covered { Ok(Arc::clone(&self.principal)) } else { Err(TokenError::Audience) }
    }
}

/// Where a token may be shown, by its audiences.
fn reach(token: &Token<'_>, issuer: &Issuer, shown: &Shown<'_>) -> Result<Reach, TokenError> {
    let audiences = claims::audiences(token)?;
    if let Some(accepted) = &issuer.audiences {
        let is_ours = audiences.iter().any(|audience| accepted.iter().any(|one| one == audience));
        return if is_ours { Ok(Reach::Gateway) } else { Err(TokenError::Audience) };
    }
    let mut servers = Vec::new();
    for audience in audiences {
        match shown.oauth.path_of(audience) {
            Some("" | "/") => return Ok(Reach::Gateway),
            Some(path) => servers.extend((shown.leads_to)(path, issuer.workspace.as_deref())),
            None => {}
        }
    }
    if servers.is_empty() { Err(TokenError::Audience) } else { Ok(Reach::Servers(servers.into())) }
}

fn digest_of(token: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().unwrap_or([0; 32])
}
