//! What do clients achieve that send the largest body there is, all at once?

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::attack::Ground;
use crate::attack::afterwards;
use crate::attack::is_bounded;
use crate::attack::is_too_much;
use crate::attack::legit;
use crate::attack::legit::Callers;
use crate::attack::warmed;
use crate::client::Connection;
use crate::client::connect;
use crate::messages::Ask;
use crate::messages::Era;
use crate::verdict::Report;

/// KiB of arguments: with what is around them, just below what one body may have.
const BODY_KIB: usize = 4_090;
/// How long a flooding client waits for an answer.
const WAIT: Duration = Duration::from_secs(20);
/// How long every other client keeps the last bytes of its body back, so that many bodies are held at once.
const HOLD: Duration = Duration::from_millis(1_500);

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("flood: clients that send bodies of 4 MiB at once");
    // Another server for the honest: it is not this one's own slowness that is looked at.
    let (upstream, flooded) = (ground.upstream("flood")?, ground.upstream("flood-flooded")?);
    let servers = [("steady", upstream.address, ""), ("flooded", flooded.address, "")];
    let gateway = ground.gateway("flood", "", &servers)?;
    let base = warmed(&gateway, "steady");
    let (clients, length) = ground.sized((20, Duration::from_secs(3)), (200, Duration::from_secs(60)));
    let request = gateway.target("flooded").prepare(Ask::Padded(BODY_KIB), Era::Plain, None).numbered(0).0.to_vec();
    let callers = Callers { count: 4, per_second: 100.0, era: Era::Plain };
    let answered = Mutex::new(BTreeMap::<String, u64>::new());
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let (honest, ()) = legit::during(&gateway, "steady", callers, || {
        let until = Instant::now() + length;
        thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < until && !is_too_much(&gateway) {
                    thread::sleep(Duration::from_millis(50));
                }
                over.store(true, Relaxed);
            });
            for number in 0..clients {
                let (request, answered, over, data) = (&request, &answered, &over, gateway.data);
                scope.spawn(move || {
                    while Instant::now() < until && !over.load(Relaxed) {
                        let told =
                            if number % 2 == 0 { send(number, data, request) } else { hold(number, data, request) };
                        *answered.lock().unwrap_or_else(PoisonError::into_inner).entry(told).or_default() += 1;
                    }
                });
            }
        });
    });
    let answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    let right = answered.get("200").copied().unwrap_or(0);
    report.figure("clients", clients);
    let lasted = began.elapsed();
    if lasted < length {
        report.doubt("given up early: the gateway held too much");
    }
    report.figure("seconds", lasted.as_secs_f64());
    report.figure("bodies", serde_json::json!(answered));
    report.figure("mib_per_second", right as f64 * BODY_KIB as f64 / 1024.0 / lasted.as_secs_f64());
    is_bounded(&mut report, &gateway);
    report.claim("bodies are answered meanwhile", right > 0, format!("{right}"));
    honest.report(&mut report);
    afterwards(ground, &mut report, gateway, base)?;
    Ok(report)
}

/// Sends the body as fast as it is taken. What came back.
fn send(number: u64, data: std::net::SocketAddr, request: &[u8]) -> String {
    let mut connection = Connection::new(data, WAIT).from(crate::stand::source(number));
    told(connection.send(request).and_then(|()| connection.receive()))
}

/// Sends all but the end of the body, waits, and sends the end.
fn hold(number: u64, data: std::net::SocketAddr, request: &[u8]) -> String {
    use std::io::Read;
    use std::io::Write;
    let attempt = || -> io::Result<String> {
        let mut stream = connect(crate::stand::source(number), data, WAIT)?;
        let (most, rest) = request.split_at(request.len() - 64);
        // Who is refused early cannot send all of it, and still has to read why.
        let sent = stream.write_all(most);
        if sent.is_ok() {
            thread::sleep(HOLD);
            let _ = stream.write_all(rest);
        }
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk)?;
        let head = String::from_utf8_lossy(&chunk[..read]).to_ascii_lowercase();
        let status = head.get(9..12).unwrap_or("none").to_owned();
        Ok(if head.contains("\r\nretry-after:") { format!("{status} with Retry-After") } else { status })
    };
    attempt().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

fn told(answer: Result<crate::client::Answer, crate::client::Wrong>) -> String {
    match answer {
        Ok(answer) if answer.retry_after => format!("{} with Retry-After", answer.status),
        Ok(answer) => answer.status.to_string(),
        Err(wrong) => wrong.name(),
    }
}
