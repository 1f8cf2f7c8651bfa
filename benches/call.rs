//! What does an enforced call cost, beside a proxy that only moves its bytes? `cargo bench --bench call`
//!
//! The same `tools/call` of 300 bytes through a bare Pingora proxy and through the gateway with everything on: key,
//! strict parse, tool matrix, three argument constraints, record at level `written`, metrics. CPU per call is the time
//! the proxy's threads were given (schedstat), so that a busy machine disturbs it least; rounds are interleaved, and the
//! figure is the median of the ratios of each round, with the interval that holds it at 95 %. All on loopback.
//! Budget: 1.25 times the bare proxy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

mod support;

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use support::Running;
use support::free_address;
use support::interval;
use support::median;
use support::serve_bare;
use support::whole_request;

const ROUNDS: usize = 21;
const CALLS: usize = 8_000;
const CONNECTIONS: usize = 16;
const BUDGET: f64 = 1.25;

const BODY: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"execute_query","arguments":{"#,
    r#""sql":"SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50","#,
    r#""database":"production","timeout_ms":5000,"read_only":true},"_meta":{"progressToken":"tok-8c1f","#,
    r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#
);
const ANSWER: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"result":{"content":[{"type":"text","text":"[{\"id\":1,\"name\":\"Ada Lovelace\","#,
    r#"\"email\":\"ada@example.org\"},{\"id\":2,\"name\":\"Alan Turing\",\"email\":\"alan@example.org\"},"#,
    r#"{\"id\":3,\"name\":\"Grace Hopper\",\"email\":\"grace@example.org\"}]"}],"isError":false}}"#
);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => serve_upstream(arguments[2].parse().unwrap()),
        Some("bare") => serve_bare(&arguments[2], arguments[3].parse().unwrap(), None),
        _ => compare(),
    }
}

/// Runs the rounds and prints the figures; ends with failure over budget.
fn compare() {
    let directory = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let (upstream, bare, gateway) = (free_address(), free_address(), free_address());
    let key = write_config(&directory, upstream, gateway);
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let _upstream = Running::start(own, &["upstream", &upstream.to_string()], upstream);
    let bare = (Running::start(own, &["bare", &bare.to_string(), &upstream.to_string()], bare), bare);
    let config = directory.join("portcullis.toml");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let gateway = (Running::start(env!("CARGO_BIN_EXE_portcullis"), &arguments, gateway), gateway);
    let request = request(&key);

    let (mut costs_bare, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let bare_took = cost(&bare.0, || load(bare.1, &request));
        let took = cost(&gateway.0, || load(gateway.1, &request));
        // The first round opens connections and warms caches.
        if round > 0 {
            costs_bare.push(bare_took);
            costs.push(took);
            ratios.push(took / bare_took);
        }
    }
    let (low, high) = interval(&mut ratios);
    let ratio = median(&mut ratios);
    println!("{ROUNDS} interleaved rounds of {CALLS} calls on {CONNECTIONS} connections, CPU per call, medians");
    println!("bare Pingora          {:6.1} us", median(&mut costs_bare));
    println!("Portcullis, enforced  {:6.1} us", median(&mut costs));
    println!("ratio                 {ratio:6.2}    [{low:.2} .. {high:.2}] at 95 %, budget {BUDGET}");
    drop(gateway);
    fs::remove_dir_all(&directory).unwrap();
    assert!(ratio <= BUDGET, "over budget");
}

/// Microseconds of CPU per call that `proxy` spent while `work` ran.
fn cost(proxy: &Running, work: impl FnOnce()) -> f64 {
    let before = proxy.cpu_nanos();
    work();
    (proxy.cpu_nanos() - before) as f64 / 1000.0 / CALLS as f64
}

/// Makes `CALLS` calls on `CONNECTIONS` kept connections.
fn load(address: SocketAddr, request: &str) {
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let mut connections: Vec<TcpStream> =
                    (0..CONNECTIONS / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
                for connection in &connections {
                    connection.set_nodelay(true).unwrap();
                }
                for _ in 0..CALLS / CONNECTIONS {
                    for connection in &mut connections {
                        connection.write_all(request.as_bytes()).unwrap();
                    }
                    for connection in &mut connections {
                        read_answer(connection);
                    }
                }
            });
        }
    });
}

fn read_answer(connection: &mut TcpStream) {
    let mut answer = Vec::with_capacity(2048);
    let mut chunk = [0; 4096];
    while !answer.ends_with(ANSWER.as_bytes()) {
        let read = connection.read(&mut chunk).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

fn request(key: &str) -> String {
    format!(
        "POST /mcp/database HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nUser-Agent: bench\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

fn write_config(directory: &Path, upstream: SocketAddr, gateway: SocketAddr) -> String {
    let made = portcullis::auth::key::generate("ptc").unwrap();
    let (admin, digest) = (free_address(), made.digest);
    let config = format!(
        r#"
        [listen]
        data = "{gateway}"
        admin = "{admin}"
        [audit]
        directory = "audit"
        segment_bytes_max = 1073741824
        [state]
        directory = "state"
        [servers.database]
        url = "http://{upstream}/mcp"
        blocked_tools = ["drop_*", "truncate_*"]
        [keys.bench]
        digest = "{digest}"
        mcp_servers = ["database"]
        agent = "analyst"
        [agents.analyst.servers.database]
        allowed_tools = ["execute_query", "list_*", "describe_table"]
        argument_constraints.execute_query = [
          {{ arg = "sql", pattern = '^\s*SELECT ' }},
          {{ arg = "database", pattern = '^(production|staging)$' }},
          {{ arg = "timeout_ms", pattern = '^[1-9][0-9]{{0,3}}$' }},
        ]
        "#
    );
    fs::write(directory.join("portcullis.toml"), config).unwrap();
    made.key.expose().to_owned()
}

/// Answers every POST with the same message, reading no more of it than its length.
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
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut held: Vec<u8> = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        while let Some(length) = whole_request(&held) {
            held.drain(..length);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => held.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
}
