//! Who has used how much?
//!
//! One account for each subject that a limit holds for. A use is counted in all of a request's accounts or in none, under one
//! lock. Whoever the configuration names always has a place; callers known by a token alone share the places of their issuer, and
//! when all are taken a further one is refused: a flood of them neither grows memory nor lifts anybody's limit, as an account is
//! only forgotten when it is as good as new, and it takes nothing from those of another issuer. Whoever looks at all accounts lets
//! go of the lock in between, so that no request waits for long.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
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
    /// Those of callers without a key, by their issuer.
    strangers: HashMap<Box<str>, Strangers>,
    /// Whether somebody was refused for want of a place since accounts were looked through.
    is_full: bool,
    /// Whether something that must survive a restart changed since it was last written down.
    is_changed: bool,
    /// When accounts were last looked through, by a clock that might have been set since.
    swept_micros: u64,
    /// From when on the clock is believed.
    believed_micros: u64,
}

/// The callers of one issuer.
#[derive(Debug, Default)]
struct Strangers {
    count: usize,
    /// When the first of their places will be free, as far as was seen.
    free_at_micros: u64,
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
            accounts.admit(rule.subject(), quotas.callers_of_issuer_max, now_micros)?;
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
        let (mut next, mut free) = (accounts.states.len(), HashMap::new());
        drop(accounts);
        // From the last to the first: what takes the place of one that is forgotten has been seen.
        while next > 0 {
            let mut accounts = self.lock();
            let end = next.saturating_sub(SLICE_MAX);
            while next > end {
                next -= 1;
                accounts.look_at(next, now_micros, &mut free);
            }
            if end == 0 {
                accounts.note_free(&free);
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
        let mut strangers = HashMap::<Box<str>, Strangers>::new();
        for issuer in accounts.states.keys().filter_map(issuer_of) {
            strangers.entry(issuer.into()).or_default().count += 1;
        }
        accounts.strangers = strangers;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// Makes a place for a caller without a key among those of its issuer, if it has none yet.
    fn admit(&mut self, subject: &Subject, callers_max: usize, now_micros: u64) -> Result<(), NotGranted> {
        if self.states.contains_key(subject) {
            return Ok(());
        }
        let strangers = self.strangers.entry(issuer_of(subject).unwrap_or_default().into()).or_default();
        if strangers.count >= callers_max {
            self.is_full = true;
            let free_at = strangers.free_at_micros.max(self.believed_micros);
            // A second later it has been seen.
            let wait = free_at.saturating_sub(now_micros).div_ceil(1_000_000) + 1;
            return Err(NotGranted::CallersFull { wait });
        }
        strangers.count += 1;
        // Nobody has seen yet when this place will be free.
        strangers.free_at_micros = 0;
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

    /// Forgets the account at this index if it is over. Notes in `free` when its issuer has a place by that.
    fn look_at(&mut self, index: usize, now_micros: u64, free: &mut HashMap<Box<str>, u64>) {
        let Some((subject, state)) = self.states.get_index(index) else { return };
        let is_over = state.is_over(now_micros);
        if let Some(issuer) = issuer_of(subject) {
            let free_at = if is_over { now_micros } else { state.over_at(now_micros) };
            match free.get_mut(issuer) {
                Some(first) => *first = free_at.min(*first),
                None => drop(free.insert(issuer.into(), free_at)),
            }
            if let Some(strangers) = self.strangers.get_mut(issuer).filter(|_| is_over) {
                strangers.count -= 1;
            }
        }
        if is_over {
            self.states.swap_remove_index(index);
        }
    }

    /// Takes over when each issuer has a place, and forgets issuers of whom nobody is left.
    fn note_free(&mut self, free: &HashMap<Box<str>, u64>) {
        self.strangers.retain(|issuer, strangers| {
            strangers.free_at_micros = free.get(issuer).copied().unwrap_or(strangers.free_at_micros);
            strangers.count > 0
        });
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

/// Who vouches for the caller without a key whose account it is, by the form of principals' ids: `oauth:ISSUER:SUBJECT`, where no
/// issuer's name has a `:`.
fn issuer_of(subject: &Subject) -> Option<&str> {
    let is_strangers =
        subject.level == Level::Caller && !subject.name.starts_with("key:") && &*subject.name != "public";
    is_strangers.then(|| subject.name.split(':').nth(1).unwrap_or_default())
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
