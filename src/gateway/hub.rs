//! How does a client of Streamable HTTP speak with a server of HTTP+SSE?
//!
//! `initialize` opens the server's stream, and the session is that stream: one node reads it and hands out what comes,
//! as [`Hub`] says. From there on each request is answered by events like any other. At another node, or after the
//! stream has ended, the session is unknown, and clients begin a new one.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use tokio::time::Instant;

use crate::audit::Ending;
use crate::call::Action;
use crate::call::Listen;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::sse;
use crate::mcp::sse::Event;
use crate::mcp::sse::Item;
use crate::mcp::sse::Splitter;
use crate::principal::Principal;
use crate::runtime::About;
use crate::runtime::Active;
use crate::runtime::Hub;
use crate::runtime::Kept;
use crate::runtime::Runtime;
use crate::runtime::Unread;
use crate::transport::buffers::Full;
use crate::transport::buffers::Share;
use crate::upstream;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Upstream;

use super::conversation::SESSION_HEADER;
use super::entry::Entry;
use super::exchange;
use super::exchange::Exchange;
use super::handle;
use super::handle::Caller;
use super::inbound::EVENT_STREAM;
use super::refusal::Misplaced;
use super::refusal::Refusal;
use super::reply::Gone;
use super::sse::first_event;
use super::standing;
use super::stream;

/// Carries out what a client of Streamable HTTP asks of a server of HTTP+SSE.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn run(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
    if exchange.conversation.is_modern() {
        return Err(Refusal::Misplaced(Misplaced::OtherEra));
    }
    let hub = match &exchange.conversation.session {
        Some(session) => exchange.runtime.hubs.find(&session.upstream_id).ok_or(Refusal::UnknownSession)?,
        None if exchange.is_initialize() => return begin(exchange, upstream).await,
        None => return Err(Refusal::Misplaced(Misplaced::SessionMissing)),
    };
    exchange.message_path = Some(hub.path().clone());
    match &exchange.permitted.call().action {
        Action::EndSession => {
            hub.close();
            exchange.accept().await
        }
        Action::Listen(_) => {
            let (events, _reads) = hub.stand().map_err(unread)?;
            exchange.entry.keep_use();
            let answer = said(upstream, events, hub.endpoint(), HeaderMap::new())?;
            exchange.answer(upstream, answer).await.map(drop)
        }
        Action::Message(message) if message.kind() == MessageKind::Request => ask(exchange, upstream, &hub, None).await,
        Action::Message(_) => {
            if post(exchange, upstream, &hub).await? {
                exchange.accept().await
            } else {
                Ok(())
            }
        }
    }
}

/// Opens the server's stream and asks it to initialize.
async fn begin(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
    let id = exchange::fresh_id()?;
    let mut entry = exchange.entry.child();
    entry.http_method = Method::GET;
    entry.is_own = true;
    let opened = open(exchange, upstream, &mut entry).await;
    let (hub, answer, splitter) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            let name = refusal.name();
            entry.refuse(&refusal);
            tracing::debug!(reason = name, "the stream of a server could not be opened");
            return Err(refusal);
        }
    };
    let entries_max = exchange.runtime.streams_max(exchange.active.snapshot.streams_max);
    // A conversation that nobody uses is given up for a new one: of the caller itself, or else of whoever is nearest to it, so that
    // neither many minted keys nor many users end the conversations of others.
    let rank = |known: &Hub| Some((known.distance(&hub), known.idle_since()?));
    let (kept, gone) = exchange.runtime.hubs.keep_for(&id, Arc::clone(&hub), entries_max, rank);
    for known in gone {
        tracing::debug!(principal = known.principal(), "an unused conversation made room for another");
        known.close();
    }
    let Some(kept) = kept else {
        entry.settle(Ending::Refused);
        return Err(Refusal::StreamsBusy);
    };
    let reader = Reader {
        hub: Arc::clone(&hub),
        _kept: kept,
        runtime: Arc::clone(exchange.runtime),
        upstream: Arc::clone(upstream),
        principal: Arc::clone(&exchange.principal),
        entry,
    };
    tokio::spawn(reader.read(answer, splitter));
    exchange.pinned = Some(hub.endpoint());
    exchange.message_path = Some(hub.path().clone());
    let begun = ask(exchange, upstream, &hub, Some(&id)).await;
    // Without a session nobody can name the stream again.
    if begun.is_err() || !exchange.has_session {
        hub.close();
    }
    begun
}

type Opened = (Arc<Hub>, upstream::Answer, Splitter);

async fn open(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>, entry: &mut Entry) -> Result<Opened, Refusal> {
    let caller = Caller {
        runtime: exchange.runtime,
        active: exchange.active,
        principal: Arc::clone(&exchange.principal),
        server: Arc::clone(&exchange.permitted.call().server),
    };
    let listen = Action::Listen(Listen::default());
    let headers = exchange::own_headers(exchange.conversation.revision);
    let permitted = handle::permit(entry, &caller, &exchange.conversation, listen, &headers).await?.permitted;
    let choice = if upstream.plan().balances_by_caller() { Choice::Of(&exchange.principal.id) } else { Choice::Next };
    // Pending until the stream has begun.
    let ticket = upstream.pick(choice).map_err(Refusal::Upstream)?;
    entry.endpoint = Some(ticket.id());
    let opening = async {
        let dispatch = Dispatch { headers, path: None, handed: &entry.was_handed };
        let mut answer = upstream.send(&ticket, &permitted, dispatch).await.map_err(Refusal::Upstream)?;
        entry.attempts = answer.attempts;
        if answer.status.is_client_error() || answer.status.is_server_error() {
            return Err(Refusal::UpstreamStatus(answer.status));
        }
        let mut splitter = Splitter::new(upstream.plan().answer_bytes_max());
        let path = match first_event(upstream, entry, &mut answer, &mut splitter).await {
            Ok(path) => path,
            Err(refusal) => {
                if let Refusal::Upstream(error) = &refusal {
                    ticket.failed(error.failure());
                }
                return Err(refusal);
            }
        };
        ticket.succeeded();
        Ok((Arc::new(Hub::new(&exchange.principal, path, ticket.id(), &exchange.runtime.buffers)), answer, splitter))
    };
    exchange.client.watched(false, opening).await.map_err(|Gone| Refusal::ClientGone)?
}

/// Sends a request and answers it with what the server says about it. `session`: what the answer begins.
async fn ask(
    exchange: &mut Exchange<'_>,
    upstream: &Arc<Upstream>,
    hub: &Arc<Hub>,
    session: Option<&str>,
) -> Result<(), Refusal> {
    let message = exchange.permitted.call().message();
    let id = message.and_then(Message::id).ok_or(Refusal::Internal("no_message"))?;
    let token = message.and_then(Message::meta).and_then(|meta| meta.get("progressToken"));
    let token = token.map(Value::raw_text);
    let (events, _reads) = hub.wait(id, token).map_err(unread)?;
    if !post(exchange, upstream, hub).await? {
        return Ok(());
    }
    let mut headers = HeaderMap::new();
    if let Some(session) = session {
        headers.insert(SESSION_HEADER, session.parse().map_err(|_| Refusal::Internal("session_id"))?);
    }
    let mut answer = said(upstream, events, hub.endpoint(), headers)?;
    answer.deadline = Instant::now() + upstream.plan().times(exchange.permitted.call().tool()).timeout;
    exchange.answer(upstream, answer).await.map(drop)
}

/// Posts the message. What the server says to that is whether it took it; if it did not, the client was told.
async fn post(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>, hub: &Hub) -> Result<bool, Refusal> {
    let mut answer = exchange.send(upstream, Some(hub.path().clone())).await?;
    if !answer.status.is_success() {
        return exchange.answer_error(upstream, answer).await.map(|()| false);
    }
    stream::finish_body(&mut answer.body).await;
    Ok(true)
}

fn unread(unread: Unread) -> Refusal {
    match unread {
        Unread::Over => Refusal::UnknownSession,
        Unread::InUse => Refusal::Misplaced(Misplaced::IdInUse),
    }
}

/// What came from the hub, as if it were the server's answer to one request.
fn said(
    upstream: &Upstream,
    events: tokio::sync::mpsc::Receiver<bytes::Bytes>,
    endpoint: u64,
    mut headers: HeaderMap,
) -> Result<upstream::Answer, Refusal> {
    let endpoint = upstream.endpoints().iter().find(|known| known.id() == endpoint).ok_or(Refusal::UnknownSession)?;
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    Ok(upstream::Answer {
        status: StatusCode::OK,
        headers,
        body: upstream::Body::relayed(events, endpoint),
        attempts: 1,
        reused: true,
        deadline: Instant::now() + upstream.plan().times(None).timeout,
    })
}

/// The task that reads the server's stream for as long as the conversation lasts.
struct Reader {
    hub: Arc<Hub>,
    _kept: Kept<Hub>,
    runtime: Arc<Runtime>,
    upstream: Arc<Upstream>,
    principal: Arc<Principal>,
    entry: Entry,
}

impl Reader {
    async fn read(mut self, mut answer: upstream::Answer, mut splitter: Splitter) {
        let ending = self.read_on(&mut answer, &mut splitter).await;
        self.hub.close();
        self.entry.status = Some(200);
        match ending {
            Ok(()) => self.entry.settle(Ending::Ok),
            Err(refusal) => self.entry.refuse(&refusal),
        }
    }

    async fn read_on(&mut self, answer: &mut upstream::Answer, splitter: &mut Splitter) -> Result<(), Refusal> {
        let mut changes = self.runtime.changes();
        let idle = self.upstream.plan().stream_idle_timeout();
        let mut silent_until = Instant::now() + idle;
        let mut is_leaving = false;
        let mut ends_at = self.ends_at(&self.runtime.active())?;
        loop {
            while let Some(item) = splitter.next_item().map_err(|_| Refusal::Answer("answer_event"))? {
                if let Item::Event(event) = item {
                    self.hand_out(&event);
                }
            }
            self.entry.answer.set(splitter.pending_bytes(), Share::Answer).map_err(|Full| Refusal::NoRoom)?;
            if is_leaving && !self.hub.is_asked() {
                return Ok(());
            }
            let unused_until = self.hub.used_at() + idle;
            if unused_until <= Instant::now() {
                return Ok(());
            }
            tokio::select! {
                biased;
                // First, or who talks without a pause would outlive a permission.
                Ok(()) = changes.changed() => {
                    let active = self.runtime.active();
                    is_leaving = !self.runtime.is_open();
                    ends_at = self.ends_at(&active)?;
                    let subject = self.entry.subject(&self.principal);
                    if !active.snapshot.policy.reaches(subject, self.upstream.plan().name()) {
                        return Err(Refusal::Withdrawn);
                    }
                }
                () = tokio::time::sleep_until(ends_at.unwrap_or(unused_until)), if ends_at.is_some() => {
                    return Err(standing::ended(&self.principal));
                }
                chunk = answer.body.next(silent_until) => match chunk {
                    Some(Ok(chunk)) => {
                        self.entry.received.update(&chunk);
                        splitter.feed(&chunk);
                        silent_until = Instant::now() + idle;
                    }
                    Some(Err(error)) if error.is_silence() => return Ok(()),
                    Some(Err(error)) => return Err(Refusal::Upstream(error)),
                    None => return Ok(()),
                },
                () = self.hub.closed() => return Ok(()),
                // The process is on its way out, and waits for what was asked.
                () = tokio::time::sleep(stream::LOOK), if is_leaving => {}
                // A client that neither asks nor listens any more is not waited for, however lively its server is.
                () = tokio::time::sleep_until(unused_until) => {}
            }
        }
    }

    /// When what the caller showed ends.
    ///
    /// # Errors
    /// It is no longer good.
    fn ends_at(&self, active: &Active) -> Result<Option<Instant>, Refusal> {
        let subject = self.entry.subject(&self.principal);
        let ends = standing::uphold(active, subject, &self.entry.whence).map_err(|_| Refusal::Withdrawn)?;
        Ok(ends.map(|ends| Instant::now() + Duration::from_secs(ends.saturating_sub(subject.now))))
    }

    /// Who an event is for is read from its message; whether it may go on is judged where it does.
    fn hand_out(&self, event: &Event) {
        if !event.is_message() {
            return;
        }
        let data = event.data().cloned().unwrap_or_default();
        let Ok(message) = Message::read_from_server(data, &Limits::for_answers()) else {
            tracing::debug!(reason = "answer_malformed", "an event of the upstream was dropped");
            return;
        };
        let token = message.params().and_then(|params| params.get("progressToken"));
        let token = token.map(Value::raw_text);
        let about = match (message.kind(), message.id(), token) {
            (MessageKind::Response, Some(id), _) => About::Answer(id),
            (MessageKind::Response, None, _) => return,
            (MessageKind::Notification, _, Some(token)) => About::Progress(token),
            _ => About::Anything,
        };
        // Nothing can be gone on with after this server's events: an id would promise that.
        self.hub.deliver(sse::message_event(message.body()), about);
    }
}
