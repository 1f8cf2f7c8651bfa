//! Does simd-json see the same document as our scanner?
//!
//! Both tables are compared node by node: kinds, numbers of entries, extents, the text of every string, the value of
//! every integer. Any difference refuses the body. The texts of strings with escapes are taken from simd-json once the
//! escapes as written are seen to spell them.

use simd_json::Buffers;
use simd_json::INPUT_PADDING;
use simd_json::StaticNode;
use simd_json::Tape;
use simd_json::tape;

use crate::mcp::fault::Fault;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Node;
use crate::mcp::node::Shape;

/// simd-json's buffers. Kept between documents for their memory only.
pub(super) struct Scratch {
    input: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { input: Vec::new(), buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }
}

impl Scratch {
    /// How many bytes its largest buffer takes; those that simd-json keeps to itself are no larger.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.input.capacity().max(self.tape.0.capacity() * size_of::<tape::Node<'static>>())
    }
}

/// Compares the table with what simd-json reads in the same bytes, and appends the texts of strings with escapes to
/// `decoded`, to which their nodes then point.
pub(super) fn agree(
    bytes: &[u8],
    nodes: &mut [Node],
    decoded: &mut String,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let Scratch { input, buffers, tape: kept } = scratch;
    input.clear();
    input.extend_from_slice(bytes);
    input.extend_from_slice(&[b' '; INPUT_PADDING]);
    let mut tape = std::mem::replace(kept, Tape(Vec::new())).reset();
    let filled = simd_json::fill_tape_padded(input, bytes.len(), buffers, &mut tape);
    let agreed = match filled {
        Ok(()) => compare(bytes, nodes, &tape.0, decoded),
        Err(error) => Err(ReadError { fault: Fault::Ambiguous, at: error.index() }),
    };
    *kept = tape.reset();
    agreed
}

fn compare(bytes: &[u8], nodes: &mut [Node], tape: &[tape::Node<'_>], decoded: &mut String) -> Result<(), ReadError> {
    if nodes.len() != tape.len() {
        return Err(ReadError { fault: Fault::Ambiguous, at: 0 });
    }
    for ((index, node), theirs) in (0_u32..).zip(nodes.iter_mut()).zip(tape) {
        let written = bytes.get(node.start as usize..node.end as usize).unwrap_or_default();
        if !is_same(index, node, written, theirs, decoded) {
            return Err(ReadError { fault: Fault::Ambiguous, at: node.start as usize });
        }
    }
    Ok(())
}

fn is_same(index: u32, node: &mut Node, written: &[u8], theirs: &tape::Node<'_>, decoded: &mut String) -> bool {
    match (node.shape, theirs) {
        (Shape::Plain, tape::Node::String(text)) => inner(written) == text.as_bytes(),
        (Shape::Escaped { .. }, tape::Node::String(text)) => {
            let from = decoded.len();
            decoded.push_str(text);
            let (Ok(from), Ok(to)) = (u32::try_from(from), u32::try_from(decoded.len())) else { return false };
            node.shape = Shape::Escaped { from, to };
            spells(inner(written), text)
        }
        (Shape::Object { after, count }, tape::Node::Object { len, count: inside })
        | (Shape::Array { after, count }, tape::Node::Array { len, count: inside }) => {
            count as usize == *len && after.saturating_sub(index + 1) as usize == *inside
        }
        (Shape::Number, tape::Node::Static(value)) => is_same_number(written, *value),
        (Shape::True, tape::Node::Static(StaticNode::Bool(true)))
        | (Shape::False, tape::Node::Static(StaticNode::Bool(false)))
        | (Shape::Null, tape::Node::Static(StaticNode::Null)) => true,
        _ => false,
    }
}

/// A string as written, without its quotes.
fn inner(written: &[u8]) -> &[u8] {
    written.get(1..written.len().saturating_sub(1)).unwrap_or_default()
}

fn is_same_number(written: &[u8], value: StaticNode) -> bool {
    let Ok(text) = std::str::from_utf8(written) else { return false };
    match value {
        StaticNode::I64(value) => text.parse() == Ok(value),
        StaticNode::U64(value) => text.parse() == Ok(value),
        StaticNode::F64(value) => text.parse() == Ok(value) && value.is_finite(),
        StaticNode::Bool(_) | StaticNode::Null => false,
    }
}

/// Whether a string as written, with escapes, means `text`. The escapes are known to be well formed.
fn spells(mut written: &[u8], text: &str) -> bool {
    let mut text = text.as_bytes();
    while let Some((&byte, rest)) = written.split_first() {
        let mut utf8 = [0; 4];
        let (expected, behind): (&[u8], &[u8]) = if byte == b'\\' {
            let Some((character, behind)) = unescape(rest) else { return false };
            (character.encode_utf8(&mut utf8).as_bytes(), behind)
        } else {
            let plain = memchr::memchr(b'\\', written).unwrap_or(written.len());
            written.split_at_checked(plain).unwrap_or_default()
        };
        let Some(left) = text.strip_prefix(expected) else { return false };
        text = left;
        written = behind;
    }
    text.is_empty()
}

/// The character that an escape means, and what follows the escape. Starts behind the backslash.
fn unescape(escape: &[u8]) -> Option<(char, &[u8])> {
    let (&letter, rest) = escape.split_first()?;
    let character = match letter {
        b'"' | b'\\' | b'/' => char::from(letter),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(rest),
        _ => return None,
    };
    Some((character, rest))
}

fn unescape_unicode(digits: &[u8]) -> Option<(char, &[u8])> {
    let (code, rest) = four_digits(digits)?;
    if !(0xD800..0xDC00).contains(&code) {
        return Some((char::from_u32(code)?, rest));
    }
    let (low, rest) = four_digits(rest.strip_prefix(b"\\u")?)?;
    let offset = low.checked_sub(0xDC00).filter(|offset| *offset < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((code - 0xD800) << 10) + offset)?, rest))
}

fn four_digits(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = digits.split_at_checked(4)?;
    let code = digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))?;
    Some((code, rest))
}

#[cfg(test)]
mod tests;
