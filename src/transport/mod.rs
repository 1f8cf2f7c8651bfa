//! How do requests come in?
//!
//! [`edge`] accepts connections on Pingora's listeners, as many as [`admission`] lets in. [`arrival`] is what comes before the first
//! request: the balancer's word for whom it speaks ([`proxy_protocol`]), and the handshake ([`tls`]). Around what is left goes a [`gate_io`]: the
//! strict reading of a request's head, and of the [`chunks`] of its body, on the raw bytes, before any parser that forgives.
//! What speaks HTTP/2 goes through [`h2`] instead, by the same rules. [`forwarded`] says who sent a request, [`route`] and [`origin`] where
//! it wants to go and whether a browser may send it, [`cors`] what the browser is told; [`body`] reads its body whole, at a [`pace`].
//! [`buffers`] and [`delay`] say how much the process has on its hands.

pub mod admission;
pub mod arrival;
pub mod body;
pub mod buffers;
pub mod chunks;
pub mod connection;
pub mod cors;
pub mod delay;
pub mod edge;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gate_io;
pub mod h2;
pub mod head;
pub mod origin;
pub mod pace;
pub mod proxy_protocol;
pub mod route;
pub mod tls;
