//! What do the programs share that measure Portcullis?
//!
//! `upstream` answers, `bare` is the yardstick, `generator` asks, `measure` starts them all beside the gateway and writes
//! down what it cost. Everything is bounded in count and time and stays on loopback. Nothing of this ships.

pub mod client;
pub mod generate;
pub mod http;
pub mod measure;
pub mod messages;
pub mod upstream;

use std::time::Duration;

/// Ends this process after so many seconds, so that nothing forgotten runs on.
pub fn end_after(seconds: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        eprintln!("time is up after {seconds} s");
        std::process::exit(0);
    });
}
