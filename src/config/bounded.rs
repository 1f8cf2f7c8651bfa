//! How is a file read that may be larger than it should be?

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Why a file could not be read. Its content is in no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it is not UTF-8 (byte {0})")]
    NotText(usize),
    #[error("it is not a regular file")]
    NotRegular,
}

/// The file's text, at most `bytes_max` of it.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(ReadError::TooLarge(bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| ReadError::NotText(error.utf8_error().valid_up_to()))
}

/// The same for a file that must be a regular one: reading a pipe could wait for ever.
pub(crate) fn read_regular(path: &Path, bytes_max: usize) -> Result<String, ReadError> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NotRegular);
    }
    read_text(path, bytes_max)
}
