//! What does a JSON text say, and where?
//!
//! serde_json does the reading and gives every key and value as the bytes it was written in; these are located in
//! the text by their address. A key written twice is an error, a null is as good as absent.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Span;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Objects and arrays inside one another; the form that is read needs four.
pub(crate) const DEPTH_MAX: usize = 16;

/// Reads one file's text; `None` if it is no JSON.
pub(crate) fn read(file: usize, text: &str, problems: &mut Problems) -> Option<Node> {
    let whole: &RawValue = match serde_json::from_str(text) {
        Ok(whole) => whole,
        Err(error) => {
            let start = offset(text, error.line(), error.column());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
            let before = text.get(..start).unwrap_or_default().trim_end();
            let help = if before.ends_with(',') { "remove the comma before it" } else { "" };
            problems.add(Problem::error(&At::root(), message, help).on(Span { file, start, end: start + 1 }));
            return None;
        }
    };
    Reader { file, text, problems }.node(None, whole, 0)
}

/// The byte at serde_json's line and column, both from one; columns count bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

struct Reader<'t> {
    file: usize,
    text: &'t str,
    problems: &'t mut Problems,
}

impl<'t> Reader<'t> {
    fn node(&mut self, key: Option<Span>, raw: &'t RawValue, depth: usize) -> Option<Node> {
        let span = self.span(raw);
        if depth > DEPTH_MAX {
            let problem = Problem::error(&At::root(), format!("nested more than {DEPTH_MAX} deep"), "");
            self.problems.add(problem.on(Span { end: span.start + 1, ..span }));
            return None;
        }
        let kind = match raw.get().as_bytes().first()? {
            b'{' => Kind::Table(self.entries(raw, depth)),
            b'[' => {
                let items: Vec<&'t RawValue> = serde_json::from_str(raw.get()).ok()?;
                Kind::Array(items.into_iter().filter_map(|item| self.node(None, item, depth + 1)).collect())
            }
            b'"' => Kind::Text(serde_json::from_str(raw.get()).ok()?),
            b't' => Kind::Boolean(true),
            b'f' => Kind::Boolean(false),
            b'n' => return None,
            _ => number(raw.get()),
        };
        Some(Node::new(key, span, kind))
    }

    fn entries(&mut self, raw: &'t RawValue, depth: usize) -> BTreeMap<String, Node> {
        let mut entries: BTreeMap<String, Node> = BTreeMap::new();
        let pairs = serde_json::Deserializer::from_str(raw.get()).deserialize_map(Pairs).unwrap_or_default();
        for (raw_key, raw_value) in pairs {
            let key_span = self.span(raw_key);
            let Ok(key) = serde_json::from_str::<String>(raw_key.get()) else {
                self.problems.add(Problem::error(&At::root(), "a key that is no text", "").on(key_span));
                continue;
            };
            if let Some(first) = entries.get(&key) {
                let problem = Problem::error(&At::root(), format!("`{key}` is defined twice"), "keep one of them");
                self.problems.add(problem.on(key_span).beside(first.name_spot(), "first defined here"));
            } else if let Some(node) = self.node(Some(key_span), raw_value, depth + 1) {
                entries.insert(key, node);
            }
        }
        entries
    }

    /// Where `raw` stands: it is borrowed from the text, so the distance of the two is its place.
    fn span(&self, raw: &RawValue) -> Span {
        let start = raw.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        Span { file: self.file, start, end: start + raw.get().len() }
    }
}

fn number(text: &str) -> Kind {
    match (text.parse(), text.parse()) {
        (Ok(integer), _) => Kind::Integer(integer),
        (Err(_), Ok(float)) => Kind::Float(float, text.into()),
        (Err(_), Err(_)) => Kind::Other("a number"),
    }
}

/// An object's keys and values as they are written, keys written twice included.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root and the messages.
    fn read_text(text: &str) -> (Option<Node>, Vec<(String, Option<Span>)>) {
        let mut problems = Problems::new();
        let node = read(0, text, &mut problems);
        (node, problems.iter().map(|problem| (problem.message.clone(), problem.span)).collect())
    }

    #[test]
    fn keys_and_values_know_their_bytes() {
        let text = r#" { "a" : { "\u0062" : [ 1, "x" ] } } "#;
        let (root, problems) = read_text(text);
        assert!(problems.is_empty());
        let root = root.unwrap();
        let node = root.nearest(&At::root().key("a").key("b"));
        assert_eq!(&text[node.span.start..node.span.end], r#"[ 1, "x" ]"#);
        let key = node.key.unwrap();
        assert_eq!(&text[key.start..key.end], r#""\u0062""#);
        let node = root.nearest(&At::root().key("a").key("b").index(1));
        assert_eq!(&text[node.span.start..node.span.end], r#""x""#);
    }

    #[test]
    fn a_key_written_twice_is_an_error_at_the_second() {
        let (_, problems) = read_text(r#"{"a":1,"\u0061":2}"#);
        assert_eq!(problems, [("`a` is defined twice".to_owned(), Some(Span { file: 0, start: 7, end: 15 }))]);
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let (root, problems) = read_text("{\n  \"a\": ?\n}");
        assert!(root.is_none());
        assert_eq!(problems, [("expected value".to_owned(), Some(Span { file: 0, start: 9, end: 10 }))]);
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_text(&nested(DEPTH_MAX + 1)).1.is_empty());
        assert_eq!(read_text(&nested(DEPTH_MAX + 2)).1.len(), 1);
        assert_eq!(read_text(&nested(100_000)).1.len(), 1);
    }
}
