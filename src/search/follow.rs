//! What happens now?
//!
//! Reads the records behind the index as they come, and joins each intent with its result.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::search::entry::Ended;
use crate::search::entry::Entry;
use crate::search::error::SearchError;
use crate::search::look::Search;
use crate::search::record::Record;
use crate::search::record::Said;
use crate::search::tail;
use crate::search::tail::Found;
use crate::search::tail::Position;
use crate::search::tail::Tail;

/// Requests whose results are waited for; beyond that the oldest is told without one.
const WAITING_MAX: usize = 100_000;

/// The records behind the index of a directory.
pub struct Follow {
    records: PathBuf,
    search: Search,
    tail: Tail,
    /// Number of the last record that was taken: lines before it are passed over when they are read again.
    seq: u64,
    waiting: BTreeMap<u64, Entry>,
}

impl Follow {
    /// Begins where the index ends now: [`Search`] has what comes before.
    ///
    /// # Errors
    /// The index cannot be asked how far it is.
    pub fn behind_index(records: &Path) -> Result<Self, SearchError> {
        let search = Search::of(records);
        let position = search.position()?;
        let tail = Tail::new(records, position);
        Ok(Self { records: records.to_owned(), search, tail, seq: position.seq, waiting: BTreeMap::new() })
    }

    /// Number of the last record that was taken.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Takes the records that came since, a bounded number of them: refusals at once, other requests when they have ended.
    /// Empty where nothing has come.
    ///
    /// # Errors
    /// The records cannot be read, or the index not be asked for the request of a result.
    pub fn step(&mut self) -> Result<Vec<Entry>, SearchError> {
        let mut told = Vec::new();
        let mut ended: Vec<(u64, Ended)> = Vec::new();
        let (waiting, last) = (&mut self.waiting, &mut self.seq);
        let found = self.tail.read(|line| {
            let record = Record::read(line)?;
            if record.seq <= *last {
                return Some(record.seq);
            }
            *last = record.seq;
            match record.said {
                Said::Asked(entry) if entry.is_open() => {
                    waiting.insert(entry.seq, *entry);
                    if waiting.len() > WAITING_MAX {
                        told.extend(waiting.pop_first().map(|(_, entry)| entry));
                    }
                }
                Said::Asked(entry) => told.push(*entry),
                Said::Ended(intent, how) => match waiting.remove(&intent) {
                    Some(entry) => told.push(Entry { ended: Some(*how), ..entry }),
                    None => ended.push((intent, *how)),
                },
                Said::Recovered | Said::Other => {}
            }
            Some(record.seq)
        });
        match found.map_err(|error| SearchError::io(&self.records, error))? {
            Found::Less => self.go_on()?,
            Found::TakenBack => {
                // Their numbers are given again.
                self.seq = self.tail.position().seq;
                self.waiting.split_off(&(self.seq + 1));
            }
            Found::Lines | Found::Nothing => {}
        }
        for (intent, ended) in ended {
            if let Some(entry) = self.search.entry(intent)? {
                told.push(Entry { ended: Some(ended), ..entry });
            }
        }
        Ok(told)
    }

    /// What was read is gone or shorter: goes on in the newest segment.
    fn go_on(&mut self) -> Result<(), SearchError> {
        let segments = tail::segments(&self.records).map_err(|error| SearchError::io(&self.records, error))?;
        let next = segments.iter().find(|first| **first > self.seq).or(segments.last());
        self.tail.go_to(next.map(|segment| Position::beginning(*segment)).unwrap_or_default());
        Ok(())
    }
}
