//! Who is limited, and by how much?

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::model;
use crate::config::problem::At;
use crate::config::workspaces::bare;
use crate::quota::gcra::Rate;
use crate::quota::words;
use crate::quota::words::Level;
use crate::quota::words::Limit;

/// Somebody or something whose use is counted. Written `team:platform`, and a tool `tool:github/create_issue`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What it is.
    pub level: Level,
    /// Its name; a tool's after that of its server, which has no `/` in it.
    pub name: Arc<str>,
}

impl Subject {
    /// The subject that is written so.
    pub fn read(text: &str) -> Option<Self> {
        let (level, name) = text.split_once(':')?;
        Some(Self { level: Level::of(level)?, name: name.into() })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.word(), self.name)
    }
}

/// How much may be used; `None`: as much as one likes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Limits {
    pub(super) per_second: Option<Rate>,
    pub(super) per_minute: Option<Rate>,
    pub(super) sessions_per_hour: Option<Rate>,
    /// Calls to single servers.
    pub(super) server_minutes: BTreeMap<Arc<str>, Rate>,
    pub(super) calls_per_day: Option<u64>,
    pub(super) concurrent_calls: Option<u32>,
    pub(super) concurrent_streams: Option<u32>,
    pub(super) servers: Option<u32>,
    /// In millionths.
    pub(super) budget_per_day: Option<u64>,
    pub(super) budget_per_month: Option<u64>,
}

impl Limits {
    fn of(limits: &model::Limits, servers: &BTreeMap<String, u32>) -> Self {
        let rate = |count: Option<u32>, seconds| Some(Rate::new(NonZeroU32::new(count?)?, seconds));
        Self {
            per_second: rate(limits.rps_limit, 1),
            per_minute: rate(limits.rpm_limit, 60),
            sessions_per_hour: rate(limits.sessions_per_hour_max, 3_600),
            server_minutes: servers
                .iter()
                .filter_map(|(server, count)| Some((server.as_str().into(), rate(Some(*count), 60)?)))
                .collect(),
            calls_per_day: limits.calls_per_day_max,
            concurrent_calls: limits.concurrent_calls_max,
            concurrent_streams: limits.concurrent_streams_max,
            servers: limits.servers_max,
            budget_per_day: limits.budget_per_day_max.map(model::Money::micros),
            budget_per_month: limits.budget_per_month_max.map(model::Money::micros),
        }
    }
}

/// The limits of one subject, and where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) subject: Subject,
    pub(super) limits: Limits,
    /// The plan that says what the subject's own limits do not.
    plan: Option<Plan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    name: Arc<str>,
    /// What the subject's own limits say.
    own: model::Limits,
}

impl Rule {
    /// `servers`: calls a minute to single servers. `None` if nothing is limited.
    pub(super) fn new(
        subject: Subject,
        own: &model::Limits,
        servers: &BTreeMap<String, u32>,
        plan: Option<(&str, &model::Limits)>,
    ) -> Option<Self> {
        let limits = plan.map_or_else(|| own.clone(), |(_, plan)| own.or(plan));
        let plan = plan.map(|(name, _)| Plan { name: name.into(), own: own.clone() });
        let is_empty = limits.is_empty() && servers.is_empty();
        (!is_empty).then(|| Self { subject, limits: Limits::of(&limits, servers), plan })
    }

    /// The same for another subject: what each caller may use.
    pub(super) fn of(&self, subject: Subject) -> Self {
        Self { subject, ..self.clone() }
    }

    /// Whose limits they are.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Where a limit stands in the configuration.
    pub fn at(&self, limit: Limit) -> At {
        let (root, name) = (At::root(), &*self.subject.name);
        if let Some(plan) = self.plan.as_ref().filter(|plan| !says(&plan.own, limit)) {
            return root.key("plans").key(&plan.name).key(limit.word());
        }
        let table = match self.subject.level {
            Level::Caller => return root.key("limits").key("each_caller").key(limit.word()),
            Level::Key => At::entry("keys", name),
            Level::Team => At::entry("teams", name),
            Level::Organisation => At::entry("organisations", name),
            Level::User => At::entry("users", name),
            Level::Agent => At::entry("agents", name),
            Level::Server => At::entry("servers", name),
            Level::Tool => {
                let (server, tool) = words::split_tool(name);
                At::entry("servers", server).key("tools").key(tool)
            }
        };
        // What holds for single servers is in no plan, and in the words of those who come from elsewhere.
        if limit == Limit::McpPerMinute { table.key(limit.word()) } else { table.key("limits").key(limit.word()) }
    }

    /// The same for a call to this server.
    pub(super) fn at_of(&self, limit: Limit, server: &str) -> At {
        let at = self.at(limit);
        if limit == Limit::McpPerMinute { at.key(bare(server)) } else { at }
    }

    /// How much a limit allows, in whole units or in millionths of money, for metrics; `None` where there is none.
    pub fn most(&self, limit: Limit) -> Option<u64> {
        let limits = &self.limits;
        match limit {
            Limit::PerSecond | Limit::PerMinute | Limit::McpPerMinute | Limit::SessionsPerHour => None,
            Limit::CallsPerDay => limits.calls_per_day,
            Limit::ConcurrentCalls => limits.concurrent_calls.map(u64::from),
            Limit::ConcurrentStreams => limits.concurrent_streams.map(u64::from),
            Limit::Servers => limits.servers.map(u64::from),
            Limit::BudgetPerDay => limits.budget_per_day,
            Limit::BudgetPerMonth => limits.budget_per_month,
        }
    }
}

/// Whether these limits say anything of one.
fn says(limits: &model::Limits, limit: Limit) -> bool {
    match limit {
        Limit::PerSecond => limits.rps_limit.is_some(),
        Limit::PerMinute => limits.rpm_limit.is_some(),
        Limit::McpPerMinute => true,
        Limit::CallsPerDay => limits.calls_per_day_max.is_some(),
        Limit::ConcurrentCalls => limits.concurrent_calls_max.is_some(),
        Limit::ConcurrentStreams => limits.concurrent_streams_max.is_some(),
        Limit::SessionsPerHour => limits.sessions_per_hour_max.is_some(),
        Limit::Servers => limits.servers_max.is_some(),
        Limit::BudgetPerDay => limits.budget_per_day_max.is_some(),
        Limit::BudgetPerMonth => limits.budget_per_month_max.is_some(),
    }
}

/// A limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Whose.
    pub subject: Subject,
    /// Which.
    pub limit: Limit,
    /// Where it stands in the configuration.
    pub at: At,
    /// Seconds until there may be room, rounded up; `None`: there never will be, as a single call costs more than the whole budget.
    pub wait: Option<u64>,
}

impl Reached {
    /// Name from a fixed vocabulary, for records and metrics: `key_calls_per_day_max`.
    pub fn name(&self) -> &'static str {
        words::reason(self.subject.level, self.limit)
    }
}
