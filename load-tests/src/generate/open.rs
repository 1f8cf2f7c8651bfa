//! How are requests made that wait for nobody?
//!
//! One schedule for all connections, request `n` at `start + n / rate`. A free connection takes the next number, sleeps
//! until its time and sends. When all are busy the numbers are taken late, but the times stay those of the schedule: a
//! server that stalls is charged for every request that was due meanwhile.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::generate::report::Report;
use crate::generate::worker::Load;
use crate::generate::worker::Worker;
use crate::generate::worker::be_punctual;
use crate::generate::worker::sleep_until;

/// Connections, at most: each has a thread.
pub(super) const CONNECTIONS_MAX: usize = 4096;
/// Stack of such a thread.
const STACK_BYTES: usize = 256 * 1024;
/// All connections are open before the first request is due.
const LEAD: Duration = Duration::from_millis(20);

/// Makes `rate` requests a second for so long, then waits for the answers that are missing.
pub fn open(load: &Load, rate: f64, length: Duration) -> Report {
    let total = (rate * length.as_secs_f64()) as u64;
    let next = AtomicU64::new(0);
    let ready = std::sync::Barrier::new(load.connections.min(CONNECTIONS_MAX) + 1);
    let start = std::sync::OnceLock::new();
    thread::scope(|scope| {
        let run = || {
            let mut report = Report::default();
            be_punctual();
            let mut worker = Worker::start(load);
            ready.wait();
            let start: Instant = *start.wait();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= total {
                    break;
                }
                let intended = start + Duration::from_secs_f64(number as f64 / rate);
                sleep_until(intended);
                let started = Instant::now();
                if worker.is_err() {
                    worker = Worker::start(load);
                }
                let ended = match &mut worker {
                    Ok(worker) => worker.send(number).and_then(|()| worker.receive()),
                    Err(wrong) => Err(*wrong),
                };
                report.take(intended, started, &ended);
            }
            if let Ok(worker) = worker {
                worker.end();
            }
            report
        };
        let spawn = |_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run).expect("a thread");
        let connections: Vec<_> = (0..load.connections.min(CONNECTIONS_MAX)).map(spawn).collect();
        ready.wait();
        let _ = start.set(Instant::now() + LEAD);
        let mut all = Report::default();
        for connection in connections {
            all.add(&connection.join().expect("a connection's thread"));
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::mix::Mix;
    use crate::generate::mix::Name;
    use crate::messages::Era;
    use crate::messages::Target;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn a_stall_is_charged_to_every_request_that_was_due() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Answers one connection; stalls 200 ms before the first answer.
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = [0; 4096];
            let mut stall = Duration::from_millis(200);
            while let Ok(read) = stream.read(&mut chunk) {
                let Some(at) = memchr::memmem::find(&chunk[..read], b"\"id\":") else { return };
                let id = String::from_utf8_lossy(&chunk[at + 5..at + 15]).into_owned();
                thread::sleep(std::mem::take(&mut stall));
                let body = format!(r#"{{"id":{id},"result":{{}}}}"#);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let load = Load {
            address,
            target: Target {
                host: "localhost".to_owned(),
                path: "/mcp".to_owned(),
                key: None,
                tool_prefix: String::new(),
            },
            era: Era::Plain,
            mix: Mix::new(Name::Call, 0, 0),
            connections: 1,
            timeout: Duration::from_secs(10),
        };
        let report = open(&load, 100.0, Duration::from_millis(300)).to_json();
        assert_eq!((&report["right"], &report["wrong"]), (&30.into(), &0.into()));
        // 20 of 30 were due while nothing was answered: half of all waited 50 ms and more, though each was served at once.
        assert!(report["latency_us"]["p50"].as_f64().unwrap() > 40_000.0, "{report}");
        assert!(report["service_us"]["p50"].as_f64().unwrap() < 40_000.0, "{report}");
        assert!(report["start_delay_us"]["p50"].as_f64().unwrap() > 40_000.0, "{report}");
    }
}
