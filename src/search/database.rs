//! How is a file of the index opened?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::search::error::SearchError;

/// Says in a file's head that it is one of ours.
const APPLICATION_ID: i32 = 0x506f_7274;
/// Form of the files. One of another form is made anew, so that nothing is ever migrated.
const FORM: i32 = 2;
/// How long is waited for another connection to the same file.
const BUSY: Duration = Duration::from_secs(5);
/// Within how long whoever makes a file has made it, and how often that is looked at.
const MADE_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// Statements that are kept prepared.
const STATEMENTS_MAX: usize = 64;

/// Opens a file to write to it; makes it, with what `schema` says, if it is not there.
pub(super) fn open(path: &Path, schema: &str) -> Result<Connection, SearchError> {
    let failed = |error| SearchError::sqlite(path, error);
    // SQLite gives its own files the mode of this one.
    let made = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map_err(|error| SearchError::io(path, error))?;
    path.parent().into_iter().for_each(|directory| give_to_owner(path, directory));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    let opened = connection.busy_timeout(BUSY).and_then(|()| {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // What a power cut takes is written again from the records. Files of the index alone are written, so that nothing
        // temporary ever leaves their directory.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 16777216; PRAGMA trusted_schema = OFF;
             PRAGMA wal_autocheckpoint = 4000;",
        )?;
        let transaction = connection.transaction()?;
        let form: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let id: i32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        if (id, form) == (0, 0) {
            transaction.execute_batch(schema)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", FORM)?;
            transaction.commit()?;
            return Ok(true);
        }
        Ok((id, form) == (APPLICATION_ID, FORM))
    });
    match opened.map_err(failed)? {
        true => Ok(connection),
        false => Err(SearchError::Damaged { path: path.to_owned() }),
    }
}

/// What root makes belongs to the owner of the directory it is in, so that a gateway can go on with it. Whoever else tries makes
/// no difference.
pub(super) fn give_to_owner(path: &Path, directory: &Path) {
    if rustix::process::geteuid().is_root()
        && let Ok(owner) = fs::metadata(directory)
    {
        // What cannot be given is found out by who cannot use it.
        let _ = std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Opens a file to ask it, beside whoever writes to it. One that is being made is waited for.
pub(super) fn look(path: &Path) -> Result<Connection, SearchError> {
    let begun = Instant::now();
    loop {
        match try_look(path) {
            Ok(Some(connection)) => return Ok(connection),
            Ok(None) | Err(SearchError::Sqlite { .. }) if path.exists() && begun.elapsed() < MADE_WITHIN => {
                thread::sleep(PAUSE);
            }
            Ok(None) => return Err(SearchError::Damaged { path: path.to_owned() }),
            Err(error) => return Err(error),
        }
    }
}

/// The same at once; `None`: there is nothing in it yet.
fn try_look(path: &Path) -> Result<Option<Connection>, SearchError> {
    let failed = |error| SearchError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384").map_err(failed)?;
    let head = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i32>(0)).map_err(failed);
    match (head("PRAGMA application_id")?, head("PRAGMA user_version")?) {
        (APPLICATION_ID, FORM) => Ok(Some(connection)),
        (0, 0) => Ok(None),
        _ => Err(SearchError::Damaged { path: path.to_owned() }),
    }
}

/// Removes a file and those that SQLite keeps beside it.
pub(super) fn remove(path: &Path) -> Result<(), SearchError> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let file = PathBuf::from(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SearchError::io(&file, error)),
            _ => {}
        }
    }
    Ok(())
}

/// As SQLite counts. No number of records, bytes or microseconds comes near the bound.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What [`int`] made.
pub(super) fn number(int: i64) -> u64 {
    u64::try_from(int).unwrap_or(0)
}
