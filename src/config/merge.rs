//! How do several files become one configuration?
//!
//! Top-level tables are joined, and those of a workspace; an entry of one (`servers.github`, `listen.data`) may stand in one file
//! only.

use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Adds what `added` says to `root`. What is refused comes back with its place: its text may hold secrets.
pub(crate) fn merge(root: &mut Node, added: Node, problems: &mut Problems) -> Vec<(At, Node)> {
    let mut refused = Vec::new();
    let Kind::Table(added) = added.kind else { return refused };
    for (name, table) in added {
        // Workspaces have tables as the root does.
        let depth = if name == "workspaces" { 3 } else { 1 };
        let at = At::root();
        join(root, (name, table), depth, &at, &mut refused, problems);
    }
    refused
}

/// Adds an entry to `table`; where it is there already, what stands in it, so many tables deep.
fn join(
    table: &mut Node,
    (name, added): (String, Node),
    depth: usize,
    at: &At,
    refused: &mut Vec<(At, Node)>,
    problems: &mut Problems,
) {
    let Some(entries) = table.entries_mut() else { return };
    let at = at.key(&name);
    let Some(present) = entries.get_mut(&name) else {
        entries.insert(name, added);
        return;
    };
    match (&present.kind, added.kind) {
        (Kind::Table(_), Kind::Table(added)) if depth > 0 => {
            added.into_iter().for_each(|entry| join(present, entry, depth - 1, &at, refused, problems));
        }
        (_, kind) => refused.push(twice(present, Node { kind, ..added }, &at, problems)),
    }
}

fn twice(first: &Node, second: Node, at: &At, problems: &mut Problems) -> (At, Node) {
    let problem = Problem::error(at, format!("`{at}` is defined twice"), "keep one of them");
    problems.add(problem.on(second.name_spot()).beside(first.name_spot(), "first defined here"));
    (at.clone(), second)
}
