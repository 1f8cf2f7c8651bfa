//! Which signals came, from the first moment of the process?
//!
//! They are caught first, and received by a thread of its own once the process is confined, so that none is lost while the gateway is still starting, and none ends the
//! process that is to do something else.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;

use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
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

/// What came of a reload.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// The revision now in force.
    pub(super) revision: u64,
    /// What the operator should still know.
    pub(super) notes: String,
}

/// A wish for a reload, and where its outcome is awaited.
pub(super) struct Wish(pub(super) Option<mpsc::SyncSender<Result<Reloaded, String>>>);

/// The signals received so far and to come.
pub struct Signals {
    wishes: mpsc::SyncSender<Wish>,
    wished: Mutex<Option<mpsc::Receiver<Wish>>>,
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
        Self::catch()?.receive()
    }

    /// The same in two steps, of which the first starts no thread.
    ///
    /// # Errors
    /// As [`Signals::install`].
    pub fn catch() -> Result<Caught, StartError> {
        Caught::new().map_err(|error| StartError::System(format!("signals cannot be handled: {error}")))
    }

    /// Leaves signals to whoever handles them in this process: the gateway serves until the other half is dropped.
    pub fn none() -> (Self, Hold) {
        let (ending, end) = watch::channel(End::No);
        let (wishes, _) = mpsc::sync_channel(1);
        (Self { wishes, wished: Mutex::new(None), end }, Hold(ending))
    }

    /// Wishes for a reload; to be taken once.
    pub(super) fn wished(&self) -> Option<mpsc::Receiver<Wish>> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Where a reload is wished for.
    pub(super) fn wishes(&self) -> mpsc::SyncSender<Wish> {
        self.wishes.clone()
    }

    /// The wish to end.
    pub(super) fn end(&self) -> watch::Receiver<End> {
        self.end.clone()
    }
}

/// Signals that end nothing any more, and wait to be heeded.
pub struct Caught {
    runtime: Runtime,
    hup: Signal,
    term: Signal,
    int: Signal,
}

impl Caught {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (hup, term, int) =
            (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // A file that reaches its size limit is to be an error of the write, as a full disk is, and not the end. The
        // handler stays when this is dropped.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        drop(entered);
        Ok(Self { runtime, hup, term, int })
    }

    /// Heeds what came so far and what comes, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread.
    pub fn receive(self) -> Result<Signals, StartError> {
        let Self { runtime, mut hup, mut term, mut int } = self;
        let (wishes, wished) = mpsc::sync_channel(1);
        let hangup = wishes.clone();
        let (ending, end) = watch::channel(End::No);
        let receive = async move {
            loop {
                tokio::select! {
                    // One reload that has not begun yet covers every further wish for one.
                    _ = hup.recv() => { let _ = hangup.try_send(Wish(None)); }
                    // The receivers live as long as the process.
                    _ = term.recv() => { ending.send_if_modified(|end| *end == End::No && { *end = End::Drained; true }); }
                    _ = int.recv() => { let _ = ending.send(End::Now); }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(receive));
        spawned.map_err(|error| StartError::System(format!("signals cannot be handled: {error}")))?;
        Ok(Signals { wishes, wished: Mutex::new(Some(wished)), end })
    }
}
