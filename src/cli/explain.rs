//! `portcullis explain`: what would become of this call, and why?
//!
//! The same `compile` and the same `decide` as on the data path; nothing is sent.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use crate::call::Action;
use crate::call::Call;
use crate::config::Loaded;
use crate::config::problem::At;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::revision::Revision;
use crate::principal::Principal;
use crate::server;

use super::Failure;

/// The call to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Name of the key that calls; absent: a caller without a key.
    #[arg(long)]
    key: Option<String>,
    /// Name of the server.
    #[arg(long)]
    server: String,
    /// Name of the tool.
    #[arg(long)]
    tool: String,
    /// The tool's arguments, as a JSON object.
    #[arg(long, default_value = "{}")]
    arguments: String,
    /// Print one JSON object: `decision`, `reason`, `text`, `rule`, `place`.
    #[arg(long)]
    json: bool,
}

/// A decision in words.
struct Explained {
    permitted: bool,
    reason: &'static str,
    text: String,
    rule: Option<At>,
}

/// Decides the call and prints why; exit code 4 if it would be refused.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let principal = principal(arguments, &compiled.loaded)?;
    let call = Call {
        server: arguments.server.as_str().into(),
        action: Action::Message(message(arguments)?),
        opened: Vec::new(),
    };
    let explained = match compiled.snapshot.policy.decide(&principal, Revision::V2025_11_25, call) {
        Ok(permitted) => {
            let reason = permitted.reason();
            Explained { permitted: true, reason: reason.name(), text: reason.to_string(), rule: reason.at().cloned() }
        }
        Err(denied) => {
            let denial = &denied.denial;
            Explained { permitted: false, reason: denial.name(), text: denial.to_string(), rule: denial.at().cloned() }
        }
    };
    super::print(&render(arguments, &compiled.loaded, &explained))?;
    if explained.permitted { Ok(()) } else { Err(Failure { code: super::REFUSED, message: String::new() }) }
}

fn principal(arguments: &Arguments, loaded: &Loaded) -> Result<Principal, Failure> {
    let Some(name) = &arguments.key else { return Ok(Principal::public()) };
    let Some(key) = loaded.config.keys.get(name) else {
        let known: Vec<&str> = loaded.config.keys.keys().map(String::as_str).collect();
        return Err(Failure::new(format!("no key is named `{name}`; there are: {}", known.join(", "))));
    };
    Ok(Principal {
        teams: key.team.as_deref().map(Into::into).into_iter().collect(),
        organisation: key.organisation.as_deref().map(Into::into),
        user: key.user.as_deref().map(Into::into),
        agent: key.agent.as_deref().map(Into::into),
        ..Principal::of_key(name)
    })
}

/// The call as a client would send it, read as strictly.
fn message(arguments: &Arguments) -> Result<Message, Failure> {
    let name = Value::from(arguments.tool.as_str());
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},"arguments":{}}}}}"#,
        arguments.arguments
    );
    Message::read(Bytes::from(body), &Limits::default()).map_err(|error| Failure {
        code: 2,
        message: format!("error: such a call would be refused unread: {}", error.text),
    })
}

fn render(arguments: &Arguments, loaded: &Loaded, explained: &Explained) -> String {
    let decision = if explained.permitted { "permitted" } else { "refused" };
    let rule = explained.rule.as_ref().map(ToString::to_string);
    let place = explained.rule.as_ref().and_then(|at| loaded.sources.locate(at));
    let place = place.map(|place| format!("{}:{}:{}", place.file.display(), place.line, place.column));
    if arguments.json {
        return json!({ "decision": decision, "reason": explained.reason, "text": explained.text, "rule": rule, "place": place }).to_string();
    }
    let mut text = format!("{decision}: {} ({})", explained.text, explained.reason);
    if let Some(rule) = rule {
        text.push_str(&format!("\n  rule:  {rule}"));
    }
    if let Some(place) = place {
        text.push_str(&format!("\n  place: {place}"));
    }
    text
}
