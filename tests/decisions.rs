//! What does the policy language mean? Each file in `tests/decisions/` is one answer.
//!
//! A case is a configuration and calls with what becomes of them; the files can be read without reading this one.
//! A call's `expect` is `permitted by REASON at PLACE`, `denied by REASON at PLACE`, `denied by REASON` where no rule
//! stands behind it, or `unreadable` if it never gets as far as policy. `problems` lists what is wrong with the
//! configuration, as `error at PLACE: TEXT` or `warning at PLACE: TEXT`; none is expected where it is absent. `sent` is
//! the body that goes out, the received one where it is absent. What lists show is checked beside every call: a tool,
//! resource or prompt is listed if and only if naming it is not hidden.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use portcullis::auth::Keys;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::check_names;
use portcullis::config::model::Config;
use portcullis::config::problem::Problems;
use portcullis::config::problem::Severity;
use portcullis::config::workspaces;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Principal;
use portcullis::principal::Report;
use portcullis::principal::Subject;
use serde::Deserialize;

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Whether keys are compiled too; most cases leave their digests out.
    #[serde(default)]
    auth: bool,
    /// Whether rules that can never matter are told too: most cases ask for callers that no issuer could vouch for.
    #[serde(default)]
    unused: bool,
    #[serde(default)]
    problems: Vec<String>,
    config: Config,
    #[serde(default)]
    calls: Vec<Asked>,
}

/// One call: of a tool, a resource or a prompt, or any `message`, or the end of a session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// That of the caller, in which all names are meant.
    workspace: Option<String>,
    /// Absent: the caller shows no key.
    key: Option<String>,
    /// What a token says of its bearer.
    user: Option<String>,
    #[serde(default)]
    teams: Vec<String>,
    organisation: Option<String>,
    agent: Option<String>,
    source: Option<IpAddr>,
    toolset: Option<String>,
    /// What the client says it is in its `User-Agent`.
    reported_as: Option<String>,
    #[serde(default)]
    now: u64,
    server: String,
    tool: Option<String>,
    resource: Option<String>,
    prompt: Option<String>,
    /// JSON text.
    arguments: Option<String>,
    message: Option<String>,
    #[serde(default)]
    end_session: bool,
    /// Absent: 2025-11-25.
    revision: Option<String>,
    expect: String,
    sent: Option<String>,
    /// What the client may be told if explanations are on.
    explanation: Option<String>,
}

#[test]
fn every_case_is_decided_as_it_says() {
    let files = files();
    assert!(files.len() >= 30, "{}", files.len());
    let wrong: Vec<String> = files.iter().flat_map(|file| check(file)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// What is not as the file says.
fn check(file: &Path) -> Vec<String> {
    let name = file.file_name().unwrap().to_string_lossy();
    let mut case: Case = match toml::from_str(&std::fs::read_to_string(file).unwrap()) {
        Ok(case) => case,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut problems = Problems::new();
    workspaces::join(&mut case.config, &mut problems);
    check_names(&case.config, &mut problems);
    let policy = Policy::compile(&case.config, &mut problems);
    if case.auth {
        Keys::compile(&case.config, &mut problems);
    }
    if case.unused {
        policy.check_unused(&case.config, &mut problems);
    }
    let found: Vec<String> = problems
        .iter()
        .map(|problem| {
            let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
            format!("{severity} at {}: {}", problem.at, problem.message)
        })
        .collect();
    let mut wrong = Vec::new();
    if found != case.problems {
        wrong.push(format!("{name}: problems\n    found    {found:#?}\n    expected {:#?}", case.problems));
    }
    for (index, asked) in case.calls.iter().enumerate() {
        let (verdict, explanation) = decide(&policy, asked);
        if verdict != asked.expect {
            wrong.push(format!("{name}: call {}\n    found    {verdict}\n    expected {}", index + 1, asked.expect));
        }
        if asked.explanation.is_some() && explanation != asked.explanation {
            wrong.push(format!("{name}: call {}: explained as {explanation:?}", index + 1));
        }
    }
    wrong
}

fn decide(policy: &Policy, asked: &Asked) -> (String, Option<String>) {
    let Some(action) = action(asked) else { return ("unreadable".to_owned(), None) };
    let workspace = asked.workspace.as_deref();
    let qualified = |name: &String| workspaces::qualified(workspace, name);
    let shared = |name: &String| qualified(name).into();
    let principal = match &asked.key {
        Some(key) => Principal::of_key(&qualified(key)),
        None if asked.user.is_none()
            && asked.teams.is_empty()
            && asked.organisation.is_none()
            && asked.agent.is_none() =>
        {
            Principal::public()
        }
        None => Principal {
            id: "token".into(),
            workspace: workspace.map(Into::into),
            key: None,
            teams: asked.teams.iter().map(shared).collect(),
            organisation: asked.organisation.as_ref().map(shared),
            user: asked.user.as_ref().map(shared),
            agent: asked.agent.as_ref().map(shared),
            ..Principal::default()
        },
    };
    let (toolset, server) = (asked.toolset.as_ref().map(qualified), qualified(&asked.server));
    let report = Report { user_agent: asked.reported_as.as_deref().map(str::as_bytes), client: None };
    let (source, toolset, now) = (asked.source, toolset.as_deref(), asked.now);
    let subject = Subject { principal: &principal, source, toolset, report, now };
    let revision = Revision::parse(asked.revision.as_deref().unwrap_or("2025-11-25")).unwrap();
    let call = Call { server: server.as_str().into(), action, opened: Vec::new(), task_tool: None };
    let view = policy.view(subject, &server);
    let target = call.message().and_then(|message| message.target());
    let listed = match call.message().and_then(|message| message.method()) {
        Some("tools/call") => target.map(|tool| view.lists(tool)),
        Some("prompts/get") => target.map(|prompt| view.gets(prompt)),
        Some("resources/read" | "resources/subscribe" | "resources/unsubscribe") => target.map(|uri| view.reads(uri)),
        _ => None,
    };
    let received = call.message().map(|message| message.body().clone());
    let place = |at: Option<&_>| at.map(|at: &portcullis::config::problem::At| format!(" at {at}")).unwrap_or_default();
    match policy.decide(subject, revision, call) {
        Ok(permitted) => {
            assert_ne!(listed, Some(false), "{} is permitted and not listed", asked.expect);
            let expected = asked.sent.as_ref().map(|sent| Bytes::from(sent.clone())).or(received);
            assert_eq!(permitted.body(), expected, "{}", asked.expect);
            (format!("permitted by {}{}", permitted.reason().name(), place(permitted.reason().at())), None)
        }
        Err(denied) => {
            let denial = &denied.denial;
            assert!(listed.is_none_or(|listed| listed != denial.is_hidden()), "{}", asked.expect);
            (format!("denied by {}{}", denial.name(), place(denial.at())), denial.public_explanation())
        }
    }
}

fn action(asked: &Asked) -> Option<Action> {
    if asked.end_session {
        return Some(Action::EndSession);
    }
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let tool = asked.tool.as_deref().unwrap_or_default();
    let arguments = asked.arguments.as_ref().map(|text| format!(r#","arguments":{text}"#)).unwrap_or_default();
    let (method, params) = match (&asked.resource, &asked.prompt) {
        (Some(uri), _) => ("resources/read", format!(r#"{{"uri":{}}}"#, quoted(uri))),
        (_, Some(prompt)) => ("prompts/get", format!(r#"{{"name":{}}}"#, quoted(prompt))),
        _ => ("tools/call", format!(r#"{{"name":{}{arguments}}}"#, quoted(tool))),
    };
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let body = Bytes::from(asked.message.clone().unwrap_or(call));
    Message::read(body, &Limits::default()).map(Action::Message).ok()
}
