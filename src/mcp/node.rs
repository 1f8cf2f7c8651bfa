//! What does the table of a document hold about one of its values?
//!
//! The table is flat and in pre-order; an object's entries are a key node followed by the nodes of its value. Places
//! are 32 bits wide, so a body of 4 GiB or more is refused before it is scanned.

/// A value, or an object's key, and where it stands in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// First byte; of a string, the quote.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
    /// What it is.
    pub(super) shape: Shape,
}

/// What a node is, with what is needed to walk on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `after` is the index of the first node that is not inside; `count` is the number of entries.
    Object {
        after: u32,
        count: u32,
    },
    /// `after` is the index of the first node that is not inside; `count` is the number of items.
    Array {
        after: u32,
        count: u32,
    },
    /// A string without escapes: its text is its span without the quotes.
    Plain,
    /// A string with escapes: its text is this range of the document's decoded text.
    Escaped {
        from: u32,
        to: u32,
    },
    Number,
    True,
    False,
    Null,
}

impl Node {
    /// Stands in where a table has no node. Tables always have one, so this is never seen.
    pub(super) const NONE: Node = Node { start: 0, end: 0, shape: Shape::Null };

    /// The index of the first node that is not inside this one, which stands at `index`.
    pub(super) fn after(&self, index: u32) -> u32 {
        match self.shape {
            Shape::Object { after, .. } | Shape::Array { after, .. } => after,
            Shape::Plain | Shape::Escaped { .. } | Shape::Number | Shape::True | Shape::False | Shape::Null => {
                index.saturating_add(1)
            }
        }
    }
}
