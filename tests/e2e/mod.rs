//! A real gateway process, a scripted MCP server behind it, and a client that writes raw bytes.

mod access;
mod access_log;
mod batches;
mod browsers;
mod canary;
mod children;
mod commands;
mod debug_headers;
mod deploy;
mod edge;
mod edge_auth;
mod evidence;
#[cfg(feature = "failpoints")]
mod failpoints;
mod first_light;
mod handover;
mod http2;
mod http2_ends;
mod identities;
mod isolation;
mod limits;
mod logs;
mod messages;
mod modern;
mod oauth;
mod operations;
mod packaging;
mod past;
mod proxied;
mod quotas;
mod records;
mod reload;
mod review;
mod sandbox;
mod sse;
mod sse_differential;
mod streams;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod upstream_faults;
mod vectors;
mod withdrawn;
mod workspaces;
