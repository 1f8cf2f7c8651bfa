//! Whose turn is it?
//!
//! Weighted round robin without a lock: a counter is spread over the units of weight by a step that shares no factor with
//! their sum, so every unit has its turn once in a round and the turns of one endpoint lie apart.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Turns of so many positions.
pub(crate) struct Rotation {
    /// The sum of the weights up to and including each position.
    bounds: Vec<usize>,
    sum: usize,
    step: usize,
    turn: AtomicUsize,
}

impl Rotation {
    /// Turns by weight; a position of weight 0 has none.
    pub(crate) fn new(weights: impl Iterator<Item = usize>) -> Self {
        let mut sum = 0;
        let bounds = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { bounds, sum, step: step(sum), turn: AtomicUsize::new(0) }
    }

    /// The number of the next turn.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Whose turn it is; `None` where nobody has any weight.
    pub(crate) fn position(&self, turn: usize) -> Option<usize> {
        let unit = (turn % self.sum.max(1)) * self.step % self.sum.max(1);
        let position = self.bounds.partition_point(|bound| *bound <= unit);
        (position < self.bounds.len()).then_some(position)
    }
}

/// A number near the golden section of `sum` that shares no factor with it.
fn step(sum: usize) -> usize {
    let near = sum * 618 / 1_000;
    (near.max(1)..=sum.max(1)).find(|step| gcd(*step, sum) == 1).unwrap_or(1)
}

fn gcd(mut one: usize, mut other: usize) -> usize {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(weights: &[usize]) -> Vec<usize> {
        let rotation = Rotation::new(weights.iter().copied());
        let sum: usize = weights.iter().sum();
        (0..sum).map(|_| rotation.position(rotation.turn()).unwrap()).collect()
    }

    #[test]
    fn everybody_has_as_many_turns_in_a_round_as_their_weight() {
        for weights in [&[1][..], &[3, 1], &[1, 1, 1], &[5, 0, 2], &[1_000, 1, 1_000], &[7, 11, 13, 17]] {
            let turns = round(weights);
            for (position, weight) in weights.iter().enumerate() {
                assert_eq!(turns.iter().filter(|turn| **turn == position).count(), *weight, "{weights:?}");
            }
        }
    }

    #[test]
    fn the_turns_of_one_lie_apart() {
        assert_eq!(round(&[2, 2]), [0, 1, 1, 0]);
        let turns = round(&[50, 50]);
        let longest = turns.chunk_by(|one, other| one == other).map(<[usize]>::len).max();
        assert_eq!(longest, Some(2));
    }

    #[test]
    fn nobody_has_a_turn_where_nobody_has_a_weight() {
        assert_eq!(Rotation::new([0, 0].into_iter()).position(3), None);
        assert_eq!(Rotation::new(std::iter::empty()).position(0), None);
    }
}
