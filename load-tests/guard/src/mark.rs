//! Where does a measurement begin and end?
//!
//! Callgrind writes down what was counted, and begins anew, whenever the function `guard_mark` is entered.

#![allow(unsafe_code, reason = "the symbol must be found by its name")]

use std::hint::black_box;

/// The name by which callgrind finds the mark.
pub(crate) const SYMBOL: &str = "guard_mark";

/// Ends what is counted under callgrind, and begins anew. Does nothing elsewhere.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn guard_mark() {
    black_box(());
}
