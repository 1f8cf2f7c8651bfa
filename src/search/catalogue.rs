//! How far is the index, and which days has it?
//!
//! A small file beside those of the days. The position in it is written after what it stands for, so that a crash in between
//! has some records read twice and none left out; each day knows what it has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::params;

use crate::search::database;
use crate::search::database::int;
use crate::search::database::number;
use crate::search::error::SearchError;
use crate::search::tail::Mark;
use crate::search::tail::Position;

/// Name of the file.
const FILE: &str = "catalogue.sqlite";

const SCHEMA: &str = "
CREATE TABLE cursor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL, offset INTEGER NOT NULL, seq INTEGER NOT NULL,
    mark_segment INTEGER, mark_offset INTEGER, mark_bytes INTEGER
) STRICT;
CREATE TABLE days (
    day INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL, offset INTEGER NOT NULL, seq INTEGER NOT NULL,
    mark_segment INTEGER, mark_offset INTEGER, mark_bytes INTEGER,
    to_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL
) STRICT;
";

/// A day that the index has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// The day, counted from 1970-01-01 UTC.
    pub(super) day: u64,
    /// Nothing before this position is of that day.
    pub(super) from: Position,
    /// Number of the last record that its file must have heard of.
    pub(super) to_seq: u64,
    /// Number of the last request of the day.
    pub(super) last_seq: u64,
}

/// The file.
pub(super) struct Catalogue {
    connection: Connection,
    path: PathBuf,
    /// Which file that is.
    inode: Option<u64>,
}

impl Catalogue {
    /// Opens the file of an index's directory, or makes it.
    pub(super) fn open(directory: &Path) -> Result<Self, SearchError> {
        let path = directory.join(FILE);
        let connection = database::open(&path, SCHEMA)?;
        let inode = inode_of(&path);
        Ok(Self { connection, path, inode })
    }

    /// One that is nowhere, while another is put in its place.
    pub(super) fn nowhere() -> Result<Self, SearchError> {
        let path = PathBuf::new();
        let connection = Connection::open_in_memory().map_err(|error| SearchError::sqlite(&path, error))?;
        Ok(Self { connection, path, inode: None })
    }

    /// Whether the file is still where it was opened.
    pub(super) fn is_there(&self) -> bool {
        inode_of(&self.path) == self.inode
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// That of an index that somebody else keeps, to be asked; `None` if it is not there.
    pub(super) fn peek(directory: &Path) -> Result<Option<Self>, SearchError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let connection = database::look(&path)?;
        Ok(Some(Self { connection, path, inode: None }))
    }

    /// How far the records were read; at the beginning if nothing was.
    pub(super) fn position(&self) -> Result<Position, SearchError> {
        let sql = "SELECT segment, offset, seq, mark_segment, mark_offset, mark_bytes FROM cursor";
        let read = self.connection.query_row(sql, [], position);
        match read {
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Position::default()),
            read => self.told(read),
        }
    }

    /// Every day, in order.
    pub(super) fn days(&self) -> Result<Vec<Known>, SearchError> {
        let sql = "SELECT segment, offset, seq, mark_segment, mark_offset, mark_bytes, day, to_seq, last_seq
            FROM days ORDER BY day";
        let read = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let known = |row: &Row<'_>| {
                let [day, to_seq, last_seq] = [row.get(6)?, row.get(7)?, row.get(8)?].map(number);
                Ok(Known { from: position(row)?, day, to_seq, last_seq })
            };
            statement.query_map([], known)?.collect()
        });
        self.told(read)
    }

    /// A day begins in what follows `from`.
    pub(super) fn begin(&self, day: u64, from: &Position) -> Result<(), SearchError> {
        let sql = "INSERT OR REPLACE INTO days VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)";
        let [segment, offset, seq, mark_segment, mark_offset, mark_bytes] = columns(from);
        let values = params![int(day), segment, offset, seq, mark_segment, mark_offset, mark_bytes];
        self.told(self.connection.prepare_cached(sql).and_then(|mut insert| insert.execute(values)).map(drop))
    }

    /// The records up to `position` are in the files of their days, of which these took some: requests up to a number.
    pub(super) fn advance(&mut self, position: &Position, days: &[(u64, u64)]) -> Result<(), SearchError> {
        let advanced = self.connection.transaction().and_then(|transaction| {
            for (day, last_seq) in days {
                let sql = "UPDATE days SET to_seq = max(to_seq, ?2), last_seq = max(last_seq, ?3) WHERE day = ?1";
                let values = params![int(*day), int(position.seq), int(*last_seq)];
                transaction.prepare_cached(sql)?.execute(values)?;
            }
            set(&transaction, position)?;
            transaction.commit()
        });
        self.told(advanced)
    }

    /// These days are no longer there, and the records are to be read again from `position`.
    pub(super) fn retreat(&mut self, position: &Position, days: &[u64]) -> Result<(), SearchError> {
        let retreated = self.connection.transaction().and_then(|transaction| {
            for day in days {
                transaction.execute("DELETE FROM days WHERE day = ?1", params![int(*day)])?;
            }
            set(&transaction, position)?;
            transaction.commit()
        });
        self.told(retreated)
    }

    fn told<T>(&self, read: rusqlite::Result<T>) -> Result<T, SearchError> {
        read.map_err(|error| SearchError::sqlite(&self.path, error))
    }
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::metadata(path).map(|file| file.ino()).ok()
}

fn set(connection: &Connection, position: &Position) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO cursor VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)";
    connection.prepare_cached(sql)?.execute(columns(position)).map(drop)
}

fn columns(position: &Position) -> [Option<i64>; 6] {
    let Position { segment, offset, seq, mark } = *position;
    let of_mark = |value: fn(&Mark) -> u64| mark.as_ref().map(|mark| int(value(mark)));
    [
        Some(int(segment)),
        Some(int(offset)),
        Some(int(seq)),
        of_mark(|mark| mark.segment),
        of_mark(|mark| mark.offset),
        of_mark(|mark| mark.bytes),
    ]
}

fn position(row: &Row<'_>) -> rusqlite::Result<Position> {
    let mark = match (row.get::<_, Option<i64>>(3)?, row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?) {
        (Some(segment), Some(offset), Some(bytes)) => {
            Some(Mark { segment: number(segment), offset: number(offset), bytes: number(bytes) })
        }
        _ => None,
    };
    Ok(Position { segment: number(row.get(0)?), offset: number(row.get(1)?), seq: number(row.get(2)?), mark })
}
