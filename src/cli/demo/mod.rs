//! What does `portcullis demo` show?
//!
//! Two sample MCP servers in this process, a configuration worth reading, and the text that says what to try.
//! The servers know nothing of the gateway: they are MCP servers like any others.

pub mod config;
pub mod guide;
pub mod servers;

mod run;

pub(super) use run::Arguments;
pub(super) use run::run;
