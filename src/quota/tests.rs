//! Do limits hold to the request, the second and the millionth?

use std::sync::Arc;

use proptest::prelude::*;

use crate::config::model::Config;
use crate::config::model::Money;
use crate::principal::Principal;
use crate::quota::Limit;
use crate::quota::Quotas;
use crate::quota::Rates;
use crate::quota::Rule;
use crate::quota::State;
use crate::quota::Use;
use crate::quota::words;

/// Noon of a day in the middle of March 2026, in seconds.
const NOON: u64 = 1_773_576_000;
const HOUR: u64 = 3_600;
const MIDNIGHT: u64 = NOON + 12 * HOUR;

fn quotas(text: &str) -> Quotas {
    Quotas::compile(&toml::from_str::<Config>(text).unwrap())
}

/// The only rule that holds for the key `ci` under these limits.
fn rule(limits: &str) -> Arc<Rule> {
    let quotas = quotas(&format!("[keys.ci.limits]\n{limits}\n"));
    quotas.of_caller(&Principal::of_key("ci")).pop().unwrap()
}

fn call(server: &str, cost: &str) -> Use {
    let (cost, server) = (Money::parse(cost).unwrap(), server.into());
    Use { rates: Rates::Called, call: true, session: false, stream: false, cost, server }
}

/// Makes a call that ends at once; what was reached instead, and for how many seconds.
fn make(state: &mut State, rule: &Rule, used: &Use, seconds: u64) -> Result<(), (Limit, Option<u64>)> {
    let now = seconds * 1_000_000;
    state.check(rule, used, now).map_err(|reached| (reached.limit, reached.wait))?;
    state.add(rule, used, now);
    state.end(used);
    Ok(())
}

#[test]
fn a_free_plan_stops_at_call_101_and_goes_on_the_next_day() {
    let quotas = quotas("[plans.free]\nservers_max = 3\ncalls_per_day_max = 100\n[keys.ci]\nplan = \"free\"\n");
    let rule = quotas.of_caller(&Principal::of_key("ci")).pop().unwrap();
    let (mut state, used) = (State::default(), call("db", "0"));
    for number in 1..=100 {
        assert_eq!(make(&mut state, &rule, &used, NOON), Ok(()), "call {number}");
    }
    assert_eq!(make(&mut state, &rule, &used, NOON), Err((Limit::CallsPerDay, Some(12 * HOUR))));
    assert_eq!(make(&mut state, &rule, &used, MIDNIGHT - 1), Err((Limit::CallsPerDay, Some(1))));
    assert_eq!(make(&mut state, &rule, &used, MIDNIGHT), Ok(()));
    assert_eq!(state.used(Limit::CallsPerDay, MIDNIGHT * 1_000_000), 1);
    assert_eq!(rule.at(Limit::CallsPerDay).to_string(), "plans.free.calls_per_day_max");
}

#[test]
fn a_fourth_server_is_refused_until_tomorrow_and_the_three_are_not() {
    let (rule, mut state) = (rule("servers_max = 3"), State::default());
    for server in ["a", "b", "c", "a", "c"] {
        assert_eq!(make(&mut state, &rule, &call(server, "0"), NOON), Ok(()));
    }
    assert_eq!(make(&mut state, &rule, &call("d", "0"), NOON), Err((Limit::Servers, Some(12 * HOUR))));
    // A list or the beginning of a session uses no server.
    assert_eq!(make(&mut state, &rule, &Use { call: false, ..call("d", "0") }, NOON), Ok(()));
    assert_eq!(make(&mut state, &rule, &call("d", "0"), MIDNIGHT), Ok(()));
    assert_eq!(state.used(Limit::Servers, MIDNIGHT * 1_000_000), 1);
}

#[test]
fn a_server_that_was_not_reached_was_not_used() {
    let (rule, mut state, now) = (rule("servers_max = 1"), State::default(), NOON * 1_000_000);
    let (one, other) = (call("a", "0"), call("b", "0"));
    state.add(&rule, &one, now);
    state.add(&rule, &one, now);
    state.give_back(&rule, &one, now, now);
    assert!(state.check(&rule, &other, now).is_err(), "one call to the first is left");
    state.give_back(&rule, &one, now, now);
    assert!(state.check(&rule, &other, now).is_ok());
}

#[test]
fn money_is_counted_to_the_millionth_and_ends_with_its_day_and_its_month() {
    let (rule, mut state) = (rule("budget_per_day_max = \"0.3\"\nbudget_per_month_max = \"0.5\""), State::default());
    for _ in 0..3 {
        assert_eq!(make(&mut state, &rule, &call("a", "0.1"), NOON), Ok(()));
    }
    assert_eq!(make(&mut state, &rule, &call("a", "0.000001"), NOON), Err((Limit::BudgetPerDay, Some(12 * HOUR))));
    assert_eq!(make(&mut state, &rule, &call("a", "0"), NOON), Ok(()), "what is free is not refused");
    assert_eq!(make(&mut state, &rule, &call("a", "0.2"), MIDNIGHT), Ok(()));
    // Of both, the one that lasts longer is told: the rest of March.
    let rest = 16 * 24 * HOUR;
    assert_eq!(make(&mut state, &rule, &call("a", "0.2"), MIDNIGHT), Err((Limit::BudgetPerMonth, Some(rest))));
    assert_eq!(make(&mut state, &rule, &call("a", "0.2"), MIDNIGHT + rest), Ok(()));
    // No time to come again is promised to whom there is none.
    assert_eq!(make(&mut state, &rule, &call("a", "0.4"), NOON), Err((Limit::BudgetPerDay, None)));
}

#[test]
fn what_is_under_way_counts_until_its_end_whatever_came_of_it() {
    let (rule, mut state) = (rule("concurrent_calls_max = 2\nconcurrent_streams_max = 1"), State::default());
    let (used, now) = (call("a", "0"), NOON * 1_000_000);
    state.add(&rule, &used, now);
    state.add(&rule, &used, now);
    let reached = state.check(&rule, &used, now).unwrap_err();
    assert_eq!((reached.name(), reached.wait), ("key_concurrent_calls_max", Some(1)));
    let stream = Use { call: false, stream: true, ..used.clone() };
    assert!(state.check(&rule, &stream, now).is_ok());
    state.add(&rule, &stream, now);
    assert!(state.check(&rule, &stream, now).is_err() && !state.is_over(u64::MAX));
    state.end(&used);
    assert!(state.check(&rule, &used, now).is_ok());
    state.end(&used);
    state.end(&stream);
    assert!(state.is_over((MIDNIGHT + 31 * 24 * HOUR) * 1_000_000));
}

#[test]
fn callers_are_asked_at_the_door_and_what_is_called_when_it_is_called() {
    let quotas = quotas("[keys.ci.limits]\nrpm_limit = 1\n[servers.a.limits]\nrpm_limit = 1\n");
    let of_key = quotas.of_caller(&Principal::of_key("ci")).pop().unwrap();
    let of_server = quotas.of_call("a", None).next().unwrap();
    let (mut key, mut server) = (State::default(), State::default());
    for used in [Use::at_door(&"a".into()), call("a", "0")] {
        key.add(&of_key, &used, NOON * 1_000_000);
        server.add(of_server, &used, NOON * 1_000_000);
    }
    // Each has counted one of the two.
    for (state, rule) in [(key, &of_key), (server, of_server)] {
        assert!(!state.is_over((NOON + 59) * 1_000_000), "{:?}", rule.subject());
        assert!(state.used(Limit::CallsPerDay, NOON * 1_000_000) == 1);
    }
}

#[test]
fn calls_to_single_servers_have_rates_of_their_own_beside_each_other() {
    let quotas = quotas(
        "[keys.ci]\nteam = \"t\"\nmcp_rpm_limit = { a = 2, b = 1 }\n[teams.t]\nmcp_rpm_limit = { a = 3 }\nlimits.rpm_limit = 9\n",
    );
    let who = Principal { teams: vec!["t".into()], ..Principal::of_key("ci") };
    let rules = quotas.of_caller(&who);
    let mut states = [State::default(), State::default()];
    let mut ask = |used: &Use, seconds: u64| {
        let now = seconds * 1_000_000;
        for (state, rule) in states.iter().zip(&rules) {
            state.check(rule, used, now).map_err(|reached| (reached.name(), reached.at.to_string(), reached.wait))?;
        }
        for (state, rule) in states.iter_mut().zip(&rules) {
            state.add(rule, used, now);
            state.end(used);
        }
        Ok(())
    };
    let (a, b, c) = (call("a", "0"), call("b", "0"), call("c", "0"));
    assert_eq!([ask(&a, NOON), ask(&a, NOON), ask(&b, NOON)], [Ok(()), Ok(()), Ok(())]);
    let reached =
        |server: &str, wait| Err(("key_mcp_rpm_limit", format!("keys.ci.mcp_rpm_limit.{server}"), Some(wait)));
    assert_eq!((ask(&a, NOON), ask(&b, NOON)), (reached("a", 30), reached("b", 60)));
    // Another server has none, and neither have requests that are no calls.
    assert_eq!((0..8).filter(|_| ask(&c, NOON).is_ok()).count(), 8);
    assert_eq!(ask(&Use { call: false, ..a.clone() }, NOON), Ok(()));
    assert_eq!(ask(&a, NOON + 30), Ok(()));
    assert_eq!(ask(&a, NOON + 30), reached("a", 30));
    // The team's holds beside the key's, however much the key may.
    let lone = [&rules[1]].map(Arc::clone);
    assert_eq!(lone[0].subject().to_string(), "team:t");
    let refused = (0..4).find_map(|_| {
        states[1].check(&lone[0], &a, NOON * 1_000_000).map(|()| states[1].add(&lone[0], &a, NOON * 1_000_000)).err()
    });
    assert_eq!(refused.unwrap().at.to_string(), "teams.t.mcp_rpm_limit.a");
}

#[test]
fn what_was_not_sent_is_given_back_to_the_rate_of_its_server() {
    let quotas = quotas("[keys.ci]\nmcp_rpm_limit = { a = 1 }\n");
    let rule = quotas.of_caller(&Principal::of_key("ci")).pop().unwrap();
    let (mut state, used, now) = (State::default(), call("a", "0"), NOON * 1_000_000);
    state.add(&rule, &used, now);
    state.end(&used);
    assert!(state.check(&rule, &used, now).is_err() && !state.is_over(now));
    state.give_back(&rule, &used, now, now);
    assert!(state.check(&rule, &used, now).is_ok() && state.is_over(now));
}

#[test]
fn each_subject_of_a_caller_is_asked_once_and_its_own_limits_beat_its_plan() {
    let quotas = quotas(
        "[limits.each_caller]\nrpm_limit = 9\n[plans.free]\nrpm_limit = 1\ncalls_per_day_max = 1\n\
         [organisations.acme.limits]\nrpm_limit = 3\n[teams.b]\norganisation = \"acme\"\nplan = \"free\"\nlimits.rpm_limit = 2\n\
         [teams.a]\norganisation = \"acme\"\nplan = \"free\"\n[keys.ci]\n",
    );
    let teams = ["b", "a", "b"].map(Arc::from).to_vec();
    let rules = quotas.of_caller(&Principal { teams, ..Principal::of_key("ci") });
    let named: Vec<String> =
        rules.iter().map(|rule| format!("{} {}", rule.subject(), rule.at(Limit::PerMinute))).collect();
    assert_eq!(
        named,
        [
            "caller:key:ci limits.each_caller.rpm_limit",
            "team:a plans.free.rpm_limit",
            "team:b teams.b.limits.rpm_limit",
            "organisation:acme organisations.acme.limits.rpm_limit",
        ]
    );
    assert_eq!(rules[2].at(Limit::CallsPerDay).to_string(), "plans.free.calls_per_day_max");
    assert!(quotas.of_call("a", Some("t")).next().is_none() && !quotas.is_empty());
    assert!(Quotas::compile(&Config::default()).is_empty());
}

#[test]
fn what_is_written_of_a_state_is_what_must_survive() {
    let (rule, mut state) = (rule("calls_per_day_max = 5\nservers_max = 2\nrpm_limit = 5"), State::default());
    let now = NOON * 1_000_000;
    make(&mut state, &rule, &call("a", "0.5"), NOON).unwrap();
    assert!(state.has_lasting() && !State::default().has_lasting());
    let read: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    for limit in Limit::ALL {
        assert_eq!(read.used(limit, now), state.used(limit, now), "{limit:?}");
    }
    assert!(!read.is_over(now) && read.is_over(now + 31 * 24 * HOUR * 1_000_000));
}

#[test]
fn no_tool_of_a_server_is_one_of_another_workspaces() {
    let names = [("acme", "a/x"), ("acme/a", "x"), ("acme/a", "x/y"), ("acme", "/a/x"), ("acme/a", "/x"), ("a", "")];
    let mut written: Vec<String> = names.iter().map(|(server, tool)| words::tool_name(server, tool)).collect();
    for (name, expected) in written.iter().zip(names) {
        assert_eq!(words::split_tool(name), expected);
    }
    written.sort();
    written.dedup();
    assert_eq!(written.len(), names.len());
}

proptest! {
    #[test]
    fn a_day_counts_as_the_naive_reference(
        most in 1_u64..6,
        steps in prop::collection::vec((0_u64..30_000, any::<bool>()), 1..80),
    ) {
        let rule = rule(&format!("calls_per_day_max = {most}"));
        let (mut state, mut came, mut now) = (State::default(), Vec::<u64>::new(), NOON);
        for (step, is_given_back) in steps {
            // Often at the very boundary: the last second of a day and the first.
            now += step;
            if step % 7 == 0 { now = (now / 86_400 + 1) * 86_400 - 1; }
            if step % 7 == 1 { now = now.div_ceil(86_400) * 86_400; }
            let today = came.iter().filter(|then| **then / 86_400 == now / 86_400).count() as u64;
            let used = call("a", "0");
            match make(&mut state, &rule, &used, now) {
                Ok(()) => {
                    prop_assert!(today < most);
                    if is_given_back { state.give_back(&rule, &used, now * 1_000_000, now * 1_000_000) } else { came.push(now) }
                }
                Err(reached) => {
                    prop_assert!(today >= most);
                    prop_assert_eq!(reached, (Limit::CallsPerDay, Some(86_400 - now % 86_400)));
                }
            }
        }
    }
}
