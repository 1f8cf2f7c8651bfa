//! Does a call's argument look as it must?
//!
//! What is judged is the value the tool will see: a string with its escapes resolved, a number or a boolean as its JSON text,
//! digits as written. Anything else is refused: null, an object or an array, an argument that is not there, a path that
//! leads nowhere. `optional` lets only the argument pass whose key is absent; an empty array, or a step into something
//! that is no object or array, is not that. Of several matched values each must hold.

use std::fmt;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::names::is_variant;
use crate::policy::check::Check;
use crate::policy::path::Path;
use crate::policy::path::Step;

/// What one argument of a tool must look like.
pub(super) struct Constraint {
    /// Where the argument is.
    pub(super) path: Path,
    /// What must hold of it, each with the words an operator reads when it does not.
    pub(super) checks: Vec<(Check, Box<str>)>,
    /// Elements of it, an array.
    pub(super) items_max: Option<usize>,
    /// Whether it must not be there.
    pub(super) forbidden: bool,
    /// What the constraint stands for, for people.
    pub(super) description: Box<str>,
    /// What a client is always told.
    pub(super) message: Option<Box<str>>,
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
    /// The pattern is not found in it, or does not take all of it.
    NotFound,
    /// A pattern is found in it that must not be.
    Found,
    /// It is none of the possible texts.
    NotListed,
    /// It is no number, or too small or too large a one.
    OutOfRange,
    /// It has too many characters.
    TooLong,
    /// It is a path that leads elsewhere, or no plain path.
    OutsidePath,
    /// It is a URL of another host, or no plain URL.
    OtherHost,
    /// It is there, and must not be.
    Forbidden,
    /// It has too many elements, or is no array.
    TooMany,
}

/// The constraint that denies a call, and how its argument fails it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentDenial {
    /// The tool's name.
    pub tool: String,
    /// The argument's path, as configured.
    pub arg: String,
    /// What was expected, as configured; empty where it is clear from the mismatch.
    pub expected: String,
    /// What the constraint stands for, as configured; may be empty.
    pub description: String,
    /// What the client is told in any case, as configured.
    pub message: Option<String>,
    /// How the argument fails it.
    pub mismatch: Mismatch,
}

impl fmt::Display for ArgumentDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, arg, expected, description, mismatch, .. } = self;
        match mismatch {
            Mismatch::Missing => write!(f, "argument `{arg}` of tool `{tool}` is missing")?,
            Mismatch::Null => write!(f, "argument `{arg}` of tool `{tool}` is null")?,
            Mismatch::NotScalar => write!(f, "argument `{arg}` of tool `{tool}` is an object or an array")?,
            Mismatch::Unreachable => write!(f, "nothing in the arguments of tool `{tool}` stands at `{arg}`")?,
            Mismatch::Ambiguous => write!(f, "argument `{arg}` of tool `{tool}` has a second spelling")?,
            Mismatch::NotFound => write!(f, "argument `{arg}` of tool `{tool}` does not match {expected}")?,
            Mismatch::Found => write!(f, "argument `{arg}` of tool `{tool}` has what it must not: {expected}")?,
            Mismatch::NotListed => write!(f, "argument `{arg}` of tool `{tool}` is not {expected}")?,
            Mismatch::OutOfRange => write!(f, "argument `{arg}` of tool `{tool}` is not a number {expected}")?,
            Mismatch::TooLong => write!(f, "argument `{arg}` of tool `{tool}` has more than {expected}")?,
            Mismatch::OutsidePath => write!(f, "argument `{arg}` of tool `{tool}` is not a path within {expected}")?,
            Mismatch::OtherHost => write!(f, "argument `{arg}` of tool `{tool}` is not a URL of {expected}")?,
            Mismatch::Forbidden => write!(f, "argument `{arg}` of tool `{tool}` must not be there")?,
            Mismatch::TooMany => write!(f, "argument `{arg}` of tool `{tool}` is no array, or has too many elements")?,
        }
        if description.is_empty() { Ok(()) } else { write!(f, ": {description}") }
    }
}

/// How an argument fails a constraint, and what was expected, in an operator's words.
pub(super) type Failure<'c> = (Mismatch, &'c str);

impl Constraint {
    /// Whether a call with these arguments holds; no arguments are an empty object.
    pub(super) fn judge(&self, arguments: Option<Value<'_>>) -> Result<(), Failure<'_>> {
        match arguments {
            Some(arguments) => self.walk(arguments, self.path.steps()),
            None => self.absent(),
        }
    }

    /// Judges what `steps` lead to from `value`. Recursion is bounded by the steps of a path.
    fn walk(&self, value: Value<'_>, steps: &[Step]) -> Result<(), Failure<'_>> {
        match (steps.split_first(), value.kind()) {
            (None, _) => self.judge_value(value),
            (Some((Step::Key(key), rest)), Kind::Object) => {
                match member(value, key).map_err(|mismatch| (mismatch, ""))? {
                    Some(member) => self.walk(member, rest),
                    None => self.absent(),
                }
            }
            (Some((Step::Each, rest)), Kind::Array) if value.count() > 0 => {
                value.items().try_for_each(|item| self.walk(item, rest))
            }
            // What leads nowhere leads to nothing that is forbidden.
            (Some(_), _) if self.forbidden => Ok(()),
            (Some(_), Kind::Null) => Err((Mismatch::Null, "")),
            (Some(_), _) => Err((Mismatch::Unreachable, "")),
        }
    }

    fn absent(&self) -> Result<(), Failure<'_>> {
        if self.optional || self.forbidden { Ok(()) } else { Err((Mismatch::Missing, "")) }
    }

    fn judge_value(&self, value: Value<'_>) -> Result<(), Failure<'_>> {
        if self.forbidden {
            return Err((Mismatch::Forbidden, ""));
        }
        if let Some(most) = self.items_max
            && (value.kind() != Kind::Array || value.count() > most)
        {
            return Err((Mismatch::TooMany, ""));
        }
        if self.checks.is_empty() {
            return Ok(());
        }
        let (text, is_number) = match value.kind() {
            Kind::String => (value.text(), false),
            Kind::Number => (Some(value.raw_text()), true),
            Kind::True | Kind::False => (Some(value.raw_text()), false),
            Kind::Null => return Err((Mismatch::Null, "")),
            Kind::Object | Kind::Array => return Err((Mismatch::NotScalar, "")),
        };
        // INVARIANT: a string has a text. Without one nothing is known of it.
        let text = text.ok_or((Mismatch::NotScalar, ""))?;
        self.checks
            .iter()
            .try_for_each(|(check, expected)| check.judge(text, is_number).map_err(|mismatch| (mismatch, &**expected)))
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
