//! Places where tests make the gateway fail.
//!
//! Without the feature `failpoints` the macro expands to nothing, so a released binary has no such place.

/// Fails here if a test says so: `FAILPOINTS="policy=panic"`. With a second argument the function may also be made to return that:
/// `disk_sync=1*return`.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        fail::fail_point!($name);
    };
    ($name:literal, $result:expr) => {
        fail::fail_point!($name, |_| $result);
    };
}

pub use crate::failpoint;
