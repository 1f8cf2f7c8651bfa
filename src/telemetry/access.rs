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

use rustix::fs::OFlags;

use crate::telemetry::metrics::Count;

/// Bytes of lines that wait to be written; as many again are being written.
pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of lines about callers whom nobody knows, in each hour; what is beyond is dropped.
pub const STRANGERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// When they have as many again.
const STRANGERS_TIME: Duration = Duration::from_secs(3600);

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
    /// Lines dropped: the reader is too slow, or gone, or strangers made too many.
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
    strangers: Strangers,
    is_closed: bool,
    has_ended: bool,
}

/// What the lines about callers whom nobody knows have taken of an hour.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    bytes: usize,
}

impl Strangers {
    /// Whether there is room for another line, which is taken.
    fn admit(&mut self, bytes: usize, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= STRANGERS_TIME) {
            *self = Self { since: Some(now), bytes: 0 };
        }
        let is_over = self.bytes + bytes > STRANGERS_BYTES_MAX;
        self.bytes += if is_over { 0 } else { bytes };
        !is_over
    }
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
                Sink::File { file: append_to(path)?, path: path.clone(), looked: Instant::now(), is_torn: false }
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

    /// Hands in a line, its end included, about a caller who is known, or about one whom nobody knows. Never waits for the reader.
    pub fn tell(&self, line: &[u8], is_known: bool) {
        let mut queue = self.shared.lock();
        let has_room = !queue.is_closed && queue.bytes.len() + line.len() <= self.queued_bytes_max;
        if !has_room || !(is_known || queue.strangers.admit(line.len(), Instant::now())) {
            drop(queue);
            self.shared.counts.dropped.one();
            return;
        }
        queue.bytes.extend_from_slice(line);
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
        let mut is_failing = false;
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
            drop(queue);
            let (taken, error) = sink.write(&writing);
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let (written, dropped) = writing.split_at(taken.min(writing.len()));
            self.counts.written.add(lines(written));
            self.counts.dropped.add(lines(dropped));
            // Once each time it begins, and once when it is over: a line for each line that is lost would be as many.
            match (error, is_failing) {
                (Some(error), false) => {
                    tracing::error!(%error, "the access log cannot be written: its lines are dropped until it can");
                    is_failing = true;
                }
                (None, true) => {
                    tracing::info!("the access log is written again");
                    is_failing = false;
                }
                _ => {}
            }
        }
    }
}

/// What lines are written to.
enum Sink {
    Stream(Box<dyn Write + Send>),
    File { file: File, path: PathBuf, looked: Instant, is_torn: bool },
}

impl Sink {
    /// Writes lines; how many bytes of them were taken, and what was in the way of the others.
    fn write(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        match self {
            Self::Stream(stream) => {
                let (taken, error) = put(stream, lines);
                (taken, error.or_else(|| stream.flush().err()))
            }
            Self::File { file, path, looked, is_torn } => {
                if looked.elapsed() >= LOOK {
                    *looked = Instant::now();
                    if !is_at(file, path) {
                        match append_to(path) {
                            Ok(new) => (*file, *is_torn) = (new, false),
                            Err(error) => return (0, Some(error)),
                        }
                    }
                }
                // The end of a line that was cut off: the next one begins a line of its own.
                if *is_torn && let Err(error) = file.write_all(b"\n") {
                    return (0, Some(error));
                }
                let (taken, error) = put(file, lines);
                *is_torn = lines.get(..taken).and_then(<[u8]>::last).is_some_and(|last| *last != b'\n');
                (taken, error)
            }
        }
    }
}

/// Writes as much as is taken.
fn put(to: &mut dyn Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut taken = 0;
    while let Some(left) = bytes.get(taken..).filter(|left| !left.is_empty()) {
        match to.write(left) {
            Ok(0) => return (taken, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Some(error)),
        }
    }
    (taken, None)
}

/// Opens it, and waits for nobody: a pipe that no one reads is an error, not a start that never ends.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    // From here on it is the writing thread that waits for a slow reader, for whom lines are kept.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
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
        log.tell(b"first\n", true);
        // Taken out of the queue before the reader takes it.
        while !log.shared.lock().bytes.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        for line in [b"second..\n", b"third...\n", b"fourth..\n", b"fifth...\n"] {
            log.tell(line, true);
        }
        assert_eq!(counts.dropped.value(), 2);
        let_it.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"first\n");
        let_it.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"second..\nthird...\n");
        log.close();
        assert_eq!(counts.written.value(), 3);
        log.tell(b"late\n", true);
        assert_eq!(counts.dropped.value(), 3);
    }

    #[test]
    fn a_reader_that_takes_nothing_does_not_keep_the_process_and_one_that_is_gone_is_counted() {
        let ((let_it, lets), (takes, taken)) = (mpsc::channel(), mpsc::channel());
        let counts = counts();
        let log = AccessLog::begin(Sink::Stream(Box::new(Slow(lets, takes))), 20, counts.clone()).unwrap();
        log.tell(b"line\n", true);
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
        let mut sink = file_sink(&path);
        assert!(matches!(sink.write(b"old\n"), (4, None)));
        std::fs::rename(&path, directory.join("access.log.1")).unwrap();
        if let Sink::File { looked, .. } = &mut sink {
            *looked = Instant::now().checked_sub(LOOK).unwrap();
        }
        assert!(matches!(sink.write(b"new\n"), (4, None)));
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
        assert_eq!(std::fs::read(directory.join("access.log.1")).unwrap(), b"old\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn file_sink(path: &Path) -> Sink {
        Sink::File { file: append_to(path).unwrap(), path: path.into(), looked: Instant::now(), is_torn: false }
    }

    #[test]
    fn after_a_line_that_was_cut_off_the_next_begins_one_of_its_own() {
        let path = std::env::temp_dir().join(format!("portcullis-access-torn-{}", std::process::id()));
        std::fs::write(&path, b"{\"a\"").unwrap();
        let mut sink = file_sink(&path);
        if let Sink::File { is_torn, .. } = &mut sink {
            *is_torn = true;
        }
        assert!(matches!(sink.write(b"{}\n"), (3, None)));
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"a\"\n{}\n");
        // Takes nothing, and so is not torn by it.
        let mut full = file_sink(Path::new("/dev/full"));
        assert!(matches!(full.write(b"{}\n"), (0, Some(error)) if error.kind() == io::ErrorKind::StorageFull));
        assert!(matches!(full, Sink::File { is_torn: false, .. }));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error_and_one_with_a_reader_is_waited_for() {
        let path = std::env::temp_dir().join(format!("portcullis-access-pipe-{}", std::process::id()));
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert_eq!(append_to(&path).unwrap_err().raw_os_error(), Some(rustix::io::Errno::NXIO.raw_os_error()));
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let reader = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).unwrap();
        let flags = rustix::fs::fcntl_getfl(append_to(&path).unwrap()).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        drop(reader);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn strangers_fill_no_more_than_their_share_of_an_hour() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        assert!(strangers.admit(STRANGERS_BYTES_MAX - 1, now) && strangers.admit(1, now));
        assert!(!strangers.admit(1, now + STRANGERS_TIME / 2));
        assert!(
            strangers.admit(1, now + STRANGERS_TIME) && !strangers.admit(STRANGERS_BYTES_MAX, now + STRANGERS_TIME)
        );
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
