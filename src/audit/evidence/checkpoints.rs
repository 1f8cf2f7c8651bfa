//! Which checkpoints were signed?
//!
//! The file `checkpoints` in the audit directory: one note of five lines after the other, so that `tail -n 5` is the newest. A torn
//! end, which a crash leaves, is cut off and kept aside; that the notes are true is for whoever reads them to see.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::aside;
use crate::audit::evidence::note::SIGNATURE;
use crate::audit::segments::Cut;
use crate::disk::append::AppendFile;

/// Lines of a note of ours.
pub(super) const NOTE_LINES: usize = 5;
/// Bytes at the end of the file in which its last note is looked for; a note of ours is far smaller.
const TAIL_BYTES_MAX: u64 = 64 * 1024;

/// Path of the file.
pub(super) fn file(audit: &Path) -> PathBuf {
    audit.join("checkpoints")
}

/// The end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last whole note.
    pub(super) last: Option<String>,
    /// How many bytes are whole notes.
    pub(super) whole: u64,
    /// How many bytes follow them.
    pub(super) torn: u64,
}

/// Looks at the end of the file; one that is not there is empty.
pub(super) fn tail(path: &Path) -> io::Result<Tail> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tail { last: None, whole: 0, torn: 0 }),
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    let mut end = bytes;
    loop {
        let start = end.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.by_ref().take(end - start).read_to_end(&mut tail)?;
        // A page that never reached the disk reads as zeros.
        let zero = tail.iter().position(|byte| *byte == 0);
        let text = tail.get(..zero.unwrap_or(tail.len())).unwrap_or_default();
        if let Some((note, whole)) = last_note(text) {
            let whole = start + whole as u64;
            return Ok(Tail { last: Some(note), whole, torn: bytes - whole });
        }
        match zero {
            _ if start == 0 => return Ok(Tail { last: None, whole: 0, torn: bytes }),
            // However many they are, what counts stands before them.
            Some(zero) => end = start + zero as u64,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no checkpoint is to be found at the end of the file (help: somebody wrote into it; move it away, and it begins anew)",
                ));
            }
        }
    }
}

/// The last whole note in a text that may begin within one, and where it ends.
fn last_note(text: &[u8]) -> Option<(String, usize)> {
    let ends = memchr::memchr_iter(b'\n', text).map(|newline| newline + 1);
    let starts = [0].into_iter().chain(ends.clone());
    let lines: Vec<(usize, usize)> = starts.zip(ends).collect();
    let is_signature =
        |line: &(usize, usize)| text.get(line.0..line.1).is_some_and(|line| line.starts_with(SIGNATURE.as_bytes()));
    let last = lines.iter().rposition(is_signature)?;
    let end = lines.get(last).map_or(0, |line| line.1);
    let begin = (last + 1).checked_sub(NOTE_LINES).and_then(|first| lines.get(first)).map_or(0, |line| line.0);
    let note = text.get(begin..end)?;
    Some((String::from_utf8_lossy(note).into_owned(), end))
}

/// Cuts off what is no whole note at the end, and keeps it aside. To be called in turn with others who append.
pub(super) fn mend(path: &Path, file: &mut AppendFile) -> io::Result<Option<Cut>> {
    let tail = tail(path)?;
    if tail.torn == 0 {
        return Ok(None);
    }
    aside::keep(path, tail.whole)?;
    file.cut(tail.whole)?;
    Ok(Some(Cut { segment: "checkpoints".to_owned(), kept: tail.whole, cut: tail.torn }))
}

/// Two notes with an empty line between them.
pub(super) fn split_pair(notes: &str) -> Option<(&str, &str)> {
    let (end, _) = notes.match_indices('\n').nth(NOTE_LINES - 1)?;
    let (first, rest) = notes.split_at_checked(end + 1)?;
    Some((first, rest.strip_prefix('\n')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "a\n1\nroot\n\n— a signature\n";
    const OTHER: &str = "a\n2\nroot\n\n— a signature\n";

    #[test]
    fn the_last_whole_note_is_found_whatever_a_crash_left_behind_it() {
        let path = std::env::temp_dir().join(format!("portcullis-checkpoints-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert_eq!(tail(&path).unwrap(), Tail { last: None, whole: 0, torn: 0 });
        let notes = format!("{NOTE}{OTHER}");
        let zeros = [vec![0; 4096], vec![0; 70_000], vec![0; 200_000]];
        for torn in (0..NOTE.len()).map(|end| NOTE.as_bytes()[..end].to_vec()).chain(zeros) {
            std::fs::write(&path, [notes.as_bytes(), &torn].concat()).unwrap();
            let found = tail(&path).unwrap();
            assert_eq!(found, Tail { last: Some(OTHER.into()), whole: notes.len() as u64, torn: torn.len() as u64 });
        }
        std::fs::write(&path, &NOTE[..9]).unwrap();
        assert_eq!(tail(&path).unwrap(), Tail { last: None, whole: 0, torn: 9 });
        std::fs::write(&path, NOTE.repeat(5_000)).unwrap();
        assert_eq!(tail(&path).unwrap().last.as_deref(), Some(NOTE));
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(tail(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn two_notes_are_told_apart_by_their_lines() {
        assert_eq!(split_pair(&format!("{NOTE}\n{OTHER}")), Some((NOTE, OTHER)));
        assert_eq!(split_pair(&format!("{NOTE}{OTHER}")), None);
        assert_eq!(split_pair(""), None);
    }
}
