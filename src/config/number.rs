//! How is a number kept as it is written?
//!
//! As a text, digit by digit: a binary fraction would be another number. [`shape`](crate::config::shape) makes texts of the numbers
//! of a file, and so of amounts of money.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Visitor;

use crate::config::tree::Kind;

/// A number: `10`, `0.5`, or a text of any length: `"10.000000000000000001"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(pub String);

impl JsonSchema for Number {
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["number", "string"], "description": "A number, or its text." })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_of(deserializer).map(Self)
    }
}

/// The text of what is written in a file as a number or a text, in the spelling of JSON; `None`: it is neither.
pub(crate) fn written(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Integer(number) => Some(number.to_string()),
        // TOML lets digits be grouped, and a sign stand before them.
        Kind::Float(_, text) => Some(text.trim_start_matches('+').replace('_', "")),
        _ => None,
    }
}

/// The text of a number, or a text: of a file, it is a text by now.
pub(crate) fn text_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(TextVisitor)
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or its text")
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}
