//! Does what was written have the form of the model?
//!
//! The model's JSON schema is turned into [`Shape`]s once; walking the files against them finds every unknown key,
//! wrong type, unknown word and missing key, each with its place. serde would stop at the first.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Map;
use serde_json::Value;

use crate::config::interpolate;
use crate::config::money;
use crate::config::money::Money;
use crate::config::nearest::nearest;
use crate::config::number;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::schema::schema;
use crate::config::trail::Trail;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Most known keys a message lists.
const LISTED_MAX: usize = 12;

/// The form of a value.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A table: its known keys, those it must have, and the form of what stands under any other key.
    Table { keys: BTreeMap<String, Shape>, required: Vec<String>, rest: Option<Box<Shape>> },
    /// A list of values of one form.
    List(Box<Shape>),
    /// One of these words.
    Word(Vec<String>),
    /// A text.
    Text,
    /// An amount of money: a number or a text.
    Money,
    /// A whole number, not below this one.
    Integer(i64),
    /// A number of any kind, or its text.
    Number,
    /// `true` or `false`.
    Truth,
    /// A form this module does not know; a test sees to it that the model has none.
    Unknown,
}

impl Shape {
    /// The form of a whole configuration.
    pub(crate) fn of_configuration() -> &'static Shape {
        static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
            let schema = schema();
            Shape::read(&schema, &schema)
        });
        &SHAPE
    }

    fn read(schema: &Value, root: &Value) -> Shape {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return root.pointer(target.trim_start_matches('#')).map_or(Shape::Unknown, |to| Self::read(to, root));
        }
        if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return Self::read(only, root);
        }
        if let Some(words) = schema.get("oneOf").and_then(Value::as_array) {
            let words = words.iter().map(|word| word.get("const").and_then(Value::as_str).map(String::from));
            return words.collect::<Option<_>>().map_or(Shape::Unknown, Shape::Word);
        }
        if schema.get("format").and_then(Value::as_str) == Some(money::FORMAT) {
            return Shape::Money;
        }
        let types = schema.get("type").and_then(Value::as_array);
        if types.is_some_and(|types| types.iter().any(|kind| kind == "number")) {
            return Shape::Number;
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => Self::table(schema, root),
            Some("array") => {
                schema.get("items").map_or(Shape::Unknown, |items| Shape::List(Box::new(Self::read(items, root))))
            }
            Some("string") => Shape::Text,
            Some("integer") => Shape::Integer(schema.get("minimum").and_then(Value::as_i64).unwrap_or(i64::MIN)),
            Some("boolean") => Shape::Truth,
            _ => Shape::Unknown,
        }
    }

    fn table(schema: &Value, root: &Value) -> Shape {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        Shape::Table {
            keys: properties.iter().map(|(key, schema)| (key.clone(), Self::read(schema, root))).collect(),
            required: required.filter_map(|key| key.as_str().map(String::from)).collect(),
            rest: match schema.get("additionalProperties") {
                Some(rest @ Value::Object(_)) => Some(Box::new(Self::read(rest, root))),
                _ => None,
            },
        }
    }

    /// What is expected, for messages.
    fn noun(&self) -> &'static str {
        match self {
            Shape::Table { .. } => "a table",
            Shape::List(_) => "a list",
            Shape::Word(_) => "one of its words",
            Shape::Text => "a text",
            Shape::Money => "an amount of money",
            Shape::Integer(_) => "an integer",
            Shape::Number => "a number, or its text",
            Shape::Truth => "`true` or `false`",
            Shape::Unknown => "something else",
        }
    }
}

/// Reports whatever in `node` has not the form `shape`, and marks it bad. Unknown keys become private: what stands
/// under one may be a secret.
pub(crate) fn check(node: &mut Node, shape: &Shape, at: &Trail<'_>, problems: &mut Problems) {
    if node.bad || misplaced_reference(node, shape) {
        return;
    }
    match (shape, &mut node.kind) {
        (Shape::Table { keys, required, rest }, Kind::Table(entries)) => {
            let mut meant = Vec::new();
            for (key, entry) in entries.iter_mut() {
                match keys.get(key).or(rest.as_deref()) {
                    Some(shape) => check(entry, shape, &at.key(key), problems),
                    None if entry.bad => {}
                    None => meant.extend(unknown_key(key, entry, keys, &at.at(), problems)),
                }
            }
            let is_missing = |key: &&str| !entries.contains_key(*key) && !meant.contains(key);
            let missing: Vec<&str> = required.iter().map(String::as_str).filter(is_missing).collect();
            if !missing.is_empty() {
                missing_keys(node, &missing, &at.at(), problems);
            }
        }
        (Shape::List(shape), Kind::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                check(item, shape, &at.index(index), problems);
            }
        }
        (Shape::Word(words), Kind::Text(text)) if !words.contains(text) => {
            unknown_word(node, words, &at.at(), problems)
        }
        (Shape::Integer(min), Kind::Integer(number)) if *number < *min => {
            let at = &at.at();
            let (message, help) = match min {
                0 => (format!("`{at}` must not be negative"), String::new()),
                _ => (format!("`{at}` is too small"), format!("write {min} or more")),
            };
            problems.add(Problem::error(at, message, help));
            node.bad = true;
        }
        (Shape::Number, Kind::Integer(_) | Kind::Float(..)) => {
            node.kind = number::written(&node.kind).map_or(Kind::Other("a number"), Kind::Text);
        }
        (Shape::Money, Kind::Text(_) | Kind::Integer(_) | Kind::Float(..)) => amount(node, &at.at(), problems),
        (Shape::Word(_) | Shape::Text, Kind::Text(_))
        | (Shape::Integer(_), Kind::Integer(_))
        | (Shape::Number, Kind::Text(_))
        | (Shape::Truth, Kind::Boolean(_))
        | (Shape::Unknown, _) => {}
        _ => wrong_type(node, shape, &at.at(), problems),
    }
}

/// Whether a reference stands where no text belongs; `interpolate` says so better than a wrong type would.
fn misplaced_reference(node: &Node, shape: &Shape) -> bool {
    match &node.kind {
        Kind::Text(text) => !matches!(shape, Shape::Text) && interpolate::mentions_reference(text),
        _ => false,
    }
}

/// Makes a text of an amount, digit by digit as it is written: a binary fraction would be another amount.
fn amount(node: &mut Node, at: &At, problems: &mut Problems) {
    let Some(text) = number::written(&node.kind) else { return };
    if Money::parse(&text).is_some() {
        node.kind = Kind::Text(text);
        return;
    }
    let help = "write a decimal number with at most six digits after the point, up to 1000000000";
    problems.add(Problem::error(at, format!("`{text}` is not an amount of money"), help));
    node.bad = true;
}

/// Returns the known key that was probably meant: it is as good as there.
fn unknown_key<'k>(
    key: &str,
    entry: &mut Node,
    keys: &'k BTreeMap<String, Shape>,
    at: &At,
    problems: &mut Problems,
) -> Option<&'k str> {
    entry.bad = true;
    entry.private = true;
    let place = if at.steps().is_empty() { String::new() } else { format!(" in `{at}`") };
    let meant = nearest(key, keys.keys());
    let help = match meant {
        Some(known) => format!("did you mean `{known}`?"),
        None if keys.len() <= LISTED_MAX => format!("known keys: {}", quoted(keys.keys())),
        None => "`conf/reference.toml` has every key".to_owned(),
    };
    problems.add(Problem::error(&at.key(key), format!("unknown key `{key}`{place}"), help).on(entry.name_spot()));
    meant
}

fn missing_keys(node: &mut Node, missing: &[&str], at: &At, problems: &mut Problems) {
    for key in missing {
        problems.add(Problem::error(&at.key(key), format!("`{key}` is missing"), "").on(node.spot()));
        node.bad = true;
    }
}

fn unknown_word(node: &mut Node, words: &[String], at: &At, problems: &mut Problems) {
    let Kind::Text(text) = &node.kind else { return };
    let allowed = format!("allowed: {}", quoted(words.iter()));
    let help = match nearest(text, words.iter()) {
        Some(word) => format!("did you mean `{word}`? {allowed}"),
        None => allowed,
    };
    problems.add(Problem::error(at, format!("`{text}` is not a value of `{at}`"), help));
    node.bad = true;
}

fn wrong_type(node: &mut Node, shape: &Shape, at: &At, problems: &mut Problems) {
    let help = match (shape, &node.kind) {
        (Shape::Integer(_), Kind::Text(_)) | (Shape::Truth, Kind::Text(_)) => "write it without quotes".to_owned(),
        (Shape::Integer(_), Kind::Float(..)) => "write it without a fraction".to_owned(),
        (Shape::Text, Kind::Integer(_) | Kind::Float(..) | Kind::Boolean(_)) => "write it in quotes".to_owned(),
        (Shape::List(_), Kind::Text(_)) => "write it in brackets: `[\"..\"]`".to_owned(),
        (Shape::Word(words), _) => format!("allowed: {}", quoted(words.iter())),
        (Shape::Table { .. }, Kind::Array(_)) => "write single brackets around a table's name".to_owned(),
        _ => String::new(),
    };
    let message = format!("`{at}` must be {}, not {}", shape.noun(), node.noun());
    problems.add(Problem::error(at, message, help));
    node.bad = true;
    // What was written in place of a whole table of settings may be one of its secrets.
    node.private = matches!(shape, Shape::Table { .. });
}

fn quoted<'w>(words: impl Iterator<Item = &'w String>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of forms this module does not know.
    fn unknown(shape: &Shape, at: &At) -> Vec<String> {
        match shape {
            Shape::Unknown => vec![at.to_string()],
            Shape::List(items) => unknown(items, &at.key("[]")),
            Shape::Table { keys, rest, .. } => {
                let rest = rest.iter().flat_map(|rest| unknown(rest, &at.key("*")));
                keys.iter().flat_map(|(key, shape)| unknown(shape, &at.key(key))).chain(rest).collect()
            }
            Shape::Word(_) | Shape::Text | Shape::Money | Shape::Integer(_) | Shape::Number | Shape::Truth => {
                Vec::new()
            }
        }
    }

    #[test]
    fn every_form_in_the_model_is_known() {
        let shape = Shape::of_configuration();
        assert!(matches!(shape, Shape::Table { keys, rest: None, .. } if keys.len() > 10));
        assert_eq!(unknown(shape, &At::root()), Vec::<String>::new());
    }

    #[test]
    fn every_integer_of_the_model_has_a_least_value() {
        fn least(shape: &Shape) -> Vec<i64> {
            match shape {
                Shape::Integer(min) => vec![*min],
                Shape::List(items) => least(items),
                Shape::Table { keys, rest, .. } => keys.values().chain(rest.as_deref()).flat_map(least).collect(),
                _ => Vec::new(),
            }
        }
        let least = least(Shape::of_configuration());
        assert!(least.len() > 10 && least.iter().all(|min| *min == 0));
    }
}
