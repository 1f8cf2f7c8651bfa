//! How does what was used survive a restart?
//!
//! A file in the state directory, replaced whole every few seconds and at the end, read at the start. One that cannot be read
//! is not passed over: a day's counts would be lost, and nobody would know. Of two processes one writes at a time: a process that
//! follows another writes once that one has let go, and never if it has not.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock;
use crate::disk::replace;
use crate::runtime::Ledger;

use super::StartError;

/// Name of the file in the state directory.
const FILE: &str = "usage.json";

/// The file, and what is written into it.
pub(super) struct Usage {
    path: PathBuf,
    ledger: Arc<Ledger>,
    mode: Mutex<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Writes,
    /// Another process may be writing.
    Waits,
}

impl Usage {
    /// Reads what was written in this state directory into the ledger.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(super) fn open(state_directory: &Path, ledger: &Arc<Ledger>, mode: Mode) -> Result<Self, StartError> {
        let path = state_directory.join(FILE);
        let damaged = |why: String| StartError::Usage { path: path.clone(), why };
        if let Some(file) = open(&path).map_err(|error| damaged(error.to_string()))? {
            ledger.read(BufReader::new(file)).map_err(|error| damaged(error.to_string()))?;
        }
        Ok(Self { path, ledger: Arc::clone(ledger), mode: Mutex::new(mode) })
    }

    /// What is due each second: places of callers are given free where they are wanted.
    pub(super) fn sweep_if_full(&self) {
        if self.ledger.is_full() {
            self.ledger.sweep(clock::now_micros());
        }
    }

    /// Forgets what is over, and writes down what was used, if that changed.
    pub(super) fn save(&self) {
        self.ledger.sweep(clock::now_micros());
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

    /// The other process has let go: this one writes from now on.
    pub(super) fn take_over(&self) {
        self.take_back();
    }

    fn write(&self) {
        if !self.ledger.take_changed() {
            return;
        }
        if let Err(error) = self.make_and_replace() {
            self.ledger.not_written();
            tracing::error!(path = %self.path.display(), %error, "what was used cannot be written down: a restart would forget it");
        }
    }

    /// With sealing keys of their own, nodes may have no state directory until now.
    fn make_and_replace(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        replace::replace_with(&self.path, |file| self.ledger.write(file))
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, if there is one. A pipe could be waited for for ever.
fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => File::open(path).map(Some),
        Ok(_) => Err(io::Error::other("it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("portcullis-usage-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[track_caller]
    fn refused(directory: &Path) -> String {
        match Usage::open(directory, &Arc::default(), Mode::Writes) {
            Err(StartError::Usage { why, .. }) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was read"),
        }
    }

    #[test]
    fn a_damaged_file_is_told_and_refuses_the_start() {
        let directory = fresh("damaged");
        assert!(Usage::open(&directory, &Arc::default(), Mode::Writes).is_ok(), "nothing was used yet");
        for (text, why) in [
            ("", "EOF"),
            ("{\"version\":2,\"acc", "EOF"),
            ("{\"version\":2,\"accounts\":{}} {}", "trailing"),
            ("{\"version\":3,\"accounts\":{}}", "version 3"),
            ("{\"version\":2,\"accounts\":{\"nobody\":{}}}", "missing field"),
        ] {
            fs::write(directory.join(FILE), text).unwrap();
            let told = refused(&directory);
            assert!(told.contains(why), "{told}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_looked_at_is_not_taken_for_an_absent_file() {
        let directory = fresh("unreadable");
        let path = directory.join(FILE);
        // Nobody may follow it, not even who may read everything.
        symlink(&path, &path).unwrap();
        assert!(!path.exists());
        assert!(refused(&directory).contains("symbolic links"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused(&directory).contains("not a regular file"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn who_follows_another_process_writes_nothing_until_that_one_has_let_go() {
        let directory = fresh("follows");
        let ledger = Arc::new(Ledger::default());
        let usage = Usage::open(&directory, &ledger, Mode::Waits).unwrap();
        ledger.not_written();
        usage.save();
        assert!(!directory.join(FILE).exists(), "the other might be writing");
        usage.take_over();
        usage.save();
        assert!(directory.join(FILE).exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
