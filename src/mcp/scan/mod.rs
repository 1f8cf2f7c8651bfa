//! Where does each value of a JSON document begin and end?
//!
//! One pass, no recursion, the grammar of RFC 8259 and nothing beside it. This scanner is the judge of what is JSON; it
//! resolves no escapes but checks that each of them has exactly one meaning.

mod number;
mod string;
#[cfg(test)]
mod tests;

use crate::mcp::document::Limits;
use crate::mcp::fault::Fault;
use crate::mcp::fault::LEADING_WHITESPACE_BYTES_MAX;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Node;
use crate::mcp::node::Shape;

/// What a scan fills. Kept between scans for its memory only.
#[derive(Default)]
pub(super) struct Scratch {
    /// The table of the document.
    pub(super) nodes: Vec<Node>,
    open: Vec<Open>,
}

/// An object or array whose end was not seen yet.
struct Open {
    node: usize,
    count: u32,
    is_object: bool,
}

/// Fills `scratch.nodes` with the table of the one document in `bytes`, which are valid UTF-8 and less than 4 GiB.
/// Strings with escapes are left with an empty text.
pub(super) fn scan(bytes: &[u8], limits: &Limits, scratch: &mut Scratch) -> Result<(), ReadError> {
    scratch.nodes.clear();
    scratch.open.clear();
    let mut scanner = Scanner { bytes, at: 0, limits, nodes: &mut scratch.nodes, open: &mut scratch.open };
    scanner.document()
}

struct Scanner<'s> {
    bytes: &'s [u8],
    at: usize,
    limits: &'s Limits,
    nodes: &'s mut Vec<Node>,
    open: &'s mut Vec<Open>,
}

/// What follows a value that was begun.
enum Next {
    /// It is a container with something in it: a value follows.
    Value,
    /// It is complete.
    Done,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), ReadError> {
        self.skip_whitespace();
        if self.peek().is_none() {
            return self.fail(Fault::Empty);
        }
        if self.at > LEADING_WHITESPACE_BYTES_MAX {
            return self.fail(Fault::LeadingWhitespace);
        }
        loop {
            if let Next::Value = self.value()? {
                continue;
            }
            if !self.proceed()? {
                break;
            }
        }
        self.skip_whitespace();
        if self.peek().is_some() { self.fail(Fault::TrailingData) } else { Ok(()) }
    }

    /// Reads a value, of a container only the beginning.
    fn value(&mut self) -> Result<Next, ReadError> {
        self.skip_whitespace();
        let start = self.at;
        let shape = match self.peek() {
            Some(b'"') => self.string(self.limits.string_bytes_max, Fault::StringTooLong)?,
            Some(b'{') => return self.container(true),
            Some(b'[') => return self.container(false),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true", Shape::True)?,
            Some(b'f') => self.word(b"false", Shape::False)?,
            Some(b'n') => self.word(b"null", Shape::Null)?,
            Some(_) => return self.fail(Fault::Unexpected),
            None => return self.fail(Fault::Truncated),
        };
        self.push(start, shape)?;
        Ok(Next::Done)
    }

    /// Reads from the bracket that opens a container up to where its first value begins, or its end if it is empty.
    fn container(&mut self, is_object: bool) -> Result<Next, ReadError> {
        if self.open.len() >= self.limits.depth_max {
            return self.fail(Fault::TooDeep);
        }
        let node = self.nodes.len();
        let start = self.at;
        self.at += 1;
        // Completed when the container is closed.
        self.push(start, Shape::Null)?;
        self.open.push(Open { node, count: 0, is_object });
        self.skip_whitespace();
        match self.peek() {
            Some(b'}') if is_object => self.close(),
            Some(b']') if !is_object => self.close(),
            Some(_) if is_object => self.key()?,
            Some(_) => {}
            None => return self.fail(Fault::Truncated),
        }
        match self.open.last_mut() {
            Some(top) if top.node == node => {
                top.count = 1;
                Ok(Next::Value)
            }
            _ => Ok(Next::Done),
        }
    }

    /// After a value: closes what ends here, and reads up to the next value. False when the outermost value is
    /// complete.
    fn proceed(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(is_object) = self.open.last().map(|top| top.is_object) else { return Ok(false) };
            self.skip_whitespace();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.count()?;
                    if is_object {
                        self.skip_whitespace();
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if is_object => self.close(),
                Some(b']') if !is_object => self.close(),
                Some(_) => return self.fail(Fault::Unexpected),
                None => return self.fail(Fault::Truncated),
            }
        }
    }

    /// Notes one more entry of the innermost container.
    fn count(&mut self) -> Result<(), ReadError> {
        let keys_max = self.limits.object_keys_max;
        let Some(top) = self.open.last_mut() else { return Ok(()) };
        top.count = top.count.saturating_add(1);
        if top.is_object && top.count as usize > keys_max { self.fail(Fault::TooManyKeys) } else { Ok(()) }
    }

    /// Reads a key and its colon.
    fn key(&mut self) -> Result<(), ReadError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return self.fail(Fault::Unexpected),
            None => return self.fail(Fault::Truncated),
        }
        let shape = self.string(self.limits.key_bytes_max, Fault::KeyTooLong)?;
        self.push(start, shape)?;
        self.skip_whitespace();
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fail(Fault::Unexpected),
            None => self.fail(Fault::Truncated),
        }
    }

    /// Completes the innermost container, whose closing bracket stands here.
    fn close(&mut self) {
        self.at += 1;
        let after = place(self.nodes.len());
        let end = place(self.at);
        let Some(Open { node, count, is_object }) = self.open.pop() else { return };
        if let Some(node) = self.nodes.get_mut(node) {
            node.end = end;
            node.shape = if is_object { Shape::Object { after, count } } else { Shape::Array { after, count } };
        }
    }

    fn word(&mut self, word: &[u8], shape: Shape) -> Result<Shape, ReadError> {
        for expected in word {
            match self.peek() {
                Some(byte) if byte == *expected => self.at += 1,
                Some(_) => return self.fail(Fault::Unexpected),
                None => return self.fail(Fault::Truncated),
            }
        }
        Ok(shape)
    }

    fn push(&mut self, start: usize, shape: Shape) -> Result<(), ReadError> {
        if self.nodes.len() >= self.limits.nodes_max {
            return Err(ReadError { fault: Fault::TooManyValues, at: start });
        }
        self.nodes.push(Node { start: place(start), end: place(self.at), shape });
        Ok(())
    }

    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fail<T>(&self, fault: Fault) -> Result<T, ReadError> {
        Err(ReadError { fault, at: self.at })
    }
}

/// A place in the body or the table as the table holds it. Bodies are shorter than 4 GiB, so nothing is cut off.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
