//! What do the bytes of the Model Context Protocol mean?
//!
//! Pure: bytes in, values or a refusal out. A body is read once, strictly; what is ambiguous is refused, and what is
//! accepted is never written anew: changes are recorded as substitutions of spans of the received bytes.

pub mod batch;
pub mod capabilities;
pub mod cut;
pub mod document;
pub mod error;
pub mod fault;
// Assertions for tests and fuzz targets, which are built with debug assertions; no part of a release.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod headers;
pub mod lists;
pub mod message;
pub mod method;
pub mod names;
pub mod results;
pub mod revision;
pub mod splice;
pub mod sse;
pub mod subscription;
pub mod tasks;
pub mod uri;

mod agree;
mod node;
mod scan;
