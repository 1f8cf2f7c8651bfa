//! The order of steps, the same for every way in.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use pingora::protocols::http::ServerSession;

use crate::auth::AuthError;
use crate::auth::Presented;
use crate::auth::Shown;
use crate::auth::TokenError;
use crate::auth::oauth;
use crate::call::Action;
use crate::call::Call;
use crate::call::Listen;
use crate::clock;
use crate::config::check_server_name;
use crate::config::model::DenialForm;
use crate::config::workspaces;
use crate::failpoint;
use crate::mcp::batch;
use crate::mcp::batch::Item;
use crate::mcp::document::Limits;
use crate::mcp::headers;
use crate::mcp::headers::arguments;
use crate::mcp::message::Message;
use crate::mcp::message::MessageError;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::method::Target;
use crate::mcp::method::Towards;
use crate::mcp::results;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::mcp::subscription;
use crate::mcp::subscription::Subscription;
use crate::mcp::tasks;
use crate::mcp::tasks::Opened;
use crate::mcp::tasks::Owned;
use crate::policy::Denied;
use crate::policy::Permitted;
use crate::policy::Told;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::session;
use crate::telemetry::metrics::Phase;
use crate::transport::body;
use crate::transport::connection::Connection;
use crate::transport::connection::Stage;
use crate::transport::cors::Page;
use crate::transport::route::Door;

use super::admission;
use super::admission::Urgency;
use super::batch as batches;
use super::batch::ITEMS_MAX;
use super::client::Client;
use super::conversation;
use super::conversation::Asker;
use super::conversation::Conversation;
use super::debug;
use super::entry::Entry;
use super::exchange;
use super::exchange::Exchange;
use super::exchange::Resume;
use super::inbound;
use super::inbound::Inbound;
use super::inbound::Verb;
use super::mint;
use super::page;
use super::quota;
use super::quota::AtDoor;
use super::refusal::Misplaced;
use super::refusal::Refusal;
use super::reply;
use super::reply::Reply;
use super::response_filter::Screen;
use super::shadow;
use super::sse;

/// The header by which a client says where to go on.
const LAST_EVENT_ID: &str = "last-event-id";
/// The header that repeats what a request of 2026-07-28 is about.
const MCP_NAME: &str = "mcp-name";

/// Who asks, of which server, and under what.
pub(crate) struct Caller<'c> {
    pub(crate) runtime: &'c Arc<Runtime>,
    pub(crate) active: &'c Arc<Active>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) server: Arc<str>,
}

impl<'c> Caller<'c> {
    /// The same caller under another snapshot.
    pub(crate) fn under(&self, active: &'c Arc<Active>) -> Self {
        let (principal, server) = (Arc::clone(&self.principal), Arc::clone(&self.server));
        Self { runtime: self.runtime, active, principal, server }
    }
}

/// What is asked, in which conversation, and what of the request's headers goes upstream with it.
pub(crate) struct Ask {
    pub(crate) conversation: Conversation,
    pub(crate) action: Action,
    pub(crate) headers: HeaderMap,
    /// What screens the answer to a call whose stream is gone on with.
    pub(crate) awaited: Option<Screen>,
}

/// Handles one request, from its head to the end of its answer, under one snapshot.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn handle(
    session: &mut ServerSession,
    entry: &mut Entry,
    runtime: &Arc<Runtime>,
    active: &Arc<Active>,
    page: Page,
) -> Result<(), Refusal> {
    failpoint!("head");
    let snapshot = &active.snapshot;
    page::let_in(session.req_header_mut(), page, entry.whence.scheme, snapshot)?;
    if page::is_preflight(session.req_header()) {
        return page::answer_preflight(session, entry, runtime, snapshot).await;
    }
    let inbound = inbound::read_head(session.req_header(), snapshot)?;
    entry.door = Some(inbound.door);
    entry.lap(Phase::Head);

    failpoint!("auth");
    let principal = match authenticate(session, entry, &inbound, (runtime, active))? {
        Known::Caller(principal) => principal,
        Known::Token(token) => Box::pin(verify(&token, entry.target.path(), &inbound.server, active)).await?,
    };
    entry.debug = debug::is_asked(&session.req_header().headers, &principal).then(Box::default);
    let server = called(entry.target.path(), &inbound, &principal, active)?;
    entry.note_caller(&principal);
    // What merely stands where a server's name should may be anything, a key included: not for the record.
    entry.server = check_server_name(workspaces::bare(&server)).is_ok().then(|| Arc::clone(&server));
    entry.lap(Phase::Auth);

    failpoint!("rate");
    let caller = Caller { runtime, active, principal, server };
    let at_door = AtDoor::ask(session.req_header(), inbound.verb, &caller)?;

    failpoint!("body");
    let body = read_body(session, entry, &active.snapshot.body).await?;
    entry.lap(Phase::Body);

    failpoint!("parse");
    let asked = read_asked(session, &inbound, body, entry)?;
    at_door.settle(asked.counts())?;
    admission::check(asked.urgency(), &entry.body, runtime, active)?;

    failpoint!("session");
    let conversation = converse(session, &asked, inbound.door, &caller)?;
    entry.revision = Some(conversation.revision);
    entry.upstream_session = conversation.session.as_ref().map(|session| session.upstream_id.clone());
    entry.lap(Phase::Parse);

    let headers = exchange::forwarded_headers(&session.req_header().headers, &conversation, active);
    match asked {
        Asked::Batch(items) => Box::pin(batches::run(session, entry, &caller, (conversation, headers), items)).await,
        Asked::One(action) => {
            let ask = Ask { conversation, action, headers, awaited: None };
            match inbound.door {
                Door::SseMessage => Box::pin(sse::take(session, entry, &caller, ask)).await,
                Door::Streamable | Door::SseStream => {
                    carry_out(Client::Http(session), entry, &caller, ask).await.map(drop)
                }
            }
        }
    }
}

/// Steps 6 to 16, for one action: decides, records, sends, and answers `client`.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn carry_out(
    client: Client<'_>,
    entry: &mut Entry,
    caller: &Caller<'_>,
    ask: Ask,
) -> Result<Option<Resume>, Refusal> {
    let Ask { conversation, action, mut headers, awaited } = ask;
    let Permission { permitted, pinned, task } = permit(entry, caller, &conversation, action, &headers).await?;
    if let Some((id, _)) = task.as_ref().filter(|_| conversation.is_modern()) {
        headers.insert(MCP_NAME, headers::encode(id));
    }
    failpoint!("exchange");
    let mut exchange = Exchange {
        client,
        entry,
        runtime: caller.runtime,
        active: caller.active,
        principal: Arc::clone(&caller.principal),
        conversation,
        headers,
        permitted,
        pinned,
        task,
        message_path: None,
        awaited,
        has_session: false,
        ticket: None,
    };
    exchange::run(&mut exchange).await
}

/// What may be sent, and where its tokens led.
pub(crate) struct Permission {
    pub(crate) permitted: Permitted,
    /// The endpoint that the call names by a token.
    pub(crate) pinned: Option<u64>,
    /// The task that the call is about: the server's id, and the client's token for it.
    pub(crate) task: Option<(String, String)>,
}

/// Steps 6 to 12: opens tokens, decides about an action and puts the intent on record.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn permit(
    entry: &mut Entry,
    caller: &Caller<'_>,
    conversation: &Conversation,
    action: Action,
    headers: &HeaderMap,
) -> Result<Permission, Refusal> {
    failpoint!("policy");
    entry.judged_under(caller.active);
    let (action, stream_endpoint) = open_event(caller, conversation, action)?;
    let opened = open_tasks(caller, entry.subject(&caller.principal), conversation, &action)?;
    let token = opened.named.as_ref().and_then(|_| action.message()?.target()).map(str::to_owned);
    let (server, task_tool) = (Arc::clone(&caller.server), opened.tool);
    let call = Call { server, action, opened: opened.splices, task_tool };
    let (subject, revision) = (entry.subject(&caller.principal), conversation.revision);
    let decided = caller.active.snapshot.policy.decide(subject, revision, call);
    shadow::compare(entry, caller.active, &caller.principal, revision, &decided);
    let permitted = decided.map_err(|denied| denial(caller.active, *denied))?;
    check_repeated_arguments(caller, conversation, permitted.call(), headers)?;
    check_subscription(permitted.call())?;
    entry.lap(Phase::Policy);

    failpoint!("intent");
    // Whether the answer is a stream is known only when the call was carried out: too late to send the client away.
    let may_stream = match &permitted.call().action {
        Action::Message(message) => message.kind() == MessageKind::Request,
        Action::Listen(_) => true,
        Action::EndSession => false,
    };
    if may_stream && caller.runtime.streams_are_full(caller.active) {
        return Err(Refusal::StreamsBusy);
    }
    failpoint!("quota");
    quota::reserve(entry, caller, conversation, permitted.call())?;
    entry.intend(&permitted).await?;
    entry.lap(Phase::Record);
    Ok(Permission { permitted, pinned: opened.endpoint.or(stream_endpoint), task: opened.named.zip(token) })
}

/// Opens the token by which a client outside any session names the event to go on after. Another's is no id.
fn open_event(
    caller: &Caller<'_>,
    conversation: &Conversation,
    action: Action,
) -> Result<(Action, Option<u64>), Refusal> {
    let Action::Listen(Listen { last_event_id: Some(token) }) = &action else { return Ok((action, None)) };
    if conversation.session.is_some() || conversation.door != Door::Streamable {
        return Ok((action, None));
    }
    let keyring = caller.runtime.keyring(caller.active).ok_or(Refusal::Internal("no_sealing_key"))?;
    let event = session::open_event(keyring, token, &caller.principal.id, &caller.server);
    let event = event.ok_or(Refusal::Misplaced(Misplaced::LastEventId))?;
    let listen = Listen::after(Some(event.upstream_id.as_bytes()));
    let listen = listen.map_err(|_| Refusal::Misplaced(Misplaced::LastEventId))?;
    Ok((Action::Listen(listen), Some(event.endpoint)))
}

/// Opens the tokens by which a message names tasks. A task of somebody else is no task, nor is one to be watched whose tool the
/// caller does not see.
fn open_tasks(
    caller: &Caller<'_>,
    subject: Subject<'_>,
    conversation: &Conversation,
    action: &Action,
) -> Result<Opened, Refusal> {
    let Action::Message(message) = action else { return Ok(Opened::default()) };
    let is_about_tasks = message.method().is_some_and(|method| {
        let is_known = method::find(method, Towards::Server, conversation.revision).is_some();
        is_known && method::target(method) == Some(Target::Task)
    });
    if is_about_tasks && conversation.is_modern() && !message.meta().is_some_and(results::tasks_declared) {
        return Err(Refusal::Headers(results::tasks_undeclared()));
    }
    let endpoint = conversation.session.as_ref().map(|session| session.endpoint);
    let open_one = |token: &str| {
        let keyring = caller.runtime.keyring(caller.active)?;
        let task = session::open_task(keyring, token, &caller.principal.id, &caller.server)?;
        let is_here = endpoint.is_none_or(|endpoint| endpoint == task.endpoint);
        let view = caller.active.snapshot.policy.view(subject, &caller.server);
        let is_seen = is_about_tasks || task.tool.as_ref().is_none_or(|tool| view.lists(tool));
        caller.runtime.tasks.note(&task);
        (is_here && is_seen).then_some(Owned { id: task.upstream_id, endpoint: task.endpoint, tool: task.tool })
    };
    tasks::open(message, conversation.revision, open_one).map_err(|tasks::NotFound| Refusal::UnknownTask)
}

/// Whether what a subscription asks for can be read; on the stream it is held against it.
fn check_subscription(call: &Call) -> Result<(), Refusal> {
    match call.message().filter(|message| message.method() == Some(subscription::LISTEN)) {
        Some(message) => Subscription::read(message).map(drop).map_err(Refusal::Headers),
        None => Ok(()),
    }
}

/// Whether the headers in which a call of 2026-07-28 repeats arguments say what the arguments say, as far as the tool's
/// schema was seen.
fn check_repeated_arguments(
    caller: &Caller<'_>,
    conversation: &Conversation,
    call: &Call,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let Some(tool) = call.tool().filter(|_| conversation.is_modern()) else { return Ok(()) };
    let Some(upstream) = caller.active.fleet.get(&call.server) else { return Ok(()) };
    let Some(annotated) = caller.runtime.catalog.get(&call.server, upstream.plan().target(), tool) else {
        return Ok(());
    };
    let arguments = call.message().and_then(Message::arguments);
    arguments::verify(headers, arguments, &annotated).map_err(Refusal::Headers)
}

/// What is known of a request's caller.
enum Known {
    /// Who it is.
    Caller(Arc<Principal>),
    /// A token that was not seen before.
    Token(Box<str>),
}

/// Who calls. A caller who shows nothing is let in only where everybody is.
fn authenticate(
    session: &ServerSession,
    entry: &Entry,
    inbound: &Inbound,
    (runtime, active): (&Runtime, &Active),
) -> Result<Known, Refusal> {
    let snapshot = &active.snapshot;
    let public = || entry.subject(&snapshot.public);
    let head = session.req_header();
    let (server, oauth) = (&*inbound.server, &snapshot.oauth);
    let Subject { source, now, .. } = public();
    let certificate = entry.whence.certificate(&snapshot.front);
    let shown = Shown { headers: &head.headers, query: head.uri.query(), certificate, source, now };
    let path = head.uri.path();
    let caller = match snapshot.keys.authenticate(shown).map_err(Refusal::Key)? {
        Some(Presented::Child(text)) => mint::open_child(text, public(), runtime, active)?,
        Some(Presented::Key(principal)) => principal,
        Some(Presented::Token(token)) if oauth.may_take_tokens(server) => {
            match active.tokens.recall(token, &token_shown(path, server, active, &leads_to(active))) {
                Some(caller) => caller.map_err(Refusal::Token)?,
                None => return Ok(Known::Token(token.into())),
            }
        }
        // Where nobody gives tokens it is a key that nobody has.
        Some(Presented::Token(_)) if !oauth.is_on() => return Err(Refusal::Key(AuthError::Unknown)),
        Some(Presented::Token(_)) => return Err(Refusal::Token(TokenError::NotTaken)),
        None if snapshot.policy.reaches(public(), server) => Arc::clone(&snapshot.public),
        None => return Err(Refusal::KeyMissing),
    };
    Ok(Known::Caller(caller))
}

/// The server that is called, in the caller's workspace.
///
/// # Errors
/// It does not take what the caller showed.
fn called(path: &str, inbound: &Inbound, principal: &Principal, active: &Active) -> Result<Arc<str>, Refusal> {
    let (snapshot, oauth) = (&active.snapshot, &active.snapshot.oauth);
    let server = match principal.workspace.as_deref() {
        None => Arc::clone(&inbound.server),
        workspace => snapshot.server(workspace, snapshot.routes.find(path).ok_or(Refusal::NoRoute)?.word),
    };
    match principal.key {
        _ if oauth.takes(principal, &server) => Ok(server),
        Some(_) => Err(Refusal::Key(AuthError::NotTaken)),
        None => Err(Refusal::Token(TokenError::NotTaken)),
    }
}

/// Whose token this is; may wait for the keys of its issuer.
async fn verify(token: &str, path: &str, server: &str, active: &Active) -> Result<Arc<Principal>, Refusal> {
    let leads_to = leads_to(active);
    active.tokens.verify(token, &token_shown(path, server, active, &leads_to)).await.map_err(Refusal::Token)
}

fn token_shown<'s>(
    path: &'s str,
    server: &'s str,
    active: &'s Active,
    leads_to: &'s oauth::LeadsTo<'s>,
) -> oauth::Shown<'s> {
    let (now, instant) = (clock::now_seconds(), Instant::now());
    oauth::Shown { oauth: &active.snapshot.oauth, path, server, leads_to, now, instant }
}

/// Which server a path of ours leads to in a workspace.
fn leads_to(active: &Active) -> impl Fn(&str, Option<&str>) -> Option<Arc<str>> + Sync {
    |path, workspace| active.snapshot.routes.find(path).map(|route| active.snapshot.server(workspace, route.word))
}

/// What goes with a challenge where tokens are taken: where a client learns how to log in, and what to ask for.
fn log_in_at(entry: &Entry, active: &Active, refusal: &Refusal) -> Option<String> {
    let (path, oauth) = (entry.target.path(), &active.snapshot.oauth);
    let routes = &active.snapshot.routes;
    let server = routes.server(None, routes.find(path)?.word);
    if !oauth.may_take_tokens(&server) {
        return None;
    }
    let scopes = oauth.scopes_of(&server).filter(|_| matches!(refusal, Refusal::KeyMissing));
    let scopes = scopes.map(|scopes| format!(r#", scope="{scopes}""#)).unwrap_or_default();
    Some(format!(r#"{scopes}, resource_metadata="{}""#, oauth.metadata_url(path)))
}

/// The body of a request.
///
/// # Errors
/// It did not come as it must.
pub(crate) async fn read_body(
    session: &mut ServerSession,
    entry: &mut Entry,
    limits: &body::Limits,
) -> Result<Bytes, Refusal> {
    let read = body::read_whole(session, limits, &mut entry.body);
    let body = read.await.map_err(Refusal::Body)?;
    if let Some(connection) = Connection::current() {
        connection.enter(Stage::Answering);
    }
    Ok(body)
}

/// What a request asks for.
enum Asked {
    One(Action),
    Batch(Vec<Item>),
}

impl Asked {
    fn urgency(&self) -> Urgency {
        match self {
            Self::One(action) => Urgency::of(action),
            Self::Batch(_) => Urgency::Call,
        }
    }

    /// Whether it counts as a request; a batch is told apart message by message.
    fn counts(&self) -> bool {
        match self {
            Self::One(action) => quota::is_request(action),
            Self::Batch(_) => true,
        }
    }
}

fn read_asked(session: &ServerSession, inbound: &Inbound, body: Bytes, entry: &mut Entry) -> Result<Asked, Refusal> {
    match inbound.verb {
        Verb::Delete => Ok(Asked::One(Action::EndSession)),
        Verb::Get => {
            let mut ids = session.req_header().headers.get_all(LAST_EVENT_ID).iter();
            let id = ids.next().map(http::HeaderValue::as_bytes);
            let listen = Listen::after(id).ok().filter(|_| ids.next().is_none());
            Ok(Asked::One(Action::Listen(listen.ok_or(Refusal::Misplaced(Misplaced::LastEventId))?)))
        }
        Verb::Post => {
            let flawed = |error: MessageError| Refusal::Message(error);
            if batch::is_batch(&body) {
                return batch::read(&body, &Limits::default(), ITEMS_MAX).map(Asked::Batch).map_err(flawed);
            }
            let message = Message::read(body, &Limits::default()).map_err(|error| {
                entry.id.clone_from(&error.id);
                flawed(error)
            })?;
            entry.note_message(&message);
            Ok(Asked::One(Action::Message(message)))
        }
    }
}

fn converse(session: &ServerSession, asked: &Asked, door: Door, caller: &Caller<'_>) -> Result<Conversation, Refusal> {
    let asker = Asker {
        principal: &caller.principal.id,
        server: &caller.server,
        now_seconds: clock::now_seconds(),
        door,
        server_speaks_sse: exchange::speaks_sse(caller.active, &caller.server),
        keyring: caller.runtime.keyring(caller.active).ok_or(Refusal::Internal("no_sealing_key"))?,
    };
    let head = session.req_header();
    match asked {
        Asked::One(Action::Message(message)) => conversation::of_message(head, message, &asker),
        Asked::One(Action::Listen(_)) => conversation::of_stream(head, &asker),
        Asked::One(Action::EndSession) => conversation::of_delete(head, &asker),
        Asked::Batch(_) => conversation::of_batch(head, &asker),
    }
}

/// The refusal of what policy denied, with what the client is told.
fn denial(active: &Active, Denied { denial, .. }: Denied) -> Refusal {
    let explained = || active.snapshot.explain_to_client.then(|| denial.public_explanation()).flatten();
    let explanation = denial.public_message().or_else(explained);
    Refusal::Denied(Box::new(denial), explanation)
}

/// A refusal as it is answered.
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) header: Option<(&'static str, Cow<'static, str>)>,
}

/// The answer to a refused request; its status goes into the entry.
pub(crate) fn refused(entry: &mut Entry, active: &Active, refusal: &Refusal) -> Refused {
    let era = entry.revision.map_or(Era::Legacy, Revision::era);
    let mut wire = refusal.wire(era == Era::Modern, entry.tool.as_deref());
    if let Some(("www-authenticate", challenge)) = &mut wire.header
        && let Some(more) = log_in_at(entry, active, refusal)
    {
        challenge.to_mut().push_str(&more);
    }
    let is_notification = matches!(entry.kind, Some(MessageKind::Notification | MessageKind::Response));
    // Where the answer is read elsewhere than in this body, or by nobody, the status must say it: there is no id under which
    // a JSON-RPC error could answer a notification, and HTTP+SSE clients look at nothing but the status.
    let is_unread = is_notification || entry.door == Some(Door::SseMessage);
    let status = if is_unread && wire.status == 200 { 403 } else { wire.status };
    let as_tool_result = (active.snapshot.denial_form == DenialForm::ToolResult
        && entry.tool.is_some()
        && matches!(refusal, Refusal::Denied(denial, _) if denial.told() != Told::Scopes))
    .then_some(era);
    entry.answered_with(as_tool_result.is_none().then_some(wire.code.into()));
    let body = match entry.is_minting {
        true => mint::refusal_body(&wire.text),
        false => reply::refusal_body(&wire, entry.id.as_deref(), as_tool_result),
    };
    // What the gateway does not let out was told when it began, not for each call.
    if let Refusal::Upstream(error) = refusal
        && !error.failure().is_refusal()
    {
        tracing::warn!(server = entry.server.as_deref().unwrap_or_default(), %error, "an upstream failed");
    }
    entry.status = Some(status);
    Refused { status, body, header: wire.header }
}

/// Answers a refused request, if its client can still be answered, and closes its entry.
pub(crate) async fn answer_refusal(session: &mut ServerSession, entry: &mut Entry, active: &Active, refusal: &Refusal) {
    if reply::is_begun(session) || matches!(refusal, Refusal::ClientGone) {
        // Nothing honest can follow what was written already but the end of the connection.
        reply::cut(session);
        entry.refuse(refusal);
        return;
    }
    // A body that was not read whole cannot be told from a next request; one that broke counts as done for Pingora.
    let unread = matches!(refusal, Refusal::Body(_)) || !session.is_body_done();
    if unread {
        session.set_keepalive(None);
    }
    let refused = refused(entry, active, refusal);
    entry.refuse(refusal);
    let header = refused.header.as_ref().map(|(name, value)| (*name, &**value));
    let no_store = entry.is_minting.then_some(mint::NO_STORE);
    let debug = debug::headers(entry);
    let debug = debug.iter().map(|(name, value)| (*name, value.as_str()));
    let headers: Vec<_> = header.into_iter().chain(no_store).chain(debug).collect();
    let reply = Reply { status: refused.status, body: refused.body, headers: &headers };
    if reply::whole(session, reply).await.is_ok() && unread {
        body::drain(session).await;
    }
}
