//! How is a batch of 2025-03-26 carried out?
//!
//! Each message is judged, recorded and sent by itself, one after the other, as if it had come alone at that moment:
//! under the configuration that is in force by then. What is refused is an error in the one answer, and the others run. Requests and notifications may stand together, responses only with
//! responses, and `initialize` in no batch.

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use pingora::protocols::http::ServerSession;

use crate::call::Action;
use crate::mcp::batch::Item;
use crate::mcp::error;
use crate::mcp::message::MessageKind;
use crate::mcp::sse;
use crate::transport::buffers::Holder;
use crate::transport::buffers::Share;

use super::client::Client;
use super::conversation::Conversation;
use super::debug;
use super::entry::Entry;
use super::exchange::Resume;
use super::handle;
use super::handle::Ask;
use super::handle::Caller;
use super::quota;
use super::refusal::Misplaced;
use super::refusal::Refusal;
use super::reply;
use super::reply::Gone;
use super::reply::Reply;
use super::standing;

/// Messages of one batch.
pub(crate) const ITEMS_MAX: usize = 64;

/// How much longer than the longest body the one answer to a batch may be.
const ANSWER_FACTOR: usize = 4;

/// The answers to the items of a batch, on their way to becoming one.
pub(crate) struct Gathering {
    answers: Vec<Bytes>,
    bytes: usize,
    bytes_max: usize,
    holder: Holder,
    /// Raw JSON of the id of the item that is being carried out.
    id: Option<Box<str>>,
}

impl Gathering {
    fn new(bytes_max: usize, holder: Holder) -> Self {
        Self { answers: Vec::new(), bytes: 0, bytes_max, holder, id: None }
    }

    /// Adds the answer to the present item; one that makes the whole too large becomes an error.
    pub(crate) fn push(&mut self, answer: Bytes) {
        if answer.is_empty() {
            return;
        }
        let bytes = self.bytes.saturating_add(answer.len());
        let refusal = match () {
            () if bytes > self.bytes_max => Some(Refusal::Answer("answer_too_large")),
            () if self.holder.set(bytes, Share::Answer).is_err() => Some(Refusal::NoRoom),
            () => None,
        };
        let answer = refusal.map_or(answer, |refusal| {
            let wire = refusal.wire(false, None);
            error::error_body(self.id.as_deref(), wire.code, &wire.text, None)
        });
        self.bytes = self.bytes.saturating_add(answer.len());
        self.answers.push(answer);
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// One JSON array of all answers; `None` without any.
    fn finish(self) -> Option<Bytes> {
        if self.answers.is_empty() {
            return None;
        }
        let mut whole = BytesMut::with_capacity(self.bytes + self.answers.len() + 1);
        let mut before: &[u8] = b"[";
        for answer in &self.answers {
            whole.extend_from_slice(before);
            whole.extend_from_slice(answer);
            before = b",";
        }
        whole.extend_from_slice(b"]");
        Some(whole.freeze())
    }
}

/// Carries a batch out and answers it.
///
/// # Errors
/// A batch that is refused as a whole, which is still to be answered and put on record.
pub(crate) async fn run(
    session: &mut ServerSession,
    entry: &mut Entry,
    caller: &Caller<'_>,
    (conversation, headers): (Conversation, HeaderMap),
    items: Vec<Item>,
) -> Result<(), Refusal> {
    check(&items)?;
    let bytes_max = caller.active.snapshot.body.bytes_max.saturating_mul(ANSWER_FACTOR);
    let mut gathering = Gathering::new(bytes_max, caller.runtime.buffers.holder());
    let mut is_counted = true;
    for item in items {
        // The items before may have taken long.
        let active = caller.runtime.active();
        let caller = &caller.under(&active);
        let mut entry = entry.child();
        let said = (&conversation, &headers);
        let upheld = standing::uphold(&active, entry.subject(&caller.principal), &entry.whence).map_err(Refusal::Key);
        let carried_out = match upheld {
            Ok(_) => carry_out(session, &mut gathering, &mut entry, caller, said, (item, &mut is_counted)).await,
            Err(refusal) => Err(refusal),
        };
        match carried_out {
            Ok(None) => {}
            // No server may do this in the revision that has batches, and nobody can go on with it from here.
            Ok(Some(_)) => {
                gathering.push(handle::refused(&mut entry, &active, &Refusal::Answer("answer_missing")).body)
            }
            Err(refusal) => {
                let answer = handle::refused(&mut entry, &active, &refusal);
                entry.refuse(&refusal);
                // Clients begin a new session by the status alone.
                let is_lost = matches!(refusal, Refusal::UnknownSession) && gathering.is_empty();
                if matches!(refusal, Refusal::ClientGone) || (is_lost && !reply::is_begun(session)) {
                    return Err(refusal);
                }
                if !matches!(entry.kind, Some(MessageKind::Notification | MessageKind::Response)) {
                    gathering.push(answer.body);
                }
            }
        }
    }
    // Each item has its own records.
    entry.forget();
    let debug = debug::headers(entry);
    let headers: Vec<_> = debug.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answered = answer(session, gathering, &headers).await;
    if answered.is_err() {
        session.set_keepalive(None);
    }
    Ok(())
}

/// Carries one item out, as if it had come alone.
async fn carry_out(
    session: &mut ServerSession,
    gathering: &mut Gathering,
    entry: &mut Entry,
    caller: &Caller<'_>,
    (conversation, headers): (&Conversation, &HeaderMap),
    (item, is_counted): (Item, &mut bool),
) -> Result<Option<Resume>, Refusal> {
    let message = match item {
        Ok(message) => message,
        Err(flaw) => {
            entry.id.clone_from(&flaw.id);
            gathering.id.clone_from(&flaw.id);
            return Err(Refusal::Message(flaw));
        }
    };
    entry.note_message(&message);
    gathering.id.clone_from(&entry.id);
    quota::item(caller, &message, is_counted)?;
    let (conversation, headers) = (conversation.clone(), headers.clone());
    let ask = Ask { conversation, action: Action::Message(message), headers, awaited: None };
    handle::carry_out(Client::Batch(session, gathering), entry, caller, ask).await
}

/// What is wrong with a batch as a whole.
fn check(items: &[Item]) -> Result<(), Refusal> {
    if items.is_empty() {
        return Err(Refusal::Misplaced(Misplaced::BatchEmpty));
    }
    if items.len() > ITEMS_MAX {
        return Err(Refusal::Misplaced(Misplaced::BatchTooLong));
    }
    let messages = || items.iter().filter_map(|item| item.as_ref().ok());
    if messages().any(|message| message.method() == Some("initialize")) {
        return Err(Refusal::Misplaced(Misplaced::BatchInitialize));
    }
    let responses = messages().filter(|message| message.kind() == MessageKind::Response).count();
    if responses > 0 && responses < messages().count() {
        Err(Refusal::Misplaced(Misplaced::BatchMixed))
    } else {
        Ok(())
    }
}

/// Writes the one answer: as JSON, or as the last event where others had to go ahead of it.
async fn answer(
    session: &mut ServerSession,
    gathering: Gathering,
    headers: &[(&'static str, &str)],
) -> Result<(), Gone> {
    let begun = reply::is_begun(session);
    match (gathering.finish(), begun) {
        (Some(body), false) => reply::whole(session, Reply { status: 200, body, headers }).await,
        (None, false) => reply::whole(session, Reply { status: 202, body: Bytes::new(), headers }).await,
        (answers, true) => {
            if let Some(body) = answers {
                reply::stream_piece(session, sse::message_event(&body)).await?;
            }
            reply::stream_end(session).await
        }
    }
}
