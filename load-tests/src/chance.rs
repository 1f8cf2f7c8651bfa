//! What happens next, where it should be anything, and the same again with the same seed?

/// A number that looks random (splitmix64).
pub fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of numbers that look random.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of this seed; `of` tells those apart that share it.
    pub fn new(seed: u64, of: u64) -> Self {
        Self(scatter(seed ^ scatter(of)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        scatter(self.0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high.saturating_sub(low) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_what_happens_and_both_ends_do() {
        let drawn =
            |of| (0..1000).map(|_| 0).scan(Chance::new(7, of), |c, _| Some(c.between(3, 5))).collect::<Vec<_>>();
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!((3..=5).all(|wanted| drawn(1).contains(&wanted)));
        assert!(drawn(1).iter().all(|number| (3..=5).contains(number)));
    }
}
