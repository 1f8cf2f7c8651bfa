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
use crate::policy::constraint::ArgumentDenial;
use crate::policy::constraint::Mismatch;
use crate::policy::reason::Reason;
use crate::policy::rules::Restriction;

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

/// Every name that a [`Reason`] or a [`Denial`] can have, for metrics that are registered up front.
pub const NAMES: &[&str] = &[
    "public",
    "key_servers",
    "key_tool_permissions",
    "key_toolsets",
    "team_servers",
    "team_tool_permissions",
    "team_toolsets",
    "organisation_servers",
    "organisation_tool_permissions",
    "organisation_toolsets",
    "user_servers",
    "user_tool_permissions",
    "user_toolsets",
    "agent_servers",
    "agent_tool_permissions",
    "agent_toolsets",
    "toolset",
    "server_tools",
    "agent_tools",
    "server_resources",
    "agent_resources",
    "server_prompts",
    "agent_prompts",
    "server_unknown",
    "server_not_granted",
    "server_disabled",
    "server_source",
    "server_user",
    "server_agent",
    "server_agent_blocked",
    "reported_agents_max",
    "caller_disabled",
    "tool_not_granted",
    "resource_not_granted",
    "prompt_not_granted",
    "not_in_toolset",
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
    "argument_excluded",
    "argument_not_listed",
    "argument_out_of_range",
    "argument_too_long",
    "argument_outside_path",
    "argument_other_host",
    "argument_forbidden",
    "argument_too_many",
    "argument_not_allowed",
    "server_time",
    "agent_source",
    "agent_time",
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

/// How many of [`NAMES`] a [`Reason`] can have: they stand first.
const REASONS: usize = 23;

/// Every name that a [`Denial`] can have.
pub const DENIALS: &[&str] = NAMES.split_at(REASONS).1;

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
    /// The server keeps the caller out, whatever is granted.
    KeptOut {
        /// Its name.
        server: String,
        /// By what.
        by: Restriction,
    },
    /// The caller's key or agent is turned off.
    CallerDisabled,
    /// The server is within reach, but this on it is not granted.
    NotGranted {
        /// The name or URI.
        what: String,
        /// Of what.
        about: About,
    },
    /// It is not in the toolset by whose URL the call came.
    NotInToolset {
        /// The name or URI.
        what: String,
        /// Of what.
        about: About,
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
    /// The tool may not be given this argument.
    ParameterNotAllowed {
        /// The tool.
        tool: String,
        /// The argument's name.
        parameter: String,
    },
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

impl About {
    fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Method => "method",
            Self::Tool => "tool",
            Self::Resource => "resource",
            Self::Prompt => "prompt",
            Self::Message => "message",
        }
    }
}

/// Whose list denies a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The server's, for everybody.
    Server,
    /// The agent's, on this server.
    Agent,
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
            DenialKind::KeptOut { by: Restriction::Disabled, .. } => "server_disabled",
            DenialKind::KeptOut { by: Restriction::Source, .. } => "server_source",
            DenialKind::KeptOut { by: Restriction::User, .. } => "server_user",
            DenialKind::KeptOut { by: Restriction::Agent, .. } => "server_agent",
            DenialKind::KeptOut { by: Restriction::AgentBlocked, .. } => "server_agent_blocked",
            DenialKind::KeptOut { by: Restriction::AgentReports, .. } => "reported_agents_max",
            DenialKind::KeptOut { by: Restriction::Time, .. } => "server_time",
            DenialKind::KeptOut { by: Restriction::AgentSource, .. } => "agent_source",
            DenialKind::KeptOut { by: Restriction::AgentTime, .. } => "agent_time",
            DenialKind::ParameterNotAllowed { .. } => "argument_not_allowed",
            DenialKind::CallerDisabled => "caller_disabled",
            DenialKind::NotGranted { about: About::Resource, .. } => "resource_not_granted",
            DenialKind::NotGranted { about: About::Prompt, .. } => "prompt_not_granted",
            DenialKind::NotGranted { .. } => "tool_not_granted",
            DenialKind::NotInToolset { .. } => "not_in_toolset",
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
                Mismatch::Found => "argument_excluded",
                Mismatch::NotListed => "argument_not_listed",
                Mismatch::OutOfRange => "argument_out_of_range",
                Mismatch::TooLong => "argument_too_long",
                Mismatch::OutsidePath => "argument_outside_path",
                Mismatch::OtherHost => "argument_other_host",
                Mismatch::Forbidden => "argument_forbidden",
                Mismatch::TooMany => "argument_too_many",
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
            | DenialKind::KeptOut { .. }
            | DenialKind::CallerDisabled
            | DenialKind::NotGranted { .. }
            | DenialKind::NotInToolset { .. }
            | DenialKind::ToolNotAllowed { .. }
            | DenialKind::ToolBlocked { .. }
            | DenialKind::ResourceNotAllowed { .. }
            | DenialKind::ResourceBlocked { .. }
            | DenialKind::ResourceAmbiguous { .. }
            | DenialKind::PromptNotAllowed { .. }
            | DenialKind::PromptBlocked { .. } => Told::Hidden,
            DenialKind::MethodUnknown { .. } => Told::MethodUnknown,
            DenialKind::Argument(_) | DenialKind::ParameterNotAllowed { .. } | DenialKind::Contradiction => {
                Told::Refused
            }
            DenialKind::ScopeMissing { .. } => Told::Scopes,
        }
    }

    /// What it is about.
    pub fn about(&self) -> About {
        match &self.kind {
            DenialKind::ServerUnknown { .. }
            | DenialKind::ServerNotGranted { .. }
            | DenialKind::KeptOut { .. }
            | DenialKind::CallerDisabled => About::Server,
            DenialKind::NotGranted { about, .. } | DenialKind::NotInToolset { about, .. } => *about,
            DenialKind::MethodUnknown { .. } => About::Method,
            DenialKind::ToolNotAllowed { .. }
            | DenialKind::ToolBlocked { .. }
            | DenialKind::Argument(_)
            | DenialKind::ParameterNotAllowed { .. } => About::Tool,
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

    /// What a client is told whether or not explanations are on, in the operator's words.
    pub fn public_message(&self) -> Option<String> {
        match &self.kind {
            DenialKind::Argument(argument) => argument.message.clone(),
            _ => None,
        }
    }

    /// What a client may be told when the operator turned explanations on: what the argument must be, in the
    /// operator's words. `None` for everything else, whose existence an explanation would give away.
    pub fn public_explanation(&self) -> Option<String> {
        match &self.kind {
            DenialKind::Argument(argument) if argument.description.is_empty() => {
                Some(format!("argument `{}` is not permitted", argument.arg))
            }
            DenialKind::Argument(argument) => Some(format!("argument `{}`: {}", argument.arg, argument.description)),
            DenialKind::ParameterNotAllowed { parameter, .. } => {
                Some(format!("argument `{parameter}` is not permitted"))
            }
            DenialKind::ServerUnknown { .. }
            | DenialKind::ServerNotGranted { .. }
            | DenialKind::KeptOut { .. }
            | DenialKind::CallerDisabled
            | DenialKind::NotGranted { .. }
            | DenialKind::NotInToolset { .. }
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
            DenialKind::KeptOut { server, by } => match by {
                Restriction::Disabled => write!(f, "server `{server}` is turned off")?,
                Restriction::Source => write!(f, "server `{server}` is not open to the caller's address")?,
                Restriction::User => write!(f, "server `{server}` is open to other users only")?,
                Restriction::Agent => write!(f, "server `{server}` is open to other agents only")?,
                Restriction::AgentBlocked => {
                    write!(f, "server `{server}` is closed to what the caller is or says it is")?
                }
                Restriction::AgentReports => write!(f, "the caller says it is too many agents at once")?,
                Restriction::Time => write!(f, "server `{server}` is not open at this time")?,
                Restriction::AgentSource => write!(f, "the agent may not reach server `{server}` from its address")?,
                Restriction::AgentTime => write!(f, "the agent may not reach server `{server}` at this time")?,
            },
            DenialKind::CallerDisabled => write!(f, "the caller's key or agent is turned off")?,
            DenialKind::NotGranted { what, about } => {
                write!(f, "{} `{what}` is not granted to the caller", about.word())?
            }
            DenialKind::NotInToolset { what, about } => write!(f, "{} `{what}` is not in the toolset", about.word())?,
            DenialKind::MethodUnknown { method } => {
                write!(f, "method `{method}` is not known in this revision and form")?
            }
            DenialKind::ToolNotAllowed { tool, whose } => write!(f, "{} does not allow tool `{tool}`", matrix(*whose))?,
            DenialKind::ToolBlocked { tool, whose } => write!(f, "{} blocks tool `{tool}`", matrix(*whose))?,
            DenialKind::Argument(argument) => argument.fmt(f)?,
            DenialKind::ParameterNotAllowed { tool, parameter } => {
                write!(f, "tool `{tool}` may not be given `{parameter}`")?;
            }
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

/// A caller's word as it may be shown: nothing that cannot be seen, and not more than fits a line.
pub(super) fn shown(word: &str) -> String {
    let mut shown: String = word.escape_debug().take(SHOWN_MAX).collect();
    if word.escape_debug().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
