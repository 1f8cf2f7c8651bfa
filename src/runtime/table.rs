//! What does this node alone know, by id?
//!
//! Streams and conversations that live on one node: found by the id that a sealed token holds. What is not found here
//! lives elsewhere or no longer, and for a client both are the same. Never more entries than the limit given.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

type Entries<T> = HashMap<Box<str>, Arc<T>>;

/// Entries by id.
pub struct Table<T> {
    entries: Arc<Mutex<Entries<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Arc::default() }
    }
}

impl<T> Table<T> {
    /// Keeps `entry` under `id` until the guard is dropped. `None` if there are `entries_max` already, or the id is taken.
    pub fn keep(&self, id: &str, entry: Arc<T>, entries_max: usize) -> Option<Kept<T>> {
        let mut entries = lock(&self.entries);
        if entries.len() >= entries_max || entries.contains_key(id) {
            return None;
        }
        entries.insert(id.into(), entry);
        Some(Kept { entries: Arc::clone(&self.entries), id: id.into() })
    }

    /// The same, but where there are too many, those of the least rank are taken off the table to make room: they are
    /// the second value. What has no rank stays.
    pub fn keep_for<R: Ord>(
        &self,
        id: &str,
        entry: Arc<T>,
        entries_max: usize,
        rank: impl Fn(&T) -> Option<R>,
    ) -> (Option<Kept<T>>, Vec<Arc<T>>) {
        let mut entries = lock(&self.entries);
        let mut gone = Vec::new();
        while entries.len() >= entries_max {
            let ranked = entries.iter().filter_map(|(id, entry)| Some((rank(entry)?, id)));
            let least = ranked.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, id)| id.clone());
            let Some(least) = least else { break };
            gone.extend(entries.remove(&least));
        }
        drop(entries);
        (self.keep(id, entry, entries_max), gone)
    }

    /// The entry of this id.
    pub fn find(&self, id: &str) -> Option<Arc<T>> {
        lock(&self.entries).get(id).cloned()
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An entry's place in its table; the entry goes when this is dropped.
#[must_use = "what is dropped at once is not kept"]
pub struct Kept<T> {
    entries: Arc<Mutex<Entries<T>>>,
    id: Box<str>,
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        lock(&self.entries).remove(&self.id);
    }
}

fn lock<T>(entries: &Mutex<Entries<T>>) -> MutexGuard<'_, Entries<T>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_as_long_as_its_guard_lives() {
        let table = Table::default();
        let kept = table.keep("a", Arc::new(1), 2);
        assert_eq!((table.find("a").as_deref(), table.find("b")), (Some(&1), None));
        drop(kept);
        assert!(table.find("a").is_none() && table.is_empty());
    }

    #[test]
    fn the_entries_of_the_least_rank_make_room_and_those_without_a_rank_stay() {
        let table = Table::default();
        let mut kept: Vec<_> =
            [7, 3, 5].into_iter().zip(["a", "b", "c"]).map(|(n, id)| table.keep(id, Arc::new(n), 3)).collect();
        let rank = |number: &i32| (*number != 3).then_some(*number);
        let (other, gone) = table.keep_for("d", Arc::new(3), 3, rank);
        assert_eq!((other.is_some(), gone, table.len()), (true, vec![Arc::new(5)], 3));
        kept.pop();
        assert_eq!(table.len(), 3, "whose place another took frees none");
        let (last, gone) = table.keep_for("e", Arc::new(9), 2, rank);
        assert_eq!((last.is_none(), gone, table.len()), (true, vec![Arc::new(7)], 2));
    }

    #[test]
    fn no_more_entries_are_kept_than_the_limit_and_none_twice() {
        let table = Table::default();
        let first = table.keep("a", Arc::new(1), 2);
        assert!(first.is_some() && table.keep("a", Arc::new(2), 2).is_none());
        let second = table.keep("b", Arc::new(2), 2);
        assert!(second.is_some() && table.keep("c", Arc::new(3), 2).is_none());
        drop(first);
        assert!(table.keep("c", Arc::new(3), 2).is_some());
    }
}
