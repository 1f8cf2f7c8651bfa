//! Do the lines hang together?
//!
//! Each line names the SHA-256 of the line before it, and counts one more. Only a `recovered` record may skip
//! numbers: those were given to records that never became one. Segments are read line by line; nothing is repaired.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::Digest as _;
use sha2::Sha256;

/// Bytes of a line, newline included; ours stay far below.
pub(super) const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Name of the kind that may skip numbers and may say how much of the segment before it counts.
pub(super) const RECOVERED: &str = "recovered";
/// Bytes of a kind's name.
const KIND_BYTES_MAX: usize = 32;
/// Bytes of a time.
const TIME_BYTES: usize = 27;

/// The end of a chain: what the next line refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    /// Number of the last record.
    pub(super) seq: u64,
    /// SHA-256 of the last line, without its newline.
    pub(super) hash: [u8; 32],
}

impl Tip {
    /// Before the first record.
    pub(super) const START: Self = Self { seq: 0, hash: [0; 32] };
}

/// The first place at which a chain does not hold.
#[derive(Debug, thiserror::Error)]
#[error("`{}`, line {line}: {flaw}", .file.display())]
pub struct Break {
    /// The segment.
    pub file: PathBuf,
    /// The line, from 1; 0 if the segment as a whole is meant.
    pub line: u64,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It does not end in a newline, or not soon enough.
    #[error("the line is torn")]
    Torn,
    /// It is no JSON object with the fields of every record.
    #[error("the line is not a record")]
    NotARecord,
    /// It does not name the digest of the line before it.
    #[error("`prev` is not the digest of the line before")]
    WrongPrev,
    /// Its number does not follow the one before it.
    #[error("`seq` does not follow the line before")]
    WrongSeq,
    /// A file in the directory ends in `.jsonl` but is not named after its first record.
    #[error("the file is not named after its first record")]
    WrongName,
    /// It holds records that retention removed: nobody can say whether they are the ones that were there.
    #[error("the file is left of records that were removed: start the gateway on it, or delete the file")]
    Leftover,
}

/// The fields that make a line a link.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'l> {
    seq: u64,
    prev: &'l str,
    kind: &'l str,
    #[serde(borrow)]
    segment: Option<Cow<'l, str>>,
    segment_bytes: Option<u64>,
}

impl<'l> Head<'l> {
    pub(super) fn read(line: &'l [u8]) -> Option<Self> {
        // Asked first because a JSON reader takes an array for a struct, and does not look into texts it skips.
        let printable = line.iter().fold(true, |all, byte| all & matches!(byte, 0x20..=0x7e));
        (printable && line.starts_with(b"{")).then(|| serde_json::from_slice(line).ok()).flatten()
    }

    /// How many bytes of the named segment count, where this record says so.
    pub(super) fn counted_bytes(&self, segment: &Path) -> Option<u64> {
        let named = self.segment.as_deref()?;
        (self.kind == RECOVERED && segment.file_name()?.to_str() == Some(named)).then_some(self.segment_bytes)?
    }
}

/// What a canonical line begins with. Reading it takes no JSON reader, and so says less: that a line is an object after
/// all, its own digest in the next line vouches for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'l> {
    pub(super) seq: u64,
    prev: &'l [u8],
    pub(super) kind: &'l [u8],
    /// What follows the kind's quotation mark.
    rest: &'l [u8],
}

impl<'l> Lead<'l> {
    pub(super) fn read(line: &'l [u8]) -> Option<Self> {
        let printable = line.iter().fold(true, |all, byte| all & matches!(byte, 0x20..=0x7e));
        let rest = line.strip_prefix(b"{\"seq\":").filter(|_| printable && line.ends_with(b"}"))?;
        let (seq, rest) = number(rest)?;
        let (prev, rest) = rest.strip_prefix(b",\"prev\":\"")?.split_at_checked(64)?;
        let rest = rest.strip_prefix(b"\",\"kind\":\"")?;
        let (kind, rest) = rest.split_at_checked(rest.iter().take(KIND_BYTES_MAX).position(|byte| *byte == b'"')?)?;
        Some(Self { seq, prev, kind, rest })
    }

    /// When the record was made, as it stands there.
    pub(super) fn time(&self) -> Option<&'l [u8]> {
        self.rest.strip_prefix(b"\",\"time\":\"")?.split_at_checked(TIME_BYTES).map(|(time, _)| time)
    }

    /// Number of the intent of a result.
    pub(super) fn intent(&self) -> Option<u64> {
        let rest = self.rest.strip_prefix(b"\",\"time\":\"")?.get(TIME_BYTES..)?;
        number(rest.strip_prefix(b"\",\"intent\":")?).map(|(intent, _)| intent)
    }

    /// Whether numbers may be missing before it.
    pub(super) fn may_skip(&self) -> bool {
        self.kind == RECOVERED.as_bytes()
    }

    /// Where the chain stands after this line, if it continues `tip`.
    pub(super) fn follow(&self, tip: Tip, line: &[u8]) -> Result<Tip, Flaw> {
        if !is_hex_of(self.prev, &tip.hash) {
            return Err(Flaw::WrongPrev);
        }
        self.counts_on(tip)?;
        Ok(Tip { seq: self.seq, hash: Sha256::digest(line).into() })
    }

    /// Whether its number follows that of `tip`.
    pub(super) fn counts_on(&self, tip: Tip) -> Result<(), Flaw> {
        let follows = tip.seq.checked_add(1) == Some(self.seq) || (self.may_skip() && self.seq > tip.seq);
        if follows { Ok(()) } else { Err(Flaw::WrongSeq) }
    }
}

/// A number without leading zeros, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    let number =
        digits.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    (!digits.is_empty() && (digits.len() == 1 || !digits.starts_with(b"0"))).then_some((number, rest))
}

/// Where the chain stands after `line` (without its newline), if it continues `tip`.
pub(super) fn follow(tip: Tip, line: &[u8]) -> Result<Tip, Flaw> {
    let head = Head::read(line).ok_or(Flaw::NotARecord)?;
    if !is_hex_of(head.prev.as_bytes(), &tip.hash) {
        return Err(Flaw::WrongPrev);
    }
    if tip.seq.checked_add(1) != Some(head.seq) && !(head.kind == RECOVERED && head.seq > tip.seq) {
        return Err(Flaw::WrongSeq);
    }
    Ok(Tip { seq: head.seq, hash: Sha256::digest(line).into() })
}

fn is_hex_of(text: &[u8], bytes: &[u8; 32]) -> bool {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    rest.is_empty()
        && pairs.len() == bytes.len()
        && pairs.iter().zip(bytes).all(|([high, low], byte)| {
            digit(*high).zip(digit(*low)).is_some_and(|(high, low)| high << 4 | low == *byte)
        })
}

/// Reads a segment line by line.
pub(super) struct Lines {
    reader: io::Take<BufReader<File>>,
    line: Vec<u8>,
    left: u64,
}

impl Lines {
    /// The lines within the first `bytes` bytes of a file.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        Self::open_at(path, 0, bytes)
    }

    /// The same, of which the first begins at `start`.
    pub(super) fn open_at(path: &Path, start: u64, bytes: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let reader = BufReader::with_capacity(256 * 1024, file).take(0);
        Ok(Self { reader, line: Vec::new(), left: bytes.saturating_sub(start) })
    }

    /// The next line with its newline, if it has one; at most [`LINE_BYTES_MAX`] bytes of it. `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        self.reader.set_limit(self.left.min(LINE_BYTES_MAX));
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        self.left -= read as u64;
        Ok((read > 0).then_some(&self.line))
    }
}

/// The segments of a directory in their order. A file that is not named like one is a flaw: readers would take its lines for records.
pub(super) fn segments(directory: &Path) -> Result<Vec<PathBuf>, Break> {
    let unreadable = |error| Break { file: directory.to_owned(), line: 0, flaw: Flaw::Unreadable(error) };
    let mut segments = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            if first_seq(&file).is_none() {
                return Err(Break { file, line: 0, flaw: Flaw::WrongName });
            }
            segments.push(file);
        }
    }
    segments.sort();
    Ok(segments)
}

/// Name of the segment whose first record is `seq`. Names sort like numbers.
pub(super) fn segment_name(seq: u64) -> String {
    format!("{seq:020}.jsonl")
}

/// Number of a segment's first record, by its name. Numbers count from 1.
pub(super) fn first_seq(segment: &Path) -> Option<u64> {
    let seq = segment.file_stem()?.to_str()?.parse().ok()?;
    (seq > 0 && segment.file_name()?.to_str()? == segment_name(seq)).then_some(seq)
}

/// How many bytes of `segment` count: all of them, unless the segment after it says otherwise.
pub(super) fn counted_bytes(segment: &Path, next: Option<&PathBuf>) -> io::Result<u64> {
    let Some(next) = next else { return Ok(u64::MAX) };
    let mut lines = Lines::open(next, LINE_BYTES_MAX)?;
    let first = lines.next()?.and_then(|line| line.strip_suffix(b"\n")).unwrap_or_default();
    Ok(Head::read(first).and_then(|head| head.counted_bytes(segment)).unwrap_or(u64::MAX))
}

/// The chain's end after the last line within the first `bytes` bytes of a segment, without looking at those before it.
/// The line's own link is not checked. `None` if no line ends there.
pub(super) fn end_of(segment: &Path, bytes: u64) -> io::Result<Option<Tip>> {
    let mut file = File::open(segment)?;
    let end = file.metadata()?.len().min(bytes);
    let start = end.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(end - start).read_to_end(&mut tail)?;
    let Some((b'\n', lines)) = tail.split_last() else { return Ok(None) };
    let line = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Head::read(line).map(|head| Tip { seq: head.seq, hash: Sha256::digest(line).into() }))
}

/// How many bytes of a segment are whole lines, without looking at those before the last.
pub(super) fn whole_bytes(segment: &Path) -> io::Result<u64> {
    let mut file = File::open(segment)?;
    let end = file.metadata()?.len();
    let start = end.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(end - start).read_to_end(&mut tail)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => Ok(start + newline as u64 + 1),
        None if start == 0 => Ok(0),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the segment's last line does not end")),
    }
}
