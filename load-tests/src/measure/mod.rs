//! What does a call through the gateway cost, beside proxies that only move its bytes?
//!
//! Every way to the same upstream is measured in every round, in an order that turns, so that what else the machine does
//! meets all of them. A figure is the median of the rounds; a comparison is the median of the ratios (or differences)
//! within each round, with the interval that holds it at 95 %. Whoever answers wrongly, or not at all, ends the measurement.

mod audit;
mod chart;
mod document;
mod load;
mod machine;
mod outcome;
mod rounds;
mod stage;
mod stats;
mod syscalls;

pub use machine::others_cores;
pub use rounds::Plan;
pub use rounds::Programs;
pub use rounds::run;
pub(crate) use stats::median;
