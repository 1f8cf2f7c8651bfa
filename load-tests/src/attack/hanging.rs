//! What does an upstream that never answers take from another that does?
//!
//! Rounds in pairs, each with and without calls pending at the one that hangs, in turning order: what else the machine does
//! meets both. The comparison is the median of the ratios within the rounds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::attack::Ground;
use crate::attack::afterwards;
use crate::attack::connect;
use crate::attack::legit;
use crate::attack::legit::Callers;
use crate::attack::legit::Seen;
use crate::attack::runtime;
use crate::attack::warmed;
use crate::measure::median;
use crate::messages::Ask;
use crate::messages::Era;
use crate::stand::Gateway;
use crate::verdict::Report;

/// What the other server's callers may be slowed down by.
const SLOWDOWN_MAX: f64 = 1.2;
/// Rounds from which on the ratio says something.
const ROUNDS_TO_CLAIM: usize = 20;

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("hanging: an upstream that never answers, beside one that does");
    let upstream = ground.upstream("hanging")?;
    let hanging = hang()?;
    let servers =
        [("steady", upstream.address, ""), ("hanging", hanging, "timeout_ms = 30000\nhealth = { type = \"none\" }")];
    let gateway = ground.gateway("hanging", "", &servers)?;
    let base = warmed(&gateway, "steady");
    let (rounds, pending) = ground.sized((2, 100), (ROUNDS_TO_CLAIM, 1_000));
    let length = ground.sized(Duration::from_millis(400), Duration::from_millis(1_500));
    let callers = Callers { count: 4, per_second: 400.0, era: Era::Plain };
    let (mut calm, mut beside) = (Vec::new(), Vec::new());
    let (mut errors, mut right, mut most) = (std::collections::BTreeMap::<String, u64>::new(), 0, 0);
    let window = |gateway: &Gateway| legit::during(gateway, "steady", callers, || std::thread::sleep(length)).0;
    for round in 0..rounds {
        let mut with = |errors: &mut std::collections::BTreeMap<String, u64>| -> io::Result<f64> {
            let (seen, refused) = pend(&gateway, pending, || window(&gateway))?;
            most = most.max(pending - refused);
            right += seen.right();
            let refused = seen.refused;
            seen.errors.iter().for_each(|(what, count)| *errors.entry(what.clone()).or_default() += count);
            if refused > 0 && !ground.is_quick {
                *errors.entry("refused".to_owned()).or_default() += refused;
            }
            Ok(seen.percentile(90))
        };
        if round % 2 == 0 {
            calm.push(window(&gateway).percentile(90));
            beside.push(with(&mut errors)?);
        } else {
            beside.push(with(&mut errors)?);
            calm.push(window(&gateway).percentile(90));
        }
    }
    let ratios: Vec<f64> = beside.iter().zip(&calm).map(|(with, without)| with / without).collect();
    let (p90, p90_beside, ratio) = (median(&calm), median(&beside), median(&ratios));
    report.figure("rounds", rounds);
    report.figure("pending_at_most", most);
    report.figure("p90_us", p90.median);
    report.figure("p90_beside_us", p90_beside.median);
    report.figure("ratio", format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.low, ratio.high));
    if rounds < ROUNDS_TO_CLAIM {
        report.doubt(format!("{rounds} rounds say nothing about the ratio"));
    } else {
        report.claim(
            format!("calls to the other server take at most {SLOWDOWN_MAX} times as long (p90)"),
            ratio.median <= SLOWDOWN_MAX,
            format!("{:.3} times, {:.3} to {:.3} at 95 %", ratio.median, ratio.low, ratio.high),
        );
    }
    report.claim(
        "every call to the other server is answered",
        errors.is_empty() && right > 0,
        format!("{right} answers, {errors:?}"),
    );
    report.claim("calls were pending meanwhile", most > 0, format!("{most}"));
    afterwards(ground, &mut report, gateway, base)?;
    Ok(report)
}

/// What happens while so many calls are pending at the server that hangs, and how many of these were refused.
fn pend(gateway: &Gateway, count: u64, what: impl FnOnce() -> Seen) -> io::Result<(Seen, u64)> {
    // Of the modern era, in which a client that leaves cancels its call.
    let request = gateway.target("hanging").prepare(Ask::Query, Era::Modern, None).numbered(0).0.to_vec();
    let runtime = runtime()?;
    let mut held = runtime.block_on(async {
        let mut held = Vec::new();
        for number in 0..count {
            let mut stream = connect(number, gateway.data).await?;
            stream.write_all(&request).await?;
            held.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, io::Error>(held)
    })?;
    let seen = what();
    let mut chunk = [0; 64];
    let mut is_refused = |stream: &mut TcpStream| stream.try_read(&mut chunk).is_ok_and(|read| read > 0);
    let refused = runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        held.iter_mut().filter_map(|stream| is_refused(stream).then_some(())).count() as u64
    });
    drop(held);
    // What is pending is given up within a second.
    std::thread::sleep(Duration::from_millis(1_200));
    Ok((seen, refused))
}

/// Takes connections and requests, and answers nothing.
fn hang() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut chunk = [0; 4096];
                    while stream.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
    });
    Ok(address)
}
