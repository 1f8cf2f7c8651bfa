//! What does the gateway do when its upstream dies in the middle: is anything sent twice, is anybody left waiting?

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::attack::Ground;
use crate::attack::afterwards;
use crate::attack::deadly::Deadly;
use crate::attack::deadly::Point;
use crate::client::Connection;
use crate::client::Wrong;
use crate::client::judge;
use crate::messages::Ask;
use crate::messages::Era;
use crate::records::Reader;
use crate::records::Reading;
use crate::records::Record;
use crate::stand::Gateway;
use crate::verdict::Report;

/// Clients at once.
const CLIENTS: u64 = 8;
/// How long a client waits for its answer.
const WAIT: Duration = Duration::from_secs(10);
/// Calls for each death that is wanted, at most.
const CALLS_PER_DEATH_MAX: u64 = 20;

/// What clients saw: by id, whether the answer was right, else why not.
type Told = Mutex<BTreeMap<u64, Result<(), Wrong>>>;

pub(super) fn attack(ground: &Ground) -> io::Result<Report> {
    let mut report = Report::new("kills: an upstream that dies at random points of the exchange");
    let deadly = Deadly::default();
    let address = deadly.serve(ground.seed)?;
    // Without the breaker, which would keep most calls from a server that dies all the time.
    let keys = "timeout_ms = 5000\nhealth = { type = \"none\" }\nbreaker = { enabled = false }";
    let gateway = ground.gateway("kills", "", &[("deadly", address, keys)])?;
    let base = gateway.held();
    let wanted = ground.sized(60, 1_000);
    let told = Told::default();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| call(&gateway, &deadly, &next, wanted, &told));
        }
    });
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Threads come with the first load: how many stay is for the soak to say.
    let base = crate::stand::Held { threads: base.threads.max(gateway.held().threads), ..base };
    let ended = afterwards(ground, &mut report, gateway, base)?;
    let mut tally = Tally::default();
    let mut reading = Reading::new();
    reading.finish(&ended.record, &mut tally)?;
    judged(&mut report, &deadly, &told, wanted);
    report.figure("results_by_outcome", serde_json::json!(tally.outcomes));
    let put_off = told.values().filter(|told| matches!(told, Err(Wrong::PutOff))).count() as u64;
    report.claim(
        "every call is on record with its result, and the chain verifies",
        reading.unfinished() == 0
            && reading.flaws_count == 0
            && (tally.calls + tally.refused, tally.refused) == (told.len() as u64, put_off),
        format!(
            "{} calls made, {put_off} put off, {} and {} on record, {} flaws",
            told.len(),
            tally.calls,
            tally.refused,
            reading.flaws_count
        ),
    );
    Ok(report)
}

fn judged(report: &mut Report, deadly: &Deadly, told: &BTreeMap<u64, Result<(), Wrong>>, wanted: u64) {
    let arrived = deadly.arrived();
    let deaths: u64 = arrived.deaths.values().sum();
    let by_point: BTreeMap<String, u64> =
        arrived.deaths.iter().map(|(point, count)| (format!("{point:?}"), *count)).collect();
    report.figure("calls", told.len());
    report.figure("deaths", deaths);
    report.figure("deaths_by_point", serde_json::json!(by_point));
    let mut errors = BTreeMap::<String, u64>::new();
    for wrong in told.values().filter_map(|told| told.err()) {
        *errors.entry(wrong.name()).or_default() += 1;
    }
    report.figure("answered", told.values().filter(|told| told.is_ok()).count());
    report.figure("errors", serde_json::json!(errors));
    report.claim(
        format!("the upstream died {wanted} times, everywhere"),
        deaths >= wanted && by_point.len() >= Point::COUNT,
        format!("{deaths} times at {} points", by_point.len()),
    );
    let two = arrived
        .by_id
        .values()
        .filter(|connections| connections.iter().any(|one| Some(one) != connections.first()))
        .count();
    let twice = arrived.by_id.values().filter(|connections| connections.len() > 1).count();
    report.claim("no call arrived on two connections", two == 0, format!("{two} of {}", arrived.by_id.len()));
    report.claim("no call arrived twice", twice == 0, format!("{twice} of {}", arrived.by_id.len()));
    let lost = arrived.answered.iter().filter(|id| !matches!(told.get(id), Some(Ok(())))).count();
    report.claim(
        "whatever was answered whole reached its client",
        lost == 0,
        format!("{lost} of {} did not", arrived.answered.len()),
    );
    let unsent = told.iter().filter(|(id, told)| told.is_ok() && !arrived.by_id.contains_key(id)).count();
    report.claim("nobody was answered whose call never arrived", unsent == 0, format!("{unsent}"));
    // Where all attacks share the machine, the gateway may not be run in time.
    let is_told = |told: &&Result<(), Wrong>| {
        matches!(told, Ok(()) | Err(Wrong::Status(502 | 504) | Wrong::Content | Wrong::PutOff))
    };
    let silent = told.values().filter(|told| !is_told(told)).count();
    report.claim(
        "every client is told at once what became of its call",
        silent == 0,
        format!("{silent} were not: {errors:?}"),
    );
}

impl Point {
    /// Points at which an exchange dies.
    const COUNT: usize = 8;
}

/// Calls until the upstream has died often enough.
fn call(gateway: &Gateway, deadly: &Deadly, next: &AtomicU64, wanted: u64, told: &Told) {
    let target = gateway.target("deadly");
    let mut connection = Connection::new(gateway.data, WAIT);
    let mut prepared: Vec<_> = [Ask::Query, Ask::Watch(2, 0), Ask::Describe]
        .into_iter()
        .zip([Era::Plain, Era::Plain, Era::Modern])
        .map(|(ask, era)| target.prepare(ask, era, None))
        .collect();
    loop {
        let number = next.fetch_add(1, Relaxed);
        let died: u64 = deadly.arrived().deaths.values().sum();
        if died >= wanted || number > wanted * CALLS_PER_DEATH_MAX {
            return;
        }
        let at = usize::try_from(number).unwrap_or(0) % prepared.len();
        let expected = prepared[at].expected();
        let (bytes, id) = prepared[at].numbered(number);
        let answer = connection.send(bytes).and_then(|()| connection.receive());
        let judged = answer.and_then(|answer| judge(&answer, id, expected));
        told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, judged);
    }
}

#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    refused: u64,
    outcomes: BTreeMap<String, u64>,
}

impl Reader for Tally {
    fn intent(&mut self, record: &Record<'_>) -> u64 {
        self.calls += u64::from(record.rpc_method.as_deref() == Some("tools/call"));
        0
    }
    fn result(&mut self, _: u64, record: &Record<'_>) {
        *self.outcomes.entry(record.outcome.as_deref().unwrap_or("none").to_owned()).or_default() += 1;
    }
    fn refused(&mut self, record: &Record<'_>) {
        self.refused += u64::from(record.rpc_method.as_deref() == Some("tools/call"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is claimed of two calls, the second of which was answered, after they arrived on these connections.
    fn claimed(first: &[u64], second: &[u64]) -> String {
        let deadly = Deadly::default();
        {
            let mut arrived = deadly.arrived();
            arrived.by_id.insert(1, first.to_vec());
            arrived.by_id.insert(2, second.to_vec());
            arrived.answered.insert(2);
        }
        let told = BTreeMap::from([(1, Err(Wrong::Status(502))), (2, Ok(()))]);
        let mut report = Report::new("kills");
        judged(&mut report, &deadly, &told, 0);
        report.text()
    }

    #[test]
    fn a_call_on_two_connections_or_twice_on_one_is_found() {
        let once = claimed(&[1], &[2]);
        assert!(
            once.contains("ok      no call arrived on two connections")
                && once.contains("ok      no call arrived twice")
        );
        let twice = claimed(&[1, 1], &[2]);
        assert!(twice.contains("ok      no call arrived on two") && twice.contains("FAILED  no call arrived twice"));
        assert!(claimed(&[1], &[2, 3]).contains("FAILED  no call arrived on two connections"));
    }
}
