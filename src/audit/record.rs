//! What is put on record?
//!
//! Plain borrowed values: the gateway fills in what it knows, `None` stays out of the record. Nothing here has
//! room for arguments, results or credentials. A reason is `&'static str`, so that no client's text can become one.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

use sha2::Digest as _;
use sha2::Sha256;

use crate::config::model::Money;
use crate::config::problem::At;
use crate::mcp::revision::Revision;
use crate::principal::Link;
use crate::principal::Minted;
use crate::principal::Principal;

/// Who asked for what, as far as it is known when the record is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The client's address, port 0 where it is not known; `None` on a Unix socket.
    pub source: Option<SocketAddr>,
    /// The proxy or balancer that says so.
    pub via: Option<IpAddr>,
    /// How the client speaks, `http` or `https`, where that is known.
    pub scheme: Option<&'static str>,
    /// What is known of the connection, if it is secure.
    pub secured: Option<Secured<'a>>,
    /// The HTTP method as received.
    pub http_method: Option<&'a str>,
    /// The request target as received, query included: the record keeps its path and the names of its query, never their values.
    pub target: Option<&'a [u8]>,
    /// The `User-Agent` header as received.
    pub user_agent: Option<&'a [u8]>,
    /// The agents of which rules speak and that the client says it is, with commas between them.
    pub reported_agent: Option<&'a str>,
    /// The JSON-RPC method.
    pub rpc_method: Option<&'a str>,
    /// The protocol revision the request is judged under; the record adds its era.
    pub revision: Option<Revision>,
    /// The transport the client came by, from a fixed vocabulary: `streamable-http` or `sse`.
    pub transport: Option<&'static str>,
    /// The upstream's session id; the record keeps a short digest of it.
    pub session: Option<&'a str>,
    /// The authenticated caller.
    pub principal: Option<&'a Principal>,
    /// The server's qualified name: the record has its workspace in a field of its own.
    pub server: Option<&'a str>,
    /// The tool's name as the client wrote it.
    pub tool: Option<&'a str>,
    /// The URI of the resource that the request names, as the client wrote it: the record leaves out userinfo, values of
    /// its query and its fragment.
    pub resource: Option<&'a str>,
    /// The name of the prompt that the request names, as the client wrote it.
    pub prompt: Option<&'a str>,
    /// The key that is asked for, where one is and is not minted.
    pub asked: Option<&'a Link>,
    /// Revision of the snapshot that decided.
    pub snapshot: Option<&'a str>,
    /// What the candidate judged beside it would have decided, if otherwise.
    pub shadow: Option<Shadow<'a>>,
}

/// What a candidate would have decided otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Shadow<'a> {
    /// Whether it would have permitted the request.
    pub permitted: bool,
    /// Name of the reason, from policy's fixed vocabulary.
    pub reason: &'static str,
    /// The rule's place in the candidate.
    pub rule: Option<&'a At>,
}

/// A connection over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Secured<'a> {
    /// The version of TLS.
    pub version: &'static str,
    /// The client's certificate, if it showed one.
    pub client: Option<Certificate<'a>>,
}

/// A client's certificate, which was verified.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// Whom it was issued to.
    pub subject: &'a str,
    /// Its alternative names.
    pub names: &'a [String],
    /// SHA-256 of the whole of it.
    pub sha256: &'a [u8; 32],
}

/// Why a request may go upstream, and what will be sent.
#[derive(Debug, Clone, Copy)]
pub struct Permission<'a> {
    /// Name of the reason, from policy's fixed vocabulary.
    pub reason: &'static str,
    /// The rule's place in the configuration.
    pub rule: Option<&'a At>,
    /// The body that is about to be sent upstream.
    pub sent: Option<Digested>,
    /// The key that is minted, where one is.
    pub minted: Option<&'a Minted>,
}

/// Why a request was answered by the gateway with a refusal.
#[derive(Clone, Copy)]
pub struct Refusal<'a> {
    /// Name of the reason, from the refusing step's fixed vocabulary.
    pub reason: &'static str,
    /// The rule's place in the configuration.
    pub rule: Option<&'a At>,
    /// Whose limit was reached.
    pub limit_of: Option<&'a dyn fmt::Display>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// Time spent, by phase.
    pub phases: Phases,
}

/// How a request with an intent on record ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// What became of it.
    pub outcome: Ending,
    /// Name of what went wrong, from a fixed vocabulary.
    pub reason: Option<&'static str>,
    /// HTTP status of the answer, if one was begun.
    pub status: Option<u16>,
    /// The negotiated revision, where the answer settled it; the record adds its era.
    pub revision: Option<Revision>,
    /// The upstream's session id, where the answer brought it; the record keeps a short digest of it.
    pub session: Option<&'a str>,
    /// Id of the endpoint that was asked.
    pub endpoint: Option<u64>,
    /// Connections on which sending was tried.
    pub attempts: u32,
    /// Body bytes that were sent upstream.
    pub sent: Option<Digested>,
    /// Body bytes that came from the upstream, as received.
    pub received: Option<Digested>,
    /// What the call cost.
    pub cost: Option<Money>,
    /// Time spent, by phase.
    pub phases: Phases,
}

impl Outcome<'_> {
    /// An outcome about which nothing but its ending is known.
    pub fn of(outcome: Ending) -> Self {
        Self {
            outcome,
            reason: None,
            status: None,
            revision: None,
            session: None,
            endpoint: None,
            attempts: 0,
            sent: None,
            received: None,
            cost: None,
            phases: Phases::default(),
        }
    }
}

/// What became of a request that was to be sent upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Answered as asked, or taken by the upstream where no answer is due.
    Ok,
    /// The upstream took the message; its answer travels on another stream.
    Accepted,
    /// The tool answered with `isError`.
    ToolError,
    /// The upstream answered with a JSON-RPC error.
    RpcError,
    /// The gateway refused what the upstream answered, or took its permission back.
    Refused,
    /// The upstream could not be reached, or the connection broke.
    NetworkFailure,
    /// The upstream answered something that is no valid answer.
    UpstreamError,
    /// The client went away first.
    ClientGone,
    /// A panic, an abort or a shutdown ended it.
    Abandoned,
}

impl Ending {
    /// Every ending, in the order of the documentation.
    pub const ALL: [Self; 9] = [
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

    /// The word in records and metrics. Never changes once released.
    pub fn name(self) -> &'static str {
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

/// Microseconds spent in each phase of a request; `None`: the phase was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// From the head's first byte to its being judged.
    pub head: Option<u64>,
    /// Finding out who calls.
    pub auth: Option<u64>,
    /// Waiting for the body and reading it.
    pub body: Option<u64>,
    /// Strict parse, session, policy: everything between the body and the decision.
    pub judge: Option<u64>,
    /// Waiting for the intent to be on record.
    pub record: Option<u64>,
    /// From the decision to the head of the upstream's answer, connecting included.
    pub upstream: Option<u64>,
    /// From the head of the upstream's answer to the end of ours.
    pub answer: Option<u64>,
    /// From the head's first byte to the end.
    pub total: Option<u64>,
}

impl Phases {
    /// Each phase with its word in the record, in the order in which they happen.
    pub fn named(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("head", self.head),
            ("auth", self.auth),
            ("body", self.body),
            ("judge", self.judge),
            ("record", self.record),
            ("upstream", self.upstream),
            ("answer", self.answer),
            ("total", self.total),
        ]
    }
}

/// Length and SHA-256 of bytes that are not themselves put on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digested {
    /// The digest.
    pub sha256: [u8; 32],
    /// How many bytes it is of.
    pub bytes: u64,
}

impl Digested {
    /// The digest of bytes that are all there.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::digest(bytes).into(), bytes: bytes.len() as u64 }
    }
}

/// Digests bytes that come piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Digester {
    hasher: Sha256,
    bytes: u64,
}

impl Digester {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
    }

    /// The digest of everything taken until now; more may follow.
    pub fn so_far(&self) -> Digested {
        Digested { sha256: self.hasher.clone().finalize().into(), bytes: self.bytes }
    }
}
