//! What does the gateway cost?
fn main() {}
