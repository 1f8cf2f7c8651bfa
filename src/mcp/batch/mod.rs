//! Which messages stand in a batch?
//!
//! A batch is one JSON array. It is read strictly as a whole, so that all readers find the same items in it, and then
//! each item as a message of its own, with exactly its bytes.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::mcp::document::Document;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::message::MessageError;

/// One item: a message, or what is wrong with it.
pub type Item = Result<Message, MessageError>;

/// Whether a body is a batch, if it is anything.
pub fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Reads the items of a body for which [`is_batch`] holds. Items after the first `items_max` are not read, so that one
/// more than allowed shows.
///
/// # Errors
/// The body is not JSON with one meaning.
pub fn read(body: &Bytes, limits: &Limits, items_max: usize) -> Result<Vec<Item>, MessageError> {
    let document = Document::read(body.clone(), limits)?;
    let spans = document.root().items().map(|item| item.span());
    let items = spans.take(items_max.saturating_add(1));
    Ok(items.map(|span| Message::read(body.slice(span), limits)).collect())
}
