//! An answering event stream: screened and flushed event by event.
//!
//! The stream holds no snapshot: when the configuration changes under it, it is decided again under the new one.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::audit::Ending;
use crate::mcp::error;
use crate::mcp::revision::Revision;
use crate::mcp::sse;
use crate::mcp::sse::Event;
use crate::mcp::sse::Item;
use crate::mcp::sse::Splitter;
use crate::runtime::Active;
use crate::upstream;
use crate::upstream::Upstream;
use crate::upstream::UpstreamError;

use super::conversation::SESSION_HEADER;
use super::exchange;
use super::exchange::Exchange;
use super::refusal::Refusal;
use super::reply;
use super::reply::Gone;
use super::response_filter::Screen;
use super::response_filter::Verdict;

/// A stream under way.
struct Pump<'p> {
    screen: &'p mut Screen,
    splitter: Splitter,
    /// Screened bytes that wait to be written.
    ready: BytesMut,
    /// The snapshot the stream was last decided under.
    active: Arc<Active>,
    /// How the request ended, once its answer was seen.
    ended: Option<Ending>,
    negotiated: Option<Revision>,
    /// Tells when the configuration has changed.
    revisions: watch::Receiver<u64>,
}

/// Passes the events of `answer` on to the client until the request is answered.
///
/// # Errors
/// The refusal still to be put on record, and to be answered if nothing was written yet.
pub(crate) async fn pump(
    exchange: &mut Exchange<'_>,
    upstream: &Upstream,
    mut answer: upstream::Answer,
    screen: &mut Screen,
) -> Result<(), Refusal> {
    let _open = exchange.runtime.metrics.streams().hold();
    let mut pump = Pump {
        splitter: Splitter::new(upstream.plan().answer_bytes_max()),
        ready: BytesMut::new(),
        active: Arc::clone(exchange.active),
        ended: None,
        negotiated: None,
        revisions: exchange.runtime.revisions(),
        screen,
    };
    // The configuration may have changed while the head was awaited; from here on, changes are told.
    pump.decide_again(exchange)?;
    // The answer to `initialize` brings the session, which belongs into the head: the head waits for it.
    if !pump.screen.is_initialize() {
        write_head(exchange, &answer, None).await?;
    }
    let broken = pump.run(exchange, upstream, &mut answer).await.err();
    pump.finish(exchange, &mut answer, broken).await
}

impl Pump<'_> {
    /// Reads, screens and writes until the answer went out.
    async fn run(
        &mut self,
        exchange: &mut Exchange<'_>,
        upstream: &Upstream,
        answer: &mut upstream::Answer,
    ) -> Result<(), Refusal> {
        let watch = exchange.conversation.is_modern();
        let mut deadline = Instant::now() + upstream.plan().sse_read_timeout();
        while self.ended.is_none() {
            let next = exchange::watched(
                exchange.session,
                watch,
                next_or_reload(&mut answer.body, deadline, &mut self.revisions),
            )
            .await;
            let chunk = match next.map_err(|Gone| Refusal::ClientGone)? {
                Next::Chunk(chunk) => chunk.map_err(Refusal::Upstream)?,
                Next::End => return Err(Refusal::Answer("answer_missing")),
                // A silent stream is decided again as well, and stays as silent as it was.
                Next::Reload => {
                    self.decide_again(exchange)?;
                    continue;
                }
            };
            deadline = Instant::now() + upstream.plan().sse_read_timeout();
            exchange.entry.received.update(&chunk);
            self.decide_again(exchange)?;
            self.splitter.feed(&chunk);
            let screened = self.screen_events(exchange);
            if self.ended.is_some() && self.screen.is_initialize() {
                let negotiated = self.negotiated;
                write_head(exchange, answer, negotiated).await?;
            }
            if reply::is_begun(exchange.session) && !self.ready.is_empty() {
                let piece = self.ready.split().freeze();
                reply::stream_piece(exchange.session, piece).await.map_err(|Gone| Refusal::ClientGone)?;
            }
            if self.ready.len() > upstream.plan().answer_bytes_max() {
                return Err(Refusal::Answer("answer_too_large"));
            }
            screened?;
        }
        Ok(())
    }

    /// Screens every complete event that was fed.
    fn screen_events(&mut self, exchange: &Exchange<'_>) -> Result<(), Refusal> {
        let active = Arc::clone(&self.active);
        let view = active.snapshot.policy.view(&exchange.principal, &exchange.permitted.call().server);
        while self.ended.is_none() {
            let Some(item) = self.splitter.next_item().map_err(|_| Refusal::Answer("answer_event"))? else { break };
            match item {
                // Clients ignore events of other types; nothing in them was screened for them, and none is an answer.
                Item::Event(event) if event.data().is_some_and(|data| !data.is_empty()) && !event.is_message() => {
                    tracing::debug!(reason = "event_type", "an event of the upstream was dropped");
                }
                Item::Event(event) if event.is_message() => {
                    let verdict = self.screen.event(event.data().cloned().unwrap_or_default(), view);
                    self.take(&event, verdict)?;
                }
                // Events that only carry an id or a retry time.
                Item::Event(event) => self.ready.extend_from_slice(&event.forwarded()),
                // A comment keeps the connection alive; its text was screened for nobody.
                Item::Filler(line) if line.starts_with(b":") => self.ready.extend_from_slice(b":\n"),
                Item::Filler(_) => self.ready.extend_from_slice(b"\n"),
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Pass => self.ready.extend_from_slice(&event.forwarded()),
            Verdict::Drop(reason) => tracing::debug!(reason, "an event of the upstream was dropped"),
            Verdict::Refuse(reason) => return Err(Refusal::Answer(reason)),
            Verdict::Answer(answer) => {
                match answer.replaced {
                    Some(body) => self.ready.extend_from_slice(&event.render(&body)),
                    None => self.ready.extend_from_slice(&event.forwarded()),
                }
                self.ended = Some(answer.ending);
                self.negotiated = answer.negotiated;
            }
        }
        Ok(())
    }

    /// Decides the stream again if the configuration changed since it was last decided.
    fn decide_again(&mut self, exchange: &Exchange<'_>) -> Result<(), Refusal> {
        if exchange.runtime.revision() == self.active.snapshot.revision {
            return Ok(());
        }
        self.active = exchange.runtime.active();
        let call = exchange.permitted.call();
        let policy = &self.active.snapshot.policy;
        let allowed = match call.tool() {
            Some(tool) => policy.view(&exchange.principal, &call.server).lists(tool),
            None => policy.reaches(&exchange.principal, &call.server),
        };
        if allowed { Ok(()) } else { Err(Refusal::Withdrawn) }
    }

    /// Ends the stream: after its answer, or with an error in the answer's place.
    async fn finish(
        self,
        exchange: &mut Exchange<'_>,
        answer: &mut upstream::Answer,
        broken: Option<Refusal>,
    ) -> Result<(), Refusal> {
        let begun = reply::is_begun(exchange.session);
        let Some(refusal) = broken else {
            let ended = reply::stream_end(exchange.session).await;
            exchange.entry.settle(if ended.is_ok() { self.ended.unwrap_or(Ending::Ok) } else { Ending::ClientGone });
            exchange::finish_body(&mut answer.body).await;
            return Ok(());
        };
        if !begun || matches!(refusal, Refusal::ClientGone) {
            return Err(refusal);
        }
        // The head said 200, so the error can only come as the answer it stands for.
        let wire = refusal.wire(exchange.conversation.is_modern(), exchange.entry.tool.as_deref());
        let body = error::error_body(exchange.entry.id.as_deref(), wire.code, &wire.text, wire.data.as_deref());
        exchange.entry.refuse(&refusal);
        let piece: Bytes = sse::message_event(&body);
        if reply::stream_piece(exchange.session, piece).await.is_ok() {
            // A client that left in between needs no end.
            let _ = reply::stream_end(exchange.session).await;
        }
        Ok(())
    }
}

/// What a stream waits for.
enum Next {
    Chunk(Result<Bytes, UpstreamError>),
    End,
    Reload,
}

/// Waits for the upstream, or for another configuration.
async fn next_or_reload(body: &mut upstream::Body, deadline: Instant, revisions: &mut watch::Receiver<u64>) -> Next {
    tokio::select! {
        biased;
        chunk = body.next(deadline) => chunk.map_or(Next::End, Next::Chunk),
        // The sender lives as long as the process.
        Ok(()) = revisions.changed() => Next::Reload,
    }
}

async fn write_head(
    exchange: &mut Exchange<'_>,
    answer: &upstream::Answer,
    negotiated: Option<Revision>,
) -> Result<(), Refusal> {
    let token = exchange.session_token(&answer.headers, negotiated)?;
    let headers: Vec<_> = token.as_deref().map(|token| (SESSION_HEADER, token)).into_iter().collect();
    exchange.entry.status = Some(200);
    reply::stream_head(exchange.session, &headers).await.map_err(|Gone| Refusal::ClientGone)
}
