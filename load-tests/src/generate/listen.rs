//! How are many standing streams held open and read?
//!
//! One thread reads them all. A stream counts as open once its first bytes came; one that ends before its time is an error.

use std::io;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client;
use crate::client::Connection;
use crate::client::Wrong;
use crate::generate::report::Report;
use crate::generate::worker::Load;

/// Standing streams, at most.
const STREAMS_MAX: usize = 50_000;
/// Streams that are opened at once: more would overflow what the listener holds.
const OPENING_MAX: usize = 64;

/// Holds `load.connections` standing streams for so long and counts their events.
///
/// # Errors
/// When the runtime cannot be made.
pub fn listen(load: &Load, length: Duration) -> io::Result<Report> {
    let mut all = Report::default();
    let mut connection = Connection::new(load.address, load.timeout);
    let session = match client::begin(&mut connection, &load.target, load.era) {
        Ok(session) => session,
        Err(wrong) => {
            all.failed(wrong, Instant::now());
            return Ok(all);
        }
    };
    let request = load.target.listen(session.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(OPENING_MAX));
        let mut streams = JoinSet::new();
        let until = Instant::now() + length;
        for _ in 0..load.connections.min(STREAMS_MAX) {
            let (load, request, places) = (load.clone(), request.clone(), std::sync::Arc::clone(&places));
            streams.spawn(async move {
                let mut report = Report::default();
                let place = places.acquire_owned().await;
                let intended = Instant::now();
                let open = async {
                    let mut stream = TcpStream::connect(load.address).await?;
                    stream.write_all(&request).await?;
                    let first = first_bytes(&mut stream).await?;
                    Ok::<_, Wrong>((stream, first))
                };
                let opened = tokio::time::timeout(load.timeout, open).await.unwrap_or(Err(Wrong::Timeout));
                drop(place);
                match opened {
                    Ok((stream, answer)) => {
                        report.take(intended, intended, &Ok(answer));
                        hear(stream, until, &mut report).await;
                    }
                    Err(wrong) => report.failed(wrong, Instant::now()),
                }
                report
            });
        }
        while let Some(report) = streams.join_next().await {
            all.add(&report.map_err(io::Error::other)?);
        }
        Ok(all)
    })
}

/// Reads until the head is whole and something follows it.
async fn first_bytes(stream: &mut TcpStream) -> Result<client::Answer, Wrong> {
    let mut held = Vec::new();
    loop {
        if let Some(head) = crate::http::Head::parse(&held)? {
            let status = head.status()?;
            if status != 200 {
                return Err(Wrong::Status(status));
            }
            if held.len() > head.bytes {
                let now = Instant::now();
                return Ok(client::Answer {
                    status,
                    session: None,
                    retry_after: false,
                    body: Vec::new(),
                    first_event: Some(now),
                    whole: now,
                });
            }
        }
        if stream.read_buf(&mut held).await? == 0 {
            return Err(Wrong::Connection);
        }
    }
}

async fn hear(mut stream: TcpStream, until: Instant, report: &mut Report) {
    let mut chunk = vec![0; 4096];
    loop {
        match tokio::time::timeout_at(until.into(), stream.read(&mut chunk)).await {
            Err(_) => return,
            Ok(Ok(read)) if read > 0 => {
                let events = memchr::memmem::find_iter(&chunk[..read], b"event: message").count();
                report.heard(events as u64, read as u64);
            }
            Ok(_) => return report.failed(Wrong::Connection, Instant::now()),
        }
    }
}
