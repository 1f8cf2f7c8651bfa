//! How is an HTTP+SSE client served?
//!
//! It reads everything on one stream, whose first event tells it where to post. On a server of the same transport both
//! halves are passed on, and may reach different nodes: the URL it posts to holds a token that any node opens. On a
//! server of Streamable HTTP the gateway makes the requests, and puts the answers into the mailbox of the stream, which
//! lives on one node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http::Method;
use http::header;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use crate::call::Action;
use crate::call::Listen;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::revision::Revision;
use crate::mcp::sse;
use crate::mcp::sse::Item;
use crate::mcp::sse::Splitter;
use crate::runtime::Active;
use crate::runtime::Kept;
use crate::runtime::Mailbox;
use crate::runtime::Runtime;
use crate::session::Kind;
use crate::telemetry::metrics::StreamKind;
use crate::transport::buffers::Full;
use crate::transport::buffers::Share;
use crate::transport::route;
use crate::upstream;
use crate::upstream::Upstream;

use super::client::Client;
use super::conversation::Conversation;
use super::conversation::TOKEN_QUERY;
use super::debug;
use super::entry::Entry;
use super::exchange;
use super::exchange::Exchange;
use super::exchange::Resume;
use super::handle;
use super::handle::Ask;
use super::handle::Caller;
use super::inbound;
use super::refusal::Misplaced;
use super::refusal::Refusal;
use super::reply;
use super::reply::Gone;
use super::reply::Reply;
use super::response_filter::Screen;
use super::stream::PAUSE;
use super::stream::PAUSE_MAX;
use super::stream::Pump;

/// The type of the event that tells a client where to post.
const ENDPOINT: &str = "endpoint";
/// Header by which a proxy in front says what it took off the path.
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";
/// How long a server is left alone at least before a stream is gone on with.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// After so many streams in a row that ended without a word, the answer is given up.
const SILENT_ROUNDS_MAX: u32 = 16;

/// Opens the stream of an HTTP+SSE server for a client of that transport.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn relay(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
    let mut answer = exchange.send(upstream, None).await?;
    if answer.status.is_client_error() || answer.status.is_server_error() {
        return exchange.answer_error(upstream, answer).await;
    }
    let mut splitter = Splitter::new(upstream.plan().answer_bytes_max());
    let opened = first_event(upstream, exchange.entry, &mut answer, &mut splitter);
    let path = exchange.client.watched(false, opened).await.map_err(|Gone| Refusal::ClientGone)??;
    let token = exchange.sealed(Kind::Sse, path.as_str(), Revision::V2024_11_05)?;
    exchange.message_path = Some(path);
    let (mailbox, mail) = Mailbox::new(&exchange.runtime.buffers);
    let _kept = keep(exchange.runtime, &token, Arc::new(mailbox), exchange.active.snapshot.streams_max)?;
    open(exchange, &token).await?;
    let mut screen = Screen::standing(exchange.conversation.revision);
    let pump =
        Pump::new(exchange, upstream, &mut screen, StreamKind::Sse).after(answer, splitter).with_mail(mail, None);
    pump.pump(exchange).await.map(drop)
}

/// Opens the stream of an HTTP+SSE client of a server of Streamable HTTP.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn stand(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
    let id = exchange::fresh_id()?;
    let token = exchange.sealed(Kind::Pair, &id, Revision::V2024_11_05)?;
    let (mailbox, mail) = Mailbox::new(&exchange.runtime.buffers);
    let mailbox = Arc::new(mailbox);
    let kept = keep(exchange.runtime, &id, Arc::clone(&mailbox), exchange.active.snapshot.streams_max)?;
    open(exchange, &token).await?;
    exchange.entry.keep_use();
    let mut screen = Screen::standing(exchange.conversation.revision);
    let pump = Pump::new(exchange, upstream, &mut screen, StreamKind::Sse).with_mail(mail, Some(Arc::clone(&mailbox)));
    let ended = pump.pump(exchange).await.map(drop);
    drop(kept);
    // The stream was the session: nobody can use what is left of it on the server.
    if let Some(session) = mailbox.session().filter(|session| !session.upstream_id.is_empty()) {
        let mut entry = exchange.entry.child();
        entry.http_method = Method::DELETE;
        let own = Own::of(exchange.runtime, &exchange.principal, &session.server);
        let conversation = conversation_of(session);
        tokio::spawn(async move {
            // Nobody reads what comes of it, but as long as it could be read it is waited for.
            let (nobody, _mail) = Mailbox::new(&own.runtime.buffers);
            let ask = own.ask(conversation, Action::EndSession);
            // A refusal is on record.
            let _ = own.carry_out(&Arc::new(nobody), &mut entry, ask).await;
        });
    }
    ended
}

fn keep(runtime: &Runtime, id: &str, mailbox: Arc<Mailbox>, max: Option<usize>) -> Result<Kept<Mailbox>, Refusal> {
    runtime.mailboxes.keep(id, mailbox, runtime.streams_max(max)).ok_or(Refusal::StreamsBusy)
}

/// Writes the head, and the event that tells the client where to post: on the path family it came in by.
async fn open(exchange: &mut Exchange<'_>, token: &str) -> Result<(), Refusal> {
    let Client::Http(session) = &mut exchange.client else { return Err(Refusal::Internal("no_stream")) };
    let head = session.req_header();
    let path = route::message_path(head.uri.path());
    let prefix = forwarded_prefix(&head.headers).unwrap_or_else(|| {
        let host = inbound::text(&head.headers, &header::HOST).unwrap_or_default();
        exchange.active.snapshot.origins.prefix(host)
    });
    let event = format!("event: {ENDPOINT}\ndata: {prefix}{path}?{TOKEN_QUERY}{token}\n\n");
    exchange.entry.status = Some(200);
    let debug = debug::headers(exchange.entry);
    let debug: Vec<_> = debug.iter().map(|(name, value)| (*name, value.as_str())).collect();
    reply::stream_head(session, &debug).await.map_err(|Gone| Refusal::ClientGone)?;
    reply::stream_piece(session, event.into()).await.map_err(|Gone| Refusal::ClientGone)
}

/// What a proxy in front took off the path, if it says so once and in a form that is a path.
fn forwarded_prefix(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(FORWARDED_PREFIX).iter();
    let prefix = lines.next()?.to_str().ok().filter(|_| lines.next().is_none())?;
    crate::transport::origin::is_prefix(prefix).then(|| prefix.trim_end_matches('/'))
}

/// Reads the stream of an HTTP+SSE server up to the event that says where it takes messages.
///
/// # Errors
/// No such event in time, another one first, or a place that is not on the server's own origin.
pub(crate) async fn first_event(
    upstream: &Upstream,
    entry: &mut Entry,
    answer: &mut upstream::Answer,
    splitter: &mut Splitter,
) -> Result<http::uri::PathAndQuery, Refusal> {
    let media_type = inbound::text(&answer.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let is_encoded = answer.headers.contains_key(header::CONTENT_ENCODING);
    if answer.status != http::StatusCode::OK || !inbound::is_event_stream(media_type) || is_encoded {
        return Err(Refusal::Answer("answer_no_stream"));
    }
    let endpoint = upstream.endpoints().iter().find(|endpoint| Some(endpoint.id()) == entry.endpoint);
    let endpoint = endpoint.ok_or(Refusal::Internal("no_upstream"))?;
    let event = loop {
        match splitter.next_item().map_err(|_| Refusal::Answer("answer_event"))? {
            Some(Item::Event(event)) => break event,
            Some(Item::Filler(_)) => continue,
            None => {}
        }
        match answer.body.next(answer.deadline).await {
            Some(chunk) => {
                let chunk = chunk.map_err(Refusal::Upstream)?;
                entry.received.update(&chunk);
                splitter.feed(&chunk);
                entry.answer.set(splitter.pending_bytes(), Share::Answer).map_err(|Full| Refusal::NoRoom)?;
            }
            None => return Err(Refusal::Answer("answer_missing")),
        }
    };
    let data = event.data().filter(|_| event.name() == Some(ENDPOINT)).ok_or(Refusal::Answer("answer_no_endpoint"))?;
    let reference = std::str::from_utf8(data).map_err(|_| Refusal::Answer("answer_no_endpoint"))?;
    endpoint.resolve_path(reference).map_err(|reason| {
        tracing::warn!(reason, endpoint = endpoint.origin(), "a server names no place of its own for messages");
        Refusal::Answer("answer_endpoint")
    })
}

/// Takes a message that an HTTP+SSE client posts. What answers it, a refusal too, goes onto the client's stream where
/// that is open on this node; elsewhere a refusal is the answer to the post.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn take(
    session: &mut ServerSession,
    entry: &mut Entry,
    caller: &Caller<'_>,
    ask: Ask,
) -> Result<(), Refusal> {
    let is_request = entry.kind == Some(MessageKind::Request);
    let named = ask.conversation.session.as_ref().ok_or(Refusal::Misplaced(Misplaced::SseSessionMissing))?;
    let is_pair = !exchange::speaks_sse(caller.active, &caller.server);
    let id = if is_pair { Some(named.upstream_id.as_str()) } else { ask.conversation.token.as_deref() };
    let mailbox = id.and_then(|id| caller.runtime.mailboxes.find(id));
    let taken = match &mailbox {
        Some(mailbox) if is_pair => take_for(session, entry, caller, ask, mailbox).await,
        None if is_pair => return Err(Refusal::UnknownSession),
        _ => handle::carry_out(Client::Http(session), entry, caller, ask).await.map(drop),
    };
    match (taken, mailbox) {
        (Err(refusal), Some(mailbox))
            if is_request && !reply::is_begun(session) && !matches!(refusal, Refusal::ClientGone) =>
        {
            if !refuse_on(&mailbox, entry, caller, &refusal).await {
                return Err(refusal);
            }
            // A client that left needs no acceptance.
            let _ = accept(session, entry).await;
            Ok(())
        }
        (taken, _) => taken,
    }
}

/// Accepts a message that is answered on the stream. Of one that is still to be decided there is not much to tell.
async fn accept(session: &mut ServerSession, entry: &Entry) -> Result<(), Gone> {
    let debug = debug::headers(entry);
    let headers: Vec<_> = debug.iter().map(|(name, value)| (*name, value.as_str())).collect();
    reply::whole(session, Reply { status: 202, body: Bytes::new(), headers: &headers }).await
}

/// Puts a refusal where the answer is awaited. False if nobody reads there any more; then the entry stays open.
async fn refuse_on(mailbox: &Mailbox, entry: &mut Entry, caller: &Caller<'_>, refusal: &Refusal) -> bool {
    let refused = handle::refused(entry, caller.active, refusal);
    // What the message itself was answered with.
    entry.status = Some(202);
    if !mailbox.put(sse::message_event(&refused.body)).await {
        return false;
    }
    entry.refuse(refusal);
    true
}

/// Takes a message for a server of Streamable HTTP. The order in which messages are taken is kept for everything but
/// requests, which are answered in their own time. A server that lost the session ends the client's stream: HTTP+SSE
/// clients begin anew in no other case.
async fn take_for(
    session: &mut ServerSession,
    entry: &mut Entry,
    caller: &Caller<'_>,
    ask: Ask,
    mailbox: &Arc<Mailbox>,
) -> Result<(), Refusal> {
    let conversation = match mailbox.session() {
        Some(settled) => Conversation { token: None, ..conversation_of(settled) },
        None => Conversation { session: None, token: None, ..ask.conversation },
    };
    entry.revision = Some(conversation.revision);
    let own = Own::of(caller.runtime, &caller.principal, &caller.server);
    let Action::Message(message) = &ask.action else { return Err(Refusal::Internal("no_message")) };
    if message.kind() != MessageKind::Request {
        let is_ready = message.method() == Some("notifications/initialized");
        let headers = exchange::own_headers(conversation.revision);
        let ask = Ask { conversation: conversation.clone(), action: ask.action, headers, awaited: None };
        let listener = entry.template();
        let taken = handle::carry_out(Client::Http(session), entry, caller, ask).await;
        if matches!(taken, Err(Refusal::UnknownSession)) && mailbox.begins_to_end() {
            let mailbox = Arc::clone(mailbox);
            // What still waits on the stream may take its time.
            tokio::spawn(async move { mailbox.end().await });
        }
        taken?;
        if is_ready && mailbox.begins_to_listen() {
            tokio::spawn(own.listen(Arc::clone(mailbox), listener, conversation));
        }
        return Ok(());
    }
    let slot = mailbox.slot().ok_or(Refusal::CallsBusy)?;
    accept(session, entry).await.map_err(|Gone| Refusal::ClientGone)?;
    entry.status = Some(202);
    let mailbox = Arc::clone(mailbox);
    let mut entry = entry.hand_over();
    let body = message.body().clone();
    tokio::spawn(async move {
        let follow = entry.template();
        let first = own.carry_out(&mailbox, &mut entry, own.ask(conversation.clone(), ask.action)).await;
        match first {
            // A server may end the stream before its answer, and tell where it goes on.
            Ok(Some(resume)) => own.go_on(&mailbox, &follow, &conversation, body, resume).await,
            Err(Refusal::UnknownSession) => mailbox.end().await,
            Ok(None) | Err(_) => {}
        }
        drop(slot);
    });
    Ok(())
}

/// The conversation that a stream's client has with its server of Streamable HTTP.
fn conversation_of(session: crate::session::Session) -> Conversation {
    let revision = Revision::parse(&session.revision).unwrap_or(Revision::V2025_03_26);
    let session = Some(session).filter(|session| !session.upstream_id.is_empty());
    Conversation { revision, session, token: None, door: crate::transport::route::Door::SseMessage }
}

/// What the gateway does on its own for a client.
struct Own {
    runtime: Arc<Runtime>,
    principal: Arc<crate::principal::Principal>,
    server: Arc<str>,
}

impl Own {
    fn of(runtime: &Arc<Runtime>, principal: &Arc<crate::principal::Principal>, server: &Arc<str>) -> Self {
        Self { runtime: Arc::clone(runtime), principal: Arc::clone(principal), server: Arc::clone(server) }
    }

    fn ask(&self, conversation: Conversation, action: Action) -> Ask {
        let headers = exchange::own_headers(conversation.revision);
        Ask { conversation, action, headers, awaited: None }
    }

    /// Carries an action out under the snapshot in force; answers and refusals go into the mailbox. Boxed, as what it
    /// carries out may be what asks for it.
    ///
    /// # Errors
    /// A refusal, which is on record, and told where an answer is awaited.
    fn carry_out<'o>(
        &'o self,
        mailbox: &'o Arc<Mailbox>,
        entry: &'o mut Entry,
        ask: Ask,
    ) -> BoxFuture<'o, Result<Option<Resume>, Refusal>> {
        Box::pin(async move {
            let active = self.runtime.active();
            let caller = self.caller(&active);
            let refusal = match handle::carry_out(Client::Stream(Arc::clone(mailbox), None), entry, &caller, ask).await
            {
                Ok(resume) => return Ok(resume),
                Err(refusal) => refusal,
            };
            self.tell(mailbox, entry, &caller, &refusal).await;
            Err(refusal)
        })
    }

    fn caller<'c>(&'c self, active: &'c Arc<Active>) -> Caller<'c> {
        let (principal, server) = (Arc::clone(&self.principal), Arc::clone(&self.server));
        Caller { runtime: &self.runtime, active, principal, server }
    }

    /// Puts a refusal on record, and where an answer is awaited.
    async fn tell(&self, mailbox: &Mailbox, entry: &mut Entry, caller: &Caller<'_>, refusal: &Refusal) {
        let is_awaited = entry.id.is_some();
        if !is_awaited || !refuse_on(mailbox, entry, caller, refusal).await {
            entry.refuse(refusal);
        }
    }

    /// Goes on with the answer to a request where a stream ended, until the answer is there or no stream says where to
    /// go on.
    async fn go_on(
        &self,
        mailbox: &Arc<Mailbox>,
        parent: &Entry,
        conversation: &Conversation,
        request: Bytes,
        first: Resume,
    ) {
        let Ok(message) = Message::read(request, &Limits::default()) else { return };
        let mut next = Some(first);
        let mut pace = Pace::default();
        while let Some(Resume { after, pause, has_said }) = next {
            let pause = pace.after(has_said, pause);
            let is_given_up = pace.silent_rounds > SILENT_ROUNDS_MAX;
            if !is_given_up && !pause_for(mailbox, pause).await {
                return;
            }
            let mut entry = parent.child();
            entry.http_method = Method::GET;
            entry.is_own = true;
            // An error in the answer's place goes under the request's id.
            entry.id = message.id().map(Box::from);
            if is_given_up {
                let active = self.runtime.active();
                self.tell(mailbox, &mut entry, &self.caller(&active), &Refusal::Answer("answer_missing")).await;
                return;
            }
            let mut ask = self.ask(conversation.clone(), Action::Listen(Listen { last_event_id: Some(after) }));
            ask.awaited = Some(Screen::new(&message, conversation.revision));
            next = self.carry_out(mailbox, &mut entry, ask).await.unwrap_or_default();
        }
    }

    /// Keeps a standing stream of the server open for as long as the client's is, unless the server has none.
    async fn listen(self, mailbox: Arc<Mailbox>, parent: Entry, conversation: Conversation) {
        let mut last_event_id = None;
        let mut pace = Pace::default();
        loop {
            let mut entry = parent.child();
            entry.http_method = Method::GET;
            entry.is_own = true;
            let action = Action::Listen(Listen { last_event_id: last_event_id.clone() });
            let opened = Instant::now();
            let (has_said, pause) =
                match self.carry_out(&mailbox, &mut entry, self.ask(conversation.clone(), action)).await {
                    Ok(Some(Resume { after, pause, has_said })) => {
                        last_event_id = Some(after);
                        (has_said, pause)
                    }
                    Ok(None) => (false, PAUSE),
                    Err(refusal) if may_pass(&refusal) => (false, PAUSE),
                    Err(_) => return,
                };
            drop(entry);
            // A stream that stood for long was worth it even if nothing was said.
            let pause = pace.after(has_said || opened.elapsed() > PAUSE_MAX, pause);
            if !pause_for(&mailbox, pause).await || !self.runtime.is_open() {
                return;
            }
        }
    }
}

/// How often a server is asked whose streams end: less and less as long as it says nothing.
#[derive(Default)]
struct Pace {
    silent_rounds: u32,
}

impl Pace {
    /// How long to wait after a stream ended, where the server wants to be left alone for `pause`.
    fn after(&mut self, has_said: bool, pause: Duration) -> Duration {
        self.silent_rounds = if has_said { 0 } else { self.silent_rounds + 1 };
        let times = 1_u32.checked_shl(self.silent_rounds.saturating_sub(1)).unwrap_or(u32::MAX);
        pause.max(PAUSE_MIN).saturating_mul(times).min(PAUSE_MAX)
    }
}

/// Whether a standing stream that was refused for this may be had later.
fn may_pass(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Upstream(_) | Refusal::StreamsBusy | Refusal::Record(_) => true,
        Refusal::UpstreamStatus(status) => matches!(status.as_u16(), 429 | 500 | 502..=504),
        _ => false,
    }
}

/// Waits; false if the client's stream ended meanwhile.
async fn pause_for(mailbox: &Mailbox, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = mailbox.gone() => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_says_nothing_is_asked_less_and_less_often_until_it_says_something() {
        let mut pace = Pace::default();
        let seconds = |pauses: Vec<Duration>| pauses.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        let pauses = (0..12).map(|_| pace.after(false, Duration::ZERO)).collect();
        assert_eq!(seconds(pauses), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]);
        let second = Duration::from_secs(1);
        assert_eq!(
            [true, true, false, false].map(|has_said| pace.after(has_said, second)),
            [1, 1, 1, 2].map(|n| second * n)
        );
        let many: Vec<_> = (0..1000).map(|_| pace.after(false, second)).collect();
        assert_eq!(many.last(), Some(&PAUSE_MAX));
        assert!(pace.silent_rounds > SILENT_ROUNDS_MAX);
    }
}
