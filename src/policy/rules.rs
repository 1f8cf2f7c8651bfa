//! What does a compiled policy consist of?
//!
//! The product of keys and servers is never built: a key holds the outcome of its cascade as one set of servers, an
//! agent holds a matrix for each server it names, and a view puts the two together in three look-ups.

use std::sync::Arc;

use crate::config::problem::At;
use crate::policy::constraint::Constraint;
use crate::policy::hash::NameMap;
use crate::policy::names::Names;
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
    /// Which of its tools may be called.
    pub(super) tools: Tools,
    /// Where the server's table stands.
    pub(super) at: At,
    /// Why a tool may be called, if the server has a list of allowed ones.
    pub(super) listed: Option<Arc<Reason>>,
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
    /// Which tools it may call.
    pub(super) tools: Tools,
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

/// Which tools may be called, by one list of allowed and one of blocked ones.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// `None`: all.
    pub(super) allowed: Option<Names>,
    /// Beats `allowed`.
    pub(super) blocked: Names,
}

/// Which list excludes a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusion {
    /// It is on the list of blocked tools, by the entry at this position.
    Blocked(usize),
    /// It is not on the list of allowed tools.
    NotAllowed,
}

impl Tools {
    /// Why `tool` may not be called, if so.
    pub(super) fn exclusion(&self, tool: &str) -> Option<Exclusion> {
        if let Some(entry) = self.blocked.find(tool) {
            return Some(Exclusion::Blocked(entry));
        }
        let listed = self.allowed.as_ref().is_none_or(|allowed| allowed.find(tool).is_some());
        (!listed).then_some(Exclusion::NotAllowed)
    }
}

impl Exclusion {
    /// Where the excluding rule stands in the table at `table`.
    pub(super) fn at(self, table: &At) -> At {
        match self {
            Self::Blocked(entry) => table.key("blocked_tools").index(entry),
            Self::NotAllowed => table.key("allowed_tools"),
        }
    }

    /// The denial of a call of `tool`.
    pub(super) fn denial(self, tool: &str, whose: Whose, table: &At) -> Box<Denial> {
        let tool = shown(tool);
        let kind = match self {
            Self::Blocked(_) => DenialKind::ToolBlocked { tool, whose },
            Self::NotAllowed => DenialKind::ToolNotAllowed { tool, whose },
        };
        Denial::new(kind, Some(self.at(table)))
    }
}
