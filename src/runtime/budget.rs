//! How many bytes may wait for a reader?
//!
//! An event that is counted takes its share of the budget along, and gives it back when the last of its bytes is
//! dropped: taken out and written, or thrown away with its queue. So it does with the process's account of bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::transport::buffers::Buffers;
use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;

/// Bytes that wait in one queue, or in several that share a budget. One event may exceed it.
pub(super) const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is left of [`QUEUED_BYTES_MAX`].
pub(super) struct Budget {
    left: Arc<Semaphore>,
    buffers: Arc<Buffers>,
}

impl Budget {
    pub(super) fn new(buffers: &Arc<Buffers>) -> Self {
        Self { left: Arc::new(Semaphore::new(QUEUED_BYTES_MAX)), buffers: Arc::clone(buffers) }
    }

    /// Counts an event as soon as there is room for all of it, or, if it is larger than the budget, for nothing beside
    /// it. Whoever asks first is first. Dropping the future loses nothing but the place.
    pub(super) async fn wait(&self, event: Bytes) -> Option<Bytes> {
        let share = u32::try_from(event.len().min(QUEUED_BYTES_MAX)).ok()?;
        let permit = Arc::clone(&self.left).acquire_many_owned(share).await.ok()?;
        // Whoever waited held the event already.
        let mut holder = self.buffers.holder();
        holder.set_anyway(event.len());
        Some(Bytes::from_owner(Counted { event, _permit: permit, _holder: holder }))
    }

    /// Counts an event if less waits than the limit. Not all of it need fit: a tiny one that nobody takes out would keep
    /// every large one away. The process must have room for all of it.
    pub(super) fn take(&self, event: &Bytes) -> Option<Bytes> {
        let left = self.left.available_permits();
        let share = u32::try_from(event.len().clamp(1, left.max(1))).ok()?;
        let permit = Arc::clone(&self.left).try_acquire_many_owned(share).ok()?;
        let mut holder = self.buffers.holder();
        holder.set(event.len(), Share::Answer).ok()?;
        Some(Bytes::from_owner(Counted { event: event.clone(), _permit: permit, _holder: holder }))
    }
}

struct Counted {
    event: Bytes,
    _permit: OwnedSemaphorePermit,
    _holder: Holder,
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
        let budget = Budget::new(&Buffers::new(usize::MAX));
        let event = budget.take(&vec![b'x'; QUEUED_BYTES_MAX].into()).unwrap();
        let part = event.slice(..1);
        drop(event);
        assert!(budget.take(&"y".into()).is_none() && budget.wait("y".into()).now_or_never().is_none());
        drop(part);
        assert_eq!(budget.take(&"y".into()), Some("y".into()));
    }

    #[test]
    fn what_waits_counts_for_the_process_too_and_nothing_is_queued_without_room() {
        let buffers = Buffers::new(100);
        let budget = Budget::new(&buffers);
        let event = Bytes::from(vec![b'x'; 60]);
        let taken = budget.take(&event);
        assert!(taken.is_some() && budget.take(&event).is_none() && buffers.held() == 60);
        let waited = budget.wait(event).now_or_never().flatten();
        assert!(waited.is_some() && buffers.held() == 120, "whoever waits holds it already");
        drop((taken, waited));
        assert_eq!(buffers.held(), 0);
    }

    #[test]
    fn one_event_may_exceed_the_budget() {
        let budget = Budget::new(&Buffers::new(usize::MAX));
        let huge = Bytes::from(vec![b'x'; QUEUED_BYTES_MAX * 2]);
        let tiny = budget.take(&"y".into()).unwrap();
        assert!(budget.wait(huge.clone()).now_or_never().is_none(), "whoever can wait waits for its turn");
        let taken = budget.take(&huge);
        assert!(taken.is_some() && budget.take(&"z".into()).is_none());
        drop((tiny, taken));
        assert!(budget.wait(huge).now_or_never().flatten().is_some());
    }
}
