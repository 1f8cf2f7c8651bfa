//! How long does it take to screen a list of tools? `cargo bench --bench screen`
//!
//! Reading the answer is included. A thousand tools take ten times what a hundred take.

mod cases;

fn main() {
    cases::time(cases::screen::cases());
}
