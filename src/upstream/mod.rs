//! How does a permitted call reach its server, and how does the answer come back?
//!
//! [`Plans::compile`] reads the configuration; [`Upstreams::adopt`] turns plans into connections, balancing and health
//! checks that outlive a reload. A call is sent by [`Upstream::send`], which takes nothing but what policy permitted,
//! and its answer is pulled from a [`Body`]. Never a redirect, never a second try once a byte was written.

mod answer;
mod balance;
mod breaker;
mod circuits;
mod connection;
mod counted;
mod credential;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod fleet;
mod health;
mod limits;
mod plan;
mod pool;
mod reference;
mod ring;
mod rotation;
mod server;
mod target;
mod ticket;
mod times;
mod tls;

#[cfg(test)]
mod tests;

pub use crate::upstream::answer::Answer;
pub use crate::upstream::answer::Body;
pub use crate::upstream::circuits::Circuit;
pub use crate::upstream::connection::ANSWER_HEAD_BYTES_MAX;
pub use crate::upstream::connection::ANSWER_HEADERS_MAX;
pub use crate::upstream::credential::CREDENTIAL_HEADERS_MAX;
pub use crate::upstream::credential::UpstreamCredential;
pub use crate::upstream::endpoint::Endpoint;
pub use crate::upstream::error::Failure;
pub use crate::upstream::error::UpstreamError;
pub use crate::upstream::exchange::INTERIM_ANSWERS_MAX;
pub use crate::upstream::fleet::Fleet;
pub use crate::upstream::fleet::Upstreams;
pub use crate::upstream::plan::ENDPOINTS_MAX;
pub use crate::upstream::plan::HEALTH_INTERVAL_MS_MIN;
pub use crate::upstream::plan::Plan;
pub use crate::upstream::plan::Plans;
pub use crate::upstream::plan::WAIT_MS_MAX;
pub use crate::upstream::plan::WEIGHT_MAX;
pub use crate::upstream::reference::MESSAGE_PATH_BYTES_MAX;
pub use crate::upstream::server::Choice;
pub use crate::upstream::server::Dispatch;
pub use crate::upstream::server::Upstream;
pub use crate::upstream::ticket::Ticket;
pub use crate::upstream::times::Times;
