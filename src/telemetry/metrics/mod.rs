//! How is the gateway doing, in numbers?
//!
//! The only module that knows the `prometheus` crate, behind typed handles. Label values come from closed sets or from
//! the configuration, never from traffic; every metric has at most `series_max` series. Names begin with
//! `portcullis_`, times are in seconds; only the process's own metrics carry their customary names.

mod delivery;
mod endpoints;
mod family;
mod issuers;
mod labels;
mod server;
mod shadow;
mod usage;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::telemetry::access;
use crate::telemetry::metrics::delivery::Deliveries;
pub use crate::telemetry::metrics::delivery::SpanCounts;
pub use crate::telemetry::metrics::endpoints::EndpointFigures;
use crate::telemetry::metrics::endpoints::Endpoints;
use crate::telemetry::metrics::family::Family;
use crate::telemetry::metrics::family::Labelled;
use crate::telemetry::metrics::family::Overflow;
pub use crate::telemetry::metrics::issuers::IssuerFigures;
use crate::telemetry::metrics::issuers::Issuers;
pub use crate::telemetry::metrics::labels::Method;
use crate::telemetry::metrics::labels::OTHER;
pub use crate::telemetry::metrics::labels::Outcome;
pub use crate::telemetry::metrics::labels::Phase;
pub use crate::telemetry::metrics::labels::Phases;
pub use crate::telemetry::metrics::labels::StreamKind;
pub use crate::telemetry::metrics::labels::Transport;
pub use crate::telemetry::metrics::server::ServerMetrics;
pub use crate::telemetry::metrics::shadow::Compared;
use crate::telemetry::metrics::shadow::Shadows;
pub use crate::telemetry::metrics::usage::LimitFigures;
use crate::telemetry::metrics::usage::Limits;

/// Series of one metric, unless [`Settings::series_max`] says otherwise.
pub const SERIES_MAX: usize = 2_000;

/// Bounds of `overhead_seconds`: 10 µs to 100 ms.
const OVERHEAD_SECONDS: [f64; 13] =
    [0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// Bounds of `upstream_duration_seconds`: those of OpenTelemetry's MCP conventions, and 2 and 5 ms.
const UPSTREAM_SECONDS: [f64; 16] =
    [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

type CounterFamily = Family<IntCounterVec>;
type GaugeFamily = Family<IntGaugeVec>;
type HistogramFamily = Family<HistogramVec>;

/// What the metrics are made with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Series one metric may have.
    pub series_max: usize,
    /// The gateway's version.
    pub version: &'static str,
    /// Every name that a decision of policy can have.
    pub decisions: &'static [&'static str],
    /// Every name that a refusal of the gateway can have.
    pub refusals: &'static [&'static str],
}

/// Metrics that could not be made: a name or a vocabulary is wrong.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// Every metric of the process. Made once, survives reloads; clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Arc<Families>,
    refusal_words: &'static [&'static str],
    /// By word of the vocabulary, the last for the rest.
    refusals: Vec<IntCounter>,
    /// By phase.
    overhead: Vec<Histogram>,
    overhead_total: Histogram,
    audit_records: Count,
    audit_unavailable: IntGauge,
    audit_unsigned: IntGauge,
    streams: Level,
    /// By kind.
    streams_by_kind: Vec<Level>,
    connections: Level,
    buffered_bytes: IntGauge,
    queue_delay: Gauge,
    config: ConfigMetrics,
    certificates: IntGaugeVec,
    preflights: Count,
    limits: Limits,
    shadows: Shadows,
    metadata: Count,
    deliveries: Deliveries,
    #[cfg(test)]
    described: Vec<prometheus::core::Desc>,
}

struct ConfigMetrics {
    successful: IntGauge,
    success_seconds: IntGauge,
    revision: IntGauge,
    info: IntGaugeVec,
}

/// The metrics that have series by server.
pub(in crate::telemetry::metrics) struct Families {
    requests: CounterFamily,
    protocols: CounterFamily,
    tool_calls: CounterFamily,
    cost: CounterFamily,
    decisions: CounterFamily,
    upstream_seconds: HistogramFamily,
    upstream_up: GaugeFamily,
    upstream_pending: GaugeFamily,
    upstream_pending_bytes: GaugeFamily,
    endpoints: Endpoints,
    issuers: Issuers,
    decision_words: &'static [&'static str],
}

impl Metrics {
    /// Makes every metric, those without labels and those of fixed vocabularies at zero.
    pub fn new(settings: Settings) -> Result<Self, MetricsError> {
        let maker = Maker::new(settings.series_max)?;
        maker.build_info(settings.version)?;
        let phase_help = "Time of a request inside the gateway, by phase; `total` is all of it but `upstream_wait`.";
        let overhead = maker.histogram("overhead_seconds", phase_help, &["phase"], &OVERHEAD_SECONDS)?;
        let refusals = maker.counter("refusals_total", "Requests the gateway refused, by reason.", &["reason"])?;
        let streams = maker.gauge("streams", "Event streams open to clients.")?;
        let kinds_help = "Event streams open to clients, by what they carry.";
        let kinds = maker.one("streams_by_kind", kinds_help, |opts| IntGaugeVec::new(opts, &["kind"]))?;
        let reasons = settings.refusals.iter().copied().chain([OTHER]);
        Ok(Self(Arc::new(Inner {
            families: Arc::new(Families::new(&maker, settings.decisions)?),
            refusal_words: settings.refusals,
            refusals: reasons
                .map(|reason| refusals.get_metric_with_label_values(&[reason]))
                .collect::<Result<_, _>>()?,
            overhead: Phase::ALL
                .iter()
                .map(|phase| overhead.get_metric_with_label_values(&[phase.label()]))
                .collect::<Result<_, _>>()?,
            overhead_total: overhead.get_metric_with_label_values(&["total"])?,
            audit_records: Count(maker.one("audit_records_total", "Records written.", IntCounter::with_opts)?),
            audit_unavailable: maker.gauge("audit_unavailable", "1 while the record cannot be written.")?,
            audit_unsigned: maker.gauge("audit_unsigned", "1 while no checkpoint of the record can be signed.")?,
            streams_by_kind: StreamKind::ALL
                .iter()
                .map(|kind| {
                    let gauge = kinds.get_metric_with_label_values(&[kind.label()])?;
                    Ok(Level { gauge, total: Some(streams.clone()) })
                })
                .collect::<Result<_, prometheus::Error>>()?,
            streams: Level { gauge: streams, total: None },
            connections: Level { gauge: maker.gauge("connections", "Connections open to clients.")?, total: None },
            buffered_bytes: maker.gauge("buffered_bytes", "Bytes held for clients and servers.")?,
            queue_delay: maker.one(
                "queue_delay_seconds",
                "How long work waits for a worker thread.",
                Gauge::with_opts,
            )?,
            config: ConfigMetrics::new(&maker)?,
            certificates: maker.one(
                "listener_certificate_expiry_timestamp_seconds",
                "When a certificate of the data listener expires, in seconds since 1970, by its first name.",
                |opts| IntGaugeVec::new(opts, &["certificate"]),
            )?,
            metadata: Count(maker.one(
                "oauth_metadata_total",
                "Requests for metadata by which clients learn how to log in.",
                IntCounter::with_opts,
            )?),
            preflights: Count(maker.one(
                "cors_preflights_total",
                "Questions of browsers whether a page may call, answered with yes.",
                IntCounter::with_opts,
            )?),
            limits: Limits::new(&maker)?,
            shadows: Shadows::new(&maker)?,
            deliveries: Deliveries::new(&maker)?,
            #[cfg(test)]
            described: maker.described.take(),
            registry: maker.registry,
        })))
    }

    /// All of it in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics are incomplete");
        }
        text
    }

    /// The metrics of a configured server, and of those of its tools that an allow list names. Has no effect until
    /// something is counted, so compiling a snapshot may ask for them.
    pub fn server(&self, name: &str, tools: &[&str]) -> ServerMetrics {
        ServerMetrics::new(Arc::clone(&self.0.families), name, tools)
    }

    /// Takes note of the servers now configured: series of others go away and are not made again. Handles made for a
    /// server before it went are not to be used once it is back.
    pub fn adopt(&self, servers: &[&str]) {
        let families = &self.0.families;
        families.requests.keep(servers);
        families.protocols.keep(servers);
        families.tool_calls.keep(servers);
        families.cost.keep(servers);
        families.decisions.keep(servers);
        families.upstream_seconds.keep(servers);
        families.upstream_up.keep(servers);
        families.upstream_pending.keep(servers);
        families.upstream_pending_bytes.keep(servers);
        families.endpoints.keep(servers);
    }

    /// Takes over what is true of every endpoint at this moment.
    pub fn endpoints(&self, figures: &[EndpointFigures]) {
        self.0.families.endpoints.adopt(figures);
    }

    /// Takes over what is true of each issuer of tokens; those of whom nothing is said have no series any more.
    pub fn issuers(&self, figures: &[IssuerFigures]) {
        self.0.families.issuers.adopt(figures);
    }

    /// Takes over when which certificate of which server ends.
    pub fn certificates(&self, ends: &[(String, &'static str, i64)]) {
        self.0.families.endpoints.adopt_certificates(ends);
    }

    /// Takes over how much of each limit is used.
    pub fn limits(&self, figures: &[LimitFigures]) {
        self.0.limits.adopt(figures);
    }

    /// Counts what a candidate decided beside what was decided, and the time that took.
    pub fn shadow_judged(&self, compared: Compared, took: Duration) {
        self.0.shadows.judged(compared, took);
    }

    /// Counts a refusal. A reason outside the vocabulary counts as `_other`.
    pub fn refused(&self, reason: &str) {
        let words = self.0.refusal_words;
        let at = words.iter().position(|word| *word == reason).unwrap_or(words.len());
        if let Some(series) = self.0.refusals.get(at) {
            series.inc();
        }
    }

    /// Notes the phases of a request that ended: those it came to, and the total.
    pub fn phases(&self, phases: &Phases) {
        for (phase, series) in Phase::ALL.iter().zip(&self.0.overhead) {
            if let Some(took) = phases.entered(*phase) {
                series.observe(took.as_secs_f64());
            }
        }
        self.0.overhead_total.observe(phases.overhead().as_secs_f64());
    }

    /// Connections open to clients.
    pub fn connections(&self) -> &Level {
        &self.0.connections
    }

    /// Event streams open to clients, of all kinds together: what `streams_max` bounds.
    pub fn streams(&self) -> &Level {
        &self.0.streams
    }

    /// Event streams of one kind open to clients. What is held here is held in [`Metrics::streams`] too.
    pub fn streams_of(&self, kind: StreamKind) -> &Level {
        self.0.streams_by_kind.get(kind as usize).unwrap_or(&self.0.streams)
    }

    /// Records written.
    pub fn audit_records(&self) -> &Count {
        &self.0.audit_records
    }

    /// Notes whether the record can be written.
    pub fn audit_unavailable(&self, unavailable: bool) {
        self.0.audit_unavailable.set(unavailable.into());
    }

    /// Notes whether checkpoints of the record cannot be signed.
    pub fn audit_unsigned(&self, unsigned: bool) {
        self.0.audit_unsigned.set(unsigned.into());
    }

    /// Notes how much the process has on its hands.
    pub fn load(&self, buffered_bytes: usize, queue_delay: Duration) {
        self.0.buffered_bytes.set(i64::try_from(buffered_bytes).unwrap_or(i64::MAX));
        self.0.queue_delay.set(queue_delay.as_secs_f64());
    }

    /// Notes a configuration that was taken up.
    pub fn config_loaded(&self, revision: u64, sha256: &str, now_seconds: u64) {
        let config = &self.0.config;
        config.successful.set(1);
        config.success_seconds.set(i64::try_from(now_seconds).unwrap_or(i64::MAX));
        config.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        config.info.reset();
        if let Ok(info) = config.info.get_metric_with_label_values(&[sha256]) {
            info.set(1);
        }
    }

    /// Notes whether a candidate is asked beside the configuration that was taken up.
    pub fn shadow_asked(&self, is_asked: bool) {
        self.0.shadows.asked(is_asked);
    }

    /// Notes the certificates of the data listener, each with its name and its end. Of those with one name, the one that ends
    /// first is shown; their number is that of the configuration.
    pub fn listener_certificates<'c>(&self, certificates: impl Iterator<Item = (&'c str, i64)>) {
        let series = &self.0.certificates;
        series.reset();
        let mut ends = std::collections::BTreeMap::new();
        for (name, end) in certificates {
            let first: &mut i64 = ends.entry(name).or_insert(end);
            *first = end.min(*first);
        }
        for (name, end) in ends {
            if let Ok(gauge) = series.get_metric_with_label_values(&[name]) {
                gauge.set(end);
            }
        }
    }

    /// Preflights that were answered with yes.
    pub fn preflights(&self) -> &Count {
        &self.0.preflights
    }

    /// Requests for metadata.
    pub fn metadata(&self) -> &Count {
        &self.0.metadata
    }

    /// Lines of the access log.
    pub fn access_lines(&self) -> access::Counts {
        self.0.deliveries.lines.clone()
    }

    /// Spans of traces.
    pub fn spans(&self) -> &SpanCounts {
        &self.0.deliveries.spans
    }

    /// Notes a configuration that was refused; the one before it stays.
    pub fn config_failed(&self) {
        self.0.config.successful.set(0);
    }
}

impl Families {
    fn new(maker: &Maker, decision_words: &'static [&'static str]) -> Result<Self, prometheus::Error> {
        let up_help = "1 while at least one endpoint of the server can be used.";
        let up = IntGaugeVec::new(maker.opts("upstream_up", up_help), &["server"])?;
        let pending =
            IntGaugeVec::new(maker.opts("upstream_pending", "Calls of a server that are pending."), &["server"])?;
        let bytes_help = "Bytes of requests that the pending calls of a server hold.";
        let pending_bytes = IntGaugeVec::new(maker.opts("upstream_pending_bytes", bytes_help), &["server"])?;
        let seconds_help = "From sending a request to a server to the head of its answer.";
        let seconds_opts = HistogramOpts::from(maker.opts("upstream_duration_seconds", seconds_help));
        let seconds = HistogramVec::new(seconds_opts.buckets(UPSTREAM_SECONDS.to_vec()), &["server"])?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            maker.family(IntCounterVec::new(maker.opts(name, help), labels)?, labels.len(), Overflow::Other, name)
        };
        Ok(Self {
            requests: counter(
                "requests_total",
                "Requests to a server, by method and how they ended.",
                &["server", "method", "outcome"],
            )?,
            protocols: counter(
                "requests_by_protocol_total",
                "Requests to a server, by the protocol's revision and the client's transport.",
                &["server", "revision", "transport"],
            )?,
            tool_calls: counter(
                "tool_calls_total",
                "Calls of tools that an allow list names, by how they ended; other tools are `_other`.",
                &["server", "tool", "outcome"],
            )?,
            cost: counter("cost_millionths_total", "What calls of a server cost, in millionths.", &["server"])?,
            decisions: counter("policy_decisions_total", "Decisions of policy, by name.", &["server", "decision"])?,
            upstream_seconds: maker.family(seconds, 1, Overflow::Other, "upstream_duration_seconds")?,
            upstream_up: maker.family(up, 1, Overflow::Nowhere, "upstream_up")?,
            upstream_pending: maker.family(pending, 1, Overflow::Nowhere, "upstream_pending")?,
            upstream_pending_bytes: maker.family(pending_bytes, 1, Overflow::Nowhere, "upstream_pending_bytes")?,
            endpoints: Endpoints::new(maker)?,
            issuers: Issuers::new(maker)?,
            decision_words,
        })
    }
}

impl ConfigMetrics {
    fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        Ok(Self {
            successful: maker.gauge("config_last_reload_successful", "1 if the last configuration was taken up.")?,
            success_seconds: maker.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken up, in seconds since 1970.",
            )?,
            revision: maker
                .gauge("config_revision", "Number of the configuration in force, counted from the start.")?,
            info: maker
                .one("config_info", "1 for the configuration in force.", |opts| IntGaugeVec::new(opts, &["sha256"]))?,
        })
    }
}

/// Makes metrics and registers them.
struct Maker {
    registry: Registry,
    series_max: usize,
    dropped: IntCounterVec,
    /// What was registered, for the test that holds the documentation against it.
    #[cfg(test)]
    described: std::cell::RefCell<Vec<prometheus::core::Desc>>,
}

impl Maker {
    fn new(series_max: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(test)]
        let described = std::cell::RefCell::default();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let help = "Times a metric was refused a further series, by metric; what it would have held is in `_other`.";
        let dropped = IntCounterVec::new(Opts::new("portcullis_metrics_series_dropped_total", help), &["metric"])?;
        let maker = Self {
            registry,
            series_max,
            dropped: dropped.clone(),
            #[cfg(test)]
            described,
        };
        maker.register(Box::new(dropped))?;
        Ok(maker)
    }

    fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        #[cfg(test)]
        self.described.borrow_mut().extend(collector.desc().into_iter().cloned());
        self.registry.register(collector)
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("portcullis")
    }

    fn one<C>(
        &self,
        name: &str,
        help: &str,
        make: impl FnOnce(Opts) -> Result<C, prometheus::Error>,
    ) -> Result<C, prometheus::Error>
    where
        C: Collector + Clone + 'static,
    {
        let metric = make(self.opts(name, help))?;
        self.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.one(name, help, IntGauge::with_opts)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.one(name, help, |opts| IntCounterVec::new(opts, labels))
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.one(name, help, |opts| HistogramVec::new(HistogramOpts::from(opts).buckets(bounds.to_vec()), labels))
    }

    fn build_info(&self, version: &str) -> Result<(), prometheus::Error> {
        let info = self.one("build_info", "1 for the running version.", |opts| IntGaugeVec::new(opts, &["version"]))?;
        info.get_metric_with_label_values(&[version])?.set(1);
        Ok(())
    }

    fn family<V: Labelled>(
        &self,
        vec: V,
        labels: usize,
        overflow: Overflow,
        name: &str,
    ) -> Result<Family<V>, prometheus::Error> {
        let dropped = self.dropped.get_metric_with_label_values(&[format!("portcullis_{name}")])?;
        let family = Family::new(vec, labels, overflow, self.series_max, dropped)?;
        self.register(family.collector())?;
        Ok(family)
    }
}

/// A number that only grows.
#[derive(Clone)]
pub struct Count(IntCounter);

impl Count {
    /// Counts one.
    pub fn one(&self) {
        self.0.inc();
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.inc_by(more);
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// How many of something there are now; as a part of a larger number where there is one.
#[derive(Clone)]
pub struct Level {
    gauge: IntGauge,
    total: Option<IntGauge>,
}

impl Level {
    /// One more, until the answer is dropped.
    pub fn hold(&self) -> Held {
        self.gauge.inc();
        if let Some(total) = &self.total {
            total.inc();
        }
        Held(self.clone())
    }

    /// The number now.
    pub fn value(&self) -> i64 {
        self.gauge.get()
    }
}

/// One of what a [`Level`] counts; gone when dropped.
#[must_use = "what is dropped at once is not counted"]
pub struct Held(Level);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.gauge.dec();
        if let Some(total) = &self.0.total {
            total.dec();
        }
    }
}
