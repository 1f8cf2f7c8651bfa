//! How many system calls does a call take?
//!
//! Counted by `perf` where it may, which hardly slows what it counts; else by `strace`, under which a server that would have
//! slept finds more work when it wakes, so that it waits less often. A count by itself, outside the rounds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use serde::Serialize;

/// System calls of one call.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Syscalls {
    /// All of them.
    pub(super) per_call: f64,
    /// What counted them.
    pub(super) by: &'static str,
    /// The most frequent, if `strace` is there: a count of its own.
    pub(super) names: BTreeMap<String, f64>,
}

/// Counts while `work` makes its calls to the processes `ids`. None where nothing here can count.
pub(super) fn count(
    ids: &[u32],
    directory: &Path,
    mut work: impl FnMut() -> io::Result<u64>,
) -> io::Result<Option<Syscalls>> {
    let list: Vec<String> = ids.iter().map(u32::to_string).collect();
    let file = directory.join("syscalls.txt");
    let path = file.to_string_lossy().into_owned();
    let mut traced = Command::new("strace");
    traced.args(["-c", "-f", "-q", "-o", &path]);
    for id in &list {
        traced.args(["-p", id]);
    }
    let names = match attached(&mut traced, &file, &mut work)? {
        Some((text, calls)) => strace(&text, calls),
        None => BTreeMap::new(),
    };
    let mut counted = Command::new("perf");
    counted.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", &path, "-p", &list.join(",")]);
    if let Some((text, calls)) = attached(&mut counted, &file, &mut work)?
        && let Some(total) = perf(&text)
    {
        return Ok(Some(Syscalls { per_call: total / calls, by: "perf", names }));
    }
    if names.is_empty() {
        return Ok(None);
    }
    let per_call = names.values().sum();
    Ok(Some(Syscalls { per_call, by: "strace", names }))
}

/// Attaches a counter, works, detaches it. What it wrote, and how many calls were made.
fn attached(
    command: &mut Command,
    file: &Path,
    work: &mut impl FnMut() -> io::Result<u64>,
) -> io::Result<Option<(String, f64)>> {
    let _ = fs::remove_file(file);
    let Ok(mut counter) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return Ok(None);
    };
    // Nothing tells that it is attached to every thread.
    thread::sleep(Duration::from_millis(700));
    if counter.try_wait()?.is_some() {
        return Ok(None);
    }
    let worked = work();
    interrupt(&mut counter)?;
    let text = fs::read_to_string(file).unwrap_or_default();
    Ok(Some((text, worked? as f64)))
}

fn interrupt(counter: &mut Child) -> io::Result<()> {
    let pid = i32::try_from(counter.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without id"))?;
    rustix::process::kill_process(pid, Signal::INT)?;
    counter.wait()?;
    Ok(())
}

/// The total in a line such as `12345,,raw_syscalls:sys_enter,..`.
fn perf(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.trim().parse().ok()
}

/// Calls by name, from strace's table: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn strace(text: &str, calls: f64) -> BTreeMap<String, f64> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words.first()?.parse::<f64>().ok()?;
        let name = words.last().filter(|name| **name != "total")?;
        let count: f64 = words.get(3)?.parse().ok()?;
        Some(((*name).to_owned(), count / calls))
    });
    rows.filter(|(_, count)| *count >= 0.01).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counters_are_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     60.00    0.100000           5      3000           sendto\n\
                     40.00    0.050000           5      2000       400 recvfrom\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.150000           5      5000       400 total\n";
        let names = strace(table, 1000.0);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [("recvfrom".to_owned(), 2.0), ("sendto".to_owned(), 3.0)]);
        assert_eq!(perf("# started on\n\n29000,,raw_syscalls:sys_enter,1,100.00,,\n"), Some(29000.0));
        assert_eq!(perf("<not supported>,,raw_syscalls:sys_enter"), None);
    }
}
