//! Which resources may be read, by one list of allowed and one of blocked URIs?
//!
//! What is allowed must be so in every reading, letter by letter; what is blocked is so in any reading, in either case
//! of its letters. Lists are compiled once however often they are written, and kept over reloads by their text.

mod set;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::mcp::uri;
use crate::mcp::uri::Uri;
use crate::mcp::uri::UriFlaw;
use crate::policy::uris::set::Case;
use crate::policy::uris::set::Entry;
use crate::policy::uris::set::UriSet;

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
    /// The patterns as they were written and as a less exact reader takes them, for what such a reader takes a URI for;
    /// `None` if that changes none.
    loose: Option<UriSet>,
}

impl Blocked {
    /// The position of an entry that matches any reading of `uri`. A search that cannot finish matches.
    pub(super) fn find(&self, uri: &Uri<'_>) -> Option<usize> {
        uri.readings().find_map(|reading| self.0.find(reading).unwrap_or(Some(0)))
    }
}

impl Allowed {
    /// Whether the list has `uri`, whoever reads it.
    pub(super) fn has(&self, uri: &Uri<'_>) -> bool {
        let finds = |set: &UriSet, text| set.find(text).is_ok_and(|found| found.is_some());
        finds(&self.exact, uri.text())
            && uri.loose().is_none_or(|loose| finds(self.loose.as_ref().unwrap_or(&self.exact), loose))
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

/// A list that can be compiled.
trait List: Default {
    /// Compiles patterns; the positions of those that grow too large come back instead.
    fn compile(patterns: &[String]) -> Result<Self, Vec<usize>>;

    /// Bytes of its tables.
    fn bytes(&self) -> usize;
}

impl List for Blocked {
    fn compile(patterns: &[String]) -> Result<Self, Vec<usize>> {
        let entries = entries(patterns, |pattern| {
            let decoded = uri::decoded(pattern);
            vec![uri::joined(&decoded), decoded, uri::joined(pattern)]
        });
        UriSet::compile(&entries, Case::Ignored).map(Self)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl List for Allowed {
    fn compile(patterns: &[String]) -> Result<Self, Vec<usize>> {
        let exact = UriSet::compile(&entries(patterns, |_| Vec::new()), Case::Exact)?;
        if patterns.iter().all(|pattern| uri::loose(pattern) == *pattern) {
            return Ok(Self { exact, loose: None });
        }
        let loose = UriSet::compile(&entries(patterns, |pattern| vec![uri::loose(pattern)]), Case::Exact)?;
        Ok(Self { exact, loose: Some(loose) })
    }

    fn bytes(&self) -> usize {
        self.exact.bytes() + self.loose.as_ref().map_or(0, UriSet::bytes)
    }
}

/// The same patterns as either list; for `fuzzing`. What does not compile allows and blocks nothing.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn lists(patterns: &[String]) -> (Allowed, Blocked) {
    (Allowed::compile(patterns).unwrap_or_default(), Blocked::compile(patterns).unwrap_or_default())
}

/// The lists of a configuration by their text.
#[derive(Default)]
pub(super) struct UriLists {
    blocked: Known<Blocked>,
    allowed: Known<Allowed>,
    tables_bytes: usize,
}

/// Lists by their text, each with what is to be said about it wherever it stands.
type Known<L> = HashMap<Box<[String]>, (Arc<L>, Arc<[Finding]>)>;

impl UriLists {
    /// The list of blocked URIs written at `at`, taken from `previous` if it is there.
    pub(super) fn blocked(
        &mut self,
        patterns: &[String],
        previous: Option<&Self>,
        at: &At,
        problems: &mut Problems,
    ) -> Arc<Blocked> {
        let previous = previous.map(|previous| &previous.blocked);
        let (list, bytes) = known(&mut self.blocked, patterns, previous, at, problems);
        self.admit(bytes, URI_TABLES_BYTES_MAX, at, problems);
        list
    }

    /// The list of allowed URIs written at `at`, taken from `previous` if it is there.
    pub(super) fn allowed(
        &mut self,
        patterns: &[String],
        previous: Option<&Self>,
        at: &At,
        problems: &mut Problems,
    ) -> Arc<Allowed> {
        let previous = previous.map(|previous| &previous.allowed);
        let (list, bytes) = known(&mut self.allowed, patterns, previous, at, problems);
        self.admit(bytes, URI_TABLES_BYTES_MAX, at, problems);
        list
    }

    fn admit(&mut self, bytes: usize, bytes_max: usize, at: &At, problems: &mut Problems) {
        self.tables_bytes += bytes;
        if bytes > 0 && self.tables_bytes > bytes_max {
            let help = "use the same list in several places, which costs once, or fewer patterns";
            problems.error(at, "with this list all lists of URIs together grow too large", help);
        }
    }
}

/// The list of these patterns, and the bytes it adds to those that are known already.
fn known<L: List>(
    lists: &mut Known<L>,
    patterns: &[String],
    previous: Option<&Known<L>>,
    at: &At,
    problems: &mut Problems,
) -> (Arc<L>, usize) {
    if let Some((list, findings)) = lists.get(patterns) {
        findings.iter().for_each(|finding| finding.report(at, problems));
        return (Arc::clone(list), 0);
    }
    let reused = previous.and_then(|previous| previous.get(patterns)).cloned();
    let (list, findings) = reused.unwrap_or_else(|| compiled(patterns));
    findings.iter().for_each(|finding| finding.report(at, problems));
    lists.insert(patterns.into(), (Arc::clone(&list), findings));
    let bytes = list.bytes();
    (list, bytes)
}

/// The list, or an empty one that is not fit to be served, with what is to be said about it.
fn compiled<L: List>(patterns: &[String]) -> (Arc<L>, Arc<[Finding]>) {
    let mut findings = findings(patterns);
    let mut list = L::default();
    if !findings.iter().any(|finding| finding.is_error) {
        match L::compile(patterns) {
            Ok(compiled) => list = compiled,
            Err(too_large) => findings.extend(too_large.into_iter().map(|position| Finding {
                position: Some(position),
                is_error: true,
                message: "the pattern grows too large when compiled".to_owned(),
                help: "use fewer `*`, or several patterns",
            })),
        }
    }
    (Arc::new(list), findings.into())
}

/// What is to be said about a list or one of its entries.
struct Finding {
    position: Option<usize>,
    is_error: bool,
    message: String,
    help: &'static str,
}

impl Finding {
    fn report(&self, at: &At, problems: &mut Problems) {
        let at = self.position.map_or_else(|| at.clone(), |position| at.index(position));
        if self.is_error {
            problems.error(&at, self.message.clone(), self.help);
        } else {
            problems.warning(&at, self.message.clone(), self.help);
        }
    }
}

/// What is wrong with a list before it is compiled.
fn findings(patterns: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if patterns.len() > URI_ENTRIES_MAX {
        let message = format!("{} entries, and at most {URI_ENTRIES_MAX} are possible", patterns.len());
        let help = "`**` stands for any text: `file:///data/**`";
        findings.push(Finding { position: None, is_error: true, message, help });
    }
    for (position, pattern) in patterns.iter().enumerate().take(URI_ENTRIES_MAX) {
        let position = Some(position);
        if let Err(message) = check_entry(pattern) {
            let help = "write a URI, or a part of it with `*` or `**`";
            findings.push(Finding { position, is_error: true, message, help });
        } else if let Some(flaw) = flaw_of_all(pattern) {
            let message = format!("`{pattern}` matches no resource: {flaw}");
            let help = "write URIs as they are when resolved, such as `file:///data/**`; all others are refused";
            findings.push(Finding { position, is_error: false, message, help });
        }
    }
    findings
}

/// Why every URI that a pattern could match is refused, if so. Samples of what `*` may stand for decide.
fn flaw_of_all(pattern: &str) -> Option<UriFlaw> {
    let samples = ["x", "1", ":1]/x", "//x/x", "///x"];
    let stars = if pattern.contains('*') { samples.as_slice() } else { &[""] };
    let mut flaws = stars.iter().map(|sample| Uri::read(&pattern.replace("**", "*").replace('*', sample)).err());
    let first = flaws.next()??;
    flaws.all(|flaw| flaw.is_some()).then_some(first)
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
