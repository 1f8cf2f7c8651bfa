//! A command of the program that goes on until it is told to end: what it prints, and how it ends.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a command; its log goes to the file `log`.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Starts a command whose standard input, and output if it is given, are set already.
    pub(crate) fn spawn_with(mut command: Command, output: Option<OwnedFd>, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let prints = output.is_none();
        command.stdout(output.map_or_else(Stdio::piped, Stdio::from)).stderr(log);
        let mut child = command.spawn().unwrap();
        // Nothing is read of a process whose output is something else.
        let out = if prints { child.stdout.take().map(OwnedFd::from) } else { None };
        let out = out.unwrap_or_else(|| File::open("/dev/null").unwrap().into());
        Self { child, out: BufReader::new(ChildStdout::from(out)) }
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints, without its end; empty if there is none any more.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for it to end by itself and returns its exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test has started.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{name}");
}
