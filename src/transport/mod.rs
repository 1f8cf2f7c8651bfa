//! How do requests come in?
//!
//! [`edge`] accepts connections on Pingora's listeners, as many as [`admission`] lets in, and puts a [`gate_io`] around
//! each: the strict reading of a request's head, and of the [`chunks`] of its body, on the raw bytes, before any parser
//! that forgives. [`route`] and
//! [`origin`] say where a request wants to go and whether a browser may send it; [`body`] reads its body whole, at
//! a [`pace`]. [`buffers`] and [`delay`] say how much the process has on its hands.

pub mod admission;
pub mod body;
pub mod buffers;
pub mod chunks;
pub mod connection;
pub mod delay;
pub mod edge;
pub mod gate_io;
pub mod head;
pub mod origin;
pub mod pace;
pub mod route;
