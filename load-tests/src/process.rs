//! How is a process started, watched and ended?
//!
//! CPU time is what the scheduler gave its threads (`schedstat`, nanoseconds), not what a sampling clock saw. Every process
//! started here is ended here, by its id.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;

/// How long a process may take until it takes connections.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end when asked to.
const END_MAX: Duration = Duration::from_secs(10);

/// What runs and was started here.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn started() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process, and everything that it started, after so many seconds or when it is told to end, so that nothing
/// forgotten runs on.
///
/// # Errors
/// When signals cannot be waited for.
pub fn end_all_after(seconds: u64) -> io::Result<()> {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut term, mut int) = {
        let _within = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread::spawn(move || {
        let why = runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => "told to end".to_owned(),
                _ = int.recv() => "interrupted".to_owned(),
                () = tokio::time::sleep(Duration::from_secs(seconds)) => format!("time is up after {seconds} s"),
            }
        });
        eprintln!("{why}");
        for id in started().iter() {
            // None of them was waited for, so each id is still its own.
            let _ = signal_to(*id, Signal::KILL);
        }
        std::process::exit(1);
    });
    Ok(())
}

fn signal_to(id: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// A process that serves.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `command` and waits until it takes connections at `address`. What it says goes to a file in
    /// `logs`, and into the error if it does not serve.
    ///
    /// # Errors
    /// When it cannot be started or does not serve, with what it said.
    ///
    /// # Panics
    /// When somebody else listens there.
    pub fn start(name: &str, command: &mut Command, address: SocketAddr, logs: &Path) -> io::Result<Self> {
        assert!(TcpStream::connect(address).is_err(), "somebody listens on {address} already");
        let path = logs.join(format!("{name}.log"));
        let log = fs::File::options().create(true).append(true).open(&path)?;
        let out = log.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn()?;
        let failed = |what: String| {
            let said = fs::read_to_string(&path).unwrap_or_default();
            io::Error::other(format!("{name} {what}; it said:\n{said}"))
        };
        let mut running = Self { child, name: name.to_owned() };
        started().insert(running.id());
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                return Err(failed(format!("ended at once: {status}")));
            }
            if began.elapsed() > START_MAX {
                return Err(failed(format!("does not serve at {address}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// The process that was started.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// It and its children (nginx has workers).
    pub fn ids(&self) -> Vec<u32> {
        let own = self.id();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        std::iter::once(own).chain(numbers.filter(|id| parent(*id) == Some(own))).collect()
    }

    /// CPU time its threads were given so far.
    ///
    /// # Panics
    /// When it has ended: there is nothing left to measure.
    pub fn cpu_nanos(&mut self) -> u64 {
        let ended = self.child.try_wait().expect("a child's state");
        assert!(ended.is_none(), "{} ended in the middle: {ended:?}", self.name);
        self.ids().into_iter().map(cpu_nanos).sum()
    }

    /// Resident memory in KiB: all of it, and what is not backed by a file.
    pub fn resident_kib(&self) -> (f64, f64) {
        let of = |field: &str| self.ids().into_iter().filter_map(|id| status_kib(id, field)).sum();
        (of("VmRSS:"), of("RssAnon:"))
    }

    /// The most memory that was resident at once so far, in KiB; 0 once it has ended.
    pub fn peak_kib(&self) -> f64 {
        status_kib(self.id(), "VmHWM:").unwrap_or_default()
    }

    /// Descriptors it has open.
    pub fn descriptors(&self) -> usize {
        entries(&format!("/proc/{}/fd", self.id()))
    }

    /// Threads it runs.
    pub fn threads(&self) -> usize {
        entries(&format!("/proc/{}/task", self.id()))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        signal_to(self.id(), signal)
    }

    /// Ends it by this signal and says how it ended.
    ///
    /// # Errors
    /// When it does not end within `wait`; it is then killed.
    pub fn end(mut self, signal: Signal, wait: Duration) -> io::Result<ExitStatus> {
        self.signal(signal)?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > wait {
                return Err(io::Error::other(format!("{} did not end within {wait:?}", self.name)));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        started().remove(&self.id());
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let began = Instant::now();
        // At once, with what it has written on disk; SIGTERM would drain. The upstream has nothing to lose, and no handler:
        // where this program runs in the background it would not hear SIGINT. Not waited for, its id is still its own.
        let signal = if self.name.starts_with("upstream") { Signal::TERM } else { Signal::INT };
        let _ = self.signal(signal);
        // What was stopped hears nothing until it goes on.
        let _ = self.signal(Signal::CONT);
        while let Ok(None) = self.child.try_wait() {
            if began.elapsed() > END_MAX {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// CPU time that the threads of a process were given so far. A thread that ended is no longer seen: servers keep theirs.
fn cpu_nanos(id: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn status_kib(id: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_worked_is_seen() {
        let own = std::process::id();
        let before = cpu_nanos(own);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(0);
        }
        // Others may have had the core for some of it.
        assert!(cpu_nanos(own) - before > 1_000_000);
        assert!(status_kib(own, "VmRSS:").unwrap() > 0.0);
        assert!(parent(own).unwrap() > 0);
    }
}
