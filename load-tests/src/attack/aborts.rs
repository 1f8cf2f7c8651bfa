//! What do thousands of clients leave behind that connect, call and go?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::attack::Ground;
use crate::attack::afterwards;
use crate::attack::connect;
use crate::attack::runtime;
use crate::attack::warmed;
use crate::chance::Chance;
use crate::messages::Ask;
use crate::messages::Era;
use crate::records::Reader;
use crate::records::Reading;
use crate::records::Record;
use crate::verdict::Report;

/// Clients at once.
const AT_ONCE: usize = 64;

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("aborts: clients that connect, call and leave");
    let upstream = ground.upstream("aborts")?;
    let gateway = ground.gateway("aborts", "", &[("steady", upstream.address, "timeout_ms = 5000")])?;
    let base = warmed(&gateway, "steady");
    let count = ground.sized(500, 10_000);
    let target = gateway.target("steady");
    let asks = [Ask::Query, Ask::Wait(300), Ask::Watch(30, 10), Ask::Blob(512)];
    let eras = [Era::Plain, Era::Modern];
    let requests: Vec<Vec<u8>> =
        asks.iter().flat_map(|ask| eras.map(|era| target.prepare(*ask, era, None).numbered(0).0.to_vec())).collect();
    let data = gateway.data;
    let (began, seed) = (std::time::Instant::now(), ground.seed);
    cycles(data, count, Arc::new(requests), seed)?;
    report.figure("cycles", count);
    report.figure("cycles_per_second", count as f64 / began.elapsed().as_secs_f64());
    let ended = afterwards(ground, &mut report, gateway, base)?;
    let mut tally = Outcomes::default();
    let mut reading = Reading::new();
    reading.finish(&ended.record, &mut tally)?;
    report.figure("calls_on_record", tally.calls);
    report.figure("client_gone", tally.gone);
    report.claim(
        "every call that was begun has its result on record, and the chain verifies",
        reading.unfinished() == 0 && reading.flaws_count == 0 && tally.gone > 0,
        format!("{} calls, {} without result, {} flaws", tally.calls, reading.unfinished(), reading.flaws_count),
    );
    Ok(report)
}

#[derive(Debug, Default)]
struct Outcomes {
    calls: u64,
    gone: u64,
}

impl Reader for Outcomes {
    fn intent(&mut self, _: &Record<'_>) -> u64 {
        self.calls += 1;
        0
    }
    fn result(&mut self, _: u64, record: &Record<'_>) {
        self.gone += u64::from(record.outcome.as_deref() == Some("client_gone"));
    }
    fn refused(&mut self, _: &Record<'_>) {}
}

fn cycles(to: SocketAddr, count: u64, requests: Arc<Vec<Vec<u8>>>, seed: u64) -> io::Result<()> {
    runtime()?.block_on(async {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        for number in 0..count {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let requests = Arc::clone(&requests);
            running.spawn(async move {
                let cycled = cycle(to, number, &requests, Chance::new(seed, number)).await;
                drop(place);
                cycled
            });
            while let Some(one) = running.try_join_next() {
                one.map_err(io::Error::other)??;
            }
        }
        while let Some(one) = running.join_next().await {
            one.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

/// Connects, calls, perhaps reads something, and leaves, by a reset or by the end.
async fn cycle(to: SocketAddr, number: u64, requests: &[Vec<u8>], mut chance: Chance) -> io::Result<()> {
    let mut stream = connect(number, to).await?;
    let request = &requests[usize::try_from(chance.number()).unwrap_or(0) % requests.len()];
    stream.write_all(request).await?;
    let mut chunk = [0; 2048];
    let patience = Duration::from_millis(chance.between(0, 40));
    let _ = tokio::time::timeout(patience, stream.read(&mut chunk)).await;
    if chance.between(0, 1) == 0 {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    }
    Ok(())
}
