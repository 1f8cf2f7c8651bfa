//! A real gateway process, a scripted MCP server behind it, and a client that writes raw bytes.

mod batches;
mod canary;
mod commands;
mod edge;
mod edge_auth;
#[cfg(feature = "failpoints")]
mod failpoints;
mod first_light;
mod isolation;
mod messages;
mod modern;
mod operations;
mod records;
mod reload;
mod review;
mod sse;
mod sse_differential;
mod streams;
mod upstream_faults;
mod vectors;
