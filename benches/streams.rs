//! What do event streams cost, beside a proxy that only moves their bytes? `cargo bench --bench streams`
//!
//! *Latency:* a server sends an event every 20 ms on each of 20 streams, with its time in the event; a client reads them
//! through a bare Pingora proxy and through the gateway, which screens each. No two events are sent at once: what is
//! measured is an event's way and no queue. Rounds take turns, so that what else the machine does meets both; the figure is
//! the median of the ratios of each round's median, with the interval that holds it at 95 %. Budget: 1.1 times bare.
//! *Memory:* 4,000 silent streams through each, held longer than a keep-alive comment takes, closed, and opened again in
//! the same process a minute later. Anonymous resident memory per stream, and how much of it is back after that minute.
//! Budget: 4 KiB more than bare, the first time and again, and nine tenths back.
//!
//! Each for answers to `tools/call` and for standing GET streams. `-- latency post`, `-- memory get 500` and the like
//! choose a part of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

mod support;

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use support::Running;
use support::free_address;
use support::interval;
use support::median;
use support::serve_bare;
use support::whole_request;

const STREAMS: usize = 20;
const EVENTS: usize = 50;
const ROUNDS: usize = 41;
const SPACING: Duration = Duration::from_millis(20);
const LATENCY_BUDGET: f64 = 1.1;

const IDLE_STREAMS: usize = 4_000;
/// Longer than the gateway leaves a stream without a comment.
const HOLD: Duration = Duration::from_secs(20);
const MEMORY_BUDGET_KIB: f64 = 4.0;
const GIVEN_BACK_MIN: f64 = 0.9;

const BODY: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"watch_table","arguments":{"#,
    r#""sql":"SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50","#,
    r#""database":"production","timeout_ms":5000,"read_only":true},"_meta":{"progressToken":"tok-8c1f","#,
    r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#
);
const STREAM_HEAD: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n",
    "Transfer-Encoding: chunked\r\n\r\n"
);

/// How a stream comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The answer to a `tools/call`.
    Post,
    /// A standing stream.
    Get,
}

impl Kind {
    fn request(self, path: &str, key: &str) -> String {
        let common = format!(
            "{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nMCP-Protocol-Version: 2025-11-25\r\nUser-Agent: bench\r\n"
        );
        match self {
            Self::Post => format!(
                "POST {common}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{BODY}",
                BODY.len()
            ),
            Self::Get => format!("GET {common}Accept: text/event-stream\r\n\r\n"),
        }
    }

    /// What the server says at `sent`: progress where there is a request, a log message where there is none.
    fn event(self, number: usize, sent: u128) -> String {
        match self {
            Self::Post => format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"tok-8c1f","progress":{number},"total":{EVENTS},"message":"rows of production.users seen so far; sent {sent}"}}}}"#
            ),
            Self::Get => format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","logger":"production.users","data":"row {number} of {EVENTS} seen; sent {sent}"}}}}"#
            ),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["upstream", listen] => serve_upstream(listen.parse().unwrap()),
        ["bare", listen, upstream] => serve_bare(listen, upstream.parse().unwrap(), None),
        _ => compare(&arguments),
    }
}

/// Measures what `chosen` names, or everything; ends with failure over budget.
fn compare(chosen: &[&str]) {
    let is_chosen = |name: &str, other: &str| chosen.contains(&name) || !chosen.contains(&other);
    let idle = chosen.iter().find_map(|argument| argument.parse().ok()).unwrap_or(IDLE_STREAMS);
    let mut over = Vec::new();
    for (kind, name, other) in [(Kind::Post, "post", "get"), (Kind::Get, "get", "post")] {
        if !is_chosen(name, other) {
            continue;
        }
        if is_chosen("latency", "memory") && latency(kind) > LATENCY_BUDGET {
            over.push(format!("{name} latency"));
        }
        if is_chosen("memory", "latency") {
            over.extend(memory(kind, idle).iter().map(|budget| format!("{name} {budget}")));
        }
    }
    assert!(over.is_empty(), "over budget: {over:?}");
}

/// Both proxies and the server behind them.
struct Stage {
    _upstream: Running,
    bare: Way,
    gateway: Way,
    directory: PathBuf,
}

/// One proxy, and how to ask through it.
struct Way {
    proxy: Running,
    address: SocketAddr,
    key: String,
    prefix: &'static str,
}

impl Stage {
    fn set() -> Self {
        let directory = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (upstream, bare, gateway) = (free_address(), free_address(), free_address());
        let key = write_config(&directory, upstream, gateway);
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let running = Running::start(own, &["upstream", &upstream.to_string()], upstream);
        let proxy = Running::start(own, &["bare", &bare.to_string(), &upstream.to_string()], bare);
        let bare = Way { proxy, address: bare, key: key.clone(), prefix: "" };
        let config = directory.join("portcullis.toml");
        let arguments = ["run", "--config", config.to_str().unwrap()];
        let proxy = Running::start(env!("CARGO_BIN_EXE_portcullis"), &arguments, gateway);
        let gateway = Way { proxy, address: gateway, key, prefix: "/mcp" };
        Self { _upstream: running, bare, gateway, directory }
    }

    /// One round of events on all streams, through bare and through the gateway; every other round the reverse.
    fn tick(&self, kind: Kind, round: usize) -> [Round; 2] {
        if round.is_multiple_of(2) {
            let bare = self.bare.tick(kind);
            return [bare, self.gateway.tick(kind)];
        }
        let gateway = self.gateway.tick(kind);
        [self.bare.tick(kind), gateway]
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left lies in the temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Times of events in nanoseconds, and CPU time of the proxy per event.
struct Round {
    took: Vec<f64>,
    cpu: f64,
}

/// Measures how long an event takes; the result is the ratio.
fn latency(kind: Kind) -> f64 {
    let stage = Stage::set();
    let (mut all_bare, mut all, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_bare, mut cpu, mut cpu_ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let [mut through_bare, mut through] = stage.tick(kind, round);
        // The first round opens connections and warms caches.
        if round > 0 {
            ratios.push(median(&mut through.took) / median(&mut through_bare.took));
            cpu_ratios.push(through.cpu / through_bare.cpu);
            cpu_bare.push(through_bare.cpu);
            cpu.push(through.cpu);
            all_bare.append(&mut through_bare.took);
            all.append(&mut through.took);
        }
    }
    let (low, high) = interval(&mut ratios);
    let ratio = median(&mut ratios);
    let (cpu_low, cpu_high) = interval(&mut cpu_ratios);
    println!(
        "{kind:?}: {ROUNDS} interleaved rounds of {STREAMS} streams with {EVENTS} events, one each {SPACING:?}; server to client"
    );
    println!("                       p50       p90       p99       CPU per event");
    for (name, times, cpu) in [("bare Pingora", &mut all_bare, &mut cpu_bare), ("Portcullis", &mut all, &mut cpu)] {
        times.sort_by(f64::total_cmp);
        let micros = |share: usize| times[times.len() * share / 100] / 1000.0;
        let cpu = median(cpu) / 1000.0;
        println!("{name:16} {:8.0} {:9.0} {:9.0} us {cpu:9.1} us", micros(50), micros(90), micros(99));
    }
    println!("ratio of p50      {ratio:6.2}    [{low:.2} .. {high:.2}] at 95 %, budget {LATENCY_BUDGET}");
    println!("ratio of CPU      {:6.2}    [{cpu_low:.2} .. {cpu_high:.2}] at 95 %", median(&mut cpu_ratios));
    ratio
}

/// Measures what silent streams hold; the result names the budgets that were not kept.
fn memory(kind: Kind, count: usize) -> Vec<&'static str> {
    let stage = Stage::set();
    let ways = [("bare Pingora", &stage.bare), ("Portcullis", &stage.gateway)];
    stage.tick(kind, 0);
    let before = ways.map(|(_, way)| way.anonymous_bytes());
    println!("{kind:?}: {count} silent streams, anonymous resident memory of the proxy");
    let mut broken = Vec::new();
    for budget in ["memory", "memory again"] {
        let open = ways.map(|(_, way)| (0..count).map(|_| way.open_silent(kind)).collect::<Vec<TcpStream>>());
        thread::sleep(HOLD);
        let held = ways.map(|(_, way)| way.anonymous_bytes());
        let each = [0, 1].map(|index| (held[index] - before[index]) / 1024.0 / count as f64);
        for (index, (name, _)) in ways.iter().enumerate() {
            let (before, held) = (mebi(before[index]), mebi(held[index]));
            println!("{name:16} before {before:7.1} MiB, open {held:7.1} MiB: {:6.1} KiB each", each[index]);
        }
        println!("more than bare   {:6.1} KiB each, budget {MEMORY_BUDGET_KIB}", each[1] - each[0]);
        if each[1] - each[0] > MEMORY_BUDGET_KIB {
            broken.push(budget);
        }
        drop(open);
        let closed = Instant::now();
        let mut back = [0.0; 2];
        for after in [1, 10, 20, 30, 45, 60].map(Duration::from_secs) {
            thread::sleep(after.saturating_sub(closed.elapsed()));
            for (index, (name, way)) in ways.iter().enumerate() {
                let now = way.anonymous_bytes();
                back[index] = (held[index] - now) / (held[index] - before[index]);
                let percent = back[index] * 100.0;
                println!("{name:16} {:2} s after closing {:7.1} MiB: {percent:3.0} % back", after.as_secs(), mebi(now));
            }
        }
        if back[1] < GIVEN_BACK_MIN {
            broken.push("memory given back");
        }
    }
    broken
}

fn mebi(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

impl Way {
    fn request(&self, kind: Kind, server: &str) -> String {
        kind.request(&format!("{}/{server}", self.prefix), &self.key)
    }

    /// One round of events on all streams.
    fn tick(&self, kind: Kind) -> Round {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let before = self.proxy.cpu_nanos();
        let took = runtime.block_on(async {
            let request = self.request(kind, "ticking");
            let streams: Vec<_> =
                (0..STREAMS).map(|_| tokio::spawn(read_events(self.address, request.clone()))).collect();
            let mut took = Vec::with_capacity(STREAMS * EVENTS);
            for stream in streams {
                took.append(&mut stream.await.unwrap());
            }
            took
        });
        assert_eq!(took.len(), STREAMS * EVENTS, "events are missing");
        Round { cpu: (self.proxy.cpu_nanos() - before) as f64 / took.len() as f64, took }
    }

    /// Opens a stream and returns once its first event has come.
    fn open_silent(&self, kind: Kind) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(self.request(kind, "silent").as_bytes()).unwrap();
        let mut held = Vec::new();
        let mut chunk = [0; 2048];
        while !held.windows(2).any(|window| window == b"\n\n") {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&held));
            held.extend_from_slice(&chunk[..read]);
        }
        assert!(held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&held));
        stream
    }

    fn anonymous_bytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.proxy.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }
}

/// Reads one stream to its end: how many nanoseconds each event took.
async fn read_events(address: SocketAddr, request: String) -> Vec<f64> {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut held, mut chunk) = (Vec::new(), [0; 4096]);
    let (mut took, mut head) = (Vec::with_capacity(EVENTS), Vec::new());
    while !held.ends_with(b"\r\n0\r\n\r\n") {
        let read = stream.read(&mut chunk).await.unwrap();
        let now = nanos();
        assert!(read > 0, "{}", String::from_utf8_lossy(&head));
        held.extend_from_slice(&chunk[..read]);
        if head.is_empty() {
            head.clone_from(&held);
        }
        while let Some(at) = held.windows(6).position(|window| window == b"; sent") {
            let Some(digits) = held.get(at + 7..at + 26) else { break };
            let sent: u128 = std::str::from_utf8(digits).unwrap().parse().unwrap();
            took.push((now - sent) as f64);
            held.drain(..at + 26);
        }
    }
    took
}

fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn write_config(directory: &Path, upstream: SocketAddr, gateway: SocketAddr) -> String {
    let made = portcullis::auth::key::generate("ptc").unwrap();
    let (admin, digest) = (free_address(), made.digest);
    let config = format!(
        r#"
        [listen]
        data = "{gateway}"
        admin = "{admin}"
        accepts_per_address_max = 1000000
        [audit]
        directory = "audit"
        segment_bytes_max = 1073741824
        [state]
        directory = "state"
        [servers.ticking]
        url = "http://{upstream}/ticking"
        blocked_tools = ["drop_*", "truncate_*"]
        [servers.silent]
        url = "http://{upstream}/silent"
        sse_read_timeout_ms = 600000
        pending_max = 20000
        blocked_tools = ["drop_*", "truncate_*"]
        [keys.bench]
        digest = "{digest}"
        mcp_servers = ["ticking", "silent"]
        agent = "analyst"
        [agents.analyst.servers.ticking]
        allowed_tools = ["watch_table", "list_*", "describe_table"]
        argument_constraints.watch_table = [{{ arg = "sql", pattern = '^\s*SELECT ' }}]
        [agents.analyst.servers.silent]
        allowed_tools = ["watch_table", "list_*", "describe_table"]
        argument_constraints.watch_table = [{{ arg = "sql", pattern = '^\s*SELECT ' }}]
        "#
    );
    fs::write(directory.join("portcullis.toml"), config).unwrap();
    made.key.expose().to_owned()
}

/// Answers every request with a stream: of events at `/ticking`, silent otherwise.
fn serve_upstream(listen: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(answer(stream));
        }
    });
}

async fn answer(mut stream: tokio::net::TcpStream) {
    let mut held: Vec<u8> = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        if let Some(length) = whole_request(&held) {
            let kind = if held.starts_with(b"POST") { Kind::Post } else { Kind::Get };
            let is_ticking = held[..length].windows(8).take(16).any(|window| window == b"/ticking");
            held.drain(..length);
            let begun = format!("{STREAM_HEAD}{}", chunked("id: 1\ndata:\n\n"));
            stream.write_all(begun.as_bytes()).await.unwrap();
            // A proxy that leaves ends this stream and no other.
            if is_ticking && tick(&mut stream, kind).await.is_err() {
                return;
            }
            continue;
        }
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => held.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
}

static EPOCH: OnceLock<Instant> = OnceLock::new();
static STREAMS_BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Sends the events of one stream and its end.
async fn tick(stream: &mut tokio::net::TcpStream, kind: Kind) -> std::io::Result<()> {
    // Each stream has a millisecond of its own: that is how finely timers tick.
    let slot = STREAMS_BEGUN.fetch_add(1, Ordering::Relaxed) % STREAMS;
    let first = EPOCH.get_or_init(Instant::now).elapsed().div_duration_f64(SPACING).ceil() as u32;
    let first = *EPOCH.get_or_init(Instant::now) + SPACING * first + SPACING / STREAMS as u32 * slot as u32;
    let mut interval = tokio::time::interval_at(first.into(), SPACING);
    for number in 0..EVENTS {
        interval.tick().await;
        let event = kind.event(number, nanos());
        stream.write_all(chunked(&format!("event: message\ndata: {event}\n\n")).as_bytes()).await?;
    }
    let mut end = String::new();
    if kind == Kind::Post {
        let answer = r#"{"jsonrpc":"2.0","id":42,"result":{"content":[{"type":"text","text":"all rows seen"}]}}"#;
        end = chunked(&format!("data: {answer}\n\n"));
    }
    stream.write_all(format!("{end}0\r\n\r\n").as_bytes()).await
}

fn chunked(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}
