//! An event stream to a client: screened and flushed event by event.
//!
//! It carries the answer to one request, or what a server says of its own accord. It holds no snapshot: when the
//! configuration changes under it, it is decided again under the new one. While nothing comes, comments keep it alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::audit::Ending;
use crate::call::EventId;
use crate::clock;
use crate::mcp::error;
use crate::mcp::revision::Revision;
use crate::mcp::sse;
use crate::mcp::sse::Event;
use crate::mcp::sse::Item;
use crate::mcp::sse::Splitter;
use crate::runtime::Active;
use crate::runtime::Mailbox;
use crate::runtime::Runtime;
use crate::telemetry::metrics::Held;
use crate::telemetry::metrics::StreamKind;
use crate::transport::buffers::Full;
use crate::transport::buffers::Share;
use crate::upstream;
use crate::upstream::Times;
use crate::upstream::Upstream;
use crate::upstream::UpstreamError;

use super::conversation::SESSION_HEADER;
use super::debug;
use super::decline::Declines;
use super::exchange::Exchange;
use super::exchange::Resume;
use super::refusal::Refusal;
use super::reply::Gone;
use super::response_filter::Screen;
use super::response_filter::Verdict;
use super::standing;

/// After how long without an event the gateway sends a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The comment.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// How long a client waits by itself before it takes up a stream again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// The longest that a server may ask for.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Windows of time open and close with a minute.
const MINUTE_MICROS: u64 = 60_000_000;
/// How often a stream that is to end looks whether everything on it was answered.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// How long the end of an answer may follow the answer itself before the connection is given up.
const TAIL: Duration = Duration::from_millis(20);

/// A stream under way.
pub(crate) struct Pump<'p> {
    kind: StreamKind,
    screen: &'p mut Screen,
    upstream: &'p Arc<Upstream>,
    answer: Option<upstream::Answer>,
    /// What the gateway itself puts on the stream.
    mail: Option<mpsc::Receiver<Bytes>>,
    /// Where that comes from, if answers are awaited there.
    mailbox: Option<Arc<Mailbox>>,
    /// The process is on its way out.
    is_leaving: bool,
    /// How long the answer may take.
    times: Times,
    /// When it ends whatever comes.
    over_at: Option<Instant>,
    /// Whether a message came since the silence was last measured.
    has_progressed: bool,
    splitter: Splitter,
    /// Screened bytes that wait to be written.
    ready: BytesMut,
    /// The snapshot the stream was last decided under.
    active: Arc<Active>,
    /// How the request ended, once its answer was seen.
    ended: Option<Ending>,
    negotiated: Option<Revision>,
    /// The last event that could be gone on after, and how long to wait until then.
    last_id: Option<EventId>,
    pause: Duration,
    /// Whether a message came that may go on.
    has_said: bool,
    /// When the caller's key or token ends, and with it a stream that stands.
    expires_at: Option<Instant>,
    /// When windows of time may close, where the configuration has any.
    minute_at: Option<Instant>,
    /// Tells when the configuration has changed, or when connections are no longer taken.
    changes: watch::Receiver<u64>,
    /// When the next comment is due.
    comment_at: Instant,
    declines: Declines,
    _open: Held,
}

impl<'p> Pump<'p> {
    /// A stream for the client of `exchange`.
    pub(crate) fn new(
        exchange: &Exchange<'_>,
        upstream: &'p Arc<Upstream>,
        screen: &'p mut Screen,
        kind: StreamKind,
    ) -> Self {
        Self {
            kind,
            screen,
            upstream,
            answer: None,
            mail: None,
            mailbox: None,
            is_leaving: false,
            times: upstream.plan().times(exchange.permitted.call().tool()),
            over_at: None,
            has_progressed: false,
            splitter: Splitter::new(upstream.plan().answer_bytes_max()),
            ready: BytesMut::new(),
            active: Arc::clone(exchange.active),
            ended: None,
            negotiated: None,
            last_id: None,
            pause: PAUSE,
            has_said: false,
            expires_at: expiry(exchange, exchange.active, kind),
            minute_at: minute(exchange.active, kind),
            changes: exchange.runtime.changes(),
            comment_at: Instant::now() + KEEP_ALIVE,
            declines: Declines::default(),
            _open: exchange.runtime.metrics.streams_of(kind).hold(),
        }
    }

    /// With the events of an upstream's answer.
    pub(crate) fn from(mut self, answer: upstream::Answer) -> Self {
        if self.kind == StreamKind::Answer {
            self.over_at = Some(answer.deadline + self.times.timeout_max.saturating_sub(self.times.timeout));
        }
        self.answer = Some(answer);
        self
    }

    /// With events of an answer that was read up to somewhere between two events.
    pub(crate) fn after(self, answer: upstream::Answer, splitter: Splitter) -> Self {
        Self { splitter, ..self.from(answer) }
    }

    /// With what is put into a mailbox.
    pub(crate) fn with_mail(mut self, mail: mpsc::Receiver<Bytes>, mailbox: Option<Arc<Mailbox>>) -> Self {
        self.mail = Some(mail);
        self.mailbox = mailbox;
        self
    }

    /// Passes events on to the client until the request is answered, or one side ends the stream.
    ///
    /// # Errors
    /// The refusal still to be put on record, and to be answered if nothing was written yet.
    pub(crate) async fn pump(mut self, exchange: &mut Exchange<'_>) -> Result<Option<Resume>, Refusal> {
        if self.kind != StreamKind::Answer {
            exchange.stands();
        }
        // The configuration may have changed while the head was awaited; from here on, changes are told.
        self.decide_again(exchange)?;
        // The answer to `initialize` brings the session, which belongs into the head: the head waits for it.
        if exchange.client.is_begun() {
            exchange.entry.status.get_or_insert(200);
        } else if !self.screen.is_initialize() {
            self.write_head(exchange, None).await?;
        }
        let broken = self.run(exchange).await.err();
        self.finish(exchange, broken).await
    }

    /// Reads, screens and writes until the stream is at its end.
    async fn run(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
        // What came with the beginning may hold whole events.
        self.forward(exchange).await?;
        // Nobody half-closes a stream that is only read: its end is its client's.
        let ends_on_close = exchange.conversation.is_modern() || self.kind != StreamKind::Answer;
        let mut silent_until = Instant::now() + self.silence_max();
        while self.ended.is_none() {
            if self.is_leaving && !self.is_awaited() {
                self.close();
                return self.forward(exchange).await;
            }
            let keep_alive = exchange.client.is_kept_alive().then_some(self.comment_at);
            let keep_alive = if self.is_leaving { Some(Instant::now() + LOOK) } else { keep_alive };
            let held = self.splitter.pending_bytes();
            let waited = exchange.client.room(held).await.map_err(|Gone| Refusal::ClientGone)?;
            silent_until += waited;
            self.over_at = self.over_at.map(|over_at| over_at + waited);
            let next = next(
                self.answer.as_mut(),
                self.over_at.map_or(silent_until, |over_at| over_at.min(silent_until)),
                keep_alive.filter(|_| exchange.client.is_begun()),
                (self.expires_at, self.minute_at),
                &mut self.changes,
                self.mail.as_mut(),
            );
            let next = exchange.client.watched(ends_on_close, next).await.map_err(|Gone| Refusal::ClientGone)?;
            match next {
                // Nothing was said for as long as a stream may be silent: no failure, clients come back when they want to.
                Next::Chunk(Err(error)) if self.kind != StreamKind::Answer && error.is_silence() => self.close(),
                Next::Chunk(chunk) => {
                    let chunk = chunk.map_err(Refusal::Upstream)?;
                    if !self.times.is_reset_by_messages || self.kind != StreamKind::Answer {
                        silent_until = Instant::now() + self.silence_max();
                    }
                    exchange.entry.received.update(&chunk);
                    self.decide_again(exchange)?;
                    self.splitter.feed(&chunk);
                    let held = self.splitter.pending_bytes() + self.ready.len();
                    exchange.entry.answer.set(held, Share::Answer).map_err(|Full| Refusal::NoRoom)?;
                }
                Next::End if self.may_end_here(exchange) => {
                    self.ended = Some(if self.kind == StreamKind::Answer { Ending::Accepted } else { Ending::Ok });
                }
                Next::End => return Err(Refusal::Answer("answer_missing")),
                // A silent stream is decided again as well, and stays as silent as it was.
                Next::Change if self.must_close(exchange.runtime) => self.is_leaving = true,
                Next::Change => self.decide_again(exchange)?,
                Next::Mail(events) if events.is_empty() => self.close(),
                Next::Mail(events) => {
                    silent_until = Instant::now() + self.silence_max();
                    self.ready.extend_from_slice(&events);
                    exchange.entry.answer.set_anyway(self.splitter.pending_bytes() + self.ready.len());
                }
                Next::Minute => {
                    self.minute_at = minute(&self.active, self.kind);
                    exchange.standing().check(&self.active)?;
                }
                Next::Expiry => return Err(standing::ended(&exchange.principal)),
                Next::Quiet if self.is_leaving => {}
                Next::Quiet => self.ready.extend_from_slice(&COMMENT),
            }
            self.forward(exchange).await?;
            if std::mem::take(&mut self.has_progressed) {
                silent_until = Instant::now() + self.silence_max();
            }
        }
        Ok(())
    }

    /// Screens what was read and writes what may go on.
    async fn forward(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
        let screened = self.screen_events(exchange);
        if self.ended.is_some() && self.screen.is_initialize() && !exchange.client.is_begun() {
            let negotiated = self.negotiated;
            self.write_head(exchange, negotiated).await?;
        } else if self.ended.is_some() && self.screen.is_initialize() {
            self.session_token(exchange, self.negotiated)?;
        }
        if exchange.client.is_begun() && !self.ready.is_empty() {
            let piece = self.ready.split().freeze();
            // An empty stream holds no room for a next event.
            self.ready = BytesMut::new();
            self.comment_at = Instant::now() + KEEP_ALIVE;
            exchange.client.events(piece).await.map_err(|Gone| Refusal::ClientGone)?;
            exchange.entry.answer.set_anyway(self.splitter.pending_bytes());
        }
        if self.ready.len() > self.upstream.plan().answer_bytes_max() {
            return Err(Refusal::Answer("answer_too_large"));
        }
        screened
    }

    /// Screens every complete event that was fed.
    fn screen_events(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
        let active = Arc::clone(&self.active);
        while self.ended.is_none() {
            let Some(item) = self.splitter.next_item().map_err(|_| Refusal::Answer("answer_event"))? else { break };
            match item {
                // Clients ignore events of other types; nothing in them was screened for them, and none is an answer.
                Item::Event(event) if event.data().is_some_and(|data| !data.is_empty()) && !event.is_message() => {
                    tracing::debug!(reason = "event_type", "an event of the upstream was dropped");
                }
                Item::Event(event) if event.is_message() => {
                    self.has_progressed = true;
                    let verdict =
                        self.screen.event(event.data().cloned().unwrap_or_default(), &exchange.judge(&active));
                    self.take(exchange, &event, verdict)?;
                }
                // Events that only carry an id or a retry time. HTTP+SSE knows neither, and some of its clients take them for
                // broken messages.
                Item::Event(event) if exchange.client.mailbox().is_some() => self.note(&event),
                Item::Event(event) => {
                    self.note(&event);
                    self.ready.extend_from_slice(&exchange.event_of_its_own(&event).forwarded());
                }
                Item::Filler(line) if exchange.client.mailbox().is_some() => {
                    // Several streams become one: only what is whole may go there.
                    if line.starts_with(b":") {
                        self.ready.extend_from_slice(&COMMENT);
                    }
                }
                // A comment keeps the connection alive; its text was screened for nobody.
                Item::Filler(line) if line.starts_with(b":") => self.ready.extend_from_slice(b":\n"),
                Item::Filler(_) => self.ready.extend_from_slice(b"\n"),
            }
        }
        Ok(())
    }

    fn take(&mut self, exchange: &mut Exchange<'_>, event: &Event, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Pass(replaced) => {
                self.note(event);
                self.put(exchange, event, replaced);
            }
            Verdict::Drop(reason) => tracing::debug!(reason, "an event of the upstream was dropped"),
            Verdict::Decline(id) => self.declines.send(exchange, &id),
            Verdict::Refuse(reason) => return Err(Refusal::Answer(reason)),
            Verdict::Answer(answer) => {
                let message = answer.replaced.as_ref().or(event.data()).cloned().unwrap_or_default();
                if !exchange.client.takes_answer(&message) {
                    self.put(exchange, event, answer.replaced);
                }
                exchange.entry.answered_with(answer.error_code);
                self.ended = Some(answer.ending);
                self.negotiated = answer.negotiated;
            }
        }
        Ok(())
    }

    /// Lets an event go on, as it came or with other data.
    fn put(&mut self, exchange: &Exchange<'_>, event: &Event, replaced: Option<Bytes>) {
        let event = &*exchange.event_of_its_own(event);
        let event = match replaced.as_ref().or(event.data()) {
            // An id would be one of another stream than the one this client reads.
            Some(data) if exchange.client.mailbox().is_some() => sse::message_event(data),
            _ => replaced.map_or_else(|| event.forwarded(), |body| event.render(&body)),
        };
        self.has_said = true;
        self.ready.extend_from_slice(&event);
    }

    /// Notes where a client could go on after this event.
    fn note(&mut self, event: &Event) {
        if let Some(id) = event.id().and_then(|id| EventId::read(id.as_bytes()).ok()) {
            self.last_id = Some(id);
        }
        if let Some(retry_ms) = event.retry() {
            self.pause = Duration::from_millis(retry_ms).min(PAUSE_MAX);
        }
    }

    /// Whether the upstream may end its stream without an answer: one that stands, or one that told how to go on.
    fn may_end_here(&self, exchange: &Exchange<'_>) -> bool {
        match self.kind {
            StreamKind::Standing | StreamKind::Sse => !self.screen.awaits_answer(),
            StreamKind::Answer => {
                let can_go_on = self.last_id.is_some() && exchange.client.is_begun();
                can_go_on && self.splitter.is_between_events() && !exchange.conversation.is_modern()
            }
        }
    }

    /// Standing streams end before the process does; their clients come back elsewhere.
    fn must_close(&self, runtime: &Runtime) -> bool {
        self.kind != StreamKind::Answer && !runtime.is_open()
    }

    /// Whether something is still to come by mail.
    fn is_awaited(&self) -> bool {
        let is_asked = self.mailbox.as_ref().is_some_and(|mailbox| mailbox.is_asked());
        is_asked || self.mail.as_ref().is_some_and(|mail| !mail.is_empty())
    }

    fn close(&mut self) {
        // A subscription is a request, and its end is its answer.
        if let Some(body) = self.screen.last_words() {
            self.ready.extend_from_slice(&sse::message_event(&body));
        }
        self.ended = Some(Ending::Ok);
    }

    fn silence_max(&self) -> Duration {
        match self.kind {
            StreamKind::Answer => self.times.silence,
            StreamKind::Standing | StreamKind::Sse => self.upstream.plan().stream_idle_timeout(),
        }
    }

    /// Decides the stream again if the configuration changed since it was last decided.
    fn decide_again(&mut self, exchange: &Exchange<'_>) -> Result<(), Refusal> {
        if let Some(active) = exchange.standing().check_again(self.active.snapshot.revision)? {
            self.active = active;
            self.minute_at = minute(&self.active, self.kind);
            self.expires_at = expiry(exchange, &self.active, self.kind);
        }
        Ok(())
    }

    /// Ends the stream: after its answer, or with an error in the answer's place.
    async fn finish(
        &mut self,
        exchange: &mut Exchange<'_>,
        broken: Option<Refusal>,
    ) -> Result<Option<Resume>, Refusal> {
        let Some(refusal) = broken else {
            let ended = exchange.client.end().await;
            let ending = if ended.is_ok() { self.ended.unwrap_or(Ending::Ok) } else { Ending::ClientGone };
            exchange.entry.settle(ending);
            if let Some(answer) = &mut self.answer {
                finish_body(&mut answer.body).await;
            }
            let goes_on = ending == Ending::Accepted || self.kind == StreamKind::Standing;
            return Ok(self.resume().filter(|_| goes_on));
        };
        if !exchange.client.is_begun() || matches!(refusal, Refusal::ClientGone) {
            return Err(refusal);
        }
        if let Refusal::Upstream(error) = &refusal {
            exchange.broke(error.failure());
        }
        if self.screen.awaits_answer() {
            let code = refusal.wire(exchange.conversation.is_modern(), None).code;
            exchange.entry.answered_with(Some(code.into()));
        }
        exchange.entry.refuse(&refusal);
        // A stream that broke can be gone on with by the gateway itself, where it is the gateway that reads it.
        let is_broken = matches!(&refusal, Refusal::Upstream(error) if !error.is_silence());
        let resume = if is_broken && exchange.client.mailbox().is_some() { self.resume() } else { None };
        // The head said 200, so the error can only come as the answer it stands for; where none is awaited, as the end.
        if resume.is_none() && self.screen.awaits_answer() {
            let wire = refusal.wire(exchange.conversation.is_modern(), exchange.entry.tool.as_deref());
            let body = error::error_body(exchange.entry.id.as_deref(), wire.code, &wire.text, wire.data.as_deref());
            if !exchange.client.takes_answer(&body) {
                // A client that left in between needs neither this nor an end.
                let _ = exchange.client.events(sse::message_event(&body)).await;
            }
        }
        let _ = exchange.client.end().await;
        Ok(resume)
    }

    /// Where the stream can be gone on with.
    fn resume(&mut self) -> Option<Resume> {
        let pause = self.pause;
        self.last_id.take().map(|after| Resume { after, pause, has_said: self.has_said })
    }

    async fn write_head(&mut self, exchange: &mut Exchange<'_>, negotiated: Option<Revision>) -> Result<(), Refusal> {
        let token = self.session_token(exchange, negotiated)?;
        let debug = debug::headers(exchange.entry);
        let debug = debug.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = token.as_deref().map(|token| (SESSION_HEADER, token)).into_iter().chain(debug).collect();
        exchange.entry.status = Some(200);
        exchange.client.begin(&headers).await.map_err(|Gone| Refusal::ClientGone)
    }

    fn session_token(
        &self,
        exchange: &mut Exchange<'_>,
        negotiated: Option<Revision>,
    ) -> Result<Option<String>, Refusal> {
        match &self.answer {
            Some(answer) => exchange.session_token(&answer.headers, negotiated),
            None => Ok(None),
        }
    }
}

/// Reads on after the answer until the upstream ends its body, for a moment, so that the connection can be used again.
pub(crate) async fn finish_body(body: &mut upstream::Body) {
    let deadline = Instant::now() + TAIL;
    while let Some(Ok(_)) = body.next(deadline).await {}
}

/// What a stream waits for.
enum Next {
    Chunk(Result<Bytes, UpstreamError>),
    End,
    Change,
    Mail(Bytes),
    Expiry,
    Minute,
    Quiet,
}

/// When the next minute begins, for a stream that stands where the configuration has windows of time: they open and close with a
/// minute. A call that began in time may be answered after it.
fn minute(active: &Active, kind: StreamKind) -> Option<Instant> {
    let is_bound = kind != StreamKind::Answer && active.snapshot.policy.has_times();
    let left = MINUTE_MICROS - clock::now_micros() % MINUTE_MICROS;
    // A little later, or the clock might still show the minute before.
    is_bound.then(|| Instant::now() + Duration::from_micros(left) + LOOK)
}

/// When the key or token ends of a caller whose stream stands. A call that began in time may be answered after it.
fn expiry(exchange: &Exchange<'_>, active: &Active, kind: StreamKind) -> Option<Instant> {
    if kind == StreamKind::Answer {
        return None;
    }
    let ends = exchange.standing().ends(active)?;
    Some(Instant::now() + Duration::from_secs(ends.saturating_sub(clock::now_seconds())))
}

/// Waits for whatever comes first. What is not there never comes.
async fn next(
    answer: Option<&mut upstream::Answer>,
    silent_until: Instant,
    comment_at: Option<Instant>,
    (expires_at, minute_at): (Option<Instant>, Option<Instant>),
    changes: &mut watch::Receiver<u64>,
    mail: Option<&mut mpsc::Receiver<Bytes>>,
) -> Next {
    let chunk = async {
        match answer {
            Some(answer) => answer.body.next(silent_until).await.map_or(Next::End, Next::Chunk),
            None => {
                tokio::time::sleep_until(silent_until).await;
                Next::End
            }
        }
    };
    let mail = async {
        match mail {
            Some(mail) => mail.recv().await.map_or(Next::End, Next::Mail),
            None => std::future::pending().await,
        }
    };
    let until = async |moment: Option<Instant>| match moment {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    };
    let (quiet, expiry, minute) = (until(comment_at), until(expires_at), until(minute_at));
    tokio::select! {
        biased;
        // First, or who talks without a pause would outlive a permission. The sender lives as long as the process.
        Ok(()) = changes.changed() => Next::Change,
        () = expiry => Next::Expiry,
        () = minute => Next::Minute,
        chunk = chunk => chunk,
        mail = mail => mail,
        () = quiet => Next::Quiet,
    }
}
