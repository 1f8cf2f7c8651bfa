//! Which spans are told to a collector?
//!
//! Those of the traces that are sampled: one for each request a client made of the gateway, one for each that the gateway made
//! of a server. A span is made when its request has ended and put into a queue of [`Settings::queued_spans_max`]; where the
//! queue is full it is dropped and counted. Nothing here waits. Who takes the spans out of the queue is no matter of this module.

mod settings;

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::trace::Link;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceFlags;
use opentelemetry::trace::TraceId;
use opentelemetry::trace::TraceState;
use opentelemetry_sdk::trace::IdGenerator;
use opentelemetry_sdk::trace::RandomIdGenerator;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanEvents;
use opentelemetry_sdk::trace::SpanLinks;

use crate::telemetry::metrics::SpanCounts;
use crate::telemetry::trace_context::Remote;
use crate::telemetry::trace_context::TraceContext;

pub use crate::telemetry::traces::settings::Sampling;
pub use crate::telemetry::traces::settings::Settings;

/// The conventions by which attributes are named: repository and commit. They are in development and will move; the test
/// `e2e::traces` holds what is told against a copy.
pub const CONVENTIONS: &str = "open-telemetry/semantic-conventions-genai@0393513c908bf895e7b3ec480a2c1eb073c584af";

/// Bytes of an attribute's text, as for texts in the record.
const TEXT_BYTES_MAX: usize = 256;

/// What is put into the queue.
#[derive(Debug)]
pub enum Told {
    /// A span that has ended.
    Span(Box<SpanData>),
    /// There is nothing more to come.
    End,
}

/// The way to a collector.
pub struct Traces {
    sampling: Sampling,
    queue: mpsc::SyncSender<Told>,
    counts: SpanCounts,
    scope: InstrumentationScope,
    is_closing: Arc<AtomicBool>,
    ended: Mutex<mpsc::Receiver<()>>,
}

/// The other end of the queue.
pub struct Outlet {
    /// What is told.
    pub queue: mpsc::Receiver<Told>,
    /// What becomes of it is counted here.
    pub counts: SpanCounts,
    /// Set when what is left is to be sent at once.
    pub is_closing: Arc<AtomicBool>,
    /// Gone when everything was sent, or given up.
    pub ended: mpsc::Sender<()>,
}

/// The spans of one request: who they are, and whether they will be told.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    trace: TraceId,
    server: SpanId,
    client: SpanId,
    parent: Option<SpanId>,
    /// Whether they are told.
    pub is_sampled: bool,
}

impl Spans {
    /// The span in which a server is asked, as the server is told of it.
    pub fn towards_server(&self) -> TraceContext {
        TraceContext { trace: self.trace.to_bytes(), span: self.client.to_bytes(), is_sampled: self.is_sampled }
    }
}

/// What is known of a span that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is told of it.
    pub attributes: Attributes,
    /// What kind of error it ended with.
    pub error: Option<String>,
}

/// What is told of a span, each text within its limit.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// A text, cut where it is too long.
    pub fn text(&mut self, name: &'static str, text: &str) {
        let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        let kept = text.get(..end.unwrap_or_default()).unwrap_or_default();
        self.0.push(KeyValue::new(name, kept.to_owned()));
    }

    /// A text, if there is one.
    pub fn text_of(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// A word of the gateway's own.
    pub fn word(&mut self, name: &'static str, word: &'static str) {
        self.0.push(KeyValue::new(name, word));
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, number: u64) {
        self.0.push(KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)));
    }
}

impl Traces {
    /// A queue as `settings` want it, and its other end.
    pub fn new(settings: &Settings, counts: SpanCounts) -> (Self, Outlet) {
        let (queue, other_end) = mpsc::sync_channel(settings.queued_spans_max);
        let (ended, has_ended) = mpsc::channel();
        let is_closing = Arc::new(AtomicBool::new(false));
        let outlet = Outlet { queue: other_end, counts: counts.clone(), is_closing: Arc::clone(&is_closing), ended };
        let scope = InstrumentationScope::builder("portcullis").with_version(env!("CARGO_PKG_VERSION")).build();
        let sampling = settings.sampling;
        (Self { sampling, queue, counts, scope, is_closing, ended: Mutex::new(has_ended) }, outlet)
    }

    /// The spans of a request, in the trace of `parent` or in one of their own.
    pub fn begin(&self, parent: Option<&TraceContext>) -> Spans {
        let ids = RandomIdGenerator::default();
        let trace = parent.map_or_else(|| ids.new_trace_id(), |parent| TraceId::from_bytes(parent.trace));
        Spans {
            trace,
            server: ids.new_span_id(),
            client: ids.new_span_id(),
            parent: parent.map(|parent| SpanId::from_bytes(parent.span)),
            is_sampled: self.sampling.samples(trace, parent.map(|parent| parent.is_sampled)),
        }
    }

    /// Tells of a request of a client. `state`: what came with its parent; `linked`: a context that came beside it.
    pub fn tell_server(&self, spans: &Spans, state: Option<&str>, linked: Option<&Remote>, ended: Ended) {
        let parent = spans.parent.unwrap_or(SpanId::INVALID);
        let mut links = SpanLinks::default();
        links.links.extend(linked.map(|linked| Link::with_context(context_of(linked))));
        self.tell(spans, (SpanKind::Server, spans.server, parent, state), links, ended);
    }

    /// Tells of a request of a server, which was made for that of a client.
    pub fn tell_client(&self, spans: &Spans, state: Option<&str>, ended: Ended) {
        self.tell(spans, (SpanKind::Client, spans.client, spans.server, state), SpanLinks::default(), ended);
    }

    fn tell(
        &self,
        spans: &Spans,
        (span_kind, id, parent_span_id, state): (SpanKind, SpanId, SpanId, Option<&str>),
        links: SpanLinks,
        ended: Ended,
    ) {
        if !spans.is_sampled {
            return;
        }
        let state = trace_state(state);
        let mut attributes = ended.attributes.0;
        let status = if ended.error.is_some() { Status::error("") } else { Status::Unset };
        attributes.extend(ended.error.map(|error| KeyValue::new("error.type", error)));
        let data = SpanData {
            span_context: SpanContext::new(spans.trace, id, TraceFlags::SAMPLED, false, state),
            parent_span_id,
            parent_span_is_remote: span_kind == SpanKind::Server && spans.parent.is_some(),
            span_kind,
            name: ended.name.into(),
            start_time: ended.began,
            end_time: ended.ended,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: self.scope.clone(),
        };
        if self.queue.try_send(Told::Span(Box::new(data))).is_err() {
            self.counts.queue_full.one();
        }
    }

    /// Has what is left sent, and waits for it no longer than `time_max`.
    pub fn close(&self, time_max: Duration) {
        self.is_closing.store(true, Ordering::Release);
        // A full queue wakes its other end just as well.
        let _ = self.queue.try_send(Told::End);
        // Nothing ever comes this way: it ends when the other side does.
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(time_max);
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("sampling", &self.sampling).finish_non_exhaustive()
    }
}

/// A state that the specification does not allow counts as absent.
fn trace_state(text: Option<&str>) -> TraceState {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn context_of(remote: &Remote) -> SpanContext {
    let TraceContext { trace, span, is_sampled } = remote.context;
    let flags = TraceFlags::default().with_sampled(is_sampled);
    let state = trace_state(remote.state.as_deref());
    SpanContext::new(TraceId::from_bytes(trace), SpanId::from_bytes(span), flags, true, state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;
    use crate::telemetry::metrics::Metrics;

    fn traces(queued_spans_max: usize) -> (Traces, Outlet) {
        let settings = metrics::Settings { series_max: 9, version: "1", decisions: &[], refusals: &[] };
        let metrics = Metrics::new(settings).unwrap();
        let settings = Settings { queued_spans_max, ..Settings::default() };
        Traces::new(&settings, metrics.spans().clone())
    }

    fn ended() -> Ended {
        let now = SystemTime::now();
        Ended { name: "ping".into(), began: now, ended: now, attributes: Attributes::default(), error: None }
    }

    #[test]
    fn what_finds_no_room_in_the_queue_is_dropped_and_counted_and_nobody_waits() {
        let (traces, outlet) = traces(2);
        let spans = traces.begin(None);
        for _ in 0..5 {
            traces.tell_server(&spans, None, None, ended());
        }
        assert_eq!((outlet.queue.try_iter().count(), outlet.counts.queue_full.value()), (2, 3));
    }

    #[test]
    fn a_span_goes_on_in_the_trace_of_its_parent_and_a_server_sees_the_one_in_which_it_is_asked() {
        let (traces, outlet) = traces(2);
        let parent = TraceContext { trace: [7; 16], span: [8; 8], is_sampled: true };
        let spans = traces.begin(Some(&parent));
        traces.tell_server(&spans, Some("a=1"), None, ended());
        traces.tell_client(&spans, Some("not a state"), ended());
        let told: Vec<SpanData> = outlet
            .queue
            .try_iter()
            .filter_map(|told| match told {
                Told::Span(span) => Some(*span),
                Told::End => None,
            })
            .collect();
        let [server, client] = told.as_slice() else { panic!("two spans: {told:?}") };
        assert_eq!(server.span_context.trace_id().to_bytes(), [7; 16]);
        assert_eq!((server.parent_span_id.to_bytes(), server.parent_span_is_remote), ([8; 8], true));
        assert_eq!(server.span_context.trace_state().header(), "a=1");
        assert_eq!((client.parent_span_id, client.parent_span_is_remote), (server.span_context.span_id(), false));
        assert_eq!(client.span_context.trace_state().header(), "");
        let towards = spans.towards_server();
        assert_eq!((towards.trace, towards.span), ([7; 16], client.span_context.span_id().to_bytes()));
    }

    #[test]
    fn what_is_not_sampled_is_not_told() {
        let (traces, outlet) = traces(2);
        let parent = TraceContext { trace: [7; 16], span: [8; 8], is_sampled: false };
        let spans = traces.begin(Some(&parent));
        traces.tell_server(&spans, None, None, ended());
        assert_eq!(outlet.queue.try_iter().count(), 0);
        assert!(!spans.towards_server().is_sampled);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut attributes = Attributes::default();
        attributes.text("a", &"é".repeat(TEXT_BYTES_MAX));
        attributes.text("b", &format!("x{}", "é".repeat(TEXT_BYTES_MAX)));
        let lengths: Vec<usize> = attributes.0.iter().map(|attribute| attribute.value.as_str().len()).collect();
        assert_eq!(lengths, [TEXT_BYTES_MAX, TEXT_BYTES_MAX - 1]);
    }

    #[test]
    fn closing_waits_for_the_other_end_and_no_longer_than_it_may() {
        let (traces, outlet) = traces(2);
        traces.close(Duration::from_millis(20));
        assert!(outlet.is_closing.load(Ordering::Acquire));
        assert!(matches!(outlet.queue.try_recv(), Ok(Told::End)));
        drop(outlet);
        let began = std::time::Instant::now();
        traces.close(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
