//! What do constraints, as they are written, ask of arguments?
//!
//! Everything that is wrong with one is reported at its key.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::model;
use crate::config::model::Number;
use crate::config::nearest::nearest;
use crate::config::problem::At;
use crate::policy::check::Check;
use crate::policy::check::Directory;
use crate::policy::check::Host;
use crate::policy::compile::CONSTRAINTS_MAX;
use crate::policy::compile::Compiler;
use crate::policy::compile::limit;
use crate::policy::constraint::Constraint;
use crate::policy::decimal::Decimal;
use crate::policy::hash::NameMap;
use crate::policy::path::Path;
use crate::policy::pattern::Pattern;
use crate::policy::rules::Placed;

/// Entries of `one_of`, `path_within` and `url_hosts`.
pub(super) const CHOICES_MAX: usize = 1_000;

impl Compiler<'_> {
    /// The named sets, which must be known before those who use them.
    pub(super) fn constraint_sets(&mut self, sets: &BTreeMap<String, Vec<model::Constraint>>) {
        let at = At::root().key("constraint_sets");
        for (name, list) in sets {
            let at = at.key(name);
            for (index, _) in list.iter().enumerate().filter(|(_, constraint)| constraint.r#use.is_some()) {
                let help = "write the constraints of the other set here as well";
                self.problems.error(&at.index(index).key("use"), "a set cannot use another one", help);
            }
            let plain = list.iter().filter(|constraint| constraint.r#use.is_none()).cloned().collect::<Vec<_>>();
            let compiled = self.constraints(&plain, &at);
            self.constraint_sets.insert(name.clone(), compiled);
        }
    }

    /// A list of constraints, those of the sets it uses included.
    pub(super) fn constraints(&mut self, list: &[model::Constraint], at: &At) -> Vec<Placed> {
        if list.is_empty() {
            self.problems.warning(at, "no constraint is listed", "list one, or remove the key");
        }
        let mut placed = Vec::new();
        for (index, constraint) in list.iter().enumerate().take(CONSTRAINTS_MAX + 1) {
            let at = at.index(index);
            match &constraint.r#use {
                Some(name) => self.used(name, constraint, &at, &mut placed),
                None => {
                    let compiled = self.constraint(constraint, &at).map(Arc::new);
                    placed.extend(compiled.map(|constraint| Placed { constraint, at }));
                }
            }
        }
        limit(at, list.len().max(placed.len()), CONSTRAINTS_MAX, self.problems);
        placed.truncate(CONSTRAINTS_MAX);
        placed
    }

    fn used(&mut self, name: &str, constraint: &model::Constraint, at: &At, placed: &mut Vec<Placed>) {
        let alone = model::Constraint { r#use: constraint.r#use.clone(), ..model::Constraint::default() };
        if *constraint != alone {
            self.problems.error(at, "`use` stands beside other keys", "write them as a constraint of their own");
        }
        let Some(set) = self.constraint_sets.get(name) else {
            let help = nearest(name, self.constraint_sets.keys()).map_or_else(
                || format!("add `[[constraint_sets.{name}]]`"),
                |known| format!("did you mean `{known}`?"),
            );
            self.problems.error(&at.key("use"), format!("there is no set of constraints `{name}`"), help);
            return;
        };
        placed.extend(
            set.iter().map(|placed| Placed { constraint: Arc::clone(&placed.constraint), at: placed.at.clone() }),
        );
    }

    /// One constraint; all of it that is wrong is reported.
    fn constraint(&mut self, constraint: &model::Constraint, at: &At) -> Option<Constraint> {
        let path = Path::parse(&constraint.arg)
            .map_err(|error| self.problems.error(&at.key("arg"), error.message, error.help));
        let checks = self.checks(constraint, at);
        self.check_sense(constraint, at);
        Some(Constraint {
            path: path.ok()?,
            checks: checks?,
            items_max: constraint.items_max,
            forbidden: constraint.forbidden,
            description: constraint.description.as_str().into(),
            message: constraint.message.as_deref().map(Into::into),
            optional: constraint.optional,
        })
    }

    /// What is contradictory, or asks nothing.
    fn check_sense(&mut self, constraint: &model::Constraint, at: &At) {
        let judges_text = constraint.pattern.is_some()
            || constraint.full_match.is_some()
            || constraint.not_pattern.is_some()
            || constraint.one_of.is_some()
            || constraint.min.is_some()
            || constraint.max.is_some()
            || constraint.max_length.is_some()
            || constraint.path_within.is_some()
            || constraint.url_hosts.is_some();
        if constraint.forbidden && (judges_text || constraint.required || constraint.items_max.is_some()) {
            let help = "remove `forbidden`, or all other keys";
            self.problems.error(&at.key("forbidden"), "what must not be there cannot be judged", help);
        } else if constraint.required && constraint.optional {
            let help = "remove one of the two";
            self.problems.error(&at.key("required"), "the argument is both required and optional", help);
        } else if constraint.items_max.is_some() && judges_text {
            let help = "judge the elements in a constraint of their own: `arg = \"list[*]\"`";
            self.problems.error(&at.key("items_max"), "an array has no text to judge", help);
        } else if !judges_text && !constraint.forbidden && !constraint.required && constraint.items_max.is_none() {
            let help = "write `pattern`, `one_of`, `max_length` or the like, or `required = true`";
            self.problems.error(at, "the constraint asks nothing", help);
        }
    }

    /// The checks of one constraint, each with the words that say what was expected.
    fn checks(&mut self, constraint: &model::Constraint, at: &At) -> Option<Vec<(Check, Box<str>)>> {
        let mut checks = Vec::new();
        let mut is_sound = true;
        let mut add = |made: Option<Option<(Check, String)>>| match made {
            Some(Some((check, expected))) => checks.push((check, expected.into())),
            Some(None) => is_sound = false,
            None => {}
        };
        add(constraint.pattern.as_deref().map(|text| {
            let pattern = self.pattern(text, &at.key("pattern"))?;
            Some((Check::Pattern(pattern), format!("`{text}`")))
        }));
        add(constraint.full_match.as_deref().map(|text| {
            let at = at.key("full_match");
            // Alone first: `a)|(b` must not escape the anchors.
            self.pattern(text, &at)?;
            let pattern = self.pattern(&format!(r"\A(?:{text})\z"), &at)?;
            Some((Check::FullMatch(pattern), format!("`{text}` as a whole")))
        }));
        add(constraint.not_pattern.as_deref().map(|text| {
            let pattern = self.pattern(text, &at.key("not_pattern"))?;
            Some((Check::NotPattern(pattern), format!("`{text}`")))
        }));
        add(constraint.one_of.as_deref().map(|texts| {
            limit(&at.key("one_of"), texts.len(), CHOICES_MAX, self.problems);
            let known: NameMap<Box<str>, ()> = texts.iter().map(|text| (text.as_str().into(), ())).collect();
            Some((Check::OneOf(known), format!("one of {}", listed(texts))))
        }));
        add(constraint.min.as_ref().map(|number| {
            Some((Check::Min(self.decimal(number, &at.key("min"))?), format!("of at least {}", number.0)))
        }));
        add(constraint.max.as_ref().map(|number| {
            Some((Check::Max(self.decimal(number, &at.key("max"))?), format!("of at most {}", number.0)))
        }));
        add(constraint.max_length.map(|most| Some((Check::MaxLength(most), format!("{most} characters")))));
        add(constraint.path_within.as_deref().map(|texts| {
            let at = at.key("path_within");
            let help = "write a plain path that does not lead out of itself: `/srv/data`, `reports`, `.`";
            let directories = self.each(texts, &at, Directory::parse, "is no directory to stay within", help)?;
            Some((Check::PathWithin(directories), listed(texts)))
        }));
        add(constraint.url_hosts.as_deref().map(|texts| {
            let at = at.key("url_hosts");
            let help = "write a host without scheme and port: `api.example.com`, `*.example.com`, `[2001:db8::1]`";
            let hosts = self.each(texts, &at, Host::parse, "is no host", help)?;
            Some((Check::UrlHosts(hosts), listed(texts)))
        }));
        is_sound.then_some(checks)
    }

    /// Every text of a list read; `None` if any is not what it should be, which is reported.
    fn each<T>(
        &mut self,
        texts: &[String],
        at: &At,
        read: impl Fn(&str) -> Option<T>,
        wrong: &str,
        help: &str,
    ) -> Option<Vec<T>> {
        limit(at, texts.len(), CHOICES_MAX, self.problems);
        let mut made = Vec::new();
        for (index, text) in texts.iter().enumerate().take(CHOICES_MAX) {
            match read(text) {
                Some(one) => made.push(one),
                None => self.problems.error(&at.index(index), format!("`{text}` {wrong}"), help),
            }
        }
        (made.len() == texts.len()).then_some(made)
    }

    fn pattern(&mut self, text: &str, at: &At) -> Option<Arc<Pattern>> {
        let compiled = self.patterns.compile(text, self.previous.map(|policy| &policy.patterns));
        compiled.map_err(|error| self.problems.error(at, error.message, error.help)).ok()
    }

    fn decimal(&mut self, number: &Number, at: &At) -> Option<Decimal> {
        let read = Decimal::parse(&number.0);
        if read.is_none() {
            let help = "write it as JSON does: `10`, `-0.5`, `\"10.000000000000000001\"`";
            self.problems.error(at, format!("`{}` is not a number", number.0), help);
        }
        read
    }
}

/// Texts as they are shown in one line.
fn listed(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().take(8).map(|text| format!("`{text}`")).collect();
    let more = if texts.len() > quoted.len() { ", .." } else { "" };
    format!("{}{more}", quoted.join(", "))
}
