//! What do hundreds of clients achieve that do not read their long answers?

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::attack::Ground;
use crate::attack::TOO_MUCH_KIB;
use crate::attack::afterwards;
use crate::attack::connect;
use crate::attack::is_bounded;
use crate::attack::is_too_much;
use crate::attack::legit;
use crate::attack::legit::Callers;
use crate::attack::runtime;
use crate::attack::warmed;
use crate::messages::Ask;
use crate::messages::Era;
use crate::stand::Gateway;
use crate::verdict::Report;

/// KiB of one answer.
const ANSWER_KIB: usize = 10 * 1024;
/// How long a reader may still be there after its answer's time and the time limit of a write.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("readers: clients that do not read their long answers");
    // Another server for the honest: it is not this one's own slowness that is looked at.
    let (upstream, long) = (ground.upstream("readers")?, ground.upstream("readers-long")?);
    let limit = ground.sized(Duration::from_secs(2), Duration::from_secs(30));
    let listen = format!("write_timeout_ms = {}", limit.as_millis());
    let gathering = ground.sized(Duration::from_secs(10), Duration::from_secs(30));
    let keys = format!("timeout_ms = {}", gathering.as_millis());
    let servers = [("steady", upstream.address, ""), ("long", long.address, keys.as_str())];
    let gateway = ground.gateway("readers", &listen, &servers)?;
    let base = warmed(&gateway, "steady");
    let count = ground.sized(20, 500);
    let request = gateway.target("long").prepare(Ask::Blob(ANSWER_KIB), Era::Plain, None).numbered(0).0.to_vec();
    let callers = Callers { count: 4, per_second: 100.0, era: Era::Plain };
    let (honest, seen) = legit::during(&gateway, "steady", callers, || {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let holding = scope.spawn(|| hold_all(&gateway, count, &request, &over));
            let gone = await_gone(&gateway, callers.count, gathering + limit + GRACE);
            over.store(true, Relaxed);
            Ok::<_, io::Error>((gone?, holding.join().map_err(|_| io::Error::other("a reader panicked"))??))
        })
    });
    let (gone, (clients, refused)) = seen?;
    report.figure("clients", clients);
    report.figure("answers_mib", clients as f64 * ANSWER_KIB as f64 / 1024.0);
    report.figure("refused", refused);
    let within = (gathering + limit + GRACE).as_secs_f64();
    report.claim(
        format!("nobody is kept who does not read, {within:.0} s after all of them came"),
        gone.is_some(),
        gone.map_or("some are".to_owned(), |gone| format!("the last one was ended after {:.1} s", gone.as_secs_f64())),
    );
    if gone.is_none() && gateway.process.peak_kib() > TOO_MUCH_KIB {
        report.doubt(format!("given up with {clients} of {count} clients: the gateway held too much"));
    }
    is_bounded(&mut report, &gateway);
    honest.report(&mut report);
    afterwards(ground, &mut report, gateway, base)?;
    Ok(report)
}

/// Waits until the gateway has no more connections than those of honest clients, but at most so long. What it ended is
/// not seen by a client that does not read: the end stands behind what was not read.
fn await_gone(gateway: &Gateway, honest: usize, wait: Duration) -> io::Result<Option<Duration>> {
    // First they have to be there.
    thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    while began.elapsed() < wait && !is_too_much(gateway) {
        if gateway.figure("portcullis_connections")? <= honest as f64 {
            return Ok(Some(began.elapsed()));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(None)
}

/// Holds all of them until it is over. How many there were, and how many were refused and told when to come again.
fn hold_all(gateway: &Gateway, count: u64, request: &[u8], over: &AtomicBool) -> io::Result<(u64, usize)> {
    runtime()?.block_on(async {
        let (mut held, mut refused) = (Vec::new(), 0);
        for number in 0..count {
            let mut stream = connect(number, gateway.data).await?;
            stream.write_all(request).await?;
            held.push(stream);
            if is_too_much(gateway) {
                break;
            }
        }
        let mut chunk = [0; 256];
        while !over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for stream in &mut held {
            // Only now is it looked at what each was told.
            let read = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut chunk)).await;
            let read = read.ok().and_then(Result::ok).unwrap_or(0);
            refused += usize::from(chunk[..read].starts_with(b"HTTP/1.1 503"));
        }
        Ok((held.len() as u64, refused))
    })
}
