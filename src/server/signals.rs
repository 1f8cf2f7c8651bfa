//! Signals, from the first moment of the process.
//!
//! A thread of its own receives them, so that none is lost while the gateway is still starting.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Not at all.
    No,
    /// After the calls in flight.
    Drained,
    /// At once.
    Now,
}

/// The signals received so far and to come.
pub(super) struct Signals {
    hangups: Arc<std::sync::Mutex<Option<mpsc::Receiver<()>>>>,
    end: watch::Receiver<End>,
}

impl Signals {
    /// Takes over SIGHUP, SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The system does not let this process handle them.
    pub(super) fn install() -> io::Result<Self> {
        let (hangup, hangups) = mpsc::sync_channel(1);
        let (ending, end) = watch::channel(End::No);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut hup = signal(SignalKind::hangup())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        drop(entered);
        let receive = async move {
            loop {
                tokio::select! {
                    // One reload that has not begun yet covers every further wish for one.
                    _ = hup.recv() => { let _ = hangup.try_send(()); }
                    // The receivers live as long as the process.
                    _ = term.recv() => { let _ = ending.send(End::Drained); }
                    _ = int.recv() => { let _ = ending.send(End::Now); }
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(receive))?;
        Ok(Self { hangups: Arc::new(std::sync::Mutex::new(Some(hangups))), end })
    }

    /// Wishes for a reload; to be taken once.
    pub(super) fn hangups(&self) -> Option<mpsc::Receiver<()>> {
        self.hangups.lock().ok().and_then(|mut hangups| hangups.take())
    }

    /// The wish to end.
    pub(super) fn end(&self) -> watch::Receiver<End> {
        self.end.clone()
    }
}
