//! What can an operator write about how a server is reached?
//!
//! Parts of a server's table, as plain as the rest of the [`model`](crate::config::model), which names them all.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::limits::ToolLimits;
use crate::config::secret::Secret;

/// How the endpoint is chosen for what belongs to no session. Weights count in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balancing {
    /// The one with the fewest pending calls for its weight: of all, or of two with more than 8 endpoints.
    #[default]
    LeastPending,
    /// One after the other, as often as their weights say.
    RoundRobin,
    /// Always the same one for a caller, as long as it can be used.
    Ketama,
}

/// `[servers.NAME.tls]`: TLS to a server, where it is not the usual one. Files are PEM, and read again at a reload; a relative
/// path starts at the file it stands in.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Certificates of the authorities that are trusted instead of the system's.
    pub ca_file: Option<String>,
    /// The certificate that the gateway presents, and those between it and its authority.
    pub client_cert_file: Option<String>,
    /// The key of that certificate.
    pub client_key_file: Option<String>,
    /// The name that the server's certificate is for, where it is not the URL's host.
    pub server_name: Option<String>,
    /// What stands in `ca_file`.
    #[serde(skip)]
    pub ca: Option<String>,
    /// What stands in `client_cert_file`.
    #[serde(skip)]
    pub client_cert: Option<String>,
    /// What stands in `client_key_file`.
    #[serde(skip)]
    pub client_key: Option<Secret>,
}

/// `[servers.NAME.tools.NAME]`: times and limits of one tool, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTool {
    /// From sending to the answer's head, or to the end of a JSON answer; and from one message to the next on a stream that
    /// answers. Default: the server's `timeout_ms` and `sse_read_timeout_ms`.
    pub timeout_ms: Option<u64>,
    /// From sending to the end of the answer, however much comes in between. Default: the server's.
    pub timeout_max_ms: Option<u64>,
    /// What all callers may use of the tool together.
    pub limits: ToolLimits,
    /// Scopes that a caller's token must have for this tool, beside those of the server. Callers with a key need none.
    pub required_scopes: Vec<String>,
}

/// `[servers.NAME.breaker]`: when an endpoint that fails is left alone. Failures are connections that cannot be opened or
/// break, answers that are late, and statuses 500, 502, 503 and 504 without a JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Whether endpoints are ever left alone.
    pub enabled: bool,
    /// Failures in a row after which an endpoint is left alone: calls go to others, or are refused with 503.
    pub failures_max: u32,
    /// For how long, the first time. Then one call tries it; if that fails, the time doubles.
    pub open_ms: u64,
    /// For how long at most.
    pub open_ms_max: u64,
    /// Percentage of the server's endpoints that are left alone at once; never all of several.
    pub ejected_percent_max: u8,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { enabled: true, failures_max: 5, open_ms: 1_000, open_ms_max: 60_000, ejected_percent_max: 50 }
    }
}
