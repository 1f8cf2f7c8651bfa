//! What does a compiled policy consist of?
//!
//! The product of keys and servers is never built: a level holds sets of servers and of their tools, a key holds the levels it
//! is asked by, an agent holds a matrix for each server it names, and a view puts these together.

use std::sync::Arc;

use crate::config::problem::At;
use crate::mcp::capabilities::ClientRequest;
use crate::mcp::uri::Uri;
use crate::network::Networks;
use crate::policy::constraint::Constraint;
use crate::policy::hash::NameMap;
use crate::policy::level::Bundle;
use crate::policy::level::Level;
use crate::policy::minting::Minting;
use crate::policy::names::Names;
use crate::policy::reason::Reason;
use crate::policy::times::Times;
use crate::policy::uris::Allowed;
use crate::policy::uris::Blocked;
use crate::policy::verdict::About;
use crate::policy::verdict::Denial;
use crate::policy::verdict::DenialKind;
use crate::policy::verdict::Whose;
use crate::policy::verdict::shown;
use crate::principal::Subject;

/// A server's position among the servers of a configuration, in the order of their names.
pub(super) type ServerIndex = usize;

/// One server, and what holds there for everybody.
pub(super) struct ServerRules {
    /// Its name.
    pub(super) name: Box<str>,
    /// The workspace whose callers may reach it; `None`: `default`.
    pub(super) workspace: Option<Box<str>>,
    /// Why everybody may reach it, if so.
    pub(super) public: Option<Arc<Reason>>,
    /// Which of its tools, resources and prompts may be named.
    pub(super) lists: Lists,
    /// What it may ask of its clients.
    pub(super) relays: Relays,
    /// Who is kept out, whatever is granted.
    pub(super) restrictions: Restrictions,
    /// Where the server's table stands.
    pub(super) at: At,
}

/// What a server may ask of its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relays {
    pub(super) sampling: bool,
    pub(super) elicitation: bool,
    pub(super) roots: bool,
}

impl Relays {
    /// Whether it may ask everything.
    pub(super) fn all(self) -> bool {
        self.sampling && self.elicitation && self.roots
    }

    /// Whether it may ask this.
    pub(super) fn has(self, asked: ClientRequest) -> bool {
        match asked {
            ClientRequest::Sampling => self.sampling,
            ClientRequest::Elicitation => self.elicitation,
            ClientRequest::Roots => self.roots,
        }
    }
}

/// Who may be on a server, whatever is granted.
pub(super) struct Restrictions {
    /// Nobody.
    pub(super) disabled: bool,
    /// Callers from here only.
    pub(super) sources: Option<Networks>,
    /// At these times only.
    pub(super) times: Option<Times>,
    /// These users only.
    pub(super) users: Option<NameMap<Box<str>, ()>>,
    /// These agents only.
    pub(super) agents: Option<NameMap<Box<str>, ()>>,
    /// Not these agents, each with its place in the list.
    pub(super) blocked_agents: NameMap<Box<str>, usize>,
}

/// What a caller's user and agent are called, as far as this configuration or the caller's token says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'p> {
    pub(super) user: Option<&'p str>,
    pub(super) agent: Option<&'p str>,
}

/// Which restriction keeps a caller out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restriction {
    /// The server is turned off.
    Disabled,
    /// The caller's address is in none of the server's networks.
    Source,
    /// The caller is none of the server's users.
    User,
    /// The caller is none of the server's agents.
    Agent,
    /// The caller's agent, or one that it says it is, is blocked.
    AgentBlocked,
    /// The caller says it is more agents than can be heeded.
    AgentReports,
    /// The server is open at other times.
    Time,
    /// The caller's address is in none of the networks of its agent on the server.
    AgentSource,
    /// The agent may reach the server at other times.
    AgentTime,
}

impl Restriction {
    /// The key of the server's table that states it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Source | Self::AgentSource => "allowed_sources",
            Self::Time | Self::AgentTime => "allowed_times",
            Self::User => "allowed_users",
            Self::Agent => "allowed_agents",
            Self::AgentBlocked => "blocked_agents",
            Self::AgentReports => "reported_as",
        }
    }
}

impl Restrictions {
    /// What keeps this caller out, if anything does.
    pub(super) fn keep_out(&self, subject: Subject<'_>, who: Who<'_>) -> Option<Restriction> {
        if self.disabled {
            return Some(Restriction::Disabled);
        }
        if is_outside(self.sources.as_ref(), subject) {
            return Some(Restriction::Source);
        }
        if self.times.as_ref().is_some_and(|times| !times.contain(subject.now)) {
            return Some(Restriction::Time);
        }
        let is_other = |names: &Option<NameMap<Box<str>, ()>>, name: Option<&str>| {
            names.as_ref().is_some_and(|names| !name.is_some_and(|name| names.contains_key(name)))
        };
        if is_other(&self.users, who.user) {
            return Some(Restriction::User);
        }
        if is_other(&self.agents, who.agent) {
            return Some(Restriction::Agent);
        }
        let is_blocked = !self.blocked_agents.is_empty() && who.agent.is_some_and(|agent| self.blocks(agent).is_some());
        is_blocked.then_some(Restriction::AgentBlocked)
    }

    /// Where in the list of blocked agents one stands, if it does.
    pub(super) fn blocks(&self, agent: &str) -> Option<usize> {
        self.blocked_agents.get(agent).copied()
    }
}

/// Whose address is not known comes from nowhere.
pub(super) fn is_outside(networks: Option<&Networks>, subject: Subject<'_>) -> bool {
    networks.is_some_and(|networks| !subject.source.is_some_and(|source| networks.contains(source)))
}

impl Matrix {
    /// What keeps the agent off the server, if anything does.
    pub(super) fn keep_out(&self, subject: Subject<'_>) -> Option<Restriction> {
        if is_outside(self.sources.as_ref(), subject) {
            return Some(Restriction::AgentSource);
        }
        let is_closed = self.times.as_ref().is_some_and(|times| !times.contain(subject.now));
        is_closed.then_some(Restriction::AgentTime)
    }
}

/// One key: its own level, and those of whom it belongs to.
pub(super) struct KeyRules {
    /// In the order in which they are asked: key, team, organisation, user, agent.
    pub(super) levels: Box<[Arc<Level>]>,
    pub(super) agent: Option<Arc<AgentRules>>,
    /// Where its table stands.
    pub(super) at: At,
    /// Networks that it may be used from.
    pub(super) sources: Option<Networks>,
    /// What its user and its agent are called.
    pub(super) names: (Option<Arc<str>>, Option<Arc<str>>),
    /// Whether it is turned off.
    pub(super) disabled: bool,
    /// What it may mint.
    pub(super) minting: Option<Box<Minting>>,
}

/// One agent: its level and its matrices.
pub(super) struct AgentRules {
    pub(super) level: Arc<Level>,
    pub(super) matrices: Matrices,
    /// Whether it is turned off.
    pub(super) disabled: bool,
}

/// One toolset: its tools, and what its own URL says.
pub(super) struct ToolsetRules {
    pub(super) bundle: Arc<Bundle>,
    /// `None`: it is not open.
    pub(super) level: Option<Arc<Level>>,
    pub(super) at: At,
}

/// An agent's matrices, by server.
pub(super) type Matrices = NameMap<ServerIndex, Matrix>;

/// What one agent may do on one server.
pub(super) struct Matrix {
    /// Which tools, resources and prompts it may name.
    pub(super) lists: Lists,
    /// From where, and when, the agent may call.
    pub(super) sources: Option<Networks>,
    pub(super) times: Option<Times>,
    /// Which arguments a tool may be given.
    pub(super) parameters: NameMap<Box<str>, NameMap<Box<str>, ()>>,
    /// What the arguments of a tool must look like.
    pub(super) constraints: NameMap<Box<str>, Vec<Placed>>,
    /// Where the matrix stands.
    pub(super) at: At,
    /// Why a tool may be called.
    pub(super) reason: Arc<Reason>,
}

/// A constraint, and where it stands.
pub(super) struct Placed {
    pub(super) constraint: Arc<Constraint>,
    pub(super) at: At,
}

/// A set of servers. Equal sets share their bits, which keeps the keys of one team in few cache lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Servers {
    /// Every one, later ones included.
    All,
    /// Those whose bit is set.
    These(Arc<[u64]>),
}

impl Servers {
    /// The set of `members`.
    pub(super) fn of(members: impl Iterator<Item = ServerIndex>) -> Self {
        let mut words: Vec<u64> = Vec::new();
        for member in members {
            if words.len() <= member / 64 {
                words.resize(member / 64 + 1, 0);
            }
            if let Some(word) = words.get_mut(member / 64) {
                *word |= 1 << (member % 64);
            }
        }
        Self::These(words.into())
    }

    /// Whether `server` is in the set.
    pub(super) fn has(&self, server: ServerIndex) -> bool {
        match self {
            Self::All => true,
            Self::These(words) => words.get(server / 64).is_some_and(|word| word & (1 << (server % 64)) != 0),
        }
    }
}

/// What may be named, by one list of allowed and one of blocked names.
#[derive(Default)]
pub(super) struct Named {
    /// `None`: all.
    pub(super) allowed: Option<Names>,
    /// Beats `allowed`.
    pub(super) blocked: Names,
    /// Why something may be named, if there is a list of allowed names.
    pub(super) listed: Option<Arc<Reason>>,
}

/// What may be read, by one list of allowed and one of blocked URIs.
#[derive(Default)]
pub(super) struct Located {
    /// `None`: all.
    pub(super) allowed: Option<Arc<Allowed>>,
    /// Beats `allowed`.
    pub(super) blocked: Arc<Blocked>,
    /// Why something may be read, if there is a list of allowed URIs.
    pub(super) listed: Option<Arc<Reason>>,
}

/// The lists of one server, or of one agent on it.
pub(super) struct Lists {
    pub(super) tools: Named,
    pub(super) resources: Located,
    pub(super) prompts: Named,
}

/// What a list is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listed<'n> {
    /// A tool's name.
    Tool(&'n str),
    /// A resource's URI.
    Resource(&'n Uri<'n>),
    /// A prompt's name.
    Prompt(&'n str),
}

impl Listed<'_> {
    /// What it is, and its name as it may be shown.
    pub(super) fn shown(self) -> (About, String) {
        match self {
            Self::Tool(name) => (About::Tool, shown(name)),
            Self::Resource(uri) => (About::Resource, shown(uri.text())),
            Self::Prompt(name) => (About::Prompt, shown(name)),
        }
    }
}

/// Which list excludes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusion {
    /// It is on the list of what is blocked, by the entry at this position.
    Blocked(usize),
    /// It is not on the list of what is allowed.
    NotAllowed,
}

impl Lists {
    /// Why something may not be named, if so.
    pub(super) fn exclusion(&self, listed: Listed<'_>) -> Option<Exclusion> {
        match listed {
            Listed::Tool(name) => self.tools.exclusion(name),
            Listed::Prompt(name) => self.prompts.exclusion(name),
            Listed::Resource(uri) => self.resources.exclusion(uri),
        }
    }

    /// The list that allows it, if there is one.
    pub(super) fn reason(&self, listed: Listed<'_>) -> Option<&Arc<Reason>> {
        match listed {
            Listed::Tool(_) => self.tools.listed.as_ref(),
            Listed::Prompt(_) => self.prompts.listed.as_ref(),
            Listed::Resource(_) => self.resources.listed.as_ref(),
        }
    }
}

impl Named {
    fn exclusion(&self, name: &str) -> Option<Exclusion> {
        if let Some(entry) = self.blocked.find(name) {
            return Some(Exclusion::Blocked(entry));
        }
        let is_listed = self.allowed.as_ref().is_none_or(|allowed| allowed.find(name).is_some());
        (!is_listed).then_some(Exclusion::NotAllowed)
    }
}

impl Located {
    fn exclusion(&self, uri: &Uri<'_>) -> Option<Exclusion> {
        if let Some(entry) = self.blocked.find(uri) {
            return Some(Exclusion::Blocked(entry));
        }
        let is_listed = self.allowed.as_ref().is_none_or(|allowed| allowed.has(uri));
        (!is_listed).then_some(Exclusion::NotAllowed)
    }
}

impl Exclusion {
    /// Where the excluding rule stands in the table at `table`.
    pub(super) fn at(self, listed: Listed<'_>, table: &At) -> At {
        let (allowed, blocked) = match listed {
            Listed::Tool(_) => ("allowed_tools", "blocked_tools"),
            Listed::Resource(_) => ("allowed_resources", "blocked_resources"),
            Listed::Prompt(_) => ("allowed_prompts", "blocked_prompts"),
        };
        match self {
            Self::Blocked(entry) => table.key(blocked).index(entry),
            Self::NotAllowed => table.key(allowed),
        }
    }

    /// The denial of a request that names what is excluded.
    pub(super) fn denial(self, listed: Listed<'_>, whose: Whose, table: &At) -> Box<Denial> {
        let kind = match (listed, self) {
            (Listed::Tool(name), Self::Blocked(_)) => DenialKind::ToolBlocked { tool: shown(name), whose },
            (Listed::Tool(name), Self::NotAllowed) => DenialKind::ToolNotAllowed { tool: shown(name), whose },
            (Listed::Resource(uri), Self::Blocked(_)) => DenialKind::ResourceBlocked { uri: shown(uri.text()), whose },
            (Listed::Resource(uri), Self::NotAllowed) => {
                DenialKind::ResourceNotAllowed { uri: shown(uri.text()), whose }
            }
            (Listed::Prompt(name), Self::Blocked(_)) => DenialKind::PromptBlocked { prompt: shown(name), whose },
            (Listed::Prompt(name), Self::NotAllowed) => DenialKind::PromptNotAllowed { prompt: shown(name), whose },
        };
        Denial::new(kind, Some(self.at(listed, table)))
    }
}
