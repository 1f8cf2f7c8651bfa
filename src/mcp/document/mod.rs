//! What does a JSON body say, and where does it say it?
//!
//! A document is read once and whole. Two readers must see the same: our scanner, which judges the grammar and knows
//! the span of every value, and simd-json, which resolves the escapes. No key occurs twice in an object. Numbers keep
//! their text; nothing is ever written anew.

mod keys;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use crate::mcp::agree;
use crate::mcp::fault::Fault;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Node;
use crate::mcp::node::Shape;
use crate::mcp::scan;

/// How much a document may hold. Its length is limited by whoever receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays inside one another.
    pub depth_max: usize,
    /// Values in the whole document; a key counts as one.
    pub nodes_max: usize,
    /// Keys in one object.
    pub object_keys_max: usize,
    /// Bytes between the quotes of a string, as written.
    pub string_bytes_max: usize,
    /// Bytes between the quotes of a key, as written.
    pub key_bytes_max: usize,
    /// Characters of a number.
    pub number_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            nodes_max: 100_000,
            object_keys_max: 10_000,
            string_bytes_max: 1024 * 1024,
            key_bytes_max: 256,
            number_bytes_max: 64,
        }
    }
}

impl Limits {
    /// For what servers answer: images come as one long string, tables as many values.
    pub fn for_answers() -> Self {
        Self {
            nodes_max: 1_000_000,
            object_keys_max: 100_000,
            string_bytes_max: 16 * 1024 * 1024,
            key_bytes_max: 4096,
            ..Self::default()
        }
    }
}

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{..}`
    Object,
    /// `[..]`
    Array,
    /// `".."`
    String,
    /// A number, known by its text.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A strictly read JSON document together with the bytes it was read from.
#[derive(Debug)]
pub struct Document {
    /// Known to be UTF-8, so that a string in it is a matter of looking up and not of proving it again.
    body: ByteString,
    /// INVARIANT: not empty, in pre-order, spans within `body`.
    nodes: Box<[Node]>,
    /// The texts of all strings that have escapes, one after the other.
    decoded: Box<str>,
}

impl Document {
    /// Reads a whole body. What is accepted has one meaning to every JSON reader that follows the grammar.
    pub fn read(body: Bytes, limits: &Limits) -> Result<Document, ReadError> {
        let body = checked(body)?;
        let (nodes, decoded) = SCRATCH.with_borrow_mut(|scratch| {
            let read = scratch.read(body.as_bytes(), limits);
            scratch.shrink();
            read
        })?;
        let document = Document { body, nodes, decoded };
        keys::check(&document)?;
        Ok(document)
    }

    /// The bytes as they were received.
    pub fn body(&self) -> &Bytes {
        self.body.as_bytes()
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        self.value(0)
    }

    /// The value at an index of the table.
    pub(super) fn value(&self, index: u32) -> Value<'_> {
        Value { document: self, index, node: self.node(index) }
    }

    fn node(&self, index: u32) -> Node {
        self.nodes.get(index as usize).copied().unwrap_or(Node::NONE)
    }

    /// The bytes of a string node's text, escapes resolved.
    fn text_bytes(&self, node: Node) -> &[u8] {
        match node.shape {
            Shape::Plain => self.body().get(plain(node)),
            Shape::Escaped { from, to } => self.decoded.as_bytes().get(from as usize..to as usize),
            _ => None,
        }
        .unwrap_or_default()
    }

    /// A string node's text, escapes resolved.
    fn text(&self, node: Node) -> Option<&str> {
        match node.shape {
            Shape::Plain => self.body.get(plain(node)),
            Shape::Escaped { from, to } => self.decoded.get(from as usize..to as usize),
            _ => None,
        }
    }
}

/// Where the text of a string without escapes stands.
fn plain(node: Node) -> Range<usize> {
    node.start as usize + 1..(node.end as usize).saturating_sub(1)
}

/// A value in a document. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document,
    index: u32,
    node: Node,
}

impl<'d> Value<'d> {
    /// What kind of value it is.
    pub fn kind(self) -> Kind {
        match self.node.shape {
            Shape::Object { .. } => Kind::Object,
            Shape::Array { .. } => Kind::Array,
            Shape::Plain | Shape::Escaped { .. } => Kind::String,
            Shape::Number => Kind::Number,
            Shape::True => Kind::True,
            Shape::False => Kind::False,
            Shape::Null => Kind::Null,
        }
    }

    /// Where it stands in the body; of a string, with the quotes.
    pub fn span(self) -> Range<usize> {
        self.node.start as usize..self.node.end as usize
    }

    /// Its exact bytes; of a string, with the quotes and as written.
    pub fn raw(self) -> &'d [u8] {
        self.raw_text().as_bytes()
    }

    /// Its exact bytes as text.
    pub fn raw_text(self) -> &'d str {
        self.document.body.get(self.span()).unwrap_or_default()
    }

    /// A string's text, escapes resolved; `None` for any other kind.
    pub fn text(self) -> Option<&'d str> {
        self.document.text(self.node)
    }

    /// How many entries an object or items an array has; 0 for any other kind.
    pub fn count(self) -> usize {
        match self.node.shape {
            Shape::Object { count, .. } | Shape::Array { count, .. } => count as usize,
            _ => 0,
        }
    }

    /// The value under a key of an object; the key is compared after escapes are resolved.
    pub fn get(self, key: &str) -> Option<Value<'d>> {
        self.pairs().find(|(name, _)| self.document.text_bytes(name.node) == key.as_bytes()).map(|(_, value)| value)
    }

    /// The entries of an object in their order; nothing for any other kind.
    pub fn entries(self) -> impl Iterator<Item = (&'d str, Value<'d>)> {
        self.pairs().filter_map(|(key, value)| Some((key.text()?, value)))
    }

    /// The items of an array in their order; nothing for any other kind.
    pub fn items(self) -> impl Iterator<Item = Value<'d>> {
        let document = self.document;
        let (mut next, after) = match self.node.shape {
            Shape::Array { after, .. } => (self.index.saturating_add(1), after),
            _ => (0, 0),
        };
        std::iter::from_fn(move || {
            if next >= after {
                return None;
            }
            let item = document.value(next);
            next = item.node.after(next);
            Some(item)
        })
    }

    /// The entries of an object with their keys as values, which know their spans; nothing for any other kind.
    pub fn pairs(self) -> impl Iterator<Item = (Value<'d>, Value<'d>)> {
        let document = self.document;
        let (mut next, after) = match self.node.shape {
            Shape::Object { after, .. } => (self.index.saturating_add(1), after),
            _ => (0, 0),
        };
        std::iter::from_fn(move || {
            if next >= after {
                return None;
            }
            let key = document.value(next);
            let value = document.value(next.saturating_add(1));
            next = value.node.after(value.index);
            Some((key, value))
        })
    }

    /// Its place in the table, by which a message remembers it.
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// A body as text. The first things wrong with one are a byte order mark, and bytes that are not UTF-8.
fn checked(body: Bytes) -> Result<ByteString, ReadError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(ReadError { fault: Fault::ByteOrderMark, at: 0 });
    }
    if u32::try_from(body.len()).is_err() {
        return Err(ReadError { fault: Fault::TooLong, at: 0 });
    }
    ByteString::try_from(body).map_err(|error| ReadError { fault: Fault::NotUtf8, at: error.valid_up_to() })
}

/// Buffers that a thread keeps between documents.
#[derive(Default)]
struct Scratch {
    scan: scan::Scratch,
    agree: agree::Scratch,
}

/// A thread gives a buffer that has grown beyond this back to the allocator after the document that needed it.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;

impl Scratch {
    /// The table of a body and the texts of its escaped strings, on which both readers agree.
    fn read(&mut self, body: &[u8], limits: &Limits) -> Result<(Box<[Node]>, Box<str>), ReadError> {
        scan::scan(body, limits, &mut self.scan)?;
        let mut decoded = String::new();
        agree::agree(body, &mut self.scan.nodes, &mut decoded, &mut self.agree)?;
        Ok((Box::from(self.scan.nodes.as_slice()), decoded.into_boxed_str()))
    }

    fn shrink(&mut self) {
        if self.scan.nodes.capacity() * size_of::<Node>() > SCRATCH_BYTES_MAX {
            self.scan = scan::Scratch::default();
        }
        if self.agree.capacity_bytes() > SCRATCH_BYTES_MAX {
            self.agree = agree::Scratch::default();
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
