//! May this caller make this call?
//!
//! Pure: the answer depends on the compiled configuration and the call alone. Default deny, in this order:
//! 1. Server and caller are in the same workspace, neither is turned off, and the server keeps the caller out by none of its
//!    restrictions.
//!    An agent that the caller merely says it is counts here and in 3 and 4, where it can only deny.
//! 2. What is asked for must be granted: by the cascade of key, team, organisation, user, agent and toolset, in which the first
//!    that says anything decides, or by a server that is open to everybody. The holder of a key is known by the key's
//!    name; what the key may do is what this configuration says.
//! 3. The method must be known towards a server in the call's revision, in the form it came in. A tool, resource or prompt must
//!    pass the server's lists, then the agent's for the server; blocked beats allowed.
//!    What asks about a task must pass them as the tool does that made it.
//! 4. The arguments of a tool must pass every constraint of the agent's matrix.
//! 5. A caller with a token must have the scopes of the server, and of the tool.
//! 6. What is permitted may go out narrowed: without capabilities the server may not use, and without subscriptions to
//!    resources the caller does not see.

mod check;
mod compile;
mod constraint;
mod constraints;
mod decimal;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grants;
mod hash;
mod level;
mod listen;
mod minting;
mod names;
mod path;
mod pattern;
mod reason;
mod report;
mod rules;
mod scopes;
#[cfg(test)]
mod tests;
mod times;
mod unused;
mod uris;
mod verdict;
mod view;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::call::Call;
use crate::config::problem::At;
use crate::config::workspaces;
use crate::mcp::capabilities;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::method::Form;
use crate::mcp::method::Towards;
use crate::mcp::revision::Revision;
use crate::mcp::splice::Splice;
use crate::policy::hash::NameMap;
use crate::policy::level::Cascade;
use crate::policy::level::Claimed;
use crate::policy::level::Levels;
use crate::policy::level::Question;
use crate::policy::pattern::Patterns;
use crate::policy::report::REPORTED_AGENTS_MAX;
use crate::policy::report::Reports;
use crate::policy::rules::AgentRules;
use crate::policy::rules::KeyRules;
use crate::policy::rules::Listed;
use crate::policy::rules::Matrix;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::ServerRules;
use crate::policy::rules::Who;
use crate::policy::scopes::Scopes;
use crate::policy::uris::UriLists;
use crate::policy::verdict::shown;
use crate::policy::view::Access;
use crate::policy::view::Child;
use crate::principal::Report;
use crate::principal::Subject;

pub use crate::mcp::capabilities::ClientRequest;
pub use crate::policy::constraint::ArgumentDenial;
pub use crate::policy::constraint::Mismatch;
pub use crate::policy::level::Speaker;
pub use crate::policy::minting::DEPTH_MAX;
pub use crate::policy::minting::Minting;
pub use crate::policy::minting::NotMinted;
pub use crate::policy::minting::REVOKED_MAX;
pub use crate::policy::minting::SECONDS_MAX;
pub use crate::policy::minting::SERVERS_MAX;
pub use crate::policy::minting::TOOLS_MAX;
pub use crate::policy::minting::check_tool;
pub use crate::policy::names::is_about;
pub use crate::policy::reason::Reason;
pub use crate::policy::rules::Restriction;
pub use crate::policy::verdict::About;
pub use crate::policy::verdict::DENIALS;
pub use crate::policy::verdict::Denial;
pub use crate::policy::verdict::DenialKind;
pub use crate::policy::verdict::Denied;
pub use crate::policy::verdict::NAMES;
pub use crate::policy::verdict::Permitted;
pub use crate::policy::verdict::Told;
pub use crate::policy::verdict::Whose;
pub use crate::policy::view::View;

/// The rules of one configuration, compiled. Never changes.
pub struct Policy {
    /// Positions of servers, by name.
    index: NameMap<Box<str>, ServerIndex>,
    servers: Vec<ServerRules>,
    keys: NameMap<Box<str>, KeyRules>,
    levels: Levels,
    /// Whether every level that says something must grant.
    intersects: bool,
    patterns: Patterns,
    uris: UriLists,
    scopes: Scopes,
    reports: Reports,
    has_times: bool,
}

impl Policy {
    /// Decides one call. What it permits is the only thing that is sent.
    ///
    /// `revision` is the one the call is spoken in. Whether a server exists that the caller may not reach cannot be
    /// told from the answer.
    pub fn decide(&self, subject: Subject<'_>, revision: Revision, call: Call) -> Result<Permitted, Box<Denied>> {
        match self.judge(subject, revision, &call) {
            Ok((reason, own)) => Permitted::new(call, Arc::clone(reason), own),
            Err(denial) => Err(Box::new(Denied { call, denial: *denial })),
        }
    }

    /// What would be decided about a call, and why; nothing may be sent for it.
    pub fn weigh<'p>(
        &'p self,
        subject: Subject<'p>,
        revision: Revision,
        call: &Call,
    ) -> Result<&'p Reason, Box<Denial>> {
        self.judge(subject, revision, call).map(|(reason, _)| &**reason)
    }

    /// Whether a call that was permitted, and whose answer is still under way, would be permitted now.
    pub fn still_permits(&self, subject: Subject<'_>, revision: Revision, call: &Call) -> bool {
        self.judge(subject, revision, call).is_ok()
    }

    /// What the caller sees of a server; nothing of one that it may not reach.
    pub fn view<'p>(&'p self, subject: Subject<'p>, server: &str) -> View<'p> {
        View::new(self.access(subject, subject.report, server).ok())
    }

    /// Whether any rule speaks of what callers say they are.
    pub fn heeds_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// The agents of which rules speak and that a caller in this workspace, `None` for `default`, says it is: what they are called
    /// there.
    pub fn reported(&self, workspace: Option<&str>, report: Report<'_>) -> Vec<&str> {
        self.reports.of(workspace, report).iter().map(|agent| workspaces::bare(&agent.name)).collect()
    }

    /// What each level of the cascade says of a call, in the order in which they are asked. Empty where none is: the server does not
    /// exist, keeps the caller out, or the caller is turned off.
    pub fn consult(&self, subject: Subject<'_>, call: &Call) -> Vec<Consulted> {
        let Ok(access) = self.access(subject, self.report(subject, call), &call.server) else { return Vec::new() };
        let tool = call.message().and_then(Message::tool);
        let question = tool.map_or(Question::Server, Question::Tool);
        let consulted = access.cascade.consult(access.index, question).into_iter();
        consulted
            .map(|(level, word)| Consulted {
                speaker: level.speaker,
                level: level.at.clone(),
                granted: word.map(|word| word.granted),
                rule: word.map(|word| word.reason.at.clone()),
            })
            .collect()
    }

    /// Whether any rule holds at some times only, so that what is permitted may change with the minute.
    pub fn has_times(&self) -> bool {
        self.has_times
    }

    /// Whether the caller may reach a server at all.
    pub fn reaches(&self, subject: Subject<'_>, server: &str) -> bool {
        self.access(subject, subject.report, server).is_ok_and(|access| access.reach().is_ok())
    }

    /// Whether a call's arguments have a say in what becomes of it: the caller's agent may give the tool some alone.
    pub fn reads_arguments(&self, subject: Subject<'_>, call: &Call) -> bool {
        let access = self.access(subject, self.report(subject, call), &call.server).ok();
        call.tool().zip(access).is_some_and(|(tool, access)| {
            let reading = access.each_matrix(|matrix| {
                let constraints = matrix.constraints.get(tool);
                let reads = matrix.parameters.contains_key(tool) || constraints.is_some_and(|all| !all.is_empty());
                if reads { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            reading.is_break()
        })
    }

    fn judge<'p>(&'p self, subject: Subject<'p>, revision: Revision, call: &Call) -> Result<Judged<'p>, Box<Denial>> {
        let unreachable = |unreachable: Unreachable| unreachable.denial(&call.server);
        let access = self.access(subject, self.report(subject, call), &call.server).map_err(unreachable)?;
        let reach = || access.reach().map_err(|at| unreachable(Unreachable::NotGranted(at)));
        // What names nothing needs the server only.
        let Some(message) = call.message().filter(|message| message.kind() != MessageKind::Response) else {
            let reason = reach()?;
            self.scopes.check(subject.principal, &call.server, None)?;
            return Ok((reason, Vec::new()));
        };
        let name = message.method().unwrap_or_default();
        if !is_served(message.kind(), name, revision) {
            reach()?;
            return Err(unknown_method(name));
        }
        if !call.opened.is_empty() && is_judged(message, &call.opened) {
            return Err(Denial::new(DenialKind::Contradiction, None));
        }
        // To end a task may whoever reaches the server: that is never more than the tool could do.
        let task_tool = call.task_tool.as_deref().filter(|_| name != "tasks/cancel");
        let reason = match (judge_target(&access, name, message), task_tool) {
            (Some(judged), _) => judged?,
            (None, Some(tool)) => access.judge(Listed::Tool(tool))?,
            (None, None) => reach()?,
        };
        // After all else: who may not call a tool is not told which scope it has.
        self.scopes.check(subject.principal, &call.server, call.tool().or(task_tool))?;
        Ok((reason, narrowed(&access, name, message)))
    }

    /// What a caller says it is, with this call.
    fn report<'r>(&self, subject: Subject<'r>, call: &'r Call) -> Report<'r> {
        let said = || if self.heeds_reports() { call.message()?.client_name() } else { None };
        Report { client: subject.report.client.or_else(said), ..subject.report }
    }

    /// The rules for a caller on a server. Making a denial is left to who needs one: views do not.
    fn access<'p>(&'p self, subject: Subject<'p>, report: Report<'_>, server: &str) -> Result<Access<'p>, Unreachable> {
        let index = *self.index.get(server).ok_or(Unreachable::Unknown)?;
        let server = self.servers.get(index).ok_or(Unreachable::Unknown)?;
        // INVARIANT: what is in one workspace is unknown in every other, whatever is granted there: `*` included.
        if server.workspace.as_deref() != subject.principal.workspace.as_deref() {
            return Err(Unreachable::Unknown);
        }
        let Caller { mut cascade, agent, who, own } = self.caller(subject)?;
        let child = subject.principal.minted.as_deref().map(|minted| Child { minted, levels: &self.levels });
        let mut toolset = None;
        if let Some(name) = subject.toolset {
            let found = self.levels.toolsets.get(name).ok_or(Unreachable::Unknown)?;
            // An open toolset is open to everybody who is known.
            cascade.toolset = found.level.as_deref().filter(|_| !subject.principal.is_public());
            toolset = Some(found);
        }
        if let Some(by) = server.restrictions.keep_out(subject, who) {
            let at = server.at.key(by.key());
            let entry = who.agent.and_then(|agent| server.restrictions.blocks(agent));
            let entry = entry.filter(|_| by == Restriction::AgentBlocked);
            return Err(Unreachable::KeptOut(by, entry.map_or_else(|| at.clone(), |entry| at.index(entry))));
        }
        // Whoever has a part in it must be let in.
        for link in child.iter().flat_map(|child| &child.minted.links) {
            if let Some(by) = server.restrictions.keep_out(subject, Who { agent: Some(&link.agent), ..who }) {
                return Err(Unreachable::KeptOut(by, server.at.key(by.key())));
            }
        }
        let matrix = agent.and_then(|agent| agent.matrices.get(&index));
        let mut access = Access { cascade, index, server, toolset, matrix, reported: Reported::default(), own, child };
        let kept_out = access.each_acting(|matrix| match matrix.keep_out(subject) {
            Some(by) => ControlFlow::Break((matrix, by)),
            None => ControlFlow::Continue(()),
        });
        if let ControlFlow::Break((matrix, by)) = kept_out {
            return Err(Unreachable::KeptOut(by, matrix.at.key(by.key())));
        }
        if self.heeds_reports() {
            access.reported = self.heed(subject, report, index)?;
        }
        Ok(access)
    }

    /// The matrices of the agents that a caller says it is. They deny; what they allow is not asked for.
    fn heed(&self, subject: Subject<'_>, report: Report<'_>, index: ServerIndex) -> Result<Reported<'_>, Unreachable> {
        let mut reported = Reported::default();
        let mut free = reported.iter_mut();
        let server = self.servers.get(index).ok_or(Unreachable::Unknown)?;
        for agent in self.reports.of(server.workspace.as_deref(), report) {
            if let Some(entry) = server.restrictions.blocks(&agent.name) {
                let at = server.at.key("blocked_agents").index(entry);
                return Err(Unreachable::KeptOut(Restriction::AgentBlocked, at));
            }
            let Some(rules) = &agent.rules else { continue };
            if rules.disabled {
                return Err(Unreachable::Disabled(rules.level.at.clone()));
            }
            let Some(matrix) = rules.matrices.get(&index) else { continue };
            if let Some(by) = matrix.keep_out(subject) {
                return Err(Unreachable::KeptOut(by, matrix.at.key(by.key())));
            }
            let Some(slot) = free.next() else {
                return Err(Unreachable::KeptOut(Restriction::AgentReports, rules.level.at.key("reported_as")));
            };
            *slot = Some(matrix);
        }
        Ok(reported)
    }

    /// What this configuration knows of a caller.
    fn caller<'p>(&'p self, subject: Subject<'p>) -> Result<Caller<'p>, Unreachable> {
        let principal = subject.principal;
        let none = Cascade { levels: &[], claimed: None, toolset: None, intersects: self.intersects };
        let caller = match &principal.key {
            Some(name) => {
                // A key that this configuration no longer has opens nothing, not even what is open to everybody.
                let removed = || Unreachable::NotGranted(Some(At::entry("keys", name)));
                let key = self.keys.get(&**name).ok_or_else(removed)?;
                if key.disabled {
                    return Err(Unreachable::Disabled(key.at.clone()));
                }
                // Asked when the key was shown; again here for streams that are older than this configuration.
                if rules::is_outside(key.sources.as_ref(), subject) {
                    return Err(Unreachable::KeptOut(Restriction::Source, key.at.key("allowed_sources")));
                }
                if let Some(minted) = &principal.minted {
                    self.check_minted(key, minted, subject.now)?;
                }
                let who = Who { user: key.names.0.as_deref(), agent: key.names.1.as_deref() };
                let cascade = Cascade { levels: &key.levels, ..none };
                Caller { cascade, agent: key.agent.as_deref(), who, own: Some(&key.at) }
            }
            None if !self.scopes.vouched(principal) => {
                return Err(Unreachable::NotGranted(Some(At::root().key("auth").key("issuers"))));
            }
            None => {
                let claimed = Claimed { levels: &self.levels, principal };
                // An agent that nobody configured would be less restricted than any that somebody did.
                if principal.agent.is_some() && claimed.agent().is_none() {
                    return Err(Unreachable::NotGranted(Some(At::table(principal.workspace.as_deref(), "agents"))));
                }
                let who = Who { user: principal.user.as_deref(), agent: principal.agent.as_deref() };
                let cascade = Cascade { claimed: Some(claimed), ..none };
                Caller { cascade, agent: claimed.agent(), who, own: None }
            }
        };
        match caller.agent.filter(|agent| agent.disabled) {
            Some(agent) => Err(Unreachable::Disabled(agent.level.at.clone())),
            None => Ok(caller),
        }
    }
}

/// Matrices of agents that a caller says it is, the first ones first.
type Reported<'p> = [Option<&'p Matrix>; REPORTED_AGENTS_MAX];

/// What a configuration knows of a caller.
struct Caller<'p> {
    cascade: Cascade<'p>,
    agent: Option<&'p AgentRules>,
    who: Who<'p>,
    /// The table of its key.
    own: Option<&'p At>,
}

/// What one level of the cascade says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consulted {
    /// Who speaks.
    pub speaker: Speaker,
    /// Where its table stands.
    pub level: At,
    /// Whether it grants, or denies; `None`: it says nothing, and the next one is asked.
    pub granted: Option<bool>,
    /// The rule that speaks.
    pub rule: Option<At>,
}

/// Why a message is permitted, and what of it does not go out.
type Judged<'p> = (&'p Arc<Reason>, Vec<Splice>);

/// Judges what a message is about; `None`: nothing but the server.
fn judge_target<'p>(
    access: &Access<'p>,
    name: &str,
    message: &Message,
) -> Option<Result<&'p Arc<Reason>, Box<Denial>>> {
    // INVARIANT: a message of a method with a target names it, or it would not have been read.
    let named = || message.target().ok_or_else(|| unknown_method(name));
    Some(match name {
        "tools/call" => named().and_then(|tool| access.judge_tool(tool, message)),
        "prompts/get" => named().and_then(|prompt| access.judge(Listed::Prompt(prompt))),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            named().and_then(|uri| access.judge_resource(uri))
        }
        "completion/complete" => judge_reference(access, message)?,
        _ => return None,
    })
}

/// Whether substitutions change what is judged as it was received: then something else would be sent.
fn is_judged(message: &Message, opened: &[Splice]) -> bool {
    let Some(params) = message.params() else { return false };
    let judged = ["name", "arguments", "uri", "ref"].into_iter().filter_map(|key| params.get(key));
    let spans: Vec<_> = judged.map(Value::span).collect();
    opened.iter().any(|splice| spans.iter().any(|span| splice.span.start < span.end && span.start < splice.span.end))
}

/// Judges all that a completion could be taken to refer to, whatever its type says; `None`: it refers to nothing.
fn judge_reference<'p>(access: &Access<'p>, message: &Message) -> Option<Result<&'p Arc<Reason>, Box<Denial>>> {
    let reference = message.params().and_then(|params| params.get("ref"));
    let named = |key| Some(reference?.get(key)?.text().unwrap_or_default());
    let prompt = named("name").map(|prompt| access.judge(Listed::Prompt(prompt)));
    let template = named("uri").map(|template| access.judge_template(template));
    match (prompt, template) {
        (Some(Err(denial)), _) => Some(Err(denial)),
        (prompt, template) => template.or(prompt),
    }
}

/// What of a permitted message does not go out: capabilities the server may not use, subscriptions to resources the
/// caller does not see.
fn narrowed(access: &Access<'_>, name: &str, message: &Message) -> Vec<Splice> {
    let mut cuts = Vec::new();
    if !access.server.relays.all() {
        cuts = capabilities::narrow(message, |asked| access.server.relays.has(asked));
    }
    if name == "subscriptions/listen" {
        cuts.extend(listen::unseen(access, message));
    }
    cuts
}

/// Whether a client may send this method in this form. Whose tasks a server lists nobody can tell, so it is not asked.
fn is_served(kind: MessageKind, name: &str, revision: Revision) -> bool {
    let form = match kind {
        MessageKind::Request => Form::Request,
        MessageKind::Notification => Form::Notification,
        MessageKind::Response => return false,
    };
    name != "tasks/list" && method::find(name, Towards::Server, revision).is_some_and(|method| method.form == form)
}

fn unknown_method(name: &str) -> Box<Denial> {
    Denial::new(DenialKind::MethodUnknown { method: shown(name) }, None)
}

/// Why a server is out of reach.
enum Unreachable {
    /// It does not exist.
    Unknown,
    /// It is not granted, by the rule that stands here.
    NotGranted(Option<At>),
    /// It keeps the caller out, by the rule that stands here.
    KeptOut(Restriction, At),
    /// The caller is turned off, in the table that stands here.
    Disabled(At),
}

impl Unreachable {
    fn denial(self, server: &str) -> Box<Denial> {
        let server = shown(workspaces::bare(server));
        match self {
            Self::Unknown => Denial::new(DenialKind::ServerUnknown { server }, None),
            Self::NotGranted(at) => Denial::new(DenialKind::ServerNotGranted { server }, at),
            Self::KeptOut(by, at) => Denial::new(DenialKind::KeptOut { server, by }, Some(at)),
            Self::Disabled(at) => Denial::new(DenialKind::CallerDisabled, Some(at.key("disabled"))),
        }
    }
}
