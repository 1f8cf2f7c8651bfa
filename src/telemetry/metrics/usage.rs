//! How much of which limit is used?
//!
//! Values of the accounts of those whom the configuration names, taken over when the metrics are read. What nobody used has no series.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::IntGaugeVec;

use crate::telemetry::metrics::GaugeFamily;
use crate::telemetry::metrics::Maker;
use crate::telemetry::metrics::family::Overflow;

const LABELS: [&str; 3] = ["level", "name", "limit"];

/// One limit of one subject at this moment. Money is in millionths.
#[derive(Debug, Clone)]
pub struct LimitFigures {
    /// What the subject is: `key`, `team`.
    pub level: &'static str,
    /// Its name.
    pub name: String,
    /// The limit's key in the configuration.
    pub limit: &'static str,
    /// How much of it is used.
    pub used: u64,
    /// How much may be.
    pub most: u64,
}

/// The metrics that have series by limit.
pub(super) struct Limits {
    used: GaugeFamily,
    most: GaugeFamily,
    adopting: Mutex<()>,
}

impl Limits {
    pub(super) fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(maker.opts(name, help), &LABELS)?;
            maker.family(vec, LABELS.len(), Overflow::Nowhere, name)
        };
        Ok(Self {
            used: gauge(
                "limit_used",
                "How much of a limit is used: of this day, this month, or at once; money in millionths.",
            )?,
            most: gauge("limit_max", "How much of a limit may be used; money in millionths.")?,
            adopting: Mutex::new(()),
        })
    }

    /// Takes over what is true at this moment; series of limits that are not among these go away.
    pub(super) fn adopt(&self, figures: &[LimitFigures]) {
        let _one_at_a_time = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeSet<[&str; 3]> = figures.iter().map(values).collect();
        let is_there = |values: &[String]| match values {
            [level, name, limit] => known.contains(&[level.as_str(), name, limit]),
            _ => false,
        };
        self.used.retain(is_there);
        self.most.retain(is_there);
        for figure in figures {
            self.used.series(&values(figure)).set(figure.used.try_into().unwrap_or(i64::MAX));
            self.most.series(&values(figure)).set(figure.most.try_into().unwrap_or(i64::MAX));
        }
    }
}

fn values(figure: &LimitFigures) -> [&str; 3] {
    [figure.level, &figure.name, figure.limit]
}
