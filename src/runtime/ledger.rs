//! Who has used how much?
//!
//! One account for each subject that a limit holds for. A use is counted in all of a request's accounts or in none, under one
//! lock. Whoever the configuration names always has a place; callers known by a token alone share a number of places, and when
//! all are taken a further one is refused: a flood of them neither grows memory nor lifts anybody's limit, as an account is only
//! forgotten when it is as good as new. Whoever looks at all accounts lets go of the lock in between, so that no request waits
//! for long.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use indexmap::IndexMap;

use crate::clock;
use crate::principal::Principal;
use crate::quota::Level;
use crate::quota::Quotas;
use crate::quota::Reached;
use crate::quota::Rule;
use crate::quota::State;
use crate::quota::Subject;
use crate::quota::Use;

/// The form of what is written down.
const VERSION: u64 = 2;
/// Accounts that are looked at before others may have the lock.
const SLICE_MAX: usize = 1_024;
/// How long others may have it then.
const PAUSE: Duration = Duration::from_micros(50);
/// A clock that moved by so much more than the time between two looks was set: looks are a few seconds apart.
const JUMP_MICROS: u64 = 60_000_000;
/// How long a clock that was set is not believed, so far as anything would be forgotten on its word.
const DOUBT_MICROS: u64 = 3_600_000_000;

/// Every account.
#[derive(Default)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
    /// Held by whoever looks at all accounts: only so does their order last from one slice to the next.
    walk: Mutex<()>,
}

type States = IndexMap<Subject, State>;

#[derive(Default)]
struct Accounts {
    /// In an order that only forgetting one changes; new ones come last.
    states: States,
    /// How many of them are callers without a key.
    strangers: usize,
    /// When the first of their places will be free, as far as was seen.
    free_at_micros: u64,
    /// Whether somebody was refused for want of a place since accounts were looked through.
    is_full: bool,
    /// Whether something that must survive a restart changed since it was last written down.
    is_changed: bool,
    /// When accounts were last looked through, by a clock that might have been set since.
    swept_micros: u64,
    /// From when on the clock is believed.
    believed_micros: u64,
}

/// Why a use is not granted.
#[derive(Debug)]
pub enum NotGranted {
    /// A limit is reached.
    Reached(Box<Reached>),
    /// There is no place for one more caller.
    CallersFull {
        /// Seconds until there may be one.
        wait: u64,
    },
}

/// Accounts that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not of the form that is written, or not to be read at all.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// Of a form that is not known.
    #[error("it has version {0}, and this gateway knows version {VERSION}")]
    Version(u64),
}

/// What [`Ledger::write`] writes.
#[derive(serde::Deserialize)]
struct Written {
    version: u64,
    #[serde(deserialize_with = "states")]
    accounts: States,
}

impl Ledger {
    /// Counts a use in the account of each rule, or in none. With the guard it ends.
    ///
    /// # Errors
    /// Of the limits that are reached, the one that lasts longest.
    pub fn reserve(
        self: &Arc<Self>,
        rules: Vec<Arc<Rule>>,
        used: Use,
        (principal, quotas): (&Principal, &Quotas),
        now_micros: u64,
    ) -> Result<Reservation, NotGranted> {
        let mut accounts = self.lock();
        let new = State::default();
        let mut longest: Option<Reached> = None;
        for rule in &rules {
            let state = accounts.states.get(rule.subject()).unwrap_or(&new);
            let Err(reached) = state.check(rule, &used, now_micros) else { continue };
            let lasts = |reached: &Reached| reached.wait.unwrap_or(u64::MAX);
            if longest.as_ref().is_none_or(|longest| lasts(&reached) > lasts(longest)) {
                longest = Some(reached);
            }
        }
        if let Some(reached) = longest {
            return Err(NotGranted::Reached(Box::new(reached)));
        }
        let is_stranger = principal.key.is_none() && !principal.is_public();
        for rule in rules.iter().filter(|rule| is_stranger && rule.subject().level == Level::Caller) {
            accounts.admit(rule.subject(), quotas.callers_max, now_micros)?;
        }
        for rule in &rules {
            let state = match accounts.states.get_mut(rule.subject()) {
                Some(state) => state,
                None => accounts.states.entry(rule.subject().clone()).or_default(),
            };
            state.add(rule, &used, now_micros);
        }
        accounts.is_changed |= used.is_lasting();
        drop(accounts);
        Ok(Reservation { ledger: Arc::clone(self), rules, used, then_micros: now_micros, is_kept: false })
    }

    /// Forgets accounts that are as good as new.
    pub fn sweep(&self, now_micros: u64) {
        let _walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut accounts = self.lock();
        accounts.is_full = false;
        if !accounts.believes(now_micros) {
            return;
        }
        let (mut next, mut free_at_micros) = (accounts.states.len(), u64::MAX);
        drop(accounts);
        // From the last to the first: what takes the place of one that is forgotten has been seen.
        while next > 0 {
            let mut accounts = self.lock();
            let end = next.saturating_sub(SLICE_MAX);
            while next > end {
                next -= 1;
                free_at_micros = free_at_micros.min(accounts.look_at(next, now_micros));
            }
            if end == 0 {
                accounts.free_at_micros = free_at_micros;
            }
            drop(accounts);
            thread::sleep(PAUSE);
        }
    }

    /// Whether somebody was refused for want of a place since the last [`Self::sweep`].
    pub fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// How much of each limit of these rules is used: the rule, and its subject's account.
    pub fn each<'r>(&self, rules: impl Iterator<Item = &'r Arc<Rule>>, mut with: impl FnMut(&'r Rule, &State)) {
        let (mut rules, new) = (rules.peekable(), State::default());
        while rules.peek().is_some() {
            let accounts = self.lock();
            for rule in rules.by_ref().take(SLICE_MAX) {
                with(rule, accounts.states.get(rule.subject()).unwrap_or(&new));
            }
            drop(accounts);
            thread::yield_now();
        }
    }

    /// Whether something that must survive a restart changed since this was last asked.
    pub fn take_changed(&self) -> bool {
        std::mem::take(&mut self.lock().is_changed)
    }

    /// Writes what must survive a restart, an account a line, with the lock let go in between.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let _walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        write!(out, "{{\"version\":{VERSION},\"accounts\":{{")?;
        let (mut next, mut separator) = (0, "\n");
        loop {
            let (slice, end) = self.lock().slice(next);
            for (subject, state) in slice {
                write!(out, "{separator}")?;
                serde_json::to_writer(&mut *out, &subject.to_string())?;
                write!(out, ":")?;
                serde_json::to_writer(&mut *out, &state)?;
                separator = ",\n";
            }
            let Some(end) = end else { break };
            next = end;
            thread::sleep(PAUSE);
        }
        writeln!(out, "\n}}}}")
    }

    /// What was to be written could not be: it is still to be.
    pub fn not_written(&self) {
        self.lock().is_changed = true;
    }

    /// Takes over what was written.
    ///
    /// # Errors
    /// Then nothing is taken over.
    pub fn read(&self, from: impl io::Read) -> Result<(), Unreadable> {
        let written: Written = serde_json::from_reader(from)?;
        if written.version != VERSION {
            return Err(Unreadable::Version(written.version));
        }
        let mut accounts = self.lock();
        accounts.states = written.accounts;
        accounts.strangers = accounts.states.keys().filter(|subject| is_strangers(subject)).count();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// Makes a place for a caller without a key, if it has none yet.
    fn admit(&mut self, subject: &Subject, callers_max: usize, now_micros: u64) -> Result<(), NotGranted> {
        if self.states.contains_key(subject) {
            return Ok(());
        }
        if self.strangers >= callers_max {
            self.is_full = true;
            let free_at = self.free_at_micros.max(self.believed_micros);
            // A second later it has been seen.
            let wait = free_at.saturating_sub(now_micros).div_ceil(1_000_000) + 1;
            return Err(NotGranted::CallersFull { wait });
        }
        self.strangers += 1;
        // Nobody has seen yet when this place will be free.
        self.free_at_micros = 0;
        self.states.insert(subject.clone(), State::default());
        Ok(())
    }

    /// Whether anything may be forgotten at this time: not if the clock was set lately, as it may be set back.
    fn believes(&mut self, now_micros: u64) -> bool {
        if self.swept_micros > 0 && now_micros.abs_diff(self.swept_micros) > JUMP_MICROS {
            self.believed_micros = now_micros.saturating_add(DOUBT_MICROS);
        }
        self.swept_micros = now_micros;
        now_micros >= self.believed_micros
    }

    /// Forgets the account at this index if it is over. When a place will be free by it.
    fn look_at(&mut self, index: usize, now_micros: u64) -> u64 {
        let Some((subject, state)) = self.states.get_index(index) else { return u64::MAX };
        let is_strangers = is_strangers(subject);
        if !state.is_over(now_micros) {
            return if is_strangers { state.over_at(now_micros) } else { u64::MAX };
        }
        self.states.swap_remove_index(index);
        self.strangers -= usize::from(is_strangers);
        now_micros
    }

    /// Some accounts that must survive a restart, from this index on, and where those begin that come after them.
    fn slice(&self, first: usize) -> (Vec<(Subject, State)>, Option<usize>) {
        let (mut slice, mut weight) = (Vec::new(), 0);
        for index in first.. {
            let Some((subject, state)) = self.states.get_index(index) else { break };
            if weight >= SLICE_MAX {
                return (slice, Some(index));
            }
            weight += state.weight();
            if state.has_lasting() {
                slice.push((subject.clone(), state.clone()));
            }
        }
        (slice, None)
    }
}

/// Reads accounts one after the other: all of the text at once would be as much again.
fn states<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<States, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = States;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("accounts by subject")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<States, A::Error> {
            let mut states = States::new();
            while let Some((name, state)) = map.next_entry::<String, State>()? {
                let unknown = || serde::de::Error::custom(format_args!("`{name}` is nobody whose use is counted"));
                states.insert(Subject::read(&name).ok_or_else(unknown)?, state);
            }
            Ok(states)
        }
    }
    deserializer.deserialize_map(Visitor)
}

/// Whether it is the account of a caller without a key, by the form of principals' ids.
fn is_strangers(subject: &Subject) -> bool {
    subject.level == Level::Caller && !subject.name.starts_with("key:") && &*subject.name != "public"
}

/// A use that was counted. Dropped, what is under way ends, and what was not kept is given back.
#[must_use = "what is dropped at once is given back"]
pub struct Reservation {
    ledger: Arc<Ledger>,
    rules: Vec<Arc<Rule>>,
    used: Use,
    then_micros: u64,
    is_kept: bool,
}

impl Reservation {
    /// The use stays counted: something was sent.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Whether the use stays counted.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The use does not stay counted after all.
    pub fn give_back(mut self) {
        self.is_kept = false;
    }

    /// What was used.
    pub fn used(&self) -> &Use {
        &self.used
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let now_micros = clock::now_micros();
        let mut accounts = self.ledger.lock();
        for rule in &self.rules {
            // An account with something under way is not forgotten, and one without has nothing to give back.
            let Some(state) = accounts.states.get_mut(rule.subject()) else { continue };
            state.end(&self.used);
            if !self.is_kept {
                state.give_back(rule, &self.used, self.then_micros, now_micros);
            }
        }
        accounts.is_changed |= self.used.is_lasting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Config;
    use crate::quota::Limit;

    const NOW: u64 = 1_773_576_000_000_000;

    fn quotas(text: &str) -> Quotas {
        Quotas::compile(&toml::from_str::<Config>(text).unwrap())
    }

    fn stranger(number: usize) -> Principal {
        Principal { id: format!("jwt:issuer/{number}").into(), ..Principal::default() }
    }

    /// One request at the door, which stays counted.
    fn ask(ledger: &Arc<Ledger>, quotas: &Quotas, who: &Principal, now: u64) -> Result<(), NotGranted> {
        let rules = quotas.of_caller(who);
        ledger.reserve(rules, Use::at_door(&"a".into()), (who, quotas), now)?.keep();
        Ok(())
    }

    fn call(cost: u64) -> Use {
        let cost = crate::config::model::Money::from_micros(cost);
        Use { rates: crate::quota::Rates::Called, call: true, cost, ..Use::at_door(&"a".into()) }
    }

    #[test]
    fn a_flood_of_made_up_callers_neither_grows_the_table_nor_lifts_a_limit() {
        let quotas = quotas("[limits]\ncallers_max = 3\neach_caller.rpm_limit = 2\n[keys.ci.limits]\nrpm_limit = 1\n");
        let ledger = Arc::new(Ledger::default());
        let (known, key) = (stranger(0), Principal::of_key("ci"));
        assert!(ask(&ledger, &quotas, &known, NOW).is_ok() && ask(&ledger, &quotas, &known, NOW).is_ok());
        assert!(ask(&ledger, &quotas, &key, NOW).is_ok());
        let granted = (1..10_000).filter(|number| ask(&ledger, &quotas, &stranger(*number), NOW).is_ok()).count();
        let (strangers, all) = {
            let accounts = ledger.lock();
            (accounts.strangers, accounts.states.len())
        };
        assert_eq!((granted, strangers, all), (2, 3, 5));
        assert!(matches!(ask(&ledger, &quotas, &stranger(99), NOW), Err(NotGranted::CallersFull { .. })));
        for limited in [&known, &key] {
            assert!(matches!(ask(&ledger, &quotas, limited, NOW), Err(NotGranted::Reached(_))), "{}", limited.id);
        }
        // Who comes with a key has a place, and places are free again once what was used is over.
        assert!(ask(&ledger, &quotas, &Principal::of_key("other"), NOW).is_ok());
        let later = NOW + 29_000_000;
        ledger.sweep(NOW);
        ledger.sweep(later);
        assert!(matches!(ask(&ledger, &quotas, &stranger(99), later), Err(NotGranted::CallersFull { wait: 2 })));
        let later = NOW + 61_000_000;
        ledger.sweep(later);
        assert!(ask(&ledger, &quotas, &stranger(99), later).is_ok());
        assert_eq!(ledger.lock().strangers, 1);
    }

    #[test]
    fn the_time_until_a_place_is_free_is_the_true_one() {
        let quotas = quotas("[limits]\ncallers_max = 2\neach_caller.rpm_limit = 60\n");
        let ledger = Arc::new(Ledger::default());
        let wait = |who: usize, now: u64| match ask(&ledger, &quotas, &stranger(who), now) {
            Ok(()) => None,
            Err(NotGranted::CallersFull { wait }) => Some(wait),
            Err(other) => panic!("{other:?}"),
        };
        // Both have made calls, which are remembered until an hour after midnight.
        for number in 0..2 {
            let who = stranger(number);
            ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), NOW).unwrap().keep();
        }
        ledger.sweep(NOW);
        let (until, told) = (NOW + 13 * 3_600_000_000, wait(2, NOW).unwrap());
        assert_eq!(told, 13 * 3_600 + 1);
        assert!(ledger.is_full());
        let mut now = NOW;
        while now < until {
            assert!(wait(2, now).is_some());
            now += 30_000_000;
            ledger.sweep(now);
        }
        assert!(now <= NOW + told * 1_000_000 && wait(2, now).is_none());
        // Of one more it is not known yet when it goes: at the next look it is.
        assert_eq!(wait(3, now), None);
        assert_eq!(wait(4, now), Some(1));
        ledger.sweep(now);
        assert_eq!(wait(4, now), Some(2), "a request is worked off after a second");
    }

    #[test]
    fn a_clock_that_steps_forward_and_back_forgets_nothing() {
        let quotas = quotas("[keys.ci.limits]\ncalls_per_day_max = 1\n");
        let who = Principal::of_key("ci");
        let granted = |ledger: &Arc<Ledger>, now: u64| {
            ledger.sweep(now);
            let granted = ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), now);
            granted.map(|mut reserved| reserved.keep()).is_ok()
        };
        let day = 86_400_000_000;
        for far in [13 * 3_600_000_000, 3 * day, 400 * day] {
            let ledger = Arc::default();
            let all: Vec<bool> = (0..6).map(|round| granted(&ledger, NOW + far * (round % 2))).collect();
            assert_eq!(all, [true, true, false, false, false, false], "one of each day");
            // The same where nobody called on the other day, and what is over was looked for.
            let ledger = Arc::default();
            assert!(granted(&ledger, NOW));
            ledger.sweep(NOW + far);
            ledger.sweep(NOW + far + 5_000_000);
            assert!(!granted(&ledger, NOW + 10_000_000));
        }
        // Over midnight by some seconds: no step that could be seen.
        let (ledger, midnight) = (Arc::default(), NOW + day / 2);
        assert!(granted(&ledger, midnight - 5_000_000));
        ledger.sweep(midnight + 5_000_000);
        assert!(!granted(&ledger, midnight - 4_000_000));
        // A clock that stays is believed after an hour, and then what is over is forgotten.
        let mut now = NOW + 10 * day;
        ledger.sweep(now);
        assert_eq!(ledger.lock().states.len(), 1);
        for _ in 0..=120 {
            now += 30_000_000;
            ledger.sweep(now);
        }
        assert!(ledger.lock().states.is_empty());
    }

    #[test]
    fn nobody_waits_for_more_than_a_slice_of_the_accounts() {
        let quotas = quotas("[limits]\neach_caller.servers_max = 1000\n");
        let ledger = Arc::new(Ledger::default());
        let accounts = 3 * SLICE_MAX;
        for number in 0..accounts {
            let who = stranger(number);
            // A few have called many servers, which take as long to copy as accounts do.
            for server in 0..if number % 100 == 0 { 300 } else { 1 } {
                let used = Use { server: format!("s{server}").into(), ..call(0) };
                ledger.reserve(quotas.of_caller(&who), used, (&who, &quotas), NOW).unwrap().keep();
            }
        }
        let (mut next, mut seen, mut slices) = (Some(0), 0, 0);
        while let Some(first) = next {
            let (slice, end) = ledger.lock().slice(first);
            let weight: usize = slice.iter().map(|(_, state)| state.weight()).sum();
            assert!(weight <= SLICE_MAX + 301, "{weight}");
            (next, seen, slices) = (end, seen + slice.len(), slices + 1);
        }
        assert!(seen == accounts && slices > 6, "{seen} {slices}");
        ledger.sweep(NOW);
        let later = NOW + 30 * 3_600_000_000;
        ledger.lock().swept_micros = 0;
        ledger.sweep(later);
        let accounts = ledger.lock();
        assert_eq!((accounts.states.len(), accounts.strangers), (0, 0));
    }

    #[test]
    fn a_use_is_counted_everywhere_or_nowhere() {
        let quotas = quotas("[keys.ci.limits]\ncalls_per_day_max = 9\n[servers.a.limits]\ncalls_per_day_max = 1\n");
        let (ledger, who) = (Arc::new(Ledger::default()), Principal::of_key("ci"));
        let rules = || {
            let mut rules = quotas.of_caller(&who);
            rules.extend(quotas.of_call("a", None).cloned());
            rules
        };
        let used = || {
            let mut all = Vec::new();
            ledger.each(rules().iter(), |_, state| all.push(state.used(Limit::CallsPerDay, NOW)));
            all
        };
        ledger.reserve(rules(), call(0), (&who, &quotas), NOW).unwrap().keep();
        assert_eq!(used(), [1, 1]);
        let Err(NotGranted::Reached(reached)) = ledger.reserve(rules(), call(0), (&who, &quotas), NOW) else {
            panic!()
        };
        assert_eq!((reached.name(), used()), ("server_calls_per_day_max", vec![1, 1]));
        drop(ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), NOW).unwrap());
        assert_eq!(used(), [1, 1], "what is dropped is given back");
    }

    #[test]
    fn what_was_used_is_written_once_and_read_again() {
        let quotas = quotas("[keys.ci.limits]\nbudget_per_day_max = \"1\"\n");
        let (ledger, who) = (Arc::new(Ledger::default()), Principal::of_key("ci"));
        assert!(!ledger.take_changed(), "nothing was used");
        ledger.reserve(quotas.of_caller(&who), call(600_000), (&who, &quotas), NOW).unwrap().keep();
        assert!(ledger.take_changed() && !ledger.take_changed());
        ledger.not_written();
        assert!(ledger.take_changed());
        let mut written = Vec::new();
        ledger.write(&mut written).unwrap();
        let next = Arc::new(Ledger::default());
        next.read(&*written).unwrap();
        let mut again = Vec::new();
        next.write(&mut again).unwrap();
        assert_eq!(again, written);
        assert!(next.reserve(quotas.of_caller(&who), call(400_001), (&who, &quotas), NOW).is_err());
        assert!(next.reserve(quotas.of_caller(&who), call(400_000), (&who, &quotas), NOW).is_ok());
        assert!(matches!(next.read(&b"{\"version\":9,\"accounts\":{}}"[..]), Err(Unreadable::Version(9))));
        let nobody = next.read(&b"{\"version\":2,\"accounts\":{\"nobody\":{}}}"[..]);
        assert!(nobody.is_err());
        let mut empty = Vec::new();
        Ledger::default().write(&mut empty).unwrap();
        Ledger::default().read(&*empty).unwrap();
    }

    /// How long a request waits for its account while a million of them are written down and looked through.
    #[test]
    #[ignore = "a measurement"]
    fn measure_what_a_request_waits_while_a_million_accounts_are_written() {
        let quotas = quotas("[limits]\ncallers_max = 2000000\neach_caller.calls_per_day_max = 1000000\n");
        let ledger = Arc::new(Ledger::default());
        for number in 0..1_000_000 {
            let who = stranger(number);
            ledger.reserve(quotas.of_caller(&who), call(1), (&who, &quotas), NOW).unwrap().keep();
        }
        let (done, mut longest, mut written) = (std::sync::atomic::AtomicBool::new(false), Duration::ZERO, Vec::new());
        let (mut all, mut took) = (Vec::new(), Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let started = std::time::Instant::now();
                ledger.sweep(NOW);
                ledger.write(&mut written).unwrap();
                took = started.elapsed();
                done.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            let who = stranger(7);
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let started = std::time::Instant::now();
                ledger.reserve(quotas.of_caller(&who), call(1), (&who, &quotas), NOW).unwrap().keep();
                let waited = started.elapsed();
                longest = longest.max(waited);
                all.push(waited);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        all.sort();
        let p99 = all.get(all.len() * 99 / 100).copied().unwrap_or_default();
        println!("{} MB in {took:?}; {} requests waited {p99:?} at p99, {longest:?} at most", written.len() >> 20, all.len());
        assert!(p99 < Duration::from_millis(5));
    }
}
