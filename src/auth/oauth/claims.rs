//! Whom does a token speak of, for whom is it, and until when?

use std::sync::Arc;

use crate::auth::oauth::Issuer;
use crate::auth::oauth::error::TokenError;
use crate::auth::oauth::token;
use crate::auth::oauth::token::Token;
use crate::config::workspaces;
use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::principal::Principal;

/// Bytes of a subject, a user, a team, an organisation, an agent or a scope.
const WORD_BYTES_MAX: usize = 256;
/// Teams of one caller.
pub const TEAMS_MAX: usize = 64;
/// Scopes of one token.
pub const SCOPES_MAX: usize = 128;
/// Audiences of one token.
const AUDIENCES_MAX: usize = 32;
/// The end of the year 9999: a time after it is a mistake, or a trick.
const SECONDS_MAX: u64 = 253_402_300_799;

/// When a token is good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Until when, leeway included: seconds since 1970.
    pub(super) until: u64,
}

/// Whether a token's time is now.
pub(super) fn times(token: &Token<'_>, leeway_seconds: u64, now: u64) -> Result<Times, TokenError> {
    let ends = seconds(token, "exp")?.ok_or(TokenError::Claims)?;
    let begins = seconds(token, "nbf")?;
    let issued = seconds(token, "iat")?;
    if begins.is_some_and(|begins| begins > ends) || issued.is_some_and(|issued| issued > ends) {
        return Err(TokenError::Claims);
    }
    let until = ends.saturating_add(leeway_seconds);
    if now >= until {
        return Err(TokenError::Expired);
    }
    let latest = now.saturating_add(leeway_seconds);
    if begins.max(issued).is_some_and(|begins| begins > latest) {
        return Err(TokenError::Early);
    }
    Ok(Times { until })
}

/// A point in time: a whole number, as every issuer writes it. Texts, fractions and signs are read differently by different readers.
fn seconds(token: &Token<'_>, name: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = token.claim(name) else { return Ok(None) };
    let text = Some(value.raw_text()).filter(|_| value.kind() == Kind::Number);
    let plain = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    plain.filter(|seconds| *seconds <= SECONDS_MAX).map(Some).ok_or(TokenError::Claims)
}

/// For whom a token is: one text, or a list of them.
pub(super) fn audiences<'t>(token: &'t Token<'_>) -> Result<Vec<&'t str>, TokenError> {
    let value = token.claim("aud").ok_or(TokenError::Audience)?;
    let found = texts(value, AUDIENCES_MAX)?;
    if found.is_empty() { Err(TokenError::Audience) } else { Ok(found) }
}

/// The caller whom a token speaks of.
pub(super) fn principal(token: &Token<'_>, issuer: &Issuer, times: Times) -> Result<Principal, TokenError> {
    // Bound to a key or certificate of its holder, which is not asked for here: good for nobody who merely has it.
    if token.claim("cnf").is_some() {
        return Err(TokenError::Claims);
    }
    let subject = token.claim("sub").and_then(Value::text).ok_or(TokenError::Claims)?;
    let subject = word(subject)?;
    let root = token.claims.root();
    let named = |name: &str| Ok(workspaces::qualified(issuer.workspace.as_deref(), word(name)?).into());
    let one = |claim: &str| -> Result<Option<Arc<str>>, TokenError> {
        let Some(value) = token::find(root, claim) else { return Ok(None) };
        value.text().ok_or(TokenError::Claims).and_then(named).map(Some)
    };
    let optional = |claim: &Option<String>| claim.as_deref().map_or(Ok(None), one);
    let teams = match issuer.claims.teams.as_deref().and_then(|claim| token::find(root, claim)) {
        Some(value) => texts(value, TEAMS_MAX)?.into_iter().map(named).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(Principal {
        workspace: issuer.workspace.clone(),
        user: one(&issuer.claims.user)?,
        organisation: optional(&issuer.claims.organisation)?,
        agent: optional(&issuer.claims.agent)?,
        teams,
        scopes: scopes(token::find(root, &issuer.claims.scopes))?,
        expires: Some(times.until),
        ..Principal::of_token(&issuer.name, subject)
    })
}

/// The scopes of a claim: a text with spaces between them, or a list.
fn scopes(value: Option<Value<'_>>) -> Result<Vec<Arc<str>>, TokenError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let listed = match value.text() {
        Some(text) => text.split(' ').filter(|scope| !scope.is_empty()).collect(),
        None => texts(value, SCOPES_MAX)?,
    };
    if listed.len() > SCOPES_MAX {
        return Err(TokenError::Claims);
    }
    listed.into_iter().map(|scope| Ok(word(scope)?.into())).collect()
}

/// A text, or a list of texts.
fn texts<'d>(value: Value<'d>, count_max: usize) -> Result<Vec<&'d str>, TokenError> {
    if let Some(text) = value.text() {
        return Ok(vec![text]);
    }
    if value.kind() != Kind::Array || value.count() > count_max {
        return Err(TokenError::Claims);
    }
    value.items().map(|item| item.text().ok_or(TokenError::Claims)).collect()
}

/// A text that can stand in a record and in a rule.
fn word(text: &str) -> Result<&str, TokenError> {
    let fits = !text.is_empty() && text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(TokenError::Claims) }
}
