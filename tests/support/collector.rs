//! A collector of traces: takes what OTLP sends over HTTP, and tells what it was told.

#![allow(dead_code, reason = "without the feature `otlp` nobody uses it")]

use std::time::Duration;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::gateway::Setup;
use super::upstream::Reply;
use super::upstream::Upstream;

/// How long spans may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running collector; gone when dropped.
pub(crate) struct Collector(pub(crate) Upstream);

impl Collector {
    /// One that takes everything.
    pub(crate) async fn start() -> Self {
        let collector = Upstream::start().await;
        collector.on("*", Reply::entity(200, "application/x-protobuf", ""));
        Self(collector)
    }

    /// A gateway that tells this collector, soon.
    pub(crate) fn told_by(&self, setup: Setup) -> Setup {
        let url = format!("http://{}", self.0.address());
        setup.variable("OTEL_EXPORTER_OTLP_ENDPOINT", &url).variable("OTEL_BSP_SCHEDULE_DELAY", "20")
    }

    /// Everything it was sent, as it came.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.connections().iter().flat_map(|connection| connection.bytes.to_vec()).collect()
    }

    /// What it was sent.
    pub(crate) fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let requests = self.0.requests();
        requests.iter().map(|request| ExportTraceServiceRequest::decode(request.body.clone()).unwrap()).collect()
    }

    fn spans_so_far(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits until it has so many spans, and returns them by their beginnings; fails if there are more.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        let began = Instant::now();
        while self.spans_so_far().len() < count {
            assert!(began.elapsed() < PATIENCE, "{count} spans: {:#?}", self.spans_so_far());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What should not be there had as much time as two batches take.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut spans = self.spans_so_far();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| (span.start_time_unix_nano, span.kind));
        spans
    }
}

/// Attributes by name, one a line.
pub(crate) fn told(attributes: &[KeyValue]) -> Vec<String> {
    let mut lines: Vec<String> = attributes
        .iter()
        .map(|attribute| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => format!("{}={text}", attribute.key),
            Some(Value::IntValue(number)) => format!("{}={number}", attribute.key),
            other => panic!("{}: {other:?}", attribute.key),
        })
        .collect();
    lines.sort();
    lines
}

/// One attribute of a span.
pub(crate) fn attribute(span: &Span, name: &str) -> Option<String> {
    let lines = told(&span.attributes);
    lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}
