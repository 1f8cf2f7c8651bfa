//! What does an MCP server do to us, exactly when we say so?
//!
//! A scripted upstream over raw TCP: it keeps every byte it was sent, and answers as told, down to the reset. Without
//! a script it is a small, sane server. Nothing here is shared with the gateway: what it reads, it reads by itself.

#![allow(dead_code, reason = "each test uses a part of it")]

mod reply;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

pub(crate) use crate::support::upstream::reply::Event;
pub(crate) use crate::support::upstream::reply::Reply;
pub(crate) use crate::support::upstream::stream::Stream;
use crate::support::upstream::stream::Streams;
use crate::support::upstream::wire::After;

const CONNECTIONS_MAX: usize = 20_000;
const REQUESTS_MAX: usize = 200_000;
const CONNECTION_BYTES_MAX: usize = 64 * 1024 * 1024;
const WAIT_MAX: Duration = Duration::from_secs(5);
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// A running scripted upstream; gone when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What is asked, the replies to it in order, and how many were given.
    script: HashMap<String, (Vec<Reply>, usize)>,
    requests: Vec<Request>,
    connections: Vec<Record>,
    streams: Streams,
}

#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    closed: Option<Instant>,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        result
    }

    fn look<T>(&self, work: impl FnOnce(&State) -> T) -> T {
        work(&self.state.lock().unwrap())
    }

    /// Waits until `found` finds something.
    async fn until<T>(&self, mut found: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, or a change in between would be missed.
            changed.as_mut().enable();
            if let Some(result) = self.look(&mut found) {
                return result;
            }
            changed.await;
        }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The connection it came on: an index into [`Upstream::connections`].
    pub(crate) connection: usize,
    /// The head, up to and including the empty line.
    pub(crate) head: Bytes,
    /// The body, without its framing.
    pub(crate) body: Bytes,
    /// Head and body exactly as they came.
    pub(crate) raw: Bytes,
    /// When it was complete.
    pub(crate) at: Instant,
}

impl Request {
    fn head_lines(&self) -> impl Iterator<Item = &str> {
        std::str::from_utf8(&self.head).unwrap_or("").split("\r\n")
    }

    /// The request line.
    pub(crate) fn line(&self) -> &str {
        self.head_lines().next().unwrap_or("")
    }

    /// The values of a header, in order; the name in any case.
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head_lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// The names of all headers, in lower case, in order.
    pub(crate) fn header_names(&self) -> Vec<String> {
        self.head_lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_lowercase())).collect()
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers(name).into_iter().next()
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method, `response`, or the HTTP method of what has no such body.
    pub(crate) fn method(&self) -> String {
        let http = self.line().split(' ').next().unwrap_or("");
        let body = self.json();
        match body.get("method").and_then(Value::as_str) {
            Some(method) if http == "POST" => method.to_owned(),
            None if http == "POST" && (body.get("result").is_some() || body.get("error").is_some()) => {
                "response".into()
            }
            _ => http.to_owned(),
        }
    }

    /// What the request may be scripted as, the most exact first.
    fn names(&self) -> Vec<String> {
        let method = self.method();
        let tool = self.json().pointer("/params/name").and_then(Value::as_str).map(str::to_owned);
        let exact = tool.or_else(|| self.header("last-event-id")).map(|name| format!("{method} {name}"));
        exact.into_iter().chain([method, "*".into()]).collect()
    }
}

/// A connection as far as it has come.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Every byte received on it, the first 64 MiB.
    pub(crate) bytes: Bytes,
    /// When the other side closed or reset it; `None` while it is open, or if this side ended it.
    pub(crate) closed: Option<Instant>,
}

impl Upstream {
    /// Starts on a port of the system's choice.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    /// Starts on this address: for one that comes back.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its MCP endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Its stream, once it [speaks HTTP+SSE](Self::speak_sse).
    pub(crate) fn sse_url(&self) -> String {
        format!("http://{}/sse", self.address)
    }

    /// Ends it: open connections are closed, new ones refused. What it has seen stays readable.
    pub(crate) async fn stop(&self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Answers every `what` with `reply`: a JSON-RPC method, `tools/call NAME`, `response`, `GET`, `GET LAST-EVENT-ID`,
    /// `DELETE` or `*`.
    pub(crate) fn on(&self, what: &str, reply: Reply) -> &Self {
        self.on_each(what, vec![reply])
    }

    /// Answers the first `what` with the first reply, and so on; the last one is repeated.
    pub(crate) fn on_each(&self, what: &str, replies: Vec<Reply>) -> &Self {
        assert!(!replies.is_empty(), "a script has a reply");
        self.shared.with(|state| state.script.insert(what.to_owned(), (replies, 0)));
        self
    }

    /// Speaks HTTP+SSE from now on: a `GET` opens a standing stream whose first event names `endpoint`, in which `$session` stands
    /// for the stream's session; a `POST` is accepted, and its reply, scripted as ever, goes out on the stream whose
    /// session the request line names (the last one where it names none).
    pub(crate) fn speak_sse(&self, endpoint: &str) -> &Self {
        self.speak_sse_late(endpoint, Duration::ZERO)
    }

    /// The same, but accepts a message so much later, when its reply may be out already.
    pub(crate) fn speak_sse_late(&self, endpoint: &str, accept_after: Duration) -> &Self {
        self.shared.with(|state| stream::speak_sse(state, accept_after));
        self.on("GET", Reply::standing(vec![Event::endpoint(endpoint)]))
    }

    /// Waits for a standing stream, counted from 0 as they are opened.
    pub(crate) async fn stream(&self, index: usize) -> Stream {
        Stream::wait(&self.shared, index).await
    }

    /// Every request so far, complete ones only.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.look(|state| state.requests.clone())
    }

    /// The requests so far that `what` names.
    pub(crate) fn requests_for(&self, what: &str) -> Vec<Request> {
        self.shared.look(|state| matching(state, what))
    }

    /// Every connection so far.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        let connection =
            |record: &Record| Connection { bytes: Bytes::copy_from_slice(&record.bytes), closed: record.closed };
        self.shared.look(|state| state.connections.iter().map(connection).collect())
    }

    /// Waits for at least `count` requests that `what` names.
    pub(crate) async fn wait_for(&self, what: &str, count: usize) -> Vec<Request> {
        let found = self.shared.until(|state| Some(matching(state, what)).filter(|found| found.len() >= count));
        let waited = tokio::time::timeout(WAIT_MAX, found).await;
        waited.unwrap_or_else(|_| panic!("{count} times {what} did not come; came: {:?}", self.seen()))
    }

    /// Waits until the other side has closed a connection, and tells when it did.
    pub(crate) async fn wait_closed(&self, connection: usize) -> Instant {
        let closed = self.shared.until(|state| state.connections.get(connection)?.closed);
        tokio::time::timeout(WAIT_MAX, closed).await.unwrap_or_else(|_| panic!("connection {connection} is still open"))
    }

    fn seen(&self) -> Vec<String> {
        self.requests().iter().map(Request::method).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn matching(state: &State, what: &str) -> Vec<Request> {
    state.requests.iter().filter(|request| request.names().iter().any(|name| name == what)).cloned().collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends every connection when this task ends.
    let mut connections = JoinSet::new();
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let _ = io.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let connection = shared.with(|state| {
            assert!(state.connections.len() < CONNECTIONS_MAX, "too many connections");
            state.connections.push(Record::default());
            state.connections.len() - 1
        });
        connections.spawn(attend(io, connection, Arc::clone(&shared)));
    }
}

/// What has been received on one connection and not been read yet.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    closed: bool,
}

struct Peer {
    connection: usize,
    shared: Arc<Shared>,
    inbox: Mutex<Inbox>,
    arrived: Notify,
    closed: watch::Sender<bool>,
}

impl Peer {
    /// Keeps what arrives, and notes the end.
    async fn listen(&self, mut read: OwnedReadHalf) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = read.read(&mut buffer).await.unwrap_or(0);
            {
                let mut inbox = self.inbox.lock().unwrap();
                inbox.bytes.extend_from_slice(&buffer[..count]);
                inbox.closed = count == 0;
            }
            self.shared.with(|state| {
                let record = &mut state.connections[self.connection];
                let room = CONNECTION_BYTES_MAX - record.bytes.len();
                record.bytes.extend_from_slice(&buffer[..count.min(room)]);
                record.closed = (count == 0).then(Instant::now);
            });
            // A permit is kept, should nobody wait at this moment.
            self.arrived.notify_one();
            if count == 0 {
                self.closed.send_replace(true);
                return std::future::pending().await;
            }
        }
    }

    /// The next whole request; `None` at the end.
    async fn request(&self) -> Option<Request> {
        loop {
            {
                let mut inbox = self.inbox.lock().unwrap();
                if let Some((head, raw, body)) = whole(&inbox.bytes) {
                    let bytes: Vec<u8> = inbox.bytes.drain(..raw).collect();
                    let raw = Bytes::from(bytes);
                    let at = Instant::now();
                    return Some(Request { connection: self.connection, head: raw.slice(..head), body, raw, at });
                }
                if inbox.closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until the other side has closed.
    async fn gone(&self) {
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// Lengths of the head and of head and body, and the body without framing, if a whole request is there.
fn whole(bytes: &[u8]) -> Option<(usize, usize, Bytes)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if header("transfer-encoding:").is_some_and(|value| value == "chunked") {
        let mut body = Vec::new();
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
            let size = std::str::from_utf8(&bytes[at..at + line]).ok()?.split(';').next()?;
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size is a number");
            let start = at + line + 2;
            let end = start + size + 2;
            if bytes.len() < end {
                return None;
            }
            body.extend_from_slice(&bytes[start..start + size]);
            at = end;
            if size == 0 {
                return Some((head, at, body.into()));
            }
        }
    }
    let length: usize = header("content-length:").map_or(0, |value| value.parse().expect("a length is a number"));
    let body = bytes.get(head..head + length)?;
    Some((head, head + length, Bytes::copy_from_slice(body)))
}

async fn attend(io: TcpStream, connection: usize, shared: Arc<Shared>) {
    let (read, mut write) = io.into_split();
    let (closed, _) = watch::channel(false);
    let peer = Peer { connection, shared, inbox: Mutex::default(), arrived: Notify::new(), closed };
    let serve = async {
        while let Some(request) = peer.request().await {
            let reply = peer.shared.with(|state| {
                assert!(state.requests.len() < REQUESTS_MAX, "too many requests");
                state.requests.push(request.clone());
                scripted(state, &request)
            });
            let reply = reply.unwrap_or_else(|| by_default(&request, connection));
            let reply = stream::divert(&peer.shared, &request, reply);
            match wire::respond(&peer, &mut write, &request, reply).await {
                After::Next => {}
                After::Close => return false,
                After::Reset => return true,
            }
        }
        false
    };
    let reset = tokio::select! {
        reset = serve => reset,
        () = peer.listen(read) => false,
    };
    if reset {
        let _ = write.as_ref().set_zero_linger();
        // Dropped as usual it would send a FIN before.
        write.forget();
    }
}

fn scripted(state: &mut State, request: &Request) -> Option<Reply> {
    let name = request.names().into_iter().find(|name| state.script.contains_key(name))?;
    let (replies, given) = state.script.get_mut(&name)?;
    let reply = replies.get(*given).or(replies.last()).cloned();
    *given += 1;
    reply
}

/// What a small, sane server answers.
fn by_default(request: &Request, connection: usize) -> Reply {
    let body = request.json();
    let is_stateless = body.pointer("/params/_meta").and_then(|meta| meta.get(VERSION_KEY)).is_some();
    let method = request.method();
    let result = match method.as_str() {
        "GET" => return Reply::status(405).header("Allow", "POST, DELETE"),
        "DELETE" => return Reply::status(204),
        "response" => return Reply::accepted(),
        notification if notification.starts_with("notifications/") => return Reply::accepted(),
        "initialize" => {
            let offered = body.pointer("/params/protocolVersion").cloned().unwrap_or(Value::Null);
            let info = json!({"name": "scripted", "version": "1"});
            let result = json!({"protocolVersion": offered, "capabilities": {"tools": {}}, "serverInfo": info});
            return Reply::json(result).header("Mcp-Session-Id", &format!("upstream-session-{connection}"));
        }
        "ping" => json!({}),
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        "tools/list" => {
            let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
            json!({"tools": [{"name": "echo", "inputSchema": schema}, {"name": "other", "inputSchema": schema}]})
        }
        "tools/call" => {
            let arguments = body.pointer("/params/arguments").cloned().unwrap_or(Value::Null);
            json!({"content": [{"type": "text", "text": arguments.to_string()}]})
        }
        _ => return Reply::error(-32601, "Method not found"),
    };
    let mut result = result;
    if is_stateless {
        result["resultType"] = json!("complete");
        if method != "tools/call" {
            result["ttlMs"] = json!(0);
            result["cacheScope"] = json!("private");
        }
    }
    Reply::json(result)
}
