//! What is measured of one issuer of tokens?
//!
//! Values that are kept elsewhere, taken over when the metrics are read.

use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;

use crate::telemetry::metrics::CounterFamily;
use crate::telemetry::metrics::GaugeFamily;
use crate::telemetry::metrics::Maker;
use crate::telemetry::metrics::family::Overflow;

/// One issuer at this moment.
#[derive(Debug, Clone)]
pub struct IssuerFigures {
    /// The issuer's name.
    pub issuer: String,
    /// Keys in use.
    pub keys: usize,
    /// How old they are; `None`: there are none.
    pub age_seconds: Option<u64>,
    /// Fetches that brought keys.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
}

/// The metrics that have series by issuer.
pub(super) struct Issuers {
    keys: GaugeFamily,
    age: GaugeFamily,
    fetches: CounterFamily,
    adopting: Mutex<()>,
}

impl Issuers {
    pub(super) fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(maker.opts(name, help), &["issuer"])?;
            maker.family(vec, 1, Overflow::Nowhere, name)
        };
        let (fetches, help) = ("issuer_fetches_total", "Fetches of an issuer's keys, by what became of them.");
        let fetches_vec = IntCounterVec::new(maker.opts(fetches, help), &["issuer", "outcome"])?;
        Ok(Self {
            keys: gauge("issuer_keys", "Keys of an issuer that verify tokens.")?,
            age: gauge("issuer_keys_age_seconds", "How long ago an issuer's keys were fetched; absent: never.")?,
            fetches: maker.family(fetches_vec, 2, Overflow::Nowhere, fetches)?,
            adopting: Mutex::new(()),
        })
    }

    /// Takes over what is true at this moment; series of issuers that are not among these go away.
    pub(super) fn adopt(&self, figures: &[IssuerFigures]) {
        let _one_at_a_time = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |values: &[String]| figures.iter().any(|known| values.first() == Some(&known.issuer));
        self.keys.retain(is_there);
        self.age.retain(is_there);
        self.fetches.retain(is_there);
        for known in figures {
            let issuer = known.issuer.as_str();
            self.keys.series(&[issuer]).set(known.keys.try_into().unwrap_or(i64::MAX));
            if let Some(age) = known.age_seconds {
                self.age.series(&[issuer]).set(age.try_into().unwrap_or(i64::MAX));
            }
            for (outcome, count) in [("ok", known.fetched), ("failed", known.failed)] {
                let series = self.fetches.series(&[issuer, outcome]);
                series.inc_by(count.saturating_sub(series.get()));
            }
        }
    }
}
