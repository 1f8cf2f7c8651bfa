//! How do several files become one configuration?
//!
//! Top-level tables are joined; an entry of one (`servers.github`, `listen.data`) may stand in one file only.

use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Adds what `added` says to `root`. What is refused comes back with its place: its text may hold secrets.
pub(crate) fn merge(root: &mut Node, added: Node, problems: &mut Problems) -> Vec<(At, Node)> {
    let mut refused = Vec::new();
    let (Some(tables), Kind::Table(added)) = (root.entries_mut(), added.kind) else { return refused };
    for (name, table) in added {
        let at = At::root().key(&name);
        let Some(present) = tables.get_mut(&name) else {
            tables.insert(name, table);
            continue;
        };
        match (&mut present.kind, table.kind) {
            (Kind::Table(entries), Kind::Table(added)) => {
                for (key, entry) in added {
                    match entries.get(&key) {
                        Some(first) => refused.push(twice(first, entry, &at.key(&key), problems)),
                        None => {
                            entries.insert(key, entry);
                        }
                    }
                }
            }
            (_, kind) => refused.push(twice(present, Node { kind, ..table }, &at, problems)),
        }
    }
    refused
}

fn twice(first: &Node, second: Node, at: &At, problems: &mut Problems) -> (At, Node) {
    let problem = Problem::error(at, format!("`{at}` is defined twice"), "keep one of them");
    problems.add(problem.on(second.name_spot()).beside(first.name_spot(), "first defined here"));
    (at.clone(), second)
}
