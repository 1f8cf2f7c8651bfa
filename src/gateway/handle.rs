//! The order of steps, the same for every way in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use pingora_proxy::Session;

use crate::call::Action;
use crate::call::Call;
use crate::call::Listen;
use crate::clock;
use crate::config::model::DenialForm;
use crate::failpoint;
use crate::mcp::batch;
use crate::mcp::batch::Item;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::message::MessageError;
use crate::mcp::message::MessageKind;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::policy::Denied;
use crate::policy::Permitted;
use crate::principal::Principal;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::telemetry::metrics::Phase;
use crate::transport::body;
use crate::transport::connection::Connection;
use crate::transport::connection::Stage;
use crate::transport::route::Door;

use super::batch as batches;
use super::batch::ITEMS_MAX;
use super::client::Client;
use super::conversation;
use super::conversation::Asker;
use super::conversation::Conversation;
use super::entry::Entry;
use super::exchange;
use super::exchange::Exchange;
use super::inbound;
use super::inbound::Inbound;
use super::inbound::Verb;
use super::refusal::Refusal;
use super::reply;
use super::reply::Reply;
use super::sse;

/// The header by which a client says where to go on.
const LAST_EVENT_ID: &str = "last-event-id";

/// Who asks, of which server, and under what.
pub(crate) struct Caller<'c> {
    pub(crate) runtime: &'c Arc<Runtime>,
    pub(crate) active: &'c Arc<Active>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) server: Arc<str>,
}

/// What is asked, in which conversation, and what of the request's headers goes upstream with it.
pub(crate) struct Ask {
    pub(crate) conversation: Conversation,
    pub(crate) action: Action,
    pub(crate) headers: HeaderMap,
}

/// Handles one request, from its head to the end of its answer, under one snapshot.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn handle(
    session: &mut Session,
    entry: &mut Entry,
    runtime: &Arc<Runtime>,
    active: &Arc<Active>,
) -> Result<(), Refusal> {
    failpoint!("head");
    let inbound = inbound::read_head(session.req_header(), &active.snapshot)?;
    entry.door = Some(inbound.door);
    entry.lap(Phase::Head);

    failpoint!("auth");
    let principal = authenticate(session, &inbound, active)?;
    entry.principal = Some(Arc::clone(&principal));
    // What merely stands where a server's name should may be anything, a key included: not for the record.
    entry.server = crate::config::check_server_name(&inbound.server).is_ok().then(|| Arc::clone(&inbound.server));
    entry.lap(Phase::Auth);

    failpoint!("body");
    let body = read_body(session, active).await?;
    entry.lap(Phase::Body);

    failpoint!("parse");
    let asked = read_asked(session, &inbound, body, entry)?;

    failpoint!("session");
    let caller = Caller { runtime, active, principal, server: inbound.server };
    let conversation = converse(session, &asked, inbound.door, &caller)?;
    entry.revision = Some(conversation.revision);
    entry.upstream_session = conversation.session.as_ref().map(|session| session.upstream_id.clone());
    entry.lap(Phase::Parse);

    let headers = exchange::forwarded_headers(&session.req_header().headers, &conversation, active);
    match asked {
        Asked::Batch(items) => batches::run(session, entry, &caller, (conversation, headers), items).await,
        Asked::One(action) => {
            let ask = Ask { conversation, action, headers };
            match inbound.door {
                Door::SseMessage => sse::take(session, entry, &caller, ask).await,
                Door::Streamable | Door::SseStream => carry_out(Client::Http(session), entry, &caller, ask).await,
            }
        }
    }
}

/// Steps 6 to 16, for one action: decides, records, sends, and answers `client`.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn carry_out(
    client: Client<'_>,
    entry: &mut Entry,
    caller: &Caller<'_>,
    ask: Ask,
) -> Result<(), Refusal> {
    let permitted = permit(entry, caller, &ask.conversation, ask.action).await?;
    failpoint!("exchange");
    exchange::run(Exchange {
        client,
        entry,
        runtime: caller.runtime,
        active: caller.active,
        principal: Arc::clone(&caller.principal),
        conversation: ask.conversation,
        headers: ask.headers,
        permitted,
    })
    .await
}

/// Steps 6 to 12: decides about an action and puts the intent on record.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn permit(
    entry: &mut Entry,
    caller: &Caller<'_>,
    conversation: &Conversation,
    action: Action,
) -> Result<Permitted, Refusal> {
    failpoint!("policy");
    let call = Call { server: Arc::clone(&caller.server), action, opened: Vec::new() };
    let permitted = decide(caller.active, &caller.principal, conversation.revision, call)?;
    entry.lap(Phase::Policy);

    failpoint!("intent");
    // Whether the answer is a stream is known only when the call was carried out: too late to send the client away.
    let may_stream = match &permitted.call().action {
        Action::Message(message) => message.kind() == MessageKind::Request,
        Action::Listen(_) => true,
        Action::EndSession => false,
    };
    if may_stream && caller.runtime.streams_are_full(caller.active) {
        return Err(Refusal::StreamsBusy);
    }
    entry.intend(&permitted).await?;
    entry.lap(Phase::Record);
    Ok(permitted)
}

/// Who calls. A caller who shows nothing is let in only where everybody is.
fn authenticate(session: &Session, inbound: &Inbound, active: &Active) -> Result<Arc<Principal>, Refusal> {
    let snapshot = &active.snapshot;
    let head = session.req_header();
    match snapshot.keys.authenticate(&head.headers, head.uri.query()) {
        Ok(Some(principal)) => Ok(principal),
        Ok(None) if snapshot.policy.reaches(&snapshot.public, &inbound.server) => Ok(Arc::clone(&snapshot.public)),
        Ok(None) => Err(Refusal::KeyMissing),
        Err(error) => Err(Refusal::Key(error)),
    }
}

async fn read_body(session: &mut Session, active: &Active) -> Result<Bytes, Refusal> {
    let body = body::read_whole(session, active.snapshot.body_bytes_max, active.snapshot.body_timeout)
        .await
        .map_err(Refusal::Body)?;
    if let Some(connection) = Connection::current() {
        connection.enter(Stage::Answering);
    }
    Ok(body)
}

/// What a request asks for.
enum Asked {
    One(Action),
    Batch(Vec<Item>),
}

fn read_asked(session: &Session, inbound: &Inbound, body: Bytes, entry: &mut Entry) -> Result<Asked, Refusal> {
    match inbound.verb {
        Verb::Delete => Ok(Asked::One(Action::EndSession)),
        Verb::Get => {
            let mut ids = session.req_header().headers.get_all(LAST_EVENT_ID).iter();
            let id = ids.next().map(http::HeaderValue::as_bytes);
            let listen = Listen::after(id).ok().filter(|_| ids.next().is_none());
            Ok(Asked::One(Action::Listen(listen.ok_or(Refusal::LastEventId)?)))
        }
        Verb::Post => {
            let flawed = |error: MessageError| Refusal::Message(error);
            if batch::is_batch(&body) {
                return batch::read(&body, &Limits::default(), ITEMS_MAX).map(Asked::Batch).map_err(flawed);
            }
            let message = Message::read(body, &Limits::default()).map_err(|error| {
                entry.id.clone_from(&error.id);
                flawed(error)
            })?;
            entry.note_message(&message);
            Ok(Asked::One(Action::Message(message)))
        }
    }
}

fn converse(session: &Session, asked: &Asked, door: Door, caller: &Caller<'_>) -> Result<Conversation, Refusal> {
    let asker = Asker {
        principal: &caller.principal.id,
        server: &caller.server,
        now_seconds: clock::now_seconds(),
        door,
        server_speaks_sse: exchange::speaks_sse(caller.active, &caller.server),
        keyring: caller.runtime.keyring(caller.active).ok_or(Refusal::Internal("no_sealing_key"))?,
    };
    let head = session.req_header();
    match asked {
        Asked::One(Action::Message(message)) => conversation::of_message(head, message, &asker),
        Asked::One(Action::Listen(_)) => conversation::of_stream(head, &asker),
        Asked::One(Action::EndSession) => conversation::of_delete(head, &asker),
        Asked::Batch(_) => conversation::of_batch(head, &asker),
    }
}

fn decide(active: &Active, principal: &Principal, revision: Revision, call: Call) -> Result<Permitted, Refusal> {
    active.snapshot.policy.decide(principal, revision, call).map_err(|denied| {
        let Denied { denial, .. } = *denied;
        let explanation = active.snapshot.explain_to_client.then(|| denial.public_explanation()).flatten();
        Refusal::Denied(Box::new(denial), explanation)
    })
}

/// A refusal as it is answered.
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) header: Option<(&'static str, Cow<'static, str>)>,
}

/// The answer to a refused request; its status goes into the entry.
pub(crate) fn refused(entry: &mut Entry, active: &Active, refusal: &Refusal) -> Refused {
    let era = entry.revision.map_or(Era::Legacy, Revision::era);
    let wire = refusal.wire(era == Era::Modern, entry.tool.as_deref());
    let is_notification = matches!(entry.kind, Some(MessageKind::Notification | MessageKind::Response));
    // Where the answer is read elsewhere than in this body, or by nobody, the status must say it: there is no id under which
    // a JSON-RPC error could answer a notification, and HTTP+SSE clients look at nothing but the status.
    let is_unread = is_notification || entry.door == Some(Door::SseMessage);
    let status = if is_unread && wire.status == 200 { 403 } else { wire.status };
    let as_tool_result = (active.snapshot.denial_form == DenialForm::ToolResult
        && entry.tool.is_some()
        && matches!(refusal, Refusal::Denied(..)))
    .then_some(era);
    let body = reply::refusal_body(&wire, entry.id.as_deref(), as_tool_result);
    if let Refusal::Upstream(error) = refusal {
        tracing::warn!(server = entry.server.as_deref().unwrap_or_default(), %error, "an upstream failed");
    }
    entry.status = Some(status);
    Refused { status, body, header: wire.header }
}

/// Answers a refused request, if its client can still be answered, and closes its entry.
pub(crate) async fn answer_refusal(session: &mut Session, entry: &mut Entry, active: &Active, refusal: &Refusal) {
    if reply::is_begun(session) || matches!(refusal, Refusal::ClientGone) {
        // Nothing honest can follow what was written already but the end of the connection.
        session.set_keepalive(None);
        if let Some(connection) = Connection::current() {
            connection.cut();
        }
        entry.refuse(refusal);
        return;
    }
    // A body that was not read whole cannot be told from a next request; one that broke counts as done for Pingora.
    let unread = matches!(refusal, Refusal::Body(_)) || !session.as_downstream_mut().is_body_done();
    if unread {
        session.set_keepalive(None);
    }
    let refused = refused(entry, active, refusal);
    entry.refuse(refusal);
    let header = refused.header.as_ref().map(|(name, value)| (*name, &**value));
    let headers: Vec<_> = header.into_iter().collect();
    let reply = Reply { status: refused.status, body: refused.body, headers: &headers };
    if reply::whole(session, reply).await.is_ok() && unread {
        body::drain(session).await;
    }
}

/// Answers a load balancer's probe: 200 while new requests are welcome, 503 on the way out.
pub(crate) async fn answer_health(session: &mut Session, draining: bool) {
    let (status, body): (u16, &'static [u8]) =
        if draining { (503, b"{\"status\":\"draining\"}") } else { (200, b"{\"status\":\"ok\"}") };
    // A prober that left needs no answer.
    let _ = reply::whole(
        session,
        Reply { status, body: Bytes::from_static(body), headers: &[("cache-control", "no-store")] },
    )
    .await;
}
