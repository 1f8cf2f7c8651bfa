//! What can an operator write?
//!
//! Plain values, as close to the file as possible: nothing here is checked, compiled or resolved. Whatever needs
//! work (a pattern, a key, an index) is built by its owner's `compile`. Every table refuses unknown keys.
//! No `flatten`, no untagged or internally tagged enum: they lose the place of a mistake.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::secret::Secret;
use crate::config::sensitive;

pub use crate::config::access::Agent;
pub use crate::config::access::AgentServer;
pub use crate::config::access::Cascade;
pub use crate::config::access::Children;
pub use crate::config::access::Constraint;
pub use crate::config::access::Grants;
pub use crate::config::access::Key;
pub use crate::config::access::KeyCertificate;
pub use crate::config::access::Organisation;
pub use crate::config::access::Team;
pub use crate::config::access::Toolset;
pub use crate::config::access::User;
pub use crate::config::front::CertificateFiles;
pub use crate::config::front::ClientAuth;
pub use crate::config::front::ForwardedHeader;
pub use crate::config::front::Listen;
pub use crate::config::front::ListenTls;
pub use crate::config::issuers::Algorithm;
pub use crate::config::issuers::Auth;
pub use crate::config::issuers::Claims;
pub use crate::config::issuers::Credentials;
pub use crate::config::issuers::Issuer;
pub use crate::config::issuers::KEY_PREFIX;
pub use crate::config::limits::Costs;
pub use crate::config::limits::Limits;
pub use crate::config::limits::ServerLimits;
pub use crate::config::limits::ToolLimits;
pub use crate::config::limits::Usage;
pub use crate::config::model_servers::Balancing;
pub use crate::config::model_servers::Breaker;
pub use crate::config::model_servers::ServerTool;
pub use crate::config::model_servers::UpstreamTls;
pub use crate::config::money::Money;
pub use crate::config::number::Number;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Further files, relative to this one; `*` matches within a file name. TOML files add tables and entries of tables,
    /// `.json` files of the `mcpServers` form add servers. An entry that stands in two files is an error, and an included
    /// file includes none.
    pub include: Vec<String>,
    /// Where the gateway listens, and the limits of its edge.
    pub listen: Listen,
    /// Which paths lead to which server.
    pub routes: Routes,
    /// How callers present themselves.
    pub auth: Auth,
    /// How refusals are told.
    pub policy: Policy,
    /// Keys that seal session ids.
    pub seal: Seal,
    /// Where the gateway keeps what must survive a restart.
    pub state: State,
    /// The record of every request.
    pub audit: Audit,
    /// The gateway's own log, on standard error, and the access log.
    pub log: Log,
    /// What the process itself may touch.
    pub sandbox: Sandbox,
    /// MCP servers behind the gateway, by name.
    pub servers: BTreeMap<String, Server>,
    /// API keys, by name.
    pub keys: BTreeMap<String, Key>,
    /// Teams, by name.
    pub teams: BTreeMap<String, Team>,
    /// Organisations, by name.
    pub organisations: BTreeMap<String, Organisation>,
    /// Users, by name.
    pub users: BTreeMap<String, User>,
    /// Agents, by name: what the agent that a caller is may do on each server.
    pub agents: BTreeMap<String, Agent>,
    /// Sets of constraints, by name, for `use` in a constraint.
    pub constraint_sets: BTreeMap<String, Vec<Constraint>>,
    /// Named bundles of tools, by name.
    pub toolsets: BTreeMap<String, Toolset>,
    /// How use is counted, and what each caller may use.
    pub limits: Usage,
    /// Sets of limits, by name: a key, a team and so on may have one (`plan`).
    pub plans: BTreeMap<String, Limits>,
    /// Workspaces beside `default`, which is all that stands at the top, by name.
    pub workspaces: BTreeMap<String, Workspace>,
}

/// `[workspaces.NAME]`: servers, and who may use them, apart from those of every other workspace. The tables are those of the top
/// level, and what is named in them is looked for in the same workspace. Plans and sets of constraints are shared by all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspace {
    /// MCP servers, by name.
    pub servers: BTreeMap<String, Server>,
    /// API keys, by name.
    pub keys: BTreeMap<String, Key>,
    /// Teams, by name.
    pub teams: BTreeMap<String, Team>,
    /// Organisations, by name.
    pub organisations: BTreeMap<String, Organisation>,
    /// Users, by name.
    pub users: BTreeMap<String, User>,
    /// Agents, by name.
    pub agents: BTreeMap<String, Agent>,
    /// Named bundles of tools, by name.
    pub toolsets: BTreeMap<String, Toolset>,
}

/// `[routes]`: which paths lead to which server.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Routes {
    /// Paths on which servers are reached. `{server}` is a server's name, `{prefix}` any one segment; a literal
    /// segment beats a placeholder.
    pub templates: Vec<String>,
    /// Whole paths that lead to one server: `"/mcp" = "github"`, in the caller's workspace.
    pub fixed: BTreeMap<String, String>,
    /// The path on which keys with `may_mint` mint others. Served only where there is such a key.
    pub keys: String,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            templates: ["/mcp/{server}", "/gateway/mcp/{server}", "/{server}/mcp", "/{prefix}/{server}/v1/stream"]
                .map(String::from)
                .to_vec(),
            fixed: BTreeMap::new(),
            keys: "/v1/mcp/keys".into(),
        }
    }
}

/// `[policy]`: how levels are put together, and how refusals are told.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How the levels key, team, organisation, user, agent and toolset are put together.
    pub cascade: Cascade,
    /// How a refused tool call is answered.
    pub denial_form: DenialForm,
    /// A whole configuration whose rules are asked beside these and decide nothing, relative to this file: where they would have
    /// decided otherwise, the record says so.
    pub shadow_file: Option<String>,
    /// Whether a client is told which rule refused its call. Operators see it in the record either way.
    pub explain_to_client: bool,
}

/// How a refused tool call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DenialForm {
    /// A JSON-RPC error.
    #[default]
    Error,
    /// A tool result with `isError`, which models read more readily.
    ToolResult,
}

/// `[seal]`: the keys that seal session ids.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    /// Keys of 32 bytes in base64, as references: `["${file:seal.key}"]`. The first seals, all open. Absent: one is made
    /// in the state directory.
    pub keys: Option<Vec<Secret>>,
}

/// `[state]`: what must survive a restart.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Directory of the gateway's own state; made if missing. A relative path starts at the file it stands in. Changing it
    /// needs a restart.
    pub directory: String,
}

impl Default for State {
    fn default() -> Self {
        Self { directory: "state".into() }
    }
}

/// `[audit]`: the record of every request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Directory of the record's segments; made if missing. A relative path starts at the file it stands in. Changing it
    /// needs a restart.
    pub directory: String,
    /// When a record counts as kept. Changing it needs a restart.
    pub level: AuditLevel,
    /// Bytes after which a new segment is begun. Changing it needs a restart.
    pub segment_bytes_max: u64,
    /// Days for which records are kept; older segments are removed, which is put on record. Absent: for ever. Changing it
    /// needs a restart.
    pub retention_days: Option<u64>,
    /// Bytes of segments above which the oldest are removed, which is put on record. Absent: none are. Changing it needs a
    /// restart.
    pub retention_bytes_max: Option<u64>,
    /// File with the key that signs checkpoints: 32 bytes in base64. Absent: one is made in the state directory. Changing it
    /// needs a restart.
    pub key_file: Option<String>,
    /// Name of the log, by which checkpoints say what they are of: printable ASCII without spaces and `+`, like
    /// `gateway-1.example/audit`. Absent: one that follows from the key. Changing it needs a restart.
    pub origin: Option<String>,
    /// Whether the gateway keeps an index beside the record as it goes, for `portcullis logs`; else that makes it when it is asked.
    /// Changing it needs a restart.
    pub index: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            directory: "audit".into(),
            level: AuditLevel::Written,
            segment_bytes_max: 64 * 1024 * 1024,
            retention_days: None,
            retention_bytes_max: None,
            key_file: None,
            origin: None,
            index: false,
        }
    }
}

/// When a record counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditLevel {
    /// On the disk (`fdatasync`, many records at once) before the first byte goes upstream: survives a power cut.
    Durable,
    /// Handed to the kernel before it: survives `kill -9`.
    #[default]
    Written,
    /// In the gateway's queue before it: a crash loses the last moments.
    Queued,
}

/// `[log]`: the gateway's own log, on standard error, and the access log.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Form of a log line. Changing it needs a restart.
    pub format: LogFormat,
    /// Where one JSON line for each request goes, in the words of its record: `"off"`, `"stdout"`, `"stderr"`, or an absolute
    /// path. A file that is moved away is begun anew within a second. Changing it needs a restart.
    pub access: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), access: "off".into() }
    }
}

/// `[sandbox]`: what the process itself may touch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Whether the kernel (Landlock) confines the gateway to the directories that the configuration names, and to running no
    /// program. A kernel that cannot is told of in the log. Changing it needs a restart.
    pub enabled: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[servers.NAME]`: an MCP server. A name has the letters a-z, 0-9, `_` and `-`, at most 32, begins with a letter or a
/// digit, and has no `__`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Another name for the server, in URLs and in tool names: of the same form as its own, and nobody else's.
    pub alias: Option<String>,
    /// The server's MCP endpoint: `"https://github.example/mcp"`. Either this or `endpoints`. May hold references such as
    /// `${env:NAME}`.
    pub url: Option<String>,
    /// Replicas of the server: `[{ url = "..", weight = 1 }]`. A session stays on its replica.
    pub endpoints: Vec<Endpoint>,
    /// How the server is spoken to: `streamable-http` (the default; synonyms `streamable_http` and `http`), `sse` or
    /// `stdio`.
    pub transport: Option<Transport>,
    /// The same as `transport`, as `mcpServers` files call it. One of the two is enough; both must agree.
    pub r#type: Option<Transport>,
    /// Who may call: `key` (the default) or `public`, which lets callers without a key in.
    pub access: Access,
    /// What callers may show: `any` (the default), `key` or `token`.
    pub credentials: Credentials,
    /// Scopes that a caller's token must have, all of them. Callers with a key need none.
    pub required_scopes: Vec<String>,
    /// Groups that the server belongs to; a level's `mcp_access_groups` grants all servers of a group.
    pub access_groups: Vec<String>,
    /// Turns the server off: nobody reaches it, and streams and calls under way end within a second.
    pub disabled: bool,
    /// Networks that callers may come from: `10.0.0.0/8`, `2001:db8::/32`, single addresses. Absent: all. Restricts whatever
    /// grants the server.
    pub allowed_sources: Option<Vec<String>>,
    /// When callers may call, in UTC: `["Mon-Fri 08:00-18:00", "Sat 10:00-12:00"]`. Absent: always.
    pub allowed_times: Option<Vec<String>>,
    /// Users that may call, by name. Absent: all, and callers that are no user. Restricts whatever grants the server.
    pub allowed_users: Option<Vec<String>>,
    /// Agents that may call, by name. Absent: all, and callers that are no agent. Restricts whatever grants the server.
    pub allowed_agents: Option<Vec<String>>,
    /// Agents that may not call, by name: configured ones, and known ones such as `cursor`. Those that merely report themselves as
    /// such are kept out too; a report can be left out, so this keeps nobody out who wants in.
    pub blocked_agents: Vec<String>,
    /// What the gateway presents to the server.
    pub auth: UpstreamAuth,
    /// TLS to the server, where it is not the usual one.
    pub tls: UpstreamTls,
    /// Further headers sent to the server, treated as secrets. Values may hold references such as `${env:NAME}`.
    pub headers: BTreeMap<String, Secret>,
    /// Tools that may be called, `*` matching any text; absent: all. `[]`: none.
    pub allowed_tools: Option<Vec<String>>,
    /// Tools that nobody may call; beats every permission.
    pub blocked_tools: Vec<String>,
    /// Resources that may be read, by their URIs: `*` matches any text without `/`, `**` any text; absent: all. `[]`: none.
    pub allowed_resources: Option<Vec<String>>,
    /// Resources that nobody may read; beats every permission. What is written replaces the default list of files and
    /// addresses that hold secrets; `[]` lifts it.
    pub blocked_resources: Vec<String>,
    /// Prompts that may be used, `*` matching any text; absent: all. `[]`: none.
    pub allowed_prompts: Option<Vec<String>>,
    /// Prompts that nobody may use; beats every permission.
    pub blocked_prompts: Vec<String>,
    /// What the server may ask of its clients.
    pub client_requests: ClientRequests,
    /// From sending to the answer's head, or to the end of a JSON answer.
    pub timeout_ms: u64,
    /// Longest silence on an answering event stream, comments included.
    pub sse_read_timeout_ms: u64,
    /// Longest silence on a standing event stream, which waits for whatever the server will say, comments included. Then the stream
    /// is ended; clients come back with a new one.
    pub stream_idle_timeout_ms: u64,
    /// From sending to the end of the answer, however much comes in between. Default: an hour, or `timeout_ms` if that is longer.
    pub timeout_max_ms: Option<u64>,
    /// Times and limits of single tools, by the tool's name.
    pub tools: BTreeMap<String, ServerTool>,
    /// From dialling to an open connection, TLS included.
    pub connect_timeout_ms: u64,
    /// Bytes of one message of the server: a JSON answer or one event.
    pub answer_bytes_max: usize,
    /// Calls of the server that are pending at once; more are refused with 503. A standing event stream is none.
    pub pending_max: usize,
    /// Bytes of requests that pending calls of the server hold together; more are refused with 503.
    pub pending_bytes_max: usize,
    /// Connections to one endpoint, those of event streams included; a call that would need one more is refused with 503.
    pub connections_max: usize,
    /// How the endpoint is chosen for what belongs to no session.
    pub balance: Balancing,
    /// How long an endpoint that came, or came back, is given less than its share, growing evenly. 0: it gets all at once. Not
    /// for `ketama`.
    pub slow_start_ms: u64,
    /// From one resolution of the endpoints' names to the next. Connections are let go within two of them when an address is gone.
    pub resolve_interval_ms: u64,
    /// How the endpoints' health is checked.
    pub health: Health,
    /// When an endpoint that fails is left alone.
    pub breaker: Breaker,
    /// What all callers may use of the server together.
    pub limits: ServerLimits,
    /// What calls of its tools cost.
    pub mcp_server_cost_info: Costs,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            alias: None,
            url: None,
            endpoints: Vec::new(),
            transport: None,
            r#type: None,
            access: Access::Key,
            credentials: Credentials::Any,
            required_scopes: Vec::new(),
            access_groups: Vec::new(),
            disabled: false,
            allowed_sources: None,
            allowed_times: None,
            allowed_users: None,
            allowed_agents: None,
            blocked_agents: Vec::new(),
            auth: UpstreamAuth::default(),
            tls: UpstreamTls::default(),
            headers: BTreeMap::new(),
            allowed_tools: None,
            blocked_tools: Vec::new(),
            allowed_resources: None,
            blocked_resources: sensitive::RESOURCES.map(String::from).to_vec(),
            allowed_prompts: None,
            blocked_prompts: Vec::new(),
            client_requests: ClientRequests::default(),
            timeout_ms: 30_000,
            sse_read_timeout_ms: 60_000,
            stream_idle_timeout_ms: 3_600_000,
            timeout_max_ms: None,
            tools: BTreeMap::new(),
            connect_timeout_ms: 5_000,
            answer_bytes_max: 16 * 1024 * 1024,
            pending_max: 1_000,
            pending_bytes_max: 64 * 1024 * 1024,
            connections_max: 10_000,
            balance: Balancing::default(),
            slow_start_ms: 0,
            resolve_interval_ms: 30_000,
            health: Health::default(),
            breaker: Breaker::default(),
            limits: ServerLimits::default(),
            mcp_server_cost_info: Costs::default(),
        }
    }
}

/// `[servers.NAME.client_requests]`: what a server may ask of its clients. What it may not, it is not told they can.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientRequests {
    /// To have the client's model write something (`sampling/createMessage`).
    pub sampling: Relay,
    /// To ask the user something (`elicitation/create`).
    pub elicitation: Relay,
    /// To name the directories the client works in (`roots/list`).
    pub roots: Relay,
}

/// Whether what a server asks of its clients gets to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// It does.
    #[default]
    Allow,
    /// It does not.
    Deny,
}

/// One replica of a server.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The replica's MCP endpoint. May hold references such as `${env:NAME}`.
    pub url: String,
    /// Its share of new sessions and calls, relative to the others.
    #[serde(default = "one")]
    pub weight: usize,
    /// Lets its sessions go on and gives it nothing new, so that it can be taken away.
    #[serde(default)]
    pub draining: bool,
}

fn one() -> usize {
    1
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-synonyms" = { "streamable_http": "streamable-http", "http": "streamable-http" }))]
pub enum Transport {
    /// Streamable HTTP.
    #[serde(rename = "streamable-http", alias = "streamable_http", alias = "http")]
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05.
    #[serde(rename = "sse")]
    Sse,
    /// A child process.
    #[serde(rename = "stdio")]
    Stdio,
}

/// Who may call a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Callers with a key.
    #[default]
    Key,
    /// Everybody; a wrong key is still refused.
    Public,
}

/// What the gateway presents to a server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamAuth {
    /// `none`, `bearer` with `secret`, `header` with `name` and `secret`, or `basic` with `username` and `secret`.
    /// `bearer_token` and `api_key` are synonyms of `bearer` and `header`.
    pub r#type: UpstreamAuthType,
    /// The token, key or password, best as a reference: `"${env:NAME}"`, `"${file:PATH}"` or `"${cred:NAME}"`.
    pub secret: Option<Secret>,
    /// The header's name, for `header`.
    pub name: Option<String>,
    /// The user, for `basic`.
    pub username: Option<String>,
}

/// The form of what the gateway presents to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-synonyms" = { "bearer_token": "bearer", "api_key": "header" }))]
pub enum UpstreamAuthType {
    /// Nothing.
    #[default]
    None,
    /// `Authorization: Bearer SECRET`.
    #[serde(alias = "bearer_token")]
    Bearer,
    /// `NAME: SECRET`.
    #[serde(alias = "api_key")]
    Header,
    /// `Authorization: Basic ..`.
    Basic,
}

/// `[servers.NAME.health]`: how the endpoints' health is checked.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// `tcp` (a connection can be opened), `http` (`path` answers 2xx) or `none`.
    pub r#type: HealthType,
    /// The path asked, for `http`.
    pub path: String,
    /// From one check to the next.
    pub interval_ms: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self { r#type: HealthType::Tcp, path: "/".into(), interval_ms: 5_000 }
    }
}

/// What a health check does. A server with one endpoint is not checked: there is nowhere else to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthType {
    /// Opens a connection.
    #[default]
    Tcp,
    /// Asks for a path.
    Http,
    /// Checks nothing.
    None,
}
