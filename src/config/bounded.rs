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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_not_beyond() {
        let path = std::env::temp_dir().join(format!("portcullis-bounded-{}", std::process::id()));
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), "12345");
        assert!(matches!(read_regular(&path, 4), Err(ReadError::TooLarge(4))));
        std::fs::write(&path, b"ab\xff").unwrap();
        assert!(matches!(read_regular(&path, 5), Err(ReadError::NotText(2))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read_regular(&path, 5), Err(ReadError::Io(_))));
    }

    #[test]
    fn what_is_not_a_regular_file_is_not_waited_for() {
        assert!(matches!(read_regular(Path::new("/dev/zero"), 5), Err(ReadError::NotRegular)));
        assert!(matches!(read_text(Path::new("/dev/zero"), 5), Err(ReadError::TooLarge(5))));
    }
}
