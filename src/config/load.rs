//! How does a file become a configuration?
//!
//! Read, join, check the form, replace references, mask, deserialize, check names, then the owners' `compile`.
//! Each step goes on after a mistake where that can tell the operator more; nothing is served unless none was found.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use serde_path_to_error::Segment;

use crate::config::certificates;
use crate::config::directories;
use crate::config::files;
use crate::config::interpolate;
use crate::config::limit_checks;
use crate::config::mask;
use crate::config::model::Config;
use crate::config::names::check_names;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Severity;
use crate::config::record_checks;
use crate::config::shape;
use crate::config::shape::Shape;
use crate::config::sources::Sources;
use crate::config::trail::Trail;
use crate::config::tree::Kind;
use crate::config::tree::Node;
use crate::config::workspaces;

/// A configuration without mistakes.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Where it says it.
    pub sources: Sources,
    /// What the operator should know nevertheless.
    pub warnings: Problems,
}

/// A configuration with mistakes. Its `Display` shows them all, and no secret.
#[derive(Debug)]
pub struct LoadError {
    /// Where they stand.
    pub sources: Sources,
    /// The mistakes, and warnings.
    pub problems: Problems,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sources.render(&self.problems))
    }
}

impl std::error::Error for LoadError {}

/// Reads the configuration whose main file is `path`. Owners' `compile` comes on top: see [`load_and`].
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    load_and(path, |_, _| ()).map(|(loaded, ())| loaded)
}

/// Reads the configuration and compiles it, reporting the mistakes of both at once.
///
/// `compile` also sees a configuration with mistakes, without what is wrong, so that it can report its own; what it
/// makes of that is dropped.
pub fn load_and<T>(path: &Path, compile: impl FnOnce(&Config, &mut Problems) -> T) -> Result<(Loaded, T), LoadError> {
    load_with(path, &|name| std::env::var_os(name), compile)
}

/// The same with another environment.
pub fn load_with<T>(
    path: &Path,
    variables: &dyn Fn(&str) -> Option<OsString>,
    compile: impl FnOnce(&Config, &mut Problems) -> T,
) -> Result<(Loaded, T), LoadError> {
    let mut problems = Problems::new();
    let mut files = files::read(path, &mut problems);
    shape::check(&mut files.root, Shape::of_configuration(), &Trail::Root, &mut problems);
    let resolved = interpolate::resolve(&mut files.root, &files.files, variables, &mut problems);
    mask::mask(&mut files);
    let names_lost = files.incomplete || loses_names(&files.root);
    let config = read_config(&mut files.root, &mut problems);
    let sources = Sources::new(files, resolved);
    let (Some(mut config), false) = (config, names_lost) else { return Err(LoadError { sources, problems }) };

    workspaces::join(&mut config, &mut problems);
    directories::anchor(&mut config, &sources);
    let mut unread = Problems::new();
    certificates::read(&mut config, &sources, &mut unread);
    unread.iter().for_each(|problem| problems.add(sources.redacted_problem(problem)));
    check_names(&config, &mut problems);
    limit_checks::check(&config, &mut problems);
    record_checks::check(&config, &mut problems);
    let mut later = Problems::new();
    let compiled = compile(&config, &mut later);
    let problems = joined(problems, &later, &sources);
    match problems.has_errors() {
        true => Err(LoadError { sources, problems }),
        false => Ok((Loaded { config, sources, warnings: problems }, compiled)),
    }
}

/// Whether a mistake hides a whole table or a name that others refer to: judging the rest would find what is no mistake.
fn loses_names(root: &Node) -> bool {
    let Kind::Table(tables) = &root.kind else { return true };
    tables.iter().any(|(name, table)| {
        table.bad
            || match &table.kind {
                Kind::Table(entries) if name == "servers" || name == "agents" => entries.values().any(|node| node.bad),
                Kind::Table(workspaces) if name == "workspaces" => {
                    workspaces.values().any(|workspace| workspace.bad || loses_names(workspace))
                }
                _ => false,
            }
    })
}

/// The sound part as a configuration.
fn read_config(root: &mut Node, problems: &mut Problems) -> Option<Config> {
    let value = root.take_value()?;
    match serde_path_to_error::deserialize(value) {
        Ok(config) => Some(config),
        // The form was checked already, so this is new only if nothing was found wrong.
        Err(error) if !problems.has_errors() => {
            problems.error(&at(error.path()), error.inner().message().to_owned(), "");
            None
        }
        Err(_) => None,
    }
}

fn at(path: &serde_path_to_error::Path) -> At {
    path.iter().fold(At::root(), |at, segment| match segment {
        Segment::Seq { index } => at.index(*index),
        Segment::Map { key } => at.key(key),
        Segment::Enum { .. } | Segment::Unknown => at,
    })
}

/// Both passes' problems, without what follows from the first: a table that holds a mistake may seem to lack something.
fn joined(first: Problems, later: &Problems, sources: &Sources) -> Problems {
    let mistakes: Vec<At> =
        first.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.at.clone()).collect();
    let follows = |problem: &&Problem| !mistakes.iter().any(|mistake| problem.at.holds(mistake));
    let mut all = first;
    later.iter().filter(follows).for_each(|problem| all.add(sources.redacted_problem(problem)));
    all
}
