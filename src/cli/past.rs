//! What was decided, as the record tells it, and what another configuration says of the same calls.
//!
//! Of each call the record has who, from where, when, which server and what by name. It has no arguments and no scopes, and of what a
//! client called itself only the agents that were known by it, so what depends on these is told apart instead of guessed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::audit::evidence::Reader;
use crate::auth;
use crate::call::Action;
use crate::call::Call;
use crate::clock;
use crate::config::Loaded;
use crate::config::model::Cascade;
use crate::config::model::Config;
use crate::config::model::Server;
use crate::config::problem::At;
use crate::config::workspaces;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::revision::Revision;
use crate::policy::Consulted;
use crate::policy::DenialKind;
use crate::policy::NAMES;
use crate::principal::Principal;
use crate::principal::Report;
use crate::principal::Subject;
use crate::snapshot::Snapshot;

use super::Failure;

/// Which part of the record is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct Part {
    /// The directory of the record. Absent: the one that the configuration names.
    #[arg(long, value_name = "DIRECTORY")]
    records: Option<PathBuf>,
    /// Only what was recorded from this time on, as RFC 3339 writes it.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was recorded before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// A line of the record, as far as decisions go.
#[derive(Debug, Deserialize)]
struct Line<'l> {
    seq: u64,
    #[serde(borrow)]
    kind: Cow<'l, str>,
    #[serde(borrow)]
    time: Cow<'l, str>,
    #[serde(default, borrow)]
    workspace: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    principal: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    user: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    teams: Vec<Cow<'l, str>>,
    #[serde(default, borrow)]
    organisation: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    agent: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    chain: Vec<Cow<'l, str>>,
    #[serde(default, borrow)]
    reported_agent: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    user_agent: Option<Cow<'l, str>>,
    #[serde(default)]
    source: Option<IpAddr>,
    #[serde(default, borrow)]
    server: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    rpc_method: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    revision: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    tool: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    resource: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    prompt: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    reason: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    rule: Option<Cow<'l, str>>,
}

/// One recorded decision of policy.
#[derive(Debug)]
pub(super) struct Decided {
    /// Number of the record.
    pub(super) seq: u64,
    /// Who called: `key:ci`.
    pub(super) principal: String,
    /// What was asked of which server: `github/create_issue`, `github (tools/list)`, `acme/github (tools/list)` of a workspace.
    pub(super) what: String,
    pub(super) server: String,
    /// What the call named.
    pub(super) named: Named,
    /// Every agent whose matrix may have a say: the caller's own, those before it in a minted key, those that it said it is.
    pub(super) agents: BTreeSet<String>,
    /// Whether a minted key called: then this is what its key would be told, which is at least what it may do itself.
    pub(super) is_minted: bool,
    /// What became of it.
    pub(super) then: Verdict,
    /// What would become of it now.
    pub(super) now: Verdict,
    /// Where the rule stands that decides now.
    pub(super) now_at: Option<At>,
    /// The tables of all levels by which it would be granted.
    pub(super) granted_by: Vec<At>,
    /// Where none grants the server as such, and the call names nothing: the tables that may let the caller reach it for a tool.
    pub(super) opened_by: Vec<At>,
    /// On what, beside that, the answer depends that is not on record.
    pub(super) depends: Option<Depends>,
}

/// What a call named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Tool(String),
    Resource(String),
    Prompt(String),
    Nothing,
}

/// A decision, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Verdict {
    pub(super) permitted: bool,
    /// Fixed word.
    pub(super) reason: String,
    /// Where the rule stands, in keys.
    pub(super) rule: Option<String>,
}

/// What the record does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depends {
    /// The tool's arguments are held against constraints.
    Arguments,
    /// The caller's token must have scopes.
    Scopes,
    /// An agent was known by what the client called itself, and there are rules for it.
    Client,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Decisions of policy.
    pub(super) decisions: u64,
    /// Records that hold none: results, and refusals for other reasons.
    pub(super) others: u64,
    /// Decisions that cannot be made again, for the record lacks something.
    pub(super) unclear: u64,
    /// Of them, calls of minted keys.
    pub(super) minted: u64,
    /// Names of the keys with which anything was asked, or whose minted keys were used.
    pub(super) keys: BTreeSet<String>,
    /// Times of the first and the last decision.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

impl Part {
    /// All of what is in a directory.
    #[cfg(test)]
    pub(super) fn whole(directory: &Path) -> Self {
        Self { records: Some(directory.to_owned()), since: None, until: None }
    }

    /// Shows every decision in this part of the record, as it was and as `snapshot` would make it; those of minted keys as well,
    /// which cannot be made again.
    ///
    /// # Errors
    /// The record, or a time, cannot be read. A line that is not whole at the end of the record is left out: it is being written.
    pub(super) fn each(
        &self,
        loaded: &Loaded,
        snapshot: &Snapshot,
        mut visit: impl FnMut(&Decided),
    ) -> Result<Read, Failure> {
        let directory = self.records.as_deref().unwrap_or(Path::new(&loaded.config.audit.directory));
        let (since, until) = (seconds(self.since.as_deref())?, seconds(self.until.as_deref())?);
        let mut read = Read::default();
        let unreadable = |error| Failure::new(format!("the record {} cannot be read: {error}", directory.display()));
        let (mut lines, mut number) = (Reader::from_start(directory), 0_u64);
        while let Some(bytes) = lines.next_line().map_err(unreadable)? {
            number += 1;
            let no_record =
                |error| Failure::new(format!("line {number} of the record {} is none: {error}", directory.display()));
            let line: Line<'_> = serde_json::from_slice(&bytes).map_err(no_record)?;
            if !matches!(&*line.kind, "intent" | "refused") {
                read.others += 1;
                continue;
            }
            let at = clock::seconds_of(&line.time).unwrap_or(0);
            if since.is_some_and(|since| at < since) || until.is_some_and(|until| at >= until) {
                continue;
            }
            read.keys.extend(line.principal.as_deref().and_then(key_of).map(str::to_owned));
            let is_policys = line.reason.as_deref().is_none_or(|reason| NAMES.contains(&reason));
            if !is_policys {
                read.others += 1;
                continue;
            }
            let Some(decided) = line.decide_again(loaded, snapshot, at) else {
                read.unclear += 1;
                continue;
            };
            if decided.is_minted {
                read.unclear += 1;
                read.minted += 1;
            } else {
                read.decisions += 1;
                read.last = Some(line.time.to_string());
                read.first.get_or_insert_with(|| line.time.to_string());
            }
            visit(&decided);
        }
        if number == 0 {
            return Err(Failure::new(format!("{} holds no records (*.jsonl)", directory.display())));
        }
        Ok(read)
    }
}

impl Read {
    /// How many decisions there were, and from when to when, as the first line of a report.
    pub(super) fn title(&self) -> String {
        let mut title = format!("{} recorded decisions", self.decisions);
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            title.push_str(&format!(", {first} to {last}"));
        }
        title
    }
}

fn seconds(text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let message = || format!("error: `{text}` is not a time of RFC 3339, such as 2027-01-31T00:00:00Z");
    clock::seconds_of(text).map(Some).ok_or_else(|| Failure { code: 2, message: message() })
}

/// The name of the key that a principal is, or whose minted key it is.
fn key_of(id: &str) -> Option<&str> {
    id.strip_prefix("key:")?.split('>').next()
}

/// The levels by which a call is granted, of all that were asked, in their order; none if it is not. Levels of one kind that follow one
/// another, such as a token's teams, speak together, and grant if any does.
fn granting(consulted: &[Consulted], cascade: Cascade) -> Vec<At> {
    let mut granting = Vec::new();
    for voice in consulted.chunk_by(|one, next| one.speaker == next.speaker) {
        let grants = voice.iter().filter(|level| level.granted == Some(true)).map(|level| level.level.clone());
        let before = granting.len();
        granting.extend(grants);
        let speaks = voice.iter().any(|level| level.granted.is_some());
        if speaks && granting.len() == before {
            return Vec::new();
        }
        if speaks && cascade == Cascade::First {
            break;
        }
    }
    granting
}

/// Whether a server has rules for an agent that a caller merely says it is.
fn heeds(config: &Config, server: &str, agent: &str) -> bool {
    let is_blocked = |server: &Server| server.blocked_agents.iter().any(|blocked| blocked == agent);
    config.servers.get(server).is_some_and(is_blocked)
        || config.agents.get(agent).is_some_and(|rules| {
            !rules.reported_as.is_empty() && (rules.disabled || rules.servers.contains_key(server))
        })
}

impl Line<'_> {
    fn decide_again(&self, loaded: &Loaded, snapshot: &Snapshot, at: u64) -> Option<Decided> {
        let (id, server) = (self.principal.as_deref()?, self.qualified(self.server.as_deref()?));
        let permitted = self.kind == "intent";
        let then = Verdict {
            permitted,
            reason: self.reason.as_deref().unwrap_or_default().to_owned(),
            rule: self.rule.as_deref().map(str::to_owned),
        };
        let call = self.call(&server)?;
        let mut decided = Decided {
            seq: self.seq,
            principal: id.to_owned(),
            what: self.what(&server),
            server,
            named: self.named(),
            agents: BTreeSet::new(),
            is_minted: id.starts_with("key:") && id.contains('>'),
            then,
            now: Verdict::of(false, "", None),
            now_at: None,
            granted_by: Vec::new(),
            opened_by: Vec::new(),
            depends: None,
        };
        let principal = match self.caller(id, loaded)? {
            Ok(principal) => principal,
            Err(now) => return Some(Decided { now, ..decided }),
        };
        let report = Report { user_agent: self.user_agent.as_deref().map(str::as_bytes), client: None };
        let subject = Subject { principal: &principal, source: self.source, toolset: None, report, now: at };
        let known = snapshot.policy.reported(self.workspace(), report);
        let by_client = self.reported_by_client(&known);
        decided.agents = self.agents(&principal, &known);
        if let Some(key) = &principal.key
            && let Err(error) = snapshot.keys.check_terms(key, self.source, at)
        {
            let at = At::entry("keys", key);
            decided.now = Verdict::of(false, error.name(), Some(&at));
            decided.now_at = Some(at);
            return Some(decided);
        }
        let policy = &snapshot.policy;
        let consulted = policy.consult(subject, &call);
        decided.granted_by = granting(&consulted, loaded.config.policy.cascade);
        let names_nothing = call.message().is_none_or(|message| message.target().is_none());
        if decided.granted_by.is_empty() && names_nothing {
            decided.opened_by = consulted.into_iter().map(|consulted| consulted.level).collect();
        }
        let reads_arguments = policy.reads_arguments(subject, &call);
        let revision = self.revision.as_deref().and_then(Revision::parse).unwrap_or(Revision::V2025_11_25);
        let mut needs_scopes = false;
        (decided.now, decided.now_at) = match policy.decide(subject, revision, call) {
            Ok(permitted) => {
                let reason = permitted.reason();
                (Verdict::of(true, reason.name(), reason.at()), reason.at().cloned())
            }
            Err(denied) => {
                let denial = &denied.denial;
                needs_scopes = matches!(denial.kind(), DenialKind::ScopeMissing { .. });
                (Verdict::of(false, denial.name(), denial.at()), denial.at().cloned())
            }
        };
        let reads_arguments = reads_arguments && (decided.now.permitted || decided.now.is_of_arguments());
        // What it called itself only ever denies.
        let heeds = |agent: &String| heeds(&loaded.config, &decided.server, agent);
        let heeds_client = decided.now.permitted && by_client.iter().any(heeds);
        let depends =
            [(needs_scopes, Depends::Scopes), (heeds_client, Depends::Client), (reads_arguments, Depends::Arguments)];
        decided.depends = depends.into_iter().find(|(does, _)| *does).map(|(_, on)| on);
        Some(decided)
    }

    /// Agents that were known by the client's name, which is not on record: `known` are those that are known without.
    fn reported_by_client(&self, known: &[&str]) -> Vec<String> {
        self.reported().filter(|agent| !known.contains(agent)).map(|agent| self.qualified(agent)).collect()
    }

    /// Agents that the caller said it is, as they were known then.
    fn reported(&self) -> impl Iterator<Item = &str> {
        self.reported_agent.as_deref().into_iter().flat_map(|agents| agents.split(','))
    }

    /// Every agent whose matrix may have a say.
    fn agents(&self, principal: &Principal, known: &[&str]) -> BTreeSet<String> {
        let links = self.chain.iter().skip(1).filter_map(|link| link.split('#').next());
        // The recorded one is the last of a chain; the key's own may be another than it was.
        let named = links.chain(self.reported()).chain(known.iter().copied()).chain(self.agent.as_deref());
        named.map(|agent| self.qualified(agent)).chain(principal.agent.as_deref().map(str::to_owned)).collect()
    }

    /// The caller's workspace; `None`: `default`, which is also what a record of before there were others means.
    fn workspace(&self) -> Option<&str> {
        self.workspace.as_deref().filter(|workspace| *workspace != workspaces::DEFAULT)
    }

    fn qualified(&self, name: &str) -> String {
        workspaces::qualified(self.workspace(), name)
    }

    /// Who called, as the configuration knows them.
    fn caller(&self, id: &str, loaded: &Loaded) -> Option<Result<Principal, Verdict>> {
        if id == "public" {
            return Some(Ok(Principal::public()));
        }
        // What is left to a minted key stands in the record of its minting, not in those of its calls: its key may do more.
        if let Some(name) = key_of(id) {
            let Some(key) = loaded.config.keys.get(name) else {
                return Some(Err(Verdict::of(false, "key_unknown", Some(&At::entry("keys", name)))));
            };
            return Some(Ok(auth::principal(name, key, &loaded.config)));
        }
        id.strip_prefix("oauth:")?;
        let shared = |text: &Cow<'_, str>| self.qualified(text).into();
        Some(Ok(Principal {
            id: id.into(),
            workspace: self.workspace().map(Into::into),
            teams: self.teams.iter().map(shared).collect(),
            organisation: self.organisation.as_ref().map(shared),
            user: self.user.as_ref().map(shared),
            agent: self.agent.as_ref().map(shared),
            ..Principal::default()
        }))
    }

    /// The call as far as the record has it: without arguments. `None`: something in the record was cut, or it is no call that could be made.
    fn call(&self, server: &str) -> Option<Call> {
        let is_cut = |text: &Cow<'_, str>| text.ends_with('…');
        let names =
            [&self.tool, &self.prompt, &self.resource, &self.server, &self.user, &self.organisation, &self.agent];
        if names.into_iter().flatten().chain(&self.teams).any(is_cut) {
            return None;
        }
        Some(Call { server: server.into(), action: self.action()?, opened: Vec::new(), task_tool: None })
    }

    fn action(&self) -> Option<Action> {
        let Some(method) = self.rpc_method.as_deref() else { return Some(Action::EndSession) };
        let params = match self.named() {
            Named::Tool(name) if method == "tools/call" => json!({ "name": name, "arguments": {} }),
            Named::Prompt(name) if method == "prompts/get" => json!({ "name": name }),
            Named::Resource(uri) if method.starts_with("resources/") => json!({ "uri": uri }),
            Named::Prompt(name) => {
                json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": "", "value": "" } })
            }
            Named::Resource(uri) => {
                json!({ "ref": { "type": "ref/resource", "uri": uri }, "argument": { "name": "", "value": "" } })
            }
            Named::Tool(_) | Named::Nothing => json!({}),
        };
        let id = if method.starts_with("notifications/") { json!({}) } else { json!({ "id": 1 }) };
        let mut body = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        body.as_object_mut()?.extend(id.as_object()?.clone());
        Message::read(Bytes::from(body.to_string()), &Limits::default()).ok().map(Action::Message)
    }

    fn named(&self) -> Named {
        match (&self.tool, &self.resource, &self.prompt) {
            (Some(tool), _, _) => Named::Tool(tool.to_string()),
            (None, Some(uri), _) => Named::Resource(uri.to_string()),
            (None, None, Some(prompt)) => Named::Prompt(prompt.to_string()),
            (None, None, None) => Named::Nothing,
        }
    }

    fn what(&self, server: &str) -> String {
        match self.named() {
            Named::Tool(name) | Named::Prompt(name) | Named::Resource(name) => format!("{server}/{name}"),
            Named::Nothing => format!("{server} ({})", self.rpc_method.as_deref().unwrap_or("stream")),
        }
    }
}

impl Verdict {
    fn of(permitted: bool, reason: &str, at: Option<&At>) -> Self {
        Self { permitted, reason: reason.to_owned(), rule: at.map(ToString::to_string) }
    }

    /// Whether it is about a tool's arguments.
    pub(super) fn is_of_arguments(&self) -> bool {
        self.reason.starts_with("argument_")
    }
}
