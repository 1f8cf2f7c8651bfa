//! Where in the files does it stand, and how is it shown?
//!
//! Messages look like rustc's: what is wrong, file, line and column, the line with a caret, help. Nothing that must
//! not be shown is in a [`Sources`]'s texts, and values that came from outside the files are taken out of messages.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use annotate_snippets::AnnotationKind;
use annotate_snippets::Group;
use annotate_snippets::Level;
use annotate_snippets::Origin;
use annotate_snippets::Renderer;
use annotate_snippets::Snippet;

use crate::config::files::File;
use crate::config::files::Files;
use crate::config::files::sha256;
use crate::config::interpolate::Resolved;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Severity;
use crate::config::problem::Span;
use crate::config::tree::Node;

/// Most problems that are shown; the rest is counted.
pub const SHOWN_MAX: usize = 100;
/// A resolved value shorter than this is no secret, and taking it out would garble messages.
const REDACTED_BYTES_MIN: usize = 4;

/// Where a value stands: file, line and column, the latter two from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from one.
    pub line: usize,
    /// The character in the line, from one.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// The files a configuration was read from, without their secrets. `Debug` shows the files' names only.
pub struct Sources {
    files: Vec<File>,
    root: Box<Node>,
    resolved: Vec<Resolved>,
    sha256: String,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

impl Sources {
    /// Takes texts that are masked already.
    pub(crate) fn new(mut files: Files, mut resolved: Vec<Resolved>) -> Self {
        files.root.forget_texts();
        resolved.retain(|resolved| resolved.value.expose().len() >= REDACTED_BYTES_MIN);
        resolved.sort_by_key(|resolved| std::cmp::Reverse(resolved.value.expose().len()));
        let sha256 = match files.digests.as_slice() {
            [one] => one.clone(),
            several => sha256(several.iter().map(|digest| format!("{digest}\n")).collect::<String>().as_bytes()),
        };
        Self { files: files.files, root: Box::new(files.root), resolved, sha256 }
    }

    /// Which text this is, in hex: of a single file what `sha256sum` prints for it; of several the SHA-256 of their
    /// digests, a line each, in the order of reading. What stands behind references is not in it.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The main file, as it was named.
    pub fn main_file(&self) -> Option<&Path> {
        self.files.first().map(|file| file.path.as_path())
    }

    /// Every file that was read, the main one first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Where the value at `at` stands: for a table its name, for a value that is missing the nearest table above
    /// it. `None` if no file says anything about it.
    pub fn locate(&self, at: &At) -> Option<Place> {
        self.place(self.span(at)?)
    }

    /// Where `problem` stands; of one about the whole configuration, nowhere.
    pub fn place_of(&self, problem: &Problem) -> Option<Place> {
        self.place(problem.span.or_else(|| self.span(&problem.at))?)
    }

    /// All problems in rustc's style, in the order of the files' lines; ends with a newline unless there is none.
    pub fn render(&self, problems: &Problems) -> String {
        let mut shown: Vec<(Option<Span>, &Problem)> =
            problems.iter().map(|problem| (problem.span.or_else(|| self.span(&problem.at)), problem)).collect();
        shown.sort_by_key(|(span, _)| *span);
        let more = shown.len().saturating_sub(SHOWN_MAX) + problems.left_out();
        let mut text = String::new();
        for (span, problem) in shown.into_iter().take(SHOWN_MAX) {
            text.push_str(&self.render_one(span, problem));
            text.push_str("\n\n");
        }
        if more > 0 {
            text.push_str(&format!("and {more} more\n\n"));
        }
        text.pop();
        text
    }

    /// The bytes of the value at `at`, or of what is nearest above it; nothing for the top.
    pub(crate) fn span(&self, at: &At) -> Option<Span> {
        let node = self.root.nearest(at);
        (!std::ptr::eq(node, self.root.as_ref())).then(|| node.spot())
    }

    /// The file that says `at`; the main file if none does.
    pub(crate) fn file_of(&self, at: &At) -> Option<&File> {
        self.files.get(self.span(at).map_or(0, |span| span.file))
    }

    fn place(&self, span: Span) -> Option<Place> {
        let file = self.files.get(span.file)?;
        let before = file.text.get(..span.start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Place {
            file: file.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..)?.chars().count() + 1,
        })
    }

    fn render_one(&self, span: Option<Span>, problem: &Problem) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = self.redacted(&problem.message);
        let help = self.redacted(&problem.help);
        let mut group = Group::with_title(level.primary_title(message.as_str()));
        group = match span {
            Some(span) => self.with_snippet(group, span, AnnotationKind::Primary, ""),
            None => match self.files.first() {
                Some(file) => group.element(Origin::path(file.path.to_string_lossy())),
                None => group,
            },
        };
        if let Some((span, label)) = &problem.related {
            group = self.with_snippet(group, *span, AnnotationKind::Context, label);
        }
        if !help.is_empty() {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        Renderer::plain().render(&[group])
    }

    /// Adds the line that `span` begins on; the rest of a value of several lines adds nothing to a message.
    fn with_snippet<'a>(&'a self, group: Group<'a>, span: Span, kind: AnnotationKind, label: &'a str) -> Group<'a> {
        let (Some(file), Some(place)) = (self.files.get(span.file), self.place(span)) else { return group };
        let line_start = file.text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = file.text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let start = (span.start - line_start).min(line.len());
        let end = (span.end.saturating_sub(line_start)).clamp(start, line.len());
        let annotation = kind.span(start..end).label(label);
        let path = file.path.to_string_lossy();
        group.element(Snippet::source(line).path(path).line_start(place.line).annotation(annotation))
    }

    /// The problem without values that came from outside the files.
    pub(crate) fn redacted_problem(&self, problem: &Problem) -> Problem {
        let (message, help) = (self.redacted(&problem.message), self.redacted(&problem.help));
        Problem { message, help, ..problem.clone() }
    }

    fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for resolved in &self.resolved {
            if text.contains(resolved.value.expose()) {
                text = text.replace(resolved.value.expose(), &resolved.reference);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::toml_tree;

    /// The sources of one file `a.toml`.
    fn sources(text: &str) -> Sources {
        let (root, _) = toml_tree::read(0, text, &mut Problems::new());
        let file = File { path: "a.toml".into(), text: text.to_owned(), broken: false };
        let files =
            Files { files: vec![file], root, refused: Vec::new(), incomplete: false, digests: vec!["d".into()] };
        Sources::new(files, Vec::new())
    }

    #[test]
    fn a_missing_value_stands_at_the_table_that_lacks_it() {
        let sources = sources("\n[servers.a]\nurl = 'ä'\n");
        let at = |keys: &[&str]| keys.iter().fold(At::root(), |at, key| at.key(key));
        let place = |at: &At| sources.locate(at).map(|place| place.to_string());
        assert_eq!(place(&at(&["servers", "a", "url"])).as_deref(), Some("a.toml:3:7"));
        assert_eq!(place(&at(&["servers", "a", "auth", "secret"])).as_deref(), Some("a.toml:2:10"));
        assert_eq!(place(&at(&["servers", "b"])).as_deref(), Some("a.toml:2:2"));
        assert_eq!(place(&at(&["listen", "data"])), None);
        assert_eq!(place(&At::root()), None);
    }

    #[test]
    fn a_message_has_its_line_a_caret_and_help() {
        let mut problems = Problems::new();
        problems.warning(&At::root(), "no server", "");
        problems.error(&At::root().key("a").key("b"), "it is 1", "write 2");
        let expected = "warning: no server\n--> a.toml\n\n\
            error: it is 1\n --> a.toml:2:5\n  |\n2 | b = 1\n  |     ^\n  |\n  = help: write 2\n";
        assert_eq!(sources("[a]\nb = 1\n").render(&problems), expected);
        assert_eq!(sources("").render(&Problems::new()), "");
    }

    #[test]
    fn the_lines_order_messages_and_the_rest_is_counted() {
        let mut problems = Problems::new();
        for index in (0..SHOWN_MAX + 2).rev() {
            problems.error(&At::root().key("a").index(index), format!("wrong: {index}"), "");
        }
        let text = sources(&format!("a = [\n{}]\n", "1,\n".repeat(SHOWN_MAX + 2))).render(&problems);
        assert_eq!(text.matches("error: ").count(), SHOWN_MAX);
        assert!(text.starts_with("error: wrong: 0\n") && text.ends_with("\n\nand 2 more\n"), "{text}");
    }
}
