//! What does a proof stand on?
//!
//! A gateway with a key and a configuration that can be changed, upstreams that can be ended and started again, all on
//! loopback and all processes of their own, so that what each holds can be told apart.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde::Deserialize;

use crate::chance::Chance;
use crate::client::Connection;
use crate::messages::Target;
use crate::process::Running;

/// How long the gateway may take to end: it announces its end, and lets calls finish.
const END_MAX: Duration = Duration::from_secs(45);
/// How long the gateway's start may take once it serves.
const STARTED_MAX: Duration = Duration::from_secs(5);
/// How long figures may take to come.
const FIGURES_MAX: Duration = Duration::from_secs(5);

/// An API key and its digest.
#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    /// What a client presents.
    pub key: String,
    /// What the configuration holds.
    pub digest: String,
}

impl Key {
    /// Has the gateway make one, as an operator does.
    ///
    /// # Errors
    /// When it does not.
    pub fn make(gateway: &Path) -> io::Result<Self> {
        let output = Command::new(gateway).args(["keys", "create", "--name", "load", "--json"]).output()?;
        serde_json::from_slice(&output.stdout).map_err(io::Error::other)
    }
}

/// A loopback address that nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Ports that were given: nobody need listen there yet when the next is asked for.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback address that nobody listens on, of a port that the system gives to no outgoing connection, so that a server
/// can come back to it. This process is given none twice.
///
/// # Errors
/// When there is none.
pub fn lasting_address() -> io::Result<SocketAddr> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_ascii_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u64);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut chance = Chance::new(u64::from(std::process::id()), given.len() as u64);
    for _ in 0..200 {
        let port = u16::try_from(chance.between(10_000, first.clamp(10_002, 60_000) - 1)).unwrap_or(10_000);
        if !given.insert(port) {
            continue;
        }
        if let Ok(listener) = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            return listener.local_addr();
        }
    }
    Err(io::Error::other("no port is free"))
}

/// One of many addresses of loopback, so that many clients are not one to the gateway.
pub fn source(number: u64) -> Ipv4Addr {
    let at = crate::chance::scatter(number).to_be_bytes();
    Ipv4Addr::new(127, 1 + at[0] % 100, at[1], 1 + at[2] % 250)
}

/// What a gateway holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Held {
    /// Resident memory.
    pub resident_kib: f64,
    /// What of it is not backed by a file.
    pub anonymous_kib: f64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Held {
    /// What this process holds.
    pub fn by(process: &Running) -> Self {
        let (resident_kib, anonymous_kib) = process.resident_kib();
        Self { resident_kib, anonymous_kib, descriptors: process.descriptors(), threads: process.threads() }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    /// The process.
    pub process: Running,
    /// Where clients connect.
    pub data: SocketAddr,
    admin: SocketAddr,
    home: PathBuf,
    key: Key,
}

/// The part of the configuration that every gateway of a proof has, up to its servers.
fn head(data: SocketAddr, admin: SocketAddr, listen: &str) -> String {
    format!(
        r#"[listen]
data = "{data}"
admin = "{admin}"
{listen}

[audit]
directory = "audit"
segment_bytes_max = 16777216

[state]
directory = "state"
"#
    )
}

impl Gateway {
    /// Starts one in `home`, which must not exist. `listen` are further keys of `[listen]`; `rest` makes what follows
    /// of the key's digest.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start(program: &Path, home: &Path, listen: &str, rest: impl Fn(&str) -> String) -> io::Result<Self> {
        fs::create_dir_all(home)?;
        let key = Key::make(program)?;
        let (data, admin) = (lasting_address()?, lasting_address()?);
        let file = home.join("portcullis.toml");
        fs::write(&file, format!("{}{}", head(data, admin, listen), rest(&key.digest)))?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&file).env("NO_COLOR", "1");
        let process = Running::start("gateway", &mut command, data, home)?;
        // The last descriptor that it opens at its start: what it holds is counted from here.
        let begun = Instant::now();
        while !home.join("state/control.sock").exists() && begun.elapsed() < STARTED_MAX {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, data, admin, home: home.to_owned(), key })
    }

    /// Replaces what follows the common part of the configuration, and has it reloaded.
    ///
    /// # Errors
    /// When it cannot be written, or the gateway has ended.
    pub fn reload(&self, listen: &str, rest: impl Fn(&str) -> String) -> io::Result<()> {
        let new = self.home.join("portcullis.toml.new");
        fs::write(&new, format!("{}{}", head(self.data, self.admin, listen), rest(&self.key.digest)))?;
        fs::rename(new, self.home.join("portcullis.toml"))?;
        self.process.signal(Signal::HUP)
    }

    /// Where requests to `server` go.
    pub fn target(&self, server: &str) -> Target {
        Target {
            host: self.data.to_string(),
            path: format!("/mcp/{server}"),
            key: Some(self.key.key.clone()),
            tool_prefix: String::new(),
        }
    }

    /// Its own figures, as text.
    ///
    /// # Errors
    /// When it does not tell them.
    pub fn figures(&self) -> io::Result<String> {
        let mut connection = Connection::new(self.admin, FIGURES_MAX);
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        let answer = connection.send(request.as_bytes()).and_then(|()| connection.receive());
        let answer = answer.map_err(|wrong| io::Error::other(format!("/metrics: {}", wrong.name())))?;
        String::from_utf8(answer.body).map_err(io::Error::other)
    }

    /// One of its figures, by its series.
    ///
    /// # Errors
    /// When it is not there.
    pub fn figure(&self, series: &str) -> io::Result<f64> {
        let figures = self.figures()?;
        let found = figures.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.ok_or_else(|| io::Error::other(format!("no figure `{series}`")))
    }

    /// How many lines of its log so far hold `text`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn logged(&self, text: &str) -> io::Result<usize> {
        let log = fs::read_to_string(self.home.join("gateway.log"))?;
        Ok(log.lines().filter(|line| line.contains(text)).count())
    }

    /// Where its record is.
    pub fn record(&self) -> PathBuf {
        self.home.join("audit")
    }

    /// What it holds now.
    pub fn held(&self) -> Held {
        Held::by(&self.process)
    }

    /// Waits until it holds no more than `base`, at most so long, and says what it holds then. Memory is not waited for.
    pub fn settled(&self, base: Held, wait: Duration) -> Held {
        let began = Instant::now();
        loop {
            let held = self.held();
            if held.descriptors <= base.descriptors && held.threads <= base.threads || began.elapsed() > wait {
                return held;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Has it end as an operator does. How it ended, and what it logged.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(self) -> io::Result<Ended> {
        let status = self.process.end(Signal::TERM, END_MAX)?;
        let log = fs::read_to_string(self.home.join("gateway.log"))?;
        Ok(Ended { status, log, record: self.home.join("audit") })
    }
}

/// A gateway that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it logged.
    pub log: String,
    /// Where its record is.
    pub record: PathBuf,
}

impl Ended {
    /// Lines of the log that tell of a panic.
    pub fn panics(&self) -> Vec<&str> {
        self.log.lines().filter(|line| line.contains("panicked") || line.contains("a panic; ")).collect()
    }

    /// How many lines of the log are errors, by what they say.
    pub fn errors(&self) -> std::collections::BTreeMap<String, u64> {
        #[derive(Deserialize)]
        struct Line {
            level: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            fields: serde_json::Value,
        }
        let mut errors = std::collections::BTreeMap::new();
        for line in self.log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if line.level == "ERROR" {
                let within = line.fields.get("message").and_then(|message| message.as_str()).unwrap_or_default();
                let message = if line.message.is_empty() { within.to_owned() } else { line.message };
                *errors.entry(message).or_default() += 1;
            }
        }
        errors
    }
}

/// An upstream that can be ended and comes back where it was.
#[derive(Debug)]
pub struct Upstream {
    program: PathBuf,
    directory: PathBuf,
    name: String,
    arguments: Vec<String>,
    /// Where it listens.
    pub address: SocketAddr,
    process: Option<Running>,
}

impl Upstream {
    /// Starts one. `name` is that of its log.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start(program: &Path, directory: &Path, name: &str, arguments: &[&str]) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut upstream = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            name: format!("upstream-{name}"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            address: lasting_address()?,
            process: None,
        };
        upstream.again()?;
        Ok(upstream)
    }

    /// Kills it, connections and all.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.take().map_or(Ok(()), |process| process.end(Signal::KILL, Duration::from_secs(10)).map(|_| ()))
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn again(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["--listen", &self.address.to_string()]).args(&self.arguments);
        self.process = Some(Running::start(&self.name, &mut command, self.address, &self.directory)?);
        Ok(())
    }

    /// Lets it do nothing, or go on. Its connections stay, and the system takes further ones for it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, paused: bool) -> io::Result<()> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Tells it how to fail, and for how long.
    ///
    /// # Errors
    /// When it does not hear.
    pub fn fail(&self, how: &str, ms: u64) -> io::Result<()> {
        let mut connection = Connection::new(self.address, FIGURES_MAX);
        let request = format!("GET /faults/{how}/{ms} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let answer = connection.send(request.as_bytes()).and_then(|()| connection.receive());
        match answer.map(|answer| answer.status) {
            Ok(200) => Ok(()),
            other => Err(io::Error::other(format!("the upstream does not take the fault `{how}`: {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_though_nobody_listens_there_yet() {
        let given: BTreeSet<_> = (0..1_000).map(|_| lasting_address().unwrap()).collect();
        assert_eq!(given.len(), 1_000);
    }
}
