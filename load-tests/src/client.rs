//! How is one answer asked for and read?
//!
//! A blocking connection, kept and reopened when the other side closed it. It tells when the first event came and when the
//! answer was whole, and whether it was the right one: a wrong answer that is fast must not count.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use crate::http;
use crate::http::Framing;
use crate::http::Head;
use crate::messages::Era;
use crate::messages::Expected;
use crate::messages::Target;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The session that was given.
    pub session: Option<String>,
    /// Whether it says when to come again.
    pub retry_after: bool,
    /// The body, events and all.
    pub body: Vec<u8>,
    /// When the first bytes of the body were there, if it came as events.
    pub first_event: Option<Instant>,
    /// When it was whole.
    pub whole: Instant,
}

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// The connection could not be opened, or broke.
    Connection,
    /// It did not come in time.
    Timeout,
    /// It is no HTTP/1.1.
    Malformed,
    /// Another status than expected.
    Status(u16),
    /// The gateway had too much to do, did nothing, and said when to come again.
    PutOff,
    /// Of another request, or no answer at all.
    Id,
    /// An error where a result was expected, or the other way round.
    Content,
}

/// What the gateway says that puts off what it is asked.
const PUT_OFF: &[u8] = b"too much to do; nothing was done";

impl Wrong {
    /// What an answer of another status than expected is.
    pub fn of_status(status: u16, retry_after: bool, body: &[u8]) -> Self {
        let is_put_off = status == 503 && retry_after && memchr::memmem::find(body, PUT_OFF).is_some();
        if is_put_off { Self::PutOff } else { Self::Status(status) }
    }

    /// Its name in a report.
    pub fn name(self) -> String {
        match self {
            Self::Connection => "connection".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Malformed => "malformed".to_owned(),
            Self::Status(status) => format!("status_{status}"),
            Self::PutOff => "put_off".to_owned(),
            Self::Id => "id".to_owned(),
            Self::Content => "content".to_owned(),
        }
    }
}

impl Answer {
    /// What is wrong with it, whose status is another than expected.
    pub fn wrong_status(&self) -> Wrong {
        Wrong::of_status(self.status, self.retry_after, &self.body)
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::InvalidData => Self::Malformed,
            _ => Self::Connection,
        }
    }
}

impl From<http::Malformed> for Wrong {
    fn from(_: http::Malformed) -> Self {
        Self::Malformed
    }
}

/// One connection, and what was received on it but not read yet.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    source: Ipv4Addr,
    timeout: Duration,
    stream: Option<TcpStream>,
    held: Vec<u8>,
    chunk: Vec<u8>,
}

impl Connection {
    /// A connection to be. Reads and writes may take so long.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        let source = Ipv4Addr::UNSPECIFIED;
        Self { address, source, timeout, stream: None, held: Vec::with_capacity(8192), chunk: vec![0; 64 * 1024] }
    }

    /// The same, coming from this address of loopback.
    #[must_use]
    pub fn from(self, source: Ipv4Addr) -> Self {
        Self { source, ..self }
    }

    /// Whether there is one that was not closed.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Sends a request, on a new connection if there is none.
    ///
    /// # Errors
    /// When it cannot be opened or written to.
    pub fn send(&mut self, request: &[u8]) -> Result<(), Wrong> {
        if self.stream.is_none() {
            self.stream = Some(connect(self.source, self.address, self.timeout)?);
            self.held.clear();
        }
        let sent = self.stream.as_mut().map_or(Ok(()), |stream| stream.write_all(request));
        sent.map_err(|error| self.broken(error.into()))
    }

    /// Reads the answer to the request that was sent.
    ///
    /// # Errors
    /// When there is none; the connection is then closed.
    pub fn receive(&mut self) -> Result<Answer, Wrong> {
        self.read_answer().map_err(|wrong| self.broken(wrong))
    }

    /// Closes it; the next request opens another.
    pub fn close(&mut self) {
        self.stream = None;
        self.held.clear();
    }

    fn broken(&mut self, wrong: Wrong) -> Wrong {
        self.close();
        wrong
    }

    fn read_answer(&mut self) -> Result<Answer, Wrong> {
        let (status, session, retry_after, framing, is_stream, closes, start) = loop {
            if let Some(head) = Head::parse(&self.held)? {
                let status = head.status()?;
                let framing = if matches!(status, 100..200 | 204 | 304) {
                    Framing::Length(0)
                } else {
                    head.framing(Framing::Close)?
                };
                let is_stream = head.header("content-type").is_some_and(|media| media.starts_with("text/event-stream"));
                let session = head.header("mcp-session-id").map(str::to_owned);
                let retry_after = head.header("retry-after").is_some();
                break (status, session, retry_after, framing, is_stream, head.closes(), head.bytes);
            }
            self.fill()?;
        };
        self.held.drain(..start);
        let mut first_event = None;
        let mut body = Vec::new();
        loop {
            if is_stream && first_event.is_none() && !self.held.is_empty() {
                first_event = Some(Instant::now());
            }
            if self.take(framing, &mut body)? {
                break;
            }
            if self.fill()? == 0 && framing == Framing::Close {
                break;
            }
        }
        let whole = Instant::now();
        if closes || framing == Framing::Close {
            self.close();
        }
        Ok(Answer { status, session, retry_after, body, first_event, whole })
    }

    /// Moves what is held into the body. Whether that was all of it.
    fn take(&mut self, framing: Framing, body: &mut Vec<u8>) -> Result<bool, Wrong> {
        match framing {
            Framing::Length(length) => {
                let count = self.held.len().min(length - body.len());
                body.extend(self.held.drain(..count));
                Ok(body.len() == length)
            }
            Framing::Chunked => {
                let mut taken = 0;
                let mut ended = false;
                while let Some((data, bytes)) = http::chunk(&self.held[taken..])? {
                    body.extend_from_slice(data);
                    taken += bytes;
                    if data.is_empty() {
                        ended = true;
                        break;
                    }
                    if body.len() > http::BODY_BYTES_MAX {
                        return Err(Wrong::Malformed);
                    }
                }
                self.held.drain(..taken);
                Ok(ended)
            }
            Framing::Close => {
                body.append(&mut self.held);
                Ok(false)
            }
        }
    }

    /// Reads more. Nothing more is an error, unless the answer ends so.
    fn fill(&mut self) -> Result<usize, Wrong> {
        let stream = self.stream.as_mut().ok_or(Wrong::Connection)?;
        let read = stream.read(&mut self.chunk)?;
        if read == 0 && self.held.is_empty() {
            return Err(Wrong::Connection);
        }
        self.held.extend_from_slice(&self.chunk[..read]);
        if read == 0 { Err(Wrong::Connection) } else { Ok(read) }
    }
}

/// Connects from one address of loopback to another. Connecting, reads and writes may take so long.
///
/// # Errors
/// When nobody takes the connection.
pub fn connect(source: Ipv4Addr, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    // Not for processes that are started meanwhile: they would keep it open.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    if !source.is_unspecified() {
        rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    let stream = TcpStream::from(socket);
    // The limit of writing is that of connecting too.
    stream.set_write_timeout(Some(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    rustix::net::connect(&stream, &to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether `answer` is the one to request `id`.
///
/// # Errors
/// What is wrong with it.
pub fn judge(answer: &Answer, id: u64, expected: Expected) -> Result<(), Wrong> {
    if expected == Expected::Failure {
        return if answer.status >= 500 { Ok(()) } else { Err(Wrong::Status(answer.status)) };
    }
    if answer.status != 200 {
        return Err(answer.wrong_status());
    }
    let mut digits = [0; 16];
    let mut rest = &mut digits[..];
    let _ = write!(rest, "\"id\":{id}");
    let left = rest.len();
    let wanted = &digits[..16 - left];
    // The answer to a call ends its stream: it is looked for from the end.
    if memchr::memmem::rfind(&answer.body, wanted).is_none() {
        return Err(Wrong::Id);
    }
    let sought: &[u8] = if expected == Expected::Result { b"\"result\":" } else { b"\"error\":" };
    memchr::memmem::rfind(&answer.body, sought).map(|_| ()).ok_or(Wrong::Content)
}

/// Opens a session, where the era has one and the server gives one.
///
/// # Errors
/// When `initialize` is not answered as it must be.
pub fn begin(connection: &mut Connection, target: &Target, era: Era) -> Result<Option<String>, Wrong> {
    if era != Era::Session {
        return Ok(None);
    }
    connection.send(&target.initialize())?;
    let answer = connection.receive()?;
    if answer.status != 200 {
        return Err(Wrong::Status(answer.status));
    }
    let session = answer.session;
    connection.send(&target.initialized(session.as_deref()))?;
    let answer = connection.receive()?;
    if answer.status == 202 { Ok(session) } else { Err(Wrong::Status(answer.status)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(bytes: &'static [u8]) -> Result<Answer, Wrong> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(bytes).unwrap();
        });
        let mut connection = Connection::new(address, Duration::from_secs(10));
        connection.send(b"?").unwrap();
        let answer = connection.receive();
        server.join().unwrap();
        answer
    }

    #[test]
    fn answers_of_every_framing_are_read_whole() {
        let of_length = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((of_length.status, of_length.body.as_slice()), (200, &b"{}"[..]));
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let of_chunks = answered(head).unwrap();
        assert_eq!(of_chunks.body, b"abc");
        assert!(of_chunks.first_event.is_some());
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().status, 204);
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").unwrap_err(), Wrong::Connection);
        assert_eq!(
            answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab").unwrap_err(),
            Wrong::Connection
        );
        assert_eq!(answered(b"").unwrap_err(), Wrong::Connection);
    }

    #[test]
    fn a_wrong_answer_does_not_count() {
        let answer = |status, body: &str| Answer {
            status,
            session: None,
            retry_after: false,
            body: body.as_bytes().to_vec(),
            first_event: None,
            whole: Instant::now(),
        };
        let right = answer(200, r#"{"id":1000000007,"result":{}}"#);
        assert_eq!(judge(&right, 1_000_000_007, Expected::Result), Ok(()));
        assert_eq!(judge(&right, 1_000_000_008, Expected::Result), Err(Wrong::Id));
        assert_eq!(judge(&right, 1_000_000_007, Expected::Error), Err(Wrong::Content));
        assert_eq!(judge(&answer(403, ""), 1, Expected::Result), Err(Wrong::Status(403)));
        assert_eq!(judge(&answer(502, ""), 1, Expected::Failure), Ok(()));
        assert_eq!(judge(&right, 1, Expected::Failure), Err(Wrong::Status(200)));
    }

    #[test]
    fn only_what_the_gateway_put_off_is_put_off() {
        let text = br#"{"error":{"message":"the gateway has too much to do; nothing was done; try again shortly"}}"#;
        assert_eq!(Wrong::of_status(503, true, text), Wrong::PutOff);
        assert_eq!(Wrong::of_status(503, false, text), Wrong::Status(503));
        assert_eq!(Wrong::of_status(503, true, b"the record cannot be written"), Wrong::Status(503));
        assert_eq!(Wrong::of_status(502, true, text), Wrong::Status(502));
    }
}
