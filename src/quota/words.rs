//! What are limits called, and those who have them?
//!
//! Closed sets with their words, which stand in the configuration, in records and in metrics, and never change once released.

/// What kind of subject a limit holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Each caller by itself.
    Caller,
    /// A key.
    Key,
    /// A team.
    Team,
    /// An organisation.
    Organisation,
    /// A user.
    User,
    /// An agent.
    Agent,
    /// A server.
    Server,
    /// A tool of a server.
    Tool,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Requests a second.
    PerSecond,
    /// Requests a minute.
    PerMinute,
    /// Calls to one server a minute.
    McpPerMinute,
    /// Calls a day.
    CallsPerDay,
    /// Calls at once.
    ConcurrentCalls,
    /// Standing event streams at once.
    ConcurrentStreams,
    /// Sessions begun an hour.
    SessionsPerHour,
    /// Different servers called a day.
    Servers,
    /// Money a day.
    BudgetPerDay,
    /// Money a month.
    BudgetPerMonth,
}

/// How many limits there are.
const LIMITS: usize = Limit::ALL.len();

/// The name of a server's tool among all subjects. Tools may have `/` in their names, so one of a server of another workspace
/// (`acme/github`) begins with it: no server's name is empty.
pub(super) fn tool_name(server: &str, tool: &str) -> String {
    if server.contains('/') { format!("/{server}/{tool}") } else { format!("{server}/{tool}") }
}

/// The server and the tool that such a name stands for.
pub(super) fn split_tool(name: &str) -> (&str, &str) {
    let (name, slashes) = name.strip_prefix('/').map_or((name, 0), |name| (name, 1));
    let end = name.match_indices('/').nth(slashes).map_or(name.len(), |(end, _)| end);
    (name.get(..end).unwrap_or_default(), name.get(end + 1..).unwrap_or_default())
}

/// The reason for a refusal, for each level and limit.
pub const REASONS: [&str; Level::ALL.len() * LIMITS] = reasons();

impl Level {
    /// Every level, in the order in which one after the other is asked.
    pub const ALL: [Self; 8] =
        [Self::Caller, Self::Key, Self::Team, Self::Organisation, Self::User, Self::Agent, Self::Server, Self::Tool];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Key => "key",
            Self::Team => "team",
            Self::Organisation => "organisation",
            Self::User => "user",
            Self::Agent => "agent",
            Self::Server => "server",
            Self::Tool => "tool",
        }
    }

    /// The level of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }

    /// Whether it is one of those who call, and not of what is called.
    pub fn calls(self) -> bool {
        !matches!(self, Self::Server | Self::Tool)
    }
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 10] = [
        Self::PerSecond,
        Self::PerMinute,
        Self::McpPerMinute,
        Self::CallsPerDay,
        Self::ConcurrentCalls,
        Self::ConcurrentStreams,
        Self::SessionsPerHour,
        Self::Servers,
        Self::BudgetPerDay,
        Self::BudgetPerMonth,
    ];

    /// Its key in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "rps_limit",
            Self::PerMinute => "rpm_limit",
            Self::McpPerMinute => "mcp_rpm_limit",
            Self::CallsPerDay => "calls_per_day_max",
            Self::ConcurrentCalls => "concurrent_calls_max",
            Self::ConcurrentStreams => "concurrent_streams_max",
            Self::SessionsPerHour => "sessions_per_hour_max",
            Self::Servers => "servers_max",
            Self::BudgetPerDay => "budget_per_day_max",
            Self::BudgetPerMonth => "budget_per_month_max",
        }
    }
}

/// The reason for refusing what this limit of this level does not allow.
pub(super) fn reason(level: Level, limit: Limit) -> &'static str {
    REASONS.get(level as usize * LIMITS + limit as usize).copied().unwrap_or("quota")
}

/// Joined once by the compiler, so that a reason can be no text of a client.
macro_rules! of_levels {
    ($($level:literal)*) => {
        [$(
            concat!($level, "_rps_limit"),
            concat!($level, "_rpm_limit"),
            concat!($level, "_mcp_rpm_limit"),
            concat!($level, "_calls_per_day_max"),
            concat!($level, "_concurrent_calls_max"),
            concat!($level, "_concurrent_streams_max"),
            concat!($level, "_sessions_per_hour_max"),
            concat!($level, "_servers_max"),
            concat!($level, "_budget_per_day_max"),
            concat!($level, "_budget_per_month_max"),
        )*]
    };
}

const fn reasons() -> [&'static str; Level::ALL.len() * LIMITS] {
    of_levels!("caller" "key" "team" "organisation" "user" "agent" "server" "tool")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_level_and_the_limit() {
        for level in Level::ALL {
            for limit in Limit::ALL {
                assert_eq!(reason(level, limit), format!("{}_{}", level.word(), limit.word()));
            }
            assert_eq!(Level::of(level.word()), Some(level));
        }
    }
}
