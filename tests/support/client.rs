//! A client that sends exactly the bytes a test wants and reads exactly what comes back.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clock::within;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP answer, its body without chunk framing.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body was complete by its own framing.
    pub(crate) complete: bool,
}

impl Answer {
    /// The first header of this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}\n{}", self.head, self.text()))
    }

    /// The JSON-RPC error code, if the body is one.
    pub(crate) fn code(&self) -> Option<i64> {
        serde_json::from_slice::<Value>(&self.body).ok()?["error"]["code"].as_i64()
    }

    /// The `data` of each event of an event stream, as JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .filter_map(|data| serde_json::from_str(data.trim()).ok())
            .collect()
    }
}

/// A POST with the usual headers (`Host: localhost`, JSON, both media types accepted, exact length) and further ones.
pub(crate) fn post(path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Headers of a 2026-07-28 request.
pub(crate) fn modern(method: &str, name: Option<&str>) -> Vec<String> {
    let mut headers = vec!["MCP-Protocol-Version: 2026-07-28".to_owned(), format!("Mcp-Method: {method}")];
    headers.extend(name.map(|name| format!("Mcp-Name: {name}")));
    headers
}

/// Sends bytes on a connection of their own and reads one answer.
pub(crate) async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address).await;
    connection.write(bytes).await;
    connection.answer().await.expect("an answer")
}

/// A loopback address in a network (/24) of its own, one for each `number` below 60,000: refusals of unknown callers are
/// counted by network, so what comes from such an address has a record of its own.
pub(crate) fn source(number: usize) -> Ipv4Addr {
    let number = u16::try_from(number).unwrap();
    let [high, low] = (number + 256).to_be_bytes();
    Ipv4Addr::new(127, high, low, 1)
}

/// A connection on which a test writes and reads as it likes.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffered: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffered: Vec::new() }
    }

    /// Connects from an address of this machine, such as [`source`] gives.
    pub(crate) async fn open_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffered: Vec::new() }
    }

    /// Writes; what the other side no longer wants to read is lost.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish_writing(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads the next answer; `None` if the connection ends before its head is whole.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer in time")
    }

    /// Whether the other side has ended the connection, waiting for it up to `patience`.
    pub(crate) async fn is_closed_within(&mut self, patience: Duration) -> bool {
        let mut byte = [0];
        matches!(within(patience, self.stream.read(&mut byte)).await, Some(Ok(0) | Err(_)))
    }

    /// Everything that comes after the last answer until the other side ends the connection; `None` if it does not
    /// within `patience`.
    pub(crate) async fn remainder(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let to_the_end = async { while self.fill().await {} };
        timeout(patience, to_the_end).await.ok()?;
        Some(std::mem::take(&mut self.buffered))
    }

    /// Reads until `text` was received, and returns everything read since the last answer.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        timeout(PATIENCE, async {
            while !String::from_utf8_lossy(&self.buffered).contains(text) {
                assert!(
                    self.fill().await,
                    "the connection ended before `{text}`: {}",
                    String::from_utf8_lossy(&self.buffered)
                );
            }
            String::from_utf8_lossy(&self.buffered).into_owned()
        })
        .await
        .expect("the text in time")
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.buffered[..end]).into_owned();
        self.buffered.drain(..end);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), complete: true };
        if answer.header("transfer-encoding").is_some() {
            answer.complete = self.read_chunks(&mut answer.body).await;
        } else {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            while self.buffered.len() < length && self.fill().await {}
            answer.complete = self.buffered.len() >= length;
            answer.body = self.buffered.drain(..length.min(self.buffered.len())).collect();
        }
        Some(answer)
    }

    /// Reads chunks to their end; false if the connection ended first.
    async fn read_chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(at) = self.buffered.windows(2).position(|window| window == b"\r\n") else {
                if !self.fill().await {
                    return false;
                }
                continue;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffered[..at]).unwrap(), 16).unwrap();
            while self.buffered.len() < at + 2 + size + 2 {
                if !self.fill().await {
                    return false;
                }
            }
            body.extend_from_slice(&self.buffered[at + 2..at + 2 + size]);
            self.buffered.drain(..at + 2 + size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(read) if read > 0 => {
                self.buffered.extend_from_slice(&chunk[..read]);
                true
            }
            _ => false,
        }
    }
}
