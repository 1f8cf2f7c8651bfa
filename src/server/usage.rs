//! How does what was used survive a restart?
//!
//! A small file in the state directory, replaced whole every few seconds and at the end, read at the start. One that cannot be read
//! is not passed over: a day's counts would be lost, and nobody would know. Of two processes one writes at a time.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock;
use crate::config;
use crate::disk::replace;
use crate::runtime::Ledger;

use super::StartError;

/// Name of the file in the state directory.
const FILE: &str = "usage.json";
/// Bytes of it.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// The file, and what is written into it.
pub(super) struct Usage {
    path: PathBuf,
    ledger: Arc<Ledger>,
    mode: Mutex<Mode>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Writes,
    /// Another process may be writing.
    Waits,
}

impl Usage {
    /// Reads what was written in this state directory into the ledger.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(super) fn open(state_directory: &Path, ledger: &Arc<Ledger>) -> Result<Self, StartError> {
        let path = state_directory.join(FILE);
        let damaged = |why: String| StartError::Usage { path: path.clone(), why };
        if path.exists() {
            let text = config::bounded::read_regular(&path, BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
            ledger.read(&text).map_err(|error| damaged(error.to_string()))?;
        }
        Ok(Self { path, ledger: Arc::clone(ledger), mode: Mutex::new(Mode::Writes) })
    }

    /// Writes down what was used, if that changed.
    pub(super) fn save(&self) {
        let mode = self.lock();
        if *mode == Mode::Writes {
            self.write();
        }
    }

    /// Writes what was used down for another process, and from now on nothing.
    pub(super) fn hand_over(&self) {
        let mut mode = self.lock();
        self.write();
        *mode = Mode::Waits;
    }

    /// The other process did not serve.
    pub(super) fn take_back(&self) {
        self.ledger.not_written();
        *self.lock() = Mode::Writes;
    }

    fn write(&self) {
        self.ledger.sweep(clock::now_micros());
        let Some(bytes) = self.ledger.write(clock::now_micros()) else { return };
        if let Err(error) = make_and_replace(&self.path, &bytes) {
            self.ledger.not_written();
            tracing::error!(path = %self.path.display(), %error, "what was used cannot be written down: a restart would forget it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With sealing keys of their own, nodes may have no state directory until now.
fn make_and_replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    replace::replace(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_told_and_refuses_the_start() {
        let directory = std::env::temp_dir().join(format!("portcullis-usage-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert!(Usage::open(&directory, &Arc::default()).is_ok(), "nothing was used yet");
        for (text, why) in [
            ("", "EOF"),
            ("{\"version\":1,\"acc", "EOF"),
            ("{\"version\":2,\"accounts\":{}}", "version 2"),
            ("{\"version\":1,\"accounts\":{\"nobody\":{}}}", "missing field"),
        ] {
            std::fs::write(directory.join(FILE), text).unwrap();
            let Err(StartError::Usage { why: told, .. }) = Usage::open(&directory, &Arc::default()) else {
                panic!("{text}")
            };
            assert!(told.contains(why), "{told}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
