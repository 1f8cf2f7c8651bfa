//! May this caller make this call?
//!
//! Pure: the answer depends on the compiled configuration and the call alone. Default deny, in this order:
//! 1. The server must be within reach: open to everybody, or granted by the first of key and agent that has a list of
//!    servers. The caller is known by the name of its key; what the key may do is what this configuration says.
//! 2. The method must be known towards a server in the call's revision, in the form it came in.
//! 3. A tool, resource or prompt must pass the server's lists, then the agent's for the server; blocked beats allowed.
//! 4. The arguments of a tool must pass every constraint of the agent's matrix.
//! 5. A caller with a token must have the scopes of the server, and of the tool.
//! 6. What is permitted may go out narrowed: without capabilities the server may not use, and without subscriptions to
//!    resources the caller does not see.

mod compile;
mod constraint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hash;
mod listen;
mod names;
mod path;
mod pattern;
mod rules;
mod scopes;
#[cfg(test)]
mod tests;
mod uris;
mod verdict;
mod view;

use std::sync::Arc;

use crate::call::Action;
use crate::call::Call;
use crate::config::problem::At;
use crate::mcp::capabilities;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::method::Form;
use crate::mcp::method::Towards;
use crate::mcp::revision::Revision;
use crate::mcp::splice::Splice;
use crate::policy::hash::NameMap;
use crate::policy::pattern::Patterns;
use crate::policy::rules::KeyRules;
use crate::policy::rules::Listed;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::ServerRules;
use crate::policy::scopes::Scopes;
use crate::policy::uris::UriLists;
use crate::policy::verdict::shown;
use crate::policy::view::Access;
use crate::principal::Principal;

pub use crate::mcp::capabilities::ClientRequest;
pub use crate::policy::constraint::Mismatch;
pub use crate::policy::verdict::About;
pub use crate::policy::verdict::ArgumentDenial;
pub use crate::policy::verdict::Denial;
pub use crate::policy::verdict::DenialKind;
pub use crate::policy::verdict::Denied;
pub use crate::policy::verdict::NAMES;
pub use crate::policy::verdict::Permitted;
pub use crate::policy::verdict::Reason;
pub use crate::policy::verdict::Told;
pub use crate::policy::verdict::Whose;
pub use crate::policy::view::View;

/// The rules of one configuration, compiled. Never changes.
pub struct Policy {
    /// Positions of servers, by name.
    index: NameMap<Box<str>, ServerIndex>,
    servers: Vec<ServerRules>,
    keys: NameMap<Box<str>, KeyRules>,
    patterns: Patterns,
    uris: UriLists,
    scopes: Scopes,
}

impl Policy {
    /// Decides one call. What it permits is the only thing that is sent.
    ///
    /// `revision` is the one the call is spoken in. Whether a server exists that the caller may not reach cannot be
    /// told from the answer.
    pub fn decide(&self, principal: &Principal, revision: Revision, call: Call) -> Result<Permitted, Box<Denied>> {
        match self.judge(principal, revision, &call) {
            Ok((reason, own)) => Permitted::new(call, Arc::clone(reason), own),
            Err(denial) => Err(Box::new(Denied { call, denial: *denial })),
        }
    }

    /// Whether a call that was permitted, and whose answer is still under way, would be permitted now.
    pub fn still_permits(&self, principal: &Principal, revision: Revision, call: &Call) -> bool {
        self.judge(principal, revision, call).is_ok()
    }

    /// What the principal sees of a server; nothing of one that it may not reach.
    pub fn view<'p>(&'p self, principal: &Principal, server: &str) -> View<'p> {
        View::new(self.access(principal, server).ok())
    }

    /// Whether the principal may reach a server at all.
    pub fn reaches(&self, principal: &Principal, server: &str) -> bool {
        self.access(principal, server).is_ok()
    }

    fn judge(&self, principal: &Principal, revision: Revision, call: &Call) -> Result<Judged<'_>, Box<Denial>> {
        let access = match self.access(principal, &call.server) {
            Ok(access) => access,
            Err(unreachable) => return Err(unreachable.denial(principal, &call.server)),
        };
        let message = match &call.action {
            // Neither names anything: reaching the server is enough.
            Action::Listen(_) | Action::EndSession => {
                self.scopes.check(principal, &call.server, None)?;
                return Ok((access.grant, Vec::new()));
            }
            Action::Message(message) => message,
        };
        if message.kind() == MessageKind::Response {
            self.scopes.check(principal, &call.server, None)?;
            return Ok((access.grant, Vec::new()));
        }
        let name = message.method().unwrap_or_default();
        if !is_served(message.kind(), name, revision) {
            return Err(unknown_method(name));
        }
        if !call.opened.is_empty() && is_judged(message, &call.opened) {
            return Err(Denial::new(DenialKind::Contradiction, None));
        }
        let reason = judge_target(access, name, message)?;
        // After all else: who may not call a tool is not told which scope it has.
        self.scopes.check(principal, &call.server, call.tool())?;
        Ok((reason, narrowed(access, name, message)))
    }

    /// The rules for `principal` on `server`. Making a denial is left to who needs one: views do not.
    fn access(&self, principal: &Principal, server: &str) -> Result<Access<'_>, Unreachable> {
        let index = *self.index.get(server).ok_or(Unreachable::Unknown)?;
        let server = self.servers.get(index).ok_or(Unreachable::Unknown)?;
        let Some(name) = &principal.key else {
            let grant = server.public.as_ref().ok_or(Unreachable::NotGranted(None))?;
            return Ok(Access { grant, server, matrix: None });
        };
        // A key that this configuration no longer has opens nothing, not even what is open to everybody.
        let key = self.keys.get(&**name).ok_or(Unreachable::NotGranted(None))?;
        let granted = key.reason.as_ref().filter(|_| key.granted.has(index));
        let Some(grant) = granted.or(server.public.as_ref()) else {
            return Err(Unreachable::NotGranted(key.reason.as_ref().map(|reason| reason.at.clone())));
        };
        Ok(Access { grant, server, matrix: key.matrices.get(&index) })
    }
}

/// Why a message is permitted, and what of it does not go out.
type Judged<'p> = (&'p Arc<Reason>, Vec<Splice>);

/// Judges what a message is about.
fn judge_target<'p>(access: Access<'p>, name: &str, message: &Message) -> Result<&'p Arc<Reason>, Box<Denial>> {
    // INVARIANT: a message of a method with a target names it, or it would not have been read.
    let named = || message.target().ok_or_else(|| unknown_method(name));
    match name {
        "tools/call" => access.judge_tool(named()?, message),
        "prompts/get" => access.judge(Listed::Prompt(named()?)),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => access.judge_resource(named()?),
        "completion/complete" => judge_reference(access, message),
        _ => Ok(access.grant),
    }
}

/// Whether substitutions change what is judged as it was received: then something else would be sent.
fn is_judged(message: &Message, opened: &[Splice]) -> bool {
    let Some(params) = message.params() else { return false };
    let judged = ["name", "arguments", "uri", "ref"].into_iter().filter_map(|key| params.get(key));
    let spans: Vec<_> = judged.map(Value::span).collect();
    opened.iter().any(|splice| spans.iter().any(|span| splice.span.start < span.end && span.start < splice.span.end))
}

/// Judges all that a completion could be taken to refer to, whatever its type says.
fn judge_reference<'p>(access: Access<'p>, message: &Message) -> Result<&'p Arc<Reason>, Box<Denial>> {
    let reference = message.params().and_then(|params| params.get("ref"));
    let named = |key| Some(reference?.get(key)?.text().unwrap_or_default());
    let mut reason = access.grant;
    if let Some(prompt) = named("name") {
        reason = access.judge(Listed::Prompt(prompt))?;
    }
    if let Some(template) = named("uri") {
        reason = access.judge_template(template)?;
    }
    Ok(reason)
}

/// What of a permitted message does not go out: capabilities the server may not use, subscriptions to resources the
/// caller does not see.
fn narrowed(access: Access<'_>, name: &str, message: &Message) -> Vec<Splice> {
    let mut cuts = Vec::new();
    if !access.server.relays.all() {
        cuts = capabilities::narrow(message, |asked| access.server.relays.has(asked));
    }
    if name == "subscriptions/listen" {
        cuts.extend(listen::unseen(access, message));
    }
    cuts
}

/// Whether a client may send this method in this form. Whose tasks a server lists nobody can tell, so it is not asked.
fn is_served(kind: MessageKind, name: &str, revision: Revision) -> bool {
    let form = match kind {
        MessageKind::Request => Form::Request,
        MessageKind::Notification => Form::Notification,
        MessageKind::Response => return false,
    };
    name != "tasks/list" && method::find(name, Towards::Server, revision).is_some_and(|method| method.form == form)
}

fn unknown_method(name: &str) -> Box<Denial> {
    Denial::new(DenialKind::MethodUnknown { method: shown(name) }, None)
}

/// Why a server is out of reach.
enum Unreachable {
    /// It does not exist.
    Unknown,
    /// It is not granted, by the list that stands here.
    NotGranted(Option<At>),
}

impl Unreachable {
    fn denial(self, principal: &Principal, server: &str) -> Box<Denial> {
        let server = shown(server);
        match self {
            Self::Unknown => Denial::new(DenialKind::ServerUnknown { server }, None),
            // Where no list speaks, the place is the key that could have one.
            Self::NotGranted(at) => {
                let key = || principal.key.as_ref().map(|name| At::root().key("keys").key(name));
                Denial::new(DenialKind::ServerNotGranted { server }, at.or_else(key))
            }
        }
    }
}
