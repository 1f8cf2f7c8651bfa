//! How many series may one metric have?
//!
//! A family makes a series when it is first asked for it, up to its limit. What finds no room counts in the one
//! series whose values are all `_other`, so that sums stay right, and is itself counted.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::IntCounter;
use prometheus::core::Collector;
use prometheus::core::Metric;
use prometheus::core::MetricVec;
use prometheus::core::MetricVecBuilder;

use crate::telemetry::metrics::labels::OTHER;

/// A metric with labels. The crate's own trait for it cannot be named from outside.
pub(super) trait Labelled: Collector + Clone + 'static {
    /// One series of it.
    type Series: Clone;
    /// Finds a series, or makes it.
    fn get(&self, values: &[&str]) -> prometheus::Result<Self::Series>;
    /// Removes a series.
    fn remove(&self, values: &[&str]) -> prometheus::Result<()>;
}

impl<B> Labelled for MetricVec<B>
where
    B: MetricVecBuilder + 'static,
    B::M: Metric,
{
    type Series = B::M;

    fn get(&self, values: &[&str]) -> prometheus::Result<Self::Series> {
        self.get_metric_with_label_values(values)
    }

    fn remove(&self, values: &[&str]) -> prometheus::Result<()> {
        self.remove_label_values(values)
    }
}

/// The series of one metric, at most `series_max` of them.
pub(super) struct Family<V: Labelled> {
    vec: V,
    state: Mutex<State>,
    series_max: usize,
    labels: usize,
    overflow: Overflow,
    dropped: IntCounter,
    detached: V::Series,
}

/// Where observations go that have no series of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    /// Into the series whose values are all `_other`: for what can be summed.
    Other,
    /// Nowhere: for what cannot.
    Nowhere,
}

#[derive(Default)]
struct State {
    made: BTreeSet<Vec<String>>,
    /// First label values that may have series; `None` until somebody says.
    known: Option<BTreeSet<String>>,
}

impl<V: Labelled> Family<V> {
    /// Wraps `vec`, which must be without series and have `labels` labels.
    pub(super) fn new(
        vec: V,
        labels: usize,
        overflow: Overflow,
        series_max: usize,
        dropped: IntCounter,
    ) -> prometheus::Result<Self> {
        let nameless = vec![""; labels];
        let detached = vec.get(&nameless)?;
        vec.remove(&nameless)?;
        Ok(Self { vec, state: Mutex::default(), series_max, labels, overflow, dropped, detached })
    }

    /// What is to be registered.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.vec.clone())
    }

    /// The series with these label values, or what stands in for it. Takes a lock: resolve once, keep the handle.
    pub(super) fn series(&self, values: &[&str]) -> V::Series {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = match (&state.known, values.first()) {
            (Some(known), Some(first)) => known.contains(*first),
            _ => true,
        };
        let key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        // One place is kept for the series of what finds no place.
        let has_room = state.made.contains(&key) || state.made.len() + 1 < self.series_max;
        if is_known && has_room {
            state.made.insert(key);
            let series = self.vec.get(values);
            return series.unwrap_or_else(|_| self.detached.clone());
        }
        if is_known {
            self.dropped.inc();
        }
        match self.overflow {
            Overflow::Nowhere => self.detached.clone(),
            Overflow::Other => {
                let others = vec![OTHER; self.labels];
                self.vec.get(&others).unwrap_or_else(|_| self.detached.clone())
            }
        }
    }

    /// From now on only these first label values have series; those of others go away.
    pub(super) fn keep(&self, firsts: &[&str]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeSet<String> = firsts.iter().map(|first| (*first).to_owned()).collect();
        self.retain_in(&mut state, |values| values.first().is_some_and(|first| known.contains(first)));
        state.known = Some(known);
    }

    /// Series whose label values are not among these go away; they can be made again.
    pub(super) fn retain(&self, is_there: impl Fn(&[String]) -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.retain_in(&mut state, is_there);
    }

    fn retain_in(&self, state: &mut State, is_there: impl Fn(&[String]) -> bool) {
        state.made.retain(|values| {
            let keep = is_there(values);
            if !keep {
                // It exists, for it is in `made`.
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                let _ = self.vec.remove(&values);
            }
            keep
        });
    }
}
