//! What do hundreds of connections achieve that drip their bodies?

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::attack::Ground;
use crate::attack::afterwards;
use crate::attack::connect;
use crate::attack::legit;
use crate::attack::legit::Callers;
use crate::attack::runtime;
use crate::attack::warmed;
use crate::messages::Ask;
use crate::messages::Era;
use crate::verdict::Report;

/// How long after the body's time limit a connection may still be there: after its answer the gateway reads on for 2 s, so
/// that the answer is not lost to what the client is still sending.
const GRACE: Duration = Duration::from_secs(3);
/// The same where all attacks are made at once, on a machine that has other things to do.
const GRACE_IN_A_CROWD: Duration = Duration::from_secs(7);

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("bodies: connections that drip their bodies");
    let upstream = ground.upstream("bodies")?;
    let limit = ground.sized(Duration::from_secs(2), Duration::from_secs(30));
    let listen = format!("body_timeout_ms = {}", limit.as_millis());
    let gateway = ground.gateway("bodies", &listen, &[("steady", upstream.address, "")])?;
    let base = warmed(&gateway, "steady");
    let count = ground.sized(50, 500);
    let wait = limit + ground.sized(GRACE_IN_A_CROWD, GRACE);
    let request = gateway.target("steady").prepare(Ask::Padded(64), Era::Plain, None).numbered(0).0.to_vec();
    let callers = Callers { count: 4, per_second: 100.0, era: Era::Plain };
    let data = gateway.data;
    let (honest, lived) = legit::during(&gateway, "steady", callers, || drip_all(data, count, &request, wait));
    let lived = lived?;
    let gone = lived.iter().flatten().count();
    let longest = lived.iter().flatten().max().copied().unwrap_or_default();
    report.figure("connections", count);
    report.figure("honest_p90_us", honest.percentile(90));
    report.claim(
        format!("every dripper is gone {:.0} s after its first byte", wait.as_secs_f64()),
        gone == lived.len(),
        format!("{gone} of {}, the last one after {:.2} s", lived.len(), longest.as_secs_f64()),
    );
    report.claim(
        "every honest call is answered",
        honest.were_answered(ground),
        format!("{:?}, {} refused, beside {} answers", honest.errors, honest.refused, honest.right()),
    );
    afterwards(ground, &mut report, gateway, base)?;
    Ok(report)
}

/// How long each connection was let drip; none for one that still may.
fn drip_all(to: SocketAddr, count: u64, request: &[u8], wait: Duration) -> io::Result<Vec<Option<Duration>>> {
    let request = bytes_of(request);
    runtime()?.block_on(async {
        let mut dripping = JoinSet::new();
        for number in 0..count {
            let request = request.clone();
            dripping.spawn(async move { drip(to, number, &request, wait).await });
        }
        let mut lived = Vec::new();
        while let Some(one) = dripping.join_next().await {
            lived.push(one.map_err(io::Error::other)??);
        }
        Ok(lived)
    })
}

fn bytes_of(request: &[u8]) -> std::sync::Arc<[u8]> {
    std::sync::Arc::from(request)
}

async fn drip(to: SocketAddr, number: u64, request: &[u8], wait: Duration) -> io::Result<Option<Duration>> {
    let mut stream = connect(number, to).await?;
    let began = Instant::now();
    let body = memchr::memmem::find(request, b"\r\n\r\n").map_or(0, |at| at + 4);
    stream.write_all(&request[..body]).await?;
    let mut chunk = [0; 512];
    for byte in request[body..].chunks(1) {
        if began.elapsed() > wait {
            return Ok(None);
        }
        if stream.write_all(byte).await.is_err() {
            break;
        }
        // An answer is followed by the end.
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut chunk)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
    Ok(Some(began.elapsed()))
}
