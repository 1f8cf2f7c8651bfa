//! How do spans get to a collector?
//!
//! On a thread of its own, a batch at a time, over a connection for each batch. A collector that is slow, absent or hangs costs
//! spans, which are counted, and nothing else: the queue before it is bounded, and nobody waits for it but the process's end,
//! for a moment.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http::Response;
use opentelemetry::Key;
use opentelemetry::KeyValue;
use opentelemetry_http::HttpClient;
use opentelemetry_http::HttpError;
use opentelemetry_otlp::RetryPolicy;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithHttpConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::runtime::Runtime;

use crate::net::Client;
use crate::net::Rules;
use crate::net::Url;
use crate::network::Networks;
use crate::telemetry::metrics::SpanCounts;
use crate::telemetry::traces::Outlet;
use crate::telemetry::traces::Settings;
use crate::telemetry::traces::Told;
use crate::telemetry::traces::Traces;

/// How long what is left may take to be sent at the end, all of it.
const LAST: Duration = Duration::from_secs(2);
/// Variables with the collector's URL: the first that says something holds.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How the gateway calls itself where `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` do not.
const SERVICE: &str = "portcullis";

/// Begins to collect traces as the environment says; `None` where none are wanted, or what is said cannot be followed.
pub(super) fn start(counts: &SpanCounts) -> Option<Traces> {
    let started = Settings::from_environment().and_then(|settings| {
        let Some(settings) = settings else { return Ok(None) };
        start_with(&settings, counts).map(Some)
    });
    started.unwrap_or_else(|mistake| {
        tracing::error!("traces are off: {mistake}");
        None
    })
}

fn start_with(settings: &Settings, counts: &SpanCounts) -> Result<Traces, String> {
    let told = |error: io::Error| format!("no thread to send them: {error}");
    check_endpoint(|name| std::env::var(name).ok())?;
    let failure = Arc::default();
    let client = Courier { client: Client::new(), timeout: settings.timeout, failure: Arc::clone(&failure) };
    let exporter = SpanExporter::builder().with_http().with_http_client(client);
    // What was not taken at once is given up: meanwhile the next wait.
    let mut exporter =
        exporter.with_retry_policy(RetryPolicy::disabled()).build().map_err(|error| error.to_string())?;
    exporter.set_resource(&resource());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(told)?;
    let (traces, outlet) = Traces::new(settings, counts.clone());
    let sender = Sender { settings: *settings, outlet, exporter, runtime, failure, is_taken: true };
    thread::Builder::new().name("traces".into()).spawn(move || sender.run()).map_err(told)?;
    tracing::info!(sampling = ?settings.sampling, "traces are sent to a collector");
    Ok(traces)
}

/// Whether the gateway's client can follow what is said of the endpoint. What is wrong is told without the value, which may hold a
/// password.
fn check_endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let named = ENDPOINTS.iter().find_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)));
    let Some((name, value)) = named else { return Ok(()) };
    Url::parse(&value).map(|_| ()).map_err(|flaw| {
        format!("`{name}`: {flaw}; what a collector wants to know a caller by goes into `OTEL_EXPORTER_OTLP_HEADERS`")
    })
}

/// Who tells. What the environment says goes before what is known here.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let said = |key: &'static str| detected.get(&Key::from_static_str(key));
    // Where nothing is said, the library makes something up.
    let is_named = said("service.name").is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let own = [
        (!is_named).then(|| KeyValue::new("service.name", SERVICE)),
        said("service.version").is_none().then(|| KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))),
    ];
    Resource::builder().with_attributes(own.into_iter().flatten()).build()
}

/// The thread that sends.
struct Sender {
    settings: Settings,
    outlet: Outlet,
    exporter: SpanExporter,
    runtime: Runtime,
    /// Why the last request came to nothing, as the courier knows it.
    failure: Arc<Mutex<Option<String>>>,
    /// Whether the last batch was taken: it is told when that changes.
    is_taken: bool,
}

impl Sender {
    fn run(mut self) {
        let mut is_over = false;
        while !is_over {
            let batch;
            (batch, is_over) = self.batch();
            self.send(batch, self.settings.timeout);
            is_over |= self.outlet.is_closing.load(Ordering::Acquire);
        }
        let until = Instant::now() + LAST;
        loop {
            let left = self.outlet.queue.try_iter().filter_map(span).take(self.settings.batch_spans_max).collect();
            if !self.send(left, until.saturating_duration_since(Instant::now())) {
                return;
            }
        }
    }

    /// The next batch: as many as there may be, or what came until the first of them has waited long enough. And whether it is
    /// the last.
    fn batch(&self) -> (Vec<SpanData>, bool) {
        let mut batch = Vec::new();
        let mut until = None;
        while batch.len() < self.settings.batch_spans_max {
            let next = match until {
                None => self.outlet.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.outlet.queue.recv_timeout(until - Instant::now().min(until)),
            };
            match next {
                Ok(Told::Span(span)) => batch.push(*span),
                Err(RecvTimeoutError::Timeout) => break,
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => return (batch, true),
            }
            until = until.or_else(|| Some(Instant::now() + self.settings.delay));
        }
        (batch, false)
    }

    /// Sends a batch. Whether there was anything to send.
    fn send(&mut self, batch: Vec<SpanData>, time_max: Duration) -> bool {
        let spans = batch.len() as u64;
        if spans == 0 {
            return false;
        }
        let exported = async { tokio::time::timeout(time_max, self.exporter.export(batch)).await };
        let failure = match self.runtime.block_on(exported) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(self.courier_failure().unwrap_or_else(|| error.to_string())),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match &failure {
            None => self.outlet.counts.exported.add(spans),
            Some(_) => self.outlet.counts.not_exported.add(spans),
        }
        match (failure, std::mem::replace(&mut self.is_taken, true)) {
            (None, false) => tracing::info!("the collector takes spans again"),
            (None, true) => {}
            (Some(error), was_taken) => {
                self.is_taken = false;
                if was_taken {
                    tracing::warn!(error, "the collector takes no spans: they are dropped until it does");
                }
            }
        }
        true
    }
}

impl Sender {
    fn courier_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn span(told: Told) -> Option<SpanData> {
    match told {
        Told::Span(span) => Some(*span),
        Told::End => None,
    }
}

/// Carries what the exporter has encoded, by the gateway's own client.
struct Courier {
    client: Client,
    timeout: Duration,
    failure: Arc<Mutex<Option<String>>>,
}

impl Courier {
    /// The exporter keeps to itself what was wrong.
    fn keep(&self, error: &dyn std::error::Error) {
        let mut whole = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            whole = format!("{whole}: {cause}");
            source = cause.source();
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(whole);
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = Url::parse(&request.uri().to_string())?;
        // The operator named it, so it may stand anywhere.
        let rules = Rules {
            http: true,
            ports: vec![url.port],
            networks: Networks::everywhere(),
            timeout: self.timeout,
            ..Rules::default()
        };
        let (head, body) = request.into_parts();
        let answer = self.client.post(&url, head.headers, body, &rules).await;
        Ok(answer.inspect_err(|error| self.keep(error))?)
    }
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_cannot_be_followed_is_told_by_its_variable_and_never_shown() {
        let said = |traces: &'static str, all: &'static str| {
            check_endpoint(move |name| Some(if name == ENDPOINTS[0] { traces } else { all }.to_owned()))
        };
        assert_eq!(said("", ""), Ok(()));
        assert_eq!(said("https://c.example/v1/traces", "no url"), Ok(()));
        for (traces, all, variable) in [
            ("", "http://u:SECRET@[", "`OTEL_EXPORTER_OTLP_ENDPOINT`"),
            ("", "http://u:SECRET@c.example", "`OTEL_EXPORTER_OTLP_ENDPOINT`"),
            ("ftp://SECRET.example", "http://c.example", "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`"),
        ] {
            let told = said(traces, all).unwrap_err();
            assert!(told.contains(variable) && !told.contains("SECRET"), "{told}");
        }
    }
}
