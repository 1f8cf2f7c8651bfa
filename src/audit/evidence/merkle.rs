//! What does a tree over all records say about one of them?
//!
//! The Merkle tree of RFC 6962 with SHA-256. Pure: hashes come from whoever keeps them. A node is named by its level and
//! its position in that level; only complete ones, over 2^level leaves, have such a name.

use std::io;

use sha2::Digest as _;
use sha2::Sha256;

/// A hash of a leaf, a node or a whole tree.
pub type Hash = [u8; 32];

/// Hash of a record: of its line without the newline.
pub(in crate::audit) fn leaf_hash(line: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(line).finalize().into()
}

/// Hash of a node over its two halves.
pub(super) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The complete trees that make up a growing one, the largest first: all that must be known to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::audit) struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of a tree of `size` leaves, if as many nodes as it has are given.
    pub(super) fn new(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// Leaves so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The complete trees, the largest first.
    pub(in crate::audit) fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Adds a leaf and says which nodes, by their level, became complete with it.
    pub(in crate::audit) fn push(&mut self, leaf: Hash, mut completed: impl FnMut(u32, &Hash)) {
        let (mut hash, mut level) = (leaf, 0);
        completed(0, &hash);
        while self.size >> level & 1 == 1
            && let Some(left) = self.nodes.pop()
        {
            hash = node_hash(&left, &hash);
            level += 1;
            completed(level, &hash);
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// Hash of the whole tree.
    pub(super) fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return Sha256::digest([]).into() };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Level and position of the complete trees that make up one of `size` leaves, the largest first.
pub(super) fn complete_trees(size: u64) -> impl Iterator<Item = (u32, u64)> {
    (0..u64::BITS).rev().filter(move |level| size >> level & 1 == 1).map(move |level| {
        // Everything above this bit stands to its left.
        let before = if level + 1 == u64::BITS { 0 } else { size >> (level + 1) << (level + 1) };
        (level, before >> level)
    })
}

/// Who knows the complete nodes of a tree.
pub(super) trait Nodes {
    /// The node at this level and position.
    fn node(&self, level: u32, index: u64) -> io::Result<Hash>;
}

/// Leaves from the first number up to the second, which make up a node.
pub(super) type Range = (u64, u64);

/// The nodes that prove that leaf `index` is in the tree of `size` leaves, from the leaf's sibling up; none if it is not.
pub(super) fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    if index >= size {
        return Vec::new();
    }
    let (mut start, mut end, mut siblings) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = start + left_size(end - start);
        let sibling = if index < middle {
            let sibling = (middle, end);
            end = middle;
            sibling
        } else {
            let sibling = (start, middle);
            start = middle;
            sibling
        };
        siblings.push(sibling);
    }
    siblings.reverse();
    siblings
}

/// The nodes that prove that the tree of `size` leaves begins with all of the one of `old`; none if that is empty or larger.
pub(super) fn consistency_ranges(old: u64, size: u64) -> Vec<Range> {
    if old == 0 || old > size {
        return Vec::new();
    }
    let (mut start, mut end, mut siblings, mut is_root) = (0, size, Vec::new(), true);
    while end > old {
        let middle = start + left_size(end - start);
        if old <= middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
            is_root = false;
        }
    }
    // The old tree itself is known to whoever asks.
    if !is_root {
        siblings.push((start, end));
    }
    siblings.reverse();
    siblings
}

/// The hashes of such nodes.
pub(super) fn path(nodes: &impl Nodes, ranges: &[Range]) -> io::Result<Vec<Hash>> {
    ranges.iter().map(|(start, end)| range_hash(nodes, *start, *end)).collect()
}

/// Whether `path` proves that `leaf` is number `index` of the tree of `size` leaves with this root.
pub(super) fn includes(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let mut hash = *leaf;
    climb(index, size - 1, path, |sibling, is_left| {
        hash = if is_left { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
    }) && hash == *root
}

/// Whether `path` proves that the tree of `size` leaves with root `root` begins with all of that of `old` leaves.
pub(super) fn continues(old: u64, old_root: &Hash, size: u64, root: &Hash, path: &[Hash]) -> bool {
    if old == size {
        return path.is_empty() && old_root == root;
    }
    if old == 0 || old > size {
        return false;
    }
    // A complete old tree is a node of the new one, and is not repeated in the proof.
    let (first, path) = match path.split_first() {
        _ if old.is_power_of_two() => (old_root, path),
        Some((first, path)) => (first, path),
        None => return false,
    };
    let shift = (old - 1).trailing_ones();
    let (mut old_hash, mut hash) = (*first, *first);
    climb((old - 1) >> shift, (size - 1) >> shift, path, |sibling, is_left| {
        if is_left {
            old_hash = node_hash(sibling, &old_hash);
            hash = node_hash(sibling, &hash);
        } else {
            hash = node_hash(&hash, sibling);
        }
    }) && old_hash == *old_root
        && hash == *root
}

/// Goes from a node up to the root, and shows each sibling on the way and whether it stands on the left. `position` is the
/// node's among those of its height, `last` that of the last of them. Whether the siblings lead to the root, and no further.
fn climb(mut position: u64, mut last: u64, siblings: &[Hash], mut join: impl FnMut(&Hash, bool)) -> bool {
    for sibling in siblings {
        if last == 0 {
            return false;
        }
        let is_left = position & 1 == 1 || position == last;
        join(sibling, is_left);
        while is_left && position & 1 == 0 && position != 0 {
            position >>= 1;
            last >>= 1;
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0
}

/// Leaves of the left half of a tree of `size` leaves, of which there are at least two.
fn left_size(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Hash of the tree over the leaves from `start` up to `end`, as they stand in a larger one.
fn range_hash(nodes: &impl Nodes, start: u64, end: u64) -> io::Result<Hash> {
    let size = end - start;
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        return nodes.node(level, start >> level);
    }
    let middle = start + left_size(size);
    Ok(node_hash(&range_hash(nodes, start, middle)?, &range_hash(nodes, middle, end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree by the words of RFC 6962, section 2.1.
    struct Naive(Vec<Hash>);

    impl Naive {
        fn of(size: u64) -> Self {
            Self((0..size).map(|number| leaf_hash(&number.to_be_bytes())).collect())
        }

        fn root(leaves: &[Hash]) -> Hash {
            match leaves {
                [] => Sha256::digest([]).into(),
                [leaf] => *leaf,
                leaves => {
                    let (left, right) = leaves.split_at(left_size(leaves.len() as u64) as usize);
                    node_hash(&Self::root(left), &Self::root(right))
                }
            }
        }
    }

    impl Nodes for Naive {
        fn node(&self, level: u32, index: u64) -> io::Result<Hash> {
            let start = (index << level) as usize;
            Ok(Self::root(&self.0[start..start + (1 << level)]))
        }
    }

    fn inclusion_path(nodes: &Naive, index: u64, size: u64) -> Vec<Hash> {
        path(nodes, &inclusion_ranges(index, size)).unwrap()
    }

    fn consistency_path(nodes: &Naive, old: u64, size: u64) -> Vec<Hash> {
        path(nodes, &consistency_ranges(old, size)).unwrap()
    }

    #[test]
    fn a_growing_tree_has_the_roots_of_the_rfc_and_names_every_complete_node() {
        let naive = Naive::of(70);
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), Naive::root(&[]));
        for (number, leaf) in naive.0.iter().enumerate() {
            frontier.push(*leaf, |level, hash| {
                assert_eq!(*hash, naive.node(level, number as u64 >> level).unwrap());
            });
            assert_eq!(frontier.root(), Naive::root(&naive.0[..=number]));
            let nodes = complete_trees(frontier.size()).map(|(level, index)| naive.node(level, index).unwrap());
            assert_eq!(Frontier::new(frontier.size(), nodes.collect()), Some(frontier.clone()));
        }
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_and_none_other() {
        let naive = Naive::of(40);
        for size in 1..=40 {
            let root = Naive::root(&naive.0[..size as usize]);
            for index in 0..size {
                let leaf = naive.0[index as usize];
                let path = inclusion_path(&naive, index, size);
                assert!(includes(&leaf, index, size, &path, &root));
                for other in (0..=size).filter(|other| *other != index) {
                    assert!(!includes(&leaf, other, size, &path, &root), "{index} as {other} of {size}");
                }
                assert!(!includes(&root, index, size, &path, &root) || size == 1);
                for position in 0..path.len() {
                    let mut bad = path.clone();
                    bad[position][31] ^= 1;
                    assert!(!includes(&leaf, index, size, &bad, &root));
                    bad.remove(position);
                    assert!(!includes(&leaf, index, size, &bad, &root));
                }
            }
            assert!(inclusion_ranges(size, size).is_empty());
        }
    }

    #[test]
    fn every_tree_is_proved_to_continue_every_smaller_one_and_none_other() {
        let naive = Naive::of(40);
        let root = |size: u64| Naive::root(&naive.0[..size as usize]);
        for size in 1..=40 {
            for old in 1..=size {
                let path = consistency_path(&naive, old, size);
                assert!(continues(old, &root(old), size, &root(size), &path), "{old} of {size}");
                assert!(!continues(old, &[7; 32], size, &root(size), &path));
                assert!(!continues(old, &root(old), size, &[7; 32], &path));
                if old > 1 {
                    assert!(!continues(old - 1, &root(old), size, &root(size), &path));
                }
                for position in 0..path.len() {
                    let mut bad = path.clone();
                    bad[position][0] ^= 1;
                    assert!(!continues(old, &root(old), size, &root(size), &bad));
                }
                let longer: Vec<Hash> = path.iter().copied().chain([[0; 32]]).collect();
                assert!(!continues(old, &root(old), size, &root(size), &longer));
            }
        }
        assert!(consistency_ranges(0, 3).is_empty() && consistency_ranges(4, 3).is_empty());
    }
}
