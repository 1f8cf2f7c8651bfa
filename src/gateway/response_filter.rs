//! Step 15: what must an answer be to pass?
//!
//! Pure screening of complete messages, one JSON answer or one event at a time. An answer belongs to exactly this
//! request, comes once, and lists no tool its caller may not call. What passes unchanged keeps its bytes.

use bytes::Bytes;

use crate::audit::Ending;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::lists;
use crate::mcp::lists::Filtered;
use crate::mcp::lists::ListKind;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::policy::View;

/// What the answer is held against.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Raw JSON of the request's id; `None` for what is not answered.
    id: Option<Box<str>>,
    asked: Asked,
    era: Era,
    answered: bool,
}

/// What kind of result is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Initialize,
    ListTools,
    CallTool,
    Other,
}

/// What becomes of one message of the upstream.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on as it came.
    Pass,
    /// It is the answer; it goes on, as it came or with parts cut out.
    Answer(Answer),
    /// It does not go on; the rest may. The word is for metrics and logs.
    Drop(&'static str),
    /// It makes the whole answer unacceptable; the word is for records.
    Refuse(&'static str),
}

/// The one answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The body to send, if it is not the received one.
    pub(crate) replaced: Option<Bytes>,
    /// How the request ended.
    pub(crate) ending: Ending,
    /// The revision an `initialize` settled on.
    pub(crate) negotiated: Option<Revision>,
}

impl Screen {
    /// A screen for the answer to `message`; without one (the end of a session) nothing is awaited.
    pub(crate) fn new(message: Option<&Message>, era: Era) -> Self {
        let asked = match message.and_then(Message::method) {
            Some("initialize") => Asked::Initialize,
            Some("tools/list") => Asked::ListTools,
            Some("tools/call") => Asked::CallTool,
            _ => Asked::Other,
        };
        let request = message.filter(|message| message.kind() == MessageKind::Request);
        Self { id: request.and_then(Message::id).map(Box::from), asked, era, answered: false }
    }

    /// Whether an answer is awaited at all.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.id.is_some()
    }

    /// Whether the answer settles the revision and may bring a session.
    pub(crate) fn is_initialize(&self) -> bool {
        self.asked == Asked::Initialize
    }

    /// Screens a whole JSON answer.
    pub(crate) fn whole(&mut self, body: Bytes, view: View<'_>) -> Verdict {
        match self.event(body, view) {
            Verdict::Pass => Verdict::Refuse("answer_kind"),
            Verdict::Drop(reason) => Verdict::Refuse(reason),
            verdict => verdict,
        }
    }

    /// Screens one message of an event stream.
    pub(crate) fn event(&mut self, body: Bytes, view: View<'_>) -> Verdict {
        let Ok(message) = Message::read_from_server(body, &Limits::for_answers()) else {
            return Verdict::Refuse("answer_malformed");
        };
        match message.kind() {
            MessageKind::Response if self.answered => Verdict::Drop("answer_twice"),
            MessageKind::Response if !self.is_asked(message.id()) => Verdict::Drop("answer_id"),
            MessageKind::Response => self.answer(&message, view),
            MessageKind::Notification => Verdict::Pass,
            // 2026-07-28 has no requests of servers: its clients would take one for noise, or for an attack.
            MessageKind::Request if self.era == Era::Modern => Verdict::Drop("answer_request"),
            MessageKind::Request => Verdict::Pass,
        }
    }

    /// Whether this is the request's id. Texts are compared by what they say, as each server escapes in its own way.
    fn is_asked(&self, answered: Option<&str>) -> bool {
        let (Some(answered), Some(asked)) = (answered, self.id.as_deref()) else { return false };
        let text = |raw: &str| serde_json::from_str::<String>(raw).ok();
        answered == asked || text(answered).is_some_and(|answered| text(asked) == Some(answered))
    }

    fn answer(&mut self, message: &Message, view: View<'_>) -> Verdict {
        self.answered = true;
        let Some(result) = message.result() else {
            return Verdict::Answer(Answer { replaced: None, ending: Ending::RpcError, negotiated: None });
        };
        let mut answer = Answer { replaced: None, ending: Ending::Ok, negotiated: None };
        match self.asked {
            Asked::ListTools => match lists::filter(message, ListKind::Tools, |tool| view.lists(tool)) {
                Filtered::Unchanged => {}
                Filtered::Changed(body) => answer.replaced = Some(body),
                Filtered::NotAList => return Verdict::Refuse("answer_malformed"),
            },
            Asked::CallTool if result.get("isError").is_some_and(|value| value.kind() == Kind::True) => {
                answer.ending = Ending::ToolError;
            }
            Asked::Initialize => {
                let version = result.get("protocolVersion").and_then(|version| version.text());
                answer.negotiated = version.and_then(Revision::parse).filter(|revision| revision.era() == Era::Legacy);
                if answer.negotiated.is_none() {
                    return Verdict::Refuse("answer_revision");
                }
            }
            Asked::CallTool | Asked::Other => {}
        }
        Verdict::Answer(answer)
    }
}
