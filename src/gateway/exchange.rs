//! Steps 13 to 16: ask the upstream as the server's credential, pump its answer, close the entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::audit::Ending;
use crate::clock;
use crate::mcp::document::Limits;
use crate::mcp::error;
use crate::mcp::headers;
use crate::mcp::message::Message;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::policy::Permitted;
use crate::principal::Principal;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::seal;
use crate::session;
use crate::telemetry::metrics::Phase;
use crate::transport::body::Gathered;
use crate::upstream;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Upstream;

use super::conversation::Conversation;
use super::conversation::SESSION_HEADER;
use super::conversation::VERSION_HEADER;
use super::entry::Entry;
use super::inbound;
use super::refusal::Refusal;
use super::reply;
use super::reply::Gone;
use super::reply::Reply;
use super::response_filter::Screen;
use super::response_filter::Verdict;
use super::stream;

/// How long the end of an answer may follow the answer itself before the connection is given up.
const TAIL: Duration = Duration::from_millis(20);

/// A permitted call on its way.
pub(crate) struct Exchange<'x> {
    pub(crate) session: &'x mut Session,
    pub(crate) entry: &'x mut Entry,
    pub(crate) runtime: &'x Arc<Runtime>,
    pub(crate) active: &'x Arc<Active>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) conversation: Conversation,
    pub(crate) permitted: Permitted,
}

/// Asks the upstream and answers the client.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn run(mut exchange: Exchange<'_>) -> Result<(), Refusal> {
    let fleet = Arc::clone(&exchange.active.fleet);
    let upstream = fleet.get(&exchange.permitted.call().server).ok_or(Refusal::Internal("no_upstream"))?;
    let mut screen = Screen::new(exchange.permitted.call().message(), exchange.conversation.revision.era());
    let answer = exchange.send(upstream).await?;
    let media_type = inbound::text(&answer.headers, &header::CONTENT_TYPE).unwrap_or_default();
    match answer.status {
        _ if answer
            .headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) =>
        {
            Err(Refusal::Answer("answer_encoded"))
        }
        status if status.is_success() && !screen.awaits_answer() => exchange.accept().await,
        StatusCode::OK if inbound::is_event_stream(media_type) => {
            stream::pump(&mut exchange, upstream, answer, &mut screen).await
        }
        StatusCode::OK if inbound::is_json(media_type) => exchange.answer_whole(upstream, answer, &mut screen).await,
        status if status.is_client_error() || status.is_server_error() => exchange.answer_error(upstream, answer).await,
        _ => Err(Refusal::Answer("answer_status")),
    }
}

impl Exchange<'_> {
    /// Sends the permitted bytes and waits for the head of the answer.
    async fn send(&mut self, upstream: &Arc<Upstream>) -> Result<upstream::Answer, Refusal> {
        let pinned = self.conversation.session.as_ref().map(|session| Choice::Pinned(session.endpoint));
        let endpoint = upstream.pick(pinned.unwrap_or(Choice::Next)).map_err(Refusal::Upstream)?;
        self.entry.endpoint = Some(endpoint.id());
        // Until it is known better: a client that leaves while the call is out does not undo that it was sent.
        self.entry.attempts = 1;
        let withheld = self.active.snapshot.keys.credential_headers();
        let headers = upstream_headers(&self.session.req_header().headers, &self.conversation, withheld)?;
        let credential = upstream.plan().credential();
        let sent = watched(
            self.session,
            self.conversation.is_modern(),
            upstream.send(&endpoint, &self.permitted, Dispatch { headers, credential, path: None }),
        )
        .await;
        self.entry.lap(Phase::UpstreamWait);
        let sent = sent.map_err(|Gone| Refusal::ClientGone)?;
        self.entry.attempts = sent.as_ref().map_or_else(|error| error.attempts(), |answer| answer.attempts);
        sent.map_err(Refusal::Upstream)
    }

    /// Answers what is only to be accepted: a notification, a client's response, the end of a session.
    async fn accept(&mut self) -> Result<(), Refusal> {
        let status = if self.permitted.call().message().is_some() { 202 } else { 200 };
        self.finish(Ending::Ok, Reply { status, body: Bytes::new(), headers: &[] }).await
    }

    /// Answers with one JSON message.
    async fn answer_whole(
        &mut self,
        upstream: &Upstream,
        mut answer: upstream::Answer,
        screen: &mut Screen,
    ) -> Result<(), Refusal> {
        let body = self.read_whole(upstream, &mut answer).await?;
        let view = self.active.snapshot.policy.view(&self.principal, &self.permitted.call().server);
        let verdict = match screen.whole(body.clone(), view) {
            Verdict::Answer(verdict) => verdict,
            Verdict::Refuse(reason) | Verdict::Drop(reason) => return Err(Refusal::Answer(reason)),
            Verdict::Pass => return Err(Refusal::Answer("answer_kind")),
        };
        let token = self.session_token(&answer.headers, verdict.negotiated)?;
        let headers: Vec<_> = token.as_deref().map(|token| (SESSION_HEADER, token)).into_iter().collect();
        self.finish(verdict.ending, Reply { status: 200, body: verdict.replaced.unwrap_or(body), headers: &headers })
            .await
    }

    /// Answers with the upstream's JSON-RPC error, if it sent one; its own words never pass in any other form.
    async fn answer_error(&mut self, upstream: &Upstream, mut answer: upstream::Answer) -> Result<(), Refusal> {
        let status = answer.status;
        if status == StatusCode::NOT_FOUND && self.conversation.session.is_some() {
            return Err(Refusal::UnknownSession);
        }
        let is_json = inbound::text(&answer.headers, &header::CONTENT_TYPE).is_some_and(inbound::is_json);
        // 401, 402, 403 and 407 are about the gateway's own credential: no concern of its clients.
        if !is_json || matches!(status.as_u16(), 401 | 402 | 403 | 407) || self.permitted.call().message().is_none() {
            return Err(Refusal::UpstreamStatus(status));
        }
        let body = self.read_whole(upstream, &mut answer).await?;
        let body = error_in_own_words(self.entry.id.as_deref(), body).ok_or(Refusal::UpstreamStatus(status))?;
        // Statuses that say something about the message go on; others would make a client or a proxy act on its own.
        let status =
            if matches!(status.as_u16(), 400 | 404 | 409 | 413 | 422 | 429 | 503) { status.as_u16() } else { 502 };
        let retry = inbound::text(&answer.headers, &header::RETRY_AFTER);
        let retry =
            retry.filter(|retry| retry.len() <= 6 && retry.bytes().all(|byte| byte.is_ascii_digit())).map(String::from);
        let headers: Vec<_> = retry.as_deref().map(|retry| ("retry-after", retry)).into_iter().collect();
        self.finish(Ending::RpcError, Reply { status, body, headers: &headers }).await
    }

    /// Reads an answer's body whole, within the server's limits.
    async fn read_whole(&mut self, upstream: &Upstream, answer: &mut upstream::Answer) -> Result<Bytes, Refusal> {
        let bytes_max = upstream.plan().answer_bytes_max();
        if answer.body.length().is_some_and(|length| length > bytes_max as u64) {
            return Err(Refusal::Answer("answer_too_large"));
        }
        let mut body = Gathered::default();
        let watch = self.conversation.is_modern();
        while let Some(chunk) =
            watched(self.session, watch, answer.body.next(answer.deadline)).await.map_err(|Gone| Refusal::ClientGone)?
        {
            let chunk = chunk.map_err(Refusal::Upstream)?;
            self.entry.received.update(&chunk);
            if body.len() + chunk.len() > bytes_max {
                return Err(Refusal::Answer("answer_too_large"));
            }
            body.push(chunk);
        }
        Ok(body.finish())
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
        let Some(upstream_id) = headers.get(SESSION_HEADER) else { return Ok(None) };
        let upstream_id = upstream_id.to_str().map_err(|_| Refusal::Answer("answer_session"))?;
        let Some(revision) = negotiated else {
            let known = self.conversation.session.as_ref().is_some_and(|session| session.upstream_id == upstream_id);
            return Ok(if known { self.conversation.token.clone() } else { None });
        };
        let session = session::Session {
            server: Arc::clone(&self.permitted.call().server),
            endpoint: self.entry.endpoint.unwrap_or_default(),
            upstream_id: upstream_id.to_owned(),
            principal: Arc::clone(&self.principal.id),
            revision: revision.as_str().to_owned(),
            since: clock::now_seconds(),
        };
        self.entry.upstream_session = Some(upstream_id.to_owned());
        let keyring = self.runtime.keyring(self.active).ok_or(Refusal::Internal("no_sealing_key"))?;
        let nonce = seal::fresh_nonce().map_err(|_| Refusal::Sealing)?;
        session::seal(keyring, session::Kind::Streamable, &session, nonce)
            .map(Some)
            .map_err(|_| Refusal::Answer("answer_session"))
    }

    /// Writes a whole answer and closes the entry.
    async fn finish(&mut self, ending: Ending, reply: Reply<'_>) -> Result<(), Refusal> {
        self.entry.status = Some(reply.status);
        let written = reply::whole(self.session, reply).await;
        self.entry.settle(if written.is_ok() { ending } else { Ending::ClientGone });
        if written.is_err() {
            self.session.set_keepalive(None);
        }
        Ok(())
    }
}

/// Reads on after the answer until the upstream ends its body, for a moment, so that the connection can be used again.
pub(crate) async fn finish_body(body: &mut upstream::Body) {
    let deadline = Instant::now() + TAIL;
    while let Some(Ok(_)) = body.next(deadline).await {}
}

/// Waits for `future`, but no longer than the client is there.
///
/// In 2026-07-28 (`modern`) a client cancels by leaving, and the end of what it sends is enough. In the older revisions a
/// client that half-closed still waits for its answer; only a broken connection says that nobody does.
pub(crate) async fn watched<F: Future>(session: &mut Session, modern: bool, future: F) -> Result<F::Output, Gone> {
    session.as_downstream_mut().set_abort_on_close(modern);
    tokio::select! {
        biased;
        output = future => Ok(output),
        // Ready only when the client is gone: what it sends early is held back by the gate.
        _ = session.as_downstream_mut().read_body_or_idle(true) => Err(Gone),
    }
}

/// The headers that go upstream: an allow list, and what the session knows.
fn upstream_headers(
    client: &HeaderMap,
    conversation: &Conversation,
    withheld: &[HeaderName],
) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
    if let Some(version) = client.get(VERSION_HEADER) {
        headers.insert(VERSION_HEADER, version.clone());
    }
    if let Some(session) = &conversation.session {
        let id = HeaderValue::from_str(&session.upstream_id).map_err(|_| Refusal::Internal("session_id"))?;
        headers.insert(SESSION_HEADER, id);
    }
    if conversation.is_modern() {
        for (name, value) in client {
            if is_mirrored(name) && !withheld.contains(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    Ok(headers)
}

/// The upstream's JSON-RPC error under the request's own id: servers that could not read a request answer without one.
fn error_in_own_words(id: Option<&str>, body: Bytes) -> Option<Bytes> {
    let message = Message::read_from_server(body, &Limits::for_answers()).ok()?;
    if message.id().is_some_and(|answered| answered != "null" && Some(answered) != id) {
        return None;
    }
    let error = message.error()?;
    let code = std::str::from_utf8(error.get("code")?.raw()).ok()?.parse().ok()?;
    let data = error.get("data").and_then(|data| std::str::from_utf8(data.raw()).ok());
    Some(error::error_body(id, code, error.get("message")?.text()?, data))
}

/// Headers in which 2026-07-28 repeats parts of the body.
fn is_mirrored(name: &HeaderName) -> bool {
    matches!(name.as_str(), "mcp-method" | "mcp-name") || name.as_str().starts_with(headers::PARAM_PREFIX)
}
