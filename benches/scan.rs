//! How long does it take to read a message? `cargo bench --bench scan`
//!
//! Budget: 1,500 ns for a `tools/call` of 300 bytes, agreement of the two readers included; keys that occur twice are
//! looked for in a time that grows with the number of keys, not with its square.

mod cases;

fn main() {
    cases::time(cases::scan::cases());
    cases::time(cases::scan::duplicates());
}
