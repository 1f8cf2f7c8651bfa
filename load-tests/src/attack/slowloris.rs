//! What do thousands of connections achieve that drip their headers?

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
use crate::messages::Era;
use crate::verdict::Report;

/// How often a connection drips a byte.
const DRIP: Duration = Duration::from_secs(1);
/// Connections that are opened each second: all at once, the system would lose some of them.
const OPENED_PER_SECOND: u64 = 3_000;
/// What honest callers may be slowed down by.
const SLOWDOWN_MAX: f64 = 2.0;
/// How long after the header's time limit a connection may still be there.
const GRACE: Duration = Duration::from_secs(1);
/// The same where all attacks are made at once, on a machine that has other things to do.
const GRACE_IN_A_CROWD: Duration = Duration::from_secs(5);

/// One connection that dripped.
#[derive(Debug, Clone, Copy)]
struct Dripper {
    /// From its first byte to its end; none if it outlived the attack.
    lived: Option<Duration>,
    /// Whether it was told why it ended.
    told: bool,
}

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("slowloris: connections that drip their headers");
    let upstream = ground.upstream("slowloris")?;
    let limit = ground.sized(Duration::from_secs(2), Duration::from_secs(10));
    let listen = format!("header_timeout_ms = {}", limit.as_millis());
    let gateway = ground.gateway("slowloris", &listen, &[("steady", upstream.address, "")])?;
    // The gateway takes half as many connections as it may have descriptors; honest clients need some.
    let room =
        (rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(20_000) - 128) / 2 - 500;
    let count = ground.sized(400, 10_000).min(room);
    let wait = limit + ground.sized(GRACE_IN_A_CROWD, GRACE);
    let length = ground.sized(Duration::from_secs(5), Duration::from_secs(30));
    let base = warmed(&gateway, "steady");
    let callers = Callers { count: 4, per_second: 200.0, era: Era::Plain };
    let calm = ground.sized(Duration::from_secs(2), Duration::from_secs(10));
    let (mut without, ()) = legit::during(&gateway, "steady", callers, || std::thread::sleep(calm));
    let data = gateway.data;
    let most = std::sync::atomic::AtomicUsize::new(0);
    let (during, drippers) = legit::during(&gateway, "steady", callers, || {
        std::thread::scope(|scope| {
            let dripping = scope.spawn(|| drip_all(data, count, length, wait));
            while !dripping.is_finished() {
                most.fetch_max(gateway.process.descriptors(), std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(200));
            }
            dripping.join().expect("the drippers")
        })
    });
    let drippers = drippers?;
    // Before and after: what else the machine does is not to be taken for the attack.
    without.add(legit::during(&gateway, "steady", callers, || std::thread::sleep(calm)).0);
    let lived: Vec<Duration> = drippers.iter().filter_map(|dripper| dripper.lived).collect();
    let longest = lived.iter().max().copied().unwrap_or_default();
    report.figure("connections_at_once", count);
    report.figure("connections", drippers.len());
    report.figure("gateway_descriptors_most", most.into_inner());
    report.figure("told_why", drippers.iter().filter(|dripper| dripper.told).count());
    report.figure("p90_without_us", without.percentile(90));
    report.figure("p50_without_us", without.percentile(50));
    report.figure("p50_during_us", during.percentile(50));
    report.figure("p90_during_us", during.percentile(90));
    report.figure("p99_during_us", during.percentile(99));
    report.figure("honest_calls", during.right());
    let ratio = during.percentile(90) / without.percentile(90);
    if ground.is_quick {
        report.doubt(format!("{ratio:.2} times as long in seconds says nothing"));
    } else {
        report.claim(
            format!("honest calls take at most {SLOWDOWN_MAX} times as long (p90)"),
            ratio <= SLOWDOWN_MAX,
            format!("{ratio:.2} times"),
        );
    }
    report.claim(
        "every honest call is answered",
        during.were_answered(ground),
        format!("{:?}, {} refused", during.errors, during.refused),
    );
    report.claim(
        format!("every dripper is gone {:.0} s after its first byte", wait.as_secs_f64()),
        lived.len() == drippers.len() && longest <= wait,
        format!(
            "the last one after {:.2} s; {} outlived the attack",
            longest.as_secs_f64(),
            drippers.len() - lived.len()
        ),
    );
    afterwards(ground, &mut report, gateway, base)?;
    Ok(report)
}

/// Keeps `count` connections dripping for `length`, and waits for each to be ended.
fn drip_all(to: SocketAddr, count: u64, length: Duration, wait: Duration) -> io::Result<Vec<Dripper>> {
    runtime()?.block_on(async {
        let until = Instant::now() + length;
        let mut dripping = JoinSet::new();
        for number in 0..count {
            if number % (OPENED_PER_SECOND / 20) == OPENED_PER_SECOND / 20 - 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            dripping.spawn(async move {
                let mut drippers = Vec::new();
                let mut turn = 0;
                while Instant::now() < until {
                    // Whoever is ended comes again.
                    drippers.push(drip(to, number + turn * count, until + wait).await?);
                    turn += 1;
                }
                Ok::<_, io::Error>(drippers)
            });
        }
        let mut all = Vec::new();
        while let Some(drippers) = dripping.join_next().await {
            all.extend(drippers.map_err(io::Error::other)??);
        }
        Ok(all)
    })
}

async fn drip(to: SocketAddr, number: u64, until: Instant) -> io::Result<Dripper> {
    let mut stream = connect(number, to).await?;
    let began = Instant::now();
    let mut told = false;
    let mut chunk = [0; 512];
    let first = b"POST /mcp/steady HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
    let mut ended = stream.write_all(first).await.is_err();
    while !ended && Instant::now() < until {
        match tokio::time::timeout(DRIP, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => ended = true,
            Ok(Ok(_)) => told = true,
            Err(_) => ended = stream.write_all(b"a").await.is_err(),
        }
    }
    Ok(Dripper { lived: ended.then(|| began.elapsed()), told })
}
