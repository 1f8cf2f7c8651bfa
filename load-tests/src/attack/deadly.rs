//! How does an upstream die that counts what it was sent?
//!
//! It serves in this process, so that whatever arrives is counted, by id and by connection, also on a connection that is
//! about to die. Where an exchange dies is drawn: before anything was read, within the request, before the answer, within
//! the answer or the stream, or right after it, on a connection that is kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::chance::Chance;
use crate::http::Framing;
use crate::http::Head;

/// Of a hundred exchanges, so many die.
const DEATHS_PERCENT: u64 = 40;
/// How long what is under way may take to arrive on a connection that is about to die.
const UNDER_WAY: Duration = Duration::from_millis(5);

/// Where an exchange dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Point {
    /// Nowhere.
    None,
    /// Before anything was read.
    Unread,
    /// After some of the request.
    InRequest,
    /// After the request.
    BeforeAnswer,
    /// In the head of the answer.
    InHead,
    /// In the body of the answer.
    InBody,
    /// Within a stream, between or in its events.
    InStream,
    /// After the whole answer, at once.
    AfterAnswer,
    /// After the whole answer, while the connection is kept.
    Kept,
}

impl Point {
    const DEADLY: [Self; 8] = [
        Self::Unread,
        Self::InRequest,
        Self::BeforeAnswer,
        Self::InHead,
        Self::InBody,
        Self::InStream,
        Self::AfterAnswer,
        Self::Kept,
    ];

    fn drawn(chance: &mut Chance) -> Self {
        if chance.between(1, 100) > DEATHS_PERCENT {
            return Self::None;
        }
        Self::DEADLY[usize::try_from(chance.between(0, 7)).unwrap_or(0)]
    }
}

/// What arrived, and what died.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// On which connections each id arrived, once for each time.
    pub(super) by_id: HashMap<u64, Vec<u64>>,
    /// Exchanges that died, by where.
    pub(super) deaths: HashMap<Point, u64>,
    /// Ids that were answered whole.
    pub(super) answered: std::collections::HashSet<u64>,
    connections: u64,
}

/// What arrived, shared by all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadly(Arc<Mutex<Arrived>>);

impl Deadly {
    /// What arrived so far.
    pub(super) fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves for ever, on a thread of its own. Where.
    pub(super) fn serve(&self, seed: u64) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let deadly = self.clone();
        let runtime = super::runtime()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    let number = {
                        let mut arrived = deadly.arrived();
                        arrived.connections += 1;
                        arrived.connections
                    };
                    let exchange = Exchange {
                        stream,
                        held: Vec::new(),
                        number,
                        deadly: deadly.clone(),
                        chance: Chance::new(seed, number),
                    };
                    tokio::spawn(exchange.serve());
                }
                #[expect(unreachable_code, reason = "says what the block's error is")]
                Ok::<(), io::Error>(())
            })
        });
        Ok(address)
    }
}

/// One connection.
struct Exchange {
    stream: TcpStream,
    held: Vec<u8>,
    number: u64,
    deadly: Deadly,
    chance: Chance,
}

impl Exchange {
    async fn serve(mut self) {
        loop {
            let point = Point::drawn(&mut self.chance);
            match self.exchange(point).await {
                Ok(true) => {}
                Ok(false) => return self.die(point).await,
                // The gateway closed it.
                Err(_) => return,
            }
        }
    }

    /// One request and its answer. Whether the connection goes on.
    async fn exchange(&mut self, point: Point) -> io::Result<bool> {
        if point == Point::Unread {
            return Ok(false);
        }
        let cut = (point == Point::InRequest).then(|| usize::try_from(self.chance.between(1, 600)).unwrap_or(1));
        let Some(length) = self.request(cut).await? else { return Ok(false) };
        let Some(id) = self.note() else { return Ok(false) };
        let streams = memchr::memmem::find(&self.held, b"watch_table").is_some();
        self.held.drain(..length);
        if point == Point::BeforeAnswer {
            return Ok(false);
        }
        let answer = if streams || point == Point::InStream { stream(id) } else { json(id) };
        let head = memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |at| at + 4) as u64;
        let all = answer.len() as u64;
        let cut = match point {
            Point::InHead => self.chance.between(1, head - 1),
            Point::InBody | Point::InStream => self.chance.between(head, all - 1),
            _ => all,
        };
        let cut = usize::try_from(cut).unwrap_or(0);
        if cut == answer.len() {
            // Before it is sent: whoever has the answer may look.
            self.deadly.arrived().answered.insert(id);
        }
        self.stream.write_all(&answer[..cut]).await?;
        match point {
            Point::None => Ok(true),
            Point::Kept => {
                // The gateway takes the connection for a kept one by now.
                let idle = Duration::from_millis(self.chance.between(1, 60));
                let _ = tokio::time::timeout(idle, self.stream.readable()).await;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Reads a whole request, or up to `cut`. Its length, if it is whole.
    async fn request(&mut self, cut: Option<usize>) -> io::Result<Option<usize>> {
        loop {
            if cut.is_some_and(|cut| self.held.len() >= cut) {
                return Ok(None);
            }
            if let Some(head) = Head::parse(&self.held).map_err(io::Error::other)? {
                let Framing::Length(length) = head.framing(Framing::Length(0)).map_err(io::Error::other)? else {
                    return Err(io::Error::other("a request without Content-Length"));
                };
                if self.held.len() >= head.bytes + length {
                    return Ok(Some(head.bytes + length));
                }
            }
            let room = cut.map_or(16 * 1024, |cut| cut - self.held.len());
            let mut chunk = vec![0; room];
            match self.stream.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.held.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// Notes the id in what is held, once it is there.
    fn note(&self) -> Option<u64> {
        let at = memchr::memmem::find(&self.held, b"\"id\":1")? + 5;
        let digits = self.held.get(at..at + 10)?;
        let id = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.deadly.arrived().by_id.entry(id).or_default().push(self.number);
        Some(id)
    }

    /// Takes what is under way, so that it is counted, and dies by a reset or by the end.
    async fn die(mut self, point: Point) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(Ok(read)) = tokio::time::timeout(UNDER_WAY, self.stream.read(&mut chunk)).await {
            if read == 0 {
                break;
            }
            self.held.extend_from_slice(&chunk[..read]);
        }
        if !self.held.is_empty() {
            self.note();
        }
        *self.deadly.arrived().deaths.entry(point).or_default() += 1;
        if self.chance.between(0, 1) == 0 {
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }
}

fn json(id: u64) -> Vec<u8> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"done"}}]}}}}"#);
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn stream(id: u64) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |data: String| format!("{:x}\r\n{data}\r\n", data.len());
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"tok-8c1f","progress":1}}"#;
    let result = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"done"}}]}}}}"#);
    let events = [progress.to_owned(), progress.to_owned(), result].map(|data| chunk(format!("data: {data}\n\n")));
    format!("{head}{}0\r\n\r\n", events.concat()).into_bytes()
}
