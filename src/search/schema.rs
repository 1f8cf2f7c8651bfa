//! What does the file of a day hold?
//!
//! One row for each request of the day, by the number of its record: newest first is the order of the table itself, so that
//! pages need no sorting. Texts that repeat are numbers of `words`. Each index ends in the row's number, so that it is in
//! the same order; those of fields that many rows lack leave these out.
//!
//! A field more is a column and an index more, and another `FORM` (`database.rs`): then all files are made anew.
//!
//! Three small tables are kept along: `uses` counts the rows of each value, by which a search begins with the rarest of what it
//! asks for; `minutes` says between which numbers the rows of a minute lie; `pairs` is the workflow graph by the hour.

use std::fmt;

/// Words with a number of their own in every file.
pub(super) const OK: i64 = 1;
pub(super) const OPEN: i64 = 2;
/// Stands for tools that an hour had no room for.
pub(super) const OTHERS: i64 = 3;

pub(super) const SCHEMA: &str = "
CREATE TABLE filled (one INTEGER PRIMARY KEY CHECK (one = 1), to_seq INTEGER NOT NULL) STRICT;
INSERT INTO filled VALUES (1, 0);
CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO words VALUES (1, 'ok'), (2, 'open'), (3, '\u{2026}');
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    decision INTEGER NOT NULL,
    counted INTEGER,
    source ANY,
    method INTEGER,
    principal INTEGER,
    user INTEGER,
    domain INTEGER,
    agent INTEGER,
    workspace INTEGER,
    server INTEGER,
    tool INTEGER,
    resource TEXT,
    prompt TEXT,
    reason INTEGER,
    rule INTEGER,
    status INTEGER,
    outcome INTEGER,
    failure INTEGER,
    ended_status INTEGER,
    latency INTEGER,
    cost TEXT,
    result INTEGER
) STRICT;
CREATE INDEX by_source ON calls (source);
CREATE INDEX by_principal ON calls (principal) WHERE principal IS NOT NULL;
CREATE INDEX by_domain ON calls (domain) WHERE domain IS NOT NULL;
CREATE INDEX by_agent ON calls (agent) WHERE agent IS NOT NULL;
CREATE INDEX by_workspace ON calls (workspace) WHERE workspace IS NOT NULL;
CREATE INDEX by_server ON calls (server) WHERE server IS NOT NULL;
CREATE INDEX by_tool ON calls (tool) WHERE tool IS NOT NULL;
CREATE INDEX by_reason ON calls (reason) WHERE reason IS NOT NULL;
CREATE INDEX by_failure ON calls (failure) WHERE failure IS NOT NULL;
CREATE INDEX by_outcome ON calls (outcome) WHERE outcome > 1;
CREATE INDEX by_refusal ON calls (decision) WHERE decision = 0;
CREATE TABLE uses (
    field INTEGER NOT NULL, word INTEGER NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (field, word)
) STRICT, WITHOUT ROWID;
CREATE TABLE minutes (minute INTEGER PRIMARY KEY, seq_min INTEGER NOT NULL, seq_max INTEGER NOT NULL) STRICT;
CREATE TABLE pairs (
    hour INTEGER NOT NULL, side INTEGER NOT NULL, a INTEGER NOT NULL, b INTEGER NOT NULL,
    calls INTEGER NOT NULL, denials INTEGER NOT NULL, errors INTEGER NOT NULL,
    timed INTEGER NOT NULL, latency_sum INTEGER NOT NULL, latency_max INTEGER NOT NULL,
    PRIMARY KEY (hour, side, a, b)
) STRICT, WITHOUT ROWID;
";

/// Fields by whose values rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    Principal,
    Domain,
    Agent,
    Workspace,
    Server,
    Tool,
    Reason,
    Failure,
    Outcome,
    Decision,
}

impl Field {
    /// Its number in `uses`.
    pub(super) fn id(self) -> i64 {
        self as i64
    }

    /// Its column.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Domain => "domain",
            Self::Agent => "agent",
            Self::Workspace => "workspace",
            Self::Server => "server",
            Self::Tool => "tool",
            Self::Reason => "reason",
            Self::Failure => "failure",
            Self::Outcome => "outcome",
            Self::Decision => "decision",
        }
    }

    /// The index that finds a value of it; `None` for values that most rows have.
    pub(super) fn index(self, word: i64) -> Option<&'static str> {
        match self {
            Self::Principal => Some("by_principal"),
            Self::Domain => Some("by_domain"),
            Self::Agent => Some("by_agent"),
            Self::Workspace => Some("by_workspace"),
            Self::Server => Some("by_server"),
            Self::Tool => Some("by_tool"),
            Self::Reason => Some("by_reason"),
            Self::Failure => Some("by_failure"),
            Self::Outcome => (word > OK).then_some("by_outcome"),
            Self::Decision => (word == REFUSED).then_some("by_refusal"),
        }
    }
}

/// Values of `decision`.
pub(super) const REFUSED: i64 = 0;
pub(super) const ALLOWED: i64 = 1;

/// What a row of `pairs` is about: who called, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// From an agent to a server.
    Agent,
    /// From a caller who is no agent.
    Principal,
    /// From somebody who was not recognised; `a` is 0.
    Unknown,
    /// From a server to one of its tools.
    Tool,
}

impl Side {
    /// All, by their numbers.
    pub(super) const ALL: [Self; 4] = [Self::Agent, Self::Principal, Self::Unknown, Self::Tool];

    /// Its number.
    pub(super) fn id(self) -> i64 {
        self as i64
    }
}

/// Name of a column as SQL wants it.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.column())
    }
}
