//! How many connections are open?
//!
//! A connection holds its place until the socket is closed, whoever closes it and whatever stands above it. Places
//! belong to an endpoint and not to a configuration: after a reload, old and new connections count together.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What calls hold of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Calls on their way there or back.
    pub(crate) pending: AtomicUsize,
    connections: AtomicUsize,
    /// Told once for each place that becomes free.
    freed: Notify,
}

impl Held {
    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place, if fewer than `max` are taken.
    pub(crate) fn try_slot(self: &Arc<Self>, max: usize) -> Option<Slot> {
        let taken = |count: usize| (count < max).then_some(count + 1);
        let before = self.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken);
        before.is_ok().then(|| Slot(Arc::clone(self)))
    }

    /// Waits for a place.
    pub(crate) async fn slot(self: &Arc<Self>, max: usize) -> Slot {
        loop {
            // Told before one looks, or what becomes free in between is missed.
            let freed = self.freed.notified();
            if let Some(slot) = self.try_slot(max) {
                return slot;
            }
            freed.await;
        }
    }
}

/// A place for a connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Held>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// A connection and its place.
pub(crate) struct Counted {
    tcp: TcpStream,
    _slot: Slot,
}

impl Counted {
    pub(crate) fn new(tcp: TcpStream, slot: Slot) -> Self {
        Self { tcp, _slot: slot }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_place_gets_the_one_that_becomes_free() {
        let held = Arc::new(Held::default());
        let (one, two) = (held.try_slot(2).unwrap(), held.try_slot(2).unwrap());
        assert!(held.try_slot(2).is_none());
        let waiting = tokio::spawn({
            let held = Arc::clone(&held);
            async move { held.slot(2).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(one);
        let three = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert_eq!(held.connections(), 2);
        assert!(held.try_slot(1).is_none(), "under a smaller limit both count all the same");
        drop((two, three));
        assert_eq!(held.connections(), 0);
    }
}
