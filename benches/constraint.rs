//! How long does it take to judge a call's arguments? `cargo bench --bench constraint`
//!
//! Each figure holds the decision itself; the first has nothing else in it.

mod cases;

fn main() {
    cases::time(cases::constraint::cases());
}
