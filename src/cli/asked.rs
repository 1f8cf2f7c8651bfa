//! A call as an operator describes it, for `explain` and `test`.

use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::auth;
use crate::call::Action;
use crate::call::Call;
use crate::clock;
use crate::config::Loaded;
use crate::config::problem::At;
use crate::config::workspaces;
use crate::config::workspaces::DEFAULT;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::revision::Revision;
use crate::policy::Consulted;
use crate::principal::Principal;
use crate::principal::Report;
use crate::principal::Subject;
use crate::snapshot::Snapshot;

use super::Failure;

/// Who asks for what. Either a key, or any of user, teams, organisation and agent, as a token's claims would name them; none of
/// these: a caller who shows nothing. Without tool, prompt and resource: for nothing but the server.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// The workspace of the caller, in which all names are meant; absent: `default`.
    #[arg(long)]
    workspace: Option<String>,
    /// Name of the key that calls; absent: a caller without a key.
    #[arg(long)]
    key: Option<String>,
    /// The user who calls with a token.
    #[arg(long, conflicts_with = "key")]
    user: Option<String>,
    /// A team of that user; may be repeated.
    #[arg(long = "team", value_name = "TEAM", conflicts_with = "key")]
    teams: Vec<String>,
    /// A scope of the token; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "key")]
    scopes: Vec<String>,
    /// The organisation of that user.
    #[arg(long, conflicts_with = "key")]
    organisation: Option<String>,
    /// The agent that calls with a token.
    #[arg(long, conflicts_with = "key")]
    agent: Option<String>,
    /// What the client says it is, as `clientInfo.name` or `User-Agent`.
    #[arg(long, value_name = "TEXT")]
    reported_as: Option<String>,
    /// The address that the call comes from.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// The toolset by whose URL the call comes.
    #[arg(long)]
    toolset: Option<String>,
    /// When, as RFC 3339 writes it; absent: now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Name of the server.
    #[arg(long)]
    server: String,
    /// Name of the tool.
    #[arg(long)]
    tool: Option<String>,
    /// Name of the prompt.
    #[arg(long, conflicts_with = "tool")]
    prompt: Option<String>,
    /// URI of the resource.
    #[arg(long, conflicts_with_all = ["tool", "prompt"])]
    resource: Option<String>,
    /// The tool's arguments, as a JSON object.
    #[arg(long, default_value = "{}")]
    arguments: Arguments,
}

/// The arguments of a tool. In a file of tests a table does as well as a text.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Value")]
struct Arguments(String);

impl Default for Arguments {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl From<Value> for Arguments {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self(text),
            other => Self(other.to_string()),
        }
    }
}

impl From<String> for Arguments {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What becomes of a call, and why.
pub(super) struct Answer {
    pub(super) permitted: bool,
    /// Fixed word.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) text: String,
    /// Where the deciding rule stands, if one does.
    pub(super) rule: Option<At>,
    /// What each level of the cascade says.
    pub(super) consulted: Vec<Consulted>,
    /// The agents of which rules speak and that the client says it is.
    pub(super) reported: Vec<String>,
}

impl Asked {
    /// Decides the call as the data path would. Nothing is sent.
    ///
    /// # Errors
    /// There is no such key, or such a call would be refused unread.
    pub(super) fn decide(&self, loaded: &Loaded, snapshot: &Snapshot) -> Result<Answer, Failure> {
        let workspace = self.workspace.as_deref().filter(|workspace| *workspace != DEFAULT);
        if let Some(unknown) = workspace.filter(|workspace| !loaded.config.workspaces.contains_key(*workspace)) {
            let known: Vec<&str> = loaded.config.workspaces.keys().map(String::as_str).collect();
            let message = format!("no workspace is named `{unknown}`; there are: {DEFAULT} {}", known.join(" "));
            return Err(Failure::new(message));
        }
        let principal = self.principal(loaded, workspace)?;
        // Who shows nothing is in `default`, whatever is asked.
        let workspace = principal.workspace.as_deref();
        let qualified = |name: &String| workspaces::qualified(workspace, name);
        let now = match &self.at {
            Some(text) => {
                clock::seconds_of(text).ok_or_else(|| wrong(format!("`{text}` is not a time of RFC 3339")))?
            }
            None => clock::now_seconds(),
        };
        let said = self.reported_as.as_deref();
        let report = Report { user_agent: said.map(str::as_bytes), client: said };
        let (source, toolset) = (self.source, self.toolset.as_ref().map(qualified));
        let subject = Subject { principal: &principal, source, toolset: toolset.as_deref(), report, now };
        let reported = snapshot.policy.reported(workspace, report).into_iter().map(String::from).collect::<Vec<_>>();
        if let Some(key) = self.key.as_ref().map(qualified)
            && let Err(error) = snapshot.keys.check_terms(&key, self.source, now)
        {
            let rule = At::entry("keys", &key);
            let (reason, text) = (error.name(), format!("{error} ({rule})"));
            let consulted = Vec::new();
            return Ok(Answer { permitted: false, reason, text, rule: Some(rule), consulted, reported });
        }
        let server = snapshot.server(workspace, &self.server);
        let call = Call { server, action: Action::Message(self.message()?), opened: Vec::new(), task_tool: None };
        let consulted = snapshot.policy.consult(subject, &call);
        Ok(match snapshot.policy.decide(subject, Revision::V2025_11_25, call) {
            Ok(permitted) => {
                let reason = permitted.reason();
                let (text, rule) = (reason.to_string(), reason.at().cloned());
                Answer { permitted: true, reason: reason.name(), text, rule, consulted, reported }
            }
            Err(denied) => {
                let denial = &denied.denial;
                let (text, rule) = (denial.to_string(), denial.at().cloned());
                Answer { permitted: false, reason: denial.name(), text, rule, consulted, reported }
            }
        })
    }

    fn principal(&self, loaded: &Loaded, workspace: Option<&str>) -> Result<Principal, Failure> {
        let qualified = |name: &String| workspaces::qualified(workspace, name);
        if let Some(name) = &self.key {
            let keys = &loaded.config.keys;
            let qualified = qualified(name);
            let Some(key) = keys.get(&qualified) else {
                let here = keys.keys().map(|name| workspaces::split(name)).filter(|(at, _)| *at == workspace);
                let known: Vec<&str> = here.map(|(_, name)| name).collect();
                return Err(Failure::new(format!("no key is named `{name}`; there are: {}", known.join(", "))));
            };
            return Ok(auth::principal(&qualified, key, &loaded.config));
        }
        let is_nobody = self.user.is_none() && self.teams.is_empty() && self.scopes.is_empty();
        if is_nobody && self.organisation.is_none() && self.agent.is_none() {
            return Ok(Principal::public());
        }
        let shared = |name: &String| qualified(name).into();
        Ok(Principal {
            workspace: workspace.map(Into::into),
            id: "token".into(),
            teams: self.teams.iter().map(shared).collect(),
            organisation: self.organisation.as_ref().map(shared),
            user: self.user.as_ref().map(shared),
            agent: self.agent.as_ref().map(shared),
            scopes: self.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            ..Principal::default()
        })
    }

    /// The call as a client would send it, read as strictly.
    fn message(&self) -> Result<Message, Failure> {
        let (method, params) = match (&self.tool, &self.prompt, &self.resource) {
            (Some(tool), _, _) => {
                let (name, arguments) = (Value::from(tool.as_str()), &self.arguments.0);
                ("tools/call", format!(r#"{{"name":{name},"arguments":{arguments}}}"#))
            }
            (None, Some(prompt), _) => ("prompts/get", json!({ "name": prompt }).to_string()),
            (None, None, Some(uri)) => ("resources/read", json!({ "uri": uri }).to_string()),
            (None, None, None) => ("tools/list", "{}".to_owned()),
        };
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Message::read(Bytes::from(body), &Limits::default())
            .map_err(|error| wrong(format!("such a call would be refused unread: {}", error.text)))
    }
}

/// What is described is no call.
fn wrong(message: String) -> Failure {
    Failure { code: 2, message: format!("error: {message}") }
}

/// Where a rule stands in the files.
pub(super) fn place(loaded: &Loaded, at: &At) -> Option<String> {
    let place = loaded.sources.locate(at)?;
    Some(format!("{}:{}:{}", place.file.display(), place.line, place.column))
}
