//! How does the upstream serve?
//!
//! Raw HTTP/1.1 on tokio: what it costs is taken from the cores of what is measured. One thread serves some 100,000
//! calls a second; more threads share the port. It counts what it was asked, so that a proxy which answers by itself is noticed.

mod answer;
mod arguments;

pub use answer::Counts;
pub use answer::Settings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::http::Framing;
use crate::http::Head;
use crate::http::Malformed;
use answer::Asked;
use answer::Reply;
use answer::Stream;

/// Connections of one thread, at most; the next ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;
/// How long one write to a proxy that does not read may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves on `threads` threads that share `listen`, for ever.
///
/// # Errors
/// When the address cannot be used.
pub fn serve(listen: SocketAddr, threads: usize, settings: Settings) -> io::Result<()> {
    let settings = Arc::new(settings);
    let served: Vec<_> = (0..threads.max(1))
        .map(|_| {
            let settings = Arc::clone(&settings);
            std::thread::spawn(move || serve_here(listen, &settings))
        })
        .collect();
    for thread in served {
        thread.join().map_err(|_| io::Error::other("a serving thread panicked"))??;
    }
    Ok(())
}

fn serve_here(listen: SocketAddr, settings: &Arc<Settings>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(listen)?;
        let listener = socket.listen(4096)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let settings = Arc::clone(settings);
            tokio::spawn(async move {
                // A connection that breaks ends itself and nothing else.
                let _ = Connection { stream, held: Vec::with_capacity(4096), settings }.serve().await;
                drop(place);
            });
        }
    })
}

struct Connection {
    stream: TcpStream,
    held: Vec<u8>,
    settings: Arc<Settings>,
}

impl Connection {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.next() {
                Ok(Some((reply, length))) => {
                    self.held.drain(..length);
                    if !self.reply(reply).await? {
                        return Ok(());
                    }
                }
                Ok(None) => {
                    let mut chunk = [0; 16 * 1024];
                    let read = self.stream.read(&mut chunk).await?;
                    if read == 0 {
                        return Ok(());
                    }
                    self.held.extend_from_slice(&chunk[..read]);
                }
                Err(error) => {
                    let reply = Reply::status(400, error.0);
                    self.reply(reply).await?;
                    return Ok(());
                }
            }
        }
    }

    /// What to answer to the next request, once it is whole, and its length.
    fn next(&self) -> Result<Option<(Reply, usize)>, Malformed> {
        let Some(head) = Head::parse(&self.held)? else { return Ok(None) };
        let Framing::Length(length) = head.framing(Framing::Length(0))? else {
            return Err(Malformed("a request without Content-Length"));
        };
        let end = head.bytes + length;
        let Some(body) = self.held.get(head.bytes..end) else { return Ok(None) };
        let mut words = head.line.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(Malformed("no request line"));
        };
        let asked = Asked { method, path, session: head.header("mcp-session-id"), body };
        Ok(Some((self.settings.answer(&asked), end)))
    }

    /// Sends an answer. Whether the connection goes on.
    async fn reply(&mut self, reply: Reply) -> io::Result<bool> {
        match reply {
            Reply::Whole { bytes, after } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                self.write(&bytes).await?;
                Ok(true)
            }
            Reply::Stream(stream) => self.stream(stream).await,
            Reply::Cut(bytes) => {
                self.write(&bytes).await?;
                Ok(false)
            }
            Reply::Reset => {
                rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
                Ok(false)
            }
        }
    }

    async fn stream(&mut self, stream: Stream) -> io::Result<bool> {
        self.write(&stream.head()).await?;
        for number in 1..=stream.events {
            if !stream.spacing.is_zero() && self.left_within(stream.spacing).await {
                return Ok(false);
            }
            self.write(&stream.event(number)).await?;
        }
        self.write(&stream.end()).await?;
        Ok(true)
    }

    /// Waits, and notices at once when the other side leaves.
    async fn left_within(&mut self, time: Duration) -> bool {
        let mut chunk = [0; 1024];
        match tokio::time::timeout(time, self.stream.read(&mut chunk)).await {
            Ok(Ok(read)) if read > 0 => {
                self.held.extend_from_slice(&chunk[..read]);
                tokio::time::sleep(time).await;
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A fresh socket takes what is sent at once; only what does not fit is worth a timer.
        let sent = self.stream.try_write(bytes).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Ok(0),
            _ => Err(error),
        })?;
        if sent == bytes.len() {
            return Ok(());
        }
        let rest = self.stream.write_all(&bytes[sent..]);
        tokio::time::timeout(WRITE_TIMEOUT, rest).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}
