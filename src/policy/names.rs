//! Is the name of a tool or a prompt on a list?
//!
//! An entry is a name, or a glob: `*` stands for any text, everything else for itself. Entries are compared with the
//! whole name, byte for byte. Names are found by hash, however many there are; globs are tried one after the other,
//! each in time linear in the name, so their number is limited.

use memchr::memmem::Finder;

use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::policy::hash::NameMap;

/// Entries of one list.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// Entries of one list with a `*`: each is tried for every name.
pub(super) const GLOBS_MAX: usize = 256;
/// Bytes of one entry.
pub(super) const ENTRY_BYTES_MAX: usize = 256;

/// What the names of a list are the names of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Tool,
    Prompt,
}

impl Noun {
    fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
        }
    }
}

/// A list of names and globs.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: NameMap<Box<str>, usize>,
    globs: Vec<(Glob, usize)>,
}

impl Names {
    /// The list as an operator wrote it at `at`; an entry that is none is reported and left out.
    pub(super) fn compile(entries: &[String], noun: Noun, at: &At, problems: &mut Problems) -> Self {
        let mut names = Self::default();
        if entries.len() > ENTRIES_MAX {
            let message = format!("{} entries, and at most {ENTRIES_MAX} are possible", entries.len());
            problems.error(at, message, "`*` stands for any text: `get_*`");
        }
        let globs = entries.iter().filter(|entry| entry.contains('*')).count();
        if globs > GLOBS_MAX {
            let message = format!("{globs} entries with `*`, and at most {GLOBS_MAX} are possible");
            problems.error(at, message, "write whole names, of which there may be more");
        }
        for (index, entry) in entries.iter().enumerate().take(ENTRIES_MAX) {
            match check(entry, noun) {
                Err(message) => {
                    let help = format!("write a {}'s name, or a part of it and `*`", noun.word());
                    problems.error(&at.index(index), message, help);
                }
                Ok(()) if entry.contains('*') => names.globs.push((Glob::new(entry), index)),
                Ok(()) => {
                    names.exact.entry(entry.as_str().into()).or_insert(index);
                }
            }
        }
        names.globs.truncate(GLOBS_MAX);
        names
    }

    /// Whether no name is on the list.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    /// The position of an entry that `name` is on the list by.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(name).copied() };
        exact.or_else(|| self.globs.iter().find(|(glob, _)| glob.matches(name)).map(|(_, index)| *index))
    }

    /// The position of an entry by which every name is on the list that `entry` stands for. There may be one that is not found:
    /// of two globs, only those that are the same, or of which the first is a beginning and one `*`, are compared.
    pub(super) fn find_whole(&self, entry: &str) -> Option<usize> {
        if !entry.contains('*') {
            return self.find(entry);
        }
        let entry = Glob::new(entry);
        self.globs.iter().find(|(glob, _)| glob.takes(&entry)).map(|(_, index)| *index)
    }
}

/// Whether an entry of a list of tools or prompts, as it is written, is about `name`: the same as being on a list of this one entry.
pub fn is_about(entry: &str, name: &str) -> bool {
    let Some((prefix, rest)) = entry.split_once('*') else { return entry == name };
    let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)) else { return false };
    for part in middle.split('*') {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

/// What is wrong with an entry.
pub(super) fn check(entry: &str, noun: Noun) -> Result<(), String> {
    if entry.is_empty() {
        return Err(format!("an empty name matches no {}", noun.word()));
    }
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(format!("a name of {} bytes, and at most {ENTRY_BYTES_MAX} are possible", entry.len()));
    }
    if entry.trim() != entry {
        return Err(format!("`{entry}` begins or ends with white space"));
    }
    Ok(())
}

/// A name with at least one `*`, cut at the stars.
#[derive(Debug)]
pub(super) struct Glob {
    prefix: Box<[u8]>,
    middles: Box<[Finder<'static>]>,
    suffix: Box<[u8]>,
}

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        let (prefix, rest) = text.split_once('*').unwrap_or((text, ""));
        let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middles = middle.split('*').filter(|part| !part.is_empty());
        Self {
            prefix: prefix.as_bytes().into(),
            middles: middles.map(|part| Finder::new(part).into_owned()).collect(),
            suffix: suffix.as_bytes().into(),
        }
    }

    /// Whether it matches every name that `other` does; false if that is not plain to see.
    fn takes(&self, other: &Self) -> bool {
        let middles = |glob: &Self| glob.middles.iter().map(|part| part.needle().to_owned()).collect::<Vec<_>>();
        if self.middles.is_empty() && self.suffix.is_empty() {
            return other.prefix.starts_with(&self.prefix);
        }
        self.prefix == other.prefix && self.suffix == other.suffix && middles(self) == middles(other)
    }

    /// Each middle part is taken where it first occurs: that leaves the most for the parts after it, so there is
    /// nothing to try again. Bytes do as well as characters, because no UTF-8 character contains another's bytes.
    pub(super) fn matches(&self, name: &str) -> bool {
        // Most names fail at their first letter, which is quicker seen than compared.
        if self.prefix.first().is_some_and(|first| name.as_bytes().first() != Some(first)) {
            return false;
        }
        let rest = name.as_bytes().strip_prefix(&*self.prefix);
        let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(&*self.suffix)) else { return false };
        for middle in &self.middles {
            let after = middle.find(rest).map(|found| found + middle.needle().len());
            let Some((_, left)) = after.and_then(|after| rest.split_at_checked(after)) else { return false };
            rest = left;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::ENTRIES_MAX;
    use super::ENTRY_BYTES_MAX;
    use super::GLOBS_MAX;
    use super::Names;
    use super::Noun;
    use super::is_about;
    use crate::config::problem::At;
    use crate::config::problem::Problems;

    fn compile(entries: &[&str]) -> (Names, Vec<String>) {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let mut problems = Problems::new();
        let names = Names::compile(&entries, Noun::Tool, &At::root().key("t"), &mut problems);
        (names, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
    }

    fn matches(entry: &str, name: &str) -> bool {
        let (names, problems) = compile(&[entry]);
        assert_eq!(problems, [""; 0], "{entry}");
        names.find(name).is_some()
    }

    #[test]
    fn a_star_stands_for_any_text_and_the_rest_for_itself() {
        let cases = [
            ("get_*", "get_user", true),
            ("get_*", "get_", true),
            ("get_*", "get", false),
            ("get_*", "forget_user", false),
            ("*_user", "get_user", true),
            ("*_user", "get_users", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("ab*bc", "abc", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "abb", false),
            ("*aba*aba*", "ababa", false),
            ("*", "", true),
            ("**", "x", true),
            ("a**b", "ab", true),
            ("x*日*y", "x日y", true),
            ("x?", "xy", false),
            ("x?", "x?", true),
            ("[ab]", "a", false),
            ("a.c*", "abc", false),
            (r"a\*", r"a\b", true),
            ("Get_*", "get_user", false),
            ("get_user", "GET_USER", false),
            ("get_user", "get_user ", false),
        ];
        for (entry, name, expected) in cases {
            assert_eq!((matches(entry, name), is_about(entry, name)), (expected, expected), "{entry} {name}");
        }
    }

    #[test]
    fn the_position_of_the_entry_is_told() {
        let (names, problems) = compile(&["a", "b*", "c", "a"]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(["a", "bb", "c", "d"].map(|name| names.find(name)), [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn many_stars_cost_no_more_than_the_name_is_long() {
        let entry = format!("{}b", "a*".repeat(127));
        assert!(!matches(&entry, &"a".repeat(1_000_000)));
    }

    #[test]
    fn an_entry_that_is_no_name_is_reported_at_its_place() {
        let long = "x".repeat(ENTRY_BYTES_MAX + 1);
        let (names, problems) = compile(&["", " a", &long, "b"]);
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with("t[0]: ") && problems[2].starts_with("t[2]: "), "{problems:?}");
        assert!(names.find("b").is_some() && names.find("").is_none() && names.find("a").is_none());
    }

    #[test]
    fn a_list_has_limits() {
        let lists = |count: usize, star: &str| {
            let entries: Vec<String> = (0..count).map(|i| format!("t{i}{star}")).collect();
            compile(&entries.iter().map(String::as_str).collect::<Vec<_>>()).1.len()
        };
        assert_eq!((lists(ENTRIES_MAX, ""), lists(ENTRIES_MAX + 1, "")), (0, 1));
        assert_eq!((lists(GLOBS_MAX, "*"), lists(GLOBS_MAX + 1, "*")), (0, 1));
    }
}
