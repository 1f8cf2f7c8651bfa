//! What happens when this machine lacks what a test needs?

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// Says that a test, or a part of one, is skipped for want of something. Where nothing may be skipped (`NO_SKIPS=1`) the test
/// fails; else a line goes to the file that `SKIPS_FILE` names, by which `scripts/test` counts.
#[track_caller]
pub(crate) fn skipped(reason: &str) {
    assert!(env::var("NO_SKIPS").as_deref() != Ok("1"), "skipped, and NO_SKIPS is set: {reason}");
    println!("*** SKIPPED: {reason}");
    if let Some(file) = env::var_os("SKIPS_FILE") {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
    }
}
