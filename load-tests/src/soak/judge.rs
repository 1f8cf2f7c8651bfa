//! What was seen in all rounds, and does it hold?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde_json::json;

use crate::client::Wrong;
use crate::records::Reading;
use crate::soak::faults;
use crate::soak::faults::Fault;
use crate::soak::faults::Stall;
use crate::soak::fit;
use crate::soak::journal::End;
use crate::soak::journal::Entry;
use crate::soak::journal::Ledger;
use crate::soak::policy::Policy;
use crate::soak::policy::Seen;
use crate::soak::watch::Sample;
use crate::stand::Ended;
use crate::stand::Held;
use crate::verdict::Report;

/// Rounds from which on a slope says something.
const ROUNDS_TO_FIT: usize = 8;
/// Share of the rounds in which the gateway may still grow into its load.
const WARM_UP: f64 = 0.25;
/// What memory in quiet may grow by over the rounds that are fitted.
const QUIET_GROWTH_MIB_MAX: f64 = 4.0;
/// What memory under load may grow by meanwhile: in every second another mixture is held.
const LOADED_GROWTH_MIB_MAX: f64 = 8.0;
/// What memory in quiet may grow by from the first round to the last, where there are too few for a slope.
const SHORT_GROWTH_MIB_MAX: f64 = 24.0;
/// Of so many requests, one may be put off by a gateway that is not run in time: its clients are threads by the dozen here.
const REQUESTS_FOR_ONE_PUT_OFF_MIN: u64 = 20;
/// Errors that are told; what is beyond is counted.
const ERRORS_MAX: usize = 20;

/// One round, as it was afterwards.
#[derive(Debug)]
pub(super) struct Round {
    /// What was held in quiet.
    pub(super) quiet: Sample,
    /// Connections and streams that the gateway itself counts as open.
    pub(super) open: f64,
}

/// What all rounds told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) round_s: f64,
    pub(super) seed: u64,
    pub(super) base: Option<Held>,
    pub(super) rounds: Vec<Round>,
    pub(super) reading: Reading,
    pub(super) ledger: Ledger,
    pub(super) peak_kib: f64,
    pub(super) requests: BTreeMap<&'static str, u64>,
    pub(super) explained: BTreeMap<String, u64>,
    pub(super) put_off: u64,
    pub(super) unexplained: Vec<String>,
    pub(super) unexplained_count: usize,
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// When the machine stood still, so far.
    pub(super) stalls: Arc<Mutex<Vec<Stall>>>,
    pub(super) toggled: usize,
    pub(super) contradictions: Vec<String>,
}

/// Connections and streams that are open, as the gateway counts them.
pub(super) fn open(figures: &str) -> f64 {
    let of = |series: &str| {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok();
        figures.lines().find_map(value).unwrap_or(f64::NAN)
    };
    of("portcullis_connections") + of("portcullis_streams")
}

impl Told {
    fn stalls(&self) -> Vec<Stall> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what clients saw in a round.
    pub(super) fn round(&mut self, policy: &Policy, entries: &[Entry], faults: &[Fault], seen: &[Seen]) {
        for fault in faults {
            *self.faults.entry(fault.kind.name()).or_default() += 1;
        }
        let stalls = self.stalls();
        for entry in entries {
            *self.requests.entry(entry.kind).or_default() += 1;
            let End::Wrong(wrong) = entry.end else { continue };
            if wrong == Wrong::PutOff {
                self.put_off += 1;
                continue;
            }
            if let Some(fault) = faults::explanation(entry, wrong, faults, &stalls) {
                *self.explained.entry(format!("{} while {fault}", wrong.name())).or_default() += 1;
                continue;
            }
            self.unexplained_count += 1;
            if self.unexplained.len() < ERRORS_MAX {
                let took = entry.ended.duration_since(entry.began).as_millis();
                let what = format!("{} {} to {:?}", entry.kind, entry.number, entry.server);
                self.unexplained.push(format!(
                    "{what}: {} after {took} ms, in round {}",
                    wrong.name(),
                    self.rounds.len() + 1
                ));
            }
        }
        self.toggled += seen.len();
        let contradicted = policy.contradicted(seen);
        self.contradictions.extend(contradicted.iter().map(|seen| format!("{:?}", seen.permitted)));
    }
}

/// What holds of all that.
pub(super) fn judge(told: &Told, policy: &Policy, ended: &Ended, samples: &[Sample]) -> Report {
    let mut report = Report::new("soak");
    figures(&mut report, told, policy, samples);
    clients(&mut report, told, policy);
    holdings(&mut report, told);
    growth(&mut report, told, samples);
    record(&mut report, told);
    let panics = ended.panics();
    report.claim(
        "no panic is in the log",
        panics.is_empty(),
        panics.first().map_or("none".to_owned(), |p| (*p).to_owned()),
    );
    report.claim("the gateway ends properly when told to", ended.status.success(), ended.status.to_string());
    report.figure("errors_logged", json!(ended.errors()));
    report
}

fn figures(report: &mut Report, told: &Told, policy: &Policy, samples: &[Sample]) {
    let seconds = samples.last().map_or(0.0, |sample| sample.at_s);
    let requests: u64 = told.requests.values().sum();
    report.figure("seed", told.seed);
    report.figure("minutes", seconds / 60.0);
    report.figure("rounds", told.rounds.len());
    report.figure("requests", requests);
    report.figure("requests_per_second", requests as f64 / (told.round_s * told.rounds.len() as f64).max(1.0));
    report.figure("requests_by_kind", json!(told.requests));
    report.figure("faults", json!(told.faults));
    report.figure("stalls", told.stalls().len());
    report.figure("errors_explained", json!(told.explained));
    report.figure("put_off", told.put_off);
    report.figure("reloads", policy.reloads);
    report.figure("reloads_with_mistakes", policy.mistakes);
    report.figure("reload_slowest_ms", policy.slowest.as_millis() as u64);
    report.figure("peak_mib", told.peak_kib / 1024.0);
    report.figure("records", told.reading.lines);
    report.figure("record_mib", told.reading.bytes as f64 / 1024.0 / 1024.0);
    report.figure("results_by_outcome", json!(told.ledger.outcomes));
    let quiet: Vec<Sample> = told.rounds.iter().map(|round| round.quiet).collect();
    let mib: Vec<String> = quiet.iter().map(|sample| format!("{:.1}", sample.held.anonymous_kib / 1024.0)).collect();
    report.figure("quiet_mib_by_round", mib.join(" "));
}

fn clients(report: &mut Report, told: &Told, policy: &Policy) {
    let seen = match told.unexplained_count {
        0 => format!("{} errors, each while its server was made to fail", told.explained.values().sum::<u64>()),
        count => format!("{count} are not: {}", told.unexplained.join("; ")),
    };
    report.claim("every error a client saw is explained by a fault of that moment", told.unexplained_count == 0, seen);
    let requests: u64 = told.requests.values().sum();
    report.claim(
        format!("of {REQUESTS_FOR_ONE_PUT_OFF_MIN} requests, at most one was put off because there was too much to do"),
        told.put_off * REQUESTS_FOR_ONE_PUT_OFF_MIN <= requests,
        format!("{} of {requests}", told.put_off),
    );
    report.claim("something was injected", !told.faults.is_empty() && policy.reloads > 0, format!("{:?}", told.faults));
    let wrong = told.contradictions.len();
    report.claim(
        "a tool is callable exactly while the configuration in force permits it",
        wrong == 0 && told.toggled > 0,
        format!("{wrong} of {} calls contradict it", told.toggled),
    );
}

fn holdings(report: &mut Report, told: &Told) {
    let Some(base) = told.base else { return };
    let worst = |of: fn(&Held) -> usize| told.rounds.iter().map(|round| of(&round.quiet.held)).max().unwrap_or(0);
    let (descriptors, threads) = (worst(|held| held.descriptors), worst(|held| held.threads));
    report.claim(
        "descriptors are back to where they were after every round",
        descriptors <= base.descriptors,
        format!("{descriptors} at most, {} before the first", base.descriptors),
    );
    report.claim(
        "threads are no more after any round than after the first",
        threads <= base.threads,
        format!("{threads} at most, {} after the first", base.threads),
    );
    let open = told.rounds.iter().map(|round| round.open).fold(0.0, f64::max);
    report.claim("no connection or stream is counted as open in quiet", open == 0.0, format!("{open} at most"));
}

/// Points from the end of the warm-up on, in minutes and MiB.
fn points<'a>(samples: impl Iterator<Item = &'a Sample>, from_s: f64) -> Vec<(f64, f64)> {
    let after = samples.filter(|sample| sample.at_s >= from_s);
    after.map(|sample| (sample.at_s / 60.0, sample.held.anonymous_kib / 1024.0)).collect()
}

fn growth(report: &mut Report, told: &Told, samples: &[Sample]) {
    let quiet: Vec<Sample> = told.rounds.iter().map(|round| round.quiet).collect();
    let (Some(first), Some(last)) = (quiet.first(), quiet.last()) else { return };
    if quiet.len() < ROUNDS_TO_FIT {
        let grown = (last.held.anonymous_kib - first.held.anonymous_kib) / 1024.0;
        report.doubt(format!("{} rounds are too few to fit a slope", quiet.len()));
        report.claim(
            format!("memory in quiet grows by at most {SHORT_GROWTH_MIB_MAX} MiB from the first round to the last"),
            grown <= SHORT_GROWTH_MIB_MAX,
            format!("{grown:.1} MiB"),
        );
        return;
    }
    let from_s = quiet[(quiet.len() as f64 * WARM_UP) as usize].at_s;
    let minutes = (last.at_s - from_s) / 60.0;
    for (what, points, grown_max) in [
        ("in quiet", points(quiet.iter(), from_s), QUIET_GROWTH_MIB_MAX),
        ("under load", points(samples.iter(), from_s), LOADED_GROWTH_MIB_MAX),
    ] {
        let slope = fit::slope(&points).unwrap_or(f64::NAN);
        let mut levels: Vec<f64> = points.iter().map(|point| point.1).collect();
        let level = fit::middle(&mut levels).unwrap_or(f64::NAN);
        report.figure(&format!("growth_{}_mib_per_hour", what.replace(' ', "_")), slope * 60.0);
        report.claim(
            format!("memory {what} grows by at most {grown_max} MiB in {minutes:.0} minutes after the warm-up"),
            slope * minutes <= grown_max,
            format!(
                "{:+.2} MiB about a median of {level:.1} MiB (Theil-Sen over {} points)",
                slope * minutes,
                points.len()
            ),
        );
    }
}

fn record(report: &mut Report, told: &Told) {
    let (reading, ledger) = (&told.reading, &told.ledger);
    let seen = format!("{} lines, {} flaws {}", reading.lines, reading.flaws_count, reading.flaws.join("; "));
    report.claim(
        "the record's chain verifies from its first line to its last",
        reading.flaws_count == 0 && reading.lines > 0,
        seen,
    );
    report.claim(
        "every intent has its result",
        reading.unfinished() == 0,
        format!("{} have none", reading.unfinished()),
    );
    let (flaws, count) = ledger.flaws();
    let requests: u64 = told.requests.values().sum();
    report.claim(
        "every request is on record once, as its client saw it",
        count == 0 && ledger.strangers == 0,
        format!("{count} of {requests} are not, {} are nobody's {}", ledger.strangers, flaws.join("; ")),
    );
    let due = ledger.refusals_due();
    report.claim(
        "every refusal is on record, by itself or counted",
        ledger.refusals >= due,
        format!("{} on record, {due} due", ledger.refusals),
    );
    let abandoned = ledger.outcomes.get("abandoned").copied().unwrap_or(0);
    report.claim("nothing was abandoned", abandoned == 0, format!("{abandoned} were"));
}
