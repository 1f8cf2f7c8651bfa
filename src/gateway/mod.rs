//! The data path: from a request's head to its answer.
//!
//! `handle` is the order of steps, `exchange` the way to the upstream and back, `response_filter` what an answer must
//! be to pass. `refusal` is the one table from reasons to the wire, `entry` the one place that writes the record.

mod conversation;
mod entry;
mod exchange;
mod frame;
mod handle;
mod inbound;
mod keeper;
mod refusal;
mod reply;
mod response_filter;
mod stream;

pub use frame::Gateway;
pub use keeper::Keeper;

/// Every reason for which the gateway itself refuses, beside those of policy, for metrics registered up front.
pub const REFUSALS: &[&str] = &[
    "head_line_end", "head_request_line", "head_version", "head_folded", "head_name", "head_value", "head_host",
    "head_content_length", "head_transfer_encoding", "head_length_and_transfer", "head_unexpected_body", "head_upgrade",
    "head_expect", "head_target_long", "head_too_large", "head_timeout", "connections_max", "no_route",
    "method_not_served", "host_not_allowed", "origin_not_allowed", "key_missing", "key_malformed", "key_unknown",
    "keys_conflicting", "key_in_query", "content_type", "content_encoding", "not_acceptable", "body_too_large",
    "body_timeout", "body_broken", "session_unknown", "session_missing", "streams_max", "permission_withdrawn",
    "sealing_failed", "client_gone", "upstream_status", "panicked", "abandoned",
];
