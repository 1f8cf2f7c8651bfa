//! Why was nothing fetched?

use std::net::IpAddr;

use crate::net::address::Special;

/// Why nothing was fetched, for the operator's log. A server's own words are never in it.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// `http` where only `https` is allowed.
    #[error("the URL is not `https`, and nothing else is allowed")]
    Insecure,
    /// A port that is not among those allowed.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// A name for this machine, with no internal network allowed.
    #[error("the host is a name of this machine, and no internal network is allowed")]
    LocalName,
    /// An address that may not be connected to.
    #[error("the host has the address {0}, which is {1}; a network of one's own must be allowed")]
    Forbidden(IpAddr, Special),
    /// The name has no address, or too many.
    #[error("the name cannot be resolved: {0}")]
    Resolve(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// No TLS, or not with whom it should be.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The proxy did not let through.
    #[error("the proxy did not let through: {0}")]
    Proxy(String),
    /// It took too long.
    #[error("it took longer than allowed")]
    Timeout,
    /// What came is no HTTP.
    #[error("no HTTP: {0}")]
    Protocol(String),
    /// An answer that leads elsewhere, which is not followed.
    #[error("the answer ({0}) leads elsewhere, and that is not followed")]
    Redirect(u16),
    /// An answer that is no success.
    #[error("the answer is {0}")]
    Status(u16),
    /// An answer that is compressed or otherwise encoded.
    #[error("the answer is encoded")]
    Encoded,
    /// An answer that is too large.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}
