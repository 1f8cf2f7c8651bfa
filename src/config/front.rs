//! What can an operator write about the listeners, those in front of them, and the way to them?
//!
//! A part of the [model](crate::config::model), under its rules.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// `[listen]`: where the gateway listens, and the limits of its edge.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Address of the data listener, where agents connect: `"127.0.0.1:8080"` or `"unix:/path"`. Changing it needs a restart.
    pub data: String,
    /// Address of the admin listener: `"127.0.0.1:9090"` (loopback only) or `"unix:/path"`. Changing it needs a restart.
    pub admin: String,
    /// The URL clients know this gateway by, without a path: `"https://mcp.example.com"`. May hold references such as
    /// `${env:NAME}`.
    pub public_url: Option<String>,
    /// Hosts accepted in the `Host` header, with or without a port. Default: loopback names on a loopback listener, else the host of
    /// `public_url`, else any host with a warning.
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins accepted from browsers. Default: the gateway's own. A request without `Origin` passes, `null` never does.
    pub allowed_origins: Option<Vec<String>>,
    /// TLS on the data listener. Without certificates it speaks plain HTTP.
    pub tls: ListenTls,
    /// Networks of load balancers whose connections begin with a header of the PROXY protocol, version 1 or 2: from these it
    /// is required, from others it is not read. `["10.0.0.0/8"]`.
    pub proxy_protocol_from: Vec<String>,
    /// Networks of proxies that are believed whom they speak for (`forwarded_header`) and how the client speaks to them. They
    /// must set the header themselves, or add to it. `["10.0.0.0/8"]`.
    pub trusted_proxies: Vec<String>,
    /// The header in which trusted proxies say whom they speak for. The other one is not looked at.
    pub forwarded_header: ForwardedHeader,
    /// Worker threads of the data listener. Default: one per core. Changing it needs a restart.
    pub threads: Option<usize>,
    /// Open connections at once. Default: what the descriptor limit allows, at most 20,000. Changing it needs a restart.
    pub connections_max: Option<usize>,
    /// Open connections at once from one IPv4 address or one IPv6 /64; further ones get 429. Default: three quarters of
    /// `connections_max`. Listeners on Unix sockets have no such limit.
    pub connections_per_address_max: Option<usize>,
    /// New connections a second from one IPv4 address or one IPv6 /64, and as many at once; further ones get 429.
    pub accepts_per_address_max: u32,
    /// Requests on one connection; the answer to the last one closes it.
    pub requests_per_connection_max: u64,
    /// Event streams open at once; while there are as many, requests are refused with 503, as any may be answered by a
    /// stream. Default: what the descriptor limit allows, at most 10,000.
    pub streams_max: Option<usize>,
    /// From a request's first byte to the end of its header block.
    pub header_timeout_ms: u64,
    /// Header lines of one request.
    pub header_count_max: usize,
    /// Bytes of one request's header block, request line included.
    pub header_block_bytes_max: usize,
    /// Bytes of one header line, and of the request line.
    pub header_line_bytes_max: usize,
    /// Bytes of the request target: path and query.
    pub target_bytes_max: usize,
    /// From the end of the header block to the end of the body.
    pub body_timeout_ms: u64,
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// Bytes a second that a request body must bring on average, the first 5 seconds left out.
    pub body_bytes_per_second_min: u32,
    /// Bytes held for clients and servers at once: heads and bodies that come in, requests under way, answers, and what waits
    /// for a reader. Requests are refused with 503 from three quarters of it on, new sessions, lists and streams from half.
    pub buffered_bytes_max: usize,
    /// For how long work may wait for a worker thread. While it waits longer, requests are refused with 503; new sessions,
    /// lists and streams from half of it on.
    pub queue_delay_ms_max: u64,
    /// How long an idle connection is kept for its next request.
    pub keepalive_timeout_ms: u64,
    /// How long a client may take nothing of what is written to it.
    pub write_timeout_ms: u64,
    /// Bytes a second that a client must take on average of an answer that has to wait for it, the first `write_timeout_ms`
    /// left out.
    pub answer_bytes_per_second_min: u32,
    /// How long calls in flight may take to finish after SIGTERM, beside the 2 seconds in which the gateway announces its end
    /// and still accepts. Changing it needs a restart.
    pub drain_timeout_ms: u64,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            data: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:9090".into(),
            public_url: None,
            allowed_hosts: None,
            allowed_origins: None,
            tls: ListenTls::default(),
            proxy_protocol_from: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            threads: None,
            connections_max: None,
            connections_per_address_max: None,
            accepts_per_address_max: 1_000,
            requests_per_connection_max: 100_000,
            streams_max: None,
            header_timeout_ms: 10_000,
            header_count_max: 64,
            header_block_bytes_max: 16 * 1024,
            header_line_bytes_max: 8 * 1024,
            target_bytes_max: 4 * 1024,
            body_timeout_ms: 30_000,
            body_bytes_max: 4 * 1024 * 1024,
            body_bytes_per_second_min: 1024,
            buffered_bytes_max: 256 * 1024 * 1024,
            queue_delay_ms_max: 500,
            keepalive_timeout_ms: 60_000,
            write_timeout_ms: 30_000,
            answer_bytes_per_second_min: 16 * 1024,
            drain_timeout_ms: 30_000,
        }
    }
}

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
