//! Which records came since?
//!
//! Follows the segments from a position that can be kept. A line counts once its newline is there; one that is torn is waited
//! for. Lines may be taken back after they were read, by a disk that fails: [`Tail::stands`] says whether the last one still
//! is where it was, and [`Found::TakenBack`] that they are still there and no longer count. How much of a segment counts, the first
//! record of the next one may say.

use std::borrow::Cow;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

/// Bytes read at once; a line is far shorter.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Bytes of a segment's first line.
const FIRST_BYTES_MAX: u64 = 64 * 1024;
/// At the end of a segment, the names of all others are looked through at once and then once in so many reads. The name that the
/// next one has unless something failed is looked for every time.
const READS_PER_LISTING: u32 = 20;

/// How far the records were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The segment, by the number of its first record; 0 before the first one.
    pub(super) segment: u64,
    /// Bytes of it that were read.
    pub(super) offset: u64,
    /// Number of the last record.
    pub(super) seq: u64,
    /// Where that record stands.
    pub(super) mark: Option<Mark>,
}

/// The place of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The segment, by the number of its first record.
    pub(super) segment: u64,
    /// Where the line begins.
    pub(super) offset: u64,
    /// Its length without the newline.
    pub(super) bytes: u64,
}

impl Mark {
    /// Right behind this line, which is record `seq`.
    pub(super) fn after(self, seq: u64) -> Position {
        Position { segment: self.segment, offset: self.offset + self.bytes + 1, seq, mark: Some(self) }
    }
}

impl Position {
    /// Before the first record of a segment.
    pub(super) fn beginning(segment: u64) -> Self {
        Self { segment, offset: 0, seq: segment.saturating_sub(1), mark: None }
    }
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Whole lines, all of one segment.
    Lines,
    /// Nothing yet.
    Nothing,
    /// The segment is gone, or shorter than what was read of it.
    Less,
    /// More was read of the segment than counts, as the next one says, at the beginning of which the position is now.
    TakenBack,
}

/// The segments of a directory, read one after the other.
pub(super) struct Tail {
    directory: PathBuf,
    position: Position,
    file: Option<File>,
    /// Bytes of the segment that count, where the next one says so.
    end: Option<u64>,
    buffer: Vec<u8>,
    reads: u32,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// What the first record of a segment may say of the one before.
#[derive(Deserialize)]
struct First<'l> {
    #[serde(borrow)]
    kind: Cow<'l, str>,
    #[serde(default, borrow)]
    segment: Option<Cow<'l, str>>,
    segment_bytes: Option<u64>,
}

impl Tail {
    /// Goes on behind `position`.
    pub(super) fn new(directory: &Path, position: Position) -> Self {
        let buffer = vec![0; CHUNK_BYTES];
        Self { directory: directory.to_owned(), position, file: None, end: None, buffer, reads: 0 }
    }

    /// How far it has read.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Goes on behind another position.
    pub(super) fn go_to(&mut self, position: Position) {
        self.position = position;
        self.file = None;
        self.end = None;
        self.reads = 0;
    }

    /// Whether the last record before a position still stands where it stood.
    pub(super) fn stands(&self, position: &Position) -> io::Result<bool> {
        let Some(Mark { segment, offset, bytes }) = position.mark else { return Ok(true) };
        let file = match File::open(self.path(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let Ok(bytes) = usize::try_from(bytes + 1) else { return Ok(false) };
        let mut text = vec![0; bytes];
        match file.read_exact_at(&mut text, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        let record = text.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Numbered>(line).ok());
        Ok(record.is_some_and(|record| record.seq == position.seq))
    }

    /// Hands the next whole lines, without their newlines, to `each`, which gives the record's number if it is one.
    pub(super) fn read(&mut self, mut each: impl FnMut(&[u8]) -> Option<u64>) -> io::Result<Found> {
        if self.position.segment == 0 {
            let Some(first) = segments(&self.directory)?.first().copied() else { return Ok(Found::Nothing) };
            self.enter(first);
        }
        if let Some(next) = self.open()? {
            return Ok(self.pass_over(next));
        }
        let Some(mut bytes) = self.fill()? else { return Ok(Found::Less) };
        if !has_line(&self.buffer, bytes) {
            let Some(next) = self.next_segment()? else { return Ok(Found::Nothing) };
            match self.counted_bytes(next)? {
                Counted::Unknown => return Ok(Found::Nothing),
                Counted::All => {}
                Counted::Bytes(end) if end < self.position.offset => return Ok(self.pass_over(next)),
                Counted::Bytes(end) => self.end = Some(end),
            }
            // What was written to this one before the next was begun is all there by now.
            bytes = self.fill()?.unwrap_or(0);
            if !has_line(&self.buffer, bytes) {
                self.enter(next);
                self.open()?;
                bytes = self.fill()?.unwrap_or(0);
            }
        }
        let mut rest = self.buffer.get(..bytes).unwrap_or_default();
        let mut found = Found::Nothing;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            if let Some(seq) = each(line) {
                let mark = Mark { segment: self.position.segment, offset: self.position.offset, bytes: end as u64 };
                self.position.seq = seq;
                self.position.mark = Some(mark);
            }
            self.position.offset += end as u64 + 1;
            rest = after.get(1..).unwrap_or_default();
            found = Found::Lines;
        }
        if found == Found::Nothing && bytes == CHUNK_BYTES {
            // No line is that long.
            self.position.offset += bytes as u64;
            found = Found::Lines;
        }
        Ok(found)
    }

    fn enter(&mut self, segment: u64) {
        self.position.segment = segment;
        self.position.offset = 0;
        self.file = None;
        self.end = None;
        self.reads = 0;
    }

    /// Goes on in the next segment, which says that less of this one counts than was read.
    fn pass_over(&mut self, next: u64) -> Found {
        self.enter(next);
        self.position.seq = next.saturating_sub(1);
        self.position.mark = None;
        Found::TakenBack
    }

    /// Opens the segment, unless it is open or gone, and finds out how much of it counts; the next one if that is less than was read.
    fn open(&mut self) -> io::Result<Option<u64>> {
        if self.file.is_some() {
            return Ok(None);
        }
        match File::open(self.path(self.position.segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => self.file = Some(file?),
        }
        let segments = segments(&self.directory)?;
        let Some(next) = segments.into_iter().find(|first| *first > self.position.segment) else { return Ok(None) };
        let Counted::Bytes(end) = self.counted_bytes(next)? else { return Ok(None) };
        self.end = Some(end);
        Ok((end < self.position.offset).then_some(next))
    }

    /// How much of this segment counts, as the first record of the next one says.
    fn counted_bytes(&self, next: u64) -> io::Result<Counted> {
        let file = match File::open(self.path(next)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Counted::All),
            file => file?,
        };
        let mut line = Vec::new();
        BufReader::new(file).take(FIRST_BYTES_MAX).read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\n") else {
            // It has only just been begun, unless others follow.
            let is_last = segments(&self.directory)?.last() == Some(&next);
            return Ok(if is_last { Counted::Unknown } else { Counted::All });
        };
        let first = line.starts_with(b"{").then(|| serde_json::from_slice::<First<'_>>(line).ok()).flatten();
        let is_of_this = |first: &First<'_>| {
            first.kind == "recovered" && first.segment.as_deref() == Some(&*name_of(self.position.segment))
        };
        let bytes = first.filter(is_of_this).and_then(|first| first.segment_bytes);
        Ok(bytes.map_or(Counted::All, Counted::Bytes))
    }

    /// Fills the buffer from the position on; `None` if the file is gone, or has not that much.
    fn fill(&mut self) -> io::Result<Option<usize>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut bytes = 0;
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.position.offset));
        let most = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        while let Some(room) = self.buffer.get_mut(bytes..most).filter(|room| !room.is_empty()) {
            let read = file.read_at(room, self.position.offset + bytes as u64)?;
            if read == 0 {
                break;
            }
            bytes += read;
        }
        let is_less = bytes == 0 && file.metadata()?.len() < self.position.offset;
        Ok((!is_less).then_some(bytes))
    }

    fn next_segment(&mut self) -> io::Result<Option<u64>> {
        let current = self.position.segment;
        let expected = self.position.seq + 1;
        if expected > current && self.path(expected).try_exists()? {
            return Ok(Some(expected));
        }
        let due = self.reads.is_multiple_of(READS_PER_LISTING);
        self.reads = self.reads.wrapping_add(1);
        if !due {
            return Ok(None);
        }
        Ok(segments(&self.directory)?.into_iter().find(|first| *first > current))
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(name_of(segment))
    }
}

/// How much of a segment counts.
enum Counted {
    All,
    /// So many bytes.
    Bytes(u64),
    /// The next one does not say yet.
    Unknown,
}

/// Name of the segment whose first record has this number.
fn name_of(segment: u64) -> String {
    format!("{segment:020}.jsonl")
}

/// Whether a buffer is worth looking into.
fn has_line(buffer: &[u8], bytes: usize) -> bool {
    bytes == CHUNK_BYTES || memchr::memchr(b'\n', buffer.get(..bytes).unwrap_or_default()).is_some()
}

/// The segments of a directory in their order, each by the number of its first record.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).filter(|stem| stem.len() == 20);
        segments.extend(first.and_then(|stem| stem.parse::<u64>().ok()).filter(|first| *first > 0));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Number of the newest record; 0 if there is none. A line that is just being written does not count.
pub(super) fn newest_seq(directory: &Path) -> io::Result<u64> {
    for segment in segments(directory)?.into_iter().rev() {
        let file = match File::open(directory.join(name_of(segment))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let bytes = file.metadata()?.len();
        let begin = bytes.saturating_sub(CHUNK_BYTES as u64);
        let mut end = vec![0; usize::try_from(bytes - begin).unwrap_or(0)];
        let read = file.read_at(&mut end, begin)?;
        end.truncate(read);
        let mut lines = end.rsplit(|byte| *byte == b'\n');
        // What follows the last newline is not whole.
        lines.next();
        let newest = lines.find_map(|line| serde_json::from_slice::<Numbered>(line).ok());
        if let Some(newest) = newest {
            return Ok(newest.seq);
        }
    }
    Ok(0)
}
