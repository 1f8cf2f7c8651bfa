//! What is a collector told of a request?
//!
//! One span for what the client asked and one for what a server was asked for it, by OpenTelemetry's conventions for MCP
//! (`telemetry::traces::CONVENTIONS`). What they ask for and the record leaves out is left out here: arguments, results, the
//! session's id; of a resource's URI what may be a secret.

use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use http::Uri;

use crate::audit;
use crate::audit::Ended;
use crate::audit::Ending;
use crate::telemetry::traces;
use crate::telemetry::traces::Attributes;

use super::entry::Entry;
use super::entry::Named;

/// Bytes of a request's id; a longer one is left out, since a part of it would be another.
const ID_BYTES_MAX: usize = 64;

/// Tells the collector of a request that has ended now, if its trace is sampled.
pub(super) fn tell(entry: &Entry, ended: &Ended<'_>, now: SystemTime) {
    let (Some(traces), Some(trace)) = (&entry.observers().traces, &entry.trace) else { return };
    let is_known = entry.is_known();
    let spans = trace.spans(traces, is_known);
    if !spans.is_sampled {
        return;
    }
    let state = trace.parent(is_known).and_then(|parent| parent.state.as_deref());
    let before = |moment: Instant| now.checked_sub(moment.elapsed()).unwrap_or(now);
    let name = name(entry);
    if let Some((asked, outcome)) = trace.asked().zip(was_asked(ended)) {
        let ended = traces::Ended {
            name: name.clone(),
            began: before(asked),
            ended: now,
            attributes: of_server(entry, outcome),
            error: error_of_server(outcome, trace.error_code),
        };
        traces.tell_client(&spans, state, ended);
    }
    let ended = traces::Ended {
        name,
        began: now.checked_sub(total(ended)).unwrap_or(now),
        ended: now,
        attributes: of_client(entry, ended),
        error: error(ended, trace.error_code),
    };
    traces.tell_server(&spans, state, trace.linked(is_known), ended);
}

/// How the request ended, if any of it was sent to a server.
fn was_asked<'e>(ended: &Ended<'e>) -> Option<&'e audit::Outcome<'e>> {
    match ended {
        Ended::Passed(_, outcome) if outcome.attempts > 0 => Some(outcome),
        Ended::Passed(..) | Ended::Refused(..) => None,
    }
}

fn total(ended: &Ended<'_>) -> Duration {
    let phases = match ended {
        Ended::Refused(_, refusal) => &refusal.phases,
        Ended::Passed(_, outcome) => &outcome.phases,
    };
    Duration::from_micros(phases.total.unwrap_or_default())
}

/// The method and, where there is one, the tool or the prompt.
fn name(entry: &Entry) -> String {
    let prompt = match &entry.named {
        Some(Named::Prompt(name)) => Some(name),
        Some(Named::Resource(_)) | None => None,
    };
    match (&entry.rpc_method, entry.tool.as_ref().or(prompt)) {
        (Some(method), Some(target)) => format!("{method} {target}"),
        (Some(method), None) => method.to_string(),
        (None, _) => entry.http_method.to_string(),
    }
}

/// What is true of both spans.
fn common(entry: &Entry) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text_of("mcp.method.name", entry.rpc_method.as_deref());
    if let Some(tool) = &entry.tool {
        attributes.word("gen_ai.operation.name", "execute_tool");
        attributes.text("gen_ai.tool.name", tool);
    }
    match &entry.named {
        Some(Named::Prompt(name)) => attributes.text("gen_ai.prompt.name", name),
        Some(Named::Resource(uri)) => attributes.text("mcp.resource.uri", &audit::concealed(uri)),
        None => {}
    }
    attributes.text_of("jsonrpc.request.id", entry.id.as_deref().and_then(id));
    if let Some(revision) = entry.revision {
        attributes.word("mcp.protocol.version", revision.as_str());
    }
    attributes.text_of("portcullis.server", entry.server.as_deref());
    attributes.word("network.transport", "tcp");
    attributes.word("network.protocol.name", "http");
    attributes
}

/// An id without its quotes, if it is short, says something and shows as what it is.
fn id(raw: &str) -> Option<&str> {
    let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw);
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (raw != "null" && text.len() <= ID_BYTES_MAX && is_plain).then_some(text)
}

/// What is told of what the client asked.
fn of_client(entry: &Entry, ended: &Ended<'_>) -> Attributes {
    let mut attributes = common(entry);
    let trace = entry.trace.as_deref();
    if let Some(version) = trace.and_then(|trace| trace.http_version) {
        attributes.word("network.protocol.version", version);
    }
    if let Some(source) = entry.whence.request().source {
        attributes.text("client.address", &source.ip().to_canonical().to_string());
        attributes.number("client.port", source.port().into());
    }
    error_code(&mut attributes, trace.and_then(|trace| trace.error_code));
    let (outcome, reason, status, record) = match ended {
        Ended::Refused(seq, refusal) => ("refused", Some(refusal.reason), refusal.status, *seq),
        Ended::Passed(intent, outcome) => (outcome.outcome.name(), outcome.reason, outcome.status, Some(*intent)),
    };
    if let Some(status) = status {
        attributes.number("http.response.status_code", status.into());
    }
    attributes.word("portcullis.outcome", outcome);
    if let Some(reason) = reason {
        attributes.word("portcullis.reason", reason);
    }
    if let Some(record) = record {
        attributes.number("portcullis.record", record);
    }
    attributes
}

/// What is told of what the server was asked.
fn of_server(entry: &Entry, outcome: &audit::Outcome<'_>) -> Attributes {
    let mut attributes = common(entry);
    attributes.word("network.protocol.version", "1.1");
    if let Some(origin) = entry.origin().and_then(|origin| origin.parse::<Uri>().ok()) {
        let usual = if origin.scheme_str() == Some("https") { 443 } else { 80 };
        attributes.text_of("server.address", origin.host());
        attributes.number("server.port", origin.port_u16().unwrap_or(usual).into());
    }
    if outcome.outcome == Ending::RpcError {
        error_code(&mut attributes, entry.trace.as_ref().and_then(|trace| trace.error_code));
    }
    attributes
}

fn error_code(attributes: &mut Attributes, code: Option<i64>) {
    attributes.text_of("rpc.response.status_code", code.map(|code| code.to_string()).as_deref());
}

/// A server may make up codes without end, and kinds of errors are counted by: those that JSON-RPC reserves are their own kind.
fn kind(code: i64) -> String {
    if (-32_768..=-32_000).contains(&code) { code.to_string() } else { "rpc_error".to_owned() }
}

/// What kind of error the client was answered with.
fn error(ended: &Ended<'_>, code: Option<i64>) -> Option<String> {
    match ended {
        // The gateway's own codes are few.
        Ended::Refused(_, refusal) => Some(code.map_or_else(|| refusal.reason.to_owned(), |code| code.to_string())),
        Ended::Passed(_, outcome) => match outcome.outcome {
            Ending::Ok | Ending::Accepted => None,
            Ending::ToolError => Some("tool_error".to_owned()),
            ending => Some(code.map_or_else(|| outcome.reason.unwrap_or(ending.name()).to_owned(), kind)),
        },
    }
}

/// What kind of error the server answered with, or failed by.
fn error_of_server(outcome: &audit::Outcome<'_>, code: Option<i64>) -> Option<String> {
    match outcome.outcome {
        Ending::Ok | Ending::Accepted => None,
        Ending::ToolError => Some("tool_error".to_owned()),
        Ending::RpcError => code.map(kind),
        ending => Some(outcome.reason.unwrap_or(ending.name()).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_without_its_quotes_and_only_whole() {
        let long = format!("\"{}\"", "i".repeat(ID_BYTES_MAX + 1));
        let told = ["7", "\"a-7\"", "\"\"", "null", &long, "\"\u{202e}7\"", "\"\u{85}\""].map(id);
        assert_eq!(told, [Some("7"), Some("a-7"), Some(""), None, None, None, None]);
    }

    #[test]
    fn a_code_that_a_server_made_up_is_no_kind_of_its_own() {
        let told = [-32_602, -32_000, -31_999, 7, i64::MIN].map(kind);
        assert_eq!(told, ["-32602", "-32000", "rpc_error", "rpc_error", "rpc_error"]);
    }
}
