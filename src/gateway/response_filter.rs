//! Step 15: what must a server's message be to pass?
//!
//! Pure screening of complete messages, one JSON answer or one event at a time. An answer belongs to exactly this
//! request, comes once, and lists nothing its caller may not use; a server asks the client only for what it may. Tasks
//! are named by tokens. What passes unchanged keeps its bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::audit::Ending;
use crate::call::Action;
use crate::mcp::capabilities::ClientRequest;
use crate::mcp::cut;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::lists;
use crate::mcp::lists::ListKind;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::results;
use crate::mcp::results::InputRequest;
use crate::mcp::results::ResultType;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::mcp::splice;
use crate::mcp::splice::Splice;
use crate::mcp::subscription;
use crate::mcp::subscription::Screened;
use crate::mcp::subscription::Subscription;
use crate::mcp::tasks;
use crate::policy::View;
use crate::runtime::Catalog;
use crate::runtime::TaskTools;
use crate::seal::Keyring;
use crate::session;
use crate::session::Task;
use crate::upstream::Fleet;

use super::refusal::Refusal;

/// The legacy error by which a server sends a user to a URL first.
const URL_ELICITATION_REQUIRED: &[u8] = b"-32042";

/// What a server's messages are held against.
pub(crate) struct Judge<'a> {
    /// What the caller sees of the server.
    pub(crate) view: View<'a>,
    /// Whether the caller showed nothing, so that what it sees is what everybody sees.
    pub(crate) is_anybody: bool,
    pub(crate) tasks: TaskSealer<'a>,
    /// Where tool schemas are kept, and whose.
    pub(crate) catalog: &'a Catalog,
    pub(crate) server: &'a Arc<str>,
    pub(crate) fleet: &'a Fleet,
}

impl Judge<'_> {
    /// What the server's name stands for. Worked out only where the catalog is asked, which is not for each event.
    fn target(&self) -> u64 {
        self.fleet.get(self.server).map(|upstream| upstream.plan().target()).unwrap_or_default()
    }
}

/// What makes a client's token of a server's task id.
pub(crate) struct TaskSealer<'a> {
    pub(crate) keyring: Option<&'a Keyring>,
    pub(crate) server: &'a Arc<str>,
    pub(crate) endpoint: u64,
    pub(crate) principal: &'a Arc<str>,
    /// The tool that is called: a task that nobody saw before is made by it.
    pub(crate) tool: Option<&'a str>,
    /// Which tasks were made by which tools.
    pub(crate) known: &'a TaskTools,
    /// The task that the request itself names: the server's id, and the token the client sent for it.
    pub(crate) named: Option<(&'a str, &'a str)>,
}

impl TaskSealer<'_> {
    fn seal(&self, id: &str) -> Option<String> {
        if let Some((_, token)) = self.named.filter(|(named, _)| *named == id) {
            return Some(token.to_owned());
        }
        let task = self.task(id);
        self.known.note(&task);
        session::seal_task(self.keyring?, &task).ok()
    }

    /// A task, and the tool that it was made by as far as that is known here.
    fn task(&self, id: &str) -> Task {
        let mut task = Task {
            server: Arc::clone(self.server),
            endpoint: self.endpoint,
            upstream_id: id.to_owned(),
            principal: Arc::clone(self.principal),
            tool: None,
        };
        task.tool = self.known.tool_of(&task).or_else(|| self.tool.map(Arc::from));
        task
    }
}

/// What is awaited on one answer or stream, and what was seen of it.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Raw JSON of the request's id; `None` for what is not answered.
    id: Option<Box<str>>,
    asked: Asked,
    revision: Revision,
    answered: bool,
    /// What only requests of 2026-07-28 have.
    modern: Option<Box<Modern>>,
}

/// What kind of result is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Initialize,
    List(ListKind),
    /// One of the methods that may need a round more, or that are about tasks: by its name.
    Method(&'static str),
    Other,
    /// On a standing stream: answers to whatever was asked elsewhere.
    Anything,
}

impl Asked {
    fn of(method: &str) -> Self {
        const NAMED: [&str; 6] =
            ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/cancel", "tasks/update"];
        if let Some(kind) = ListKind::of_method(method) {
            return Self::List(kind);
        }
        match NAMED.into_iter().chain(["tasks/result"]).find(|named| *named == method) {
            Some(named) => Self::Method(named),
            None if method == "initialize" => Self::Initialize,
            None => Self::Other,
        }
    }

    /// The method, as far as places of task ids depend on it.
    fn method(self) -> Option<&'static str> {
        match self {
            Self::Method(name) => Some(name),
            Self::Initialize => Some("initialize"),
            Self::List(kind) => Some(kind.method()),
            Self::Other => Some(""),
            Self::Anything => None,
        }
    }
}

/// What a request of 2026-07-28 says about what may be said beside its answer.
#[derive(Debug)]
struct Modern {
    /// Raw JSON.
    progress_token: Option<Box<str>>,
    wants_logs: bool,
    has_tasks: bool,
    subscription: Option<Subscription>,
}

impl Modern {
    fn of(message: &Message) -> Box<Self> {
        let meta = message.meta();
        let raw = |value: Value<'_>| Box::<str>::from(value.raw_text());
        let is_subscription = message.method() == Some(subscription::LISTEN);
        Box::new(Self {
            progress_token: meta.and_then(|meta| meta.get("progressToken")).map(raw),
            wants_logs: meta.is_some_and(|meta| meta.get("io.modelcontextprotocol/logLevel").is_some()),
            has_tasks: meta.is_some_and(results::tasks_declared),
            subscription: is_subscription.then(|| Subscription::read(message).ok()).flatten(),
        })
    }
}

/// What becomes of one message of the upstream.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on, as it came or with other bytes.
    Pass(Option<Bytes>),
    /// It is the answer; it goes on, as it came or with parts changed.
    Answer(Answer),
    /// It does not go on; the rest may. The word is for metrics and logs.
    Drop(&'static str),
    /// It is a request that the client is not asked; the server is told so. Raw JSON of its id.
    Decline(Box<str>),
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
    /// The code of the error that it is.
    pub(crate) error_code: Option<i64>,
}

/// Why a message does not pass: a word.
type Flaw = &'static str;

impl Screen {
    /// A screen for what answers `message`, as it is sent.
    pub(crate) fn new(message: &Message, revision: Revision) -> Self {
        let asked = message.method().map_or(Asked::Other, Asked::of);
        let request = Some(message).filter(|message| message.kind() == MessageKind::Request);
        let modern = request.filter(|_| revision.era() == Era::Modern).map(Modern::of);
        Self { id: request.and_then(Message::id).map(Box::from), asked, revision, answered: false, modern }
    }

    /// A screen for a stream on which nothing in particular is awaited.
    ///
    /// A client of HTTP+SSE negotiates its revision on the stream itself, where the gateway only reads along: tasks are
    /// looked for as if it were the newest.
    pub(crate) fn standing(revision: Revision) -> Self {
        let revision = if revision == Revision::V2024_11_05 { Revision::V2025_11_25 } else { revision };
        Self { id: None, asked: Asked::Anything, revision, answered: false, modern: None }
    }

    /// The screen for an action; `sent` is the message as it is sent, where that is not as it came.
    pub(crate) fn of(action: &Action, sent: Option<&Message>, revision: Revision) -> Self {
        match (action, sent) {
            (Action::Message(_), Some(sent)) => Self::new(sent, revision),
            (Action::Message(message), None) => Self::new(message, revision),
            (Action::Listen(_) | Action::EndSession, _) => Self::standing(revision),
        }
    }

    /// Whether an answer is awaited at all.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.id.is_some()
    }

    /// Whether the answer settles the revision and may bring a session.
    pub(crate) fn is_initialize(&self) -> bool {
        self.asked == Asked::Initialize
    }

    /// Whether the answer is the end of a stream that stands until then.
    pub(crate) fn is_subscription(&self) -> bool {
        self.subscription().is_some()
    }

    fn subscription(&self) -> Option<&Subscription> {
        self.modern.as_ref()?.subscription.as_ref()
    }

    /// The answer with which the gateway itself ends a subscription.
    pub(crate) fn last_words(&self) -> Option<Bytes> {
        let id = self.id.as_deref().filter(|_| self.subscription().is_some_and(Subscription::is_open))?;
        let meta = subscription::META_SUBSCRIPTION;
        Some(error::result_body(id, &format!(r#"{{"resultType":"complete","_meta":{{"{meta}":{id}}}}}"#)))
    }

    /// Screens a whole JSON answer.
    pub(crate) fn whole(&mut self, body: Bytes, judge: &Judge<'_>) -> Verdict {
        match self.event(body, judge) {
            Verdict::Pass(_) | Verdict::Decline(_) => Verdict::Refuse("answer_kind"),
            Verdict::Drop(reason) => Verdict::Refuse(reason),
            verdict => verdict,
        }
    }

    /// Screens one message of an event stream.
    pub(crate) fn event(&mut self, body: Bytes, judge: &Judge<'_>) -> Verdict {
        let Ok(message) = Message::read_from_server(body, &Limits::for_answers()) else {
            return Verdict::Refuse("answer_malformed");
        };
        if let Some(subscription) = self.modern.as_mut().and_then(|modern| modern.subscription.as_mut()) {
            match subscription.screen(&message) {
                Screened::Pass | Screened::Answer => {}
                Screened::Drop(reason) => return Verdict::Drop(reason),
                Screened::Refuse(reason) => return Verdict::Refuse(reason),
            }
        }
        match message.kind() {
            MessageKind::Response if self.asked == Asked::Anything => {
                self.shaped(&message, judge).unwrap_or_else(|flaw| in_its_place(&message, flaw))
            }
            MessageKind::Response if self.answered => Verdict::Drop("answer_twice"),
            MessageKind::Response if !self.is_asked(message.id()) => Verdict::Drop("answer_id"),
            MessageKind::Response => self.answer(&message, judge).unwrap_or_else(Verdict::Refuse),
            MessageKind::Notification => self.notification(&message, judge),
            // 2026-07-28 has no requests of servers: its clients would take one for noise, or for an attack.
            MessageKind::Request if self.revision.era() == Era::Modern => Verdict::Drop("answer_request"),
            MessageKind::Request => self.request(&message, judge),
        }
    }

    /// Whether this is the request's id. Texts are compared by what they say, as each server escapes in its own way.
    fn is_asked(&self, answered: Option<&str>) -> bool {
        let (Some(answered), Some(asked)) = (answered, self.id.as_deref()) else { return false };
        let text = |raw: &str| serde_json::from_str::<String>(raw).ok();
        answered == asked || text(answered).is_some_and(|answered| text(asked) == Some(answered))
    }

    fn notification(&self, message: &Message, judge: &Judge<'_>) -> Verdict {
        let mut splices = Vec::new();
        let param = |key: &str| message.params().and_then(|params| params.get(key));
        match message.method().unwrap_or_default() {
            "notifications/resources/updated" => {
                let is_seen = param("uri").and_then(Value::text).is_some_and(|uri| judge.view.reads(uri));
                if !is_seen {
                    return Verdict::Drop("resource_hidden");
                }
            }
            // A server may agree to more than it was asked for.
            "notifications/subscriptions/acknowledged" => {
                let agreed = param("notifications").and_then(|agreed| agreed.get("resourceSubscriptions"));
                let is_seen = |uri: Value<'_>| uri.text().is_some_and(|uri| judge.view.reads(uri));
                splices = agreed.map(|agreed| cut::items(agreed, is_seen)).unwrap_or_default();
            }
            "notifications/tasks" | "notifications/tasks/status" if is_of_hidden_tool(param("taskId"), judge) => {
                return Verdict::Drop("task_hidden");
            }
            // What a task asks for stands here as it does in the answer to `tasks/get`.
            "notifications/tasks" => {
                if let Some(Err(reason)) = message.params().map(|task| check_inputs_of_task(task, judge)) {
                    return Verdict::Drop(reason);
                }
            }
            "notifications/tools/list_changed" => judge.catalog.forget(judge.server, judge.target()),
            "notifications/message" if self.modern.as_ref().is_some_and(|modern| !modern.wants_logs) => {
                return Verdict::Drop("log_unasked");
            }
            "notifications/progress" => {
                let token = self.modern.as_ref().map(|modern| modern.progress_token.as_deref());
                let told = param("progressToken").map(Value::raw_text);
                if token.is_some_and(|token| token != told) {
                    return Verdict::Drop("progress_token");
                }
            }
            _ => {}
        }
        self.with_tasks_sealed(message, splices, judge)
    }

    /// A request to the client, of a revision that has such.
    fn request(&self, message: &Message, judge: &Judge<'_>) -> Verdict {
        let method = message.method().unwrap_or_default();
        let is_relayed = ClientRequest::of_method(method).is_none_or(|asked| judge.view.relays(asked));
        let leads_astray = message.params().and_then(results::elicitation_url).is_some_and(|judged| judged.is_err());
        if !is_relayed || (method == "elicitation/create" && leads_astray) {
            return message.id().map_or(Verdict::Drop("answer_request"), |id| Verdict::Decline(id.into()));
        }
        self.with_tasks_sealed(message, Vec::new(), judge)
    }

    /// Beside what was found already.
    fn with_tasks_sealed(&self, message: &Message, mut splices: Vec<Splice>, judge: &Judge<'_>) -> Verdict {
        let sealed = tasks::seal(message, self.asked.method(), self.revision, |id| judge.tasks.seal(id));
        let all = sealed.map(|sealed| {
            splices.extend(sealed);
            splices
        });
        match all.and_then(|splices| replaced(message, splices)) {
            Ok(body) => Verdict::Pass(body),
            Err(reason) => Verdict::Refuse(reason),
        }
    }

    fn answer(&mut self, message: &Message, judge: &Judge<'_>) -> Result<Verdict, Flaw> {
        self.answered = true;
        let Some(result) = message.result() else {
            let replaced = screened_error(message, judge)?;
            let error_code = message.error().and_then(|error| error.get("code")?.raw_text().parse().ok());
            return Ok(Verdict::Answer(Answer { replaced, ending: Ending::RpcError, negotiated: None, error_code }));
        };
        let mut answer = Answer { replaced: None, ending: Ending::Ok, negotiated: None, error_code: None };
        let mut splices = Vec::new();
        match self.asked {
            Asked::List(kind) => {
                if kind == ListKind::Tools && self.revision.era() == Era::Modern {
                    judge.catalog.learn(judge.server, judge.target(), result);
                }
                splices = cuts(result, kind, judge)?;
            }
            Asked::Method("tools/call") if result.get("isError").is_some_and(|value| value.kind() == Kind::True) => {
                answer.ending = Ending::ToolError;
            }
            Asked::Initialize => {
                let version = result.get("protocolVersion").and_then(|version| version.text());
                answer.negotiated = version.and_then(Revision::parse).filter(|revision| revision.era() == Era::Legacy);
                if answer.negotiated.is_none() {
                    return Err("answer_revision");
                }
                splices.extend(tasks::hide_list(result));
            }
            Asked::Method(_) | Asked::Other | Asked::Anything => {}
        }
        if let Some(modern) = &self.modern {
            self.check_result_type(modern, result, judge)?;
            // What a caller sees depends on who it is; only what anybody sees unchanged may be kept for others.
            if !judge.is_anybody || !splices.is_empty() {
                splices.extend(results::relabel(result)?);
            }
        }
        splices.extend(tasks::seal(message, self.asked.method(), self.revision, |id| judge.tasks.seal(id))?);
        answer.replaced = replaced(message, splices)?;
        Ok(Verdict::Answer(answer))
    }

    /// Whether a result of 2026-07-28 is of a type that its request may be answered with.
    fn check_result_type(&self, modern: &Modern, result: Value<'_>, judge: &Judge<'_>) -> Result<(), Flaw> {
        match results::result_type(result) {
            // What asks for something is held to it whatever it calls itself: a task does so in a complete result.
            ResultType::Complete => check_inputs_of_task(result, judge),
            ResultType::Task if modern.has_tasks => check_inputs_of_task(result, judge),
            ResultType::Task | ResultType::Unknown => Err("result_type"),
            ResultType::InputRequired if !self.asked.method().is_some_and(results::may_ask) => Err("input_unexpected"),
            ResultType::InputRequired => {
                results::input_requests(result)?.try_for_each(|asked| check_input(asked, judge))
            }
        }
    }

    /// An answer to something that was asked elsewhere: whatever could be read as a list in it is held against what the
    /// caller sees, whatever it was asked as.
    fn shaped(&self, message: &Message, judge: &Judge<'_>) -> Result<Verdict, Flaw> {
        let Some(result) = message.result() else { return screened_error(message, judge).map(Verdict::Pass) };
        let mut splices = Vec::new();
        for kind in lists::shapes(result).map_err(|_| "answer_malformed")? {
            splices.extend(cuts(result, kind, judge)?);
        }
        splices.extend(tasks::hide_list(result));
        splices.extend(tasks::seal(message, None, self.revision, |id| judge.tasks.seal(id))?);
        Ok(Verdict::Pass(replaced(message, splices)?))
    }
}

/// What of a list is not for the caller.
fn cuts(result: Value<'_>, kind: ListKind, judge: &Judge<'_>) -> Result<Vec<Splice>, Flaw> {
    let view = judge.view;
    let cuts = lists::cuts(result, kind, |name| match kind {
        ListKind::Tools => view.lists(name),
        ListKind::Resources => view.reads(name),
        ListKind::ResourceTemplates => view.lists_template(name),
        ListKind::Prompts => view.gets(name),
    });
    cuts.map_err(|_| "answer_malformed")
}

/// Whether it is a task of a tool that the caller does not see, any more.
fn is_of_hidden_tool(id: Option<Value<'_>>, judge: &Judge<'_>) -> bool {
    let tool = id.and_then(Value::text).and_then(|id| judge.tasks.task(id).tool);
    tool.is_some_and(|tool| !judge.view.lists(&tool))
}

fn check_inputs_of_task(task: Value<'_>, judge: &Judge<'_>) -> Result<(), Flaw> {
    results::input_requests_of_task(task)?.try_for_each(|asked| check_input(asked, judge))
}

/// Whether the client may be asked for something inside a result.
fn check_input(request: InputRequest<'_>, judge: &Judge<'_>) -> Result<(), Flaw> {
    let asked = ClientRequest::of_method(request.method).ok_or("input_method")?;
    if !judge.view.relays(asked) {
        return Err("input_denied");
    }
    match (asked, request.params) {
        (ClientRequest::Elicitation, Some(params)) => results::elicitation_url(params).unwrap_or(Ok(())),
        _ => Ok(()),
    }
}

/// What stands in the place of one answer that may not pass, on a stream that carries others.
fn in_its_place(message: &Message, flaw: Flaw) -> Verdict {
    let Some(id) = message.id() else { return Verdict::Refuse(flaw) };
    tracing::debug!(reason = flaw, "an answer of the upstream was replaced by an error");
    let wire = Refusal::Answer(flaw).wire(false, None);
    Verdict::Pass(Some(error::error_body(Some(id), wire.code, &wire.text, None)))
}

/// Screens an error that answers a request; gives the body to send, if it is not the received one.
///
/// # Errors
/// It may not pass.
pub(crate) fn screened_error(message: &Message, judge: &Judge<'_>) -> Result<Option<Bytes>, Flaw> {
    check_url_error(message, judge)?;
    let (Some((id, token)), Some(error)) = (judge.tasks.named, message.error()) else { return Ok(None) };
    replaced(message, tasks::rename(error, id, token))
}

/// An error that sends the user to URLs is held against the same rules as a request that does.
fn check_url_error(message: &Message, judge: &Judge<'_>) -> Result<(), Flaw> {
    let Some(error) = message.error() else { return Ok(()) };
    if error.get("code").is_none_or(|code| code.raw() != URL_ELICITATION_REQUIRED) {
        return Ok(());
    }
    if !judge.view.relays(ClientRequest::Elicitation) {
        return Err("input_denied");
    }
    let urls = error.get("data").and_then(|data| data.get("elicitations"));
    urls.into_iter().flat_map(Value::items).try_for_each(|params| results::elicitation_url(params).unwrap_or(Ok(())))
}

/// The message with everything replaced that several found; `None` if nothing is.
fn replaced(message: &Message, splices: Vec<Splice>) -> Result<Option<Bytes>, Flaw> {
    if splices.is_empty() {
        return Ok(None);
    }
    let merged = splice::merge(splices).map_err(|_| "answer_malformed")?;
    splice::apply(message.body(), &merged).map(Some).map_err(|_| "answer_malformed")
}
