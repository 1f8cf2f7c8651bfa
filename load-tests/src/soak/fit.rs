//! Does it grow?
//!
//! Theil-Sen: the median of the slopes between all pairs of points. A quarter of the points may be anything without
//! moving it, so that a burst at the end or a sample in the middle of a fault is no growth.

/// Points that are fitted at most: all pairs of them are looked at.
const POINTS_MAX: usize = 2_000;

/// The slope of `points`, in units of the second coordinate per unit of the first. None of fewer than three.
pub(super) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    let points: Vec<(f64, f64)> = points.iter().copied().step_by(step).collect();
    if points.len() < 3 {
        return None;
    }
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, (x, y)) in points.iter().enumerate() {
        slopes
            .extend(points[index + 1..].iter().filter(|later| later.0 > *x).map(|later| (later.1 - y) / (later.0 - x)));
    }
    middle(&mut slopes)
}

/// The middle of `values`.
pub(super) fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Memory as it is seen: a level, noise, a growth.
    fn seen(growth: f64) -> Vec<(f64, f64)> {
        let mut chance = Chance::new(3, 0);
        (0..60)
            .map(|at| (f64::from(at), 40.0 + growth * f64::from(at) + chance.between(0, 200) as f64 / 100.0))
            .collect()
    }

    #[test]
    fn growth_is_seen_through_noise_and_noise_is_no_growth() {
        assert!((slope(&seen(0.1)).unwrap() - 0.1).abs() < 0.02);
        assert!(slope(&seen(0.0)).unwrap().abs() < 0.02);
    }

    #[test]
    fn a_few_wild_points_are_no_growth() {
        let mut points = seen(0.0);
        for point in points.iter_mut().rev().take(8) {
            point.1 = 400.0;
        }
        assert!(slope(&points).unwrap().abs() < 0.05);
    }

    #[test]
    fn of_many_points_not_all_pairs_are_looked_at() {
        let points: Vec<(f64, f64)> = (0..20_000).map(|at| (f64::from(at), 2.0 * f64::from(at))).collect();
        assert!((slope(&points).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(slope(&points[..2]), None);
    }
}
