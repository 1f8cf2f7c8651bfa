//! What of a server's lists does a caller see?
//!
//! Tools, resources, templates and prompts that are not for the caller are cut out of the received list; every other
//! byte stays. What a client might read as a list in another way than the gateway does is not passed on.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::names;
use crate::mcp::splice;
use crate::mcp::splice::Splice;

/// What a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// The answer to `tools/list`.
    Tools,
    /// The answer to `resources/list`.
    Resources,
    /// The answer to `resources/templates/list`.
    ResourceTemplates,
    /// The answer to `prompts/list`.
    Prompts,
}

impl ListKind {
    /// All kinds.
    pub const ALL: [ListKind; 4] = [Self::Tools, Self::Resources, Self::ResourceTemplates, Self::Prompts];

    /// The kind of list a method asks for; `None` if it asks for none.
    pub fn of_method(name: &str) -> Option<ListKind> {
        Self::ALL.into_iter().find(|kind| kind.method() == name)
    }

    /// The method that asks for it.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Resources => "resources/list",
            Self::ResourceTemplates => "resources/templates/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// The key of the result under which the items stand.
    pub const fn array_key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }

    /// The member of an item that rules speak of.
    pub const fn naming_member(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
        }
    }
}

/// No list of the kind, or one that can be read in two ways: not to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAList;

impl fmt::Display for NotAList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a list with one meaning")
    }
}

impl std::error::Error for NotAList {}

/// What to cut out of the body of `result` so that only items whose names pass `keep` remain. An item without a name
/// that could be asked for goes too. The cuts are in order and do not overlap.
pub fn cuts(result: Value<'_>, kind: ListKind, keep: impl Fn(&str) -> bool) -> Result<Vec<Splice>, NotAList> {
    let list = list(result, kind)?;
    let items: Vec<(Range<usize>, bool)> =
        list.items().map(|item| (item.span(), name(item, kind).is_some_and(&keep))).collect();
    Ok(cuts_between(&items))
}

/// The kinds of list that a result of unknown origin would be read as: each of them must be cut as what it is before
/// the result is passed on, and [`cuts`] refuses what stands there and is no array. Refused are keys that only some
/// readers would take for a list's.
pub fn shapes(result: Value<'_>) -> Result<impl Iterator<Item = ListKind>, NotAList> {
    let is_variant = |key: &str| ListKind::ALL.iter().any(|kind| names::is_variant(key, kind.array_key()));
    if result.entries().any(|(key, _)| is_variant(key)) {
        return Err(NotAList);
    }
    Ok(ListKind::ALL.into_iter().filter(move |kind| result.get(kind.array_key()).is_some()))
}

/// The array of items. A reader that ignores case must find no second one.
pub(super) fn list(result: Value<'_>, kind: ListKind) -> Result<Value<'_>, NotAList> {
    let has_variant = result.entries().any(|(key, _)| names::is_variant(key, kind.array_key()));
    result.get(kind.array_key()).filter(|list| list.kind() == Kind::Array && !has_variant).ok_or(NotAList)
}

/// The name of an item, if a request could name it and no reader could find another one.
pub(super) fn name(item: Value<'_>, kind: ListKind) -> Option<&str> {
    let member = kind.naming_member();
    let has_variant = item.entries().any(|(key, _)| names::is_variant(key, member));
    item.get(member)?.text().filter(|name| !has_variant && names::is_plain(name))
}

/// The spans to cut so that only the kept items and the commas between them remain.
fn cuts_between(items: &[(Range<usize>, bool)]) -> Vec<Splice> {
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

/// What became of a whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// Nothing had to go: forward the body as it came.
    Unchanged,
    /// The body without the items that had to go.
    Changed(Bytes),
    /// Not to be forwarded.
    NotAList,
}

/// Leaves in the response to a list request only items whose names pass `keep`. An error response stays as it is.
pub fn filter(message: &Message, kind: ListKind, keep: impl Fn(&str) -> bool) -> Filtered {
    let Some(result) = message.result() else {
        return if message.error().is_some() { Filtered::Unchanged } else { Filtered::NotAList };
    };
    match cuts(result, kind, keep) {
        Ok(cuts) if cuts.is_empty() => Filtered::Unchanged,
        Ok(cuts) => splice::apply(message.body(), &cuts).map_or(Filtered::NotAList, Filtered::Changed),
        Err(NotAList) => Filtered::NotAList,
    }
}

#[cfg(test)]
mod tests;
