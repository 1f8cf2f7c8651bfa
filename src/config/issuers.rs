//! What can an operator write about who else may vouch for callers?
//!
//! A part of the [model](crate::config::model), under its rules.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::workspaces::DEFAULT;

/// How keys begin where nothing else is configured.
pub const KEY_PREFIX: &str = "ptc";

/// `[auth]`: how callers present themselves.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Header names that may carry an API key, beside `Authorization: Bearer`, `X-API-Key` and `API-Key`.
    pub key_headers: Vec<String>,
    /// How new keys begin, before a `_`: 2 to 24 letters, digits and `_`, a letter first. Keys with another prefix stay valid.
    pub key_prefix: String,
    /// Issuers of tokens (OAuth 2.1) that are accepted, by name.
    pub issuers: BTreeMap<String, Issuer>,
    /// The issuer whose metadata is repeated at `/.well-known/oauth-authorization-server`, for clients that look nowhere else.
    pub metadata_of: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        let (key_headers, issuers) = (Vec::new(), BTreeMap::new());
        Self { key_headers, key_prefix: KEY_PREFIX.into(), issuers, metadata_of: None }
    }
}

/// `[auth.issuers.NAME]`: an issuer of tokens. Its name becomes part of its callers' ids, and so must not change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Issuer {
    /// The issuer's URL, letter for letter as `iss` in its tokens: `"https://login.example.com/realms/acme"`.
    pub issuer: String,
    /// Where its keys are. Absent: its metadata says so (RFC 8414, OpenID Connect Discovery).
    pub jwks_url: Option<String>,
    /// Algorithms of signatures that are accepted, each with keys made for it alone.
    pub algorithms: Vec<Algorithm>,
    /// What `aud` must name, one of them. Absent: the URL of the server that is called, or `listen.public_url`.
    pub audiences: Option<Vec<String>>,
    /// How far the issuer's clock may be from ours.
    pub leeway_seconds: u64,
    /// The workspace that its callers are in: their users, teams, organisations and agents are those of this workspace.
    pub workspace: String,
    /// Which claims say what.
    pub claims: Claims,
    /// Scopes that metadata names, for clients to ask for. Those that servers require are named anyway.
    pub scopes_supported: Vec<String>,
    /// Networks of one's own that the issuer may be in: `10.0.0.0/8`, single addresses. Others than the Internet's addresses are
    /// not connected to.
    pub allowed_networks: Vec<String>,
    /// Whether the issuer may be asked without TLS. For tests: who can change an answer on its way can then be anybody.
    pub allow_http: bool,
    /// The proxy by which the issuer is asked: `"http://proxy.example:3128"`. It resolves names itself.
    pub proxy: Option<String>,
    /// From one look at the keys to the next. A token with an unknown key brings one about at once.
    pub refresh_ms: u64,
    /// For how long keys are used that cannot be looked at again.
    pub stale_ms_max: u64,
}

impl Issuer {
    /// The workspace that its callers are in; `None`: `default`.
    pub fn workspace(&self) -> Option<&str> {
        Some(self.workspace.as_str()).filter(|workspace| *workspace != DEFAULT)
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            jwks_url: None,
            algorithms: Algorithm::ALL.to_vec(),
            audiences: None,
            leeway_seconds: 60,
            workspace: DEFAULT.into(),
            claims: Claims::default(),
            scopes_supported: Vec::new(),
            allowed_networks: Vec::new(),
            allow_http: false,
            proxy: None,
            refresh_ms: 300_000,
            stale_ms_max: 86_400_000,
        }
    }
}

/// `[auth.issuers.NAME.claims]`: which claims of a token say what. A name, or a path such as `/realm_access/roles`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// The user.
    pub user: String,
    /// The teams: a text, or a list of them.
    pub teams: Option<String>,
    /// The organisation.
    pub organisation: Option<String>,
    /// The agent.
    pub agent: Option<String>,
    /// The scopes: a text with spaces between them, or a list.
    pub scopes: String,
}

impl Default for Claims {
    fn default() -> Self {
        Self { user: "sub".into(), teams: None, organisation: None, agent: None, scopes: "scope".into() }
    }
}

/// An algorithm of signatures. Only those whose keys are public: with the others, who can verify can also sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// RSA (PKCS#1 v1.5) with SHA-256.
    RS256,
    /// RSA (PKCS#1 v1.5) with SHA-384.
    RS384,
    /// RSA (PKCS#1 v1.5) with SHA-512.
    RS512,
    /// RSA (PSS) with SHA-256.
    PS256,
    /// RSA (PSS) with SHA-384.
    PS384,
    /// RSA (PSS) with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Its name in tokens and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// What callers of a server may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// A key, or a token of one of `auth.issuers`.
    #[default]
    Any,
    /// A key. Clients are not told of issuers.
    Key,
    /// A token.
    Token,
}
