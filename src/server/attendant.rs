//! Who answers on the control socket?
//!
//! A thread, one conversation after the other: what it is asked for, a reload or a hand-over, cannot be done twice at once.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::disk::socket;
use crate::runtime::Runtime;

use super::control;
use super::control::Answer;
use super::control::Ask;
use super::control::RELOAD_TIME_MAX;
use super::control::Status;
use super::control::TAKE_OVER_TIME_MAX;
use super::control::Talk;
use super::door::Door;
use super::notify;
use super::signals::Wish;
use super::sockets::Listening;
use super::usage::Usage;

/// The gateway's user alone.
const SOCKET_MODE: u32 = 0o600;
/// How long a conversation may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// After an accept that failed, which is most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers.
pub(super) struct Attendant {
    pub(super) runtime: Arc<Runtime>,
    pub(super) door: Arc<Door>,
    pub(super) usage: Arc<Usage>,
    pub(super) wishes: mpsc::SyncSender<Wish>,
    /// Says which process goes on, once one does.
    pub(super) leaving: watch::Sender<Option<u32>>,
}

impl Attendant {
    /// Answers on the socket in this directory, from a thread that ends with the process. Without it, the gateway serves, but
    /// takes no commands; that is said. `follows`: the process that answered there before has let go.
    pub(super) fn start(self, state_directory: &Path, follows: bool) {
        let path = control::path(state_directory);
        let is_short = path.as_os_str().len() <= socket::PATH_BYTES_MAX;
        let bound = match follows {
            _ if !is_short => Err(format!("its path is longer than {} bytes", socket::PATH_BYTES_MAX)),
            true => socket::replace(&path, SOCKET_MODE).map_err(|error| socket::explain(&error)),
            false => socket::bind(&path, SOCKET_MODE),
        };
        let door = Arc::clone(&self.door);
        let started = bound.and_then(|(listener, file)| {
            let spawned = thread::Builder::new().name("control".into()).spawn(move || self.listen(&listener));
            spawned.map(|_| door.keep(file)).map_err(|error| error.to_string())
        });
        if let Err(reason) = started {
            tracing::warn!(
                socket = %path.display(),
                reason,
                "no control socket: `portcullis reload` and `portcullis upgrade` will not reach this gateway"
            );
        }
    }

    fn listen(&self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.converse(stream) {
                        tracing::debug!(%error, "a conversation on the control socket ended early");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn converse(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let mut talk = Talk::over(stream);
        match talk.hear(SILENCE_MAX)? {
            Ask::Status => talk.say(&Answer::Status(status())),
            Ask::Reload => talk.say(&self.reload()),
            Ask::TakeOver => self.hand_over(&mut talk),
            Ask::Log => talk.hand(&[io::stderr().as_fd()]),
            Ask::Serving => talk.say(&control::refused("nothing was handed over to this process")),
        }
    }

    fn reload(&self) -> Answer {
        let (sender, outcome) = mpsc::sync_channel(1);
        if self.wishes.send(Wish(Some(sender))).is_err() {
            return control::refused("this process does not reload");
        }
        match outcome.recv_timeout(RELOAD_TIME_MAX) {
            Ok(Ok(done)) => Answer::Reloaded { revision: done.revision, notes: control::shortened(&done.notes) },
            Ok(Err(mistakes)) => control::refused(&mistakes),
            Err(_) => control::refused("the reload takes too long; the log will tell what becomes of it"),
        }
    }

    /// Gives the sockets away and waits for the word that they are used.
    fn hand_over(&self, talk: &mut Talk) -> io::Result<()> {
        if self.runtime.is_draining() {
            return talk.say(&control::refused("the running gateway is already on its way out"));
        }
        if let Err(error) = self.runtime.audit.share() {
            return talk.say(&control::refused(&format!("the record cannot be handed over: {error}")));
        }
        self.usage.hand_over();
        let successor = self.door.sockets(|sockets| {
            let descriptors: Vec<_> = sockets.iter().map(Listening::as_fd).collect();
            talk.hand(&descriptors)
        });
        let successor = successor.and_then(|()| talk.hear(TAKE_OVER_TIME_MAX)).and_then(|ask| match ask {
            Ask::Serving => talk.peer(),
            other => Err(io::Error::other(format!("instead of `serving` came {other:?}"))),
        });
        match successor {
            Ok(pid) => {
                tracing::info!(pid, "another process serves: this one finishes what it has begun");
                notify::handed_over(pid);
                // From here on the other is the one that claims what was shared.
                self.leaving.send_replace(Some(pid));
                talk.say(&Answer::Leaving)
            }
            Err(error) => {
                tracing::error!(%error, "another process was to take over and did not: this one goes on");
                self.runtime.audit.take_back();
                self.usage.take_back();
                Err(error)
            }
        }
    }
}

fn status() -> Status {
    let program = std::fs::metadata("/proc/self/exe").ok();
    Status {
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
        version: env!("CARGO_PKG_VERSION").into(),
        program: program.map(|program| (program.dev(), program.ino())),
        notify_socket: std::env::var("NOTIFY_SOCKET").ok(),
        watchdog_usec: std::env::var("WATCHDOG_USEC").ok(),
    }
}
