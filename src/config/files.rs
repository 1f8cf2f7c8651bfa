//! Which files make up the configuration, and what do they say together?
//!
//! The main file, then what its `include` names, in that order. Only the main file includes.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;

use crate::config::bounded::read_regular;
use crate::config::bounded::read_text;
use crate::config::include;
use crate::config::include::FILES_MAX;
use crate::config::json_tree;
use crate::config::mcp_servers;
use crate::config::merge::merge;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Span;
use crate::config::toml_tree;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Bytes of one configuration file.
pub(crate) const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One file that was read.
#[derive(Debug)]
pub(crate) struct File {
    /// As the operator named it, or as the including file did.
    pub(crate) path: PathBuf,
    /// Its text; once read, with what must not be shown masked.
    pub(crate) text: String,
    /// Whether its text has syntax errors, so that part of it is not understood.
    pub(crate) broken: bool,
}

impl File {
    /// The directory that relative paths in the file start from.
    pub(crate) fn directory(&self) -> PathBuf {
        self.path.parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// Whether it is of the `mcpServers` form, by its name.
    pub(crate) fn is_json(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    }
}

/// Everything the files say.
#[derive(Debug)]
pub(crate) struct Files {
    /// In the order of reading; the first is the main file.
    pub(crate) files: Vec<File>,
    /// All files joined.
    pub(crate) root: Node,
    /// What could not be joined.
    pub(crate) refused: Vec<(At, Node)>,
    /// Whether something is missing that the files may say: one was not read whole.
    pub(crate) incomplete: bool,
    /// Each file's SHA-256 in hex, taken before anything is masked.
    pub(crate) digests: Vec<String>,
}

/// Reads the main file and what it includes.
pub(crate) fn read(path: &Path, problems: &mut Problems) -> Files {
    let mut files = Files {
        files: Vec::new(),
        root: Node::new(None, Span { file: 0, start: 0, end: 0 }, Kind::Table(Default::default())),
        refused: Vec::new(),
        incomplete: false,
        digests: Vec::new(),
    };
    let file = |text| File { path: path.to_path_buf(), text, broken: false };
    match read_text(path, FILE_BYTES_MAX) {
        Ok(text) => {
            files.root = files.parse_toml(file(text), problems);
            files.read_includes(problems);
        }
        Err(error) => {
            files.incomplete = true;
            files.push(file(String::new()));
            problems.error(&At::root(), format!("cannot read `{}`: {error}", path.display()), "");
        }
    }
    files
}

impl Files {
    fn read_includes(&mut self, problems: &mut Problems) {
        let mut seen: BTreeSet<PathBuf> = self.files.iter().map(|file| identity(&file.path)).collect();
        for (at, span, pattern) in self.patterns() {
            let base = self.files.first().map(File::directory).unwrap_or_default();
            match include::expand(&base, &pattern) {
                Ok(paths) => {
                    for path in paths.iter().filter(|path| seen.insert(identity(path))) {
                        self.include(path, &at, problems);
                    }
                }
                Err(error) => {
                    self.incomplete = true;
                    let help = "write a path, relative to this file, with `*` in the file's name only";
                    problems.add(Problem::error(&at, format!("cannot include `{pattern}`: {error}"), help).on(span));
                }
            }
        }
    }

    /// What the main file's `include` says; a wrong type is reported by `shape`.
    fn patterns(&self) -> Vec<(At, Span, String)> {
        let at = At::root().key("include");
        let Kind::Table(entries) = &self.root.kind else { return Vec::new() };
        let Some(Kind::Array(items)) = entries.get("include").map(|node| &node.kind) else { return Vec::new() };
        let texts = items.iter().enumerate().filter_map(|(index, item)| match &item.kind {
            Kind::Text(text) => Some((at.index(index), item.span, text.clone())),
            _ => None,
        });
        texts.collect()
    }

    fn include(&mut self, path: &Path, at: &At, problems: &mut Problems) {
        if self.files.len() >= FILES_MAX {
            self.incomplete = true;
            problems.error(at, format!("more than {FILES_MAX} files are included"), "");
            return;
        }
        let text = match read_regular(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                self.incomplete = true;
                problems.error(at, format!("cannot include `{}`: {error}", path.display()), "");
                return;
            }
        };
        let file = File { path: path.to_path_buf(), text, broken: false };
        let added = match file.is_json() {
            true => self.parse_json(file, problems),
            false => self.parse_toml(file, problems),
        };
        let added = self.without_include(added, problems);
        self.refused.extend(merge(&mut self.root, added, problems));
    }

    fn parse_toml(&mut self, file: File, problems: &mut Problems) -> Node {
        let number = self.push(file);
        let Some(file) = self.files.get_mut(number) else { return self.nothing(number) };
        let (root, broken_from) = toml_tree::read(number, &file.text, problems);
        file.broken = broken_from.is_some();
        self.incomplete |= file.broken;
        root
    }

    fn parse_json(&mut self, file: File, problems: &mut Problems) -> Node {
        let number = self.push(file);
        let root = match self.files.get(number) {
            Some(file) => json_tree::read(number, &file.text, problems),
            None => None,
        };
        match root {
            Some(root) => mcp_servers::include(root, problems),
            None => {
                self.files.iter_mut().skip(number).for_each(|file| file.broken = true);
                self.incomplete = true;
                self.nothing(number)
            }
        }
    }

    fn without_include(&mut self, mut root: Node, problems: &mut Problems) -> Node {
        let include = root.entries_mut().and_then(|entries| entries.remove("include"));
        if let Some(include) = include {
            let at = At::root().key("include");
            let help = "move it to the main file";
            let problem = Problem::error(&at, "`include` stands in an included file", help);
            problems.add(problem.on(include.name_spot()));
            self.refused.push((at, include));
        }
        root
    }

    /// The number of the new file.
    fn push(&mut self, file: File) -> usize {
        self.digests.push(sha256(file.text.as_bytes()));
        self.files.push(file);
        self.files.len() - 1
    }

    fn nothing(&self, file: usize) -> Node {
        Node::new(None, Span { file, start: 0, end: 0 }, Kind::Table(Default::default()))
    }
}

/// The SHA-256 of `bytes`, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file behind a path, whatever links lead to it; the path itself if there is none.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}
