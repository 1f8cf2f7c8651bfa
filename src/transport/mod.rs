//! How do requests come in?
//!
//! [`edge`] accepts connections on Pingora's listeners and puts a [`gate_io`] around each: the strict reading of a
//! request's head, and of the [`chunks`] of its body, on the raw bytes, before any parser that forgives. [`route`] and
//! [`origin`] say where a request wants to go and whether a browser may send it; [`body`] reads its body whole.

pub mod body;
pub mod chunks;
pub mod connection;
pub mod edge;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gate_io;
pub mod head;
pub mod origin;
pub mod route;
