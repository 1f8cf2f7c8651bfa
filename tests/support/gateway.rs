//! A gateway as a process of its own, on free loopback ports, with its own directories.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client;
use super::client::Answer;
use super::upstream::Upstream;

/// How long a gateway may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key as `portcullis keys create` makes it.
pub(crate) struct Key {
    pub(crate) key: String,
    pub(crate) digest: String,
}

impl Key {
    /// A configuration with one server, `a`, which this key may call.
    pub(crate) fn config(&self, upstream: &Upstream) -> String {
        format!(
            "[servers.a]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
            upstream.url(),
            self.digest
        )
    }

    /// A call to a tool of the server `a`, without arguments.
    pub(crate) fn call(&self, tool: &str) -> String {
        let body =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": {} } });
        client::post("/mcp/a", &[&format!("X-API-Key: {}", self.key)], &body.to_string())
    }
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    setup: Setup,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) directory: PathBuf,
}

/// How a gateway is started.
pub(crate) struct Setup {
    config: String,
    environment: Vec<(String, String)>,
    descriptors: Option<u64>,
    audit: String,
}

/// A gateway with this configuration; `[listen]` `data`, `admin` and a `queue_delay_ms_max` that is never met, `[audit]` and
/// `[state]` directories are added.
/// Keys of the `[listen]` table can be given as lines at the very top, before the first table header.
pub(crate) fn setup(config: &str) -> Setup {
    Setup { config: config.to_owned(), environment: Vec::new(), descriptors: None, audit: String::new() }
}

impl Setup {
    /// Starts it with a variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it with an allocator that gives back at once what is free: its peak is then what was in use, and not also what it
    /// kept for its next use, which differs by half from run to run.
    pub(crate) fn sparing(self) -> Self {
        self.variable("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
    }

    /// Starts it with a limit of open descriptors.
    pub(crate) fn descriptors(mut self, limit: u64) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Starts it with further lines in its `[audit]` table; a reload keeps them.
    pub(crate) fn audit(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.audit);
        self
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let mut gateway = self.spawn();
        gateway.wait_until_it_serves();
        gateway
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(self) -> Gateway {
        let (data, admin) = (free_address(), free_address());
        let directory = fresh_directory();
        write_config(&directory, data, admin, &self.audit, &self.config);
        let child = self.command(&directory).spawn().unwrap();
        Gateway { child, setup: self, data, admin, directory }
    }

    fn command(&self, directory: &Path) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
        let mut command = match self.descriptors {
            Some(limit) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), binary()]);
                command
            }
            None => Command::new(binary()),
        };
        command.args(["run", "--config"]).arg(directory.join("portcullis.toml"));
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }
}

impl Gateway {
    /// Starts a gateway with this configuration.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        setup(config).start()
    }

    fn wait_until_it_serves(&mut self) {
        let started = Instant::now();
        while !self.answers_a_probe() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "the gateway does not serve: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it answers, not only accepts: a start opens the port for a moment, to see whether it can.
    fn answers_a_probe(&self) -> bool {
        let Ok(mut stream) = std::net::TcpStream::connect(self.data) else { return false };
        if ["[listen.tls]", "proxy_protocol_from"].iter().any(|key| self.setup.config.contains(key)) {
            // A probe in the clear would be refused; the start's look at the port does not listen.
            return true;
        }
        let mut start = [0; 12];
        let asked = stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .and_then(|()| stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .and_then(|()| stream.read_exact(&mut start));
        asked.is_ok() && &start == b"HTTP/1.1 200"
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after its end, on the same addresses and directories, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        self.child = self.setup.command(&self.directory).spawn().unwrap();
        self.wait_until_it_serves();
    }

    /// Writes another configuration (the same tables are added), all at once, and does nothing else.
    pub(crate) fn write(&self, config: &str) {
        write_config(&self.directory, self.data, self.admin, &self.setup.audit, config);
    }

    /// Writes another configuration (the same tables are added) and asks for a reload, without waiting for it.
    pub(crate) fn reload(&self, config: &str) {
        self.write(config);
        self.signal("HUP");
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end by itself and returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the gateway does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the process is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has held so far.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.map(|kib: u64| kib * 1024).expect("a peak")
    }

    /// Everything it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Waits until the log contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    /// Every record written so far, in order.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut segments: Vec<PathBuf> =
            fs::read_dir(self.directory.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        segments.sort();
        let text: String = segments.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until so many records have this `kind`, and returns all of them; fails if there are more.
    pub(crate) fn wait_for_records(&self, kind: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        wait_until(kind, || {
            found = self.records().into_iter().filter(|record| record["kind"] == kind).collect();
            found.len() >= count
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// Waits until a record has this `kind` and `matches`, and returns the first such record.
    pub(crate) fn wait_for_record(&self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_until(kind, || {
            found = self.records().into_iter().find(|record| record["kind"] == kind && matches(record));
            found.is_some()
        });
        found.unwrap()
    }

    /// `GET /metrics` of the admin listener.
    pub(crate) async fn metrics(&self) -> String {
        client::send(self.admin, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.text()
    }

    /// Whatever a test has a gateway refuse, it is counted under the word that is on record. One that has ended, or is made not to
    /// answer, is not asked.
    fn assert_that_every_refusal_has_its_word(&self) {
        let asked = || {
            let mut stream = std::net::TcpStream::connect_timeout(&self.admin, Duration::from_millis(200))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        let text: std::io::Result<String> = asked();
        let nameless = "portcullis_refusals_total{reason=\"_other\"} ";
        let told =
            text.ok().and_then(|text| text.lines().find_map(|line| Some(line.strip_prefix(nameless)?.to_owned())));
        assert!(told.is_none_or(|count| count == "0"), "refusals without a word: `gateway::REFUSALS` lacks one");
    }

    /// The value of one metric line, labels included as written: `portcullis_streams`, `portcullis_x{a="b"}`.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        self.metrics().await.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
    }

    /// Posts a JSON-RPC message with the usual headers and some more (`"Name: value"`).
    pub(crate) async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        client::send(self.data, &client::post(path, headers, body)).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_that_every_refusal_has_its_word();
        }
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The program under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_portcullis")
}

/// Runs the program to its end: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Makes a key as an operator would.
pub(crate) fn make_key(name: &str) -> Key {
    let (code, out, error) = run(&["keys", "create", "--name", name, "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let made: Value = serde_json::from_str(&out).unwrap();
    Key { key: made["key"].as_str().unwrap().to_owned(), digest: made["digest"].as_str().unwrap().to_owned() }
}

/// Waits up to ten seconds for something to become true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a day that is about to end: what it has used must not end in the middle of a test.
pub(crate) fn wait_for_midnight() {
    const DAY: u64 = 24 * 60 * 60;
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % DAY;
    if today > DAY - 60 {
        std::thread::sleep(Duration::from_secs(DAY + 1 - today));
    }
}

/// Waits until nobody is connected to the gateway that tells its metrics at `admin`: what looked whether it serves may still
/// be counted.
pub(crate) async fn wait_until_left(admin: SocketAddr) {
    const ASK: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // It may serve already and not listen to operators yet.
    let metrics = async || {
        let (mut stream, mut text) = (TcpStream::connect(admin).await?, String::new());
        stream.write_all(ASK).await?;
        stream.read_to_string(&mut text).await.map(|_| text)
    };
    let started = Instant::now();
    while !metrics().await.is_ok_and(|text| text.lines().any(|line| line == "portcullis_connections 0")) {
        assert!(started.elapsed() < PATIENCE, "somebody stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A directory of this test alone.
pub(crate) fn fresh_directory() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("portcullis-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    directory
}

fn write_config(directory: &Path, data: SocketAddr, admin: SocketAddr, audit: &str, config: &str) {
    let is_table = |line: &str| line.trim_start().starts_with('[');
    let listen_bytes: usize = config.split_inclusive('\n').take_while(|line| !is_table(line)).map(str::len).sum();
    let (listen, tables) = config.split_at(listen_bytes);
    // Gateways beside other tests are not always run in time, and would then rightly put off what a test asks for.
    let delay = if listen.contains("queue_delay_ms_max") { "" } else { "queue_delay_ms_max = 60000\n" };
    let text = format!(
        "[listen]\ndata = \"{data}\"\nadmin = \"{admin}\"\n{listen}\n{delay}[audit]\ndirectory = \"audit\"\n{audit}\n[state]\ndirectory = \"state\"\n{tables}"
    );
    // A reader that is just at it sees the old file or the new one.
    fs::write(directory.join("portcullis.toml.new"), text).unwrap();
    fs::rename(directory.join("portcullis.toml.new"), directory.join("portcullis.toml")).unwrap();
}

/// An address that nobody listens on, no other test of this process is given, and the system gives to no outgoing
/// connection.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = u64::from(std::process::id()) * 331;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
