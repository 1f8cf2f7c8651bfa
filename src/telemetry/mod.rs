//! What can an operator see of the running gateway?
//!
//! Numbers ([`metrics`]) and the gateway's own log ([`logging`]). Neither ever carries a payload, a credential or a
//! value that a client or an upstream chose. The record of calls is no part of this: see `audit`.

pub mod logging;
pub mod metrics;
