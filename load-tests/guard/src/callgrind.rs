//! How many instructions were there between two marks?
//!
//! Runs this program again under callgrind. Only instructions of user space are counted, by all threads, whether they
//! are cheap or dear; what the kernel does for a system call is not among them.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use crate::mark;

/// This program as a child under callgrind.
pub(crate) struct Counted {
    /// The running child.
    pub(crate) child: Child,
    out: PathBuf,
}

impl Counted {
    /// Starts this program with `arguments`; what callgrind counts goes to files in `directory`.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
        let out = directory.join(format!("callgrind-{}", arguments[0]));
        let child = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--error-exitcode=1"])
            .arg(format!("--dump-before={}", mark::SYMBOL))
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(std::env::current_exe().unwrap())
            .args(arguments)
            .env_remove("RUST_LOG")
            // The allocator gives memory back when a time has passed, and time passes differently on each run.
            .env("_RJEM_MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, out }
    }

    /// The instructions before the first mark, between each two, and so on: one number for each mark so far.
    pub(crate) fn parts(&self) -> Vec<u64> {
        (1..)
            .map_while(|part| fs::read_to_string(format!("{}.{part}", self.out.display())).ok())
            .map(|text| total(&text))
            .collect()
    }
}

/// The total of one file that callgrind wrote: `totals: 12345`, or `summary: 12345`.
fn total(text: &str) -> u64 {
    assert!(text.lines().any(|line| line == "events: Ir"), "other events than instructions");
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.unwrap().trim().parse().unwrap()
}
