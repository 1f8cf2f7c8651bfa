//! Where do messages name tasks, and what stands there instead on the other side?
//!
//! Clients know a task by a sealed token, servers by their own id: ids of servers are sealed on the way to the client
//! and tokens are opened on the way back, at the places where the protocol puts them and nowhere else. Tasks of the
//! client, which a server asks about since 2025-11-25, keep their ids. Pure: whoever calls seals and opens.

mod places;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::message::META_RELATED_TASK;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::method::Target;
use crate::mcp::method::Towards;
use crate::mcp::revision::Revision;
use crate::mcp::splice::Splice;

pub use crate::mcp::tasks::places::TaskIdAt;
pub use crate::mcp::tasks::places::sealable;

/// Ids of tasks in one message. A server's message with more is refused; of a client's subscription the rest is cut,
/// as if the server had not agreed to it.
pub const TASK_IDS_MAX: usize = 1_000;

/// Bytes of an id below which it could be any word, or a part of one.
const TELLING_BYTES_MIN: usize = 8;

/// What a token of a client stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The id that the server knows the task by.
    pub id: String,
    /// The endpoint the task lives on.
    pub endpoint: u64,
    /// The tool that was called for it, where that is known.
    pub tool: Option<Arc<str>>,
}

/// A message of a client with its tokens opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// What to replace in the body, in order.
    pub splices: Vec<Splice>,
    /// The endpoint on which the tasks live that the message names.
    pub endpoint: Option<u64>,
    /// The server's id of the task that a `tasks/..` request is about, for `Mcp-Name`. The answer is best given the
    /// very token that the client sent for it: sealed anew under a newer key it would look like another task.
    pub named: Option<String>,
    /// The tool that this task was made by, where that is known.
    pub tool: Option<Arc<str>>,
}

/// A request is about a task that its sender does not have: `-32602`, whatever the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Task not found")]
pub struct NotFound;

/// What to replace in a server's message so that it names tasks by tokens, in order. `asked` is the method whose answer
/// it may be; without it every place is looked at in which an answer could name a task.
///
/// # Errors
/// A word for records: the message must not go on, since its client might see an id that is not sealed.
pub fn seal(
    message: &Message,
    asked: Option<&str>,
    revision: Revision,
    seal_one: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Splice>, &'static str> {
    let places = sealable(message, asked, revision)?;
    let sealed = places.into_iter().map(|TaskIdAt { span, id }| {
        let token = seal_one(id).ok_or(places::BAD_ID)?;
        Ok(Splice { span, replacement: json_string(&token) })
    });
    sealed.collect()
}

/// What to replace in a client's message so that it names tasks as their server does. `open_one` gives nothing for
/// what is no token of this caller for this server, nor, in a session, for one of another endpoint.
///
/// A method that the revision does not know is left as it is: it is refused for that reason.
///
/// # Errors
/// The request is about one task, and its token does not open.
pub fn open(
    message: &Message,
    revision: Revision,
    open_one: impl Fn(&str) -> Option<Owned>,
) -> Result<Opened, NotFound> {
    let mut opened = Opened::default();
    let about = match (message.kind(), message.method()) {
        (MessageKind::Response, _) | (_, None) => message.result(),
        (_, Some(name)) if method::find(name, Towards::Server, revision).is_none() => None,
        (_, Some(name)) => {
            if method::target(name) == Some(Target::Task) {
                opened.open_named(message, &open_one)?;
            } else if name == "subscriptions/listen" {
                opened.open_watched(message, &open_one);
            }
            message.params()
        }
    };
    if let Some(about) = about {
        opened.open_related(about, &open_one);
    }
    opened.splices.sort_by_key(|splice| splice.span.start);
    Ok(opened)
}

impl Opened {
    /// The task that the request is about.
    fn open_named(&mut self, message: &Message, open_one: &impl Fn(&str) -> Option<Owned>) -> Result<(), NotFound> {
        let value = message.params().and_then(|params| params.get("taskId")).ok_or(NotFound)?;
        let Owned { id, endpoint, tool } = value.text().and_then(open_one).ok_or(NotFound)?;
        self.splices.push(Splice { span: value.span(), replacement: json_string(&id) });
        self.endpoint = Some(endpoint);
        self.named = Some(id);
        self.tool = tool;
        Ok(())
    }

    /// The tasks that a subscription is to watch. What does not open is left out, and so is what lives elsewhere than
    /// the first of them: one subscription goes to one endpoint, and its acknowledgement says what it covers.
    fn open_watched(&mut self, message: &Message, open_one: &impl Fn(&str) -> Option<Owned>) {
        let filter = message.params().and_then(|params| params.get("notifications"));
        let Some(watched) = filter.and_then(|filter| filter.get("taskIds")) else { return };
        let mut ids = Vec::new();
        for Owned { id, endpoint, .. } in watched.items().take(TASK_IDS_MAX).filter_map(|item| open_one(item.text()?)) {
            if *self.endpoint.get_or_insert(endpoint) == endpoint {
                ids.push(error::json_string(&id));
            }
        }
        // Not an array, it is replaced all the same: no server may find an id in it that was not opened.
        self.splices.push(Splice { span: watched.span(), replacement: format!("[{}]", ids.join(",")).into() });
    }

    /// The task that the message belongs to. It may be the client's own, so what does not open stays.
    fn open_related(&mut self, about: Value<'_>, open_one: &impl Fn(&str) -> Option<Owned>) {
        let related = about.get("_meta").and_then(|meta| meta.get(META_RELATED_TASK));
        let Some(value) = related.and_then(|related| related.get("taskId")) else { return };
        let Some(Owned { id, endpoint, .. }) = value.text().and_then(open_one) else { return };
        if *self.endpoint.get_or_insert(endpoint) == endpoint {
            self.splices.push(Splice { span: value.span(), replacement: json_string(&id) });
        }
    }
}

/// What to replace in the error that answers a request about a task, so that it speaks of the task as its client does:
/// servers like to name it in their own words. An id too short to be told from other words stays.
pub fn rename(error: Value<'_>, id: &str, token: &str) -> Vec<Splice> {
    let mut splices = Vec::new();
    if id.len() >= TELLING_BYTES_MIN {
        rename_in(error, id, token, &mut splices);
    }
    splices
}

/// Values are no deeper than the document's limit.
fn rename_in(value: Value<'_>, id: &str, token: &str, splices: &mut Vec<Splice>) {
    if let Some(text) = value.text().filter(|text| text.contains(id)) {
        splices.push(Splice { span: value.span(), replacement: json_string(&text.replace(id, token)) });
    }
    for (_, member) in value.entries() {
        rename_in(member, id, token, splices);
    }
    for item in value.items() {
        rename_in(item, id, token, splices);
    }
}

/// Takes `capabilities.tasks.list` out of the result of `initialize`: a server's list is of everybody's tasks, so it is
/// not served. Nothing to take out, nothing returned.
pub fn hide_list(result: Value<'_>) -> Option<Splice> {
    let tasks = result.get("capabilities")?.get("tasks").filter(|tasks| tasks.kind() == Kind::Object)?;
    let mut previous_end = None;
    let mut pairs = tasks.pairs();
    while let Some((key, value)) = pairs.next() {
        if key.text() != Some("list") {
            previous_end = Some(value.span().end);
            continue;
        }
        let start = key.span().start;
        let end = value.span().end;
        return Some(Splice::cut(match (previous_end, pairs.next()) {
            // One comma goes with it: the one before it, or the one after it where it is the first of several.
            (Some(previous_end), _) => previous_end..end,
            (None, Some((next, _))) => start..next.span().start,
            (None, None) => start..end,
        }));
    }
    None
}

fn json_string(text: &str) -> Bytes {
    error::json_string(text).into()
}
