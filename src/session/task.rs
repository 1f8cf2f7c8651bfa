//! Whose is this task, and where does it live?
//!
//! The gateway keeps no tasks either: the id a client knows a task by is a sealed token that says which endpoint of
//! which server, under which id the server knows the task, and whose it is. Servers repeat a task's id in many
//! messages and clients compare them, so a task has one token for as long as the sealing key stays first, and
//! it is known by which tool it was made.
//!
//! For the same reason no time is in it: a token that changed with the hour would be another task to its client.
//! Nothing is lost by that. A token opens for its owner only, who proves to be the owner with each call, and how long
//! a task lives is its server's to say.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::seal::Keyring;
use crate::session::NAME_BYTES_MAX;
use crate::session::PRINCIPAL_BYTES_MAX;
use crate::session::TOOL_BYTES_MAX;
use crate::session::UPSTREAM_ID_BYTES_MAX;
use crate::session::Unsealable;
use crate::session::codec::decode_task;
use crate::session::codec::encode_task;
use crate::session::unsealed;

const PURPOSE: &[u8] = b"portcullis task";
/// Where nothing but an event's id says whose stream is to go on, that id is sealed like a task's.
const EVENT_PURPOSE: &[u8] = b"portcullis event";

/// What a task's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The server's configured name.
    pub server: Arc<str>,
    /// The endpoint the task lives on, by its stable id.
    pub endpoint: u64,
    /// The task's id at that endpoint: any text that is not empty.
    pub upstream_id: String,
    /// Stable id of the caller whose task it is.
    pub principal: Arc<str>,
    /// The tool that was called for it, where that is known.
    pub tool: Option<Arc<str>>,
}

/// The token that stands for `task`, the same each time: base64url, so that it is a task id and a header value as it
/// is. At most [`TOKEN_BYTES_MAX`](crate::session::TOKEN_BYTES_MAX) bytes.
pub fn seal_task(keyring: &Keyring, task: &Task) -> Result<String, Unsealable> {
    seal_for(PURPOSE, keyring, task)
}

/// The same for an event of a stream outside any session: `upstream_id` is the event's.
pub fn seal_event(keyring: &Keyring, event: &Task) -> Result<String, Unsealable> {
    seal_for(EVENT_PURPOSE, keyring, event)
}

fn seal_for(purpose: &[u8], keyring: &Keyring, task: &Task) -> Result<String, Unsealable> {
    let within = task.upstream_id.len() <= UPSTREAM_ID_BYTES_MAX
        && task.principal.len() <= PRINCIPAL_BYTES_MAX
        && task.server.len() <= NAME_BYTES_MAX
        && task.tool.as_ref().is_none_or(|tool| tool.len() <= TOOL_BYTES_MAX);
    if !within {
        return Err(Unsealable::TooLong);
    }
    if task.upstream_id.is_empty() {
        return Err(Unsealable::EmptyTaskId);
    }
    Ok(URL_SAFE_NO_PAD.encode(keyring.seal_same(purpose, &encode_task(task))))
}

/// The task `token` stands for, if it is this principal's on this server.
pub fn open_task(keyring: &Keyring, token: &str, principal: &str, server: &str) -> Option<Task> {
    open_for(PURPOSE, keyring, token, principal, server)
}

/// The event `token` stands for, if this principal read it on this server.
pub fn open_event(keyring: &Keyring, token: &str, principal: &str, server: &str) -> Option<Task> {
    open_for(EVENT_PURPOSE, keyring, token, principal, server)
}

fn open_for(purpose: &[u8], keyring: &Keyring, token: &str, principal: &str, server: &str) -> Option<Task> {
    let task = decode_task(&unsealed(keyring, purpose, token)?)?;
    (*task.principal == *principal && *task.server == *server).then_some(task)
}
