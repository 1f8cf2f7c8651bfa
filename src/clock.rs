//! What time is it?
//!
//! The only place that asks the system. Deciders are handed a time.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Microseconds since 1970-01-01 UTC; zero if the system's clock stands before that.
pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Seconds since 1970-01-01 UTC.
pub fn now_seconds() -> u64 {
    now_micros() / 1_000_000
}
