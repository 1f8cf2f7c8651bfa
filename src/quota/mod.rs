//! May they do so much?
//!
//! Pure: rates, counts and money are steps from a [`State`] and a time to the next. [`Quotas`] says whom the configuration limits
//! and by how much; who keeps the states, and all of one request's under one lock, is `runtime`. Days and months are UTC.

mod compile;
mod gcra;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod words;

pub use crate::quota::compile::Quotas;
pub use crate::quota::rules::Reached;
pub use crate::quota::rules::Rule;
pub use crate::quota::rules::Subject;
pub use crate::quota::state::Rates;
pub use crate::quota::state::State;
pub use crate::quota::state::Use;
pub use crate::quota::words::Level;
pub use crate::quota::words::Limit;
pub use crate::quota::words::REASONS;
