//! Can the limits be kept as they are written?
//!
//! A limit of nothing, a plan that is not there, a call that no budget can ever pay: each is reported at its place.

use std::collections::BTreeMap;

use crate::config::limits::Limits;
use crate::config::model::Config;
use crate::config::model::Server;
use crate::config::money::Money;
use crate::config::names;
use crate::config::problem::Problems;
use crate::config::trail::Trail;
use crate::config::workspaces;

/// The highest rate: a request's share of the time is counted in billionths of a second.
const RATE_MAX: u64 = 1_000_000;
/// The highest number of calls a day, and of what is under way at once.
const COUNT_MAX: u64 = 1_000_000_000;
/// The most servers whose use is remembered for one caller.
const SERVERS_MAX: u64 = 1_000;
/// The most callers whose use is counted at once.
const CALLERS_MAX: u64 = 10_000_000;

/// Reports limits that cannot be kept.
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    let root = Trail::Root;
    let usage = root.key("limits");
    in_range(Some(config.limits.callers_max as u64), CALLERS_MAX, &usage.key("callers_max"), problems);
    let mut of_all = limits(&config.limits.each_caller, &usage.key("each_caller"), problems);
    for (name, plan) in &config.plans {
        let plans = root.key("plans");
        let trail = plans.key(name);
        names::check_name(name, "a plan", &trail, problems);
        of_all = lesser(of_all, limits(plan, &trail, problems));
    }
    for (name, key) in &config.keys {
        of_servers(config, &key.mcp_rpm_limit, &Trail::Entry("keys", name).key("mcp_rpm_limit"), problems);
    }
    for (name, team) in &config.teams {
        of_servers(config, &team.mcp_rpm_limit, &Trail::Entry("teams", name).key("mcp_rpm_limit"), problems);
    }
    // Who is in another workspace never pays for a call here.
    let mut least: BTreeMap<Option<&str>, Money> = BTreeMap::new();
    let mut level = |trail: Trail<'_>, workspace, plan: Option<&str>, own: &Limits| {
        names::plan_exists(plan, &config.plans, &trail, problems);
        if let Some(budget) = limits(own, &trail.key("limits"), problems) {
            least.entry(workspace).and_modify(|least| *least = budget.min(*least)).or_insert(budget);
        }
    };
    macro_rules! levels {
        ($($table:ident),*) => {
            $(for (name, it) in &config.$table {
                let trail = Trail::Entry(stringify!($table), name);
                level(trail, workspaces::split(name).0, it.plan.as_deref(), &it.limits);
            })*
        };
    }
    levels!(keys, teams, organisations, users, agents);
    for (name, server) in &config.servers {
        let of_workspace = least.get(&workspaces::split(name).0).copied();
        check_server(server, lesser(of_all, of_workspace), &Trail::Entry("servers", name), problems);
    }
}

/// Rates of single servers, which must be there.
fn of_servers(config: &Config, rates: &BTreeMap<String, u32>, trail: &Trail<'_>, problems: &mut Problems) {
    for (server, rate) in rates {
        let trail = trail.key(workspaces::bare(server));
        names::check_server(config, server, &trail, problems);
        in_range(Some((*rate).into()), RATE_MAX, &trail, problems);
    }
}

/// The limits of a server and its tools, and whether what they cost can be paid from the `least` budget of a caller.
fn check_server(server: &Server, least: Option<Money>, trail: &Trail<'_>, problems: &mut Problems) {
    let least = lesser(least, limits(&(&server.limits).into(), &trail.key("limits"), problems));
    let costs = &server.mcp_server_cost_info;
    let at = trail.key("mcp_server_cost_info");
    if let Some(cost) = costs.default_cost_per_query {
        affordable(cost, least, &at.key("default_cost_per_query"), problems);
    }
    let of_tools = at.key("tool_name_to_cost_per_query");
    for (tool, cost) in &costs.tool_name_to_cost_per_query {
        affordable(*cost, least, &of_tools.key(tool), problems);
    }
    for (tool, entry) in &server.tools {
        let tools = trail.key("tools");
        let trail = tools.key(tool);
        let own = limits(&(&entry.limits).into(), &trail.key("limits"), problems);
        affordable(costs.of(tool), own, &trail.key("limits"), problems);
    }
}

/// A call that costs more than a whole budget is never made by whoever has that budget.
fn affordable(cost: Money, least: Option<Money>, trail: &Trail<'_>, problems: &mut Problems) {
    if let Some(budget) = least.filter(|budget| *budget < cost) {
        let help = "whoever has that budget is always refused: raise it, or lower the cost";
        problems.warning(&trail.at(), format!("a call costs {cost}, and there is a budget of {budget}"), help);
    }
}

fn lesser(one: Option<Money>, other: Option<Money>) -> Option<Money> {
    one.into_iter().chain(other).min()
}

/// Reports limits that are out of range; the lesser of their budgets.
fn limits(limits: &Limits, trail: &Trail<'_>, problems: &mut Problems) -> Option<Money> {
    for (key, value, most) in [
        ("rps_limit", limits.rps_limit.map(u64::from), RATE_MAX),
        ("rpm_limit", limits.rpm_limit.map(u64::from), RATE_MAX),
        ("calls_per_day_max", limits.calls_per_day_max, COUNT_MAX),
        ("concurrent_calls_max", limits.concurrent_calls_max.map(u64::from), COUNT_MAX),
        ("concurrent_streams_max", limits.concurrent_streams_max.map(u64::from), COUNT_MAX),
        ("sessions_per_hour_max", limits.sessions_per_hour_max.map(u64::from), RATE_MAX),
        ("servers_max", limits.servers_max.map(u64::from), SERVERS_MAX),
    ] {
        in_range(value, most, &trail.key(key), problems);
    }
    let (day, month) = (limits.budget_per_day_max, limits.budget_per_month_max);
    if let (Some(day), Some(month)) = (day, month)
        && day > month
    {
        let message = format!("a day may cost {day}, and a month only {month}");
        let help = "lower it, or leave it out: the month's budget ends first";
        problems.error(&trail.key("budget_per_day_max").at(), message, help);
    }
    lesser(day, month)
}

/// Zero would refuse everything, which is for permissions to say.
fn in_range(value: Option<u64>, most: u64, trail: &Trail<'_>, problems: &mut Problems) {
    if let Some(value) = value.filter(|value| *value == 0 || *value > most) {
        let help = format!("write a number from 1 to {most}, or leave the limit out");
        problems.error(&trail.at(), format!("`{value}` is out of range"), help);
    }
}
