//! Steps 3 and 11: may this caller ask for so much, and may so much be asked of this server?
//!
//! The caller's own rates are asked before the body is read, everything else once policy has permitted the call: a denied call
//! uses up nothing. What is reserved hangs on the [`Entry`], which gives it back where nothing was sent.

use http::header;
use pingora::http::RequestHeader;

use crate::call::Action;
use crate::call::Call;
use crate::clock;
use crate::config::model::Money;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::subscription;
use crate::principal::Principal;
use crate::quota::Rates;
use crate::quota::Use;
use crate::runtime::NotGranted;
use crate::runtime::Reservation;
use crate::transport::route::Door;

use super::conversation::Conversation;
use super::entry::Entry;
use super::handle::Caller;
use super::inbound;
use super::inbound::Verb;
use super::refusal::Refusal;

/// The largest body that is read of somebody who asks too often, so that the answer can go under the request's id, what does not
/// count can pass, and the connection need not be ended.
const SMALL_BODY: u64 = 4 * 1024;

/// What the caller's own rates say of one request.
pub(crate) struct AtDoor(Result<Option<Reservation>, Refusal>);

impl AtDoor {
    /// Counts one request of a caller, before it is known what is asked.
    ///
    /// # Errors
    /// They ask too often, and more would have to be read than is worth it.
    pub(crate) fn ask(head: &RequestHeader, verb: Verb, caller: &Caller<'_>) -> Result<Self, Refusal> {
        if caller.active.snapshot.quotas.limits_no_caller() || verb == Verb::Delete {
            return Ok(Self(Ok(None)));
        }
        match one(caller) {
            Err(refusal) if verb == Verb::Get || !is_small(head) => Err(refusal),
            asked => Ok(Self(asked)),
        }
    }

    /// What becomes of it once it is known what is asked. What never counts is given back. A batch counts, whatever is in it: what
    /// was counted here is for the first of its messages that counts.
    ///
    /// # Errors
    /// They ask too often.
    pub(crate) fn settle(self, counts: bool) -> Result<(), Refusal> {
        match self.0 {
            Err(refusal) if counts => Err(refusal),
            Ok(Some(reservation)) if !counts => {
                reservation.give_back();
                Ok(())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Counts one request of a caller, whatever becomes of it.
///
/// # Errors
/// They ask too often.
pub(crate) fn one(caller: &Caller<'_>) -> Result<Option<Reservation>, Refusal> {
    let quotas = &caller.active.snapshot.quotas;
    let rules = quotas.of_caller(&caller.principal);
    if rules.is_empty() {
        return Ok(None);
    }
    let whose = (&*caller.principal, quotas);
    let granted = caller.runtime.ledger.reserve(rules, Use::at_door(&caller.server), whose, clock::now_micros());
    let mut reservation = granted.map_err(refusal)?;
    reservation.keep();
    Ok(Some(reservation))
}

fn is_small(head: &RequestHeader) -> bool {
    let length = inbound::text(&head.headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    length.is_some_and(|length: u64| length <= SMALL_BODY)
}

/// Counts one message of a batch; the first that counts was counted with the batch.
///
/// # Errors
/// The caller asks too often.
pub(crate) fn item(caller: &Caller<'_>, message: &Message, is_counted: &mut bool) -> Result<(), Refusal> {
    let is_free = caller.active.snapshot.quotas.limits_no_caller() || !counts(message);
    if is_free || std::mem::take(is_counted) { Ok(()) } else { one(caller).map(drop) }
}

/// Whether an action counts as a request. Pings, notifications, answers to a server and the end of a session never do.
pub(crate) fn is_request(action: &Action) -> bool {
    match action {
        Action::Listen(_) => true,
        Action::EndSession => false,
        Action::Message(message) => counts(message),
    }
}

fn counts(message: &Message) -> bool {
    message.kind() == MessageKind::Request && message.method() != Some("ping")
}

/// Reserves what a permitted call uses, all of it or nothing; the entry keeps it until it is closed.
///
/// # Errors
/// A limit is reached.
pub(crate) fn reserve(
    entry: &mut Entry,
    caller: &Caller<'_>,
    conversation: &Conversation,
    call: &Call,
) -> Result<(), Refusal> {
    let quotas = &caller.active.snapshot.quotas;
    // What the gateway does of its own accord is nobody's use.
    if quotas.is_empty() || entry.is_own || !is_request(&call.action) {
        return Ok(());
    }
    let used = use_of(call, conversation, caller);
    let mut rules = quotas.of_caller(&caller.principal);
    rules.extend(quotas.of_call(&call.server, call.tool()).cloned());
    if rules.is_empty() && used.cost == Money::ZERO {
        return Ok(());
    }
    let whose: (&Principal, _) = (&caller.principal, quotas);
    let granted = caller.runtime.ledger.reserve(rules, used, whose, clock::now_micros());
    entry.reserved = Some(Box::new(granted.map_err(refusal)?));
    Ok(())
}

/// What a call uses. A session of HTTP+SSE begins with its stream, others with `initialize`.
fn use_of(call: &Call, conversation: &Conversation, caller: &Caller<'_>) -> Use {
    let is_stream = matches!(call.action, Action::Listen(_));
    let method = call.message().and_then(Message::method).unwrap_or_default();
    let cost = call.tool().map(|tool| caller.active.snapshot.quotas.cost(&call.server, tool));
    Use {
        rates: Rates::Called,
        call: matches!(method, "tools/call" | "prompts/get" | "resources/read"),
        session: match conversation.door {
            Door::Streamable => method == "initialize",
            Door::SseStream => is_stream,
            Door::SseMessage => false,
        },
        stream: is_stream || method == subscription::LISTEN,
        cost: cost.unwrap_or_default(),
        server: call.server.clone(),
    }
}

fn refusal(not_granted: NotGranted) -> Refusal {
    match not_granted {
        NotGranted::Reached(reached) => Refusal::Quota(reached),
        NotGranted::CallersFull { wait } => Refusal::CallersFull { wait },
    }
}
