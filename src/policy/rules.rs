//! What does a compiled policy consist of?
//!
//! The product of keys and servers is never built: a key holds the outcome of its cascade as one set of servers, an
//! agent holds a matrix for each server it names, and a view puts the two together in three look-ups.

use std::sync::Arc;

use crate::config::problem::At;
use crate::mcp::capabilities::ClientRequest;
use crate::mcp::uri::Uri;
use crate::policy::constraint::Constraint;
use crate::policy::hash::NameMap;
use crate::policy::names::Names;
use crate::policy::uris::Allowed;
use crate::policy::uris::Blocked;
use crate::policy::verdict::Denial;
use crate::policy::verdict::DenialKind;
use crate::policy::verdict::Reason;
use crate::policy::verdict::Whose;
use crate::policy::verdict::shown;

/// A server's position among the servers of a configuration, in the order of their names.
pub(super) type ServerIndex = usize;

/// One server, and what holds there for everybody.
pub(super) struct ServerRules {
    /// Why everybody may reach it, if so.
    pub(super) public: Option<Arc<Reason>>,
    /// Which of its tools, resources and prompts may be named.
    pub(super) lists: Lists,
    /// What it may ask of its clients.
    pub(super) relays: Relays,
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

/// One key: the outcome of its cascade, and the agent whose matrices apply.
pub(super) struct KeyRules {
    /// The servers that the deciding level grants.
    pub(super) granted: Servers,
    /// Why: the list that decides. `None`: no level says anything, and nothing is granted.
    pub(super) reason: Option<Arc<Reason>>,
    /// The agent's matrices; shared by the keys of the agent.
    pub(super) matrices: Arc<Matrices>,
}

/// An agent's matrices, by server.
pub(super) type Matrices = NameMap<ServerIndex, Matrix>;

/// What one agent may do on one server.
pub(super) struct Matrix {
    /// Which tools, resources and prompts it may name.
    pub(super) lists: Lists,
    /// What the arguments of a tool must look like.
    pub(super) constraints: NameMap<Box<str>, Vec<Constraint>>,
    /// Where the matrix stands.
    pub(super) at: At,
    /// Why a tool may be called.
    pub(super) reason: Arc<Reason>,
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
