//! How many bytes may wait for a reader?
//!
//! An event that is counted takes its share of the budget along, and gives it back when the last of its bytes is
//! dropped: taken out and written, or thrown away with its queue.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// Bytes that wait in one queue, or in several that share a budget. One event may exceed it.
pub(super) const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is left of [`QUEUED_BYTES_MAX`].
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(QUEUED_BYTES_MAX)))
    }

    /// Counts an event as soon as there is room for all of it, or, if it is larger than the budget, for nothing beside
    /// it. Whoever asks first is first. Dropping the future loses nothing but the place.
    pub(super) async fn wait(&self, event: Bytes) -> Option<Bytes> {
        let share = u32::try_from(event.len().min(QUEUED_BYTES_MAX)).ok()?;
        let permit = Arc::clone(&self.0).acquire_many_owned(share).await.ok()?;
        Some(Bytes::from_owner(Counted { event, _permit: permit }))
    }

    /// Counts an event if less waits than the limit. Not all of it need fit: a tiny one that nobody takes out would keep
    /// every large one away.
    pub(super) fn take(&self, event: &Bytes) -> Option<Bytes> {
        let left = self.0.available_permits();
        let share = u32::try_from(event.len().clamp(1, left.max(1))).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(share).ok()?;
        Some(Bytes::from_owner(Counted { event: event.clone(), _permit: permit }))
    }
}

struct Counted {
    event: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn an_event_counts_until_the_last_of_its_bytes_is_dropped() {
        let budget = Budget::new();
        let event = budget.take(&vec![b'x'; QUEUED_BYTES_MAX].into()).unwrap();
        let part = event.slice(..1);
        drop(event);
        assert!(budget.take(&"y".into()).is_none() && budget.wait("y".into()).now_or_never().is_none());
        drop(part);
        assert_eq!(budget.take(&"y".into()), Some("y".into()));
    }

    #[test]
    fn one_event_may_exceed_the_budget() {
        let budget = Budget::new();
        let huge = Bytes::from(vec![b'x'; QUEUED_BYTES_MAX * 2]);
        let tiny = budget.take(&"y".into()).unwrap();
        assert!(budget.wait(huge.clone()).now_or_never().is_none(), "whoever can wait waits for its turn");
        let taken = budget.take(&huge);
        assert!(taken.is_some() && budget.take(&"z".into()).is_none());
        drop((tiny, taken));
        assert!(budget.wait(huge).now_or_never().flatten().is_some());
    }
}
