//! How is load made, and what is reported of it?
//!
//! *Open loop*: requests start when the schedule says, whatever became of those before; a request that could not start in
//! time counts from when it should have. *Closed loop*: as fast as answers come, for measuring what a call costs.
//! *Listen*: standing streams that are only read.

mod closed;
mod listen;
mod mix;
mod open;
mod report;
mod worker;

pub use closed::closed;
pub use listen::listen;
pub use mix::Mix;
pub use mix::Name;
pub use open::open;
pub use report::Report;
pub use worker::Load;
