//! What does a TOML text say, and where?
//!
//! All syntax errors are reported; what stands before the first of them is read nevertheless.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::Problems;
use crate::config::problem::Span;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Reads one file's text. With syntax errors, what it says up to the first of them, and that error's first byte.
pub(crate) fn read(file: usize, text: &str, problems: &mut Problems) -> (Node, Option<usize>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut broken_from: Option<usize> = None;
    for error in &errors {
        let span = span(file, error.span().unwrap_or(0..0));
        broken_from = Some(broken_from.map_or(span.start, |start| start.min(span.start)));
        problems.add(syntax_problem(error.message(), span, text));
    }
    let mut root = node(file, None, table.span(), DeValue::Table(table.into_inner()));
    if let Some(end) = broken_from {
        drop_from(&mut root, end);
    }
    (root, broken_from)
}

fn syntax_problem(message: &str, span: Span, text: &str) -> Problem {
    let written = text.get(span.start..span.end).unwrap_or_default();
    let message = message.replace('\n', ", ");
    let message =
        message.trim_end_matches(", expected nothing").trim_end_matches(", expected literal string").to_owned();
    let is_bare =
        ["string values must be quoted", "invalid float", "invalid integer", "invalid datetime", "invalid boolean"]
            .iter()
            .any(|start| message.starts_with(start));
    let (message, help) = match message.as_str() {
        "duplicate key" => (format!("`{written}` is defined twice"), "keep one of them"),
        _ if is_bare => (message, "if it is a text, write it in quotes: `\"..\"`"),
        _ => (message, ""),
    };
    Problem::error(&At::root(), message, help).on(span)
}

fn span(file: usize, range: Range<usize>) -> Span {
    Span { file, start: range.start, end: range.end }
}

fn node(file: usize, key: Option<Span>, place: Range<usize>, value: DeValue<'_>) -> Node {
    let kind = match value {
        DeValue::Table(table) => Kind::Table(
            table
                .into_iter()
                .map(|(key, value)| {
                    let key_span = span(file, key.span());
                    let place = value.span();
                    (key.into_inner().into_owned(), node(file, Some(key_span), place, value.into_inner()))
                })
                .collect(),
        ),
        DeValue::Array(array) => Kind::Array(
            array
                .into_iter()
                .map(|value: Spanned<DeValue<'_>>| node(file, None, value.span(), value.into_inner()))
                .collect(),
        ),
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => Kind::Other("a number beyond 64 bits"),
        },
        DeValue::Float(number) => {
            let text = number.as_str();
            text.parse().map_or(Kind::Other("a number"), |float| Kind::Float(float, text.into()))
        }
        DeValue::Boolean(truth) => Kind::Boolean(truth),
        DeValue::Datetime(_) => Kind::Other("a date"),
    };
    Node::new(key, span(file, place), kind)
}

/// Forgets what stands at or after `end`: behind a syntax error the parser only guesses.
fn drop_from(node: &mut Node, end: usize) {
    match &mut node.kind {
        Kind::Table(entries) => entries.retain(|_, node| {
            drop_from(node, end);
            node.name_spot().end <= end && (matches!(node.kind, Kind::Table(_)) || node.span.end <= end)
        }),
        Kind::Array(items) => items.retain_mut(|node| {
            drop_from(node, end);
            node.span.end <= end
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root, and where the text is broken.
    fn read_text(text: &str) -> (Node, Option<usize>, Vec<String>) {
        let mut problems = Problems::new();
        let (node, broken) = read(0, text, &mut problems);
        (node, broken, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn a_value_knows_its_bytes_and_a_table_its_key() {
        let text = "[servers.a]\nurl = \"x\"\n";
        let (root, broken, _) = read_text(text);
        assert_eq!(broken, None);
        let at = At::root().key("servers").key("a");
        let spot = root.nearest(&at).spot();
        assert_eq!(&text[spot.start..spot.end], "a");
        let spot = root.nearest(&at.key("url")).spot();
        assert_eq!(&text[spot.start..spot.end], "\"x\"");
        let spot = root.nearest(&at.key("absent")).spot();
        assert_eq!(&text[spot.start..spot.end], "a");
    }

    #[test]
    fn every_syntax_error_is_told() {
        let (_, broken, messages) = read_text("a = \nb = 1\nc = [1\n\n[d\n");
        assert!(broken.is_some());
        assert!(messages.len() >= 2, "{messages:?}");
    }

    #[test]
    fn what_stands_behind_a_syntax_error_is_not_believed() {
        let (root, broken, _) = read_text("a = 1\nb = = 2\nc = 3\n");
        assert!(broken.is_some());
        assert!(matches!(root.nearest(&At::root().key("a")).kind, Kind::Integer(1)));
        assert!(matches!(root.nearest(&At::root().key("c")).kind, Kind::Table(_)));
    }

    #[test]
    fn nesting_without_end_is_refused_and_not_followed() {
        for text in [format!("a = {}", "[".repeat(100_000)), format!("{} = 1", vec!["a"; 100_000].join("."))] {
            let (_, broken, messages) = read_text(&text);
            assert!(broken.is_some(), "{messages:?}");
        }
    }
}
