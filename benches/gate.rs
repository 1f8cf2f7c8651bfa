//! What does the gate in front of Pingora cost? `cargo bench --bench gate`
//!
//! The head of a call judged on its raw bytes; the same call read from a stream in memory, with the gate around it and
//! without; and what a connection costs before anything is read. Budget: a request through the gate costs 1 µs more.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

mod cases;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use pingora::protocols::Stream;
use portcullis::transport::admission;
use portcullis::transport::admission::Admission;
use portcullis::transport::arrival::Front;
use portcullis::transport::buffers::Buffers;
use portcullis::transport::chunks::Chunks;
use portcullis::transport::connection::Connection;
use portcullis::transport::connection::Stage;
use portcullis::transport::gate_io::GateIo;
use portcullis::transport::gate_io::Gatekeeper;
use portcullis::transport::gate_io::Limits;
use portcullis::transport::gate_io::Refused;
use portcullis::transport::head;
use portcullis::transport::head::Framing;
use portcullis::transport::pace::Pace;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use cases::Case;

/// What a request through the gate may cost, in nanoseconds.
const BUDGET_NS: f64 = 1000.0;
/// Operations that are timed together, and how often.
const BATCH: u32 = 100;
const BATCHES: usize = 3_000;

const HEAD_LIMITS: head::Limits =
    head::Limits { count_max: 64, block_bytes_max: 16_384, line_bytes_max: 8192, target_bytes_max: 4096 };
const ADDRESS_LIMITS: admission::Limits =
    admission::Limits { per_address_max: Some(1000), accepts_per_second_max: 1_000_000 };

fn main() {
    let [bare, gated] = streams().map(|mut case| told(&mut case));
    println!("{:<48} {:>9.0} ns", "gate, what it adds", gated - bare);
    for mut case in judging() {
        told(&mut case);
    }
    assert!(gated - bare <= BUDGET_NS, "over its budget of {BUDGET_NS} ns");
}

/// Tells, and returns, what one operation takes: of short batches the fastest, as what differs by chance only adds.
fn told(case: &mut Case) -> f64 {
    let batch = || {
        let started = Instant::now();
        (0..BATCH).for_each(|_| case.run());
        started.elapsed().as_nanos() as f64 / f64::from(BATCH)
    };
    let nanos = std::iter::repeat_with(batch).take(BATCHES).fold(f64::INFINITY, f64::min);
    println!("{:<48} {nanos:>9.0} ns", case.name);
    nanos
}

/// The head that an SDK of today sends, and a body of 300 bytes.
fn call() -> Vec<u8> {
    let body = "x".repeat(300);
    let lines = [
        "Host: mcp.example.com",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        "Authorization: Bearer pk1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "MCP-Protocol-Version: 2026-07-28",
        "Mcp-Method: tools/call",
        "Mcp-Name: execute_query",
        "User-Agent: example-client/1.2.3",
        "Content-Length: 300",
    ];
    format!("POST /mcp/database HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// Judging alone.
fn judging() -> Vec<Case> {
    let call = call();
    let chunks = b"12c\r\n".iter().chain(&[b'x'; 300]).chain(b"\r\n0\r\n\r\n").copied().collect::<Vec<u8>>();
    let admission = Admission::new(1000);
    vec![
        Case::new("gate, judge the head of a call", 500, move || {
            let end = head::end(black_box(&call), 0).unwrap();
            assert_eq!(head::judge(&call[..end], &HEAD_LIMITS), Ok(Framing::Length(300)));
        }),
        Case::new("gate, judge a chunked body of 300 bytes", 500, move || {
            let mut body = Chunks::new();
            assert_eq!(body.feed(black_box(&chunks)), Ok(chunks.len()));
            assert!(body.is_done());
        }),
        Case::new("gate, admit a connection", 500, move || {
            let mut place = admission.open().unwrap();
            assert!(place.count_for(black_box([10, 0, 0, 1].into()), &ADDRESS_LIMITS).is_ok());
        }),
    ]
}

/// Reading a call from a stream in memory: as it is, and through the gate.
fn streams() -> [Case; 2] {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let executor = fresh_executor();
    let mut bare: Stream = Box::new(server);
    let sent = call();
    let mut received = vec![0; sent.len()];
    let unjudged = Case::new("gate, read a call without it", 200, move || {
        executor.block_on(pass(&mut client, &mut bare, &sent, &mut received));
    });

    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let executor = fresh_executor();
    let connection = Arc::new(Connection::new(None));
    let guard = executor.enter();
    let mut gated: Stream =
        Box::new(GateIo::new(Box::new(server), Arc::clone(&connection), Arc::new(Open(Buffers::new(usize::MAX)))));
    drop(guard);
    let sent = call();
    let mut received = vec![0; sent.len()];
    let judged = Case::new("gate, read a call through it", 200, move || {
        executor.block_on(pass(&mut client, &mut gated, &sent, &mut received));
        assert_eq!(connection.stage(), Stage::Body);
        connection.enter(Stage::Head);
    });
    [unjudged, judged]
}

fn fresh_executor() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

async fn pass(client: &mut DuplexStream, server: &mut Stream, sent: &[u8], received: &mut [u8]) {
    client.write_all(sent).await.unwrap();
    server.read_exact(received).await.unwrap();
    assert_eq!(received, sent);
}

/// Lets everything through.
struct Open(Arc<Buffers>);

impl Gatekeeper for Open {
    fn is_open(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        let second = Duration::from_secs(1);
        let write = Pace { patience: second, bytes_per_second_min: 1 };
        Limits {
            address: ADDRESS_LIMITS,
            head: HEAD_LIMITS,
            requests_max: u64::MAX,
            timeout: second,
            idle: second,
            write,
        }
    }

    fn buffers(&self) -> &Arc<Buffers> {
        &self.0
    }

    fn front(&self) -> Arc<Front> {
        Arc::default()
    }

    fn is_itself(&self, _connection: &Connection) -> bool {
        false
    }

    fn dropped(&self, _connection: &Connection, reason: &'static str) {
        panic!("{reason}")
    }

    fn draining(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    fn refused(&self, _connection: &Connection, refusal: &head::Refusal, _head: &[u8]) -> Refused {
        panic!("{}", refusal.text)
    }
}
