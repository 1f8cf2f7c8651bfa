//! What has one subject used, and may it use more?
//!
//! A use is checked first and counted after, so that of several subjects all or none count it. It is given back where nothing
//! came of it; what is under way is given back in any case, at its end.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::config::model::Money;
use crate::quota::gcra::Backlog;
use crate::quota::gcra::Rate;
use crate::quota::rules::Reached;
use crate::quota::rules::Rule;
use crate::quota::window::Period;
use crate::quota::window::Window;
use crate::quota::words::Level;
use crate::quota::words::Limit;

const NANOS: u64 = 1_000_000_000;
/// When to come again where nobody knows when others will have ended.
const SOON: u64 = 1;
/// How long a day or month is remembered after its end, in seconds: a clock may be set back over it.
const GRACE: u64 = 3_600;

/// Whose rates of requests a use counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rates {
    /// Those of who calls: it is at the door.
    Callers,
    /// Those of what is called: it is about to be sent.
    Called,
}

/// What one request uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Whose rates it counts against.
    pub rates: Rates,
    /// It is a call of a tool or prompt, or reads a resource.
    pub call: bool,
    /// It begins a session.
    pub session: bool,
    /// It is a stream that stands.
    pub stream: bool,
    /// What it costs.
    pub cost: Money,
    /// The server it goes to.
    pub server: Arc<str>,
}

impl Use {
    /// One request at the door.
    pub fn at_door(server: &Arc<str>) -> Self {
        let server = Arc::clone(server);
        Self { rates: Rates::Callers, call: false, session: false, stream: false, cost: Money::ZERO, server }
    }

    /// Whether it counts for longer than a process lives.
    pub fn is_lasting(&self) -> bool {
        self.call || self.cost > Money::ZERO
    }

    fn is_request_of(&self, level: Level) -> bool {
        level.calls() == (self.rates == Rates::Callers)
    }
}

/// What one subject has used. New is [`State::default`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    #[serde(skip)]
    second: Backlog,
    #[serde(skip)]
    minute: Backlog,
    #[serde(skip)]
    hour: Backlog,
    #[serde(skip)]
    calls_now: u32,
    #[serde(skip)]
    streams_now: u32,
    /// By server, where the subject's rate of a server is limited.
    #[serde(skip)]
    server_minutes: Vec<(Arc<str>, Backlog)>,
    calls: Window<u64>,
    day_cost: Window<u64>,
    month_cost: Window<u64>,
    /// The servers of a day, each with how many calls went to it.
    servers: Window<Vec<(Box<str>, u64)>>,
}

/// A time, as the windows count it.
#[derive(Clone, Copy)]
struct Moment {
    nanos: u64,
    seconds: u64,
    day: u64,
    month: u64,
}

impl Moment {
    fn of(micros: u64) -> Self {
        let seconds = micros / 1_000_000;
        let (day, month) = (Period::Day.number(seconds), Period::Month.number(seconds));
        Self { nanos: micros.saturating_mul(1_000), seconds, day, month }
    }

    /// A little earlier: what ended since is still remembered.
    fn with_grace(self) -> Self {
        Self::of(self.seconds.saturating_sub(GRACE).saturating_mul(1_000_000))
    }
}

impl State {
    /// Whether a use is within the limits of a rule.
    ///
    /// # Errors
    /// The limit that is reached; of several, the one that lasts longest.
    pub fn check(&self, rule: &Rule, used: &Use, now_micros: u64) -> Result<(), Reached> {
        let (limits, now) = (&rule.limits, Moment::of(now_micros));
        let is_request = used.is_request_of(rule.subject.level);
        let too_early = |applies: bool, rate: Option<Rate>, backlog: Backlog| {
            let wait = rate.filter(|_| applies).and_then(|rate| backlog.check(rate, now.nanos).err());
            wait.map(|nanos| Some(nanos.div_ceil(NANOS)))
        };
        let too_many = |applies: bool, most: Option<u32>, present: u32| {
            (applies && most.is_some_and(|most| present >= most)).then_some(Some(SOON))
        };
        let at_end = |period: Period, number: u64| Some(period.begin(number + 1).saturating_sub(now.seconds).max(1));
        let too_much = |period: Period, budget: Option<u64>, window: &Window<u64>, number: u64| {
            let cost = used.cost.micros();
            let budget = budget.filter(|budget| cost > 0 && window.count(number).saturating_add(cost) > *budget)?;
            Some(if cost > budget { None } else { at_end(period, number) })
        };
        let is_out = used.call && limits.calls_per_day.is_some_and(|most| self.calls.count(now.day) >= most);
        let of_day = self.servers.used(now.day).map(Vec::as_slice).unwrap_or_default();
        let is_new = used.call && !of_day.iter().any(|(known, _)| **known == *used.server);
        let is_one_more = is_new && limits.servers.is_some_and(|most| of_day.len() >= most as usize);
        let of_server = limits.server_minutes.get(&used.server).copied();
        let reached = [
            (Limit::PerSecond, too_early(is_request, limits.per_second, self.second)),
            (Limit::PerMinute, too_early(is_request, limits.per_minute, self.minute)),
            (Limit::McpPerMinute, too_early(used.call, of_server, self.server_minute(&used.server))),
            (Limit::SessionsPerHour, too_early(used.session, limits.sessions_per_hour, self.hour)),
            (Limit::ConcurrentCalls, too_many(used.call, limits.concurrent_calls, self.calls_now)),
            (Limit::ConcurrentStreams, too_many(used.stream, limits.concurrent_streams, self.streams_now)),
            (Limit::CallsPerDay, is_out.then(|| at_end(Period::Day, now.day))),
            (Limit::Servers, is_one_more.then(|| at_end(Period::Day, now.day))),
            (Limit::BudgetPerDay, too_much(Period::Day, limits.budget_per_day, &self.day_cost, now.day)),
            (Limit::BudgetPerMonth, too_much(Period::Month, limits.budget_per_month, &self.month_cost, now.month)),
        ];
        let longest = reached.into_iter().filter_map(|(limit, wait)| Some((limit, wait?)));
        match longest.max_by_key(|(_, wait)| wait.unwrap_or(u64::MAX)) {
            Some((limit, wait)) => {
                let at = rule.at_of(limit, &used.server);
                Err(Reached { subject: rule.subject.clone(), limit, at, wait })
            }
            None => Ok(()),
        }
    }

    /// Counts a use. What was used before a limit was set counts for it, rates excepted.
    pub fn add(&mut self, rule: &Rule, used: &Use, now_micros: u64) {
        let (limits, now) = (&rule.limits, Moment::of(now_micros));
        let is_request = used.is_request_of(rule.subject.level);
        for (applies, rate, backlog) in [
            (is_request, limits.per_second, &mut self.second),
            (is_request, limits.per_minute, &mut self.minute),
            (used.session, limits.sessions_per_hour, &mut self.hour),
        ] {
            if let Some(rate) = rate.filter(|_| applies) {
                backlog.add(rate, now.nanos);
            }
        }
        if used.call {
            self.calls.add(now.day, 1);
            self.calls_now = self.calls_now.saturating_add(1);
            if limits.servers.is_some() {
                self.add_server(&used.server, now.day);
            }
            if let Some(rate) = limits.server_minutes.get(&used.server) {
                self.add_server_minute(&used.server, *rate, now.nanos);
            }
        }
        if used.stream {
            self.streams_now = self.streams_now.saturating_add(1);
        }
        self.day_cost.add(now.day, used.cost.micros());
        self.month_cost.add(now.month, used.cost.micros());
    }

    /// Takes a use back that was counted then, of which nothing came; of rates, only what is not worked off for certain. What is
    /// under way is for [`State::end`].
    pub fn give_back(&mut self, rule: &Rule, used: &Use, then_micros: u64, now_micros: u64) {
        let (limits, then, now) = (&rule.limits, Moment::of(then_micros), Moment::of(now_micros));
        let is_request = used.is_request_of(rule.subject.level);
        for (applies, rate, backlog) in [
            (is_request, limits.per_second, &mut self.second),
            (is_request, limits.per_minute, &mut self.minute),
            (used.session, limits.sessions_per_hour, &mut self.hour),
        ] {
            if let Some(rate) = rate.filter(|_| applies) {
                backlog.give_back(rate, then.nanos, now.nanos);
            }
        }
        if used.call {
            self.calls.give_back(then.day, 1);
            self.give_server_back(&used.server, then.day);
            let backlog = self.server_minutes.iter_mut().find(|(known, _)| **known == *used.server);
            if let Some((rate, (_, backlog))) = limits.server_minutes.get(&used.server).zip(backlog) {
                backlog.give_back(*rate, then.nanos, now.nanos);
            }
        }
        self.day_cost.give_back(then.day, used.cost.micros());
        self.month_cost.give_back(then.month, used.cost.micros());
    }

    /// A use is no longer under way.
    pub fn end(&mut self, used: &Use) {
        self.calls_now = self.calls_now.saturating_sub(u32::from(used.call));
        self.streams_now = self.streams_now.saturating_sub(u32::from(used.stream));
    }

    /// Whether it is as good as new: nothing is under way, and nothing is remembered that could refuse anything.
    pub fn is_over(&self, now_micros: u64) -> bool {
        self.is_idle() && self.over_at(now_micros) <= now_micros
    }

    fn is_idle(&self) -> bool {
        self.calls_now == 0 && self.streams_now == 0
    }

    /// When it will be as good as new if nothing more is used; of what is under way, nobody knows, and it is soon.
    pub fn over_at(&self, now_micros: u64) -> u64 {
        let now = Moment::of(now_micros);
        let rates =
            [self.second, self.minute, self.hour].into_iter().chain(self.server_minutes.iter().map(|(_, it)| *it));
        let worked_off = rates.map(|backlog| backlog.end_nanos().div_ceil(1_000)).max().unwrap_or_default();
        let under_way = if self.is_idle() { 0 } else { now_micros.saturating_add(SOON * 1_000_000) };
        let ends = [now.with_grace(), now].into_iter().flat_map(|moment| {
            let is_day = !self.calls.is_unused(moment.day) || !self.day_cost.is_unused(moment.day);
            let day = is_day.then(|| Period::Day.begin(moment.day + 1));
            let month = (!self.month_cost.is_unused(moment.month)).then(|| Period::Month.begin(moment.month + 1));
            [day, month].into_iter().flatten()
        });
        let ended = ends.max().map_or(0, |end| end.saturating_add(GRACE).saturating_mul(1_000_000));
        worked_off.max(under_way).max(ended)
    }

    /// Whether there is something that must survive a restart, whatever the day is taken to be by then.
    pub fn has_lasting(&self) -> bool {
        [&self.calls, &self.day_cost, &self.month_cost].into_iter().flat_map(Window::every).any(|used| *used > 0)
    }

    /// How much it takes to write this down, in accounts without servers.
    pub fn weight(&self) -> usize {
        1 + self.servers.every().map(Vec::len).sum::<usize>()
    }

    /// How much of a limit is used, in whole units or in millionths of money; rates are not told.
    pub fn used(&self, limit: Limit, now_micros: u64) -> u64 {
        let now = Moment::of(now_micros);
        match limit {
            Limit::PerSecond | Limit::PerMinute | Limit::McpPerMinute | Limit::SessionsPerHour => 0,
            Limit::CallsPerDay => self.calls.count(now.day),
            Limit::ConcurrentCalls => self.calls_now.into(),
            Limit::ConcurrentStreams => self.streams_now.into(),
            Limit::Servers => self.servers.used(now.day).map_or(0, |servers| servers.len() as u64),
            Limit::BudgetPerDay => self.day_cost.count(now.day),
            Limit::BudgetPerMonth => self.month_cost.count(now.month),
        }
    }

    fn server_minute(&self, server: &str) -> Backlog {
        self.server_minutes
            .iter()
            .find(|(known, _)| **known == *server)
            .map(|(_, backlog)| *backlog)
            .unwrap_or_default()
    }

    fn add_server_minute(&mut self, server: &Arc<str>, rate: Rate, now_nanos: u64) {
        match self.server_minutes.iter_mut().find(|(known, _)| *known == *server) {
            Some((_, backlog)) => backlog.add(rate, now_nanos),
            None => {
                self.server_minutes.retain(|(_, backlog)| backlog.end_nanos() > now_nanos);
                let mut backlog = Backlog::default();
                backlog.add(rate, now_nanos);
                self.server_minutes.push((Arc::clone(server), backlog));
            }
        }
    }

    fn add_server(&mut self, server: &str, day: u64) {
        let servers = self.servers.turn_to(day);
        match servers.iter_mut().find(|(known, _)| **known == *server) {
            Some((_, calls)) => *calls += 1,
            None => servers.push((server.into(), 1)),
        }
    }

    /// Forgets a server with the last call to it.
    fn give_server_back(&mut self, server: &str, day: u64) {
        let Some(servers) = self.servers.remembered(day) else { return };
        let Some(at) = servers.iter().position(|(known, _)| **known == *server) else { return };
        if let Some((_, calls)) = servers.get_mut(at) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                servers.swap_remove(at);
            }
        }
    }
}
