//! Which field holds what?
//!
//! The fields of every kind of record, in their one order. A name never changes its meaning once released;
//! docs/audit.md lists them and a test holds it against what is written here. Unknown values are left out.

use std::sync::Arc;

use crate::audit::coalesce::Coalesced;
use crate::audit::evidence::Removal;
use crate::audit::line::Line;
use crate::audit::record::Certificate;
use crate::audit::record::Digested;
use crate::audit::record::Outcome;
use crate::audit::record::Permission;
use crate::audit::record::Phases;
use crate::audit::record::Refusal;
use crate::audit::record::Request;
use crate::audit::segments::Cut;
use crate::audit::tally::Counts;
use crate::audit::uri;
use crate::config::problem::At;
use crate::config::workspaces;
use crate::mcp::revision::Era;
use crate::mcp::revision::Revision;
use crate::principal::Link;
use crate::principal::Minted;

/// Bytes kept of a short word such as a method or a revision.
const WORD_BYTES_MAX: usize = 64;
/// Bytes kept of a name: tools, servers, principals, agents.
const NAME_BYTES_MAX: usize = 128;
/// Bytes kept of free text: user agents, rules' places, errors of the system.
const TEXT_BYTES_MAX: usize = 256;
/// Bytes kept of a resource's URI: what tells a file from its neighbour stands at the end.
const URI_BYTES_MAX: usize = 1024;
/// Teams kept of a caller.
const TEAMS_MAX: usize = 8;
/// Callers kept of a chain: a key, and as many as may follow it.
const CHAIN_MAX: usize = 9;
/// Servers and tools kept of what is left to a minted key.
const MINTED_MAX: usize = 64;
/// Names kept of a client's certificate.
const CERTIFICATE_NAMES_MAX: usize = 4;
/// Bytes kept of a session id's digest: enough to follow a session, too few to be mistaken for a token.
const SESSION_DIGEST_BYTES: usize = 8;

/// The words for decisions.
const ALLOWED: &str = "allowed";
const REFUSED: &str = "refused";

/// Who asked for what.
pub(super) fn request(line: &mut Line<'_>, request: &Request<'_>) {
    if let Some(source) = request.source {
        line.display("source", &source.ip().to_canonical(), WORD_BYTES_MAX);
        number(line, "source_port", Some(u64::from(source.port())).filter(|port| *port > 0));
    }
    if let Some(via) = request.via {
        line.display("via", &via, WORD_BYTES_MAX);
    }
    text(line, "scheme", request.scheme, WORD_BYTES_MAX);
    if let Some(secured) = &request.secured {
        line.word("tls", secured.version);
        client_certificate(line, secured.client);
    }
    text(line, "http_method", request.http_method, WORD_BYTES_MAX);
    if let Some(target) = request.target {
        line.target(target);
    }
    if let Some(user_agent) = request.user_agent {
        line.text("user_agent", user_agent, TEXT_BYTES_MAX);
    }
    text(line, "rpc_method", request.rpc_method, NAME_BYTES_MAX);
    revision(line, request.revision);
    text(line, "transport", request.transport, WORD_BYTES_MAX);
    session(line, request.session);
    // Who is not known is where callers are who show nothing.
    let workspace = request.principal.and_then(|principal| principal.workspace.as_deref());
    line.word("workspace", workspace.unwrap_or(workspaces::DEFAULT));
    if let Some(principal) = request.principal {
        line.text("principal", principal.id.as_bytes(), NAME_BYTES_MAX);
        line.word("credential", principal.credential());
        name(line, "user", principal.user.as_deref());
        if !principal.teams.is_empty() {
            let teams = principal.teams.iter().map(|team| workspaces::bare(team));
            line.texts("teams", teams, TEAMS_MAX, NAME_BYTES_MAX);
        }
        name(line, "organisation", principal.organisation.as_deref());
        name(line, "agent", principal.agent.as_deref());
        if let Some(minted) = &principal.minted {
            chain(line, "chain", minted);
        }
    }
    text(line, "reported_agent", request.reported_agent, NAME_BYTES_MAX);
    name(line, "server", request.server);
    text(line, "tool", request.tool, NAME_BYTES_MAX);
    text(line, "resource", request.resource.map(uri::concealed).as_deref(), URI_BYTES_MAX);
    text(line, "prompt", request.prompt, NAME_BYTES_MAX);
    if let Some(link) = request.asked {
        text(line, "asked_agent", Some(within(workspace, &link.agent)), NAME_BYTES_MAX);
        left(line, ["asked_servers", "asked_tools"], workspace, link);
    }
    text(line, "snapshot", request.snapshot, WORD_BYTES_MAX);
    if let Some(shadow) = &request.shadow {
        line.word("shadow_decision", if shadow.permitted { ALLOWED } else { REFUSED });
        line.word("shadow_reason", shadow.reason);
        if let Some(rule) = shadow.rule {
            line.display("shadow_rule", rule, TEXT_BYTES_MAX);
        }
    }
}

fn client_certificate(line: &mut Line<'_>, certificate: Option<Certificate<'_>>) {
    let Some(certificate) = certificate else { return };
    line.text("client_cert_subject", certificate.subject.as_bytes(), TEXT_BYTES_MAX);
    if !certificate.names.is_empty() {
        let names = certificate.names.iter().map(String::as_str);
        line.texts("client_cert_names", names, CERTIFICATE_NAMES_MAX, TEXT_BYTES_MAX);
    }
    line.hex("client_cert_sha256", certificate.sha256);
}

/// Why it may go upstream, and what will.
pub(super) fn permission(line: &mut Line<'_>, permission: &Permission<'_>) {
    decision(line, ALLOWED, permission.reason, permission.rule);
    digested(line, "sent_sha256", "sent_bytes", permission.sent);
    if let Some(minted) = permission.minted {
        chain(line, "minted", minted);
        line.time("minted_until", minted.expires.saturating_mul(1_000_000));
        if let Some(link) = minted.last() {
            left(line, ["minted_servers", "minted_tools"], minted.parent.workspace.as_deref(), link);
        }
    }
}

/// Everybody in a minted key.
fn chain(line: &mut Line<'_>, name: &str, minted: &Minted) {
    line.texts(name, minted.chain().iter().map(String::as_str), CHAIN_MAX, TEXT_BYTES_MAX);
}

/// What a link leaves to a minted key, under these names.
fn left(line: &mut Line<'_>, [of_servers, of_tools]: [&str; 2], workspace: Option<&str>, link: &Link) {
    if let Some(servers) = &link.servers {
        let servers = servers.iter().map(|server| within(workspace, server));
        line.texts(of_servers, servers, MINTED_MAX, NAME_BYTES_MAX);
    }
    if !link.tools.is_empty() {
        let of_server = |(server, tools): &(Arc<str>, Vec<Arc<str>>)| {
            let server = within(workspace, server);
            let none = tools.is_empty().then(|| format!("{server}/"));
            none.into_iter().chain(tools.iter().map(move |tool| format!("{server}/{tool}"))).collect::<Vec<_>>()
        };
        let tools: Vec<String> = link.tools.iter().flat_map(of_server).take(MINTED_MAX).collect();
        line.texts(of_tools, tools.iter().map(String::as_str), MINTED_MAX, TEXT_BYTES_MAX);
    }
}

/// A name as it is called in a workspace. What is asked for may be written like another one's.
fn within<'n>(workspace: Option<&str>, name: &'n str) -> &'n str {
    workspace.and_then(|workspace| name.strip_prefix(workspace)?.strip_prefix('/')).unwrap_or(name)
}

/// Why it was refused, and how it was answered.
pub(super) fn refusal(line: &mut Line<'_>, refusal: &Refusal<'_>) {
    decision(line, REFUSED, refusal.reason, refusal.rule);
    if let Some(subject) = refusal.limit_of {
        line.display("limit_of", &subject, TEXT_BYTES_MAX);
    }
    number(line, "status", refusal.status.map(u64::from));
    phases(line, &refusal.phases);
}

/// Refusals of one kind that were only counted.
pub(super) fn coalesced(line: &mut Line<'_>, coalesced: &Coalesced) {
    if let Some(prefix) = coalesced.prefix {
        line.display("source_prefix", &prefix, WORD_BYTES_MAX);
    }
    decision(line, REFUSED, coalesced.reason, None);
    line.number("count", coalesced.count);
    line.time("since", coalesced.since_micros);
}

/// How the request of an intent ended.
pub(super) fn outcome(line: &mut Line<'_>, intent: u64, outcome: &Outcome<'_>) {
    line.number("intent", intent);
    line.word("outcome", outcome.outcome.name());
    revision(line, outcome.revision);
    session(line, outcome.session);
    text(line, "reason", outcome.reason, WORD_BYTES_MAX);
    number(line, "status", outcome.status.map(u64::from));
    if let Some(endpoint) = outcome.endpoint {
        line.hex("endpoint", &endpoint.to_be_bytes());
    }
    line.number("attempts", u64::from(outcome.attempts));
    digested(line, "sent_sha256", "sent_bytes", outcome.sent);
    digested(line, "received_sha256", "received_bytes", outcome.received);
    if let Some(cost) = outcome.cost {
        line.display("cost", &cost, WORD_BYTES_MAX);
    }
    phases(line, &outcome.phases);
}

/// What happened to the log itself.
#[derive(Debug, Default)]
pub(super) struct Recovery<'a> {
    /// A word for it.
    pub(super) cause: &'static str,
    /// What the system said.
    pub(super) error: Option<&'a str>,
    /// Where bytes were cut off or stopped counting.
    pub(super) cut: Option<&'a Cut>,
    /// Records that were lost since a record last told.
    pub(super) lost: Counts,
    /// How long no record was taken.
    pub(super) unavailable_micros: Option<u64>,
    /// Records that a start found behind the last checkpoint.
    pub(super) unsigned: Option<u64>,
}

/// What happened to the log itself, and what is missing from it.
pub(super) fn recovery(line: &mut Line<'_>, recovery: &Recovery<'_>) {
    line.word("cause", recovery.cause);
    text(line, "error", recovery.error, TEXT_BYTES_MAX);
    if let Some(cut) = recovery.cut {
        line.text("segment", cut.segment.as_bytes(), WORD_BYTES_MAX);
        line.number("segment_bytes", cut.kept);
        line.number("cut_bytes", cut.cut);
    }
    line.number("lost_intents", recovery.lost.intents);
    line.number("lost_results", recovery.lost.results);
    line.number("lost_refusals", recovery.lost.refusals);
    number(line, "unavailable_us", recovery.unavailable_micros);
    number(line, "unsigned", recovery.unsigned);
}

/// Which segments are about to be removed.
pub(super) fn removal(line: &mut Line<'_>, removal: &Removal) {
    line.number("last_seq", removal.last_seq());
    line.number("leaves", removal.leaves());
    line.number("removed_bytes", removal.bytes);
}

fn decision(line: &mut Line<'_>, decision: &'static str, reason: &'static str, rule: Option<&At>) {
    line.word("decision", decision);
    line.text("reason", reason.as_bytes(), WORD_BYTES_MAX);
    if let Some(rule) = rule {
        line.display("rule", rule, TEXT_BYTES_MAX);
    }
}

fn text(line: &mut Line<'_>, name: &str, text: Option<&str>, bytes_max: usize) {
    if let Some(text) = text {
        line.text(name, text.as_bytes(), bytes_max);
    }
}

/// What a qualified name is called in its workspace.
fn name(line: &mut Line<'_>, field: &str, name: Option<&str>) {
    text(line, field, name.map(workspaces::bare), NAME_BYTES_MAX);
}

fn number(line: &mut Line<'_>, name: &str, number: Option<u64>) {
    if let Some(number) = number {
        line.number(name, number);
    }
}

fn revision(line: &mut Line<'_>, revision: Option<Revision>) {
    if let Some(revision) = revision {
        line.word("revision", revision.as_str());
        let era = match revision.era() {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        };
        line.word("era", era);
    }
}

fn session(line: &mut Line<'_>, session: Option<&str>) {
    if let Some(session) = session {
        let digest = Digested::of(session.as_bytes()).sha256;
        line.hex("session", digest.get(..SESSION_DIGEST_BYTES).unwrap_or_default());
    }
}

fn digested(line: &mut Line<'_>, digest: &str, bytes: &str, digested: Option<Digested>) {
    if let Some(digested) = digested {
        line.hex(digest, &digested.sha256);
        line.number(bytes, digested.bytes);
    }
}

fn phases(line: &mut Line<'_>, phases: &Phases) {
    line.numbers("phases_us", &phases.named());
}
