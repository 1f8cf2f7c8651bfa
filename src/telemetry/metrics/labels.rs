//! Which values may a label take?
//!
//! Closed sets, so that no client and no upstream can invent a series. Each value knows its text; a value that is
//! not a word of the protocol or of the configuration begins with `_`.

use std::time::Duration;

use crate::mcp::revision::Revision;

/// What takes the place of a value that is not configured, or has no room left.
pub(super) const OTHER: &str = "_other";

/// What a request asks for, as far as metrics tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of the protocol that its label names")]
pub enum Method {
    Initialize,
    Discover,
    Ping,
    ToolsList,
    ToolsCall,
    ResourcesList,
    ResourcesTemplatesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    PromptsList,
    PromptsGet,
    Complete,
    SetLevel,
    Listen,
    /// Any `tasks/..`.
    Tasks,
    /// A notification of the client.
    Notification,
    /// A client's answer to a request of the server.
    Response,
    /// `DELETE`.
    EndSession,
    /// `GET`.
    Stream,
    /// A method that the protocol does not know, or a request that never got as far as having one.
    Other,
}

impl Method {
    /// Every value, in the order of declaration.
    pub(super) const ALL: [Self; 21] = [
        Self::Initialize,
        Self::Discover,
        Self::Ping,
        Self::ToolsList,
        Self::ToolsCall,
        Self::ResourcesList,
        Self::ResourcesTemplatesList,
        Self::ResourcesRead,
        Self::ResourcesSubscribe,
        Self::ResourcesUnsubscribe,
        Self::PromptsList,
        Self::PromptsGet,
        Self::Complete,
        Self::SetLevel,
        Self::Listen,
        Self::Tasks,
        Self::Notification,
        Self::Response,
        Self::EndSession,
        Self::Stream,
        Self::Other,
    ];

    /// The class of a JSON-RPC method, case-sensitive.
    pub fn of(method: &str) -> Self {
        match method {
            "tools/call" => Self::ToolsCall,
            "tools/list" => Self::ToolsList,
            "initialize" => Self::Initialize,
            "server/discover" => Self::Discover,
            "ping" => Self::Ping,
            "resources/list" => Self::ResourcesList,
            "resources/templates/list" => Self::ResourcesTemplatesList,
            "resources/read" => Self::ResourcesRead,
            "resources/subscribe" => Self::ResourcesSubscribe,
            "resources/unsubscribe" => Self::ResourcesUnsubscribe,
            "prompts/list" => Self::PromptsList,
            "prompts/get" => Self::PromptsGet,
            "completion/complete" => Self::Complete,
            "logging/setLevel" => Self::SetLevel,
            "subscriptions/listen" => Self::Listen,
            "tasks/get" | "tasks/result" | "tasks/list" | "tasks/update" | "tasks/cancel" => Self::Tasks,
            other if other.starts_with("notifications/") => Self::Notification,
            _ => Self::Other,
        }
    }

    /// The label's text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Discover => "server/discover",
            Self::Ping => "ping",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::ResourcesList => "resources/list",
            Self::ResourcesTemplatesList => "resources/templates/list",
            Self::ResourcesRead => "resources/read",
            Self::ResourcesSubscribe => "resources/subscribe",
            Self::ResourcesUnsubscribe => "resources/unsubscribe",
            Self::PromptsList => "prompts/list",
            Self::PromptsGet => "prompts/get",
            Self::Complete => "completion/complete",
            Self::SetLevel => "logging/setLevel",
            Self::Listen => "subscriptions/listen",
            Self::Tasks => "_tasks",
            Self::Notification => "_notification",
            Self::Response => "_response",
            Self::EndSession => "_end_session",
            Self::Stream => "_stream",
            Self::Other => OTHER,
        }
    }
}

/// How a request ended. The words of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered with a result, or took what needs none.
    Ok,
    /// The server took the message; its answer travels on another stream.
    Accepted,
    /// The server answered with a result that says `isError`.
    ToolError,
    /// The server answered with a JSON-RPC error.
    RpcError,
    /// The gateway refused.
    Refused,
    /// The server could not be reached, or the connection broke.
    NetworkFailure,
    /// The server answered with what is no answer: an HTTP error, a broken or foreign message.
    UpstreamError,
    /// The client went away first.
    ClientGone,
    /// The gateway dropped the request: a panic, an abort, a shutdown.
    Abandoned,
}

impl Outcome {
    /// Every value, in the order of declaration.
    pub(super) const ALL: [Self; 9] = [
        Self::Ok,
        Self::Accepted,
        Self::ToolError,
        Self::RpcError,
        Self::Refused,
        Self::NetworkFailure,
        Self::UpstreamError,
        Self::ClientGone,
        Self::Abandoned,
    ];

    /// The label's text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Accepted => "accepted",
            Self::ToolError => "tool_error",
            Self::RpcError => "rpc_error",
            Self::Refused => "refused",
            Self::NetworkFailure => "network_failure",
            Self::UpstreamError => "upstream_error",
            Self::ClientGone => "client_gone",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Rows of the revisions: each known one, and a last for requests of which none is known.
pub(super) const REVISION_ROWS: usize = Revision::ALL.len() + 1;

/// The row of a revision.
pub(super) fn revision_row(revision: Option<Revision>) -> usize {
    revision.map_or(Revision::ALL.len(), |revision| revision as usize)
}

/// The label of a revision.
pub(super) fn revision_label(revision: Option<Revision>) -> &'static str {
    revision.map_or("_unknown", Revision::as_str)
}

/// By which transport a client came. The words of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One path that takes POST, and in the revisions with sessions GET and DELETE.
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05: a stream, and a path for messages.
    Sse,
}

impl Transport {
    /// Every value, in the order of declaration.
    pub(super) const ALL: [Self; 2] = [Self::StreamableHttp, Self::Sse];

    /// The label's text.
    pub fn label(self) -> &'static str {
        match self {
            Self::StreamableHttp => "streamable-http",
            Self::Sse => "sse",
        }
    }
}

/// What an event stream to a client carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The answer to one message, until it has come; a stream that takes up a broken one is of this kind too.
    Answer,
    /// What the server says of its own accord, until one side ends it: a `GET`, or `subscriptions/listen`.
    Standing,
    /// Everything of one HTTP+SSE conversation.
    Sse,
}

impl StreamKind {
    /// Every value, in the order of declaration.
    pub(super) const ALL: [Self; 3] = [Self::Answer, Self::Standing, Self::Sse];

    /// The label's text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Standing => "standing",
            Self::Sse => "sse",
        }
    }
}

/// A part of the way of one request through the gateway. Time spent waiting for the client's bytes is to be left out
/// of `Head` and `Body` where it can be told: it would count as the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Judging the head.
    Head,
    /// Finding out who calls.
    Auth,
    /// Reading the body.
    Body,
    /// Parsing it.
    Parse,
    /// Deciding.
    Policy,
    /// Putting the intent and the result on record.
    Record,
    /// Waiting for the server. Not the gateway's own time, so no part of the total.
    UpstreamWait,
}

impl Phase {
    /// Every value, in the order of declaration.
    pub(super) const ALL: [Self; 7] =
        [Self::Head, Self::Auth, Self::Body, Self::Parse, Self::Policy, Self::Record, Self::UpstreamWait];

    /// The label's text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Auth => "auth",
            Self::Body => "body",
            Self::Parse => "parse",
            Self::Policy => "policy",
            Self::Record => "record",
            Self::UpstreamWait => "upstream_wait",
        }
    }
}

/// How long each phase of one request took. Kept by the request, without allocation; handed in once at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases([Option<Duration>; Phase::ALL.len()]);

impl Phases {
    /// Adds time to a phase; a phase may be entered more than once.
    pub fn add(&mut self, phase: Phase, took: Duration) {
        if let Some(slot) = self.0.get_mut(phase as usize) {
            *slot = Some(slot.unwrap_or_default().saturating_add(took));
        }
    }

    /// The time spent in a phase; zero if the request never came there.
    pub fn get(&self, phase: Phase) -> Duration {
        self.entered(phase).unwrap_or_default()
    }

    /// The gateway's own time: every phase but the wait for the server.
    pub fn overhead(&self) -> Duration {
        Phase::ALL
            .into_iter()
            .filter(|phase| *phase != Phase::UpstreamWait)
            .fold(Duration::ZERO, |sum, phase| sum.saturating_add(self.get(phase)))
    }

    /// The time spent in a phase, if the request came there.
    pub(super) fn entered(&self, phase: Phase) -> Option<Duration> {
        self.0.get(phase as usize).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_stands_at_its_own_number() {
        assert!(Method::ALL.iter().enumerate().all(|(at, method)| *method as usize == at));
        assert!(Outcome::ALL.iter().enumerate().all(|(at, outcome)| *outcome as usize == at));
        assert!(Phase::ALL.iter().enumerate().all(|(at, phase)| *phase as usize == at));
        assert!(Transport::ALL.iter().enumerate().all(|(at, transport)| *transport as usize == at));
        assert!(StreamKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(Revision::ALL.iter().enumerate().all(|(at, revision)| revision_row(Some(*revision)) == at));
        assert_eq!(revision_row(None), REVISION_ROWS - 1);
    }

    #[test]
    fn a_method_is_found_by_the_label_it_has() {
        for method in Method::ALL.into_iter().filter(|method| !method.label().starts_with('_')) {
            assert_eq!(Method::of(method.label()), method);
        }
        assert_eq!(Method::of("notifications/cancelled"), Method::Notification);
        assert_eq!(Method::of("tasks/result"), Method::Tasks);
        assert_eq!(Method::of("TOOLS/CALL"), Method::Other);
        assert_eq!(Method::of("_other"), Method::Other);
    }

    #[test]
    fn waiting_for_the_server_is_no_overhead() {
        let mut phases = Phases::default();
        phases.add(Phase::Head, Duration::from_micros(3));
        phases.add(Phase::Record, Duration::from_micros(4));
        phases.add(Phase::Record, Duration::from_micros(5));
        phases.add(Phase::UpstreamWait, Duration::from_secs(9));
        assert_eq!(phases.get(Phase::Record), Duration::from_micros(9));
        assert_eq!(phases.overhead(), Duration::from_micros(12));
        assert_eq!(phases.entered(Phase::Body), None);
    }
}
