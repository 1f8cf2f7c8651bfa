//! Every test that needs more than one module, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod config;
mod decisions;
mod e2e;
mod reference_cascade;
mod reference_minted;
mod reference_policy;
mod reference_reports;
#[cfg(feature = "fuzzing")]
mod replay;
mod support;
mod tidy;
