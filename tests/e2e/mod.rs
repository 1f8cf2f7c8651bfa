//! A real gateway process, a scripted MCP server behind it, and a client that writes raw bytes.

mod batches;
mod canary;
mod commands;
mod edge;
mod edge_auth;
#[cfg(feature = "failpoints")]
mod failpoints;
mod first_light;
mod handover;
mod messages;
mod modern;
mod operations;
mod packaging;
mod records;
mod reload;
mod review;
mod sandbox;
mod sse;
mod sse_differential;
mod streams;
mod upstream_faults;
mod vectors;
