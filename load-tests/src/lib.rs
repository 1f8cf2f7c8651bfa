//! What do the programs share that measure Portcullis?
//!
//! `upstream` answers, `bare` is the yardstick, `generator` asks, `measure` starts them all beside the gateway and writes
//! down what it cost. `soak` finds out what creeps in hours full of faults, `attack` what hostile peers achieve. Everything is bounded in count and time and stays on loopback. Nothing of this ships.

pub mod attack;
pub mod chance;
pub mod client;
pub mod events;
pub mod generate;
pub mod http;
pub mod measure;
pub mod messages;
pub mod process;
pub mod records;
pub mod soak;
pub mod stand;
pub mod upstream;
pub mod verdict;

use std::time::Duration;

/// Ends this process after so many seconds, so that nothing forgotten runs on.
pub fn end_after(seconds: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        eprintln!("time is up after {seconds} s");
        std::process::exit(0);
    });
}
