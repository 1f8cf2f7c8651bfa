//! What can an operator write about who may do what?
//!
//! Each level of the cascade (key, team, organisation, user, agent) has the same four keys; what they mean together is up to
//! `policy`. As plain as the rest of the [`model`](crate::config::model), which names them all.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::limits::Limits;
use crate::config::number::Number;

/// How the levels of the cascade are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// The first level that says anything about a server and tool decides.
    #[default]
    First,
    /// Every level that says anything must grant.
    Intersect,
}

/// What one level says, by the four keys that every level may have.
#[derive(Debug, Clone, Copy)]
pub struct Grants<'c> {
    /// `mcp_servers`.
    pub servers: Option<&'c [String]>,
    /// `mcp_access_groups`.
    pub access_groups: Option<&'c [String]>,
    /// `mcp_toolsets`.
    pub toolsets: Option<&'c [String]>,
    /// `mcp_tool_permissions`.
    pub tool_permissions: &'c BTreeMap<String, Vec<String>>,
}

/// The same, to change what is named.
pub(crate) struct GrantsMut<'c> {
    pub(crate) servers: Option<&'c mut Vec<String>>,
    pub(crate) access_groups: Option<&'c mut Vec<String>>,
    pub(crate) toolsets: Option<&'c mut Vec<String>>,
    pub(crate) tool_permissions: &'c mut BTreeMap<String, Vec<String>>,
}

macro_rules! levels {
    ($($level:ty),*) => {
        $(impl $level {
            /// What this level says.
            pub fn grants(&self) -> Grants<'_> {
                Grants {
                    servers: self.mcp_servers.as_deref(),
                    access_groups: self.mcp_access_groups.as_deref(),
                    toolsets: self.mcp_toolsets.as_deref(),
                    tool_permissions: &self.mcp_tool_permissions,
                }
            }

            /// The same, to change what is named.
            pub(crate) fn grants_mut(&mut self) -> GrantsMut<'_> {
                GrantsMut {
                    servers: self.mcp_servers.as_mut(),
                    access_groups: self.mcp_access_groups.as_mut(),
                    toolsets: self.mcp_toolsets.as_mut(),
                    tool_permissions: &mut self.mcp_tool_permissions,
                }
            }
        })*
    };
}

levels!(Key, Team, Organisation, User, Agent);

/// `[keys.NAME]`: an API key.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// The key's digest, as `portcullis keys create` and `keys import` print it. The key itself is nowhere.
    pub digest: String,
    /// The client certificate that stands for the key: `{ uri = "spiffe://example.com/ci" }`. Beside a `digest`, both are needed.
    pub certificate: KeyCertificate,
    /// Servers that may be reached: names, or `["*"]`. A list answers for every server: who is not on it is denied. Absent:
    /// says nothing, and the next level is asked.
    pub mcp_servers: Option<Vec<String>>,
    /// Groups of servers (`access_groups` of a server) that may be reached; together with `mcp_servers` one list.
    pub mcp_access_groups: Option<Vec<String>>,
    /// Toolsets whose tools may be called, whatever the list says; says nothing of other tools.
    pub mcp_toolsets: Option<Vec<String>>,
    /// Tools that may be called, by server, `*` matching any text. Answers for every tool of the server, but grants no server
    /// that the same level's list leaves out.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
    /// The team the key belongs to.
    pub team: Option<String>,
    /// The organisation the key belongs to. Absent: the team's.
    pub organisation: Option<String>,
    /// The user whose key it is.
    pub user: Option<String>,
    /// The agent that uses the key.
    pub agent: Option<String>,
    /// When the key ends, as RFC 3339 writes it: `2027-01-31T00:00:00Z`.
    pub expires: Option<String>,
    /// Networks the key may be used from: `10.0.0.0/8`, `2001:db8::/32`, single addresses. Absent: all.
    pub allowed_sources: Option<Vec<String>>,
    /// Turns the key off: its streams and calls under way end within a second.
    pub disabled: bool,
    /// Lets the key mint short-lived keys for agents that it invokes: never wider than itself, and ended with it.
    pub may_mint: bool,
    /// What such keys may be.
    pub children: Children,
    /// Whether a request that asks for it (`X-Portcullis-Debug: 1`) is told who it was taken for and what decided.
    pub debug_headers: bool,
    /// A plan whose limits hold where `limits` says nothing.
    pub plan: Option<String>,
    /// What the key may use.
    pub limits: Limits,
    /// Calls a minute to single servers, by server's name: so many at once, then one each time its share of the minute is over.
    pub mcp_rpm_limit: BTreeMap<String, u32>,
}

/// `[keys.NAME.certificate]`: a client certificate, by one thing that stands in it, letter for letter. Whoever verifies it is in
/// `[listen.tls]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyCertificate {
    /// A URI among its alternative names: `"spiffe://example.com/ci"`.
    pub uri: Option<String>,
    /// A host among them; the letters' case does not count.
    pub dns: Option<String>,
    /// An e-mail address among them.
    pub email: Option<String>,
    /// Whom it was issued to, as records have it in `client_cert_subject`: `"O=example, CN=ci"`.
    pub subject: Option<String>,
    /// SHA-256 of the whole certificate, in hex.
    pub sha256: Option<String>,
}

impl KeyCertificate {
    /// Whether it names anything.
    pub fn is_named(&self) -> bool {
        *self != Self::default()
    }
}

/// `[keys.NAME.children]`: what the keys may be that a key mints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Children {
    /// Agents that a child may be for, by name. Absent: every agent that is configured.
    pub agents: Option<Vec<String>>,
    /// Seconds that a child may live.
    pub seconds_max: u64,
    /// How many may follow one another: 1 is children alone, 2 is children of children too.
    pub depth_max: usize,
    /// Ids of children that are ended, with all that they minted.
    pub revoked: Vec<String>,
}

impl Default for Children {
    fn default() -> Self {
        Self { agents: None, seconds_max: 3_600, depth_max: 1, revoked: Vec::new() }
    }
}

/// `[teams.NAME]`: a team.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Team {
    /// Servers that may be reached: names, or `["*"]`. A list answers for every server: who is not on it is denied. Absent:
    /// says nothing, and the next level is asked.
    pub mcp_servers: Option<Vec<String>>,
    /// Groups of servers (`access_groups` of a server) that may be reached; together with `mcp_servers` one list.
    pub mcp_access_groups: Option<Vec<String>>,
    /// Toolsets whose tools may be called, whatever the list says; says nothing of other tools.
    pub mcp_toolsets: Option<Vec<String>>,
    /// Tools that may be called, by server, `*` matching any text. Answers for every tool of the server, but grants no server
    /// that the same level's list leaves out.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
    /// The organisation the team belongs to.
    pub organisation: Option<String>,
    /// A plan whose limits hold where `limits` says nothing.
    pub plan: Option<String>,
    /// What the keys and users of the team may use together.
    pub limits: Limits,
    /// Calls a minute to single servers, by server's name: so many at once, then one each time its share of the minute is over.
    pub mcp_rpm_limit: BTreeMap<String, u32>,
}

/// `[organisations.NAME]`: an organisation.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Organisation {
    /// Servers that may be reached: names, or `["*"]`. A list answers for every server: who is not on it is denied. Absent:
    /// says nothing, and the next level is asked.
    pub mcp_servers: Option<Vec<String>>,
    /// Groups of servers (`access_groups` of a server) that may be reached; together with `mcp_servers` one list.
    pub mcp_access_groups: Option<Vec<String>>,
    /// Toolsets whose tools may be called, whatever the list says; says nothing of other tools.
    pub mcp_toolsets: Option<Vec<String>>,
    /// Tools that may be called, by server, `*` matching any text. Answers for every tool of the server, but grants no server
    /// that the same level's list leaves out.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
    /// A plan whose limits hold where `limits` says nothing.
    pub plan: Option<String>,
    /// What everybody in the organisation may use together.
    pub limits: Limits,
}

/// `[users.NAME]`: a user.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    /// Servers that may be reached: names, or `["*"]`. A list answers for every server: who is not on it is denied. Absent:
    /// says nothing, and the next level is asked.
    pub mcp_servers: Option<Vec<String>>,
    /// Groups of servers (`access_groups` of a server) that may be reached; together with `mcp_servers` one list.
    pub mcp_access_groups: Option<Vec<String>>,
    /// Toolsets whose tools may be called, whatever the list says; says nothing of other tools.
    pub mcp_toolsets: Option<Vec<String>>,
    /// Tools that may be called, by server, `*` matching any text. Answers for every tool of the server, but grants no server
    /// that the same level's list leaves out.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
    /// A plan whose limits hold where `limits` says nothing.
    pub plan: Option<String>,
    /// What the user may use, with whatever key.
    pub limits: Limits,
}

/// `[toolsets.NAME]`: a named bundle of tools.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Toolset {
    /// Its tools, by server: whole names.
    pub tools: BTreeMap<String, Vec<String>>,
    /// Whether the toolset's own URL grants its tools to every known caller of whom no other level says anything. Toolsets are not
    /// served by URLs of their own yet.
    pub open: bool,
}

/// `[agents.NAME]`: an agent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// Servers that may be reached: names, or `["*"]`. A list answers for every server: who is not on it is denied. Absent:
    /// says nothing, and the next level is asked.
    pub mcp_servers: Option<Vec<String>>,
    /// Groups of servers (`access_groups` of a server) that may be reached; together with `mcp_servers` one list.
    pub mcp_access_groups: Option<Vec<String>>,
    /// Toolsets whose tools may be called, whatever the list says; says nothing of other tools.
    pub mcp_toolsets: Option<Vec<String>>,
    /// Tools that may be called, by server, `*` matching any text. Answers for every tool of the server, but grants no server
    /// that the same level's list leaves out.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
    /// What it says it is in `User-Agent` or `clientInfo.name`, letters' case aside, `*` matching any text: `["my-agent/*"]`. A known
    /// agent's name stands for all it is known by. Who merely reports itself so is denied what the agent is denied by `disabled`, by
    /// `blocked_agents` and by its matrix, and is granted nothing.
    pub reported_as: Vec<String>,
    /// Turns the agent off: its streams and calls under way end within a second.
    pub disabled: bool,
    /// A plan whose limits hold where `limits` says nothing.
    pub plan: Option<String>,
    /// What the agent may use, with whatever key.
    pub limits: Limits,
    /// The agent's tool matrix, by server. A server without an entry is not restricted further.
    pub servers: BTreeMap<String, AgentServer>,
}

/// `[agents.NAME.servers.NAME]`: what an agent may do on one server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentServer {
    /// Tools the agent may call, `*` matching any text; absent: all. `[]`: none.
    pub allowed_tools: Option<Vec<String>>,
    /// Tools the agent may not call; beats every permission.
    pub blocked_tools: Vec<String>,
    /// Resources the agent may read, by their URIs: `*` matches any text without `/`, `**` any text; absent: all. `[]`:
    /// none.
    pub allowed_resources: Option<Vec<String>>,
    /// Resources the agent may not read; beats every permission.
    pub blocked_resources: Vec<String>,
    /// Prompts the agent may use, `*` matching any text; absent: all. `[]`: none.
    pub allowed_prompts: Option<Vec<String>>,
    /// Prompts the agent may not use; beats every permission.
    pub blocked_prompts: Vec<String>,
    /// Arguments that a tool may be given, by tool: names of the first level. Absent: any.
    pub allowed_params: BTreeMap<String, Vec<String>>,
    /// Networks that the agent may call from: `10.0.0.0/8`, single addresses. Absent: all.
    pub allowed_sources: Option<Vec<String>>,
    /// When the agent may call, in UTC: `["Mon-Fri 08:00-18:00", "Sat 10:00-12:00"]`. Absent: always.
    pub allowed_times: Option<Vec<String>>,
    /// Constraints on a tool's arguments, by tool; all of a tool's must hold.
    pub argument_constraints: BTreeMap<String, Vec<Constraint>>,
}

/// What one argument must look like. All that is written must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Constraint {
    /// Path of the argument: `sql`, `a.b`, `a[*].b`, `"quoted key".b`. Every element it matches must hold.
    pub arg: String,
    /// In place of all other keys: the name of a set in `[constraint_sets]`, whose constraints must hold.
    pub r#use: Option<String>,
    /// Regular expression searched in the argument's text, case-sensitive, with the author's own anchors.
    pub pattern: Option<String>,
    /// Regular expression that must take the whole text.
    pub full_match: Option<String>,
    /// Regular expression that must not be found in the text.
    pub not_pattern: Option<String>,
    /// The texts that are possible; of numbers and booleans, as JSON writes them.
    pub one_of: Option<Vec<String>>,
    /// The least number, compared exactly. What is no number fails.
    pub min: Option<Number>,
    /// The largest number, compared exactly. What is no number fails.
    pub max: Option<Number>,
    /// Characters of the text.
    pub max_length: Option<usize>,
    /// Directories that the path must stay within, `..` resolved. Links on the server's disk are the server's affair.
    pub path_within: Option<Vec<String>>,
    /// Hosts that the http or https URL may have: `api.example.com`, `*.example.com`. A URL that some reader might take for one of
    /// another host fails; so does one in an unusual spelling.
    pub url_hosts: Option<Vec<String>>,
    /// Elements of the array that stands at `arg`.
    pub items_max: Option<usize>,
    /// The argument must be there, whatever it is. Without this and `optional`, it must be there because its text is judged.
    pub required: bool,
    /// The argument must not be there.
    pub forbidden: bool,
    /// Lets a missing argument pass; a null, an object or an array never does.
    pub optional: bool,
    /// What the constraint stands for, for people; clients read it where explanations are on.
    pub description: String,
    /// What a client is told when this refuses its call, whether or not explanations are on.
    pub message: Option<String>,
}
