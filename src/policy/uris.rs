//! Which resources may be read, by one list of allowed and one of blocked URIs?
//!
//! What is allowed must be so in every reading, letter by letter; what is blocked is so in any reading, in either case
//! of its letters. Lists are compiled once however often they are written, and kept over reloads by their text.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::mcp::uri;
use crate::mcp::uri::Uri;
use crate::policy::uri_set::Case;
use crate::policy::uri_set::Entry;
use crate::policy::uri_set::UriSet;

/// Entries of one list.
pub(super) const URI_ENTRIES_MAX: usize = 1_000;
/// Bytes of one entry.
pub(super) const URI_ENTRY_BYTES_MAX: usize = 1_024;
/// Bytes of the tables of all lists of a configuration together.
pub(super) const URI_TABLES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A list of blocked URIs.
#[derive(Default)]
pub(super) struct Blocked(UriSet);

/// A list of allowed URIs.
#[derive(Default)]
pub(super) struct Allowed {
    /// The patterns as they were written, for URIs as they were written.
    exact: UriSet,
    /// The patterns as they were written and as a less exact reader takes them, for what such a reader takes a URI for.
    loose: UriSet,
}

impl Blocked {
    fn compile(patterns: &[String]) -> Result<Self, Vec<usize>> {
        let entries = entries(patterns, |pattern| {
            let decoded = uri::decoded(pattern);
            vec![uri::loose(&decoded), decoded, uri::loose(pattern)]
        });
        UriSet::compile(&entries, Case::Ignored).map(Self)
    }

    /// The position of an entry that matches any reading of `uri`. A search that cannot finish matches.
    pub(super) fn find(&self, uri: &Uri<'_>) -> Option<usize> {
        uri.readings().find_map(|reading| self.0.find(reading).unwrap_or(Some(0)))
    }
}

impl Allowed {
    fn compile(patterns: &[String]) -> Result<Self, Vec<usize>> {
        let exact = UriSet::compile(&entries(patterns, |_| Vec::new()), Case::Exact)?;
        let loose = UriSet::compile(&entries(patterns, |pattern| vec![uri::loose(pattern)]), Case::Exact)?;
        Ok(Self { exact, loose })
    }

    /// Whether the list has `uri`, whoever reads it.
    pub(super) fn has(&self, uri: &Uri<'_>) -> bool {
        let finds = |set: &UriSet, text| set.find(text).is_ok_and(|found| found.is_some());
        finds(&self.exact, uri.text()) && uri.loose().is_none_or(|loose| finds(&self.loose, loose))
    }
}

/// The entries with their further spellings.
fn entries(patterns: &[String], further: impl Fn(&str) -> Vec<String>) -> Vec<Entry> {
    let entries = patterns.iter().enumerate().map(|(position, pattern)| {
        let mut spellings = vec![pattern.clone()];
        for spelling in further(pattern) {
            if !spellings.contains(&spelling) {
                spellings.push(spelling);
            }
        }
        Entry { position, spellings }
    });
    entries.collect()
}

/// The lists of a configuration by their text.
#[derive(Default)]
pub(super) struct UriLists {
    blocked: HashMap<Box<[String]>, Result<Arc<Blocked>, Vec<usize>>>,
    allowed: HashMap<Box<[String]>, Result<Arc<Allowed>, Vec<usize>>>,
    tables_bytes: usize,
}

impl UriLists {
    /// The list of blocked URIs written at `at`, taken from `previous` if it is there.
    pub(super) fn blocked(
        &mut self,
        patterns: &[String],
        previous: Option<&Self>,
        at: &At,
        problems: &mut Problems,
    ) -> Arc<Blocked> {
        if !check(patterns, at, problems) {
            return Arc::default();
        }
        if let Some(known) = self.blocked.get(patterns) {
            return admit_known(known, at, problems);
        }
        let reused = previous.and_then(|previous| previous.blocked.get(patterns)).cloned();
        let outcome = reused.unwrap_or_else(|| Blocked::compile(patterns).map(Arc::new));
        let bytes = outcome.as_ref().map_or(0, |list| list.0.bytes());
        self.admit(bytes, URI_TABLES_BYTES_MAX, at, problems);
        self.blocked.insert(patterns.into(), outcome.clone());
        admit_known(&outcome, at, problems)
    }

    /// The list of allowed URIs written at `at`, taken from `previous` if it is there.
    pub(super) fn allowed(
        &mut self,
        patterns: &[String],
        previous: Option<&Self>,
        at: &At,
        problems: &mut Problems,
    ) -> Arc<Allowed> {
        if !check(patterns, at, problems) {
            return Arc::default();
        }
        if let Some(known) = self.allowed.get(patterns) {
            return admit_known(known, at, problems);
        }
        let reused = previous.and_then(|previous| previous.allowed.get(patterns)).cloned();
        let outcome = reused.unwrap_or_else(|| Allowed::compile(patterns).map(Arc::new));
        let bytes = outcome.as_ref().map_or(0, |list| list.exact.bytes() + list.loose.bytes());
        self.admit(bytes, URI_TABLES_BYTES_MAX, at, problems);
        self.allowed.insert(patterns.into(), outcome.clone());
        admit_known(&outcome, at, problems)
    }

    fn admit(&mut self, bytes: usize, bytes_max: usize, at: &At, problems: &mut Problems) {
        self.tables_bytes += bytes;
        if self.tables_bytes > bytes_max {
            let help = "use the same list in several places, which costs once, or fewer patterns";
            problems.error(at, "with this list all lists of URIs together grow too large", help);
        }
    }
}

/// The list, or what is wrong with it and one that is not fit to be served.
fn admit_known<L: Default>(outcome: &Result<Arc<L>, Vec<usize>>, at: &At, problems: &mut Problems) -> Arc<L> {
    match outcome {
        Ok(list) => Arc::clone(list),
        Err(too_large) => {
            for position in too_large {
                let help = "use fewer `*`, or several patterns";
                problems.error(&at.index(*position), "the pattern grows too large when compiled", help);
            }
            Arc::default()
        }
    }
}

/// Whether a list can be compiled; what is wrong with it is reported.
fn check(patterns: &[String], at: &At, problems: &mut Problems) -> bool {
    let mut is_fit = patterns.len() <= URI_ENTRIES_MAX;
    if !is_fit {
        let message = format!("{} entries, and at most {URI_ENTRIES_MAX} are possible", patterns.len());
        problems.error(at, message, "`**` stands for any text: `file:///data/**`");
    }
    for (index, pattern) in patterns.iter().enumerate().take(URI_ENTRIES_MAX) {
        if let Err(message) = check_entry(pattern) {
            problems.error(&at.index(index), message, "write a URI, or a part of it with `*` or `**`");
            is_fit = false;
        }
    }
    is_fit
}

fn check_entry(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("an empty pattern matches no resource".to_owned());
    }
    if pattern.len() > URI_ENTRY_BYTES_MAX {
        return Err(format!("a pattern of {} bytes, and at most {URI_ENTRY_BYTES_MAX} are possible", pattern.len()));
    }
    if pattern.trim() != pattern {
        return Err(format!("`{pattern}` begins or ends with white space"));
    }
    Ok(())
}
