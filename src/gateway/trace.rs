//! In which trace does a request stand?
//!
//! A caller says it in its message (`params._meta`), in a header, or in both. Whose caller is known stands in the trace it names,
//! the message's before the header's; of anybody else a context is told of and decides nothing. A server is told in a header:
//! the bytes of a message go out as they were judged.

#[cfg(feature = "otlp")]
use std::sync::OnceLock;
#[cfg(feature = "otlp")]
use std::time::Instant;

use http::HeaderMap;
use http::HeaderName;
#[cfg(feature = "otlp")]
use http::HeaderValue;
use http::Version;
use pingora::http::RequestHeader;

use crate::mcp::message::Message;
use crate::telemetry::observers::Observers;
use crate::telemetry::trace_context::Remote;
use crate::telemetry::trace_context::TRACEPARENT;
use crate::telemetry::trace_context::TRACESTATE;
#[cfg(feature = "otlp")]
use crate::telemetry::traces::Spans;
#[cfg(feature = "otlp")]
use crate::telemetry::traces::Traces;

/// What is known of a request for those who are told of it at its end. Where nobody is, there is none.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The version of HTTP that the client speaks.
    pub(crate) http_version: Option<&'static str>,
    in_header: Option<Remote>,
    in_message: Option<Remote>,
    /// The code of the JSON-RPC error that was the answer.
    pub(crate) error_code: Option<i64>,
    #[cfg(feature = "otlp")]
    spans: OnceLock<Spans>,
    #[cfg(feature = "otlp")]
    asked: OnceLock<Instant>,
}

impl Trace {
    /// Of a request with this head.
    pub(crate) fn of_head(observers: &Observers, head: &RequestHeader) -> Option<Box<Self>> {
        if observers.are_none() {
            return None;
        }
        let http_version = match head.version {
            Version::HTTP_10 => Some("1.0"),
            Version::HTTP_11 => Some("1.1"),
            Version::HTTP_2 => Some("2"),
            _ => None,
        };
        Some(Box::new(Self { http_version, in_header: in_header(&head.headers), ..Self::default() }))
    }

    /// Of something else that is asked for within this request.
    pub(crate) fn child(&self) -> Box<Self> {
        Box::new(Self { http_version: self.http_version, in_header: self.in_header.clone(), ..Self::default() })
    }

    /// Takes over what the message says.
    pub(crate) fn note(&mut self, message: &Message) {
        let said = |key| message.meta().and_then(|meta| meta.get(key)?.text());
        self.in_message = said(TRACEPARENT).and_then(|parent| Remote::read(parent, said(TRACESTATE)));
    }

    /// What its caller names as the span that asks, if the caller is known.
    pub(crate) fn parent(&self, is_known: bool) -> Option<&Remote> {
        self.in_message.as_ref().or(self.in_header.as_ref()).filter(|_| is_known)
    }
}

#[cfg(feature = "otlp")]
impl Trace {
    /// What came beside the parent, or instead of one.
    pub(crate) fn linked(&self, is_known: bool) -> Option<&Remote> {
        match (&self.in_message, &self.in_header) {
            (Some(message), Some(header)) if is_known => (message != header).then_some(header),
            (message, header) => message.as_ref().or(header.as_ref()).filter(|_| !is_known),
        }
    }

    /// The request's spans, from the first time they are asked for.
    pub(crate) fn spans(&self, traces: &Traces, is_known: bool) -> Spans {
        *self.spans.get_or_init(|| traces.begin(self.parent(is_known).map(|remote| &remote.context)))
    }

    /// The same, if they were asked for.
    pub(crate) fn begun(&self) -> Option<&Spans> {
        self.spans.get()
    }

    /// When a server was first asked.
    pub(crate) fn asked(&self) -> Option<Instant> {
        self.asked.get().copied()
    }

    /// Tells a server that is about to be asked in which span that is.
    pub(crate) fn tell_server(&self, traces: &Traces, is_known: bool, headers: &mut HeaderMap) {
        let spans = self.spans(traces, is_known);
        self.asked.get_or_init(Instant::now);
        let state = self.parent(is_known).and_then(|parent| parent.state.as_deref());
        let parent = HeaderValue::try_from(spans.towards_server().to_string()).ok();
        let state = state.and_then(|state| HeaderValue::from_str(state).ok());
        for (name, value) in [(TRACEPARENT, parent), (TRACESTATE, state)] {
            headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
        }
    }
}

/// A context that several headers tell of is none.
fn in_header(headers: &HeaderMap) -> Option<Remote> {
    let mut parents = headers.get_all(HeaderName::from_static(TRACEPARENT)).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let mut states = headers.get_all(HeaderName::from_static(TRACESTATE)).iter();
    let state = states.next().filter(|_| states.next().is_none());
    Remote::read(parent.to_str().ok()?, state.and_then(|state| state.to_str().ok()))
}
