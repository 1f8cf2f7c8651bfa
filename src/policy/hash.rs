//! How are names looked up quickly?
//!
//! The maps of a policy hold what the operator wrote; a caller only looks things up, and cannot make a map slower than
//! the operator's own names do. So they need no hash that withstands an attacker, but one that is cheap for short names.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;

/// A map whose keys are the operator's.
pub(super) type NameMap<K, V> = HashMap<K, V, BuildHasherDefault<NameHasher>>;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Multiplies eight bytes at a time, and folds the upper half of each product onto the lower.
pub(super) struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(SEED)
    }
}

impl NameHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
            self.mix(last ^ (rest.len() as u64) << 56);
        }
    }

    /// The byte that ends a text in its hash.
    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(23) ^ u64::from(byte);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.0) * u128::from(SEED);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;
    use std::hash::BuildHasherDefault;

    use super::NameHasher;
    use super::NameMap;

    #[test]
    fn names_of_all_lengths_are_found_again() {
        let names: Vec<String> = (0..300).map(|length| "x".repeat(length)).collect();
        let map: NameMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(map.get(name.as_str()), Some(&i));
        }
        assert_eq!(map.get("y"), None);
    }

    #[test]
    fn alike_names_spread_over_a_map() {
        let hasher = BuildHasherDefault::<NameHasher>::default();
        let hashes: Vec<u64> = (0..10_000).map(|i| hasher.hash_one(format!("key_{i:05}"))).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
        let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 48).collect();
        // 10,000 balls in 65,536 boxes fill about 9,270 of them.
        assert!(low.len() > 9_000 && high.len() > 9_000, "{} {}", low.len(), high.len());
    }
}
