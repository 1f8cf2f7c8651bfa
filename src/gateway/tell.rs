//! Who is told that a request has ended, and what?
//!
//! The access log gets a line, a collector the spans of a request that is sampled. Both say of a request what its record says, and
//! nothing that the record leaves out: no argument, no result, no credential, no session.

#[cfg(feature = "otlp")]
use std::time::SystemTime;

#[cfg(feature = "otlp")]
use http::HeaderMap;

use crate::audit;
use crate::audit::Ended;
use crate::clock;

use super::entry::Entry;
#[cfg(feature = "otlp")]
use super::spans;

impl Entry {
    /// Tells everybody who wants to know.
    pub(super) fn tell(&self, ended: Ended<'_>) {
        if self.trace.is_none() {
            return;
        }
        #[cfg(feature = "otlp")]
        spans::tell(self, &ended, SystemTime::now());
        if let Some(access) = &self.observers().access {
            let trace_id = self.trace_id();
            let line = audit::access_line(&self.request(), ended, trace_id.as_deref(), clock::now_micros());
            access.tell(&line, self.principal.is_some());
        }
    }

    /// The id of the trace the request stands in, as far as it is known.
    fn trace_id(&self) -> Option<String> {
        let trace = self.trace.as_ref()?;
        #[cfg(feature = "otlp")]
        if let Some(spans) = trace.begun() {
            return Some(spans.towards_server().trace_id());
        }
        trace.parent(self.is_known()).map(|parent| parent.context.trace_id())
    }

    /// Tells a server that is about to be asked in which trace that is, where traces are collected.
    #[cfg(feature = "otlp")]
    pub(super) fn tell_server(&self, headers: &mut HeaderMap) {
        if let (Some(traces), Some(trace)) = (&self.observers().traces, &self.trace) {
            trace.tell_server(traces, self.is_known(), headers);
        }
    }

    /// Whether it is known who asks.
    pub(super) fn is_known(&self) -> bool {
        self.principal.as_ref().is_some_and(|principal| !principal.is_public())
    }
}
