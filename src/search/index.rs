//! How does the index follow the records?
//!
//! It is made of the records alone: whatever is missing, damaged or from another time is removed and read again. Within a step
//! the files of days are written first and the position last, so that a crash anywhere has records read twice, and none left
//! out. Whoever keeps the index holds its directory's lock.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::disk::directory::Directory;
use crate::search::catalogue::Catalogue;
use crate::search::catalogue::Known;
use crate::search::database;
use crate::search::day;
use crate::search::day::Batch;
use crate::search::day::Day;
use crate::search::entry::DAY_MICROS;
use crate::search::entry::Entry;
use crate::search::error::SearchError;
use crate::search::record::Record;
use crate::search::record::Said;
use crate::search::tail;
use crate::search::tail::Found;
use crate::search::tail::Position;
use crate::search::tail::Tail;

/// Name of the index's directory in that of the record.
const DIRECTORY: &str = "index";
/// Files of days that are held open.
const DAYS_OPEN_MAX: usize = 4;
/// What must be free of the disk before the index is written: the rest is for records, without which no call is let through. That is
/// a twentieth of the disk, and never less than the first nor more than the second.
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
const FREE_BYTES_ENOUGH: u64 = 1024 * 1024 * 1024;

/// Where the index of a directory of records is.
pub(super) fn directory_of(records: &Path) -> PathBuf {
    records.join(DIRECTORY)
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Records, so many; there may be more.
    Read(usize),
    /// Nothing new.
    UpToDate,
    /// Something of the index was lost or no longer right, and is read again.
    Again,
}

/// The index of a directory of records, kept by this process.
pub struct Index {
    records: PathBuf,
    /// Held as long as the index is kept.
    directory: Directory,
    catalogue: Catalogue,
    tail: Tail,
    days: BTreeMap<u64, Day>,
    /// Files that were found to hold what they must, by their days: the number of each in its file system.
    sound: HashMap<u64, u64>,
    free_bytes_min: u64,
}

impl Index {
    /// Takes the index of a directory of records, and makes it if it is not there. Removes what is damaged or does not belong
    /// to these records; [`Index::step`] reads it again.
    ///
    /// # Errors
    /// Another process keeps it, or its directory cannot be used.
    pub fn keep(records: &Path) -> Result<Self, SearchError> {
        Self::keep_with(records, FREE_BYTES_MIN)
    }

    pub(super) fn keep_with(records: &Path, free_bytes_min: u64) -> Result<Self, SearchError> {
        has_room(records, free_bytes_min)?;
        let directory = Directory::lock(&directory_of(records))?;
        database::give_to_owner(directory.path(), records);
        let opened = Catalogue::open(directory.path()).and_then(|catalogue| {
            let position = catalogue.position()?;
            catalogue.days().map(|_| (catalogue, position))
        });
        let (catalogue, position) = match opened {
            Err(SearchError::Damaged { path }) => {
                told_damaged(&path);
                remove_all(directory.path())?;
                (Catalogue::open(directory.path())?, Position::default())
            }
            opened => opened?,
        };
        let tail = Tail::new(records, position);
        let mut index = Self {
            records: records.to_owned(),
            directory,
            catalogue,
            tail,
            days: BTreeMap::new(),
            sound: HashMap::new(),
            free_bytes_min,
        };
        index.look()?;
        if !index.stands(&position)? {
            index.retreat()?;
        }
        Ok(index)
    }

    /// Removes all of it, to read all records again.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub fn clear(&mut self) -> Result<(), SearchError> {
        self.days.clear();
        self.sound.clear();
        // Closing a file removes what SQLite keeps beside it, so that must come before another takes its place.
        drop(std::mem::replace(&mut self.catalogue, Catalogue::nowhere()?));
        remove_all(self.directory.path())?;
        self.catalogue = Catalogue::open(self.directory.path())?;
        self.tail.go_to(Position::default());
        Ok(())
    }

    /// Number of the last record it has.
    pub fn last_seq(&self) -> u64 {
        self.tail.position().seq
    }

    /// Takes the records that came since, a bounded number of them.
    ///
    /// # Errors
    /// The disk is nearly full, or a file cannot be read or written. It may be tried again.
    pub fn step(&mut self) -> Result<Step, SearchError> {
        match self.try_step() {
            Err(SearchError::Damaged { path }) => {
                told_damaged(&path);
                self.lost(&path)?;
                Ok(Step::Again)
            }
            Err(error) => {
                // What was read is not in any file.
                let position = self.catalogue.position()?;
                self.tail.go_to(position);
                Err(error)
            }
            stepped => stepped,
        }
    }

    fn try_step(&mut self) -> Result<Step, SearchError> {
        let before = self.tail.position();
        let mut gathered = Gathered::default();
        let found =
            self.tail.read(|line| gathered.take(line)).map_err(|error| SearchError::io(&self.records, error))?;
        let is_doubtful = found == Found::Less || gathered.is_doubtful;
        if found == Found::TakenBack || is_doubtful && !self.stands(&before)? {
            self.retreat()?;
            return Ok(Step::Again);
        }
        match found {
            Found::Lines => {}
            Found::Nothing => return Ok(Step::UpToDate),
            Found::Less => return self.skip(),
            Found::TakenBack => return Ok(Step::Again),
        }
        has_room(&self.records, self.free_bytes_min)?;
        let lines = gathered.lines;
        self.write(&before, gathered)?;
        Ok(Step::Read(lines))
    }

    /// The files of days first, the position last.
    fn write(&mut self, before: &Position, gathered: Gathered) -> Result<(), SearchError> {
        let known = self.catalogue.days()?;
        let mut batches: BTreeMap<u64, Batch> = BTreeMap::new();
        let (entries, ended) = (gathered.entries, gathered.ended);
        for entry in entries {
            batches.entry(entry.time_micros / DAY_MICROS).or_default().entries.push(entry);
        }
        for (intent, ended) in ended {
            // Mostly the newest; a stream may have been opened days ago.
            let may_have = |known: &&Known| known.from.seq < intent && intent <= known.to_seq;
            for known in known.iter().rev().filter(may_have) {
                if self.day(known.day)?.has(intent)? {
                    batches.entry(known.day).or_default().ended.push((intent, ended));
                    break;
                }
            }
        }
        for day in batches.keys().filter(|day| !known.iter().any(|known| known.day == **day)) {
            database::remove(&day::path_of(self.directory.path(), *day))?;
            self.catalogue.begin(*day, before)?;
        }
        let position = self.tail.position();
        for (day, batch) in &batches {
            self.day(*day)?.take(batch, position.seq)?;
        }
        let last_seq = |batch: &Batch| batch.entries.last().map_or(0, |entry| entry.seq);
        let days: Vec<(u64, u64)> = batches.iter().map(|(day, batch)| (*day, last_seq(batch))).collect();
        self.catalogue.advance(&position, &days)
    }

    /// Sees whether all files are there and of these records, and lets those go whose records are gone. To be called now and then.
    ///
    /// # Errors
    /// The directory cannot be read, or a file not removed.
    pub fn look(&mut self) -> Result<(), SearchError> {
        if !self.catalogue.is_there() {
            // What is written to the file that is gone, nobody finds.
            tracing::warn!(file = %self.catalogue.path().display(), "the index's catalogue is gone: all records are read again");
            return self.clear();
        }
        let days = self.catalogue.days()?;
        let segments = tail::segments(&self.records).map_err(|error| SearchError::io(&self.records, error))?;
        let mut lost = Vec::new();
        let mut gone = Vec::new();
        for known in &days {
            let path = day::path_of(self.directory.path(), known.day);
            let file = fs::metadata(&path).map(|file| file.ino()).ok();
            if segments.first().is_some_and(|first| known.last_seq > 0 && known.last_seq < *first) {
                gone.push(known.day);
            } else if file.is_none() {
                tracing::warn!(file = %path.display(), "a day of the index is gone: its records are read again");
                lost.push(known.day);
            } else if file != self.sound.get(&known.day).copied() {
                // One that is open and became another is as unknown as one that is seen for the first time.
                self.days.remove(&known.day);
                if is_filled(self.directory.path(), known)? {
                    self.sound.extend(file.map(|file| (known.day, file)));
                } else {
                    told_damaged(&path);
                    lost.push(known.day);
                }
            }
        }
        if !gone.is_empty() {
            self.discard(&gone, self.catalogue.position()?)?;
        }
        if !lost.is_empty() {
            let position = self.before(&days, |known| lost.contains(&known.day))?;
            self.discard(&lost, position)?;
        }
        self.remove_strays()
    }

    /// Removes files of days that are in no list: a crash came between.
    fn remove_strays(&mut self) -> Result<(), SearchError> {
        let known: Vec<u64> = self.catalogue.days()?.iter().map(|known| known.day).collect();
        let days = day::listed(self.directory.path())?;
        for day in days.into_iter().filter(|day| !known.contains(day)) {
            self.days.remove(&day);
            database::remove(&day::path_of(self.directory.path(), day))?;
        }
        Ok(())
    }

    fn day(&mut self, day: u64) -> Result<&mut Day, SearchError> {
        if !self.days.contains_key(&day) {
            if self.days.len() >= DAYS_OPEN_MAX {
                self.days.pop_first();
            }
            let opened = Day::open(self.directory.path(), day)?;
            self.days.insert(day, opened);
        }
        let path = day::path_of(self.directory.path(), day);
        self.days.get_mut(&day).ok_or(SearchError::Damaged { path })
    }

    fn stands(&self, position: &Position) -> Result<bool, SearchError> {
        self.tail.stands(position).map_err(|error| SearchError::io(&self.records, error))
    }

    /// What was read stands, and the segment it goes on in is gone or shorter than it was. What was cut off were no records.
    fn skip(&mut self) -> Result<Step, SearchError> {
        let position = self.tail.position();
        let failed = |error| SearchError::io(&self.records, error);
        let segments = tail::segments(&self.records).map_err(failed)?;
        let next = segments.iter().find(|first| **first > position.seq);
        let next = match (position.mark, next) {
            (Some(mark), _) if segments.contains(&position.segment) => mark.after(position.seq),
            (_, Some(next)) => Position { mark: position.mark, ..Position::beginning(*next) },
            (Some(mark), None) => mark.after(position.seq),
            (None, None) => Position::default(),
        };
        self.catalogue.advance(&next, &[])?;
        self.tail.go_to(next);
        // What follows is yet to be read.
        Ok(if next == position { Step::UpToDate } else { Step::Again })
    }

    /// Lines that were read are no longer what they were: goes back to the beginning of their segment, or of one before it.
    fn retreat(&mut self) -> Result<(), SearchError> {
        let position = self.catalogue.position()?;
        let segments = tail::segments(&self.records).map_err(|error| SearchError::io(&self.records, error))?;
        let read_from = position.mark.map_or(position.segment, |mark| mark.segment);
        let safe = segments.iter().rev().find(|first| **first <= read_from).copied();
        let first = segments.first().copied();
        let is_missing = !segments.contains(&read_from);
        if let (true, None, Some(first)) = (is_missing, safe, first.filter(|first| *first > position.seq)) {
            // Nothing older is kept, and what is there came later.
            let next = Position::beginning(first);
            self.catalogue.advance(&next, &[])?;
            self.tail.go_to(next);
            return Ok(());
        }
        tracing::warn!("records behind the index are no longer there: what it had of them is read again");
        let begin = safe.map(Position::beginning).unwrap_or_default();
        let days = self.catalogue.days()?;
        let is_unsure = |known: &Known| known.to_seq >= begin.segment || known.from.seq >= begin.segment;
        let lost: Vec<u64> = days.iter().filter(|known| is_unsure(known)).map(|known| known.day).collect();
        let from = self.before(&days, is_unsure)?;
        let from = if from.seq < begin.seq { from } else { begin };
        self.discard(&lost, from)
    }

    /// A file was damaged.
    fn lost(&mut self, path: &Path) -> Result<(), SearchError> {
        if path == self.catalogue.path() {
            return self.clear();
        }
        let days = self.catalogue.days()?;
        let is_it = |known: &Known| day::path_of(self.directory.path(), known.day) == path;
        let lost: Vec<u64> = days.iter().filter(|known| is_it(known)).map(|known| known.day).collect();
        if lost.is_empty() {
            // One that is in no list: it was just being made.
            self.days.clear();
            database::remove(path)?;
            let position = self.catalogue.position()?;
            self.tail.go_to(position);
            return Ok(());
        }
        let position = self.before(&days, is_it)?;
        self.discard(&lost, position)
    }

    /// Where to begin in order to read these days again.
    fn before(&self, days: &[Known], is_lost: impl Fn(&Known) -> bool) -> Result<Position, SearchError> {
        let now = self.catalogue.position()?;
        let from = days.iter().filter(|known| is_lost(known)).map(|known| known.from).min_by_key(|from| from.seq);
        Ok(from.filter(|from| from.seq < now.seq).unwrap_or(now))
    }

    /// Removes days, and goes on at a position.
    fn discard(&mut self, days: &[u64], position: Position) -> Result<(), SearchError> {
        self.catalogue.retreat(&position, days)?;
        for day in days {
            self.days.remove(day);
            self.sound.remove(day);
            database::remove(&day::path_of(self.directory.path(), *day))?;
        }
        self.tail.go_to(position);
        Ok(())
    }
}

/// Removes a damaged file of an index, so that whoever keeps the index makes it anew.
///
/// # Errors
/// It cannot be removed.
pub fn discard(path: &Path) -> Result<(), SearchError> {
    database::remove(path)
}

/// Whether the file of a day has heard of what it must have.
fn is_filled(directory: &Path, known: &Known) -> Result<bool, SearchError> {
    match Day::open(directory, known.day).and_then(|day| day.to_seq()) {
        Ok(to_seq) => Ok(to_seq >= known.to_seq),
        Err(SearchError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn told_damaged(path: &Path) {
    tracing::warn!(file = %path.display(), "a file of the index is damaged: it is removed, and its records are read again");
}

fn remove_all(directory: &Path) -> Result<(), SearchError> {
    let failed = |error| SearchError::io(directory, error);
    for entry in directory.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sqlite") {
            database::remove(&path)?;
        }
    }
    Ok(())
}

fn has_room(records: &Path, free_bytes_min: u64) -> Result<(), SearchError> {
    let disk = rustix::fs::statvfs(records).map_err(|error| SearchError::io(records, error.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let twentieth = disk.f_blocks.saturating_mul(disk.f_frsize) / 20;
    let free_bytes_min = free_bytes_min.max(twentieth.min(FREE_BYTES_ENOUGH));
    if free_bytes < free_bytes_min { Err(SearchError::NoRoom { free_bytes_min }) } else { Ok(()) }
}

/// What a step has read.
#[derive(Default)]
struct Gathered {
    lines: usize,
    entries: Vec<Entry>,
    ended: Vec<(u64, crate::search::entry::Ended)>,
    /// Entries of this step by their numbers, for their results.
    positions: HashMap<u64, usize>,
    /// Whether there is a reason to ask whether what was read before still stands.
    is_doubtful: bool,
}

impl Gathered {
    fn take(&mut self, line: &[u8]) -> Option<u64> {
        self.lines += 1;
        let Some(record) = Record::read(line) else {
            self.is_doubtful = true;
            return None;
        };
        match record.said {
            Said::Asked(entry) => {
                self.positions.insert(entry.seq, self.entries.len());
                self.entries.push(*entry);
            }
            Said::Ended(intent, ended) => {
                let position = self.positions.get(&intent);
                match position.and_then(|position| self.entries.get_mut(*position)) {
                    Some(entry) => entry.ended = Some(*ended),
                    None => self.ended.push((intent, *ended)),
                }
            }
            Said::Recovered => self.is_doubtful = true,
            Said::Other => {}
        }
        Some(record.seq)
    }
}
