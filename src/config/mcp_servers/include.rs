//! Which servers does an included `mcpServers` file add?

use std::collections::BTreeMap;

use crate::config::mcp_servers::KEYS;
use crate::config::mcp_servers::take_servers;
use crate::config::nearest::nearest;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// The file's root as the root of a configuration with nothing but servers. What is not understood is reported,
/// and stays in it marked bad.
pub(crate) fn include(mut root: Node, problems: &mut Problems) -> Node {
    let span = root.span;
    let servers = take_servers(&mut root, problems);
    for (key, node) in root.entries_mut().into_iter().flatten().filter(|(key, _)| *key != "$schema") {
        let problem = Problem::error(&At::root(), format!("unknown key `{key}`"), "known keys: `mcpServers`");
        problems.add(problem.on(node.name_spot()));
    }
    let mut tables = BTreeMap::new();
    if let Some(mut servers) = servers {
        let at = At::root().key("servers");
        for (name, server) in servers.entries_mut().into_iter().flatten() {
            translate(server, &at.key(name), problems);
        }
        tables.insert("servers".to_owned(), servers);
    }
    Node::new(None, span, Kind::Table(tables))
}

/// Gives an entry's keys the model's names.
fn translate(server: &mut Node, at: &At, problems: &mut Problems) {
    let Some(entries) = server.entries_mut() else { return };
    if let Some(command) = entries.get("command") {
        let help = "remove the entry, or run the server behind an HTTP address and give its `url`";
        let problem = Problem::error(at, "a server started by a command is not served yet", help);
        problems.add(problem.on(command.name_spot()));
        server.bad = true;
        server.private = true;
        return;
    }
    let known: Vec<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
    let mut translated = BTreeMap::new();
    for (key, mut entry) in std::mem::take(entries) {
        match KEYS.iter().find(|(known, _)| *known == key) {
            Some((_, key)) => {
                translated.insert((*key).to_owned(), entry);
            }
            None => {
                let help = match nearest(&key, known.iter()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "known keys: `url`, `type`, `transport`, `headers`, `timeout`, `sseReadTimeout`".to_owned(),
                };
                let problem = Problem::error(&at.key(&key), format!("unknown key `{key}` in `{at}`"), help);
                problems.add(problem.on(entry.name_spot()));
                entry.bad = true;
                entry.private = true;
                // A name of the model's that this form does not have must not take the place of the one it has.
                translated.entry(format!("{key} (JSON)")).or_insert(entry);
            }
        }
    }
    *entries = translated;
}
