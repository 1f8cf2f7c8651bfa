//! What can an operator write about those in front of the gateway, and about the way to it?
//!
//! A part of the [model](crate::config::model), under its rules.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// `[listen.tls]`: TLS on the data listener. Reloaded with the configuration; connections that are open go on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenTls {
    /// Certificates with their keys. A client is shown the one for the name it asks for, taken from the certificate itself, or
    /// else the first. Absent: no TLS.
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// PEM file with the certificates of those who vouch for clients. A relative path starts at the file it stands in.
    pub client_ca_file: Option<String>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// From the first byte of a connection to the end of its handshake.
    pub handshake_timeout_ms: u64,
    /// Whether clients may speak HTTP/2. Without TLS they never may.
    pub http2: bool,
}

impl Default for ListenTls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            client_ca_file: None,
            client_auth: ClientAuth::default(),
            handshake_timeout_ms: 10_000,
            http2: true,
        }
    }
}

/// One certificate of the data listener, and its key. Relative paths start at the file they stand in.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file: the certificate first, then those of its issuers.
    pub cert_file: String,
    /// PEM file with the key, not encrypted.
    pub key_file: String,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// They are not.
    #[default]
    None,
    /// They may show one; one that is shown must be vouched for.
    Request,
    /// Only clients with a certificate that is vouched for are served.
    Require,
}

/// The header in which trusted proxies say whom they speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` beside it.
    #[default]
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded`, as RFC 7239 has it.
    #[serde(rename = "forwarded")]
    Forwarded,
}
