//! `portcullis coverage`: which rules did the calls on record never need?
//!
//! Recorded calls are decided under the configuration as it is; what no call of them came to is listed with its place. That is no
//! proof that a rule can go: it says what to ask about.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::config::Loaded;
use crate::config::model::Config;
use crate::config::model::Grants;
use crate::config::problem::At;
use crate::config::workspaces::bare;
use crate::policy;
use crate::server;

use super::Failure;
use super::asked::place;
use super::past::Decided;
use super::past::Named;
use super::past::Part;
use super::past::Read;

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    part: Part,
    /// Print one JSON object: `decisions`, `unused` and `unmentioned`.
    #[arg(long)]
    json: bool,
}

/// What the calls came to.
#[derive(Debug, Default)]
struct Seen {
    /// Keys that called.
    callers: BTreeSet<String>,
    /// By the place of a rule that grants: server and name of what it granted.
    granted: BTreeMap<String, BTreeSet<(String, Named)>>,
    /// Places of rules that refused, now or then.
    refused: BTreeSet<String>,
    /// What was named, by server and agent.
    named: BTreeMap<(String, Option<String>), BTreeSet<Named>>,
    /// Calls of tools that were permitted without any list naming them, by server and tool.
    unmentioned: BTreeMap<(String, String), u64>,
}

/// A rule that no call came to.
#[derive(Debug)]
struct Unused {
    what: &'static str,
    at: At,
    text: String,
}

/// Lists what was never needed.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let mut seen = Seen::default();
    let read = arguments.part.each(&compiled.loaded, &compiled.snapshot, |decided| seen.take(decided))?;
    let mut rules = Rules { seen: &seen, config: &compiled.loaded.config, unused: Vec::new() };
    rules.grants();
    rules.lists();
    let text = if arguments.json {
        json(&compiled.loaded, &read, &rules.unused, &seen).to_string()
    } else {
        text(&compiled.loaded, &read, &rules.unused, &seen)
    };
    super::print(&text)
}

impl Seen {
    fn take(&mut self, decided: &Decided) {
        if let Some(key) = decided.principal.strip_prefix("key:") {
            self.callers.insert(key.to_owned());
        }
        // Constraints refused then, for arguments are not on record; lists do now.
        let refusals = [&decided.then, &decided.now].into_iter().filter(|verdict| !verdict.permitted);
        self.refused.extend(refusals.filter_map(|verdict| verdict.rule.clone()));
        let (server, named) = (&decided.server, &decided.named);
        if *named != Named::Nothing {
            for agent in [None, decided.agent.clone()] {
                self.named.entry((server.clone(), agent)).or_default().insert(named.clone());
            }
        }
        if !decided.now.permitted && !decided.now.is_of_arguments() {
            return;
        }
        let Some(by) = &decided.granted_by else { return };
        self.granted.entry(by.to_string()).or_default().insert((server.clone(), named.clone()));
        // `keys.NAME.mcp_servers`, or that in a workspace.
        let by_a_list_of_servers = matches!(by.steps().len(), 3 | 5) && !by.to_string().ends_with(']');
        if let Named::Tool(tool) = named
            && by_a_list_of_servers
            && !decided.now.is_of_arguments()
            && !matches!(decided.now.reason.as_str(), "server_tools" | "agent_tools")
        {
            *self.unmentioned.entry((server.clone(), tool.clone())).or_default() += 1;
        }
    }
}

/// Goes through a configuration.
struct Rules<'r> {
    seen: &'r Seen,
    config: &'r Config,
    unused: Vec<Unused>,
}

impl<'r> Rules<'r> {
    /// Every entry by which a level grants something, and every key.
    fn grants(&mut self) {
        let config = self.config;
        for (name, key) in &config.keys {
            let at = At::entry("keys", name);
            if !self.seen.callers.contains(name) {
                self.add("key that called nothing", at, String::new());
                continue;
            }
            self.level(&at, key.grants());
        }
        let teams = config.teams.iter().map(|(name, level)| ("teams", name, level.grants()));
        let organisations = config.organisations.iter().map(|(name, level)| ("organisations", name, level.grants()));
        let users = config.users.iter().map(|(name, level)| ("users", name, level.grants()));
        let agents = config.agents.iter().map(|(name, level)| ("agents", name, level.grants()));
        for (table, name, grants) in teams.chain(organisations).chain(users).chain(agents) {
            self.level(&At::entry(table, name), grants);
        }
    }

    fn level(&mut self, at: &At, grants: Grants<'_>) {
        // Names and groups are one list, whose place is that of the names where there are any.
        let list = if grants.servers.is_some() { "mcp_servers" } else { "mcp_access_groups" };
        let by_list: BTreeSet<&str> = self.granted_at(&at.key(list)).map(|(server, _)| server.as_str()).collect();
        for (index, name) in grants.servers.unwrap_or_default().iter().enumerate() {
            let is_used = if name == "*" { !by_list.is_empty() } else { by_list.contains(name.as_str()) };
            if !is_used {
                self.add("grant", at.key("mcp_servers").index(index), bare(name).to_owned());
            }
        }
        for (index, group) in grants.access_groups.unwrap_or_default().iter().enumerate() {
            let is_in =
                |server: &&str| self.config.servers.get(*server).is_some_and(|s| s.access_groups.contains(group));
            if !by_list.iter().any(is_in) {
                self.add("grant", at.key("mcp_access_groups").index(index), bare(group).to_owned());
            }
        }
        for (index, toolset) in grants.toolsets.unwrap_or_default().iter().enumerate() {
            let at = at.key("mcp_toolsets").index(index);
            if self.granted_at(&at).next().is_none() {
                self.add("grant", at, bare(toolset).to_owned());
            }
        }
        for (server, tools) in grants.tool_permissions {
            let at = at.key("mcp_tool_permissions").key(bare(server));
            for (index, entry) in tools.iter().enumerate() {
                let is_about = |named: &Named| matches!(named, Named::Tool(tool) if policy::is_about(entry, tool));
                if !self.granted_at(&at).any(|(_, named)| is_about(named)) {
                    self.add("grant", at.index(index), entry.clone());
                }
            }
        }
    }

    /// Every entry of a list of tools and prompts, and every constraint.
    fn lists(&mut self) {
        let config = self.config;
        for (name, server) in &config.servers {
            let at = At::entry("servers", name);
            let of = (name.as_str(), None);
            self.allowed(&at, "allowed_tools", server.allowed_tools.as_deref(), of);
            self.allowed(&at, "allowed_prompts", server.allowed_prompts.as_deref(), of);
            self.refusing(&at, "blocked_tools", &server.blocked_tools);
            self.refusing(&at, "blocked_prompts", &server.blocked_prompts);
            self.refusing(&at, "blocked_agents", &server.blocked_agents);
        }
        for (agent, settings) in &config.agents {
            for (name, matrix) in &settings.servers {
                let at = At::entry("agents", agent).key("servers").key(bare(name));
                let of = (name.as_str(), Some(agent.as_str()));
                self.allowed(&at, "allowed_tools", matrix.allowed_tools.as_deref(), of);
                self.allowed(&at, "allowed_prompts", matrix.allowed_prompts.as_deref(), of);
                self.refusing(&at, "blocked_tools", &matrix.blocked_tools);
                self.refusing(&at, "blocked_prompts", &matrix.blocked_prompts);
                for (tool, constraints) in &matrix.argument_constraints {
                    let texts: Vec<String> = constraints.iter().map(|constraint| constraint.arg.clone()).collect();
                    let at = at.key("argument_constraints");
                    self.refusing(&at, tool, &texts);
                }
            }
        }
    }

    /// Entries that allow: used where something of that name was asked for.
    fn allowed(&mut self, at: &At, list: &str, entries: Option<&[String]>, (server, agent): (&str, Option<&str>)) {
        let key = (server.to_owned(), agent.map(str::to_owned));
        let named = self.seen.named.get(&key);
        for (index, entry) in entries.unwrap_or_default().iter().enumerate() {
            let is_about = |named: &Named| match named {
                Named::Tool(name) => list == "allowed_tools" && policy::is_about(entry, name),
                Named::Prompt(name) => list == "allowed_prompts" && policy::is_about(entry, name),
                Named::Resource(_) | Named::Nothing => false,
            };
            if !named.is_some_and(|named| named.iter().any(is_about)) {
                self.add("entry that allowed nothing", at.key(list).index(index), entry.clone());
            }
        }
    }

    /// Entries that refuse: used where one did.
    fn refusing(&mut self, at: &At, list: &str, entries: &[String]) {
        for (index, entry) in entries.iter().enumerate() {
            let at = at.key(list).index(index);
            if !self.seen.refused.contains(&at.to_string()) {
                self.add("entry that refused nothing", at, entry.clone());
            }
        }
    }

    fn granted_at(&self, at: &At) -> impl Iterator<Item = &'r (String, Named)> + use<'r> {
        let seen: &'r Seen = self.seen;
        seen.granted.get(&at.to_string()).into_iter().flatten()
    }

    fn add(&mut self, what: &'static str, at: At, text: String) {
        self.unused.push(Unused { what, at, text });
    }
}

fn text(loaded: &Loaded, read: &Read, unused: &[Unused], seen: &Seen) -> String {
    let mut text = read.title();
    text.push_str(&format!("\n\n{} rules no call came to:", unused.len()));
    for Unused { what, at, text: entry } in unused {
        let entry = if entry.is_empty() { String::new() } else { format!(" `{entry}`") };
        let place = place(loaded, at).map(|place| format!(" ({place})")).unwrap_or_default();
        text.push_str(&format!("\n  {what}:{entry} {at}{place}"));
    }
    text.push_str(&format!("\n\n{} tools were called that no rule mentions:", seen.unmentioned.len()));
    for ((server, tool), count) in &seen.unmentioned {
        text.push_str(&format!("\n  {count:>8} {server}/{tool}"));
    }
    text
}

fn json(loaded: &Loaded, read: &Read, unused: &[Unused], seen: &Seen) -> Value {
    let unused: Vec<Value> = unused
        .iter()
        .map(|Unused { what, at, text }| {
            json!({ "what": what, "rule": at.to_string(), "entry": text, "place": place(loaded, at) })
        })
        .collect();
    let unmentioned: Vec<Value> = seen
        .unmentioned
        .iter()
        .map(|((server, tool), calls)| json!({ "server": server, "tool": tool, "calls": calls }))
        .collect();
    json!({
        "decisions": read.decisions,
        "first": read.first,
        "last": read.last,
        "unused": unused,
        "unmentioned": unmentioned,
    })
}
