//! Limits of connections, slow peers, and what becomes of requests when the gateway has too much to do.
//!
//! Small forms of attacks: each ends within seconds, and what it may cost at most is asserted.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const CANCEL: &str = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
const PROBE: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

/// A gateway with these keys in `[listen]` in front of a server that is open to everybody.
fn start_in_front_of(url: &str, listen: &str) -> Gateway {
    let config = format!("{listen}\n[servers.open]\nurl = \"{url}\"\naccess = \"public\"\n");
    gateway::setup(&config).sparing().start()
}

async fn start_with(listen: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let gateway = start_in_front_of(&upstream.url(), listen);
    (upstream, gateway)
}

fn call() -> String {
    client::post("/mcp/open", &[], CALL)
}

/// Sends a request from an address on a connection of its own, which the other side ends if it refuses it.
async fn from(number: usize, gateway: &Gateway, request: &str) -> (Connection, Answer) {
    let mut connection = Connection::open_from(client::source(number), gateway.data).await;
    connection.write(request).await;
    let answer = connection.answer().await.expect("an answer");
    (connection, answer)
}

/// How many refusals for this reason are on record, those that were only counted included.
fn refused(gateway: &Gateway, reason: &str) -> u64 {
    let records = gateway.records();
    let own = records.iter().filter(|record| record["reason"] == reason);
    own.map(|record| record["count"].as_u64().unwrap_or(1)).sum()
}

/// Waits until the record and the metrics have so many refusals for this reason.
async fn assert_refused(gateway: &Gateway, reason: &str, count: u64) {
    gateway::wait_until(reason, || refused(gateway, reason) >= count);
    assert_eq!(refused(gateway, reason), count);
    let line = format!("portcullis_refusals_total{{reason=\"{reason}\"}}");
    assert_eq!(gateway.metric(&line).await, Some(count as f64));
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_others_have_theirs() {
    let (upstream, gateway) = start_with("connections_per_address_max = 3").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (connection, answer) = from(1, &gateway, PROBE).await;
        assert_eq!(answer.status, 200);
        held.push(connection);
    }
    for _ in 0..4 {
        let (mut refused, answer) = from(1, &gateway, &call()).await;
        assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (429, Some(-32603), Some("1")));
        assert!(answer.text().contains("from this address") && answer.complete, "{}", answer.text());
        assert_eq!(refused.remainder(SOON).await, Some(Vec::new()));
    }
    assert_eq!(from(2, &gateway, &call()).await.1.status, 200, "others are served");
    held[0].write(call()).await;
    assert_eq!(held[0].answer().await.unwrap().status, 200, "and so are those that are held");
    assert_refused(&gateway, "connections_per_address_max", 4).await;
    assert_eq!(upstream.requests().len(), 2);
    drop(held);
    let started = Instant::now();
    while from(1, &gateway, &call()).await.1.status != 200 {
        assert!(started.elapsed() < SOON, "places are given up with their connections");
    }
    // A reload changes it for the connections that come next.
    gateway.reload(&format!(
        "connections_per_address_max = 1\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n",
        upstream.url()
    ));
    gateway.wait_for_log("configuration reloaded");
    let started = Instant::now();
    let _only = loop {
        let (connection, answer) = from(3, &gateway, PROBE).await;
        if answer.status == 200 {
            break connection;
        }
        assert!(started.elapsed() < SOON);
    };
    assert_eq!(from(3, &gateway, PROBE).await.1.status, 429);
}

#[tokio::test]
async fn one_address_opens_connections_no_faster_than_it_may() {
    let (_upstream, gateway) = start_with("accepts_per_address_max = 10").await;
    let mut statuses = Vec::new();
    let started = Instant::now();
    for _ in 0..40 {
        statuses.push(from(1, &gateway, PROBE).await.1.status);
    }
    let took = started.elapsed();
    let served = statuses.iter().filter(|status| **status == 200).count();
    let most = 10 + 10 * (took.as_millis() as usize + 100) / 1000;
    assert!((10..=most).contains(&served), "{served} in {took:?}: {statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert_eq!(from(2, &gateway, PROBE).await.1.status, 200, "others are served");
    assert_refused(&gateway, "accepts_per_address_max", 40 - served as u64).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(from(1, &gateway, PROBE).await.1.status, 200);
}

#[tokio::test]
async fn a_unix_socket_knows_no_addresses_and_has_only_the_limit_of_all() {
    let directory = gateway::fresh_directory();
    let socket = directory.join("data.sock");
    let admin = gateway::free_address();
    let listen = format!(
        "[listen]\ndata = \"unix:{}\"\nadmin = \"{admin}\"\nconnections_max = 20\nconnections_per_address_max = 1\naccepts_per_address_max = 1\n",
        socket.display()
    );
    let file = directory.join("portcullis.toml");
    fs::write(&file, format!("{listen}[audit]\ndirectory = \"audit\"\n[state]\ndirectory = \"state\"\n")).unwrap();
    let process =
        Process::spawn(Command::new(gateway::binary()).args(["run", "--config"]).arg(&file), &directory.join("log"));
    gateway::wait_until("it serves", || UnixStream::connect(&socket).is_ok());
    gateway::wait_until_left(admin).await;
    let ask = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(PROBE.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        (stream, String::from_utf8_lossy(&start).into_owned())
    };
    let held: Vec<_> = (0..20).map(|_| ask()).collect();
    assert!(held.iter().all(|(_, start)| start == "HTTP/1.1 200"), "{held:?}");
    assert_eq!(ask().1, "HTTP/1.1 503");
    // Or it would write into its directory while that is removed.
    drop((held, process));
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_connection_ends_after_so_many_requests_and_says_so() {
    let (upstream, gateway) = start_with("requests_per_connection_max = 3").await;
    let mut connection = Connection::open(gateway.data).await;
    connection.write((0..5).map(|_| call()).collect::<String>()).await;
    for number in 1..=3 {
        let answer = connection.answer().await.expect("an answer");
        let closes = answer.header("connection") == Some("close");
        assert_eq!((answer.status, closes), (200, number == 3), "{number}");
    }
    assert_eq!(connection.remainder(SOON).await, Some(Vec::new()));
    assert_eq!(upstream.requests().len(), 3, "what was sent ahead was carried out by nobody");
    assert_eq!(client::send(gateway.data, call()).await.status, 200);
}

/// Descriptors that the process has open.
fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

#[tokio::test]
async fn a_flood_of_refused_connections_takes_few_descriptors_and_each_is_counted() {
    let (_upstream, mut gateway) = start_with("connections_max = 2").await;
    gateway::wait_until_left(gateway.admin).await;
    let before = descriptors(&gateway);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(from(1, &gateway, PROBE).await.0);
    }
    let mut flood = Vec::new();
    for _ in 0..300 {
        // They neither read nor close.
        flood.push(TcpStream::connect(gateway.data).await.unwrap());
    }
    // While those that are told may still take a second, all others are gone once their turn came.
    let mut least = usize::MAX;
    for _ in 0..30 {
        least = least.min(descriptors(&gateway));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Those that are served, those that are being told, and a few that the process opened meanwhile.
    assert!(least <= before + 2 + 64 + 8, "{least} descriptors, {before} before");
    gateway::wait_until("all are on record", || refused(&gateway, "connections_max") >= 300);
    drop(flood);
    held[0].write(call()).await;
    assert_eq!(held[0].answer().await.unwrap().status, 200);
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn many_heads_of_the_most_bytes_cost_little_and_nobody_else_waits() {
    let (_upstream, gateway) = start_with("header_timeout_ms = 20000").await;
    let before = gateway.peak_memory_bytes();
    // The largest heads that are not whole yet.
    let head =
        format!("POST /mcp/open HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\nX-B: {}", "a".repeat(8000), "b".repeat(8000));
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut connection = Connection::open(gateway.data).await;
        connection.write(&head).await;
        open.push(connection);
    }
    wait_for_buffered(&gateway, 400.0 * head.len() as f64).await;
    let asked = Instant::now();
    assert_eq!(client::send(gateway.data, call()).await.status, 200);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let grown = gateway.peak_memory_bytes() - before;
    assert!(grown < 48 * MIB, "{} KiB for 400 heads", grown / 1024);
    drop(open);
    wait_for_buffered(&gateway, 0.0).await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_ended_and_one_that_keeps_its_pace_is_not() {
    let (upstream, gateway) = start_with("").await;
    let body = CALL.replace("{}}}", &format!("{{\"a\":\"{}\"}}}}}}", "x".repeat(14_000)));
    let drip = |bytes: usize| {
        let (body, data) = (body.clone(), gateway.data);
        async move {
            let request = client::post("/mcp/open", &[], &body);
            let (head, body) = request.split_at(request.len() - body.len());
            let mut connection = Connection::open(data).await;
            connection.write(head).await;
            let started = Instant::now();
            for piece in body.as_bytes().chunks(bytes) {
                connection.write(piece).await;
                let answered = tokio::time::timeout(Duration::from_millis(250), connection.stream.peek(&mut [0])).await;
                if answered.is_ok() {
                    break;
                }
            }
            (connection.answer().await.expect("an answer"), started.elapsed())
        }
    };
    let ((slow, slow_took), (fast, fast_took)) = tokio::join!(drip(64), drip(512));
    assert_eq!((slow.status, slow.code()), (408, Some(-32600)), "{}", slow.text());
    assert!(slow.text().contains("too slowly"), "{}", slow.text());
    // 256 bytes a second: about a quarter of a second beyond the first five seconds for each second that they last.
    assert!(slow_took > Duration::from_secs(5) && slow_took < Duration::from_secs(10), "{slow_took:?}");
    assert_eq!(fast.status, 200, "{}", fast.text());
    assert!(fast_took > Duration::from_secs(6), "{fast_took:?}");
    assert_refused(&gateway, "body_too_slow", 1).await;
    assert_eq!(upstream.requests().len(), 1);
}

/// A request of which so many bytes of a larger body have come.
async fn upload(gateway: &Gateway, bytes: usize) -> Connection {
    let mut connection = Connection::open(gateway.data).await;
    let head = client::post("/mcp/open", &["Content-Length: 600000"], "").replace("Content-Length: 0\r\n", "");
    connection.write(head).await;
    connection.write("x".repeat(bytes)).await;
    connection
}

async fn wait_for_buffered(gateway: &Gateway, bytes: f64) {
    let started = Instant::now();
    loop {
        let held = gateway.metric("portcullis_buffered_bytes").await.unwrap();
        if held == bytes {
            return;
        }
        assert!(started.elapsed() < SOON, "{held} bytes are held, not {bytes}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[track_caller]
fn assert_put_off(answer: &Answer, text: &str) {
    assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (503, Some(-32603), Some("1")), "{text}");
    assert!(answer.text().contains("nothing was done"), "{text}: {}", answer.text());
}

#[tokio::test]
async fn under_pressure_new_work_is_put_off_first_then_calls_and_probes_and_pings_never() {
    let (upstream, gateway) = start_with("buffered_bytes_max = 1000000\nbody_bytes_max = 650000").await;
    let status = |body: &'static str| {
        let gateway = &gateway;
        async move { gateway.post("/mcp/open", &[], body).await }
    };
    let listen = "GET /mcp/open HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    let first = upload(&gateway, 400_000).await;
    wait_for_buffered(&gateway, 400_000.0).await;
    assert_eq!(status(LIST).await.status, 200);
    // Beyond half of it.
    let second = upload(&gateway, 200_000).await;
    wait_for_buffered(&gateway, 600_000.0).await;
    assert_put_off(&status(LIST).await, "a list");
    assert_put_off(&client::send(gateway.data, listen).await, "a stream");
    assert_eq!(status(CALL).await.status, 200);
    // Beyond three quarters: nothing large comes in any more, and what comes in is put off.
    let third = upload(&gateway, 149_999).await;
    wait_for_buffered(&gateway, 749_999.0).await;
    let mut fourth = upload(&gateway, 100_000).await;
    assert_put_off(&fourth.answer().await.unwrap(), "a large body");
    let small = upload(&gateway, 4000).await;
    wait_for_buffered(&gateway, 753_999.0).await;
    assert_put_off(&status(CALL).await, "a call");
    assert_put_off(&status(LIST).await, "a list");
    let sent = upstream.requests().len();
    assert_eq!(status(PING).await.status, 200);
    assert_eq!(status(CANCEL).await.status, 202);
    assert_eq!(client::send(gateway.data, PROBE).await.status, 200);
    assert_eq!(upstream.requests().len(), sent + 2, "only the ping and the notification");
    drop((first, second, third, small));
    wait_for_buffered(&gateway, 0.0).await;
    assert_eq!((status(LIST).await.status, status(CALL).await.status), (200, 200));
    assert_refused(&gateway, "buffered_bytes_max", 5).await;
}

/// Or a flood would keep itself out: bodies that nobody reads on take the room of those that could be served.
#[tokio::test]
async fn a_body_that_is_refused_leaves_its_room_at_once_and_a_whole_one_has_found_its() {
    let (_upstream, gateway) = start_with("buffered_bytes_max = 1000000\nbody_bytes_max = 600000").await;
    let coming = (upload(&gateway, 300_000).await, upload(&gateway, 400_000).await);
    wait_for_buffered(&gateway, 700_000.0).await;
    let mut refused = upload(&gateway, 40_000).await;
    wait_for_buffered(&gateway, 740_000.0).await;
    refused.write("x".repeat(20_000)).await;
    assert_put_off(&refused.answer().await.unwrap(), "a large body");
    let held = gateway.metric("portcullis_buffered_bytes").await.unwrap();
    assert_eq!(held, 700_000.0, "while the rest of the refused body is still waited for");
    let padding = "x".repeat(50_000 - CALL.len() - r#""a":"""#.len());
    let whole = CALL.replace("{}}}", &format!(r#"{{"a":"{padding}"}}}}}}"#));
    assert_eq!(whole.len(), 50_000, "to the last byte of the three quarters");
    assert_eq!(gateway.post("/mcp/open", &[], &whole).await.status, 200);
    assert_put_off(&gateway.post("/mcp/open", &[], &format!("{whole} ")).await, "one byte more");
    drop((coming, refused));
}

/// The one request that waits is counted, and so is what is sent ahead of its answer.
#[tokio::test]
async fn what_is_sent_ahead_of_an_answer_is_counted() {
    let (upstream, gateway) = start_with("").await;
    upstream.on("tools/call", Reply::never());
    let mut connection = Connection::open(gateway.data).await;
    connection.write(call()).await;
    upstream.wait_for("tools/call", 1).await;
    wait_for_buffered(&gateway, CALL.len() as f64).await;
    connection.write("x".repeat(40_000)).await;
    wait_for_buffered(&gateway, (CALL.len() + 40_000) as f64).await;
    // Without lingering, closing resets: a client that merely half-closed would be waited for.
    let socket = TcpSocket::from_std_stream(connection.stream.into_std().unwrap());
    socket.set_zero_linger().unwrap();
    drop(socket);
    wait_for_buffered(&gateway, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_bodies_stays_within_its_bound_and_everybody_is_told() {
    let (upstream, mut gateway) = start_with("buffered_bytes_max = 16777216").await;
    upstream.on("*", Reply::text("fine").delay(Duration::from_millis(300)));
    let pieces = format!("\"{}\",", "x".repeat(60_000)).repeat(66);
    let body = CALL.replace("{}}}", &format!("{{\"a\":[{pieces}\"\"]}}}}}}"));
    let request = Arc::new(client::post("/mcp/open", &[], &body));
    let before = gateway.peak_memory_bytes();
    let ask = |request: Arc<String>, data: SocketAddr| async move {
        let mut connection = Connection::open(data).await;
        connection.write(request.as_bytes()).await;
        connection.answer().await.map(|answer| answer.status)
    };
    let asked: Vec<_> = (0..48).map(|_| tokio::spawn(ask(Arc::clone(&request), gateway.data))).collect();
    let mut statuses = Vec::new();
    for one in asked {
        statuses.push(one.await.unwrap().expect("everybody is told"));
    }
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert!((1..48).contains(&served), "{served}");
    assert_eq!(upstream.requests().len(), served, "who was refused was refused before anything was sent");
    let grown = gateway.peak_memory_bytes() - before;
    println!("{served} of 48 served, {} MiB more at the peak", grown / MIB);
    assert!(grown < 5 * 16 * MIB, "{} MiB", grown / MIB);
    wait_for_buffered(&gateway, 0.0).await;
    assert_eq!(client::send(gateway.data, call()).await.status, 200);
    assert!(gateway.is_alive());
}

/// A server that answers every POST with the same bytes and counts how many of them it got rid of.
struct Fountain {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Fountain {
    async fn start(media_type: &'static str, parts: Vec<Arc<str>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let (parts, counted) = (Arc::new(parts), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pour(stream, media_type, Arc::clone(&parts), Arc::clone(&counted)));
            }
        });
        Self { address, sent }
    }

    /// So many bytes of events, then the answer.
    async fn of_events(bytes: usize) -> Self {
        let text = "x".repeat(16_000);
        let event: Arc<str> = format!(
            "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":\"p\",\"progress\":1,\"message\":\"{text}\"}}}}\n\n"
        )
        .into();
        let mut parts = vec![Arc::clone(&event); bytes / event.len()];
        parts.push("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n".into());
        Self::start("text/event-stream", parts).await
    }

    /// One JSON answer of about so many bytes.
    async fn of_json(bytes: usize) -> Self {
        let piece: Arc<str> = format!("{{\"type\":\"text\",\"text\":\"{}\"}},", "x".repeat(60_000)).into();
        let mut parts: Vec<Arc<str>> = vec!["{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[".into()];
        parts.extend(std::iter::repeat_n(Arc::clone(&piece), bytes / piece.len()));
        parts.push("{\"type\":\"text\",\"text\":\"\"}]}}".into());
        Self::start("application/json", parts).await
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn pour(mut stream: TcpStream, media_type: &str, parts: Arc<Vec<Arc<str>>>, sent: Arc<AtomicU64>) {
    let mut read = Vec::new();
    while !read.ends_with(CALL.as_bytes()) {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nConnection: close\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    for part in parts.iter() {
        if stream.write_all(part.as_bytes()).await.is_err() {
            return;
        }
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
}

/// A connection on which the call was sent, and that takes so many bytes of the answer before they are read.
async fn reader(gateway: &Gateway, bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    let mut stream = socket.connect(gateway.data).await.unwrap();
    stream.write_all(client::post("/mcp/open", &["Connection: close"], CALL).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_hold_up_their_servers_and_cost_little_memory_and_little_time() {
    // A larger number: SLOW_READERS=500, with as many descriptors.
    let readers = std::env::var("SLOW_READERS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_usize);
    let fountain = Fountain::of_events(10 * 1024 * 1024).await;
    let gateway = start_in_front_of(&fountain.url(), "write_timeout_ms = 3000");
    let before = gateway.peak_memory_bytes();
    let mut open = Vec::new();
    for _ in 0..readers {
        open.push(reader(&gateway, 8 * 1024).await);
    }
    let mut sent = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if std::mem::replace(&mut sent, fountain.sent()) == fountain.sent() {
            break;
        }
    }
    let grown = gateway.peak_memory_bytes() - before;
    println!(
        "{readers} readers: {} KiB more each, {} KiB taken from the server each",
        grown / 1024 / readers as u64,
        sent / 1024 / readers as u64
    );
    assert!(sent < readers as u64 * 9 * MIB, "the server is held up: {sent}");
    // What the sockets hold is the kernel's; of what is the gateway's, an event, a read, and the stream itself.
    let started = Instant::now();
    while gateway.metric("portcullis_connections").await != Some(0.0) {
        assert!(started.elapsed() < Duration::from_secs(60), "they are ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wait_for_buffered(&gateway, 0.0).await;
    let most = gateway.peak_memory_bytes() - before;
    assert!(most < readers as u64 * 320 * 1024 + 16 * MIB, "{} KiB each", most / 1024 / readers as u64);
    let records = gateway.wait_for_records("result", readers);
    assert!(records.iter().all(|record| record["outcome"] == "client_gone"), "{:?}", records[0]);
}

/// Reads so many bytes with a pause behind each, until the end; how many bytes came in all, and how long it took.
async fn read_slowly(mut stream: TcpStream, bytes: usize, pause: Duration) -> (usize, Duration) {
    let (started, mut total, mut chunk) = (Instant::now(), 0, vec![0; bytes]);
    loop {
        match stream.read_exact(&mut chunk).await {
            Ok(read) => total += read,
            Err(_) => return (total, started.elapsed()),
        }
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn a_reader_that_keeps_the_pace_gets_all_of_a_large_answer_and_one_that_trickles_is_ended() {
    let fountain = Fountain::of_json(14 * 1024 * 1024).await;
    let gateway = start_in_front_of(&fountain.url(), "write_timeout_ms = 1000\nanswer_bytes_per_second_min = 262144");
    let started = Instant::now();
    let (keeps, trickles) = (reader(&gateway, 200 * 1024).await, reader(&gateway, 8 * 1024).await);
    let trickle = tokio::spawn(read_slowly(trickles, 1024, Duration::from_millis(20)));
    let (whole, whole_took) = read_slowly(keeps, 64 * 1024, Duration::from_millis(10)).await;
    assert!(whole as u64 + 64 * 1024 > 13 * MIB, "{whole} bytes in {whole_took:?}");
    assert!(whole_took > Duration::from_millis(1200), "longer than it may take nothing: {whole_took:?}");
    let records = gateway.wait_for_records("result", 2);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert!(outcomes.contains(&&json!("ok")) && outcomes.contains(&&json!("client_gone")), "{outcomes:?}");
    // What the kernel has taken is still read.
    assert!(!trickle.is_finished());
    trickle.abort();
    wait_for_buffered(&gateway, 0.0).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_stay_within_the_bound_and_who_gets_none_is_told_what_happened() {
    let fountain = Fountain::of_json(10 * 1024 * 1024).await;
    let gateway = start_in_front_of(&fountain.url(), "buffered_bytes_max = 33554432\nwrite_timeout_ms = 3000");
    let before = gateway.peak_memory_bytes();
    let mut open = Vec::new();
    for _ in 0..24 {
        open.push(reader(&gateway, 8 * 1024).await);
    }
    let refusals = async || {
        let line = |reason: &str| format!("portcullis_refusals_total{{reason=\"{reason}\"}}");
        let sent = gateway.metric(&line("answer_no_room")).await.unwrap();
        sent + gateway.metric(&line("buffered_bytes_max")).await.unwrap()
    };
    let started = Instant::now();
    while refusals().await <= 10.0 {
        assert!(started.elapsed() < Duration::from_secs(10), "some are refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let held = gateway.metric("portcullis_buffered_bytes").await.unwrap();
    assert!(held <= 33_554_432.0 + 24.0 * CALL.len() as f64, "{held}");
    let grown = gateway.peak_memory_bytes() - before;
    println!("{held} bytes held, {} MiB more at the peak", grown / MIB);
    assert!(grown < 4 * 32 * MIB, "{} MiB", grown / MIB);
    drop(open);
    wait_for_buffered(&gateway, 0.0).await;
    let expected = ["answer_no_room", "buffered_bytes_max", "client_gone"];
    let others: Vec<Value> = gateway
        .records()
        .into_iter()
        .filter(|record| record["kind"] != "intent")
        .filter(|record| record["reason"].as_str().is_some_and(|reason| !expected.contains(&reason)))
        .collect();
    assert_eq!(others, Vec::<Value>::new());
    let answer = client::send(gateway.data, call()).await;
    assert_eq!(answer.status, 200);
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_work_waits_too_long_for_a_thread_requests_are_put_off_and_pings_are_not() {
    let upstream = Upstream::start().await;
    let config = format!(
        "threads = 1\nqueue_delay_ms_max = 100\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n",
        upstream.url()
    );
    // Each of the first calls keeps the only worker thread busy for a while.
    let gateway = gateway::setup(&config).variable("FAILPOINTS", "exchange=12*sleep(250)").start();
    let ask = |body: &'static str, data: SocketAddr| async move {
        client::send(data, client::post("/mcp/open", &[], body)).await
    };
    let mut calls = Vec::new();
    for _ in 0..60 {
        calls.push(tokio::spawn(ask(CALL, gateway.data)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ping = tokio::spawn(ask(PING, gateway.data));
    let probe = tokio::spawn(client::send(gateway.data, PROBE));
    let mut statuses = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        if answer.status == 503 {
            assert_put_off(&answer, "a call");
        }
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    assert_eq!((ping.await.unwrap().status, probe.await.unwrap().status), (200, 200));
    let put_off = statuses.iter().filter(|status| **status == 503).count() as u64;
    assert_refused(&gateway, "queue_delay_ms_max", put_off).await;
    let started = Instant::now();
    while ask(CALL, gateway.data).await.status != 200 {
        assert!(started.elapsed() < SOON, "it passes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
