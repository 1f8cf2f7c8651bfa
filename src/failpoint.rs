//! Places where tests make the gateway fail.
//!
//! Without the feature `failpoints` the macro expands to nothing, so a released binary has no such place.

/// Fails here if a test says so: `FAILPOINTS="policy=panic"`.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        fail::fail_point!($name);
    };
}

pub use crate::failpoint;
