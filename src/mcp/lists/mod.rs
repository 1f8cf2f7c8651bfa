//! Which of a server's tools does a caller see?
//!
//! The tools that are not for the caller are cut out of the received list; every other byte stays. What a client might
//! read as a list in another way than the gateway does is not passed on.

use std::ops::Range;

use bytes::Bytes;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::names;
use crate::mcp::splice;
use crate::mcp::splice::Splice;

/// What became of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// Nothing had to go: forward the body as it came.
    Unchanged,
    /// The body without the tools that had to go.
    Changed(Bytes),
    /// No list of tools, or one that can be read in two ways: not to be forwarded.
    NotAList,
}

/// Leaves in the response to `tools/list` only tools whose names pass `lists`. A tool without a name that could be
/// called goes too. An error response stays as it is.
pub fn filter(message: &Message, lists: impl Fn(&str) -> bool) -> Filtered {
    let Some(result) = message.result() else {
        return if message.error().is_some() { Filtered::Unchanged } else { Filtered::NotAList };
    };
    let Some(tools) = list(result) else { return Filtered::NotAList };
    let tools: Vec<(Range<usize>, bool)> =
        tools.items().map(|tool| (tool.span(), name(tool).is_some_and(&lists))).collect();
    let splices = cuts(&tools);
    if splices.is_empty() {
        return Filtered::Unchanged;
    }
    splice::apply(message.body(), &splices).map_or(Filtered::NotAList, Filtered::Changed)
}

/// The array of tools. A reader that ignores case must find no second one.
fn list(result: Value<'_>) -> Option<Value<'_>> {
    let has_variant = result.entries().any(|(key, _)| names::is_variant(key, "tools"));
    result.get("tools").filter(|tools| tools.kind() == Kind::Array && !has_variant)
}

/// The name of a tool, if a call could name it and no reader could find another one.
fn name(tool: Value<'_>) -> Option<&str> {
    let has_variant = tool.entries().any(|(key, _)| names::is_variant(key, "name"));
    tool.get("name")?.text().filter(|name| !has_variant && names::is_plain(name))
}

/// The spans to cut so that only the kept items and the commas between them remain.
fn cuts(items: &[(Range<usize>, bool)]) -> Vec<Splice> {
    let mut cuts = Vec::new();
    let mut has_kept = false;
    let mut previous_end = None;
    let mut following = items.iter().skip(1);
    for (span, is_kept) in items {
        let next = following.next();
        if *is_kept {
            has_kept = true;
        } else {
            cuts.push(Splice::cut(match (previous_end, next) {
                // The comma before it goes with an item behind a kept one, otherwise the comma after it.
                (Some(end), _) if has_kept => end..span.end,
                (_, Some((next, _))) => span.start..next.start,
                _ => span.clone(),
            }));
        }
        previous_end = Some(span.end);
    }
    cuts
}

#[cfg(test)]
mod tests;
