//! How long does it take to put a call on record? `cargo bench --bench record`
//!
//! The system calls that write are included; how long those take is for the disk and the kernel to say.

mod cases;

fn main() {
    cases::time(cases::record::cases());
}
