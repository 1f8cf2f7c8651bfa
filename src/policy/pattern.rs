//! Does a text contain what a pattern looks for?
//!
//! A pattern is a regular expression compiled into a dense DFA when the configuration is read: searching is one table
//! step per byte, whatever the pattern and the text. It is a case-sensitive search; anchors are the author's. A
//! pattern whose tables would grow over the limits is refused then, and never searched with another engine.

use std::collections::HashMap;
use std::sync::Arc;

use regex_automata::Input;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::StartKind;
use regex_automata::dfa::dense;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// Bytes of a pattern as it is written.
pub(super) const PATTERN_BYTES_MAX: usize = 4_096;
/// Bytes of the tables of all patterns of a configuration together.
pub(super) const TABLES_BYTES_MAX: usize = 256 * 1024 * 1024;

const NFA_BYTES_MAX: usize = 1024 * 1024;
const DFA_BYTES_MAX: usize = 4 * 1024 * 1024;
const DETERMINIZE_BYTES_MAX: usize = 8 * 1024 * 1024;
const NEST_MAX: u32 = 64;

/// A compiled pattern.
pub(super) struct Pattern {
    text: Box<str>,
    dfa: dense::DFA<Vec<u32>>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternError {
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: &'static str,
}

impl Pattern {
    /// Compiles a pattern as an operator writes it.
    pub(super) fn compile(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            let message = format!("a pattern of {} bytes, and at most {PATTERN_BYTES_MAX} are possible", text.len());
            return Err(PatternError { message, help: "write several constraints: all of a tool's must hold" });
        }
        let nfa = nfa(text)?;
        // A dense DFA knows word boundaries of ASCII only; what is written means Unicode's.
        if nfa.look_set_any().contains_word_unicode() {
            let message = format!("`{text}` asks for word boundaries of all scripts, which cannot be precompiled");
            return Err(PatternError { message, help: r"write `(?-u:\b)` for word boundaries of ASCII" });
        }
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(DFA_BYTES_MAX))
            .determinize_size_limit(Some(DETERMINIZE_BYTES_MAX));
        let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|_| too_large(text))?;
        Ok(Self { text: text.into(), dfa })
    }

    /// Whether the pattern is found anywhere in `text`. A search that cannot finish finds nothing.
    pub(super) fn is_in(&self, text: &str) -> bool {
        matches!(self.dfa.try_search_fwd(&Input::new(text).earliest(true)), Ok(Some(_)))
    }

    /// Whether the pattern is certainly nowhere in `text`. Of a search that cannot finish nothing is certain.
    pub(super) fn is_not_in(&self, text: &str) -> bool {
        matches!(self.dfa.try_search_fwd(&Input::new(text).earliest(true)), Ok(None))
    }

    /// The pattern as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

fn nfa(text: &str) -> Result<thompson::NFA, PatternError> {
    let syntax = syntax::Config::new().unicode(true).utf8(true).case_insensitive(false).nest_limit(NEST_MAX);
    let hir = syntax::parse_with(text, &syntax).map_err(|error| {
        // The report shows the pattern over several lines, and says what is wrong on the last.
        let report = error.to_string();
        let reason =
            report.lines().rev().find_map(|line| line.trim().strip_prefix("error: ")).unwrap_or("not readable");
        let message = format!("`{text}` is not a regular expression: {reason}");
        PatternError {
            message,
            help: "the syntax is that of Rust's regex crate, without look-around and backreferences",
        }
    })?;
    let config = thompson::Config::new()
        .utf8(true)
        .which_captures(thompson::WhichCaptures::None)
        .nfa_size_limit(Some(NFA_BYTES_MAX));
    thompson::Compiler::new().configure(config).build_from_hir(&hir).map_err(|_| too_large(text))
}

fn too_large(text: &str) -> PatternError {
    PatternError {
        message: format!("`{text}` grows too large when compiled"),
        help: r"use smaller repetitions, and `[0-9]` or `[A-Za-z0-9_]` rather than `\d` or `\w`, which cover all scripts",
    }
}

/// Patterns by their text: compiled once however often they are written, and kept over reloads.
#[derive(Default)]
pub(super) struct Patterns {
    compiled: HashMap<Box<str>, Result<Arc<Pattern>, PatternError>>,
    tables_bytes: usize,
}

impl Patterns {
    /// The pattern written as `text`, taken from `previous` if it is there. The outcome is the same either way.
    pub(super) fn compile(&mut self, text: &str, previous: Option<&Patterns>) -> Result<Arc<Pattern>, PatternError> {
        if let Some(known) = self.compiled.get(text) {
            return known.clone();
        }
        let reused = previous.and_then(|previous| previous.compiled.get(text)).cloned();
        let outcome = reused.unwrap_or_else(|| Pattern::compile(text).map(Arc::new));
        let outcome = outcome.and_then(|pattern| self.admit(pattern, TABLES_BYTES_MAX));
        // What did not fit in here may fit in the next configuration, so it is not kept as a refusal.
        if outcome.as_ref().err().is_none_or(|error| error.help != NO_ROOM) {
            self.compiled.insert(text.into(), outcome.clone());
        }
        outcome
    }

    fn admit(&mut self, pattern: Arc<Pattern>, bytes_max: usize) -> Result<Arc<Pattern>, PatternError> {
        let bytes = self.tables_bytes + pattern.dfa.memory_usage();
        if bytes > bytes_max {
            let message = format!("with `{}` all patterns together grow too large", pattern.text());
            return Err(PatternError { message, help: NO_ROOM });
        }
        self.tables_bytes = bytes;
        Ok(pattern)
    }
}

const NO_ROOM: &str = "use the same pattern in several places, which costs once, or smaller patterns";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::PATTERN_BYTES_MAX;
    use super::Pattern;
    use super::Patterns;

    fn is_in(pattern: &str, text: &str) -> bool {
        Pattern::compile(pattern).unwrap().is_in(text)
    }

    fn refused(pattern: &str) -> (String, &'static str) {
        let error = Pattern::compile(pattern).err().unwrap();
        (error.message, error.help)
    }

    #[test]
    fn a_pattern_is_searched_and_its_anchors_are_the_authors() {
        assert!(is_in("SELECT", "x SELECT y"));
        assert!(is_in(r"^\s*SELECT", "  SELECT 1; DROP TABLE x"));
        assert!(!is_in(r"^\s*SELECT", "DROP TABLE x; SELECT 1"));
        assert!(!is_in("^SELECT$", "SELECT\n"));
        assert!(!is_in("^SELECT", "select"));
        assert!(is_in("(?i)^SELECT", "select"));
        assert!(is_in("", "anything") && is_in("^$", "") && !is_in("^$", "x"));
    }

    #[test]
    fn an_alternative_outside_the_anchors_is_outside_them() {
        assert!(is_in("^a|b$", "xb") && is_in("^a|b$", "ax"));
        assert!(!is_in("^(?:a|b)$", "xb"));
        assert!(refused("a)|(b").0.contains("`a)|(b` is not a regular expression: unopened group"));
    }

    #[test]
    fn lines_matter_only_where_the_author_says_so() {
        assert!(!is_in("^SELECT", "DROP;\nSELECT"));
        assert!(is_in("(?m)^SELECT", "DROP;\nSELECT"));
        assert!(!is_in("^.*$", "a\nb"));
        assert!(is_in("(?s)^.*$", "a\nb"));
    }

    #[test]
    fn characters_are_those_of_unicode() {
        assert!(is_in("^.$", "é") && is_in("^.$", "🦀"));
        assert!(is_in(r"^\w+$", "日本") && is_in(r"^\d$", "٣"));
        assert!(!is_in(r"^(?-u:\w)+$", "日本"));
        assert!(is_in(r"(?-u:\b)DROP(?-u:\b)", "a DROP b") && !is_in(r"(?-u:\b)DROP(?-u:\b)", "DROPS"));
    }

    #[test]
    fn a_pattern_over_the_limits_is_refused_with_help() {
        assert!(refused(r"(?:\w{50}){20}").0.ends_with("grows too large when compiled"));
        assert!(refused(r"(?-u)[01]*1[01]{20}$").0.ends_with("grows too large when compiled"));
        assert!(refused(r"\bDROP\b").1.contains(r"(?-u:\b)"));
        assert!(refused(r"(?=a)b").0.contains("look-around"));
        assert!(refused(r"(a)\1").0.contains("backreferences"));
        assert!(refused(&"(".repeat(100)).0.contains("not a regular expression"));
        let anchored = |bytes: usize| format!("^{}", "a".repeat(bytes - 1));
        assert!(Pattern::compile(&anchored(PATTERN_BYTES_MAX)).is_ok());
        assert!(refused(&anchored(PATTERN_BYTES_MAX + 1)).0.contains("at most 4096"));
    }

    #[test]
    fn a_pattern_is_compiled_once_and_kept() {
        let mut first = Patterns::default();
        let a = first.compile("^a", None).unwrap();
        assert!(Arc::ptr_eq(&a, &first.compile("^a", None).unwrap()));
        let mut second = Patterns::default();
        assert!(Arc::ptr_eq(&a, &second.compile("^a", Some(&first)).unwrap()));
        assert_eq!(first.tables_bytes, second.tables_bytes);
    }

    #[test]
    fn all_patterns_together_have_a_limit() {
        let mut patterns = Patterns::default();
        let pattern = Arc::new(Pattern::compile("^a").unwrap());
        let bytes = pattern.dfa.memory_usage();
        assert!(patterns.admit(Arc::clone(&pattern), bytes).is_ok());
        assert!(patterns.admit(pattern, bytes * 2 - 1).is_err());
        assert_eq!(patterns.tables_bytes, bytes);
    }
}
