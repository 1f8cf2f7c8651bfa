//! How does the gateway ask somebody else's server for something?
//!
//! For what it fetches on its own account, from places that a document of somebody else's may name: keys of issuers and what
//! leads to them. A URL is read strictly, its name resolved once, every address checked, and one of the checked addresses
//! connected to; nothing is followed, and everything has a limit. Calls to MCP servers do not go this way: see `upstream`.

mod address;
mod client;
mod error;
mod network;
#[cfg(test)]
mod tests;
mod url;

pub use crate::net::address::Special;
pub use crate::net::address::special;
pub use crate::net::client::Client;
pub use crate::net::client::Rules;
pub use crate::net::error::NetError;
pub use crate::net::network::Dialling;
pub use crate::net::network::Network;
pub use crate::net::network::Resolving;
pub use crate::net::network::Stream;
pub use crate::net::network::System;
pub use crate::net::url::Host;
pub use crate::net::url::URL_BYTES_MAX;
pub use crate::net::url::Url;
pub use crate::net::url::UrlFlaw;
