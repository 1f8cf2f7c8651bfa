//! How often does a candidate decide otherwise, and what does asking it take?

use std::time::Duration;

use prometheus::Counter;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;

use crate::telemetry::metrics::Maker;

/// What a candidate decided, beside what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The same.
    Alike,
    /// It would have permitted what was refused.
    Permitted,
    /// It would have refused what was permitted.
    Refused,
}

/// The metrics of candidates.
pub(super) struct Shadows {
    alike: IntCounter,
    permitted: IntCounter,
    refused: IntCounter,
    seconds: Counter,
    asked: IntGauge,
}

impl Shadows {
    pub(super) fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        let help = "Requests that a candidate judged too (`policy.shadow_file`), by what it would have decided.";
        let all = maker.one("shadow_decisions_total", help, |opts| IntCounterVec::new(opts, &["decision"]))?;
        Ok(Self {
            alike: all.get_metric_with_label_values(&["alike"])?,
            permitted: all.get_metric_with_label_values(&["permitted"])?,
            refused: all.get_metric_with_label_values(&["refused"])?,
            asked: maker
                .gauge("shadow_asked", "1 while a candidate is asked: there is one, and it has no mistakes.")?,
            seconds: maker.one("shadow_seconds_total", "Time spent asking the candidate.", Counter::with_opts)?,
        })
    }

    pub(super) fn asked(&self, is_asked: bool) {
        self.asked.set(i64::from(is_asked));
    }

    pub(super) fn judged(&self, compared: Compared, took: Duration) {
        let count = match compared {
            Compared::Alike => &self.alike,
            Compared::Permitted => &self.permitted,
            Compared::Refused => &self.refused,
        };
        count.inc();
        self.seconds.inc_by(took.as_secs_f64());
    }
}
