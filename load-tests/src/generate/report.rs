//! What is known of a load once it is over?
//!
//! Times in histograms of three significant digits, errors by kind. Latency counts from when a request was to start;
//! service time from when it did start, and start delay is what lies between: where it is large, the generator (or the
//! machine) could not keep up.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::Value;
use serde_json::json;

use crate::client::Answer;
use crate::client::Wrong;

/// Longest time that is told apart.
const NANOS_MAX: u64 = 120_000_000_000;

/// Times and errors of a load.
#[derive(Debug)]
pub struct Report {
    latency: Histogram<u64>,
    service: Histogram<u64>,
    start_delay: Histogram<u64>,
    first_event: Histogram<u64>,
    errors: BTreeMap<Wrong, u64>,
    events: u64,
    bytes: u64,
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Default for Report {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("bounds that are valid");
        Self {
            latency: histogram(),
            service: histogram(),
            start_delay: histogram(),
            first_event: histogram(),
            errors: BTreeMap::new(),
            events: 0,
            bytes: 0,
            began: None,
            ended: None,
        }
    }
}

impl Report {
    /// Takes in one request that was to start at `intended`, did at `started`, and how it ended.
    pub(super) fn take(&mut self, intended: Instant, started: Instant, ended: &Result<Answer, Wrong>) {
        let record = |histogram: &mut Histogram<u64>, time: Duration| histogram.saturating_record(nanos(time));
        self.began = Some(self.began.map_or(started, |began| began.min(started)));
        record(&mut self.start_delay, started.saturating_duration_since(intended));
        match ended {
            Ok(answer) => {
                self.ended = Some(self.ended.map_or(answer.whole, |ended| ended.max(answer.whole)));
                record(&mut self.latency, answer.whole.saturating_duration_since(intended));
                record(&mut self.service, answer.whole.saturating_duration_since(started));
                self.bytes += answer.body.len() as u64;
                if let Some(first) = answer.first_event {
                    record(&mut self.first_event, first.saturating_duration_since(intended));
                    self.events += memchr::memmem::find_iter(&answer.body, b"\ndata:").count() as u64;
                }
            }
            Err(wrong) => self.failed(*wrong, Instant::now()),
        }
    }

    /// Takes in a failure.
    pub(super) fn failed(&mut self, wrong: Wrong, at: Instant) {
        self.ended = Some(self.ended.map_or(at, |ended| ended.max(at)));
        *self.errors.entry(wrong).or_default() += 1;
    }

    /// Takes in events of a standing stream.
    pub(super) fn heard(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }

    /// Adds what another connection saw.
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.start_delay, &other.start_delay),
            (&mut self.first_event, &other.first_event),
        ];
        for (own, other) in pairs {
            own.add(other).expect("histograms of the same bounds");
        }
        for (wrong, count) in &other.errors {
            *self.errors.entry(*wrong).or_default() += count;
        }
        self.events += other.events;
        self.bytes += other.bytes;
        self.began = self.began.into_iter().chain(other.began).min();
        self.ended = self.ended.into_iter().chain(other.ended).max();
    }

    /// Answers that were right.
    pub fn right(&self) -> u64 {
        self.latency.len()
    }

    /// Requests without a right answer.
    pub fn wrong(&self) -> u64 {
        self.errors.values().sum()
    }

    /// All of it, in microseconds.
    pub fn to_json(&self) -> Value {
        let seconds = match (self.began, self.ended) {
            (Some(began), Some(ended)) => ended.saturating_duration_since(began).as_secs_f64(),
            _ => 0.0,
        };
        let errors: BTreeMap<String, u64> = self.errors.iter().map(|(wrong, count)| (wrong.name(), *count)).collect();
        let per_second = if seconds > 0.0 { self.right() as f64 / seconds } else { 0.0 };
        json!({
            "right": self.right(),
            "wrong": self.wrong(),
            "errors": errors,
            "seconds": seconds,
            "per_second": per_second,
            "events": self.events,
            "bytes": self.bytes,
            "latency_us": percentiles(&self.latency),
            "service_us": percentiles(&self.service),
            "start_delay_us": percentiles(&self.start_delay),
            "first_event_us": percentiles(&self.first_event),
        })
    }
}

fn percentiles(times: &Histogram<u64>) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let at = |percent: f64| times.value_at_percentile(percent) as f64 / 1000.0;
    json!({
        "count": times.len(),
        "mean": times.mean() / 1000.0,
        "p50": at(50.0),
        "p90": at(90.0),
        "p99": at(99.0),
        "p99_9": at(99.9),
        "max": times.max() as f64 / 1000.0,
    })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NANOS_MAX).max(1)
}
