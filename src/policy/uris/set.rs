//! Is a URI on a list of patterns?
//!
//! `*` stands for any text without `/`, `**` for any text, everything else for itself; a pattern is held against the
//! whole URI. Patterns are compiled into dense DFAs when the configuration is read, many into one, so that looking a
//! URI up costs a table step per byte for each group of patterns.

use regex_automata::Anchored;
use regex_automata::Input;
use regex_automata::MatchError;
use regex_automata::MatchKind;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::StartKind;
use regex_automata::dfa::dense;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// Patterns that are compiled into one DFA; fewer where that grows too large.
const GROUP_MAX: usize = 32;
const NFA_BYTES_MAX: usize = 1024 * 1024;
const DFA_BYTES_MAX: usize = 2 * 1024 * 1024;
const DETERMINIZE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether a pattern's letters stand for the other case too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Case {
    /// They stand for themselves.
    Exact,
    /// They do: for servers and file systems that ignore case.
    Ignored,
}

/// One entry of a list: its position, and the spellings of its pattern, one of which a URI must match.
pub(super) struct Entry {
    pub(super) position: usize,
    pub(super) spellings: Vec<String>,
}

/// Compiled patterns.
#[derive(Default)]
pub(super) struct UriSet {
    groups: Vec<Group>,
}

struct Group {
    dfa: dense::DFA<Vec<u32>>,
    positions: Box<[usize]>,
}

impl UriSet {
    /// Compiles entries; the positions of those that grow too large come back instead.
    pub(super) fn compile(entries: &[Entry], case: Case) -> Result<Self, Vec<usize>> {
        let mut set = Self::default();
        let mut too_large = Vec::new();
        for group in entries.chunks(GROUP_MAX) {
            set.add(group, case, &mut too_large);
        }
        if too_large.is_empty() { Ok(set) } else { Err(too_large) }
    }

    /// One DFA for all of them, or else one for each half.
    fn add(&mut self, entries: &[Entry], case: Case, too_large: &mut Vec<usize>) {
        match (build(entries, case), entries) {
            (Some(dfa), _) => {
                self.groups.push(Group { dfa, positions: entries.iter().map(|entry| entry.position).collect() });
            }
            (None, []) => {}
            (None, [entry]) => too_large.push(entry.position),
            (None, _) => {
                let (first, second) = entries.split_at(entries.len() / 2);
                self.add(first, case, too_large);
                self.add(second, case, too_large);
            }
        }
    }

    /// The position of an entry that matches `text`; an error is a search that cannot finish.
    pub(super) fn find(&self, text: &str) -> Result<Option<usize>, MatchError> {
        let input = Input::new(text).anchored(Anchored::Yes).earliest(true);
        for group in &self.groups {
            if let Some(found) = group.dfa.try_search_fwd(&input)? {
                return Ok(Some(group.positions.get(found.pattern().as_usize()).copied().unwrap_or_default()));
            }
        }
        Ok(None)
    }

    /// Bytes of its tables.
    pub(super) fn bytes(&self) -> usize {
        self.groups.iter().map(|group| group.dfa.memory_usage()).sum()
    }
}

fn build(entries: &[Entry], case: Case) -> Option<dense::DFA<Vec<u32>>> {
    let patterns: Vec<String> = entries.iter().map(|entry| alternatives(&entry.spellings)).collect();
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(DFA_BYTES_MAX))
        .determinize_size_limit(Some(DETERMINIZE_BYTES_MAX));
    let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_BYTES_MAX));
    let syntax = syntax::Config::new().utf8(false).case_insensitive(case == Case::Ignored);
    dense::Builder::new().configure(config).thompson(nfa).syntax(syntax).build_many(&patterns).ok()
}

fn alternatives(spellings: &[String]) -> String {
    let spellings: Vec<String> = spellings.iter().map(|spelling| expression(spelling)).collect();
    format!("(?:{})", spellings.join("|"))
}

/// The regular expression of a pattern. What ends in `**` has matched as soon as the text before it has.
fn expression(pattern: &str) -> String {
    let mut expression = String::with_capacity(pattern.len() * 2);
    let (pattern, end) = match pattern.strip_suffix("**") {
        Some(head) => (head, ""),
        None => (pattern, r"\z"),
    };
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '*' {
            expression.push_str(&format!(r"\x{{{:x}}}", u32::from(character)));
        } else if characters.next_if_eq(&'*').is_some() {
            expression.push_str("(?s-u:.)*");
        } else {
            expression.push_str("(?-u:[^/])*");
        }
    }
    expression.push_str(end);
    expression
}
