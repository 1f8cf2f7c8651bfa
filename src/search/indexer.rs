//! Who keeps the index while the gateway serves?
//!
//! A thread of the lowest priority, which calls wait for in nothing: where it falls behind, answers are old, and that is all.
//! Where another process keeps the index, as during a hand-over, it waits for its turn.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::search::error::SearchError;
use crate::search::index::Index;
use crate::search::index::Step;

/// What is left over when nobody else wants the processor.
const NICE: i32 = 19;
/// From one look at the records to the next, when there was nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// How long after something went wrong it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is seen whether files were removed.
const LOOK: Duration = Duration::from_secs(5);

/// The thread. It ends with this value, which waits for the step it is at.
pub struct Indexer {
    ending: Arc<Ending>,
    thread: Option<JoinHandle<()>>,
}

/// Whether it is to end.
#[derive(Default)]
struct Ending {
    is_asked: Mutex<bool>,
    asked: Condvar,
}

impl Ending {
    /// Waits, and says whether it is to end.
    fn wait(&self, pause: Duration) -> bool {
        let asked = self.is_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.asked.wait_timeout_while(asked, pause, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Indexer {
    /// Keeps the index of a directory of records from now on.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(records: &Path) -> io::Result<Self> {
        let ending = Arc::new(Ending::default());
        let (shared, records) = (Arc::clone(&ending), records.to_owned());
        let thread = thread::Builder::new().name("index".into()).spawn(move || {
            // Without the right to step back it merely competes.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            run(&records, &shared);
        })?;
        Ok(Self { ending, thread: Some(thread) })
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        *self.ending.is_asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ending.asked.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

fn run(records: &Path, ending: &Ending) {
    let mut told: Option<String> = None;
    loop {
        let Err(error) = keep(records, ending, &mut told) else { return };
        // Each trouble is told once, not every few seconds.
        let text = error.to_string();
        if told.as_ref() != Some(&text) {
            match error {
                SearchError::Kept => tracing::info!("another process keeps the index: this one waits"),
                _ => tracing::warn!(error = %text, "the index does not follow the record; calls are recorded as ever"),
            }
            told = Some(text);
        }
        if ending.wait(RETRY) {
            return;
        }
    }
}

/// Keeps the index until it is to end, or something goes wrong.
fn keep(records: &Path, ending: &Ending, told: &mut Option<String>) -> Result<(), SearchError> {
    let mut index = Index::keep(records)?;
    let mut looked = Instant::now();
    loop {
        let step = index.step()?;
        if told.take().is_some() {
            tracing::info!("the index follows the record");
        }
        let pause = if step == Step::UpToDate { PAUSE } else { Duration::ZERO };
        if ending.wait(pause) {
            return Ok(());
        }
        if looked.elapsed() >= LOOK {
            index.look()?;
            looked = Instant::now();
        }
    }
}
