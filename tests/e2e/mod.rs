//! A real gateway process, a scripted MCP server behind it, and a client that writes raw bytes.

mod canary;
#[cfg(feature = "failpoints")]
mod failpoints;
mod first_light;
mod reload;
mod streams;
mod upstream_faults;
