//! Which records come after one another?
//!
//! Lines as they stand, without a look at whether they hang together: to show, to search and to follow. What a failed segment holds beyond
//! what counts is left out, and so is what stands below the base: nobody can tell whether it was there.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::audit::chain;
use crate::audit::chain::Lead;
use crate::audit::chain::Lines;
use crate::audit::evidence::find::Place;
use crate::audit::evidence::walk;

/// From when and until when records are wanted, as times stand in records.
#[derive(Debug, Clone, Default)]
pub struct Period {
    /// The first time.
    pub since: Option<String>,
    /// The first time after it.
    pub until: Option<String>,
}

impl Period {
    /// Whether a line's record was made in it.
    pub fn holds(&self, line: &[u8]) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = Lead::read(line).and_then(|lead| lead.time()).unwrap_or_default();
        self.since.as_ref().is_none_or(|since| time >= since.as_bytes())
            && self.until.as_ref().is_none_or(|until| time < until.as_bytes())
    }
}

/// Reads the lines of a directory in their order, and those that come.
pub struct Reader {
    audit: PathBuf,
    at: Option<(PathBuf, u64)>,
    /// Those of the segment that is read, and whether there was a next one when it was opened: then they are all there.
    lines: Option<(Lines, bool)>,
}

impl Reader {
    /// From the first record on.
    pub fn from_start(audit: &Path) -> Self {
        Self { audit: audit.to_owned(), at: None, lines: None }
    }

    /// From behind a record on.
    pub fn after(audit: &Path, place: &Place) -> Self {
        let offset = place.offset + place.line.len() as u64 + 1;
        Self { audit: audit.to_owned(), at: Some((place.segment.clone(), offset)), lines: None }
    }

    /// Goes on behind what is there now; returns the last `count` lines of that which `wanted` takes, segment by segment from the end.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn last(audit: &Path, count: usize, mut wanted: impl FnMut(&[u8]) -> bool) -> io::Result<(Vec<Vec<u8>>, Self)> {
        let segments = walk::kept(audit)?;
        let (mut found, mut reader) = (VecDeque::new(), Self::from_start(audit));
        for (position, segment) in segments.iter().enumerate().rev() {
            let counted = chain::counted_bytes(segment, segments.get(position + 1))?;
            let (mut lines, mut offset, mut of_segment) = (Lines::open(segment, counted)?, 0, VecDeque::new());
            while let Some(whole) = lines.next()? {
                let Some(line) = whole.strip_suffix(b"\n") else { break };
                offset += whole.len() as u64;
                if wanted(line) {
                    of_segment.push_back(line.to_vec());
                    if of_segment.len() + found.len() > count {
                        of_segment.pop_front();
                    }
                }
            }
            reader.at.get_or_insert((segment.clone(), offset));
            of_segment.append(&mut found);
            found = of_segment;
            if found.len() >= count {
                break;
            }
        }
        Ok((found.into(), reader))
    }

    /// The next line, without its newline; `None` where none is yet. May be asked again.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let (Some((lines, _)), Some((_, offset))) = (&mut self.lines, &mut self.at)
                && let Some(whole) = lines.next()?
                && let Some(line) = whole.strip_suffix(b"\n")
            {
                *offset += whole.len() as u64;
                return Ok(Some(line.to_vec()));
            }
            // What follows may have been written meanwhile, here or in the next segment.
            let is_whole = self.lines.take().map(|(_, is_whole)| is_whole);
            let segments = walk::kept(&self.audit)?;
            let next = segments.iter().find(|segment| self.at.as_ref().is_none_or(|(at, _)| *segment > at));
            match (&mut self.at, next, is_whole) {
                (Some(_), None, Some(_)) | (None, None, _) => return Ok(None),
                // Once more where a next one has come: what was written to this one before it is there only now.
                (Some((at, offset)), next, None | Some(false)) => {
                    let counted = chain::counted_bytes(at, next)?;
                    self.lines = Some((Lines::open_at(at, *offset, counted)?, next.is_some()));
                }
                (at, Some(next), _) => *at = Some((next.clone(), 0)),
            }
        }
    }
}
