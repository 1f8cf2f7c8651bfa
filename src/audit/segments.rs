//! Which file takes the next line?
//!
//! A segment is named after its first record and ends when it has its size, or for good at the first error: it is
//! cut back to what counts and never written to again, because after a failed sync the kernel may have forgotten
//! what it has not written. The next segment's first record says how much of a failed one counts.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::chain;
use crate::audit::chain::Tip;
use crate::disk::append::AppendFile;
use crate::disk::directory::Directory;

/// Makes the file of a new segment; tests put files here that really fail.
pub(super) type Create = Box<dyn FnMut(&Path) -> io::Result<AppendFile> + Send>;

/// Where a segment stopped counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// The segment's name.
    pub(super) segment: String,
    /// Bytes that count.
    pub(super) kept: u64,
    /// Bytes that do not.
    pub(super) cut: u64,
}

/// The segments of one directory, of which the last is written to.
pub(super) struct Segments {
    directory: Directory,
    create: Create,
    bytes_max: u64,
    current: Option<Current>,
    /// Where the last failed segment stopped counting; kept until a record says so.
    cut: Option<Cut>,
    /// A file of a failed attempt in which nothing counts. No new segment is begun beside it.
    leftover: Option<PathBuf>,
    /// Whether a segment's name may not be on the disk yet.
    names_unsynced: bool,
}

struct Current {
    name: String,
    file: AppendFile,
    synced_bytes: u64,
}

/// Why a line was not written beside another process.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) error: io::Error,
    /// Nothing of it stands and no sync has failed: the next line may be tried.
    pub(super) is_clean: bool,
}

/// How much of a failed segment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// What was handed to the kernel whole.
    Written,
    /// What a sync has reached.
    Synced,
}

impl Segments {
    /// Goes on with `last`, whose content is on the disk, or begins a new segment at the next line.
    pub(super) fn new(
        directory: Directory,
        create: Create,
        bytes_max: u64,
        last: Option<(String, AppendFile)>,
    ) -> Self {
        let current = last.map(|(name, file)| Current { name, synced_bytes: file.bytes(), file });
        Self { directory, create, bytes_max, current, cut: None, leftover: None, names_unsynced: false }
    }

    /// Makes the segment for record `first_seq` if there is none to go on with, so that a directory that cannot be
    /// written to is found out before it matters.
    pub(super) fn prepare(&mut self, first_seq: u64) -> io::Result<()> {
        if self.current.is_none() {
            self.current = Some(self.begin(first_seq)?);
        }
        self.sync_names()
    }

    /// Hands whole lines to the kernel, of which the first is record `first_seq`. Returns the segment before if this
    /// one was begun for them: [`Segments::finish`] is due.
    pub(super) fn append(&mut self, lines: &[u8], first_seq: u64) -> io::Result<Option<AppendFile>> {
        let mut finished = None;
        if self.current.as_ref().is_none_or(|current| current.file.bytes() >= self.bytes_max) {
            let new = self.begin(first_seq)?;
            finished = self.current.replace(new).map(|old| old.file);
        }
        let appended = match &mut self.current {
            Some(current) => current.file.append(lines),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let (Err(_), Some(finished)) = (&appended, &mut finished) {
            // The error at hand is the one to tell; the segment before is complete either way.
            let _ = Self::finish(finished);
        }
        appended.map(|()| finished)
    }

    /// Hands lines to the kernel, and at `synced` to the disk, beside another process that does the same. `make` is told
    /// where the chain ends if it is no longer at `tip`, and gives the lines and the chain's new end. Begins no segment:
    /// the other would go on in the old one.
    pub(super) fn append_beside(
        &mut self,
        tip: Tip,
        synced: bool,
        make: impl FnOnce(Tip) -> (Vec<u8>, Tip),
    ) -> Result<Tip, Missed> {
        let missing = || Missed { error: io::ErrorKind::NotFound.into(), is_clean: false };
        let current = self.current.as_mut().ok_or_else(missing)?;
        let path = self.directory.path().join(&current.name);
        let mut is_clean = true;
        let written = current.file.in_turn(|file, is_moved| {
            let tip = if is_moved { end_of(&path)? } else { tip };
            let (lines, end) = make(tip);
            let before = file.bytes();
            let appended = file.append(&lines);
            is_clean = appended.is_err();
            let written = appended.and_then(|()| if synced { file.sync() } else { Ok(()) });
            if let Err(error) = written {
                // Nobody else is at the end, so what is cut off is ours.
                file.cut(before).inspect_err(|_| is_clean = false)?;
                return Err(error);
            }
            Ok(end)
        });
        written.map_err(|error| Missed { error, is_clean })
    }

    /// Whether the directory is this process's alone again; then the chain's end, which is `tip` as long as the segment is
    /// empty. Part of a line that the other left is cut off: [`Segments::cut`] is to be told. May be tried again after
    /// an error.
    pub(super) fn claim(&mut self, tip: Tip) -> io::Result<Option<Tip>> {
        if !self.directory.claim()? {
            return Ok(None);
        }
        let current = self.current.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let path = self.directory.path().join(&current.name);
        let mut torn = None;
        // Read whatever the length says: after a failed attempt it may be what it was, and the last line another's.
        let tip = current.file.in_turn(|file, _| {
            let whole = chain::whole_bytes(&path)?;
            if whole < file.bytes() {
                torn = Some((whole, file.cut(whole)?));
            }
            if whole == 0 { Ok(tip) } else { end_of(&path) }
        });
        if let Some((kept, cut)) = torn {
            self.cut = Some(Cut { segment: current.name.clone(), kept, cut });
        }
        let tip = tip?;
        current.file.sync()?;
        current.synced_bytes = current.file.bytes();
        Ok(Some(tip))
    }

    /// Lets the next process join.
    pub(super) fn share(&self) -> io::Result<()> {
        self.directory.share()
    }

    fn begin(&mut self, first_seq: u64) -> io::Result<Current> {
        if let Some(leftover) = &self.leftover {
            remove(leftover)?;
            self.leftover = None;
        }
        let name = chain::segment_name(first_seq);
        let file = (self.create)(&self.directory.path().join(&name))?;
        self.names_unsynced = true;
        Ok(Current { name, file, synced_bytes: 0 })
    }

    /// Returns when everything appended, and its name, is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            current.file.sync()?;
            current.synced_bytes = current.file.bytes();
        }
        self.sync_names()
    }

    /// Returns when every segment's name is on the disk.
    pub(super) fn sync_names(&mut self) -> io::Result<()> {
        if self.names_unsynced {
            self.directory.sync()?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    /// Puts a segment that takes no more lines on the disk and gives its reserved space back.
    pub(super) fn finish(file: &mut AppendFile) -> io::Result<()> {
        file.sync()?;
        file.cut(file.bytes()).map(|_| ())
    }

    /// Gives back the space reserved for the current segment, when service ends.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(current) => current.file.cut(current.file.bytes()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Closes the current segment for good, after an error.
    pub(super) fn abandon(&mut self, keep: Keep) {
        let Some(mut current) = self.current.take() else { return };
        let kept = match keep {
            Keep::Written => current.file.bytes(),
            Keep::Synced => current.synced_bytes,
        };
        if kept == 0 {
            let path = self.directory.path().join(&current.name);
            self.leftover = remove(&path).err().map(|_| path);
            return;
        }
        let beyond = current.file.torn_bytes() + (current.file.bytes() - kept);
        let cut = current.file.cut(kept).unwrap_or(beyond);
        // What was cut off it when it was claimed is told with it.
        let before = self.cut.take().filter(|before| before.segment == current.name).map_or(0, |before| before.cut);
        self.cut = Some(Cut { segment: current.name, kept, cut: before + cut });
    }

    /// A record says where the last segment stopped counting.
    pub(super) fn told_cut(&mut self) {
        self.cut = None;
    }

    /// Where the last failed segment stopped counting.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.cut.clone()
    }

    /// Begins a segment after a failure: its first line is on record when this returns, and on the disk.
    pub(super) fn resume(&mut self, line: &[u8], seq: u64) -> io::Result<()> {
        let resumed = self.append(line, seq).and_then(|_| self.sync());
        match resumed {
            Ok(()) => self.cut = None,
            Err(_) => self.abandon_attempt(),
        }
        resumed
    }

    /// The segment that failed first is the one whose cut must be told.
    fn abandon_attempt(&mut self) {
        let cut = self.cut.take();
        if let Some(current) = &mut self.current {
            current.synced_bytes = 0;
        }
        self.abandon(Keep::Synced);
        self.cut = cut;
    }
}

fn end_of(segment: &Path) -> io::Result<Tip> {
    chain::end_of(segment, u64::MAX)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the segment's last line is torn"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
