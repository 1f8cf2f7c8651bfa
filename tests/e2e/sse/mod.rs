//! HTTP+SSE on one side or on both, through real gateway processes.

mod asks;
mod front;
mod hub;
mod lifetime;
mod limits;
mod relay;
mod spread;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::clock::within;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Upstream;

/// How long anything may take that happens at once.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// Where a scripted server of HTTP+SSE takes messages.
const MESSAGES: &str = "/messages?session=$session";

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{},"sampling":{}},"clientInfo":{"name":"c","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// A call of a tool, whose progress is told under `p` and the id.
fn call(id: u64, tool: &str) -> String {
    let params = json!({ "name": tool, "arguments": {}, "_meta": { "progressToken": format!("p{id}") } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

/// What a client answers to a request of the server.
fn reply(id: &str, text: &str) -> String {
    let result = json!({ "action": "accept", "content": { "answer": text } });
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

/// A gateway in front of one scripted server, which is configured twice: as `a` and as `b`. `hidden` may not be called.
struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
    other: Key,
    config: String,
}

impl Stage {
    /// Its server speaks HTTP+SSE.
    async fn sse() -> Self {
        Self::sse_with("", "", "").await
    }

    /// The same with keys of `[listen]` and of the servers, and further tables.
    async fn sse_with(listen: &str, server: &str, tables: &str) -> Self {
        let upstream = Upstream::start().await;
        upstream.speak_sse(MESSAGES);
        Self::of(upstream, listen, &format!("transport = \"sse\"\n{server}"), tables)
    }

    /// Its server speaks Streamable HTTP.
    async fn streamable() -> Self {
        Self::streamable_with("", "").await
    }

    async fn streamable_with(listen: &str, server: &str) -> Self {
        Self::of(Upstream::start().await, listen, server, "")
    }

    fn of(upstream: Upstream, listen: &str, server: &str, tables: &str) -> Self {
        let (key, other) = (gateway::make_key("ci"), gateway::make_key("other"));
        let url = if server.contains("\"sse\"") { upstream.sse_url() } else { upstream.url() };
        let mut config = format!("{listen}\n");
        for name in ["a", "b"] {
            config += &format!(
                "[servers.{name}]\nurl = \"{url}\"\nblocked_tools = [\"hidden\"]\nbreaker.enabled = false\n{server}\n"
            );
        }
        for (name, key) in [("ci", &key), ("other", &other)] {
            config += &format!("[keys.{name}]\ndigest = \"{}\"\nmcp_servers = [\"a\", \"b\"]\n", key.digest);
        }
        config += tables;
        let gateway = gateway::setup(&config).sparing().start();
        Self { upstream, gateway, key, other, config }
    }

    /// A second gateway with the same configuration.
    fn second_node(&self) -> Gateway {
        Gateway::start(&self.config)
    }

    fn key(&self) -> String {
        format!("X-API-Key: {}", self.key.key)
    }

    /// An HTTP+SSE client on its stream.
    async fn client(&self) -> Client {
        self.client_at("/mcp/a/sse", &[]).await
    }

    async fn client_at(&self, path: &str, headers: &[&str]) -> Client {
        let key = self.key();
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        Client::open(self.gateway.data, path, &headers).await
    }

    /// An HTTP+SSE client that has initialized.
    async fn initialized(&self) -> Client {
        let mut client = self.client().await;
        assert_eq!(client.ask(INITIALIZE).await["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(client.post(INITIALIZED).await.status, 202);
        client
    }

    /// A GET, which has an answer in place of a stream.
    async fn refused(&self, path: &str, headers: &[&str]) -> Answer {
        let key = self.key();
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        client::send(self.gateway.data, get(path, &headers)).await
    }

    /// A POST with the key and further headers, here or at another node.
    async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.post_at(self.gateway.data, path, headers, body).await
    }

    async fn post_at(&self, address: SocketAddr, path: &str, headers: &[&str], body: &str) -> Answer {
        let key = self.key();
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        client::send(address, client::post(path, &headers, body)).await
    }

    /// Waits until so many streams of a kind are open.
    async fn has_streams(&self, kind: &str, count: f64) {
        let line = format!("portcullis_streams_by_kind{{kind=\"{kind}\"}}");
        let began = std::time::Instant::now();
        while self.gateway.metric(&line).await != Some(count) {
            assert!(began.elapsed() < PATIENCE, "not {count} streams of the kind {kind}");
            tokio::time::sleep(STEP / 10).await;
        }
    }

    /// Reloads the configuration with `before` changed to `after`, and waits until that is in force.
    fn reload(&self, before: &str, after: &str) {
        assert!(self.config.contains(before), "{before}");
        let reloads = || self.gateway.log().matches("configuration reloaded").count();
        let known = reloads();
        self.gateway.reload(&self.config.replace(before, after));
        gateway::wait_until("a reload", || reloads() > known);
    }
}

fn seal_table() -> String {
    let (code, seal, _) = gateway::run(&["keys", "seal"]);
    assert_eq!(code, Some(0));
    format!("[seal]\nkeys = [\"{}\"]\n", seal.trim())
}

fn get(path: &str, headers: &[&str]) -> String {
    let host = if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{host}Accept: text/event-stream\r\n{headers}\r\n")
}

/// A client on an event stream, event by event.
struct Stream {
    io: TcpStream,
    /// Bytes of the chunks that were not yet read.
    raw: Vec<u8>,
    /// What the chunks held and was not yet taken.
    text: String,
    head: String,
    ended: bool,
}

impl Stream {
    /// Sends a request whose answer is a stream.
    async fn open(address: SocketAddr, request: String) -> Self {
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { io, raw: Vec::new(), text: String::new(), head: String::new(), ended: false };
        timeout(PATIENCE * 2, stream.read_head()).await.expect("a head in time");
        assert!(stream.head.starts_with("HTTP/1.1 200"), "{}{}", stream.head, String::from_utf8_lossy(&stream.raw));
        assert!(stream.head.to_lowercase().contains("content-type: text/event-stream"), "{}", stream.head);
        stream
    }

    async fn read_head(&mut self) {
        let end = loop {
            if let Some(at) = self.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "no head");
        };
        self.head = String::from_utf8(self.raw.drain(..end).collect()).unwrap();
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = self.io.read(&mut chunk).await.unwrap_or(0);
        self.raw.extend_from_slice(&chunk[..read]);
        read > 0
    }

    /// The next event or comment, as written; `None` at the stream's proper end.
    async fn piece(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.text.find("\n\n") {
                return Some(self.text.drain(..at + 2).collect());
            }
            if self.ended {
                assert!(self.text.is_empty(), "half an event at the end: {:?}", self.text);
                return None;
            }
            if !self.take_chunk() {
                assert!(self.fill().await, "the stream was cut: {:?}", self.text);
            }
        }
    }

    /// Takes one whole chunk, if there is one.
    fn take_chunk(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") else { return false };
        let size = usize::from_str_radix(std::str::from_utf8(&self.raw[..line]).unwrap(), 16).unwrap();
        let end = line + 2 + size + 2;
        if self.raw.len() < end {
            return false;
        }
        self.text += std::str::from_utf8(&self.raw[line + 2..line + 2 + size]).unwrap();
        self.raw.drain(..end);
        self.ended = size == 0;
        true
    }

    /// The next event with data; comments are passed over.
    async fn event(&mut self) -> Option<String> {
        let next = async {
            loop {
                let piece = self.piece().await?;
                if piece.contains("data: ") {
                    return Some(piece);
                }
            }
        };
        timeout(PATIENCE, next).await.expect("an event in time")
    }

    /// The next message.
    async fn message(&mut self) -> Value {
        let event = self.event().await.expect("a message before the end");
        let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        serde_json::from_str(&data.join("\n")).unwrap_or_else(|error| panic!("{error}: {event}"))
    }

    /// Whether nothing comes for a while.
    async fn is_silent_for(&mut self, while_: Duration) -> bool {
        timeout(while_, self.piece()).await.is_err()
    }

    /// Whether the stream ends properly within this time; further events are passed over.
    async fn ends_within(&mut self, patience: Duration) -> bool {
        within(patience, async { while self.piece().await.is_some() {} }).await.is_some()
    }
}

/// An HTTP+SSE client: its stream, and where it posts.
struct Client {
    stream: Stream,
    address: SocketAddr,
    endpoint: String,
    headers: Vec<String>,
}

impl Client {
    async fn open(address: SocketAddr, path: &str, headers: &[&str]) -> Self {
        let mut stream = Stream::open(address, get(path, headers)).await;
        let first = stream.event().await.expect("a first event");
        let endpoint = first.strip_prefix("event: endpoint\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let endpoint = endpoint.unwrap_or_else(|| panic!("{first}")).to_owned();
        let headers = headers.iter().filter(|header| header.starts_with("X-API-Key")).map(|&header| header.to_owned());
        Self { stream, address, endpoint, headers: headers.collect() }
    }

    /// The token for this client's session.
    fn token(&self) -> &str {
        self.endpoint.split_once("?sessionId=").unwrap().1
    }

    /// Posts a message and returns what the POST itself is answered with.
    async fn post(&self, body: &str) -> Answer {
        self.post_at(self.address, body).await
    }

    async fn post_at(&self, address: SocketAddr, body: &str) -> Answer {
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        client::send(address, client::post(&self.endpoint, &headers, body)).await
    }

    /// Posts a request, which must be accepted, and returns the next message of the stream.
    async fn ask(&mut self, body: &str) -> Value {
        let accepted = self.post(body).await;
        assert_eq!((accepted.status, accepted.body.len()), (202, 0), "{}", accepted.text());
        self.stream.message().await
    }
}
