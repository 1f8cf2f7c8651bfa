//! Configurations of any size, compiled, and callers with calls that they permit.
//!
//! An agent's matrix covers five servers, a key reaches twenty: what a caller may do does not grow with the whole.

use std::fmt;
use std::fmt::Write;

use bytes::Bytes;
use portcullis::call::Action;
use portcullis::call::Call;
use portcullis::config::model::Config;
use portcullis::config::problem::Problems;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::policy::Policy;
use portcullis::principal::Principal;

/// Agents of a configuration with many keys.
const AGENTS_MAX: usize = 200;
/// How big a configuration is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) keys: usize,
    pub(crate) servers: usize,
    pub(crate) tools_per_server: usize,
}

impl Scale {
    /// The policy of this size.
    pub(crate) fn policy(self) -> Policy {
        compile(&self.config())
    }

    /// All callers, and calls of `tool` on servers they reach.
    pub(crate) fn calls(self, tool: &str) -> Calls {
        let server = |agent: usize| format!("server_{}", (agent + 1) % self.servers);
        let agents = 0..self.keys.min(AGENTS_MAX);
        Calls {
            principals: (0..self.keys).map(|key| principal(&format!("key_{key:06}"))).collect(),
            calls: agents.map(|agent| Some(call(&server(agent), body(agent, tool)))).collect(),
            taken: 0,
        }
    }

    /// The configuration of this size.
    pub(crate) fn config(self) -> String {
        let mut text = String::new();
        for server in 0..self.servers {
            let tools: Vec<String> = (0..self.tools_per_server).map(|i| format!("\"tool_{i}\"")).collect();
            let tools = tools.join(",");
            writeln!(text, "[servers.server_{server}]\nurl = \"https://x.example/mcp\"").unwrap();
            writeln!(text, "allowed_tools = [{tools}, \"execute_query\", \"drop_table\"]").unwrap();
            writeln!(text, "blocked_tools = [\"drop_*\", \"delete_*\"]").unwrap();
        }
        let agents = self.keys.min(AGENTS_MAX);
        for agent in 0..agents {
            for server in (agent..agent + self.servers.min(5)).map(|server| server % self.servers) {
                writeln!(text, "[agents.agent_{agent}.servers.server_{server}]").unwrap();
                writeln!(text, "allowed_tools = [\"execute_query\", \"tool_*\"]").unwrap();
                writeln!(text, "argument_constraints.execute_query = [").unwrap();
                writeln!(text, "{{ arg = \"sql\", pattern = '^\\s*SELECT [a-z, _]+ FROM (t{agent}|customers)' }},")
                    .unwrap();
                writeln!(text, "{{ arg = \"limit\", pattern = '^[0-9]{{1,3}}$' }},").unwrap();
                writeln!(text, "{{ arg = \"mode\", pattern = '^(read|list)$' }} ]").unwrap();
            }
        }
        for key in 0..self.keys {
            let agent = key % agents;
            let servers = (agent..agent + self.servers.min(20)).map(|i| format!("\"server_{}\"", i % self.servers));
            let servers: Vec<String> = servers.collect();
            writeln!(text, "[keys.key_{key:06}]\nagent = \"agent_{agent}\"\nmcp_servers = [{}]", servers.join(","))
                .unwrap();
        }
        text
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, servers, tools_per_server } = self;
        write!(formatter, "{keys} keys, {servers} servers, {} tools", servers * tools_per_server)
    }
}

/// Callers, and calls that go round: a few hundred, as warm as a call is that was just read, while the callers are as cold
/// as in use. A call comes back from its verdict and is taken again, so that neither reading nor freeing a body counts.
pub(crate) struct Calls {
    principals: Vec<Principal>,
    /// One for each agent.
    calls: Vec<Option<Call>>,
    taken: usize,
}

impl Calls {
    /// One caller with one call.
    pub(crate) fn of(principal: Principal, call: Call) -> Self {
        Self { principals: vec![principal], calls: vec![Some(call)], taken: 0 }
    }

    /// The next caller, and where its call is.
    pub(crate) fn next(&mut self) -> (&Principal, &mut Option<Call>) {
        // The step is prime, so all callers are visited, none beside its neighbour.
        self.taken += 7919;
        let key = self.taken % self.principals.len();
        let agent = key % self.calls.len();
        (&self.principals[key], &mut self.calls[agent])
    }
}

/// The policy of a configuration without mistakes.
pub(crate) fn compile(config: &str) -> Policy {
    let config: Config = toml::from_str(config).unwrap();
    let mut problems = Problems::new();
    let policy = Policy::compile(&config, &mut problems);
    assert!(!problems.has_errors());
    policy
}

/// The holder of the key `name`.
pub(crate) fn principal(name: &str) -> Principal {
    Principal::of_key(name)
}

/// A call of what `body` says on `server`.
pub(crate) fn call(server: &str, body: Bytes) -> Call {
    let message = Message::read(body, &Limits::default()).unwrap();
    Call { server: server.into(), action: Action::Message(message), opened: Vec::new(), task_tool: None }
}

/// The body of a call, 300 bytes.
pub(crate) fn body(id: usize, tool: &str) -> Bytes {
    let sql = "SELECT id, name, created_at FROM customers WHERE region = 'eu' AND active = true ORDER BY created_at";
    let arguments =
        format!(r#"{{"sql":"{sql}","limit":100,"mode":"read","comment":"asked for by the weekly report"}}"#);
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":"#);
    format!(r#"{head}{arguments},"_meta":{{"progressToken":17}}}}}}"#).into()
}
