//! Does a call's argument look as it must?
//!
//! What a pattern is searched in is the value the tool will see: a string with its escapes resolved, a number or a
//! boolean as its JSON text, digits as written. Anything else is refused: null, an object or an array, an argument
//! that is not there, a path that leads nowhere. `optional` lets only the argument pass whose key is absent; an empty
//! array, or a step into something that is no object or array, is not that. Of several matched values each must hold.

use std::sync::Arc;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::names::is_variant;
use crate::policy::path::Path;
use crate::policy::path::Step;
use crate::policy::pattern::Pattern;

/// What one argument of a tool must look like.
pub(super) struct Constraint {
    /// Where the argument is.
    pub(super) path: Path,
    /// What must be found in it.
    pub(super) pattern: Arc<Pattern>,
    /// What the pattern stands for, for people.
    pub(super) description: Box<str>,
    /// Whether an absent argument passes.
    pub(super) optional: bool,
}

/// How an argument fails a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is not there.
    Missing,
    /// It, or something on the way to it, is null.
    Null,
    /// It is an object or an array.
    NotScalar,
    /// The path leads through something that is no object or array, or to the elements of an empty array.
    Unreachable,
    /// Its key, or one on the way to it, stands there in a second spelling too, which some servers take for the same.
    Ambiguous,
    /// The pattern is not found in it.
    NotFound,
}

impl Constraint {
    /// Whether a call with these arguments holds; no arguments are an empty object.
    pub(super) fn judge(&self, arguments: Option<Value<'_>>) -> Result<(), Mismatch> {
        match arguments {
            Some(arguments) => self.walk(arguments, self.path.steps()),
            None => self.absent(),
        }
    }

    /// Judges what `steps` lead to from `value`. Recursion is bounded by the steps of a path.
    fn walk(&self, value: Value<'_>, steps: &[Step]) -> Result<(), Mismatch> {
        match (steps.split_first(), value.kind()) {
            (None, _) => self.judge_scalar(value),
            (Some((Step::Key(key), rest)), Kind::Object) => match member(value, key)? {
                Some(member) => self.walk(member, rest),
                None => self.absent(),
            },
            (Some((Step::Each, rest)), Kind::Array) if value.count() > 0 => {
                value.items().try_for_each(|item| self.walk(item, rest))
            }
            (Some(_), Kind::Null) => Err(Mismatch::Null),
            (Some(_), _) => Err(Mismatch::Unreachable),
        }
    }

    fn absent(&self) -> Result<(), Mismatch> {
        if self.optional { Ok(()) } else { Err(Mismatch::Missing) }
    }

    fn judge_scalar(&self, value: Value<'_>) -> Result<(), Mismatch> {
        let text = match value.kind() {
            Kind::String => value.text(),
            Kind::Number | Kind::True | Kind::False => Some(value.raw_text()),
            Kind::Null => return Err(Mismatch::Null),
            Kind::Object | Kind::Array => return Err(Mismatch::NotScalar),
        };
        if text.is_some_and(|text| self.pattern.is_in(text)) { Ok(()) } else { Err(Mismatch::NotFound) }
    }
}

/// The value under `key`. A second spelling of the key is refused even where the key itself is absent: a server that
/// ignores case would take it, and it was not judged.
fn member<'d>(object: Value<'d>, key: &str) -> Result<Option<Value<'d>>, Mismatch> {
    let mut found = None;
    for (name, value) in object.entries() {
        if name == key {
            found = Some(value);
        } else if is_variant(name, key) {
            return Err(Mismatch::Ambiguous);
        }
    }
    Ok(found)
}
