//! What can an operator see of the running gateway?
//!
//! Numbers ([`metrics`]) and the gateway's own log ([`logging`]). Neither ever carries a payload, a credential or a
//! value that a client or an upstream chose. Where it is wanted, also a line ([`access`]) and spans (`traces`) for each request,
//! which say of it no more than its record does. The record itself is no part of this: see `audit`.

pub mod access;
pub mod logging;
pub mod metrics;
pub mod observers;
pub mod trace_context;
#[cfg(feature = "otlp")]
pub mod traces;
