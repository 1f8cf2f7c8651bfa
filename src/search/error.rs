//! Why can the index not be used?

use std::io;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::disk::directory::DirectoryError;

/// Why the index, or the records it is made of, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Another process keeps the index.
    #[error("the index is kept by another process")]
    Kept,
    /// The index's directory cannot be used.
    #[error("the index's {0}")]
    Directory(DirectoryError),
    /// A file cannot be read or written.
    #[error("`{}`: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of the index is damaged. It holds nothing that is not on record: [`discard`](crate::search::discard) it.
    #[error("the index is damaged: `{}`", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Whoever keeps the index makes it anew, and has not done yet.
    #[error("the running gateway makes the index anew, and {behind} records are left: ask again later")]
    Remade {
        /// Records that it has yet to take.
        behind: u64,
    },
    /// The disk is nearly full, and what is left is for records.
    #[error("less than {} MiB are free, which are left to the record: the index is not written", .free_bytes_min / (1024 * 1024))]
    NoRoom {
        /// What must stay free.
        free_bytes_min: u64,
    },
    /// SQLite said no.
    #[error("`{}`: {error}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: rusqlite::Error,
    },
}

impl SearchError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }

    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path },
            _ if is_of_another_form(&error) => Self::Damaged { path },
            _ => Self::Sqlite { path, error },
        }
    }
}

/// A table or column that is not there, a value of another type: somebody else's file, or one that lost a page.
fn is_of_another_form(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqlInputError { .. } => true,
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.starts_with("no such "),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

impl From<DirectoryError> for SearchError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Locked { .. } => Self::Kept,
            error => Self::Directory(error),
        }
    }
}
