//! Who has used how much?
//!
//! One account for each subject that a limit holds for. A use is counted in all of a request's accounts or in none, under one
//! lock. Whoever the configuration names always has a place; callers known by a token alone share a number of places, and when
//! all are taken a further one is refused: a flood of them neither grows memory nor lifts anybody's limit, as an account is only
//! forgotten when it is as good as new.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

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
const VERSION: u64 = 1;
/// How often accounts are looked through for those that can be forgotten.
const SWEEP_MICROS: u64 = 1_000_000;

/// Every account.
#[derive(Default)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    states: HashMap<Subject, State>,
    /// How many of them are callers without a key.
    strangers: usize,
    /// Whether something that must survive a restart changed since it was last written down.
    is_changed: bool,
    swept_micros: u64,
}

/// Why a use is not granted.
#[derive(Debug)]
pub enum NotGranted {
    /// A limit is reached.
    Reached(Box<Reached>),
    /// There is no place for one more caller.
    CallersFull,
}

/// Accounts that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not of the form that is written.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// Of a form that is not known.
    #[error("it has version {0}, and this gateway knows version {VERSION}")]
    Version(u64),
    /// A name that is no subject's.
    #[error("`{0}` is nobody whose use is counted")]
    Subject(String),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Written {
    version: u64,
    accounts: BTreeMap<String, State>,
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
        self.lock().sweep(now_micros);
    }

    /// How much of each limit of these rules is used: the rule, and its subject's account.
    pub fn each<'r>(&self, rules: impl Iterator<Item = &'r Arc<Rule>>, mut with: impl FnMut(&'r Rule, &State)) {
        let (accounts, new) = (self.lock(), State::default());
        for rule in rules {
            with(rule, accounts.states.get(rule.subject()).unwrap_or(&new));
        }
    }

    /// What must survive a restart, if it changed since it was last asked for.
    pub fn write(&self, now_micros: u64) -> Option<Vec<u8>> {
        let mut accounts = self.lock();
        if !std::mem::take(&mut accounts.is_changed) {
            return None;
        }
        let lasting = accounts.states.iter().filter(|(_, state)| state.has_lasting(now_micros));
        let lasting = lasting.map(|(subject, state)| (subject.to_string(), state.clone())).collect();
        drop(accounts);
        serde_json::to_vec(&Written { version: VERSION, accounts: lasting }).ok()
    }

    /// What was to be written could not be: it is still to be.
    pub fn not_written(&self) {
        self.lock().is_changed = true;
    }

    /// Takes over what was written.
    ///
    /// # Errors
    /// Then nothing is taken over.
    pub fn read(&self, text: &str) -> Result<(), Unreadable> {
        let written: Written = serde_json::from_str(text)?;
        if written.version != VERSION {
            return Err(Unreadable::Version(written.version));
        }
        let mut states = HashMap::with_capacity(written.accounts.len());
        for (name, state) in written.accounts {
            let subject = Subject::read(&name).ok_or(Unreadable::Subject(name))?;
            states.insert(subject, state);
        }
        let mut accounts = self.lock();
        accounts.strangers = states.keys().filter(|subject| is_strangers(subject)).count();
        accounts.states = states;
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
        if self.strangers >= callers_max && now_micros.abs_diff(self.swept_micros) >= SWEEP_MICROS {
            self.sweep(now_micros);
        }
        if self.strangers >= callers_max {
            return Err(NotGranted::CallersFull);
        }
        self.strangers += 1;
        self.states.insert(subject.clone(), State::default());
        Ok(())
    }

    fn sweep(&mut self, now_micros: u64) {
        self.swept_micros = now_micros;
        self.states.retain(|_, state| !state.is_over(now_micros));
        self.strangers = self.states.keys().filter(|subject| is_strangers(subject)).count();
    }
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
        assert!(matches!(ask(&ledger, &quotas, &stranger(99), NOW), Err(NotGranted::CallersFull)));
        for limited in [&known, &key] {
            assert!(matches!(ask(&ledger, &quotas, limited, NOW), Err(NotGranted::Reached(_))), "{}", limited.id);
        }
        // Who comes with a key has a place, and places are free again once what was used is over.
        assert!(ask(&ledger, &quotas, &Principal::of_key("other"), NOW).is_ok());
        let later = NOW + 61_000_000;
        assert!(ask(&ledger, &quotas, &stranger(99), later).is_ok());
        assert_eq!(ledger.lock().strangers, 1);
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
        assert!(ledger.write(NOW).is_none(), "nothing was used");
        ledger.reserve(quotas.of_caller(&who), call(600_000), (&who, &quotas), NOW).unwrap().keep();
        let written = ledger.write(NOW).unwrap();
        assert!(ledger.write(NOW).is_none(), "nothing has changed");
        ledger.not_written();
        assert_eq!(ledger.write(NOW), Some(written.clone()));
        let next = Arc::new(Ledger::default());
        next.read(std::str::from_utf8(&written).unwrap()).unwrap();
        assert!(next.reserve(quotas.of_caller(&who), call(400_001), (&who, &quotas), NOW).is_err());
        assert!(next.reserve(quotas.of_caller(&who), call(400_000), (&who, &quotas), NOW).is_ok());
        assert!(matches!(next.read("{\"version\":9,\"accounts\":{}}"), Err(Unreadable::Version(9))));
    }
}
