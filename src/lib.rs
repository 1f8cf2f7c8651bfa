//! Portcullis, an MCP edge gateway: every call an AI agent makes to an MCP server is judged on its exact bytes,
//! recorded, and only then forwarded.
//!
//! Modules in layers, lowest last; a module uses lower ones only (`tests/tidy.rs`). Start at `gateway/handle.rs`.

pub mod cli;
pub mod server;

pub mod admin;
pub mod gateway;

pub mod runtime;
pub mod snapshot;

pub mod audit;
pub mod auth;
pub mod search;
pub mod transport;
pub mod upstream;

pub mod disk;
pub mod net;

pub mod policy;
pub mod quota;
pub mod session;

pub mod call;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod mcp;
pub mod network;
pub mod principal;
pub mod seal;
pub mod telemetry;
