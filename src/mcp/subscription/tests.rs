//! Streams of listeners.
