//! What is asked of the index?
//!
//! [`Search`] reads the files of days beside whoever writes them; it may be shared by threads, and its answers are plain values.
//! An answer is of one moment of each day.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::ValueRef;

use crate::search::catalogue::Catalogue;
use crate::search::database;
use crate::search::database::int;
use crate::search::database::number;
use crate::search::day;
use crate::search::entry::Cursor;
use crate::search::entry::DAY_MICROS;
use crate::search::entry::Decision;
use crate::search::entry::Ended;
use crate::search::entry::Entry;
use crate::search::error::SearchError;
use crate::search::filter::Filter;
use crate::search::graph;
use crate::search::graph::Graph;
use crate::search::index;
use crate::search::query::Asked;
use crate::search::schema;
use crate::search::tail;
use crate::search::tail::Position;

/// Entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// How far entries are counted: a number beyond takes long to find and tells little.
pub const COUNT_MAX: u64 = 10_001;
/// Files of days that are held open to be asked again.
const DAYS_OPEN_MAX: usize = 40;

const COLUMNS: &str = "seq, time, decision, counted, source, method, principal, user, agent, workspace, server, tool, \
    resource, prompt, reason, rule, status, outcome, failure, ended_status, latency, cost, result";

/// Some entries, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
}

/// The index of a directory of records, to be asked.
pub struct Search {
    records: PathBuf,
    directory: PathBuf,
    open: Mutex<HashMap<u64, Opened>>,
}

/// A file that is held open, and which one it is.
struct Opened {
    connection: Connection,
    inode: u64,
}

impl Search {
    /// The index of a directory of records. Nothing is opened yet; an index that is not there has no entries.
    pub fn of(records: &Path) -> Self {
        Self { records: records.to_owned(), directory: index::directory_of(records), open: Mutex::new(HashMap::new()) }
    }

    /// The newest entries that match, or the newest of those behind a cursor; at most `limit`, and [`PAGE_ENTRIES_MAX`].
    ///
    /// Entries that are added later are newer than all pages, so that following `next` meets each entry once.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn page(&self, filter: &Filter, behind: Option<Cursor>, limit: usize) -> Result<Page, SearchError> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let mut entries = Vec::new();
        for day in self.days(filter, behind)?.into_iter().rev() {
            let before = behind.filter(|behind| behind.day == day).map(|behind| behind.seq);
            // One more than asked for says whether there are more.
            let wanted = limit + 1 - entries.len();
            let found = self.ask(day, |connection| {
                let Some(asked) = Asked::of(connection, day, filter, before)? else { return Ok(Vec::new()) };
                let (sql, values) = asked.select(COLUMNS, wanted);
                let mut words = Words { connection, texts: HashMap::new() };
                let mut select = connection.prepare_cached(&sql)?;
                let mut rows = select.query(values)?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(entry(row, &mut words)?);
                }
                Ok(found)
            })?;
            entries.extend(found.unwrap_or_default());
            if entries.len() > limit {
                break;
            }
        }
        let is_last = entries.len() <= limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| !is_last).map(Cursor::after);
        Ok(Page { entries, next })
    }

    /// How many entries match; [`COUNT_MAX`] stands for that many or more.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn count(&self, filter: &Filter) -> Result<u64, SearchError> {
        let mut counted = 0;
        for day in self.days(filter, None)?.into_iter().rev() {
            let found = self.ask(day, |connection| match Asked::of(connection, day, filter, None)? {
                Some(asked) => asked.count(connection, COUNT_MAX - counted),
                None => Ok(0),
            })?;
            counted += found.unwrap_or(0);
            if counted >= COUNT_MAX {
                break;
            }
        }
        Ok(counted)
    }

    /// The entry of the intent or refusal with this number, if the index has it.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn entry(&self, seq: u64) -> Result<Option<Entry>, SearchError> {
        for day in self.days(&Filter::default(), None)?.into_iter().rev() {
            let found = self.ask(day, |connection| {
                let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM calls WHERE seq = ?1"))?;
                let mut words = Words { connection, texts: HashMap::new() };
                let mut rows = select.query(params![int(seq)])?;
                rows.next()?.map(|row| entry(row, &mut words)).transpose()
            })?;
            if let Some(entry) = found.flatten() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Who called what, by whole hours: those that the range touches.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn graph(&self, since_micros: Option<u64>, until_micros: Option<u64>) -> Result<Graph, SearchError> {
        let range = Filter { since_micros, until_micros, ..Filter::default() };
        let mut sums = graph::Sums::default();
        for day in self.days(&range, None)? {
            self.ask(day, |connection| sums.add(connection, since_micros, until_micros))?;
        }
        Ok(sums.graph())
    }

    /// How many records the index has yet to take.
    ///
    /// # Errors
    /// The records or the index cannot be read.
    pub fn behind(&self) -> Result<u64, SearchError> {
        let newest = tail::newest_seq(&self.records).map_err(|error| SearchError::io(&self.records, error))?;
        Ok(newest.saturating_sub(self.position()?.seq))
    }

    /// Whether files are gone that it must have, or have not what they must: whoever keeps it has yet to notice, and makes them anew.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn lacks_files(&self) -> Result<bool, SearchError> {
        let Some(catalogue) = Catalogue::peek(&self.directory)? else { return Ok(true) };
        for known in catalogue.days()? {
            // One that was written to after it had gone is there again, with less.
            let to_seq = self.ask(known.day, |day| day.query_row("SELECT to_seq FROM filled", [], |row| row.get(0)))?;
            if to_seq.is_none_or(|to_seq| number(to_seq) < known.to_seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the files of all days, so that whoever keeps the index makes them anew.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn discard_days(&self) -> Result<(), SearchError> {
        let days = self.days(&Filter::default(), None)?;
        days.into_iter().try_for_each(|day| database::remove(&day::path_of(&self.directory, day)))
    }

    /// How far the index is.
    pub(super) fn position(&self) -> Result<Position, SearchError> {
        Catalogue::peek(&self.directory)?.map_or_else(|| Ok(Position::default()), |catalogue| catalogue.position())
    }

    /// The days of the index that may hold what is asked for, in order.
    fn days(&self, filter: &Filter, behind: Option<Cursor>) -> Result<Vec<u64>, SearchError> {
        let since = filter.since_micros.map_or(0, |since| since / DAY_MICROS);
        let until = filter.until_micros.map_or(u64::MAX, |until| until.saturating_sub(1) / DAY_MICROS);
        let until = behind.map_or(until, |behind| behind.day.min(until));
        let mut days = day::listed(&self.directory)?;
        days.retain(|day| (since..=until).contains(day));
        Ok(days)
    }

    /// Asks the file of a day; `None` if it is gone meanwhile.
    fn ask<T>(&self, day: u64, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<Option<T>, SearchError> {
        let path = day::path_of(&self.directory, day);
        let inode = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| SearchError::io(&path, error))?.ino(),
        };
        let kept = self.lock().remove(&day).filter(|opened| opened.inode == inode);
        let opened = match kept {
            Some(opened) => opened,
            None => Opened { connection: database::look(&path)?, inode },
        };
        // All statements see one state of the file.
        let answer = opened.connection.unchecked_transaction().and_then(|_transaction| ask(&opened.connection));
        let answer = answer.map_err(|error| SearchError::sqlite(&path, error))?;
        let mut open = self.lock();
        if open.len() < DAYS_OPEN_MAX {
            open.insert(day, opened);
        }
        Ok(Some(answer))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Words by their numbers, each read once.
struct Words<'c> {
    connection: &'c Connection,
    texts: HashMap<i64, String>,
}

impl Words<'_> {
    fn text(&mut self, id: Option<i64>) -> rusqlite::Result<Option<String>> {
        let Some(id) = id else { return Ok(None) };
        if let Some(text) = self.texts.get(&id) {
            return Ok(Some(text.clone()));
        }
        let mut read = self.connection.prepare_cached("SELECT text FROM words WHERE id = ?1")?;
        let text: String = read.query_row([id], |row| row.get(0))?;
        self.texts.insert(id, text.clone());
        Ok(Some(text))
    }
}

/// The entry of a row of [`COLUMNS`].
fn entry(row: &Row<'_>, words: &mut Words<'_>) -> rusqlite::Result<Entry> {
    let mut word = |column: usize| row.get(column).and_then(|id| words.text(id));
    let ended = match row.get::<_, Option<i64>>(22)? {
        None => None,
        Some(seq) => Some(Ended {
            seq: number(seq),
            outcome: word(17)?.unwrap_or_default(),
            reason: word(18)?,
            status: row.get(19)?,
            latency_micros: row.get::<_, Option<i64>>(20)?.map(number),
            cost: row.get(21)?,
        }),
    };
    Ok(Entry {
        seq: number(row.get(0)?),
        time_micros: number(row.get(1)?),
        decision: if row.get::<_, i64>(2)? == schema::REFUSED { Decision::Refused } else { Decision::Allowed },
        count: row.get::<_, Option<i64>>(3)?.map(number),
        source: source(row.get_ref(4)?),
        method: word(5)?,
        principal: word(6)?,
        user: word(7)?,
        agent: word(8)?,
        workspace: word(9)?,
        server: word(10)?,
        tool: word(11)?,
        resource: row.get(12)?,
        prompt: row.get(13)?,
        reason: word(14)?,
        rule: word(15)?,
        status: row.get(16)?,
        ended,
    })
}

fn source(value: ValueRef<'_>) -> Option<IpAddr> {
    match value {
        ValueRef::Integer(bits) => u32::try_from(bits).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        ValueRef::Blob(octets) => <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}
