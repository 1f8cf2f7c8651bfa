//! What can an operator write about how much somebody may use, and what it costs?
//!
//! The same limits stand wherever somebody can be limited; a plan is a set of them with a name. As plain as the rest of the
//! [`model`](crate::config::model), which names them all; how use is counted is up to `quota`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::money::Money;

/// `[limits]`: how use is counted, and what each caller may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Callers without a key of their own (those whom a token names) whose use is counted at once. Each issuer has an equal share: another one of
    /// its callers is refused with 429 until the use of one of these is over. Whoever the configuration names always has a place.
    pub callers_max: usize,
    /// What each caller may use by itself, whatever else limits it.
    pub each_caller: Limits,
}

impl Default for Usage {
    fn default() -> Self {
        Self { callers_max: 100_000, each_caller: Limits::default() }
    }
}

/// Limits of one who calls. Days and months are those of UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second: so many at once, then one each time its share of the second is over.
    pub rps_limit: Option<u32>,
    /// Requests a minute: so many at once, then one each time its share of the minute is over.
    pub rpm_limit: Option<u32>,
    /// Calls a day: of tools and prompts, and reads of resources.
    pub calls_per_day_max: Option<u64>,
    /// Calls under way at once.
    pub concurrent_calls_max: Option<u32>,
    /// Standing event streams open at once.
    pub concurrent_streams_max: Option<u32>,
    /// Sessions begun an hour: so many at once, then one each time its share of the hour is over.
    pub sessions_per_hour_max: Option<u32>,
    /// Different servers called in one day.
    pub servers_max: Option<u32>,
    /// What the calls of a day may cost.
    pub budget_per_day_max: Option<Money>,
    /// What the calls of a month may cost.
    pub budget_per_month_max: Option<Money>,
}

/// Limits of a server: what all its callers may use of it together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimits {
    /// Requests a second: so many at once, then one each time its share of the second is over.
    pub rps_limit: Option<u32>,
    /// Requests a minute: so many at once, then one each time its share of the minute is over.
    pub rpm_limit: Option<u32>,
    /// Calls a day: of tools and prompts, and reads of resources.
    pub calls_per_day_max: Option<u64>,
    /// Calls under way at once.
    pub concurrent_calls_max: Option<u32>,
    /// Standing event streams open at once.
    pub concurrent_streams_max: Option<u32>,
    /// Sessions begun an hour: so many at once, then one each time its share of the hour is over.
    pub sessions_per_hour_max: Option<u32>,
    /// What the calls of a day may cost.
    pub budget_per_day_max: Option<Money>,
    /// What the calls of a month may cost.
    pub budget_per_month_max: Option<Money>,
}

/// Limits of a tool: what all its callers may use of it together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolLimits {
    /// Calls a second: so many at once, then one each time its share of the second is over.
    pub rps_limit: Option<u32>,
    /// Calls a minute: so many at once, then one each time its share of the minute is over.
    pub rpm_limit: Option<u32>,
    /// Calls a day.
    pub calls_per_day_max: Option<u64>,
    /// Calls under way at once.
    pub concurrent_calls_max: Option<u32>,
    /// What the calls of a day may cost.
    pub budget_per_day_max: Option<Money>,
    /// What the calls of a month may cost.
    pub budget_per_month_max: Option<Money>,
}

/// `[servers.NAME.mcp_server_cost_info]`: what calls of a server's tools cost, in whatever unit budgets are written in. Decimal
/// numbers with at most six digits after the point, counted exactly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// A call of any tool that has no cost of its own.
    pub default_cost_per_query: Option<Money>,
    /// A call of one tool, by the tool's name.
    pub tool_name_to_cost_per_query: BTreeMap<String, Money>,
}

impl Limits {
    /// These limits, and where nothing is said here, those of `plan`.
    pub fn or(&self, plan: &Self) -> Self {
        Self {
            rps_limit: self.rps_limit.or(plan.rps_limit),
            rpm_limit: self.rpm_limit.or(plan.rpm_limit),
            calls_per_day_max: self.calls_per_day_max.or(plan.calls_per_day_max),
            concurrent_calls_max: self.concurrent_calls_max.or(plan.concurrent_calls_max),
            concurrent_streams_max: self.concurrent_streams_max.or(plan.concurrent_streams_max),
            sessions_per_hour_max: self.sessions_per_hour_max.or(plan.sessions_per_hour_max),
            servers_max: self.servers_max.or(plan.servers_max),
            budget_per_day_max: self.budget_per_day_max.or(plan.budget_per_day_max),
            budget_per_month_max: self.budget_per_month_max.or(plan.budget_per_month_max),
        }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&ServerLimits> for Limits {
    fn from(limits: &ServerLimits) -> Self {
        Self {
            rps_limit: limits.rps_limit,
            rpm_limit: limits.rpm_limit,
            calls_per_day_max: limits.calls_per_day_max,
            concurrent_calls_max: limits.concurrent_calls_max,
            concurrent_streams_max: limits.concurrent_streams_max,
            sessions_per_hour_max: limits.sessions_per_hour_max,
            servers_max: None,
            budget_per_day_max: limits.budget_per_day_max,
            budget_per_month_max: limits.budget_per_month_max,
        }
    }
}

impl From<&ToolLimits> for Limits {
    fn from(limits: &ToolLimits) -> Self {
        Self {
            rps_limit: limits.rps_limit,
            rpm_limit: limits.rpm_limit,
            calls_per_day_max: limits.calls_per_day_max,
            concurrent_calls_max: limits.concurrent_calls_max,
            budget_per_day_max: limits.budget_per_day_max,
            budget_per_month_max: limits.budget_per_month_max,
            ..Self::default()
        }
    }
}

impl Costs {
    /// What a call of this tool costs.
    pub fn of(&self, tool: &str) -> Money {
        let own = self.tool_name_to_cost_per_query.get(tool).copied();
        own.or(self.default_cost_per_query).unwrap_or_default()
    }

    /// Whether every call is free.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
