//! Who is told of each request when it has ended?

#[cfg(feature = "otlp")]
use std::time::Duration;

use crate::telemetry::access::AccessLog;
#[cfg(feature = "otlp")]
use crate::telemetry::traces::Traces;

/// How long a collector may take for what is left at the end.
#[cfg(feature = "otlp")]
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The access log and the collector of traces, as far as they are wanted.
#[derive(Debug, Default)]
pub struct Observers {
    /// The access log.
    pub access: Option<AccessLog>,
    /// The way to a collector.
    #[cfg(feature = "otlp")]
    pub traces: Option<Traces>,
}

impl Observers {
    /// Whether nobody is told.
    pub fn are_none(&self) -> bool {
        #[cfg(feature = "otlp")]
        if self.traces.is_some() {
            return false;
        }
        self.access.is_none()
    }

    /// Hands on what is left, within a bounded time.
    pub fn close(&self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = &self.traces {
            traces.close(LAST_SPANS);
        }
        if let Some(access) = &self.access {
            access.close();
        }
    }
}
