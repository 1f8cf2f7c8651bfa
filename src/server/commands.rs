//! What can be asked of a running gateway?
//!
//! It is found by its state directory. See `control` for how it is spoken to.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::control::Answer;
use super::control::Ask;
use super::control::ControlError;
use super::control::RELOAD_TIME_MAX;
use super::control::Status;
use super::control::Talk;
use super::control::unexpected;

/// How long a gateway may take to say which one it is: it may be handing over meanwhile.
const STATUS_TIME_MAX: Duration = Duration::from_secs(20);
/// How much longer than the reload itself its outcome may take.
const MARGIN: Duration = Duration::from_secs(5);

/// Which process the running gateway is.
///
/// # Errors
/// See [`ControlError`].
pub fn status(state_directory: &Path) -> Result<Status, ControlError> {
    match Talk::with(state_directory)?.ask(Ask::Status, STATUS_TIME_MAX)? {
        Answer::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// Has the running gateway load its configuration again; returns the revision that came into force, and what is still to be
/// known.
///
/// # Errors
/// The mistakes, with their places; nothing has changed then.
pub fn reload(state_directory: &Path) -> Result<(u64, String), ControlError> {
    match Talk::with(state_directory)?.ask(Ask::Reload, RELOAD_TIME_MAX + MARGIN)? {
        Answer::Reloaded { revision, notes } => Ok((revision, notes)),
        other => Err(unexpected(&other)),
    }
}

/// Where the running gateway's log goes.
///
/// # Errors
/// See [`ControlError`].
pub fn log(state_directory: &Path) -> Result<Option<OwnedFd>, ControlError> {
    Ok(Talk::with(state_directory)?.ask_for(Ask::Log, STATUS_TIME_MAX)?.pop())
}
