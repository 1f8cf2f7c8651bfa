//! Does a key occur twice in an object?
//!
//! Keys are compared after escapes are resolved, byte by byte. Pairs are compared in small objects, larger ones are
//! hashed with a random seed, so that no choice of keys makes this quadratic.

use std::collections::HashSet;

use crate::mcp::document::Document;
use crate::mcp::document::Value;
use crate::mcp::fault::Fault;
use crate::mcp::fault::ReadError;
use crate::mcp::node::Shape;

/// Objects with more keys than this are hashed.
const PAIRWISE_KEYS_MAX: usize = 12;

/// Refuses a document in which any object has a key twice, and points at the second one.
pub(super) fn check(document: &Document) -> Result<(), ReadError> {
    for (index, node) in (0_u32..).zip(document.nodes.iter()) {
        let Shape::Object { count, .. } = node.shape else { continue };
        let object = document.value(index);
        let second = match count as usize {
            0 | 1 => None,
            2..=PAIRWISE_KEYS_MAX => second_of_few(object),
            count => second_of_many(object, count),
        };
        if let Some(key) = second {
            return Err(ReadError { fault: Fault::DuplicateKey, at: key.span().start });
        }
    }
    Ok(())
}

fn second_of_few(object: Value<'_>) -> Option<Value<'_>> {
    let mut seen: [&[u8]; PAIRWISE_KEYS_MAX] = [&[]; PAIRWISE_KEYS_MAX];
    for (position, (key, _)) in object.pairs().enumerate() {
        let text = key.document.text_bytes(key.node);
        if seen.iter().take(position).any(|earlier| *earlier == text) {
            return Some(key);
        }
        *seen.get_mut(position)? = text;
    }
    None
}

fn second_of_many(object: Value<'_>, count: usize) -> Option<Value<'_>> {
    let mut seen = HashSet::with_capacity(count);
    object.pairs().map(|(key, _)| key).find(|key| !seen.insert(key.document.text_bytes(key.node)))
}
