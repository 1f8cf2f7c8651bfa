//! What can be answered?

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

/// How a request is answered: made by one of the first functions, changed by the rest.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
    pub(super) framing: Framing,
    pub(super) delay: Duration,
    pub(super) drip: Option<(usize, Duration)>,
    pub(super) end: Option<End>,
    pub(super) close: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A message, and whether it is compressed.
    Message(Value, bool),
    Events(Vec<Event>),
    /// An event stream that stays open.
    Standing(Vec<Event>),
    Entity(Bytes),
    /// Everything, head included.
    Raw(Bytes),
    /// Nothing at all, ever.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// Ends an answer early, after so many bytes behind the head (of a raw reply: from its start).
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Reset(usize),
    Close(usize),
}

impl Reply {
    fn of(status: u16, content: Content, content_type: &str) -> Self {
        let headers = Vec::from([("Content-Type".into(), content_type.into())]);
        let is_stream = matches!(content, Content::Events(_) | Content::Standing(_));
        let framing = if is_stream { Framing::Chunked } else { Framing::Length };
        Self { status, headers, content, framing, delay: Duration::ZERO, drip: None, end: None, close: false }
    }

    /// A result.
    pub(crate) fn json(result: Value) -> Self {
        Self::message(json!({"jsonrpc": "2.0", "id": "$id", "result": result}))
    }

    /// The result of a tool that says this.
    pub(crate) fn text(text: &str) -> Self {
        Self::json(json!({"content": [{"type": "text", "text": text}]}))
    }

    /// An error.
    pub(crate) fn error(code: i64, text: &str) -> Self {
        Self::message(json!({"jsonrpc": "2.0", "id": "$id", "error": {"code": code, "message": text}}))
    }

    /// Any JSON document; the string `$id` in it stands for the request's id, as it came.
    pub(crate) fn message(message: Value) -> Self {
        Self::of(200, Content::Message(message, false), "application/json")
    }

    /// A result under another id.
    pub(crate) fn wrong_id(id: Value, result: Value) -> Self {
        Self::message(json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }

    /// An event stream that answers one request twice.
    pub(crate) fn twice(result: Value) -> Self {
        Self::sse(vec![Event::result(result.clone()), Event::result(result)])
    }

    /// A result too large for anybody: a text of so many bytes.
    pub(crate) fn huge(bytes: usize) -> Self {
        Self::text(&"x".repeat(bytes))
    }

    /// A result compressed although nobody asked for it.
    pub(crate) fn gzip(result: Value) -> Self {
        let message = json!({"jsonrpc": "2.0", "id": "$id", "result": result});
        Self::of(200, Content::Message(message, true), "application/json").header("Content-Encoding", "gzip")
    }

    /// An event stream.
    pub(crate) fn sse(events: Vec<Event>) -> Self {
        Self::of(200, Content::Events(events), "text/event-stream")
    }

    /// An event stream that stays open: after these events what the test pushes, see `Upstream::stream`.
    pub(crate) fn standing(events: Vec<Event>) -> Self {
        Self::of(200, Content::Standing(events), "text/event-stream")
    }

    /// An event stream that ends before the answer: an event to go on from, and how soon.
    pub(crate) fn to_be_continued(event_id: &str, retry_ms: u64) -> Self {
        Self::sse(vec![Event::priming(event_id).retry(retry_ms)])
    }

    /// Asks the client's user on the stream, waits for the answer's POST, and gives it in the result's text.
    pub(crate) fn elicitation() -> Self {
        let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
        let params = json!({"message": "which colour?", "requestedSchema": schema});
        let result = json!({"content": [{"type": "text", "text": "$answer"}]});
        Self::sse(vec![Event::ask("ask-1", "elicitation/create", params), Event::result(result)])
    }

    /// 202 without a body.
    pub(crate) fn accepted() -> Self {
        Self::status(202)
    }

    /// A status without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::entity(status, "", "")
    }

    /// A status with a body of any type; no type at all if that is empty.
    pub(crate) fn entity(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut reply = Self::of(status, Content::Entity(body.into()), content_type);
        reply.headers.retain(|(_, value)| !value.is_empty());
        reply
    }

    /// A page for people, as proxies in front of servers give it.
    pub(crate) fn html(status: u16) -> Self {
        let page = "<html><head><title>Error</title></head><body>backend-7.internal.example:8443</body></html>";
        Self::entity(status, "text/html", page).header("Server", "nginx/1.2.3")
    }

    /// 302 to elsewhere.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::status(302).header("Location", location)
    }

    /// 401 with all that must not be passed on.
    pub(crate) fn unauthorized() -> Self {
        Self::entity(401, "application/json", r#"{"error":"invalid_token","at":"auth.internal.example"}"#)
            .header("WWW-Authenticate", r#"Bearer resource_metadata="http://auth.internal.example/meta""#)
            .header("Set-Cookie", "upstream=canary-cookie; Path=/")
            .header("Server", "upstream-canary/9.9")
    }

    /// 404, as for a session that is no more.
    pub(crate) fn session_gone() -> Self {
        let error = json!({"code": -32600, "message": "Session not found"});
        Self::message(json!({"jsonrpc": "2.0", "id": null, "error": error})).status_code(404)
    }

    /// These bytes and no others, head included.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::of(0, Content::Raw(bytes.into()), "")
    }

    /// No HTTP at all; then the connection is closed.
    pub(crate) fn garbage() -> Self {
        Self::raw(&b"\x16\x03\x01\x02\x00\xff\xfe SSH-2.0-nothing\r\n\r\n\0\0\0"[..]).close()
    }

    /// Nothing, until the other side closes.
    pub(crate) fn never() -> Self {
        Self::of(0, Content::Never, "")
    }

    /// A reset instead of an answer.
    pub(crate) fn reset() -> Self {
        Self::raw("").reset_after(0)
    }

    /// A further header; a second one of the same name is a second line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same without a header.
    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// The same with this status.
    pub(crate) fn status_code(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Framed in chunks. Event streams are anyhow.
    pub(crate) fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Framed by the connection's end.
    pub(crate) fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.close()
    }

    /// Nothing for so long, then the answer.
    pub(crate) fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// So many bytes at a time, with a pause after each; the head too.
    pub(crate) fn drip(mut self, bytes: usize, pause: Duration) -> Self {
        self.drip = Some((bytes.max(1), pause));
        self
    }

    /// A reset after so many bytes behind the head.
    pub(crate) fn reset_after(mut self, bytes: usize) -> Self {
        self.end = Some(End::Reset(bytes));
        self
    }

    /// The end of the connection after so many bytes behind the head, as if the server had died.
    pub(crate) fn close_after(mut self, bytes: usize) -> Self {
        self.end = Some(End::Close(bytes));
        self
    }

    /// The end of the connection after the answer.
    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }
}

/// A piece of an event stream.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(super) delay: Duration,
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
    pub(super) retry_ms: Option<u64>,
    pub(super) piece: Piece,
}

#[derive(Debug, Clone)]
pub(super) enum Piece {
    Message(Value),
    Raw(String),
    /// Data without a byte.
    Nothing,
    /// A request to the client, by its id; the stream goes on when its answer has come.
    Ask(Value, Value),
}

impl Event {
    fn of(piece: Piece) -> Self {
        Self { delay: Duration::ZERO, name: None, id: None, retry_ms: None, piece }
    }

    /// Any message; `$id` as in [`Reply::message`], `$answer` is the text answered to the last question.
    pub(crate) fn message(message: Value) -> Self {
        Self::of(Piece::Message(message))
    }

    /// The answer to the request.
    pub(crate) fn result(result: Value) -> Self {
        Self::message(json!({"jsonrpc": "2.0", "id": "$id", "result": result}))
    }

    /// Progress, marked as the request wants it.
    pub(crate) fn progress(progress: u64) -> Self {
        let params = json!({"progressToken": "$token", "progress": progress});
        Self::message(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
    }

    /// A request to the client; what follows waits for its answer.
    pub(crate) fn ask(id: impl Into<Value>, method: &str, params: Value) -> Self {
        let id = id.into();
        Self::of(Piece::Ask(id.clone(), json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})))
    }

    /// A notification.
    pub(crate) fn notification(method: &str, params: Value) -> Self {
        Self::message(json!({"jsonrpc": "2.0", "method": method, "params": params}))
    }

    /// An id and empty data: where to go on, and nothing else.
    pub(crate) fn priming(id: &str) -> Self {
        Self::of(Piece::Nothing).id(id)
    }

    /// Where messages go, as the first event of HTTP+SSE; on a standing stream `$session` stands for its session.
    pub(crate) fn endpoint(data: &str) -> Self {
        Self::raw(&format!("event: endpoint\ndata: {data}\n\n"))
    }

    /// A comment.
    pub(crate) fn comment(text: &str) -> Self {
        Self::raw(&format!(": {text}\n\n"))
    }

    /// These bytes of the stream, be they an event or half of one.
    pub(crate) fn raw(text: &str) -> Self {
        Self::of(Piece::Raw(text.into()))
    }

    /// The same with an id. A `GET` that goes on from it knows `$id` and `$token` of this stream's request.
    pub(crate) fn id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same with a type.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with `$session` filled in.
    pub(super) fn of_session(mut self, session: &str) -> Self {
        if let Piece::Raw(text) = &mut self.piece {
            *text = text.replace("$session", session);
        }
        self
    }

    /// The same with a type if it has none.
    pub(super) fn named_if_nameless(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.into());
        self
    }

    /// The same with the time after which to connect again.
    pub(crate) fn retry(mut self, milliseconds: u64) -> Self {
        self.retry_ms = Some(milliseconds);
        self
    }

    /// The same after a pause.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}
