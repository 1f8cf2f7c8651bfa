//! What may come on the stream of a `subscriptions/listen`?
//!
//! First that it is agreed to, then only what was asked for, each message marked with the id of the request, and at the
//! end one answer. Whether the caller may see a resource is for policy to say.

#[cfg(test)]
mod tests;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::headers::HeaderError;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::names;

/// The method that opens such a stream.
pub const LISTEN: &str = "subscriptions/listen";
/// The key in `_meta` that says to which request a message of such a stream belongs.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// A request that names more resources, or more tasks, than this is refused.
pub const NAMED_MAX: usize = 1024;

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// What can be asked for: in any other case it would be read by some servers, and not by the gateway.
const FILTER_KEYS: [&str; 5] =
    ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"];

/// What becomes of a message on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screened {
    /// It goes on.
    Pass,
    /// It is the answer: it goes on, and nothing after it.
    Answer,
    /// It does not go on; the rest may. The word is for metrics and logs.
    Drop(&'static str),
    /// It makes the whole stream unacceptable; the word is for records.
    Refuse(&'static str),
}

/// One stream, from the request for it to its answer.
#[derive(Debug, Clone)]
pub struct Subscription {
    id: Id,
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: Box<[Box<str>]>,
    tasks: Box<[Box<str>]>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Acknowledged,
    Answered,
}

/// An id of a request. A text is known by what it says, since each server escapes in its own way, a number by its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Text(Box<str>),
    Number(Box<[u8]>),
}

impl Id {
    fn of(value: Value<'_>) -> Option<Id> {
        match value.kind() {
            Kind::String => value.text().map(|text| Id::Text(text.into())),
            Kind::Number => Some(Id::Number(value.raw().into())),
            _ => None,
        }
    }

    fn is(&self, value: Value<'_>) -> bool {
        match self {
            Id::Text(text) => value.text() == Some(text),
            Id::Number(digits) => value.kind() == Kind::Number && value.raw() == &**digits,
        }
    }
}

impl Subscription {
    /// The stream that a request asks for. Resources and tasks are those that the server is asked for: the request is
    /// the one that is sent, after everything that is not for the caller was cut out of it.
    pub fn read(request: &Message) -> Result<Subscription, HeaderError> {
        let id =
            request.document().root().get("id").and_then(Id::of).ok_or_else(|| flaw("the method needs an `id`"))?;
        let filter = request.params().and_then(|params| params.get("notifications"));
        let filter = filter.filter(|filter| filter.kind() == Kind::Object);
        let filter = filter.ok_or_else(|| flaw("`notifications` must be an object"))?;
        if filter.entries().any(|(key, _)| names::variant_of(key, &FILTER_KEYS).is_some()) {
            return Err(flaw("misspelt key in `notifications`"));
        }
        Ok(Subscription {
            id,
            tools: flag(filter, "toolsListChanged")?,
            prompts: flag(filter, "promptsListChanged")?,
            resources: flag(filter, "resourcesListChanged")?,
            uris: texts(filter, "resourceSubscriptions")?,
            tasks: texts(filter, "taskIds")?,
            state: State::Asked,
        })
    }

    /// Whether it is agreed to, and not yet answered.
    pub fn is_open(&self) -> bool {
        self.state == State::Acknowledged
    }

    /// What becomes of the next message.
    pub fn screen(&mut self, message: &Message) -> Screened {
        match message.kind() {
            _ if self.state == State::Answered => Screened::Drop("answer_twice"),
            MessageKind::Request => Screened::Drop("answer_request"),
            MessageKind::Response => self.answer(message),
            MessageKind::Notification => self.notification(message),
        }
    }

    fn answer(&mut self, message: &Message) -> Screened {
        if !message.document().root().get("id").is_some_and(|id| self.id.is(id)) {
            return Screened::Drop("answer_id");
        }
        if let Some(result) = message.result() {
            if self.state == State::Asked {
                return Screened::Refuse("listen_order");
            }
            let marked = result.get("_meta").and_then(|meta| meta.get(META_SUBSCRIPTION));
            if !marked.is_none_or(|id| self.id.is(id)) {
                return Screened::Refuse("listen_id");
            }
        }
        self.state = State::Answered;
        Screened::Answer
    }

    fn notification(&mut self, message: &Message) -> Screened {
        let marked = message.meta().and_then(|meta| meta.get(META_SUBSCRIPTION)).is_some_and(|id| self.id.is(id));
        match (self.state, message.method()) {
            // Dropped, it would leave a stream on which nothing can ever come.
            (State::Asked, Some(ACKNOWLEDGED)) if !marked => Screened::Refuse("listen_id"),
            (State::Asked, Some(ACKNOWLEDGED)) => {
                self.state = State::Acknowledged;
                Screened::Pass
            }
            (State::Asked, _) => Screened::Drop("listen_order"),
            _ if !marked => Screened::Drop("listen_id"),
            (_, Some(method)) => self.asked_for(method, message),
            (_, None) => Screened::Drop("listen_type"),
        }
    }

    /// Whether a marked notification is one of those that were asked for.
    fn asked_for(&self, method: &str, message: &Message) -> Screened {
        let named = |key: &str| message.params().and_then(|params| params.get(key)).and_then(Value::text);
        let is_asked = match method {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            "notifications/resources/updated" => {
                named("uri").is_some_and(|uri| self.uris.iter().any(|asked| is_within(uri, asked)))
            }
            "notifications/tasks" => {
                named("taskId").is_some_and(|task| self.tasks.iter().any(|asked| **asked == *task))
            }
            _ => false,
        };
        if is_asked { Screened::Pass } else { Screened::Drop("listen_type") }
    }
}

/// Whether a URI is the one that was asked for or stands below it. Nothing below may lead out again.
fn is_within(uri: &str, asked: &str) -> bool {
    let Some(below) = uri.strip_prefix(asked) else { return false };
    let is_below = below.is_empty() || asked.ends_with('/') || below.starts_with(['/', '?', '#']);
    is_below && names::is_plain(below) && !below.split(['/', '\\']).any(is_dots)
}

/// Whether a segment of a path is `..`, in any of its spellings.
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "..")
}

fn flag(filter: Value<'_>, key: &str) -> Result<bool, HeaderError> {
    match filter.get(key).map(Value::kind) {
        None | Some(Kind::False | Kind::Null) => Ok(false),
        Some(Kind::True) => Ok(true),
        Some(_) => Err(flaw(&format!("`{key}` must be true or false"))),
    }
}

fn texts(filter: Value<'_>, key: &str) -> Result<Box<[Box<str>]>, HeaderError> {
    let Some(list) = filter.get(key).filter(|list| list.kind() != Kind::Null) else { return Ok(Box::default()) };
    if list.kind() != Kind::Array {
        return Err(flaw(&format!("`{key}` must be an array")));
    }
    if list.count() > NAMED_MAX {
        return Err(flaw(&format!("`{key}` names too many")));
    }
    let texts: Option<Box<[Box<str>]>> =
        list.items().map(|item| item.text().filter(|text| names::is_plain(text)).map(Box::from)).collect();
    texts.ok_or_else(|| flaw(&format!("`{key}` must name each in a string of visible characters")))
}

fn flaw(text: &str) -> HeaderError {
    HeaderError { code: error::INVALID_PARAMS, text: text.into(), data: None, name: "notifications" }
}
