//! What becomes of what is told to others: lines of the access log, and spans?

use prometheus::IntCounterVec;

use crate::telemetry::access;
use crate::telemetry::metrics::Count;
use crate::telemetry::metrics::Maker;

/// What became of spans, counted.
#[derive(Clone)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: Count,
    /// Dropped, because so many waited already.
    pub queue_full: Count,
    /// Given up: the collector did not take them.
    pub not_exported: Count,
}

/// The counters of both.
pub(super) struct Deliveries {
    pub(super) lines: access::Counts,
    pub(super) spans: SpanCounts,
}

impl Deliveries {
    pub(super) fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        let help = "Lines of the access log, by what became of them.";
        let lines = maker.counter("access_log_lines_total", help, &["outcome"])?;
        let help = "Spans of requests that were sampled, by what became of them.";
        let spans = maker.counter("trace_spans_total", help, &["outcome"])?;
        let of = |vec: &IntCounterVec, outcome| vec.get_metric_with_label_values(&[outcome]).map(Count);
        Ok(Self {
            lines: access::Counts { written: of(&lines, "written")?, dropped: of(&lines, "dropped")? },
            spans: SpanCounts {
                exported: of(&spans, "exported")?,
                queue_full: of(&spans, "queue_full")?,
                not_exported: of(&spans, "not_exported")?,
            },
        })
    }
}
