//! Where do the lines of the access log go?
//!
//! One line a request, written by a thread of its own. Whoever hands a line in never waits: while the reader is slow, lines
//! are kept up to [`QUEUED_BYTES_MAX`], and what is beyond is dropped and counted. A file that was moved away is begun anew.

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::telemetry::metrics::Count;

/// Bytes of lines that wait to be written; as many again are being written.
pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often it is looked whether a file is still where it was.
const LOOK: Duration = Duration::from_secs(1);
/// How long what is left may take to be written at the end.
const LAST: Duration = Duration::from_secs(1);
/// The owner writes, a group of operators may read.
const FILE_MODE: u32 = 0o640;

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: there is none.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, among the gateway's own lines.
    Stderr,
    /// A file, which is made if missing and appended to.
    File(PathBuf),
}

impl Destination {
    /// Reads `[log] access`. The error is a sentence for the operator, without the place.
    pub fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            path if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Self::File(PathBuf::from(path)))
            }
            other => Err(format!("`{other}` is no place for an access log")),
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Off | Self::Stdout | Self::Stderr => None,
        }
    }
}

/// What becomes of lines, counted.
#[derive(Clone)]
pub struct Counts {
    /// Lines written.
    pub written: Count,
    /// Lines dropped: the reader is too slow, or gone.
    pub dropped: Count,
}

/// The access log of the process. Its thread ends when this is closed.
pub struct AccessLog {
    shared: Arc<Shared>,
    queued_bytes_max: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    counts: Counts,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: u64,
    is_closed: bool,
    has_ended: bool,
}

impl AccessLog {
    /// Opens it; `None` where there is to be none.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread be started.
    pub fn open(destination: &Destination, counts: Counts) -> io::Result<Option<Self>> {
        let sink = match destination {
            Destination::Off => return Ok(None),
            Destination::Stdout => Sink::Stream(Box::new(io::stdout())),
            Destination::Stderr => Sink::Stream(Box::new(io::stderr())),
            Destination::File(path) => {
                Sink::File { file: append_to(path)?, path: path.clone(), looked: Instant::now() }
            }
        };
        Self::begin(sink, QUEUED_BYTES_MAX, counts).map(Some)
    }

    fn begin(mut sink: Sink, queued_bytes_max: usize, counts: Counts) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), counts });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("access".into()).spawn(move || theirs.write_to(&mut sink))?;
        Ok(Self { shared, queued_bytes_max })
    }

    /// Hands in a line, its end included. Never waits for the reader.
    pub fn tell(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.is_closed || queue.bytes.len() + line.len() > self.queued_bytes_max {
            drop(queue);
            self.shared.counts.dropped.one();
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Writes what is left, for a moment at most, and ends.
    pub fn close(&self) {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + LAST;
        while !queue.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // A reader that takes nothing does not keep the process.
                return;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the log is closed and nothing is left.
    fn write_to(&self, sink: &mut Sink) {
        let mut writing = Vec::new();
        loop {
            let mut queue = self.lock();
            while queue.bytes.is_empty() && !queue.is_closed {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.bytes.is_empty() {
                queue.has_ended = true;
                drop(queue);
                self.changed.notify_all();
                return;
            }
            writing.clear();
            std::mem::swap(&mut queue.bytes, &mut writing);
            let lines = std::mem::take(&mut queue.lines);
            drop(queue);
            match sink.write(&writing) {
                Ok(()) => self.counts.written.add(lines),
                // Told by the metric alone: a line in the gateway's log for each would be as many.
                Err(_) => self.counts.dropped.add(lines),
            }
        }
    }
}

/// What lines are written to.
enum Sink {
    Stream(Box<dyn Write + Send>),
    File { file: File, path: PathBuf, looked: Instant },
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(lines).and_then(|()| stream.flush()),
            Self::File { file, path, looked } => {
                if looked.elapsed() >= LOOK {
                    *looked = Instant::now();
                    if !is_at(file, path) {
                        *file = append_to(path)?;
                    }
                }
                file.write_all(lines)
            }
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::metrics::Settings;

    /// A reader that takes one piece each time it is let.
    struct Slow(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counts() -> Counts {
        let settings = Settings { series_max: 9, version: "1", decisions: &[], refusals: &[] };
        Metrics::new(settings).unwrap().access_lines()
    }

    #[test]
    fn while_the_reader_is_slow_lines_are_kept_up_to_the_limit_and_nobody_waits() {
        let ((let_it, lets), (takes, taken)) = (mpsc::channel(), mpsc::channel());
        let counts = counts();
        let sink = Sink::Stream(Box::new(Slow(lets, takes)));
        let log = AccessLog::begin(sink, 20, counts.clone()).unwrap();
        log.tell(b"first\n");
        // Taken out of the queue before the reader takes it.
        while !log.shared.lock().bytes.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        for line in [b"second..\n", b"third...\n", b"fourth..\n", b"fifth...\n"] {
            log.tell(line);
        }
        assert_eq!(counts.dropped.value(), 2);
        let_it.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"first\n");
        let_it.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"second..\nthird...\n");
        log.close();
        assert_eq!(counts.written.value(), 3);
        log.tell(b"late\n");
        assert_eq!(counts.dropped.value(), 3);
    }

    #[test]
    fn a_reader_that_takes_nothing_does_not_keep_the_process_and_one_that_is_gone_is_counted() {
        let ((let_it, lets), (takes, taken)) = (mpsc::channel(), mpsc::channel());
        let counts = counts();
        let log = AccessLog::begin(Sink::Stream(Box::new(Slow(lets, takes))), 20, counts.clone()).unwrap();
        log.tell(b"line\n");
        let began = Instant::now();
        log.close();
        assert!(began.elapsed() >= LAST && began.elapsed() < 5 * LAST);
        drop((let_it, taken));
        while counts.dropped.value() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let directory = std::env::temp_dir().join(format!("portcullis-access-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("access.log");
        let mut sink = Sink::File { file: append_to(&path).unwrap(), path: path.clone(), looked: Instant::now() };
        sink.write(b"old\n").unwrap();
        std::fs::rename(&path, directory.join("access.log.1")).unwrap();
        if let Sink::File { looked, .. } = &mut sink {
            *looked = Instant::now().checked_sub(LOOK).unwrap();
        }
        sink.write(b"new\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
        assert_eq!(std::fs::read(directory.join("access.log.1")).unwrap(), b"old\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_place_is_a_word_or_an_absolute_path() {
        assert_eq!(Destination::read("off"), Ok(Destination::Off));
        assert_eq!(Destination::read("stderr"), Ok(Destination::Stderr));
        assert_eq!(Destination::read("/var/log/a.log").unwrap().file(), Some(Path::new("/var/log/a.log")));
        for text in ["", "on", "access.log", "./access.log", "/var/log/", "/a\0b"] {
            assert!(Destination::read(text).is_err(), "{text}");
        }
    }
}
