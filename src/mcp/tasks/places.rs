//! Where does a server's message name the server's own tasks?
//!
//! In 2025-11-25: `task` of the result that created one, the results of `tasks/get`, `tasks/cancel` and `tasks/list`,
//! `notifications/tasks/status`, and `_meta` of whatever belongs to a task. In the extension of 2026-07-28: results of
//! type `task` and of `tasks/..`, `notifications/tasks`, and what a subscription is acknowledged for. Keys that a reader
//! which ignores case would take for one of these refuse the message.

use std::ops::Range;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::META_RELATED_TASK;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::names;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::mcp::tasks::TASK_IDS_MAX;

/// A key is misspelt by case.
const BAD_KEY: &str = "answer_task_key";
/// An id is no string, cannot be sealed, or is one too many.
pub(super) const BAD_ID: &str = "answer_task_id";

/// A task's id in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskIdAt<'m> {
    /// Where it stands in the body, with its quotes.
    pub span: Range<usize>,
    /// What it says, escapes resolved.
    pub id: &'m str,
}

/// The ids of its own tasks in a server's message, in the order of the body. `asked` is the method whose answer it may
/// be; without it every place is looked at in which an answer could name a task.
///
/// # Errors
/// A word for records: an id that is no string, a key misspelt by case, or more than [`TASK_IDS_MAX`] ids.
pub fn sealable<'m>(
    message: &'m Message,
    asked: Option<&str>,
    revision: Revision,
) -> Result<Vec<TaskIdAt<'m>>, &'static str> {
    let mut places = Places(Vec::new());
    if revision >= Revision::V2025_11_25 {
        match (message.kind(), message.result(), message.params()) {
            (MessageKind::Response, Some(result), _) => places.in_result(result, asked, revision.era())?,
            (MessageKind::Response, None, _) => {}
            (MessageKind::Request | MessageKind::Notification, _, Some(params)) => {
                places.in_params(params, message.method().unwrap_or_default())?;
            }
            (MessageKind::Request | MessageKind::Notification, _, None) => {}
        }
    }
    places.0.sort_by_key(|place| place.span.start);
    Ok(places.0)
}

/// The places found so far.
struct Places<'m>(Vec<TaskIdAt<'m>>);

impl<'m> Places<'m> {
    fn in_result(&mut self, result: Value<'m>, asked: Option<&str>, era: Era) -> Result<(), &'static str> {
        self.in_related(result)?;
        match (era, asked) {
            (_, Some("tasks/get" | "tasks/cancel" | "tasks/update")) => self.in_task(result),
            (Era::Legacy, Some("tasks/list")) => self.in_list(result),
            // It is what the task's own request would have been answered with.
            (Era::Legacy, Some("tasks/result")) => Ok(()),
            (Era::Legacy, Some(_)) => self.in_created(result),
            (Era::Legacy, None) => {
                self.in_created(result)?;
                self.in_list(result)?;
                self.in_task(result)
            }
            (Era::Modern, Some(_)) => match field(result, "resultType")?.and_then(Value::text) {
                Some("task") => self.in_task(result),
                _ => Ok(()),
            },
            (Era::Modern, None) => self.in_task(result),
        }
    }

    fn in_params(&mut self, params: Value<'m>, method: &str) -> Result<(), &'static str> {
        // Requests about tasks are about the client's, in all they say.
        if method.starts_with("tasks/") {
            return Ok(());
        }
        self.in_related(params)?;
        match method {
            "notifications/tasks/status" | "notifications/tasks" => self.in_task(params),
            "notifications/subscriptions/acknowledged" => self.in_acknowledged(params),
            _ => Ok(()),
        }
    }

    /// The result that made a task of a request.
    fn in_created(&mut self, result: Value<'m>) -> Result<(), &'static str> {
        field(result, "task")?.map_or(Ok(()), |task| self.in_task(task))
    }

    fn in_list(&mut self, result: Value<'m>) -> Result<(), &'static str> {
        let Some(tasks) = field(result, "tasks")? else { return Ok(()) };
        tasks.items().try_for_each(|task| self.in_task(task))
    }

    /// What any message of 2025-11-25 says about the task it belongs to. The extension has no such place, yet a server
    /// of both eras may still name a task here.
    fn in_related(&mut self, object: Value<'m>) -> Result<(), &'static str> {
        let Some(meta) = field(object, "_meta")? else { return Ok(()) };
        field(meta, META_RELATED_TASK)?.map_or(Ok(()), |related| self.in_task(related))
    }

    fn in_acknowledged(&mut self, params: Value<'m>) -> Result<(), &'static str> {
        let Some(filter) = field(params, "notifications")? else { return Ok(()) };
        let Some(ids) = field(filter, "taskIds")? else { return Ok(()) };
        if ids.kind() != Kind::Array {
            return Err(BAD_ID);
        }
        ids.items().try_for_each(|id| self.push(id))
    }

    /// An object that has the id of a task.
    fn in_task(&mut self, task: Value<'m>) -> Result<(), &'static str> {
        field(task, "taskId")?.map_or(Ok(()), |id| self.push(id))
    }

    fn push(&mut self, value: Value<'m>) -> Result<(), &'static str> {
        let id = value.text().ok_or(BAD_ID)?;
        if self.0.len() >= TASK_IDS_MAX {
            return Err(BAD_ID);
        }
        self.0.push(TaskIdAt { span: value.span(), id });
        Ok(())
    }
}

/// The value under a key of an object. No reader may find another one by ignoring case.
fn field<'m>(object: Value<'m>, key: &str) -> Result<Option<Value<'m>>, &'static str> {
    if object.entries().any(|(name, _)| names::is_variant(name, key)) {
        return Err(BAD_KEY);
    }
    Ok(object.get(key))
}
