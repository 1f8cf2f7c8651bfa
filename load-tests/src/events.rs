//! What does an event stream bring, one event after the other?
//!
//! A blocking reader of a stream that may stand for long. It understands what the gateway sends: chunks, and lines that
//! end in one line feed.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::client::Wrong;
use crate::client::connect;
use crate::http;
use crate::http::Framing;
use crate::http::Head;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` where it has none.
    pub name: String,
    /// Its data, lines and all.
    pub data: String,
}

/// What the next moments brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(Event),
    /// Nothing in that time.
    Silence,
    /// The end of the stream.
    End,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    stream: TcpStream,
    held: Vec<u8>,
    text: Vec<u8>,
    is_chunked: bool,
    ended: bool,
}

impl EventStream {
    /// Sends `request` on a connection of its own and waits for a head that begins a stream.
    ///
    /// # Errors
    /// When none begins: another status, or no head in time.
    pub fn open(source: Ipv4Addr, to: SocketAddr, request: &[u8], wait: Duration) -> Result<Self, Wrong> {
        let mut stream = connect(source, to, wait)?;
        stream.write_all(request)?;
        let mut held = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(head) = Head::parse(&held)? {
                let status = head.status()?;
                if status != 200 {
                    let (retry_after, bytes) = (head.header("retry-after").is_some(), head.bytes);
                    let Framing::Length(length) = head.framing(Framing::Close)? else {
                        return Err(Wrong::Status(status));
                    };
                    let mut body = held.split_off(bytes);
                    while body.len() < length {
                        match stream.read(&mut chunk)? {
                            0 => return Err(Wrong::Connection),
                            read => body.extend_from_slice(&chunk[..read]),
                        }
                    }
                    return Err(Wrong::of_status(status, retry_after, &body));
                }
                if !head.header("content-type").is_some_and(|media| media.starts_with("text/event-stream")) {
                    return Err(Wrong::Content);
                }
                let is_chunked = head.framing(Framing::Close)? == Framing::Chunked;
                let bytes = head.bytes;
                held.drain(..bytes);
                return Ok(Self { stream, held, text: Vec::new(), is_chunked, ended: false });
            }
            match stream.read(&mut chunk)? {
                0 => return Err(Wrong::Connection),
                read => held.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// The next event, waited for until `until`. Comments count as silence.
    ///
    /// # Errors
    /// When what comes is no stream.
    pub fn next(&mut self, until: Instant) -> Result<Heard, Wrong> {
        loop {
            while let Some(end) = memchr::memmem::find(&self.text, b"\n\n") {
                let lines: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(event) = event(&lines) {
                    return Ok(Heard::Event(event));
                }
            }
            if self.ended {
                return Ok(Heard::End);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Silence);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(read) => self.held.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            self.unwrap_chunks()?;
        }
    }

    fn unwrap_chunks(&mut self) -> Result<(), Wrong> {
        if !self.is_chunked {
            self.text.append(&mut self.held);
            return Ok(());
        }
        while let Some((data, bytes)) = http::chunk(&self.held)? {
            self.text.extend_from_slice(data);
            self.ended |= data.is_empty();
            self.held.drain(..bytes);
        }
        Ok(())
    }
}

/// What these lines say, if they have data.
fn event(lines: &[u8]) -> Option<Event> {
    let mut event = Event { name: "message".to_owned(), data: String::new() };
    let mut has_data = false;
    for line in String::from_utf8_lossy(lines).lines() {
        if let Some(name) = line.strip_prefix("event:") {
            event.name = name.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data:") {
            if has_data {
                event.data.push('\n');
            }
            event.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            has_data = true;
        }
    }
    has_data.then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What is not read when it closes would become a reset.
            stream.read_exact(&mut [0; 3]).unwrap();
            let text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(text.as_bytes()).unwrap();
            for part in
                ["10\r\nevent: endpoint\n\r\n", "9\r\ndata: /x\n\r\n", "1\r\n\n\r\n", "3\r\n:\n\n\r\n", "0\r\n\r\n"]
            {
                stream.write_all(part.as_bytes()).unwrap();
            }
        });
        let wait = Duration::from_secs(10);
        let mut stream = EventStream::open(Ipv4Addr::LOCALHOST, address, b"GET", wait).unwrap();
        let until = Instant::now() + wait;
        let expected = Event { name: "endpoint".to_owned(), data: "/x".to_owned() };
        assert_eq!(stream.next(until).unwrap(), Heard::Event(expected));
        assert_eq!(stream.next(until).unwrap(), Heard::End);
        server.join().unwrap();
    }
}
