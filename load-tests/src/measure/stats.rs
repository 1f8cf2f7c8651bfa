//! How sure is a median?
//!
//! Order statistics: the interval from the k-th smallest to the k-th largest value holds the median with a probability
//! that the binomial distribution gives exactly, whatever the values are distributed like.

use serde::Serialize;

/// The median of some rounds, and the interval that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Median {
    /// The middle value.
    pub(crate) median: f64,
    /// Lower end of the interval.
    pub(crate) low: f64,
    /// Upper end of the interval.
    pub(crate) high: f64,
    /// With which probability the interval holds the true median: 95 % or more from six rounds on.
    pub(crate) confidence: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
}

/// The median of `values`, none of which is lost.
pub(crate) fn median(values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    assert!(count > 0, "a median of nothing");
    let middle = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
    // The narrowest interval of 95 %; of few values, all there is.
    let rank = (1..=count.div_ceil(2)).rev().find(|rank| confidence(count, *rank) >= 0.95).unwrap_or(1);
    Median {
        median: middle,
        low: sorted[rank - 1],
        high: sorted[count - rank],
        confidence: confidence(count, rank),
        rounds: count,
    }
}

/// The probability that the median lies between the `rank`-th smallest and the `rank`-th largest of `count` values.
fn confidence(count: usize, rank: usize) -> f64 {
    let mut probability = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for successes in 0..rank {
        below += probability;
        probability *= (count - successes) as f64 / (successes + 1) as f64;
    }
    (1.0 - 2.0 * below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_tables() {
        // Published ranks for the median at 95 %.
        for (count, rank) in [(6, 1), (10, 2), (15, 4), (21, 6), (30, 10)] {
            assert!(confidence(count, rank) >= 0.95, "{count}");
            assert!(confidence(count, rank + 1) < 0.95, "{count}");
        }
        let values: Vec<f64> = (1..=21).rev().map(f64::from).collect();
        let found = median(&values);
        assert_eq!((found.low, found.median, found.high, found.rounds), (6.0, 11.0, 16.0, 21));
    }

    #[test]
    fn few_rounds_say_how_little_they_know() {
        let found = median(&[3.0, 1.0]);
        assert_eq!((found.low, found.median, found.high, found.confidence), (1.0, 2.0, 3.0, 0.5));
        assert_eq!(median(&[1.0]).confidence, 0.0);
    }

    #[test]
    fn one_wild_round_moves_neither_median_nor_interval() {
        let mut values: Vec<f64> = (0..15).map(|n| 1.0 + f64::from(n) / 100.0).collect();
        let before = median(&values);
        values[14] = 1000.0;
        assert_eq!(median(&values), before);
    }
}
