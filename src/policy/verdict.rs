//! What was decided, and why?
//!
//! `Display` and `at` are for operators and records; a client is told what [`Denial::told`] says and, where the
//! operator turned explanations on, [`Denial::public_explanation`]. Neither shows a value of a call's arguments.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::call::Call;
use crate::config::problem::At;
use crate::mcp::message::Message;
use crate::mcp::splice;
use crate::mcp::splice::Splice;
use crate::mcp::uri::UriFlaw;
use crate::policy::constraint::Mismatch;

/// A call that policy permits, together with the reason. It is the only thing that is sent to a server.
///
/// It owns the call, so that one call cannot be decided and another sent, and only `Policy::decide` makes one:
///
/// ```compile_fail,E0451
/// # fn forge(call: portcullis::call::Call, reason: std::sync::Arc<portcullis::policy::Reason>) {
/// let forged = portcullis::policy::Permitted { call, reason, changed: None };
/// # }
/// ```
#[derive(Debug)]
pub struct Permitted {
    call: Call,
    reason: Arc<Reason>,
    /// The body to send, if it is not the received one.
    changed: Option<Bytes>,
}

impl Permitted {
    /// Permits a call, with policy's own substitutions beside those the call came with. It fails if they contradict
    /// each other.
    pub(super) fn new(call: Call, reason: Arc<Reason>, own: Vec<Splice>) -> Result<Self, Box<Denied>> {
        let changed = match call.message() {
            Some(message) if !(call.opened.is_empty() && own.is_empty()) => {
                let mut splices = own;
                splices.extend(call.opened.iter().cloned());
                splices.sort_by_key(|splice| splice.span.start);
                match splice::apply(message.body(), &splices) {
                    Ok(changed) => Some(changed),
                    Err(_) => {
                        return Err(Box::new(Denied { call, denial: *Denial::new(DenialKind::Contradiction, None) }));
                    }
                }
            }
            Some(_) | None => None,
        };
        Ok(Self { call, reason, changed })
    }

    /// The body to send, if the call has one: the received bytes with all substitutions made, those the call came with
    /// and policy's own. Without any it is the very buffer that was received.
    pub fn body(&self) -> Option<Bytes> {
        self.changed.as_ref().or_else(|| self.call.message().map(Message::body)).cloned()
    }

    /// The call that is permitted.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Why it is permitted.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The call alone; the permission is gone.
    pub fn into_call(self) -> Call {
        self.call
    }
}

/// A call that policy does not permit. It comes back whole, for the record.
#[derive(Debug)]
pub struct Denied {
    /// The call.
    pub call: Call,
    /// Why it is denied.
    pub denial: Denial,
}

/// Why a call is permitted: the last rule that had a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub(super) kind: ReasonKind,
    pub(super) at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReasonKind {
    Public,
    KeyServers,
    AgentServers,
    ServerTools,
    AgentTools,
    ServerResources,
    AgentResources,
    ServerPrompts,
    AgentPrompts,
}

impl Reason {
    /// Fixed word for records and metrics.
    pub fn name(&self) -> &'static str {
        match self.kind {
            ReasonKind::Public => "public",
            ReasonKind::KeyServers => "key_servers",
            ReasonKind::AgentServers => "agent_servers",
            ReasonKind::ServerTools => "server_tools",
            ReasonKind::AgentTools => "agent_tools",
            ReasonKind::ServerResources => "server_resources",
            ReasonKind::AgentResources => "agent_resources",
            ReasonKind::ServerPrompts => "server_prompts",
            ReasonKind::AgentPrompts => "agent_prompts",
        }
    }

    /// Where the rule stands in the configuration.
    pub fn at(&self) -> Option<&At> {
        Some(&self.at)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.kind {
            ReasonKind::Public => "the server is open to everybody",
            ReasonKind::KeyServers => "the key may reach the server",
            ReasonKind::AgentServers => "the key's agent may reach the server",
            ReasonKind::ServerTools => "the server's tool list allows it",
            ReasonKind::AgentTools => "the agent's tool matrix allows it",
            ReasonKind::ServerResources => "the server's resource list allows it",
            ReasonKind::AgentResources => "the agent's resource list allows it",
            ReasonKind::ServerPrompts => "the server's prompt list allows it",
            ReasonKind::AgentPrompts => "the agent's prompt list allows it",
        };
        write!(f, "{text} ({})", self.at)
    }
}

/// Every name that a [`Reason`] or a [`Denial`] can have, for metrics that are registered up front.
pub const NAMES: &[&str] = &[
    "public",
    "key_servers",
    "agent_servers",
    "server_tools",
    "agent_tools",
    "server_resources",
    "agent_resources",
    "server_prompts",
    "agent_prompts",
    "server_unknown",
    "server_not_granted",
    "method_unknown",
    "tool_not_allowed",
    "agent_tool_not_allowed",
    "tool_blocked",
    "agent_tool_blocked",
    "argument_missing",
    "argument_null",
    "argument_not_scalar",
    "argument_unreachable",
    "argument_ambiguous",
    "argument_mismatch",
    "resource_not_allowed",
    "agent_resource_not_allowed",
    "resource_blocked",
    "agent_resource_blocked",
    "resource_ambiguous",
    "prompt_not_allowed",
    "agent_prompt_not_allowed",
    "prompt_blocked",
    "agent_prompt_blocked",
    "contradiction",
    "scope_missing",
];

/// Why a call is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    kind: DenialKind,
    at: Option<At>,
}

/// What denies a call. Names of servers, tools and methods are the caller's words, cut to a readable length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialKind {
    /// There is no such server.
    ServerUnknown {
        /// Its name.
        server: String,
    },
    /// The caller may not reach the server.
    ServerNotGranted {
        /// Its name.
        server: String,
    },
    /// The method is not known in the call's revision, or not in this form (a request without an id).
    MethodUnknown {
        /// Its name.
        method: String,
    },
    /// The tool is not on the list of allowed tools.
    ToolNotAllowed {
        /// Its name.
        tool: String,
        /// Whose list.
        whose: Whose,
    },
    /// The tool is on the list of blocked tools.
    ToolBlocked {
        /// Its name.
        tool: String,
        /// Whose list.
        whose: Whose,
    },
    /// An argument is not as it must be.
    Argument(Box<ArgumentDenial>),
    /// The resource is not on the list of allowed resources.
    ResourceNotAllowed {
        /// Its URI.
        uri: String,
        /// Whose list.
        whose: Whose,
    },
    /// The resource is on the list of blocked resources.
    ResourceBlocked {
        /// Its URI.
        uri: String,
        /// Whose list.
        whose: Whose,
    },
    /// The resource's URI may be read as another one.
    ResourceAmbiguous {
        /// The URI.
        uri: String,
        /// How.
        flaw: UriFlaw,
    },
    /// The prompt is not on the list of allowed prompts.
    PromptNotAllowed {
        /// Its name.
        prompt: String,
        /// Whose list.
        whose: Whose,
    },
    /// The prompt is on the list of blocked prompts.
    PromptBlocked {
        /// Its name.
        prompt: String,
        /// Whose list.
        whose: Whose,
    },
    /// What the gateway would change in the message was judged as it is, or is changed otherwise too.
    Contradiction,
    /// The caller's token lacks a scope.
    ScopeMissing {
        /// All scopes that are needed.
        needed: Vec<Arc<str>>,
    },
}

/// What a denial is about: what a client is told does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A server.
    Server,
    /// A method.
    Method,
    /// A tool, or its arguments.
    Tool,
    /// A resource, or a template of resources.
    Resource,
    /// A prompt.
    Prompt,
    /// The whole message.
    Message,
}

/// Whose list denies a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The server's, for everybody.
    Server,
    /// The agent's, on this server.
    Agent,
}

/// The constraint that denies a call, and how its argument fails it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentDenial {
    /// The tool's name.
    pub tool: String,
    /// The argument's path, as configured.
    pub arg: String,
    /// The pattern, as configured.
    pub pattern: String,
    /// What the pattern stands for, as configured; may be empty.
    pub description: String,
    /// How the argument fails it.
    pub mismatch: Mismatch,
}

/// What a client is told about a denial, unless the operator turned explanations on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// That there is no such thing: the same for what does not exist and for what the caller may not see.
    Hidden,
    /// That there is no such method.
    MethodUnknown,
    /// That the call is refused: the tool exists and its arguments are not as they must be.
    Refused,
    /// That another token is needed, and with which scopes.
    Scopes,
}

/// Characters of a caller's word that a denial shows.
const SHOWN_MAX: usize = 128;

impl Denial {
    pub(super) fn new(kind: DenialKind, at: Option<At>) -> Box<Self> {
        Box::new(Self { kind, at })
    }

    /// What denies the call.
    pub fn kind(&self) -> &DenialKind {
        &self.kind
    }

    /// Where the rule stands in the configuration; `None` if it is the absence of one.
    pub fn at(&self) -> Option<&At> {
        self.at.as_ref()
    }

    /// Fixed word for records and metrics.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            DenialKind::ServerUnknown { .. } => "server_unknown",
            DenialKind::ServerNotGranted { .. } => "server_not_granted",
            DenialKind::MethodUnknown { .. } => "method_unknown",
            DenialKind::ToolNotAllowed { whose: Whose::Server, .. } => "tool_not_allowed",
            DenialKind::ToolNotAllowed { whose: Whose::Agent, .. } => "agent_tool_not_allowed",
            DenialKind::ToolBlocked { whose: Whose::Server, .. } => "tool_blocked",
            DenialKind::ToolBlocked { whose: Whose::Agent, .. } => "agent_tool_blocked",
            DenialKind::Argument(argument) => match argument.mismatch {
                Mismatch::Missing => "argument_missing",
                Mismatch::Null => "argument_null",
                Mismatch::NotScalar => "argument_not_scalar",
                Mismatch::Unreachable => "argument_unreachable",
                Mismatch::Ambiguous => "argument_ambiguous",
                Mismatch::NotFound => "argument_mismatch",
            },
            DenialKind::ResourceNotAllowed { whose: Whose::Server, .. } => "resource_not_allowed",
            DenialKind::ResourceNotAllowed { whose: Whose::Agent, .. } => "agent_resource_not_allowed",
            DenialKind::ResourceBlocked { whose: Whose::Server, .. } => "resource_blocked",
            DenialKind::ResourceBlocked { whose: Whose::Agent, .. } => "agent_resource_blocked",
            DenialKind::ResourceAmbiguous { .. } => "resource_ambiguous",
            DenialKind::PromptNotAllowed { whose: Whose::Server, .. } => "prompt_not_allowed",
            DenialKind::PromptNotAllowed { whose: Whose::Agent, .. } => "agent_prompt_not_allowed",
            DenialKind::PromptBlocked { whose: Whose::Server, .. } => "prompt_blocked",
            DenialKind::PromptBlocked { whose: Whose::Agent, .. } => "agent_prompt_blocked",
            DenialKind::Contradiction => "contradiction",
            DenialKind::ScopeMissing { .. } => "scope_missing",
        }
    }

    /// What the client is told.
    pub fn told(&self) -> Told {
        match &self.kind {
            DenialKind::ServerUnknown { .. }
            | DenialKind::ServerNotGranted { .. }
            | DenialKind::ToolNotAllowed { .. }
            | DenialKind::ToolBlocked { .. }
            | DenialKind::ResourceNotAllowed { .. }
            | DenialKind::ResourceBlocked { .. }
            | DenialKind::ResourceAmbiguous { .. }
            | DenialKind::PromptNotAllowed { .. }
            | DenialKind::PromptBlocked { .. } => Told::Hidden,
            DenialKind::MethodUnknown { .. } => Told::MethodUnknown,
            DenialKind::Argument(_) | DenialKind::Contradiction => Told::Refused,
            DenialKind::ScopeMissing { .. } => Told::Scopes,
        }
    }

    /// The scopes that the caller's token must have, if that is what it lacks.
    pub fn needed_scopes(&self) -> Option<&[Arc<str>]> {
        match &self.kind {
            DenialKind::ScopeMissing { needed } => Some(needed),
            _ => None,
        }
    }

    /// What it is about.
    pub fn about(&self) -> About {
        match &self.kind {
            DenialKind::ServerUnknown { .. } | DenialKind::ServerNotGranted { .. } => About::Server,
            DenialKind::MethodUnknown { .. } => About::Method,
            DenialKind::ToolNotAllowed { .. } | DenialKind::ToolBlocked { .. } | DenialKind::Argument(_) => About::Tool,
            DenialKind::ResourceNotAllowed { .. }
            | DenialKind::ResourceBlocked { .. }
            | DenialKind::ResourceAmbiguous { .. } => About::Resource,
            DenialKind::PromptNotAllowed { .. } | DenialKind::PromptBlocked { .. } => About::Prompt,
            DenialKind::Contradiction | DenialKind::ScopeMissing { .. } => About::Message,
        }
    }

    /// Whether the client is told that there is no such server, tool, resource or prompt.
    pub fn is_hidden(&self) -> bool {
        self.told() == Told::Hidden
    }

    /// What a client may be told when the operator turned explanations on: what the argument must be, in the
    /// operator's words. `None` for everything else, whose existence an explanation would give away.
    pub fn public_explanation(&self) -> Option<String> {
        match &self.kind {
            DenialKind::Argument(argument) if argument.description.is_empty() => {
                Some(format!("argument `{}` is not permitted", argument.arg))
            }
            DenialKind::Argument(argument) => Some(format!("argument `{}`: {}", argument.arg, argument.description)),
            DenialKind::ServerUnknown { .. }
            | DenialKind::ServerNotGranted { .. }
            | DenialKind::MethodUnknown { .. }
            | DenialKind::ToolNotAllowed { .. }
            | DenialKind::ToolBlocked { .. }
            | DenialKind::ResourceNotAllowed { .. }
            | DenialKind::ResourceBlocked { .. }
            | DenialKind::ResourceAmbiguous { .. }
            | DenialKind::PromptNotAllowed { .. }
            | DenialKind::PromptBlocked { .. }
            | DenialKind::Contradiction
            | DenialKind::ScopeMissing { .. } => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DenialKind::ServerUnknown { server } => write!(f, "there is no server `{server}`")?,
            DenialKind::ServerNotGranted { server } => write!(f, "the caller may not reach server `{server}`")?,
            DenialKind::MethodUnknown { method } => {
                write!(f, "method `{method}` is not known in this revision and form")?
            }
            DenialKind::ToolNotAllowed { tool, whose } => write!(f, "{} does not allow tool `{tool}`", matrix(*whose))?,
            DenialKind::ToolBlocked { tool, whose } => write!(f, "{} blocks tool `{tool}`", matrix(*whose))?,
            DenialKind::Argument(argument) => argument.fmt(f)?,
            DenialKind::ResourceNotAllowed { uri, whose } => write!(f, "{whose} does not allow resource `{uri}`")?,
            DenialKind::ResourceBlocked { uri, whose } => write!(f, "{whose} blocks resource `{uri}`")?,
            DenialKind::ResourceAmbiguous { uri, flaw } => {
                write!(f, "resource `{uri}` may be read as another one: {flaw}")?;
            }
            DenialKind::PromptNotAllowed { prompt, whose } => write!(f, "{whose} does not allow prompt `{prompt}`")?,
            DenialKind::PromptBlocked { prompt, whose } => write!(f, "{whose} blocks prompt `{prompt}`")?,
            DenialKind::Contradiction => {
                write!(f, "a change of the message touches what was judged, or another change")?
            }
            DenialKind::ScopeMissing { needed } => {
                write!(f, "the caller's token must have these scopes: {}", needed.join(" "))?;
            }
        }
        self.at.as_ref().map_or(Ok(()), |at| write!(f, " ({at})"))
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Whose::Server => "the server's list",
            Whose::Agent => "the agent's list",
        })
    }
}

fn matrix(whose: Whose) -> &'static str {
    match whose {
        Whose::Server => "the server's tool list",
        Whose::Agent => "the agent's tool matrix",
    }
}

impl fmt::Display for ArgumentDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, arg, pattern, description, mismatch } = self;
        match mismatch {
            Mismatch::Missing => write!(f, "argument `{arg}` of tool `{tool}` is missing")?,
            Mismatch::Null => write!(f, "argument `{arg}` of tool `{tool}` is null")?,
            Mismatch::NotScalar => write!(f, "argument `{arg}` of tool `{tool}` is an object or an array")?,
            Mismatch::Unreachable => write!(f, "nothing in the arguments of tool `{tool}` stands at `{arg}`")?,
            Mismatch::Ambiguous => write!(f, "argument `{arg}` of tool `{tool}` has a second spelling")?,
            Mismatch::NotFound => write!(f, "argument `{arg}` of tool `{tool}` does not match `{pattern}`")?,
        }
        if description.is_empty() { Ok(()) } else { write!(f, ": {description}") }
    }
}

/// A caller's word as it may be shown: nothing that cannot be seen, and not more than fits a line.
pub(super) fn shown(word: &str) -> String {
    let mut shown: String = word.escape_debug().take(SHOWN_MAX).collect();
    if word.escape_debug().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
