//! What does a whole request through the gateway cost?
//!
//! The gateway serves in a child, as `portcullis run` does, with one worker thread. Requests come one after the other on
//! one connection, from here; the upstream answers from here as well. Before and after a number of requests a byte is
//! sent to the child, which marks the place and says how many allocations there were. What its other threads do
//! meanwhile, such as looking at the clock, is counted with it.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::allocations;
use crate::baseline::Counts;
use crate::callgrind::Counted;
use crate::cases;
use crate::mark::guard_mark;

/// Requests before those that count: connections are opened, tables filled, buffers grown.
const WARM_UPS: usize = 60;
/// Requests that count.
const REQUESTS: usize = 200;
/// After the last byte of an answer the gateway still puts its result on record, and signs the record, which it does every half
/// second: all of that is to be counted with the requests it belongs to, however slowly it goes here.
const SETTLED: Duration = Duration::from_millis(2_000);
/// How long a child may take to start, or to mark a place.
const PATIENCE: Duration = Duration::from_secs(120);

const BLOCKED: &str =
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"drop_table","arguments":{"table":"users"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/list","params":{}}"#;
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"guard","version":"1"}}}"#
);
const MODERN: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"execute_query","arguments":{"#,
    r#""sql":"SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50","#,
    r#""database":"production","timeout_ms":5000},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"guard","version":"1"}}}}"#
);

/// The gateway, as its own program runs it, with a thread that marks places when it is told to.
pub(crate) fn serve() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin().read_exact(&mut byte).is_ok() {
            let count = allocations::count();
            guard_mark();
            println!("{count}");
        }
        // Whoever asked is gone.
        std::process::exit(0);
    });
    portcullis::cli::run()
}

/// One kind of request.
struct Kind {
    name: &'static str,
    request: String,
    status: &'static str,
}

/// What each kind of request costs whose name holds `only`.
pub(crate) fn measure(directory: &Path, only: Option<&str>) -> Vec<Counts> {
    let upstream = serve_upstream();
    let [gateway, admin] = free_addresses();
    let key = write_config(directory, upstream, gateway, admin);
    let config = directory.join("portcullis.toml");
    let mut child = Marked::start(directory, &["run", "--config", config.to_str().unwrap()]);
    let mut client = Client::connect(gateway);
    let session = client.begin_session(&key);
    let chosen = kinds(&key, &session).into_iter().filter(|kind| only.is_none_or(|only| kind.name.contains(only)));
    let mut counts = Vec::new();
    for kind in chosen {
        client.repeat(&kind, WARM_UPS);
        let before = child.mark();
        client.repeat(&kind, REQUESTS);
        let after = child.mark();
        counts.push((kind.name, after - before));
    }
    drop(client);
    let parts = child.end();
    let requests = REQUESTS as f64;
    let counts = counts.into_iter().zip(parts.chunks(2));
    counts
        .map(|((name, allocations), parts)| Counts {
            name: name.to_owned(),
            instructions: parts[1] as f64 / requests,
            allocations: allocations as f64 / requests,
        })
        .collect()
}

fn kinds(key: &str, session: &str) -> Vec<Kind> {
    let legacy = "MCP-Protocol-Version: 2025-11-25\r\n";
    let modern = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: execute_query\r\n";
    let in_session = format!("{legacy}Mcp-Session-Id: {session}\r\n");
    let call = cases::scan::CALL;
    let streamed = call.replace("production", "staging");
    let kind = |name, headers: &str, body: &str, status| Kind {
        name,
        request: request("database", key, headers, body),
        status,
    };
    vec![
        kind("request, tools/call", legacy, call, "200"),
        kind("request, tools/call in a session", &in_session, call, "200"),
        kind("request, tools/call of 2026-07-28", modern, MODERN, "200"),
        kind("request, tools/call answered by an event stream", legacy, &streamed, "200"),
        kind("request, tools/call refused", legacy, BLOCKED, "200"),
        kind("request, tools/list of 100 tools", legacy, LIST, "200"),
        kind("request, initialize", "", INITIALIZE, "200"),
        Kind { name: "request, no key", request: request("database", "pcl_none", legacy, call), status: "401" },
    ]
}

fn request(server: &str, key: &str, headers: &str, body: &str) -> String {
    format!(
        "POST /mcp/{server} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}User-Agent: guard\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The child, and the pipe on which it says what it counted.
struct Marked {
    counted: Counted,
    said: BufReader<std::process::ChildStdout>,
}

impl Marked {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut counted = Counted::start(directory, arguments);
        let said = BufReader::new(counted.child.stdout.take().unwrap());
        Self { counted, said }
    }

    /// Marks the place; how many allocations there were until now.
    fn mark(&mut self) -> u64 {
        thread::sleep(SETTLED);
        self.counted.child.stdin.as_mut().unwrap().write_all(b"m").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// Ends the child. What was counted between the marks.
    fn end(mut self) -> Vec<u64> {
        drop(self.counted.child.stdin.take());
        self.counted.child.wait().unwrap();
        self.counted.parts()
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.counted.child.kill();
        let _ = self.counted.child.wait();
    }
}

/// One connection to the gateway, opened anew where the gateway closes it.
struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let started = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Self { address, stream: BufReader::new(stream) };
                }
                Err(error) => assert!(started.elapsed() < PATIENCE, "the gateway does not serve: {error}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn repeat(&mut self, kind: &Kind, times: usize) {
        for _ in 0..times {
            let (head, body) = self.ask(&kind.request);
            let expected = format!("HTTP/1.1 {}", kind.status);
            assert!(head.starts_with(&expected), "{}: {head}{}", kind.name, String::from_utf8_lossy(&body));
        }
    }

    fn begin_session(&mut self, key: &str) -> String {
        let (head, _) = self.ask(&request("database", key, "", INITIALIZE));
        let session = head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("mcp-session-id")));
        session.expect("the answer begins a session").1.to_owned()
    }

    /// Sends `request` and reads its answer to the end.
    fn ask(&mut self, request: &str) -> (String, Vec<u8>) {
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (head, body) = read_message(&mut self.stream).expect("an answer");
        if head.to_ascii_lowercase().contains("connection: close") {
            *self = Self::connect(self.address);
        }
        (head, body)
    }
}

/// Reads a whole HTTP message: by its length, or chunk by chunk. `None` at the end of the connection.
fn read_message(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return Some((head, body));
            }
        }
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.resize(length.map_or(0, |length| length.trim().parse().unwrap()), 0);
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Answers every message in one write, at once.
fn serve_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some((_, body)) = read_message(&mut stream) {
                    let answer = answer(&String::from_utf8(body).unwrap());
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

/// What the upstream answers, by what stands in the request.
fn answer(asked: &str) -> String {
    let rows = r#"{"content":[{"type":"text","text":"[{\"id\":1,\"name\":\"Ada Lovelace\"}]"}],"isError":false}"#;
    let typed = rows.replacen('{', r#"{"resultType":"complete","#, 1);
    let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":42,"result":{result}}}"#);
    let json = |headers: &str, body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    if asked.contains(r#""initialize""#) {
        let body = result(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"guarded","version":"1"}}"#,
        );
        return json("Mcp-Session-Id: 3fa85f64-5717-4562-b3fc-2c963f66afa6\r\n", &body);
    }
    if asked.contains(r#""tools/list""#) {
        let list = String::from_utf8(cases::screen::list(100).into()).unwrap();
        return json("", &list.replacen(r#""id":1"#, r#""id":42"#, 1));
    }
    if asked.contains("staging") {
        let event = format!("event: message\ndata: {}\n\n", result(rows));
        return format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n",
            event.len()
        );
    }
    json("", &result(if asked.contains("2026-07-28") { &typed } else { rows }))
}

/// Two addresses that nobody listens on. One port is given twice only if the first is let go before the second is asked for.
fn free_addresses() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn write_config(directory: &Path, upstream: SocketAddr, gateway: SocketAddr, admin: SocketAddr) -> String {
    let made = portcullis::auth::key::generate("ptc").unwrap();
    let (digest, at) = (made.digest, directory.display());
    let config = format!(
        r#"
        [listen]
        data = "{gateway}"
        admin = "{admin}"
        threads = 1
        [audit]
        directory = "{at}/audit"
        segment_bytes_max = 1073741824
        [state]
        directory = "{at}/state"
        [servers.database]
        url = "http://{upstream}/mcp"
        blocked_tools = ["drop_*", "*_7"]
        [keys.guard]
        digest = "{digest}"
        mcp_servers = ["database"]
        agent = "analyst"
        [agents.analyst.servers.database]
        allowed_tools = ["execute_query", "search_*", "describe_table"]
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
