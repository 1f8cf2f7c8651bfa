//! Who moves bytes too slowly?
//!
//! A deadline that moves with what was moved: a while that is free, and from then on so many bytes a second on average.
//! Single bytes now and then do not keep a transfer alive.

use std::time::Duration;

/// How fast bytes must move.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// For how long nothing need move.
    pub patience: Duration,
    /// Bytes a second, on average, after that.
    pub bytes_per_second_min: u32,
}

impl Pace {
    /// How long after its beginning a transfer ends of which so many bytes have been moved.
    pub fn lasts(&self, moved: usize) -> Duration {
        let millis = (moved as u64).saturating_mul(1000) / u64::from(self.bytes_per_second_min.max(1));
        self.patience.saturating_add(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_lasts_as_long_as_it_keeps_its_pace() {
        let pace = Pace { patience: Duration::from_secs(5), bytes_per_second_min: 1024 };
        for (moved, millis) in [(0, 5_000), (1, 5_000), (512, 5_500), (1024, 6_000), (10 * 1024, 15_000)] {
            assert_eq!(pace.lasts(moved), Duration::from_millis(millis), "{moved}");
        }
        let none = Pace { patience: Duration::from_secs(1), bytes_per_second_min: 0 };
        assert!(none.lasts(usize::MAX) > Duration::from_secs(1_000_000));
    }
}
