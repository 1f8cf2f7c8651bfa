//! How is a session or a task written into a token?
//!
//! `version | server | endpoint (8 bytes) | upstream id | principal`, and for a session `revision | since (8 bytes)`;
//! numbers big-endian, each text after its length in two bytes. Nothing may follow: one session has one encoding. What
//! it is, a session or a task, is in the purpose it is sealed for.

use std::sync::Arc;

use crate::session::Session;
use crate::session::Task;

const VERSION: u8 = 1;

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

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend(text.bytes().take(usize::from(length)));
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
    reader.0.is_empty().then_some(session)
}

/// The bytes of `task`. A text longer than a length can say is cut; `seal_task` has refused it before.
pub(super) fn encode_task(task: &Task) -> Vec<u8> {
    let texts = task.server.len() + task.upstream_id.len() + task.principal.len();
    let mut bytes = Vec::with_capacity(1 + 3 * 2 + 8 + texts);
    bytes.push(VERSION);
    put_text(&mut bytes, &task.server);
    bytes.extend_from_slice(&task.endpoint.to_be_bytes());
    put_text(&mut bytes, &task.upstream_id);
    put_text(&mut bytes, &task.principal);
    bytes
}

/// The task that was encoded; `None` unless every byte is accounted for.
pub(super) fn decode_task(bytes: &[u8]) -> Option<Task> {
    let mut reader = Reader(bytes);
    if reader.array::<1>()? != [VERSION] {
        return None;
    }
    let task = Task {
        server: Arc::from(reader.text()?),
        endpoint: u64::from_be_bytes(reader.array()?),
        upstream_id: reader.text()?.to_owned(),
        principal: Arc::from(reader.text()?),
    };
    reader.0.is_empty().then_some(task)
}

/// The bytes not read yet; every read checks that they are there.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}
