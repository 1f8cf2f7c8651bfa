//! How long does it take to seal or open what names a session or task? `cargo bench --bench session`
//!
//! A request of a session opens one token; sealing one is for the answers that begin something.

mod cases;

fn main() {
    cases::time(cases::session::cases());
}
