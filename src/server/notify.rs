//! What does the service manager hear?
//!
//! The words of `sd_notify`, where systemd (or who speaks like it) asks for them in `NOTIFY_SOCKET`; nothing elsewhere. The
//! watchdog is fed only while the gateway answers on its own data listener.

use std::io;
use std::sync::Arc;
use std::thread;

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::runtime::Runtime;

use super::look::Looking;

/// How many times the gateway looks at itself within the time the service manager allows.
const LOOKS: u32 = 3;

/// The gateway serves, under this revision of its configuration.
pub(super) fn ready(revision: u64) {
    say(&[NotifyState::Ready, NotifyState::Status(&format!("serving, configuration revision {revision}"))]);
}

/// The configuration is being loaded again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

/// Loading it again came to nothing: the gateway serves as before.
pub(super) fn not_reloaded(revision: u64) {
    let status = format!("serving, configuration revision {revision}; the file as it is now has mistakes");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The gateway is on its way out.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Another process is the service now.
pub(super) fn handed_over(pid: u32) {
    say(&[NotifyState::MainPid(pid)]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Feeds the service manager's watchdog, where there is one, until `leaving` says that another process does.
pub(super) fn watch_over(data: &str, runtime: Arc<Runtime>, leaving: watch::Receiver<Option<u32>>) {
    let Some(time_max) = sd_notify::watchdog_enabled() else { return };
    let pause = time_max / LOOKS;
    let spawned = Looking::at(data, runtime).map_err(io::Error::other).and_then(|looking| {
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            while leaving.borrow().is_none() {
                match looking.look(pause) {
                    Ok(()) => say(&[NotifyState::Watchdog]),
                    Err(error) => {
                        tracing::error!(%error, "the gateway does not answer itself: the watchdog is not fed");
                    }
                }
                thread::sleep(pause);
            }
        })
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "the watchdog will not be fed");
    }
}
