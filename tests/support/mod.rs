//! What the end-to-end tests are made of.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod collector;
pub(crate) mod gateway;
pub(crate) mod h2;
pub(crate) mod issuer;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod skip;
pub(crate) mod upstream;
