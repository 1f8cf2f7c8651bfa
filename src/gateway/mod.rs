//! The data path: from a request's head to its answer.
//!
//! `handle` is the order of steps, `exchange` the way to the upstream and back, `response_filter` what an answer must
//! be to pass. `refusal` is the one table from reasons to the wire, `entry` the one place that writes the record.

mod batch;
mod client;
mod conversation;
mod decline;
mod entry;
mod exchange;
mod frame;
mod handle;
mod hub;
mod inbound;
mod keeper;
mod refusal;
mod reply;
mod response_filter;
mod sse;
mod stream;

pub use frame::Gateway;
pub use keeper::Keeper;

/// Every reason for which the gateway refuses, for metrics registered up front: those of the head and the edge, of
/// callers, of messages and their headers, of policy, of the record, and of servers and their answers.
pub const REFUSALS: &[&str] = &[
    "head_line_end",
    "head_request_line",
    "head_version",
    "head_folded",
    "head_name",
    "head_value",
    "head_host",
    "head_content_length",
    "head_transfer_encoding",
    "head_length_and_transfer",
    "head_unexpected_body",
    "head_upgrade",
    "head_expect",
    "head_target_long",
    "head_too_large",
    "head_timeout",
    "connections_max",
    "no_route",
    "method_not_served",
    "host_not_allowed",
    "origin_not_allowed",
    "content_type",
    "content_encoding",
    "not_acceptable",
    "body_too_large",
    "body_timeout",
    "body_broken",
    "key_missing",
    "key_malformed",
    "key_unknown",
    "keys_conflicting",
    "key_in_query",
    "empty",
    "byte_order_mark",
    "not_utf8",
    "leading_whitespace",
    "truncated",
    "unexpected_byte",
    "trailing_data",
    "control_character",
    "bad_escape",
    "lone_surrogate",
    "bad_number",
    "number_too_large",
    "duplicate_key",
    "too_deep",
    "too_many_values",
    "too_many_keys",
    "string_too_long",
    "key_too_long",
    "number_too_long",
    "too_long",
    "ambiguous",
    "arguments",
    "batch",
    "error",
    "id",
    "jsonrpc",
    "key_variant",
    "meta",
    "method",
    "no_method",
    "not_an_object",
    "params",
    "ref",
    "two_kinds",
    "unknown_key",
    "header_mismatch",
    "response",
    "unsupported_revision",
    "session_unknown",
    "session_missing",
    "server_unknown",
    "server_not_granted",
    "method_unknown",
    "tool_not_allowed",
    "agent_tool_not_allowed",
    "tool_blocked",
    "agent_tool_blocked",
    "argument_missing",
    "argument_null",
    "argument_not_scalar",
    "argument_unreachable",
    "argument_ambiguous",
    "argument_mismatch",
    "permission_withdrawn",
    "failed",
    "queue_full",
    "shut_down",
    "streams_max",
    "sealing_failed",
    "no_sealing_key",
    "no_upstream",
    "session_id",
    "endpoint_gone",
    "no_endpoint",
    "resolve",
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
    "upstream_status",
    "answer_encoded",
    "answer_event",
    "answer_id",
    "answer_kind",
    "answer_malformed",
    "answer_missing",
    "answer_not_json",
    "answer_revision",
    "answer_session",
    "answer_status",
    "answer_too_large",
    "answer_twice",
    "client_gone",
    "panicked",
    "abandoned",
];
