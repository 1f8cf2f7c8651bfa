//! The order of steps, the same for every way in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use pingora_proxy::Session;

use crate::call::Action;
use crate::call::Call;
use crate::clock;
use crate::config::model::DenialForm;
use crate::failpoint;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
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
    let action = read_action(inbound.verb, body, entry)?;

    failpoint!("session");
    let conversation = converse(session, &action, &inbound, &principal, runtime, active)?;
    entry.revision = Some(conversation.revision);
    entry.upstream_session = conversation.session.as_ref().map(|session| session.upstream_id.clone());
    entry.lap(Phase::Parse);

    failpoint!("policy");
    let call = Call { server: Arc::clone(&inbound.server), action };
    let permitted = decide(active, &principal, conversation.revision, call)?;
    entry.lap(Phase::Policy);

    failpoint!("intent");
    // Whether the answer is a stream is known only when the call was carried out: too late to send the client away.
    if entry.kind == Some(MessageKind::Request) && runtime.streams_are_full(active) {
        return Err(Refusal::StreamsBusy);
    }
    entry.intend(&permitted).await?;
    entry.lap(Phase::Record);

    failpoint!("exchange");
    exchange::run(Exchange { session, entry, runtime, active, principal, conversation, permitted }).await
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

fn read_action(verb: Verb, body: Bytes, entry: &mut Entry) -> Result<Action, Refusal> {
    if verb == Verb::Delete {
        return Ok(Action::EndSession);
    }
    let message = Message::read(body, &Limits::default()).map_err(|error| {
        entry.id.clone_from(&error.id);
        Refusal::Message(error)
    })?;
    entry.note_message(&message);
    Ok(Action::Message(message))
}

fn converse(
    session: &Session,
    action: &Action,
    inbound: &Inbound,
    principal: &Principal,
    runtime: &Runtime,
    active: &Active,
) -> Result<Conversation, Refusal> {
    let keyring = runtime.keyring(active).ok_or(Refusal::Internal("no_sealing_key"))?;
    let asker = Asker { principal: &principal.id, server: &inbound.server, now_seconds: clock::now_seconds() };
    let headers = &session.req_header().headers;
    match action {
        Action::Message(message) => conversation::of_message(headers, message, &asker, keyring),
        Action::Listen(_) | Action::EndSession => conversation::of_delete(headers, &asker, keyring),
    }
}

fn decide(active: &Active, principal: &Principal, revision: Revision, call: Call) -> Result<Permitted, Refusal> {
    active.snapshot.policy.decide(principal, revision, call).map_err(|denied| {
        let Denied { denial, .. } = *denied;
        let explanation = active.snapshot.explain_to_client.then(|| denial.public_explanation()).flatten();
        Refusal::Denied(Box::new(denial), explanation)
    })
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
    let era = entry.revision.map_or(Era::Legacy, Revision::era);
    let wire = refusal.wire(era == Era::Modern, entry.tool.as_deref());
    let is_notification = matches!(entry.kind, Some(MessageKind::Notification | MessageKind::Response));
    // There is no id under which a JSON-RPC error could answer a notification, so its status must say it.
    let status = if is_notification && wire.status == 200 { 403 } else { wire.status };
    let as_tool_result = (active.snapshot.denial_form == DenialForm::ToolResult
        && entry.tool.is_some()
        && matches!(refusal, Refusal::Denied(..)))
    .then_some(era);
    let header = wire.header.as_ref().map(|(name, value): &(&str, Cow<'_, str>)| (*name, &**value));
    let body = reply::refusal_body(&wire, entry.id.as_deref(), as_tool_result);
    if let Refusal::Upstream(error) = refusal {
        tracing::warn!(server = entry.server.as_deref().unwrap_or_default(), %error, "an upstream failed");
    }
    // A body that was not read whole cannot be told from a next request; one that broke counts as done for Pingora.
    let unread = matches!(refusal, Refusal::Body(_)) || !session.as_downstream_mut().is_body_done();
    if unread {
        session.set_keepalive(None);
    }
    entry.status = Some(status);
    entry.refuse(refusal);
    let headers: Vec<_> = header.into_iter().collect();
    if reply::whole(session, Reply { status, body, headers: &headers }).await.is_ok() && unread {
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
