//! How is a session or a task written into a token?
//!
//! `version | server | endpoint (8 bytes) | upstream id | principal`, for a session then `revision | since (8 bytes)`, and
//! for a task of version 2 `tool`;
//! numbers big-endian, each text after its length in two bytes. Nothing may follow: one session has one encoding. What
//! it is, a session or a task, is in the purpose it is sealed for.

use std::sync::Arc;

use crate::seal::pack::Reader;
use crate::seal::pack::put_text;
use crate::session::Session;
use crate::session::Task;

const VERSION: u8 = 1;
/// A task of which it is known by which tool it was made.
const VERSION_WITH_TOOL: u8 = 2;

/// The bytes of `session`. A text longer than a length can say is cut; `seal` has refused it before.
pub(super) fn encode(session: &Session) -> Vec<u8> {
    let texts = session.server.len() + session.upstream_id.len() + session.principal.len() + session.revision.len();
    let mut bytes = Vec::with_capacity(1 + 4 * 2 + 2 * 8 + texts);
    bytes.push(VERSION);
    put_text(&mut bytes, &session.server);
    bytes.extend_from_slice(&session.endpoint.to_be_bytes());
    put_text(&mut bytes, &session.upstream_id);
    put_text(&mut bytes, &session.principal);
    put_text(&mut bytes, &session.revision);
    bytes.extend_from_slice(&session.since.to_be_bytes());
    bytes
}

/// The session that was encoded; `None` unless every byte is accounted for.
pub(super) fn decode(bytes: &[u8]) -> Option<Session> {
    let mut reader = Reader(bytes);
    if reader.array::<1>()? != [VERSION] {
        return None;
    }
    let session = Session {
        server: Arc::from(reader.text()?),
        endpoint: u64::from_be_bytes(reader.array()?),
        upstream_id: reader.text()?.to_owned(),
        principal: Arc::from(reader.text()?),
        revision: reader.text()?.to_owned(),
        since: u64::from_be_bytes(reader.array()?),
    };
    reader.is_at_end().then_some(session)
}

/// The bytes of `task`. A text longer than a length can say is cut; `seal_task` has refused it before.
pub(super) fn encode_task(task: &Task) -> Vec<u8> {
    let tool = task.tool.as_deref();
    let texts = task.server.len() + task.upstream_id.len() + task.principal.len() + tool.map_or(0, str::len);
    let mut bytes = Vec::with_capacity(1 + 4 * 2 + 8 + texts);
    bytes.push(if tool.is_some() { VERSION_WITH_TOOL } else { VERSION });
    put_text(&mut bytes, &task.server);
    bytes.extend_from_slice(&task.endpoint.to_be_bytes());
    put_text(&mut bytes, &task.upstream_id);
    put_text(&mut bytes, &task.principal);
    if let Some(tool) = tool {
        put_text(&mut bytes, tool);
    }
    bytes
}

/// The task that was encoded; `None` unless every byte is accounted for.
pub(super) fn decode_task(bytes: &[u8]) -> Option<Task> {
    let mut reader = Reader(bytes);
    let has_tool = match reader.byte()? {
        VERSION => false,
        VERSION_WITH_TOOL => true,
        _ => return None,
    };
    let task = Task {
        server: Arc::from(reader.text()?),
        endpoint: u64::from_be_bytes(reader.array()?),
        upstream_id: reader.text()?.to_owned(),
        principal: Arc::from(reader.text()?),
        tool: if has_tool { Some(Arc::from(reader.text()?)) } else { None },
    };
    reader.is_at_end().then_some(task)
}
