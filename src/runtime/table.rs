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
