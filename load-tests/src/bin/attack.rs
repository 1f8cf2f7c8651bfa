//! What do hostile peers achieve?
fn main() {}
