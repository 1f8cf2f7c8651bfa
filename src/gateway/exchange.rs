//! Steps 13 to 16: ask the upstream as the server's credential, pump its answer, close the entry.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use http::uri::PathAndQuery;

use crate::audit::Ending;
use crate::call::Action;
use crate::call::EventId;
use crate::clock;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::headers;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::mcp::sse::Event;
use crate::policy::Permitted;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::seal;
use crate::session;
use crate::session::Kind;
use crate::telemetry::metrics::Phase;
use crate::telemetry::metrics::StreamKind;
use crate::transport::body::Gathered;
use crate::transport::buffers::Full;
use crate::transport::buffers::Share;
use crate::transport::route::Door;
use crate::upstream;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Failure;
use crate::upstream::Ticket;
use crate::upstream::Upstream;

use super::client::Client;
use super::conversation::Conversation;
use super::conversation::SESSION_HEADER;
use super::conversation::VERSION_HEADER;
use super::debug;
use super::entry::Entry;
use super::hub;
use super::inbound;
use super::refusal::Misplaced;
use super::refusal::Refusal;
use super::reply::Gone;
use super::reply::Reply;
use super::response_filter;
use super::response_filter::Judge;
use super::response_filter::Screen;
use super::response_filter::TaskSealer;
use super::response_filter::Verdict;
use super::sse;
use super::standing::Standing;
use super::stream;

/// A permitted call on its way.
pub(crate) struct Exchange<'x> {
    pub(crate) client: Client<'x>,
    pub(crate) entry: &'x mut Entry,
    pub(crate) runtime: &'x Arc<Runtime>,
    pub(crate) active: &'x Arc<Active>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) conversation: Conversation,
    /// What of the client's headers goes upstream.
    pub(crate) headers: HeaderMap,
    pub(crate) permitted: Permitted,
    /// The endpoint that the call names by a token, if it names one.
    pub(crate) pinned: Option<u64>,
    /// The task that the call names: the server's id, and the client's token for it.
    pub(crate) task: Option<(String, String)>,
    /// Where the server takes messages, if it speaks HTTP+SSE.
    pub(crate) message_path: Option<PathAndQuery>,
    /// What screens the answer that a stream goes on with; `None` for a call of its own.
    pub(crate) awaited: Option<Screen>,
    /// Whether the answer began a session.
    pub(crate) has_session: bool,
    /// What the call holds of its server until it is answered.
    pub(crate) ticket: Option<Ticket>,
}

/// Where a stream that ended before its answer goes on.
#[derive(Debug)]
pub(crate) struct Resume {
    /// The last event that was passed on.
    pub(crate) after: EventId,
    /// How long the server wants to be left alone until then.
    pub(crate) pause: Duration,
    /// Whether a message came on the stream.
    pub(crate) has_said: bool,
}

/// Whether a server of the configuration speaks HTTP+SSE.
pub(crate) fn speaks_sse(active: &Active, server: &str) -> bool {
    active.fleet.get(server).is_some_and(|upstream| upstream.plan().speaks_sse())
}

/// Asks the upstream and answers the client.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn run(exchange: &mut Exchange<'_>) -> Result<Option<Resume>, Refusal> {
    let fleet = Arc::clone(&exchange.active.fleet);
    let upstream = fleet.get(&exchange.permitted.call().server).ok_or(Refusal::Internal("no_upstream"))?;
    let ended = carry(exchange, upstream).await;
    if let Some(ticket) = exchange.ticket.take() {
        match &ended {
            Ok(_) => ticket.succeeded(),
            Err(Refusal::Upstream(error)) => ticket.failed(error.failure()),
            // JSON, but no JSON-RPC error: what stands before a server that is down may answer like this.
            Err(Refusal::UpstreamStatus(status)) if matches!(status.as_u16(), 500 | 502 | 503 | 504) => {
                ticket.gave_up()
            }
            // A client that left or an answer that is not let through says nothing about who answered.
            Err(_) => {}
        }
    }
    ended
}

async fn carry(exchange: &mut Exchange<'_>, upstream: &Arc<Upstream>) -> Result<Option<Resume>, Refusal> {
    match (exchange.conversation.door, upstream.plan().speaks_sse()) {
        (Door::Streamable | Door::SseMessage, false) => exchange.direct(upstream).await,
        (Door::SseStream, true) => sse::relay(exchange, upstream).await.map(|()| None),
        (Door::SseStream, false) => sse::stand(exchange, upstream).await.map(|()| None),
        (Door::SseMessage, true) => exchange.post(upstream).await.map(|()| None),
        (Door::Streamable, true) => Box::pin(hub::run(exchange, upstream)).await.map(|()| None),
    }
}

impl Exchange<'_> {
    /// A message, a stream or the end of a session between a client and a server of Streamable HTTP.
    async fn direct(&mut self, upstream: &Arc<Upstream>) -> Result<Option<Resume>, Refusal> {
        let answer = self.send(upstream, None).await?;
        self.answer(upstream, answer).await
    }

    /// Passes the upstream's answer on, once it is seen to be one.
    pub(crate) async fn answer(
        &mut self,
        upstream: &Arc<Upstream>,
        answer: upstream::Answer,
    ) -> Result<Option<Resume>, Refusal> {
        let is_listen = matches!(self.permitted.call().action, Action::Listen(_));
        // Of what was not asked for at this moment the session knows where it comes from.
        let endpoint = self.conversation.session.as_ref().map(|session| session.endpoint);
        self.entry.endpoint = self.entry.endpoint.or(endpoint);
        let mut screen = match self.awaited.take() {
            Some(screen) => screen,
            None => {
                let sent = self.sent_message()?;
                Screen::of(&self.permitted.call().action, sent.as_ref(), self.conversation.revision)
            }
        };
        let media_type = inbound::text(&answer.headers, &header::CONTENT_TYPE).unwrap_or_default();
        let is_identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        match answer.status {
            _ if !answer.headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) => {
                Err(Refusal::Answer("answer_encoded"))
            }
            status if status.is_success() && !is_listen && !screen.awaits_answer() => {
                self.accept().await.map(|()| None)
            }
            StatusCode::OK if inbound::is_event_stream(media_type) => {
                let stands = screen.is_subscription() || (is_listen && !screen.awaits_answer());
                let kind = if stands { StreamKind::Standing } else { StreamKind::Answer };
                stream::Pump::new(self, upstream, &mut screen, kind).from(answer).pump(self).await
            }
            StatusCode::OK if inbound::is_json(media_type) && !is_listen => {
                self.answer_whole(upstream, answer, &mut screen).await.map(|()| None)
            }
            status if status.is_client_error() || status.is_server_error() => {
                self.answer_error(upstream, answer).await.map(|()| None)
            }
            _ => Err(Refusal::Answer("answer_status")),
        }
    }

    /// A message of an HTTP+SSE client for a server of that transport, whose answer goes out on the client's stream.
    async fn post(&mut self, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
        let session = self.conversation.session.as_ref().ok_or(Refusal::Misplaced(Misplaced::SessionMissing))?;
        let path = session.upstream_id.parse().map_err(|_| Refusal::Internal("session_id"))?;
        let answer = self.send(upstream, Some(path)).await?;
        if answer.status.is_success() { self.accept().await } else { self.answer_error(upstream, answer).await }
    }

    /// Sends the permitted bytes and waits for the head of the answer. `path`: where an HTTP+SSE server takes messages.
    pub(crate) async fn send(
        &mut self,
        upstream: &Arc<Upstream>,
        path: Option<PathAndQuery>,
    ) -> Result<upstream::Answer, Refusal> {
        let session = self.conversation.session.as_ref();
        let choice = match self.pinned.or(session.map(|session| session.endpoint)) {
            Some(endpoint) => Choice::Pinned(endpoint),
            // Without a session a server may still remember who asked: it had better be the same one each time.
            None if upstream.plan().balances_by_caller() => Choice::Of(&self.principal.id),
            None if !self.conversation.is_modern() && !self.is_initialize() => Choice::Of(&self.principal.id),
            None => Choice::Next,
        };
        let ticket = &*self.ticket.insert(upstream.pick(choice).map_err(Refusal::Upstream)?);
        self.entry.endpoint = Some(ticket.id());
        // Until it is known better: a client may leave meanwhile.
        self.entry.attempts = 1;
        let mut headers = std::mem::take(&mut self.headers);
        if let Some(session) = session.filter(|_| !upstream.plan().speaks_sse()) {
            let id = HeaderValue::from_str(&session.upstream_id).map_err(|_| Refusal::Internal("session_id"))?;
            headers.insert(SESSION_HEADER, id);
        }
        #[cfg(feature = "otlp")]
        self.entry.tell_server(&mut headers);
        let sent = {
            let dispatch = Dispatch { headers, path, handed: &self.entry.was_handed };
            // Pinned here, so that what watches it holds a pointer and not the whole of it twice.
            let sending = std::pin::pin!(upstream.send(ticket, &self.permitted, dispatch));
            let mut sent = std::pin::pin!(self.client.watched(self.conversation.is_modern(), sending));
            let standing = Standing {
                runtime: self.runtime,
                subject: self.entry.subject(&self.principal),
                whence: &self.entry.whence,
                revision: self.conversation.revision,
                call: self.permitted.call(),
            };
            tokio::select! {
                biased;
                sent = &mut sent => Ok(sent),
                () = standing.withdrawn(self.active.snapshot.revision) => Err(Refusal::Withdrawn),
            }
        };
        self.entry.lap(Phase::UpstreamWait);
        let sent = sent?.map_err(|Gone| Refusal::ClientGone)?;
        self.entry.attempts = sent.as_ref().map_or_else(|error| error.attempts(), |answer| answer.attempts);
        sent.map_err(Refusal::Upstream)
    }

    /// The message as it is sent, where that is not as it came.
    fn sent_message(&self) -> Result<Option<Message>, Refusal> {
        let Some(message) = self.permitted.call().message() else { return Ok(None) };
        let sent = self.permitted.body().unwrap_or_default();
        if sent.as_ptr() == message.body().as_ptr() {
            return Ok(None);
        }
        Message::read(sent, &Limits::default()).map(Some).map_err(|_| Refusal::Internal("rewritten"))
    }

    /// The answer is a stream that stands: nobody waits for its end, so the call is no longer pending.
    pub(crate) fn stands(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.succeeded();
        }
    }

    /// The upstream broke off an answer whose head went out already.
    pub(crate) fn broke(&mut self, failure: Failure) {
        if let Some(ticket) = self.ticket.take() {
            ticket.failed(failure);
        }
    }

    /// Whether the call begins a session.
    pub(crate) fn is_initialize(&self) -> bool {
        self.permitted.call().message().and_then(Message::method) == Some("initialize")
    }

    /// Answers what is only to be accepted: a notification, a client's response, the end of a session.
    pub(crate) async fn accept(&mut self) -> Result<(), Refusal> {
        let status = if self.permitted.call().message().is_some() { 202 } else { 200 };
        // The answer to a request of an HTTP+SSE client is seen by the node that has its stream.
        let answered_elsewhere = self.entry.kind == Some(MessageKind::Request);
        let ending = if answered_elsewhere { Ending::Accepted } else { Ending::Ok };
        self.finish(ending, Reply { status, body: Bytes::new(), headers: &[] }).await
    }

    /// Answers with one JSON message.
    async fn answer_whole(
        &mut self,
        upstream: &Upstream,
        mut answer: upstream::Answer,
        screen: &mut Screen,
    ) -> Result<(), Refusal> {
        let body = self.read_whole(upstream, &mut answer).await?;
        let verdict = match screen.whole(body.clone(), &self.judge(self.active)) {
            Verdict::Answer(verdict) => verdict,
            Verdict::Refuse(reason) | Verdict::Drop(reason) => return Err(Refusal::Answer(reason)),
            Verdict::Pass(_) | Verdict::Decline(_) => return Err(Refusal::Answer("answer_kind")),
        };
        self.entry.answered_with(verdict.error_code);
        let token = self.session_token(&answer.headers, verdict.negotiated)?;
        let headers: Vec<_> = token.as_deref().map(|token| (SESSION_HEADER, token)).into_iter().collect();
        self.finish(verdict.ending, Reply { status: 200, body: verdict.replaced.unwrap_or(body), headers: &headers })
            .await
    }

    /// Answers with the upstream's JSON-RPC error, if it sent one; its own words never pass in any other form.
    pub(crate) async fn answer_error(
        &mut self,
        upstream: &Upstream,
        mut answer: upstream::Answer,
    ) -> Result<(), Refusal> {
        let status = answer.status;
        if status == StatusCode::NOT_FOUND && self.conversation.session.is_some() {
            return Err(Refusal::UnknownSession);
        }
        let is_json = inbound::text(&answer.headers, &header::CONTENT_TYPE).is_some_and(inbound::is_json);
        let ends_session = matches!(self.permitted.call().action, Action::EndSession);
        // Of a stream that the gateway opens of its own accord an HTTP+SSE client knows nothing.
        let is_own = self.client.mailbox().is_some() && self.permitted.call().message().is_none();
        // 401, 402, 403 and 407 are about the gateway's own credential: no concern of its clients.
        if !is_json || matches!(status.as_u16(), 401 | 402 | 403 | 407) || ends_session || is_own {
            return Err(Refusal::UpstreamStatus(status));
        }
        let body = self.read_whole(upstream, &mut answer).await?;
        let body = self.error_in_own_words(body)?.ok_or(Refusal::UpstreamStatus(status))?;
        // Statuses that say something about the message go on; others would make a client or a proxy act on its own.
        let status = if matches!(status.as_u16(), 400 | 404 | 405 | 409 | 413 | 422 | 429 | 503) {
            status.as_u16()
        } else {
            502
        };
        let retry = inbound::text(&answer.headers, &header::RETRY_AFTER);
        let retry =
            retry.filter(|retry| retry.len() <= 6 && retry.bytes().all(|byte| byte.is_ascii_digit())).map(String::from);
        let headers: Vec<_> = retry.as_deref().map(|retry| ("retry-after", retry)).into_iter().collect();
        self.finish(Ending::RpcError, Reply { status, body, headers: &headers }).await
    }

    /// The upstream's JSON-RPC error under the request's own id: servers that could not read a request answer without one.
    fn error_in_own_words(&mut self, body: Bytes) -> Result<Option<Bytes>, Refusal> {
        let id = self.entry.id.as_deref();
        let error_of = |body| {
            let message = Message::read_from_server(body, &Limits::for_answers()).ok()?;
            let is_other = message.id().is_some_and(|answered| answered != "null" && Some(answered) != id);
            (!is_other && message.error().is_some()).then_some(message)
        };
        let Some(message) = error_of(body) else { return Ok(None) };
        let screened = response_filter::screened_error(&message, &self.judge(self.active)).map_err(Refusal::Answer)?;
        let Some(message) = screened.map_or(Some(message), error_of) else { return Ok(None) };
        let told = message.error().and_then(|error| {
            let code = error.get("code")?.raw_text().parse().ok()?;
            let data = error.get("data").map(Value::raw_text);
            Some((code, error::error_body(id, code, error.get("message")?.text()?, data)))
        });
        self.entry.answered_with(told.as_ref().map(|(code, _)| i64::from(*code)));
        Ok(told.map(|(_, body)| body))
    }

    /// Reads an answer's body whole, within the server's limits.
    async fn read_whole(&mut self, upstream: &Upstream, answer: &mut upstream::Answer) -> Result<Bytes, Refusal> {
        let bytes_max = upstream.plan().answer_bytes_max();
        if answer.body.length().is_some_and(|length| length > bytes_max as u64) {
            return Err(Refusal::Answer("answer_too_large"));
        }
        let mut body = Gathered::expecting(answer.body.length());
        let watch = self.conversation.is_modern();
        loop {
            answer.deadline += self.client.room(body.len()).await.map_err(|Gone| Refusal::ClientGone)?;
            let standing = Standing {
                runtime: self.runtime,
                subject: self.entry.subject(&self.principal),
                whence: &self.entry.whence,
                revision: self.conversation.revision,
                call: self.permitted.call(),
            };
            let next = tokio::select! {
                biased;
                next = self.client.watched(watch, answer.body.next(answer.deadline)) => next,
                () = standing.withdrawn(self.active.snapshot.revision) => return Err(Refusal::Withdrawn),
            };
            let Some(chunk) = next.map_err(|Gone| Refusal::ClientGone)? else { break };
            let chunk = chunk.map_err(Refusal::Upstream)?;
            self.entry.received.update(&chunk);
            if body.len() + chunk.len() > bytes_max {
                return Err(Refusal::Answer("answer_too_large"));
            }
            self.entry.answer.set(body.len() + chunk.len(), Share::Answer).map_err(|Full| Refusal::NoRoom)?;
            body.push(chunk);
            self.check_still_permitted()?;
        }
        self.check_still_permitted()?;
        Ok(body.finish())
    }

    /// The call, as it is judged again.
    pub(crate) fn standing(&self) -> Standing<'_> {
        Standing {
            runtime: self.runtime,
            subject: self.entry.subject(&self.principal),
            whence: &self.entry.whence,
            revision: self.conversation.revision,
            call: self.permitted.call(),
        }
    }

    /// Whether the configuration in force still permits the call.
    fn check_still_permitted(&self) -> Result<(), Refusal> {
        self.standing().check_again(self.active.snapshot.revision).map(drop)
    }

    /// The session token that goes with the answer: a fresh one where the upstream opened a session, the client's own
    /// where the upstream repeats the one it knows, otherwise none.
    pub(crate) fn session_token(
        &mut self,
        headers: &HeaderMap,
        negotiated: Option<Revision>,
    ) -> Result<Option<String>, Refusal> {
        if self.conversation.revision.era() == Era::Modern {
            return Ok(None);
        }
        if let Some(revision) = negotiated {
            self.entry.revision = Some(revision);
        }
        let Some(upstream_id) = headers.get(SESSION_HEADER) else {
            self.settle_stream(None, negotiated);
            return Ok(None);
        };
        let upstream_id = upstream_id.to_str().map_err(|_| Refusal::Answer("answer_session"))?;
        let Some(revision) = negotiated else {
            let known = self.conversation.session.as_ref().is_some_and(|session| session.upstream_id == upstream_id);
            return Ok(if known { self.conversation.token.clone() } else { None });
        };
        self.entry.upstream_session = Some(upstream_id.to_owned());
        self.has_session = true;
        if self.client.mailbox().is_some() {
            self.settle_stream(Some(upstream_id), negotiated);
            return Ok(None);
        }
        let kind = if speaks_sse(self.active, &self.permitted.call().server) { Kind::Pair } else { Kind::Streamable };
        self.sealed(kind, upstream_id, revision).map(Some)
    }

    /// A token for a conversation of this caller with this server.
    ///
    /// # Errors
    /// Nothing to seal with, or an upstream's id that cannot be sealed.
    pub(crate) fn sealed(&self, kind: Kind, upstream_id: &str, revision: Revision) -> Result<String, Refusal> {
        let keyring = self.runtime.keyring(self.active).ok_or(Refusal::Internal("no_sealing_key"))?;
        let nonce = seal::fresh_nonce().map_err(|_| Refusal::Sealing)?;
        let session = self.session_of(upstream_id, revision);
        session::seal(keyring, kind, &session, nonce).map_err(|_| Refusal::Answer("answer_session"))
    }

    fn session_of(&self, upstream_id: &str, revision: Revision) -> session::Session {
        session::Session {
            server: Arc::clone(&self.permitted.call().server),
            endpoint: self.entry.endpoint.unwrap_or_default(),
            upstream_id: upstream_id.to_owned(),
            principal: Arc::clone(&self.principal.id),
            revision: revision.as_str().to_owned(),
            since: clock::now_seconds(),
        }
    }

    /// Notes on the stream of an HTTP+SSE client what was settled with its server of Streamable HTTP.
    fn settle_stream(&self, upstream_id: Option<&str>, negotiated: Option<Revision>) {
        if let (Some(mailbox), Some(revision)) = (self.client.mailbox(), negotiated) {
            mailbox.settle(self.session_of(upstream_id.unwrap_or_default(), revision));
        }
    }

    /// An event as this client may know it. Outside a session nothing but its id says whose stream it is to go on with, so
    /// the id is sealed.
    pub(crate) fn event_of_its_own<'e>(&self, event: &'e Event) -> Cow<'e, Event> {
        let conversation = &self.conversation;
        let is_told_by_session = conversation.session.is_some() || self.is_initialize();
        let Some(id) = event.id().filter(|id| !id.is_empty()) else { return Cow::Borrowed(event) };
        if is_told_by_session || conversation.is_modern() || self.client.mailbox().is_some() {
            return Cow::Borrowed(event);
        }
        let own = session::Task {
            server: Arc::clone(&self.permitted.call().server),
            endpoint: self.entry.endpoint.unwrap_or_default(),
            upstream_id: id.to_owned(),
            principal: Arc::clone(&self.principal.id),
            tool: None,
        };
        let keyring = self.runtime.keyring(self.active);
        let token = keyring.and_then(|keyring| session::seal_event(keyring, &own).ok());
        Cow::Owned(event.with_id(token.as_deref()))
    }

    /// Who asks, now.
    pub(crate) fn subject(&self) -> Subject<'_> {
        self.entry.subject(&self.principal)
    }

    /// What the server's messages are held against, under a snapshot.
    pub(crate) fn judge<'a>(&'a self, active: &'a Active) -> Judge<'a> {
        let server = &self.permitted.call().server;
        Judge {
            view: active.snapshot.policy.view(self.subject(), server),
            is_anybody: self.principal.is_public(),
            tasks: TaskSealer {
                keyring: self.runtime.keyring(active),
                server,
                endpoint: self.entry.endpoint.unwrap_or_default(),
                principal: &self.principal.id,
                tool: self.permitted.call().tool(),
                known: &self.runtime.tasks,
                named: self.task.as_ref().map(|(id, token)| (id.as_str(), token.as_str())),
            },
            catalog: &self.runtime.catalog,
            server,
            fleet: &active.fleet,
        }
    }

    /// Writes a whole answer and closes the entry.
    async fn finish(&mut self, ending: Ending, reply: Reply<'_>) -> Result<(), Refusal> {
        // A message of an HTTP+SSE client has been answered already; this is for its stream.
        if self.client.mailbox().is_none() {
            self.entry.status = Some(reply.status);
        }
        let debug = debug::headers(self.entry);
        let headers: Vec<_> =
            reply.headers.iter().copied().chain(debug.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        let written = self.client.whole(Reply { headers: &headers, ..reply }).await;
        self.entry.settle(if written.is_ok() { ending } else { Ending::ClientGone });
        if written.is_err() {
            self.client.give_up();
        }
        Ok(())
    }
}

/// A fresh id for what lives on this node.
///
/// # Errors
/// No randomness.
pub(crate) fn fresh_id() -> Result<String, Refusal> {
    let nonce = seal::fresh_nonce().map_err(|_| Refusal::Sealing)?;
    Ok(URL_SAFE_NO_PAD.encode(nonce))
}

fn basic_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
    headers
}

/// The headers of what the gateway asks on its own in a conversation of this revision.
pub(crate) fn own_headers(revision: Revision) -> HeaderMap {
    let mut headers = basic_headers();
    if revision >= Revision::V2025_06_18 {
        headers.insert(VERSION_HEADER, HeaderValue::from_static(revision.as_str()));
    }
    headers
}

/// The headers that go upstream: an allow list.
pub(crate) fn forwarded_headers(client: &HeaderMap, conversation: &Conversation, active: &Active) -> HeaderMap {
    let withheld = active.snapshot.keys.credential_headers();
    let mut headers = basic_headers();
    if let Some(version) = client.get(VERSION_HEADER) {
        headers.insert(VERSION_HEADER, version.clone());
    }
    if conversation.is_modern() {
        for (name, value) in client {
            if is_mirrored(name) && !withheld.contains(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    headers
}

/// Headers in which 2026-07-28 repeats parts of the body.
fn is_mirrored(name: &HeaderName) -> bool {
    matches!(name.as_str(), "mcp-method" | "mcp-name") || name.as_str().starts_with(headers::PARAM_PREFIX)
}
