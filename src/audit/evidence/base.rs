//! What stands for the records that retention removed?
//!
//! The file `base` in the audit directory: how many they were, the last one's number and digest, and the complete trees
//! over them, in a note that the log's key signs. Without the key nobody can say that records were removed; that it was done on
//! record, a record of kind `removed` under a checkpoint says.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::chain::Tip;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::audit::evidence::note::BadNote;
use crate::audit::evidence::note::SigningKey;
use crate::audit::evidence::note::VerifyingKey;
use crate::disk::replace::replace;

/// The first line of the note. A checkpoint has its origin there and a number below, where this has the origin: neither can be
/// taken for the other, whatever the origin.
const KIND: &str = "portcullis/base@v1";

/// Where what is kept of a log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::audit) struct Base {
    /// Records removed.
    pub(in crate::audit) leaves: u64,
    /// The last of them.
    pub(in crate::audit) tip: Tip,
    /// The complete trees over them.
    pub(in crate::audit) nodes: Vec<Hash>,
}

/// Why a base is not to be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadBase {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// The key did not sign it.
    #[error(transparent)]
    Note(#[from] BadNote),
}

/// Path of the file.
pub(super) fn file(audit: &Path) -> PathBuf {
    audit.join("base")
}

impl Base {
    /// What an audit directory's file says, whoever wrote it; `None` where nothing was removed.
    pub(super) fn read(audit: &Path) -> io::Result<Option<Self>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the file `base` cannot be understood");
        let Some(note) = note(audit)? else { return Ok(None) };
        let text = note.rfind("\n\n").and_then(|end| note.get(..=end));
        text.and_then(|text| Self::of(text, None)).map(Some).ok_or_else(bad)
    }

    /// The same, if this key signed it.
    pub(super) fn open(audit: &Path, key: &VerifyingKey) -> Result<Option<Self>, BadBase> {
        let Some(note) = note(audit)? else { return Ok(None) };
        let base = Self::of(key.open_text(&note)?, Some(key.name()));
        Ok(Some(base.ok_or(BadNote::Form)?))
    }

    /// Puts it in place of the last.
    pub(in crate::audit) fn write(&self, audit: &Path, key: &SigningKey) -> io::Result<()> {
        replace(&file(audit), key.sign_text(&self.text(key.public().name())).as_bytes())
    }

    fn text(&self, origin: &str) -> String {
        let mut text = format!("{KIND}\n{origin}\n{}\n{}\n", self.leaves, self.tip.seq);
        for hash in [&self.tip.hash].into_iter().chain(&self.nodes) {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{}", STANDARD.encode(hash));
        }
        text
    }

    fn of(text: &str, origin: Option<&str>) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (kind, name) = (lines.next()?, lines.next()?);
        let (leaves, seq) = (number(lines.next()?)?, number(lines.next()?)?);
        let hashes: Vec<Hash> =
            lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect::<Option<Vec<Hash>>>()?;
        let (prev, nodes) = hashes.split_first()?;
        let is_ours = kind == KIND && origin.is_none_or(|origin| origin == name) && leaves > 0 && leaves <= seq;
        let base = Self { leaves, tip: Tip { seq, hash: *prev }, nodes: nodes.to_vec() };
        (is_ours && base.frontier().is_some()).then_some(base)
    }

    pub(super) fn frontier(&self) -> Option<Frontier> {
        Frontier::new(self.leaves, self.nodes.clone())
    }
}

fn note(audit: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file(audit)) {
        Ok(note) => Ok(Some(note)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A number as it is written, without another way to write it.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(origin: &str) -> SigningKey {
        SigningKey::from_seed(&[7; 32], Some(origin)).unwrap()
    }

    #[test]
    fn a_base_is_believed_whole_and_of_its_own_log_alone() {
        let audit = std::env::temp_dir().join(format!("portcullis-base-{}", std::process::id()));
        let _ = fs::remove_dir_all(&audit);
        fs::create_dir_all(&audit).unwrap();
        assert_eq!(Base::open(&audit, key("a").public()).unwrap(), None);
        let base = Base { leaves: 5, tip: Tip { seq: 7, hash: [9; 32] }, nodes: vec![[1; 32], [2; 32]] };
        base.write(&audit, &key("a")).unwrap();
        assert_eq!(Base::open(&audit, key("a").public()).unwrap().as_ref(), Some(&base));
        assert_eq!(Base::read(&audit).unwrap(), Some(base.clone()));
        assert!(matches!(Base::open(&audit, key("b").public()), Err(BadBase::Note(BadNote::Unsigned))));
        let note = fs::read(file(&audit)).unwrap();
        for bit in 0..note.len() * 8 {
            let mut bad = note.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(file(&audit), bad).unwrap();
            assert!(Base::open(&audit, key("a").public()).is_err(), "bit {bit}");
        }
        // Signed, and no base.
        for bad in [
            Base { leaves: 0, nodes: Vec::new(), ..base.clone() },
            Base { leaves: 8, nodes: vec![[1; 32]], ..base.clone() },
            Base { leaves: 4, ..base.clone() },
        ] {
            bad.write(&audit, &key("a")).unwrap();
            assert!(Base::open(&audit, key("a").public()).is_err(), "{bad:?}");
        }
        fs::remove_dir_all(&audit).unwrap();
    }

    #[test]
    fn no_note_is_both_a_base_and_a_checkpoint() {
        let base = Base { leaves: 1, tip: Tip { seq: 1, hash: [9; 32] }, nodes: vec![[1; 32]] };
        for origin in [KIND, "1", "a"] {
            let key = key(origin);
            assert_eq!(key.public().open(&key.sign_text(&base.text(origin))), Err(BadNote::Form));
            let note = key.sign(1, &[1; 32]);
            assert_eq!(Base::of(key.public().open_text(&note).unwrap(), None), None);
        }
    }
}
