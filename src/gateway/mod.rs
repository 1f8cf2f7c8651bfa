//! The data path: from a request's head to its answer.
//!
//! `handle` is the order of steps, `exchange` the way to the upstream and back, `response_filter` what an answer must
//! be to pass. `refusal` is the one table from reasons to the wire, `entry` the one place that writes the record.

mod admission;
mod batch;
mod client;
mod conversation;
mod debug;
mod decline;
mod entry;
mod exchange;
mod frame;
mod handle;
mod hub;
mod inbound;
mod keeper;
mod mint;
mod page;
mod quota;
mod refusal;
mod reply;
mod response_filter;
mod shadow;
#[cfg(feature = "otlp")]
mod spans;
mod sse;
mod standing;
mod stream;
mod tell;
mod trace;
mod wellknown;
mod whence;

use crate::policy::DENIALS;
use crate::quota::REASONS;

pub use frame::Gateway;
pub use keeper::Keeper;

/// Every reason for which the gateway refuses, for metrics registered up front.
pub const REFUSALS: &[&str] = &joined::<{ OTHERS.len() + DENIALS.len() + REASONS.len() }>([OTHERS, DENIALS, &REASONS]);

/// Lists of words as one.
const fn joined<const COUNT: usize>([one, two, three]: [&[&'static str]; 3]) -> [&'static str; COUNT] {
    let mut all = [""; COUNT];
    let (first, rest) = all.split_at_mut(one.len());
    first.copy_from_slice(one);
    let (second, third) = rest.split_at_mut(two.len());
    second.copy_from_slice(two);
    third.copy_from_slice(three);
    all
}

/// Reasons of the head and the edge, of callers, of messages and their headers, of minting, of the record, and of servers and
/// their answers. Policy and limits know their own.
const OTHERS: &[&str] = &[
    "callers_max",
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
    "head_scheme",
    "head_too_large",
    "head_timeout",
    "connections_max",
    "connections_per_address_max",
    "accepts_per_address_max",
    "proxy_header",
    "tls_plain_http",
    "tls_handshake",
    "tls_timeout",
    "tls_client_certificate",
    "h2_malformed",
    "h2_protocol",
    "h2_abuse",
    "h2_streams_max",
    "no_route",
    "method_not_served",
    "host_not_allowed",
    "origin_not_allowed",
    "content_type",
    "content_encoding",
    "not_acceptable",
    "body_too_large",
    "body_timeout",
    "body_too_slow",
    "buffered_bytes_max",
    "queue_delay_ms_max",
    "body_broken",
    "key_missing",
    "key_malformed",
    "key_unknown",
    "key_disabled",
    "key_expired",
    "key_revoked",
    "key_source",
    "key_certificate",
    "certificate_expired",
    "certificate_untrusted",
    "certificate_ambiguous",
    "keys_conflicting",
    "key_in_query",
    "key_not_taken",
    "token_malformed",
    "token_header",
    "token_algorithm",
    "token_type",
    "token_issuer",
    "token_key_unknown",
    "token_signature",
    "token_claims",
    "token_expired",
    "token_early",
    "token_audience",
    "token_not_taken",
    "token_keys_unavailable",
    "metadata_unknown",
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
    "batch_empty",
    "batch_initialize",
    "batch_mixed",
    "batch_too_long",
    "error",
    "id",
    "jsonrpc",
    "key_variant",
    "meta",
    "method",
    "no_method",
    "not_an_object",
    "name",
    "params",
    "ref",
    "two_kinds",
    "unknown_key",
    "header_mismatch",
    "response",
    "unsupported_revision",
    "uri",
    "missing_capability",
    "notifications",
    "last_event_id",
    "other_era",
    "id_in_use",
    "task_unknown",
    "session_unknown",
    "session_missing",
    "mint_no_minter",
    "mint_depth",
    "mint_agent",
    "mint_server",
    "mint_tool",
    "mint_request",
    "permission_withdrawn",
    "failed",
    "queue_full",
    "shut_down",
    "streams_max",
    "calls_max",
    "sealing_failed",
    "no_sealing_key",
    "no_minter",
    "no_upstream",
    "no_message",
    "no_stream",
    "rewritten",
    "session_id",
    "endpoint_gone",
    "no_endpoint",
    "draining",
    "pending_max",
    "pending_bytes_max",
    "upstream_connections_max",
    "circuit_open",
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
    "answer_no_room",
    "answer_twice",
    "answer_endpoint",
    "answer_no_endpoint",
    "answer_no_stream",
    "answer_task_id",
    "answer_task_key",
    "elicitation_key",
    "elicitation_mode",
    "elicitation_url",
    "elicitation_url_host",
    "elicitation_url_scheme",
    "elicitation_url_user",
    "input_denied",
    "input_method",
    "input_missing",
    "input_requests",
    "input_requests_max",
    "input_unexpected",
    "listen_id",
    "listen_order",
    "request_state",
    "result_key",
    "result_type",
    "client_gone",
    "panicked",
    "abandoned",
];
