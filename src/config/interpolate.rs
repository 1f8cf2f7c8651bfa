//! What stands behind `${env:NAME}`, `${file:PATH}` and `${cred:NAME}`?
//!
//! References are replaced inside texts at the places of [`meaning_at`] and nowhere else; what replaces one is not
//! looked at again. `$${` is a literal `${`. No value is in any message. Where a text is the path of a file, a credential
//! is meant by its path.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

use crate::config::bounded::read_regular;
use crate::config::files::File;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Span;
use crate::config::secret::Secret;
use crate::config::trail::Trail;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Bytes of what stands behind one reference.
pub(crate) const VALUE_BYTES_MAX: usize = 64 * 1024;
/// References in one configuration.
pub(crate) const REFERENCES_MAX: usize = 20_000;

/// Looks up an environment variable.
pub(crate) type Variables<'v> = &'v dyn Fn(&str) -> Option<OsString>;

/// What references are replaced by at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// What stands behind them.
    Content,
    /// What together is the path of a file: of a credential, where systemd put it.
    Path,
}

/// How references are replaced at this place; `None` if they are not.
fn meaning_at(trail: &Trail<'_>) -> Option<Meaning> {
    match trail.words().as_slice() {
        ["listen", "public_url"]
        | ["servers", _, "url"]
        | ["servers", _, "endpoints", "[]", "url"]
        | ["servers", _, "headers", _]
        | ["servers", _, "auth", "secret" | "username"]
        | ["seal", "keys", "[]"]
        | ["state" | "audit", "directory"] => Some(Meaning::Content),
        ["listen", "tls", "client_ca_file"]
        | ["policy", "shadow_file"]
        | ["listen", "tls", "certificates", "[]", "cert_file" | "key_file"]
        | ["servers", _, "tls", "ca_file" | "client_cert_file" | "client_key_file"] => Some(Meaning::Path),
        _ => None,
    }
}

const PLACES: &str = "references are replaced only in a server's `url`, `headers`, `auth.secret` and `auth.username`, \
                      in `seal.keys`, `listen.public_url`, `state.directory` and `audit.directory`, and in keys that \
                      end in `_file`";
const PATH_FORMS: &str = "write a path, `${cred:NAME}` for that of a credential, or `${env:NAME}`";
const FORMS: &str = "write `${env:NAME}`, `${file:PATH}` or `${cred:NAME}`, or `$${` for a literal `${`";

/// Where a reference's value comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Env,
    File,
    Cred,
}

const SOURCES: [(&str, Source); 3] = [("env:", Source::Env), ("file:", Source::File), ("cred:", Source::Cred)];

/// A part of a text.
#[derive(Debug)]
pub(crate) enum Piece<'t> {
    Literal(&'t str),
    /// `${..}` as written, and what stands between the braces.
    Reference {
        whole: &'t str,
        inner: &'t str,
    },
    /// A `${` without an end.
    Unclosed(&'t str),
}

/// The parts of `text`, in order.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(found) = rest.find("${") {
        if let Some(before) = rest.get(..found).and_then(|before| before.strip_suffix('$')) {
            pieces.push(Piece::Literal(before));
            let (literal, after) = rest.get(found..).unwrap_or_default().split_at_checked(2).unwrap_or_default();
            pieces.push(Piece::Literal(literal));
            rest = after;
            continue;
        }
        let (before, reference) = rest.split_at_checked(found).unwrap_or_default();
        pieces.push(Piece::Literal(before));
        let Some(end) = reference.find('}') else {
            pieces.push(Piece::Unclosed(reference));
            return pieces;
        };
        let (whole, after) = reference.split_at_checked(end + 1).unwrap_or_default();
        let inner = whole.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')).unwrap_or_default();
        pieces.push(Piece::Reference { whole, inner });
        rest = after;
    }
    pieces.push(Piece::Literal(rest));
    pieces
}

/// Whether `text` has something that would be a reference elsewhere.
pub(crate) fn mentions_reference(text: &str) -> bool {
    SOURCES.iter().any(|(prefix, _)| text.contains(&format!("${{{prefix}")))
}

/// Whether what stands between the braces names a source that is known: such a reference may be shown.
pub(crate) fn is_reference(inner: &str) -> bool {
    SOURCES.iter().any(|(prefix, _)| inner.starts_with(prefix))
}

/// A value that came from outside the files, and the reference that stands for it in messages.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) value: Secret,
    pub(crate) reference: String,
}

/// Replaces every reference below `root`; texts that cannot be resolved are reported and marked bad.
pub(crate) fn resolve(
    root: &mut Node,
    files: &[File],
    variables: Variables<'_>,
    problems: &mut Problems,
) -> Vec<Resolved> {
    let mut resolver = Resolver { files, variables, problems, resolved: Vec::new() };
    resolver.walk(root, &Trail::Root);
    resolver.resolved
}

struct Resolver<'r> {
    files: &'r [File],
    variables: Variables<'r>,
    problems: &'r mut Problems,
    resolved: Vec<Resolved>,
}

impl Resolver<'_> {
    fn walk(&mut self, node: &mut Node, trail: &Trail<'_>) {
        if node.bad {
            return;
        }
        match &mut node.kind {
            Kind::Table(entries) => entries.iter_mut().for_each(|(key, entry)| self.walk(entry, &trail.key(key))),
            Kind::Array(items) => {
                items.iter_mut().enumerate().for_each(|(index, item)| self.walk(item, &trail.index(index)));
            }
            Kind::Text(text) if !text.contains("${") => {}
            Kind::Text(text) => match meaning_at(trail) {
                Some(meaning) => match self.replaced(text, meaning, node.span, &trail.at()) {
                    Some(replaced) => node.kind = Kind::Text(replaced),
                    None => node.bad = true,
                },
                None if mentions_reference(text) => {
                    self.problems.add(Problem::error(&trail.at(), "a reference stands where none is replaced", PLACES));
                    node.bad = true;
                }
                None => {}
            },
            _ => {}
        }
    }

    /// The text with every reference replaced; `None` after reporting what could not be.
    fn replaced(&mut self, text: &str, meaning: Meaning, span: Span, at: &At) -> Option<String> {
        let mut whole_text = Some(String::new());
        for piece in pieces(text) {
            let value = match piece {
                Piece::Literal(literal) => Ok(literal.to_owned()),
                Piece::Unclosed(_) => Err((span, ("a `${` without its `}`".to_owned(), FORMS.to_owned()))),
                Piece::Reference { whole, inner } => {
                    self.value(inner, meaning, span.file).map_err(|error| (self.part(span, whole), error))
                }
            };
            match value {
                Ok(value) => {
                    if let Piece::Reference { whole, .. } = piece {
                        let value = Secret::new(value.as_str());
                        self.resolved.push(Resolved { value, reference: whole.to_owned() });
                    }
                    whole_text.iter_mut().for_each(|text| text.push_str(&value));
                }
                Err((span, (message, help))) => {
                    self.problems.add(Problem::error(at, message, help).on(span));
                    whole_text = None;
                }
            }
        }
        whole_text
    }

    /// The bytes of a reference within the value it stands in; the whole value if escapes hide it.
    fn part(&self, span: Span, whole: &str) -> Span {
        let written = self.files.get(span.file).and_then(|file| file.text.get(span.start..span.end));
        match written.and_then(|written| written.find(whole)) {
            Some(found) => Span { start: span.start + found, end: span.start + found + whole.len(), ..span },
            None => span,
        }
    }

    /// What stands behind one reference, or what is wrong with it: message and help.
    fn value(&self, inner: &str, meaning: Meaning, file: usize) -> Result<String, (String, String)> {
        if inner.starts_with("principal.") {
            return Err(("`${principal.` is reserved".to_owned(), "write `$${` for a literal `${`".to_owned()));
        }
        let found = SOURCES.iter().find_map(|(prefix, source)| Some((source, inner.strip_prefix(prefix)?)));
        let Some((source, name)) = found else {
            return Err(("a `${..}` that is no reference".to_owned(), FORMS.to_owned()));
        };
        if self.resolved.len() >= REFERENCES_MAX {
            return Err((format!("more than {REFERENCES_MAX} references"), String::new()));
        }
        let (what, value) = match (source, meaning) {
            (Source::Env, _) => (format!("environment variable `{name}`"), self.variable(name)?),
            (Source::File, Meaning::Content) => (format!("file `{name}`"), self.file(name, file)?),
            (Source::File, Meaning::Path) => {
                return Err(("`${file:..}` where a path is expected".to_owned(), PATH_FORMS.to_owned()));
            }
            (Source::Cred, Meaning::Content) => (format!("credential `{name}`"), self.credential(name)?),
            (Source::Cred, Meaning::Path) => (format!("credential `{name}`"), self.credential_path(name)?),
        };
        match value.len() {
            0 => Err((format!("{what} is empty"), String::new())),
            1..=VALUE_BYTES_MAX => Ok(value),
            _ => Err((format!("{what} is larger than {VALUE_BYTES_MAX} bytes"), String::new())),
        }
    }

    fn variable(&self, name: &str) -> Result<String, (String, String)> {
        if !is_name(name) {
            return Err(("`${env:..}` without the name of a variable".to_owned(), FORMS.to_owned()));
        }
        let value = (self.variables)(name).ok_or_else(|| {
            let help = "set it in the environment the gateway is started in".to_owned();
            (format!("environment variable `{name}` is not set"), help)
        })?;
        value.into_string().map_err(|_| (format!("environment variable `{name}` is not UTF-8"), String::new()))
    }

    fn file(&self, path: &str, file: usize) -> Result<String, (String, String)> {
        if path.is_empty() {
            return Err(("`${file:..}` without a path".to_owned(), FORMS.to_owned()));
        }
        let base = self.files.get(file).map(File::directory).unwrap_or_default();
        let help = if Path::new(path).is_relative() { "the path is relative to the file it stands in" } else { "" };
        read_value(&base.join(path)).map_err(|message| (message, help.to_owned()))
    }

    fn credential(&self, name: &str) -> Result<String, (String, String)> {
        let path = self.place(name)?;
        read_value(&path).map_err(|message| (message, load_credential(name)))
    }

    /// Where a credential is. That it is there is looked at here, where it can be said how it would be.
    fn credential_path(&self, name: &str) -> Result<String, (String, String)> {
        let path = self.place(name)?;
        if !path.is_file() {
            return Err((format!("credential `{name}` is not there"), load_credential(name)));
        }
        path.into_os_string().into_string().map_err(|_| (format!("the path of `{name}` is not UTF-8"), String::new()))
    }

    fn place(&self, name: &str) -> Result<PathBuf, (String, String)> {
        if !is_name(name) {
            return Err(("`${cred:..}` without the name of a credential".to_owned(), FORMS.to_owned()));
        }
        match (self.variables)("CREDENTIALS_DIRECTORY") {
            Some(directory) => Ok(Path::new(&directory).join(name)),
            None => {
                let message = format!("credential `{name}` is not there: systemd passed none to this process");
                Err((message, load_credential(name)))
            }
        }
    }
}

fn load_credential(name: &str) -> String {
    format!("add `LoadCredential={name}:/path` to the systemd unit")
}

/// The file's text without the newline at its end, or why there is none.
fn read_value(path: &Path) -> Result<String, String> {
    match read_regular(path, VALUE_BYTES_MAX) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    }
}

/// Letters, digits, `_`, `-` and `.`, no dot at the front: a variable or a credential, never a path.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::toml_tree;

    /// The text at `servers.a.url` once replaced, with the messages; `V` is the only variable.
    fn replace(url: &str, value: &str) -> (String, Vec<String>) {
        let text = format!("[servers.a]\nurl = '{url}'\n");
        let mut problems = Problems::new();
        let (mut root, _) = toml_tree::read(0, &text, &mut problems);
        let files = [File { path: PathBuf::from("/nonexistent/a.toml"), text, broken: false }];
        resolve(&mut root, &files, &|name| (name == "V").then(|| value.into()), &mut problems);
        let text = match &root.nearest(&At::root().key("servers").key("a").key("url")).kind {
            Kind::Text(text) => text.clone(),
            _ => String::new(),
        };
        (text, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn a_reference_is_replaced_once() {
        assert_eq!(replace("a${env:V}b${env:V}", "${env:V}"), ("a${env:V}b${env:V}".into(), vec![]));
        assert_eq!(replace("$${env:V}${env:V}$$${env:V}", "v"), ("${env:V}v$${env:V}".into(), vec![]));
    }

    #[test]
    fn what_is_no_reference_is_told_without_its_text() {
        for (url, message) in [
            ("${hunter2}", "a `${..}` that is no reference"),
            ("${}", "a `${..}` that is no reference"),
            ("hunter${2", "a `${` without its `}`"),
            ("${principal.id}", "`${principal.` is reserved"),
            ("${cred:a/b}", "`${cred:..}` without the name of a credential"),
            ("${file:}", "`${file:..}` without a path"),
        ] {
            assert_eq!(replace(url, "v"), (url.to_owned(), vec![message.to_owned()]));
        }
    }

    #[test]
    fn in_the_place_of_a_path_a_credential_is_its_path() {
        let directory = std::env::temp_dir().join(format!("portcullis-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("tls.key"), "the key").unwrap();
        let text = "[servers.a]\ntls.ca_file = '${env:V}/ca'\ntls.client_key_file = '${cred:tls.key}'\nheaders.b = '${cred:tls.key}'\n";
        let mut problems = Problems::new();
        let (mut root, _) = toml_tree::read(0, text, &mut problems);
        let files = [File { path: PathBuf::from("/nonexistent/a.toml"), text: text.into(), broken: false }];
        let variables = |name: &str| match name {
            "V" => Some("/etc".into()),
            "CREDENTIALS_DIRECTORY" => Some(directory.clone().into()),
            _ => None,
        };
        resolve(&mut root, &files, &variables, &mut problems);
        assert_eq!(problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>(), [""; 0]);
        let at = At::root().key("servers").key("a");
        let text = |at: At| match &root.nearest(&at).kind {
            Kind::Text(text) => text.clone(),
            _ => String::new(),
        };
        assert_eq!(text(at.key("tls").key("ca_file")), "/etc/ca");
        assert_eq!(text(at.key("tls").key("client_key_file")), directory.join("tls.key").display().to_string());
        assert_eq!(text(at.key("headers").key("b")), "the key");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_value_has_its_limit() {
        let (text, messages) = replace("${env:V}", &"v".repeat(VALUE_BYTES_MAX));
        assert_eq!((text.len(), messages.len()), (VALUE_BYTES_MAX, 0));
        let (_, messages) = replace("${env:V}", &"v".repeat(VALUE_BYTES_MAX + 1));
        assert_eq!(messages, ["environment variable `V` is larger than 65536 bytes"]);
    }

    #[test]
    fn references_have_their_limit() {
        assert!(replace(&"${env:V}".repeat(REFERENCES_MAX), "v").1.is_empty());
        let messages = replace(&"${env:V}".repeat(REFERENCES_MAX + 1), "v").1;
        assert_eq!(messages, [format!("more than {REFERENCES_MAX} references")]);
    }
}
