//! What is wrong with a configuration, and where?
//!
//! Every owner's `compile` reports all its mistakes into one [`Problems`]; `config::sources` turns the place
//! (a path of keys) into file, line, column and caret. A problem's text follows one form: lower case, no full
//! stop, one line, the user's own words in backticks, and a `help` that says what to write instead.

use std::fmt;

use crate::config::workspaces;

/// Most problems one [`Problems`] keeps; further ones are counted.
pub const PROBLEMS_MAX: usize = 1000;

/// One step on the way to a value: a key of a table, or a position in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A table's key.
    Key(String),
    /// An array's position, from zero.
    Index(usize),
}

/// Where a value stands in the configuration, as the keys that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct At(Vec<Step>);

impl At {
    /// The top of the configuration.
    pub fn root() -> Self {
        Self::default()
    }

    /// A table of entries with names, such as `servers`, of a workspace; `None`: of `default`, whose tables stand at the top.
    pub fn table(workspace: Option<&str>, table: &str) -> Self {
        match workspace {
            Some(workspace) => Self::root().key("workspaces").key(workspace).key(table),
            None => Self::root().key(table),
        }
    }

    /// The entry of such a table that has this qualified name.
    pub fn entry(table: &str, name: &str) -> Self {
        let (workspace, name) = workspaces::split(name);
        Self::table(workspace, table).key(name)
    }

    /// The value under `key` of this table.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The element at `index` of this array.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// The table or array this value stands in; the top for the top.
    #[must_use]
    pub fn parent(&self) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        Self(steps)
    }

    /// Whether `other` is this value or stands in it.
    pub fn holds(&self, other: &At) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The steps from the top.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let dot = if position == 0 { "" } else { "." };
            match step {
                // As TOML would have it, so that it can be searched for.
                Step::Key(key) if is_bare(key) => write!(f, "{dot}{key}")?,
                Step::Key(key) => write!(f, "{dot}{key:?}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration serves, but the operator should know.
    Warning,
}

/// Bytes of one of the files a configuration was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The file, in the order of reading.
    pub file: usize,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// One mistake, with its place and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// The value it is about. A missing value is reported at the table that lacks it.
    pub at: At,
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead; empty when the message says it.
    pub help: String,
    /// The bytes it is about, where `at` alone would not find them: a key, a syntax error, part of a value.
    pub span: Option<Span>,
    /// A second place, and what is there.
    pub related: Option<(Span, String)>,
}

impl Problem {
    /// A mistake that refuses the configuration.
    pub fn error(at: &At, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Severity::Error, at, message.into(), help.into())
    }

    /// Something the operator should know, which refuses nothing.
    pub fn warning(at: &At, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Severity::Warning, at, message.into(), help.into())
    }

    /// The same, about exactly these bytes.
    #[must_use]
    pub fn on(self, span: Span) -> Self {
        Self { span: Some(span), ..self }
    }

    /// The same, with a second place shown and what is there.
    #[must_use]
    pub fn beside(self, span: Span, label: impl Into<String>) -> Self {
        Self { related: Some((span, label.into())), ..self }
    }

    fn new(severity: Severity, at: &At, message: String, help: String) -> Self {
        let (message, help) = (one_line(message), one_line(help));
        Self { severity, at: at.clone(), message, help, span: None, related: None }
    }
}

/// A text in one line, a quote of several cut short: one that was not closed in the file has taken in whatever
/// follows, secrets included.
fn one_line(text: String) -> String {
    let Some((first, rest)) = text.split_once(['\n', '\r']) else { return text };
    let last = rest.rsplit(['\n', '\r']).next().unwrap_or_default();
    let after = last.find('`').and_then(|quote| last.get(quote..)).unwrap_or_default();
    format!("{first} ..{after}")
}

/// Everything found wrong in one pass; collecting continues after the first mistake.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    errors: usize,
    left_out: usize,
}

impl Problems {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mistake that refuses the configuration.
    pub fn error(&mut self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.add(Problem::error(at, message, help));
    }

    /// Adds something the operator should know, which refuses nothing.
    pub fn warning(&mut self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.add(Problem::warning(at, message, help));
    }

    /// Adds a problem, unless the very same is there already or [`PROBLEMS_MAX`] are.
    pub fn add(&mut self, problem: Problem) {
        if self.found.contains(&problem) {
            return;
        }
        if problem.severity == Severity::Error {
            self.errors += 1;
        }
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether anything found refuses the configuration.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found, in the order it was found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    /// How many were found beyond [`PROBLEMS_MAX`].
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_problems_is_counted_and_not_kept() {
        let mut problems = Problems::new();
        for index in 0..PROBLEMS_MAX + 5 {
            problems.error(&At::root().index(index), "wrong", "");
        }
        assert_eq!(problems.iter().count(), PROBLEMS_MAX);
        assert_eq!(problems.left_out(), 5);
    }

    #[test]
    fn an_error_beyond_the_limit_still_refuses() {
        let mut problems = Problems::new();
        for index in 0..PROBLEMS_MAX {
            problems.warning(&At::root().index(index), "odd", "");
        }
        assert!(!problems.has_errors());
        problems.error(&At::root(), "wrong", "");
        assert!(problems.has_errors());
    }

    #[test]
    fn a_message_is_one_line() {
        let mut problems = Problems::new();
        problems.error(&At::root(), "`a\nsecret = 1` is wrong", "write\r\nb");
        let found: Vec<_> = problems.iter().map(|problem| (problem.message.as_str(), problem.help.as_str())).collect();
        assert_eq!(found, [("`a ..` is wrong", "write ..")]);
    }

    #[test]
    fn the_same_problem_is_told_once() {
        let mut problems = Problems::new();
        problems.error(&At::root().key("a"), "wrong", "");
        problems.error(&At::root().key("a"), "wrong", "");
        assert_eq!(problems.iter().count(), 1);
    }
}
