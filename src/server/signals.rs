//! Which signals came, from the first moment of the process?
//!
//! A thread of its own receives them, so that none is lost while the gateway is still starting, and none ends the
//! process that is to do something else.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;

use rustix::process::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

use super::StartError;

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
pub struct Signals {
    hangups: Mutex<Option<mpsc::Receiver<()>>>,
    end: watch::Receiver<End>,
}

/// Keeps a gateway without signals serving; dropping it ends the gateway at once.
#[must_use = "the gateway ends when this is dropped"]
pub struct Hold(
    #[expect(dead_code, reason = "a wish to end without anybody to utter it counts as uttered")] watch::Sender<End>,
);

impl Signals {
    /// Takes over SIGHUP, SIGTERM and SIGINT. To be called first thing: until then each of them ends the process.
    ///
    /// # Errors
    /// The system does not let this process handle them.
    pub fn install() -> Result<Self, StartError> {
        Self::receive().map_err(|error| StartError::System(format!("signals cannot be handled: {error}")))
    }

    /// Leaves signals to whoever handles them in this process: the gateway serves until the other half is dropped.
    pub fn none() -> (Self, Hold) {
        let (ending, end) = watch::channel(End::No);
        (Self { hangups: Mutex::new(None), end }, Hold(ending))
    }

    fn receive() -> io::Result<Self> {
        let (hangup, hangups) = mpsc::sync_channel(1);
        let (ending, end) = watch::channel(End::No);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut hup = signal(SignalKind::hangup())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        // A file that reaches its size limit is to be an error of the write, as a full disk is, and not the end. The
        // handler stays when this is dropped.
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
        drop(entered);
        let receive = async move {
            loop {
                tokio::select! {
                    // One reload that has not begun yet covers every further wish for one.
                    _ = hup.recv() => { let _ = hangup.try_send(()); }
                    // The receivers live as long as the process.
                    _ = term.recv() => { ending.send_if_modified(|end| *end == End::No && { *end = End::Drained; true }); }
                    _ = int.recv() => { let _ = ending.send(End::Now); }
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(receive))?;
        Ok(Self { hangups: Mutex::new(Some(hangups)), end })
    }

    /// Wishes for a reload; to be taken once.
    pub(super) fn hangups(&self) -> Option<mpsc::Receiver<()>> {
        self.hangups.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The wish to end.
    pub(super) fn end(&self) -> watch::Receiver<End> {
        self.end.clone()
    }
}
