//! How many bytes may the process hold for others?
//!
//! One account for everything that is gathered or waits: heads and bodies that are not whole yet, requests under way,
//! answers being read, events on their way to clients, and what waits in mailboxes. Whoever holds bytes takes them from
//! the account first. New work may use a part of it only, so that what was begun can be ended.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How much of the account something may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// What opens more work: half of it.
    Opening,
    /// Requests: three quarters.
    Request,
    /// Answers to what was sent to a server already: all of it.
    Answer,
}

impl Share {
    fn of(self, bytes_max: usize) -> usize {
        match self {
            Self::Opening => bytes_max / 2,
            Self::Request => bytes_max - bytes_max / 4,
            Self::Answer => bytes_max,
        }
    }
}

/// The account.
#[derive(Debug)]
pub struct Buffers {
    held: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl Buffers {
    /// An account of so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), bytes_max: AtomicUsize::new(bytes_max) })
    }

    /// Changes how many bytes may be held; what is held stays.
    pub fn limit(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A holder of nothing so far.
    pub fn holder(self: &Arc<Self>) -> Holder {
        Holder { buffers: Arc::clone(self), bytes: 0 }
    }
}

/// Somebody who holds bytes; gives them back when dropped.
#[derive(Debug)]
pub struct Holder {
    buffers: Arc<Buffers>,
    bytes: usize,
}

impl Holder {
    /// Says how many bytes are held from now on.
    ///
    /// # Errors
    /// There is no room for that many; as many as before are held.
    pub fn set(&mut self, bytes: usize, share: Share) -> Result<(), Full> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            self.set_anyway(bytes);
            return Ok(());
        };
        let most = share.of(self.buffers.bytes_max.load(Ordering::Relaxed));
        let taken = self.buffers.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|held| *held <= most)
        });
        taken.map_err(|_| Full)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Whether the others hold less than this share. What this one holds found its room already: a body that came whole
    /// is not turned away for bodies that are still coming, or all of a flood might be.
    pub fn has_room(&self, share: Share) -> bool {
        let others = self.buffers.held().saturating_sub(self.bytes);
        others < share.of(self.buffers.bytes_max.load(Ordering::Relaxed))
    }

    /// Says how many bytes are held from now on, whether or not there is room: of what is there already.
    pub fn set_anyway(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.buffers.held.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.buffers.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.set_anyway(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_each_share_allows_and_all_of_it_comes_back() {
        let buffers = Buffers::new(100);
        let (mut one, mut other) = (buffers.holder(), buffers.holder());
        assert_eq!((one.set(75, Share::Request), other.set(1, Share::Request)), (Ok(()), Err(Full)));
        assert_eq!((other.set(25, Share::Answer), other.set(26, Share::Answer)), (Ok(()), Err(Full)));
        assert_eq!(buffers.held(), 100);
        let nobody = buffers.holder();
        assert!(!nobody.has_room(Share::Answer));
        assert!(
            one.has_room(Share::Request) && !other.has_room(Share::Request),
            "what one holds itself found its room"
        );
        assert_eq!(one.set(49, Share::Request), Ok(()), "giving back is always possible");
        drop(other);
        assert!(nobody.has_room(Share::Opening) && buffers.held() == 49);
        one.set_anyway(50);
        assert!(!nobody.has_room(Share::Opening) && nobody.has_room(Share::Request));
        one.set_anyway(500);
        assert!(!nobody.has_room(Share::Answer));
        buffers.limit(1000);
        assert!(nobody.has_room(Share::Request));
        drop(one);
        assert_eq!(buffers.held(), 0);
    }

    #[test]
    fn threads_that_hold_at_once_never_exceed_it() {
        let buffers = Buffers::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 0..5_000 {
                        let mut holder = buffers.holder();
                        let _ = holder.set(bytes % 700, Share::Answer);
                        assert!(buffers.held() <= 1000);
                    }
                });
            }
        });
        assert_eq!(buffers.held(), 0);
    }
}
