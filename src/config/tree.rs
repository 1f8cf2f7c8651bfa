//! What stands where in the files?
//!
//! One form for TOML and JSON, with the place of every key and value. Checks walk it, then [`Node::take_value`]
//! moves the values out; the places stay, for messages later on.

use std::collections::BTreeMap;

use crate::config::problem::At;
use crate::config::problem::Span;
use crate::config::problem::Step;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    /// The key that names it, if it stands under one.
    pub(crate) key: Option<Span>,
    /// The value; of a table written `[like.this]`, the header.
    pub(crate) span: Span,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it is to be left out of the configuration, because a problem was reported for it.
    pub(crate) bad: bool,
    /// Whether its text must not be shown.
    pub(crate) private: bool,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind {
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
    Text(String),
    Integer(i64),
    /// A number with a fraction or an exponent, and how it is written.
    Float(f64, Box<str>),
    Boolean(bool),
    /// A date, or a number beyond 64 bits: nothing the model asks for. The word is for messages.
    Other(&'static str),
}

impl Node {
    /// A sound value.
    pub(crate) fn new(key: Option<Span>, span: Span, kind: Kind) -> Self {
        Self { key, span, kind, bad: false, private: false }
    }

    /// Where a message about it points: at the key of a table, at any other value itself.
    pub(crate) fn spot(&self) -> Span {
        match (&self.kind, self.key) {
            (Kind::Table(_), Some(key)) => key,
            _ => self.span,
        }
    }

    /// The key where there is one, else the value.
    pub(crate) fn name_spot(&self) -> Span {
        self.key.unwrap_or(self.span)
    }

    /// The value `at` this place, or the nearest one above that exists.
    pub(crate) fn nearest(&self, at: &At) -> &Node {
        let mut node = self;
        for step in at.steps() {
            let next = match (&node.kind, step) {
                (Kind::Table(entries), Step::Key(key)) => entries.get(key),
                (Kind::Array(items), Step::Index(index)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The entries of a table; `None` for anything else.
    pub(crate) fn entries_mut(&mut self) -> Option<&mut BTreeMap<String, Node>> {
        match &mut self.kind {
            Kind::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.kind {
            Kind::Table(_) => "a table",
            Kind::Array(_) => "a list",
            Kind::Text(_) => "a text",
            Kind::Integer(_) => "an integer",
            Kind::Float(..) => "a decimal number",
            Kind::Boolean(_) => "`true` or `false`",
            Kind::Other(noun) => noun,
        }
    }

    /// Drops every text; the places stay.
    pub(crate) fn forget_texts(&mut self) {
        match &mut self.kind {
            Kind::Table(entries) => entries.values_mut().for_each(Node::forget_texts),
            Kind::Array(items) => items.iter_mut().for_each(Node::forget_texts),
            Kind::Text(text) => *text = String::new(),
            _ => {}
        }
    }

    /// Moves the sound values out; the places stay. A list with a bad element is left out whole, so that the
    /// positions of the others do not shift.
    pub(crate) fn take_value(&mut self) -> Option<toml::Value> {
        if self.bad {
            return None;
        }
        Some(match &mut self.kind {
            Kind::Table(entries) => {
                let sound = entries.iter_mut().filter_map(|(key, node)| Some((key.clone(), node.take_value()?)));
                toml::Value::Table(sound.collect())
            }
            Kind::Array(items) => toml::Value::Array(items.iter_mut().map(Node::take_value).collect::<Option<_>>()?),
            Kind::Text(text) => toml::Value::String(std::mem::take(text)),
            Kind::Integer(number) => toml::Value::Integer(*number),
            Kind::Float(number, _) => toml::Value::Float(*number),
            Kind::Boolean(truth) => toml::Value::Boolean(*truth),
            Kind::Other(_) => return None,
        })
    }
}
