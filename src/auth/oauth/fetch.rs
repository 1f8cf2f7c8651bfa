//! Where are an issuer's keys, and what do they say?
//!
//! Either where the operator says, or where the issuer's own metadata does, which must name the very issuer. Whatever a
//! document names is asked under the rules of `net`.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::auth::oauth::jwk::KeySet;
use crate::auth::oauth::jwk::KeySetError;
use crate::auth::oauth::token;
use crate::mcp::document::Document;
use crate::mcp::document::Value;
use crate::net::Client;
use crate::net::NetError;
use crate::net::Rules;
use crate::net::Url;
use crate::net::UrlFlaw;

/// Where an issuer's keys are, and how they may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The issuer, as its metadata must call it.
    pub issuer: Box<str>,
    /// Where the keys are, if the operator says so.
    pub jwks: Option<Url>,
    /// Where metadata may be, in the order in which it is looked for. Empty: it is not looked for.
    pub metadata: Vec<Url>,
    /// How they may be asked.
    pub rules: Rules,
}

/// What was found.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// The keys.
    pub keys: KeySet,
    /// The metadata as it came, if it was looked for.
    pub metadata: Option<Bytes>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The keys could not be fetched.
    #[error("the keys cannot be fetched: {0}")]
    Keys(#[source] NetError),
    /// What was fetched is no set of keys.
    #[error("{0}")]
    KeySet(#[from] KeySetError),
    /// No metadata at any of its places.
    #[error("there is no metadata: {0}")]
    Metadata(#[source] NetError),
    /// Metadata that is another issuer's, or none.
    #[error("the metadata is not JSON, or not of this issuer")]
    Foreign,
    /// Metadata without keys.
    #[error("the metadata does not say where the keys are: {0}")]
    JwksUri(#[source] UrlFlaw),
}

/// Something being fetched.
pub(super) type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Found, FetchError>> + Send + 'a>>;

/// Fetches keys. Tests put something else in the network's place.
pub(super) trait Fetch: Send + Sync {
    /// The keys at a place.
    fn keys<'a>(&'a self, place: &'a Place) -> Fetching<'a>;
}

impl Fetch for Client {
    fn keys<'a>(&'a self, place: &'a Place) -> Fetching<'a> {
        Box::pin(async move {
            let metadata = if place.metadata.is_empty() { None } else { Some(metadata(self, place).await) };
            let (jwks, metadata) = match (&place.jwks, metadata) {
                (Some(jwks), metadata) => (jwks.clone(), metadata.and_then(Result::ok).map(|(_, text)| text)),
                (None, Some(found)) => found.map(|(jwks, text)| (jwks, Some(text)))?,
                (None, None) => return Err(FetchError::Foreign),
            };
            let text = self.get(&jwks, "application/jwk-set+json, application/json", &place.rules).await;
            Ok(Found { keys: KeySet::parse(text.map_err(FetchError::Keys)?)?, metadata })
        })
    }
}

/// The issuer's metadata, and where it says the keys are.
async fn metadata(client: &Client, place: &Place) -> Result<(Url, Bytes), FetchError> {
    let mut last = FetchError::Metadata(NetError::Status(404));
    for url in &place.metadata {
        match client.get(url, "application/json", &place.rules).await {
            // A front that answers everything is no reason not to look at the next place.
            Ok(text) => match read_metadata(text.clone(), &place.issuer) {
                Ok(jwks) => return Ok((jwks, text)),
                Err(error) => last = error,
            },
            Err(error) => last = FetchError::Metadata(error),
        }
    }
    Err(last)
}

/// Where metadata says the keys are. It must be the metadata of `issuer`, letter for letter (RFC 8414, section 3.3).
pub(super) fn read_metadata(text: Bytes, issuer: &str) -> Result<Url, FetchError> {
    let document = Document::read(text, &token::limits()).map_err(|_| FetchError::Foreign)?;
    let root = document.root();
    if root.get("issuer").and_then(Value::text) != Some(issuer) {
        return Err(FetchError::Foreign);
    }
    let jwks = root.get("jwks_uri").and_then(Value::text).unwrap_or_default();
    Url::parse(jwks).map_err(FetchError::JwksUri)
}

/// Where the metadata of `issuer` may be, in the order of the MCP specification.
pub(super) fn metadata_places(issuer: &str) -> Vec<String> {
    let Some((scheme, rest)) = issuer.split_once("://") else { return Vec::new() };
    let (host, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    let inserted = |name: &str| format!("{scheme}://{host}/.well-known/{name}{path}");
    let mut places = vec![inserted("oauth-authorization-server"), inserted("openid-configuration")];
    if !path.is_empty() {
        places.push(format!("{scheme}://{host}{path}/.well-known/openid-configuration"));
    }
    places
}
